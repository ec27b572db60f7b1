"""A solution at work: its source run as a module, and its models built small."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from common.exercises.catalogue import Exercise
from common.settings import NamesSettings, Settings

WIDTH, V = 24, 13  # no two of the sizes of a small model are the same number
SMALL = {"n_embd": WIDTH, "n_head": 4, "n_layer": 2, "block_size": 12, "batch_size": 3}


def execute(text: str, path: Path) -> ModuleType:
    """The module that this source makes; errors in it name `path`."""
    module = ModuleType("this file")  # as errors name it
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # a dataclass looks for its module
    try:
        exec(compile(text, str(path), "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]
    return module


def arms_of(module: ModuleType, exercise: Exercise) -> list[str]:
    """The arms whose models are compared."""
    return list(exercise.arms) or list(_models(module))[:1]


def _models(module: ModuleType) -> dict[str, Callable]:
    model = module.lesson.model
    return model if isinstance(model, dict) else {"default": model}


def small_settings(module: ModuleType, exercise: Exercise, arm: str) -> Settings:
    """The settings of an arm, with small sizes; names keep the length of their window."""
    s, kept = module.lesson.settings, getattr(_models(module)[arm], "settings", {})
    small = {name: size for name, size in SMALL.items() if not (one_target(s) and name == "block_size")}
    kept = {name: value for name, value in kept.items() if name not in SMALL}
    known = {field.name for field in dataclasses.fields(s)}
    kept = {name: value for name, value in kept.items() if name in known and name != "tokenizer"}
    return dataclasses.replace(s, **{"tokenizer": "char"} | kept | small | exercise.settings)


def build(
    module: ModuleType, exercise: Exercise, arm: str, seed: int = 1, **changed
) -> tuple[nn.Module, Settings]:
    """A small model of an arm, with weights from a seed, and its settings."""
    s = dataclasses.replace(small_settings(module, exercise, arm), **changed)
    torch.default_generator.manual_seed(seed)  # the CPU alone: torch.manual_seed asks for a stack trace too
    return _models(module)[arm](s, V), s


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and kept buffers by name; a parameter that two parts share comes once."""
    kept = model.state_dict()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return dict(model.named_parameters()) | buffers


def with_given_weights(model: nn.Module, given: dict[str, Tensor]) -> nn.Module:
    """The model in double precision, with these weights. Raises KeyError where it has others."""
    model = model.double()
    with torch.no_grad():
        for name, own in tensors(model).items():
            own.copy_(given[name])
    return model


def given_weights(module: ModuleType, exercise: Exercise, arm: str) -> dict[str, Tensor]:
    """Weights for a model, all of them random: a scale of 1 and a bias of 0 would hide what they do."""
    model, _ = build(module, exercise, arm)
    generator = torch.Generator().manual_seed(7)
    found = {}
    for name, own in tensors(model).items():
        size = 0.5 + 0.5 * torch.rand(own.shape, generator=generator, dtype=torch.float64)
        sign = torch.randint(2, own.shape, generator=generator) * 2 - 1
        scale = 2.0 / own.size(-1) ** 0.5 if own.ndim > 1 else 1.0
        counted = own.dtype == torch.long or name in ("counts",) or "variance" in name
        found[name] = size if counted else size * sign * scale
    return found


def normal(*shape: int, seed: int = 1) -> Tensor:
    """Numbers from a standard normal distribution, float64, the same for a seed on every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_target(s: Settings) -> bool:
    """Whether a window has one answer and a fixed length, as those of names do."""
    return isinstance(s, NamesSettings)


def ids(s: Settings, rows: int, length: int | None = None, seed: int = 3) -> Tensor:
    """Random token ids (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(V, (rows, length or s.block_size), generator=generator)
