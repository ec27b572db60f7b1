"""What is looked at in functions and classes that are no model: sampling, cache, positions, byte pairs."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from common.exercises.catalogue import Exercise
from common.exercises.observation import Observation
from common.exercises.running import normal
from common.settings import Settings

TEXT = ("low lower lowest, new newer newest; wide wider widest. It's 2025, they're 33 and we'll see: "
        "naïve café, straße.\n\n  the lowest of the newest is the widest of the wide\n") * 3  # fmt: skip


def watch_sampling(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What is left to choose from, what repetition costs, and what is chosen."""
    logits, many = 2 * normal(3, 11), 2 * normal(2, 4, 30, seed=2)
    tied = torch.tensor([[1.0, 3.0, 3.0, 2.0, -1.0]], dtype=torch.float64)
    cases: tuple[dict, ...] = (
        {"top_k": 3}, {"top_k": 50}, {"top_p": 0.5}, {"top_p": 0.9}, {"top_p": 1e-9}, {"min_p": 0.2},
        {"top_k": 5, "top_p": 0.8}, {},
    )  # fmt: skip

    def kept(given: Tensor, how: dict) -> Tensor:
        return module.filtered(given.clone(), **how)

    for how in cases:
        for given in (logits, many, tied):
            yield Observation("kept", partial(kept, given, how), what=_said(how) or "nothing asked for")
    ids = torch.tensor([[1, 7, 7], [0, 2, 9], [3, 3, 3]])  # two of them have the likeliest token
    for penalty in (1.5, 0.5):
        look = partial(_penalised, module, logits, ids, penalty)
        yield Observation("penalty", look, what=f"penalty {penalty}")
    hows = (
        {"temperature": 0.0}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 2},
        {"temperature": 0.0, "repetition_penalty": 3.0}, {"temperature": 1e-4},
        {"temperature": 2.0, "top_p": 0.6}, {"repetition_penalty": 4.0},
    )  # fmt: skip
    for how in hows:
        yield Observation("frequencies", partial(_frequencies, module, logits, ids, how), 0.15, _said(how))

    yield Observation("repeatable", partial(_repeats, module, logits, ids))


def _repeats(module: ModuleType, logits: Tensor, ids: Tensor) -> bool:
    """Whether the choice follows from the generator, whatever torch drew before."""
    rows, texts = logits.repeat(20, 1), ids.repeat(20, 1)
    with torch.random.fork_rng(devices=[]):
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(module.choose(rows, texts, module.Sampling(), torch.Generator().manual_seed(0)))
    return torch.equal(*found)


def _said(how: dict) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in how.items())


def _penalised(module: ModuleType, logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    return module.penalised(logits.clone(), ids, penalty)


def _frequencies(module: ModuleType, logits: Tensor, ids: Tensor, how: dict) -> Tensor:
    """How often each token is chosen, of many times. (3, 11)"""
    times = 3000
    generator = torch.Generator().manual_seed(0)
    rows, texts = logits.repeat(times, 1), ids.repeat(times, 1)
    chosen = module.choose(rows, texts, module.Sampling(**how), generator)  # (3 x times,)
    found = torch.zeros(3, logits.size(1), dtype=torch.float64)
    for row in range(3):
        found[row] = chosen[row::3].bincount(minlength=logits.size(1)) / times
    return found


def watch_cache(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """What a cache hands out and counts as a text grows, in pieces of several lengths."""

    def grown(pieces: tuple[int, ...]) -> list:
        cache, seen = module.Cache(), []
        for number, T in enumerate(pieces):
            k, v = normal(2, 3, T, 4, seed=number), normal(2, 3, T, 4, seed=50 + number)
            keys, values = cache.append(k, v)
            seen += [keys.clone(), values.clone(), int(cache.length)]
        return [*seen, int(cache.nbytes)]

    for pieces in ((4,), (1, 1, 1, 1, 1), (3, 1, 7, 2)):
        yield Observation("kept", partial(grown, pieces), what=f"pieces of {', '.join(map(str, pieces))}")


def watch_rope(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Angles, lengths and products of queries and keys that were turned."""
    q, k = normal(1, 2, 9, 6), normal(1, 2, 9, 6, seed=2)
    s = Settings(n_embd=12, n_head=2, block_size=16)

    def turned(q: Tensor, k: Tensor, start: int = 0) -> list[Tensor]:
        return list(module.RoPE(s).rotate(q, k, start))

    def shapes() -> list[tuple[int, ...]]:
        return [tuple(x.shape) for x in turned(q, k)]

    def lengths() -> Tensor:
        return torch.stack([x.norm(dim=-1) for x in turned(q, k)])

    def scores(q: Tensor, k: Tensor, start: int = 0) -> Tensor:
        a, b = turned(q, k, start)
        return a @ b.mT

    def depends_on_distance() -> bool:
        """The same query and key at every place: all scores at one distance are equal."""
        found = scores(q[:, :, :1].expand_as(q), k[:, :, :1].expand_as(k))
        return all(
            bool((d.std(dim=-1) < 1e-9).all()) for d in (found.diagonal(n, -2, -1) for n in (-3, 0, 2))
        )

    yield Observation("size", shapes)
    yield Observation("lengths", lengths)
    yield Observation("distance", depends_on_distance)
    yield Observation("distance", lambda: (scores(q, k, 5) - scores(q, k)).abs() < 1e-9, what="5 places on")
    yield Observation("values", partial(turned, q, k))
    yield Observation("values", partial(turned, q, k, 7), what="from place 7 on")
    yield Observation("type", lambda: [str(x.dtype) for x in turned(q.float(), k.float())], single=True)
    yield Observation("refused", lambda: str(module.RoPE(replace(s, n_embd=10))), what="heads of 5 numbers")


def watch_bpe(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Joining, merges that are learned, and what a text is cut into."""

    def joined(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
        return list(module.join(list(word), pair))

    def merges(text: str, size: int) -> list[tuple[bytes, bytes]]:
        return module.BPE.train(text, size).merges

    def ids(piece: str) -> list[int]:
        return list(module.BPE(known).encode_piece(piece))

    word = [b"a", b"b", b"a", b"b", b"b", b"a"]
    for pair in ((b"a", b"b"), (b"b", b"a"), (b"b", b"b"), (b"c", b"a")):
        yield Observation("joined", partial(joined, word, pair), what=f"{pair[0]!r} and {pair[1]!r}")
    yield Observation("joined", partial(joined, [b"a"] * 5, (b"a", b"a")), what="five a")
    for size in (258, 264, 300, 2000):
        yield Observation("merges", partial(merges, TEXT, size), what=f"a vocabulary of {size}")
    yield Observation("merges", partial(merges, "abab cdcd aaaa", 262), what="'abab cdcd aaaa'")
    documents = f"{module.END}abc" * 4
    yield Observation("merges", partial(merges, documents, 262), what="documents, each after the end mark")
    known = [
        (b"l", b"o"),
        (b"e", b"w"),
        (b"lo", b"w"),
        (b"low", b"e"),
        (b"e", b"r"),
        (b"n", b"ew"),
        (b"o", b"w"),
        (b"i", b"d"),
        (b"id", b"e"),
        (b"w", b"ide"),
        (b"w", b"i"),
    ]
    for piece in ("lower", "newer", " low", "x", "\u00fc", "lowlow", "lowewer", "wide", ""):
        yield Observation("ids", partial(ids, piece), what=repr(piece))
    yield Observation("refused", partial(merges, TEXT, 256), what="a vocabulary of 256")
    yield Observation("refused", partial(merges, "", 300), what="an empty text")
