"""Scores are exact: every token once, the same characters under every tokenizer, nothing disturbed."""

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.data import NameSplit, TextSplit, text_data
from common.data.tokenizer import TiktokenTokenizer
from common.settings import Settings
from common.training.metrics import Score, pair_entropy, score


class Table(nn.Module):
    """A bigram with known probabilities."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.logits = nn.Parameter(
            torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(0))
        )

    def forward(self, ids):
        return self.logits[ids]


@settings(max_examples=50, deadline=None)
@given(length=st.integers(2, 200), block_size=st.integers(1, 70))
def test_each_token_is_predicted_exactly_once_whatever_the_window(length, block_size):
    tokens = torch.arange(length)
    targets = torch.cat([y.flatten() for _, y in TextSplit(tokens, length, block_size).in_order(rows=3)])
    assert targets.tolist() == list(range(1, length))


@settings(max_examples=30, deadline=None)
@given(length=st.integers(2, 300), block_size=st.integers(1, 70))
def test_score_equals_a_loop_over_single_predictions(length, block_size):
    tokens = torch.from_numpy(np.random.default_rng(length).integers(0, 7, length))
    model = Table(7)
    found = score(model, TextSplit(tokens, length - 1, block_size))
    log_p = model.logits.detach().double().log_softmax(-1)
    nats = -sum(log_p[a, b].item() for a, b in zip(tokens[:-1], tokens[1:], strict=True))
    right = sum(int(log_p[a].argmax() == b) for a, b in zip(tokens[:-1], tokens[1:], strict=True))
    assert found.tokens == length - 1 and found.correct == right
    assert math.isclose(found.nats, nats, rel_tol=1e-5)
    assert math.isclose(found.loss, nats / (length - 1), rel_tol=1e-5)
    assert math.isclose(found.bpc, nats / math.log(2) / (length - 1), rel_tol=1e-5)
    assert math.isclose(found.perplexity, math.exp(nats / (length - 1)), rel_tol=1e-4)


def test_scores_of_two_splits_add_up():
    a, b = Score(10.0, 5, 2, 7), Score(2.0, 1, 1, 3)
    both = a + b
    assert (
        both == Score(12.0, 6, 3, 10)
        and both.loss == 2.0
        and both.accuracy == 0.5
        and math.isclose(both.bpc, 1.2 / math.log(2))
    )


def test_scoring_disturbs_nothing():
    """Dropout is off while scoring, the mode is as before afterwards, and no random number is used."""
    model = nn.Sequential(Table(5), nn.Dropout(0.5))
    split = TextSplit(torch.arange(50) % 5, 49, 8)
    for training in (True, False):
        model.train(training)
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        first = score(model, split)
        assert torch.equal(torch.rand(1), expected)
        assert model.training == training and model[1].training == training
        assert first == score(model, split)


def test_held_out_text_is_scored_whole_with_one_token_of_context(text_file):
    data = text_data(Settings(corpus=str(text_file), block_size=16))
    text = text_file.read_text(encoding="utf-8")
    ends = [int(0.9 * len(text)), int(0.95 * len(text)), len(text)]
    assert [s.characters for s in (data.train, data.validation, data.test)] == [
        ends[0],
        ends[1] - ends[0],
        ends[2] - ends[1],
    ]
    for split, (a, b) in ((data.validation, (ends[0], ends[1])), (data.test, (ends[1], ends[2]))):
        targets = torch.cat([y.flatten() for _, y in split.in_order()])
        assert data.tokenizer.decode(targets.tolist()) == text[a:b]
        assert data.tokenizer.decode(split.tokens[:1].tolist()) == text[a - 1]


@pytest.mark.skipif(
    not (cache := os.environ.get("TIKTOKEN_CACHE_DIR")) or not Path(cache).exists(),
    reason="needs the gpt2 file in TIKTOKEN_CACHE_DIR",
)
def test_bits_are_divided_by_the_same_characters_whatever_the_tokenizer(text_file):
    s = Settings(corpus=str(text_file), block_size=16)
    chars, gpt2 = text_data(s), text_data(s, tokenizer=TiktokenTokenizer("gpt2"))
    assert len(gpt2.test) < len(chars.test)
    for name in ("validation", "test"):
        a, b = getattr(chars, name), getattr(gpt2, name)
        assert a.characters == b.characters
        uniform = score(lambda_model(gpt2.tokenizer.vocab_size), b)
        assert math.isclose(
            uniform.bpc, len(b) * math.log2(gpt2.tokenizer.vocab_size) / a.characters, rel_tol=1e-5
        )
        assert gpt2.tokenizer.decode(b.tokens[1:].tolist()) == chars.tokenizer.decode(a.tokens[1:].tolist())


@pytest.mark.parametrize("tokenizer", ["byte", "bpe-262"])
def test_characters_of_several_bytes_count_once_each(tokenizer, tmp_path):
    """Also where a token ends in the middle of a character."""
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{n} naïve 語語 déjà 🙂 {n % 7}\n" for n in range(300)), encoding="utf-8")
    s = Settings(corpus=str(path), block_size=16)
    chars, other = text_data(s), text_data(dataclasses.replace(s, tokenizer=tokenizer))
    pieces = [other.tokenizer.decode([int(token)]) for token in other.test.tokens]
    assert any("\ufffd" in piece for piece in pieces), "no character is cut"
    for name in ("validation", "test"):
        a, b = getattr(chars, name), getattr(other, name)
        assert a.characters == b.characters == len(a)
        uniform = score(lambda_model(other.tokenizer.vocab_size), b)
        assert math.isclose(
            uniform.bpc, len(b) * math.log2(other.tokenizer.vocab_size) / a.characters, rel_tol=1e-5
        )
        assert other.tokenizer.decode(b.tokens[1:].tolist()) == chars.tokenizer.decode(a.tokens[1:].tolist())


def lambda_model(vocab_size: int) -> nn.Module:
    """Knows nothing: the same logit for every token."""

    class Uniform(nn.Module):
        def forward(self, ids):
            return torch.zeros(*ids.shape, vocab_size)

    return Uniform()


def test_names_are_scored_once_per_letter_and_end():
    split = NameSplit.of(np.array([1, 2, 0, 3, 0]), 3)
    assert split.contexts.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [0, 0, 0], [0, 0, 3]]
    assert split.targets.tolist() == [1, 2, 0, 3, 0]


def test_pair_entropy_is_that_of_the_best_table():
    x, y = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 0])
    assert math.isclose(pair_entropy(x, y), 4 * math.log(2) / 6, rel_tol=1e-6)
