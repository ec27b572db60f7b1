"""What is looked at in layers and blocks: devices, attention alone, the stream, norms, what is dropped."""

from collections.abc import Iterator
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.exercises.catalogue import Exercise
from common.exercises.models import Watched
from common.exercises.observation import Observation
from common.exercises.running import WIDTH, arms_of, ids, normal

SUBLAYERS = ("attention", "feed_forward")


def _watched(module: ModuleType, exercise: Exercise) -> Iterator[Watched]:
    arms = arms_of(module, exercise)
    for arm in arms:
        yield Watched(module, exercise, arm, arm if len(arms) > 1 else "")


class OneDevice(TorchDispatchMode):
    """Within it, operations on tensors of several devices are refused, as on a GPU; `meta` lets some pass."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        sized = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.ndim)
        devices = sorted({tensor.device.type for tensor in sized})
        if len(devices) > 1 and "copy" not in func.__name__:
            raise RuntimeError(
                f"{func.__name__.split('.')[0]}: tensors on two devices, {' and '.join(devices)}"
            )
        return func(*args, **(kwargs or {}))


def watch_device(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Whether the first arm's model can be moved: to `meta`, a device of shapes without numbers."""

    def moved(model: Watched) -> str:
        built, s = model.build()
        built, x = built.to("meta"), ids(s, 3).to("meta")
        with OneDevice():
            return built(x).device.type

    first = next(_watched(module, exercise))
    yield Observation("device", partial(moved, first), what=first.what)


def watch_gather(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What attention alone makes of vectors: that of the model, or of its first block."""

    def gathered(model: Watched) -> Tensor:
        built, s = model.given()
        part = built if hasattr(built, "attention") else _first_block(built)
        return part.get_submodule("attention")(normal(2, s.block_size, s.n_embd)).detach()

    for model in _watched(module, exercise):
        yield Observation("gather", partial(gathered, model), what=model.what)


def _first_block(model: nn.Module) -> nn.Module:
    return model.get_submodule("blocks.0")


def _silence(part: nn.Module) -> None:
    """Let a part answer nothing but zeros."""
    with torch.no_grad():
        for p in part.parameters():
            p.zero_()


def watch_stream(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What the first block hands on where some of its sublayers answer with zeros."""

    def handed_on(model: Watched, silent: tuple[str, ...]) -> Tensor:
        built, s = model.given()
        block = _first_block(built)
        for name in silent:
            _silence(getattr(block, name))
        return block(normal(2, s.block_size, s.n_embd)).detach()

    for model in _watched(module, exercise):
        for silent in (SUBLAYERS, ("feed_forward",), ("attention",)):
            said = f"{' and '.join(silent).replace('_', '-')} silent"
            what = f"{model.what}, {said}" if model.what else said
            yield Observation("stream", partial(handed_on, model, silent), what=what)


def watch_dropped(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """In training and not: which share of a sublayer's answer is zero, and how large the rest is."""

    def answer(block: nn.Module, x: Tensor, training: bool) -> Tensor:
        return block.train(training)(x).detach() - x

    def dropped(model: Watched, silent: str, training: bool) -> dict[str, float]:
        built, s = model.given(dropout=0.3)
        block = _first_block(built)
        _silence(getattr(block, silent))
        x = normal(1, s.block_size, s.n_embd).repeat(100, 1, 1)
        torch.default_generator.manual_seed(5)
        whole, own = answer(block, x, False), answer(block, x, training)
        rest = own.abs() > 1e-9
        return {
            "share of zeros": 1 - rest.double().mean().item(),
            "size of the rest": (own[rest] / whole[rest]).median().item() if rest.any() else 0.0,
        }

    def read(model: Watched, by: str) -> float:
        """The share of zeros in what the first block or the head reads in training."""
        built, s = model.given(dropout=0.3)
        part, found = built.get_submodule(by), list[Tensor]()
        part.register_forward_pre_hook(lambda _, given: found.append(given[0]))
        torch.default_generator.manual_seed(5)
        built.train()(ids(s, 20))
        return 1 - found[0].count_nonzero().item() / found[0].numel()

    for model in _watched(module, exercise):
        for by, name in (("blocks.0", "first block"), ("head", "head")):
            yield Observation("dropped", partial(read, model, by), 0.05, f"zeros in what the {name} reads")
        for silent, heard in (SUBLAYERS, SUBLAYERS[::-1]):
            for training in (True, False):
                what = f"{heard.replace('_', '-')}, {'training' if training else 'evaluation'}"
                yield Observation("dropped", partial(dropped, model, silent, training), 0.05, what)


def watch_norm(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What a norm makes of vectors: at first, and with a scale and a shift."""

    def statistics(x: Tensor) -> dict[str, Tensor]:
        out = module.LayerNorm(WIDTH)(x).detach()
        return {"mean": out.mean(dim=-1) + 1, "variance": out.var(dim=-1, correction=0)}

    def values(x: Tensor) -> Tensor:
        norm = module.LayerNorm(WIDTH)
        with torch.no_grad():
            norm.weight.copy_(normal(WIDTH) + 2)
            norm.bias.copy_(normal(WIDTH) - 1)
        return norm(x).detach()

    x = 3 * normal(2, 5, WIDTH) + 4
    yield Observation("normal", partial(statistics, x))
    yield Observation("normal", partial(statistics, 1e-2 * x), what="small vectors")
    yield Observation("values", partial(values, x))
    yield Observation(
        "values", partial(values, torch.full((2, WIDTH), 3.0)), what="all numbers of a vector equal"
    )
    yield Observation("values", partial(values, x[0, 0]), what="one vector alone")
