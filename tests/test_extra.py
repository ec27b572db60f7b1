"""Scores that are no column of the results: logged once, tied to the code that gave them, shown with it, and
not lost.
"""

import csv
import shutil

import pandas as pd
import pytest
import torch

from common import results
from common.errors import UserError
from common.lessons.course import course_plan, course_references, refer
from common.lessons.plan import Plan
from common.report import pictures, plots, readme
from common.report.evidence import NOT_YET, Measured
from common.results import extra
from common.tools import course, step_time
from common.training import presence

POSITION = "08_micro_arch/position"
SHORT = "--corpus pydoc --tokenizer byte --steps 3 --warm-up 0 --batch-size 2 --n-layer 1"


@pytest.fixture
def scored(own_logs):
    """A line of the course with five rows and their scores, all of the present code."""
    reference = refer("position:rope")
    plan, config = course_plan(POSITION), reference.config()
    known = {name: 1.5 for name in results.COLUMNS} | {
        "experiment": POSITION,
        "arm": "rope",
        "corpus": "tinyshakespeare",
        "protocol": 1,
    }
    known |= {
        "diverged": False,
        "config_hash": config,
        "code_hash": reference.code,
        "tokenizer": "bpe-1024",
        "git_commit": "1234567",
    }
    for seed in range(1, 6):
        results.append(known | {"seed": seed})
        extra.append(
            extra.lines(plan, "rope", seed, config, {"bpc at 64": 2.0 + seed / 100, "bpc at 128": 3.0})
        )
    return reference


def test_a_run_logs_its_scores_once(script, own_logs):
    done = script(POSITION, f"{SHORT} --arms learned rope")
    assert done.returncode == 0, done.stderr
    assert "learned positions end with the window of 64: no score at 128" in done.stdout
    rows, found = results.read(), extra.read()
    assert list(zip(found.arm, found.what, strict=True)) == [
        ("learned", "bpc at 64"), *[("rope", f"bpc at {context}") for context in (64, 128, 256, 512)],
    ]  # fmt: skip
    windows = found[found.what == "bpc at 64"].value  # the trained window: the score that is in the results
    assert windows.tolist() == pytest.approx(rows.test_bpc.tolist(), rel=1e-6)
    assert set(found.seed) == {1} and (found.value > 1).all()
    assert script(POSITION, f"{SHORT} --arms learned rope --resume").returncode == 0
    assert len(extra.read()) == 5
    table = next(own_logs.glob(f"runs/{POSITION}/overview-*/lengths.csv"))
    with table.open(encoding="utf-8", newline="") as file:
        assert [(line["arm"], line["what"], float(line["value"])) for line in csv.DictReader(file)] == [
            (row.arm, row.what, row.value) for row in found.itertuples()
        ]


def test_scores_that_were_lost_are_scored_again_without_training(script, own_logs):
    assert script(POSITION, f"{SHORT} --arms rope").returncode == 0
    before = extra.extra_path().read_bytes()
    extra.extra_path().unlink()
    done = script(POSITION, f"{SHORT} --arms rope --resume")
    assert done.returncode == 0 and extra.extra_path().read_bytes() == before and len(results.read()) == 1


def test_what_is_not_logged_leaves_no_score(script, own_logs):
    assert script(POSITION, f"{SHORT} --arms rope --no-log").returncode == 0
    assert not extra.extra_path().exists()


def test_a_line_without_its_scores_is_not_done(scored, monkeypatch):
    jobs = [(scored, seed) for seed in (1, 2, 6)]
    assert course.missing(jobs) == [(scored, 6)]
    monkeypatch.setattr(Plan, "scores_code", property(lambda self: "of another kind"))
    assert course.missing(jobs) == jobs


def test_scores_are_shown_with_their_interval_and_their_state(scored, monkeypatch):
    assert readme.figure(Measured(), "score(position:rope, bpc at 64, .2f)") == "2.03\u00a0±\u00a00.02"
    shown = readme.score_table(Measured(), "position:rope; position:learned", "bpc at 64; bpc at 128")
    assert (
        "`rope` | 2.030\u00a0±\u00a00.020 | 3.000\u00a0±\u00a00.000 |" in shown
        and "`learned` | _not measured yet_ |  |" in shown
    )
    monkeypatch.setattr(Plan, "scores_code", property(lambda self: "of another kind"))
    assert readme.figure(Measured(), "score(position:rope, bpc at 64, .2f)").endswith("[†](#trust)")
    for wrong, said in (
        ("score(position:rope, bpc at 99)", "gives no score 'bpc at 99'"),
        ("score(gqa:mha, x)", "gives no scores"),
    ):
        with pytest.raises(UserError, match=said):
            readme.figure(Measured(), wrong)


