"""Sixteen bits, other losses (stage 09); and faults of a training loop, put in again and caught."""

import dataclasses
import math
import runpy
import shutil

import pytest
import test_pretraining as pretraining
import torch
from test_pretraining import OPTIMIZER, SCHEDULE, SMALL, lesson, trained
from torch import nn
from torch.nn import functional as F

from common import lessons
from common.data import text_data
from common.model.gpt import GPT
from common.paths import ROOT
from common.settings import LossSettings, OptimizerSettings, PrecisionSettings, ScheduleSettings
from common.training import loop, optimizer, schedule
from common.training.recorder import Recorder

PRECISION, LOSS = "09_pretraining/precision", "09_pretraining/loss"
FAST = {**SMALL, "lr": 1e-2, "clip": 1.0, "beta2": 0.99}


class Watching(pretraining.Watching):
    """Keeps the state of a run too."""

    def __init__(self, steps: int, state: dict | None = None):
        super().__init__(steps)
        self.state = state or {}


def watched(script: dict, s, state: dict | None = None) -> tuple[nn.Module, Watching]:
    """A small model after the steps of a script's loop."""
    torch.manual_seed(3)
    data = text_data(dataclasses.replace(s, tokenizer="char"), "cpu").with_seed(1)
    model, watching = GPT(s, data.tokenizer.vocab_size), Watching(s.steps, state)
    script["train"](model, data, s, watching)
    return model, watching


# ---- precision -----------------------------------------------------------------------------------


def test_in_32_bits_it_is_the_loop_of_the_course():
    s = PrecisionSettings(**FAST, steps=12, warm_up=3)
    own, watching = watched(lesson(PRECISION), s)
    usual, expected = trained(loop.train, dataclasses.replace(s, weight_decay=0.01))
    assert watching.losses == expected.losses and watching.rates == expected.rates
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), usual.parameters(), strict=True))


def test_autocast_over_float32_weights_gives_attention_16_bits_and_trains(monkeypatch):
    """So a kernel that takes half precision only needs no weights in half precision."""
    kinds, kernel = set(), F.scaled_dot_product_attention
    monkeypatch.setattr(
        F,
        "scaled_dot_product_attention",
        lambda q, *rest, **more: kinds.add(q.dtype) or kernel(q, *rest, **more),
    )
    model, watching = watched(lesson(PRECISION), PrecisionSettings(**FAST, steps=30, dtype="bfloat16"))
    assert kinds == {torch.bfloat16} and {p.dtype for p in model.parameters()} == {torch.float32}
    assert watching.losses[-1] < watching.losses[0] - 0.3


def test_weights_of_16_bits_lose_steps_that_are_smaller_than_their_last_digit():
    _, fine = watched(lesson(PRECISION), PrecisionSettings(**FAST | {"lr": 1e-5}, steps=30, dtype="bfloat16"))
    coarse, _ = watched(
        lesson(PRECISION),
        PrecisionSettings(**FAST | {"lr": 1e-5}, steps=30, dtype="bfloat16", weights="bfloat16"),
    )
    assert {p.dtype for p in coarse.parameters()} == {torch.bfloat16}
    scales = torch.cat([norm.weight for norm in coarse.modules() if isinstance(norm, nn.LayerNorm)])
    assert (scales == 1).all() and fine.losses[-1] < fine.losses[0]  # 1 - 1e-5 is 1 in bfloat16


def gradients_are_clipped_at_their_true_length(script: dict) -> None:
    """float16 with a scaler takes the steps of float32, to about three digits."""
    s = PrecisionSettings(**FAST, steps=12)
    exact, expected = watched(script, s)
    half, watching = watched(script, dataclasses.replace(s, dtype="float16"))
    assert watching.losses == pytest.approx(expected.losses, rel=5e-3)
    for a, b in zip(half.parameters(), exact.parameters(), strict=True):
        assert (a - b).norm() < 0.2 * b.norm()


def test_a_scaled_loss_gives_the_same_steps():
    gradients_are_clipped_at_their_true_length(lesson(PRECISION))


