"""A fingerprint of the definitions that some code reaches.

From a class or function one follows every name to its definition in the project, and from there on. A class
counts with its head, its special methods and `forward`; of its other methods those count whose names stand
somewhere in the code that is reached. So a refactoring inside a definition is seen; a new class beside it, a
move to another module or a sorted import is not.
"""

import builtins
import functools
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from common.errors import UserError
from common.lessons.definitions import Place, Unit, find, source, units
from common.paths import ROOT

# what settings say is hashed with their values, what an error says is no result, and a checksum says which
# text it is
UNSEEN = (
    "common/settings.py",
    "common/configuration.py",
    "common/errors.py",
    "common/data/corpora.py:CORPORA",  # which there are; what the built-in ones are is among the roots
    "common/data/corpora.py:download",
    "common/data/corpora.py:cache_folder",
    "common/report/overviews.py",  # what draws
    "common/report/plots.py",
)
# by the library; of a score
ALWAYS = ("forward", "reset_parameters", "loss", "accuracy", "bpc", "perplexity")
ROOTS = (  # reached by every line
    "common.lessons.plan.build_model",
    "common.training.metrics.score",
    "common.results.row.measure",
    "common.data.corpora.pydoc",
    "common.data.corpora.stdlib",
    "common.data.corpora.faker_names",
)


def reached(roots: Iterable[Place]) -> dict[str, str]:
    """`module.name` or `module.name.method` -> digest, of everything that the roots reach."""
    return {
        f"{place.path.relative_to(ROOT).as_posix()}:{place.name}.{key}": unit.digest
        for (place, key), unit in _reached(roots).items()
    }


def asked(thing: object) -> set[str]:
    """The attributes that an object of a script, and what it reaches, ask for: of settings too."""
    return set().union(*(unit.attributes for unit in _reached(describe(thing)[0]).values()))


def _reached(roots: Iterable[Place]) -> dict[tuple[Place, str], Unit]:
    """Each definition, or method of a class (its head under ""), that the roots reach."""
    seen: set[Place] = set()
    attributes: set[str] = set()
    taken: dict[tuple[Place, str], Unit] = {}
    waiting = list(roots)
    while True:
        for place in waiting:
            path = place.path.relative_to(ROOT).as_posix()
            if path not in UNSEEN and f"{path}:{place.name}" not in UNSEEN:
                seen.add(place)
        new = [
            (place, key, unit)
            for place in seen
            for key, unit in units(place).items()
            if (place, key) not in taken
            and (key == "" or key.startswith("__") or key in ALWAYS or key.split(" ")[0] in attributes)
        ]
        if not new:
            break
        waiting = []
        for place, key, unit in new:
            taken[place, key] = unit
            attributes |= unit.attributes
            waiting += unit.places - seen
    return taken


def describe(thing: object) -> tuple[list[Place], str]:
    """The definitions that an object of a script stands on, and in words what else makes it what it is.

    thing: a class, a function, a `functools.partial` or an Arm of these, or a plain value.
    """
    if isinstance(thing, functools.partial):
        parts = [describe(part) for part in (thing.func, *thing.args, *thing.keywords.values())]
        words = f"partial({', '.join(text for _, text in parts)}; {list(thing.keywords)})"
        return [place for places, _ in parts for place in places], words
    if hasattr(thing, "model") and hasattr(thing, "settings"):  # an Arm: its settings are among the line's
        return describe(thing.model)
    if isinstance(thing, list | tuple):
        parts = [describe(part) for part in thing]
        return [place for places, _ in parts for place in places], f"({', '.join(text for _, text in parts)})"
    name = getattr(thing, "__qualname__", None)
    if name is None:
        return [], repr(thing)
    path = _file_of(thing)
    if not path.is_relative_to(ROOT) or getattr(builtins, name, None) is thing:
        return [], f"{thing.__module__}.{name}"
    top = name.split(".")[0]
    if top not in source(path).definitions:
        raise UserError(
            f"{name} of {path.name} is not defined at the top of the file; define it there, or use "
            "functools.partial"
        )
    inside = [describe(cell.cell_contents) for cell in getattr(thing, "__closure__", None) or ()]
    return [
        Place(path, top),
        *(place for places, _ in inside for place in places),
    ], f"{name}({', '.join(text for _, text in inside)})"


def _file_of(thing: object) -> Path:
    """The file of the module that defines a class or function; a decorated one says it too."""
    return Path(getattr(sys.modules.get(thing.__module__), "__file__", None) or "/").resolve()


def fingerprint(things: Iterable[object], roots: Iterable[str] = ROOTS) -> str:
    """12 hex digits that stand for what these objects of a script do, and what the definitions do whose
    dotted names are `roots`.
    """
    described = [describe(thing) for thing in things]
    ours = {place for places, _ in described for place in places}
    digests = reached(ours | {place for place in map(find, roots) if isinstance(place, Place)})
    text = repr([[words for _, words in described], sorted(digests.values())])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
