"""The pages and plots, made from logs/results_All.csv.

From the command line:

    python -m common.report           rewrite README.md, the pages in Research/, and logs/plots/
    python -m common.report --redraw  the same, and draw the pictures of scripts anew from their tables
    python -m common.report --check   change nothing; exit 1 and name what does not follow from the results
"""

import io
import math
import sys
from pathlib import Path

from common import lessons, results
from common.errors import UserError, command
from common.lessons.course import COURSE, Reference, at_own_rate, course_plan, course_references, refer
from common.paths import ROOT
from common.report import drawing, equal_time, figures, generated, pages, pictures, plots, staircase
from common.report.evidence import Line, Measured
from common.report.readme import differences
from common.report.summary import read_curve
from common.results import sweeps
from common.results.statistics import interval
from common.results.table import repeated_rows

CURVE_COLUMNS = [
    "experiment",
    "arm",
    "seed",
    "config_hash",
    "code_hash",
    "step",
    "train_loss",
    "val_loss",
    "val_bpc",
    "state",
]
SWEEP_COLUMNS = ["experiment", "line", "lr", "seed", "val_bpc", "chosen"]
TEXT = "tinyshakespeare"  # the corpus of the staircase


def staircase_data(measured: Measured) -> str:
    """label, kind (stage, floor, or own rate: the stage of this label with a learning rate of its own), mean
    and half-width of test bits per character on the course's corpus, and the line's state.
    """
    lines = [["label", "kind", "test_bpc", "half", "state"]]
    for label, name in lessons.BASELINES.items():
        line = measured.line(refer(name))
        if line.state != "missing":
            lines.append([label, "floor", repr(interval(line.rows.test_bpc).mean), "0.0", line.state])
    for reference in course_references():
        if reference.experiment != "01_bigram/ngram" and _is_a_stair(reference):
            lines += _stair(reference, measured.line(reference))
            own = None if reference.flags else at_own_rate(reference)
            if own and measured.line(own).state != "missing":
                beside = _stair(own, measured.line(own))
                lines += [[str(reference), "own rate", *values] for _, _, *values in beside]
    return plots.table_text(lines)


def _stair(reference: Reference, line: Line) -> list[list[str]]:
    """The line of the staircase's data for a line of the course; none where it has another text, or a run
    that diverged.
    """
    if line.state == "missing":
        return [[str(reference), "stage", "", "", "missing"]] if reference.settings().corpus == TEXT else []
    if set(line.rows.corpus) != {TEXT} or line.rows.diverged.any():
        return []
    estimate = interval(line.rows.test_bpc)
    return [[str(reference), "stage", repr(estimate.mean), repr(estimate.half), line.state]]


def _is_a_stair(reference: Reference) -> bool:
    """Whether a line of the course stands in the staircase.

    Those that the header names, by arm or flags; where it names none, those without flags, but not the many
    arms of a picture.
    """
    plan = course_plan(reference.experiment)
    if "Stairs" in plan.header.fields:
        return (reference.flags or reference.arm) in plan.header.stairs
    return not reference.flags and not plan.overview


# ---- learning curves -----------------------------------------------------------------------------


class CurveError(UserError):
    """The learning curve of a row is not there."""


def curve_points(reference: Reference, row, tracked: dict) -> list[list]:
    """The learning curve of a row: from a run folder, or from those of an earlier report (`_tracked_curves`).

    A curve that ends at the row's validation loss, to the last bit, is the row's, whatever the folder is
    called. Raises CurveError.
    """
    from common.lessons.run_folder import run_folders

    for folder in run_folders(reference.experiment, reference.arm, row.seed, row.config_hash):
        curve = read_curve(folder)
        if curve and curve[-1][2] == row.val_loss:
            return [list(point) for point in curve]
    same = tracked.get((row.experiment, row.arm, row.seed, row.config_hash, row.code_hash))
    if same is not None and same.val_loss.iloc[-1] == row.val_loss:
        return same[["step", "train_loss", "val_loss", "val_bpc"]].values.tolist()
    raise CurveError(
        f"the learning curve of {reference}, seed {row.seed}, is not that of its row; "
        f"run it again: python -m common.tools.course run {reference.experiment} --again"
    )


def _tracked_curves(path: Path) -> dict:
    """The curves as they stand in a file, by the first five columns; none where it is not there."""
    import pandas as pd

    if not path.exists():
        return {}
    known = pd.read_csv(path, dtype={"arm": str, "config_hash": str, "code_hash": str}, keep_default_na=True)
    return dict(list(known.sort_values("step").groupby(CURVE_COLUMNS[:5])))


def curves_data(measured: Measured, references: list[Reference], path: Path) -> tuple[str | None, list[str]]:
    """Learning curves of lines of the course as CSV, None where there is none to draw; and which curves are
    lost. Where that of a row is, the curve of a repetition of its run stands in for it.
    """
    tracked = _tracked_curves(path)
    lines: list[list] = []
    problems: list[str] = []
    for reference in references:
        line = measured.line(reference)
        if line.state == "missing" and course_plan(reference.experiment).trains(reference.arm):
            lines.append([reference.experiment, reference.arm, *[""] * 7, "missing"])
        rows = line.rows
        if line.state == "measured":
            every = repeated_rows(reference, measured.every(reference))
            rows = every[every.seed.isin(line.seeds)].sort_values("seed", kind="stable")
        lost: dict[int, str] = {}  # by seed, why its curve is not there; empty where it is
        for row in rows.itertuples():
            if math.isnan(row.steps) or row.diverged or lost.get(row.seed) == "":
                continue
            try:
                points = curve_points(reference, row, tracked)
            except CurveError as error:
                lost[row.seed] = lost.get(row.seed) or str(error)
                continue
            lost[row.seed] = ""
            known = [row.experiment, row.arm, row.seed, row.config_hash, row.code_hash]
            for step, train, loss, bpc in points:
                numbers = ["" if math.isnan(train) else repr(train), repr(loss), repr(bpc)]
                lines.append([*known, int(step), *numbers, line.state])
        problems += filter(None, lost.values())
    drawn = any(line[-1] != "missing" for line in lines)
    return plots.table_text([CURVE_COLUMNS, *lines]) if drawn else None, problems


