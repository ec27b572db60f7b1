"""What holds for every model: an honest start, the ability to learn, and no look at the future."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from common import lessons
from common.data import text_data
from common.lessons.overfit import overfit
from common.settings import Settings
from common.training.recorder import Recorder

# of the cells of a map: each wiring at two blocks; of many sizes, the smallest
SOME = {
    "05_residual_norm/depth_map": ["plain-2", "residual-2", "post-LN-2", "pre-LN-2", "pre-LN-warm-up-8"],
    "06_transformer/sizes": ["pico"],
    "07_tokenizer_gqa/bpe": ["char", "bpe-512"],
    "07_tokenizer_gqa/weight_tying": ["tied-char", "untied-char"],
    "08_micro_arch/attention": ["full-64", "local-64", "linear-64", "linear-128"],
    "08_micro_arch/moe": ["dense", "top-2", "top-1", "top-2-capacity-1"],
    "08_micro_arch/qk_norm": ["plain-0.004", "normalised-0.004"],
    "09_pretraining/ablation": ["baseline", "all"],
    "09_pretraining/init": ["gpt2", "unscaled", "zero", "small", "large"],
    "09_pretraining/loss": ["plain-0.004", "capped-0.004"],
    "09_pretraining/optimizer": ["adamw"],
    "09_pretraining/precision": ["float32"],
    "09_pretraining/schedule": ["warm-up"],
}
ARMS = [(e, arm) for e in lessons.COURSE for arm in SOME.get(e, lessons.course_plan(e).arms)]
TRAINED = [(e, arm) for e, arm in ARMS if lessons.course_plan(e).trains(arm)]
TEXT = [(e, arm) for e, arm in TRAINED if "/names_" not in e]
V = 65


def build(experiment: str, arm: str, seed: int = 1):
    """The model of an arm at its default settings, and those settings."""
    plan = lessons.course_plan(experiment)
    torch.manual_seed(seed)
    return plan.arms[arm](plan.own(arm, plan.defaults), V), plan.own(arm, plan.defaults)


def batch(experiment: str, s: Settings, rows: int):
    """Random ids (B, T) and targets of the shape the model predicts."""
    torch.manual_seed(0)
    x = torch.randint(V, (rows, s.block_size))
    return x, torch.randint(V, (rows,) if "/names_" in experiment else x.shape)


@pytest.mark.parametrize(("experiment", "arm"), TRAINED)
def test_untrained_loss_is_near_that_of_a_uniform_guess(experiment, arm):
    if (experiment, arm) == ("09_pretraining/init", "large"):
        pytest.skip("what it shows is that its first guess is a loud one")
    model, s = build(experiment, arm)
    x, y = batch(experiment, s, 64)
    near = 0.6 if experiment < "06" else 0.05  # from the complete GPT on, weights start small
    assert abs(F.cross_entropy(model(x).flatten(0, -2), y.flatten()).item() - math.log(V)) < near


@pytest.mark.parametrize(
    ("experiment", "arm"),
    [
        pytest.param(*line, marks=[pytest.mark.slow] if line[0] == "04_stacking/stack" else [])
        for line in TRAINED
    ],
)  # the plain stack takes a thousand steps at each of two rates
def test_overfits_one_batch(experiment, arm, capsys):
    """What `--check` does; it ends with SystemExit where a model does not learn its batch."""
    plan = lessons.course_plan(experiment)
    s = dataclasses.replace(plan.defaults, corpus="indian" if "/names_" in experiment else "pydoc")
    # a vocabulary takes longer than the batch
    s = dataclasses.replace(s, tokenizer="char") if experiment.startswith("08") else s
    overfit(plan, [arm], s, plan.load)
    assert f"{arm}: one batch learned" in capsys.readouterr().out


@pytest.mark.parametrize(("experiment", "arm"), TEXT)
def test_no_model_sees_the_future(experiment, arm):
    """The gradient of output t with respect to every input after t is exactly zero, and the input at t does
    matter.
    """
    model, s = build(experiment, arm)
    model.eval()  # dropout would tell two calls apart
    embedded = {}
    # the gradient is taken at the embedded inputs, or, where there is no embedding, replaced by a change of
    # the ids
    if not hasattr(model, "token"):
        x, _ = batch(experiment, s, 1)
        for t in (0, 5, s.block_size - 2):
            changed = x.clone()
            changed[:, t + 1 :] = (changed[:, t + 1 :] + 1) % V
            assert torch.equal(model(x)[:, : t + 1], model(changed)[:, : t + 1])
        return
    model.token.register_forward_hook(
        lambda _, __, out: embedded.update(x=out.detach().requires_grad_()) or embedded["x"]
    )
    x, _ = batch(experiment, s, 2)
    for t in (0, 5, s.block_size - 2):
        logits = model(x)
        gradient = torch.autograd.grad(logits[:, t].sum(), embedded["x"])[0]  # (B, T, C)
        assert gradient[:, t + 1 :].abs().max() == 0
        assert gradient[:, t].abs().max() > 0


@pytest.mark.parametrize(("experiment", "arm"), TEXT)
def test_a_shorter_window_gives_the_same_predictions(experiment, arm):
    model, s = build(experiment, arm)
    model.eval()
    x, _ = batch(experiment, s, 2)
    torch.testing.assert_close(model(x)[:, :10], model(x[:, :10]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("experiment", "arm"), TEXT)
def test_receptive_fields(experiment, arm):
    """The last prediction depends on the first character of the window for every model but the bigrams, which
    see one.
    """
    model, s = build(experiment, arm)
    if (experiment, arm) == ("09_pretraining/init", "zero"):
        torch.manual_seed(0)  # its blocks begin as nothing at all
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.1)
    model.double().eval()  # through four plain blocks hardly anything arrives, but something does
    x, _ = batch("", s, 1)
    changed = x.clone()
    changed[0, 0] = (changed[0, 0] + 1) % V
    assert torch.equal(model(x)[:, -1], model(changed)[:, -1]) == (
        experiment.split("/")[1] in ("bigram", "by_hand")
    )


def test_multi_head_attention_is_that_of_the_library():
    """Scale 1/sqrt(D), heads cut along the width, causal: equal to torch's own attention in float64."""
    model, s = build("02_attention/multi_head", "default")
    attention = model.double().attention
    x = torch.randn(2, 20, s.n_embd, dtype=torch.float64)
    q, k, v = (
        f(x).view(2, 20, s.n_head, s.n_embd // s.n_head).transpose(1, 2)
        for f in (attention.query, attention.key, attention.value)
    )
    expected = (
        F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 20, s.n_embd)
    )
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


