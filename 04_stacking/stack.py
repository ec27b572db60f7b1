"""Stack: the block of attention and feed-forward, several times over: deeper must be better, or is it?

Previous : 03_ffn/feed_forward.py:gelu
Changes  : FeedForward, Block, Model, probe, picture
Idea     : N blocks, one after the other; GELU from here on
Source   : He et al. 2016, arXiv:1512.03385, figure 1 (plain networks get worse with depth)
Expect   : worse than one block; gradients shrink from the last block to the first, so the first ones hardly
           learn
Also     : --clip 1 --lr 1e-3
Seeds    : 1 2 3; 1 2 3 4 5 with --clip 1 --lr 1e-3
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.run import run
from common.settings import Lesson, Settings


class MultiHeadAttention(nn.Module):
    """Each position gathers from its past, through several heads side by side. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int, n_head: int, block_size: int):
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.register_buffer("mask", torch.full((block_size, block_size), -torch.inf).triu(1),
                             persistent=False)

    def forward(self, x):
        B, T, C = x.shape
        q = self.query(x).view(B, T, self.n_head, -1).transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
        k = self.key(x).view(B, T, self.n_head, -1).transpose(1, 2)
        v = self.value(x).view(B, T, self.n_head, -1).transpose(1, 2)
        scores = q @ k.transpose(-2, -1) / q.size(-1) ** 0.5           # (B, H, T, T)
        weights = F.softmax(scores + self.mask[:T, :T], dim=-1)
        return (weights @ v).transpose(1, 2).reshape(B, T, C)          # heads side by side again


class FeedForward(nn.Sequential):
    """Each position thinks about what it gathered. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int):
        super().__init__(nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd))


class Block(nn.Module):
    """Gather, then think. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int, n_head: int, block_size: int):
        super().__init__()
        self.attention = MultiHeadAttention(n_embd, n_head, block_size)
        self.feed_forward = FeedForward(n_embd)

    def forward(self, x):
        return self.feed_forward(self.attention(x))


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.position = nn.Embedding(s.block_size, s.n_embd)
        self.blocks = nn.Sequential(*(Block(s.n_embd, s.n_head, s.block_size) for _ in range(s.n_layer)))
        self.head = nn.Linear(s.n_embd, vocab_size)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.size(1)]      # (B, T, C)
        return self.head(self.blocks(x))                               # (B, T, V)


def probe(model, x, y):
    """Gradient norm of each block's weights, and size of what each block hands on, at one batch."""
    sizes, hooks = [], []
    for block in model.blocks:
        hooks.append(block.register_forward_hook(lambda _, __, out: sizes.append(out.std().item())))
    F.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    gradients = [torch.stack([p.grad.norm() for p in block.parameters()]).norm().item()
                 for block in model.blocks]
    for hook in hooks:
        hook.remove()
    return {"gradient norm": gradients, "activation size": sizes}


def picture(model, data, result, folder):
    """Draw the norms that were probed while training."""
    from common.report import inside

    title = "Four plain blocks: how much gradient reaches each, how much does each hand on?"
    return [inside.layers(result.probes, title, folder / "layers")]


lesson = Lesson(Model, probe=probe, picture=picture)

if __name__ == "__main__":
    run(lesson)
