"""What the course has and what of it is measured: the list of its scripts, and the state of every line."""

import shutil
from textwrap import TextWrapper

from common import results
from common.lessons.course import COURSE, Reference, course_plan
from common.report import pictures
from common.report.evidence import Measured
from common.report.further import every_reference
from common.results import extra
from common.results.table import course_rows
from common.tools.side_by_side import Job, gathers

NOTES = {"measured": "", "stale": "measured with earlier code", "missing": "not measured yet"}


def own_seeds(reference: Reference) -> list[int]:
    """The seeds that the course runs a reference with."""
    return course_plan(reference.experiment).header.seeds_with(reference.flags)


def missing(jobs: list[Job]) -> list[Job]:
    """Those without a row of the present code, or without the scores of their own that their script gives."""
    rows, scores = results.read(), extra.read()
    done = {}
    for reference in dict.fromkeys(r for r, _ in jobs):
        plan, config = course_plan(reference.experiment), reference.config()
        logged = course_rows(reference, rows).itertuples()
        done[reference] = {
            row.seed
            for row in logged
            if row.diverged or not extra.unscored(plan, reference.arm, row.seed, config, scores)
        }
    return [(r, seed) for r, seed in jobs if seed not in done[r]]


def expected_seconds(job: Job, measured: dict[str, float], quick: bool = False) -> float:
    """A guess from an earlier run of the same script: training time plus start and evaluation."""
    reference = job[0]
    resolved = course_plan(reference.experiment).own(reference.arm, reference.settings())
    usual = resolved.seconds or (30.0 if resolved.n_layer > 1 else 10.0)
    return measured.get(reference.experiment, usual) * (0.1 if quick else 1.0) + 4.0


def clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_list() -> None:
    indent = 33
    width = max(60, shutil.get_terminal_size().columns)
    wrap = TextWrapper(width, "", " " * indent, break_long_words=False, break_on_hyphens=False)
    for experiment in COURSE:
        plan = course_plan(experiment)
        arms = f"  [{', '.join(plan.arms)}]" if len(plan.arms) > 1 else ""
        print(wrap.fill(f"{experiment + '.py':<{indent}}{plan.header.title}{arms}"))
        for flags in plan.header.variants[1:]:
            print(wrap.fill(f"{'':<{indent}}  also with {flags}"))


def show_status() -> bool:
    """Print the state of every line of the course and of every picture.

    True if all are measured with the present code.
    """
    measured = Measured()
    references = every_reference()
    lacking = missing([(reference, seed) for reference in references for seed in own_seeds(reference)])
    for reference in references:
        line = measured.line(reference)
        unscored = any(job == (reference, seed) for job in lacking for seed in line.seeds)
        note = NOTES[line.state] or ("its own scores: not measured yet" if unscored else "")
        if len(line.rows):
            note = (
                f"test bpc {line.rows.test_bpc.mean():.4f}   {line.rows.train_seconds.mean():.1f} s   {note}"
            )
        print(f"{str(reference):<72} seeds {' '.join(map(str, line.seeds)) or '-':<8} {note}".rstrip())
    undrawn = [experiment for experiment in pictures.drawing() if pictures.state(experiment) != "measured"]
    for experiment in undrawn:
        print(f"pictures of {experiment}: {NOTES[pictures.state(experiment)]}")
    lines = list(dict.fromkeys(reference for reference, _ in lacking))
    if lacking:
        rows = measured.all
        known = rows.groupby("experiment").train_seconds.mean().to_dict() if len(rows) else {}
        seconds = sum(expected_seconds(job, known) for job in lacking)
        print(
            f"{len(lines)} lines to run, {len(lacking)} runs, about {clock(seconds)} one after the other:",
            end=" ",
        )
        print("python -m common.tools.course run")
    elif undrawn:
        again = "" if all(map(gathers, undrawn)) else " --again"
        print(
            f"every line is measured; {len(undrawn)} have to draw: python -m common.tools.course run "
            f"{' '.join(undrawn)}{again}"
        )
    else:
        print("complete")
    return not lacking and not undrawn
