"""`run()`: the one call at the end of a script. Command line -> seeds x arms -> train -> measure -> results."""

import dataclasses
import gc
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from common import checkpoint, command_line, extra, lesson, memory, receipts, record, results, runs, sampling, summary, threads
from common.beside import Presence
from common.configuration import Reading
from common.data import Data
from common.errors import UserError, command
from common.journal import Diverged, Journal, Stopped, finished
from common.lesson import Plan, plan_of
from common.overfit import overfit
from common.parsing import parse
from common.settings import Lesson, Options, Settings
from common.summary import Result
from common.tokenizer import UnreachableError


def run(lesson: Lesson) -> None:
    """Do what the command line asks for with the lesson of the script that runs, and append every result to the results file."""
    _main(plan_of(Path(sys.modules["__main__"].__file__).resolve(), lesson))


@command
def _main(plan: Plan) -> None:
    command_line.check_clone(plan.script, lesson.ROOT)
    gc.freeze()  # what was imported stays: without this, searching it for garbage takes a tenth of the time to the first step
    idea, choice = plan.header.fields.get("Idea"), f"\n\nArms: {', '.join(plan.arms)}" if len(plan.arms) > 1 else ""
    changed, small = plan.small()
    s, options = parse(plan.defaults, f"{plan.header.title}\n\nIdea: {idea}{choice}", None, plan.presets, changed)
    arms = command_line.chosen_arms(plan, options, small if options.quick else plan.course_arms)
    device = command_line.device(plan, options.device)
    threads.check(options.threads)
    if options.threads:
        torch.set_num_threads(options.threads)
    for arm in arms:
        command_line.check_settings(plan, arm, s)
    if device == "cpu":  # some sums are taken in whatever order the threads arrive, unless told not to
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    memory.keep_freed()
    if options.measure and not plan.measure:
        raise UserError(f"--measure does nothing in {plan.experiment}: it has nothing to measure besides training; leave it out")
    if options.generate:
        _generate(plan, arms, s, options, device)
    elif options.check:
        overfit(plan, arms, s, lambda own: _load_data(plan, own, device, options))
    else:
        results.git_commit()
        if options.log:
            results.check_writable()
            extra.check_writable()
        with Presence() as presence:
            _train(plan, arms, s, options, device, presence)


def _load_data(plan: Plan, s: Settings, device: str, options: Options) -> Data:
    """The data, with the vocabulary of the run that `init_from` names. Raises UserError when it cannot say the prompt."""
    tokenizer = checkpoint.tokenizer_of(_initial(s, options.seeds[0])) if s.init_from else None
    data = plan.load(s, device, tokenizer)
    if options.prompt is not None:
        data.tokenizer.encode(options.prompt)
    return data


def _initial(s: Settings, seed: int) -> Path:
    """The checkpoint that `init_from` names: a run folder, or the finished run of an experiment with the same seed."""
    if (Path(s.init_from) / checkpoint.NAME).exists():
        return Path(s.init_from) / checkpoint.NAME
    reference = lesson.refer(s.init_from)
    path = runs.find_run(lesson.course_plan(reference.experiment), reference.arm, seed, reference.settings()) / checkpoint.NAME
    state = checkpoint.read_state(path)
    if state["code_hash"] not in receipts.codes(reference.experiment, reference.arm, reference.config(), reference.code):
        raise UserError(
            f"--init-from {s.init_from}: {path.parent} was trained by another version of {reference.experiment}.py; train again"
        )
    if not finished(state, state["settings"]["steps"], state["settings"]["seconds"]):
        raise UserError(
            f"--init-from {s.init_from}: {path.parent} {runs.progress(state)}; go on with it first: "
            f"python {reference.experiment}.py --seeds {seed} --resume"
        )
    return path


def _start_from(path: Path, model: nn.Module) -> None:
    """Give the model the weights of an earlier run."""
    start = checkpoint.load(path)
    checkpoint.restore_model(start, model)
    print(f"starts from {path.parent} ({runs.progress(start.state)})")


# ---- training --------------------------------------------------------------------------------------------------------


