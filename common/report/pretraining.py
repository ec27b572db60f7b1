"""The picture of a long run, from the log of its steps."""

from pathlib import Path

import pandas as pd

from common.report.plots import COLOURS, STYLE, WIDTH, plt, save, write_table

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
