"""Every window once in an epoch, in an order that follows from seed and place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import order


@given(count=st.integers(1, 3000), key=st.integers(0, 2**62))
@settings(max_examples=60, deadline=None)
def test_a_shuffled_range_has_every_number_once(count, key):
    found = order.mixed(np.arange(count), count, key)
    assert sorted(found.tolist()) == list(range(count))
    some = np.random.default_rng(key).integers(count, size=5)
    assert order.mixed(some, count, key).tolist() == found[some].tolist()  # one by one as all together


def test_it_is_well_mixed():
    """No place keeps its number more often than chance, neighbours are strangers, and keys differ."""
    count = 10_000
    found = [order.mixed(np.arange(count), count, key) for key in range(20)]
    assert np.mean([np.mean(f == np.arange(count)) for f in found]) < 5e-4
    for f in found[:5]:
        assert (
            abs(np.corrcoef(f[:-1], f[1:])[0, 1]) < 0.04
            and abs(np.corrcoef(f, np.arange(count))[0, 1]) < 0.04
        )
    halves = np.array([(f[: count // 2] < count // 2).mean() for f in found])
    assert abs(halves.mean() - 0.5) < 0.01
    assert all(not np.array_equal(a, b) for a, b in zip(found, found[1:], strict=False))


def test_a_range_as_large_as_a_corpus_needs_no_list():
    count = 10**12
    found = order.mixed(np.arange(1000), count, 1)
    assert len(set(found.tolist())) == 1000 and found.min() >= 0 and found.max() < count
    assert abs(found.mean() / count - 0.5) < 0.05


@pytest.mark.parametrize(("tokens", "block_size"), [(1000, 16), (17, 16), (97, 16), (1001, 10), (33, 16)])
def test_every_token_is_predicted_once_in_an_epoch(tokens, block_size):
    """But for fewer than two windows at the ends."""
    in_epoch = max(1, (tokens - block_size) // block_size)
    beginnings = set()
    for epoch in range(8):
        starts = order.windows(epoch * in_epoch, in_epoch, tokens, block_size, seed=3)
        assert starts.min() >= 0 and starts.max() + block_size + 1 <= tokens
        predicted = np.concatenate([np.arange(start + 1, start + block_size + 1) for start in starts])
        assert len(set(predicted.tolist())) == len(predicted) > tokens - 2 * block_size - 1
        beginnings.add(int(starts.min()))
    assert len(beginnings) > 1 or tokens < 40


def test_a_batch_follows_from_seed_and_place_alone():
    whole = order.windows(0, 500, 4000, 16, seed=1)
    parts = [order.windows(first, 50, 4000, 16, seed=1) for first in range(0, 500, 50)]
    assert whole.tolist() == np.concatenate(parts).tolist()
    assert whole.tolist() != order.windows(0, 500, 4000, 16, seed=2).tolist()
    assert whole[:248].tolist() != whole[248:496].tolist()  # another order in the second epoch


def test_a_text_that_is_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="a window takes 17 tokens, and the text has 16"):
        order.windows(0, 1, 16, 16, 1)
