"""The file that a reader begins with: the script, with gaps where the lesson is."""

import ast
from textwrap import wrap
from types import ModuleType

from torch import Tensor, nn

from common.exercises.catalogue import Exercise, nodes
from common.exercises.running import WIDTH, arms_of, build, execute

SYMBOLS = {
    WIDTH: "C", 3 * WIDTH: "3 C", 4 * WIDTH: "4 C", WIDTH // 4: "D", 8 * WIDTH // 3: "8 C / 3", 13: "V",
    12: "T", 4: "H", 2 * WIDTH: "2 C", 8 * WIDTH: "8 C", WIDTH // 2: "C / 2",
    41: "n_bigram",
    5 * WIDTH: "T C",  # windows of names have 5 letters
}  # fmt: skip
FLAGS = ("writes_to_stream", "starts_at_zero")  # what a part says about its first weights (common.model.gpt)


def with_gaps(exercise: Exercise) -> str:
    """The source of an exercise; what is to be written has its first lines and docstrings only."""
    text = exercise.source.read_text(encoding="utf-8")
    lines, parts = text.splitlines(), listed_parts(execute(text, exercise.source), exercise)
    for node in reversed(nodes(text, exercise.write)):
        functions = [node] if isinstance(node, ast.FunctionDef) else node.body
        for function in reversed([f for f in functions if isinstance(f, ast.FunctionDef)]):
            first, indent = _first_line(function, lines), " " * (function.col_offset + 4)
            owner = node.name if isinstance(node, ast.ClassDef) else _owner(exercise, node.name)
            name = f"{owner}.{function.name}" if owner else function.name
            said = [f"{indent}# {line}" for line in parts.get(owner, []) if function.name == "__init__"]
            said += [f"{indent}# {line}" for line in wrap(exercise.told.get(name, ""), 92)]
            gap = f'{indent}raise NotImplementedError("{name}")'
            lines[first - 1 : function.end_lineno] = [*said, gap]
    return "\n".join(lines) + "\n"


def _owner(exercise: Exercise, method: str) -> str:
    """The class of a method that is to be written alone (`Muon.adam`), or nothing."""
    names = (name.partition(".") for name in exercise.write)
    return next((owner for owner, _, own in names if own == method), "")


def _first_line(function: ast.FunctionDef, lines: list[str]) -> int:
    """The line on which the body of a function begins, after its docstring, with the comments before it."""
    has_docstring = ast.get_docstring(function) is not None
    if has_docstring:
        return (function.body[0].end_lineno or 0) + 1
    first = function.body[0].lineno
    while lines[first - 2].strip().startswith("#"):
        first -= 1
    return first


def listed_parts(module: ModuleType, exercise: Exercise) -> dict[str, list[str]]:
    """For each class that is part of a model, the names and shapes of its parameters, as lines of a comment.

    They have to have these names, so that given weights can be put into them.
    """
    own = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    listed: dict[str, list[str]] = {}
    if not hasattr(module, "lesson"):
        return listed
    found: dict[
        str, dict[tuple[str, ...], list[str]]
    ] = {}  # by class: its parts, and the arms that have them
    for arm in arms_of(module, exercise):
        model, _ = build(module, exercise, arm)
        kinds: dict[str, tuple[str, ...]] = {}
        for part in model.modules():
            if type(part).__name__ in own:
                kinds.setdefault(type(part).__name__, tuple(_parts_of(part, tuple(own.values()))))
        for kind, parts in kinds.items():
            found.setdefault(kind, {}).setdefault(parts, []).append(arm)
    for kind, ways in found.items():
        listed[kind] = []
        for parts, arms in ways.items():
            start = "It has" if len(ways) == 1 else f"In {', '.join(arms)} it has"
            listed[kind] += _wrapped(start, list(parts)) if parts else []
    return listed


def _parts_of(part: nn.Module, own: tuple[type, ...]) -> list[str]:
    """Each parameter with its shape, and each part that has a class of its own in the script."""
    found = [f"{name} {_shape(p, name)}" for name, p in part.named_parameters(recurse=False)]
    for name, child in part.named_children():
        inner = list(child.children())
        if isinstance(child, own):
            found.append(f"{name}: {type(child).__name__}")
        elif inner and all(isinstance(one, own) for one in inner):
            found.append(f"{name}: {type(child).__name__} of {type(inner[0]).__name__}")
        else:
            found += [f"{name}.{inside} {_shape(p, name)}" for inside, p in child.named_parameters()]
        found += [f"{name}.{flag} = True" for flag in FLAGS if getattr(child, flag, False)]
    kept = {name for name in part.state_dict() if "." not in name}
    return found + [f"{name} {_shape(b, name)}, a buffer" for name, b in part.named_buffers(recurse=False)
                    if name in kept]  # fmt: skip


def _shape(tensor: Tensor, name: str) -> str:
    symbols = SYMBOLS | ({WIDTH // 2: "T"} if name == "position" else {})  # a window is as long as C / 2
    sizes = [symbols.get(size, str(size)) for size in tensor.shape]
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"


def _wrapped(start: str, parts: list[str]) -> list[str]:
    """`It has query.weight (C, C), ...` in lines that are not too long."""
    lines = [start]
    for number, part in enumerate(parts):
        piece = f" {part}" + (", " if number < len(parts) - 1 else "")
        if len(lines[-1] + piece) > 92:
            lines.append("   ")
        lines[-1] = lines[-1].rstrip(" ") + piece if lines[-1].strip() else "   " + piece.rstrip(" ")
    return [line.rstrip() for line in lines]
