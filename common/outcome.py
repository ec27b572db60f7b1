"""What comes of the runs of a script, shown at its end: samples, the table, pictures, speed and memory."""

import datetime
from dataclasses import replace
from pathlib import Path

from pandas import DataFrame
from torch import nn

from common.data.corpora import family_of
from common.errors import UserError
from common.generation import sampling
from common.lessons import run_folder
from common.lessons.plan import Plan
from common.one_run import Cell
from common.report import summary
from common.report.summary import Result
from common.results import extra, predictions
from common.results.statistics import paired
from common.settings import Options, Settings
from common.training.presence import Presence


def show(cell: Cell, model: nn.Module, result: Result, options: Options) -> list[Path]:
    """Print what a trained model writes, and draw the script's picture of it. The paths of what was drawn."""
    name = "" if cell.arm == "default" else f" of {cell.arm}"
    parts, names = (model, cell.data.tokenizer, cell.settings.block_size), cell.data.names or None
    text = sampling.sample(parts, cell.seed, options.prompt or "", 300, cell.data.device, names)
    print(f"\nsample{name}, seed {cell.seed}:\n{text}")
    if not cell.plan.picture or not options.pictures:
        return []
    return cell.plan.picture(model, cell.data, result, cell.folder)


def pictures(
    plan: Plan,
    arms: list[str],
    s: Settings,
    options: Options,
    presence: Presence,
    done: list[Result],
    family: str,
) -> list[Path]:
    """Print the table of all runs, with what was predicted of them, and draw what shows them together. The
    paths of what was drawn.
    """
    paths: list[Path] = []
    print(summary.table(plan, [result.row for result in done], s, family))
    if options.predict is not None:
        print(confront(plan, [result.row for result in done], s, family, options.predict))
    if plan.overview and options.pictures:
        folder = run_folder.overview_folder(plan, s, family, arms, options.seeds)
        paths += _overview(plan, done, folder)
    elif options.pictures:
        paths += summary.curves(plan, done)
    usual = replace(plan.defaults, **plan.small()[0]) if options.quick else plan.defaults
    wanted = plan.measure and (options.log or options.quick) and options.pictures and s == usual
    if options.measure or wanted:
        paths += _measured(plan, options, presence)
    return paths


def check_prediction(plan: Plan, arms: list[str], s: Settings, said: str) -> None:
    """Raise UserError, before anything is trained, for a prediction that could not be confronted."""
    predictions.check(said)
    if len(arms) != 1:
        raise UserError(f"--predict is about one arm; name it with --arms: {', '.join(arms)}")
    other = summary.beside(plan, arms[0], s, family_of(s.corpus))
    if other is None:
        raise UserError(
            f"--predict needs something to be compared with, and {plan.name(arms[0])} has nothing"
        )
    if not other.rows:
        raise UserError(f"--predict needs {other.name}, which is not measured so yet; first: {other.command}")


def confront(plan: Plan, rows: list[dict], s: Settings, family: str, said: str) -> str:
    """What was predicted of these runs of one arm beside what was found, in words; it is kept, too."""
    arm = rows[0]["arm"]
    other = summary.beside(plan, arm, s, family)
    own = [row for row in rows if not row["diverged"]]
    shared = other and {row["seed"] for row in own} & {row["seed"] for row in other.rows}
    if not other or not shared:
        return "prediction  nothing to be compared with: no seed that both have"
    found = paired(DataFrame(own), DataFrame(other.rows).drop_duplicates("seed"))
    prediction = predictions.Prediction(said, found)
    known = {"experiment": plan.experiment, "arm": arm, "against": other.name}
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    predictions.append(prediction, known | {"timestamp": now, "config_hash": rows[0]["config_hash"]})
    return f"prediction  {said}\n{_found(prediction, other.name)}"


def _found(prediction: predictions.Prediction, name: str) -> str:
    found = prediction.found
    if prediction.right is None:
        return (
            f"found       {found.mean:+.3f} bits against {name} with one seed, which cannot tell: "
            "--seeds 1 2 3 can"
        )
    figures = f"{found.mean:+.3f} ± {found.half:.3f} bits against {name}, {found.n} seeds"
    verdict = "as predicted" if prediction.right else "not as predicted"
    return f"found       {figures}: {found.verdict.split(',')[0]}; {verdict}"


def _overview(plan: Plan, done: list[Result], folder: Path) -> list[Path]:
    """The pictures of all runs together.

    What they cannot show, a fit that finds nothing for one, does not lose the rest of the output.
    """
    assert plan.overview
    try:
        return plan.overview(done, folder)
    except RuntimeError as error:
        print(f"the pictures could not be drawn: {error}")
        return []


def _measured(plan: Plan, options: Options, presence: Presence) -> list[Path]:
    """The pictures of what a script measures besides training: once for each state of its code, or when asked
    to.
    """
    folder = run_folder.measured_folder(plan)
    known = sorted(folder.glob("*.png"))
    if known and not options.measure:
        print("speed and memory were measured before (--measure does it again)")
        return known
    if presence.others() and not options.quick:
        said = "speed and memory are not measured while another run of the course is going on"
        print(f"{said}; afterwards: --resume --measure")
        return []
    assert plan.measure
    print("measuring speed and memory ...", flush=True)
    if options.quick:  # beside what is kept
        folder = folder.with_name("measured-quick")
    paths = plan.measure(folder, options.quick)
    print(summary.measured(folder))
    if options.log:
        extra.append(extra.measured(plan.experiment, folder))
    return paths
