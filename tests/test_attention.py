"""Five ways to attend: those that should be one function are, on the way back too; the others are what they
say. In float64.
"""

import multiprocessing
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from common import lessons
from common.model import assemble, part
from common.model.norm import RMSNorm
from common.model.position import Position
from common.settings import PartSettings, Settings

EXACT = {"rtol": 1e-10, "atol": 1e-10}  # gradients of scores times 30 are in the thousands
TAUGHT = vars(sys.modules[lessons.course_plan("08_micro_arch/attention").measure.__module__])
explicit, tiled, library, local, linear = (
    TAUGHT[name] for name in ("explicit", "tiled", "library", "local", "linear")
)


def random_heads(T: int, S: int, scale: float = 1.0) -> list[torch.Tensor]:
    """q (2, 3, T, 4), k and v (2, 3, S, 4)."""
    return [scale * torch.randn(2, 3, n, 4, dtype=torch.float64).requires_grad_() for n in (T, S, S)]


def both_ways(mix, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """What comes out, and the gradients of a sum that weighs every number differently."""
    out = mix(*inputs)
    weights = torch.arange(out.numel(), dtype=torch.float64).view_as(out).sin()
    return [out, *torch.autograd.grad((out * weights).sum(), inputs)]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, **EXACT)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(0, 30),
    st.sampled_from([1, 3, 8, 64]),
    st.sampled_from([0.1, 1.0, 30.0]),
    st.integers(0, 2**31),
)
def test_tiled_is_explicit_forward_and_backward(T, before, size, scale, seed):
    """Whatever the block, also where it does not divide the text, with a past, and where one score outweighs
    all others.
    """
    torch.manual_seed(seed)
    inputs = random_heads(T, before + T, scale)
    equal(both_ways(partial(tiled, size=size), inputs), both_ways(explicit, inputs))


@pytest.mark.parametrize(("T", "before"), [(17, 0), (1, 9), (5, 12)])
def test_the_kernel_of_the_library_is_explicit(T, before):
    inputs = random_heads(T, before + T)
    equal(both_ways(library, inputs), both_ways(explicit, inputs))


def test_tiled_passes_the_check_of_gradients():
    torch.manual_seed(1)
    assert torch.autograd.gradcheck(partial(tiled, size=2), [x[:1, :1] for x in random_heads(5, 7)])


