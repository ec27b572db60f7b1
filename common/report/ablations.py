"""Pictures of an ablation study: the losses of all runs in one, and each beside the baseline."""

from pathlib import Path

import pandas as pd

from common.lessons.run_folder import run_folder
from common.report.plots import COLOURS, STYLE, WIDTH, plt, save, write_table
from common.training.loss_log import read_losses

COLUMNS = ["arm", "seed", "step", "loss"]
POINTS = 75  # of a curve: each the mean of as many steps


def thinned(losses: list[tuple[int, float]], points: int = POINTS) -> list[tuple[int, float]]:
    """The curve as means over stretches of equal length, each at its last step."""
    every = max(1, -(-len(losses) // points))
    parts = [losses[first : first + every] for first in range(0, len(losses), every)]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in parts]


def kept_losses(row: dict) -> list[tuple]:
    """(arm, seed, step, loss), thinned, from the log that the run of a row has written."""
    key = ("experiment", "arm", "seed", "config_hash", "code_hash")
    log = run_folder(*(row[name] for name in key)) / "losses" / f"{row['arm']}.csv"
    return [(row["arm"], row["seed"], step, loss) for step, loss in thinned(read_losses(log))]


def comparison(lines: list[tuple], title: str, path: Path) -> Path:
    """Draw (arm, seed, step, loss) as one line for each arm, all overlaid. Returns the picture's path."""
    frame = _table(path, lines)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
        for number, (arm, run) in enumerate(frame.groupby("arm", sort=False)):
            _line(axes, run, COLOURS[number % len(COLOURS)], str(arm))
        axes.set(title=title, xlabel="step", ylabel="training loss, nats per token")
        axes.legend(fontsize=8)
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def grid(lines: list[tuple], title: str, path: Path) -> Path:
    """Draw each arm in a panel of its own, three to a row, the first arm in grey behind it. Returns the
    picture's path.
    """
    frame = _table(path, lines)
    arms = list(frame.arm.unique())
    rows = max(3, -(-len(arms) // 3))
    with plt.rc_context(STYLE):
        size = (WIDTH, 2.2 * rows)
        figure, panels = plt.subplots(rows, 3, figsize=size, sharex=True, sharey=True, squeeze=False)
        for number, axes in enumerate(panels.flat):
            if number >= len(arms):
                axes.set_axis_off()
                continue
            _line(axes, frame[frame.arm == arms[0]], "#bbbbbb", arms[0])
            _line(axes, frame[frame.arm == arms[number]], COLOURS[number % len(COLOURS)], arms[number])
            axes.set_title(arms[number], fontsize=9)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.supxlabel("step", fontsize=9)
        figure.supylabel("training loss, nats per token", fontsize=9)
        figure.tight_layout()
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def single(lines: list[tuple], path: Path) -> Path:
    """Draw the runs of one arm. Returns the picture's path."""
    frame = _table(path, lines)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
        for _, run in frame.groupby("seed"):
            _line(axes, run, COLOURS[0], f"seed {run.seed.iloc[0]}")
        axes.set(title=str(frame.arm.iloc[0]), xlabel="step", ylabel="training loss, nats per token")
        save(figure, path.with_suffix(".png"))
    return path.with_suffix(".png")


def _table(path: Path, lines: list[tuple]) -> pd.DataFrame:
    write_table(path, COLUMNS, lines)
    return pd.DataFrame([list(line) for line in lines], columns=COLUMNS)


def _line(axes, run: pd.DataFrame, colour: str, label: str) -> None:
    """One arm: the mean over its seeds."""
    mean = run.groupby("step").loss.mean()
    axes.plot(mean.index, mean, lw=1.3, color=colour, label=label)
