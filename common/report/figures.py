"""The pictures made from the results: the learning curves of a stage, and the rates that were tried."""

import re
import textwrap
from pathlib import Path

import pandas as pd

from common.report.labels import fit_height, headline, name_end
from common.report.plots import COLOURS, STYLE, WIDTH, plt, save

BITS = "validation,\nbits per character"
SEVERAL = 5  # lines whose single seeds can still be told apart
LINE = 0.27  # inches that the name of a line needs, one above the other


def dagger(state: str) -> str:
    """What stands after the name of a line in a picture."""
    return " †" if state == "stale" else ""


def footnote(figure, stale: bool, missing: list[str]) -> None:
    """Below a picture: what its daggers mean, and what it cannot show yet."""
    notes = ["† measured with an earlier version of the code"] if stale else []
    if missing:
        notes += textwrap.wrap(f"not measured yet: {', '.join(missing)}", 80)
    if notes:
        figure.supxlabel("\n".join(notes), x=0.012, ha="left", fontsize="small", color="#555555")


def look(number: int) -> tuple[str, str]:
    """The colour and the dashes of the line with this number; black is for what all are compared with."""
    colours = [colour for colour in COLOURS if colour != "#000000"]
    return colours[number % len(colours)], "-" if number < len(colours) else "--"


# ---- learning curves -----------------------------------------------------------------------------


def stage_curves(frame, stage: str, path: Path, mark: str) -> None:
    """Validation bits per character of a stage's scripts against steps.

    Above, for each number of steps, the curves themselves: the first line in black with its seeds (thin), the
    others in grey. Below, lines that belong together: each minus the first of them, seed by seed. Lines that
    earlier code measured have a dagger, and those not measured yet are named at the foot.
    """
    arms = frame.arm.map(lambda arm: "" if arm == "default" else f":{arm}")
    frame = frame.assign(line=frame.experiment.str.split("/").str[1] + arms + frame.state.map(dagger))
    missing = list(dict.fromkeys(frame.line[frame.state == "missing"]))
    frame = frame[frame.state != "missing"]
    panels = _panels(frame)
    heights = [2.9 if kind == "curves" else max(2.6, LINE * len(lines) + 0.9) for kind, lines in panels]
    with plt.rc_context(STYLE):
        figure, column = plt.subplots(
            len(panels), 1, figsize=(WIDTH, sum(heights) + 0.8), squeeze=False, height_ratios=heights
        )
        for axes, (kind, lines) in zip(column[:, 0], panels, strict=True):
            shown = frame[frame.line.isin(lines)]
            (_curves if kind == "curves" else _differences)(axes, shown, lines)
            axes.set_xlim(0, shown.step.max())
        apart = any(kind == "differences" for kind, _ in panels)
        column[-1, 0].set_xlabel(f"steps ({'thin, shaded' if apart else 'thin'}: the seeds)")
        headline(figure, f"{stage}: how fast does each script learn?")
        footnote(figure, "stale" in set(frame.state), missing)
        save(figure, path, mark)


def _panels(frame) -> list[tuple[str, list[str]]]:
    """What is drawn, from above: the curves of all lines with the same number of steps; then, of each script
    with several arms, and of all the others together, the differences to the first line.
    """
    last = frame.groupby("line", sort=False).step.max()
    first = frame.groupby("line", sort=False).first()
    scripts = first.experiment.where(first.experiment.map(first.experiment.value_counts()) > 1, "one each")
    listed: list[tuple[str, list[str]]] = []
    for steps in dict.fromkeys(last):
        same = [line for line in last.index if last[line] == steps]
        listed.append(("curves", same))
        for script in dict.fromkeys(scripts[same]):
            together = [line for line in same if scripts[line] == script]
            if len(together) > 1:
                listed.append(("differences", together))
    return listed


