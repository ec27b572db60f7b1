"""Pictures of all runs of a script together. Each is drawn from a table that is written beside it."""

import math
from pathlib import Path

from matplotlib.ticker import LogLocator, NullLocator

from common.report.plots import COLOURS, STYLE, WIDTH, plt, save, write_table


def heat_map(cells: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw scores as colours. cells: (row, column, arm, seed, score), several seeds to a cell; a score that
    is no number diverged.

    labels: of the columns and of the colours. Returns the picture's path.
    """
    cells = [(*cell[:4], float("nan") if cell[4] is None else float(cell[4])) for cell in cells]
    write_table(path, ["row", "column", "arm", "seed", "test_bpc"], cells)
    rows, columns = (list(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
    found = [[[c[4] for c in cells if c[:2] == (row, column)] for column in columns] for row in rows]
    shown = [
        [sum(v) / len(v) if v and not any(map(math.isnan, v)) else float("nan") for v in line]
        for line in found
    ]
    means = sorted(value for line in shown for value in line if not math.isnan(value))
    # one cell that exploded must not make all others look alike
    cap = 1.5 * means[len(means) // 2] if means else None
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.5 * len(rows) + 1.4))
        axes.set_facecolor("#dddddd")
        image = axes.imshow(
            shown, cmap="cividis_r", aspect="auto", vmax=min(means[-1], cap) if means else None
        )
        middle = (image.norm.vmin + image.norm.vmax) / 2 if means else 0
        for y, line in enumerate(found):
            for x, values in enumerate(line):
                dark = shown[y][x] > middle
                look = {"ha": "center", "va": "center", "fontsize": 9, "color": "white" if dark else "black"}
                axes.text(x, y, _cell_text(values), **look)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.set(title=title, xlabel=labels[0])
        extend = "max" if means and means[-1] > cap else "neither"
        figure.colorbar(image, ax=axes, pad=0.02, label=labels[1], extend=extend)
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


def points(found: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw (series, x, y, panel, arm, seed, test_bpc) as marks, a panel beside the other, x logarithmic.

    Marks at different settings are not joined; those of different series stand a little aside of their x. The
    last three columns say which run a mark is of. Returns the picture's path.
    """
    write_table(path, ["series", "x", "y", "panel", "arm", "seed", "test_bpc"], found)
    panels, series = (list(dict.fromkeys(point[i] for point in found)) for i in (3, 0))
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(WIDTH, 3.8), squeeze=False, sharey=True)
        for axes, panel in zip(row[0], panels, strict=True):
            for number, (colour, marker, name) in enumerate(zip(COLOURS, "osD^vP", series, strict=False)):
                own = [
                    point[1:3] for point in found if (point[0], point[3]) == (name, panel) and point[2] > 0
                ]
                # marks at the same place would hide one another
                aside = 1.06 ** (number - (len(series) - 1) / 2)
                axes.scatter(
                    [x * aside for x, _ in own],
                    [y for _, y in own],
                    color=colour,
                    marker=marker,
                    s=28,
                    alpha=0.8,
                    label=name,
                )
            axes.set_xscale("log", base=2)
            axes.set(title=panel, xlabel=labels[0])
            _vertical(axes, [point[2] for point in found if point[2] > 0])
            axes.set_xticks(
                sorted({point[1] for point in found}), [str(x) for x in sorted({point[1] for point in found})]
            )
        return _titled(figure, row[0][0], labels[1], title, path)


