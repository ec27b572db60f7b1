"""Splits and batches of token ids.

Running text is cut once into its first 90 % (train), the next 5 % (validation) and the last 5 % (test). Lists
of names are shuffled once with a fixed seed and cut 80/10/10.
"""

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from common.data.corpora import Corpus, load_names, load_text
from common.data.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, make
from common.errors import UserError
from common.settings import NamesSettings, Settings
from common.text import chunks

# at most so many are computed at once for a score: with 100,000 entries, 128 windows would be gigabytes
LOGITS = 2**26


class TextSplit:
    """A stretch of running text: N tokens to predict, each from what stands before it.

    tokens (N + 1,), integers of any size: the N tokens and the one that precedes them, which is context only.
    """

    def __init__(self, tokens: Tensor, characters: int, block_size: int, rows: int = 128):
        self.ids, self.characters, self.block_size, self.rows = tokens, characters, block_size, rows
        self.windows = tokens.unfold(0, min(block_size + 1, len(tokens)), 1)  # (N - T + 1, T + 1), a view
        self.choices = len(self.windows)

    def __len__(self) -> int:
        return len(self.ids) - 1

    @property
    def tokens(self) -> Tensor:
        """Ids (N + 1,), int64, however small the integers are in which they are kept."""
        return self.ids.long()

    def at(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, T) and targets (B, T) of the windows that begin at `starts` (B,)."""
        windows = self.windows[starts].long()
        return windows[:, :-1], windows[:, 1:]

    def in_order(self, rows: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Every target exactly once, in windows that do not overlap, `rows` at a time; the last window may be
        shorter.
        """
        rows, whole = rows or self.rows, len(self) // self.block_size
        for first in range(0, whole, rows):
            yield self.at(
                torch.arange(first, min(first + rows, whole), device=self.ids.device) * self.block_size
            )
        rest = self.ids[whole * self.block_size :].long()
        if len(rest) > 1:
            yield rest[None, :-1], rest[None, 1:]

    def in_windows(self, block_size: int) -> "TextSplit":
        """The same tokens in windows of another length, as many tokens at a time."""
        return TextSplit(
            self.ids, self.characters, block_size, max(1, self.rows * self.block_size // block_size)
        )

    def head(self, tokens: int) -> "TextSplit":
        """The first `tokens` tokens; its characters are in proportion, exact where a token is a character."""
        return TextSplit(
            self.ids[: tokens + 1], round(self.characters * tokens / len(self)), self.block_size, self.rows
        )

    def tail(self, tokens: int) -> "TextSplit":
        """The last `tokens` tokens; its characters count as one per token, so only its loss has a meaning."""
        return TextSplit(self.ids[-(tokens + 1) :], tokens, self.block_size, self.rows)


class NameSplit:
    """A list of names: each letter, and the end of each name, predicted from the letters before it in that
    name.

    contexts (N, T): the last T letters, filled up on the left with the end mark (id 0); targets (N,).
    """

    def __init__(self, contexts: Tensor, targets: Tensor):
        self.contexts, self.targets = contexts, targets
        self.choices = self.characters = len(targets)

    @classmethod
    def of(cls, tokens: np.ndarray, block_size: int) -> "NameSplit":
        """From the ids of all names, each followed by the end mark.

        Of the names [1, 2, 0] and [3, 0], with two letters of context: tokens is [1, 2, 0, 3, 0], place [0,
        1, 2, 0, 1]. One back stand [., 1, 2, 0, 3], two back [., ., 1, 2, 0]; where that is not of the same
        name, 0 comes instead. So the contexts are [0 0], [0 1], [1 2], [0 0], [0 3].
        """
        starts = np.concatenate([[0], np.flatnonzero(tokens == 0)[:-1] + 1])
        # how many letters of the same name came before
        place = np.arange(len(tokens)) - np.repeat(starts, np.diff([*starts, len(tokens)]))
        columns = [np.where(place >= back, np.roll(tokens, back), 0) for back in range(block_size, 0, -1)]
        return cls(torch.from_numpy(np.stack(columns, axis=1)), torch.from_numpy(tokens))

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts (B, T) and targets (B,)."""
        return self.contexts[choices], self.targets[choices]

    def in_order(self, rows: int = 8192) -> Iterator[tuple[Tensor, Tensor]]:
        """Every target exactly once."""
        yield from zip(self.contexts.split(rows), self.targets.split(rows), strict=True)

    def head(self, tokens: int) -> "NameSplit":
        """The first `tokens` predictions."""
        return NameSplit(self.contexts[:tokens], self.targets[:tokens])

    def tail(self, tokens: int) -> "NameSplit":
        """The last `tokens` predictions."""
        return NameSplit(self.contexts[-tokens:], self.targets[-tokens:])


@dataclass(frozen=True)
class Data:
    """What a run learns from and is measured on."""

    corpus: Corpus
    """Of running text, no more than its first character is kept."""
    tokenizer: Tokenizer
    train: TextSplit | NameSplit
    validation: TextSplit | NameSplit
    test: TextSplit | NameSplit
    batch_size: int
    seed: int = 1
    device: str = "cpu"
    names: frozenset[str] = frozenset()  # the training list, where the corpus is one

    @property
    def predicted(self) -> int:
        """Tokens that a window predicts."""
        return self.train.at(torch.zeros(1, dtype=torch.long))[1].numel()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step depends on seed and step alone, so a resumed run goes on with the batches it
        would have had.
        """
        choices = np.random.default_rng((self.seed, step)).integers(self.train.choices, size=self.batch_size)
        x, y = self.train.at(torch.from_numpy(choices))
        return x.to(self.device), y.to(self.device)

    def first_line(self, longest: int = 48) -> Tensor:
        """Ids (T,) of the first line of the test text with over 20 characters, else of its beginning; at most
        `longest`, and a window.
        """
        assert isinstance(self.test, TextSplit)
        held_out = self.tokenizer.decode(self.test.tokens[1:2000].tolist())
        line = next((line for line in held_out.split("\n")[1:] if len(line) > 20), held_out)
        return torch.from_numpy(self.tokenizer.encode(line)[: min(longest, self.test.block_size)]).to(
            self.device
        )

    def symbols(self, ids: Tensor) -> list[str]:
        """What each of some tokens (T,) stands for."""
        return [self.tokenizer.decode([token]) for token in ids.tolist()]

    def with_seed(self, seed: int) -> "Data":
        return dataclasses.replace(self, seed=seed)


def text_data(
    s: Settings, device: str = "cpu", tokenizer: Tokenizer | None = None, learn=BPETokenizer.train
) -> Data:
    """Running text, cut by characters and then tokenised, so that every tokenizer is measured on the same
    characters.

    A vocabulary that the settings ask for is learned from the training text, with `learn(text, vocab_size)`.
    On the way this takes up to four times the memory of the text, which is not kept. Raises UserError for a
    text that is too short.
    """
    corpus = load_text(s.corpus)
    text = corpus.text
    ends = [0, int(0.9 * len(text)), int(0.95 * len(text)), len(text)]
    tokenizer = tokenizer or make(s.tokenizer, text, text[: ends[1]], learn)
    tokens = [_encode(tokenizer, text, a, b) for a, b in pairwise(ends)]
    if min(map(len, tokens)) < 1 or len(tokens[0]) <= s.block_size:
        raise UserError(
            f"corpus {corpus.name!r} is too short: its {len(text)} characters give {len(tokens[0])} "
            "training tokens, "
            f"a window takes {s.block_size + 1}; use a longer text or a smaller --block-size"
        )
    rows = max(1, min(128, LOGITS // (s.block_size * tokenizer.vocab_size)))
    # the token before a part is its first context
    tokens[1:] = [
        np.concatenate([before[-1:], after]) for before, after in zip(tokens, tokens[1:], strict=False)
    ]
    train, validation, test = (
        TextSplit(torch.from_numpy(ids), b - a, s.block_size, rows)
        for ids, (a, b) in zip(tokens, pairwise(ends), strict=True)
    )
    corpus = dataclasses.replace(corpus, text=text[:1])
    return Data(corpus, tokenizer, train, validation, test, batch_size=s.batch_size, device=device)


def _encode(tokenizer: Tokenizer, text: str, first: int, end: int) -> np.ndarray:
    """Ids (N,) of a stretch of text, in the smallest integers that hold them."""
    sizes = ((2**8, np.uint8), (2**15, np.int16), (2**31, np.int32))
    dtype = next(kind for most, kind in sizes if tokenizer.vocab_size <= most)
    ids = bytearray()
    for part in chunks(text, first, end):
        ids += tokenizer.encode(part).astype(dtype).tobytes()
    return np.frombuffer(ids, dtype)


def names_data(s: NamesSettings, device: str = "cpu", tokenizer=None) -> Data:
    """A list of names, one per line. Duplicates are removed before the split, unless the settings keep them.

    Raises UserError for a list that is too short or that the tokenizer cannot write.
    """
    if s.drop_leaked and not s.keep_duplicates:
        raise UserError(
            "--drop-leaked does nothing without --keep-duplicates: without duplicates nothing leaks"
        )
    corpus = load_names(s.corpus)
    names = [line.strip() for line in corpus.text.splitlines() if line.strip()]
    if not s.keep_duplicates:
        names = list(dict.fromkeys(names))
    # once, whatever the seed of the run: every run is measured on the same names
    random.Random(42).shuffle(names)
    parts = [
        names[: int(0.8 * len(names))],
        names[int(0.8 * len(names)) : int(0.9 * len(names))],
        names[int(0.9 * len(names)) :],
    ]
    if s.drop_leaked:
        parts[0] = [name for name in parts[0] if name not in {*parts[1], *parts[2]}]
    if not all(parts):
        raise UserError(
            f"corpus {corpus.name!r} has {len(names)} names; at least 10 are needed for a training, a "
            "validation and a test list"
        )
    tokenizer = tokenizer or CharTokenizer("\n" + "".join(names))
    if tokenizer.encode("\n") != [0]:
        raise UserError(f"corpus {corpus.name!r} has control characters in its names; remove them")
    train, validation, test = (
        NameSplit.of(tokenizer.encode("".join(f"{name}\n" for name in part)), s.block_size) for part in parts
    )
    return Data(
        corpus, tokenizer, train, validation, test, s.batch_size, device=device, names=frozenset(parts[0])
    )
