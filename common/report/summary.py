"""What a run tells at its end: its result beside predecessor and baselines, and its curves."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common import lessons, results
from common.command_line import flags
from common.errors import UserError
from common.lessons import receipts
from common.lessons.course import course_plan, previous_arm, refer
from common.lessons.plan import Plan
from common.results import families
from common.settings import Settings
from common.training import checkpoint

COLUMNS = f"{'test bpc':>10}{'accuracy':>10}{'test loss':>11}{'seconds':>9}"
NARROW = 36  # letters for the names, where none is longer


@dataclass(frozen=True)
class Result:
    """One finished run: its row, the points of its learning curve, and what was probed at each: (step, {name:
    [value per layer]}).

    scores: what the script's own `scores` found, by name.
    """

    row: dict
    curve: list
    probes: list
    scores: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, row: dict, state: dict) -> "Result":
        """From a row, and what the checkpoint says of its run."""
        return cls(row, curve_of(state), state.get("probes", []), state.get("further", {}))


def table(plan: Plan, rows: list[dict], s: Settings, family: str) -> str:
    """The rows of this run (mean over seeds), the predecessor, and the baselines, as far as they were
    measured on the same corpus.
    """
    named, notes = [("", COLUMNS)], []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        runs = [row for row in rows if row["arm"] == arm]
        finished = [row for row in runs if not row["diverged"]]
        named.append((plan.name(arm), _figures(finished, len(runs))))
    if len({row["tokenizer"] for row in rows}) > 1:
        notes.append(
            "(accuracy and loss are per token: across tokenizers only bits per character can be compared)"
        )
    previous = previous_arm(plan, rows[0]["arm"])
    # what starts from the weights of another run has no predecessor
    if previous and not s.init_from and not plan.overview:
        named.append(_previous(plan, *previous, s, family))
    known = {
        label: _measured(refer(r).experiment, refer(r).arm, refer(r).settings(), family)
        for label, r in lessons.BASELINES.items()
    }
    floors = [
        f"{label} {sum(r['test_bpc'] for r in floor) / len(floor):.3f}"
        for label, floor in known.items()
        if floor
    ]
    if floors:
        notes.append(f"beside it, bits per character: {' · '.join(floors)}")
    width = max(NARROW, *(len(name) for name, _ in named))
    return "\n".join(["", *(f"{name:<{width}}{figures}" for name, figures in named), *notes])


def _measured(experiment: str, arm: str, s: Settings, family: str) -> list[dict]:
    """Rows of an experiment with these settings on this corpus; none if it was never run so, or the results
    cannot be read.
    """
    plan = course_plan(experiment)
    try:
        config = plan.config(arm, s, family)
        rows = results.matching(
            experiment, arm, config, receipts.codes(experiment, arm, config, plan.code(arm))
        )
    except UserError:
        return []
    return rows[rows.diverged == False].to_dict("records")  # noqa: E712 (a column)


@dataclass(frozen=True)
class Beside:
    """What a run is compared with: its name, its rows with the same changes to its settings, and the command
    that would measure it.
    """

    name: str
    rows: list[dict]
    command: str


def beside(plan: Plan, arm: str, s: Settings, family: str) -> Beside | None:
    """What an arm is judged against: the first arm of its script where that is the baseline, else the arm
    before. None where that is measured on another kind of text, or there is no such.
    """
    first = families.baseline(plan.experiment) if plan.experiment in lessons.COURSE else None
    if first and arm != first.arm and arm in plan.arms:
        rows = _measured(plan.experiment, first.arm, s, family)
        command = f"python {plan.experiment}.py --arms {first.arm} {flags(plan.defaults, s)}".strip()
        return Beside(plan.name(first.arm), rows, command)
    previous = previous_arm(plan, arm)
    if not previous or previous[0].load is not plan.load:
        return None
    return _same_run(plan, *previous, s, family)


def _same_run(plan: Plan, before: Plan, arm: str, s: Settings, family: str) -> Beside:
    """An arm of another script, with the same changes to its settings."""
    known = {f.name for f in dataclasses.fields(before.defaults)} - before.ignores(arm, before.defaults)
    changed = {
        f.name: getattr(s, f.name)
        for f in dataclasses.fields(s)
        if getattr(s, f.name) != getattr(plan.defaults, f.name)
    }
    same = dataclasses.replace(
        before.defaults, **{name: value for name, value in changed.items() if name in known}
    )
    command = f"python {before.experiment}.py {flags(before.defaults, same)}".strip()
    return Beside(before.name(arm), _measured(before.experiment, arm, same, family), command)


def _previous(plan: Plan, before: Plan, arm: str, s: Settings, family: str) -> tuple[str, str]:
    """The arm before, and its figures, or the command that would measure it."""
    if before.load is not plan.load:
        return before.experiment, "  is measured on another kind of text"
    other = _same_run(plan, before, arm, s, family)
    if not other.rows:
        return other.name, f"  not measured so yet: {other.command}"
    return other.name, _figures(other.rows, len(other.rows))


def _figures(rows: list[dict], runs: int) -> str:
    if not rows:
        return f"{'diverged':>10}"
    mean = {
        column: sum(row[column] for row in rows) / len(rows)
        for column in ("test_bpc", "test_accuracy", "test_loss", "train_seconds")
    }
    note = f"   mean of {runs} seeds" if runs > 1 else ""
    note += f", {runs - len(rows)} diverged" if runs > len(rows) else ""
    wide = ".4f" if mean["test_loss"] < 100 else ".3g"
    figures = f"{mean['test_bpc']:>10{wide}}{100 * mean['test_accuracy']:>8.2f} %"
    figures += f"{mean['test_loss']:>11{wide}}{mean['train_seconds']:>9.1f}"
    uniform = math.log(rows[0]["vocab_size"])
    trained = [row["train_loss"] for row in rows if row.get("train_loss") is not None]
    if mean["test_loss"] > uniform and trained and sum(trained) / len(trained) < 0.9 * uniform:
        there = f"{sum(trained) / len(trained):.2f} nats there"
        note += f"   worse than a uniform guess: it learned its training text by heart ({there})"
    elif mean["test_loss"] > uniform:
        note += "   worse than a uniform guess" + (": it did not learn" if trained else "")
    return f"{figures}{note}"


def curve_of(state: dict) -> list[tuple[int, float, float, float]]:
    """Points of a run's learning curve: step, training loss (nan at step 0), validation loss, validation bits
    per character.
    """
    return [
        (step, math.nan if train is None else train, loss, bpc)
        for step, train, loss, bpc in state.get("curve", [])
    ]


def read_curve(folder: Path) -> list[tuple[int, float, float, float]]:
    """The learning curve of the checkpoint in a folder; none where there is none."""
    return curve_of(checkpoint.whole_state(folder / checkpoint.NAME))


def measured(folder: Path) -> str:
    """What a script measured besides training, as a table: of its data files those with a panel, a series, x
    and a value.
    """
    tables = []
    for path in sorted(folder.glob("*.csv")):
        data = pd.read_csv(path)
        if len(data.columns) == 4:
            panel, series, x, value = data.columns
            table = data.pivot_table(value, [panel, x], series, sort=False)
            tables.append(table.to_string(float_format="{:,.3g}".format))
    return "\n\n".join(tables)


def curves(plan: Plan, runs: list[Result]) -> list[Path]:
    """Draw the learning curves of these runs beside one another, if they have any.

    Returns what was written.
    """
    drawn = [(r.row["arm"], r.row["seed"], r.curve) for r in runs if r.curve]
    if not drawn:
        return []
    from common.report import figures

    path = (
        lessons.logs_folder()
        / "runs"
        / plan.experiment
        / f"curves-{runs[0].row['config_hash']}-{runs[0].row['code_hash']}.png"
    )
    figures.run_curves(plan.experiment, drawn, path)
    return [path]
