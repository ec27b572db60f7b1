"""Drawings of a model, made from the model itself: each step of its `forward` becomes a box.

One row is the model, one a block of it, and one the part that the script is about, if there is one. Boxes
that the script before it has not are coloured, and sums and norms that it wires otherwise.
"""

import contextlib
import re
from pathlib import Path
from xml.sax.saxutils import escape

from common.errors import UserError
from common.lessons.course import Reference, course_plan, predecessor, refer
from common.paths import logs_folder
from common.report.steps import Box, Steps, steps

PLAIN, CHANGED, LINE = "#eef2f7", "#ffd9a8", "#555555"
LETTER, GAP, HEIGHT, LEFT, MARGIN = 6.7, 22, 50, 96.0, 8


def drawn(text: str) -> list[str]:
    """The scripts whose drawings a page shows."""
    return re.findall(r"<!-- drawing: (.*?) -->", text)


def problems(text: str) -> list[str]:
    """The drawings of a page that are not those of the models as they are."""
    stale = [
        path
        for path, svg in every(text).items()
        if not path.exists() or path.read_text(encoding="utf-8") != svg
    ]
    return [f"{path.name} is not the drawing of the model as it is" for path in stale]


def every(text: str) -> dict[Path, str]:
    """The drawings that a page shows: {where it is kept: SVG}."""
    return {path_of(name): drawing(name) for name in drawn(text)}


def block(name: str) -> str:
    """What the page shows of a drawing."""
    file = path_of(name).name
    return f"![The model of {name.split(' vs ')[0]}, step by step](logs/plots/{file})\n"


def path_of(name: str) -> Path:
    """Where the drawing of a script is kept."""
    line = refer(name.split(" vs ")[0])
    shown = str(line) if ":" in name else line.experiment
    return logs_folder() / "plots" / f"drawing_{re.sub('[/:]', '_', shown)}.svg"


def drawing(name: str) -> str:
    """The drawing of a line's model as SVG, what changes coloured; `gqa:gqa vs gqa:mha`: against another than
    its predecessor. Raises UserError for a model without steps.
    """
    own, against = (refer(part) for part in (name if " vs " in name else f"{name} vs {name}").split(" vs "))
    before = predecessor(own) if against == own else against
    found = steps(own.experiment, own.arm)
    old = Steps([], [], [], "")
    with contextlib.suppress(UserError):  # of a model that counts there is no drawing
        old = steps(before.experiment, before.arm, found.name) if before else old
    parts, top, width = [], 6.0, 0.0
    for row, new, title in _shown(own, found, old):
        svg, wide, high = (_row if title in ("model", "block") else _net)(row, new, top, title)
        parts.append(svg)
        top, width = top + high, max(width, wide)
    left, wide, high = -MARGIN, width + 2 * MARGIN, top + 2 * MARGIN
    box = f'viewBox="{left} {left} {wide:.0f} {high:.0f}" width="{wide:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}'
    style = 'font-family="Helvetica, Arial, sans-serif" font-size="12"'
    arrow = (
        '<defs><marker id="a" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" '
        f'orient="auto"><path d="M0 0L6 3L0 6z" fill="{LINE}"/></marker></defs>'
    )
    ground = f'<rect x="{left}" y="{left}" width="{wide:.0f}" height="{high:.0f}" fill="white"/>'
    return "\n".join([f"{head} {style}>", arrow, ground, *parts, "</svg>\n"])


def _shown(own: Reference, found: Steps, old: Steps) -> list[tuple[list[Box], list[bool], str]]:
    """The rows of a drawing: boxes, which of them are coloured, title."""
    changes = set(course_plan(own.experiment).header.changes)
    known = _kinds(old.model), _kinds(old.block or old.model)  # what is in a block now stood in the model
    rows = []
    for row, kinds, title in zip((found.model, found.block), known, ("model", "block"), strict=True):
        new = [kind not in kinds or box.of in changes for kind, box in zip(_kinds(row), row, strict=True)]
        rows.append((row, new if old.model else [False] * len(row), title))
    if _details(found.part) != _details(old.part):
        known_parts = _details(old.part) or _details(found.part)[: 1 if old.model else None]
        rows.append((found.part, [kind not in known_parts for kind in _details(found.part)], found.name))
    return [row for row in rows if row[0]]


def _details(row: list[Box]) -> list[tuple]:
    """What stands for each box of a part: also how large it is."""
    return [(box.label, box.note, tuple(row[i].label for i in box.inputs)) for box in row]


def _kinds(row: list[Box]) -> list[tuple]:
    """What stands for each box: its name (no number) and its class; of a sum also what it takes, of a norm
    also where it goes.
    """

    def name(box: Box) -> str:
        return box.label.rstrip("12").replace("ids", "x")

    def wire(number: int, box: Box) -> tuple:
        before = tuple(name(row[i]) for i in box.inputs)
        behind = tuple(name(other) for other in row if number in other.inputs)
        return (before, behind) if box.of.endswith("Norm") else before if box.label == "+" else ()

    return [(name(box), box.of, wire(number, box)) for number, box in enumerate(row)]


