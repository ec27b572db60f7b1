"""The tracked pictures that scripts drew, drawn anew from the tables beside them, without a run."""

import shutil
from pathlib import Path

from common.errors import UserError
from common.report import ablations, inside, maps, overviews, plots, pretraining, size_law

MODULES = (ablations, inside, maps, overviews, pretraining, size_law)  # what draws: see plots.drawer


def redraw(table: Path, mark: str | None = None, how: dict | None = None) -> None:
    """Draw the picture beside a table, as its header says, or as `how` says, and keep what its mark says of
    its source. Raises UserError where the header does not say how.
    """
    picture = table.with_suffix(".png")
    if not (how or picture.exists()):  # some tables have none
        return
    how = how or plots.read_how(picture)
    if how.get("drawer") not in plots.DRAWERS:
        raise UserError(f"{picture.name} does not say how it is drawn; run its script and the report again")
    if mark is None:
        source = plots.read_mark(picture).partition(" ")[2]
        mark = plots.mark(table.read_text(encoding="utf-8"), source)
    plots.draw(how, table, mark)


def take_over(drawn: Path, tracked: Path, source: str) -> None:
    """Take over a table that a run wrote, and its picture, if it has one, drawn by the present code.

    Nothing is done where both are tracked already, nor where the run was so long ago that its picture does
    not say how it is drawn, and the tracked one does.
    """
    picture, known = drawn.with_suffix(".png"), tracked.with_suffix(".png")
    if not picture.exists():  # some tables have none
        shutil.copyfile(drawn, tracked)
        return
    data = drawn.read_text(encoding="utf-8")
    mark, how = plots.mark(data, source), plots.read_how(picture)
    if known.exists() and tracked.exists():
        there = (plots.read_mark(known), plots.read_how(known))
        if there == (mark, how) and tracked.read_text(encoding="utf-8") == data:
            return
        if there[1] and not how and there[0].partition(" ")[2] == source:
            return
    tracked.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(drawn, tracked)
    if how:
        redraw(tracked, mark, how)
    else:
        plots.copy_marked(picture, known, data, source)
