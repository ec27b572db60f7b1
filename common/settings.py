"""The settings of a run and its command line. The defaults are the course setting of stages 02 to 05."""

import contextlib
import dataclasses
import io
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from common.errors import UserError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from common.data import Data
    from common.journal import Journal
    from common.summary import Result
    from common.tokenizer import Tokenizer

FIRST = ("corpus", "steps", "batch_size", "block_size", "lr", "n_embd", "n_head", "n_layer", "dtype")  # there from the beginning
RECIPE = ("warm_up", "cosine", "min_lr", "beta2", "weight_decay", "decay_matrices", "clip")  # how common.train goes about it
ARCHITECTURE = (
    "n_layer",
    "n_head",
    "n_kv_head",
    "n_embd",
    "block_size",
    "dropout",
)  # what a model may or may not read; the rest concerns every run


@dataclass(frozen=True)
class Settings:
    """What decides the outcome of a run, apart from the seed."""

    corpus: str = "tinyshakespeare"
    """Name of a corpus, or path to a UTF-8 text file."""
    steps: int = 1500
    """Optimiser steps."""
    batch_size: int = 32
    """Windows per step."""
    block_size: int = 64
    """Context: the tokens a model sees at once."""
    lr: float = 1e-3
    """Learning rate."""
    n_embd: int = 64
    """Width of the model."""
    n_head: int = 4
    """Attention heads."""
    n_layer: int = 4
    """Blocks, one after the other."""
    dropout: float = 0.0
    """Share of the activations that is set to zero in training."""
    warm_up: int = 0
    """Steps over which the learning rate rises to --lr (this and the next six: for stage 09, which is not there yet)."""
    cosine: bool = False
    """After the warm-up, let the learning rate fall along a cosine to --min-lr."""
    min_lr: float = 0.0
    """Learning rate at the end, with --cosine."""
    beta2: float = 0.999
    """How long AdamW remembers squared gradients."""
    weight_decay: float = 0.01
    """Decay of the weights per step, times the learning rate."""
    decay_matrices: bool = False
    """Let only matrices decay, not biases and the scales of norms."""
    clip: float = 0.0
    """Longest gradient (norm over all parameters) that is not shortened; 0: none is."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic; bfloat16 is mixed precision with float32 weights."""
    tokenizer: str = "char"
    """What the text is cut into: char, byte, bpe-SIZE (learned from the training text), gpt2, cl100k_base, or a vocabulary file."""
    seconds: float = 0.0
    """Train for so many seconds, however many steps that makes; 0: for --steps."""
    n_kv_head: int = 0
    """Heads that keys and values have, each shared by several heads of queries; 0: as many as --n-head."""
    init_from: str | None = None
    """Start from the weights of an earlier run (experiment or run folder): fine-tuning."""


MICRO_ARCH = Settings(  # the setting of stage 08: about 2,500 characters a step, and nothing left to the luck of a single seed
    tokenizer="bpe-1024", batch_size=16, steps=600, warm_up=60, lr=4e-3, clip=1.0, beta2=0.99
)


@dataclass(frozen=True)
class NamesSettings(Settings):
    """Settings of the scripts that invent names."""

    corpus: str = "names"
    """`names`, `indian`, or path to a UTF-8 file with a name per line."""
    keep_duplicates: bool = False
    """Leave names that occur twice in the list, as published figures do; some are then in train and test."""
    drop_leaked: bool = False
    """With --keep-duplicates: take out of the training list what is in validation or test. The test list stays the same."""


