"""What is looked at in what a model learns by: first weights, steps of an optimizer, precision, loss."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn

from common.exercises.catalogue import Exercise
from common.exercises.models import given_to
from common.exercises.observation import Observation
from common.exercises.running import V, arms_of, build, small_settings, tensors
from common.exercises.steps import STEPS, ToyData, ToyRecorder
from common.model.gpt import GPT
from common.settings import Settings

# ---- first weights -------------------------------------------------------------------------------


def watch_initialisation(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """How large weights start: those of each arm, and those of a GPT that is drawn anew."""
    arms = arms_of(module, exercise)
    blocks = 3  # with two 1/N would be 1/sqrt(2N)

    def built(arm: str) -> dict[str, float]:
        return _sizes(build(module, exercise, arm, n_embd=72, n_layer=blocks)[0])

    def drawn(std: float, writing: float) -> nn.Module:
        torch.manual_seed(2)
        gpt = GPT(replace(small_settings(module, exercise, arms[0]), n_embd=72, n_layer=blocks), V)
        module.initialise(gpt, std, writing)
        return gpt

    def sizes(std: float, writing: float) -> dict[str, float]:
        return _sizes(drawn(std, writing))

    for arm in arms:
        yield Observation("start", partial(built, arm), 0.1, arm)
    for std, writing in ((0.3, 0.25), (0.1, 1.0)):
        yield Observation("start", partial(sizes, std, writing), 0.1, f"std {std}, writing {writing}")
    yield Observation("distribution", lambda: _spread(drawn(0.3, 0.25)), 0.15)


def _sizes(model: nn.Module) -> dict[str, float]:
    """The root mean square of each parameter."""
    return {name: p.detach().square().mean().sqrt().item() for name, p in model.named_parameters()}


def _spread(model: nn.Module) -> dict[str, object]:
    """Of each large matrix, in widths of its distribution: whether the middle is 0, and the mean of the
    fourth power, which is 3 for a normal distribution.
    """
    large = {name: p.detach() for name, p in model.named_parameters() if p.numel() > 5000}
    unit = {name: p / p.std() for name, p in large.items()}
    return {name: [bool(p.mean().abs() < 0.1), p.pow(4).mean().item()] for name, p in unit.items()}


# ---- optimizers ----------------------------------------------------------------------------------

_GROUPS: dict[str, tuple[dict, dict[str, tuple[int, ...]]]] = {  # its own settings, its parameters
    "turned": ({"lr": 0.05, "weight_decay": 0.1, "orthogonal": True},
               {"wide": (4, 7), "tall": (6, 3), "second wide": (4, 7)}),
    "matrix": ({"lr": 0.05, "weight_decay": 0.1}, {"matrix": (4, 7)}),
    "others": ({"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.3},
               {"vector": (5,), "faint": (5,), "still": (3,)}),
}  # fmt: skip
_STRENGTH = {"faint": 1e-7, "still": 0.0}  # of the gradient; 1 for the others


def _stepped(module: ModuleType, steps: int, chosen: tuple[str, ...]) -> dict[str, Tensor]:
    """Weights after steps of a script's Muon on given gradients, with a rate that falls."""
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    parameters, parts = dict[str, nn.Parameter](), []
    for name in chosen:
        how, shapes = _GROUPS[name]
        own = {name: nn.Parameter(random(*shape)) for name, shape in shapes.items()}
        parts.append({"params": list(own.values()), **how})
        parameters |= own
    optimizer = module.Muon(parts, 0.5, (0.9, 0.99))
    for _ in range(steps):
        for name, p in parameters.items():
            p.grad = _STRENGTH.get(name, 1.0) * (random(*p.shape) + 0.3)
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.8
    return {name: p.detach() for name, p in parameters.items()}


