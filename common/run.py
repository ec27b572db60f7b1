"""`run()`: the one call at the end of a script.

Command line -> seeds x arms -> train -> measure -> results.
"""

import gc
import shlex
import sys
import time
from dataclasses import replace
from inspect import cleandoc
from pathlib import Path

import torch

from common import command_line, lessons, outcome, results
from common.command_line import parse
from common.data import Data
from common.data.tokenizer import UnreachableError
from common.errors import UserError, command
from common.generation.load import load_run
from common.lessons import run_folder
from common.lessons.fingerprint import asked
from common.lessons.overfit import overfit
from common.lessons.plan import Plan, plan_of
from common.one_run import Cell, initial, run_one, together
from common.report.summary import Result
from common.results import extra
from common.settings import Lesson, Options, Settings
from common.training import checkpoint, distributed, memory, threads
from common.training.distributed import Group
from common.training.presence import Presence
from common.training.recorder import Stopped


def run(lesson: Lesson) -> None:
    """Do what the command line asks for with the lesson of the script that runs, and append every result to
    the results file.
    """
    script = sys.modules["__main__"].__file__
    assert script, "run(lesson) is the last line of a script"
    _main(plan_of(Path(script).resolve(), lesson))


@command
def _main(plan: Plan) -> None:
    command_line.check_clone(plan.script, lessons.ROOT)
    # what was imported stays: without this, searching it for garbage takes a tenth of the time to the first
    # step
    gc.freeze()
    description = f"{plan.header.title}\n\nIdea: {plan.header.fields.get('Idea')}"
    if len(plan.arms) > 1:
        description += f"\n\nArms: {', '.join(plan.arms)}"
    if plan.arguments:
        description += f"\n\n{cleandoc(plan.arguments.__doc__ or '')}"
        sys.argv[1:] = plan.arguments(sys.argv[1:])
    changed, small = plan.small()
    hidden = plan.unused() if {"--help", "-h"} & set(sys.argv[1:]) else ()
    s, options = parse(plan.defaults, description, None, plan.presets, changed, plan.bare, hidden)
    arms = command_line.chosen_arms(plan, options, small if options.quick else plan.course_arms)
    device = command_line.device(plan, options.device)
    threads.check(options.threads)
    if options.threads:
        torch.set_num_threads(options.threads)
    for arm in arms:
        command_line.check_settings(plan, arm, s)
    _check_options(plan, options)
    if options.predict is not None:
        outcome.check_prediction(plan, arms, s, options.predict)
    prepare(device)
    if options.generate:
        _generate(plan, arms, s, options, device)
    elif options.check:
        overfit(plan, arms, s, lambda settings: _load_data(plan, settings, device, options))
    else:
        results.git_commit()
        with together(plan, arms, s, options, device) as (group, options), Presence(group.leads) as presence:
            if options.log:
                results.check_writable()
                extra.check_writable()
            _train(plan, arms, s, options, device, presence, group)


def _check_options(plan: Plan, options: Options) -> None:
    """Refuse what this script has no use for."""
    if options.trackio and "dashboard" not in asked(plan.train):
        raise UserError(
            f"--trackio does nothing in {plan.experiment}: its loop sends no numbers there; leave it out"
        )
    several = distributed.started_by_torchrun() or options.parallel == "fsdp"
    if several and "group" not in asked(plan.train):
        raise UserError(
            f"{plan.experiment} trains in one process; start it with python, without torchrun and --parallel"
        )
    if options.measure and not plan.measure:
        raise UserError(
            f"--measure does nothing in {plan.experiment}: it has nothing to measure besides training; "
            "leave it out"
        )


def prepare(device: str) -> None:
    """How torch works in every run."""
    if device == "cpu":  # some sums are taken in whatever order the threads arrive, unless told not to
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    memory.keep_freed()


def _load_data(plan: Plan, s: Settings, device: str, options: Options) -> Data:
    """The data, with the vocabulary of the run that `init_from` names.

    Raises UserError when it cannot say the prompt.
    """
    tokenizer = checkpoint.tokenizer_of(initial(s.init_from, options.seeds[0])) if s.init_from else None
    data = plan.load(s, device, tokenizer)
    if options.prompt is not None:
        data.tokenizer.encode(options.prompt)
    return data


# ---- training ------------------------------------------------------------------------------------


