"""What a script changes in the code of the one before it, folded away in the README."""

from common.errors import UserError
from common.lessons.course import predecessor, refer
from common.paths import ROOT
from common.results.comparison import code_difference


def difference(name: str) -> str:
    """A fold with the changed lines and those around them. Raises UserError for the first script."""
    line = refer(name)
    before = predecessor(line)
    if before is None:
        raise UserError(f"{line} has no script before it; leave its difference out")
    new, old = (ROOT / f"{reference.experiment}.py" for reference in (line, before))
    lines = [" ..." if text.startswith("@@") else text for text in code_difference(new, old, around=1)[3:]]
    summary = f"what changes in the code: <code>{new.name}</code> against <code>{old.name}</code>"
    changed = "\n".join(lines)
    return f"<details><summary>{summary}</summary>\n\n```diff\n{changed}\n```\n\n</details>\n"
