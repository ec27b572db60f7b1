"""Mixture of experts: the taught and the graduated one are what the equations say. In float64."""

import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from common import lessons
from common.model.feed_forward import FeedForward
from common.model.gpt import GPT
from common.model.moe import MoE
from common.settings import ExpertSettings
from common.training.loop import auxiliary_loss

EXACT = {"rtol": 0, "atol": 1e-10}
PLAN = lessons.course_plan("08_micro_arch/moe")
TAUGHT = vars(sys.modules[PLAN.overview.__module__])["MoE"]
KINDS = [pytest.param(TAUGHT, id="taught"), pytest.param(MoE, id="graduated")]
both = pytest.mark.parametrize("kind", KINDS)
SIZE = ExpertSettings(n_embd=12, n_layer=2, n_head=2, block_size=16)


def layer(kind, **changed) -> torch.nn.Module:
    """With weights that are large enough for the router to have an opinion."""
    torch.manual_seed(1)
    made = kind(replace(SIZE, **changed)).double()
    for p in made.parameters():
        p.data.normal_(0, 0.7)
    return made


def written_out(made, x: torch.Tensor, k: int) -> torch.Tensor:
    """Token by token: the k likeliest experts, weighed by their probabilities, which sum to 1 if there are
    several.
    """
    tokens = x.reshape(-1, x.size(-1))
    out = torch.zeros_like(tokens)
    for n, token in enumerate(tokens):
        p = F.softmax((made.router.weight @ token), dim=-1)
        best = sorted(range(len(p)), key=lambda e: -p[e].item())[:k]
        total = sum(p[e] for e in best) if k > 1 else 1
        out[n] = sum((p[e] / total) * made.experts[e](token[None])[0] for e in best)
    return out.view_as(x)


