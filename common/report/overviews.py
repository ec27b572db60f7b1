"""Pictures of all runs of a script together. Each is drawn from a table that is written beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from common.report.figures import thinned
from common.report.labels import headline, legend, name_end
from common.report.plots import COLOURS, WIDTH, draw, drawer, plt, write_table

MARKERS = "osD^vPX*"


def _groups(table: pd.DataFrame, by: str | list[str]):
    """(value, rows) for each value of a column, in the order in which they come."""
    return table.groupby(by, sort=False)


# ---- marks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """Where a run stands in a picture of `points`."""

    series: str
    """What has this colour."""
    x: float
    y: float
    row: dict
    """The row of the run, as in the results."""
    panel: str = ""

    def line(self) -> tuple:
        """Its line in the table, which says what the run scored so that the two can be compared."""
        score = self.row["test_bpc"]
        return (
            self.series, self.x, self.y, self.panel, self.row["arm"], self.row["seed"],
            math.nan if score is None else score,
        )  # fmt: skip


def points(
    marks: list[Mark], labels: tuple[str, str], title: str, path: Path, bottom: float | None = None
) -> Path:
    """Draw runs as marks, a panel beside the other, x logarithmic; a line joins the means of a series. Where
    each series stands at one x alone, it has a row of its own.

    bottom: what lies below is an arrow at the foot, with its power of ten. Returns the picture's path.
    """
    header = ["series", "x", "y", "panel", "arm", "seed", "test_bpc"]
    write_table(path, header, [mark.line() for mark in marks])
    return draw({"drawer": "draw_points", "labels": labels, "title": title, "bottom": bottom}, path)


@drawer
def draw_points(table, labels: Sequence[str], title: str, bottom: float | None = None):
    """A panel for each value of `panel`, a colour and a mark for each series: below one another where the
    series are named at their ends, else side by side.
    """
    table = table[table.y > 0]
    if (table.groupby("series").x.nunique() == 1).all():
        return _rows_of_runs(table, labels, title)
    series, panels = list(table.series.unique()), _groups(table, "panel")
    at_end = len(series) > 1 and table.groupby("series").x.max().nunique() == 1
    down, across = (len(panels), 1) if at_end else (1, len(panels))
    size = (WIDTH, 1.2 + 4.2 * down)
    figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axes, (panel, shown) in zip(grid.flat, panels, strict=True):
        axes.set_xscale("log", base=2)
        axes.set_title(panel)
        _vertical(axes, table.y if bottom is None else table.y[table.y >= bottom])
        if bottom is not None:
            axes.set_ylim(bottom, 3 * table.y.max())
        ticks = thinned(sorted(table.x.unique()), 9 // across + 3)
        axes.set_xticks(ticks, [f"{x:g}" if x < 10_000 else f"{x / 1000:.0f}k" for x in ticks])
        for number, name in enumerate(series):
            # marks at the same place would hide one another
            aside = 1.015 ** (number - (len(series) - 1) / 2)
            _series_of_runs(axes, shown[shown.series == name], aside, number, bottom)
            if at_end:
                last = shown[(shown.series == name) & (shown.x == shown.x.max())]
                name_end(axes, (last.x.iloc[0], _middle(axes, last.y)), name, COLOURS[number])
    for axes in grid[-1]:
        axes.set_xlabel(labels[0])
    for axes in grid[:, 0]:
        axes.set_ylabel(labels[1])
    if len(series) > 1 and not at_end:
        legend(figure, grid[0, 0], 2)
    headline(figure, title)
    return figure


def _series_of_runs(axes, shown: pd.DataFrame, aside: float, number: int, bottom: float | None) -> None:
    """The runs of a series as marks, a little aside, and a line through their means, which is not; arrows for
    what is below the axes.
    """
    look = {"color": COLOURS[number], "marker": MARKERS[number]}
    inside = shown[shown.y >= bottom] if bottom else shown
    axes.scatter(inside.x * aside, inside.y, s=44, alpha=0.75, lw=0, label=shown.series.iloc[0], **look)
    means = shown.groupby("x").y.agg(lambda values: _middle(axes, values))
    axes.plot(means.index, means, color=COLOURS[number], lw=1.4, alpha=0.8)
    for x, mean in means.items():
        if bottom and mean < bottom:
            axes.plot(x, bottom, "v", ms=9, color=COLOURS[number], clip_on=False)
            power = f"$10^{{{math.log10(mean):.0f}}}$"
            axes.annotate(power, (x, bottom), (0, 9), textcoords="offset points", ha="center", fontsize=13)


def _middle(axes, values: pd.Series) -> float:
    """The mean; on a logarithmic axis that of the logarithms."""
    return float(np.exp(np.log(values).mean()) if axes.get_yscale() == "log" else values.mean())


def _rows_of_runs(table: pd.DataFrame, labels: Sequence[str], title: str):
    """A row for each series: its runs as marks, their mean as a bar."""
    groups = list(_groups(table, "series"))
    figure, axes = plt.subplots(figsize=(WIDTH, 0.62 * len(groups) + 2.0))
    for y, (_, runs) in enumerate(groups):
        axes.plot([runs.y.mean()] * 2, [y - 0.32, y + 0.32], color=COLOURS[y], lw=4)
        axes.scatter(runs.y, [y] * len(runs), s=60, color=COLOURS[y], alpha=0.6, lw=0)
    axes.set_yticks(range(len(groups)), [f"{name}  ({runs.x.iloc[0]:g})" for name, runs in groups])
    axes.set(ylim=(len(groups) - 0.4, -0.6), xlabel=f"{labels[1]} (bar: mean of the seeds)")
    axes.set_ylabel(f"in brackets: {labels[0]}")
    headline(figure, title)
    return figure


def _vertical(axes, values: pd.Series, bottom: float | None = None) -> None:
    """A vertical axis: logarithmic where the values span more than a factor of three, else from `bottom`."""
    if len(values) and values.max() > 3 * values.min() > 0:
        axes.set_yscale("log")
        few = values.max() < 1000 * values.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        if values.max() < 1e5 * values.min():
            axes.yaxis.set_major_formatter("{x:g}")  # else powers of ten
    elif len(values) and bottom is not None:
        axes.set_ylim(bottom, 1.08 * values.max())


# ---- lines ---------------------------------------------------------------------------------------


def scored(lines: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw (arm, seed, x, what, value), scores of `logs/extra.csv` that one run has at several x: thick the
    mean of the seeds.

    x is logarithmic. Returns the picture's path.
    """
    write_table(path, ["arm", "seed", "x", "what", "value"], lines)
    return draw({"drawer": "draw_scored", "labels": labels, "title": title}, path)