# ---- sweeps --------------------------------------------------------------------------------------


def sweep_data(measured: Measured, stage: str) -> str | None:
    """Validation bits per character of a stage's lines at the learning rates that were tried, as CSV; None
    where none was.
    """
    lines: list[list] = []
    for reference in course_references(stage):
        bits = sweeps.tried(reference, measured.every(reference))
        chosen, name = sweeps.best(bits), str(reference).split("/")[1]
        for rate, values in bits.items():
            for seed, value in zip(sweeps.SEEDS, values, strict=True):
                score = "" if math.isnan(value) else repr(value)
                lines.append([reference.experiment, name, rate, seed, score, rate == chosen])
    return plots.table_text([SWEEP_COLUMNS, *lines]) if lines else None


# ---- the whole -----------------------------------------------------------------------------------


def plot_data(measured: Measured) -> tuple[dict[Path, str | None], list[str]]:
    """The data file of every plot that is made from results and what it should contain, None if it should not
    be there; and problems.
    """
    target = plots.folder()
    content: dict[Path, str | None] = {target / "staircase.csv": staircase_data(measured)}
    problems = []
    for stage in dict.fromkeys(e.split("/")[0] for e in COURSE):
        shown = [
            r for r in course_references(stage) if not r.flags and not course_plan(r.experiment).overview
        ]
        path = target / f"curves_{stage}.csv"
        content[path], lost = curves_data(measured, shown, path)
        problems += lost
        content[target / f"sweep_{stage}.csv"] = sweep_data(measured, stage)
    for experiment in _read_at_equal_time():
        path = equal_time.curves_path(experiment)
        # lost: not measured yet
        content[path], _ = curves_data(measured, course_references(experiment), path)
    return content, problems


def _read_at_equal_time() -> list[str]:
    """The scripts with one picture of all their arms whose curves a table at equal time is read from: their
    curves are data without a picture.
    """
    scripts = equal_time.scripts(pages.text())
    return [experiment for experiment in scripts if course_plan(experiment).overview]


def draw(path: Path, data: str) -> None:
    """Draw the plot whose data file is `path`."""
    import pandas as pd

    frame = pd.read_csv(io.StringIO(data), keep_default_na=True, dtype={"arm": str})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data, encoding="utf-8", newline="\n")
    picture = path.with_suffix(".png")
    if not _has_picture(path):
        return
    if path.stem == "staircase":
        staircase.staircase(frame, picture, plots.mark(data))
    elif path.stem.startswith("sweep_"):
        figures.sweeps(frame, picture, plots.mark(data))
    else:
        figures.stage_curves(frame, path.stem.removeprefix("curves_"), picture, plots.mark(data))


def _has_picture(path: Path) -> bool:
    """Whether a data file is drawn; the curves of a single script are not."""
    name = path.stem.removeprefix("curves_")
    return name == path.stem or any(experiment.split("/")[0] == name for experiment in COURSE)


def plot_problems(path: Path, data: str | None) -> list[str]:
    """Every line in which a plot's data file differs from what it should contain, and whether the picture
    shows that.
    """
    if data is None:
        return [f"{path.name} is there, and the results have nothing to draw in it"] if path.exists() else []
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    undrawn = plots.mark_problem(path, data) if _has_picture(path) else []
    return [f"{path.name}: {difference}" for difference in differences(old, data)[:3]] + undrawn


def check(*of: Path) -> list[str]:
    """Every place where one of these pages or a plot does not follow from the results."""
    measured = Measured()
    problems = [problem for page in of for problem in generated.problems(page, measured)]
    drawn, lost = plot_data(measured)
    for path, data in drawn.items():
        problems += plot_problems(path, data)
    return problems + drawing.problems(pages.text(list(of))) + lost + pictures.problems(measured)


def write(*of: Path, redraw: bool = False) -> list[str]:
    """Rewrite these pages and every plot; with redraw those too that scripts drew. Returns what could not be
    made.
    """
    measured = Measured()
    drawn, problems = plot_data(measured)
    for path, data in drawn.items():
        if data is None:
            path.unlink(missing_ok=True)
            path.with_suffix(".png").unlink(missing_ok=True)
        else:
            draw(path, data)
    pictures.update()
    if redraw:
        pictures.redraw_all()
    for path, svg in drawing.every(pages.text(list(of))).items():
        path.write_text(svg, encoding="utf-8", newline="\n")
    for page in of:  # after the pictures, whose data they may show
        problems += generated.write(page, measured)
    return problems


@command
def main() -> None:
    if sys.argv[1:] not in ([], ["--check"], ["--redraw"]):
        raise UserError("usage: python -m common.report [--check | --redraw]")
    checks = sys.argv[1:] == ["--check"]
    results.name_unknown_columns()
    files = pages.paths(ROOT)
    problems = check(*files) if checks else write(*files, redraw=sys.argv[1:] == ["--redraw"])
    for problem in problems:
        print(f"stale: {problem}")
    if checks and problems:
        print("python -m common.report rewrites what follows from the results")
    elif checks:
        print("pages and plots follow from the results")
    else:
        print(f"written: {', '.join(pages.NAMES)} and {plots.folder()}")
    if problems:
        raise SystemExit(1)
