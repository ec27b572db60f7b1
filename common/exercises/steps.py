"""What is looked at in training loops, optimizers and schedules."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn

from common.exercises.catalogue import Exercise
from common.exercises.models import given_to
from common.exercises.observation import Observation
from common.exercises.running import V, arms_of, build, ids, tensors, with_given_weights
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
            self.module.lesson.train(model, ToyData(s, "names" in type(s).__name__.lower()), s, recorder)
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


def _problem(module: ModuleType, orthogonal: bool, steps: int) -> dict[str, Tensor]:
    """Some weights after steps of the optimizer on gradients that are given."""
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = {"wide": random(4, 7), "tall": random(6, 3), "second wide": random(4, 7)}
    weights |= {} if orthogonal else {"vector": random(5)}
    parameters = {name: nn.Parameter(weight) for name, weight in weights.items()}
    part = {"params": list(parameters.values()), "weight_decay": 0.1, "orthogonal": orthogonal}
    optimizer = module.Muon([part], 0.05, (0.9, 0.99))
    for _ in range(steps):
        for p in parameters.values():
            p.grad = random(*p.shape) + 0.3
        optimizer.step()
    return {name: p.detach() for name, p in parameters.items()}


def watch_adamw(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Weights after one step, and after several."""
    for steps in (1, 2, 7):
        yield Observation("after", partial(_problem, module, False, steps), what=f"{steps} steps")


def watch_muon(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Singular values of what `orthogonal` makes, and weights after steps."""

    def near_one(g: Tensor) -> bool:
        sizes = torch.linalg.svdvals(module.orthogonal(g))
        return bool((sizes > 0.5).all() and (sizes < 1.3).all())

    def shape(g: Tensor) -> tuple[int, ...]:
        return tuple(module.orthogonal(g).shape)

    def values(g: Tensor) -> Tensor:
        return module.orthogonal(g)

    generator = torch.Generator().manual_seed(2)
    for sizes in ((2, 4, 7), (1, 6, 3), (1, 5, 5)):
        g = torch.randn(*sizes, generator=generator, dtype=torch.float64)
        for promise, look in (("size", shape), ("singular", near_one), ("values", values)):
            yield Observation(promise, partial(look, g), what=f"a matrix of {sizes[1]} x {sizes[2]}")
    for steps in (1, 2, 5):
        yield Observation("after", partial(_problem, module, True, steps), what=f"{steps} steps")
