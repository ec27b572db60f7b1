"""What is looked at in parts of a GPT by themselves: ways to mix values, norms, positions, experts."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.exercises.catalogue import Exercise
from common.exercises.models import Watched
from common.exercises.observation import Observation
from common.exercises.running import SMALL, V, arms_of, ids, normal
from common.model.position import RoPE
from common.settings import PartSettings, Settings
from common.training.loop import auxiliary_loss

D = 6  # numbers in a head, and no other size here


def _filled(part: nn.Module) -> nn.Module:
    """A part in double precision, its parameters drawn at random in the order of their names."""
    part = part.double()
    with torch.no_grad():
        for number, (_, p) in enumerate(sorted(part.named_parameters())):
            p.copy_(normal(*p.shape, seed=20 + number) / p.size(-1) ** 0.5 if p.ndim > 1
                    else 1 + 0.5 * normal(*p.shape, seed=20 + number))  # fmt: skip
    return part.eval()


# ---- ways to mix values --------------------------------------------------------------------------

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


def _heads(T: int, S: int, larger: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the last T of S places, keys and values of all. larger: by how much scores are."""
    return larger * normal(2, 3, T, D), normal(2, 3, S, D, seed=2), normal(2, 3, S, D, seed=3)


def _mixed(mix: Mix, T: int, S: int, larger: float = 1.0) -> Tensor:
    return mix(*_heads(T, S, larger))


def _way_back(mix: Mix, T: int, S: int) -> dict[str, Tensor]:
    """The gradients of q, k and v."""
    given = [x.requires_grad_() for x in _heads(T, S)]
    out = mix(*given)
    grads = torch.autograd.grad((out * normal(*out.shape, seed=4)).sum(), given)
    return dict(zip(("of q", "of k", "of v"), grads, strict=True))


def _influence(mix: Mix, T: int) -> Tensor:
    """True where the answer at place t (rows) changes with the value at place s."""
    q, k, v = _heads(T, T)
    before, found = mix(q, k, v), []
    for place in range(T):
        changed = v.clone()
        changed[:, :, place] += 1
        found.append((mix(q, k, changed) - before).abs().amax(dim=(0, 1, 3)) > 1e-9)
    return torch.stack(found, dim=1)


class _Blocks(TorchDispatchMode):
    """Notes the largest block of scores that is made: numbers with neither side as long as a head."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = (0, 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.is_floating_point() and made.ndim > 1:
                rows, columns = made.shape[-2:]
                is_block = min(rows, columns) > 1 and D not in (rows, columns)
                if is_block and rows * columns > self.largest[0] * self.largest[1]:
                    self.largest = (rows, columns)
        return out


def _largest_block(mix: Mix, most: int, back: bool = False) -> str:
    """Whether a text of 23 places gets along with blocks of `most` scores. back: on the way back."""
    q, k, v = (x[:1, :1].requires_grad_() for x in _heads(23, 23))
    with _Blocks() as forward:
        out = mix(q, k, v)
    with _Blocks() as backward:
        out.sum().backward()
    rows, columns = (backward if back else forward).largest
    return "small blocks" if rows * columns <= most else f"a block of {rows} x {columns} scores"


def watch_tiled(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Attention in blocks: answers, gradients, and that no large block of scores is made."""

    def mix(size: int) -> Mix:
        return lambda q, k, v: module.Tiled.apply(q, k, v, size)

    cases = {"11 places in blocks of 4": (4, 11, 11), "8 places in blocks of 4": (4, 8, 8),
             "3 places in one block": (64, 3, 3), "the last 3 of 13 places": (4, 3, 13),
             "the last 5 of 14 places": (4, 5, 14)}  # fmt: skip
    yield Observation("influence", lambda: _influence(mix(4), 11))
    for what, (size, T, S) in cases.items():
        yield Observation("mixed", partial(_mixed, mix(size), T, S), what=what)
    yield Observation("large", partial(_mixed, mix(4), 11, 11, 2000.0))
    for what, (size, T, S) in cases.items():
        yield Observation("way back", partial(_way_back, mix(size), T, S), what=what)
    for back in (False, True):
        what = f"23 places in blocks of 5, on the way {'back' if back else 'forward'}"
        yield Observation("blocks", partial(_largest_block, mix(5), 25, back), what=what)