def test_a_scale_that_is_too_large_costs_a_step_and_is_halved():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100).state_dict()
    s = PrecisionSettings(**FAST, steps=2, dtype="float16")
    torch.manual_seed(3)
    before = GPT(s, text_data(dataclasses.replace(s, tokenizer="char"), "cpu").tokenizer.vocab_size)
    after, watching = watched(lesson(PRECISION), s, {"scaler": scaler})
    assert watching.state["scaler"]["scale"] == 2.0**98
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_float16_goes_on_from_a_checkpoint(tmp_path):
    """With the scale that it had: the first step of all would be left out again otherwise."""
    s = PrecisionSettings(**FAST, steps=6, dtype="float16")
    data = text_data(dataclasses.replace(s, tokenizer="char"), "cpu")

    def run(folder: str, steps: int, resume: bool) -> tuple[nn.Module, dict]:
        torch.manual_seed(3)
        own = GPT(s, data.tokenizer.vocab_size)
        state = {"experiment": PRECISION, "arm": "float16", "seed": 1, "settings": {}, "code_hash": "c"}
        state |= {"corpus": data.corpus.name, "config_hash": "", "threads": 1}
        state |= {"tokenizer": data.tokenizer.state()}
        if not resume:
            state["scaler"] = torch.amp.GradScaler("cpu", init_scale=2.0**40).state_dict()
        recorder = Recorder(tmp_path / folder, data, dataclasses.replace(s, steps=steps), state, "")
        if resume:
            recorder.go_on_from({"c"})
        with recorder.held():
            lesson(PRECISION)["train"](own, data.with_seed(1), s, recorder)
        return own, recorder.state["scaler"]

    whole, scale = run("whole", 6, resume=False)
    run("parts", 3, resume=False)
    parts, same = run("parts", 6, resume=True)
    assert scale == same and scale["scale"] < 2.0**40
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_way_that_this_machine_cannot_go_is_left_out(monkeypatch, capsys):
    def no_compiler(*_):
        raise RuntimeError("no C++ compiler was found\nand much more")

    monkeypatch.setitem(lesson(PRECISION), "cost", no_compiler)
    assert lesson(PRECISION)["attempt"]("compiled", 64, "cpu") is None
    said = capsys.readouterr().out
    assert said == "compiled at width 64 is left out: no C++ compiler was found\n"


def test_16_bits_keep_less_for_the_way_back():
    cost = lesson(PRECISION)["cost"]
    *_, kept, _, exact = cost(64, "float32", "float32", False, "cpu")
    *_, half, _, losses = cost(64, "bfloat16", "bfloat16", False, "cpu")
    assert 0.45 * kept < half < 0.75 * kept and losses == pytest.approx(exact, rel=0.02)


@pytest.mark.long
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_a_compiled_model_has_the_same_losses():
    cost = lesson(PRECISION)["cost"]
    *_, exact = cost(64, "float32", "float32", False, "cpu")
    *_, compiled = cost(64, "float32", "float32", True, "cpu")
    assert compiled == pytest.approx(exact, rel=1e-4)


# ---- losses --------------------------------------------------------------------------------------


def losses_are_what_their_papers_say(script: dict) -> None:
    torch.manual_seed(0)
    logits, y = 3 * torch.randn(50, 7, dtype=torch.float64), torch.randint(7, (50,))
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    plain = -p[torch.arange(50), y].log().mean().item()
    even = -p.log().mean().item()
    z = logits.exp().sum(dim=1).log().square().mean().item()
    for smoothing, weight in ((0.0, 0.0), (0.2, 0.0), (0.0, 0.3), (0.2, 0.3)):
        s = LossSettings(label_smoothing=smoothing, z_loss=weight)
        loss, wanted = script["loss_of"](logits, y, s)
        assert loss.item() == pytest.approx(plain, rel=1e-12)
        expected = (1 - smoothing) * plain + smoothing * even + weight * z
        assert wanted.item() == pytest.approx(expected, rel=1e-12)


def test_losses_are_what_their_papers_say():
    losses_are_what_their_papers_say(lesson(LOSS))


def test_a_plain_loss_is_the_loop_of_the_course():
    s = LossSettings(**FAST, steps=12, warm_up=3)
    _, watching = watched(lesson(LOSS), s)
    assert watching.losses == trained(loop.train, s)[1].losses


def what_is_recorded_is_cross_entropy(script: dict) -> None:
    """Whatever was asked for besides: the first loss is that of the same model without it."""
    s = LossSettings(**FAST, steps=3)
    _, plain = watched(script, s)
    for own in ({"label_smoothing": 0.5}, {"z_loss": 0.5}):
        _, other = watched(script, dataclasses.replace(s, **own))
        assert other.losses[0] == plain.losses[0] and other.losses[2] != plain.losses[2]


def test_what_is_recorded_is_cross_entropy():
    what_is_recorded_is_cross_entropy(lesson(LOSS))


def test_a_capped_logit_stays_below_the_cap_and_a_small_one_as_it_is():
    s = LossSettings(n_embd=16, soft_cap=5.0)
    torch.manual_seed(0)
    token, x = nn.Embedding(30, 16), torch.randn(2, 9, 16)
    capped = lesson(LOSS)["CappedHead"](s, token)
    plain = x @ token.weight.T
    torch.testing.assert_close(capped(x), 5 * torch.tanh(plain / 5))
    assert capped(100 * x).abs().max() <= 5 and plain.abs().max() > 5
    torch.testing.assert_close(capped(1e-3 * x), 1e-3 * plain, rtol=1e-4, atol=1e-8)
    free = lesson(LOSS)["CappedHead"](dataclasses.replace(s, soft_cap=0.0), token)
    torch.testing.assert_close(free(x), plain)


