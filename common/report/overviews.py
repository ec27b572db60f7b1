"""Pictures of all runs of a script together. Each is drawn from a table that is written beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from common.report.plots import COLOURS, STYLE, WIDTH, plt, save, write_table

MARKERS = "osD^vPX*"


def _table(path: Path, header: list[str], lines: Sequence[Sequence]) -> pd.DataFrame:
    """Write the table of a picture, and return it."""
    write_table(path, header, lines)
    return pd.DataFrame([list(line) for line in lines], columns=header)


def _groups(frame: pd.DataFrame, by: str | list[str]):
    """(value, rows) for each value of a column, in the order in which they come."""
    return frame.groupby(by, sort=False)


# ---- a map ---------------------------------------------------------------------------------------


def heat_map(cells: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw scores as colours. cells: (row, column, arm, seed, score), several seeds to a cell; a score that
    is no number diverged.

    labels: of the columns and of the colours. Returns the picture's path.
    """
    lines = [(*where, math.nan if score is None else float(score)) for *where, score in cells]
    frame = _table(path, ["row", "column", "arm", "seed", "test_bpc"], lines)
    rows, columns = list(frame.row.unique()), list(frame.column.unique())
    scores = {place: list(group.test_bpc) for place, group in frame.groupby(["row", "column"])}
    # a cell with a run that diverged has no mean
    means = pd.Series({place: sum(values) / len(values) for place, values in scores.items()})
    shown = means.unstack().reindex(index=rows, columns=columns)
    # one cell that exploded must not make all others look alike
    cap = 1.5 * means.dropna().sort_values(ignore_index=True).get(means.count() // 2, math.nan)
    exploded = means.max() > cap
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.5 * len(rows) + 1.4))
        axes.set_facecolor("#dddddd")
        bottom, top = (means.min(), cap if exploded else means.max()) if means.count() else (0.0, 1.0)
        image = axes.imshow(shown, cmap="cividis_r", aspect="auto", vmin=bottom, vmax=top)
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                dark = shown.iloc[y, x] > (bottom + top) / 2
                text = _cell_text(scores.get((row, column), []))
                axes.text(
                    x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else "black"
                )
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.set(title=title, xlabel=labels[0])
        figure.colorbar(image, ax=axes, pad=0.02, label=labels[1], extend="max" if exploded else "neither")
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def _cell_text(values: list[float]) -> str:
    """The mean over the seeds; each of them where they are a tenth apart or one diverged."""
    if not values:
        return "not run"
    known = [value for value in values if not math.isnan(value)]
    if len(known) == len(values) and max(known) <= 1.1 * min(known):
        return f"{sum(known) / len(known):.2f}"
    each = [f"{value:.2f}" if value < 100 else f"{value:.0f}" for value in known]
    return "\n".join([*each, *["diverged"] * (len(values) - len(known))])


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


