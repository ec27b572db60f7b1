"""Lines that only the pages name: runs that a figure or a table shows, and that no script's header lists."""

import contextlib
import re

from common.errors import UserError
from common.lessons.course import Reference, course_references, refer
from common.report import pages

# how many lines a figure of a kind takes, before its further arguments
LINES = {
    "value": 1, "spread": 1, "step": 1, "score": 1, "minutes": 1, "difference": 2, "ratio": 2, "verdict": 2,
}  # fmt: skip


def further_references(text: str | None = None) -> list[Reference]:
    """The lines that the pages (or `text`) name and the course does not list, in the order in which they name
    them.
    """
    text = pages.text() if text is None else text
    found = dict.fromkeys(line for name in _named(text) for line in _read(name))
    return [reference for reference in found if reference not in set(course_references())]


def every_reference() -> list[Reference]:
    """All lines that are run: those of the course, and those that only a page names."""
    return [*course_references(), *further_references()]


def _named(text: str) -> list[str]:
    """What stands where a figure or a table has the name of a line."""
    names: list[str] = []
    for match in re.finditer(r"<!--=(\w+)\((.*?)\)-->|<!-- (?:table|scores): (.*?) -->", text):
        if match[1]:
            names += match[2].split(", ")[: LINES.get(match[1], 0)]
        else:
            names += re.split(r";| vs ", match[3].split(" | ")[0])
    return names


def _read(name: str) -> list[Reference]:
    """The line of this name; none where it means a whole stage, or nothing."""
    with contextlib.suppress(UserError):
        return [refer(name)]
    return []