def test_the_scores_of_a_loss_are_those_of_the_first_windows():
    plan = lessons.course_plan(LOSS)
    s = dataclasses.replace(plan.own("plain-0.004", plan.defaults), **SMALL, tokenizer="char")
    data = text_data(s, "cpu")
    torch.manual_seed(0)
    model = plan.arms["plain-0.004"](s, data.tokenizer.vocab_size)
    nn.init.normal_(model.token.weight, std=1.0)
    x, y = next(data.test.in_order(64))
    logits = model(x).double().flatten(0, -2)
    p = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    found = plan.scores(model, data, s)
    assert found["largest logit"] == pytest.approx(logits.abs().max().item(), rel=1e-5)
    assert found["mean log Z"] == pytest.approx(logits.exp().sum(dim=-1).log().mean().item(), rel=1e-5)
    right = sum(row.argmax().item() == wanted for row, wanted in zip(p, y.flatten().tolist(), strict=True))
    assert found["overconfidence"] == pytest.approx(
        p.max(dim=-1).values.mean().item() - right / len(p), abs=1e-5
    )
    assert math.isfinite(found["overconfidence"]) and model.training


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--label-smoothing 1", "--label-smoothing 1.0 makes no sense; it must be at least 0 and below 1"),
        ("--z-loss -1", "--z-loss -1.0 makes no sense; it must be at least 0"),
        ("--soft-cap nan", "--soft-cap nan makes no sense; it must be at least 0"),
    ],
)
def test_a_loss_that_makes_no_sense_is_refused(flags, said, in_process):
    done = in_process(LOSS, flags)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


# ---- faults, put in again ------------------------------------------------------------------------

FAULTS = [
    (  # a warm-up that is configured and never stepped
        SCHEDULE, 'group["lr"] = learning_rate(step, s)', 'group["lr"] = s.lr',
        pretraining.every_step_is_taken_at_its_rate,
    ),
    (  # a scheduler that is stepped twice
        SCHEDULE, 'group["lr"] = learning_rate(step, s)', 'group["lr"] = learning_rate(min(2 * step, 7), s)',
        pretraining.every_step_is_taken_at_its_rate,
    ),
    (  # a rate that is set after the step
        SCHEDULE, "learning_rate(step, s)   ", "learning_rate(max(0, step - 1), s)   ",
        pretraining.every_step_is_taken_at_its_rate,
    ),
    (  # decay on norms
        OPTIMIZER, "if p.ndim == 2]", "if p.ndim >= 1]", pretraining.decay_is_for_what_the_settings_say,
    ),
    (  # decay on all
        OPTIMIZER, "0.0 if s.decay_matrices else s.weight_decay", "s.weight_decay",
        pretraining.decay_is_for_what_the_settings_say,
    ),
    (  # gradients that are clipped while they are still scaled
        PRECISION, "scaler.unscale_(optimizer) ", "pass ", gradients_are_clipped_at_their_true_length,
    ),
    (  # a loss that is reported with what was added to it
        LOSS, "recorder.record(loss)", "recorder.record(wanted)", what_is_recorded_is_cross_entropy,
    ),
    (  # log Z instead of its square
        LOSS, ".square().mean()", ".mean()", losses_are_what_their_papers_say,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("experiment", "right", "wrong", "check"), FAULTS)
def test_a_fault_that_is_put_in_again_is_caught(experiment, right, wrong, check, tmp_path):
    text = (ROOT / f"{experiment}.py").read_text(encoding="utf-8")
    assert text.count(right) == 1
    copy = tmp_path / "script.py"
    copy.write_text(text, encoding="utf-8")
    check(runpy.run_path(str(copy)))
    copy.write_text(text.replace(right, wrong), encoding="utf-8")
    with pytest.raises(AssertionError):
        check(runpy.run_path(str(copy)))


# ---- what graduated ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "stable-decay"])
@pytest.mark.parametrize("warm_up", [0, 1, 30])
def test_the_graduated_schedule_is_the_taught_one(name, warm_up):
    s = ScheduleSettings(steps=100, warm_up=warm_up, lr=0.3, schedule=name)
    for step in range(100):
        taught = lesson(SCHEDULE)["learning_rate"](step, s)
        assert schedule.rate(step, 100, 0.3, warm_up, name) == pytest.approx(taught, rel=1e-12)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_graduated_optimizer_is_the_taught_one(name):
    s = OptimizerSettings(**SMALL, weight_decay=0.1, decay_matrices=True, lr=1e-2, beta2=0.99)
    torch.manual_seed(0)
    ours, taught = GPT(s, 65), GPT(s, 65)
    taught.load_state_dict(ours.state_dict())
    pairs = list(zip(ours.parameters(), taught.parameters(), strict=True))
    a = getattr(optimizer, name)(optimizer.parameter_groups(ours, s.weight_decay), s.lr, s.beta2)
    b = lesson(OPTIMIZER)[name](taught, s)
    for _ in range(10):
        for p, q in pairs:
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in pairs:  # AdamW's step in one kernel rounds otherwise than written out
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