def _curves(axes, frame, lines: list[str]) -> None:
    """The curves of lines that were trained for the same number of steps, the first one with its seeds."""
    means = frame.groupby(["line", "step"]).val_bpc.mean()
    for line in lines[1:]:
        axes.plot(means[line].index, means[line], color="#aaaaaa", lw=1.2, alpha=0.8)
    for _, seed in frame[frame.line == lines[0]].groupby("seed"):
        axes.plot(seed.step, seed.val_bpc, color="black", lw=0.8, alpha=0.5)
    axes.plot(means[lines[0]].index, means[lines[0]], color="black", lw=2.4)
    shown = frame[frame.line == lines[0]].set_index(["line", "step"]).val_bpc
    later = pd.concat([means, shown])
    later = later[later.index.get_level_values("step") > 0]
    low, high = later.min(), min(later.max(), later.min() + 4 * (later.quantile(0.9) - later.min()) + 0.05)
    fit_height(axes, low, high)
    axes.set_ylabel(BITS)
    end = means[lines[0]].iloc[-1]
    name_end(axes, (means[lines[0]].index[-1], end), f"{_short(lines[0], lines)}  {end:.2f}", "#000000")
    if len(lines) > 1:
        axes.set_title("grey: the others, drawn apart below", fontweight="normal", fontsize="small")


def _differences(axes, frame, lines: list[str]) -> None:
    """Each line minus the first, seed by seed: the mean, and all that lies between the seeds; of a few lines
    also each seed.
    """
    curves = frame.pivot_table(index="step", columns=["line", "seed"], values="val_bpc")
    parts = {line: (curves[line] - curves[lines[0]]).dropna(axis=1, how="all") for line in lines}
    low, high = _late_range(list(parts.values()))
    axes.set_ylim(low, high)
    axes.axhline(0, color="black", lw=2.4)
    name_end(axes, (curves.index[-1], 0), f"{_short(lines[0], lines)}  (0)", "#000000")
    for number, line in enumerate(lines[1:]):
        (colour, dashes), mean = look(number), parts[line].mean(axis=1)
        lowest, highest = parts[line].min(axis=1), parts[line].max(axis=1)
        axes.fill_between(mean.index, lowest, highest, color=colour, alpha=0.12, lw=0)
        if len(lines) <= SEVERAL:
            axes.plot(parts[line].index, parts[line], color=colour, lw=0.8, alpha=0.45)
        axes.plot(mean.index, mean, dashes, color=colour)
        said = _signed(mean.iloc[-1], 3 if high - low < 0.2 else 2)
        name_end(axes, (mean.index[-1], mean.iloc[-1]), f"{_short(line, lines)}  {said}", colour)
    axes.set(ylabel=f"bits more than\n{_short(lines[0], lines)}")
    axes.set_title(_what(lines), fontsize="small")


def _late_range(parts: list) -> tuple[float, float]:
    """From where to where an axis of differences goes: it holds the means after a quarter of the steps, and
    of what lies between the seeds then as much as leaves the means a third of the height. A single line that
    would press all others flat is left outside.
    """
    late = [part[part.index >= 0.25 * part.index.max()] for part in parts]
    if len(late) > 3:
        near = sorted(late, key=lambda part: part.mean(axis=1).abs().max())[:-1]
        low, high = _span(near)
        if high - low < 0.4 * (_span(late)[1] - _span(late)[0]):
            late = near
    low, high = _span(late)
    room = high - low + 0.002
    lowest, highest = min(part.min(axis=None) for part in late), max(part.max(axis=None) for part in late)
    return max(lowest, low - room) - 0.08 * room, min(highest, high + room) + 0.08 * room


def _span(parts: list) -> tuple[float, float]:
    """The lowest and the highest mean over seeds."""
    means = [part.mean(axis=1) for part in parts]
    return min(mean.min() for mean in means), max(mean.max() for mean in means)


def _signed(difference: float, digits: int) -> str:
    """A difference with its sign; none where it is rounded to nothing."""
    text = f"{difference:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def _short(line: str, lines: list[str]) -> str:
    """The arm alone where all lines are of one script."""
    scripts = {other.split(":")[0] for other in lines}
    return line.split(":")[-1] if len(scripts) == 1 else line


def _what(lines: list[str]) -> str:
    """The title of a panel of differences: `optimizer: the difference to adamw (below 0 is better)`."""
    script = f"{lines[0].split(':')[0]}: " if ":" in lines[0] else ""
    return f"{script}the difference to {_short(lines[0], lines)} (below 0 is better)"


