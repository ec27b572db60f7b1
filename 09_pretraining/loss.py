"""Loss: what else than the next token a model can be asked for, and what that is good for.

Previous : 09_pretraining/precision.py
Changes  : CappedHead, loss_of, train, scores, overview
Idea     : cross-entropy wants the right logit far above the others, without end. Label smoothing wants only
           so much, z-loss keeps the sum of exponentials near 1, a soft cap bounds every logit
Source   : Szegedy et al. 2016, arXiv:1512.00567 (label smoothing); Chowdhery et al. 2022, arXiv:2204.02311
           (z-loss); Gemma team 2024, arXiv:2408.00118 (soft cap); Wortsman et al. 2023, arXiv:2309.14322
           (what these do for high rates)
Expect   : label smoothing costs bits, as it asks for other probabilities than it is scored by; z-loss and
           soft cap change nothing at usual rates and help at the highest
Seeds    : 1 2 3
Stairs   : none
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from common.model.gpt import GPT
from common.model.head import TiedHead
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, LossSettings


class CappedHead(TiedHead):
    """Logits that bend before they reach the cap; small ones stay as they are. (B, T, C) -> (B, T, V)"""

    def __init__(self, s, token):
        super().__init__(s, token)
        self.cap = s.soft_cap

    def forward(self, x):
        logits = super().forward(x)                                    # (B, T, V)
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits


def loss_of(logits, y, s):
    """Cross-entropy, and what it shall be trained for besides. logits: (N, V); y: (N,)

    Label smoothing: so much of the target is spread evenly over all tokens. z-loss: (log Z)², where Z, which
    the softmax divides by, is the sum of the exponentials.
    """
    loss = F.cross_entropy(logits, y)
    wanted = F.cross_entropy(logits, y, label_smoothing=s.label_smoothing) if s.label_smoothing else loss
    return loss, wanted + s.z_loss * logits.logsumexp(dim=-1).square().mean() if s.z_loss else wanted


def train(model, data, s, recorder):
    """The loop of the course, with another wish. What is reported and scored stays cross-entropy."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.lr, betas=(0.9, s.beta2), fused=True)
    for step in recorder.steps(model, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = s.lr * min(1.0, (step + 1) / (s.warm_up + 1))
        x, y = data.batch(step)                                        # (B, T), (B, T)
        loss, wanted = loss_of(model(x).flatten(0, -2), y.flatten(), s)
        optimizer.zero_grad()
        wanted.backward()
        if s.clip:
            nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        optimizer.step()
        recorder.record(loss)


@torch.no_grad()
def scores(model, data, s):
    """In the first windows of the test text: the largest logit, the mean of log Z, and by how much the model
    is surer of its best guess than that is often right.
    """
    x, y = (z.to(data.device) for z in next(data.test.in_order(64)))
    model.eval()
    logits = model(x).flatten(0, -2).float()                           # (N, V)
    model.train()
    sure, best = logits.softmax(dim=-1).max(dim=-1)
    return {"largest logit": logits.abs().max().item(), "mean log Z": logits.logsumexp(dim=-1).mean().item(),
            "overconfidence": (sure.mean() - (best == y.flatten()).float().mean()).item()}


def overview(results, folder):
    """Draw test bits per character against the peak rate, for each loss."""
    from common.report import overviews

    marks = [overviews.Mark(r.row["arm"].rsplit("-", 1)[0], r.row["lr"], r.row["test_bpc"], r.row)
             for r in results if not r.row["diverged"]]
    labels = ("learning rate", "test, bits per character")
    return marks and [overviews.points(marks, labels, "What may a loss ask for?", folder / "rates")]


RATES = [2e-3 * 2**doubled for doubled in range(5)]                    # 0.002 to 0.032
KINDS = {"plain": {}, "smoothed": {"label_smoothing": 0.1}, "z-loss": {"z_loss": 1e-4},
         "capped": {"soft_cap": 15.0}}
model = partial(GPT, head=CappedHead)
arms = {f"{kind}-{rate:g}": Arm(model, lr=rate, **own) for kind, own in KINDS.items() for rate in RATES}
lesson = Lesson(arms, LossSettings(**vars(MICRO_ARCH)), train=train, scores=scores, overview=overview,
                quick={"steps": 120, "arms": [f"{kind}-{rate:g}" for kind in KINDS for rate in RATES[1::2]]})

if __name__ == "__main__":
    run(lesson)
