"""From text to token ids and back: characters, bytes, byte-pair encodings learned here, and the published
ones of tiktoken.

Every tokenizer has `name`, `vocab_size`, `encode(text) -> int array`, `decode(ids) -> text` and
`state() -> dict`, from which `from_state` builds it again (a checkpoint carries that). Text that looks like a
special token is encoded as plain text.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import regex

from common.data import bpe
from common.errors import UserError, nearest

if TYPE_CHECKING:
    import tiktoken

# The search for pieces in compiled code gives up at about half a million characters of white space in a row;
# each run of twice this length holds a whole block of it.
RUN = 50_000


class CharTokenizer:
    """One id per character of an alphabet, in code-point order.

    A line break is the smallest character of ordinary text, so where it is in the alphabet it has id 0: lists
    of names use that as their end mark.
    """

    name = "char"

    def __init__(self, alphabet: Iterable[str]):
        self.alphabet = "".join(sorted(set(alphabet)))
        self.code_points = np.array([ord(c) for c in self.alphabet], dtype=np.uint32)

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> np.ndarray:
        """Ids, one per character, int64 (len(text),).

        Raises UserError that names the characters it does not know.
        """
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        ids = np.searchsorted(self.code_points, points).clip(max=self.vocab_size - 1)
        unknown = points[self.code_points[ids] != points]
        if len(unknown):
            names = " ".join(repr(chr(p)) for p in sorted(set(unknown.tolist()))[:10])
            more = self.vocab_size - 100
            has = f"{self.alphabet[:100]!r}" + (f" and {more:,} more" if more > 0 else "")
            raise UserError(f"the vocabulary of {self.vocab_size} characters has no {names}; it has {has}")
        return ids.astype(np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.alphabet[i] for i in ids)

    def state(self) -> dict:
        return {"name": self.name, "alphabet": self.alphabet}


class ByteTokenizer:
    """One id per byte of the text in UTF-8: 256 of them, for every text there is."""

    name, vocab_size = "byte", 256

    def encode(self, text: str) -> np.ndarray:
        """Ids as int64. Raises UserError for text that is not valid Unicode."""
        return np.frombuffer(bpe.utf8(text), dtype=np.uint8).astype(np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(int(i) for i in ids).decode(errors="replace")

    def state(self) -> dict:
        return {"name": self.name}


class _Encoding:
    """What the byte-pair encodings share."""

    encoding: "tiktoken.Encoding"

    @property
    def vocab_size(self) -> int:
        return self.encoding.n_vocab

    def encode(self, text: str, special: bool = False) -> np.ndarray:
        """Ids as int64; special tokens in the text are plain text unless `special`.

        Raises UserError for text that is not valid Unicode.
        """
        bpe.utf8(text)
        if any(text[at : at + RUN].isspace() for at in range(0, len(text) - RUN + 1, RUN)):
            return np.fromiter(self._with_long_runs(text, special), np.int64)
        return np.array(
            self.encoding.encode(text, allowed_special="all")
            if special
            else self.encoding.encode_ordinary(text),
            np.int64,
        )

    def _with_long_runs(self, text: str, special: bool) -> Iterator[int]:
        """Ids of a text with more white space in a row than the library's search for pieces can take: another
        library finds the pieces.
        """
        ids = self.encoding._special_tokens if special else {}
        either = f"({'|'.join(map(regex.escape, ids)) or '(?!)'})"
        for part in regex.split(either, text):
            if part in ids:
                yield ids[part]
                continue
            for piece in regex.finditer(self.encoding._pat_str, part or ""):
                yield from self.encoding._encode_single_piece(piece[0])

    def decode(self, ids: Iterable[int]) -> str:
        """Text; bytes that make no character become the replacement character."""
        return self.encoding.decode([int(i) for i in ids])


class TiktokenTokenizer(_Encoding):
    """A published byte-pair encoding, for example `gpt2` (50,257 entries) or `cl100k_base` (100,277)."""

    def __init__(self, name: str):
        import tiktoken

        if name not in tiktoken.list_encoding_names():
            raise UserError(f"encoding {name!r} is not known{nearest(name, tiktoken.list_encoding_names())}")
        try:
            self.encoding = tiktoken.get_encoding(name)
        except (OSError, ValueError) as error:  # not there, or not what it should be
            raise UnreachableError(
                f"the files of encoding {name!r} cannot be reached; set TIKTOKEN_CACHE_DIR to a folder "
                "that holds them"
            ) from error
        self.name = name

    def state(self) -> dict:
        return {"name": self.name}


class UnreachableError(UserError):
    """The files of a published encoding are neither here nor can they be downloaded."""


class BPETokenizer(_Encoding):
    """A byte-pair encoding from merges that were learned here. Ids: the 256 bytes, what the merges made, the
    special token.

    Taught in 07_tokenizer_gqa/bpe.py; here compiled code does the encoding.
    """

    def __init__(self, merges: list[bpe.Merge]):
        import tiktoken

        self.merges = merges
        ids = {bytes([byte]): byte for byte in range(256)}
        for a, b in merges:
            ids.setdefault(a + b, len(ids))
        self.name = f"bpe-{len(ids) + 1}"
        self.encoding = tiktoken.Encoding(
            self.name, pat_str=bpe.PIECE.pattern, mergeable_ranks=ids, special_tokens={bpe.END: len(ids)}
        )

    @classmethod
    def train(cls, text: str | Iterable[str], vocab_size: int) -> "BPETokenizer":
        """Learn a vocabulary from a text, or from documents. Raises as `common.data.bpe.train`."""
        return cls(bpe.train([text] if isinstance(text, str) else text, vocab_size))

    def state(self) -> dict:
        return {"name": "bpe", "merges": [[a.decode("latin-1"), b.decode("latin-1")] for a, b in self.merges]}

    def save(self, path: Path) -> None:
        """Write the vocabulary as a JSON file, which `--tokenizer PATH` reads."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.state()), encoding="ascii")
        part.replace(path)


