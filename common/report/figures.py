"""The pictures that are made from the results: the learning curves of a stage, and the staircase."""

import textwrap
from pathlib import Path

from common.report.plots import COLOURS, LABEL, STYLE, WIDTH, plt, save


def stage_curves(frame, stage: str, path: Path, mark: str) -> None:
    """Validation bits per character of a stage's scripts against steps: one panel per number of steps, thin
    lines are single seeds.

    Lines that earlier code measured have a dagger, and those not measured yet are named below.
    """
    arms = frame.arm.map(lambda arm: "" if arm == "default" else f":{arm}")
    frame = frame.assign(line=frame.experiment.str.split("/").str[1] + arms + frame.state.map(_dagger))
    missing = list(dict.fromkeys(frame.line[frame.state == "missing"]))
    frame = frame[frame.state != "missing"]
    last = frame.groupby("line", sort=False).step.max()
    panels = list(dict.fromkeys(last))
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(len(panels), 1, figsize=(WIDTH, 3.4 * len(panels) + 0.6), squeeze=False)
        for axes, steps in zip(grid[:, 0], panels, strict=True):
            lines = [line for line in last.index if last[line] == steps]
            _panel_of_curves(axes, frame[frame.line.isin(lines)], lines, steps)
        grid[0, 0].set_title(f"{stage}: how fast does each script learn? (thick: mean of the seeds)")
        figure.tight_layout()
        _footnote(figure, "stale" in set(frame.state), missing)
        save(figure, path, mark)


def _panel_of_curves(axes, frame, lines: list[str], steps: int) -> None:
    """The curves of the lines that were trained for so many steps."""
    ends = []
    for number, line in enumerate(lines):
        colour, runs = COLOURS[number % len(COLOURS)], frame[frame.line == line]
        dashes = "-" if number < len(COLOURS) else "--"
        for _, seed in runs.groupby("seed"):
            axes.plot(seed.step, seed.val_bpc, dashes, color=colour, lw=0.8, alpha=0.5)
        mean = runs.groupby("step").val_bpc.mean()
        axes.plot(mean.index, mean, dashes, color=colour, lw=2)
        ends.append((mean.iloc[-1], line, colour))
    tail = frame[frame.step > 0].val_bpc
    low, high = tail.min(), min(tail.max(), tail.min() + 4 * (tail.quantile(0.9) - tail.min()) + 0.05)
    margin = 0.06 * (high - low)
    axes.set(
        ylim=(low - margin, high + margin),
        xlim=(0, steps),
        xlabel="steps",
        ylabel="validation, bits per character",
    )
    _label_ends(axes, steps, ends, (high - low) / 14)


def _dagger(state: str) -> str:
    """What stands after the name of a line in a picture."""
    return " †" if state == "stale" else ""


def _footnote(figure, stale: bool, missing: list[str]) -> None:
    """Below a picture: what its daggers mean, and what it cannot show yet."""
    notes = ["† measured with an earlier version of the code"] if stale else []
    if missing:
        notes += textwrap.wrap(f"not measured yet: {', '.join(missing)}", 100)
    if notes:
        figure.text(0.01, 0, "\n".join(notes), va="top", fontsize=9, color="#555555")


def _label_ends(axes, x: float, ends: list[tuple[float, str, str]], gap: float) -> None:
    """Write each line's name at its right end, moved apart where they would overlap."""
    at = -float("inf")
    for y, label, colour in sorted(ends):
        at = max(y, at + gap)
        axes.annotate(
            label,
            (x, y),
            (x + 0.012 * (axes.get_xlim()[1] - axes.get_xlim()[0]), at),
            color=colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
        )


# ---- sweeps --------------------------------------------------------------------------------------


