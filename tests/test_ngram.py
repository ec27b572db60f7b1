"""Counting: probabilities that sum to 1, equal to a plain calculation by the book; the learned table reaches
the counted one.
"""

import collections
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common import lessons, results
from common.data import TextSplit, text_data
from common.settings import Settings
from common.training.metrics import score


def fitted(experiment: str, arm: str, path, block_size: int = 64):
    plan = lessons.course_plan(experiment)
    s = Settings(corpus=str(path), block_size=block_size)
    data = text_data(s)
    model = plan.arms[arm](s, data.tokenizer.vocab_size)
    plan.train(model, data, s, None)
    return model, data


@pytest.mark.parametrize("order", list("12345678"))
def test_probabilities_sum_to_one(order, text_file):
    model, data = fitted("01_bigram/ngram", order, text_file)
    for ids in (
        data.test.tokens[None, :200],
        torch.randint(data.tokenizer.vocab_size, (3, 50)),
    ):  # text, and contexts never seen
        sums = model(ids).exp().sum(dim=-1)
        assert (sums - 1).abs().max() < 1e-5


REPEATS = {
    "a text four times, then others": "".join(f"{n * n % 89} and {n % 7}; " for n in range(330))[:3000] * 4
    + "quick brown foxes jump, " * 104,
    "thirty short lines": "".join(f"line {n % 3}\n" for n in range(30)),
    "one letter": "a" * 400,
    "pairs": "ab" * 300,
}


@pytest.mark.parametrize("name", REPEATS)
def test_every_character_has_a_chance_in_a_text_that_repeats_itself(name, tmp_path):
    """There a discount by the formula is negative or zero, and a context would keep nothing for what it has
    not seen.
    """
    path = tmp_path / "text.txt"
    path.write_text(REPEATS[name], encoding="utf-8")
    for order in "123456":
        model, data = fitted("01_bigram/ngram", order, path, block_size=16)
        for ids in (
            data.test.tokens[None],
            torch.randint(data.tokenizer.vocab_size, (3, 40), generator=torch.Generator().manual_seed(1)),
        ):
            chances = model(ids).exp()
            assert chances.min() > 0 and (chances.sum(dim=-1) - 1).abs().max() < 1e-5
        assert math.isfinite(score(model, data.test).loss)


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("abc \n"), min_size=60, max_size=400))
def test_every_character_has_a_chance_in_any_text(text):
    """Fitted on anything, asked about anything."""
    plan = lessons.course_plan("01_bigram/ngram")
    tokens = torch.tensor(["abc \n".index(c) for c in text])
    data = SimpleNamespace(train=TextSplit(tokens, len(text), 16))
    for order in ("1", "3", "6"):
        model = plan.arms[order](plan.defaults, 5)
        plan.train(model, data, plan.defaults, None)
        chances = model(torch.tensor([[0, 1, 2, 3, 4, 0, 0, 1, 1, 4, 3, 2]])).exp()
        assert chances.min() > 0 and (chances.sum(dim=-1) - 1).abs().max() < 1e-5


def test_a_beginning_that_never_returns_in_training_is_no_trouble(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("#" + "abcab" * 200 + "#abc" * 3, encoding="utf-8")
    for order in "123456":
        model, data = fitted("01_bigram/ngram", order, path)
        assert "#" in data.tokenizer.decode(data.test.tokens.tolist())
        assert (model(data.test.tokens[None]).exp().sum(dim=-1) - 1).abs().max() < 1e-5


def kneser_ney(tokens: list[int], order: int, vocab_size: int):
    """Modified interpolated Kneser-Ney by the book, with dictionaries (Chen and Goodman 1999)."""
    grams = [
        collections.Counter(tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1))
        for k in range(1, order + 1)
    ]
    counts = [grams[-1]]
    for longer in reversed(grams[1:]):
        counts.insert(0, collections.Counter(g[1:] for g in longer))
    discounts = []
    for table in counts:
        n = [0] + [sum(c == i for c in table.values()) for i in (1, 2, 3, 4)]
        y = n[1] / (n[1] + 2 * n[2]) if n[1] + 2 * n[2] else 0.0
        found = [i - (i + 1) * y * n[i + 1] / n[i] if n[i] else i for i in (1, 2, 3)]
        discounts.append([0.0] + [d if 0 < d <= i else i / 2 for i, d in enumerate(found, start=1)])

    def probability(context: tuple, w: int, k: int) -> float:
        if k == 0:
            return 1 / vocab_size
        context = context[len(context) - (k - 1) :] if k > 1 else ()
        followers = {g: c for g, c in counts[k - 1].items() if g[:-1] == context}
        lower = probability(context[1:], w, k - 1)
        if not followers:
            return lower
        total, d = sum(followers.values()), discounts[k - 1]
        left = sum(d[min(c, 3)] for c in followers.values()) / total
        c = followers.get((*context, w), 0)
        return max(c - d[min(c, 3)], 0) / total + left * lower

    return probability


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equal_to_kneser_ney_by_the_book(order):
    text = "the cat sat on the mat and the rat ate the cat that sat on that hat "
    letters = sorted(set(text))
    tokens = [letters.index(c) for c in text]
    plan = lessons.course_plan("01_bigram/ngram")
    model = plan.arms[str(order)](Settings(), len(letters))

    class Fake:
        train = TextSplit(torch.tensor(tokens), len(tokens), 8)

    plan.train(model, Fake, Settings(), None)
    reference = kneser_ney(tokens, order, len(letters))
    for probe in ("the c", "hat o", "eee", "n the"):
        ids = [letters.index(c) for c in probe]
        found = model(torch.tensor([ids]))[0].exp()
        for t, w in itertools.product(range(len(ids)), range(len(letters))):
            context = tuple(ids[: t + 1])
            k = min(order, len(context) + 1)  # near the start of the window the context is short
            expected = reference(context, w, k)
            assert math.isclose(found[t, w].item(), expected, rel_tol=1e-4, abs_tol=1e-7), (
                probe,
                t,
                letters[w],
            )


def test_each_order_is_better_on_real_text():
    losses = []
    for order in "123456":
        plan = lessons.course_plan("01_bigram/ngram")
        data = text_data(Settings(corpus="pydoc", block_size=4096))
        model = plan.arms[order](plan.defaults, data.tokenizer.vocab_size)
        plan.train(model, data, plan.defaults, None)
        losses.append(score(model, data.test).loss)
    assert losses == sorted(losses, reverse=True)


def test_counted_pairs_are_the_pairs_of_the_text(text_file):
    model, data = fitted("01_bigram/count_bigram", "default", text_file)
    text = data.tokenizer.decode(data.train.tokens.tolist())
    expected = collections.Counter(zip(text, text[1:], strict=False))
    for a, b in itertools.product(range(data.tokenizer.vocab_size), repeat=2):
        assert model.counts[a, b] == expected[data.tokenizer.decode([a]), data.tokenizer.decode([b])]
    assert torch.allclose(model(torch.arange(5)[None]).exp().sum(-1), torch.ones(1, 5))


def test_the_table_learned_by_hand_reaches_the_counted_one(script):
    assert script("01_bigram/count_bigram", "--corpus pydoc").returncode == 0
    assert script("01_bigram/by_hand", "--corpus pydoc").returncode == 0
    counted, learned = results.read().test_loss
    assert abs(learned - counted) < 0.01
