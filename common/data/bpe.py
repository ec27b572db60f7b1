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
    words = [([bytes([byte]) for byte in utf8(piece)], count) for piece, count in _pieces(texts).items()]
    if not words:
        raise UserError("a vocabulary cannot be learned from an empty text; choose another corpus")
    pairs: Counter[Merge] = Counter()
    places: dict[Merge, set[int]] = defaultdict(set)  # in which words a pair occurs, or once did
    for place, (word, count) in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += count
            places[pair].add(place)
    # the greater, the earlier
    upside_down = cache(lambda token: "".join(chr(255 - byte) for byte in token) + chr(256))

    def entry(pair: Merge) -> tuple:
        return -pairs[pair], upside_down(pair[0]), upside_down(pair[1]), pair

    heap = [entry(pair) for pair in pairs]
    heapq.heapify(heap)
    merges: list[Merge] = []
    tokens = {bytes([byte]) for byte in range(256)}
    while heap and len(tokens) < vocab_size - 1:
        count, _, _, pair = heapq.heappop(heap)
        if pairs[pair] == -count:  # else it has changed since, and has a newer entry
            merges.append(pair)
            tokens.add(pair[0] + pair[1])
            for other in _merge(pair, words, pairs, places):
                heapq.heappush(heap, entry(other))
    return merges


def _pieces(texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        for part in text.split(END):
            counts.update(match[0] for match in PIECE.finditer(part))
    return counts


def _merge(pair: Merge, words: list, pairs: Counter, places: dict) -> list[Merge]:
    """Join a pair in all words that hold it.

    Returns the pairs that now occur more or less often, and still do.
    """
    change: Counter[Merge] = Counter()
    for place in places.pop(pair):
        word, count = words[place]
        for before in pairwise(word):
            change[before] -= count
        word[:] = join(word, pair)
        for after in pairwise(word):
            change[after] += count
            places[after].add(place)
    for other, difference in change.items():
        pairs[other] += difference
    return [other for other, difference in change.items() if difference and pairs[other]]


def join(word: list[bytes], pair: Merge) -> list[bytes]:
    """The tokens of a word, with each occurrence of the pair joined, from left to right."""
    joined, at = [], 0
    while at < len(word):
        both = word[at] == pair[0] and word[at + 1 : at + 2] == [pair[1]]
        joined.append(pair[0] + pair[1] if both else word[at])
        at += 2 if both else 1
    return joined


def utf8(text: str) -> bytes:
    """The bytes of a text. Raises UserError for half of a surrogate pair, which has none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        wrong = f"the text has {text[error.start]!r}, half of a surrogate pair and no character of its own"
        raise UserError(f"{wrong}; read the file with errors='replace'") from None
