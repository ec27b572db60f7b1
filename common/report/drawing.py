"""Drawings of a model, made from the model itself: its `forward` is traced, and each step becomes a box.

Boxes that the script before it has not are coloured, and sums and norms that it wires otherwise. Taken are
scripts whose model can be traced: those of stages 02 to 06.
"""

import contextlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

import torch
from torch import fx, nn

from common.errors import UserError
from common.lessons.course import course_plan, predecessor, refer
from common.lessons.plan import Uninitialised
from common.paths import logs_folder

PLAIN, CHANGED, LINE = "#eef2f7", "#ffd9a8", "#555555"
LETTER, GAP, HEIGHT, MARGIN = 6.7, 22, 50, 8


@dataclass
class Box:
    """A step of a model: a part, a sum, or where its input comes from."""

    label: str
    note: str
    inputs: list[int]
    """The numbers of the boxes that it takes."""
    of: str = ""
    """The class of a part."""

    @property
    def width(self) -> float:
        return 24.0 if self.label == "+" else LETTER * max(len(self.label), len(self.note)) + 16


class _Steps(fx.Tracer):
    """Follows `forward` of one module, and takes each module it calls as a whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def boxes(model: nn.Module) -> list[Box]:
    """The steps of `forward`, in order. Raises UserError for a model that cannot be followed."""
    try:
        return _boxes(model, _Steps().trace(model))
    except (AttributeError, TypeError, ValueError, RuntimeError, fx.proxy.TraceError) as error:
        raise UserError(f"{type(model).__name__} cannot be drawn ({error})") from None


def _boxes(model: nn.Module, graph: fx.Graph) -> list[Box]:
    found: list[Box] = []
    number: dict[fx.Node, int] = {}
    for node in graph.nodes:
        inputs = [number[n] for n in node.all_input_nodes if n in number]
        part = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        idle = isinstance(part, nn.Dropout) and not part.p
        if node.op in ("call_method", "output"):  # a size is no step
            continue
        if idle or (node.op == "call_function" and node.target.__name__ != "add"):
            number[node] = inputs[0]  # a part of a table, or what does nothing
            continue
        number[node] = len(found)
        found.append(_box(model, node, inputs))
    return found


def _box(model: nn.Module, node: fx.Node, inputs: list[int]) -> Box:
    if node.op == "call_function":
        return Box("+", "", inputs)
    if node.op == "placeholder":
        return Box(str(node.target), "(B, T)" if node.target == "ids" else "(B, T, C)", inputs)
    name = str(node.target).removesuffix(".weight")
    part = model.get_submodule(name)
    kind, count = type(part).__name__, sum(p.numel() for p in part.parameters())
    if isinstance(part, nn.Sequential) and len(part) and _is_block(part[0]):
        kind = f"{len(part)} x {type(part[0]).__name__}"
    return Box(name, f"{kind} {count:,}" if count else kind, inputs, type(part).__name__)


def _is_block(part: nn.Module) -> bool:
    return type(part).__name__.endswith("Block")


@cache
def rows(experiment: str, arm: str) -> tuple[list[Box], list[Box]]:
    """The boxes of a model, and those of one of its blocks; none where it has no blocks."""
    plan = course_plan(experiment)
    with torch.device("meta"), Uninitialised():
        model = plan.arms[arm](plan.own(arm, plan.defaults), 65)
    block = next((part for part in model.modules() if _is_block(part)), None)
    return boxes(model), boxes(block) if block else []


def drawn(text: str) -> list[str]:
    """The scripts whose drawings a page shows."""
    return re.findall(r"<!-- drawing: (\w+) -->", text)


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
    return f"![The model of {name}, step by step](logs/plots/{file})\n"


def path_of(name: str) -> Path:
    """Where the drawing of a script is kept."""
    return logs_folder() / "plots" / f"drawing_{refer(name).experiment.replace('/', '_')}.svg"


def drawing(name: str) -> str:
    """The drawing of a script's model as SVG. Raises UserError for a model that cannot be followed."""
    line, before = refer(name), predecessor(refer(name))
    own = rows(line.experiment, line.arm)
    old: tuple[list[Box], list[Box]] = ([], [])
    with contextlib.suppress(UserError):  # of a model that counts there is no drawing
        old = rows(before.experiment, before.arm) if before else old
    changes = set(course_plan(line.experiment).header.changes)
    known = [_kinds(row) for row in old]
    if not old[1]:  # what is in a block now stood in the model
        known[1] = known[0]
    parts, top, width = [], 6.0, 0.0
    for row, kinds, title in zip(own, known, ("model", "block"), strict=True):
        if row:
            new = [kind not in kinds or box.of in changes for kind, box in zip(_kinds(row), row, strict=True)]
            svg, wide, high = _row(row, new if old[0] else [False] * len(row), top, title)
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


def _kinds(row: list[Box]) -> list[tuple]:
    """What stands for each box: its name (no number) and its class; of a sum or a norm also its inputs."""

    def kind(box: Box) -> tuple[str, str]:
        return (box.label.rstrip("12").replace("ids", "x"), box.of)

    def wire(box: Box) -> tuple:
        wired = box.label == "+" or box.of.endswith("Norm")
        return tuple(kind(row[i]) for i in box.inputs) if wired else ()

    return [(kind(box), wire(box)) for box in row]


def _row(row: list[Box], coloured: list[bool], top: float, title: str) -> tuple[str, float, float]:
    """The SVG of one chain of boxes, its width and its height.

    What has no input, but the first, stands above the sum that it goes into; what skips a box goes round it.
    """
    chain = [i for i, box in enumerate(row) if box.inputs or i == 0]
    aside = [i for i in range(len(row)) if i not in chain]
    skips = any(chain.index(j) < chain.index(i) - 1 for i in chain for j in row[i].inputs if j in chain)
    y = top + 14 + (HEIGHT + 22 if aside else 30 if skips else 0)
    x, centre = 58.0, {}
    for i in chain:
        centre[i] = (x + row[i].width / 2, y + HEIGHT / 2)
        x += row[i].width + GAP
    parts = [f'<text x="4" y="{y + HEIGHT / 2 + 4}" fill="{LINE}" font-weight="bold">{title}</text>']
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


def _right(box: Box, centre: tuple[float, float]) -> float:
    return centre[0] + box.width / 2


def _left(box: Box, centre: tuple[float, float]) -> float:
    return centre[0] - box.width / 2


def _path(way: str) -> str:
    return f'<path d="{way}" fill="none" stroke="{LINE}" marker-end="url(#a)"/>'


def _shape(box: Box, centre: tuple[float, float], coloured: bool) -> str:
    x, y = centre
    fill = CHANGED if coloured else PLAIN
    if box.label == "+":
        return (
            f'<circle cx="{x}" cy="{y}" r="12" fill="{fill}" stroke="{LINE}"/>'
            f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-size="16">+</text>'
        )
    left, high = x - box.width / 2, y - HEIGHT / 2
    return (
        f'<rect x="{left}" y="{high}" width="{box.width}" height="{HEIGHT}" rx="6" fill="{fill}" '
        f'stroke="{LINE}"/><text x="{x}" y="{y - 3}" text-anchor="middle" font-weight="bold">'
        f'{escape(box.label)}</text><text x="{x}" y="{y + 14}" text-anchor="middle" font-size="11">'
        f"{escape(box.note)}</text>"
    )
