"""The course: its scripts in order, and how one refers to a line of it."""

import contextlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from common.data.corpora import family_of
from common.errors import UserError, nearest
from common.lessons.plan import Plan, plan
from common.paths import ROOT
from common.settings import Settings

COURSE = (
    "01_bigram/count_bigram",
    "01_bigram/ngram",
    "01_bigram/by_hand",
    "01_bigram/names_bigram",
    "01_bigram/names_mlp",
    "01_bigram/names_deep",
    "01_bigram/names_wavenet",
    "02_attention/bigram",
    "02_attention/average",
    "02_attention/self_attention",
    "02_attention/positions",
    "02_attention/multi_head",
    "03_ffn/feed_forward",
    "04_stacking/stack",
    "05_residual_norm/residual",
    "05_residual_norm/projection",
    "05_residual_norm/layer_norm",
    "05_residual_norm/post_ln",
    "05_residual_norm/pre_ln",
    "05_residual_norm/dropout",
    "05_residual_norm/depth_map",
    "06_transformer/gpt",
    "06_transformer/fast_gpt",
    "06_transformer/sizes",
    "07_tokenizer_gqa/bpe",
    "07_tokenizer_gqa/weight_tying",
    "07_tokenizer_gqa/kv_cache",
    "07_tokenizer_gqa/gqa",
    "08_micro_arch/ffn_width",
    "08_micro_arch/norm",
    "08_micro_arch/activation",
    "08_micro_arch/position",
    "08_micro_arch/qk_norm",
    "08_micro_arch/attention",
    "08_micro_arch/moe",
    "08_micro_arch/assemble",
    "09_pretraining/init",
    "09_pretraining/schedule",
    "09_pretraining/optimizer",
    "09_pretraining/precision",
    "09_pretraining/loss",
    "09_pretraining/bigrams",
    "09_pretraining/decay",
    "09_pretraining/ablation",
    "09_pretraining/prepare",
    "09_pretraining/pretrain",
)

# what stands beside every later stage
BASELINES = {f"{n}-gram" if n > 1 else "unigram": f"01_bigram/ngram:{n}" for n in range(1, 7)}
BASELINES["yardstick"] = "06_transformer/gpt --preset yardstick"


def find(name: str) -> str:
    """The experiment of the course that `name` means: `bigram.py`, `02_attention/bigram` or `bigram`.

    Raises UserError.
    """
    name = name.removesuffix(".py").rstrip("/")
    matches = [e for e in COURSE if name in (e, e.split("/")[1])]
    with contextlib.suppress(ValueError, OSError):  # a name that can be that of no file
        matches = matches or [e for e in COURSE if Path(name).resolve() == ROOT / e]
    if len(matches) != 1:
        what = f"means {' and '.join(matches)}" if matches else "is no script of the course"
        raise UserError(f"{name!r} {what}{nearest(name, [*COURSE, *(e.split('/')[1] for e in COURSE)])}")
    return matches[0]


@cache
def course_plan(experiment: str) -> Plan:
    """The plan of an experiment of the course (`02_attention/bigram`)."""
    return plan(ROOT / f"{experiment}.py")


@dataclass(frozen=True)
class Reference:
    """One line of the course, an experiment, arm and flags: `02_attention/bigram`, `ngram:5` or
    `names_mlp --keep-duplicates`.
    """

    experiment: str
    arm: str
    flags: str = ""

    def __str__(self) -> str:
        arm = "" if self.arm == "default" else f":{self.arm}"
        return f"{self.experiment}{arm} {self.flags}".strip()

    def config(self) -> str:
        """The configuration hash of the course's run."""
        return _config_of(self)

    def settings(self) -> Settings:
        """The settings of the course's run."""
        return _settings_of(self.experiment, self.flags)

    def family(self) -> str:
        """What stands for the text that the line is run on."""
        return family_of(self.settings().corpus)

    @property
    def code(self) -> str:
        """The fingerprint of the code as it is now."""
        return _code_of(self.experiment, self.arm)


@cache
def _settings_of(experiment: str, flags: str) -> Settings:
    return course_plan(experiment).settings(flags)


@cache
def _config_of(reference: Reference) -> str:
    s = reference.settings()
    return course_plan(reference.experiment).config(reference.arm, s, family_of(s.corpus))


@cache
def _code_of(experiment: str, arm: str) -> str:
    return course_plan(experiment).code(arm)


def refer(text: str) -> Reference:
    """Read a reference. Without an arm it means the only or the first one. Raises UserError."""
    name, _, flags = text.strip().partition(" ")
    name, _, arm = name.partition(":")
    experiment = find(name)
    arms = list(course_plan(experiment).arms)
    if not arms:
        raise UserError(f"{experiment} is a program; it has no runs to refer to")
    if arm and arm not in arms:
        raise UserError(f"{experiment} has no arm {arm!r}{nearest(arm, arms)}; its arms: {', '.join(arms)}")
    return Reference(experiment, arm or arms[0], flags.strip())


def previous_arm(plan: Plan, arm: str) -> tuple[Plan, str] | None:
    """What an arm of a script is compared with: the arm that the header names, else the one of the same name,
    else the first of the script before. None for the first script.
    """
    if plan.header.previous is None:
        return None
    before = course_plan(plan.header.previous)
    while not before.arms and before.header.previous:  # a program, which has nothing to compare with
        before = course_plan(before.header.previous)
    return before, plan.header.previous_arm or (arm if arm in before.arms else next(iter(before.arms)))


def predecessor(reference: Reference) -> Reference | None:
    """The line of the course that a line is compared with, with the same flags; None where it has no such."""
    before = previous_arm(course_plan(reference.experiment), reference.arm)
    if before is None or reference.flags not in before[0].header.variants:
        return None
    return Reference(before[0].experiment, before[1], reference.flags)


def at_own_rate(reference: Reference) -> Reference | None:
    """The further command line of a script that has a learning rate chosen for it (`--clip 1 --lr 4e-3`);
    None where it has none, or its arms have rates of their own.
    """
    for flags in course_plan(reference.experiment).header.variants:
        if "--lr" in flags.split() and "--clip" in flags.split():
            return Reference(reference.experiment, reference.arm, flags)
    return None


def course_references(stage: str = "") -> list[Reference]:
    """Every line of the course in course order, or those whose experiment begins with `stage`."""
    references = []
    for experiment in COURSE:
        if experiment.startswith(stage):
            p = course_plan(experiment)
            references += [
                Reference(experiment, arm, flags) for flags in p.header.variants for arm in p.course_arms
            ]
    return references
