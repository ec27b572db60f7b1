"""The pages that the results are shown on.

What stands in any of them counts: a line that only one page names is run, and runs alone where the page gives
its seconds, as if README named it.
"""

from pathlib import Path

from common.paths import ROOT

NAMES = (
    "README.md",
    "Research/design.md",
    "Research/parts.md",
    "Research/long_runs.md",
    "Research/teaching.md",
)


def paths(root: Path = ROOT) -> list[Path]:
    return [root / name for name in NAMES]


def text(pages: list[Path] | None = None) -> str:
    """What stands in these pages, or in all of the project that are there, one after the other."""
    chosen = [page for page in paths() if page.exists()] if pages is None else pages
    return "\n".join(page.read_text(encoding="utf-8") for page in chosen)
