"""Ablation: seven runs that say what each part of a modern recipe is worth, alone and all together.

Previous : 09_pretraining/decay.py
Changes  : name, spelled_out, load, train, sum_of_parts, overview
Idea     : everything equal but one part: positions that turn (-r), a gated feed-forward (-s), another norm
           (-n), a warm-up (-w), a warm-up and a cosine (-c); nothing (-b), or all of it (-a)
Source   : the parts as in their scripts; Meyes et al. 2019, arXiv:1901.08644 (ablation studies of networks)
Expect   : RoPE brings most, then the cosine; RMSNorm nothing; all together about the sum of the parts
Seeds    : 1 2 3 4 5
Stairs   : none
"""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.data import text_data
from common.data.tokens import prepared_data
from common.errors import UserError
from common.model import assemble
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, PartSettings
from common.training.loop import learning_rate
from common.training.loss_log import LossLog

PARTS = {
    "r": ("rope", {"position": "rope"}),
    "s": ("swiglu", {"feed_forward": "swiglu"}),                       # of equal parameters
    "n": ("rmsnorm", {"norm": "rmsnorm"}),
    "w": ("warm-up", {"warm_up": 60}),
    "c": ("warm-up-cosine", {"warm_up": 60, "cosine": True}),
}
SEVEN = ("baseline", "rope", "swiglu", "rmsnorm", "warm-up", "warm-up-cosine", "all")


def name(letters):
    """What a run of these parts is called: `rope+rmsnorm`."""
    if set(letters) == set("rsnc"):
        return "all"
    return "+".join(PARTS[letter][0] for letter in PARTS if letter in letters) or "baseline"


def spelled_out(arguments):
    """-b baseline, -r RoPE, -s SwiGLU, -n RMSNorm, -w warm-up, -c warm-up and cosine, -a all of them; several
    (-r -n -w) make one run; none, or --all-runs, make the seven: these alone, and -b and -a. --data DIR:
    token files that prepare.py made.
    """
    flags = {f"-{letter}" for letter in "brsnwca"}
    letters, rest = [a[1] for a in arguments if a in flags], [a for a in arguments if a not in flags]
    alone = next((letter for letter in "ab" if letter in letters and set(letters) != {letter}), None)
    if alone:
        means = "all parts: -r -s -n -c" if alone == "a" else "the baseline, without any part"
        other = next(letter for letter in letters if letter != alone)
        raise UserError(f"-{alone} is {means}; leave it out, or leave -{other} out")
    if {"w", "c"} <= set(letters):
        raise UserError("-c is a warm-up and a cosine, so -w is in it; leave -w out")
    if letters and ("--all-runs" in rest or "--arms" in rest):
        raise UserError(f"-{letters[0]} chooses one run, and --all-runs or --arms others; give one of them")
    if "--data" in rest and "--tokenizer" in rest:
        raise UserError("--data names token files, which have their tokenizer; leave --tokenizer out")
    rest = ["--corpus" if a == "--data" else a for a in rest if a != "--all-runs"]
    chosen = set("rsnc") if "a" in letters else set(letters) - {"b"}
    return [*rest, "--arms", name(chosen)] if letters else rest


def load(s, device="cpu", tokenizer=None):
    """A text of the course; or token files, with the tokenizer that made them."""
    folder = Path(s.corpus)
    return prepared_data(folder, s, device) if folder.is_dir() else text_data(s, device, tokenizer)


def train(model, data, s, recorder):
    """The loop of the course; each step writes its loss into a file that can be drawn without training."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.lr, betas=(0.9, s.beta2), fused=True)
    log = LossLog(recorder.folder / "losses" / f"{recorder.state['arm']}.csv")
    for step in recorder.steps(model, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(s, step)
        x, y = data.batch(step)                                        # (B, T), (B, T)
        loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        if s.clip:
            nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        optimizer.step()
        log.add(step, loss.item())
        recorder.record(loss)
    log.close()


def sum_of_parts(results):
    """(what, mean, half of the 95 % interval), bits per character: all parts together, the sum of what each
    brings alone, and what the two differ by, seed by seed.
    """
    from common.results.statistics import interval

    bits = {arm: {r.row["seed"]: r.row["test_bpc"] for r in results if r.row["arm"] == arm} for arm in SEVEN}
    seeds = [seed for seed in bits["baseline"] if all(bits[arm].get(seed) for arm in SEVEN)]
    gains = {arm: np.array([bits[arm][seed] - bits["baseline"][seed] for seed in seeds]) for arm in SEVEN}
    parts = sum(gains[arm] for arm in ("rope", "swiglu", "rmsnorm", "warm-up-cosine"))
    lines = {"all": gains["all"], "sum of the parts": parts, "all minus the sum": gains["all"] - parts}
    return [(what, (i := interval(values)).mean, i.half) for what, values in lines.items()] if seeds else []


def overview(results, folder):
    """Draw the losses of all runs overlaid, in a grid, and each alone; and compare all parts with their sum.
    """
    from common.report import ablations, overviews

    lines = [line for r in results for line in ablations.kept_losses(r.row)]
    overviews.write_table(folder / "sum", ["what", "mean", "half"], sum_of_parts(results))
    if not lines:
        return []
    for arm in dict.fromkeys(line[0] for line in lines):
        ablations.single([line for line in lines if line[0] == arm], folder / "single" / arm)
    return [ablations.comparison(lines, "What does each part change?", folder / "training_comparison"),
            ablations.grid(lines, "Each part beside the baseline", folder / "individual_grid")]


SETTINGS = replace(PartSettings(**vars(MICRO_ARCH)), warm_up=0)
PILE = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 512, "batch_size": 16, "lr": 5e-6,
        "tokenizer": "gpt2", "steps": 250_000}
subsets = [letters for size in range(5) for letters in combinations("rsnwc", size)
           if not {"w", "c"} <= set(letters)]                          # 24; seven of them are the study
arms = {name(letters): Arm(assemble, name(letters) not in SEVEN,
                           **{k: v for letter in letters for k, v in PARTS[letter][1].items()})
        for letters in sorted(subsets, key=lambda letters: name(letters) == "all")}
lesson = Lesson(arms, SETTINGS, load=load, train=train, overview=overview, presets={"pile": PILE},
                arguments=spelled_out, quick={"steps": 150, "arms": [*SEVEN]})

if __name__ == "__main__":
    run(lesson)
