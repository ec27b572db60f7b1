"""The steps of a model's `forward`, taken down while it runs: which part takes what from which.

A part that is called is one step, and what goes on in it is not looked at. Of functions, those count that
bring two ways together (a sum, a product), and softmax; what only reshapes, scales or masks is no step.
"""

import inspect
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from common.errors import UserError
from common.lessons.course import course_plan
from common.model.position import Position
from common.settings import Settings

FUNCTIONS = {
    "add": "+", "mul": "×", "matmul": "@", "softmax": "softmax", "topk": "topk", "index_add": "sum",
    "embedding": "embedding", "scaled_dot_product_attention": "attention",
}  # fmt: skip
SIGNS = ("+", "×")
B, T = 5, 7  # of what is run: sizes that nothing else has, so that a shape can be told in letters


@dataclass
class Box:
    """A step: a part, a function, or what comes in."""

    label: str
    note: str
    inputs: list[int]
    """The numbers of the boxes that it takes."""
    of: str = ""
    """The class of a part, and whether it shares weights with another."""

    @property
    def is_sign(self) -> bool:
        return self.label in SIGNS


class _Record(TorchFunctionMode):
    """Runs `forward` of one module and takes down its steps."""

    def __init__(self, module: nn.Module, letters: dict[int, str]):
        super().__init__()
        self.module, self.letters = module, letters
        self.boxes: list[Box] = []
        self.origin: dict[int, list[int]] = {}  # of a tensor (its id): the boxes that it comes from
        self.tables = {id(weight): name for name, weight in module.named_parameters()}
        self.kept: list[Tensor] = []  # so that no id is given twice
        self.counted: set[int] = set()  # parameters (their ids) that a box has told of
        self.inside = 0  # how many parts deep

    def run(self, *inputs) -> list[Box]:
        name = next(iter(inspect.signature(self.module.forward).parameters))
        name = "x" if name == "input" else name  # the library's word
        for position in (part for part in inputs if isinstance(part, Position)):
            if type(position).rotate is not Position.rotate:
                inputs = tuple(self._turning(part) if part is position else part for part in inputs)
        self._add(Box(name, self._shape(inputs[0]), []), inputs[0])
        hooks = []
        for path, part in self.module.named_modules():
            if part is not self.module:
                hooks.append(part.register_forward_pre_hook(self._enter))
                hooks.append(part.register_forward_hook(partial(self._leave, path)))
        try:
            with self:
                out = self.module.forward(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return _together(_leading_to(self.boxes, self._sources(out)))

    def _enter(self, part: nn.Module, taken: tuple) -> None:
        self.inside += 1

    def _leave(self, path: str, part: nn.Module, taken: tuple, out) -> None:
        self.inside -= 1
        inputs = self._sources(taken)
        if self.inside or not inputs:
            return
        if any(out is tensor for tensor in taken) or (isinstance(part, nn.Dropout) and not part.p):
            self._comes_from(out, inputs[:1])  # nothing was done
        else:
            self._add(self._box(path, part, inputs), out)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self.inside or not list(_tensors(out)) or func.__name__.endswith("_like"):
            return out
        label = FUNCTIONS.get(func.__name__.strip("_"), "")
        tables = [self.tables[id(t)] for t in _tensors(args) if id(t) in self.tables]
        if tables and label == "+":  # a table of the model's own is added
            path, _, name = tables[0].rpartition(".")
            box = self._box(path or name, self.module.get_submodule(path), [])
            self._add(box, next(t for t in _tensors(args) if id(t) in self.tables))
        numbers = [t for t in _tensors(args) if t.is_floating_point()]
        inputs = self._sources(numbers) or self._sources(args)
        if inputs and label and (len(inputs) > 1 or label.isalpha()):
            self._add(Box(label, "" if label in SIGNS else self._shape(next(_tensors(out))), inputs), out)
        elif inputs and func.__name__ == "__getitem__":  # what is chosen depends on what chooses, too
            self._comes_from(out, self._sources(args))
        elif inputs:
            self._comes_from(out, inputs[:1])
        elif tables:  # a part of a table
            self.tables[id(out)] = tables[0]
            self.kept.append(out)
        return out

    def _turning(self, position: Position) -> Position:
        """The same, its `rotate` one step."""
        turned = copy(position)

        def rotate(q: Tensor, k: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
            self.inside += 1
            out = position.rotate(q, k, start)
            self.inside -= 1
            if not self.inside:
                self._add(Box("rotate", type(position).__name__, self._sources((q, k)), "rotate"), out)
            return out

        turned.rotate = rotate  # type: ignore[method-assign]
        return turned

    def _box(self, path: str, part: nn.Module, inputs: list[int]) -> Box:
        """The box of a part. The number is that of its parameters, without those that another box has."""
        kind = type(part).__name__
        if isinstance(part, nn.Sequential) and len(part) and _is_block(part[0]):
            kind = f"{len(part)} x {type(part[0]).__name__}"
        own = [p for p in part.parameters() if id(p) not in self.counted]
        shared = ", shared" if len(own) < len(list(part.parameters())) else ""
        self.counted |= {id(p) for p in own}
        count = sum(p.numel() for p in own)
        label, note = (kind, "") if path.isdigit() else (path, kind + shared)  # what has a number has no name
        return Box(
            label, f"{note} {count:,}".strip() if count else note, inputs, type(part).__name__ + shared
        )

    def _add(self, box: Box, out) -> None:
        self.boxes.append(box)
        self._comes_from(out, [len(self.boxes) - 1])

    def _comes_from(self, out, numbers: list[int]) -> None:
        for tensor in _tensors(out):
            self.origin[id(tensor)] = numbers
            self.kept.append(tensor)

    def _sources(self, taken) -> list[int]:
        return list(dict.fromkeys(i for t in _tensors(taken) for i in self.origin.get(id(t), [])))

    def _shape(self, tensor: Tensor) -> str:
        """The shape in letters: `(B, H, T, D)`."""
        return f"({', '.join(self.letters.get(size, str(size)) for size in tensor.shape)})"


def _tensors(values) -> Iterator[Tensor]:
    """The tensors among the arguments or results of a function."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)


def _is_block(part: nn.Module) -> bool:
    return type(part).__name__.endswith("Block")


def _leading_to(boxes: list[Box], ends: list[int]) -> list[Box]:
    """The boxes that these are made from: not what is only watched, or added to the loss."""
    needed = set(ends)
    for i in reversed(range(len(boxes))):
        needed |= set(boxes[i].inputs) if i in needed else set()
    place = {i: number for number, i in enumerate(sorted(needed))}
    return [replace(boxes[i], inputs=[place[j] for j in boxes[i].inputs]) for i in place]


def _together(boxes: list[Box]) -> list[Box]:
    """The same with `blocks.0`, `blocks.1`, ... as one box, and what is done with each of them done once."""
    number: dict[int, int] = {}
    found: list[Box] = []
    for i, box in enumerate(boxes):
        name, _, place = box.label.rpartition(".")
        inputs = list(dict.fromkeys(number[j] for j in box.inputs))
        if place.isdigit():
            box = replace(box, label=name, note=_many(box, name, boxes), of="Sequential")
            same = next((k for k, other in enumerate(found) if other.label == name), None)
        else:
            same = next((k for k, other in enumerate(found) if _is_same(box, inputs, other, k)), None)
        number[i] = len(found) if same is None else same
        if same is None:
            found.append(replace(box, inputs=inputs))
    return found


def _is_same(box: Box, inputs: list[int], other: Box, place: int) -> bool:
    """Whether a sum or product does once more what another one, at this place, has done."""
    again = [i for i in inputs if i != place]
    return box.label in (*SIGNS, "sum") and box.label == other.label and again == other.inputs


def _many(box: Box, name: str, boxes: list[Box]) -> str:
    """The note of a box that stands for several of one kind: `4 x Block 197,120`."""
    many = sum(other.label.startswith(f"{name}.") for other in boxes)
    kind, _, count = box.note.rpartition(" ")
    return f"{many} x {kind} {many * int(count.replace(',', '')):,}"


@dataclass
class Steps:
    """The steps of a model, of one of its blocks, and of the part that a script is about; none where there is
    no such.
    """

    model: list[Box]
    block: list[Box]
    part: list[Box]
    name: str
    """What the part is called."""


@cache
def steps(experiment: str, arm: str, name: str | None = None) -> Steps:
    """Taken down from the untrained model of a script. name: the part to follow, if not that of the lesson.

    Raises UserError for a model without steps.
    """
    plan = course_plan(experiment)
    s = plan.own(arm, plan.defaults)
    V = int(s.tokenizer.removeprefix("bpe-")) if s.tokenizer.startswith("bpe-") else 65
    with torch.random.fork_rng(devices=[]):
        model = plan.arms[arm](s, V)
    block = next((part for part in model.modules() if _is_block(part)), None)
    parts = [pair for whole in (block, model) if whole for pair in whole.named_modules() if pair[0]]
    changes = plan.header.changes
    if name is None and type(getattr(model, "position", None)).__name__ in changes:
        name = "attention"  # where positions turn queries and keys
    own = (pair for pair in parts if (pair[0] == name if name else _is_the_lesson(pair[1], changes)))
    path, part = next(own, ("", None))
    taken: dict[nn.Module, tuple] = {}
    for inner in filter(None, (block, part)):
        inner.register_forward_pre_hook(lambda one, inputs: taken.setdefault(one, inputs) and None)
    letters = _letters(s) | {V: "V"}
    with torch.no_grad():
        whole = _Record(model, letters).run(torch.zeros(B, T, dtype=torch.long))
        inside = [_Record(one, letters).run(*taken[one]) if one in taken else [] for one in (block, part)]
    if len(whole) < 2:
        raise UserError(f"{experiment} cannot be drawn: its model only counts")
    return Steps(whole, inside[0], inside[1] if len(inside[1]) > 2 else [], path)


def _letters(s: Settings) -> dict[int, str]:
    """What sizes are called; where two are equal, the later one."""
    known = {2 * T: "2T", 4 * T: "4T", B * T: "B T", B: "B", T: "T"}
    known |= {round(8 * s.n_embd / 3): "8C/3", 4 * s.n_embd: "4C", s.n_embd: "C"}
    return known | ({s.n_head: "H", s.n_embd // s.n_head: "D"} if s.n_head > 1 else {})


def _is_the_lesson(part: nn.Module, changes: list[str]) -> bool:
    """Whether a script is about what goes on in this part of its model: not how parts are put together, nor a
    norm, which is an equation.
    """
    name = type(part).__name__
    return name in changes and not name.endswith(("Block", "Norm", "Position"))
