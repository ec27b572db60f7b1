"""Every picture of the course.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from common.paths import logs_folder

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
WIDTH = 8.0  # inches; at 110 dots per inch this is the width of a README page
LABEL = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85}
STYLE: dict = {
    "figure.dpi": 110, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.grid": True, "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False, "figure.facecolor": "white", "savefig.facecolor": "white",
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


def save(figure, path: Path, mark: str = "") -> None:
    """Write a PNG with `mark` in its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=220, metadata={"Software": None, "Description": mark}, bbox_inches="tight")
    plt.close(figure)


def copy_marked(drawn: Path, tracked: Path, data: str, source: str) -> None:
    """Copy a picture and put the mark of its data and source in the header of the copy."""
    from PIL import Image, PngImagePlugin

    header = PngImagePlugin.PngInfo()
    header.add_text("Description", mark(data, source))
    tracked.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(drawn) as image:
        image.save(tracked, pnginfo=header, dpi=image.info.get("dpi", (110, 110)))


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


# ---- learning curves -----------------------------------------------------------------------------


def run_curves(experiment: str, runs: list[tuple[str, int, list]], path: Path) -> None:
    """Validation bits per character against steps, one line for each (arm, seed, curve) of a run."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4))
        arms = list(dict.fromkeys(arm for arm, _, _ in runs))
        for arm, seed, curve in runs:
            label = f"seed {seed}" if len(arms) == 1 else f"{arm}, seed {seed}"
            axes.plot(
                [p[0] for p in curve],
                [p[3] for p in curve],
                "o-",
                ms=3,
                color=COLOURS[arms.index(arm) % 8],
                alpha=0.8,
                label=label,
            )
        axes.set(
            title=f"{experiment}: how fast does it learn?",
            xlabel="steps",
            ylabel="validation, bits per character",
        )
        axes.legend()
        save(figure, path)


# ---- layers --------------------------------------------------------------------------------------


def layers(probes: list, title: str, path: Path) -> Path:
    """Draw what was probed in each layer while training, one panel per quantity, on a log axis; write it
    beside the picture as CSV.

    probes: [step, {quantity: [value of layer 1, 2, ...]}] in order. Returns the picture's path.
    """
    path = path.with_suffix(".png")
    lines = [
        (step, name, layer, value)
        for step, probed in probes
        for name, values in probed.items()
        for layer, value in enumerate(values, 1)
    ]
    write_table(path, ["step", "quantity", "layer", "value"], lines)
    names, count = list(probes[0][1]), len(next(iter(probes[0][1].values())))
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(names), figsize=(WIDTH, 3.6), squeeze=False)
        shades = plt.get_cmap("viridis_r")
        for axes, name in zip(row[0], names, strict=True):
            for layer in range(count):
                values = [probe[name][layer] for _, probe in probes]
                colour = shades(0.15 + 0.8 * layer / max(1, count - 1))
                axes.plot(
                    [step for step, _ in probes], values, "o-", ms=3, color=colour, label=f"block {layer + 1}"
                )
            axes.set(yscale="log", xlabel="steps", ylabel=name)
        row[0][0].legend(fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.tight_layout()
        save(figure, path)
    return path


# ---- attention -----------------------------------------------------------------------------------


def shown(symbol: str) -> str:
    """A token as a label: spaces and line breaks that can be seen, nothing that the library would read as
    mathematics.
    """
    marks = {" ": "␣", "\n": "↵", "\t": "⇥", "$": r"\$"}
    return "".join(marks.get(c, c if c.isprintable() else "·") for c in symbol)


def attention(weights, symbols: list[str], path: Path) -> Path:
    """Draw attention weights (T, T) over T tokens, and write them beside the picture as CSV.

    Returns the picture's path.
    """
    weights = weights.detach().cpu().tolist()
    lines = [
        (t, symbols[t], s, symbols[s], f"{weight:.6f}")
        for t, row in enumerate(weights)
        for s, weight in enumerate(row[: t + 1])
    ]
    path = path.with_suffix(".png")
    write_table(path, ["row", "from", "column", "to", "weight"], lines)
    labels = [shown(symbol) for symbol in symbols]
    with plt.rc_context(STYLE | {"axes.grid": False, "font.family": "DejaVu Sans"}):
        figure, axes = plt.subplots(figsize=(WIDTH, WIDTH * 0.88))
        axes.set_facecolor("#e8e8e8")
        past = [[w if s <= t else float("nan") for s, w in enumerate(row)] for t, row in enumerate(weights)]
        image = axes.imshow(past, cmap="cividis", vmin=0)
        axes.text(
            0.98,
            0.97,
            "the future:\nweight exactly 0",
            transform=axes.transAxes,
            ha="right",
            va="top",
            color="#555555",
        )
        long = max(map(len, labels)) > 2
        axes.set_xticks(range(len(labels)), labels, rotation=90 if long else 0)
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(length=0, labelsize=9)
        axes.set(
            title="Where does each character look?",
            xlabel="what is looked at",
            ylabel="who looks (each row sums to 1)",
        )
        figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02, label="attention weight")
        save(figure, path)
    return path


def attention_grid(layers: list, symbols: list[str], title: str, path: Path) -> Path:
    """Draw the weights of every head, (H, T, T) per layer, one row of panels for each layer; the future stays
    grey. Returns the path.
    """
    heads, length = max(len(weights) for weights in layers), len(symbols)
    with plt.rc_context(STYLE | {"axes.grid": False, "font.family": "DejaVu Sans"}):
        side = max(1.7, min(3.2, 0.11 * length))
        figure, grid = plt.subplots(
            len(layers), heads, figsize=(side * heads + 0.6, side * len(layers) + 0.6), squeeze=False
        )
        for row, (weights, axes_row) in enumerate(zip(layers, grid, strict=True)):
            for head, axes in enumerate(axes_row):
                if head >= len(weights):
                    axes.axis("off")
                    continue
                axes.set_facecolor("#e8e8e8")
                past = weights[head].masked_fill(
                    weights[head].new_ones(length, length).triu(1).bool(), float("nan")
                )
                image = axes.imshow(past, cmap="cividis", vmin=0, vmax=1)
                labels = [shown(symbol) for symbol in symbols] if length <= 40 else []
                axes.set_xticks(
                    range(len(labels)), labels, fontsize=5, rotation=90 if max(map(len, symbols)) > 2 else 0
                )
                axes.set_yticks(range(len(labels)), labels, fontsize=5)
                axes.tick_params(length=0, pad=1)
                axes.set_title(f"layer {row + 1}, head {head + 1}", fontsize=8, fontweight="normal")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.tight_layout()
        figure.colorbar(image, ax=grid, fraction=0.02, pad=0.02, label="weight (each row sums to 1)")
        save(figure, path)
    return path
