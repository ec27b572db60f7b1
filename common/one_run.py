"""One run of a script: an arm with a seed. Build, train, score, and append its row."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from common import lessons, results
from common.configuration import Reading
from common.data import Data
from common.errors import UserError
from common.lessons import receipts, run_folder
from common.lessons.plan import Plan
from common.parsing import flag
from common.report.summary import Result
from common.results import extra
from common.results.row import make_row, measure
from common.settings import Options, Settings
from common.training import checkpoint, distributed, memory, sharded, threads, tracking
from common.training.distributed import ALONE, Group
from common.training.metrics import Score, score
from common.training.presence import Presence
from common.training.recorder import Diverged, Recorder, Stopped, finished


@dataclass(frozen=True)
class Cell:
    """One run to do: an arm with a seed, its settings, and the data that it learns from."""

    plan: Plan
    arm: str
    seed: int
    settings: Settings
    data: Data
    number: str = ""
    """Which of several, for the terminal: `[2/6] `; empty for a single one."""
    sweep: bool = False
    """Whether it is one of a sweep: scored on the validation text alone."""
    loading: float = 0.0
    """Seconds that its data took, with learning a vocabulary and encoding."""

    @property
    def name(self) -> str:
        return self.plan.name(self.arm)

    @cached_property
    def state(self) -> dict:
        """What a checkpoint says of its run from the beginning."""
        return {
            "experiment": self.plan.experiment, "arm": self.arm, "seed": self.seed,
            "settings": dataclasses.asdict(self.settings),
            "tokenizer": self.data.tokenizer.state(), "corpus": self.data.corpus.name,
            "config_hash": self.plan.config(self.arm, self.settings, self.data.corpus.family),
            "code_hash": self.plan.code(self.arm), "loading": self.loading,
        }  # fmt: skip

    @property
    def codes(self) -> frozenset[str]:
        """The codes that are as good as the present one."""
        return receipts.codes(*(self.state[key] for key in ("experiment", "arm", "config_hash", "code_hash")))

    @property
    def folder(self) -> Path:
        return run_folder.run_folder(
            *(self.state[key] for key in ("experiment", "arm", "seed", "config_hash", "code_hash"))
        )


def run_one(
    cell: Cell, options: Options, presence: Presence, group: Group = ALONE
) -> tuple[Result, nn.Module | None]:
    """Train one arm with one seed, alone or as one process of a group, measure it, and append its row.

    Returns the result, and the model (None if it diverged).
    """
    plan, s, data, path = cell.plan, cell.settings, cell.data, cell.folder / checkpoint.NAME
    reading, resume = Reading(s), options.resume
    model = lessons.build_model(
        plan.arms[cell.arm], reading, data.tokenizer.vocab_size, cell.seed, data.device
    )
    if resume:
        _look_for_checkpoint(cell, group)
    if resume and plan.overview:
        result, resume = _finished(cell, options.log)
        if result:
            return result, None
    if s.init_from:
        _start_from(initial(s.init_from, cell.seed), model)
    if plan.describe and cell.seed == options.seeds[0]:
        print(plan.describe(model, s), flush=True)
    kept = path if options.resume else None
    given = options.threads or (threads.share() if group.joined else None)
    chosen = threads.settle(cell.name, model, data, s.steps, given, kept)
    presence.begin()
    recorder = _recorder(cell, cell.state | {"threads": chosen}, resume, options.trackio)
    recorder.group = group
    with recorder.held(), memory.shortage_told(cell.name), group.loss_of_one_told():
        scores, further = _train_and_score(cell, model, recorder, options.quick)
        alone = presence.alone()
    if recorder.stop:
        raise Stopped
    row = make_row(plan, cell.arm, cell.seed, s, data, reading.names, model, recorder, scores)
    row["alone"] = alone
    if options.log:
        _log(plan, row, further, options.resume)
    return Result.of(row, recorder.state), model if scores else None


def _look_for_checkpoint(cell: Cell, group: Group) -> None:
    """Put together what several processes left in parts, and say if there is nothing to go on from.

    A checkpoint that cannot be read is put aside, so that it keeps no other run from going on.
    """
    path = cell.folder / checkpoint.NAME
    if group.leads:
        sharded.put_together(cell.folder)
        if path.exists() and not checkpoint.whole_state(path):
            aside = path.replace(path.with_name(f"{path.name}.broken"))
            print(f"{path} is not a whole checkpoint of this course; put aside as {aside.name}", flush=True)
    group.barrier()
    if not path.exists():
        others = run_folder.others(cell.plan, cell.arm, cell.seed, cell.settings)
        said = f"no checkpoint with these settings and this code to go on from{others}"
        print(f"{said}; begins at step 0", flush=True)


def _recorder(cell: Cell, state: dict, resume: bool, dashboard: bool) -> Recorder:
    """What keeps the record of a run.

    state: what its checkpoint says from the beginning. resume: it goes on from its checkpoint. dashboard: its
    numbers are shown there too.
    """
    label = f"{cell.number}{cell.name} seed {cell.seed}"
    recorder = Recorder(cell.folder, cell.data, cell.settings, state, label, cell.plan.probe)
    if resume:
        recorder.go_on_from(cell.codes)
    if dashboard:
        recorder.dashboard = tracking.begin(cell.folder, state)
    return recorder


def _train_and_score(
    cell: Cell, model: nn.Module, recorder: Recorder, quick: bool
) -> tuple[dict | None, dict[str, float]]:
    """Train a model. Returns its scores, None where it diverged, and those of its script."""
    plan, s, data = cell.plan, cell.settings, cell.data
    try:
        start = time.perf_counter()
        plan.train(model, data.with_seed(cell.seed), s, recorder)
        recorder.finish(model, time.perf_counter() - start)
        scores = _validated(model, data) if cell.sweep else measure(model, data, quick)
        further = plan.scores(model, data, s) if plan.scores and not cell.sweep else {}
        recorder.keep_scores(scores, further)
        return scores, further
    except Diverged as why:
        said = f"{cell.name} seed {cell.seed} diverged ({why}); the row says so"
        print(f"{said}, the last good checkpoint is kept")
        recorder.put_together()
        return None, {}


def _validated(model: nn.Module, data: Data) -> dict[str, Score]:
    """The score on the validation text. Raises Diverged if not finite."""
    found = score(model, data.validation, data.device)
    if not math.isfinite(found.loss):
        raise Diverged("the validation loss is not finite")
    return {"validation": found}


def _log(plan: Plan, row: dict, further: dict[str, float], resumed: bool) -> None:
    """Append the row of a run, and what its script scored besides, unless they are there already."""
    if not (resumed and results.logged(row)):
        results.append(row)
    run = row["arm"], row["seed"], row["config_hash"]
    if further and not extra.of_run(plan, *run):
        extra.append(extra.lines(plan, *run, further))


def _finished(cell: Cell, log: bool) -> tuple[Result | None, bool]:
    """The result of a cell that is finished; for one that is not, whether its checkpoint can be gone on from
    or is outdated.
    """
    path, s = cell.folder / checkpoint.NAME, cell.settings
    saved = checkpoint.whole_state(path)
    same = all(saved.get(key) == cell.state[key] for key in ("config_hash", "corpus", "seed"))
    if not same or saved.get("code_hash") not in cell.codes:
        return None, False
    row = results.logged(cell.state) if log else None
    if not row or not (row["diverged"] or finished(saved, s.steps, s.seconds)):
        return None, True
    if not row["diverged"] and extra.unscored(cell.plan, cell.arm, cell.seed, cell.state["config_hash"]):
        return None, True
    return Result.of(row, saved), True


@contextlib.contextmanager
def together(
    plan: Plan, arms: list[str], s: Settings, options: Options, device: str
) -> Iterator[tuple[Group, Options]]:
    """The processes that torchrun started, all with the same command, and what this one is to do; the first
    alone logs and draws.
    """
    group = distributed.join(device, options.parallel == "fsdp")
    if group.joined:
        own = {flag(name): value for name, value in vars(s).items()}
        own |= {flag(name): value for name, value in vars(options).items() if name != "threads"}
        group.agree(own | {"code": [plan.code(arm) for arm in arms], "torch": torch.__version__})
        group.check(s.batch_size * getattr(s, "accumulate", 1))
    if not group.leads:
        options = dataclasses.replace(options, log=False, pictures=False, trackio=False)
    yield group, options
    group.leave()


# ---- starting from the weights of another run ----------------------------------------------------


def initial(init_from: str, seed: int) -> Path:
    """The checkpoint that --init-from names: a run folder, or the finished run of an experiment with the same
    seed.
    """
    if (Path(init_from) / checkpoint.NAME).exists():
        return Path(init_from) / checkpoint.NAME
    reference = lessons.refer(init_from)
    path = (
        run_folder.find_run(
            lessons.course_plan(reference.experiment), reference.arm, seed, reference.settings()
        )
        / checkpoint.NAME
    )
    state = checkpoint.read_state(path)
    if state["code_hash"] not in receipts.codes(
        reference.experiment, reference.arm, reference.config(), reference.code
    ):
        raise UserError(
            f"--init-from {init_from}: {path.parent} was trained by another version of "
            f"{reference.experiment}.py; train again"
        )
    if not finished(state, state["settings"]["steps"], state["settings"]["seconds"]):
        raise UserError(
            f"--init-from {init_from}: {path.parent} {run_folder.progress(state)}; go on with it first: "
            f"python {reference.experiment}.py --seeds {seed} --resume"
        )
    return path


def _start_from(path: Path, model: nn.Module) -> None:
    """Give the model the weights of an earlier run."""
    start = checkpoint.load(path)
    checkpoint.restore_model(start, model)
    print(f"starts from {path.parent} ({run_folder.progress(start.state)})")