@drawer
def draw_scored(table, labels: Sequence[str], title: str):
    """A line for each arm, named at its end."""
    figure, axes = plt.subplots(figsize=(WIDTH, 5.6))
    axes.set(xscale="log", xlabel=labels[0], ylabel=labels[1])
    for colour, marker, (arm, runs) in zip(COLOURS, MARKERS, _groups(table, "arm"), strict=False):
        for _, run in _groups(runs, "seed"):
            axes.plot(run.x, run.value, color=colour, lw=0.8, alpha=0.5)
        mean = runs.groupby("x").value.mean()
        axes.plot(mean.index, mean, f"{marker}-", ms=7, color=colour)
        name_end(axes, (mean.index[-1], mean.iloc[-1]), str(arm), colour)
    ticks = sorted(table.x.unique())
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    headline(figure, title)
    return figure


def scaling(
    lines: list[tuple],
    header: tuple[str, str, str, str],
    labels: tuple[str, str],
    title: str,
    path: Path,
    x_scale: str = "log",
) -> Path:
    """Draw (panel, series, x, y) as a line for each series, two panels to a row; as bars, where each series
    of a panel has one x. Returns the picture's path.

    header: the names of the four in the table. labels: of x and of the first panel's y; a panel's title says
    what else its y may be. x_scale: log or linear.
    """
    write_table(path, list(header), lines)
    return draw({"drawer": "draw_scaling", "labels": labels, "title": title, "x_scale": x_scale}, path)


