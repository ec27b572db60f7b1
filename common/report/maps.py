"""A map of all runs of a script: a cell for each row and column, coloured by its score."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from common.report.labels import headline
from common.report.plots import WIDTH, draw, drawer, plt, write_table


def heat_map(cells: list[tuple], labels: tuple[str, str], title: str, path: Path) -> Path:
    """Draw scores as colours. cells: (row, column, arm, seed, score), several seeds to a cell; a score that
    is no number diverged.

    labels: of the columns and of the colours. Returns the picture's path.
    """
    lines = [(*where, math.nan if score is None else float(score)) for *where, score in cells]
    write_table(path, ["row", "column", "arm", "seed", "test_bpc"], lines)
    return draw({"drawer": "draw_heat_map", "labels": labels, "title": title}, path)


@drawer
def draw_heat_map(table, labels: Sequence[str], title: str):
    """A cell for each row and column, with the mean over its seeds."""
    rows, columns = list(table.row.unique()), list(table.column.unique())
    scores = {place: list(group.test_bpc) for place, group in table.groupby(["row", "column"])}
    # a cell with a run that diverged has no mean
    means = pd.Series({place: sum(values) / len(values) for place, values in scores.items()})
    shown = means.unstack().reindex(index=rows, columns=columns)
    # one cell that exploded must not make all others look alike
    cap = 1.5 * means.dropna().sort_values(ignore_index=True).get(means.count() // 2, math.nan)
    exploded = means.max() > cap
    figure, axes = plt.subplots(figsize=(WIDTH, 0.68 * len(rows) + 2.4))
    axes.grid(visible=False)
    axes.set_facecolor("#dddddd")
    bottom, top = (means.min(), cap if exploded else means.max()) if means.count() else (0.0, 1.0)
    image = axes.imshow(shown, cmap="cividis_r", aspect="auto", vmin=bottom, vmax=top)
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            colour = "white" if shown.iloc[y, x] > (bottom + top) / 2 else "black"
            text = _cell_text(scores.get((row, column), []))
            size = 13 if len(text) < 8 and "\n" not in text else 11
            axes.text(x, y, text, ha="center", va="center", fontsize=size, color=colour)
    axes.set_xticks(range(len(columns)), [str(column) for column in columns])
    axes.set_yticks(range(len(rows)), [str(row) for row in rows])
    axes.tick_params(length=0)
    axes.set_xlabel(labels[0])
    ends = "max" if exploded else "neither"
    figure.colorbar(image, ax=axes, label=labels[1], extend=ends, orientation="horizontal", aspect=40)
    headline(figure, title)
    return figure


def _cell_text(values: list[float]) -> str:
    """The mean over the seeds; each of them where they are a tenth apart or one diverged."""
    if not values:
        return "not run"
    known = [value for value in values if not math.isnan(value)]
    if len(known) == len(values) and max(known) <= 1.1 * min(known):
        return f"{sum(known) / len(known):.2f}"
    each = [f"{value:.2f}" if value < 100 else f"{value:.0f}" for value in known]
    return "\n".join([*each, *["diverged"] * (len(values) - len(known))])
