"""README and plots, made from logs/results_All.csv.

From the command line:

    python -m common.report           rewrite README.md and logs/plots/
    python -m common.report --check   change nothing; exit 1 and name the place if either does not follow from the results
"""

import hashlib
import io
import math
import shutil
import sys
from pathlib import Path

from common import checkpoint, lesson, plots
from common.corpora import family_of
from common.errors import UserError, command
from common.lesson import COURSE, ROOT, Reference, course_plan, course_references, refer
from common.readme import Measured, first_difference, render
from common.results import COLUMNS, interval
from common.summary import read_curve

CURVE_COLUMNS = ["experiment", "arm", "seed", "config_hash", "code_hash", "step", "train_loss", "val_loss", "val_bpc"]


def staircase_data(measured: Measured) -> str:
    """experiment, arm, kind (stage or floor), mean and half-width of test bits per character, on the course's corpus."""
    lines = ["label,kind,test_bpc,half"]
    for label, reference in lesson.BASELINES.items():
        lines.append(f"{label},floor,{interval(measured.rows(refer(reference)).test_bpc).mean!r},0.0")
    for reference in course_references():
        rows = measured.rows(reference)
        if (
            reference.experiment != "01_bigram/ngram"
            and not reference.flags
            and _is_a_stair(reference)
            and set(rows.corpus) == {"tinyshakespeare"}
            and not rows.diverged.any()
        ):
            found = interval(rows.test_bpc)
            lines.append(f"{str(reference)},stage,{found.mean!r},{found.half!r}")
    return "\n".join(lines) + "\n"


def _is_a_stair(reference: Reference) -> bool:
    """Whether a line of the course stands in the staircase: not the many arms of a picture, unless the header names them."""
    plan = course_plan(reference.experiment)
    return reference.arm in plan.lesson.stairs if plan.lesson.stairs else not plan.board


def curve_points(reference: Reference, row, tracked) -> list[list]:
    """The learning curve that belongs to a row: from its run folder, or from the tracked file of an earlier report. Raises UserError."""
    from common.runs import run_folder

    curve = read_curve(run_folder(reference.experiment, reference.arm, row.seed, row.config_hash))
    if curve and curve[-1][2] == row.val_loss:
        return [list(point) for point in curve]
    if tracked is not None:
        same = tracked[(tracked.experiment == row.experiment) & (tracked.arm == row.arm) & (tracked.seed == row.seed)]
        same = same[(same.config_hash == row.config_hash) & (same.code_hash == row.code_hash)].sort_values("step")
        if len(same) and same.val_loss.iloc[-1] == row.val_loss:
            return same[["step", "train_loss", "val_loss", "val_bpc"]].values.tolist()
    raise UserError(
        f"the learning curve of {reference}, seed {row.seed}, is not that of its row; "
        f"run it again: python -m common.tools.course run {reference.experiment} --again"
    )


def curves_data(measured: Measured, stage: str, path: Path) -> str | None:
    """Learning curves of a stage's scripts without flags as CSV, None where none of them takes steps."""
    import pandas as pd

    tracked = pd.read_csv(path, dtype={"arm": str, "config_hash": str, "code_hash": str}, keep_default_na=True) if path.exists() else None
    lines = []
    for reference in (r for r in course_references(stage) if not r.flags and not course_plan(r.experiment).board):
        for row in measured.rows(reference).itertuples():
            if math.isnan(row.steps) or row.diverged:
                continue
            for step, train, loss, bpc in curve_points(reference, row, tracked):
                cells = [
                    row.experiment,
                    row.arm,
                    row.seed,
                    row.config_hash,
                    row.code_hash,
                    int(step),
                    "" if math.isnan(train) else repr(train),
                    repr(loss),
                    repr(bpc),
                ]
                lines.append(",".join(map(str, cells)))
    return "\n".join([",".join(CURVE_COLUMNS), *lines]) + "\n" if lines else None


def drawing() -> list[str]:
    """The scripts that draw pictures of their own: in a run (`picture`), of all their runs (`board`), or of what they `measure`."""
    return [e for e in COURSE if any(getattr(course_plan(e), kind) for kind in ("picture", "board", "measure"))]


def drawn_by(experiment: str) -> tuple[Path, str]:
    """The folder where a script's course run leaves its pictures, and what stands for settings and code that drew them."""
    from common.runs import board_folder, measured_folder, run_folder

    reference, plan = refer(experiment), course_plan(experiment)
    if plan.measure:
        return measured_folder(plan), measured_folder(plan).name
    if plan.board:
        folder = board_folder(plan, plan.defaults, family_of(plan.defaults.corpus), plan.course_arms, plan.lesson.seeds)
        return folder, folder.name
    return run_folder(experiment, reference.arm, 1, reference.config()), f"{reference.config()} {reference.code}"


def picture_paths(experiment: str) -> list[tuple[Path, Path]]:
    """For the data file of each picture a script drew: (where the run wrote it, where it is tracked)."""
    target, folder = plots.folder(), drawn_by(experiment)[0]
    name = experiment.replace("/", "_")
    stems = {path.stem for path in folder.glob("*.csv")} | {path.stem.removeprefix(f"{name}_") for path in target.glob(f"{name}_*.csv")}
    return [(folder / f"{stem}.csv", target / f"{name}_{stem}.csv") for stem in sorted(stems)]


def _with_tables(source: str, paths: list[Path]) -> str:
    """What stands for the drawing of a picture, and for the tables beside it that have no picture of their own to be marked."""
    tables = "".join(path.read_text(encoding="utf-8") for path in paths if path.exists() and not path.with_suffix(".png").exists())
    return f"{source} {hashlib.sha256(tables.encode()).hexdigest()[:12]}" if tables else source