def points(marks: list[Mark], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw runs as marks, a panel beside the other, x logarithmic. Returns the picture's path.

    Marks at different settings are not joined; those of different series stand a little aside of their x.
    """
    header = ["series", "x", "y", "panel", "arm", "seed", "test_bpc"]
    frame = _table(path, header, [mark.line() for mark in marks])
    drawn, series, ticks = frame[frame.y > 0], list(frame.series.unique()), sorted(frame.x.unique())
    with plt.rc_context(STYLE):
        panels = frame.panel.unique()
        figure, row = plt.subplots(1, len(panels), figsize=(WIDTH, 3.8), squeeze=False, sharey=True)
        for axes, panel in zip(row[0], panels, strict=True):
            for number, (colour, marker, name) in enumerate(zip(COLOURS, MARKERS, series, strict=False)):
                shown = drawn[(drawn.series == name) & (drawn.panel == panel)]
                # marks at the same place would hide one another
                aside = 1.06 ** (number - (len(series) - 1) / 2)
                axes.scatter(
                    shown.x * aside, shown.y, color=colour, marker=marker, s=28, alpha=0.8, label=name
                )
            axes.set_xscale("log", base=2)
            axes.set(title=panel, xlabel=labels[0])
            _vertical(axes, drawn.y)
            axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        return _titled(figure, row[0][0], labels[1], title, path)


def _titled(figure, first, label: str, title: str, path: Path) -> Path:
    """Write a picture of several panels: the first has the label of all vertical axes, what its lines mean
    stands below all. Returns its path.
    """
    first.set_ylabel(label)
    named = first.get_legend_handles_labels()
    figure.legend(
        *named, loc="upper center", bbox_to_anchor=(0.5, 0.01), ncols=min(5, len(named[1])), fontsize=8
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.tight_layout()
    save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def _vertical(axes, values: pd.Series, bottom: float | None = None) -> None:
    """A vertical axis: logarithmic where the values span more than a factor of three, else from `bottom`."""
    if len(values) and values.max() > 3 * values.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(
            LogLocator(subs=(1, 2, 5) if values.max() < 1000 * values.min() else (1,))
        )
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    elif len(values) and bottom is not None:
        axes.set_ylim(bottom, 1.08 * values.max())


# ---- lines ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """A law that was fitted on some runs."""

    text: str
    """Its formula."""
    curve: list[tuple[float, float, float]]
    """(x, y, half of the 95 % interval for a new run)."""


def law(fitted: Law, points: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw a law beside the points that it was fitted on and those that it was not.

    points: (arm, seed, x, measured y, used for the fit or not, the law's y, half of its interval). Both axes
    are logarithmic. Returns the picture's path.
    """
    frame = _table(path, ["arm", "seed", "x", "test_loss", "used", "law", "half"], points)
    line = pd.DataFrame(fitted.curve, columns=["x", "y", "half"])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
        low, high, label = line.y - line.half, line.y + line.half, "95 % interval for a new run"
        axes.fill_between(line.x, low, high, color=COLOURS[0], alpha=0.15, lw=0, label=label)
        axes.plot(line.x, line.y, color=COLOURS[0], label=f"fitted: {fitted.text}")
        for used, group in _groups(frame, "used"):
            label = "measured, in the fit" if used else "measured, not in the fit: predicted"
            colour, marker = (COLOURS[0], "o") if used else (COLOURS[1], "D")
            axes.scatter(
                group.x, group.test_loss, marker=marker, s=26, color=colour, zorder=3, alpha=0.8, label=label
            )
        for arm, group in _groups(frame, "arm"):
            look = {"rotation": 90, "fontsize": 8, "color": "#555555", "ha": "right"}
            axes.text(group.x.iloc[-1], 0.01, str(arm), look, transform=axes.get_xaxis_transform())
        axes.set(xscale="log", yscale="log", title=title, xlabel=labels[0], ylabel=labels[1])
        axes.yaxis.set_minor_formatter("{x:.2f}")
        axes.yaxis.set_major_formatter("{x:.2f}")
        axes.legend(fontsize=8)
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def curves(lines: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw (arm, seed, x, y, test_loss) as one line for each run, x logarithmic.

    Returns the picture's path.
    """
    frame = _table(path, ["arm", "seed", "x", "y", "test_loss"], lines)
    arms = list(frame.arm.unique())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
        shades = plt.get_cmap("viridis_r")
        for number, (arm, runs) in enumerate(_groups(frame, "arm")):
            colour = shades(0.1 + 0.85 * number / max(1, len(arms) - 1))
            for seed, run in _groups(runs, "seed"):
                label = str(arm) if seed == runs.seed.iloc[0] else None
                axes.plot(run.x, run.y, "o-", ms=2.5, lw=1.2, color=colour, label=label)
        axes.set(xscale="log", title=title, xlabel=labels[0], ylabel=labels[1])
        axes.legend(fontsize=8)
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def scored(lines: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw (arm, seed, x, what, value), scores of `logs/extra.csv` that one run has at several x: thick the
    mean of the seeds.

    x is logarithmic. Returns the picture's path.
    """
    frame = _table(path, ["arm", "seed", "x", "what", "value"], lines)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
        for colour, marker, (arm, runs) in zip(COLOURS, MARKERS, _groups(frame, "arm"), strict=False):
            for _, run in _groups(runs, "seed"):
                axes.plot(run.x, run.value, color=colour, lw=0.8, alpha=0.5)
            mean = runs.groupby("x").value.mean()
            axes.plot(mean.index, mean, f"{marker}-", ms=5, lw=2, color=colour, label=arm)
        ticks = sorted(frame.x.unique())
        axes.set(xscale="log", title=title, xlabel=labels[0], ylabel=labels[1])
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.legend(fontsize=8)
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def scaling(
    lines: list[tuple],
    header: tuple[str, str, str, str],
    labels: tuple[str, str],
    title: str,
    path: Path,
    x_scale: str = "log",
) -> Path:
    """Draw (panel, series, x, y) as a line for each series, panels side by side. Returns the picture's path.
    header: the names of the four in the table. labels: of x and of the first panel's y; a panel's title says
    what else its y may be. x_scale: log or linear.
    """
    frame = _table(path, list(header), lines).set_axis(["panel", "series", "x", "y"], axis=1)
    look = dict(zip(frame.series.unique(), zip(COLOURS, MARKERS, strict=False), strict=False))
    panels = _groups(frame, "panel")
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(WIDTH, 3.6), squeeze=False)
        for axes, (panel, group) in zip(row[0], panels, strict=True):
            for name, line in _groups(group, "series"):
                colour, marker = look[name]
                axes.plot(line.x, line.y, f"{marker}-", ms=4, lw=1.2, color=colour, label=name)
            axes.set(xscale=x_scale, xlabel=labels[0])
            axes.set_title(panel, fontsize=9)
            if x_scale == "linear":
                axes.locator_params(axis="x", integer=True)
            else:
                ticks = sorted(group.x.unique())
                axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
                axes.minorticks_off()
            _vertical(axes, group.y, 0.0)
        return _titled(figure, row[0][0], labels[1], title, path)


def loads(lines: list[tuple], title: str, path: Path) -> Path:
    """Draw (arm, seed, step, block, expert, share) as a line for each expert, coloured by block, a panel for
    each arm.

    A share is shown as a multiple of a fair one. Returns the picture's path.
    """
    frame = _table(path, ["arm", "seed", "step", "block", "expert", "share"], lines)
    panels = _groups(frame, "arm")
    with plt.rc_context(STYLE):
        rows = -(-len(panels) // 2)
        figure, grid = plt.subplots(
            rows, 2, figsize=(WIDTH, 2.6 * rows), squeeze=False, sharex=True, sharey=True
        )
        for axes, (arm, group) in zip(grid.flat, panels, strict=False):
            experts = group.expert.max()
            for (block, expert), line in _groups(group, ["block", "expert"]):
                colour, label = COLOURS[(block - 1) % len(COLOURS)], f"block {block}" if expert == 1 else None
                axes.plot(line.step, line.share * experts, lw=1, alpha=0.8, color=colour, label=label)
            axes.axhline(1, color="#555555", lw=0.8, ls="--")
            axes.set_title(f"{arm}: {experts} experts", fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        for axes in grid[1:, 0]:
            axes.set_ylabel("share (1: fair)")
        return _titled(figure, grid[0][0], "share (1: fair)", title, path)