def watch_adamw(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Weights after one step, and after several; of two groups, some with gradients near 0."""
    for steps in (1, 2, 7):
        look = partial(_stepped, module, steps, ("matrix", "others"))
        yield Observation("after", look, what=_times(steps))
    look = partial(_stepped, module, 2, ("turned", "others"))
    yield Observation("both kinds", look, what="a group to make orthogonal, and another")


def watch_muon(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Singular values of what `orthogonal` makes, and weights after steps."""

    def near_one(g: Tensor) -> bool:
        found = module.orthogonal(g).double()
        if not found.isfinite().all():
            return False
        sizes = torch.linalg.svdvals(found)
        return bool((sizes > 0.5).all() and (sizes < 1.3).all())

    def shape(g: Tensor) -> tuple[int, ...]:
        return tuple(module.orthogonal(g).shape)

    def values(g: Tensor) -> Tensor:
        return module.orthogonal(g)

    looks: dict[str, Callable[[Tensor], object]] = {"size": shape, "singular": near_one, "values": values}
    generator = torch.Generator().manual_seed(2)
    for sizes in ((2, 4, 7), (1, 6, 3), (1, 5, 5)):
        g = torch.randn(*sizes, generator=generator, dtype=torch.float64)
        for promise, look in looks.items():
            yield Observation(promise, partial(look, g), what=f"a matrix of {sizes[1]} x {sizes[2]}")
    for steps in (1, 2, 5):
        after = partial(_stepped, module, steps, ("turned", "others"))
        yield Observation("after", after, what=_times(steps))


def _times(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


class _Grouped:
    """The groups that a script's functions divide the parameters of a model into."""

    def __init__(self, module: ModuleType, exercise: Exercise):
        self.module, self.exercise = module, exercise

    def divided(self) -> dict[str, str]:
        model = build(self.module, self.exercise, arms_of(self.module, self.exercise)[0])[0]
        names = {id(p): name for name, p in model.named_parameters()}
        found = {name: list[str]() for name in names.values()}
        for group, parameters in zip(("the first", "the second"), self.module.groups(model), strict=True):
            for p in parameters:
                found[names[id(p)]].append(group)
        return {name: f"in {' and '.join(places) or 'no group'}" for name, places in found.items()}

    def made(self, name: str, matrices: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A model, and the optimizer that the function of this name makes. matrices: only they decay."""
        arm = arms_of(self.module, self.exercise)[0]
        own: dict = {"weight_decay": 0.1, "beta2": 0.95, "lr": 0.02, "decay_matrices": matrices}
        model, s = build(self.module, self.exercise, arm, **own)
        return model, getattr(self.module, name)(model, s)

    def decays(self, name: str, matrices: bool) -> dict[str, str]:
        model, optimizer = self.made(name, matrices)
        said = {id(p): f"decay {group['weight_decay']:g}" + ", orthogonal" * bool(group.get("orthogonal"))
                for group in optimizer.param_groups for p in group["params"]}  # fmt: skip
        return {name: said.get(id(p), "in no group") for name, p in model.named_parameters()}

    def rates(self, name: str, matrices: bool) -> list[float]:
        found = self.made(name, matrices)[1].param_groups
        return sorted({float(rate) for group in found for rate in (group["lr"], *group["betas"])})

    def after(self, name: str, matrices: bool) -> dict[str, Tensor]:
        """Weights after a step on given gradients."""
        model, optimizer = self.made(name, matrices)
        generator = torch.Generator().manual_seed(4)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
        return {name: p.detach() for name, p in model.named_parameters()}


def watch_groups(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """In which group each parameter is, with what decay; rate and betas; and one step."""
    grouped = _Grouped(module, exercise)
    yield Observation("groups", grouped.divided)
    for name, matrices in (("adamw", False), ("adamw", True), ("muon", False)):
        said = name + ", decay of matrices only" * matrices
        yield Observation("decays", partial(grouped.decays, name, matrices), what=said)
        yield Observation("rate and betas", partial(grouped.rates, name, matrices), what=said)
        yield Observation("after", partial(grouped.after, name, matrices), 1e-5, said)


# ---- precision -----------------------------------------------------------------------------------


class _TypeRecorder(ToyRecorder):
    """Notes the type of losses too, and takes up a state as a run does that goes on."""

    def __init__(self, state: dict[str, object]):
        super().__init__(STEPS)
        self.earlier, self.types = state, set[str]()

    def steps(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[int]:
        self.state |= self.earlier
        yield from super().steps(model, optimizer)

    def record(self, loss) -> None:
        self.types.add(_type(loss))
        super().record(loss)


def _type(x: object) -> str:
    return str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else type(x).__name__


class _Mixed:
    """A short run of a script's own training in the precision of an arm, made when first asked about."""

    def __init__(self, module: ModuleType, exercise: Exercise, arm: str, state: dict[str, object]):
        self.module, self.exercise, self.arm, self.state = module, exercise, arm, state
        self.done: dict[str, object] = {}

    def look(self, what: str) -> object:
        if not self.done:
            model, s = build(self.module, self.exercise, self.arm, steps=STEPS, warm_up=2, dropout=0.0)
            with torch.no_grad():
                for name, own in tensors(model).items():
                    own.copy_(given_to(self.exercise, self.arm)[name])
            recorder, answers = _TypeRecorder(self.state), set[str]()
            model.register_forward_hook(lambda model, args, logits: answers.add(_type(logits)))
            self.module.lesson.train(model, ToyData(s, one_target=False), s, recorder)
            weights = {_type(p) for p in model.parameters()}
            types = {"weights": weights, "answers": answers, "losses": recorder.types}
            self.done = {"losses": recorder.losses, "rates": recorder.rates}
            self.done["types"] = {name: " and ".join(sorted(found)) for name, found in types.items()}
            self.done["after"] = {name: p.detach().clone() for name, p in tensors(model).items()}
            self.done["scaler"] = recorder.state.get("scaler", {})
        return self.done[what]


def watch_precision(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Losses, types of weights and answers, and the scaler of float16, which also goes on from a state."""
    for arm in arms_of(module, exercise):
        run, exact = _Mixed(module, exercise, arm, {}), arm == "float32"
        yield Observation("types", partial(run.look, "types"), what=arm)
        yield Observation("losses", partial(run.look, "losses"), 1e-4 if exact else 2e-3, arm)
        yield Observation("rates", partial(run.look, "rates"), what=arm)
        if exact:
            yield Observation("after", partial(run.look, "after"), 1e-3, arm)
    # a CPU can go through float16 too, if slowly; only there the scaler has something to do
    scale = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 4}
    states: dict[str, dict[str, object]] = {
        "": {},
        ", gone on with": {"scaler": scale | {"_growth_tracker": 2}},
    }
    for said, earlier in states.items():
        run = _Mixed(module, exercise, "float16", earlier)
        yield Observation("types", partial(run.look, "types"), what=f"float16{said}")
        yield Observation("losses", partial(run.look, "losses"), 2e-3, f"float16{said}")
        yield Observation("scaler", partial(run.look, "scaler"), what=f"float16{said}")


# ---- loss ----------------------------------------------------------------------------------------


def watch_loss(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What is reported and what is wanted, with the gradient of the latter; and logits under a cap."""
    generator = torch.Generator().manual_seed(6)
    logits = 3 * torch.randn(7, V, generator=generator, dtype=torch.float64)
    y = torch.randint(V, (7,), generator=generator)
    x = 4 * torch.randn(2, 5, 24, generator=generator, dtype=torch.float64)
    table = torch.randn(V, 24, generator=generator, dtype=torch.float64)

    def settings(**own) -> Settings:
        return replace(small_settings(module, exercise, arms_of(module, exercise)[0]), **own)

    def losses(own: dict) -> dict[str, Tensor]:
        given = logits.clone().requires_grad_()
        reported, wanted = module.loss_of(given, y, settings(**own))
        wanted.backward()
        return {"reported": reported, "wanted": wanted, "gradient": given.grad}

    def capped(cap: float) -> dict[str, Tensor]:
        token = nn.Embedding.from_pretrained(table.clone(), freeze=False)
        found = module.CappedHead(settings(soft_cap=cap), token)(x)
        found.square().sum().backward()
        grad = token.weight.grad
        return {"logits": found, "gradient": torch.zeros(()) if grad is None else grad}

    nothing = {"label_smoothing": 0.0, "z_loss": 0.0}
    for own in ({}, {"label_smoothing": 0.2}, {"z_loss": 0.1}, {"label_smoothing": 0.3, "z_loss": 0.02}):
        said = ", ".join(f"{name} {size}" for name, size in own.items()) or "nothing asked for besides"
        yield Observation("asked", partial(losses, nothing | own), what=said)
    for cap in (0.0, 5.0, 50.0):
        yield Observation("capped", partial(capped, cap), what=f"a cap of {cap:g}" if cap else "no cap")
