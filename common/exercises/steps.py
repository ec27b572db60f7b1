"""What is looked at in training loops and schedules."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn

from common.exercises.catalogue import Exercise
from common.exercises.models import given_to
from common.exercises.observation import Observation
from common.exercises.running import V, arms_of, build, ids, one_target, tensors, with_given_weights
from common.settings import Settings

STEPS = 6


class ToyData:
    """A text of random tokens, cut into windows as those of the course are."""

    def __init__(self, s: Settings, one_target: bool):
        self.s, self.one_target, self.device, self.batch_size = s, one_target, "cpu", s.batch_size
        self.tokenizer = SimpleNamespace(vocab_size=V)
        generator = torch.Generator().manual_seed(11)
        # some tokens are rare, so that pairs come several times and not at all
        share = torch.arange(1, V + 1) ** 2.0
        self.train = SimpleNamespace(tokens=torch.multinomial(share, 500, True, generator=generator))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        x = ids(self.s, self.s.batch_size, seed=100 + step)
        y = ids(self.s, self.s.batch_size, seed=200 + step)
        return x, y[:, 0] if self.one_target else y


class ToyRecorder:
    """Counts the steps, and notes losses and learning rates."""

    def __init__(self, steps: int):
        self.count, self.losses = steps, list[float]()
        self.rates, self.state = list[list[float]](), dict[str, object]()
        self.optimizer: torch.optim.Optimizer | None = None

    def steps(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[int]:
        self.optimizer = optimizer
        yield from range(self.count)

    def record(self, loss) -> None:
        self.losses.append(float(loss.detach() if isinstance(loss, Tensor) else loss))
        if self.optimizer is not None:
            self.rates.append([float(group["lr"]) for group in self.optimizer.param_groups])


class Training:
    """A short run of a script's own training, made when first asked about."""

    def __init__(self, module: ModuleType, exercise: Exercise, arm: str):
        self.module, self.exercise, self.arm = module, exercise, arm
        self.done: dict[str, object] = {}

    def look(self, what: str) -> object:
        if not self.done:
            model, s = build(self.module, self.exercise, self.arm, steps=STEPS, warm_up=2, dropout=0.0)
            model = with_given_weights(model, given_to(self.exercise, self.arm))
            recorder = ToyRecorder(STEPS)
            self.module.lesson.train(model, ToyData(s, one_target(s)), s, recorder)
            self.done = {"losses": recorder.losses, "rates": recorder.rates}
            self.done["after"] = {name: p.detach().clone() for name, p in tensors(model).items()}
        return self.done[what]


def watch_training(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What the script's own training does to a model with given weights: losses, rates, weights after it."""
    arms = arms_of(module, exercise)
    for arm in arms:
        run, said = Training(module, exercise, arm), arm if len(arms) > 1 else ""
        for what, tolerance in (("losses", 1e-5), ("rates", 1e-6), ("after", 1e-5)):
            yield Observation(what, partial(run.look, what), tolerance, said)


def watch_schedule(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """The learning rate of each step of a run, with a warm-up and without, for each schedule."""

    def rates(s: Settings) -> list[float]:
        return [float(module.learning_rate(step, s)) for step in range(s.steps)]

    for name in module.SCHEDULES:
        for steps, warm_up in ((50, 10), (20, 0)):
            s = replace(module.SETTINGS, steps=steps, warm_up=warm_up, lr=0.5, schedule=name)
            what = f"{name}, {warm_up} of {steps} steps to warm up"
            yield Observation("rates", partial(rates, s), what=what)
