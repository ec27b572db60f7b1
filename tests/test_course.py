"""The course tool: what it lists, and running only what is missing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from common import results
from common.lesson import COURSE, ROOT, read_lesson, refer
from common.tools import course as course_tool


def course(*arguments: str, **environment) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "common.tools.course", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, encoding="utf-8", timeout=300)


def test_list_has_every_script_in_order_with_its_title():
    lines = [line for line in course("list").stdout.splitlines() if ".py" in line]
    assert [line.split()[0].removesuffix(".py") for line in lines] == list(COURSE)
    assert all(read_lesson(ROOT / f"{e}.py").title in line for e, line in zip(COURSE, lines, strict=True))


@pytest.fixture
def small_corpus(tmp_path, text_file):
    """The course's corpus is looked for where a small stand-in with the wrong checksum cannot be: so use the network-free fallback."""
    return {"GPT_STAIRCASE_DATA": str(tmp_path / "none"), "https_proxy": "http://127.0.0.1:9", "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_quick_runs_one_seed_of_a_stage(small_corpus):
    done = course("run", "01_bigram/count_bigram", "02_attention/bigram", "--quick", **small_corpus)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2] 02_attention/bigram seed 1" in done.stdout and "everything runs" in done.stdout
    assert not results.results_path().exists()


def test_only_what_is_missing_is_run(own_logs):
    reference = refer("count_bigram")
    values = dict.fromkeys(results.COLUMNS, 1.0) | {"experiment": reference.experiment, "arm": "default", "corpus": "tinyshakespeare"}
    for seed in (1, 2, 3):
        results.append(
            values | {"seed": seed, "config_hash": reference.config(), "code_hash": reference.code, "protocol": results.PROTOCOL}
        )
    done = course("run", "01_bigram/count_bigram")
    assert done.returncode == 0 and "0 runs to do, 3 of 3 are done already" in done.stdout
    said = course("status").stdout
    assert "01_bigram/count_bigram" in said and "seeds 1 2 3" in said and "not measured" in said and "lines to run" in said


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_an_interrupted_course_goes_on_from_its_checkpoint(own_logs, small_corpus):
    command = [sys.executable, "-m", "common.tools.course", "run", "02_attention/bigram", "--seeds", "1"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | small_corpus, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(own_logs.glob("runs/**/checkpoint.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from there" in said, (said, error)
    assert not results.results_path().exists()
    assert course("run", "02_attention/bigram", "--seeds", "1", **small_corpus).returncode == 0
    assert len(results.read()) == 1


def test_again_trains_again_where_a_finished_checkpoint_is_there(monkeypatch):
    job = [(refer("bigram"), 1)]
    monkeypatch.setattr(course_tool, "resumable", lambda *_: True)
    assert "--resume" in course_tool.command_line(job, quick=False)
    assert "--resume" not in course_tool.command_line(job, quick=False, again=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "03_fn"], "'03_fn' is no script of the course"),
        (["run", "--seeds"], "--seeds wants"),
        (["walk"], "walk"),
        ([], "run, list, status"),
    ],
)
def test_bad_input_is_one_line(arguments, said):
    done = course(*arguments)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