def update_pictures() -> None:
    """Take over the pictures that scripts drew, marked with the code and settings that drew them."""
    for experiment in drawing():
        folder, source = drawn_by(experiment)
        path = folder / checkpoint.NAME
        if path.exists() and checkpoint.load(path).state["code_hash"] != refer(experiment).code:
            continue  # drawn by a version of the script that is no longer there
        paths = picture_paths(experiment)
        source = _with_tables(source, [drawn for drawn, _ in paths])
        for drawn, tracked in paths:
            if drawn.exists():
                shutil.copyfile(drawn, tracked)
                picture = drawn.with_suffix(".png")
                if picture.exists():  # some tables have none
                    plots.copy_marked(picture, tracked.with_suffix(".png"), drawn.read_text(encoding="utf-8"), source)


def stale_pictures(measured: Measured) -> list[str]:
    """What is wrong with the pictures that scripts drew."""
    found = []
    for experiment in drawing():
        pairs = [(drawn, tracked) for drawn, tracked in picture_paths(experiment) if tracked.exists()]
        if not pairs:
            found.append(f"{experiment} has drawn no picture yet: python -m common.tools.course run {experiment} --again")
        source = _with_tables(drawn_by(experiment)[1], [tracked for _, tracked in pairs])
        pictures = [tracked for _, tracked in pairs if tracked.with_suffix(".png").exists()]
        if pairs and not pictures:
            found.append(f"the pictures of {experiment} are missing")
        for tracked in pictures:
            found += plots.mark_problem(tracked, tracked.read_text(encoding="utf-8"), source)
        if course_plan(experiment).board:
            found += board_problems(measured, experiment, [tracked for _, tracked in pairs])
    return found


def board_problems(measured: Measured, experiment: str, paths: list[Path]) -> list[str]:
    """One line for each table of a picture of all runs that says other than the rows, or if together they lack a run of the course.

    A line of such a table has the run's arm and seed, and its columns with the names of the results hold the values of the run's row.
    """
    import pandas as pd

    plan, found, seen = course_plan(experiment), [], set()
    rows = {(arm, row.seed): row for arm in plan.course_arms for row in measured.rows(Reference(experiment, arm)).itertuples()}
    for path in paths:
        drawn = pd.read_csv(path, dtype={"arm": str})
        columns = [c for c in drawn.columns if c in COLUMNS and c not in ("arm", "seed")]
        for cell in drawn.itertuples():
            run = (cell.arm, cell.seed)
            seen.add(run)
            same = run in rows and all(_equal(getattr(cell, column), getattr(rows[run], column)) for column in columns)
            if not same:
                found.append(f"{path.name}: what it says of {cell.arm}, seed {cell.seed} is not what the results say")
                break
    return found + [f"the pictures of {experiment} lack {arm}, seed {seed}" for arm, seed in rows if (arm, seed) not in seen][:1]


def _equal(a, b) -> bool:
    return a == b or (a != a and b != b)  # what diverged has no number, and no number equals itself


# ---- the whole -------------------------------------------------------------------------------------------------------


def plot_data(measured: Measured) -> dict[Path, str]:
    """The data file of every plot that is made from results, and what it should contain."""
    target = plots.folder()
    found = {target / "staircase.csv": staircase_data(measured)}
    for stage in dict.fromkeys(e.split("/")[0] for e in COURSE):
        path = target / f"curves_{stage}.csv"
        data = curves_data(measured, stage, path)
        if data:
            found[path] = data
    return found


def draw(path: Path, data: str) -> None:
    """Draw the plot whose data file is `path`."""
    import pandas as pd

    frame = pd.read_csv(io.StringIO(data), keep_default_na=True, dtype={"arm": str})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data, encoding="utf-8", newline="\n")
    picture = path.with_suffix(".png")
    if path.stem == "staircase":
        plots.staircase(frame, picture, plots.mark(data))
    else:
        plots.stage_curves(frame, path.stem.removeprefix("curves_"), picture, plots.mark(data))


def check(readme: Path) -> list[str]:
    """Every place where README or a plot does not follow from the results."""
    measured = Measured()
    old = readme.read_text(encoding="utf-8")
    new = render(old, measured)
    problems = [f"{readme.name}, {first_difference(old, new)}"] if new != old else []
    for path, data in plot_data(measured).items():
        if not path.exists() or path.read_text(encoding="utf-8") != data:
            problems.append(f"{path.name}: {first_difference(path.read_text(encoding='utf-8') if path.exists() else '', data)}")
        problems += plots.mark_problem(path, data)
    return problems + stale_pictures(measured)


def write(readme: Path) -> None:
    """Rewrite README and every plot."""
    measured = Measured()
    for path, data in plot_data(measured).items():
        draw(path, data)
    update_pictures()
    text = render(readme.read_text(encoding="utf-8"), measured)  # after the pictures, whose data it may show
    readme.write_text(text, encoding="utf-8", newline="\n")


@command
def main() -> None:
    if sys.argv[1:] not in ([], ["--check"]):
        raise UserError("usage: python -m common.report [--check]")
    readme = ROOT / "README.md"
    if not sys.argv[1:]:
        write(readme)
        print(f"written: {readme.name} and {plots.folder()}")
        return
    try:
        problems = check(readme)
    except UserError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"stale: {problem}")
    if problems:
        print("python -m common.report rewrites what follows from the results")
        raise SystemExit(1)
    print("README and plots follow from the results")


if __name__ == "__main__":
    main()
