"""Twenty steps of a script of each stage give the losses they gave when they were recorded: no part changes
its meaning unseen.

The recorded figures are in golden.json. `python tests/test_golden.py` records them anew, which is right only
if a change of loop, data, schedule, model or metric was meant, and then the rows of the course are to be
measured again too.

TOLERANCE is relative, for other processors and other versions of the library: with the instruction sets of
older processors (AVX2, and none at all) the figures differed by at most 2.3e-5 from those recorded here; the
smallest of the faults below makes a difference of 1.6e-2.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from common import lessons
from common.data import splits
from common.lessons.course import course_plan, refer
from common.training import loop, metrics

TOLERANCE = 2e-4
STEPS = 20
# the command lines; several at once train long enough only with settings of their own, and use more of the
# recipe so
LINES = {
    "01_bigram/by_hand": "",
    "01_bigram/ngram:2": "",
    "01_bigram/names_mlp": "",
    "02_attention/multi_head": "--weight-decay 0.5 --lr 1e-2",
    "03_ffn/feed_forward:gelu": "",
    "04_stacking/stack": "",
    "05_residual_norm/dropout": "",
    "06_transformer/gpt": "--preset yardstick --warm-up 5",
    "07_tokenizer_gqa/gqa:gqa": "--tokenizer bpe-300 --warm-up 5",
    "08_micro_arch/norm:rmsnorm": "--tokenizer bpe-300 --warm-up 5",
    "08_micro_arch/moe:top-2": "--tokenizer bpe-300 --warm-up 5 --balance 1",
    "09_pretraining/schedule:warm-up-linear": "--tokenizer bpe-300 --warm-up 5",
    "09_pretraining/optimizer:muon": "--tokenizer bpe-300 --warm-up 5",
}
RECORDED = Path(__file__).with_name("golden.json")


class Losses:
    """Stands in for the recorder: it keeps the loss of every step, and nothing else."""

    def __init__(self):
        self.found: list[float] = []

    def steps(self, model, optimizer=None):
        yield from range(STEPS)

    def record(self, loss) -> None:
        self.found.append(loss.item())


def write_texts(folder: Path) -> dict[str, Path]:
    """A text and a list of names, the same on every machine and with every Python."""
    text = "".join(f"line {n} says {n * n % 97} times over, and {'again ' * (n % 4)}\n" for n in range(400))
    ends = ["a", "us", "elle", "o", "ina", "ard"]
    names = "".join(
        f"{'bcdfgklmnprst'[n * 7 % 13]}{'aeiou'[n % 5]}{'lmnrst'[n * n % 6]}{ends[n % 6]}\n"
        for n in range(390)
    )
    paths = {"text": folder / "text.txt", "names": folder / "names.txt"}
    for name, content in (("text", text), ("names", names)):
        paths[name].write_text(content, encoding="utf-8", newline="\n")
    return paths


def figures(line: str, texts: dict[str, Path], loop=None) -> dict:
    """What 20 steps of a line give: its settings, the loss of each step, and the scores on the test text.

    One thread.
    """
    reference = refer(line)
    plan = course_plan(reference.experiment)
    corpus = texts["names" if "names" in line else "text"]
    s = plan.own(reference.arm, plan.settings(f"{LINES[line]} --corpus {corpus} --steps {STEPS}".strip()))
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        torch.manual_seed(1)
        found = plan.load(s)
        model = plan.arms[reference.arm](s, found.tokenizer.vocab_size)
        losses = Losses()
        (loop or plan.train)(model, found.with_seed(1), s, losses)
        scored = metrics.score(model, found.test)
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
    settings = {name: value for name, value in dataclasses.asdict(s).items() if name != "corpus"}
    return {
        "settings": settings,
        "losses": losses.found,
        "scores": [scored.loss, scored.bpc, scored.accuracy],
    }


def largest_difference(found: dict, recorded: dict) -> float:
    """Relative, over losses and scores; infinite where a setting has another value or there are fewer
    figures.
    """
    known = {name: found["settings"].get(name) for name in recorded["settings"]}
    numbers = [
        (a, b) for key in ("losses", "scores") for a, b in zip(found[key], recorded[key], strict=False)
    ]
    if known != recorded["settings"] or len(found["losses"]) != len(recorded["losses"]):
        return float("inf")
    return max(abs(a - b) / abs(b) for a, b in numbers)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("golden"))


def recorded(line: str) -> dict:
    return json.loads(RECORDED.read_text(encoding="utf-8"))[line]


@pytest.mark.parametrize("line", LINES)
def test_twenty_steps_give_the_recorded_losses(line, texts):
    assert largest_difference(figures(line, texts), recorded(line)) < TOLERANCE


def test_every_stage_has_a_line():
    assert {line.split("/")[0] for line in LINES} == {
        experiment.split("/")[0] for experiment in lessons.COURSE
    }


# ---- faults that have to be seen -----------------------------------------------------------------

FAULTS = {
    "half the rate": (
        loop,
        "02_attention/multi_head",
        "= learning_rate(s, step)",
        "= learning_rate(s, step) / 2",
    ),
    "two lines swapped": (
        loop,
        "02_attention/multi_head",
        "optimizer.zero_grad()\n        total.backward()",
        "total.backward()\n        optimizer.zero_grad()",
    ),
    "gradients that add up": (loop, "02_attention/multi_head", "optimizer.zero_grad()", "pass"),
    "no decay": (
        loop,
        "02_attention/multi_head",
        '"weight_decay": s.weight_decay}]',
        '"weight_decay": 0.0}]',
    ),
    "another beta": (loop, "03_ffn/feed_forward:gelu", "betas=(0.9, s.beta2)", "betas=(0.8, s.beta2)"),
    "no clipping": (loop, "06_transformer/gpt", "if s.clip:", "if False:"),
    "no cosine": (loop, "06_transformer/gpt", "if not s.cosine:", "if True:"),
    "no warm-up": (loop, "07_tokenizer_gqa/gqa:gqa", "if step < s.warm_up:", "if False:"),
    "no load balancing": (loop, "08_micro_arch/moe:top-2", "loss + auxiliary_loss(model)", "loss"),
    "the loss of all": (loop, "08_micro_arch/moe:top-2", "recorder.record(loss)", "recorder.record(total)"),
    "data shifted by one": (
        splits,
        "02_attention/multi_head",
        "return windows[:, :-1], windows[:, 1:]",
        "return windows[:, :-1], windows[:, :-1]",
    ),
    "another split": (splits, "02_attention/multi_head", "int(0.9 * len(text))", "int(0.5 * len(text))"),
    "another metric": (
        metrics,
        "02_attention/multi_head",
        "math.log(2) / self.characters",
        "math.log(2) / self.tokens / 2",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault, texts):
    """The fault is made in a copy of the module's source; the line that it changes has to be there."""
    module, line, right, wrong = FAULTS[fault]
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert source.count(right) == 1, f"{fault}: the line is not there, or more than once"
    # before the fault is made: it is kept, and later tests must not meet the fault in it
    plan = course_plan(refer(line).experiment)
    before = dict(module.__dict__)
    try:
        exec(compile(source.replace(right, wrong), module.__file__, "exec"), module.__dict__)
        train = module.train if module is loop else None
        broken = dataclasses.replace(plan, load=splits.text_data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.modules[__name__], "course_plan", lambda _: broken)
            assert largest_difference(figures(line, texts, train), recorded(line)) > 5 * TOLERANCE
    finally:
        module.__dict__.clear()
        module.__dict__.update(before)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        paths = write_texts(Path(folder))
        made = {line: figures(line, paths) for line in LINES}
    if "--compare" in sys.argv:
        for line, found in made.items():
            print(f"{line:<32} {largest_difference(found, recorded(line)):.2e}")
    else:
        RECORDED.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