@drawer
def draw_scaling(table, labels: Sequence[str], title: str, x_scale: str):
    """The first column of the table says the panel, the second the series."""
    table = table.set_axis(["panel", "series", "x", "y"], axis=1)
    look = dict(zip(table.series.unique(), zip(COLOURS, MARKERS, strict=False), strict=False))
    panels = _groups(table, "panel")
    across, down = min(2, len(panels)), -(-len(panels) // 2)
    figure, grid = plt.subplots(down, across, figsize=(WIDTH, 1.7 + 3.6 * down), squeeze=False)
    bars = (table.groupby(["panel", "series"]).x.nunique() == 1).all()
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (panel, group) in zip(grid.flat, panels, strict=False):
        axes.set_title(str(panel))
        if bars:
            _bars(axes, group, labels[0])
            continue
        for name, line in _groups(group, "series"):
            colour, marker = look[name]
            axes.plot(line.x, line.y, f"{marker}-", ms=6 if len(line) < 20 else 3, color=colour, label=name)
        axes.set(xscale=x_scale, xlabel=labels[0])
        if x_scale == "linear":
            axes.locator_params(axis="x", integer=True, nbins=6)
        else:
            ticks = thinned(sorted(group.x.unique()), 8 // across)
            axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            axes.minorticks_off()
        _vertical(axes, group.y, 0.0)
    grid[0, 0].set_ylabel(labels[1])
    if not bars:
        legend(figure, grid[0, 0])
    headline(figure, title)
    return figure


def _bars(axes, group: pd.DataFrame, label: str) -> None:
    """A bar for each series of a panel, with its height; below it its name and its x."""
    drawn = axes.bar(range(len(group)), group.y, color=COLOURS[: len(group)], width=0.7)
    axes.bar_label(drawn, [f"{y:,.0f}" if y >= 10 else f"{y:.2g}" for y in group.y], padding=3)
    names = [f"{line.series}\n{line.x:,}" for line in group.itertuples()]
    axes.set_xticks(range(len(group)), names)
    axes.set(xlabel=label, ylim=(0, 1.12 * group.y.max()))
    axes.grid(axis="x", visible=False)


def loads(lines: list[tuple], title: str, path: Path) -> Path:
    """Draw (arm, seed, step, block, expert, share) as a line for each expert, coloured by block, a panel for
    each arm.

    A share is shown as a multiple of a fair one. Returns the picture's path.
    """
    write_table(path, ["arm", "seed", "step", "block", "expert", "share"], lines)
    return draw({"drawer": "draw_loads", "title": title}, path)


@drawer
def draw_loads(table, title: str):
    """Two panels to a row."""
    panels = _groups(table, "arm")
    down = -(-len(panels) // 2)
    size = (WIDTH, 3.2 * down + 1.4)
    figure, grid = plt.subplots(down, 2, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axes, (arm, group) in zip(grid.flat, panels, strict=False):
        experts = group.expert.max()
        for (block, expert), line in _groups(group, ["block", "expert"]):
            colour, label = COLOURS[(block - 1) % len(COLOURS)], f"block {block}" if expert == 1 else None
            axes.plot(line.step, line.share * experts, lw=1.2, alpha=0.8, color=colour, label=label)
        axes.axhline(1, color="black", lw=1, ls="--")
        axes.set_title(f"{arm}:\n{experts} experts")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.supylabel("share of the text (1: fair)", fontsize=13)
    legend(figure, grid[0, 0], 4)
    headline(figure, title)
    return figure