def _train(plan: Plan, arms: list[str], s: Settings, options: Options, device: str, presence: Presence) -> None:
    most = torch.get_num_threads()
    found: list[Result] = []
    data, loaded, paths, folder = None, None, [], None
    total = len(arms) * len(options.seeds)
    try:
        for arm in arms:
            own = plan.own(arm, s)
            wanted = (own.corpus, own.tokenizer, own.block_size, own.batch_size)  # arms may differ in these too
            try:
                data, loaded = (data, loaded) if loaded == wanted else (_load_data(plan, own, device, options), wanted)
            except UnreachableError as error:
                if arm == arms[-1] and not found:  # there is no other arm that could go on
                    raise
                print(f"{plan.experiment}:{arm} is left out: {error}")
                continue
            own = replace(own, corpus=data.corpus.resolved) if data.corpus.resolved else own  # not the text that was asked for
            if plan.trains(arm):
                _warn_of_a_short_text(own, data)
                memory.check(f"{plan.experiment}:{arm}" if len(arms) > 1 else plan.experiment, plan.arms[arm], own, data)
            for seed in options.seeds:
                number = f"[{len(found) + 1}/{total}] " if total > 1 else ""
                row, model, folder = _run_one(plan, arm, seed, own, options, data, presence, number)
                torch.set_num_threads(most)
                found.append(Result.of(row, folder))
                if model is not None and seed == options.seeds[0] and not plan.overview:  # a map has too many
                    name = "" if arm == "default" else f" of {arm}"
                    print(f"\nsample{name}, seed {seed}:\n{sampling.sample(model, data, own, seed, options.prompt or '')}")
                    paths += plan.picture(model, data, folder) if plan.picture and options.pictures else []
    except (Stopped, KeyboardInterrupt) as stop:
        _tell_how_to_go_on(isinstance(stop, Stopped), bool(found))
        raise SystemExit(130) from None
    print(summary.table(plan, [r.row for r in found], s, data.corpus.family))
    if plan.overview and options.pictures:
        paths += _board(plan, found, runs.board_folder(plan, s, data.corpus.family, arms, options.seeds))
    elif options.pictures:
        paths += summary.curves(plan, found)
    if options.measure or (plan.measure and options.log and options.pictures and s == plan.defaults):
        paths += _measured(plan, options, presence)
    for path in paths:
        print(f"picture     {path}")
    print(f"checkpoint  {folder}")
    print(f"results     {results.results_path() if options.log else 'not logged'}")


def _tell_how_to_go_on(saved: bool, some_finished: bool) -> None:
    """After Ctrl-C in a step, whose state was saved, or anywhere else: what is kept, and the command that goes on from there."""
    again = shlex.join([*(a for a in sys.argv if a != "--resume"), "--resume"])
    if saved:
        print(f"\nstopped, state saved; go on with: python {again}", file=sys.stderr)
    elif some_finished:
        print(f"\nstopped; the runs that are finished are kept; go on with: python {again}", file=sys.stderr)
    else:
        print("\nstopped outside of training: this run saved nothing new; the same command begins again", file=sys.stderr)


MANY_TIMES = 100  # a text that is seen as often is learned by heart


def _warn_of_a_short_text(s: Settings, data: Data) -> None:
    """Say before training that a text is so short that the run will mostly learn it by heart."""
    seen = s.steps * s.batch_size * data.predicted / len(data.train)
    if seen >= MANY_TIMES and not s.seconds:
        print(
            f"note: {data.corpus.name} has {len(data.train):,} training tokens, and {s.steps} steps see each about {seen:,.0f} times: "
            "expect it to be learned by heart; a longer text or fewer --steps would show more",
            flush=True,
        )


def _board(plan: Plan, found: list[Result], folder: Path) -> list[Path]:
    """The pictures of all runs together. What they cannot show, a fit that finds nothing for one, does not lose the rest of the output."""
    try:
        return plan.overview(found, folder)
    except RuntimeError as error:
        print(f"the pictures could not be drawn: {error}")
        return []


def _measured(plan: Plan, options: Options, presence: Presence) -> list[Path]:
    """The pictures of what a script measures besides training: once for each state of its code, or when asked to."""
    folder = runs.measured_folder(plan)
    known = sorted(folder.glob("*.png"))
    if known and not options.measure:
        print("speed and memory were measured before (--measure does it again)")
        return known
    if presence.others() and not options.quick:
        print("speed and memory are not measured while another run of the course is going on; afterwards: --resume --measure")
        return []
    print("measuring speed and memory ...", flush=True)
    if options.quick:  # beside what is kept
        folder = folder.with_name("measured-quick")
    paths = plan.measure(folder, options.quick)
    if options.log:
        extra.append(extra.measured(plan.experiment, folder))
    return paths


