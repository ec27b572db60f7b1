"""Whole pages: each with its generated parts made anew, compared with what stands there, and rewritten.

Tables and pictures link from the project's folder; a page in a folder below gets `../` before each link.
"""

import re
from pathlib import Path

from common.report.evidence import Measured
from common.report.readme import Rendered, differences, render


def made(page: Path, measured: Measured) -> Rendered:
    """A page with every generated part made anew."""
    below = page.parent.name == "Research"
    return render(page.read_text(encoding="utf-8"), measured, from_below if below else str)


def from_below(generated: str) -> str:
    """A generated part whose links lead from a folder of the project: to scripts, plots and README."""
    generated = re.sub(r"\]\((?=0\d_|logs/)", "](../", generated)
    return generated.replace("](#", "](../README.md#")


def problems(page: Path, measured: Measured) -> list[str]:
    """Every place where a page does not follow from the results."""
    new = made(page, measured)
    places = differences(page.read_text(encoding="utf-8"), new.text) + new.problems
    return [f"{page.name}, {place}" for place in places]


def write(page: Path, measured: Measured) -> list[str]:
    """Rewrite a page. Returns what could not be made."""
    new = made(page, measured)
    page.write_text(new.text, encoding="utf-8", newline="\n")
    return [f"{page.name}, {problem}" for problem in new.problems]
