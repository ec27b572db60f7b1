"""Decay of the table of pairs: it alone shrinks, by what was asked for, and the rest learns as before."""

import dataclasses

import pytest
import torch
from test_pretraining import Watching

from common import lessons
from common.data import text_data

DECAY = "09_pretraining/decay"


def trained(**own):
    plan = lessons.course_plan(DECAY)
    s = dataclasses.replace(
        plan.defaults, corpus="pydoc", tokenizer="char", n_embd=16, n_head=2, n_layer=1, block_size=16,
        batch_size=4, n_bigram=4096, warm_up=0, lr=1e-2, **own,
    )  # fmt: skip
    torch.manual_seed(3)
    data = text_data(s, "cpu").with_seed(1)
    model, watching = plan.arms["decay-0"](s, data.tokenizer.vocab_size), Watching(s.steps)
    torch.nn.init.ones_(model.token.pairs.weight)
    plan.train(model, data, s, watching)
    return model, watching


def test_rows_that_are_never_looked_up_shrink_by_rate_times_decay():
    rows = trained(steps=1, pair_decay=2.0)[0].token.pairs.weight
    still = trained(steps=1)[0].token.pairs.weight
    unseen = (still == 1).all(dim=1)
    assert 100 < unseen.sum() < len(rows)  # some pairs came, and their rows moved
    torch.testing.assert_close(rows[unseen], torch.full_like(rows[unseen], 1 - 2.0 * 1e-2))


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_it_learns_with_and_without_clipping(clip):
    _, watching = trained(steps=60, pair_decay=1.0, clip=clip)
    assert sum(watching.losses[-10:]) < sum(watching.losses[:10]) - 3
