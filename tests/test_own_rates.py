"""Scripts of stages 04 to 06 at the learning rate of the course and at their own."""

import pandas as pd
import pytest

from common import results
from common.errors import UserError
from common.lessons.course import at_own_rate, course_plan, course_references, refer
from common.lessons.header import Header
from common.report import update
from common.report.evidence import DAGGER, NOT_YET, Measured
from common.report.tables import own_rates_table, spread
from common.results.statistics import interval, paired
from common.training.metrics import PROTOCOL

SCRIPTS = ("stack", "residual", "projection", "layer_norm", "post_ln", "pre_ln", "dropout", "gpt")
OWN = {name: at_own_rate(refer(name)) for name in SCRIPTS}


def row(line, seed: int, bpc: float) -> dict:
    """A row of a line of the course, with this score."""
    made = dict.fromkeys(results.COLUMNS, "")
    return made | {
        "experiment": line.experiment, "arm": line.arm, "seed": seed, "corpus": "tinyshakespeare",
        "tokenizer": "char", "test_bpc": bpc, "val_bpc": bpc, "val_loss": bpc, "test_loss": bpc,
        "diverged": False, "config_hash": line.config(), "code_hash": line.code, "steps": 1500,
        "tokens_seen": 1, "params": 1, "protocol": PROTOCOL, "lr": line.settings().lr,
        "threads": 1, "alone": True,
    }  # fmt: skip


def test_each_has_a_rate_of_its_own_with_five_seeds_and_clipped_gradients():
    for name, line in OWN.items():
        assert line.settings().clip == 1.0 and line.flags in course_plan(line.experiment).header.variants
        assert course_plan(line.experiment).header.seeds_with(line.flags) == [1, 2, 3, 4, 5]
        assert course_plan(line.experiment).header.seeds == [1, 2, 3], name
    assert at_own_rate(refer("feed_forward:gelu")) is None and at_own_rate(refer("fast_gpt")) is None


def test_seeds_of_one_command_line():
    header = Header("x/y", "", {"Seeds": "1 2; 1 2 3 with --clip 1 --lr 4e-3; 7 with --preset p"})
    assert header.seeds == header.seeds_with("--steps 3") == [1, 2]
    assert header.seeds_with("--clip 1 --lr 4e-3") == [1, 2, 3] and header.seeds_with("--preset p") == [7]
    assert Header("x/y", "", {}).seeds_with("--clip 1") == [1, 2, 3]
    listed = Header("x/y", "", {"Seeds": "1 2 3 4 5", "Also": "--config b"})
    assert listed.seeds == listed.seeds_with("--config b") == [1, 2, 3, 4, 5]
    assert listed.seeds_with("--steps 3") == [1, 2, 3], "an answer to a question has three at most"


@pytest.fixture
def scored():
    """Results in which residual and projection are measured both ways, and layer_norm at one rate only."""
    scores = {
        refer("residual"): [2.8, 2.9, 2.7], OWN["residual"]: [2.5, 2.4, 2.45, 2.5, 2.55],
        refer("projection"): [2.7, 2.8, 2.6], OWN["projection"]: [2.6, 2.5, 2.54, 2.61, 2.65],
        refer("layer_norm"): [2.7, 2.7, 2.7],
    }  # fmt: skip
    rows = [row(line, seed, v) for line, values in scores.items() for seed, v in enumerate(values, 1)]
    return Measured(pd.DataFrame(rows, columns=list(results.COLUMNS))), scores


def cells(measured) -> dict[str, list[str]]:
    lines = own_rates_table(measured, "05_residual_norm").splitlines()[2:]
    split = [line.strip("| ").split(" | ") for line in lines if line.startswith("| [")]
    return {line[0].partition("]")[0].strip("["): line[1:] for line in split}


def test_the_table_compares_scripts_at_their_own_rates(scored):
    measured, scores = scored
    found = cells(measured)
    assert list(found) == list(SCRIPTS[1:7])
    own = scores[OWN["projection"]]
    two = [measured.rows(OWN[name]) for name in ("projection", "residual")]
    assert found["projection"][:4] == [
        spread(interval(scores[refer("projection")])), "4e-3", spread(interval(own)), "residual",
    ]  # fmt: skip
    assert found["projection"][4] == spread(paired(*two), sign=True)
    assert found["projection"][5] == "worse"
    assert found["residual"][3:5] == ["stack", NOT_YET]
    assert found["layer_norm"][2] == NOT_YET
    with pytest.raises(UserError, match="no script of '03_ffn'"):
        own_rates_table(measured, "03_ffn")


def test_rows_of_earlier_code_have_a_dagger(scored):
    measured, _ = scored
    changed = measured.all.copy()
    changed.loc[changed.config_hash == OWN["projection"].config(), "code_hash"] = "0" * 12
    older = Measured(changed)
    assert cells(older)["projection"][2].endswith(DAGGER)


def test_the_staircase_has_both(scored):
    measured, scores = scored
    lines = [line.split(",") for line in update.staircase_data(measured).splitlines()]
    own = {line[0]: float(line[2]) for line in lines if line[1] == "own rate"}
    assert own == {
        f"05_residual_norm/{name}": pytest.approx(interval(scores[OWN[name]]).mean)
        for name in ("residual", "projection")
    }
    stages = {line[0] for line in lines if line[1] == "stage"}
    assert own.keys() <= stages and not any("--clip" in label for label in stages)


def test_every_script_of_these_stages_is_among_them():
    """But for those that draw a picture of all their arms, and the fast form of the same model."""
    alone = {
        r.experiment
        for stage in ("04_stacking", "05_residual_norm", "06_transformer")
        for r in course_references(stage)
        if not course_plan(r.experiment).overview and r.experiment != "06_transformer/fast_gpt"
    }
    assert alone == {line.experiment for line in OWN.values()}
