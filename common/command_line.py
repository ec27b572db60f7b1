"""What a script refuses before it begins: arms and devices that are not there, settings that do not fit together or do nothing."""

import sys
from pathlib import Path

import torch

from common.errors import UserError, nearest
from common.lesson import Plan
from common.parsing import flag
from common.settings import Options, Settings


def chosen_arms(plan: Plan, options: Options, usual: list[str]) -> list[str]:
    for arm in options.arms:
        if arm not in plan.arms:
            raise UserError(f"arm {arm!r} is not known{nearest(arm, plan.arms)}; the arms of {plan.experiment}: {', '.join(plan.arms)}")
    return [arm for arm in plan.arms if arm in (options.arms or usual)]


def device(plan: Plan, name: str) -> str:
    if not any(plan.trains(arm) for arm in plan.arms):
        if name not in ("auto", "cpu"):
            raise UserError(f"--device {name} does nothing in {plan.experiment}: counting is done on the CPU; leave it out")
        return "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(d for d in ("cuda", "mps", "cpu") if available[d])
    if not available[name]:
        raise UserError(
            f"--device {name} is not available on this machine; use {' or '.join(d for d, there in available.items() if there)}"
        )
    return name


def check_settings(plan: Plan, arm: str, s: Settings) -> None:
    """Refuse sizes that do not fit together, and settings that the model of this script would silently ignore."""
    own = plan.own(arm, s)
    if {"n_embd", "n_head"} <= plan.reads(arm, plan.defaults) and own.n_embd % own.n_head:
        raise UserError(f"--n-embd {own.n_embd} is not divisible by --n-head {own.n_head}; each head takes an equal share of the width")
    kv_heads = own.n_kv_head if "n_kv_head" in plan.reads(arm, plan.defaults) else 0
    if kv_heads and own.n_head % kv_heads:
        raise UserError(f"--n-head {own.n_head} is not divisible by {kv_heads} heads of keys and values; each is shared by equally many")
    try:
        plan.reads(arm, s)
    except ValueError as error:  # so a part says that it cannot be built with such settings
        raise UserError(str(error)) from None
    if s.init_from and s.tokenizer != plan.defaults.tokenizer:
        raise UserError("--tokenizer does nothing with --init-from, which brings the tokenizer of that run; leave one of them out")
    given = {
        argument.partition("=")[0].strip("-").split(".")[-1].replace("-", "_") for argument in sys.argv[1:] if argument.startswith("--")
    }
    if own.seconds and "steps" in given:
        raise UserError(f"--steps does nothing in {plan.experiment}:{arm}, which trains for {own.seconds:g} seconds; leave it out")
    for name in getattr(plan.arms[arm], "settings", {}):
        if name in given:
            raise UserError(f"{flag(name)} does nothing in {plan.experiment}: each of its arms has its own; choose with --arms")
    for name in sorted(plan.ignores(arm, s) & vars(s).keys()):
        if getattr(s, name) != getattr(plan.defaults, name):
            raise UserError(f"{flag(name)} does nothing in {plan.experiment}: it has no use for it; leave it out")


def check_clone(script: Path, root: Path) -> None:
    """Raise UserError for a script of another copy of the course than the one that `common` is imported from."""
    own = script.parents[1]
    if own != root and (own / "common" / "run.py").is_file():
        raise UserError(
            f"{script} belongs to the course in {own}, but `common` is imported from {root}, where its results would go; "
            f"run `pip install -e {own}` first"
        )
