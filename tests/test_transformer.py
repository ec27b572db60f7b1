"""The complete GPT: the readable, the fast and the graduated one are one function; it starts as it should;
the recipe is what it says.
"""

import dataclasses
import math
import runpy

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from common import lessons, outcome
from common.model.gpt import GPT
from common.report.summary import Result
from common.settings import Settings
from common.training.loop import adamw, learning_rate

V = 65
SIZE = Settings(n_layer=3, n_head=4, n_embd=32, block_size=24)


def build(experiment: str, s: Settings = SIZE):
    torch.manual_seed(1)
    return next(iter(lessons.course_plan(f"06_transformer/{experiment}").arms.values()))(s, V).double()


def fused(weights: dict) -> dict:
    """The weights of gpt under the names of fast_gpt: query, key and value one below the other."""
    found = {}
    for name, value in weights.items():
        if ".query." in name:
            parts = [weights[name.replace("query", part)] for part in ("query", "key", "value")]
            found[name.replace("query", "qkv")] = torch.cat(parts)
        elif ".key." not in name and ".value." not in name:
            found[name] = value
    return found


def gradients(model, x, y) -> dict:
    model.zero_grad()
    F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("length", [1, 7, 24])
@pytest.mark.parametrize("other", ["fast_gpt", "common.model"])
def test_same_weights_same_logits_and_gradients(other, length):
    """In float64, to 1e-10; with weights larger than at the start, so that attention is not uniform."""
    slow = build("gpt")
    for p in slow.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    fast = build("fast_gpt") if other == "fast_gpt" else GPT(SIZE, V).double()
    fast.load_state_dict(fused(slow.state_dict()))
    x, y = torch.randint(V, (5, length)), torch.randint(V, (5, length))
    torch.testing.assert_close(fast(x), slow(x), rtol=0, atol=1e-10)
    ours, theirs = fused(gradients(slow, x, y)), gradients(fast, x, y)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(theirs[name], ours[name], rtol=0, atol=1e-10)


def test_what_graduated_starts_as_what_was_taught():
    """The same random numbers give the same weights, so a seed means the same in both."""
    fast, graduated = build("fast_gpt"), (torch.manual_seed(1), GPT(SIZE, V).double())[1]
    for (name, a), (other, b) in zip(fast.named_parameters(), graduated.named_parameters(), strict=True):
        assert name == other and torch.equal(a, b)


@pytest.mark.parametrize("experiment", ["gpt", "fast_gpt"])
def test_weights_start_small_and_the_head_is_the_embedding(experiment):
    s = dataclasses.replace(SIZE, n_embd=128, n_layer=8)
    model = build(experiment, s)
    assert model.head.weight is model.token.weight
    for name, p in model.named_parameters():
        if p.ndim < 2:
            assert (p == 1).all(), name
        else:
            writes = name.endswith(("projection.weight", "feed_forward.2.weight"))
            assert math.isclose(p.std().item(), 0.02 / 4 if writes else 0.02, rel_tol=0.05), name


@pytest.mark.parametrize("experiment", ["gpt", "fast_gpt"])
def test_dropout_is_off_in_evaluation_and_alive_in_training_after_it(experiment):
    model = build(experiment, dataclasses.replace(SIZE, dropout=0.5))
    plain = build(experiment)
    plain.load_state_dict(model.state_dict())
    x = torch.randint(V, (2, 24))
    model.eval()
    assert torch.equal(model(x), plain(x))
    model.train()
    assert not torch.allclose(model(x), model(x))


def test_the_presets_are_the_same_in_both_scripts_and_of_the_published_size():
    plans = [lessons.course_plan(f"06_transformer/{name}") for name in ("gpt", "fast_gpt")]
    assert plans[0].presets == plans[1].presets
    for preset, published in (
        ("yardstick", 804_096),
        ("gpu", 10_745_088),
    ):  # the second: 10.65 M without its positions
        s = plans[0].settings(f"--preset {preset}")
        with torch.device("meta"):
            assert sum(p.numel() for p in plans[0].arms["default"](s, V).parameters()) == published
    assert s.dropout == 0.2 and s.block_size == 256 and s.cosine and s.clip == 1.0


# ---- the recipe ----------------------------------------------------------------------------------


def test_learning_rate_rises_and_falls_as_the_recipe_says():
    s = Settings(steps=2000, lr=1e-3, warm_up=100, cosine=True, min_lr=1e-4)
    assert math.isclose(learning_rate(s, 0), 1e-3 / 101) and math.isclose(
        learning_rate(s, 99), 1e-3 * 100 / 101
    )
    assert (
        learning_rate(s, 100) == 1e-3
        and math.isclose(learning_rate(s, 1050), 5.5e-4)
        and learning_rate(s, 2000) == 1e-4
    )
    rates = [learning_rate(s, step) for step in range(2000)]
    assert rates[:101] == sorted(rates[:101]) and rates[100:] == sorted(rates[100:], reverse=True)
    assert {learning_rate(Settings(), step) for step in (0, 700, 1499)} == {1e-3}
    assert learning_rate(Settings(warm_up=10), 5) < 1e-3 == learning_rate(Settings(warm_up=10), 10)


def test_only_matrices_decay_where_the_recipe_says_so():
    model = build("gpt")
    every, matrices = (
        adamw(model, Settings()),
        adamw(model, Settings(weight_decay=0.1, decay_matrices=True, beta2=0.99)),
    )
    assert [g["weight_decay"] for g in every.param_groups] == [0.01]
    decayed, rest = matrices.param_groups
    assert decayed["weight_decay"] == 0.1 and rest["weight_decay"] == 0.0 and decayed["betas"] == (0.9, 0.99)
    assert {p.ndim for p in decayed["params"]} == {2} and {p.ndim for p in rest["params"]} == {1}
    assert len(decayed["params"]) + len(rest["params"]) == len(list(model.parameters()))


