"""The settings of a run, and what a script hands over.

The defaults are the course setting of stages 02 to 05.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from common.data import Data
    from common.data.tokenizer import Tokenizer
    from common.report.summary import Result
    from common.training.recorder import Recorder

# there from the beginning
FIRST = ("corpus", "steps", "batch_size", "block_size", "lr", "n_embd", "n_head", "n_layer", "dtype")
# how common.training goes about it
RECIPE = ("warm_up", "cosine", "min_lr", "beta2", "weight_decay", "decay_matrices", "clip")
# what a model may or may not read; the rest concerns every run
ARCHITECTURE = (
    "n_layer", "n_head", "n_kv_head", "n_embd", "block_size", "dropout", "n_expert", "n_expert_per_token",
    "capacity", "balance", "window", "n_bigram",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What decides the outcome of a run, apart from the seed."""

    corpus: str = "tinyshakespeare"
    """tinyshakespeare, pydoc, stdlib, or path to a UTF-8 text file."""
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
    """Steps over which the learning rate rises to --lr (this and six more: stage 09)."""
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
    """What the text is cut into: char, byte, bpe-SIZE (learned from the training text), gpt2, cl100k_base, or
    a vocabulary file."""
    seconds: float = 0.0
    """Train for so many seconds, however many steps that makes; 0: for --steps."""
    n_kv_head: int = 0
    """Heads that keys and values have, each shared by several heads of queries; 0: as many as --n-head."""
    init_from: str | None = None
    """Start from the weights of an earlier run (experiment or run folder): fine-tuning."""


# the setting of stages 08, 09: about 2,500 characters a step, and nothing left to the luck of a single seed
MICRO_ARCH = Settings(
    tokenizer="bpe-1024", batch_size=16, steps=600, warm_up=60, lr=4e-3, clip=1.0, beta2=0.99
)


@dataclass(frozen=True)
class ExpertSettings(Settings):
    """Settings of a mixture of experts."""

    n_expert: int = 8
    """Experts: feed-forward layers beside one another."""
    n_expert_per_token: int = 2
    """Experts that a token goes through, each narrower by so much that all of these cost what one layer
    would."""
    capacity: float | None = None
    """Most tokens that an expert takes in training, in fair shares of a batch; what is more is dropped. None:
    all are taken."""
    balance: float = 0.01
    """Weight of the loss that keeps the work of the experts equal."""


@dataclass(frozen=True)
class BigramSettings(Settings):
    """Settings of a model with a vector for each pair of neighbours."""

    n_bigram: int = 8192
    """Rows of the table of pairs, where a model has one; pairs that hash to the same row share it."""


@dataclass(frozen=True)
class PartSettings(ExpertSettings, BigramSettings):
    """Settings of a model whose parts are chosen by name (common.model.PARTS)."""

    attention: str = "flash"
    """explicit, tiled, flash, gqa (flash with fewer heads of keys and values), local or linear."""
    feed_forward: str = "gelu"
    """relu, gelu, gelu-2x (half as wide), gelu-tanh, silu, relu2, glu, reglu, geglu, swiglu or moe."""
    norm: str = "layernorm"
    """layernorm, rmsnorm, scalenorm or none."""
    position: str = "learned"
    """none, learned, sinusoidal, rope or alibi."""
    head: str = "tied"
    """tied or untied."""
    embedding: str = "token"
    """token, or bigram: beside the vector of a token one for the token and the one before it."""
    qk_norm: bool = False
    """Let queries and keys go through an RMSNorm."""
    window: int = 32
    """Places that a query of attention `local` sees, itself among them."""


@dataclass(frozen=True)
class ScheduleSettings(Settings):
    """Settings of a run whose learning rate follows a schedule."""

    schedule: Literal["constant", "cosine", "linear", "stable-decay"] = "constant"
    """What the learning rate does after the warm-up: it stays, falls to zero along half a cosine or a
    straight line, or stays until the last fifth of the steps and then falls to zero."""


@dataclass(frozen=True)
class OptimizerSettings(Settings):
    """Settings of a run that says which optimizer makes its steps."""

    optimizer: Literal["sgd", "adamw", "muon"] = "adamw"
    """What makes a step of a gradient: SGD with momentum, AdamW, or Muon (AdamW for what is no matrix)."""