@both
@pytest.mark.parametrize(("E", "k"), [(1, 1), (4, 1), (8, 2), (5, 5), (6, 3)])
def test_it_is_the_weighted_sum_of_the_likeliest(kind, E, k):
    made, x = layer(kind, n_expert=E, n_expert_per_token=k), torch.randn(3, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(made(x), written_out(made, x, k), **EXACT)


@both
def test_with_one_expert_it_is_the_dense_layer(kind):
    """Outputs and gradients of the whole model; the router has nothing to decide and nothing to learn."""
    s = replace(SIZE, n_expert=1, n_expert_per_token=1, balance=0.0)
    sparse, dense = (
        lessons.build_model(lambda s, v, f=f: GPT(s, v, feed_forward=f), s, 31, 1).double()
        for f in (kind, FeedForward)
    )
    names = {
        f"blocks.{i}.feed_forward.{j}.weight": f"blocks.{i}.feed_forward.experts.0.{j}.weight"
        for i in range(2)
        for j in (0, 2)
    }
    own = dict(sparse.named_parameters())
    for name, p in dense.named_parameters():
        p.data.normal_(0, 0.3)
        own[names.get(name, name)].data.copy_(p)
    ids = torch.randint(31, (2, 16))
    torch.testing.assert_close(sparse(ids), dense(ids), **EXACT)
    for model in (sparse, dense):
        F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    for name, p in dense.named_parameters():
        torch.testing.assert_close(own[names.get(name, name)].grad, p.grad, **EXACT)
    assert all(block.feed_forward.router.weight.grad.abs().max() == 0 for block in sparse.blocks)


@both
def test_with_all_experts_it_is_the_weighted_sum_of_all(kind):
    made, x = layer(kind, n_expert=4, n_expert_per_token=4), torch.randn(2, 9, 12, dtype=torch.float64)
    p = F.softmax(made.router(x), dim=-1)
    expected = sum(p[..., e, None] * expert(x) for e, expert in enumerate(made.experts))
    torch.testing.assert_close(made(x), expected, **EXACT)
    assert made.dropped == 0 and made.load.tolist() == [0.25] * 4


@both
@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40), st.sampled_from([(4, 1), (8, 2), (3, 3)]), st.floats(0.05, 3), st.integers(0, 2**31)
)
def test_what_is_too_much_is_dropped_and_counted(kind, N, sizes, capacity, seed):
    """Each expert takes the first that come, up to its room; in evaluation it takes all.

    The order of the text decides, not its future.
    """
    made = layer(kind, n_expert=sizes[0], n_expert_per_token=sizes[1], capacity=capacity)
    torch.manual_seed(seed)
    x = torch.randn(1, N, 12, dtype=torch.float64)
    room, left, kept = -(-capacity * N * sizes[1] // sizes[0]), {}, torch.zeros_like(x[0])
    p = F.softmax(made.router(x[0]), dim=-1)
    weights, chosen = p.topk(sizes[1])
    weights = weights / weights.sum(-1, keepdim=True) if sizes[1] > 1 else weights
    served = 0
    for n in range(N):
        for place, e in enumerate(chosen[n].tolist()):
            left[e] = left.get(e, room) - 1
            if left[e] >= 0:
                kept[n] += weights[n, place] * made.experts[e](x[0, n][None])[0]
                served += 1
    torch.testing.assert_close(made(x)[0], kept, **EXACT)
    assert made.dropped == pytest.approx(1 - served / (N * sizes[1]), abs=1e-12)
    made.eval()
    torch.testing.assert_close(made(x), written_out(made, x, sizes[1]), **EXACT)
    assert made.dropped == 0


@both
def test_the_load_balancing_loss(kind):
    """1 where all experts are equally likely, E where one gets everything.

    Its gradient takes from those that get more than their share.
    """
    made, x = (
        layer(kind, n_expert=4, n_expert_per_token=1, balance=1.0),
        torch.randn(2, 50, 12, dtype=torch.float64),
    )
    made.router.weight.data.zero_()
    made(x)
    assert made.auxiliary_loss.item() == pytest.approx(1)
    made.router.weight.data[2] = 100.0
    made(x.abs())
    assert made.auxiliary_loss.item() == pytest.approx(4) and made.load.tolist() == [0, 0, 1, 0]
    made.router.weight.data.normal_()
    made(x)
    p = F.softmax(made.router(x.flatten(0, 1)), dim=-1)
    load = torch.bincount(p.argmax(-1), minlength=4) / 100
    assert made.auxiliary_loss.item() == pytest.approx(4 * (load * p.mean(0)).sum().item(), rel=1e-5)
    busiest, before = load.argmax(), load.max()
    optimizer = torch.optim.SGD(made.parameters(), lr=1.0)
    for _ in range(200):
        made(x)
        optimizer.zero_grad()
        made.auxiliary_loss.backward()
        optimizer.step()
    assert made.load[busiest] < before and made.load.max() < 0.35


def test_where_choices_follow_the_probabilities_the_load_balancing_loss_is_least_when_uniform():
    """With shares equal to the mean probabilities it is E times the sum of their squares. A router that is
    never sure may go below 1: two thirds of the tokens at 0.51 for the one expert, one third wholly for the
    other."""
    p = torch.rand(1000, 8, dtype=torch.float64).softmax(-1)
    uniform = torch.full((8,), 1 / 8, dtype=torch.float64)
    assert (8 * p.square().sum(-1) > 1).all() and (8 * uniform.square().sum()).item() == pytest.approx(1)
    unsure = torch.tensor([[0.51, 0.49], [0.51, 0.49], [0.0, 1.0]], dtype=torch.float64)
    load = torch.bincount(unsure.argmax(-1), minlength=2) / 3
    assert 2 * (load * unsure.mean(0)).sum() < 0.9


@both
def test_the_loop_adds_it_and_records_the_loss_of_predictions(kind):
    made, x = layer(kind, balance=0.5), torch.randn(2, 9, 12, dtype=torch.float64)
    assert auxiliary_loss(torch.nn.Linear(2, 2)) == 0
    pair = torch.nn.ModuleList([made, layer(kind, balance=0.25)])
    for own in pair:
        own(x)
    assert auxiliary_loss(pair).item() == pytest.approx(sum(own.auxiliary_loss.item() for own in pair))
    auxiliary_loss(pair).backward()
    assert all(own.router.weight.grad.abs().max() > 0 for own in pair)
    assert all(p.grad is None for own in pair for p in own.experts.parameters())


@both
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n_expert": 0}, "per.token 2 makes no sense; it must be at least 1, at most all 0"),
        ({"n_expert_per_token": 9}, "per.token 9 makes no sense; it must be at least 1, at most all 8"),
        ({"n_expert_per_token": 0}, "per.token 0 makes no sense"),
        ({"capacity": 0.0}, "capacity 0.0 makes no sense; it must be above 0, or no token has room"),
        ({"capacity": -1.0}, "it must be above 0"),
        ({"balance": -0.1}, "balance -0.1 makes no sense; it must be at least 0"),
    ],
)
def test_experts_that_make_no_sense_are_refused(kind, changed, said):
    with pytest.raises(ValueError, match=said) as error:
        layer(kind, **changed)
    assert "\n" not in str(error.value)


