"""What is compared with what: a line with another, or all lines of a script with its first.

From stage 08 on the comparisons of a script are fixed before anything is measured: each of its lines with the
first one, in test bits per character. These are judged together. Everything else is paired by seed, each for
itself.
"""

from collections.abc import Callable

import pandas as pd

from common.errors import UserError
from common.lessons.course import Reference, course_plan, course_references
from common.results import extra
from common.results.statistics import Interval, family, paired

FIRST_STAGE = "08"  # the stages before have few comparisons each


def baseline(experiment: str) -> Reference | None:
    """The line that the others of a script are compared with, if they are judged together; else None."""
    lines = course_references(experiment)
    together = experiment >= FIRST_STAGE and course_plan(experiment).header.has_baseline
    return lines[0] if together and len(lines) > 1 else None


def difference(
    line: Reference,
    other: Reference,
    rows: Callable[[Reference], pd.DataFrame],
    column: str = "test_bpc",
    judged: Callable[[str], dict[str, Interval]] | None = None,
) -> Interval:
    """`line` minus `other` in a column. rows: the rows of a line, one for each seed; neither has none.

    judged: what `judged_together` gives for a script, where that is known already. Raises UserError if the
    two share no seed or text.
    """
    if column == "test_bpc" and other == baseline(line.experiment) != line:
        together = judged(line.experiment) if judged else judged_together(line.experiment, rows)
        if str(line) in together:
            return together[str(line)]
    return paired(rows(line), rows(other), column)


def judged_together(
    experiment: str, rows: Callable[[Reference], pd.DataFrame], further: dict[str, list[float]] | None = None
) -> dict[str, Interval]:
    """Every line of a script minus its first, by name: of those that have the script's seeds, saw as many
    tokens of the same text as the first, and did not diverge.

    further: scores by name, in the order of the seeds, that are judged with them.
    """
    seeds = sorted(course_plan(experiment).header.seeds)
    scores = {}
    for line in course_references(experiment):
        own = rows(line)
        own = own[own.seed.isin(seeds) & (own.diverged == False)].sort_values("seed")  # noqa: E712 (a column)
        if list(own.seed) == seeds:
            scores[line] = set(zip(own.corpus, own.tokens_seen, strict=True)), list(own.test_bpc)
    first = baseline(experiment)
    if first not in scores:
        return {}
    learned_from, base = scores.pop(first)
    arms = {str(line): bits for line, (seen, bits) in scores.items() if seen == learned_from}
    return family(base, arms | (further or {}))


def false_alarms(experiment: str, rows: Callable[[Reference], pd.DataFrame], scores=None) -> tuple[int, int]:
    """How many copies of the first line are told apart from it, each judged together with the script's own
    lines, and how many there are.
    """
    first, seeds = baseline(experiment), sorted(course_plan(experiment).header.seeds)
    if first is None:
        raise UserError(f"the arms of {experiment} are not judged together")
    verdicts = []
    for bits in extra.copies(first, scores).values():
        if set(bits) == set(seeds):
            together = judged_together(experiment, rows, {"copy": [bits[seed] for seed in seeds]})
            verdicts += [together["copy"].verdict] if "copy" in together else []
    return sum(verdict in ("better", "worse") for verdict in verdicts), len(verdicts)
