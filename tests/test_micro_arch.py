"""Stage 08: every part is what its equation says, the taught one is the graduated one, and the settings fit.

In float64.
"""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from common import lessons
from common.model import PARTS, part
from common.model.gpt import GPT
from common.model.norm import LayerNorm, RMSNorm, ScaleNorm
from common.model.position import RoPE, alibi_slopes
from common.settings import MICRO_ARCH, PartSettings, Settings

V = 65
SIZE = PartSettings(n_layer=2, n_head=4, n_embd=32, block_size=48)
FFN, NORM, ACT, POS, QK, ATT, MOE = (
    f"08_micro_arch/{name}"
    for name in ("ffn_width", "norm", "activation", "position", "qk_norm", "attention", "moe")
)
EXACT = {"rtol": 0, "atol": 1e-10}


def twins() -> list[tuple[str, str, dict]]:
    """Each arm of the stage, and the parts of common.model that it should be equal to."""
    from common.model.feed_forward import FeedForward

    found = [
        (FFN, arm, {"feed_forward": partial(FeedForward, multiple=float(arm.partition("x")[0]))})
        for arm in arms(FFN)
    ]
    found += [
        (NORM, arm, {"norm": part("norm", arm)}) for arm in ("layernorm", "rmsnorm", "scalenorm", "none")
    ]
    found += [
        (NORM, "LN-RN", {"norm": (LayerNorm, RMSNorm)}),
        (NORM, "RN-LN", {"norm": (RMSNorm, LayerNorm)}),
    ]
    found += [(ACT, arm, {"feed_forward": part("feed_forward", arm)}) for arm in arms(ACT)]
    found += [(POS, arm, {"position": part("position", arm)}) for arm in arms(POS)]
    found += [
        (QK, "plain-0.004", {}),
        (QK, "normalised-0.004", {"attention": partial(part("attention", "flash"), qk_norm=RMSNorm)}),
    ]
    kinds = {"full": "flash", "local": "local", "linear": "linear"}
    found += [(ATT, f"{arm}-64", {"attention": part("attention", name)}) for arm, name in kinds.items()]
    return found + [
        (MOE, arm, {"feed_forward": part("feed_forward", "moe")}) for arm in arms(MOE) if "top" in arm
    ]


def arms(experiment: str) -> list[str]:
    return list(lessons.course_plan(experiment).arms)


def definitions(experiment: str) -> dict:
    """What a script defines, by name."""
    import sys

    plan = lessons.course_plan(experiment)
    return vars(sys.modules[(plan.scores or plan.overview or plan.measure).__module__])


@pytest.mark.parametrize(("experiment", "arm", "parts"), twins())
def test_the_taught_part_is_the_graduated_one(experiment, arm, parts):
    """The same seed gives the same weights; with larger ones, the same logits and gradients."""
    plan = lessons.course_plan(experiment)
    changed = {
        k: v
        for k, v in getattr(plan.arms[arm], "settings", {}).items()
        if k not in ("batch_size", "block_size", "lr")
    }
    own = replace(SIZE, **changed)
    taught, graduated = (
        lessons.build_model(build, own, V, 1).double()
        for build in (plan.arms[arm], lambda s, v: GPT(s, v, **parts))
    )
    pairs = list(zip(taught.parameters(), graduated.parameters(), strict=True))
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)
        ours.data.add_(0.2 * torch.randn_like(ours))
        theirs.data.copy_(ours)
    ids = torch.randint(V, (3, 40))
    logits = [model(ids) for model in (taught, graduated)]
    torch.testing.assert_close(*logits, **EXACT)
    found = [
        torch.autograd.grad(F.cross_entropy(own.flatten(0, 1), ids.flatten()), list(model.parameters()))
        for own, model in zip(logits, (taught, graduated), strict=True)
    ]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_what_writes_to_the_stream_starts_smaller_in_every_part():
    """The output matrix of a gated layer, too: about its size, whatever its name."""
    s = replace(SIZE, n_embd=256, n_layer=8, n_head=8)
    for name, build in PARTS["feed_forward"].items():
        if name == "moe":
            continue  # it has several layers, and a router
        block = (
            lessons.build_model(lambda s, v, build=build: GPT(s, v, feed_forward=build), s, V, 1)
            .blocks[0]
            .feed_forward
        )
        matrices = [p for p in block.parameters() if p.ndim == 2]
        *inner, out = [p.std().item() for p in matrices]
        assert all(math.isclose(std, 0.02, rel_tol=0.05) for std in inner) and math.isclose(
            out, 0.02 / 4, rel_tol=0.05
        ), name


