"""The pictures that scripts draw: which there are, whether they show what the present code computes."""

import csv
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from common.data.corpora import family_of
from common.lessons import receipts
from common.lessons.course import COURSE, Reference, course_plan, refer
from common.paths import logs_folder
from common.report import plots, redraw
from common.report.evidence import Measured
from common.results.table import COLUMNS
from common.training import checkpoint


def drawing() -> list[str]:
    """The scripts that draw pictures of their own: in a run (`picture`), of all their runs (`board`), or of
    what they `measure`.
    """
    return [
        e for e in COURSE if any(getattr(course_plan(e), kind) for kind in ("picture", "overview", "measure"))
    ]


def owner(stem: str) -> str | None:
    """The script that draws the picture or table of this name in logs/plots; None for those made from the
    results.
    """
    return next((e for e in drawing() if stem.startswith(f"{e.replace('/', '_')}_")), None)


@dataclass(frozen=True)
class Source:
    """Where pictures of a script come from: a folder of its course run, and what stands for the settings and
    code that drew them.
    """

    kind: str
    """measure, overview or picture."""
    folder: Path
    mark: str


def sources(experiment: str) -> list[Source]:
    """What draws a script's pictures: what it measures, and either all its runs together or the first of
    them.
    """
    from common.lessons.run_folder import measured_folder, run_folder

    reference, plan = refer(experiment), course_plan(experiment)
    listed = []
    if plan.measure:
        folder = measured_folder(plan)
        listed.append(Source("measure", folder, folder.name))
    if plan.overview:
        name = _overview_name(experiment)
        listed.append(Source("overview", logs_folder() / "runs" / experiment / name, name))
    elif plan.picture:
        folder = run_folder(experiment, reference.arm, 1, reference.config(), reference.code)
        listed.append(Source("picture", folder, f"{reference.config()} {reference.code}"))
    return listed


@cache
def _overview_name(experiment: str) -> str:
    """The name of the folder of a script's picture of all its runs; kept, as it asks every arm for its
    settings.
    """
    from common.lessons.run_folder import overview_name

    plan = course_plan(experiment)
    return overview_name(
        plan, plan.defaults, family_of(plan.defaults.corpus), plan.course_arms, plan.header.seeds
    )


def is_drawn(experiment: str) -> bool:
    """Whether the present code has drawn the script's pictures, in its run folder or in logs/plots."""
    folders = [source.folder for source in sources(experiment)]
    return state(experiment) == "measured" or all(
        any(f.glob("*.csv")) and not _outdated(experiment, f) for f in folders
    )


def _outdated(experiment: str, folder: Path) -> bool:
    """Whether a run folder belongs to a version of the script that is no longer there."""
    state = checkpoint.whole_state(folder / checkpoint.NAME)
    return bool(state) and state["code_hash"] not in _codes(refer(experiment))


def _codes(reference: Reference) -> frozenset[str]:
    return receipts.codes(reference.experiment, reference.arm, reference.config(), reference.code)


def paths(experiment: str, source: Source) -> list[tuple[Path, Path]]:
    """For the data file of each picture that a source has: (where the run wrote it, where it is tracked)."""
    target, name = plots.folder(), experiment.replace("/", "_")
    tracked = [
        path
        for path in target.glob(f"{name}_*.csv")
        if len(sources(experiment)) == 1 or _of_runs(path) == (source.kind == "overview")
    ]
    stems = {path.stem for path in source.folder.glob("*.csv")} | {
        path.stem.removeprefix(f"{name}_") for path in tracked
    }
    return [(source.folder / f"{stem}.csv", target / f"{name}_{stem}.csv") for stem in sorted(stems)]


def _of_runs(path: Path) -> bool:
    """Whether a table is of runs: each of its lines says of which arm and seed."""
    with path.open(encoding="utf-8", newline="") as file:
        return {"arm", "seed"} <= set(next(csv.reader(file), []))


def _tracked(experiment: str, source: Source) -> list[Path]:
    return [tracked for _, tracked in paths(experiment, source) if tracked.exists()]


def _tables(paths: list[Path]) -> str:
    """What stands for the tables beside the pictures that have no picture of their own to be marked; empty if
    there are none.
    """
    tables = "".join(
        path.read_text(encoding="utf-8")
        for path in paths
        if path.exists() and not path.with_suffix(".png").exists()
    )
    return hashlib.sha256(tables.encode()).hexdigest()[:12] if tables else ""


def state(experiment: str, measured: Measured | None = None) -> str:
    """measured: the tracked pictures show what the present code computes; stale: what earlier code did;
    missing: there are none yet.

    Of a script that draws from two sources, the worse of the two. measured: the rows, if they are at hand.
    """
    states = {_state(experiment, source, measured) for source in sources(experiment)}
    return next(state for state in ("missing", "stale", "measured") if state in states)


def _state(experiment: str, source: Source, measured: Measured | None) -> str:
    """The state of the pictures from one source: of all runs, whether they show the rows that are good now;
    else by their marks.
    """
    tracked = _tracked(experiment, source)
    pictures = [path.with_suffix(".png") for path in tracked if path.with_suffix(".png").exists()]
    if not pictures:
        return "missing"
    if source.kind == "overview":
        return "stale" if table_problems(measured or Measured(), experiment, tracked) else "measured"
    marks = {
        plots.read_mark(path).split(" ", 1)[-1].removesuffix(_tables(tracked)).strip() for path in pictures
    }
    reference = refer(experiment)
    good = (
        {source.mark}
        if source.kind == "measure"
        else {f"{reference.config()} {code}" for code in _codes(reference)}
    )
    return "measured" if marks <= good else "stale"


