"""Arms that are judged together: how often equal ones are told apart, and what is said then."""

import math

import numpy as np
import pytest
from scipy import stats

from common import results
from common.lessons.course import course_plan, course_references, refer
from common.paths import ROOT
from common.report.evidence import Measured
from common.results import families
from common.results.statistics import Interval, dunnett, family, interval


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


def test_a_line_that_lacks_a_seed_or_diverged_is_not_judged_with_the_others(monkeypatch):
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(ROOT / "logs"))
    measured = Measured()
    lines = [r for r in course_references("08_micro_arch/norm") if measured.line(r).state != "missing"]
    if len(lines) < 4:
        pytest.skip("the norms are not measured yet")
    lacking, diverged = lines[1], lines[2]

    def rows(line):
        own = measured.rows(line).copy()
        if line == lacking:
            return own.iloc[1:]
        own.loc[own.index[:1], "diverged"] = line == diverged
        return own

    together = families.judged_together("08_micro_arch/norm", rows)
    assert lacking not in together and diverged not in together
    assert set(together) == set(lines[3:])
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