def test_work_and_parameters_are_as_the_arms_say():
    """top-2 and top-1 work as much for a token as dense does, and have as many parameters as dense-16x, but
    for their routers.
    """
    sizes, experts = {}, {}
    for arm in PLAN.arms:
        s = PLAN.own(arm, PLAN.defaults)
        with torch.device("meta"):
            block = PLAN.arms[arm](s, 1024).blocks[0].feed_forward
        sizes[arm] = sum(p.numel() for name, p in block.named_parameters() if "router" not in name)
        experts[arm] = len(getattr(block, "experts", [0])), getattr(block, "k", 1)
    for arm in ("top-2", "top-1", "top-2-unbalanced", "top-2-capacity-1"):
        assert sizes[arm] == sizes["dense-16x"]
        number, chosen = experts[arm]
        assert sizes[arm] * chosen / number == sizes["dense"]


def test_the_scores_of_the_script_are_those_of_its_router():
    from common.data import text_data

    s = replace(
        PLAN.defaults, corpus="pydoc", tokenizer="char", n_embd=16, n_layer=2, n_head=2, block_size=16
    )
    data = text_data(s)
    model = lessons.build_model(PLAN.arms["top-2"], s, data.tokenizer.vocab_size, 1)
    found, loads = PLAN.scores(model, data, s), []
    for x, _ in data.test.in_order(s.batch_size):
        stream = model.position(model.token(x))
        for block in model.blocks[:1]:
            stream = stream + block.attention(block.norm1(stream), model.position)
            p = block.feed_forward.router(block.norm2(stream)).flatten(0, 1)
            loads.append(torch.bincount(p.topk(2).indices.flatten(), minlength=8) / (2 * len(p)))
    first = torch.stack(loads) * 8
    assert (
        first.mean(0).max() <= found["busiest expert"] + 1e-6
        and found["idlest expert"] <= first.mean(0).min() + 1e-6
    )
    assert 0 < found["dropped at capacity 1"] < 1
    assert (
        PLAN.scores(lessons.build_model(PLAN.arms["dense"], s, data.tokenizer.vocab_size, 1), data, s)[
            "busiest expert"
        ]
        == 1
    )


def test_memory_is_asked_for_a_model_whose_shapes_depend_on_numbers():
    from common.training import memory

    s, ids = replace(SIZE, batch_size=8), torch.randint(31, (1, 16))
    weights, kept = memory.needed(lambda s, v: GPT(s, v, feed_forward=MoE), s, 31, ids, ids)
    of_dense = memory.needed(lambda s, v: GPT(s, v), s, 31, ids, ids)
    assert weights > of_dense[0] and of_dense[1] < kept < 6 * of_dense[1]
