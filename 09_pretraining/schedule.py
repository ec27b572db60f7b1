"""Schedule: the learning rate is a function of the step, and the end of a run wants a small one.

Previous : 09_pretraining/init.py
Changes  : constant, cosine, linear, stable_decay, learning_rate, train, overview
Idea     : rise over the first steps, while AdamW knows little of the gradients; fall towards the end, so that
           the noise of single batches averages out
Teaches  : nn.utils
Source   : Vaswani et al. 2017, arXiv:1706.03762 (warm-up); Loshchilov and Hutter 2017, arXiv:1608.03983
           (cosine); Bergsma et al. 2025, arXiv:2502.15938 (a straight line to zero); Hu et al. 2024,
           arXiv:2404.06395 (warm-up, stable, decay)
Expect   : at its own rate each is better with a warm-up; a rate that falls wins by more the longer the run,
           and takes a higher peak; cosine, line and late decay within a hundredth of a bit
Seeds    : 1 2 3 4 5
Stairs   : none
"""

import math
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, ScheduleSettings


def constant(done):
    return 1.0


def cosine(done):
    return 0.5 * (1 + math.cos(math.pi * done))


def linear(done):
    return 1 - done


def stable_decay(done):
    """Constant, and a straight line to zero over the last fifth: a run can be made longer until then."""
    return min(1.0, 5 * (1 - done))


def learning_rate(step, s):
    """The rate of a step: the peak, times the share that the warm-up allows, times that of the schedule.

    A schedule is asked for the share of the steps after the warm-up that are done: 0 to 1.
    """
    rising = min(1.0, (step + 1) / (s.warm_up + 1))
    done = max(0, step - s.warm_up) / (s.steps - s.warm_up)
    return s.lr * rising * SCHEDULES[s.schedule](done)


def train(model, data, s, recorder):
    """The loop of the course; what is new is that each step sets its rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.lr, betas=(0.9, s.beta2), fused=True)
    for step in recorder.steps(model, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, s)                       # before the step, from the step alone
        x, y = data.batch(step)                                        # (B, T), (B, T)
        loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        if s.clip:
            nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        optimizer.step()
        recorder.record(loss)


def overview(results, folder):
    """Draw the schedules; and test bits per character against the length of the run."""
    from common.report import overviews

    own = {name: replace(SETTINGS, **arms[name].settings) for name in KINDS}
    rates = [("", name, step, learning_rate(step, s))
             for name, s in own.items() for step in range(0, s.steps + 1, 15)]
    header, title = ("panel", "schedule", "step", "rate"), "What is the learning rate of each step?"
    labels = ("step", "learning rate")
    drawn = [overviews.scaling(rates, header, labels, title, folder / "rates", "linear")]
    marks = [overviews.Mark(r.row["arm"].removesuffix("-half").removesuffix("-twice"), r.row["steps"],
                            r.row["test_bpc"], r.row)
             for r in results if not r.row["diverged"]]
    labels, title = ("steps", "test, bits per character"), "How should a run end, and does its length matter?"
    return drawn + (marks and [overviews.points(marks, labels, title, folder / "bits")])


SETTINGS = ScheduleSettings(**vars(MICRO_ARCH))
SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear, "stable-decay": stable_decay}
KINDS = {                                                              # rates: the best of a sweep
    "constant": {"warm_up": 0, "lr": 2e-3},
    "warm-up": {"lr": 4e-3},
    "warm-up-cosine": {"schedule": "cosine", "lr": 4e-3},
    "warm-up-linear": {"schedule": "linear", "lr": 4e-3},
    "warm-up-stable-decay": {"schedule": "stable-decay", "lr": 4e-3},
}
arms = {f"{name}{length}": Arm(GPT, **own, **({"steps": steps} if length else {}))
        for length, steps in (("", 600), ("-half", 300), ("-twice", 1200)) for name, own in KINDS.items()}
lesson = Lesson(arms, SETTINGS, train=train, overview=overview, quick={"steps": 120, "arms": [*KINDS]})

if __name__ == "__main__":
    run(lesson)
