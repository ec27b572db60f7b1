"""The staircase: what each idea of the course buys."""

from pathlib import Path

from matplotlib.ticker import MultipleLocator

from common.report.figures import dagger, footnote
from common.report.labels import headline
from common.report.plots import COLOURS, STYLE, WIDTH, plt, save


def staircase(frame, path: Path, mark: str) -> None:
    """Test bits per character of every stage in course order, a row each, with 95 % intervals; the floors of
    counting as lines. The axis is broken: what lies close together has most of the width.

    A stage that is not measured yet keeps its row, empty; what earlier code measured is hollow and has a
    dagger. A diamond is the same script at a learning rate of its own.
    """
    stages, floors = frame[frame.kind == "stage"], frame[frame.kind == "floor"]
    with plt.rc_context(
        STYLE | {"figure.constrained_layout.w_pad": 0.05, "figure.constrained_layout.wspace": 0}
    ):
        figure, (near, far) = plt.subplots(
            1, 2, figsize=(WIDTH, 0.36 * len(stages) + 2.4), sharey=True, width_ratios=(2.4, 1)
        )
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
        names = [_stage_name(label) for label in stages.label] + stages.state.map(dagger)
        near.set_yticks(range(len(stages)), names)
        near.tick_params(axis="y", length=0)
        headline(figure, "The staircase: what does each idea buy?")
        near.set_xlabel("test, bits per character\n(further left is better)")
        if "own rate" in set(frame.kind):
            near.plot([], [], "D", ms=7, color="#555555", label="at a rate of its\nown, clipped")
            near.legend(fontsize="small", loc="upper left", frameon=True, framealpha=1, edgecolor="none",
                        handletextpad=0.1)  # fmt: skip
        footnote(figure, "stale" in set(frame.state), [])
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
    near.xaxis.set_major_locator(MultipleLocator(0.2))
    far.xaxis.set_major_locator(MultipleLocator(1))
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
    return f"{label.split('_')[0]} {label.split('/')[1].replace(' --config ', ' ')}"


def _stair(near, far, y: int, stage, own: list, colour: str) -> None:
    """A stage in its row: mean and interval, hollow where earlier code measured it, its figure at the end of
    the row; or a word instead.
    """
    end, frame = (1.02, y), ("axes fraction", "data")
    look = {"va": "center", "fontsize": "small", "annotation_clip": False, "xycoords": frame}
    if stage.state == "missing":
        far.annotate("not measured yet", end, color="#555555", **look)
        return
    marks = {"fmt": "o", "ms": 9, "capsize": 4}
    for line, kind in ((stage, marks), *((line, {"fmt": "D", "ms": 7, "capsize": 3}) for line in own)):
        fill = "white" if line.state == "stale" else colour
        for axes in (near, far):
            axes.errorbar(line.test_bpc, y, xerr=line.half, color=colour, mfc=fill, **kind)
    said = f"{stage.test_bpc:.2f}" + "".join(f"  ◆ {line.test_bpc:.2f}" for line in own)
    far.annotate(said, end, **look)


def _floors(axes, floors) -> None:
    """What counting reaches, and the yardstick, as lines; their names above them, a little apart."""
    low, high = axes.get_xlim()
    at, gap = -float("inf"), (high - low) / (10 if high - low < 1 else 5)
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
            label + dagger(state), (floor, 1), (at, 1.01), xycoords=("data", "axes fraction"), rotation=50,
            textcoords=("data", "axes fraction"), fontsize="small", color="#555555", va="bottom", ha="left",
            rotation_mode="anchor",
        )  # fmt: skip
