"""The command line of a script: flags, a preset, a YAML file; and refusing what cannot be meant
before anything begins.
"""

import dataclasses
import shlex
import sys
import typing
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import tyro

from common import config_file
from common.errors import UserError, nearest
from common.parsing import flag, parse_as
from common.settings import KINDS, Options, PartSettings, Settings

if TYPE_CHECKING:
    from common.lessons.plan import Plan


NOT_BELOW_ZERO = (
    "warm_up", "weight_decay", "clip", "seconds", "z_loss", "soft_cap", "table_lr", "pair_decay",
)  # fmt: skip
COUNTS = "steps", "batch_size", "block_size", "n_embd", "n_head", "n_layer", "accumulate", "n_bigram"


def parse(
    defaults: Settings,
    description: str,
    arguments: list[str] | None = None,
    presets: dict | None = None,
    quick: dict | None = None,
    bare: Settings | None = None,
    hidden: Collection[str] = (),
) -> tuple[Settings, Options]:
    """Settings and options from the command line. Raises UserError, one line, for what cannot be parsed or
    cannot be meant.

    presets: {name: {setting: value}} of --preset. quick: {setting: value} of --quick. bare: what a file of
    --config changes, if not the defaults. hidden: what --help leaves out.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(defaults, PartSettings):
        arguments = config_file.without_sections(arguments, defaults)
    preset, config = _value_of("--preset", arguments), _value_of("--config", arguments)
    if preset is not None and preset not in (presets or {}):
        known = f"it has {', '.join(presets)}" if presets else "this script has none"
        raise UserError(f"--preset {preset!r} is not known{nearest(preset, presets or {})}; {known}")
    if config is not None and not isinstance(defaults, PartSettings):
        raise UserError(
            f"--config {config} does nothing here; only 08_micro_arch/assemble.py makes a model of a file"
        )
    if config is not None:
        defaults = bare or defaults
    changed = config_file.read(config, defaults) if config is not None else {}
    changed |= presets[preset] if presets and preset else {}
    if quick and "--quick" in arguments:
        changed |= quick
    usual = dataclasses.replace(defaults, **changed)
    s, options = _parse_once(usual, description, arguments, hidden)
    if not any(argument.startswith("--warm-up") for argument in arguments):
        s = _with_shorter_warm_up(s, usual)
    if options.quick:
        options = dataclasses.replace(options, log=False)
    check_values(s, options)
    return s, options


def _with_shorter_warm_up(s: Settings, usual: Settings) -> Settings:
    """A run no longer than its warm-up gets one that is shorter by as much, if nobody asked for more."""
    if s.seconds or not 0 < s.steps <= s.warm_up or usual.steps <= usual.warm_up:
        return s
    shorter = usual.warm_up * s.steps // usual.steps
    print(f"note: the warm-up is shortened with the run, from {s.warm_up} steps to {shorter} of {s.steps}")
    return dataclasses.replace(s, warm_up=shorter)


def _value_of(flag: str, arguments: list[str]) -> str | None:
    """What follows a flag (`--preset small`, `--preset=small`), None where it is not given."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
        if argument == flag and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def _parse_once(
    defaults: Settings, description: str, arguments: list[str], hidden: Collection[str]
) -> tuple[Settings, Options]:
    options = Options()
    if {"--help", "-h"} & set(arguments):
        defaults, options = _without(hidden, defaults), _without(hidden, options)
    flags: Any = tyro.conf.FlagCreatePairsOff[type(options)]  # type: ignore[misc]
    parser = dataclasses.make_dataclass(
        "Command", [("settings", type(defaults), defaults), ("run", flags, options)]
    )
    command = parse_as(parser, arguments, description, (*KINDS, Options))
    return command.settings, command.run