Tokenizer = CharTokenizer | ByteTokenizer | TiktokenTokenizer | BPETokenizer


def from_state(state: dict) -> Tokenizer:
    """The tokenizer that `state()` described. Raises UserError for a state it cannot read."""
    try:
        if state["name"] == "char":
            return CharTokenizer(state["alphabet"])
        if state["name"] == "byte":
            return ByteTokenizer()
        if state["name"] == "bpe":
            return BPETokenizer(_merges(state))
        return TiktokenTokenizer(state["name"])
    except WRONG as error:
        raise UserError(
            f"what is said of a tokenizer cannot be read ({error or type(error).__name__})"
        ) from None


# what reading a vocabulary runs into that is none
WRONG = (ValueError, KeyError, TypeError, AttributeError)


def _merges(state: dict) -> list[bpe.Merge]:
    """The merges of a state. Raises one of `WRONG` for a state without."""
    return [(a.encode("latin-1"), b.encode("latin-1")) for a, b in state["merges"]]


def load(path: Path) -> BPETokenizer:
    """A vocabulary from its file. Raises UserError for a file that holds none."""
    try:
        return BPETokenizer(_merges(json.loads(path.read_text(encoding="ascii"))))
    except (OSError, *WRONG) as error:
        raise UserError(
            f"{path} holds no vocabulary of this course ({error or type(error).__name__}); learn one with "
            "bpe-SIZE"
        ) from None


def identity(name: str) -> str:
    """What stands for a tokenizer in the hash of a configuration: its name, or a digest of the vocabulary in
    a file.
    """
    if _is_path(name) and Path(name).expanduser().is_file():
        return f"file-{hashlib.sha256(Path(name).expanduser().read_bytes()).hexdigest()[:12]}"
    return name


def _is_path(name: str) -> bool:
    return bool(Path(name).suffix) or "/" in name or "\\" in name


def make(
    name: str, text: str, training: str, learn: Callable[[str, int], Tokenizer] = BPETokenizer.train
) -> Tokenizer:
    """The tokenizer of a name: char, byte, bpe-SIZE, an encoding of tiktoken, or the path of a vocabulary.

    text: what characters occur in. training: what merges are learned from, with `learn`. Raises UserError for
    a name it does not know.
    """
    if name == "char":
        return CharTokenizer(text)
    if name == "byte":
        return ByteTokenizer()
    if re.fullmatch(r"bpe-\d+", name):
        return learn(training, int(name.removeprefix("bpe-")))
    if _is_path(name):
        return load(Path(name).expanduser())
    import tiktoken

    known = ["char", "byte", *tiktoken.list_encoding_names()]
    if name not in known:
        raise UserError(
            f"tokenizer {name!r} is not known{nearest(name, known)}; it is char, byte, bpe-SIZE, "
            f"{', '.join(known[2:])} or a file"
        )
    return TiktokenTokenizer(name)