def update() -> None:
    """Take over the pictures that scripts drew, marked with the code and settings that drew them."""
    for experiment in drawing():
        for source in sources(experiment):
            if not _outdated(experiment, source.folder):
                _take_over(experiment, source)


def _take_over(experiment: str, source: Source) -> None:
    pairs = paths(experiment, source)
    mark = f"{source.mark} {_tables([drawn for drawn, _ in pairs])}".strip()
    for drawn, tracked in pairs:
        if drawn.exists():
            redraw.take_over(drawn, tracked, mark)


def redraw_all() -> None:
    """Draw every tracked picture that a script drew anew, from the table beside it."""
    for experiment in drawing():
        for path in sorted({p for source in sources(experiment) for p in _tracked(experiment, source)}):
            redraw.redraw(path)


def problems(measured: Measured) -> list[str]:
    """Where a picture or table that a script drew says other than its data, or than the results."""
    listed = []
    for experiment, source in ((e, source) for e in drawing() for source in sources(e)):
        tracked = _tracked(experiment, source)
        pictures = [path for path in tracked if path.with_suffix(".png").exists()]
        if tracked and not pictures:
            listed.append(f"the pictures of {experiment} are missing, though their data are there")
        for path in pictures:
            listed += _mark_problem(path, _tables(tracked))
        if source.kind == "overview":
            listed += overview_problems(measured, experiment, tracked)
    return listed


def _mark_problem(path: Path, tables: str) -> list[str]:
    """One line if a tracked picture was not drawn from the data file beside it, or from other tables than are
    there.
    """
    digest, _, source = plots.read_mark(path.with_suffix(".png")).partition(" ")
    same = digest == plots.mark(path.read_text(encoding="utf-8")) and (
        not tables or source.endswith(f" {tables}")
    )
    return (
        [] if same else [f"{path.with_suffix('.png').name} was drawn from other data than {path.name} holds"]
    )


def overview_problems(measured: Measured, experiment: str, tables: list[Path]) -> list[str]:
    """Where a picture of all runs shows what no row ever said.

    One that shows what earlier code computed says so on the page.
    """
    known = measured.all[measured.all.experiment == experiment]
    of_runs = [path for path in tables if _of_runs(path)]
    return _unknown_cells(known, of_runs) + _unknown_scores(measured, experiment, of_runs)


def table_problems(measured: Measured, experiment: str, tables: list[Path]) -> list[str]:
    """One line for each table of a picture of all runs that says other than the good rows, or if together
    they lack a run.

    A line of such a table has the run's arm and seed, and its columns with the names of the results hold the
    values of the run's row. Tables without these two say what was made of all runs; they are not compared.
    """
    import pandas as pd

    tables = [path for path in tables if _of_runs(path)]
    lines = [measured.line(Reference(experiment, arm)) for arm in course_plan(experiment).course_arms]
    rows = pd.concat([line.rows for line in lines if line.state == "measured"] or [measured.all.iloc[:0]])
    seen = {
        run
        for path in tables
        for run in pd.read_csv(path, dtype={"arm": str})[["arm", "seed"]].itertuples(index=False, name=None)
    }
    lacking = [
        f"the pictures of {experiment} lack {row.arm}, seed {row.seed}"
        for row in rows.itertuples()
        if (row.arm, row.seed) not in seen
    ]
    return _unknown_cells(rows, tables) + _unknown_scores(measured, experiment, tables) + lacking[:1]


def _unknown_scores(measured: Measured, experiment: str, tables: list[Path]) -> list[str]:
    """One line for each table with a score (columns `what` and `value`) that `logs/extra.csv` does not have
    for the script.
    """
    import pandas as pd

    scores = measured.scores[measured.scores.experiment == experiment]
    known, unknown = set(scores[["arm", "seed", "what", "value"]].itertuples(index=False, name=None)), []
    for path in tables:
        drawn = pd.read_csv(path, dtype={"arm": str})
        if {"what", "value"} <= set(drawn.columns):
            wrong = [
                line
                for line in drawn[["arm", "seed", "what", "value"]].itertuples(index=False, name=None)
                if line not in known
            ]
            unknown += [
                f"{path.name}: {what} of {arm}, seed {seed} is not what the scores say"
                for arm, seed, what, _ in wrong[:1]
            ]
    return unknown


def _unknown_cells(rows, tables: list[Path]) -> list[str]:
    """One line for each table that has a cell which none of these rows has."""
    import pandas as pd

    unknown = []
    for path in tables:
        drawn = pd.read_csv(path, dtype={"arm": str})
        columns = [c for c in drawn.columns if c in COLUMNS and c not in ("arm", "seed")]
        values = {
            (row.arm, row.seed, *(_plain(getattr(row, column)) for column in columns))
            for row in rows.itertuples()
        }
        for cell in drawn.itertuples():
            if (cell.arm, cell.seed, *(_plain(getattr(cell, column)) for column in columns)) not in values:
                unknown.append(
                    f"{path.name}: what it says of {cell.arm}, seed {cell.seed} is not what the results say"
                )
                break
    return unknown


def _plain(value) -> object:
    """A value that equals itself: what diverged has no number, and no-number does not."""
    return None if value != value else value