def _run_one(
    plan: Plan, arm: str, seed: int, s: Settings, options: Options, data: Data, presence: Presence, number: str = ""
) -> tuple[dict, nn.Module | None, Path]:
    """Train one arm with one seed, measure it, and append its row. Returns the row, the model (None if it diverged) and its folder."""
    reading = Reading(s)
    model, further = lesson.build_model(plan.arms[arm], reading, data.tokenizer.vocab_size, seed, data.device), {}
    config = plan.config(arm, s, data.corpus.family)
    state = _beginning(plan, arm, seed, s, data, config)
    folder = runs.run_folder(plan.experiment, arm, seed, config, state["code_hash"])
    if options.resume and not (folder / checkpoint.NAME).exists():
        others = runs.others(plan, arm, seed, s)
        print(f"no checkpoint with these settings and this code to go on from{others}; begins at step 0", flush=True)
    resume = options.resume
    if plan.overview and resume:
        row, resume = _finished_cell(state, s, options.log, folder)
        if row and (row["diverged"] or not extra.unscored(plan, arm, seed, config)):
            return row, None, folder
    if s.init_from:
        _start_from(_initial(s, seed), model)
    if plan.describe and seed == options.seeds[0]:
        print(plan.describe(model, s), flush=True)
    name = plan.experiment if arm == "default" else f"{plan.experiment}:{arm}"
    state["threads"] = threads.settle(name, model, data, s.steps, options.threads, folder / checkpoint.NAME if options.resume else None)
    presence.begin()
    journal = Journal(folder, data, s.steps, state, resume, f"{number}{name} seed {seed}", plan.probe, s.seconds)
    with journal.held():
        try:
            start = time.perf_counter()
            plan.train(model, data.with_seed(seed), s, journal)
            journal.finish(model, time.perf_counter() - start)
            scores = record.measure(model, data, options.quick)
            further = plan.scores(model, data, s) if plan.scores else {}
            journal.keep_scores(scores, further)
        except Diverged as why:
            print(f"{name} seed {seed} diverged ({why}); the row says so, the last good checkpoint is kept")
            scores = None
        alone = presence.alone()
    if journal.stop:
        raise Stopped
    row = record.row(plan, arm, seed, s, data, reading.names, model, journal, scores) | {"alone": alone}
    if options.log:
        _log(plan, row, further, options.resume)
    return row, model if scores else None, folder


def _beginning(plan: Plan, arm: str, seed: int, s: Settings, data: Data, config: str) -> dict:
    """What a checkpoint says of its run from the beginning."""
    return {
        "experiment": plan.experiment, "arm": arm, "seed": seed, "settings": dataclasses.asdict(s), "tokenizer": data.tokenizer.state(),
        "corpus": data.corpus.name, "config_hash": config, "code_hash": plan.code(arm),
    }  # fmt: skip


def _log(plan: Plan, row: dict, further: dict[str, float], resumed: bool) -> None:
    """Append the row of a run, and what its script scored besides, unless they are there already."""
    if not (resumed and results.logged(row)):
        results.append(row)
    run = row["arm"], row["seed"], row["config_hash"]
    if further and not extra.of_run(plan, *run):
        extra.append(extra.lines(plan, *run, further))


def _finished_cell(state: dict, s: Settings, log: bool, folder: Path) -> tuple[dict | None, bool]:
    """The row of a cell that is finished; for one that is not, whether its checkpoint can be gone on from or is outdated."""
    path = folder / checkpoint.NAME
    saved = checkpoint.load(path).state if path.exists() else {}
    good = receipts.codes(*(state[key] for key in ("experiment", "arm", "config_hash", "code_hash")))
    if saved.get("code_hash") not in good or any(saved.get(key) != state[key] for key in ("config_hash", "corpus", "seed")):
        return None, False
    row = results.logged(state) if log else None
    return row if row and (row["diverged"] or finished(saved, s.steps, s.seconds)) else None, True


# ---- the other things a script can do --------------------------------------------------------------------------------


def _generate(plan: Plan, arms: list[str], s: Settings, options: Options, device: str) -> None:
    for arm in arms:
        for seed in options.seeds:
            folder = runs.find_run(plan, arm, seed, s)
            run = runs.load_run(folder, device)
            print(f"{folder} ({runs.progress(run.state)}):\n{run.sample(options.prompt or '', seed=int(time.time()))}")