def test_a_score_that_the_picture_makes_up_is_found(scored):
    table = plots.folder() / "08_micro_arch_position_lengths.csv"
    table.parent.mkdir(parents=True)
    lines = [("rope", seed, 64, "bpc at 64", 2.0 + seed / 100) for seed in range(1, 6)]
    for wrong in (0.0, 0.01):
        written = [(*line[:4], line[4] + wrong) for line in lines]
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("arm", "seed", "x", "what", "value"), *written])
        found = [p for p in pictures.overview_problems(Measured(), POSITION, [table]) if "scores say" in p]
        assert bool(found) == bool(wrong), found


def test_times_are_logged_from_the_tables_that_were_measured(tmp_path):
    (tmp_path / "measured-0123").mkdir()
    path = tmp_path / "measured-0123" / "time.csv"
    path.write_text("what,norm,width,microseconds\na norm,RMSNorm,64,12.5\n", encoding="utf-8")
    extra.append(extra.measured("08_micro_arch/norm", path.parent))
    (row,) = extra.read().itertuples(index=False)
    assert tuple(row) == ("08_micro_arch/norm", "RMSNorm", 0, "a norm, width 64", 12.5, "measured-0123")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "is not a file of scores of this course"),
        (",".join(extra.COLUMNS) + "\nx,y,1,z\n", "line 2 is no score of this course"),
        (",".join(extra.COLUMNS) + "\nx,y,one,z,2.0,f\n", "line 2 is no score of this course"),
        (",".join(extra.COLUMNS) + "\nx,y,1,z,much,f\n", "line 2 is no score of this course"),
    ],
)
def test_a_file_that_is_not_ours_or_torn(text, said, own_logs):
    own_logs.mkdir()
    extra.extra_path().write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        extra.read()
    assert extra.extra_path().read_text(encoding="utf-8") == text


def test_a_foreign_file_is_told_before_the_training(script, own_logs):
    own_logs.mkdir()
    extra.extra_path().write_text("a,b\n1,2\n", encoding="utf-8")
    done = script(POSITION, f"{SHORT} --arms rope")
    assert (
        done.returncode == 2
        and "is not a file of scores of this course" in done.stderr
        and done.stderr.count("\n") == 1
    )
    assert not results.results_path().exists() and not (own_logs / "runs").exists()
    shutil.rmtree(own_logs)


def test_the_milliseconds_of_a_step_from_the_command_to_the_page(own_logs, monkeypatch, capsys):
    """Measured with the course's own loop; shown as not measured with the present code where it was not."""
    monkeypatch.setattr(step_time, "ROUNDS", 1)
    monkeypatch.setattr(step_time, "STEPS", 2)
    monkeypatch.setattr("sys.argv", ["course", "time", "08_micro_arch/norm"])
    monkeypatch.setattr(presence, "folder", lambda: own_logs / "running")
    threads = torch.get_num_threads()
    try:
        course.main()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    lines = course_references("08_micro_arch/norm")
    rows = extra.read()
    assert (
        list(rows.arm) == [line.arm for line in lines]
        and set(rows.what) == {extra.STEP}
        and (rows.value > 0).all()
    )
    value, current = extra.step_of(lines[1], rows)
    assert current and value == rows.value[1] and f"{value:.1f} ms a step" in capsys.readouterr().out
    assert readme.figure(Measured(), "step(norm:rmsnorm, .1f)") == f"{value:.1f}"
    older = rows.iloc[[1]].assign(value=99.0, fingerprint=f"{lines[1].config()}-older-step")
    assert extra.step_of(lines[1], pd.concat([rows, older])) == (value, True)
    rows.loc[1, "fingerprint"] = f"{lines[1].config()}-older-step"
    assert extra.step_of(lines[1], rows) == (value, False)
    assert extra.step_of(lines[2], rows.iloc[:1]) == (None, False)
    assert readme.figure(Measured(), "step(gpt)") == NOT_YET


def test_counting_has_no_steps_to_time(own_logs, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["course", "time", "01_bigram/ngram"])
    with pytest.raises(SystemExit) as stop:
        course.main()
    assert stop.value.code == 2 and "trained with a loop that is timed" in capsys.readouterr().err
