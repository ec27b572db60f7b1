"""A sweep of learning rates: judged on validation, with seeds that are never reported, and what came of it is
what the scripts have.
"""

import dataclasses
import math

import pytest

from common import results
from common.lessons.course import course_plan, course_references, refer
from common.paths import ROOT
from common.report import plots, update
from common.report.evidence import Measured
from common.results import sweeps
from common.tools import course, sweep

LINE = "norm:rmsnorm --steps 4 --warm-up 1 --corpus pydoc"


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["course", "sweep", *arguments])
    course.main()


@pytest.mark.parametrize(
    ("means", "chosen", "further"),
    [
        ({1e-3: 3.0, 2e-3: 2.9, 4e-3: 3.1}, 2e-3, None),
        ({1e-3: 2.9, 2e-3: 3.0, 4e-3: 3.1}, 1e-3, 5e-4),
        ({1e-3: 3.2, 2e-3: 3.0, 4e-3: 2.9}, 4e-3, 8e-3),
        ({1e-3: 3.0, 2e-3: 2.9, 4e-3: math.nan}, 2e-3, None),
        ({1e-3: math.nan, 2e-3: math.nan}, None, 5e-4),
        ({}, None, None),
    ],
)
def test_the_best_rate_and_what_to_try_next(means, chosen, further):
    bits = {rate: [mean - 0.01, mean + 0.01] for rate, mean in means.items()}
    assert (sweeps.best(bits), sweeps.further(bits)) == (chosen, further)


def test_a_rate_at_which_one_seed_diverged_is_not_the_best():
    assert sweeps.best({1e-3: [3.0, 3.0], 2e-3: [1.0, math.nan]}) == 1e-3


def test_a_sweep_from_the_command_to_the_picture(own_logs, monkeypatch, capsys):
    """What is tried, where it goes on; it looks at the validation text alone and starts nothing twice."""
    run(monkeypatch, LINE, "--rates", "1e-3", "4e-3", "--jobs", "2")
    said = capsys.readouterr().out
    rows = results.read()
    assert "4 runs to do" in said and set(rows.seed) == set(sweeps.SEEDS)
    assert rows.val_bpc.notna().all() and rows.train_loss.isna().all()
    assert rows[["test_loss", "test_accuracy", "test_bpc", "last10_bpc"]].isna().all(axis=None)
    bits = sweeps.tried(refer(LINE))
    assert {1e-3, 4e-3, 8e-3} <= set(bits)  # four steps want more than any: it went on upwards
    assert all(rate <= 4e-3 * sweep.FARTHEST for rate in bits)
    assert f"best {sweeps.best(bits):g}" in said
    for rate, values in bits.items():
        assert values == [
            rows.val_bpc[(rows.lr == rate) & (rows.seed == seed)].item() for seed in sweeps.SEEDS
        ]
    run(monkeypatch, LINE, "--rates", "1e-3", "4e-3")
    assert "0 runs to do" in capsys.readouterr().out and len(results.read()) == len(rows)
    # none of this is a result of the course
    assert len(results.course_rows(refer(LINE))) == 0 and Measured().line(refer(LINE)).state == "missing"
    monkeypatch.setattr(update, "course_references", lambda stage="": [refer(LINE)])
    data = update.sweep_data(Measured(), "08_micro_arch")
    path = plots.folder() / "sweep_08_micro_arch.csv"
    update.draw(path, data)
    assert update.plot_problems(path, data) == [] and path.with_suffix(".png").exists()
    assert data.count("True") == 2 and len(data.splitlines()) == 1 + len(rows)


def test_the_seeds_of_a_sweep_are_never_reported():
    for reference in course_references():
        assert not set(sweeps.SEEDS) & set(course_plan(reference.experiment).header.seeds)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what to sweep"),
        (["ngram"], "has no learning rate to sweep"),
        (["norn"], "did you mean"),
        (["norm:rms"], "has no arm 'rms'"),
        (["norm", "--rates", "0"], "--rates wants numbers above 0"),
        (["norm", "--jobs", "0"], "--jobs 0 makes no sense"),
    ],
)
def test_what_cannot_be_swept_is_one_line(arguments, said, own_logs, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and said in error and len(error.strip().splitlines()) == 1
    assert not results.results_path().exists()


def test_a_reported_seed_is_no_seed_of_a_sweep(own_logs, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sweep", LINE, "1e-3", "1"])
    with pytest.raises(SystemExit):
        sweep.main()
    assert "seed 1 is none of a sweep" in capsys.readouterr().err


def test_an_arm_has_the_rate_that_its_sweep_found_best(monkeypatch):
    """And it is not at the edge of what was tried."""
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(ROOT / "logs"))
    rows = results.read()
    for line in course_references():
        bits = sweeps.tried(line, rows)
        assert not bits or sweep.own_rate(line) == sweeps.best(bits), line
        assert not bits or (len(bits) > 2 and sweeps.further(bits) is None), line
    swept = ["08_micro_arch/norm", "08_micro_arch/activation", "08_micro_arch/position"]
    assert all(sweeps.tried(line, rows) for experiment in swept for line in course_references(experiment))


def test_another_rate_changes_nothing_else_of_an_arm():
    plan = course_plan("08_micro_arch/ffn_width")
    before, after = (p.own("0.5x-equal", p.defaults) for p in (plan, plan.at_rate("0.5x-equal", 1e-3)))
    assert after == dataclasses.replace(before, lr=1e-3) != before and after.n_layer == 10
    assert plan.at_rate("0.5x-equal", 1e-3).code("0.5x-equal") == plan.code("0.5x-equal")
