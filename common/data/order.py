"""In which order the windows of a text are trained on: each once in an epoch, mixed anew in every epoch.

The order is a function, not a list: which window comes at which place follows from seed and place alone. So a
run that goes on has no state to lose, several processes need not talk, and a text of a trillion tokens needs
no memory for its order.
"""

import numpy as np

ROUNDS = 6


def mixed(places: np.ndarray, count: int, key: int) -> np.ndarray:
    """What stands at these places (N,) when 0 .. count - 1 are shuffled with a key: a permutation.

    A Feistel network on the bits of the number, and again where it leaves the range (cycle walking). Source:
    Black and Rogaway 2002, doi:10.1007/3-540-45760-7_9.
    """
    half = max(1, (int(count - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.default_rng(key).integers(0, 2**63, ROUNDS, dtype=np.uint64)
    found = places.astype(np.uint64)
    outside = np.ones(len(found), bool)
    while outside.any():
        left, right = found[outside] >> np.uint64(half), found[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_scrambled(right + round_key) & mask)
        found[outside] = (left << np.uint64(half)) | right
        outside = found >= count
    return found.astype(np.int64)


def _scrambled(x: np.ndarray) -> np.ndarray:
    """A hash of 64 bits. Source: Steele et al. 2014, doi:10.1145/2660193.2660195 (SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def windows(first: int, count: int, tokens: int, block_size: int, seed: int) -> np.ndarray:
    """Where the windows number first .. first + count - 1 of a run begin, in a text of so many tokens.

    Windows of an epoch lie side by side, each `block_size` apart, from a beginning that is another one in
    every epoch, so that no token is always at the edge. A window has block_size + 1 tokens. Raises
    ValueError for a text that is shorter than that.
    """
    if tokens <= block_size:
        raise ValueError(f"a window takes {block_size + 1} tokens, and the text has {tokens}")
    in_epoch = max(1, (tokens - block_size) // block_size)
    numbers, found = np.arange(first, first + count), np.empty(count, np.int64)
    for epoch in np.unique(numbers // in_epoch):
        own = numbers // in_epoch == epoch
        key = int(np.random.default_rng((seed, epoch)).integers(2**62))
        slack = tokens - block_size - 1 - (in_epoch - 1) * block_size
        begin = key % (min(slack, block_size - 1) + 1)
        found[own] = begin + block_size * mixed(numbers[own] % in_epoch, in_epoch, key)
    return found