def _without(hidden: Collection[str], values):
    """The same values of a kind whose fields of these names are not listed by --help."""
    kind, hints = type(values), typing.get_type_hints(type(values), include_extras=True)
    own = [
        (name, Annotated[hints[name], tyro.conf.Suppress], getattr(values, name))
        for name in hidden
        if name in hints
    ]
    doc = {"__doc__": kind.__doc__}
    return dataclasses.make_dataclass(kind.__name__, own, bases=(kind,), namespace=doc, frozen=True)(
        **vars(values)
    )


def check_values(s: Settings, options: Options) -> None:
    """Raise UserError for a value that no script can mean."""
    for name in COUNTS:
        if getattr(s, name, 1) < 1:
            raise UserError(f"{flag(name)} {getattr(s, name)} makes no sense; it must be at least 1")
        if getattr(s, name, 1) >= 2**31:
            raise UserError(f"{flag(name)} {getattr(s, name)} makes no sense; it must be below {2**31:,}")
    if not 0 < s.lr < float("inf"):
        raise UserError(f"--lr {s.lr} makes no sense; it must be above 0")
    for name in ("dropout", "label_smoothing"):
        if not 0 <= (share := getattr(s, name, 0.0)) < 1:
            raise UserError(f"{flag(name)} {share} makes no sense; it must be at least 0 and below 1")
    if s.warm_up >= s.steps and s.warm_up:
        raise UserError(
            f"--warm-up {s.warm_up} leaves no step at the full rate; it must be below --steps {s.steps}"
        )
    if s.cosine and s.seconds:
        raise UserError(
            "--cosine has to know its last step, which --seconds does not; use --steps, or leave --cosine out"
        )
    if s.n_kv_head < 0:
        raise UserError(
            f"--n-kv-head {s.n_kv_head} makes no sense; it must be at least 0 (0: as many as --n-head)"
        )
    if s.min_lr and not s.cosine:
        raise UserError(f"--min-lr {s.min_lr} does nothing without --cosine; add it, or leave --min-lr out")
    if not 0 <= s.min_lr <= s.lr:
        raise UserError(f"--min-lr {s.min_lr} makes no sense; it must be at least 0 and at most --lr {s.lr}")
    if not 0 < s.beta2 < 1:
        raise UserError(f"--beta2 {s.beta2} makes no sense; it must be above 0 and below 1")
    for name in NOT_BELOW_ZERO:
        if not 0 <= getattr(s, name, 0.0) < float("inf"):
            raise UserError(f"{flag(name)} {getattr(s, name)} makes no sense; it must be at least 0")
    _check_text(s, options)
    _check_seeds(options.seeds)


def _check_seeds(seeds: tuple[int, ...]) -> None:
    if not seeds:
        raise UserError("--seeds names no seed; give one or more, for example --seeds 1 2 3")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"--seeds {seed} makes no sense; a seed is a whole number from 0 to 4294967295")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {' '.join(map(str, seeds))} names a seed twice; each seed gives one run")


def _check_text(s: Settings, options: Options) -> None:
    """Refuse what was typed, or a file's name, in bytes that are no text."""
    for name, value in (vars(s) | vars(options)).items():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise UserError(
                    f"{flag(name)} {ascii(value)} has bytes that are not UTF-8; if it names a file, rename it"
                ) from None


def flags(defaults: Settings, s: Settings) -> str:
    """The command-line flags that make `s` of `defaults`."""
    changed = {
        f.name: getattr(s, f.name)
        for f in dataclasses.fields(s)
        if getattr(s, f.name) != getattr(defaults, f.name)
    }
    return " ".join(
        flag(k if v else f"no-{k}") if isinstance(v, bool) else f"{flag(k)} {shlex.quote(str(v))}"
        for k, v in changed.items()
    )


# ---- what a script refuses before it begins ------------------------------------------------------


def chosen_arms(plan: "Plan", options: Options, usual: list[str]) -> list[str]:
    for arm in options.arms:
        if arm not in plan.arms:
            raise UserError(
                f"arm {arm!r} is not known{nearest(arm, plan.arms)}; the arms of {plan.experiment}: "
                f"{', '.join(plan.arms)}"
            )
    return [arm for arm in plan.arms if arm in (options.arms or usual)]


