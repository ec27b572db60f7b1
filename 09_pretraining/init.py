"""Initialisation: how large the weights begin decides what the first steps can do.

Previous : 08_micro_arch/assemble.py
Changes  : initialise, model, sizes, probe, overview
Idea     : every matrix starts from a normal distribution of one width; those that write to the stream start
           smaller the more of them there are, or at zero
Source   : Radford et al. 2019 (GPT-2: 0.02, and 1/sqrt(N) for what writes to the stream); Zhang et al. 2019,
           arXiv:1901.09321 (zero at the end of each branch); Glorot and Bengio 2010, PMLR 9 (what a depth
           does to sizes)
Expect   : a first loss of ln V where weights are small, and far more where they are large; at 4 blocks a
           factor of ten either way costs little after 600 steps, too large more than too small; at 16
           blocks what writes to the stream has to start small
Seeds    : 1 2 3 4 5
Stairs   : none
"""

import math
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson


def initialise(model, std, writing):
    """Draw every matrix anew: std is the width of the distribution, times `writing` for what writes to the
    stream.
    """
    writers = {id(part.weight) for part in model.modules() if getattr(part, "writes_to_stream", False)}
    for weight in model.parameters():
        if weight.ndim == 2:                                           # norms keep their ones and zeros
            nn.init.normal_(weight, std=std * (writing if id(weight) in writers else 1.0))


def model(s, vocab_size, std=0.02, writing=None):
    """A GPT with such weights. writing: None for 1 / sqrt(2 N), as each of N blocks writes twice."""
    gpt = GPT(s, vocab_size)
    initialise(gpt, std, 1 / math.sqrt(2 * s.n_layer) if writing is None else writing)
    return gpt


def probe(model, x, y):
    """For each block: how large the numbers are that it hands on (root mean square), and the norm of its
    gradient.
    """
    sizes = []
    hooks = [block.register_forward_hook(lambda _, __, out: sizes.append(out.square().mean().sqrt().item()))
             for block in model.blocks]
    F.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    for hook in hooks:
        hook.remove()
    norms = [torch.stack([p.grad.norm() for p in block.parameters()]).norm().item() for block in model.blocks]
    return {"size of the stream": sizes, "norm of the gradient": norms}


def overview(results, folder):
    """List the first losses; and draw, for the deepest models, size and gradient of each block before the
    first step and after the last.
    """
    from common.report import overviews

    kept = [r for r in results if not r.row["diverged"]]
    first = [(r.row["arm"], r.row["seed"], r.curve[0][2], math.log(r.row["vocab_size"]), r.row["test_bpc"])
             for r in kept]
    overviews.write_table(folder / "first", ["arm", "seed", "first_loss", "ln_V", "test_bpc"], first)
    deepest = [r for r in kept if r.row["n_layer"] == max(r.row["n_layer"] for r in kept)]
    if not deepest:
        return []
    paths = []
    for at, when in ((0, "before the first step"), (-1, "after the last step")):
        lines = []
        for what, arm in product(deepest[0].probes[0][1], dict.fromkeys(r.row["arm"] for r in deepest)):
            values = np.array([r.probes[at][1][what] for r in deepest if r.row["arm"] == arm])
            lines += [(what, arm, layer, value) for layer, value in enumerate(values.mean(axis=0), 1)]
        header, title = ("what", "arm", "block", "value"), f"What passes through the blocks {when}?"
        path = folder / when.split()[0]
        paths.append(overviews.scaling(lines, header, ("block", ""), title, path, "linear"))
    return paths


DEEP = 16
KINDS = {
    "gpt2": {},
    "unscaled": {"writing": 1.0},                                      # what writes starts like all others
    "zero": {"writing": 0.0},                                          # a block begins as nothing at all
    "small": {"std": 0.002},
    "large": {"std": 0.2},
}
arms = {name: Arm(partial(model, **how)) for name, how in KINDS.items()}
arms |= {f"{name}-16": Arm(partial(model, **how), n_layer=DEEP, steps=150, warm_up=15)
         for name, how in KINDS.items()}
lesson = Lesson(arms, MICRO_ARCH, probe=probe, overview=overview, quick={"steps": 100, "arms": [*KINDS]})

if __name__ == "__main__":
    run(lesson)
