"""From text to token ids and back: characters, and the published byte-pair encodings of tiktoken.

Every tokenizer has `name`, `vocab_size`, `encode(text) -> int array`, `decode(ids) -> text` and `state() -> dict`, from which
`from_state` builds it again (a checkpoint carries that).
"""

from collections.abc import Iterable

import numpy as np

from common.errors import UserError, nearest


class CharTokenizer:
    """One id per character of an alphabet, in code-point order.

    A line break is the smallest character of ordinary text, so where it is in the alphabet it has id 0: lists of names use that
    as their end mark.
    """

    name = "char"

    def __init__(self, alphabet: Iterable[str]):
        self.alphabet = "".join(sorted(set(alphabet)))
        self.code_points = np.array([ord(c) for c in self.alphabet], dtype=np.uint32)

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> np.ndarray:
        """Ids, one per character, int64 (len(text),). Raises UserError that names the characters it does not know."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        ids = np.searchsorted(self.code_points, points).clip(max=self.vocab_size - 1)
        unknown = points[self.code_points[ids] != points]
        if len(unknown):
            names = " ".join(repr(chr(p)) for p in sorted(set(unknown.tolist()))[:10])
            raise UserError(f"the vocabulary of {self.vocab_size} characters has no {names}; it has {self.alphabet!r}")
        return ids.astype(np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.alphabet[i] for i in ids)

    def state(self) -> dict:
        return {"name": self.name, "alphabet": self.alphabet}


class TiktokenTokenizer:
    """A published byte-pair encoding, for example `gpt2` (50,257 entries) or `cl100k_base` (100,277)."""

    def __init__(self, name: str):
        import tiktoken

        if name not in tiktoken.list_encoding_names():
            raise UserError(f"encoding {name!r} is not known{nearest(name, tiktoken.list_encoding_names())}")
        try:
            self.encoding = tiktoken.get_encoding(name)
        except OSError as error:
            raise UserError(
                f"the files of encoding {name!r} cannot be reached; set TIKTOKEN_CACHE_DIR to a folder that holds them"
            ) from error
        self.name = name

    @property
    def vocab_size(self) -> int:
        return self.encoding.n_vocab

    def encode(self, text: str) -> np.ndarray:
        """Ids as int64; text that looks like a special token is encoded as plain text."""
        return np.array(self.encoding.encode_ordinary(text), dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        return self.encoding.decode([int(i) for i in ids])

    def state(self) -> dict:
        return {"name": self.name}


def from_state(state: dict) -> CharTokenizer | TiktokenTokenizer:
    """The tokenizer that `state()` described. Raises UserError for a state it cannot read."""
    if state.get("name") == "char":
        return CharTokenizer(state["alphabet"])
    return TiktokenTokenizer(str(state.get("name")))