def test_one_head_is_that_of_the_library():
    model, s = build("02_attention/self_attention", "default")
    head = model.double().attention
    x = torch.randn(2, 20, s.n_embd, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(head.query(x), head.key(x), head.value(x), is_causal=True)
    torch.testing.assert_close(head(x), expected, rtol=0, atol=1e-12)


def test_average_is_the_mean_of_the_past():
    model, s = build("02_attention/average", "default")
    x = torch.randn(3, 30, s.n_embd)
    expected = torch.stack([x[:, : t + 1].mean(dim=1) for t in range(30)], dim=1)
    torch.testing.assert_close(model.average(x), expected, rtol=1e-5, atol=1e-6)


def test_probing_leaves_no_trace(tmp_path, text_file):
    """What a script looks at while training changes neither gradients nor random numbers, and is what it says
    it is.
    """
    plan = lessons.course_plan("04_stacking/stack")
    s = dataclasses.replace(plan.defaults, corpus=str(text_file), block_size=8, n_layer=3)
    data = text_data(s)
    model = plan.arms["default"](s, data.tokenizer.vocab_size)
    recorder = Recorder(tmp_path, data, dataclasses.replace(s, steps=10), {}, "", plan.probe)
    recorder.model = model
    before = torch.get_rng_state()
    found = recorder._probe()
    assert torch.equal(torch.get_rng_state(), before) and all(p.grad is None for p in model.parameters())
    assert [len(values) for values in found.values()] == [3, 3]
    x, y = data.batch(0)
    F.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    for block, norm in zip(model.blocks, found["gradient norm"], strict=True):
        assert math.isclose(
            torch.cat([p.grad.flatten() for p in block.parameters()]).norm().item(), norm, rel_tol=1e-4
        )
    assert not model.blocks[0]._forward_hooks


def test_our_layer_norm_is_that_of_the_library():
    """Values and gradients in float64, over the C numbers of each vector."""
    ours = next(
        m
        for m in build("05_residual_norm/layer_norm", "default")[0].modules()
        if type(m).__name__ == "LayerNorm"
    ).double()
    theirs = torch.nn.LayerNorm(64).double()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        q.data.copy_(p.data.normal_())
    x = torch.randn(3, 7, 64, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)
    (ours(x) ** 3).sum().backward()
    gradient, x.grad = x.grad, None
    (theirs(x) ** 3).sum().backward()
    torch.testing.assert_close(gradient, x.grad, rtol=0, atol=1e-9)


def test_dropout_is_off_in_evaluation_and_alive_in_training_after_it():
    model, s = build("05_residual_norm/dropout", "default")
    x, _ = batch("", s, 2)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_pre_ln_leaves_the_stream_alone_and_post_ln_normalises_it():
    """With answers of zero, a pre-LN block is the identity and a post-LN block a normalisation."""
    for experiment, expected in (
        ("pre_ln", lambda x: x),
        ("post_ln", lambda x: F.layer_norm(F.layer_norm(x, (64,)), (64,))),
    ):
        block = build(f"05_residual_norm/{experiment}", "default")[0].blocks[0]
        for part in (block.attention, block.feed_forward):
            for p in part.parameters():
                torch.nn.init.zeros_(p)
        x = 3 + 5 * torch.randn(2, 9, 64)
        torch.testing.assert_close(block(x), expected(x), rtol=1e-4, atol=1e-4)