def test_schedule_and_clipping_are_used_while_training(in_process, text_file):
    """Each changes the result: a schedule that is configured and never stepped would not."""
    for flags in (
        "",
        "--warm-up 10",
        "--cosine",
        "--cosine --min-lr 5e-4",
        "--clip 0.01",
        "--weight-decay 5",
        "--weight-decay 5 --decay-matrices",
        "--beta2 0.5",
    ):
        command = f"--corpus {text_file} --steps 20 --n-layer 1 --n-embd 16 --batch-size 4 {flags}".strip()
        done = in_process("06_transformer/fast_gpt", command)  # which also runs what is not in_process
        assert done.returncode == 0, done.stderr
    from common import results

    losses = results.read().test_loss
    assert losses.nunique() == 8 and results.read().config_hash.nunique() == 8


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2e5, 2e6])
def test_a_law_is_found_again_and_its_interval_covers_new_runs(size):
    """Points made from a known law with noise: the law comes back, and its interval holds, among the points
    and beyond them.
    """
    fit_law = runpy.run_path(str(lessons.ROOT / "06_transformer/sizes.py"))["fit_law"]
    sizes = np.repeat([2e4, 5e4, 1e5, 2e5, 4e5, 8e5], 3)
    random, inside = np.random.default_rng(1), 0
    for _ in range(300):
        losses = 1.1 + 0.5 * (sizes / 1e5) ** -0.3 + random.normal(0, 0.005, len(sizes))
        _, law, half = fit_law(sizes, losses)
        new = 1.1 + 0.5 * (size / 1e5) ** -0.3 + random.normal(0, 0.005)
        inside += abs(law(size) - new) <= half(size)
    assert 0.91 <= inside / 300 <= 0.99
    text, law, _ = fit_law(sizes, 1.1 + 0.5 * (sizes / 1e5) ** -0.3)
    assert text == "1.10 + 0.50 / (N / 100,000)^0.30" and math.isclose(
        law(3e6), 1.1 + 0.5 * 30**-0.3, rel_tol=1e-3
    )


def test_sizes_are_nine_and_the_two_largest_wait_to_be_asked():
    plan = lessons.course_plan("06_transformer/sizes")
    assert len(plan.course_arms) == 7 and set(plan.arms) - set(plan.course_arms) == {"xlarge", "huge"}
    s = plan.own("huge", plan.defaults)
    with torch.device("meta"):
        assert sum(p.numel() for p in plan.arms["huge"](s, V).parameters()) > 10e6


def test_a_short_form_has_a_short_warm_up_but_an_arms_own_stays():
    """A warm-up of 100 in 700 steps is 17 in 120; cells whose idea is the warm-up keep theirs."""
    assert lessons.course_plan("06_transformer/sizes").small()[0] == {"steps": 120, "warm_up": 17}
    depth_map = lessons.course_plan("05_residual_norm/depth_map")
    changed = dataclasses.replace(depth_map.defaults, **depth_map.small()[0])
    assert (
        depth_map.own("post-LN-warm-up-32", changed).warm_up == 100
        and depth_map.own("post-LN-32", changed).warm_up == 0
    )


def test_a_picture_that_cannot_be_drawn_does_not_end_the_run(tmp_path, capsys):
    def board(results, folder):
        raise RuntimeError("no fit was found")

    plan = dataclasses.replace(lessons.course_plan("06_transformer/sizes"), overview=board)
    assert outcome._overview(plan, [], tmp_path) == [] and "no fit was found" in capsys.readouterr().out


def test_the_pictures_of_all_sizes(tmp_path):
    """From eight sizes that follow a law: the table has each run, what was fitted, and what the law says of
    it.
    """
    plan, found = lessons.course_plan("06_transformer/sizes"), []
    sizes = [*plan.course_arms, "xlarge"]
    for arm in sizes:
        s = plan.own(arm, plan.defaults)
        with torch.device("meta"):
            params = sum(p.numel() for p in plan.arms[arm](s, V).parameters())
        row = {
            "arm": arm,
            "seed": 1,
            "params": params,
            "vocab_size": V,
            "block_size": s.block_size,
            "n_embd": s.n_embd,
            "steps": 700,
        }
        n = params - (V + s.block_size) * s.n_embd
        row |= {"test_loss": 1.1 + 0.5 * (n / 1e5) ** -0.3, "diverged": False, "tokens_seen": 2867200}
        found.append(Result(row, [(0, math.nan, 4.2, 6.0), (350, 2.0, 2.1, 3.0), (700, 1.5, 1.6, 2.3)], []))
    paths = plan.overview(found, tmp_path)
    assert [path.name for path in paths] == ["law.png", "compute.png"] and all(
        path.exists() for path in paths
    )
    law = pd.read_csv(tmp_path / "law.csv")
    assert list(law.arm) == sizes and list(law.arm[~law.used]) == ["large", "xlarge"]
    assert np.allclose(law.law, law.test_loss, atol=1e-3)
    compute = pd.read_csv(tmp_path / "compute.csv")
    assert len(compute) == 16 and math.isclose(compute.x.max(), 6 * law.x.max() * 2867200)


def test_sizes_draws_its_pictures_and_can_be_picked(script, own_logs):
    done = script(
        "06_transformer/sizes", "--corpus pydoc --sizes pico nano --steps 3 --warm-up 0 --batch-size 2"
    )
    assert done.returncode == 0, done.stderr
    assert (
        list(own_logs.glob("runs/06_transformer/sizes/overview-*/compute.png"))
        and "sizes:nano" in done.stdout
    )
    assert "law.png" not in done.stdout  # two sizes make no law