@dataclass(frozen=True)
class Options:
    """How to run; what changes the outcome of a seed is in the settings, and these two choose settings: --preset, --quick."""

    preset: str | None = None
    """Settings that belong together, where a script has such; other flags still change single ones."""
    quick: bool = False
    """A smaller form of the script, for a first look; nothing is logged."""

    seeds: tuple[int, ...] = (1,)
    """One run per seed."""
    arms: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--sizes"])] = ()
    """Which alternatives to train (none named: all but those that need a GPU)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    threads: int | None = None
    """CPU threads (none given: whatever is fastest, found by timing a few steps). Other numbers round differently."""
    resume: bool = False
    """Go on from the last checkpoint, and skip what is finished."""
    measure: bool = False
    """Measure speed and memory again, where a script does so."""
    check: bool = False
    """Overfit one batch instead of training: proves in seconds that the model can learn."""
    generate: bool = False
    """Sample from the last checkpoint instead of training."""
    prompt: str | None = None
    """Text that the sample goes on from."""
    pictures: bool = True
    """Draw pictures and measure speed and memory, where a script does so; --no-pictures leaves both out."""
    log: bool = True
    """Append the result to logs/results_All.csv, which --no-log leaves out."""


class Arm:
    """One alternative of a script: a model, and the settings in which it differs from the other alternatives.

    on_demand: it is too large for two cores, and only trained where --arms names it.
    """

    def __init__(self, model: Callable, on_demand: bool = False, **settings):
        self.model, self.on_demand, self.settings = model, on_demand, settings

    def __call__(self, s: Settings, vocab_size: int):
        return self.model(s, vocab_size)


@dataclass(frozen=True)
class Lesson:
    """What a script teaches, ready to be run: `run(lesson)`. The course reads it by importing the script.

    B batch, T time, V vocabulary. Only the first is needed; of the others a script has those that it is about.
    """

    model: "Callable[[Settings, int], nn.Module] | dict[str, Callable[[Settings, int], nn.Module]]"
    """model(settings, vocab_size): from ids (B, T) to logits (B, T, V), or (B, V) where a window has one target. Or several arms."""
    settings: Settings = Settings()
    """The settings of the course's run; an `Arm` may have some of its own."""
    load: "Callable[[Settings, str, Tokenizer | None], Data] | None" = None
    """load(settings, device, tokenizer): the data, if they are not the running text of the course."""
    train: "Callable[[nn.Module, Data, Settings, Journal], None] | None" = None
    """train(model, data, settings, journal) trains in place, if not as common.train does."""
    probe: "Callable[[nn.Module, Tensor, Tensor], dict[str, list[float]]] | None" = None
    """probe(model, x, y): what to look at, by name and layer, at each point of the learning curve, always with the same batch."""
    picture: "Callable[[nn.Module, Data, Path], list[Path]] | None" = None
    """picture(model, data, folder): pictures of one run. The paths of what was written."""
    scores: "Callable[[nn.Module, Data, Settings], dict[str, float]] | None" = None
    """scores(model, data, settings): what the trained model scores besides the columns of the results; they go to logs/extra.csv."""
    overview: "Callable[[list[Result], Path], list[Path]] | None" = None
    """overview(results, folder): pictures of all runs together, of a script whose arms make sense together only."""
    measure: "Callable[[Path, bool], list[Path]] | None" = None
    """measure(folder, quick): what no training shows (speed, memory), measured once. The paths of its pictures."""
    presets: dict[str, dict] = field(default_factory=dict)
    """{name: {setting: value}}: what --preset chooses from."""
    quick: dict = field(default_factory=dict)
    """{setting: value} of the smaller form, with "arms"."""


def parse(
    defaults: Settings, description: str, arguments: list[str] | None = None, presets: dict | None = None, quick: dict | None = None
) -> tuple[Settings, Options]:
    """Settings and options from the command line. Raises UserError, one line, for what cannot be parsed or cannot be meant.

    presets: {name: {setting: value}}, what --preset chooses from. quick: {setting: value} that --quick sets.
    """
    given = sys.argv[1:] if arguments is None else arguments
    given = [part for argument in given for part in (argument.split("=", 1) if argument.startswith("--preset=") else [argument])]
    preset = next((value for name, value in zip(given, given[1:], strict=False) if name == "--preset"), None)
    if preset is not None and preset not in (presets or {}):
        known = f"it has {', '.join(presets)}" if presets else "this script has none"
        raise UserError(f"--preset {preset!r} is not known{nearest(preset, presets or {})}; {known}")
    changed = (presets[preset] if preset else {}) | (quick or {} if "--quick" in given else {})
    s, options = _parse_once(dataclasses.replace(defaults, **changed), description, arguments)
    if options.quick:
        options = dataclasses.replace(options, log=False)
    _validate(s, options)
    return s, options


def _parse_once(defaults: Settings, description: str, arguments: list[str] | None) -> tuple[Settings, Options]:
    parser = dataclasses.make_dataclass(
        "Command", [("settings", type(defaults), defaults), ("run", tyro.conf.FlagCreatePairsOff[Options], Options())]
    )
    command = parse_as(parser, arguments, description)
    return command.settings, command.run


