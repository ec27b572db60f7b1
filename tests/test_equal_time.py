"""Arms after the same seconds: a model whose step takes twice as long is read at half of its steps."""

import pandas as pd
import pytest

from common.errors import UserError
from common.lessons.course import course_references
from common.report import equal_time, plots
from common.report.evidence import DAGGER, NOT_YET, Measured
from common.report.tables import spread
from common.results import extra
from common.results.statistics import family
from common.results.table import course_rows, repeated_rows

LINES = course_references("08_micro_arch/norm")
SLOW = LINES[1]


@pytest.fixture
def timed(tracked):
    """The tracked results, with a step of the second arm that takes twice as long as one of any other."""
    measured = Measured()
    if any(measured.line(line).state == "missing" for line in LINES):
        pytest.skip("the norms are not measured yet")
    rows = [extra.step_time(line, 20.0 if line == SLOW else 10.0) for line in LINES]
    others = measured.scores[measured.scores.what != extra.STEP]
    measured.scores = pd.concat([others, pd.DataFrame(rows)], ignore_index=True)
    return measured


def test_a_slow_arm_is_read_earlier(timed):
    lines = {
        line.split(" | ")[0][2:]: line.split(" | ") for line in equal_time.table(timed, "norm").splitlines()
    }
    last = int(timed.rows(SLOW).steps.iloc[0])
    assert lines[SLOW.arm][1:3] == ["20.0", str(last // 2)]
    assert all(lines[line.arm][1:3] == ["10.0", str(last)] for line in LINES if line != SLOW)
    curves = pd.read_csv(plots.folder() / "curves_08_micro_arch.csv").merge(
        pd.concat(timed.rows(line)[["experiment", "arm", "seed", "code_hash"]] for line in LINES)
    )

    def at(line, step: int) -> list[float]:
        """Bits at a step of the curve, or at the middle of two points."""
        own = curves[curves.arm == line.arm]
        points = sorted({near for near in own.step if abs(near - step) < last / 15})
        near = [max(p for p in points if p <= step), min(p for p in points if p >= step)]
        values = [own[own.step == p].sort_values("seed").val_bpc.to_numpy() for p in near]
        share = (step - near[0]) / (near[1] - near[0]) if near[1] > near[0] else 0.0
        return list(values[0] * (1 - share) + values[1] * share)

    arms = {str(line): at(line, last // 2 if line == SLOW else last) for line in LINES[1:]}
    expected = family(at(LINES[0], last), arms)
    assert lines[SLOW.arm][4] == spread(expected[str(SLOW)], sign=True)
    assert lines[SLOW.arm][3] != lines[SLOW.arm][4]
    assert lines[SLOW.arm][5].startswith("worse")


def test_a_shorter_run_has_equal_time_only(timed):
    """It sets the time for all; after its last step it cannot be compared at equal steps."""
    path = plots.folder() / "curves_08_micro_arch.csv"
    curves = pd.read_csv(path)
    own = curves[curves.arm == SLOW.arm].step
    half = own[own <= own.max() // 2].max()
    curves[(curves.arm != SLOW.arm) | (curves.step <= half)].to_csv(path, index=False)
    table = equal_time.table(timed, f"norm {LINES[0].arm} {SLOW.arm} {LINES[2].arm}")
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert [line[0] for line in lines] == [line.arm for line in (LINES[0], SLOW, LINES[2])]
    assert [line[2] for line in lines] == [str(2 * half), str(half), str(2 * half)]
    assert lines[1][3] == f"{half} steps only" and "±" in lines[1][4] and "±" in lines[2][3]


def test_an_arm_that_is_not_there_is_refused(timed):
    with pytest.raises(UserError, match="no arm 'rmsnorn'; did you mean 'rmsnorm'"):
        equal_time.table(timed, "norm layernorm rmsnorn")


def test_without_times_it_is_not_measured_yet(timed):
    timed.scores = timed.scores[~((timed.scores.arm == SLOW.arm) & (timed.scores.what == extra.STEP))]
    assert equal_time.table(timed, "norm") == f"{NOT_YET}\n"


def test_a_time_of_earlier_code_has_a_dagger(timed):
    own = (timed.scores.arm == SLOW.arm) & (timed.scores.what == extra.STEP)
    timed.scores.loc[own, "fingerprint"] = f"{SLOW.config()}-older-step"
    assert f"| {SLOW.arm} | 20.0{DAGGER} |" in equal_time.table(timed, "norm")


def test_a_curve_that_is_not_there_is_not_measured_yet(timed):
    (plots.folder() / "curves_08_micro_arch.csv").unlink()
    assert equal_time.table(timed, "norm") == f"{NOT_YET}\n"


def test_a_rate_that_falls_has_no_equal_time(timed, monkeypatch):
    from common.report import equal_time as module

    line = course_references("06_transformer/gpt")[0]
    monkeypatch.setattr(module, "course_references", lambda _: [line])
    monkeypatch.setattr(type(module.course_plan(line.experiment)), "own", lambda *_: _cosine())
    with pytest.raises(UserError, match="--cosine"):
        equal_time.table(timed, "gpt")


def _cosine():
    from dataclasses import replace

    from common.settings import Settings

    return replace(Settings(), cosine=True)


def test_a_repeated_run_stands_in_for_a_lost_curve(tracked):
    """The first row of a seed is the one that counts; a repetition is known too, with its own curve."""
    line = LINES[0]
    measured = Measured()
    first = measured.rows(line)
    if not len(first):
        pytest.skip("the norms are not measured yet")
    again = first.iloc[:1].assign(val_loss=first.val_loss.iloc[0] + 0.01)
    rows = pd.concat([measured.all, again], ignore_index=True)
    assert course_rows(line, rows).val_loss.tolist() == first.val_loss.tolist()
    assert again.val_loss.iloc[0] in repeated_rows(line, rows).val_loss.tolist()
    assert set(first.val_loss) <= set(repeated_rows(line, rows).val_loss)