def _row(row: list[Box], coloured: list[bool], top: float, title: str) -> tuple[str, float, float]:
    """The SVG of one chain of boxes, its width and its height.

    What has no input, but the first, stands above the sum that it goes into; what skips a box goes round it.
    """
    chain = [i for i, box in enumerate(row) if box.inputs or i == 0]
    aside = [i for i in range(len(row)) if i not in chain]
    skips = any(chain.index(j) < chain.index(i) - 1 for i in chain for j in row[i].inputs if j in chain)
    y = top + 14 + (HEIGHT + 22 if aside else 30 if skips else 0)
    x, centre = LEFT, {}
    for i in chain:
        centre[i] = (x + _width(row[i]) / 2, y + HEIGHT / 2)
        x += _width(row[i]) + GAP
    parts = [_title(title, y + HEIGHT / 2)]
    for i in aside:
        goes = next(k for k in chain if i in row[k].inputs)
        centre[i] = (centre[goes][0], top + 10 + HEIGHT / 2)
        parts.append(_path(f"M{centre[i][0]} {centre[i][1] + HEIGHT / 2}V{y + HEIGHT / 2 - 12}"))
    for place, i in enumerate(chain):
        for j in row[i].inputs:
            if j in aside:
                continue
            if chain.index(j) == place - 1:
                parts.append(
                    _path(f"M{_right(row[j], centre[j])} {y + HEIGHT / 2}H{_left(row[i], centre[i])}")
                )
            else:  # from just behind j, round what lies between
                start = _right(row[j], centre[j]) + GAP / 2 - 3
                parts.append(
                    _path(f"M{start} {y + HEIGHT / 2}V{y - 14}H{centre[i][0]}V{y + HEIGHT / 2 - 12}")
                )
    parts += [_shape(box, centre[i], coloured[i]) for i, box in enumerate(row)]
    return "\n".join(parts), x, y + HEIGHT + 12 - top


def _net(row: list[Box], coloured: list[bool], top: float, title: str) -> tuple[str, float, float]:
    """The SVG of boxes with several ways through them, its width and its height."""
    column, lane = _places(row)
    columns = range(max(column) + 1)
    widths = [max(_width(box) for i, box in enumerate(row) if column[i] == c) for c in columns]
    lefts = [LEFT + sum(widths[:c]) + 2 * GAP * c for c in columns]

    def height(c: int, j: int, i: int) -> float:
        return top + 14 + HEIGHT / 2 + (HEIGHT + 14) * lane[c, j, i]

    centre = [(lefts[c] + widths[c] / 2, height(c, i, i)) for i, c in enumerate(column)]
    parts = [_title(title, centre[0][1])]
    for i, box in enumerate(row):
        for j in box.inputs:
            way = f"M{_right(row[j], centre[j])} {centre[j][1]}"
            for c in range(column[j] + 1, column[i] + 1):
                way += f"H{lefts[c] - GAP}V{height(c, j if c < column[i] else i, i)}"
            parts.append(_path(f"{way}H{_left(box, centre[i])}"))
    parts += [_shape(box, centre[i], coloured[i]) for i, box in enumerate(row)]
    return "\n".join(parts), lefts[-1] + widths[-1] + GAP, (HEIGHT + 14) * (max(lane.values()) + 1) + 14


def _places(row: list[Box]) -> tuple[list[int], dict[tuple[int, int, int], float]]:
    """The column of each box, and how far down everything stands in it.

    A box stands behind its last input, at the mean height of all: (column, i, i). What box i takes from box j
    further back passes through a place of its own in each column between: (column, j, i).
    """
    column = [0] * len(row)
    lane: dict[tuple[int, int, int], float] = {}
    for i, box in enumerate(row):
        column[i] = max((column[j] + 1 for j in box.inputs), default=0)

    def wanted(place: tuple[int, int, int]) -> float:
        c, j, i = place
        sources = [(k, k if column[k] == c - 1 else i) for k in (row[i].inputs if i == j else [j])]
        heights = [lane[c - 1, k, to] for k, to in sources]
        return sum(heights) / max(len(heights), 1)

    for c in range(max(column) + 1):
        places = [(c, i, i) for i in range(len(row)) if column[i] == c]
        places += [(c, j, i) for i, box in enumerate(row) for j in box.inputs if column[j] < c < column[i]]
        lowest = -1.0
        for place in sorted(places, key=wanted):
            lane[place] = lowest = max(wanted(place), lowest + 1)
    behind = [lane[1, i, i] for i in range(len(row)) if column[i] == 1]
    lane[0, 0, 0] = sum(behind) / len(behind)  # in the middle of those that take it
    return column, lane


def _title(title: str, y: float) -> str:
    return f'<text x="4" y="{y + 4}" fill="{LINE}" font-weight="bold">{title}</text>'


def _width(box: Box) -> float:
    return 24.0 if box.is_sign else LETTER * max(1.1 * len(box.label), len(box.note)) + 16


def _right(box: Box, centre: tuple[float, float]) -> float:
    return centre[0] + _width(box) / 2


def _left(box: Box, centre: tuple[float, float]) -> float:
    return centre[0] - _width(box) / 2


def _path(way: str) -> str:
    return f'<path d="{way}" fill="none" stroke="{LINE}" marker-end="url(#a)"/>'


def _shape(box: Box, centre: tuple[float, float], coloured: bool) -> str:
    x, y = centre
    fill = CHANGED if coloured else PLAIN
    if box.is_sign:
        return (
            f'<circle cx="{x}" cy="{y}" r="12" fill="{fill}" stroke="{LINE}"/>'
            f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-size="16">{box.label}</text>'
        )
    left, high = x - _width(box) / 2, y - HEIGHT / 2
    return (
        f'<rect x="{left}" y="{high}" width="{_width(box)}" height="{HEIGHT}" rx="6" fill="{fill}" '
        f'stroke="{LINE}"/><text x="{x}" y="{y - 3}" text-anchor="middle" font-weight="bold">'
        f'{escape(box.label)}</text><text x="{x}" y="{y + 14}" text-anchor="middle" font-size="11">'
        f"{escape(box.note)}</text>"
    )
