"""Byte-pair encoding: learning the merges.

Taught in 07_tokenizer_gqa/bpe.py, which also says how a text is encoded with them.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

import regex

from common.errors import UserError
from common.text import chunks

# How GPT-2 cuts a text (Radford et al. 2019): contractions, words, numbers and signs, each with one space
# before it, or white space.
PIECE = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
END = "<|endoftext|>"
Merge = tuple[bytes, bytes]


def train(texts: Iterable[str], vocab_size: int) -> list[Merge]:
    """The merges, in the order in which they were learned; as many as there are pairs where the texts are too
    short for the vocabulary.

    vocab_size counts the 256 bytes and the special token too. Of pairs that occur equally often, the one
    whose bytes are greater is first. Raises UserError for a vocabulary that is too small, for texts without a
    character, and for text that is not valid Unicode.
    """
    if vocab_size < 257:
        raise UserError(
            f"a vocabulary of {vocab_size} is too small: the 256 bytes and the end mark are 257; choose more"
        )
    pieces = _pieces(texts)
    if not pieces:
        raise UserError("a vocabulary cannot be learned from an empty text; choose another corpus")
    words = _Words(pieces)
    # the greater, the earlier
    upside_down = cache(lambda token: "".join(chr(255 - byte) for byte in words.bytes[token]) + chr(256))

    def entry(pair: tuple[int, int]) -> tuple:
        return -words.pairs[pair], upside_down(pair[0]), upside_down(pair[1]), pair

    heap = [entry(pair) for pair in words.pairs]
    heapq.heapify(heap)
    merges: list[Merge] = []
    while heap and len(words.bytes) < vocab_size - 1:
        count, _, _, pair = heapq.heappop(heap)
        if words.pairs[pair] == -count:  # else it has changed since, and has a newer entry
            merges.append((words.bytes[pair[0]], words.bytes[pair[1]]))
            for other in words.join(pair):
                heapq.heappush(heap, entry(other))
    return merges


def _pieces(texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        for part in chunks(text):
            for between in part.split(END):
                counts.update(PIECE.findall(between))
    return counts


class _Words:
    """Different pieces of a text, one after the other, each token linked with those beside it: a merge
    touches only what stands at its places, however long a word is.
    """

    def __init__(self, pieces: Counter[str]):
        self.bytes = [bytes([byte]) for byte in range(256)]
        """What each token stands for."""
        self.numbers = {token: number for number, token in enumerate(self.bytes)}
        self.tokens: list[int] = []
        """The token at each place; negative between two words, and where a token was joined to another."""
        self.counts: list[int] = []
        """How often the word of a place occurs."""
        for piece, count in pieces.items():
            word = utf8(piece)
            self.tokens += [-1, *word]
            self.counts += [count] * (len(word) + 1)
        self.tokens.append(-1)
        self.following = list(range(1, len(self.tokens) + 1))
        self.before = list(range(-1, len(self.tokens) - 1))
        self.pairs: Counter[tuple[int, int]] = Counter()
        self.places: dict[tuple[int, int], list[int]] = defaultdict(list)  # where a pair begins, or once did
        for place, pair in enumerate(pairwise(self.tokens)):
            if min(pair) >= 0:
                self.pairs[pair] += self.counts[place]
                self.places[pair].append(place)

    def join(self, pair: tuple[int, int]) -> list[tuple[int, int]]:
        """Make one token of a pair wherever it occurs, from left to right.

        Returns the pairs that now occur more or less often, and still do.
        """
        union = self.bytes[pair[0]] + self.bytes[pair[1]]
        if union not in self.numbers:
            self.numbers[union] = len(self.bytes)
            self.bytes.append(union)
        new, tokens = self.numbers[union], self.tokens
        change: Counter[tuple[int, int]] = Counter()
        for here in sorted(self.places.pop(pair)):
            there = self.following[here]
            if (tokens[here], tokens[there]) != pair:
                continue  # it was joined to another since
            left, right, count = self.before[here], self.following[there], self.counts[here]
            change[pair] -= count
            if tokens[left] >= 0:
                change[tokens[left], pair[0]] -= count
                change[tokens[left], new] += count
                self.places[tokens[left], new].append(left)
            if tokens[right] >= 0:
                change[pair[1], tokens[right]] -= count
                change[new, tokens[right]] += count
                self.places[new, tokens[right]].append(here)
            tokens[here], tokens[there] = new, -1
            self.following[here], self.before[right] = right, here
        self.pairs.update(change)
        return [other for other, difference in change.items() if difference and self.pairs[other]]


def utf8(text: str) -> bytes:
    """The bytes of a text. Raises UserError for half of a surrogate pair, which has none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        wrong = f"the text has {text[error.start]!r}, half of a surrogate pair and no character of its own"
        raise UserError(f"{wrong}; read the file with errors='replace'") from None
