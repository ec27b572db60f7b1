"""BPE: tokens that stand for several characters, learned from the text.

Previous : 06_transformer/fast_gpt.py
Changes  : BPE, join, utf8, load, overview
Idea     : begin with the 256 bytes, and join the two neighbours that stand together most often into a new
           token, again and again
Source   : Sennrich et al. 2016, arXiv:1508.07909; on bytes, and with this pattern: Radford et al. 2019,
           "Language Models are Unsupervised Multitask Learners"
Expect   : at equal characters seen, vocabularies of a thousand or two are better than characters; at equal
           time by more, at equal context by less; a hundred thousand entries are far worse on a megabyte of
           text
Stairs   : char, bpe-1024
"""

import heapq
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import regex
import tiktoken

from common.data import text_data
from common.errors import UserError
from common.model.gpt import GPT
from common.run import run
from common.settings import Arm, Lesson, Settings

# Contractions, words, numbers and signs, each with one space before it, or white space: no token reaches
# across two of these pieces.
PIECE = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
SURE_START = regex.compile(r"(?r)(?<=\S)\s")                           # from the end: the last sure beginning
END = "<|endoftext|>"                                                  # the special token between documents


def join(word, pair):
    """The tokens of a word, with each occurrence of the pair joined, from left to right."""
    joined, at = [], 0
    while at < len(word):
        both = word[at] == pair[0] and word[at + 1 : at + 2] == [pair[1]]
        joined.append(pair[0] + pair[1] if both else word[at])
        at += 2 if both else 1
    return joined


def utf8(text):
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        wrong = f"the text has {text[error.start]!r}, half of a surrogate pair and no character of its own"
        raise UserError(f"{wrong}; read the file with errors='replace'") from None