# ---- norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "ScaleNorm"])
def test_norms_are_those_of_the_library(name):
    """Values and gradients, with scales that are not 1."""
    taught = definitions(NORM)[name](SIZE).double()
    graduated = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm, "ScaleNorm": ScaleNorm}[name](SIZE).double()
    x = (3 + 5 * torch.randn(4, 7, 32, dtype=torch.float64)).requires_grad_()
    weight = torch.randn_like(next(taught.parameters()))
    library = {
        "LayerNorm": lambda: F.layer_norm(x, (32,), weight, eps=1e-5),
        "RMSNorm": lambda: F.rms_norm(x, (32,), weight, eps=1e-5),
        "ScaleNorm": lambda: weight * x / torch.linalg.vector_norm(x, dim=-1, keepdim=True),
    }[name]
    expected = library()
    gradient = torch.autograd.grad((expected**3).sum(), x)[0]
    for norm in (taught, graduated):
        next(norm.parameters()).data.copy_(weight)
        torch.testing.assert_close(norm(x), expected, **EXACT)
        torch.testing.assert_close(
            torch.autograd.grad((norm(x) ** 3).sum(), x)[0], gradient, rtol=1e-12, atol=1e-10
        )


def test_norms_keep_what_they_say():
    """LayerNorm forgets mean and size of a vector, RMSNorm and ScaleNorm its size only; none of them mixes
    positions.
    """
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    norms = {name: definitions(NORM)[name](SIZE).double() for name in ("LayerNorm", "RMSNorm", "ScaleNorm")}
    for name, norm in norms.items():
        torch.testing.assert_close(norm(7 * x), norm(x), rtol=0, atol=1e-4)
        assert torch.allclose(norm(x + 3), norm(x), atol=1e-4) == (name == "LayerNorm")
        torch.testing.assert_close(norm(x)[:, 2:3], norm(x[:, 2:3]), **EXACT)
        assert norm(torch.zeros(1, 1, 32, dtype=torch.float64)).isfinite().all()
    # at the start they are one
    torch.testing.assert_close(norms["RMSNorm"](x), norms["ScaleNorm"](x), rtol=0, atol=1e-4)
    assert sum(p.numel() for p in norms["ScaleNorm"].parameters()) == 1


# ---- feed-forward layers -------------------------------------------------------------------------

GATES = {"glu": torch.sigmoid, "reglu": torch.relu, "geglu": F.gelu, "swiglu": lambda x: x * torch.sigmoid(x)}
PLAIN = {
    "relu": torch.relu,
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "gelu-tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "silu": lambda x: x * torch.sigmoid(x),
    "relu2": lambda x: torch.relu(x) ** 2,
}


@pytest.mark.parametrize("name", list(GATES))
def test_gated_layers_are_their_formula(name):
    layer = part("feed_forward", name)(SIZE).double()
    x = torch.randn(3, 5, 32, dtype=torch.float64)
    gate, up, down = (matrix.weight for matrix in (layer.gate, layer.up, layer.down))
    torch.testing.assert_close(layer(x), (GATES[name](x @ gate.T) * (x @ up.T)) @ down.T, **EXACT)


@pytest.mark.parametrize("name", list(PLAIN))
def test_plain_layers_are_their_formula(name):
    layer = part("feed_forward", name)(SIZE).double()
    x = 2 * torch.randn(3, 5, 32, dtype=torch.float64)
    torch.testing.assert_close(layer(x), PLAIN[name](x @ layer[0].weight.T) @ layer[2].weight.T, **EXACT)


def sizes(experiment: str) -> dict[str, int]:
    """Parameters of each arm without those of tokens and places."""
    plan = lessons.course_plan(experiment)
    found = {}
    for arm in plan.arms:
        s = plan.own(arm, plan.defaults)
        with torch.device("meta"):
            model = plan.arms[arm](s, 1024)
        found[arm] = sum(p.numel() for p in model.parameters()) - (1024 + s.block_size) * s.n_embd
    return found


