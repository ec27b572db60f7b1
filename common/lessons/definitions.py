"""The definitions of the project, each brought to a form that says what it does and not how it is worded.

Without docstrings, annotations, wording of errors, printing, and names of local variables; with names of
other libraries written out.
"""

import ast
import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from common.paths import ROOT


def canonical(node) -> object:
    """A syntax tree as nested lists, the same from Python 3.10 on: nothing but what the code says."""
    if isinstance(node, list):
        return [canonical(n) for n in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        (name, value)
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ("ctx", "kind", "type_comment")
    ]
    if (
        isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
    ):
        fields = [(name, value[1:] if name == "body" else value) for name, value in fields]
    return [type(node).__name__, [[name, canonical(value)] for name, value in fields]]


@dataclass(frozen=True)
class Place:
    """A definition at the top of a module."""

    path: Path
    name: str


@dataclass
class Source:
    """A module: its top-level definitions, and what its imported names mean (a module, or a name in one)."""

    path: Path
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


@cache
def source(path: Path) -> Source:
    """Read a module."""
    known = Source(path)
    for statement in _top_level(ast.parse(path.read_text(encoding="utf-8")).body):
        for name in _bound(statement):
            known.definitions.setdefault(name, []).append(statement)
        known.imports |= _imported(statement)
    return known