@torch.no_grad()
def test_tiled_never_has_all_scores():
    """The largest tensor that comes about, forward and backward, grows with T and not with its square."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                self.most = max(self.most, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return out

    def largest(mix, T):
        inputs = [torch.randn(1, 1, T, 4, requires_grad=True) for _ in range(3)]
        with Largest() as mode, torch.enable_grad():
            mix(*inputs).sum().backward()
        return mode.most

    small = partial(tiled, size=16)
    assert largest(small, 256) <= 2 * largest(small, 128) and largest(small, 256) < 256 * 16
    assert largest(explicit, 256) == 256 * 256
    assert largest(partial(local, window=16), 256) <= 2 * 256 * 16 * 2 and largest(linear, 256) < 256 * 64 * 2


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 30), st.sampled_from([1, 2, 7, 32]), st.integers(0, 2**31))
def test_local_is_explicit_with_the_band_mask(T, before, window, seed):
    torch.manual_seed(seed)
    inputs = random_heads(T, before + T)

    def banded(q, k, v):
        place, other = torch.arange(before, before + T)[:, None], torch.arange(before + T)
        band = (other <= place) & (other > place - window)
        return F.softmax((q @ k.mT / 2).masked_fill(~band, -torch.inf), dim=-1) @ v

    equal(both_ways(partial(local, window=window), inputs), both_ways(banded, inputs))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.sampled_from([1, 5, 16]), st.integers(0, 2**31))
def test_linear_in_parallel_in_chunks_and_as_a_recurrence(T, size, seed):
    """All weights at once, chunk by chunk, token by token: one function."""
    torch.manual_seed(seed)
    inputs = random_heads(T, T)

    def parallel(q, k, v):
        weights = ((F.elu(q) + 1) @ (F.elu(k) + 1).mT).tril()
        return weights @ v / weights.sum(dim=-1, keepdim=True)

    def recurrence(q, k, v):
        past = TAUGHT["Sums"]()
        return torch.cat(
            [linear(q[:, :, t : t + 1], k[:, :, t : t + 1], v[:, :, t : t + 1], past) for t in range(T)],
            dim=2,
        )

    expected = both_ways(parallel, inputs)
    for form in (partial(linear, size=size), partial(linear, size=T), recurrence):
        equal(both_ways(form, inputs), expected)


@pytest.mark.parametrize("mix", [explicit, tiled, library, local, linear])
def test_none_sees_the_future(mix):
    q, k, v = random_heads(70, 70)
    for t in (0, 31, 64, 68):
        gradients = torch.autograd.grad(mix(q, k, v)[:, :, t].sum(), [k, v])
        assert all(g[:, :, t + 1 :].abs().max() == 0 and g[:, :, t].abs().max() > 0 for g in gradients[1:])
        assert gradients[0][:, :, t + 1 :].abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("parts", [[1] * 40, [7, 1, 20, 1, 11]])
@pytest.mark.parametrize("arm", ["full-64", "local-64", "linear-64"])
def test_every_kind_decodes_with_a_cache(arm, parts):
    s = Settings(n_layer=2, n_head=4, n_embd=32, block_size=48)
    model = (
        lessons.build_model(lessons.course_plan("08_micro_arch/attention").arms[arm], s, 65, 1)
        .double()
        .eval()
    )
    for p in model.parameters():
        p.add_(0.2 * torch.randn_like(p))
    ids, cache = torch.randint(65, (2, 40)), model.new_cache()
    logits = torch.cat([model(own, cache) for own in ids.split(parts, dim=1)], dim=1)
    torch.testing.assert_close(logits, model(ids), **EXACT)


# ---- the graduated ones, with everything that the taught ones leave out --------------------------


def attentions(kind: str, **changed) -> list:
    """Attention of this kind, and that which it should be equal to where that is known, with the same
    weights.
    """
    s = PartSettings(n_embd=24, n_head=6, n_kv_head=2, block_size=64, window=5)
    s = replace(s, **changed)
    found = [part("attention", name)(s, qk_norm=RMSNorm).double() for name in (kind, "flash")]
    for p, q in zip(*(own.parameters() for own in found), strict=True):
        q.data.copy_(p.data.normal_(0, 0.5))
    return found


@pytest.mark.parametrize("position", ["none", "rope", "alibi"])
@pytest.mark.parametrize("kind", ["explicit", "tiled", "gqa"])
@pytest.mark.parametrize("T", [1, 37, 130])
def test_explicit_and_tiled_are_the_kernel_of_the_library(kind, position, T):
    """With grouped heads, a norm of queries and keys, and positions: values and the gradients of every
    weight.
    """
    torch.manual_seed(1)
    own, flash = attentions(kind)
    scheme = part("position", position)(PartSettings(n_embd=24, n_head=6))
    x = torch.randn(2, T, 24, dtype=torch.float64, requires_grad=True)
    found = [model(x, scheme) for model in (own, flash)]
    torch.testing.assert_close(*found, **EXACT)
    weights = torch.arange(found[0].numel(), dtype=torch.float64).view_as(found[0]).sin()
    gradients = [
        torch.autograd.grad((out * weights).sum(), [x, *model.parameters()])
        for out, model in zip(found, (own, flash), strict=True)
    ]
    equal(*gradients)


@pytest.mark.parametrize("position", ["none", "rope", "alibi"])
@pytest.mark.parametrize("window", [1, 5, 64])
def test_the_graduated_window_is_explicit_with_the_band_mask(window, position):
    torch.manual_seed(1)
    s = PartSettings(n_embd=24, n_head=6, n_kv_head=2, window=window)
    own, scheme = attentions("local", window=window)[0], part("position", position)(s)
    x = torch.randn(2, 23, 24, dtype=torch.float64)
    q, k, v = own.qkv(x).view(2, 23, 10, 4).transpose(1, 2).split([6, 2, 2], dim=1)
    q, k = scheme.rotate(own.query_norm(q), own.key_norm(k))
    k, v = (heads.repeat_interleave(3, dim=1) for heads in (k, v))
    place = torch.arange(23)
    band = (place <= place[:, None]) & (place > place[:, None] - window)
    scores = q @ k.mT / 2 + (0 if scheme.bias(23, 23) is None else scheme.bias(23, 23))
    expected = (
        (F.softmax(scores.masked_fill(~band, -torch.inf), dim=-1) @ v).transpose(1, 2).reshape(2, 23, 24)
    )
    torch.testing.assert_close(own(x, scheme), own.projection(expected), **EXACT)


def test_dropout_of_weights_is_dropout_of_weights():
    """In training a share of the weights is gone and the rest is larger; in evaluation none is.

    Tiled refuses it.
    """
    torch.manual_seed(1)
    x = torch.randn(2, 30, 24, dtype=torch.float64)
    for kind in ("explicit", "local"):
        own = attentions(kind, dropout=0.5)[0]
        assert not torch.equal(own(x, Position(None)), own(x, Position(None)))
        one, many = (
            own(x, Position(None)),
            torch.stack([own(x, Position(None)) for _ in range(1000)]).mean(dim=0),
        )
        expected = own.eval()(x, Position(None))
        assert (many - expected).abs().mean() < 0.1 * (one - expected).abs().mean()
    with pytest.raises(ValueError, match="'tiled' has no dropout"):
        attentions("tiled", dropout=0.1)


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        ("local", {"window": 0}, "window 0 makes no sense: it sees nothing"),
        ("local", {"window": -3}, "it must be at least 1"),
        ("gqa", {"n_kv_head": 0}, "set n_kv_head to a smaller divisor of n_head"),
        ("gqa", {"n_kv_head": 6}, "nothing is shared with 6 heads"),
    ],
)
def test_attention_that_makes_no_sense_is_refused(kind, changed, said):
    with pytest.raises(ValueError, match=said) as error:
        attentions(kind, **changed)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("position", ["rope", "alibi"])
def test_linear_attention_has_no_scores_to_act_on(position):
    s = PartSettings(n_embd=24, n_head=6, attention="linear", position=position)
    with pytest.raises(ValueError, match="does not go with position"):
        assemble(s, 65)
    with pytest.raises(ValueError, match="linear attention has no scores"):
        part("attention", "linear")(s)(torch.randn(1, 3, 24), part("position", position)(s))


def test_each_context_costs_as_many_tokens():
    plan = lessons.course_plan("08_micro_arch/attention")
    for arm in plan.arms:
        s = plan.own(arm, plan.defaults)
        assert s.block_size * s.batch_size == 1024 and arm.endswith(f"-{s.block_size}")
    assert len(plan.arms) == 12


def grown() -> tuple[int, int]:
    """How much the peak grew by 40 MB, after 60 MB that are gone; and the bytes that fill what is missing to
    the peak.
    """
    from common.training import memory

    memory.free_at_once()
    torch.ones(60_000_000, dtype=torch.uint8)  # gone again at once
    kept = memory.up_to_the_peak()
    before = memory.peak()
    more = torch.ones(40_000_000, dtype=torch.uint8)
    return (memory.peak() - before) * bool(len(more)), len(kept)


def test_the_peak_of_memory_is_seen():
    """Also where earlier work of the process needed more than is asked for now; in a process of its own, as
    measured.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        more, _ = pool.apply(grown)
    assert 35e6 < more < 60e6
