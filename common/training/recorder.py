"""What happens around the steps of a run: progress, validation, checkpoints, an orderly stop, and the end of
a run that diverged.
"""

import contextlib
import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm

from common.data import Data
from common.errors import UserError
from common.settings import Settings
from common.training import checkpoint, sharded
from common.training.distributed import Group, local
from common.training.metrics import score

# in a log file, one line in ten seconds
PACE = {"mininterval": 0.1 if sys.stderr.isatty() else 10.0, "delay": 0.3}
EVALUATIONS = 15  # points of a learning curve at most; a checkpoint is saved at each
# tokens of the validation text that such a point looks at; the result of a run is measured on the whole
VALIDATED = 65_536


class Diverged(Exception):
    """The loss or a weight is no longer a finite number."""


class Stopped(Exception):
    """Ctrl-C: the state is saved."""


def finished(state: dict, steps: int, seconds: float) -> bool:
    """Whether a run of so many steps, or of so many seconds where these are not 0, has come to its end."""
    return state["seconds"] >= seconds if seconds else state["step"] >= steps


class Recorder:
    """Keeps the record of one run (one arm, one seed) in its folder: of so many steps, or of so many seconds
    of training.

    `steps()` yields the numbers of the steps still to do; `record(loss)` ends each. The clock runs during
    steps only: neither validation nor saving counts as training time. `state` is what the checkpoint says of
    the run, from the beginning.
    """

    def __init__(self, folder: Path, data: Data, s: Settings, state: dict, label: str, probe=None):
        self.folder, self.data, self.label, self.probe = folder, data, label, probe
        self.total, self.limit = s.steps, s.seconds
        self.state = state | {"step": 0, "seconds": 0.0, "curve": [], "probes": []}
        self.state |= {"loss_sum": 0.0, "loss_count": 0}
        self.model: nn.Module
        self.optimizer: torch.optim.Optimizer | None = None
        self.codes: frozenset[str] | None = None
        self.dashboard: Any = None
        """Where the numbers of a step are shown too, for a loop that logs them."""
        self.group = Group()
        """The processes that train the model together."""
        self.stop, self.looped, self.loss = False, False, math.nan
        trained = s.steps * data.batch_size * data.predicted
        # to watch a short run must not cost more than the run
        looks_at = min(len(data.validation), VALIDATED, max(4096, trained // 10))
        self.validation = (
            data.validation.head(looks_at) if looks_at < len(data.validation) else data.validation
        )
        self.every = max(1, math.ceil(s.steps / min(EVALUATIONS, max(3, trained // looks_at))))

    def go_on_from(self, codes: Iterable[str]) -> None:
        """Go on from the checkpoint of the folder, where there is one, if one of these codes wrote it."""
        self.codes = frozenset(codes)

    @property
    def path(self) -> Path:
        return self.folder / checkpoint.NAME

    @property
    def finished(self) -> bool:
        return finished(self.state, self.total, self.limit)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's folder: a second run with the same settings is refused, and Ctrl-C, or SIGTERM, is
        kept until the end of a step.
        """
        lock = filelock.FileLock(self.folder / "lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.group.leads:
                lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(
                f"another process is training this run ({self.folder}); wait for it or stop it"
            ) from None
        except OSError as error:
            raise UserError(
                f"checkpoints cannot be written to {self.folder} ({error.strerror}); set "
                "GPT_STAIRCASE_LOGS to another folder"
            ) from None
        catches = threading.current_thread() is threading.main_thread()
        kept = (signal.SIGINT, signal.SIGTERM) if catches else ()
        previous = {number: signal.signal(number, self._interrupt) for number in kept}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            lock.release()

    def _interrupt(self, *_) -> None:
        if self.stop and not self.group.joined:  # the second Ctrl-C does not wait; torchrun passes on a first
            raise KeyboardInterrupt
        self.stop = True

    def steps(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[int]:
        """The numbers of the steps to do, with live loss and time left on the terminal."""
        self.model, self.optimizer, self.looped = model, optimizer, True
        if self.codes is not None and self.path.exists():
            self._restore()
        else:
            if self.group.leads:
                self.path.unlink(missing_ok=True)
                sharded.remove(self.folder)
            self._evaluate()
        with tqdm(
            total=None if self.limit else self.total, initial=self.state["step"], desc=self.label,
            unit="step", dynamic_ncols=True,
            leave=False, disable=not self.group.leads, **PACE,
        ) as self.bar:  # fmt: skip
            while not self.finished:
                start = time.perf_counter()
                yield self.state["step"]
                self.state["seconds"] += time.perf_counter() - start
                self._after(self.state["step"] + 1)

    def finish(self, model: nn.Module, seconds: float) -> None:
        """End a run that took no steps, as counting does: its time is `seconds`, its checkpoint the finished
        model.
        """
        if not self.looped:
            self.model, self.optimizer = model, None
            self.state |= {"step": self.total, "seconds": seconds}
            self._save()

    def keep_scores(self, scores: dict, further: dict[str, float]) -> None:
        """Save what the finished model scored with it, so that whoever uses the checkpoint tells its scores
        and no other run's.

        further: the script's own scores, by name.
        """
        self.state["further"] = further
        self.state["scores"] = {
            split: {"loss": score.loss, "bpc": score.bpc} for split, score in scores.items()
        }
        self._save()
        self.put_together()

    def record(self, loss: Tensor) -> None:
        """Take the loss of the step that ends here. Raises Diverged when it is not finite."""
        self.loss = loss.item()
        if not math.isfinite(self.loss):
            raise Diverged(f"loss {self.loss} at step {self.state['step']}")
        self.state["loss_sum"] += self.loss
        self.state["loss_count"] += 1

    def _after(self, done: int) -> None:
        self.state["step"] = done
        # all go on to the same step, and by one clock
        self.state["seconds"], stop = self.group.max(self.state["seconds"], self.stop)
        self.stop = bool(stop)
        self.bar.update()
        if done % 10 == 0:
            clock = f", {self.state['seconds']:.0f} of {self.limit:g} s" if self.limit else ""
            self.bar.set_postfix_str(f"loss {self.loss:.3f}{clock}", refresh=False)
        due = (
            self.state["seconds"] * EVALUATIONS > self.limit * len(self.state["curve"])
            if self.limit
            else done % self.every == 0
        )
        if due or self.finished:
            self._evaluate()
            self._save()
        if self.stop:
            self._save()
            self.put_together()
            raise Stopped

    def _evaluate(self) -> None:
        """A point of the learning curve: step, mean training loss since the last point, validation loss and
        bits per character.
        """
        s = self.state
        train_loss = s["loss_sum"] / s["loss_count"] if s["loss_count"] else None
        now = score(self.model, self.validation, self.data.device)
        if not math.isfinite(now.loss):
            raise Diverged(f"validation loss {now.loss} at step {s['step']}")
        if self.probe:
            s["probes"].append([s["step"], self._probe()])
        s["curve"].append([s["step"], train_loss, now.loss, now.bpc])
        s["loss_sum"], s["loss_count"] = 0.0, 0

    def _probe(self) -> dict[str, list[float]]:
        """Ask the script's probe about the first batch, without a trace in gradients or random state."""
        with torch.random.fork_rng():
            probe = self.probe(self.model, *self.data.batch(0))
        self.model.zero_grad()
        return probe

    def _save(self) -> None:
        infinite = not all(local(p).isfinite().all() for p in self.model.parameters())
        if self.group.max(infinite) != [0]:
            raise Diverged(f"a weight is not finite at step {self.state['step']}")
        random = self.group.gather(checkpoint.random_state())
        tensors = checkpoint.tensors(self.model, self.optimizer, random)
        with self._writing():
            if self.group.sharded:
                sharded.save(self.folder, tensors, self.state, self.group)
            elif self.group.leads:
                checkpoint.write(self.path, tensors, self.state)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise UserError where a checkpoint cannot be written."""
        try:
            yield
        except (OSError, SafetensorError) as error:  # the library has one of its own, for a full disk too
            why = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise UserError(
                f"the checkpoint cannot be written to {self.folder} ({why}); the last good one is kept"
            ) from None

    def put_together(self) -> None:
        """Make one file of a checkpoint that several processes wrote in parts."""
        if self.group.leads:
            with self._writing():
                sharded.put_together(self.folder)
        self.group.barrier()

    def copy(self, path: Path) -> None:
        """Copy the last checkpoint to `path`, which is another one until the copy is whole."""
        if not self.group.leads:
            return
        with self._writing():
            if parts := sharded.newest(self.folder):
                sharded.to_file(parts, path)
            else:
                part = path.with_suffix(".part")
                shutil.copyfile(self.path, part)
                part.replace(path)

    def _restore(self) -> None:
        saved = checkpoint.load(self.path)
        for key, what in (
            ("config_hash", "settings"),
            ("code_hash", "code"),
            ("corpus", "corpus"),
            ("tokenizer", "vocabulary"),
            ("seed", "seed"),
        ):
            as_good = self.codes or [] if key == "code_hash" else [self.state[key]]
            if saved.state.get(key) not in as_good:
                raise UserError(
                    f"cannot resume {self.folder}: its {what} changed since; run once without --resume"
                )
        checkpoint.restore_training(saved, self.model, self.optimizer, self.group.rank)
        # threads may be given by hand
        self.state = saved.state | {key: self.state[key] for key in ("threads", "code_hash")}