def _top_level(statements: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    """The statements of a module, those under `if` and `try` too, without what only runs as a script."""
    for statement in statements:
        if isinstance(statement, ast.If):
            if "__name__" not in ast.dump(statement.test):
                yield from _top_level([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            yield from _top_level([*statement.body, *statement.orelse, *statement.finalbody])
        else:
            yield statement


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a statement at the top of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(
        statement, ast.Assign | ast.AnnAssign | ast.AugAssign
    ):  # not the variables of a comprehension on the right
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return []


def _imported(statement: ast.AST) -> dict[str, str]:
    """What the names of an import mean, with dots: `from common import data` -> {"data": "common.data"}."""
    if isinstance(statement, ast.ImportFrom) and not statement.level:
        return {alias.asname or alias.name: f"{statement.module}.{alias.name}" for alias in statement.names}
    if isinstance(statement, ast.Import):
        return {
            a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0]
            for a in statement.names
        }
    return {}


@cache
def find(dotted: str) -> Place | Path | None:
    """What a dotted name means in the project: a definition, a module, or, of another library, nothing."""
    parts = dotted.split(".")
    if parts[0] != "common":
        return None
    for cut in range(len(parts), 0, -1):
        for path in (
            ROOT.joinpath(*parts[:cut]).with_suffix(".py"),
            ROOT.joinpath(*parts[:cut]) / "__init__.py",
        ):
            if path.is_file():
                rest = parts[cut:]
                return path if not rest else look_up(path, rest[0])
    return None


def look_up(path: Path, name: str) -> Place | Path | None:
    """The definition that a name at the top of a module means, wherever it was imported from."""
    module = source(path)
    if name in module.definitions:
        return Place(path, name)
    return find(module.imports[name]) if name in module.imports else None


def of_library(dotted: str) -> str:
    """A dotted name; where it is a module's import of another library's, what that means there:
    `common.report.plots.plt`.
    """
    module, _, name = dotted.rpartition(".")
    path = find(module) if module else None
    return (
        of_library(source(path).imports.get(name, dotted))
        if isinstance(path, Path) and name in source(path).imports
        else dotted
    )


# ---- one definition, brought to a form that says what it does ------------------------------------


@dataclass
class Unit:
    """A definition, or one method of a class: a digest, the definitions it names, and the attributes it asks
    for.
    """

    digest: str
    places: set[Place]
    attributes: set[str]


class Normal(ast.NodeTransformer):
    """Takes out of a definition what does not change what it does, and notes what it refers to."""

    def __init__(self, path: Path, imports: dict[str, str], local: dict[str, str]):
        self.path, self.imports, self.local = path, imports, local
        self.places: set[Place] = set()
        self.attributes: set[str] = set()

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.local:
            return ast.copy_location(ast.Name(self.local[node.id], node.ctx), node)
        meant = find(self.imports[node.id]) if node.id in self.imports else look_up(self.path, node.id)
        if isinstance(meant, Place):
            self.places.add(meant)
            return ast.Name(meant.name, node.ctx)
        return ast.Name(
            of_library(self.imports.get(node.id) or source(self.path).imports.get(node.id, node.id)), node.ctx
        )

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        module = find(self._dotted(node.value) or "")
        meant = look_up(module, node.attr) if isinstance(module, Path) else None
        if isinstance(meant, Place):
            self.places.add(meant)
            return ast.Name(meant.name, node.ctx)
        self.attributes.add(node.attr)
        return ast.Attribute(self.visit(node.value), node.attr, node.ctx)

    def _dotted(self, node: ast.AST) -> str | None:
        """The dotted name that an attribute of a module of the project is."""
        if isinstance(node, ast.Attribute):
            before = self._dotted(node.value)
            return f"{before}.{node.attr}" if before else None
        if isinstance(node, ast.Name) and node.id not in self.local:
            return self.imports.get(node.id) or source(self.path).imports.get(node.id)
        return None

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self.local.get(node.arg, node.arg), None)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.generic_visit(node)
        node.name = node.name and self.local.get(node.name, node.name)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns, node.name = None, self.local.get(node.name, node.name)
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:  # a field: it is there, in this order
            return ast.Expr(self.visit(node.target))
        return self.visit(ast.Assign([node.target], node.value))

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(self.visit(kind) if kind else None, None)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.Assert(self.visit(node.test), None)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        printed = (
            isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id == "print"
        )
        if printed or isinstance(node.value, ast.Constant):  # a docstring, or a string in its place
            return None
        return self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None


def _locals(function: ast.FunctionDef) -> dict[str, str]:
    """New names for the local variables of a function, in the order in which they first stand in it; its
    parameters keep theirs.
    """
    parameters = [arg.arg for arg in ast.walk(function.args) if isinstance(arg, ast.arg)]
    outside = {
        name
        for node in ast.walk(function)
        if isinstance(node, ast.Global | ast.Nonlocal)
        for name in node.names
    }
    renamed = {name: name for name in parameters}

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            name = None
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                name = child.id
            elif isinstance(child, ast.FunctionDef | ast.ExceptHandler):
                name = child.name
            elif isinstance(child, ast.arg):
                name = child.arg
            if name and name not in outside:
                renamed.setdefault(name, f"local {len(renamed) - len(parameters)}")
            walk(child)

    walk(function)
    return renamed


def _unit(path: Path, statements: list[ast.stmt], local: dict[str, str]) -> Unit:
    imports: dict[str, str] = {}
    for statement in statements:
        for node in ast.walk(statement):
            if node is not statement and isinstance(node, ast.Import | ast.ImportFrom):
                imports |= _imported(node)
    normal = Normal(path, imports, {name: new for name, new in local.items() if name not in imports})
    made = [normal.visit(copy.deepcopy(statement)) for statement in statements]
    text = repr(canonical([node for node in made if node is not None]))
    return Unit(hashlib.sha256(text.encode()).hexdigest(), normal.places, normal.attributes)


@cache
def units(place: Place) -> dict[str, Unit]:
    """The parts of a definition: of a class its head (under "") and each of its methods, else the whole
    (under "").
    """
    methods: dict[str, Unit] = {}
    whole: list[ast.stmt] = []
    for statement in source(place.path).definitions[place.name]:
        if isinstance(statement, ast.ClassDef):
            head = copy.copy(statement)
            head.body = [node for node in statement.body if not isinstance(node, ast.FunctionDef)] or [
                ast.Pass()
            ]
            whole.append(head)
            for node in statement.body:
                if isinstance(node, ast.FunctionDef):
                    key = node.name if node.name not in methods else f"{node.name} again"
                    methods[key] = _unit(place.path, [node], _locals(node))
        else:
            whole.append(statement)
    local = _locals(whole[0]) if len(whole) == 1 and isinstance(whole[0], ast.FunctionDef) else {}
    return methods | {
        "": _unit(place.path, whole, {name: new for name, new in local.items() if name != place.name})
    }