def device(plan: "Plan", name: str) -> str:
    if not any(plan.trains(arm) for arm in plan.arms):
        if name not in ("auto", "cpu"):
            raise UserError(
                f"--device {name} does nothing in {plan.experiment}: counting is done on the CPU; leave "
                "it out"
            )
        return "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(d for d in ("cuda", "mps", "cpu") if available[d])
    if not available[name]:
        raise UserError(
            f"--device {name} is not available on this machine; use "
            f"{' or '.join(d for d, there in available.items() if there)}"
        )
    return name


def check_sizes(plan: "Plan", arm: str, resolved: Settings) -> None:
    """Refuse sizes of a model that do not fit together."""
    reads = plan.reads(arm, plan.defaults)
    if {"n_embd", "n_head"} <= reads and resolved.n_embd % resolved.n_head:
        raise UserError(
            f"--n-embd {resolved.n_embd} is not divisible by --n-head {resolved.n_head}; each head takes an "
            "equal share of the width"
        )
    kv_heads = resolved.n_kv_head if "n_kv_head" in reads else 0
    if kv_heads and resolved.n_head % kv_heads:
        raise UserError(
            f"--n-head {resolved.n_head} is not divisible by {kv_heads} heads of keys and values; each is "
            "shared by equally many"
        )


def check_settings(plan: "Plan", arm: str, s: Settings) -> None:
    """Refuse sizes that do not fit together, and settings that the model of this script would silently
    ignore.
    """
    resolved = plan.own(arm, s)
    check_sizes(plan, arm, resolved)
    usual = getattr(plan.arms[arm], "settings", {}).get("warm_up", resolved.warm_up)
    if resolved.warm_up < usual:
        print(
            f"note: the warm-up of {plan.name(arm)} is shortened with the run, from {usual} steps to "
            f"{resolved.warm_up} of {resolved.steps}"
        )
    try:
        plan.reads(arm, s)
    except ValueError as error:  # so a part says that it cannot be built with such settings
        raise UserError(str(error)) from None
    if s.init_from and s.tokenizer != plan.defaults.tokenizer:
        raise UserError(
            "--tokenizer does nothing with --init-from, which brings the tokenizer of that run; leave one "
            "of them out"
        )
    _check_use(plan, arm, s, resolved)


def _check_use(plan: "Plan", arm: str, s: Settings, resolved: Settings) -> None:
    """Refuse flags that make no difference to an arm, since it has its own value, or no use for one."""
    given = {
        argument.partition("=")[0].strip("-").split(".")[-1].replace("-", "_")
        for argument in sys.argv[1:]
        if argument.startswith("--")
    }
    if resolved.seconds and "steps" in given:
        raise UserError(
            f"--steps does nothing in {plan.experiment}:{arm}, which trains for {resolved.seconds:g} "
            "seconds; leave it out"
        )
    for name in getattr(plan.arms[arm], "settings", {}):
        if name in given:
            raise UserError(
                f"{flag(name)} does nothing in {plan.experiment}: each of its arms has its own; choose "
                "with --arms"
            )
    for name in sorted(plan.ignores(arm, s) & vars(s).keys()):
        if getattr(s, name) != getattr(plan.defaults, name):
            raise UserError(
                f"{flag(name)} does nothing in {plan.experiment}: it has no use for it; leave it out"
            )


def check_clone(script: Path, root: Path) -> None:
    """Raise UserError for a script of another copy of the course than that of `common`."""
    clone = script.parents[1]
    if clone != root and (clone / "common" / "run.py").is_file():
        raise UserError(
            f"{script} belongs to the course in {clone}, but `common` is imported from {root}, where its "
            "results would go; "
            f"run `pip install -e {clone}` first"
        )
