"""A vector for each pair of neighbours (stage 09), and counting over tokens that are no characters."""

from functools import partial

import pytest
import torch

from common import lessons, results
from common.errors import UserError
from common.model import assemble
from common.model.embedding import BigramEmbedding, TokenEmbedding
from common.model.gpt import GPT
from common.settings import BigramSettings, PartSettings
from common.tools import forms

BIGRAMS = "09_pretraining/bigrams"
SMALL = {"n_embd": 16, "n_head": 2, "n_layer": 2, "block_size": 12}
S = BigramSettings(**SMALL, n_bigram=50)


def taught():
    """The class that the script writes out."""
    return lessons.course_plan(BIGRAMS).arms["rows-512"].model.keywords["embedding"]


def filled(kind):
    """An embedding of 30 tokens whose table of pairs says something."""
    torch.manual_seed(5)
    part = kind(S, 30)
    torch.nn.init.normal_(part.pairs.weight)
    return part


def test_taught_and_graduated_are_one():
    ids = torch.randint(30, (3, 12))
    found = []
    for kind in (taught(), BigramEmbedding):
        part = filled(kind)
        out = part(ids)
        out.square().sum().backward()
        found.append((out, part.weight.grad, part.pairs.weight.grad))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", [taught(), BigramEmbedding], ids=["taught", "graduated"])
def test_a_vector_is_that_of_the_token_and_of_the_pair(kind):
    part, ids = filled(kind), torch.tensor([[4, 7, 7, 4, 7]])
    out = part(ids)[0]
    expected = [
        part.weight[now] + part.pairs.weight[(7919 * before + now) % 50]
        for before, now in ((30, 4), (4, 7), (7, 7), (7, 4), (4, 7))
    ]
    torch.testing.assert_close(out, torch.stack(expected))
    assert torch.equal(out[1], out[4]) and not torch.equal(out[1], out[2])
    torch.testing.assert_close(part(ids[:, 2:], ids[:, 1:2])[0], out[2:])


def test_of_one_token_before_no_two_pairs_share_a_row():
    rows = filled(taught()).row(torch.full((50,), 17), torch.arange(50))
    assert len(rows.unique()) == 50


def test_the_model_begins_as_one_without_pairs():
    torch.manual_seed(1)
    model = GPT(S, 30, embedding=BigramEmbedding)
    ids = torch.randint(30, (2, 12))
    assert model.token.pairs.weight.count_nonzero() == 0
    assert torch.equal(model.token(ids), TokenEmbedding.forward(model.token, ids))
    assert 0.015 < model.token.weight.std() < 0.025


@pytest.mark.parametrize("attention", ["flash", "linear"])
def test_with_a_cache_it_knows_what_stood_before(attention):
    s = PartSettings(**SMALL, embedding="bigram", n_bigram=50, attention=attention)
    model = assemble(s, 30).eval()
    torch.nn.init.normal_(model.token.pairs.weight)
    ids, cache = torch.randint(30, (2, 12)), model.new_cache()
    whole = model(ids)
    parts = [model(ids[:, a:b], cache) for a, b in ((0, 5), (5, 6), (6, 7), (7, 12))]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)
    first = model(ids[:, :5], model.new_cache())
    assert not torch.allclose(model(ids[:, 5:6]), parts[1]) and torch.allclose(first, parts[0])


def test_the_scores_count_pairs_and_rows():
    plan = lessons.course_plan(BIGRAMS)

    class Text:
        tokens = torch.tensor([0, 1, 0, 1, 2, 0])  # 01, 10, 12, 20

    class Data:
        train = Text

    model = GPT(S, 3, embedding=taught())
    found = plan.scores(model, Data, S)
    rows = [(7919 * a + b) % 50 for a, b in ((0, 1), (1, 0), (1, 2), (2, 0))]
    alone = sum(rows.count(row) == 1 for row in rows)
    assert found == {"different pairs": 4, "share alone on a row": alone / 4}
    assert plan.scores(GPT(S, 3), Data, S) == {"different pairs": 4, "share alone on a row": 0.0}


def test_no_other_form_has_pairs():
    s = PartSettings(**SMALL, embedding="bigram", n_bigram=50)
    with pytest.raises(UserError, match="no BigramEmbedding"):
        forms.form_of(assemble(s, 30), 12)


def test_counting_takes_any_tokens(in_process, text_file, own_logs):
    flags = f"--corpus {text_file} --arms 3 --no-pictures"
    found = []
    for tokenizer in ("char", "bpe-300"):
        done = in_process("01_bigram/ngram", f"{flags} --tokenizer {tokenizer}")
        assert done.returncode == 0, done.stderr
        found.append(results.read().iloc[-1])
    assert [row.tokenizer for row in found] == ["char", "bpe-300"] and found[1].vocab_size == 300
    assert 0 < found[1].test_bpc < found[0].test_bpc  # three tokens reach further than three characters


def test_its_probabilities_are_of_all_tokens():
    plan = lessons.course_plan("01_bigram/ngram")
    from common.data import text_data
    from common.settings import Settings

    s = Settings(corpus="pydoc", tokenizer="bpe-300", block_size=64)
    data = text_data(s)
    model = partial(plan.arms["3"])(s, 300)
    plan.train(model, data, s, None)
    x, _ = next(data.test.in_order(4))
    torch.testing.assert_close(model(x).exp().sum(-1), torch.ones(x.shape), rtol=1e-4, atol=1e-4)
