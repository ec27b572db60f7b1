"""What a reader predicts is asked for before a run, confronted with what came, and kept."""

import math

import pytest

from common import outcome, results
from common.errors import UserError
from common.lessons.course import course_plan
from common.report import summary
from common.results import predictions
from common.results.predictions import Prediction
from common.results.statistics import Interval
from common.tools.predictions import calibration, show_predictions

SMALL = "--corpus pydoc --steps 20 --block-size 8 --batch-size 4 --n-embd 16 --no-pictures"


@pytest.mark.parametrize(
    ("said", "mean", "half", "right"),
    [
        ("better", -0.3, 0.1, True), ("better", -0.05, 0.1, False), ("better", 0.3, 0.1, False),
        ("worse", 0.3, 0.1, True), ("same", 0.05, 0.1, True), ("same", -0.3, 0.1, False),
        ("-0.25", -0.3, 0.1, True), ("-0.1", -0.3, 0.1, False), ("0.3", -0.3, 0.1, False),
        ("better", -0.3, math.nan, None), ("-0.3", -0.3, math.nan, None),
    ],
)  # fmt: skip
def test_a_prediction_is_right_where_the_interval_says_so(said, mean, half, right):
    assert Prediction(said, Interval(mean, half, 3)).right is right


@pytest.mark.parametrize("said", ["", "Better", "nan", "inf", "-0.1 bits", "better worse"])
def test_what_is_no_prediction_is_refused(said):
    with pytest.raises(UserError, match="says nothing; write better, worse, same, or the difference"):
        predictions.check(said)


def test_predictions_are_kept_and_read_back(tmp_path):
    path = tmp_path / "predictions.csv"
    run = {"timestamp": "2026-01-01", "experiment": "a/b", "arm": "c", "against": "a/d", "config_hash": "e"}
    for said in ("better", "-0.125"):
        predictions.append(Prediction(said, Interval(-1 / 3, 0.1, 3)), run, path)
    (line, first), (_, second) = predictions.read(path)
    assert line["experiment"] == "a/b" and first == Prediction("better", Interval(-1 / 3, 0.1, 3))
    assert second.number == -0.125
    path.write_text(path.read_text(encoding="utf-8").replace("-0.125", "soon"), encoding="utf-8")
    with pytest.raises(UserError, match="line 3 is no prediction of this course"):
        predictions.read(path)
    path.write_text("my,own\n", encoding="utf-8")
    with pytest.raises(UserError, match="has no predictions of this course"):
        predictions.append(second, run, path)
    assert path.read_text(encoding="utf-8") == "my,own\n"


def test_calibration_counts_what_came():
    def one(said, mean, half=0.1):
        return Prediction(said, Interval(mean, half, 3))

    said = calibration(
        [one("better", -1), one("better", 0), one("same", 0), one("-0.5", -0.45), one("1", 0.2)]
    )
    assert said[0] == "better: 1 of 2 right (1 same)" and said[1] == "same: 1 of 1 right"
    assert (
        said[2]
        == "numbers: 1 of 2 inside the interval, 2 larger than what came; off by 0.425 bits on average"
    )
    assert said[3] == "in all: 3 of 5 right" and len(said) == 4
    assert calibration([one("better", -1, math.nan)]) == ["1 cannot be told from one seed; --seeds 1 2 3 can"]


def test_a_run_confronts_what_was_predicted(script, own_logs, capsys):
    for name in ("bigram", "average"):
        refused = script(f"02_attention/{name}", f"{SMALL} --seeds 1 2 --predict worse")
        if name == "bigram":  # by_hand has no batches of this size; nothing is there to compare with
            assert refused.returncode == 2 and "--predict needs" in refused.stderr
            assert not results.results_path().exists()
            assert script(f"02_attention/{name}", f"{SMALL} --seeds 1 2").returncode == 0
        else:
            assert refused.returncode == 0, refused.stderr
            assert "prediction  worse\nfound       " in refused.stdout
            assert "against 02_attention/bigram, 2 seeds: " in refused.stdout
    ((line, kept),) = predictions.read()
    assert (line["experiment"], line["against"], kept.said) == (
        "02_attention/average",
        "02_attention/bigram",
        "worse",
    )
    rows = results.read()
    means = rows.groupby("experiment").test_bpc.mean()
    assert kept.found.mean == pytest.approx(means["02_attention/average"] - means["02_attention/bigram"])
    show_predictions()
    assert "02_attention/average" in capsys.readouterr().out


def test_what_cannot_be_confronted_is_refused_before_training():
    plan = course_plan("08_micro_arch/norm")
    with pytest.raises(UserError, match="about one arm; name it with --arms: layernorm, rmsnorm"):
        outcome.check_prediction(plan, list(plan.arms), plan.defaults, "better")
    plan = course_plan("01_bigram/count_bigram")
    with pytest.raises(UserError, match="needs something to be compared with"):
        outcome.check_prediction(plan, ["default"], plan.defaults, "better")


def test_an_arm_is_judged_against_the_baseline_of_its_script(tracked):
    plan = course_plan("08_micro_arch/norm")
    other = summary.beside(plan, "rmsnorm", plan.defaults, "tinyshakespeare")
    assert other and other.name == "08_micro_arch/norm:layernorm" and len(other.rows) >= 5
    outcome.check_prediction(plan, ["rmsnorm"], plan.defaults, "-0.01")
