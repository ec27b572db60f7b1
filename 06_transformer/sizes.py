"""Sizes: the same GPT at several sizes, and a law found on the small ones that has to predict a large one.

Previous : 06_transformer/fast_gpt.py
Changes  : fit_law, overview, parameters
Idea     : at equal tokens the loss falls with the number of parameters N along E + A / N^a; what six sizes
           say of larger ones
Source   : Kaplan et al. 2020, arXiv:2001.08361 (a power law; N without embeddings); Hoffmann et al. 2022,
           arXiv:2203.15556 (with an E that no size gets below; equal compute); Yang et al. 2022,
           arXiv:2203.03466 (the wider, the smaller the rate)
Expect   : a between 0.1 and 0.4; both large sizes within the interval; at small compute the small sizes are
           ahead
"""

import numpy as np
from scipy.optimize import curve_fit
from scipy.stats import t as student
from torch import nn
from torch.nn import functional as F

from common.run import run
from common.settings import Arm, Lesson, Settings


class MultiHeadAttention(nn.Module):
    """Each position gathers from its past, through several heads side by side. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()
        self.n_head, self.dropout = s.n_head, s.dropout
        self.qkv = nn.Linear(s.n_embd, 3 * s.n_embd, bias=False)       # query, key, value, one below another
        self.projection = nn.Linear(s.n_embd, s.n_embd, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)  # (B, H, T, D)
        return self.projection(heads.transpose(1, 2).reshape(B, T, C))


class FeedForward(nn.Sequential):
    """Each position thinks about what it gathered; four times as wide in between. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__(
            nn.Linear(s.n_embd, 4 * s.n_embd, bias=False), nn.GELU(),
            nn.Linear(4 * s.n_embd, s.n_embd, bias=False)
        )


class Block(nn.Module):
    """Gather, then think; each reads a normalised copy and adds its answer. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(s.n_embd, bias=False), nn.LayerNorm(s.n_embd, bias=False)
        self.attention = MultiHeadAttention(s)
        self.feed_forward = FeedForward(s)
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)                # what stands here
        self.position = nn.Embedding(s.block_size, s.n_embd)           # and where
        self.dropout = nn.Dropout(s.dropout)
        self.blocks = nn.Sequential(*(Block(s) for _ in range(s.n_layer)))
        self.norm = nn.LayerNorm(s.n_embd, bias=False)                 # pre-LN leaves its end unnormalised
        self.head = nn.Linear(s.n_embd, vocab_size, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:                                       # matrices; scales of norms stay 1
                # Each block writes to the stream twice: 2N answers of 1/sqrt(2N) the size add up to one.
                writes = name.endswith(("attention.projection.weight", "feed_forward.2.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * s.n_layer) ** 0.5 if writes else 0.02)
        self.head.weight = self.token.weight                           # tied: what the stream points to

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.size(1)]      # (B, T, C)
        x = self.norm(self.blocks(self.dropout(x)))                    # (B, T, C)
        return self.head(x)                                            # (B, T, V)


def fit_law(sizes, losses):
    """The law E + A / (N / 100,000)^a nearest to these points, as text and as a function, and half of its 95
    % interval for a new run.
    """
    def law(n, e, a, power):
        return e + a * (n / 1e5) ** -power

    fitted, covariance = curve_fit(law, sizes, losses, p0=(1.0, 1.0, 0.3), bounds=(0, (10, 10, 2)))
    noise = ((losses - law(sizes, *fitted)) ** 2).sum() / (len(sizes) - 3)  # three numbers were fitted

    def half(n):
        slope = np.array([(law(n, *(fitted + 1e-5 * step)) - law(n, *fitted)) / 1e-5 for step in np.eye(3)])
        return student.ppf(0.975, len(sizes) - 3) * (slope @ covariance @ slope + noise) ** 0.5

    return "{:.2f} + {:.2f} / (N / 100,000)^{:.2f}".format(*fitted), lambda n: law(n, *fitted), half


def overview(results, folder):
    """Draw the law with its prediction beside what was measured, and which size is best at each compute."""
    from common.report import size_law

    runs = [(r.row["arm"], r.row["seed"], parameters(r.row), r) for r in results if not r.row["diverged"]]
    points = [(arm, seed, n, r.row["test_loss"], arm in SMALL) for arm, seed, n, r in runs]
    used = np.array([(n, loss) for _, _, n, loss, small in points if small]).reshape(-1, 2)
    paths = []
    if len(set(used[:, 0])) > 3:                                       # three numbers are fitted
        formula, law, half = fit_law(*used.T)
        labels = ("parameters without embeddings, N", "test, nats per character")
        title = "Do the small sizes know how good the large ones will be?"
        listed = [(*p, law(p[2]), half(p[2])) for p in points]
        paths.append(size_law.law(formula, listed, labels, title, folder / "law"))
    compute = [(arm, seed, 6 * n * step * r.row["tokens_seen"] / r.row["steps"], loss, r.row["test_loss"])
               for arm, seed, n, r in runs for step, _, loss, _ in r.curve if step]
    labels = ("compute, 6 N D operations", "validation, nats per character")
    title = "Which size is best for a given compute?"
    return [*paths, size_law.compute(compute, labels, title, folder / "compute")]


def parameters(row):
    """Parameters without the two embeddings, which smaller models spend more of their size on."""
    return row["params"] - (row["vocab_size"] + row["block_size"]) * row["n_embd"]


SMALL = ("pico", "nano", "micro", "mini", "small", "medium")
SIZES = {                                                              # layers, width; heads of 16 numbers
    "pico": (2, 32), "nano": (2, 48), "micro": (4, 48), "mini": (4, 64), "small": (4, 96), "medium": (4, 128),
    "large": (4, 160), "xlarge": (5, 192), "huge": (6, 384),
}
# Divided by the width: one rate for all would be too low for small sizes, and the law would be of that.
RATE = 0.5

arms = {name: Arm(Model, n_layer=n_layer, n_embd=n_embd, n_head=n_embd // 16, lr=RATE / n_embd,
                  on_demand=name in ("xlarge", "huge"))
        for name, (n_layer, n_embd) in SIZES.items()}
settings = Settings(corpus="stdlib", batch_size=64, steps=700, warm_up=100)
lesson = Lesson(arms, settings, overview=overview, quick={"steps": 120, "arms": SMALL[:5]})

if __name__ == "__main__":
    run(lesson)