@dataclass(frozen=True)
class PrecisionSettings(Settings):
    """Settings of a run that says how many bits its numbers have."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # type: ignore[assignment]
    """Arithmetic; bfloat16 and float16 are mixed precision."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """What weights, gradients and moments are kept in."""


@dataclass(frozen=True)
class LossSettings(Settings):
    """Settings of a run that asks for more than the right next token."""

    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all tokens."""
    z_loss: float = 0.0
    """Weight of the squared logarithm of the sum that the softmax divides by."""
    soft_cap: float = 0.0
    """Bound that no logit reaches; 0: none."""


@dataclass(frozen=True)
class NamesSettings(Settings):
    """Settings of the scripts that invent names."""

    corpus: str = "names"
    """names, indian, faker, or path to a UTF-8 file with a name per line."""
    keep_duplicates: bool = False
    """Leave names that occur twice in the list, as published figures do; some are then in train and test."""
    drop_leaked: bool = False
    """With --keep-duplicates: take out of the training list what is in validation or test. The test list
    stays the same."""


# what a script may have as its settings, besides `Settings`
KINDS = (
    NamesSettings, BigramSettings, PartSettings, ScheduleSettings, OptimizerSettings, PrecisionSettings,
    LossSettings,
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How to run; what changes the outcome of a seed is in the settings."""

    preset: str | None = None
    """Settings that belong together, where a script has such; other flags still change single ones."""
    config: str | None = None
    """Settings from a YAML file, where a script makes a model of one; other flags still change single ones.
    """
    quick: bool = False
    """A smaller form of the script, for a first look; nothing is logged."""

    seeds: tuple[int, ...] = (1,)
    """One run per seed."""
    arms: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--sizes"])] = ()
    """Which alternatives to train (none named: all but those that need a GPU)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    threads: int | None = None
    """CPU threads (none given: whatever is fastest, found by timing a few steps). Other numbers round
    differently."""
    resume: bool = False
    """Go on from the last checkpoint, and skip what is finished."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What the processes of torchrun share, where a script knows how: the windows of a step (ddp), or also
    weights, gradients and moments (fsdp)."""
    trackio: bool = False
    """Show the numbers of each step in Trackio's dashboard too, where a script logs them (pip install
    trackio)."""
    predict: str | None = None
    """What you expect against the script before: better, worse, same, or a number of bits
    (--predict=-0.05)."""
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

    B batch, T time, V vocabulary. Only the first is needed; of the others a script has those that it is
    about.
    """

    model: "Callable[[Settings, int], nn.Module] | dict[str, Callable[[Settings, int], nn.Module]]"
    """model(settings, vocab_size): from ids (B, T) to logits (B, T, V), or (B, V) where a window has one
    target. Or several arms."""
    settings: Settings = Settings()
    """The settings of the course's run; an `Arm` may have some of its own."""
    load: "Callable[[Settings, str, Tokenizer | None], Data] | None" = None
    """load(settings, device, tokenizer): the data, if they are not the running text of the course."""
    train: "Callable[[nn.Module, Data, Settings, Recorder], None] | None" = None
    """train(model, data, settings, recorder) trains in place, if not as common.training does."""
    probe: "Callable[[nn.Module, Tensor, Tensor], dict[str, list[float]]] | None" = None
    """probe(model, x, y): what to look at, by name and layer, at each point of the learning curve, always
    with the same batch."""
    picture: "Callable[[nn.Module, Data, Result, Path], list[Path]] | None" = None
    """picture(model, data, result, folder): pictures of one run. The paths of what was written."""
    scores: "Callable[[nn.Module, Data, Settings], dict[str, float]] | None" = None
    """scores(model, data, settings): what the trained model scores besides the columns of the results; they
    go to logs/extra.csv."""
    overview: "Callable[[list[Result], Path], list[Path]] | None" = None
    """overview(results, folder): pictures of all runs together, of a script whose arms make sense together
    only."""
    describe: "Callable[[nn.Module, Settings], str] | None" = None
    """describe(model, settings): what a model is made of, said before it is trained and where it writes."""
    measure: "Callable[[Path, bool], list[Path]] | None" = None
    """measure(folder, quick): what no training shows (speed, memory), measured once. The paths of its
    pictures."""
    config: str | None = None
    """The YAML file that says what the settings of the course's run are, where --config names no other."""
    presets: dict[str, dict] = field(default_factory=dict)
    """{name: {setting: value}}: what --preset chooses from."""
    quick: dict = field(default_factory=dict)
    """{setting: value} of the smaller form, with "arms"."""
    arguments: "Callable[[list[str]], list[str]] | None" = None
    """arguments(command line): the same with the script's own short flags spelled out; its docstring is shown
    by --help."""
