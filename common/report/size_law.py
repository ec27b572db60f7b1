"""Pictures of models of several sizes: a law that was fitted on some, and which is best at which compute."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.ticker import NullFormatter
from scipy.interpolate import PchipInterpolator

from common.report.labels import headline, ink, legend
from common.report.plots import COLOURS, WIDTH, draw, drawer, plt, write_table


def law(formula: str, points: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw a law beside the points that it was fitted on and those that it was not.

    points: (arm, seed, x, measured y, used for the fit or not, the law's y, half of its interval). Both axes
    are logarithmic. Returns the picture's path.
    """
    write_table(path, ["arm", "seed", "x", "test_loss", "used", "law", "half"], points)
    return draw({"drawer": "draw_law", "formula": formula, "labels": labels, "title": title}, path)


@drawer
def draw_law(table, formula: str, labels: Sequence[str], title: str):
    """The law, smooth between the sizes that the table has, with its interval; and all runs."""
    figure, axes = plt.subplots(figsize=(WIDTH, 6.4))
    known = table.groupby("x")[["law", "half"]].first()
    x = np.geomspace(known.index.min(), known.index.max(), 60)
    y, half = (PchipInterpolator(np.log(known.index), known[name])(np.log(x)) for name in ("law", "half"))
    interval = "95 % interval for a new run"
    axes.fill_between(x, y - half, y + half, color=COLOURS[0], alpha=0.15, lw=0, label=interval)
    axes.plot(x, y, color=COLOURS[0], label=f"fitted: {formula}")
    used = table.used.astype(str) == "True"
    for group, label, colour, marker in (
        (table[used], "measured, in the fit", COLOURS[0], "o"),
        (table[~used], "measured, not in the fit: predicted", COLOURS[1], "D"),
    ):
        axes.scatter(group.x, group.test_loss, marker=marker, s=46, color=colour, zorder=3, label=label)
    for arm, group in table.groupby("arm", sort=False):
        top = max(group.test_loss.max(), (group.law + group.half).max())
        axes.annotate(str(arm), (group.x.iloc[0], top), (0, 5), textcoords="offset points", ha="center")
    axes.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1])
    ticks = np.arange(np.floor(20 * table.test_loss.min()) / 20, table.test_loss.max() + 0.05, 0.05)
    axes.set_yticks(ticks, [f"{tick:.2f}" for tick in ticks])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08, y=0.1)
    legend(figure, axes, 1)
    headline(figure, title)
    return figure


def compute(lines: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw (arm, seed, compute, loss, test_loss), points of learning curves, and which arm is best where.
    Returns the picture's path.
    """
    write_table(path, ["arm", "seed", "x", "y", "test_loss"], lines)
    return draw({"drawer": "draw_compute", "labels": labels, "title": title}, path)


def best_arms(means: pd.Series) -> list[tuple[str, float, float]]:
    """(arm, from, to): the arm with the lowest loss at each compute, of those that were trained so long.
    means: the loss by arm and compute.
    """
    arms = list(dict.fromkeys(means.index.get_level_values("arm")))
    places = means.index.get_level_values("x")
    grid = np.geomspace(places.min(), places.max(), 2000)
    losses = [
        np.interp(np.log(grid), np.log(means[arm].index), means[arm], left=np.inf, right=np.inf)
        for arm in arms
    ]
    best = np.argmin(losses, axis=0)
    ends = [0, *(np.flatnonzero(np.diff(best)) + 1), len(grid) - 1]
    return [(arms[best[a]], grid[a], grid[b]) for a, b in zip(ends, ends[1:], strict=False) if b > a]


@drawer
def draw_compute(table, labels: Sequence[str], title: str):
    """Above, the curves (mean of the seeds), thick where one is the best; below, the name of the best."""
    means, shades = table.groupby(["arm", "x"], sort=False).y.mean(), plt.get_cmap("viridis_r")
    arms = list(table.arm.unique())
    colours = {arm: to_hex(shades(0.1 + 0.85 * n / max(1, len(arms) - 1))) for n, arm in enumerate(arms)}
    figure, (axes, strip) = plt.subplots(2, 1, figsize=(WIDTH, 7.4), height_ratios=(6, 1), sharex=True)
    for arm in arms:
        axes.plot(means[arm].index, means[arm], color=colours[arm], lw=1.3, alpha=0.9)
        first = (means[arm].index[0], means[arm].iloc[0])
        axes.annotate(
            arm, first, (2, 4), textcoords="offset points", color=ink(colours[arm]), fontsize=12.5,
            rotation=50, rotation_mode="anchor",
        )  # fmt: skip
    for arm, start, end in best_arms(means):
        x = np.geomspace(start, end, 50)
        y = np.interp(np.log(x), np.log(means[arm].index), means[arm])
        axes.plot(x, y, color=colours[arm], lw=6, solid_capstyle="butt")
        strip.axvspan(start, end, color=colours[arm], lw=0)
        dark = arms.index(arm) > len(arms) / 2
        strip.text((start * end) ** 0.5, 0.5, arm, ha="center", va="center", rotation=90,
                   fontsize=12, color="white" if dark else "black")  # fmt: skip
    axes.set(xscale="log", ylabel=labels[1])
    axes.margins(x=0.03, y=0.14)
    strip.set(xlabel=labels[0], yticks=[], ylim=(0, 1))
    strip.grid(visible=False)
    strip.set_title("the best at this compute, of the sizes whose curve gets there", fontsize=12.5)
    headline(figure, title)
    return figure