def watch_local(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Attention to the last places: which are seen, answers, gradients, and the blocks that are made."""

    def mix(window: int) -> Mix:
        return lambda q, k, v: module.local(q, k, v, window)

    cases = {"11 places, 4 are seen": (4, 11, 11), "8 places, 4 are seen": (4, 8, 8),
             "3 places, 4 are seen": (4, 3, 3), "the last of 9 places": (4, 1, 9),
             "the last 2 of 4 places": (4, 2, 4), "the last 6 of 13 places": (4, 6, 13)}  # fmt: skip
    yield Observation("influence", lambda: _influence(mix(4), 11), what="4 places are seen")
    for what, (window, T, S) in cases.items():
        yield Observation("mixed", partial(_mixed, mix(window), T, S), what=what)
    for what in ("11 places, 4 are seen", "the last 6 of 13 places"):
        window, T, S = cases[what]
        yield Observation("way back", partial(_way_back, mix(window), T, S), what=what)
    yield Observation("blocks", lambda: _largest_block(mix(4), 32), what="23 places, 4 are seen")


def watch_linear(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Attention by features: these, answers at once and in pieces, gradients, and the blocks made."""

    def mix(size: int) -> Mix:
        return lambda q, k, v: module.linear(q, k, v, size=size)

    def in_pieces(pieces: tuple[int, ...]) -> list:
        q, k, v = _heads(sum(pieces), sum(pieces))
        past, split = module.Sums(), zip(*(x.split(pieces, dim=2) for x in (q, k, v)), strict=True)
        found: list = [past.length]
        for piece in split:
            found += [module.linear(*piece, past, size=4), int(past.length)]
        return found

    x = torch.tensor([-30.0, -1.0, -0.1, 0.0, 0.1, 1.0, 30.0], dtype=torch.float64)
    yield Observation("features", lambda: module.features(x))
    yield Observation("influence", lambda: _influence(mix(4), 11))
    for T in (3, 4, 11):
        yield Observation("mixed", partial(_mixed, mix(4), T, T), what=f"{T} places in chunks of 4")
    yield Observation("way back", partial(_way_back, mix(4), 11, 11), what="11 places in chunks of 4")
    for pieces in ((5,), (1, 1, 1), (6, 1, 4)):
        yield Observation("pieces", partial(in_pieces, pieces), what=f"of {', '.join(map(str, pieces))}")
    yield Observation("blocks", lambda: _largest_block(mix(5), 25), what="23 places in chunks of 5")


# ---- positions -----------------------------------------------------------------------------------


def watch_angles(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Position times frequency: at the start, further on, and far away."""
    for start, T, size in ((0, 5, 6), (3, 4, 8), (100_000, 2, 64)):
        look = partial(module.angles_of, start, T, size)
        what = f"{T} places from place {start:,} on, {size} numbers"
        yield Observation("angles", look, 1e-9, what=what)


def watch_waves(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What sinusoidal positions make of vectors."""

    def with_positions(T: int, C: int, start: int, larger: float) -> Tensor:
        return module.SinusoidalPosition(Settings(n_embd=C))(larger * normal(2, T, C), start)

    for T, C, start, larger in ((7, 10, 0, 0.0), (7, 10, 0, 1.0), (3, 10, 20, 1.0), (4, 9, 0, 1.0)):
        what = f"vectors of {C} {'numbers' if larger else 'zeros'}, from place {start} on"
        yield Observation("waves", partial(with_positions, T, C, start, larger), what=what)
    s, x = Settings(n_embd=10), torch.ones(1, 4, 10)
    yield Observation("type", lambda: str(module.SinusoidalPosition(s)(x.float()).dtype), single=True)


def watch_alibi(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Slopes for several numbers of heads, and what is added to scores of places that are not ahead."""

    def found(heads: int) -> list[float]:
        return [float(slope) for slope in module.slopes(heads)]

    def bias(heads: int, T: int, S: int) -> Tensor:
        added = module.ALiBi(Settings(n_head=heads, n_embd=6 * heads)).bias(T, S)
        return added.double().tril(S - T)  # what is ahead is masked, whatever is added

    for heads in (8, 4, 1, 16, 6, 12, 3):
        yield Observation("slopes", partial(found, heads), what=f"{heads} heads")
    for heads, T, S in ((4, 5, 5), (4, 1, 7), (4, 3, 9), (6, 4, 4)):
        what = f"{heads} heads, the last {T} of {S} places"
        yield Observation("bias", partial(bias, heads, T, S), what=what)


def watch_turning(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """A layer of attention with positions that turn queries and keys, at once and in pieces."""
    s = Settings(n_embd=SMALL["n_embd"], n_head=SMALL["n_head"])

    def answers(pieces: tuple[int, ...]) -> Tensor:
        layer, x = _filled(module.MultiHeadAttention(s, True)), normal(2, sum(pieces), s.n_embd)
        cache = layer.new_cache() if len(pieces) > 1 else None  # type: ignore[operator]
        return torch.cat([layer(piece, RoPE(s), cache) for piece in x.split(pieces, dim=1)], dim=1)

    for pieces, what in (((11,), "all at once"), ((4, 1, 1, 5), "in pieces, with the cache")):
        yield Observation("turning", partial(answers, pieces), what=what)


# ---- norms, experts, parts by name ---------------------------------------------------------------


def watch_norms(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What each norm makes of vectors of several sizes, and of zeros."""

    def normed(name: str, larger: float) -> Tensor:
        norm = getattr(module, name)(Settings(n_embd=10)).double()
        return norm(larger * (normal(2, 3, 10) + 1)).detach()

    for name in ("LayerNorm", "RMSNorm", "ScaleNorm"):
        for larger in (1.0, 1e-3, 1e3):
            yield Observation("normed", partial(normed, name, larger), what=f"{name}, size {larger:g}")
        yield Observation("zeros", partial(normed, name, 0.0), what=name)


def watch_experts(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What a mixture of experts asks the loss for, and how much each expert gets, in both modes."""

    def noted(arm: str, what: str, training: bool) -> object:
        model, s = Watched(module, exercise, arm, "").given()
        model.train(training)(ids(s, 6))
        if what == "load":
            return [part.load for part in model.modules() if isinstance(part, module.MoE)]
        return torch.as_tensor(auxiliary_loss(model))

    for arm in arms_of(module, exercise):
        for training in (False, True):
            for what in ("load", "auxiliary loss"):
                said = f"{arm}, {'training' if training else 'evaluation'}"
                yield Observation(what, partial(noted, arm, what, training), what=said)


def watch_assembled(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What a model of named parts is made of, what it answers, and which names it refuses."""
    sizes: dict = SMALL | {"n_layer": 1, "n_bigram": 11, "window": 5, "n_expert": 3}
    small = PartSettings(**sizes)
    llama = {"norm": "rmsnorm", "feed_forward": "swiglu", "position": "rope"}
    cases: tuple[dict, ...] = (
        {}, llama, {"attention": "local", "head": "untied"}, {"embedding": "bigram"}, {"attention": "linear"},
        {"qk_norm": True}, llama | {"qk_norm": True}, {"attention": "explicit", "qk_norm": True},
        {"attention": "linear", "position": "none"}, {"position": "alibi", "feed_forward": "moe"},
    )  # fmt: skip
    refused: tuple[dict, ...] = (
        {"attention": "linear", "position": "rope"}, {"attention": "linear", "position": "alibi"},
        {"norm": "rms"}, {"position": "rotary"},
    )  # fmt: skip

    def parts(s: PartSettings) -> dict[str, str]:
        model = module.assemble(s, V)
        block = model.blocks[0]
        own = {"embedding": model.token, "position": model.position, "norm": model.norm, "head": model.head,
               "attention": block.attention, "feed_forward": block.feed_forward}  # fmt: skip
        return {name: type(part).__name__ for name, part in own.items()}

    def answers(s: PartSettings) -> Tensor:
        return _filled(module.assemble(s, V))(ids(s, 2)).detach()

    for case in cases:
        s, what = replace(small, **case), _named(case)
        yield Observation("chosen", partial(parts, s), what=what)
        yield Observation("logits", partial(answers, s), what=what)
    for case in refused:
        yield Observation("refused", partial(parts, replace(small, **case)), what=_named(case))


def _named(case: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in case.items()) or "what the settings begin with"
