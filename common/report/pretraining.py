"""The pictures of a long run: from the log of its steps, and beside what counting reaches."""

from pathlib import Path

import pandas as pd

from common.lessons.course import BASELINES, refer
from common.report.plots import COLOURS, LABEL, STYLE, WIDTH, plt, save, write_table
from common.results.table import course_rows

POINTS = 250  # of a line: each the mean of as many steps


def draw(steps: list[dict[str, float]], curve: list, folder: Path) -> list[Path]:
    """Draw losses (single steps, their running mean, validation), perplexity, the length of the gradient, the
    rate, and the speed. Returns the paths; none where there is no log.

    steps: lines of a log. curve: points of the learning curve (step, training, validation, bits).
    """
    if not steps:
        return []
    every = -(-len(steps) // POINTS)
    frame = pd.DataFrame(steps)
    frame = frame.groupby(frame.index // every).mean()
    write_table(folder / "training", list(frame.columns), frame.itertuples(index=False))
    held_out = pd.DataFrame(curve, columns=["step", "train", "validation", "bpc"])
    with plt.rc_context(STYLE):
        figure, ((losses, perplexity), (norm, rate), (speed, share)) = plt.subplots(3, 2, figsize=(WIDTH, 8))
        losses.plot(frame.step, frame.loss, color=COLOURS[5], lw=0.7, alpha=0.6, label="training, each step")
        losses.plot(frame.step, frame.ema, color=COLOURS[0], label="training, running mean")
        losses.plot(held_out.step, held_out.validation, "o-", ms=3, color=COLOURS[1], label="validation")
        losses.set(title="loss (nats per token)")
        losses.legend(fontsize=8)
        perplexity.plot(frame.step, frame.perplexity, color=COLOURS[0], lw=0.7)
        perplexity.set(title="perplexity of a step", yscale="log")
        for axes, column, title in (
            (norm, "norm", "length of the gradient"),
            (rate, "lr", "learning rate"),
            (speed, "tokens_per_second", "tokens a second"),
            (share, "mfu", "share of the machine's speed"),
        ):
            axes.plot(frame.step, frame[column], color=COLOURS[0], lw=0.9)
            axes.set(title=title)
        if frame.norm.max() > 10 * frame.norm.min():
            norm.set(yscale="log")
        for axes in (rate, speed, share):
            axes.set_ylim(bottom=0)
        for axes in (speed, share):
            axes.set_xlabel("step")
        figure.tight_layout()
        save(figure, folder / "training.png")
    return [folder / "training.png"]


def _floors(corpus: str) -> dict[str, float]:
    """Bits per character of the validation text: of counting, and of the yardstick, where it was measured."""
    found = {}
    for label, line in BASELINES.items():
        rows = course_rows(refer(line))
        rows = rows[rows.corpus == corpus]
        if len(rows):
            found[label] = float(rows.val_bpc.mean())
    return found


def draw_floors(row: dict, curve: list, folder: Path) -> list[Path]:
    """Draw when a run passes what counting reaches, and the yardstick: bits per character of the validation
    text against the seconds of training. Returns the paths; none where no floor was measured on its text.

    row: of the results. curve: points of the learning curve (step, training, validation, bits).
    """
    floors = _floors(row["corpus"])
    later = [(step * row["train_seconds"] / row["steps"], bits) for step, _, _, bits in curve if step]
    if not floors or not later:
        return []
    lines = [("run", "", at, bits) for at, bits in later]
    for label, floor in floors.items():
        lines.append(("floor", label, next((at for at, now in later if now <= floor), ""), floor))
    write_table(folder / "floors", ["kind", "label", "seconds", "bpc"], lines)
    seconds, bits = zip(*later, strict=True)
    low, high = min(*bits, *floors.values()) - 0.1, max(bits) + 0.3
    shown = sorted((floor, label) for label, floor in floors.items() if floor < high)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
        axes.plot(seconds, bits, "o-", ms=4, color=COLOURS[1], label="this run")
        below, at = low, 1.0
        for floor, label in shown:
            colour = COLOURS[0] if label == "yardstick" else "0.35"
            axes.axhline(floor, lw=1, zorder=1, color=colour, ls=":" if label == "yardstick" else "--")
            at = 0.88 if floor - below < 0.06 * (high - low) and at == 1.0 else 1.0  # beside a close one
            axes.annotate(
                label,
                (at * seconds[-1], floor),
                fontsize=9,
                ha="right",
                va="bottom",
                color=colour,
                bbox=LABEL,
            )
            below = floor
        axes.set(xlabel="seconds of training", title="bits per character, validation text", ylim=(low, high))
        axes.set_xlim(left=0)
        save(figure, folder / "floors.png")
    return [folder / "floors.png"]
