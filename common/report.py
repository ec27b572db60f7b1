"""README and plots, made from logs/results_All.csv.

From the command line:

    python -m common.report           rewrite README.md and logs/plots/
    python -m common.report --check   change nothing; exit 1 and name the place if either does not follow from the results
"""

import io
import math
import shutil
import sys
from pathlib import Path

from common import lesson, plots
from common.errors import UserError, command
from common.lesson import COURSE, ROOT, Reference, course_plan, course_references, refer
from common.readme import Measured, first_difference, render
from common.results import interval
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
            and set(rows.corpus) == {"tinyshakespeare"}
            and not rows.diverged.any()
        ):
            found = interval(rows.test_bpc)
            lines.append(f"{str(reference)},stage,{found.mean!r},{found.half!r}")
    return "\n".join(lines) + "\n"


def curve_points(reference: Reference, row, tracked) -> list[list]:
    """The learning curve that belongs to a row: from its run folder, or from the tracked file of an earlier report. Raises UserError."""
    from common.generate import run_folder

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
    for reference in (r for r in course_references(stage) if not r.flags):
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


def picture_paths(reference: Reference) -> list[tuple[Path, Path]]:
    """For each picture a script drew in its run with seed 1: (where the run wrote it, where it is tracked)."""
    from common.generate import run_folder

    target = plots.folder()
    name = reference.experiment.replace("/", "_")
    drawn = run_folder(reference.experiment, reference.arm, 1, reference.config()).glob("*.csv")
    tracked = target.glob(f"{name}_*.csv")
    stems = {path.stem for path in drawn} | {path.stem.removeprefix(f"{name}_") for path in tracked}
    folder = run_folder(reference.experiment, reference.arm, 1, reference.config())
    return [(folder / f"{stem}.csv", target / f"{name}_{stem}.csv") for stem in sorted(stems)]


def update_pictures() -> None:
    """Take over the pictures that scripts drew, marked with the code and settings that drew them."""
    for experiment in COURSE:
        if course_plan(experiment).picture:
            reference = refer(experiment)
            for drawn, tracked in picture_paths(reference):
                if drawn.exists():
                    shutil.copyfile(drawn, tracked)
                    plots.copy_marked(
                        drawn.with_suffix(".png"),
                        tracked.with_suffix(".png"),
                        drawn.read_text(encoding="utf-8"),
                        f"{reference.config()} {reference.code}",
                    )


def stale_pictures() -> list[str]:
    """What is wrong with the pictures that scripts drew."""
    found = []
    for experiment in COURSE:
        if course_plan(experiment).picture:
            reference = refer(experiment)
            pairs = picture_paths(reference)
            if not pairs:
                found.append(f"{experiment} has drawn no picture yet: python -m common.tools.course run {experiment}")
            for _, tracked in pairs:
                found += plots.mark_problem(
                    tracked, tracked.read_text(encoding="utf-8") if tracked.exists() else "", f"{reference.config()} {reference.code}"
                )
    return found


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
    return problems + stale_pictures()


def write(readme: Path) -> None:
    """Rewrite README and every plot."""
    measured = Measured()
    text = render(readme.read_text(encoding="utf-8"), measured)
    for path, data in plot_data(measured).items():
        draw(path, data)
    update_pictures()
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