def run_curves(experiment: str, runs: list[tuple[str, int, list]], path: Path) -> None:
    """Validation bits per character against steps, one line for each (arm, seed, curve) of a run."""
    arms = list(dict.fromkeys(arm for arm, _, _ in runs))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, max(4.4, LINE * len(runs) + 1.6)))
        axes.set_xlim(0, max(point[0] for _, _, curve in runs for point in curve) or 1)
        for arm, seed, curve in runs:
            steps, bits = [point[0] for point in curve], [point[3] for point in curve]
            colour = COLOURS[arms.index(arm) % len(COLOURS)]
            axes.plot(steps, bits, "o-", ms=3, color=colour, alpha=0.8)
            name = f"seed {seed}" if len(arms) == 1 else f"{arm}, seed {seed}"
            name_end(axes, (steps[-1], bits[-1]), name, colour)
        axes.set(xlabel="steps", ylabel=BITS)
        headline(figure, f"{experiment}: how fast does it learn?")
        save(figure, path)


# ---- sweeps --------------------------------------------------------------------------------------


def sweeps(frame, path: Path, mark: str) -> None:
    """Validation bits per character against the learning rate: a line for each arm (mean of the seeds, which
    are dots), its best rate large. A script with several arms has a panel of its own.
    """
    arms = frame.groupby("experiment").line.nunique()
    several = frame.experiment.map(arms) > 1
    scripts = frame.experiment.str.split("/").str[1].where(several, "one model each")
    panels = list(frame.groupby(scripts, sort=False))
    heights = [max(3.2, LINE * panel.line.nunique() + 1.2) for _, panel in panels]
    with plt.rc_context(STYLE):
        figure, column = plt.subplots(
            len(panels), 1, figsize=(WIDTH, sum(heights) + 0.9), squeeze=False, height_ratios=heights
        )
        for axes, (name, panel) in zip(column[:, 0], panels, strict=True):
            _panel_of_rates(axes, panel)
            axes.set_title(str(name) if len(panels) > 1 else "")
        column[-1, 0].set_xlabel("learning rate (large dot: the best)")
        headline(figure, "Which learning rate suits each?")
        save(figure, path, mark)


def _panel_of_rates(axes, panel) -> None:
    """The lines of one panel, named at their right ends; what lies far above the best is cut off, but for the
    best of each arm.
    """
    rates = sorted(panel.lr.unique())
    low, high = panel.val_bpc.min(), panel.val_bpc.max()
    bests = panel[panel.chosen].groupby("line").val_bpc.max()
    high = min(high, max(low + 0.4, bests.max() + 0.05))
    axes.set(xscale="log", ylabel=BITS)
    fit_height(axes, low, high)
    axes.set_xlim(rates[0] / 1.1, rates[-1] * 1.1)
    for number, (name, own) in enumerate(panel.groupby("line", sort=False)):
        colour, dashes = look(number)
        mean = own.groupby("lr").val_bpc.agg(lambda bits: bits.mean(skipna=False))
        axes.plot(own.lr, own.val_bpc, ".", ms=5, color=colour, alpha=0.6)
        axes.plot(mean.index, mean, dashes, color=colour)
        best = own.lr[own.chosen]
        axes.plot(best, mean[best], "o", ms=9, color=colour)
        known = mean.dropna()
        name_end(axes, (known.index[-1], known.iloc[-1]), _own_name(str(name)), colour)
    ticks = thinned(rates, 7)
    axes.set_xticks(ticks, [f"{rate:g}" for rate in ticks])
    axes.minorticks_off()


def _own_name(line: str) -> str:
    """The name of a line without the rate that it has: `pre_ln` of `pre_ln --clip 1 --lr 8e-3`."""
    return re.sub(r" --(clip|lr) \S+| --config(?= )", "", line).split(":")[-1]


def thinned(values: list[float], most: int) -> list[float]:
    """About so many of these values at most, none too near to the one before it on a logarithmic axis."""
    ratio = (values[-1] / values[0]) ** (1 / most)
    kept = values[:1]
    for value in values[1:]:
        if value >= kept[-1] * ratio * (1 - 1e-9):
            kept.append(value)
    return kept