def test_comparisons_at_equal_parameters_are_at_equal_parameters():
    activations, widths = sizes(ACT), sizes(FFN)
    assert len(activations) == 8 and max(activations.values()) < 1.01 * min(activations.values())
    equal = [size for arm, size in widths.items() if arm.endswith("-equal")]
    assert len(equal) == 4 and all(abs(size / widths["4x"] - 1) < 0.05 for size in equal)
    assert [widths[f"{m}x"] for m in ("0.5", "1", "2", "4", "8")] == sorted(
        widths[f"{m}x"] for m in ("0.5", "1", "2", "4", "8")
    )


# ---- positions -----------------------------------------------------------------------------------


def rope(theta=10_000.0, interleaved=False, size=8) -> RoPE:
    return RoPE(Settings(n_embd=2 * size, n_head=2), theta, interleaved)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 4000), st.integers(0, 4000), st.integers(0, 4000), st.booleans(),
    st.sampled_from([2, 6, 16, 64]),
    st.sampled_from([10_000.0, 500_000.0]), st.integers(0, 2**31),
)  # fmt: skip
def test_a_score_of_turned_vectors_depends_on_their_distance_alone(
    m, n, shift, interleaved, size, theta, seed
):
    scheme = rope(theta, interleaved, size)
    q, k = torch.randn(2, 1, 1, 1, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    turned = {at: scheme.rotate(q, k, at) for at in (m, n, m + shift, n + shift)}
    here, there = ((turned[m + by][0] * turned[n + by][1]).sum() for by in (0, shift))
    torch.testing.assert_close(here, there, **EXACT)
    for at, (own, _) in turned.items():
        torch.testing.assert_close(own.norm(), q.norm(), **EXACT)
        assert at or torch.equal(own, q)  # at place 0 nothing is turned
    assert size == 2 or m == n or not torch.allclose(turned[m][0], turned[n][0], atol=1e-6)


def test_the_pairing_of_llama_and_of_gpt_j():
    """Llama turns (i, i + D/2), GPT-J (2i, 2i + 1); as complex numbers both multiply by e^(i m theta), in
    another order.
    """
    q = torch.randn(2, 3, 11, 8, dtype=torch.float64)
    llama, gpt_j = (rope(interleaved=interleaved).rotate(q, q, 5)[0] for interleaved in (False, True))
    angles = torch.arange(5, 16, dtype=torch.float64)[:, None] / 10_000 ** (
        torch.arange(4, dtype=torch.float64) / 4
    )
    turn = torch.polar(torch.ones_like(angles), angles)
    expected = torch.view_as_real(torch.view_as_complex(q.unflatten(-1, (4, 2))) * turn).flatten(-2)
    torch.testing.assert_close(gpt_j, expected, **EXACT)
    halves = torch.complex(q[..., :4], q[..., 4:]) * turn
    torch.testing.assert_close(llama, torch.cat([halves.real, halves.imag], dim=-1), **EXACT)
    order = torch.arange(8).view(2, 4).T.flatten()  # 0 4 1 5 2 6 3 7
    torch.testing.assert_close(
        rope(interleaved=True).rotate(q[..., order], q, 5)[0], llama[..., order], **EXACT
    )
    torch.testing.assert_close(
        definitions(POS)["RoPE"](Settings(n_embd=16, n_head=2)).rotate(q, q, 5)[0], llama, **EXACT
    )


@pytest.mark.parametrize("name", list(PARTS["position"]))
@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("parts", [[1] * 40, [7, 1, 20, 1, 11]])
@torch.no_grad()
def test_decoding_with_a_cache_continues_the_positions(name, heads, parts):
    """Also with the norm of queries and keys, which are kept normalised and turned."""
    for kind, qk_norm in itertools.product(PARTS["attention"], (None, RMSNorm)):
        if kind == "gqa" and heads == 4 or kind == "linear" and name in ("rope", "alibi"):
            continue
        torch.manual_seed(1)
        attention = partial(part("attention", kind), qk_norm=qk_norm)
        s = replace(SIZE, n_kv_head=heads, window=9)
        model = GPT(s, V, attention=attention, position=part("position", name)).double().eval()
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
        ids, cache = torch.randint(V, (2, 40)), model.new_cache()
        logits = torch.cat([model(own, cache) for own in ids.split(parts, dim=1)], dim=1)
        torch.testing.assert_close(logits, model(ids), **EXACT)


def test_the_taught_qk_norm_decodes_with_a_cache():
    model = lessons.build_model(lessons.course_plan(QK).arms["normalised-0.004"], SIZE, V, 1).double().eval()
    ids, cache = torch.randint(V, (2, 40)), model.new_cache()
    logits = torch.cat([model(own, cache) for own in ids.split([7, 1, 20, 1, 11], dim=1)], dim=1)
    torch.testing.assert_close(logits, model(ids), **EXACT)


def test_the_slopes_of_alibi():
    """The figures of the paper for 8 heads, and its rule for 6 and 12, which are no powers of two."""
    known = {
        1: [2**-8],
        6: [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3],
        8: [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256],
        12: [2**-1, 2**-2, 2**-3, 2**-4, 2**-5, 2**-6, 2**-7, 2**-8, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5],
    }
    for heads, slopes in known.items():
        assert alibi_slopes(heads) == pytest.approx(slopes, abs=1e-12)
        assert definitions(POS)["slopes"](heads) == alibi_slopes(heads)
    for heads in range(1, 65):
        assert (
            len(set(alibi_slopes(heads))) == heads
            and 0 < min(alibi_slopes(heads)) <= max(alibi_slopes(heads)) < 1
        )


def test_alibi_lowers_scores_by_distance():
    """Attention of the model, against scores written out with the bias of each pair."""
    s = replace(SIZE, n_head=6, n_embd=36)
    attention = PARTS["attention"]["flash"](s).double()
    scheme, x = part("position", "alibi")(s), torch.randn(2, 9, 36, dtype=torch.float64)
    q, k, v = attention.qkv(x).view(2, 9, 3, 6, 6).permute(2, 0, 3, 1, 4)
    expected = torch.zeros(2, 6, 9, 6, dtype=torch.float64)
    for h, slope in enumerate(alibi_slopes(6)):
        for i in range(9):
            scores = torch.stack(
                [(q[:, h, i] * k[:, h, j]).sum(-1) / 6**0.5 - slope * (i - j) for j in range(i + 1)], dim=-1
            )
            expected[:, h, i] = (scores.softmax(-1)[..., None] * v[:, h, : i + 1]).sum(1)
    expected = attention.projection(expected.transpose(1, 2).reshape(2, 9, 36))
    torch.testing.assert_close(attention(x, scheme), expected, **EXACT)


def test_sinusoidal_positions_are_the_papers():
    scheme = part("position", "sinusoidal")(SIZE)
    x = torch.randn(1, 10, 32, dtype=torch.float64)
    added = (scheme(x, 7) - 32**0.5 * x)[0]
    for place, i in [(0, 0), (3, 5), (9, 15)]:
        angle = (7 + place) / 10_000 ** (2 * i / 32)
        assert added[place, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-10)
        assert added[place, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-10)
    odd = part("position", "sinusoidal")(replace(SIZE, n_embd=33))
    assert odd(torch.zeros(2, 4, 33)).shape == (2, 4, 33)


def test_without_positions_the_order_of_the_past_does_not_matter_and_with_them_it_does():
    """The prediction at the last place, for all orders of three tokens before it; one layer, as a second one
    tells orders apart.
    """
    orders = torch.tensor([[*order, 4] for order in itertools.permutations((1, 2, 3))])
    for name, scheme in PARTS["position"].items():
        torch.manual_seed(1)
        model = GPT(replace(SIZE, n_layer=1), V, position=scheme).double().eval()
        for p in model.parameters():
            p.data.add_(0.2 * torch.randn_like(p))
        last = model(orders)[:, -1]
        assert torch.allclose(last, last[:1].expand_as(last), rtol=0, atol=1e-10) == (name == "none"), name


# ---- queries and keys ----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-2, 1e4), st.sampled_from([4, 16, 64]))
def test_scores_of_normalised_queries_and_keys_are_bounded(seed, scale, size):
    """By sqrt(D) times the largest product of scales, however large the inputs; equal vectors reach it where
    the scales are equal.
    """
    torch.manual_seed(seed)
    s = Settings(n_embd=2 * size, n_head=2)
    attention = definitions(QK)["MultiHeadAttention"](s, normalised=True).double()
    for norm in (attention.query_norm, attention.key_norm):
        norm.weight.data.normal_()
    q, k, _ = attention.queries_keys_values(scale * torch.randn(2, 9, 2 * size, dtype=torch.float64))
    bound = size**0.5 * (attention.query_norm.weight * attention.key_norm.weight).abs().max()
    assert (q @ k.transpose(-2, -1)).abs().max() / size**0.5 <= bound * (1 + 1e-10)
    norm = RMSNorm(s, size).double()
    x = 1e3 * torch.randn(size, dtype=torch.float64)
    assert math.isclose((norm(x) @ norm(x)).item() / size**0.5, size**0.5, rel_tol=1e-9)


def test_the_largest_score_is_found():
    """What the script says of a model, against the scores of its attention written out."""
    from common.data import text_data

    plan = lessons.course_plan(QK)
    s = replace(SIZE, corpus="pydoc", n_layer=1)
    data = text_data(s)
    model = lessons.build_model(plan.arms["plain-0.004"], s, data.tokenizer.vocab_size, 1)
    x = next(data.test.in_order(16))[0]
    q, k, _ = (
        model.blocks[0].attention.qkv(model.blocks[0].norm1(model.position(model.token(x)))).chunk(3, dim=-1)
    )
    q, k = (part.view(16, 48, 4, 8).transpose(1, 2) for part in (q, k))
    seen = (q @ k.mT / 8**0.5).masked_fill(torch.ones(48, 48, dtype=torch.bool).triu(1), 0.0)
    found = plan.scores(model, data, s)["largest attention score"]
    assert found == pytest.approx(seen.abs().max().item(), rel=1e-5)
    assert not model.blocks[0].attention._forward_hooks


# ---- the setting, and what does not fit ----------------------------------------------------------


def test_every_script_of_the_stage_has_its_setting():
    scripts = [e for e in lessons.COURSE if e.startswith("08_micro_arch/")]
    for experiment in scripts:
        plan = lessons.course_plan(experiment)
        expected = replace(MICRO_ARCH, steps=1500) if experiment == POS else MICRO_ARCH
        assert vars(expected).items() <= vars(plan.defaults).items()
        assert plan.header.seeds == [1, 2, 3, 4, 5]
    assert (MICRO_ARCH.tokenizer, MICRO_ARCH.batch_size, MICRO_ARCH.steps, MICRO_ARCH.warm_up) == (
        "bpe-1024",
        16,
        600,
        60,
    )
    assert (MICRO_ARCH.lr, MICRO_ARCH.clip, MICRO_ARCH.beta2, MICRO_ARCH.cosine) == (4e-3, 1.0, 0.99, False)


def test_the_first_arms_are_one_model():
    """What each script compares with is the same GPT: with the same seed, the same weights and the same
    logits.
    """
    ids, logits = torch.randint(V, (2, 30)), {}
    for experiment in (FFN, NORM, ACT, POS, QK, ATT, MOE):
        plan = lessons.course_plan(experiment)
        first = next(iter(plan.arms))
        logits[experiment, first] = lessons.build_model(plan.arms[first], SIZE, V, 1).double()(ids)
    assert [arm for _, arm in logits] == [
        "4x",
        "layernorm",
        "gelu",
        "learned",
        "plain-0.004",
        "full-64",
        "dense",
    ]
    for found in logits.values():
        torch.testing.assert_close(found, logits[FFN, "4x"], rtol=0, atol=1e-7)


def test_an_unknown_part_is_named_with_the_nearest_and_the_known_ones():
    for socket, name, said in (
        (
            "norm",
            "rmsnrom",
            "norm 'rmsnrom' is not known; did you mean 'rmsnorm'?; there are layernorm, rmsnorm, "
            "scalenorm, none",
        ),
        ("position", "zzz", "position 'zzz' is not known; there are none, learned, sinusoidal, rope, alibi"),
        ("norms", "none", "socket 'norms' is not known; did you mean 'norm'?"),
    ):
        with pytest.raises(ValueError, match="is not known") as error:
            part(socket, name)
        assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "build", [lambda: definitions(POS)["LearnedPosition"], lambda: part("position", "learned")]
)
def test_a_context_beyond_learned_positions_is_refused(build):
    model = GPT(SIZE, V, position=build())
    with pytest.raises(ValueError, match="position 48 is outside the window of 48"):
        model(torch.zeros(1, 49, dtype=torch.long))
    cache = model.new_cache()
    model(torch.zeros(1, 48, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="no vector was learned for it"):
        model(torch.zeros(1, 1, dtype=torch.long), cache)


def test_bfloat16_goes_with_every_part():
    """Under mixed precision the tables of positions take the type of queries and scores."""
    ids = torch.randint(V, (2, 20))
    for socket, known in PARTS.items():
        for name, build in known.items():
            model = GPT(replace(SIZE, n_kv_head=2), V, **{socket: build})
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(ids)
            assert logits.isfinite().all(), (socket, name)
