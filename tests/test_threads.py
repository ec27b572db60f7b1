"""How many threads a run uses: chosen before step 0, said, kept, and never more than there are."""

import math
import os
import time

import pytest
import torch

from common import results
from common.data import text_data
from common.errors import UserError
from common.lessons.course import course_plan
from common.training import checkpoint, threads


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu.max": "not a number"}, math.inf),
    ],
)
def test_the_limit_of_a_container_is_read(files, cores, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert threads._quota(tmp_path) == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert threads.limit(tmp_path) == (64 if cores == math.inf else max(1, round(cores)))


def times_of(seconds: dict[int, float], monkeypatch):
    """Steps that take so many seconds with so many threads."""
    asked = []

    def fake(_, count: int) -> float:
        asked.append(count)
        return seconds[count]

    monkeypatch.setattr(threads, "_seconds", fake)
    return asked


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 0.056, 2: 0.034}, 2),  # alone on two cores
        ({1: 0.055, 2: 0.130}, 1),  # beside other work: the two wait for one another
        ({1: 0.055, 2: 0.052}, 1),  # an advantage that small is soon lost
        ({1: 0.001, 2: 0.002, 4: 0.004, 8: 0.009}, 1),  # many cores, a small model
        ({1: 0.100, 2: 0.055, 4: 0.050, 8: 0.080}, 2),
        ({1: 0.800, 2: 0.420, 4: 0.220, 6: 0.160}, 6),
    ],
)
def test_the_fastest_number_is_chosen(seconds, chosen, monkeypatch):
    plan = course_plan("02_attention/bigram")
    data = text_data(plan.settings("--corpus pydoc"))
    model = plan.arms["default"](plan.defaults, data.tokenizer.vocab_size)
    monkeypatch.setattr(torch, "get_num_threads", lambda: max(seconds))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(threads, "limit", lambda: max(seconds))
    asked = times_of(seconds, monkeypatch)
    found = threads.choose(model, data, 100_000)
    assert found.threads == chosen and set(asked) == set(seconds)
    assert f"{1000 * seconds[chosen]:.0f} ms a step" in found.why
    assert threads.choose(model, data, 2) == threads.Choice(1, "the run is short")


def test_other_limits_count_too(monkeypatch):
    monkeypatch.setattr(threads, "limit", lambda: 1)
    assert threads.choose(None, None, 1000).threads == 1


def test_choosing_leaves_no_trace():
    """Neither in the model, nor in the random numbers, nor in the number of threads."""
    plan = course_plan("05_residual_norm/dropout")
    data = text_data(plan.settings("--corpus pydoc"))
    torch.manual_seed(3)
    model = plan.arms["default"](plan.defaults, data.tokenizer.vocab_size)
    before, random, count = (
        {k: v.clone() for k, v in model.state_dict().items()},
        torch.get_rng_state(),
        torch.get_num_threads(),
    )
    try:
        torch.set_num_threads(2)
        threads.choose(model, data, 200)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(count)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and torch.equal(
        random, torch.get_rng_state()
    )
    assert all(p.grad is None for p in model.parameters()) and model.training


@pytest.mark.parametrize("count", [0, -1, 10**6])
def test_a_number_that_cannot_be_is_refused(count, in_process):
    with pytest.raises(UserError, match=f"--threads {count} makes no sense; this process may use 1 to"):
        threads.check(count)
    done = in_process("02_attention/bigram", f"--corpus pydoc --steps 2 --threads {count}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not results.results_path().exists()


@pytest.mark.skipif(threads.limit() < 2, reason="needs two cores")
def test_the_number_is_said_kept_and_used_again(script, own_logs):
    done = script("02_attention/bigram", "--corpus pydoc --steps 6 --threads 2")
    assert "threads     2 for 02_attention/bigram: as given" in done.stdout, done.stdout
    path = next(own_logs.glob("runs/**/checkpoint.safetensors"))
    assert checkpoint.load(path).state["threads"] == 2
    again = script("02_attention/bigram", "--corpus pydoc --steps 6 --resume")
    assert "threads     2 for 02_attention/bigram: as the run began" in again.stdout
    by_hand = script("02_attention/bigram", "--corpus pydoc --steps 6 --resume --threads 1")
    assert "threads     1 for 02_attention/bigram: as given" in by_hand.stdout
    assert results.read().threads.tolist() == [2]


@pytest.mark.slow
@pytest.mark.skipif(threads.limit() < 2, reason="needs two cores")
def test_choosing_takes_no_longer_than_a_few_steps():
    plan = course_plan("05_residual_norm/pre_ln")
    data = text_data(plan.settings("--corpus pydoc"))
    model = plan.arms["default"](plan.defaults, data.tokenizer.vocab_size)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        step = threads._steps_of_a_copy(model, data)
        threads._seconds(step, 1)
        took = []
        for _ in range(
            3
        ):  # beside other work a step may take many times as long; a fault would show each time
            one = max(threads._seconds(step, count) for count in (1, 2))
            start = time.perf_counter()
            threads.choose(model, data, 1500)
            took.append((time.perf_counter() - start) / (12 * one + threads.SHARE * 1500 * one))
        assert min(took) < 1
    finally:
        torch.set_num_threads(before)
