"""Exact scores: loss, perplexity, accuracy and bits per character over a whole split, each token predicted
exactly once.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

PROTOCOL = 1  # a column of the results; what changes the meaning of a row is now seen by its fingerprint


@dataclass(frozen=True)
class Score:
    """Sums over a split; scores of two splits add up to the score of both."""

    nats: float
    """Total negative log-likelihood."""
    tokens: int
    """Predicted tokens."""
    correct: int
    """Tokens whose most likely prediction was right."""
    characters: int
    """Characters of the scored text."""

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.correct + other.correct,
            self.characters + other.characters,
        )

    @property
    def loss(self) -> float:
        """Nats per token: comparable within one tokenizer only."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def accuracy(self) -> float:
        """Share of tokens predicted right: comparable within one tokenizer only."""
        return self.correct / self.tokens

    @property
    def bpc(self) -> float:
        """Bits per character: total bits over the characters, comparable whatever the tokenizer."""
        return self.nats / math.log(2) / self.characters


@torch.no_grad()
def score(model: nn.Module, split, device: str = "cpu") -> Score:
    """Score `model` on every token of `split` (see common.data), dropout off; training mode is restored, no
    random number is used.
    """
    training = model.training
    model.eval()
    nats, correct, tokens = 0.0, 0, 0
    for x, y in split.in_order():
        logits, y = model(x.to(device)), y.to(device).flatten()  # (B, T, V) or (B, V)
        logits = logits.flatten(0, -2).float()
        nats += F.cross_entropy(logits, y, reduction="none").double().sum().item()
        correct += (logits.argmax(dim=-1) == y).sum().item()
        tokens += len(y)
    model.train(training)
    return Score(nats, tokens, correct, split.characters)


def pair_entropy(x: torch.Tensor, y: torch.Tensor) -> float:
    """Nats per token of the best table of pairs fitted to exactly these inputs and targets (both flat or of
    one shape).
    """
    pairs, counts = torch.stack([x.flatten(), y.flatten()]).cpu().unique(dim=1, return_counts=True)
    totals = torch.zeros(int(x.max()) + 1).index_add(0, pairs[0], counts.float())
    return float(-(counts * (counts / totals[pairs[0]]).log()).sum() / counts.sum())
