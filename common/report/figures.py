"""The pictures that are made from the results: the learning curves of a stage, and the staircase."""

import textwrap
from pathlib import Path

from common.report.plots import COLOURS, STYLE, WIDTH, plt, save


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
    """Test bits per character of every stage in course order, a row each, with 95 % intervals; the floors of
    counting as lines. The axis is broken: what lies close together has most of the width.

    A stage that is not measured yet keeps its row, empty; what earlier code measured is hollow and has a
    dagger. A diamond is the same script at a learning rate of its own.
    """
    stages, floors = frame[frame.kind == "stage"], frame[frame.kind == "floor"]
    with plt.rc_context(STYLE):
        figure, (near, far) = plt.subplots(
            1, 2, figsize=(WIDTH, 0.25 * len(stages) + 1.6), sharey=True,
            gridspec_kw={"width_ratios": (2, 1), "wspace": 0.04},
        )  # fmt: skip
        _break_axis(near, far, frame)
        folders = list(dict.fromkeys(label.split("/")[0] for label in stages.label))
        for y, stage in enumerate(stages.itertuples()):
            number = folders.index(stage.label.split("/")[0])
            for axes in (near, far):
                axes.axhspan(y - 0.5, y + 0.5, color="#000000", alpha=0.045 * (number % 2), lw=0)
            own = frame[(frame.kind == "own rate") & (frame.label == stage.label)]
            _stair(near, far, y, stage, list(own.itertuples()), COLOURS[number % 8])
        for axes in (near, far):
            _floors(axes, floors)
        near.set_ylim(len(stages) - 0.5, -0.5)
        names = [_stage_name(label) for label in stages.label] + stages.state.map(_dagger)
        near.set_yticks(range(len(stages)), names)
        near.tick_params(axis="y", length=0)
        near.set_title("The staircase: what does each idea buy? (further left is better)", x=-0.5, pad=48)
        near.set_xlabel("test, bits per character")
        if "own rate" in set(frame.kind):
            near.plot([], [], "D", ms=5, color="#555555", label="at its own best rate,\ngradients clipped")
            near.legend(fontsize=9, loc="upper right", frameon=True, framealpha=1, edgecolor="none")
        _footnote(figure, "stale" in set(frame.state), [])
        save(figure, path, mark)


def _break_axis(near, far, frame) -> None:
    """Where the lower and the upper part of the axis begin and end, and the sign between them."""
    bits = frame.test_bpc.dropna()
    low, high = (bits.min(), bits.max()) if len(bits) else (2.0, 5.0)
    middle = low + 0.3 * (high - low) + 0.05
    near.set_xlim(low - 0.06, middle)
    far.set_xlim(middle, high + 0.08 * (high - low))
    for axes in (near, far):
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    far.tick_params(axis="y", length=0)
    for axes, x in ((near, 1), (far, 0)):
        axes.plot(
            [x],
            [0],
            marker=[(-0.6, -1), (0.6, 1)],
            ms=10,
            color="black",
            mew=1,
            clip_on=False,
            transform=axes.transAxes,
        )


def _stage_name(label: str) -> str:
    """`05 pre_ln` of `05_residual_norm/pre_ln`."""
    return f"{label.split('_')[0]}  {label.split('/')[1]}"


def _stair(near, far, y: int, stage, own: list, colour: str) -> None:
    """A stage in its row: mean and interval, hollow where earlier code measured it, its figure at the end of
    the row; or a word instead.
    """
    end, frame = (1.02, y), ("axes fraction", "data")
    look = {"va": "center", "fontsize": 9, "annotation_clip": False, "xycoords": frame}
    if stage.state == "missing":
        far.annotate("not measured yet", end, color="#555555", **look)
        return
    marks = {"fmt": "o", "ms": 7, "capsize": 3}
    for line, kind in ((stage, marks), *((line, {"fmt": "D", "ms": 5, "capsize": 2}) for line in own)):
        fill = "white" if line.state == "stale" else colour
        for axes in (near, far):
            axes.errorbar(line.test_bpc, y, xerr=line.half, color=colour, mfc=fill, **kind)
    said = f"{stage.test_bpc:.2f}" + "".join(f"   ◆ {line.test_bpc:.2f}" for line in own)
    far.annotate(said, end, **look)


def _floors(axes, floors) -> None:
    """What counting reaches, and the yardstick, as lines; their names above them, a little apart."""
    low, high = axes.get_xlim()
    at, gap = -float("inf"), (high - low) / (16 if high - low < 1 else 6)
    for label, floor, state in sorted(
        zip(floors.label, floors.test_bpc, floors.state, strict=True), key=lambda line: line[1]
    ):
        if not low <= floor < high:
            continue
        dots = label == "yardstick"
        axes.axvline(
            floor, color="#555555", lw=1.4 if dots else 1, ls=":" if dots else (0, (4, 3)), zorder=0.5
        )
        at = max(floor, at + gap)
        axes.annotate(
            label + _dagger(state), (floor, 1), (at, 1.01), xycoords=("data", "axes fraction"), rotation=50,
            textcoords=("data", "axes fraction"), fontsize=9, color="#555555", va="bottom", ha="left",
            rotation_mode="anchor",
        )  # fmt: skip