def parse_as(parser: type, arguments: list[str] | None, description: str | None = None):
    """An instance of a dataclass from the command line. Raises UserError, one line, for what cannot be parsed."""
    _refuse_repeated(sys.argv[1:] if arguments is None else arguments)
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            config = (tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff)
            return tyro.cli(parser, description=description, args=arguments, config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_one_line(message.getvalue(), arguments or sys.argv[1:])) from None


def _refuse_repeated(arguments: list[str]) -> None:
    """Raise UserError for a flag that is given twice: only the last would count, without a word."""
    given = [a.partition("=")[0].replace("_", "-").replace("--no-", "--") for a in arguments if a.startswith("--") and len(a) > 2]
    twice = next((name for number, name in enumerate(given) if name in given[:number]), None)
    if twice:
        raise UserError(f"{twice} is given twice; give it once, with all its values")


def _one_line(box: str, arguments: list[str]) -> str:
    """The sentence inside the box that the parser prints, and the nearest flag where one is not known."""
    lines = [line.strip("│ \n") for line in box.splitlines()]
    inside = [line for line in lines if line and line[0] not in "╭╰"]
    rule = next((i for i, line in enumerate(inside) if line.startswith("─")), len(inside))
    sentence = " ".join(inside[:rule])
    known = [flag(f.name) for kind in (NamesSettings, Options) for f in dataclasses.fields(kind)]
    wrong = next((a for a in arguments if a.startswith("--") and a in sentence), "")
    return f"{sentence}{nearest(wrong, known) if 'Unrecognized' in sentence else ''} (--help lists all flags)"


def _validate(s: Settings, options: Options) -> None:
    for name in ("steps", "batch_size", "block_size", "n_embd", "n_head", "n_layer"):
        if getattr(s, name) < 1:
            raise UserError(f"{flag(name)} {getattr(s, name)} makes no sense; it must be at least 1")
    if not 0 < s.lr < float("inf"):
        raise UserError(f"--lr {s.lr} makes no sense; it must be above 0")
    if not 0 <= s.dropout < 1:
        raise UserError(f"--dropout {s.dropout} makes no sense; it must be at least 0 and below 1")
    if s.warm_up < 0:
        raise UserError(f"--warm-up {s.warm_up} makes no sense; it must be at least 0")
    if s.warm_up >= s.steps and s.warm_up:
        raise UserError(f"--warm-up {s.warm_up} leaves no step at the full rate; it must be below --steps {s.steps}")
    if s.cosine and s.seconds:
        raise UserError("--cosine has to know its last step, which --seconds does not; use --steps, or leave --cosine out")
    if s.n_kv_head < 0:
        raise UserError(f"--n-kv-head {s.n_kv_head} makes no sense; it must be at least 0 (0: as many as --n-head)")
    if s.min_lr and not s.cosine:
        raise UserError(f"--min-lr {s.min_lr} does nothing without --cosine; add it, or leave --min-lr out")
    if not 0 <= s.min_lr <= s.lr:
        raise UserError(f"--min-lr {s.min_lr} makes no sense; it must be at least 0 and at most --lr {s.lr}")
    if not 0 < s.beta2 < 1:
        raise UserError(f"--beta2 {s.beta2} makes no sense; it must be above 0 and below 1")
    for name in ("weight_decay", "clip", "seconds"):
        if not 0 <= getattr(s, name) < float("inf"):
            raise UserError(f"{flag(name)} {getattr(s, name)} makes no sense; it must be at least 0")
    if not options.seeds:
        raise UserError("--seeds names no seed; give one or more, for example --seeds 1 2 3")
    for seed in options.seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"--seeds {seed} makes no sense; a seed is a whole number from 0 to 4294967295")
    if len(set(options.seeds)) < len(options.seeds):
        raise UserError(f"--seeds {' '.join(map(str, options.seeds))} names a seed twice; each seed gives one run")


def flag(name: str) -> str:
    """The command-line flag of a setting: `n_embd` -> `--n-embd`."""
    return "--" + name.replace("_", "-")


def flags(defaults: Settings, s: Settings) -> str:
    """The command-line flags that make `s` of `defaults`."""
    changed = {f.name: getattr(s, f.name) for f in dataclasses.fields(s) if getattr(s, f.name) != getattr(defaults, f.name)}
    return " ".join(flag(k if v else f"no-{k}") if isinstance(v, bool) else f"{flag(k)} {shlex.quote(str(v))}" for k, v in changed.items())
