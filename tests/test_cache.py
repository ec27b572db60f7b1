"""Decoding with a cache gives what decoding without it gives, and grouped heads are what they say; as taught,
and as graduated.
"""

import dataclasses
import runpy
import time

import pytest
import torch
from torch.nn import functional as F

from common import lessons
from common.generation.sampling import Sampling, generate
from common.model.attention import MultiHeadAttention
from common.model.gpt import GPT
from common.model.head import TiedHead, UntiedHead
from common.settings import Settings

V = 65
SIZE = Settings(n_layer=3, n_head=4, n_embd=32, block_size=256)
CACHED = runpy.run_path(str(lessons.ROOT / "07_tokenizer_gqa/kv_cache.py"))["MultiHeadAttention"]
GROUPED = runpy.run_path(str(lessons.ROOT / "07_tokenizer_gqa/gqa.py"))["MultiHeadAttention"]
ATTENTION = {"graduated": MultiHeadAttention, "kv_cache": CACHED, "gqa": GROUPED}
KINDS = [
    ("graduated", 4),
    ("graduated", 2),
    ("graduated", 1),
    ("kv_cache", 4),
    ("gqa", 4),
    ("gqa", 2),
    ("gqa", 1),
]


def model(kind: str = "graduated", heads: int = 4, s: Settings = SIZE) -> GPT:
    """In float64, with weights larger than at the start, so that attention is not uniform."""
    torch.manual_seed(1)
    built = GPT(dataclasses.replace(s, n_kv_head=heads), V, attention=ATTENTION[kind]).double().eval()
    for p in built.parameters():
        p.data.add_(0.2 * torch.randn_like(p))
    return built


@pytest.mark.parametrize(("kind", "heads"), KINDS)
def test_cached_decoding_is_uncached_decoding_token_for_token(kind, heads):
    """Greedy, 200 tokens, two texts at once."""
    built, start = model(kind, heads), torch.randint(V, (2, 20))
    greedy = Sampling(temperature=0)
    with_cache = torch.stack(list(generate(built, start, 256, 200, greedy)))
    without = torch.stack(list(generate(built, start, 256, 200, greedy, cached=False)))
    assert torch.equal(with_cache, without) and len(with_cache.unique()) > 5


@pytest.mark.parametrize(("kind", "heads"), KINDS)
@pytest.mark.parametrize("parts", [[40], [1] * 40, [7, 1, 20, 1, 11]])
@torch.no_grad()
def test_cached_logits_are_those_of_the_whole(kind, heads, parts):
    """However the text comes: at once, one by one, or in pieces (T new positions after S - T known ones need
    a mask of their own).
    """
    built, ids = model(kind, heads), torch.randint(V, (2, 40))
    cache = built.new_cache()
    logits = torch.cat([built(part, cache) for part in ids.split(parts, dim=1)], dim=1)
    torch.testing.assert_close(logits, built(ids), rtol=0, atol=1e-10)
    assert cache[0].length == 40


@torch.no_grad()
def test_past_the_window_the_cache_is_given_up_and_the_tokens_stay_the_same():
    s = dataclasses.replace(SIZE, block_size=16)
    built = model(s=s)
    for length in (5, 16, 30):  # also prompts that are longer than the window
        start = torch.randint(V, (1, length))
        greedy = Sampling(temperature=0)
        found = [
            torch.stack(list(generate(built, start, 16, 40, greedy, cached=cached)))
            for cached in (True, False)
        ]
        assert torch.equal(*found) and len(found[0]) == 40


def test_sampling_with_a_cache_draws_the_same_tokens():
    built, start = model(), torch.randint(V, (3, 9))
    drawn = [
        torch.stack(
            list(
                generate(built, start, 256, 50, Sampling(top_k=20), torch.Generator().manual_seed(4), cached)
            )
        )
        for cached in (True, False)
    ]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("heads", [4, 2, 1])
