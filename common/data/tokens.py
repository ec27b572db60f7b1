"""Reading token files: a text that stays on the disk while a model is trained on it.

The folder is as in token_files.py.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.data.corpora import Corpus, family_of
from common.data.splits import LOGITS, Data, TextSplit
from common.data.token_files import META, SPLITS, VERSION, checksum
from common.data.tokenizer import from_state
from common.errors import UserError
from common.settings import Settings


@dataclass(frozen=True)
class Stretch:
    """Token ids first to end of files that lie on the disk, as if they were one tensor."""

    files: Sequence[np.ndarray]
    """Mapped into memory; all as long as the first, but for the last."""
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, places: slice) -> Tensor:
        """The ids (N,) of a slice without a step, as int64."""
        start, stop, _ = places.indices(len(self))
        size, found = len(self.files[0]), []
        place, stop = self.first + start, self.first + stop
        while place < stop:
            number, inside = divmod(place, size)
            found.append(self.files[number][inside : min(size, inside + stop - place)])
            place += len(found[-1])
        ids = np.concatenate(found) if found else np.empty(0)
        return torch.from_numpy(ids.astype(np.int64))

    def part(self, first: int, end: int) -> "Stretch":
        return Stretch(self.files, self.first + first, min(self.end, self.first + end))


class TokenSplit(TextSplit):
    """A split that stays on the disk: N tokens to predict, each from what stands before it."""

    def __init__(self, tokens: Stretch, characters: int, block_size: int, rows: int = 128):
        self.stretch, self.characters, self.block_size, self.rows = tokens, characters, block_size, rows
        self.choices = max(1, len(tokens) - block_size)

    def __len__(self) -> int:
        return len(self.stretch) - 1

    @property
    def tokens(self) -> Tensor:  # type: ignore[override]
        """The first of them, as many as one may want to look at."""
        return self.stretch[: 1 << 16]

    def at(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, T) and targets (B, T) of the windows that begin at `starts` (B,)."""
        length = min(self.block_size + 1, len(self.stretch))
        windows = torch.stack([self.stretch[start : start + length] for start in starts.tolist()])
        return windows[:, :-1], windows[:, 1:]

    def in_order(self, rows: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Every target exactly once, as in TextSplit."""
        rows, whole = rows or self.rows, len(self) // self.block_size
        for first in range(0, whole, rows):
            yield self.at(torch.arange(first, min(first + rows, whole)) * self.block_size)
        rest = self.stretch[whole * self.block_size :]
        if len(rest) > 1:
            yield rest[None, :-1], rest[None, 1:]

    def in_windows(self, block_size: int) -> "TokenSplit":
        rows = max(1, self.rows * self.block_size // block_size)
        return TokenSplit(self.stretch, self.characters, block_size, rows)

    def head(self, tokens: int) -> "TokenSplit":
        characters = round(self.characters * tokens / len(self))
        return TokenSplit(self.stretch.part(0, tokens + 1), characters, self.block_size, self.rows)

    def tail(self, tokens: int) -> "TokenSplit":
        last = self.stretch.part(len(self.stretch) - tokens - 1, len(self.stretch))
        return TokenSplit(last, tokens, self.block_size, self.rows)


def read_meta(folder: Path) -> dict:
    """What a folder holds. Raises UserError for one that is no such folder, or not whole."""
    path = folder / META
    if not path.is_file():
        begun = (folder / "progress.json").is_file()
        if begun:
            raise UserError(f"{folder} is not finished; the same prepare command goes on with it")
        raise UserError(f"{folder} is no folder of token files; make one with 09_pretraining/prepare.py")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        known = {"version", "tokenizer", "end_of_text", "dtype", "splits", "shards"} <= set(meta)
        if known and meta["version"] == VERSION:
            _check(meta)
    except (ValueError, TypeError, OSError, KeyError, AttributeError) as error:
        said = error or type(error).__name__
        raise UserError(f"{path} cannot be read ({said}); prepare the folder again") from None
    if not known or meta["version"] != VERSION:
        raise UserError(f"{path} was written by another version; prepare the folder again")
    size = np.dtype(meta["dtype"]).itemsize
    for name, shard in meta["shards"].items():
        file = folder / name
        has = file.stat().st_size if file.is_file() else 0
        if has != shard["tokens"] * size:
            raise UserError(
                f"{file} has {has:,} bytes instead of {shard['tokens'] * size:,}; prepare the folder again"
            )
    return meta


def _check(meta: dict) -> None:
    """Raise ValueError, or what a wrong kind of value leads to, where what is said of a folder makes no
    sense.
    """
    if meta["dtype"] not in ("uint16", "uint32"):
        raise ValueError(f"dtype {meta['dtype']!r:.20}")
    counts = [shard["tokens"] for shard in meta["shards"].values()]
    counts += [meta["splits"][split]["characters"] for split in SPLITS]
    digests = [shard["sha256"] for shard in meta["shards"].values()]
    wrong = [count for count in counts if type(count) is not int or count < 0]
    wrong += [digest for digest in digests if not isinstance(digest, str)]
    if wrong or not isinstance(meta["tokenizer"], dict):
        raise ValueError(f"{(wrong or [meta['tokenizer']])[0]!r:.20} makes no sense there")


def verify(folder: Path) -> dict:
    """Compare every file with its checksum. Returns what the folder holds. Raises UserError."""
    meta = read_meta(folder)
    for name, shard in meta["shards"].items():
        if checksum(folder / name) != shard["sha256"]:
            raise UserError(
                f"{folder / name} has another checksum than it was written with; prepare it again"
            )
    return meta


def stretch(folder: Path, meta: dict, split: str) -> Stretch:
    """The ids of a split, mapped into memory."""
    dtype = np.dtype(meta["dtype"]).newbyteorder("<")
    names = sorted(name for name in meta["shards"] if name.startswith(f"{split}-"))
    files = [np.memmap(folder / name, dtype, mode="r") for name in names]
    return Stretch(files, 0, sum(map(len, files)))


def prepared_data(folder: Path, s: Settings, device: str = "cpu") -> Data:
    """The data of a run from a prepared folder. Raises UserError for one that is too short or not whole."""
    meta = read_meta(folder)
    tokenizer = from_state(meta["tokenizer"])
    rows = max(1, min(128, LOGITS // (s.block_size * tokenizer.vocab_size)))
    splits = []
    for split in SPLITS:
        ids = stretch(folder, meta, split)
        if len(ids) < 2 or (split == "train" and len(ids) <= s.block_size):
            raise UserError(
                f"{folder} is too short: its {split} part has {len(ids):,} tokens, and a window takes "
                f"{s.block_size + 1}; prepare a longer text or use a smaller --block-size"
            )
        splits.append(TokenSplit(ids, meta["splits"][split]["characters"], s.block_size, rows))
    train, validation, test = splits
    corpus = Corpus(folder.resolve().name, family_of(str(folder)), "")
    return Data(corpus, tokenizer, train, validation, test, s.batch_size, device=device)
