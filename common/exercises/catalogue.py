"""The exercises, as the files beside this one list them."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from common.errors import UserError, nearest
from common.lessons.header import read_header
from common.paths import ROOT

HERE = Path(__file__).parent
NOT_THE_IDEA = {
    "picture",
    "overview",
    "probe",
    "measure",
    "scores",
    "describe",
}  # what a lesson shows besides


@dataclass(frozen=True)
class Mistake:
    """A mistake that is often made: as edits of the solution, and what to say to whoever makes it."""

    edits: tuple[tuple[str, str], ...]
    hint: str

    def made_in(self, text: str, names: tuple[str, ...]) -> str:
        """The solution with this mistake, which is inside the definitions of these names.

        Raises ValueError where an edit does not fit.
        """
        for old, new in self.edits:
            before = text
            for node in reversed(nodes(text, names)):
                lines = text.splitlines(keepends=True)
                own = "".join(lines[node.lineno - 1 : node.end_lineno])
                lines[node.lineno - 1 : node.end_lineno] = [own.replace(old, new)]
                text = "".join(lines)
            if text == before:
                raise ValueError(f"the solution has no {old!r}")
        return text


@dataclass(frozen=True, eq=False)
class Exercise:
    """Definitions to write, in a file of the project that has all else."""

    name: str
    source: Path
    """The file that has the solution."""
    write: tuple[str, ...]
    """What is to be written: `Head`, `Muon.adam`, `turn`."""
    watch: tuple[str, ...]
    """What is compared with the solution: names in `common.exercises.watching`."""
    arms: tuple[str, ...]
    """The arms of the script whose models are compared (none named: the first)."""
    settings: dict
    """Settings of these models besides the usual small ones."""
    hints: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    told: dict[str, str]
    """What a gap says besides, by the name of its function (`MoE.forward`)."""

    @property
    def idea(self) -> str:
        """What the lesson is about, in the words of its script."""
        header = read_header(self.source)
        return header.fields.get("Idea", header.title)


def exercises() -> dict[str, Exercise]:
    """All exercises by name, in course order."""
    return dict(_all())


@cache
def _all() -> tuple[tuple[str, Exercise], ...]:
    shared = _read(HERE / "shared.yaml")
    found = []
    for path in sorted(HERE.glob("[0-9]*.yaml")):
        found += [(name, _exercise(name, entry, shared)) for name, entry in _read(path).items()]
    return tuple(found)


def exercise(name: str) -> Exercise:
    """The exercise of this name (`self_attention`, or with its folder or `.py`). Raises UserError."""
    known, short = exercises(), Path(name).name.removesuffix(".py")
    of_script = [one.name for one in known.values() if one.source.stem == short]
    if short not in known and of_script:
        raise UserError(f"{short}.py has {len(of_script)} exercises; name one: {', '.join(of_script)}")
    if short not in known:
        raise UserError(
            f"there is no exercise {name!r}{nearest(short, known)} (python -m common.tools.exercise list)"
        )
    return known[short]


@cache
def promises() -> dict[str, dict[str, str]]:
    """What each promise is, and what it means where it is broken."""
    return _read(HERE / "promises.yaml")


@cache
def errors() -> list[dict[str, str]]:
    """What errors usually mean: each with a pattern, `error`, and `means`."""
    return _read(HERE / "errors.yaml")


def _read(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def _exercise(name: str, entry: dict, shared: dict) -> Exercise:
    source = ROOT / entry["source"]
    write = tuple(entry.get("write") or _changed(source))
    own = [_mistake(one) for one in entry.get("mistakes", [])]
    solution = "\n".join(written(source.read_text(encoding="utf-8"), write))
    for group in entry.get("shared", []):
        fitting = (_mistake(one) for one in shared[group])
        own += [one for one in fitting if all(old in solution for old, _ in one.edits)]
    return Exercise(
        name, source, write, tuple(entry.get("watch", ("model",))), tuple(entry.get("arms", ())),
        entry.get("settings", {}), tuple(entry.get("hints", ())), tuple(own),
        entry.get("told", {}),
    )  # fmt: skip


def _mistake(entry: dict) -> Mistake:
    edits = entry.get("edits") or [entry]
    return Mistake(tuple((edit["old"], edit["new"]) for edit in edits), " ".join(entry["hint"].split()))


def _changed(script: Path) -> list[str]:
    """The definitions that a script changes and is about: those in its header, without what draws."""
    there = {node.name for node in ast.parse(script.read_text(encoding="utf-8")).body
             if isinstance(node, ast.ClassDef | ast.FunctionDef)}  # fmt: skip
    return [name for name in read_header(script).changes if name in there - NOT_THE_IDEA]


def written(text: str, names: tuple[str, ...]) -> list[str]:
    """The source of each of these definitions."""
    return [ast.get_source_segment(text, node) or "" for node in nodes(text, names)]


def nodes(text: str, names: tuple[str, ...]) -> list[ast.FunctionDef | ast.ClassDef]:
    """The definitions of these names in a source, in the order in which they stand there.

    Raises UserError for one that is not there, and for a text that is no Python.
    """
    there: dict[str, ast.FunctionDef | ast.ClassDef] = {}
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise UserError(f"the file cannot be read as Python{line}; check it first") from None
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            there[node.name] = node
        if isinstance(node, ast.ClassDef):
            methods = (inner for inner in node.body if isinstance(inner, ast.FunctionDef))
            there |= {f"{node.name}.{method.name}": method for method in methods}
    lacking = [name for name in names if name not in there]
    if lacking:
        raise UserError(f"the file has no {lacking[0]} any more; give the definition its name back")
    return [node for name, node in there.items() if name in names]