class BPE:
    """Byte-level byte-pair encoding.

    Ids: the 256 bytes, then what each merge made, then the special token.
    """

    def __init__(self, merges: list[tuple[bytes, bytes]]):
        self.merges = merges
        self.ids = {bytes([byte]): byte for byte in range(256)}        # token -> id
        for a, b in merges:
            self.ids.setdefault(a + b, len(self.ids))
        self.tokens = [*self.ids, END.encode()]                        # id -> token
        self.vocab_size = len(self.tokens)
        self.name = f"bpe-{self.vocab_size}"
        self.piece_ids = lru_cache(2**16)(self.encode_piece)           # remembers: most pieces come again

    @classmethod
    def train(cls, text: str, vocab_size: int) -> "BPE":
        """Learn the merges. Of pairs that occur equally often, the one whose bytes are greater is first.

        A merge goes through each word that holds it, so a megabyte without white space takes minutes;
        common/data/bpe.py links the tokens, and takes seconds.
        """
        if vocab_size < 257:
            raise UserError(f"a vocabulary of {vocab_size} is too small: the 256 bytes and the end mark are "
                            "257; choose more")
        counts = Counter(piece for part in text.split(END) for piece in PIECE.findall(part))
        if not counts:
            raise UserError("a vocabulary cannot be learned from an empty text; choose another corpus")
        words = [([bytes([byte]) for byte in utf8(piece)], count) for piece, count in counts.items()]
        pairs, places = Counter(), defaultdict(set)                    # how often a pair occurs, and where
        for place, (word, count) in enumerate(words):
            for pair in pairwise(word):
                pairs[pair] += count
                places[pair].add(place)
        # A heap hands out its smallest entry: counts are negated, bytes turned upside down, and 256 puts "a"
        # after "ab".
        upside_down = cache(lambda token: "".join(chr(255 - byte) for byte in token) + chr(256))

        def entry(pair):
            return -pairs[pair], upside_down(pair[0]), upside_down(pair[1]), pair

        heap = [entry(pair) for pair in pairs]
        heapq.heapify(heap)
        merges, tokens = [], {bytes([byte]) for byte in range(256)}
        while heap and len(tokens) < vocab_size - 1:
            count, _, _, pair = heapq.heappop(heap)
            if pairs[pair] != -count:
                continue                                               # it changed since, has a newer entry
            merges.append(pair)
            tokens.add(pair[0] + pair[1])
            change = Counter()
            for place in places.pop(pair):                             # only words that hold the pair
                word, count = words[place]
                for before in pairwise(word):
                    change[before] -= count
                word[:] = join(word, pair)
                for after in pairwise(word):
                    change[after] += count
                    places[after].add(place)
            for other, difference in change.items():
                pairs[other] += difference
                if difference and pairs[other]:
                    heapq.heappush(heap, entry(other))
        return cls(merges)

    def encode_piece(self, piece: str) -> list[int]:
        """Ids of a piece: again and again, the neighbours whose union has the smallest id are joined,
        wherever they stand. The time it takes grows with the length of the piece times these rounds.
        """
        parts = [bytes([byte]) for byte in utf8(piece)]
        while len(parts) > 1:
            pair = min(pairwise(parts), key=lambda pair: self.ids.get(pair[0] + pair[1], len(self.ids)))
            if pair[0] + pair[1] not in self.ids:
                break                                                  # no two neighbours make a token
            parts = join(parts, pair)
        return [self.ids[part] for part in parts]

    def ids_of(self, text: str, special: bool) -> Iterator[int]:
        for number, part in enumerate(text.split(END) if special else [text]):
            if number:
                yield len(self.ids)
            for piece in PIECE.finditer(part):
                yield from self.piece_ids(piece[0])

    def encode_iterable(self, texts: Iterable[str], special: bool = False) -> Iterator[int]:
        """Ids of texts that follow one another, as of one long text. What stands before the last white space
        is done with and forgotten.

        The special token inside a text is plain text, unless `special` is set.
        """
        rest = ""
        for text in texts:
            seen, rest = len(rest), rest + text
            start = SURE_START.search(rest, seen)
            if start:
                yield from self.ids_of(rest[: start.start()], special)
                rest = rest[start.start() :]
        yield from self.ids_of(rest, special)

    def encode(self, text: str, special: bool = False) -> np.ndarray:
        """Ids (n,) of a text, int64."""
        return np.fromiter(self.encode_iterable([text], special), dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; bytes that make no character become the replacement character."""
        return b"".join(self.tokens[i] for i in ids).decode(errors="replace")

    def state(self) -> dict:
        """What makes the same encoding again, ready for JSON."""
        return {"name": "bpe", "merges": [[a.decode("latin-1"), b.decode("latin-1")] for a, b in self.merges]}

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.state()), encoding="ascii")

    @classmethod
    def load(cls, path: Path) -> "BPE":
        merges = json.loads(path.read_text(encoding="ascii"))["merges"]
        return cls([(a.encode("latin-1"), b.encode("latin-1")) for a, b in merges])

    def fast(self) -> tiktoken.Encoding:
        """The same encoding in compiled code."""
        return tiktoken.Encoding(self.name, pat_str=PIECE.pattern, mergeable_ranks=self.ids,
                                 special_tokens={END: len(self.ids)})


def load(s, device="cpu", tokenizer=None):
    """The data of the course; a vocabulary that an arm asks for is learned by the encoding above."""
    return text_data(s, device, tokenizer, learn=BPE.train)


def overview(results, folder):
    """Draw test bits per character against the size of the vocabulary; and list the vocabularies."""
    from common.report import overviews

    rows = [r.row for r in results if not r.row["diverged"]]
    if not rows:
        return []
    kinds = dict.fromkeys(TOKENIZERS, "equal characters") | {"byte-clipped": "the same, gradients clipped"}
    kinds |= {name: f"{steps} steps" for name, steps in PUBLISHED.items()}
    marks = [overviews.Mark(kinds.get(row["arm"], "equal context"), row["vocab_size"], row["test_bpc"], row)
             for row in rows]
    listed_arms = (*TOKENIZERS, *PUBLISHED)
    first = [row for row in rows if row["seed"] == rows[0]["seed"] and row["arm"] in listed_arms]
    listed = [(row["arm"], row["seed"], row["vocab_size"], math.log(2) * row["test_bpc"] / row["test_loss"],
               int(row["vocab_size"] * row["n_embd"]), row["params"], row["test_loss"]) for row in first]
    header = ["arm", "seed", "vocab_size", "tokens_per_character", "numbers_in_the_embedding", "params",
              "test_loss"]
    overviews.write_table(folder / "tokenizers", header, listed)
    labels = ("entries of the vocabulary", "test, bits per character")
    return marks and [overviews.points(marks, labels, "What does a tokenizer buy?", folder / "bits")]


# How many windows of 64 tokens hold 2048 characters of tinyshakespeare: each step of each arm sees as much
# text. And how many tokens hold 192, where a window is to be as long for each.
TOKENIZERS = {"char": 32, "byte": 32, "bpe-512": 16, "bpe-1024": 13, "bpe-2048": 11, "bpe-4096": 10}
CONTEXTS = {"char": 192, "bpe-1024": 78, "bpe-4096": 59}
PUBLISHED = {"gpt2": 200, "cl100k_base": 110}                          # steps, each as dear as several others

arms = {name: Arm(GPT, tokenizer=name, batch_size=windows) for name, windows in TOKENIZERS.items()}
arms |= {f"{name}-context": Arm(GPT, tokenizer=name, block_size=tokens, batch_size=11)
         for name, tokens in CONTEXTS.items()}
arms["byte-clipped"] = Arm(GPT, tokenizer="byte", batch_size=TOKENIZERS["byte"], clip=1.0)
arms |= {name: Arm(GPT, tokenizer=name, batch_size=9, steps=steps, warm_up=20)
         for name, steps in PUBLISHED.items()}
small = {"steps": 150, "arms": ["char", "bpe-512", "bpe-4096"]}
lesson = Lesson(arms, Settings(lr=4e-3, warm_up=100), load=load, overview=overview, quick=small)

if __name__ == "__main__":
    run(lesson)
