"""Texts in pictures that do not lie on one another: names at the ends of lines, titles, legends."""

import math
import textwrap
from collections.abc import Sequence

from matplotlib.colors import to_hex, to_rgb
from matplotlib.transforms import offset_copy

END = "end of a line"
TITLE_LENGTH = 55  # characters of a title in a line


def fit_height(axes, low: float, high: float) -> None:
    """Let the axes go from `low` to `high` with some room around, also where the two are one; where they are
    no numbers (nothing is shown), leave the axes as they are.
    """
    if math.isfinite(low) and math.isfinite(high):
        margin = max(0.06 * (high - low), 1e-3)
        axes.set_ylim(low - margin, high + margin)


def ink(colour: str) -> str:
    """The colour of a line, darker: that of its name, which has to be read on white."""
    red, green, blue = to_rgb(colour)
    return to_hex((0.72 * red, 0.72 * green, 0.72 * blue))


def name_end(axes, at: tuple[float, float], text: str, colour: str) -> None:
    """Write the name of a line to the right of the axes, with a thread to its end. `spread` moves the names
    of all lines apart. An end that lies above or below the axes has an arrow in its name.
    """
    (low, high), (x, y) = axes.get_ylim(), at
    text += " ↑" if y > high else " ↓" if y < low else ""
    y = min(max(y, low), high)
    beside = offset_copy(axes.get_yaxis_transform(), axes.figure, x=14, units="points")
    thread = {"arrowstyle": "-", "color": colour, "lw": 0.9, "alpha": 0.9, "ls": (0, (1, 1.5)), "shrinkA": 1,
              "shrinkB": 2}  # fmt: skip
    axes.annotate(
        text, (x, y), (1, y), textcoords=beside, color=ink(colour), va="center", fontsize="small",
        annotation_clip=False, arrowprops=thread | {"relpos": (0, 0.5)}, gid=END,
    )  # fmt: skip


def spread(figure) -> None:
    """Move the names at the ends of lines apart, up and down, until none lies on another."""
    if not any(text.get_gid() == END for axes in figure.axes for text in axes.texts):
        return
    figure.draw_without_rendering()  # the layout: how high the axes are
    for axes in figure.axes:
        names = [text for text in axes.texts if text.get_gid() == END]
        if not names:
            continue
        pixels = [axes.transData.transform((0, text.xyann[1]))[1] for text in names]
        gap = 1.02 * max(text.get_window_extent().height for text in names)
        box = axes.get_window_extent()
        for text, y in zip(names, apart(pixels, gap, box.y0, box.y1), strict=True):
            text.set_position((1, axes.transData.inverted().transform((0, y))[1]))


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near as can be to the wanted ones, in their order, no two nearer than `gap`, all between low
    and high where there is room.

    Less its number times the gap, each place may not lie below the one before it: so those that would are
    given their common mean.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[list[float]] = []  # of places that touch: their sum, how many
    for number, i in enumerate(order):
        groups.append([wanted[i] - number * gap, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + count]
    means = [total / count for total, count in groups for _ in range(int(count))]
    top = high - gap * (len(wanted) - 0.5)
    places = [0.0] * len(wanted)
    for number, (i, mean) in enumerate(zip(order, means, strict=True)):
        places[i] = max(min(mean, top), low + gap / 2) + number * gap
    return places


def headline(figure, title: str) -> None:
    """The title of a picture: at its left, in as many lines of about equal length as it needs."""
    lines = -(-len(title) // TITLE_LENGTH)
    text = textwrap.fill(title, len(title) // lines + 5 if lines > 1 else TITLE_LENGTH)
    figure.suptitle(text, x=0.012, ha="left", fontsize="large", fontweight="bold")


def legend(figure, axes, columns: int = 3) -> None:
    """What marks and lines mean, below the picture."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
