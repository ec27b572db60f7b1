"""Several processes that train one model together, each on a device of its own; `torchrun` starts them.

Each computes a share of the windows of a step, their gradients are averaged, and all make the same step. Two
ways to share the work. With DDP (Li et al. 2020, arXiv:2006.15704) each process has the whole model, its
gradients and its moments. With FSDP2 (Zhao et al. 2023, arXiv:2304.11277; torch's `fully_shard`) each keeps a
part of every tensor, and a block is put together just before it computes: a model may be larger than one
device. Which windows a step has, and what they are divided by, is the same in either, and in one process.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.errors import LostError, OwnError, UserError

TOGETHER = timedelta(seconds=50)  # in which all processes have to come
# a process may wait for another: one writes a checkpoint, draws, or is still compiling
PATIENCE = timedelta(minutes=10)
LOST = re.compile(
    r"connection (closed|reset|refused)( by( remote)? peer)?|broken pipe|timed? ?out|nccl|gloo|socket", re.I
)


@dataclass(frozen=True)
class Group:
    """The processes of a run: this one has number `rank` of `size`. One process alone is a group too."""

    rank: int = 0
    size: int = 1
    joined: bool = False
    """Whether torchrun started it, be it alone."""
    sharded: bool = False
    """FSDP2, or else DDP."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that tells, logs and writes."""
        return self.rank == 0

    # ---- in a step -------------------------------------------------------------------------------

    def share(self, model: nn.Module) -> nn.Module:
        """What to call instead of `model` (a GPT of common.model), whose parts this process now computes or
        keeps.

        Every process has built the same model from the same seed, so nothing has to be sent.
        """
        if not self.joined:
            return model
        if self.rank:  # dropout is another one in each
            torch.manual_seed(torch.initial_seed() + self.rank)
        if not self.sharded:
            # of experts some may get no token, and then have no gradient to wait for
            experts = any(hasattr(part, "auxiliary_loss") for part in model.modules())
            return DistributedDataParallel(
                model, gradient_as_bucket_view=True, find_unused_parameters=experts
            )
        from torch.distributed.fsdp import fully_shard

        for block in model.get_submodule("blocks").children():
            fully_shard(block)
        fully_shard(model)
        return model

    def own(self, windows: np.ndarray) -> np.ndarray:
        """The share of this process in the windows (N,) of a step, (N / size,)."""
        return np.split(windows, self.size)[self.rank]

    def sync(self, shared: nn.Module, now: bool) -> None:
        """Whether the next backward pass averages the gradients over all processes, or only adds to those of
        this one: the last batch of a step sends for all before it.
        """
        if isinstance(shared, DistributedDataParallel):
            shared.require_backward_grad_sync = now
        elif self.joined:
            shared.set_requires_gradient_sync(now)  # type: ignore[operator]

    def mean(self, x: Tensor) -> Tensor:
        """The mean over all processes, which may change `x` on the way. Any shape -> the same"""
        if self.joined:
            dist.all_reduce(x)
        return x / self.size

    # ---- around the steps ------------------------------------------------------------------------

    def max(self, *numbers: float) -> list[float]:
        """Each number where it is largest."""
        if not self.joined:
            return list(numbers)
        x = torch.tensor(numbers, dtype=torch.float64, device=_device())
        dist.all_reduce(x, dist.ReduceOp.MAX)
        return x.tolist()

    def gather(self, thing) -> list:
        """What each process has, by rank."""
        if not self.joined:
            return [thing]
        things: list = [None] * self.size
        dist.all_gather_object(things, thing)
        return things

    def barrier(self) -> None:
        """Wait until all are here."""
        if self.joined:
            dist.barrier()

    def leave(self) -> None:
        """The end of the work in common."""
        if self.joined:
            dist.destroy_process_group()

    def check(self, windows: int) -> None:
        """Raise UserError where the windows of a step cannot be dealt out evenly."""
        if windows % self.size:
            raise UserError(
                f"a step of {windows} windows cannot be dealt out evenly to {self.size} processes; let "
                f"--batch-size times --accumulate be a multiple of {self.size}"
            )

    def agree(self, what: dict) -> None:
        """Raise UserError where another process was started with other values."""
        for rank, other in enumerate(self.gather(what)):
            for name in sorted(what.keys() | other.keys()):
                if other.get(name) != what.get(name):
                    raise OwnError(
                        f"process {self.rank} has {name} {what.get(name)} and process {rank} "
                        f"{other.get(name)}; start all with the same command, configuration and code"
                    )

    @contextlib.contextmanager
    def loss_of_one_told(self) -> Iterator[None]:
        """Raise UserError when within it another process is no longer there."""
        try:
            yield
        except RuntimeError as error:  # so the libraries below tell it
            if not self.joined or not (isinstance(error, dist.DistError) or LOST.search(str(error))):
                raise
            raise LostError(
                f"process {self.rank} of {self.size} ends, since another is no longer there "
                f"({_said(error)}); start all again with --resume"
            ) from None


ALONE = Group()


def started_by_torchrun() -> bool:
    """Whether torchrun, or whatever sets the same variables, started this process."""
    return "RANK" in os.environ


def join(device: str, sharded: bool) -> Group:
    """The group of this process: alone, unless torchrun (or whatever sets the same variables) started it.

    Raises UserError where the others do not come, or where this machine has too few GPUs.
    """
    if not started_by_torchrun():
        if sharded:
            raise UserError(
                "--parallel fsdp does nothing in one process; start it with torchrun, or leave it out"
            )
        return Group()
    try:
        rank, size, local = (int(os.environ.get(name, "")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except ValueError:
        raise UserError(
            "RANK is set, but not each of WORLD_SIZE, LOCAL_RANK is a number; start with torchrun, or unset "
            "RANK"
        ) from None
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local} of this machine has no GPU of its own, there are "
                f"{torch.cuda.device_count()}; use a smaller --nproc-per-node"
            )
        torch.cuda.set_device(local)
    if rank:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=TOGETHER))
        store.set_timeout(PATIENCE)
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = re.split(r"[.\n] ?", str(error))[0]
        raise UserError(
            f"process {rank} of {size} did not find the others in {TOGETHER.seconds} seconds "
            f"({reason}); start all, with one MASTER_ADDR and MASTER_PORT"
        ) from None
    return Group(rank, size, True, sharded)


def _said(error: Exception) -> str:
    """What the libraries below say, without where in their code."""
    said = LOST.search(str(error))
    return said[0].lower() if said else type(error).__name__


def _device() -> str:
    """Where the processes of a group exchange numbers."""
    return "cuda" if torch.cuda.is_available() and "nccl" in dist.get_backend() else "cpu"


# ---- tensors of which each process keeps a part --------------------------------------------------


def whole(x: Tensor) -> Tensor:
    """All of a tensor; where each process keeps a part of it, the parts are sent around."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def part_of(x: Tensor, like: Tensor) -> Tensor:
    """Of a tensor that every process has whole: the part that this one keeps of `like`, if only a part."""
    if not hasattr(like, "placements"):
        return x
    from torch.distributed.tensor import DTensor, Replicate  # takes long to import, and few need it

    assert isinstance(like, DTensor)
    everywhere = [Replicate()] * like.device_mesh.ndim
    x = DTensor.from_local(x.to(like.device), like.device_mesh, everywhere, run_check=False)
    return x.redistribute(placements=like.placements)


def local(x: Tensor) -> Tensor:
    """What this process keeps of a tensor."""
    return x.to_local() if hasattr(x, "to_local") else x
