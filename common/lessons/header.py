"""The header docstring of a stage script, read."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

FIELDS = ("Previous", "Changes", "Idea", "Teaches", "Source", "Expect", "Also", "Seeds", "Baseline", "Stairs")


def experiment_name(script: Path) -> str:
    """`.../02_attention/bigram.py` -> `02_attention/bigram`."""
    return f"{script.parent.name}/{script.stem}"


@dataclass(frozen=True)
class Header:
    """The header docstring of a script, read."""

    experiment: str
    title: str
    fields: dict[str, str]

    @property
    def previous(self) -> str | None:
        value = self.fields.get("Previous", "none")
        return None if value == "none" else value.partition(":")[0].removesuffix(".py")

    @property
    def previous_arm(self) -> str:
        """The arm of the predecessor that this script goes on from, where the header names one
        (`feed_forward.py:gelu`).
        """
        return self.fields.get("Previous", "").partition(":")[2]

    @property
    def changes(self) -> list[str]:
        return _words(self.fields.get("Changes", ""))

    @property
    def teaches(self) -> list[str]:
        return _words(self.fields.get("Teaches", ""))

    @property
    def variants(self) -> list[str]:
        """Command lines the course runs besides the one without flags, which is the first: `""`."""
        return ["", *(v.strip() for v in self.fields.get("Also", "").split(";") if v.strip())]

    @property
    def stairs(self) -> list[str]:
        """The arms, or flags of further command lines, that stand in the staircase, where the header names
        them: of a script with many, only some are stairs.
        """
        return _words(self.fields.get("Stairs", ""))

    @property
    def has_baseline(self) -> bool:
        """Whether the first arm is what the others are compared with, all together."""
        return self.fields.get("Baseline", "first arm") != "none"

    @property
    def seeds(self) -> list[int]:
        """The seeds the course runs this script with: 1, 2, 3, or more where those leave a question open."""
        return self.seeds_with("")

    def seeds_with(self, flags: str) -> list[int]:
        """The seeds of a further command line, where it has its own (`1 2 3; 1 2 3 4 5 with --clip 1`). One
        that the header does not list answers a question of README: three at most.
        """
        usual, *others = (part.strip() for part in self.fields.get("Seeds", "1 2 3").split(";"))
        own = {known: seeds for seeds, _, known in (other.partition(" with ") for other in others)}
        seeds = [int(seed) for seed in own.get(flags, usual).split()]
        return seeds if flags in self.variants else seeds[:3]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip() not in ("", "none")]


def read_header(script: Path) -> Header:
    """Parse the header of a script; a script without one has no title and no predecessor."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    title, _, rest = docstring.partition("\n")
    fields: dict[str, str] = {}
    key = None
    for line in rest.splitlines():
        match = re.match(rf"({'|'.join(FIELDS)})\s*: (.*)", line)
        if match:
            key = match[1]
            fields[key] = match[2].strip()
        elif key and line.startswith(" "):
            fields[key] += " " + line.strip()
        else:
            key = None
    return Header(experiment_name(script), title, fields)
