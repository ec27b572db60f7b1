"""The GPT of the course as a base for later stages. What it is made of was taught in the stages that its
parts name.

This package knows nothing of data, training or results. `PARTS` is the only place where a name (in a file,
say) becomes a class; `assemble` makes a model of names.
"""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from torch import nn

from common.model.attention import (
    ExplicitAttention,
    GroupedQueryAttention,
    LinearAttention,
    LocalAttention,
    MultiHeadAttention,
    TiledAttention,
)
from common.model.embedding import BigramEmbedding, TokenEmbedding
from common.model.feed_forward import FeedForward, GatedFeedForward, SquaredReLU
from common.model.gpt import GPT
from common.model.head import TiedHead, UntiedHead
from common.model.moe import MoE
from common.model.norm import LayerNorm, NoNorm, RMSNorm, ScaleNorm
from common.model.position import ALiBi, LearnedPosition, Position, RoPE, SinusoidalPosition

PARTS: dict[str, dict[str, Callable]] = {
    "attention": {
        "explicit": ExplicitAttention, "tiled": TiledAttention, "flash": MultiHeadAttention,
        "gqa": GroupedQueryAttention, "local": LocalAttention, "linear": LinearAttention,
    },
    "feed_forward": {
        "relu": partial(FeedForward, activation=nn.ReLU),
        "gelu": FeedForward,
        "gelu-2x": partial(FeedForward, multiple=2),
        "gelu-tanh": partial(FeedForward, activation=partial(nn.GELU, approximate="tanh")),  # GPT-2's
        "silu": partial(FeedForward, activation=nn.SiLU),
        "relu2": partial(FeedForward, activation=SquaredReLU),
        "glu": partial(GatedFeedForward, activation=nn.Sigmoid),
        "reglu": partial(GatedFeedForward, activation=nn.ReLU),
        "geglu": partial(GatedFeedForward, activation=nn.GELU),
        "swiglu": GatedFeedForward,
        "moe": MoE,
    },
    "norm": {"layernorm": LayerNorm, "rmsnorm": RMSNorm, "scalenorm": ScaleNorm, "none": NoNorm},
    "position": {
        "none": Position, "learned": LearnedPosition, "sinusoidal": SinusoidalPosition, "rope": RoPE,
        "alibi": ALiBi,
    },
    "head": {"tied": TiedHead, "untied": UntiedHead},
    "embedding": {"token": TokenEmbedding, "bigram": BigramEmbedding},
}


def part(socket: str, name: str) -> Callable:
    """The class (or a partial of one) of a part: `part("norm", "rmsnorm")`, to be called with the settings.

    Raises ValueError, one line, for a socket or a name that is not there: with the nearest name, and those
    there are.
    """
    for what, value, known in (("socket", socket, PARTS), (socket, name, PARTS.get(socket, {}))):
        if value not in known:
            near = get_close_matches(str(value), known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{what} {value!r} is not known{meant}; there are {', '.join(known)}")
    return PARTS[socket][name]


def assemble(s, vocab_size: int) -> GPT:
    """A GPT of the parts that the settings name: token ids (B, T) -> logits (B, T, V).

    Taught in 08_micro_arch/assemble.py. s: attention, feed_forward, norm, position, head and embedding,
    each a name of `PARTS`, qk_norm (whether queries and keys go through an RMSNorm), and what the parts ask
    for. Raises ValueError, one line, for a name that is not known, and for parts that do not go together.
    """
    parts = {socket: part(socket, getattr(s, socket)) for socket in PARTS}
    if s.qk_norm:
        parts["attention"] = partial(parts["attention"], qk_norm=RMSNorm)
    if s.attention == "linear" and s.position in ("rope", "alibi"):
        raise ValueError(
            f"attention 'linear' does not go with position {s.position!r}: it has no scores to act on; use "
            "position learned, sinusoidal or none, or another attention"
        )
    return GPT(s, vocab_size, **parts)