class Texts:
    """The data of one arm after the other, loaded anew only where an arm asks for other data."""

    def __init__(self, plan: Plan, device: str, options: Options):
        self.plan, self.device, self.options = plan, device, options
        self.asked: tuple | None = None
        self.data: Data
        self.seconds = 0.0
        """How long the last took, with learning a vocabulary and encoding."""

    def of(self, s: Settings) -> Data:
        """The data that these settings ask for."""
        asked = s.corpus, s.tokenizer, s.block_size, s.batch_size
        if asked != self.asked:
            start = time.perf_counter()
            self.data, self.asked = _load_data(self.plan, s, self.device, self.options), asked
            self.seconds = time.perf_counter() - start
        return self.data


def _train(
    plan: Plan, arms: list[str], s: Settings, options: Options, device: str, presence: Presence, group: Group
) -> None:
    """Train every arm with every seed, and show at the end what came of it."""
    most, total = torch.get_num_threads(), len(arms) * len(options.seeds)
    done: list[Result] = []
    texts, paths, cells = Texts(plan, device, options), [], []
    try:
        for arm in arms:
            resolved = plan.own(arm, s)
            try:
                data = texts.of(resolved)
            except UnreachableError as error:
                if arm == arms[-1] and not done:  # there is no other arm that could go on
                    raise
                print(f"{plan.experiment}:{arm} is left out: {error}")
                continue
            if data.corpus.resolved:  # not the text that was asked for
                resolved = replace(resolved, corpus=data.corpus.resolved)
            if plan.trains(arm):
                _warn_of_a_short_text(resolved, data)
                memory.check(plan.name(arm), plan.arms[arm], resolved, data, group)
            for seed in options.seeds:
                number = f"[{len(done) + 1}/{total}] " if total > 1 else ""
                cells.append(cell := Cell(plan, arm, seed, resolved, data, number, loading=texts.seconds))
                result, model = run_one(cell, options, presence, group)
                torch.set_num_threads(most)
                done.append(result)
                if model is not None and seed == options.seeds[0] and not plan.overview:  # a map has too many
                    paths += outcome.show(cell, model, result, options)
    except (Stopped, KeyboardInterrupt) as stop:
        if group.leads:
            _tell_how_to_go_on(isinstance(stop, Stopped), bool(done))
        raise SystemExit(130) from None
    paths += outcome.pictures(plan, arms, s, options, presence, done, data.corpus.family)
    for path in paths:
        print(f"picture     {path}")
    print(f"checkpoint  {cells[-1].folder}")
    print(f"results     {results.results_path() if options.log else 'not logged'}")


def _tell_how_to_go_on(saved: bool, some_finished: bool) -> None:
    """After Ctrl-C in a step, whose state was saved, or anywhere else: what is kept, and the command that
    goes on from there.
    """
    again = shlex.join([*(a for a in sys.argv if a != "--resume"), "--resume"])
    python = "torchrun ... " if distributed.started_by_torchrun() else "python "
    if saved:
        print(f"\nstopped, state saved; go on with: {python}{again}", file=sys.stderr)
    elif some_finished:
        print(f"\nstopped; the runs that are finished are kept; go on with: {python}{again}", file=sys.stderr)
    else:
        print(
            "\nstopped outside of training: this run saved nothing new; the same command begins again",
            file=sys.stderr,
        )


MANY_TIMES = 100  # a text that is seen as often is learned by heart


def _warn_of_a_short_text(s: Settings, data: Data) -> None:
    """Say before training that a text is so short that the run will mostly learn it by heart."""
    seen = s.steps * s.batch_size * data.predicted / len(data.train)
    if seen >= MANY_TIMES and not s.seconds:
        print(
            f"note: {data.corpus.name} has {len(data.train):,} training tokens, and {s.steps} steps see "
            f"each about {seen:,.0f} times: "
            "expect it to be learned by heart; a longer text or fewer --steps would show more",
            flush=True,
        )


# ---- the other things a script can do ------------------------------------------------------------


def _generate(plan: Plan, arms: list[str], s: Settings, options: Options, device: str) -> None:
    lacking: list[UserError] = []
    for arm, seed in [(arm, seed) for arm in arms for seed in options.seeds]:
        try:
            run = load_run(folder := run_folder.find_run(plan, arm, seed, s), device, plan)
            print(f"{folder} ({run_folder.progress(run.state)}):")
            print(run.sample(options.prompt or "", seed=int(time.time())))
        except UserError as error:  # the others are there for all that
            lacking.append(error)
    for other in lacking[:-1]:
        print(f"error: {other}", file=sys.stderr)
    if lacking:
        raise lacking[-1]