def _titled(figure, first, label: str, title: str, path: Path) -> Path:
    """Write a picture of several panels; the first has the legend and the label of all vertical axes.

    Returns its path.
    """
    first.set_ylabel(label)
    first.legend(fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.tight_layout()
    save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def _vertical(axes, values: list[float], bottom: float | None = None) -> None:
    """A vertical axis: logarithmic where the values span more than a factor of three, else from `bottom`."""
    if values and max(values) > 3 * min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 1000 * min(values) else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    elif values and bottom is not None:
        axes.set_ylim(bottom, 1.08 * max(values))


def law(
    points: list[tuple], curve: list[tuple], text: str, labels: tuple[str, str], title: str, path: Path
) -> Path:
    """Draw a law that was fitted on some points beside the points it was not fitted on.

    points: (arm, seed, x, measured y, used for the fit or not, the law's y, half of its interval); curve: (x,
    y, half) of the law, whose formula is `text`. Both axes are logarithmic. Returns the picture's path.
    """
    write_table(path, ["arm", "seed", "x", "test_loss", "used", "law", "half"], points)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
        x, y, half = zip(*curve, strict=True)
        low, high = ([v + sign * h for v, h in zip(y, half, strict=True)] for sign in (-1, 1))
        axes.fill_between(
            x, low, high, color=COLOURS[0], alpha=0.15, lw=0, label="95 % interval for a new run"
        )
        axes.plot(x, y, color=COLOURS[0], label=f"fitted: {text}")
        kinds = (
            (True, "o", COLOURS[0], "measured, in the fit"),
            (False, "D", COLOURS[1], "measured, not in the fit: predicted"),
        )
        for used, marker, colour, label in kinds:
            own = [(point[2], point[3]) for point in points if point[4] == used]
            if own:
                look = {"marker": marker, "s": 26, "color": colour, "zorder": 3, "alpha": 0.8}
                axes.scatter(*zip(*own, strict=True), label=label, **look)
        for arm, at in {point[0]: point[2] for point in points}.items():
            axes.annotate(
                arm,
                (at, 0.01),
                xycoords=("data", "axes fraction"),
                rotation=90,
                fontsize=8,
                color="#555555",
                ha="right",
            )
        axes.set(xscale="log", yscale="log", title=title, xlabel=labels[0], ylabel=labels[1])
        axes.yaxis.set_minor_formatter("{x:.2f}")
        axes.yaxis.set_major_formatter("{x:.2f}")
        axes.legend(fontsize=8)
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def curves(found: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw (arm, seed, x, y, test_loss) as one line for each run, x logarithmic.

    Returns the picture's path.
    """
    write_table(path, ["arm", "seed", "x", "y", "test_loss"], found)
    arms = list(dict.fromkeys(point[0] for point in found))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
        shades = plt.get_cmap("viridis_r")
        for number, arm in enumerate(arms):
            colour = shades(0.1 + 0.85 * number / max(1, len(arms) - 1))
            for seed in dict.fromkeys(point[1] for point in found if point[0] == arm):
                own = [point for point in found if point[:2] == (arm, seed)]
                first = seed == next(point[1] for point in found if point[0] == arm)
                axes.plot(
                    [p[2] for p in own],
                    [p[3] for p in own],
                    "o-",
                    ms=2.5,
                    lw=1.2,
                    color=colour,
                    label=arm if first else None,
                )
        axes.set(xscale="log", title=title, xlabel=labels[0], ylabel=labels[1])
        axes.legend(fontsize=8)
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def scored(found: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw (arm, seed, x, what, value), scores of `logs/extra.csv` that one run has at several x: thick the
    mean of the seeds.

    x is logarithmic. Returns the picture's path.
    """
    write_table(path, ["arm", "seed", "x", "what", "value"], found)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
        for colour, marker, arm in zip(
            COLOURS, "osD^vPX*", dict.fromkeys(point[0] for point in found), strict=False
        ):
            own = [point for point in found if point[0] == arm]
            for seed in dict.fromkeys(point[1] for point in own):
                axes.plot(
                    *zip(*[(p[2], p[4]) for p in own if p[1] == seed], strict=True),
                    color=colour,
                    lw=0.8,
                    alpha=0.5,
                )
            at = sorted({point[2] for point in own})
            means = [sum(values) / len(values) for values in ([p[4] for p in own if p[2] == x] for x in at)]
            axes.plot(at, means, f"{marker}-", ms=5, lw=2, color=colour, label=arm)
        ticks = sorted({point[2] for point in found})
        axes.set(xscale="log", title=title, xlabel=labels[0], ylabel=labels[1])
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.legend(fontsize=8)
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def scaling(
    found: list[tuple], header: tuple[str, str, str, str], labels: tuple[str, str], title: str, path: Path
) -> Path:
    """Draw (panel, series, x, y) as a line for each series, a panel beside the other, x logarithmic. Returns
    the picture's path.

    header: the names of the four in the table. labels: of x and of the first panel's y; a panel's title says
    what else its y may be.
    """
    write_table(path, list(header), found)
    panels, series = (list(dict.fromkeys(point[i] for point in found)) for i in (0, 1))
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(WIDTH, 3.6), squeeze=False)
        for axes, panel in zip(row[0], panels, strict=True):
            for colour, marker, name in zip(COLOURS, "osD^vP", series, strict=False):
                own = [point[2:] for point in found if point[:2] == (panel, name)]
                if own:
                    axes.plot(*zip(*own, strict=True), f"{marker}-", ms=4, lw=1.2, color=colour, label=name)
            ticks = sorted({point[2] for point in found if point[0] == panel})
            axes.set(xscale="log", xlabel=labels[0])
            axes.set_title(panel, fontsize=9)
            axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
            axes.minorticks_off()
            _vertical(axes, [point[3] for point in found if point[0] == panel], 0.0)
        return _titled(figure, row[0][0], labels[1], title, path)


def loads(found: list[tuple], title: str, path: Path) -> Path:
    """Draw (arm, seed, step, block, expert, share) as a line for each expert, coloured by block, a panel for
    each arm.

    A share is shown as a multiple of a fair one. Returns the picture's path.
    """
    write_table(path, ["arm", "seed", "step", "block", "expert", "share"], found)
    arms = list(dict.fromkeys(point[0] for point in found))
    with plt.rc_context(STYLE):
        rows = -(-len(arms) // 2)
        figure, grid = plt.subplots(
            rows, 2, figsize=(WIDTH, 2.6 * rows), squeeze=False, sharex=True, sharey=True
        )
        for axes, arm in zip(grid.flat, arms, strict=False):
            own = [point for point in found if point[0] == arm]
            experts = max(point[4] for point in own)
            for block, expert in dict.fromkeys(point[3:5] for point in own):
                line = [(point[2], point[5] * experts) for point in own if point[3:5] == (block, expert)]
                name = f"block {block}" if expert == 1 else None
                axes.plot(
                    *zip(*line, strict=True),
                    lw=1,
                    alpha=0.8,
                    color=COLOURS[(block - 1) % len(COLOURS)],
                    label=name,
                )
            axes.axhline(1, color="#555555", lw=0.8, ls="--")
            axes.set_title(f"{arm}: {experts} experts", fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        for axes in grid[1:, 0]:
            axes.set_ylabel("share (1: fair)")
        return _titled(figure, grid[0][0], "share (1: fair)", title, path)
