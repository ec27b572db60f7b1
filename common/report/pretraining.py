"""The pictures of a long run: from the log of its steps, and beside what counting reaches."""

import math
from pathlib import Path

import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from common.lessons.course import BASELINES, refer
from common.report.labels import headline, name_end
from common.report.plots import COLOURS, WIDTH, draw, drawer, plt, write_table
from common.results.table import course_rows

POINTS = 250  # of a line: each the mean of as many steps


def draw_run(steps: list[dict[str, float]], curve: list, folder: Path) -> list[Path]:
    """Draw losses (single steps, their running mean, validation), perplexity, the length of the gradient, the
    rate, and the speed. Returns the paths; none where there is no log.

    steps: lines of a log. curve: points of the learning curve (step, training, validation, bits).
    """
    if not steps:
        return []
    every = -(-len(steps) // POINTS)
    frame = pd.DataFrame(steps)
    frame = frame.groupby(frame.index // every).mean()
    frame["validation"] = math.nan
    for step, _, loss, _ in curve:
        frame.loc[(frame.step - step).abs().idxmin(), "validation"] = loss
    lines = ([_cell(value) for value in line] for line in frame.itertuples(index=False))
    write_table(folder / "training", list(frame.columns), lines)
    return [draw({"drawer": "draw_training"}, folder / "training")]


def _cell(value: float) -> float | str:
    return "" if math.isnan(value) else value


@drawer
def draw_training(table):
    """Six panels, two to a row."""
    figure, grid = plt.subplots(3, 2, figsize=(WIDTH, 10.5), sharex=True)
    ((losses, perplexity), (norm, rate), (speed, share)) = grid
    held_out = table[table.validation.notna()]
    losses.plot(table.step, table.loss, color=COLOURS[5], lw=0.8, alpha=0.7, label="each step")
    losses.plot(table.step, table.ema, color=COLOURS[0], label="running mean")
    losses.plot(held_out.step, held_out.validation, "o-", ms=4, color=COLOURS[1], label="validation")
    losses.legend()
    perplexity.set(yscale="log")
    for axes, column, title in (
        (losses, "", "loss,\nnats per token"),
        (perplexity, "perplexity", "perplexity of a step\n(tokens)"),
        (norm, "norm", "length of the gradient"),
        (rate, "lr", "learning rate"),
        (speed, "tokens_per_second", "tokens a second"),
        (share, "mfu", "share of the\nmachine's speed"),
    ):
        axes.set_title(title)
        if column:
            axes.plot(table.step, table[column], color=COLOURS[0], lw=1)
    if table.norm.max() > 10 * table.norm.min():
        norm.set(yscale="log")
    for axes in (perplexity, norm):
        if axes.get_yscale() == "log":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
    for axes in (rate, speed, share):
        axes.set_ylim(bottom=0)
    figure.supxlabel("step", fontsize=13)
    headline(figure, "What happened in each step of the run?")
    return figure


def _floors(corpus: str) -> dict[str, float]:
    """Bits per character of the validation text: of counting, and of the yardstick, where it was measured."""
    found = {}
    for label, line in BASELINES.items():
        rows = course_rows(refer(line))
        rows = rows[rows.corpus == corpus]
        if len(rows):
            found[label] = float(rows.val_bpc.mean())
    return found


def draw_passing(row: dict, curve: list, folder: Path) -> list[Path]:
    """Draw when a run passes what counting reaches, and the yardstick: bits per character of the validation
    text against the seconds of training. Returns the paths; none where no floor was measured on its text.

    row: of the results. curve: points of the learning curve (step, training, validation, bits).
    """
    floors = _floors(row["corpus"])
    later = [(step * row["train_seconds"] / row["steps"], bits) for step, _, _, bits in curve if step]
    if not floors or not later:
        return []
    lines = [("run", "", at, bits) for at, bits in later]
    for label, floor in floors.items():
        lines.append(("floor", label, next((at for at, now in later if now <= floor), ""), floor))
    write_table(folder / "floors", ["kind", "label", "seconds", "bpc"], lines)
    return [draw({"drawer": "draw_floors"}, folder / "floors")]


@drawer
def draw_floors(table):
    """The curve of the run, and a line for each floor, with its name."""
    run, floors = table[table.kind == "run"], table[table.kind == "floor"].sort_values("bpc")
    low, high = table.bpc.min() - 0.1, run.bpc.max() + 0.3
    figure, axes = plt.subplots(figsize=(WIDTH, 6))
    axes.set(xlabel="seconds of training", ylabel="validation, bits per character", ylim=(low, high))
    axes.set_xlim(0, run.seconds.max())
    axes.plot(run.seconds, run.bpc, "o-", ms=6, color=COLOURS[1])
    name_end(axes, (run.seconds.iloc[-1], run.bpc.iloc[-1]), "this run", COLOURS[1])
    for floor in floors[floors.bpc < high].itertuples():
        colour = COLOURS[0] if floor.label == "yardstick" else "#555555"
        dashes = ":" if floor.label == "yardstick" else "--"
        axes.axhline(floor.bpc, lw=1.4, zorder=1, color=colour, ls=dashes)
        name_end(axes, (run.seconds.max(), floor.bpc), floor.label, colour)
    headline(figure, "When does the run pass what counting reaches?")
    return figure
