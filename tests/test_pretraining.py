"""How training goes (stage 09): first weights and schedules."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from common import lessons
from common.data import text_data
from common.lessons.fingerprint import asked
from common.model.gpt import GPT
from common.settings import ScheduleSettings, Settings
from common.training import loop

INIT, SCHEDULE = "09_pretraining/init", "09_pretraining/schedule"
SMALL = {"n_embd": 32, "n_head": 2, "n_layer": 2, "block_size": 16, "batch_size": 4, "corpus": "pydoc"}


def lesson(experiment: str) -> dict:
    """What the script of an experiment defines."""
    return lessons.course_plan(experiment).overview.__globals__


class Watching:
    """In the place of a recorder: notes the rate of each step and its loss."""

    def __init__(self, steps: int):
        self.count, self.rates, self.losses = steps, [], []

    def steps(self, model, optimizer):
        for step in range(self.count):
            yield step
            self.rates.append({group["lr"] for group in optimizer.param_groups})

    def record(self, loss):
        self.losses.append(loss.item())


def trained(train, s) -> tuple[nn.Module, Watching]:
    """A small model after the steps of a loop."""
    torch.manual_seed(3)
    model, watching = GPT(s, 65), Watching(s.steps)
    data = text_data(dataclasses.replace(s, tokenizer="char"), "cpu").with_seed(1)
    model = GPT(s, data.tokenizer.vocab_size)
    train(model, data, s, watching)
    return model, watching


# ---- first weights -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "std", "writing"),
    [
        ("gpt2", 0.02, 0.02 / 8**0.5),
        ("unscaled", 0.02, 0.02),
        ("zero", 0.02, 0.0),
        ("small", 0.002, 0.002 / 8**0.5),
        ("large", 0.2, 0.2 / 8**0.5),
        ("gpt2-16", 0.02, 0.02 / 32**0.5),
        ("unscaled-16", 0.02, 0.02),
    ],
)
def test_each_matrix_has_the_width_that_its_arm_says(arm, std, writing):
    plan = lessons.course_plan(INIT)
    torch.manual_seed(1)
    model = plan.arms[arm](plan.own(arm, plan.defaults), 1024)
    seen = {"writing": 0, "others": 0}
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            assert set(weight.unique().tolist()) <= {0.0, 1.0}, name
            continue
        writes = name.endswith(("attention.projection.weight", "feed_forward.2.weight"))
        seen["writing" if writes else "others"] += 1
        expected = writing if writes else std
        assert weight.std().item() == pytest.approx(expected, rel=0.08), name
        assert abs(weight.mean().item()) <= 0.1 * expected + 1e-12, name
    depth = plan.own(arm, plan.defaults).n_layer
    assert seen == {"writing": 2 * depth, "others": 2 * depth + 2}


def test_gpt2_is_what_the_model_of_the_course_does_by_itself():
    plan = lessons.course_plan(INIT)
    for arm in ("gpt2", "gpt2-16"):
        s = plan.own(arm, plan.defaults)
        own, usual = plan.arms[arm](s, 1024), GPT(s, 1024)
        for (name, a), b in zip(own.named_parameters(), usual.parameters(), strict=True):
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.1, abs=1e-9), name


def test_a_block_that_begins_at_zero_hands_on_what_it_got():
    plan = lessons.course_plan(INIT)
    model = plan.arms["zero"](plan.own("zero", plan.defaults), 65)
    x = torch.randn(2, 8, 64)
    assert all(torch.equal(block(x, model.position), x) for block in model.blocks)


def test_the_probe_is_the_size_and_the_gradient_of_each_block():
    plan = lessons.course_plan(INIT)
    torch.manual_seed(0)
    model = plan.arms["gpt2"](plan.own("gpt2", plan.defaults), 65).double()
    x, y = torch.randint(65, (3, 20)), torch.randint(65, (3, 20))
    found = lesson(INIT)["probe"](model, x, y)
    stream, expected = model.position(model.token(x), 0), []
    for block in model.blocks:
        stream = block(stream, model.position)
        expected.append(stream.square().mean().sqrt().item())
    assert found["size of the stream"] == pytest.approx(expected, rel=1e-9)
    model.zero_grad()
    nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    norms = [sum(p.grad.square().sum() for p in block.parameters()).sqrt().item() for block in model.blocks]
    assert found["norm of the gradient"] == pytest.approx(norms, rel=1e-9)


# ---- schedules -----------------------------------------------------------------------------------


def rates(**settings) -> list[float]:
    s = ScheduleSettings(**{"steps": 200, "warm_up": 20, "lr": 0.5} | settings)
    return [lesson(SCHEDULE)["learning_rate"](step, s) for step in range(s.steps)]


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "stable-decay"])
def test_a_schedule_rises_to_the_peak_and_never_above_it(name):
    found = rates(schedule=name)
    assert found[:20] == pytest.approx([0.5 * (step + 1) / 21 for step in range(20)])
    assert max(found) == found[20] == 0.5
    assert all(later <= earlier for earlier, later in zip(found[20:], found[21:], strict=False))
    assert found[-1] == 0.5 if name == "constant" else 0 < found[-1] < 0.02


def test_schedules_where_they_are_known():
    assert rates(schedule="linear")[110] == pytest.approx(0.25)
    assert rates(schedule="cosine")[110] == pytest.approx(0.25)
    assert rates(schedule="cosine")[65] == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))
    late = rates(schedule="stable-decay")
    assert set(late[20:164]) == {0.5} and late[182] == pytest.approx(0.25)
    assert set(rates(warm_up=0)) == {0.5}


@pytest.mark.parametrize(("schedule", "cosine"), [("constant", False), ("cosine", True)])
def test_the_rate_is_that_of_the_loop_of_the_course(schedule, cosine):
    s = Settings(steps=200, warm_up=20, lr=0.5, cosine=cosine)
    expected = [loop.learning_rate(s, step) for step in range(s.steps)]
    assert rates(schedule=schedule) == pytest.approx(expected, rel=1e-12)


def test_every_step_is_taken_at_its_rate():
    """A schedule that is configured and never stepped, or stepped twice, would be seen here."""
    s = ScheduleSettings(**SMALL, schedule="linear", steps=8, warm_up=3, lr=1e-2, clip=1.0)
    _, watching = trained(lesson(SCHEDULE)["train"], s)
    assert watching.rates == [{lesson(SCHEDULE)["learning_rate"](step, s)} for step in range(8)]
    assert len(set(map(tuple, watching.rates))) == 8


def test_at_a_constant_rate_it_is_the_loop_of_the_course():
    s = ScheduleSettings(**SMALL, steps=12, lr=1e-2, clip=1.0, beta2=0.99)
    own, watched = trained(lesson(SCHEDULE)["train"], s)
    usual, expected = trained(loop.train, s)
    assert watched.losses == expected.losses
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), usual.parameters(), strict=True))
    assert watched.losses[-1] < watched.losses[0]


# ---- what a loop of its own reads ----------------------------------------------------------------


def test_flags_that_the_loop_reads_are_taken_and_others_refused(script):
    plan = lessons.course_plan(SCHEDULE)
    assert {"clip", "warm_up", "beta2", "schedule"} <= asked(plan.train)
    ignored = plan.ignores("constant", plan.defaults)
    assert {"cosine", "min_lr", "weight_decay", "decay_matrices", "dtype"} <= ignored
    assert not {"clip", "warm_up", "beta2", "tokenizer", "lr"} & ignored
    for flag in ("--weight-decay 0.1", "--decay-matrices", "--dtype bfloat16", "--cosine"):
        done = script(SCHEDULE, f"{flag} --corpus pydoc --arms warm-up-cosine")
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert f"{flag.split()[0]} does nothing in {SCHEDULE}" in done.stderr
    done = script(SCHEDULE, "--schedule cosin --corpus pydoc")
    assert done.returncode == 2 and "cosine" in done.stderr and done.stderr.count("\n") == 1


def test_the_loops_of_stage_01_still_have_no_recipe():
    for name in ("by_hand", "names_mlp"):
        plan = lessons.course_plan(f"01_bigram/{name}")
        ignored = plan.ignores("default", plan.defaults)
        assert {"dtype", "seconds", "tokenizer", "warm_up", "clip", "weight_decay", "beta2"} <= ignored
