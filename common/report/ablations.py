"""Pictures of an ablation study: the losses of all runs in one, and each beside the baseline."""

from pathlib import Path

import pandas as pd

from common.lessons.run_folder import run_folder
from common.report.labels import fit_height, headline, name_end
from common.report.plots import COLOURS, WIDTH, draw, drawer, plt, write_table
from common.training.loss_log import read_losses

COLUMNS, NATS = ["arm", "seed", "step", "loss"], "loss,\nnats per token"
POINTS = 75  # of a curve: each the mean of as many steps


def thinned(losses: list[tuple[int, float]], points: int = POINTS) -> list[tuple[int, float]]:
    """The curve as means over stretches of equal length, each at its last step."""
    every = max(1, -(-len(losses) // points))
    parts = [losses[first : first + every] for first in range(0, len(losses), every)]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in parts]


def kept_losses(row: dict) -> list[tuple]:
    """(arm, seed, step, loss), thinned, from the log that the run of a row has written."""
    key = ("experiment", "arm", "seed", "config_hash", "code_hash")
    log = run_folder(*(row[name] for name in key)) / "losses" / f"{row['arm']}.csv"
    return [(row["arm"], row["seed"], step, loss) for step, loss in thinned(read_losses(log))]


def comparison(lines: list[tuple], title: str, path: Path) -> Path:
    """Draw (arm, seed, step, loss) as one line for each arm, all overlaid. Returns the picture's path."""
    write_table(path, COLUMNS, lines)
    return draw({"drawer": "draw_comparison", "title": title}, path)


@drawer
def draw_comparison(table, title: str):
    """Above the losses themselves, below what each has less than the first arm."""
    means = _means(table)
    first = means.columns[0]
    figure, (losses, less) = plt.subplots(2, 1, figsize=(WIDTH, 8.4), sharex=True)
    later = means.index > 0.3 * means.index[-1]
    for number, arm in enumerate(means.columns):
        colour, curve = COLOURS[number % len(COLOURS)], means[arm]
        losses.plot(curve.index, curve, color=colour)
        less.plot(curve.index, curve - means[first], color=colour)
    apart = means.sub(means[first], axis=0)
    fit_height(less, apart[later].min(axis=None), apart[later].max(axis=None))
    for axes, curves in ((losses, means), (less, apart)):
        axes.set_xlim(0, means.index[-1])
        for number, arm in enumerate(means.columns):
            end = (means.index[-1], curves[arm].iloc[-1])
            name_end(axes, end, str(arm), COLOURS[number % len(COLOURS)])
    losses.set_ylabel(f"training {NATS}")
    less.set(xlabel="step", ylabel=f"nats per token\nmore than {first}")
    headline(figure, title)
    return figure


def grid(lines: list[tuple], title: str, path: Path) -> Path:
    """Draw each arm but the first in a panel of its own, two to a row, the first in grey behind it. Returns
    the picture's path.
    """
    write_table(path, COLUMNS, lines)
    return draw({"drawer": "draw_grid", "title": title}, path)


@drawer
def draw_grid(table, title: str):
    """Panels with the same axes; in each title by how much the arm ends lower, or higher."""
    means = _means(table)
    first, *others = means.columns
    down = max(1, -(-len(others) // 2))
    size = (WIDTH, 2.7 * down + 1.2)
    figure, panels = plt.subplots(down, 2, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(others) :]:
        axes.set_axis_off()
    for number, (axes, arm) in enumerate(zip(panels.flat, others, strict=False), 1):
        axes.plot(means.index, means[first], color="#999999", lw=2.4)
        axes.plot(means.index, means[arm], color=COLOURS[number % len(COLOURS)])
        ends = f"{means[arm].iloc[-1] - means[first].iloc[-1]:+.2f}".replace("-", "−")
        axes.set_title(f"{arm}  ({ends})")
    figure.supxlabel(f"step  (grey: {first}; in brackets: the difference at the end)", fontsize=13)
    figure.supylabel("training loss, nats per token", fontsize=13)
    headline(figure, title)
    return figure


def single(lines: list[tuple], path: Path) -> Path:
    """Draw the runs of one arm. Returns the picture's path."""
    write_table(path, COLUMNS, lines)
    return draw({"drawer": "draw_single"}, path)


@drawer
def draw_single(table):
    """A line for each seed."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    axes.set(xlabel="step", ylabel=f"training {NATS}", xlim=(0, table.step.max()))
    for colour, (seed, run) in zip(COLOURS * len(table), table.groupby("seed"), strict=False):
        axes.plot(run.step, run.loss, color=colour)
        name_end(axes, (run.step.iloc[-1], run.loss.iloc[-1]), f"seed {seed}", colour)
    headline(figure, f"{table.arm.iloc[0]}: how does the loss fall?")
    return figure


def _means(table: pd.DataFrame) -> pd.DataFrame:
    """The mean loss over the seeds, by step, a column for each arm in the order of the table."""
    means = table.pivot_table(index="step", columns="arm", values="loss")
    return means[list(table.arm.unique())]
