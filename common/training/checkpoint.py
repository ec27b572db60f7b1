"""Checkpoints: one safetensors file with every tensor and, in its header, everything else as JSON. Never
pickle.

A checkpoint is written beside the old one and put in its place in a single step: a killed process leaves the
old one or the new one.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from common.data.tokenizer import from_state
from common.errors import UserError
from common.training.distributed import part_of

NAME = "checkpoint.safetensors"


@dataclass
class Checkpoint:
    tensors: dict[str, Tensor]
    state: dict


def tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, random: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Everything that a run goes on from: weights, the optimiser's moments, the random state.

    random: of each process that works on the run (`random_state`).
    """
    kept = {f"model.{k}": v for k, v in model.state_dict().items()}
    for rank, states in enumerate(random):
        kept |= {f"random.{k}{f'.{rank}' if rank else ''}": v for k, v in states.items()}
    if optimizer:
        for index, moments in optimizer.state_dict()["state"].items():
            kept |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
    return kept


def random_state() -> dict[str, Tensor]:
    """The random state of this process, by device."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def write(path: Path, tensors: dict[str, Tensor], state: dict) -> None:
    """Write `path` atomically: tensors, and `state` as JSON. Raises OSError if it cannot."""
    part = path.with_suffix(".part")
    try:
        save_file(
            {k: v.contiguous().clone() for k, v in tensors.items()},
            part,
            metadata={"state": json.dumps(state)},
        )
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# what the checkpoint of a run says of it
SAYS: dict[str, type | tuple[type, ...]] = {
    "experiment": str, "arm": str, "seed": int, "corpus": str, "config_hash": str, "code_hash": str,
    "settings": dict, "tokenizer": dict, "step": int, "seconds": (int, float), "curve": list,
}  # fmt: skip


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises UserError if there is none, or if it is truncated or not one of ours."""
    with _opened(path) as file:
        return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, _state(file))  # noqa: SIM118


def read_state(path: Path) -> dict:
    """What a checkpoint says of its run, without its tensors. Raises as `load`."""
    with _opened(path) as file:
        return _state(file)


def whole_state(path: Path) -> dict:
    """The same; empty where there is no checkpoint, or none that can be read."""
    try:
        return read_state(path)
    except UserError:
        return {}


@contextlib.contextmanager
def _opened(path: Path):
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}; train first") from None
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{path} is not a whole checkpoint of this course ({error or type(error).__name__}); remove it "
            "and train again"
        ) from None


def _state(file) -> dict:
    state = json.loads((file.metadata() or {})["state"])
    state["experiment"], state["step"]  # without these it is not one of ours
    for name, kind in SAYS.items():
        if name in state and not isinstance(state[name], kind):
            raise ValueError(f"{name} is {state[name]!r:.20}")
    return state


def restore_model(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Put the saved weights into `model`. Raises UserError when they are those of another model."""
    weights = {k.removeprefix("model."): v for k, v in checkpoint.tensors.items() if k.startswith("model.")}
    for name, buffer in model.named_buffers():
        if (
            not buffer.numel() and name in weights
        ):  # sized by the text it was counted on, as the tables of n-grams
            buffer.resize_(weights[name].shape)
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    saved = {k: v.shape for k, v in weights.items()}
    if shapes != saved:
        name = sorted(k for k in shapes.keys() | saved.keys() if shapes.get(k) != saved.get(k))[0]
        raise UserError(
            f"the checkpoint is of another model: {name} is {_shape(saved, name)} there and "
            f"{_shape(shapes, name)} here; "
            "use the settings it was trained with"
        )
    now = model.state_dict()
    model.load_state_dict({name: part_of(x, now[name]) for name, x in weights.items()})


def _shape(shapes: dict, name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "absent"


def restore_training(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer | None, rank: int = 0
) -> None:
    """Weights, moments and random state as they were: the run goes on as if it had never stopped.

    rank: of this process. One that was not there when the checkpoint was written keeps its random state.
    """
    restore_model(checkpoint, model)
    if optimizer:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in checkpoint.tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                p = parameters[int(index)]
                own = part_of(tensor, p) if tensor.shape == p.shape else tensor
                moments.setdefault(int(index), {})[key] = own
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    of_this = f".{rank}" if rank else ""
    if f"random.cpu{of_this}" in checkpoint.tensors:
        torch.set_rng_state(checkpoint.tensors[f"random.cpu{of_this}"])
    if f"random.cuda{of_this}" in checkpoint.tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(checkpoint.tensors[f"random.cuda{of_this}"])


def tokenizer_of(path: Path):
    """The tokenizer that the model of a checkpoint was trained with."""
    return from_state(load(path).state["tokenizer"])
