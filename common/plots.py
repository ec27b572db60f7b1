"""Every picture of the course. Colours are those of Okabe and Ito, which colour-blind readers can tell apart."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
WIDTH = 8.0  # inches; at 110 dots per inch this is the width of a README page

plt.rcParams.update({
    "figure.dpi": 110, "savefig.bbox": "tight", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True,
    "legend.frameon": False, "figure.facecolor": "white", "savefig.facecolor": "white",
})  # fmt: skip


def save(figure, path: Path, **metadata: str) -> None:
    """Write a PNG; `metadata` stands in its header, where `python -m common.report --check` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None, **metadata})
    plt.close(figure)


def run_curves(experiment: str, runs: list[tuple[str, int, list]], path: Path) -> None:
    """Validation bits per character against steps, one line for each (arm, seed, curve) of a run."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4))
    arms = list(dict.fromkeys(arm for arm, _, _ in runs))
    for arm, seed, curve in runs:
        label = f"seed {seed}" if len(arms) == 1 else f"{arm}, seed {seed}"
        axes.plot([p[0] for p in curve], [p[3] for p in curve], "o-", ms=3, color=COLOURS[arms.index(arm) % 8], alpha=1 if len(arms) > 1 else 0.7, label=label)
    axes.set(title=f"{experiment}: how fast does it learn?", xlabel="steps", ylabel="validation, bits per character")
    axes.legend()
    save(figure, path)
