"""What a script would run: its header, its arms, its settings and hooks, read by importing it."""

import hashlib
import importlib.util
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from common import config_file
from common.command_line import parse
from common.configuration import Reading, config_hash
from common.data import text_data
from common.data.tokenizer import identity
from common.errors import UserError
from common.lessons.fingerprint import asked, fingerprint
from common.lessons.header import Header, read_header
from common.settings import ARCHITECTURE, RECIPE, Arm, Lesson, NamesSettings, PartSettings, Settings
from common.training.loop import train


@dataclass(frozen=True)
class Plan:
    """What a script hands to `run()`."""

    script: Path
    header: Header
    arms: dict[str, Callable[[Settings, int], nn.Module]]
    defaults: Settings
    load: Callable
    train: Callable
    picture: Callable | None
    probe: Callable | None = None
    overview: Callable | None = None
    measure: Callable | None = None
    presets: dict = field(default_factory=dict)
    quick: dict = field(default_factory=dict)
    scores: Callable | None = None
    describe: Callable | None = None
    arguments: Callable | None = None
    bare: Settings | None = None
    """What a file of --config changes, if not the defaults."""

    @property
    def experiment(self) -> str:
        return self.header.experiment

    def name(self, arm: str) -> str:
        """What a run of an arm is called: `08_micro_arch/norm:rmsnorm`."""
        return self.experiment if arm == "default" else f"{self.experiment}:{arm}"

    @property
    def course_arms(self) -> list[str]:
        """The arms that are trained when none is named."""
        return [name for name, arm in self.arms.items() if not getattr(arm, "on_demand", False)]

    def settings(self, flags: str = "") -> Settings:
        """The settings of the course's run with these flags. Raises UserError."""
        if not flags:
            return self.defaults
        try:
            words = shlex.split(flags)
        except ValueError as error:
            said = str(error).lower()
            raise UserError(f"{self.experiment} {flags}: {said}; write a quotation mark in pairs") from None
        return parse(self.defaults, "", words, self.presets, bare=self.bare)[0]

    def small(self) -> tuple[dict, list[str]]:
        """What --quick changes, and the arms it trains: what the script says, else a tenth of the steps and
        the same arms.

        A warm-up is shorter by as much as the run is; an arm's own, which is what it is about, stays as it
        is.
        """
        changed = {k: v for k, v in self.quick.items() if k != "arms"}
        if not self.quick and all(map(self.trains, self.arms)):
            changed = {"steps": max(1, self.defaults.steps // 10)}
        if self.defaults.warm_up:
            changed = {"warm_up": self._shorter(self.defaults.warm_up)} | changed
        return changed, list(self.quick.get("arms", self.course_arms))

    def _shorter(self, warm_up: int) -> int:
        return warm_up * self.quick.get("steps", self.defaults.steps // 10) // self.defaults.steps

    def own(self, arm: str, s: Settings) -> Settings:
        """The settings with those that are an arm's own; its warm-up no longer than the run."""
        resolved = replace(s, **getattr(self.arms[arm], "settings", {}))
        if resolved.warm_up != s.warm_up and 0 < resolved.steps <= resolved.warm_up and not resolved.seconds:
            return replace(resolved, warm_up=resolved.warm_up * resolved.steps // self.defaults.steps)
        return resolved

    def at_rate(self, arm: str, lr: float) -> "Plan":
        """The same with another learning rate for one arm."""
        old = self.arms[arm]
        settings = getattr(old, "settings", {}) | {"lr": lr}
        return replace(self, arms=self.arms | {arm: Arm(getattr(old, "model", old), **settings)})

    def reads(self, arm: str, s: Settings) -> set[str]:
        """The settings that the model of an arm asks for."""
        build = self.arms[arm]
        return set(_read_by(getattr(build, "model", build), replace(self.own(arm, s), lr=1.0, steps=1)))

    def trains(self, arm: str) -> bool:
        """Whether the model of an arm has parameters; one that only counts has none."""
        return _has_parameters(self.arms[arm], self.defaults)

    def ignores(self, arm: str, s: Settings) -> set[str]:
        """The settings that make no difference to this arm: parts its model does not have, steps where
        nothing is trained.
        """
        counted = (
            set() if self.trains(arm) else {"steps", "seconds", "batch_size", "lr", "init_from", *RECIPE}
        )
        own_loop = set()
        if self.train.__module__ != "common.training.loop":
            own_loop = {"dtype", "seconds", *RECIPE} - asked(self.train)
        if isinstance(self.defaults, NamesSettings):
            own_loop |= {"tokenizer"}  # names are read letter by letter
        return set(ARCHITECTURE) - self.reads(arm, s) - {"block_size"} | counted | own_loop

    def unused(self) -> set[str]:
        """The settings and options that this script has no use for, whatever the arm."""
        ignored = [
            self.ignores(arm, self.defaults) | getattr(build, "settings", {}).keys()
            for arm, build in self.arms.items()
        ]
        has = {
            "preset": self.presets,
            "config": isinstance(self.defaults, PartSettings),
            "arms": len(self.arms) > 1,
            "measure": self.measure,
            "predict": self.header.previous,
            "trackio": "dashboard" in asked(self.train),
            "parallel": "group" in asked(self.train),
            **dict.fromkeys(("device", "threads", "check"), any(map(self.trains, self.arms))),
        }
        return set.intersection(*ignored) | {name for name, used in has.items() if not used}

    def code(self, arm: str) -> str:
        """The fingerprint of all that decides what a run of this arm computes, but settings and seed."""
        return _code_of(getattr(self.arms[arm], "model", self.arms[arm]), self.load, self.train)

    @property
    def scores_code(self) -> str:
        """The fingerprint of the script's own scores, apart from the run that they are of."""
        return fingerprint([self.scores], ())

    def config(self, arm: str, s: Settings, corpus: str | None = None) -> str:
        resolved = self.own(arm, s)
        return config_hash(
            replace(resolved, tokenizer=identity(resolved.tokenizer)), self.reads(arm, s), corpus
        )


@cache
def _code_of(build: Callable, load: Callable, train: Callable) -> str:
    return fingerprint([build, load, train])


class Uninitialised(TorchFunctionMode):
    """Within it a module leaves its weights as they come: nothing of `torch.nn.init` is done."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@cache
def _has_parameters(build: Callable, s: Settings) -> bool:
    with torch.device("meta"), Uninitialised():
        return any(True for _ in build(s, 65).parameters())


@cache
def _read_by(build: Callable, s: Settings) -> frozenset[str]:
    """The settings that a model asks for while it is built; asked once, as building takes time, whatever the
    rate and the steps.
    """
    reading = Reading(s)
    with torch.device("meta"), Uninitialised():
        build(reading, 65)
    return frozenset(reading.names)


def plan_of(script: Path, lesson: Lesson | None) -> Plan:
    """What a script would run.

    A script that is a program, which trains nothing by default, has no lesson and no arms.
    """
    header = read_header(script)
    if lesson is None:
        return Plan(script, header, {}, Settings(), text_data, train, None)
    arms = lesson.model if isinstance(lesson.model, dict) else {"default": lesson.model}
    bare = lesson.settings
    defaults = replace(bare, **config_file.read(lesson.config, bare)) if lesson.config else bare
    return Plan(
        script, header, arms, defaults, lesson.load or text_data, lesson.train or train,
        lesson.picture, lesson.probe,
        lesson.overview, lesson.measure, lesson.presets, lesson.quick, lesson.scores, lesson.describe,
        lesson.arguments, bare,
    )  # fmt: skip


def plan(script: Path) -> Plan:
    """Import a script and read what it would run. Raises UserError if it says nothing of that."""
    name = f"stage_{script.stem}_{hashlib.sha256(str(script).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec and spec.loader  # a file that ends with .py has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a class is asked for the file that it comes from
    spec.loader.exec_module(module)
    if not hasattr(module, "lesson"):
        raise UserError(
            f"{script} has no `lesson`; end it with lesson = Lesson(Model), or lesson = None for a program"
        )
    return plan_of(script, module.lesson)


def build_model(
    build: Callable, s: Settings | Reading, vocab_size: int, seed: int, device: str = "cpu"
) -> nn.Module:
    """The untrained model of a run: the seed decides its weights."""
    torch.manual_seed(seed)
    return build(s, vocab_size).to(device)