def test_the_taught_groups_are_the_graduated_ones(heads):
    """Same weights, same logits and gradients."""
    taught, graduated = model("gqa", heads), model("graduated", heads)
    weights = taught.state_dict()
    for name in [n for n in weights if ".query." in n]:
        weights[name.replace("query", "qkv")] = torch.cat(
            [weights.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        )
    graduated.load_state_dict(weights)
    ids = torch.randint(V, (3, 30))
    torch.testing.assert_close(graduated(ids), taught(ids), rtol=0, atol=1e-10)
    losses = [F.cross_entropy(m(ids).flatten(0, 1), ids.flatten()) for m in (taught, graduated)]
    ours, theirs = (
        torch.autograd.grad(loss, m.token.weight)[0]
        for loss, m in zip(losses, (taught, graduated), strict=True)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_groups_of_one_are_multi_head_attention_exactly():
    """With as many heads of keys as of queries: to the last bit the attention that was taught before."""
    ids = torch.randint(V, (3, 30))
    grouped, before = model(heads=4), model("kv_cache")
    before.load_state_dict(grouped.state_dict())
    assert torch.equal(before(ids), grouped(ids))


def test_a_group_shares_keys_and_values_and_nothing_else():
    """GQA is MHA whose keys and values are the same within a group; its queries are all different."""
    grouped, s = model(heads=2), SIZE
    whole = model(heads=4)
    weights, size = grouped.state_dict(), s.n_embd // s.n_head
    for name in [n for n in weights if ".qkv." in n]:
        q, k, v = weights[name].split([s.n_embd, 2 * size, 2 * size])
        wide = [part.view(2, 1, size, -1).expand(2, 2, size, -1).reshape(s.n_embd, -1) for part in (k, v)]
        weights[name] = torch.cat([q, *wide])
    whole.load_state_dict(weights)
    ids = torch.randint(V, (2, 25))
    torch.testing.assert_close(grouped(ids), whole(ids), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["graduated", "gqa"])
@torch.no_grad()
def test_the_cache_is_smaller_by_the_group_factor(kind):
    sizes = {}
    for heads in (4, 2, 1):
        built = model(kind, heads)
        cache = built.new_cache()
        built(torch.zeros(1, 100, dtype=torch.long), cache)
        sizes[heads] = sum(layer.nbytes for layer in cache)
    # layers, positions, keys and values, width, bytes of float64
    assert sizes[4] == 2 * sizes[2] == 4 * sizes[1] == 3 * 100 * 2 * 32 * 8


def test_a_position_outside_the_window_is_refused():
    built = model(s=dataclasses.replace(SIZE, block_size=8))
    cache = built.new_cache()
    built(torch.zeros(1, 8, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="position 8 is outside the window of 8"):
        built(torch.zeros(1, 1, dtype=torch.long), cache)


@torch.no_grad()
def test_the_loop_that_was_taught_writes_what_generate_writes():
    greedy = runpy.run_path(str(lessons.ROOT / "07_tokenizer_gqa/kv_cache.py"))["greedy"]
    built, start = model("kv_cache"), torch.randint(V, (2, 9))
    expected = torch.stack(list(generate(built, start, 256, 30, Sampling(temperature=0))), dim=1)
    assert torch.equal(greedy(built, start, 30, built.new_cache())[:, 9:], expected)
    assert torch.equal(greedy(built, start, 30, None)[:, 9:], expected)


@pytest.mark.slow
@torch.no_grad()
def test_decoding_with_a_cache_is_at_least_five_times_faster():
    """256 new tokens after a prompt of 256; 6 layers, width 256."""
    built = GPT(Settings(n_layer=6, n_head=8, n_embd=256, block_size=512), V)
    start, spent = torch.randint(V, (1, 256)), {}
    for cached in (True, False):
        list(generate(built, start, 512, 2, cached=cached))
        begin = time.process_time()
        list(generate(built, start, 512, 256, cached=cached))
        spent[cached] = time.process_time() - begin
    assert spent[False] > 5 * spent[True]


def test_heads_that_do_not_divide_are_refused(in_process):
    for script, flags in (
        ("weight_tying", "--n-kv-head 3"),
        ("gqa", "--n-head 3 --n-embd 48"),
        ("weight_tying", "--n-kv-head -1"),
    ):
        done = in_process(f"07_tokenizer_gqa/{script}", flags)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert (
        "not divisible by 2 heads of keys"
        in in_process("07_tokenizer_gqa/gqa", "--n-head 3 --n-embd 48").stderr
    )


@pytest.mark.parametrize(("name", "graduated"), [("TiedHead", TiedHead), ("UntiedHead", UntiedHead)])
def test_heads_are_those_that_were_taught(name, graduated):
    taught = runpy.run_path(str(lessons.ROOT / "07_tokenizer_gqa/weight_tying.py"))[name]
    pair = []
    for head in (taught, graduated):
        torch.manual_seed(3)
        pair.append(GPT(SIZE, V, head=head))
    ids = torch.randint(V, (2, 9))
    assert torch.equal(pair[0](ids), pair[1](ids))
    tied = pair[0].head.weight is pair[0].token.weight
    assert tied == (name == "TiedHead")
    assert sum(p.numel() for p in pair[0].parameters()) == sum(p.numel() for p in pair[1].parameters())
    assert pair[0].head.weight.std().item() == pytest.approx(0.02, rel=0.1)  # small, tied or not
