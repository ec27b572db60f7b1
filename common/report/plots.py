"""Every picture of the course.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from common.paths import logs_folder
from common.report.labels import spread

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
WIDTH, DPI = 8.0, 220  # inches, dots per inch: twice the width of a README page
# On a phone the picture is 390 pixels wide, and a text of 14 points about 9 pixels high.
STYLE: dict = {
    "figure.dpi": 110, "font.size": 14, "font.family": "DejaVu Sans", "axes.labelsize": 13,
    "xtick.labelsize": 12.5, "ytick.labelsize": 12.5, "legend.fontsize": 12.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 13.5,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.grid": True, "grid.alpha": 0.3,
    "axes.axisbelow": True, "lines.linewidth": 2, "legend.frameon": False, "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4, "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.14, "figure.constrained_layout.h_pad": 0.12,
    "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white",
    "savefig.transparent": False,
}  # fmt: skip


def folder() -> Path:
    """Where the tracked plots are."""
    return logs_folder() / "plots"


# ---- the table beside a picture ------------------------------------------------------------------


def table_text(lines: Iterable[Sequence]) -> str:
    """A table as CSV, its header first; numbers with all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(
        [repr(float(cell)) if isinstance(cell, float) else cell for cell in line] for line in lines
    )
    return text.getvalue()


def write_table(path: Path, header: list[str], lines: Iterable[Sequence]) -> None:
    """The data of a picture, beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".csv").write_text(table_text([header, *lines]), encoding="utf-8", newline="\n")


# ---- a picture carries the fingerprint of its data -----------------------------------------------


def mark(data: str, source: str = "") -> str:
    """What stands in a picture's header: a fingerprint of the data drawn, and of the code that made the data
    where that is known.
    """
    return f"{hashlib.sha256(data.encode()).hexdigest()[:16]} {source}".strip()


def save(figure, path: Path, mark: str = "", drawn_by: dict | None = None) -> None:
    """Write a PNG, with its mark and how it is drawn in its header. Names at line ends are moved apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spread(figure)
    header = {"Software": None, "Description": mark}
    header |= {"Comment": json.dumps(drawn_by)} if drawn_by else {}
    figure.savefig(path, dpi=DPI, metadata=header)
    plt.close(figure)


def copy_marked(drawn: Path, tracked: Path, data: str, source: str) -> None:
    """Copy a picture and put the mark of its data and source in the header of the copy."""
    from PIL import Image, PngImagePlugin

    header, how = PngImagePlugin.PngInfo(), read_how(drawn)
    header.add_text("Description", mark(data, source))
    if how:
        header.add_text("Comment", json.dumps(how))
    tracked.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(drawn) as image:
        image.save(tracked, pnginfo=header, dpi=image.info.get("dpi", (DPI, DPI)))


def read_mark(picture: Path) -> str:
    """What stands in a picture's header; empty where nothing does."""
    from PIL import Image

    with Image.open(picture) as image:
        return image.info.get("Description", "")


def mark_problem(path: Path, data: str) -> list[str]:
    """One line if the picture beside the data file `path` is missing or shows other data, else none."""
    picture = path.with_suffix(".png")
    if not picture.exists():
        return [f"{picture.name} is missing"]
    return (
        []
        if read_mark(picture) == mark(data)
        else [f"{picture.name} was drawn from other data than the results give"]
    )


# ---- a picture is drawn from its table ------------------------------------------------------------

DRAWERS: dict[str, Callable] = {}


def drawer(function: Callable) -> Callable:
    """Register what draws a figure from a table: `function(table, **words)`, where words are what a table
    does not say, as the title.
    """
    DRAWERS[function.__name__] = function
    return function


def draw(how: dict, path: Path, mark: str = "") -> Path:
    """Draw a picture from the table beside it. how: the name of a drawer under `drawer`, and its words. They
    stand in the picture's header, so that it can be drawn anew. Returns the picture's path.
    """
    words = {name: value for name, value in how.items() if name != "drawer"}
    with plt.rc_context(STYLE):
        figure = DRAWERS[how["drawer"]](read_table(path), **words)
        save(figure, path.with_suffix(".png"), mark, how)
    return path.with_suffix(".png")


def read_table(path: Path):
    """The table beside a picture: columns of numbers where every cell is one or empty, else of texts."""
    import pandas as pd

    table = pd.read_csv(path.with_suffix(".csv"), dtype=str, keep_default_na=False)
    for name in table.columns:
        if table[name].any():
            table[name] = _numbers(table[name])
    return table


def _numbers(column):
    """A column of texts as whole numbers or as numbers, where all its cells are."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return column.replace("", "nan").astype(kind)
    return column


def read_how(picture: Path) -> dict:
    """How a picture is drawn from the table beside it; empty where its header does not say."""
    from PIL import Image

    with Image.open(picture) as image:
        return json.loads(image.info.get("Comment", "{}"))
