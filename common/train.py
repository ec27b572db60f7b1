"""The training loop, and nothing else: the steps that `01_bigram/by_hand.py` writes out, with the AdamW of `01_bigram/names_bigram.py`."""

import torch
from torch import nn
from torch.nn import functional as F

from common.data import Data
from common.settings import Settings


def train(model: nn.Module, data: Data, s: Settings, journal) -> None:
    """Train `model` in place with AdamW at a constant rate. The journal (common.journal) counts steps, shows progress and saves."""
    device = torch.device(data.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.lr, fused=device.type != "mps")
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=s.dtype == "bfloat16")
    for step in journal.steps(model, optimizer):
        x, y = data.batch(step)                                       # (B, T), (B, T)
        with mixed:
            logits = model(x)                                         # (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        journal.record(loss)
