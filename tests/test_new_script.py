"""A script that is added to the course is in order at once: before it has rows, and after."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from common.paths import ROOT

NEW = "02_attention/other_scale"
BLOCK = """
<!-- table: other_scale -->
<!-- end -->

It needs <!--=value(other_scale, test_bpc, .2f)--><!--/--> bits,
<!--=difference(other_scale, multi_head, test_bpc, .3f)--><!--/-->.

"""


def own(folder) -> dict[str, str]:
    """An environment in which the copy is the project, with logs of its own."""
    return {k: v for k, v in os.environ.items() if k != "GPT_STAIRCASE_LOGS"} | {"PYTHONPATH": str(folder)}


def insert(path, place: str, new: str, after: bool = False) -> None:
    """Put text into a file, before or after the one place that is named."""
    text = path.read_text(encoding="utf-8")
    assert text.count(place) == 1
    path.write_text(text.replace(place, place + new if after else new + place), encoding="utf-8")


@pytest.fixture
def copy(tmp_path):
    """A copy of the project with one script more, and a function that runs a module in it."""
    folder = tmp_path / "copy"
    ignored = shutil.ignore_patterns(
        "runs", ".git", "__pycache__", "*.egg-info", ".venv", ".pytest_cache", ".ruff_cache"
    )
    shutil.copytree(ROOT, folder, ignore=ignored)
    text = (folder / "02_attention/multi_head.py").read_text(encoding="utf-8")
    text = re.sub(r"Previous : \S+", "Previous : 02_attention/multi_head.py", text, count=1)
    text = re.sub(r"Changes  : .*", "Changes  : MultiHeadAttention", text, count=1)
    text = text.replace("/ q.size(-1) ** 0.5", "* q.size(-1) ** -0.5")
    (folder / f"{NEW}.py").write_text(text, encoding="utf-8")
    insert(
        folder / "common/lessons/course.py", '    "02_attention/multi_head",\n', f'    "{NEW}",\n', after=True
    )
    insert(folder / "README.md", "<!-- picture: curves_02_attention", BLOCK.lstrip())

    def run(*module: str) -> subprocess.CompletedProcess:
        environment = {k: v for k, v in os.environ.items() if k != "GPT_STAIRCASE_LOGS"} | {
            "PYTHONPATH": str(folder)
        }
        return subprocess.run(
            [sys.executable, "-m", *module],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )

    return folder, run


def add_rows(folder) -> None:
    """Rows of the new script, as a run of it would append them: those of its predecessor, with its name and
    code, a little better.
    """
    program = (
        "from common import results; from common.lessons import refer\n"
        f"new = refer({NEW!r})\n"
        "for row in results.course_rows(refer('multi_head')).to_dict('records'):\n"
        "    row |= {'experiment': new.experiment, 'config_hash': new.config(), 'code_hash': new.code}\n"
        "    row |= {'test_bpc': row['test_bpc'] - 0.125, 'threads': 1, 'alone': False}\n"
        "    results.append(row) if row['seed'] < 4 else None\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=own(folder), check=True)


@pytest.mark.slow
def test_a_script_without_rows_is_in_order_and_so_it_is_with_them(copy):
    folder, run = copy
    checked = run("common.report", "--check")
    # nothing is generated yet
    assert checked.returncode == 1 and checked.stdout.count("stale: README.md, line") >= 3, checked.stdout
    for measured in (False, True):
        if measured:
            header = (folder / f"{NEW}.py").read_text(encoding="utf-8")
            (folder / f"{NEW}.py").write_text(
                re.sub(r"Seeds    : .*", "Seeds    : 1 2 3", header), encoding="utf-8"
            )
            add_rows(folder)
            # the page does not say yet what is measured
            assert run("common.report", "--check").returncode == 1
        written = run("common.report")
        lost = [line for line in written.stdout.splitlines() if line.startswith("stale: ")]
        assert (
            all("the learning curve of 02_attention/other_scale" in line for line in lost)
            and len(lost) == 3 * measured
        ), written.stdout
        status = run("common.tools.course", "status")
        line = next(line for line in status.stdout.splitlines() if line.startswith(NEW))
        page = (folder / "README.md").read_text(encoding="utf-8")
        stairs = (folder / "logs/plots/staircase.csv").read_text(encoding="utf-8")
        if measured:
            assert (
                "seeds 1 2 3 " in line
                and "not measured" not in line
                and "other_scale" not in status.stdout.splitlines()[-1]
            )
            assert (
                "−0.125\u00a0±\u00a00.000<!--/-->." in page
                and f"{NEW},stage,3.2" in stairs
                and "not measured yet: `other_scale`" not in page
            )
            # not alone: no seconds
            assert "[other_scale](02_attention/other_scale.py) | 24,769 |  | " in page
        else:
            assert run("common.report", "--check").returncode == 0
            assert (
                status.returncode == 1
                and line.endswith("not measured yet")
                and " lines to run" in status.stdout.splitlines()[-1]
            )
            assert page.count("_not measured yet_<!--/-->") >= 2 and f"{NEW},stage,,,missing" in stairs
            assert re.search(r"not measured yet: .*`other_scale`", page)
