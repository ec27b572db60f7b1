"""Assemble: a model is a list of names.

Previous : 08_micro_arch/moe.py
Changes  : assemble, describe
Idea     : every part of this stage has a socket and a name, so a file of ten lines says which GPT is meant,
           and any sensible combination works
Teaches  : common.model.PARTS
Source   : the parts as in their scripts; together: Radford et al. 2019 (GPT-2), Touvron et al. 2023,
           arXiv:2302.13971 (Llama: RMSNorm, SwiGLU, RoPE), Jiang et al. 2024, arXiv:2401.04088 (Mixtral)
Expect   : the parts of Llama together are better than the course's model by about the sum of what each brings
Also     : --config llama; --position rope; --config winners
Seeds    : 1 2 3 4 5
Stairs   : --config winners
"""

from functools import partial

from common.model import PARTS, part
from common.model.gpt import GPT
from common.model.norm import RMSNorm
from common.run import run
from common.settings import MICRO_ARCH, Lesson, PartSettings


def assemble(s: PartSettings, vocab_size: int):
    """A GPT of the parts that the settings name."""
    parts = {socket: part(socket, getattr(s, socket)) for socket in PARTS}
    if s.qk_norm:
        parts["attention"] = partial(parts["attention"], qk_norm=RMSNorm)
    if s.attention == "linear" and s.position in ("rope", "alibi"):
        raise ValueError(f"attention 'linear' does not go with position {s.position!r}: it has no scores to "
                         "act on; use position learned, sinusoidal or none, or another attention")
    return GPT(s, vocab_size, **parts)


def describe(model, s):
    """The name of each part, and how many parameters it has in all blocks."""
    owned = {"embedding": [model.token], "position": [model.position],
             "attention": [block.attention for block in model.blocks],
             "feed_forward": [block.feed_forward for block in model.blocks],
             "norm": [model.norm, *(norm for block in model.blocks for norm in (block.norm1, block.norm2))],
             "head": [model.head]}
    counted, lines = set(), []
    for name, modules in owned.items():
        own = {p for module in modules for p in module.parameters()} - counted  # a tied head has none left
        counted |= own
        chosen = getattr(s, name, f"{model.token.num_embeddings:,} x {model.token.embedding_dim}")
        chosen += " + qk_norm" if name == "attention" and s.qk_norm else ""
        lines.append(f"{name:<14}{chosen:<20}{sum(p.numel() for p in own):>12,} parameters")
    total = sum(p.numel() for p in model.parameters())
    return "\n".join([*lines, f"{'in all':<14}{f'{s.n_layer} blocks':<20}{total:>12,} parameters"])


lesson = Lesson(assemble, PartSettings(**vars(MICRO_ARCH)), describe=describe)

if __name__ == "__main__":
    run(lesson)
