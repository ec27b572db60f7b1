"""Arms that are judged together: how often equal ones are told apart, and what is said then."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from common import results
from common.lessons.course import Reference, course_plan, course_references, refer
from common.paths import ROOT
from common.report import readme
from common.report.evidence import NOT_YET, Measured
from common.results import extra, families
from common.results.statistics import Interval, dunnett, family, interval
from common.tools import again, course


def arms(rng, k: int, n: int, effect=0.0, spread=0.01, seeds=0.01) -> dict[str, np.ndarray]:
    """Scores of a baseline ("") and k arms over n seeds, each of which is good or bad for all."""
    shared = rng.normal(0, seeds, n)
    return {
        f"{i or ''}": 2.7 + shared + (effect if i else 0) + rng.normal(0, spread, n) for i in range(k + 1)
    }


@pytest.mark.parametrize(("k", "n"), [(2, 3), (5, 5), (8, 5)])
def test_dunnetts_constant_is_the_librarys(k, n):
    samples = list(arms(np.random.default_rng(1), k, n, seeds=0).values())
    theirs = stats.dunnett(*samples[1:], control=samples[0]).confidence_interval(0.95)
    pooled = math.sqrt(sum(((x - x.mean()) ** 2).sum() for x in samples) / ((k + 1) * (n - 1)))
    constant = (theirs.high - theirs.low)[0] / 2 / (pooled * math.sqrt(2 / n))
    assert math.isclose(dunnett(k, (k + 1) * (n - 1)), constant, rel_tol=0.01)


def test_for_one_difference_it_is_students():
    assert math.isclose(dunnett(1, 8), stats.t.ppf(0.975, 8), rel_tol=1e-3)


def test_equal_arms_are_rarely_told_apart_all_together():
    """In 5 % of the scripts any arm is; judged each for itself, it would be four times as many."""
    rng, together, alone = np.random.default_rng(2), 0, 0
    for _ in range(600):
        scores = arms(rng, 6, 5)
        found = family(scores.pop(""), scores)
        together += any(difference.verdict in ("better", "worse") for difference in found.values())
        base = rng.normal(2.7, 0.01, 5)
        alone += any(
            interval(rng.normal(2.7, 0.01, 5) - base).verdict in ("better", "worse") for _ in range(6)
        )
    assert 0.025 < together / 600 < 0.08 < 0.12 < alone / 600


def test_what_all_seeds_share_does_not_hide_a_difference():
    found = family(*_split(arms(np.random.default_rng(3), 5, 5, effect=0.03, seeds=0.2)))
    assert all(difference.verdict == "worse" for difference in found.values())


def _split(scores: dict) -> tuple:
    return scores.pop(""), scores


def test_an_arm_that_varies_more_than_the_others_is_judged_by_its_own_spread():
    rng = np.random.default_rng(4)
    base, others = _split(arms(rng, 5, 5))
    before = family(base, others)
    others["3"] = 2.7 + np.array([0.0, 0.01, 0.4, -0.1, 0.2])
    after = family(base, others)
    own = interval(others["3"] - base)
    assert after["3"].half > own.half  # at 1 - 0.05 / 5
    assert all(after[name].half < 1.5 * before[name].half for name in others if name != "3")
    assert all(difference.together == 5 for difference in after.values())


def test_a_null_result_says_what_it_is_smaller_than():
    assert Interval(-0.01, 0.02, 5, 4).verdict == "no measurable difference, below 0.030"
    assert Interval(-0.01, 0.02, 5).verdict == "no measurable difference"
    assert Interval(-0.03, 0.02, 5, 4).verdict == "better"


def test_from_stage_08_on_each_line_is_compared_with_the_first_of_its_script(monkeypatch):
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(ROOT / "logs"))
    measured = Measured()
    assert families.baseline("08_micro_arch/norm") == refer("norm:layernorm")
    assert families.baseline("07_tokenizer_gqa/gqa") is None
    assert families.baseline("08_micro_arch/qk_norm") is None  # as its header says
    lines = [r for r in course_references("08_micro_arch/norm") if measured.line(r).state != "missing"]
    if len(lines) < 3:
        pytest.skip("the norms are not measured yet")
    found = [families.difference(line, lines[0], measured.rows) for line in lines[1:]]
    assert {difference.together for difference in found} == {len(lines) - 1}
    other = families.difference(lines[2], lines[1], measured.rows)  # not fixed beforehand: for itself
    assert other.together == 1
    assert math.isclose(
        other.mean, (measured.rows(lines[2]).test_bpc.mean() - measured.rows(lines[1]).test_bpc.mean())
    )
    assert families.difference(lines[1], lines[0], measured.rows, "test_loss").together == 1


def test_a_line_that_lacks_a_seed_diverged_or_saw_more_is_not_judged_with_the_others(monkeypatch):
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(ROOT / "logs"))
    measured = Measured()
    lines = [r for r in course_references("08_micro_arch/norm") if measured.line(r).state != "missing"]
    if len(lines) < 5:
        pytest.skip("the norms are not measured yet")
    lacking, diverged, longer = lines[1:4]

    def rows(line):
        own = measured.rows(line).copy()
        if line == lacking:
            return own.iloc[1:]
        own.loc[own.index[:1], "diverged"] = line == diverged
        own["tokens_seen"] *= 2 if line == longer else 1
        return own

    together = families.judged_together("08_micro_arch/norm", rows)
    assert set(together) == {str(line) for line in lines[4:]}
    assert families.difference(lacking, lines[0], rows).together == 1


def test_the_command_and_the_page_judge_alike(monkeypatch, capsys):
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(ROOT / "logs"))
    from common.results import comparison

    if not len(results.course_rows(refer("norm:rmsnorm"))):
        pytest.skip("the norms are not measured yet")
    monkeypatch.setattr("sys.argv", ["results", "compare", "norm:rmsnorm", "norm:layernorm"])
    comparison.main()
    found = families.difference(refer("norm:rmsnorm"), refer("norm:layernorm"), Measured().rows)
    assert f"± {found.half:.4f}" in capsys.readouterr().out
    assert course_plan("08_micro_arch/norm").header.seeds == [1, 2, 3, 4, 5]


# ---- copies of the baseline ----------------------------------------------------------------------

SHORT = "--steps 3 --warm-up 1 --corpus pydoc --n-layer 1 --tokenizer byte"


def test_a_copy_has_the_batches_of_its_seed_and_other_weights(monkeypatch):
    line = Reference("08_micro_arch/norm", "layernorm", SHORT)
    seen, weights = [], []
    plan = course_plan(line.experiment)

    def train(model, data, s, recorder):
        weights.append(next(model.parameters()).detach().clone())
        seen.append([data.batch(step)[0] for step in recorder.steps(model)])
        plan.train(model, data, s, recorder)

    monkeypatch.setattr(again, "course_plan", lambda _: dataclasses.replace(plan, train=train))
    scores = [again.train_copy(line, copy, seed) for copy, seed in ((1, 1), (1, 1), (2, 1), (1, 2))]
    assert scores[0] == scores[1] != scores[2] and len(seen[0]) == 3
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[2], strict=True))
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(seen[0][0], seen[3][0])


def test_copies_that_are_equal_and_one_that_is_not(monkeypatch):
    """Made up beside the measured norms: one copy lies as far off as a model without norms."""
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(ROOT / "logs"))
    measured = Measured()
    first = families.baseline("08_micro_arch/norm")
    if measured.line(first).state == "missing":
        pytest.skip("the norms are not measured yet")
    bits = measured.rows(first).set_index("seed").test_bpc
    made = {1: bits + 0.001, 2: bits - 0.001, 3: bits + 0.2, 4: bits.iloc[1:]}  # the last lacks a seed
    rows = [extra.copy_score(first, copy, seed, v) for copy, b in made.items() for seed, v in b.items()]
    scores = pd.DataFrame(rows)
    assert families.false_alarms("08_micro_arch/norm", measured.rows, scores) == (1, 3)
    measured.scores = scores
    assert readme.figure(measured, "alarms(norm)") == "1 of 3"
    scores["fingerprint"] = "older"
    assert families.false_alarms("08_micro_arch/norm", measured.rows, scores) == (0, 0)
    assert readme.figure(measured, "alarms(norm)") == NOT_YET


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gqa"], "are not judged together"),
        (["norn"], "did you mean"),
        (["norm", "--jobs", "0"], "--jobs 0 makes no sense"),
    ],
)
def test_what_has_no_copies_is_one_line(arguments, said, own_logs, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["course", "again", *arguments])
    with pytest.raises(SystemExit) as stop:
        course.main()
    assert stop.value.code == 2 and said in capsys.readouterr().err
    assert not extra.extra_path().exists()


def test_only_what_is_missing_is_run(own_logs, monkeypatch, capsys):
    first = families.baseline("08_micro_arch/norm")
    monkeypatch.setattr(extra, "COPIES", 2)
    monkeypatch.setattr(again, "train_copy", lambda line, copy, seed: 2.7)
    monkeypatch.setattr(again, "prepare", lambda device: None)
    monkeypatch.setattr("sys.argv", ["again", "norm", "1", "3"])
    again.main()
    begun = []
    again.again(again.Again("norm", jobs=1), lambda tasks, jobs: begun.extend(tasks))
    assert len(begun) == 9 and not any(task.name.endswith("copy 1, seed 3") for task in begun)
    assert "9 runs to do" in capsys.readouterr().out and extra.copies(first) == {1: {3: 2.7}}
    monkeypatch.setattr("sys.argv", ["again", "norm", "1", "9"])
    with pytest.raises(SystemExit):
        again.main()
    assert "has no copy 1 with seed 9" in capsys.readouterr().err
