"""Two lines of the course beside each other: scores paired by seed, and the difference of their scripts.

From the command line:

    python -m common.results compare NEW [OLD]
    python -m common.results diff NEW [OLD]

NEW and OLD are experiments: multi_head, ngram:5, 'names_mlp --keep-duplicates'. Without OLD, the script that
comes before NEW.
"""

import ast
import difflib
import math
import sys
from pathlib import Path

from common.errors import UserError, command
from common.lessons import Reference, refer
from common.lessons.course import predecessor
from common.lessons.header import read_header
from common.paths import ROOT
from common.results import families
from common.results.statistics import interval
from common.results.table import course_rows


def describe(reference: Reference, rows) -> str:
    """One line: bits per character, loss and accuracy, over the seeds."""
    bpc = interval(rows.test_bpc)
    half = "" if math.isnan(bpc.half) else f" ± {bpc.half:.4f}"
    loss, accuracy = rows.test_loss.mean(), 100 * rows.test_accuracy.mean()
    seeds = " ".join(map(str, rows.seed))
    figures = f"test bpc {bpc.mean:.4f}{half}   loss {loss:.4f}   accuracy {accuracy:.2f} %"
    return f"{str(reference):<38} {figures}   seeds {seeds}"


def _compare(a: Reference, b: Reference) -> None:
    rows = {r: course_rows(r) for r in (a, b)}
    for reference, measured in rows.items():
        if not len(measured):
            arm = "" if reference.arm == "default" else f" --arms {reference.arm}"
            command = f"python {reference.experiment}.py --seeds 1 2 3{arm} {reference.flags}".strip()
            raise UserError(f"{reference} has no row with the code as it is now; run it: {command}")
    difference = families.difference(a, b, lambda line: rows.get(line, course_rows(line)))
    for what, (reference, measured) in zip(("new", "old"), rows.items(), strict=False):
        print(f"{what}  {describe(reference, measured)}")
    shared = sorted(set(rows[a].seed) & set(rows[b].seed))
    if any(len(measured) > len(shared) for measured in rows.values()):
        means = " and ".join(
            f"{measured[measured.seed.isin(shared)].test_bpc.mean():.4f}" for measured in rows.values()
        )
        print(f"on the shared seeds {' '.join(map(str, shared))}: {means}")
    half = (
        ""
        if math.isnan(difference.half)
        else f" ± {difference.half:.4f} (95 % interval, {difference.n} seeds)"
    )
    print(f"new minus old: {difference.mean:+.4f} bits per character{half}: {difference.verdict}")


def code_difference(a: Path, b: Path, around: int = 3) -> list[str]:
    """Unified difference of two scripts without their header docstrings.

    around: how many lines are shown before and after a change.
    """
    old, new = (path.relative_to(ROOT).as_posix() for path in (b, a))
    return list(difflib.unified_diff(_body(b), _body(a), old, new, n=around, lineterm=""))


def _body(path: Path) -> list[str]:
    """The lines of a script after its docstring."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    return text.splitlines()[tree.body[0].end_lineno if ast.get_docstring(tree) is not None else 0 :]


@command
def main() -> None:
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(__doc__)
        return
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in ("compare", "diff"):
        raise UserError(
            "usage: python -m common.results compare|diff NEW [OLD]; these are experiments: multi_head, "
            "ngram:5, 'names_mlp --keep-duplicates'"
        )
    new = refer(sys.argv[2])
    old = refer(sys.argv[3]) if len(sys.argv) == 4 else predecessor(new)
    if old is None:
        raise UserError(f"{new} has nothing before it to be compared with; write {sys.argv[1]} NEW OLD")
    if sys.argv[1] == "diff":
        print("\n".join(code_difference(ROOT / f"{new.experiment}.py", ROOT / f"{old.experiment}.py")))
        print()
        for what, line in (("+ new", new), ("- old", old)):
            print(f"{what}, {line}: {read_header(ROOT / f'{line.experiment}.py').title}")
        print()
    _compare(new, old)
