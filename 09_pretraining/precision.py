"""Precision: sixteen bits are enough for the products, and too few for the weights.

Previous : 09_pretraining/optimizer.py
Changes  : train, built, stepping, cost, attempt, measure
Idea     : autocast: products in 16 bits, of copies of weights that are kept in 32; and torch.compile, which
           writes kernels for one model
Teaches  : torch.autocast, torch.amp.GradScaler, torch.compile
Source   : Micikevicius et al. 2018, arXiv:1710.03740 (weights in 32 bits, a scaled loss); Kalamkar et al.
           2019, arXiv:1905.12322 (bfloat16); Ansel et al. 2024, doi:10.1145/3620665.3640366 (compile)
Expect   : bfloat16 over float32 weights learns as float32 does; weights of bfloat16 learn less, as a step is
           smaller than their last digit; on a CPU, products of bfloat16 pay only where it has units for them
           and the model is wide; compiled, the same losses sooner, and a minute's wait before the first
Seeds    : 1 2 3 4 5
Stairs   : none
"""

import os
import tempfile
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, PrecisionSettings, Settings
from common.training import memory


def train(model, data, s, recorder):
    """The loop of the course. Inside autocast products are made in 16 bits, and sums in 32; weights,
    gradients and the steps of AdamW are outside.

    The smallest number of float16 is 6e-8, and many a gradient is below: so the loss is multiplied by a large
    number before the way back, and the gradients are divided by it before the step. Where one has become too
    large, the scaler leaves the step out and takes half of the number. bfloat16 reaches as far as float32.
    """
    kind = torch.device(data.device).type
    model.to(getattr(torch, s.weights))
    mixed = torch.autocast(kind, getattr(torch, s.dtype), enabled=s.dtype != "float32")
    scaler = torch.amp.GradScaler(kind, enabled=s.dtype == "float16")
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.lr, betas=(0.9, s.beta2), fused=True)
    for step in recorder.steps(model, optimizer):
        if "scaler" in recorder.state:                                 # also after an interruption
            scaler.load_state_dict(recorder.state["scaler"])
        for group in optimizer.param_groups:
            group["lr"] = s.lr * min(1.0, (step + 1) / (s.warm_up + 1))
        x, y = data.batch(step)                                        # (B, T), (B, T)
        with mixed:
            loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)                                     # clipping is about true lengths
        if s.clip:
            nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        scaler.step(optimizer)
        scaler.update()
        if s.dtype == "float16":
            recorder.state["scaler"] = scaler.state_dict()
        recorder.record(loss)


def built(width, weights, kind):
    """A model of a width with 2 blocks of 4 heads, its weights of that type; and a batch for it."""
    torch.manual_seed(1)
    s = Settings(n_embd=width, n_layer=2)
    x = torch.randint(VOCABULARY, (16, s.block_size), device=kind)
    return GPT(s, VOCABULARY).to(kind, getattr(torch, weights)), x


def stepping(model, x, mixed):
    """Yield the loss of one step after the other, all on the same batch."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    while True:
        with mixed:
            loss = F.cross_entropy(model(x).flatten(0, -2), x.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def cost(width, weights, dtype, compiled, kind):
    """Milliseconds of a step, megabytes that it keeps for the way back, seconds of the first step; and the
    losses of the first few.
    """
    model, x = built(width, weights, kind)
    mixed = torch.autocast(kind, getattr(torch, dtype), enabled=dtype != "float32")
    model = torch.compile(model, dynamic=False) if compiled else model
    steps, losses, laps = stepping(model, x, mixed), [], []
    while len(laps) < 6 or (sum(laps[1:]) < 1.0 and len(laps) < 60):
        start = time.perf_counter()
        losses.append(next(steps))
        laps.append(time.perf_counter() - start)
    with mixed:
        kept = memory.kept(model, x, x)
    return 1000 * float(np.median(laps[1:])), kept / 1e6, laps[0], losses[:6]


def attempt(name, width, kind):
    """The cost of a way, or None, and why, where this machine cannot go it: compiling needs a compiler."""
    try:
        return cost(width, *WAYS[name], kind)
    except RuntimeError as error:
        print(f"{name} at width {width} is left out: {str(error).strip().splitlines()[0]}")
        return None


def measure(folder, quick):
    """Time of a step and memory for the way back, against the width; what compiling costs before the first
    step; and how far the first losses are from those of float32.
    """
    from common.report import overviews

    kind, lines, firsts = "cuda" if torch.cuda.is_available() else "cpu", [], []
    kernels = tempfile.TemporaryDirectory()                            # none of an earlier run's
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = kernels.name
    cost(32, *WAYS["bfloat16"], kind)                                  # the first step of all loads kernels
    for width in (64,) if quick else (64, 256, 512):
        found = {name: attempt(name, width, kind) for name in WAYS if not (quick and WAYS[name][2])}
        for name, costs in found.items():
            if costs:
                milliseconds, kept, first, losses = costs
                lines += [(f"a step on {kind} (ms)", name, width, milliseconds),
                          ("kept for the way back (MB)", name, width, kept)]
                apart = max(abs(a - b) for a, b in zip(losses, found["float32"][3], strict=True))
                firsts.append((name, width, kind, first, apart))
    overviews.write_table(folder / "first", ["way", "width", "device", "first_step", "apart"], firsts)
    lines.sort(key=lambda line: (line[0], list(WAYS).index(line[1])))
    header, title = ("what", "way", "width", "value"), "What do sixteen bits and a compiler save?"
    return [overviews.scaling(lines, header, ("width of the model", ""), title, folder / "cost")]


VOCABULARY = 1024
WAYS = {                                                               # weights, products, compiled?
    "float32": ("float32", "float32", False),
    "bfloat16": ("float32", "bfloat16", False),
    "bfloat16-weights": ("bfloat16", "bfloat16", False),
    "compiled": ("float32", "float32", True),
    "bfloat16-compiled": ("float32", "bfloat16", True),
}
arms = {
    "float32": Arm(GPT),
    "bfloat16": Arm(GPT, dtype="bfloat16"),
    "bfloat16-weights": Arm(GPT, dtype="bfloat16", weights="bfloat16"),
    "float16": Arm(GPT, on_demand=True, dtype="float16"),              # fast on a GPU only
}
lesson = Lesson(arms, PrecisionSettings(**vars(MICRO_ARCH)), train=train, measure=measure)

if __name__ == "__main__":
    run(lesson)
