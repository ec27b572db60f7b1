"""Checkpoints of a model of which each process keeps a part: every process writes its own, at the same time.

They lie in a folder beside the checkpoint of one file, in torch.distributed.checkpoint's form, and are put
together into that one file when a run ends, stops, or goes on: from there on it is a run like any other, and
may go on with any number of processes.
"""

import json
import os
import shutil
import warnings
from pathlib import Path

import torch
from torch import Tensor

from common.training import checkpoint
from common.training.distributed import Group

NAME, STATE = "sharded", "state.json"


def save(folder: Path, tensors: dict[str, Tensor], state: dict, group: Group) -> None:
    """Write the checkpoint of a step beside the last, which then goes. Called by every process.

    A folder counts only when it has its state, which comes last. Raises OSError if it cannot be written.
    """
    import torch.distributed.checkpoint as dcp  # takes long to import, and few need it
    from torch.distributed.checkpoint.api import CheckpointException

    new = folder / f"{NAME}-{state['step']}"
    if not (new / STATE).exists():  # else only what is said of the run can have changed
        if group.leads:
            shutil.rmtree(new, ignore_errors=True)
        group.barrier()
        try:
            dcp.save(tensors, checkpoint_id=new)
        except CheckpointException as error:
            raise OSError(next(iter(error.failures.values()))[0]) from None
    group.barrier()
    if group.leads:
        part = new / f"{STATE}.part"
        part.write_text(json.dumps(state), encoding="utf-8")
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(new / STATE)
        remove(folder, new)
    group.barrier()


def newest(folder: Path) -> Path | None:
    """The last whole checkpoint of this kind in a folder, if there is one."""
    found = [path.parent for path in folder.glob(f"{NAME}-*/{STATE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def put_together(folder: Path) -> None:
    """Make the one-file checkpoint of a run folder from a newer one in parts, if there is one. Called by one
    process.
    """
    if parts := newest(folder):
        to_file(parts, folder / checkpoint.NAME)
        remove(folder)


def to_file(parts: Path, path: Path) -> None:
    """Write the one-file form of a checkpoint in parts. Raises OSError if it cannot."""
    import torch.distributed.checkpoint as dcp

    shapes = dcp.FileSystemReader(parts).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(meta.size, dtype=meta.properties.dtype)  # type: ignore[union-attr]
        for name, meta in shapes.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that one process loads them
        dcp.load(tensors, checkpoint_id=parts, no_dist=True)
    checkpoint.write(path, tensors, json.loads((parts / STATE).read_text(encoding="utf-8")))


def remove(folder: Path, but: Path | None = None) -> None:
    """Remove the checkpoints in parts of a folder, but for one."""
    for path in folder.glob(f"{NAME}-*"):
        if path != but:
            shutil.rmtree(path, ignore_errors=True)