def sweeps(frame, path: Path, mark: str) -> None:
    """Validation bits per character against the learning rate: a line for each arm (mean of the seeds, which
    are dots), its best rate large. A script with several arms has a panel of its own.
    """
    arms = frame.groupby("experiment").line.nunique()
    several = frame.experiment.map(arms) > 1
    panels = frame.groupby(
        frame.experiment.str.split("/").str[1].where(several, "one model each"), sort=False
    )
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(len(panels), 1, figsize=(WIDTH, 3.2 * len(panels) + 0.4), squeeze=False)
        for axes, (name, panel) in zip(grid[:, 0], panels, strict=True):
            _panel_of_rates(axes, panel, str(name))
        grid[-1, 0].set_xlabel("learning rate")
        figure.suptitle("Which learning rate suits each?", x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.tight_layout()
        save(figure, path, mark)


def _panel_of_rates(axes, panel, title: str) -> None:
    """The lines of one panel, named at their right ends; what lies far above the best is cut off, but for the
    best of each arm.
    """
    ends, rates = [], sorted(panel.lr.unique())
    low, high = panel.val_bpc.min(), panel.val_bpc.max()
    bests = panel[panel.chosen].groupby("line").val_bpc.max()
    high = min(high, max(low + 0.4, bests.max() + 0.05))
    for number, (name, own) in enumerate(panel.groupby("line", sort=False)):
        colour, dashes = COLOURS[number % len(COLOURS)], "-" if number < len(COLOURS) else "--"
        mean = own.groupby("lr").val_bpc.agg(lambda bits: bits.mean(skipna=False)).clip(upper=2 * high - low)
        axes.plot(own.lr, own.val_bpc, ".", ms=4, color=colour, alpha=0.6)
        axes.plot(mean.index, mean, dashes, color=colour, lw=1.4)
        best = own.lr[own.chosen]
        axes.plot(best, mean[best], "o", ms=7, color=colour)
        ends.append((mean.dropna().iloc[-1], str(name).split(":")[-1], colour))
    margin = 0.06 * (high - low)
    axes.set(
        xscale="log", title=title, ylabel="validation, bits per character", ylim=(low - margin, high + margin)
    )
    axes.set_xlim(rates[0] / 1.1, rates[-1] * 1.1)
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    ends = [(min(y, high), label, colour) for y, label, colour in ends]
    _label_ends(axes, rates[-1] * 1.1, ends, (high - low) / 14)


# ---- the staircase -------------------------------------------------------------------------------


def staircase(frame, path: Path, mark: str) -> None:
    """Test bits per character of every stage in course order, with 95 % intervals; counting floors as lines.
    Points are not joined.

    A stage that is not measured yet keeps its place, empty; what earlier code measured is hollow and has a
    dagger. A diamond beside a stage is the same script at a learning rate of its own.
    """
    stages, floors = frame[frame.kind == "stage"], frame[frame.kind == "floor"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.8))
        axes.set_xlim(-0.6, len(stages) - 0.4)
        _floors(
            axes,
            floors,
            0.045 * (frame.test_bpc.max() - frame.test_bpc.min()) if frame.test_bpc.any() else 1.0,
        )
        folders = list(dict.fromkeys(label.split("/")[0] for label in stages.label))
        colours = [COLOURS[folders.index(label.split("/")[0]) % 8] for label in stages.label]
        for x, (stage, colour) in enumerate(zip(stages.itertuples(), colours, strict=True)):
            _stage(axes, x, stage, colour)
            for own in frame[(frame.kind == "own rate") & (frame.label == stage.label)].itertuples():
                _own_rate(axes, x, own, colour)
        names = stages.label.str.split("/").str[1] + stages.state.map(_dagger)
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        for tick, colour in zip(axes.get_xticklabels(), colours, strict=True):
            tick.set_color(colour)
        axes.grid(axis="x", visible=False)
        title = "The staircase: what does each idea buy? (lower is better)"
        axes.set(title=title, ylabel="test, bits per character")
        if "own rate" in set(frame.kind):
            axes.plot([], [], "D", ms=5, color="#555555", label="at its own best rate, gradients clipped")
            axes.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.93))
        if "stale" in set(frame.state):
            note, look = "† measured with an earlier version of the code", {"fontsize": 9, "color": "#555555"}
            axes.text(0, -0.32, note, look, transform=axes.transAxes)
        save(figure, path, mark)


def _stage(axes, x: int, stage, colour: str) -> None:
    """A stage at its place: mean and interval, hollow where earlier code measured it; or a word instead."""
    look = {"ha": "center", "fontsize": 8, "color": colour, "bbox": LABEL}
    if stage.state == "missing":
        where = {"xycoords": ("data", "axes fraction"), "rotation": 90}
        axes.annotate("not measured yet", (x, 0.02), **where, **look)
        return
    fill = "white" if stage.state == "stale" else colour
    marks = {"fmt": "o", "ms": 7, "capsize": 4}
    axes.errorbar(x, stage.test_bpc, yerr=stage.half, color=colour, mfc=fill, **marks)
    # above the interval: beside it, it would hide the next dot
    top = (x, stage.test_bpc + stage.half)
    axes.annotate(f"{stage.test_bpc:.2f}", top, (0, 7), textcoords="offset points", **look)


def _own_rate(axes, x: int, line, colour: str) -> None:
    """The same script at its own rate: a diamond with its interval, named below it."""
    fill = "white" if line.state == "stale" else colour
    marks = {"fmt": "D", "ms": 5, "capsize": 3, "elinewidth": 1}
    axes.errorbar(x, line.test_bpc, yerr=line.half, color=colour, mfc=fill, **marks)
    look = {"ha": "center", "va": "top", "fontsize": 8, "color": colour, "bbox": LABEL}
    bottom = (x, line.test_bpc - line.half)
    axes.annotate(f"{line.test_bpc:.2f}", bottom, (0, -7), textcoords="offset points", **look)


def _floors(axes, floors, gap: float) -> None:
    """What counting reaches, and the yardstick, as lines with their names, at least `gap` apart."""
    for label, floor in zip(floors.label, floors.test_bpc, strict=True):
        axes.axhline(
            floor,
            color="#777777",
            lw=1.4 if label == "yardstick" else 1,
            ls=":" if label == "yardstick" else (0, (4, 3)),
        )
    ends = [
        (y, label + _dagger(state), "#555555")
        for y, label, state in zip(floors.test_bpc, floors.label, floors.state, strict=True)
    ]
    _label_ends(axes, axes.get_xlim()[1], ends, gap)
