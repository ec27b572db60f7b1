"""A text as a folder of token files, which training maps into memory instead of reading.

    meta.json             tokenizer, counts and checksums; written last, so that a folder with it is whole
    train-00000.bin ...   ids one after the other, each 2 or 4 bytes (little-endian)
    validation-00000.bin ...
    test-00000.bin ...

Every split begins with the end-of-text token, and every document ends with it. 09_pretraining/prepare.py
makes such folders.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer
from common.errors import UserError

SPLITS = ("train", "validation", "test")
META, VERSION = "meta.json", 1
SHARD = 100_000_000  # tokens of a file
# ends a text in a vocabulary of characters or bytes: the ASCII sign that was made for it
END = "\x03"


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id that stands between documents."""
    if isinstance(tokenizer, CharTokenizer | ByteTokenizer):
        return int(tokenizer.encode(END)[0])
    return tokenizer.encoding.eot_token


def type_for(vocab_size: int) -> str:
    """The smallest type of number that holds every id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


@dataclass
class Counts:
    """What a split holds."""

    documents: int = 0
    tokens: int = 0
    characters: int = 0
    bytes: int = 0


class Writer:
    """Appends ids to the files of a folder, and can go back to where it was."""

    def __init__(self, folder: Path, dtype: str, end: int, shard: int = SHARD):
        self.folder, self.dtype, self.end, self.shard = folder, np.dtype(dtype).newbyteorder("<"), end, shard
        self.counts = {split: Counts() for split in SPLITS}
        self.files: dict[Path, BinaryIO] = {}

    def begin(self) -> None:
        for split in SPLITS:
            self._append(split, np.array([self.end]))

    def add(self, split: str, ids: np.ndarray, characters: int, size: int) -> None:
        """A document: its ids (N,), its characters, and its bytes in UTF-8."""
        self._append(split, np.append(ids, self.end))
        counts = self.counts[split]
        counts.documents += 1
        counts.characters += characters
        counts.bytes += size

    def _append(self, split: str, ids: np.ndarray) -> None:
        counts = self.counts[split]
        while len(ids):
            number, inside = divmod(counts.tokens, self.shard)
            now, ids = ids[: self.shard - inside], ids[self.shard - inside :]
            self._file(split, number).write(now.astype(self.dtype).tobytes())
            counts.tokens += len(now)

    def _file(self, split: str, number: int):
        path = self.folder / f"{split}-{number:05}.bin"
        if path not in self.files:
            for other in [p for p in self.files if p.name.startswith(f"{split}-")]:
                self._close(other)
            self.files[path] = path.open("ab")
        return self.files[path]

    def _close(self, path: Path) -> None:
        file = self.files.pop(path)
        file.flush()
        os.fsync(file.fileno())
        file.close()

    def save(self) -> dict:
        """Bring all to the disk. Returns what `restore` goes back to."""
        for path in list(self.files):
            self._close(path)
        return {split: vars(counts).copy() for split, counts in self.counts.items()}

    def restore(self, saved: dict) -> None:
        """Go back to an earlier `save`: what was written since is cut off."""
        for split in SPLITS:
            self.counts[split] = Counts(**saved[split])
            last, inside = divmod(self.counts[split].tokens, self.shard)
            for path in sorted(self.folder.glob(f"{split}-*.bin")):
                number = int(path.stem.rpartition("-")[2])
                keep = self.shard if number < last else inside if number == last else 0
                if path.stat().st_size < keep * self.dtype.itemsize:
                    raise UserError(
                        f"{path} is shorter than it was; remove {self.folder} and prepare it again"
                    )
                if keep:
                    os.truncate(path, keep * self.dtype.itemsize)
                else:
                    path.unlink()

    def finish(self, tokenizer: Tokenizer, further: dict) -> dict:
        """Write what the folder holds, last of all. Returns it.

        further: what else there is to say of where the text comes from.
        """
        self.save()
        shards = {
            path.name: {"tokens": path.stat().st_size // self.dtype.itemsize, "sha256": checksum(path)}
            for split in SPLITS
            for path in sorted(self.folder.glob(f"{split}-*.bin"))
        }
        meta = {
            "version": VERSION, "tokenizer": tokenizer.state(), "vocab_size": tokenizer.vocab_size,
            "end_of_text": self.end, "dtype": self.dtype.name,
            "splits": {split: vars(counts) for split, counts in self.counts.items()}, "shards": shards,
        } | further  # fmt: skip
        write_whole(self.folder / META, json.dumps(meta, indent=1))
        return meta


def write_whole(path: Path, text: str) -> None:
    """Write a file so that there is the old one or the new one, never half of it."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class Seen:
    """Which documents there were, by 64 bits of a hash; about 100 bytes of memory for each, and 8 on the
    disk.
    """

    def __init__(self, path: Path):
        self.path, self.digests = path, set[int]()
        self.new: list[int] = []

    def add(self, digest: int) -> bool:
        """Whether this one is new."""
        if digest in self.digests:
            return False
        self.digests.add(digest)
        self.new.append(digest)
        return True

    def save(self) -> int:
        """Bring all to the disk. Returns what `restore` goes back to."""
        with self.path.open("ab") as file:
            file.write(np.array(self.new, "<u8").tobytes())
            file.flush()
            os.fsync(file.fileno())
        self.new = []
        return len(self.digests)

    def restore(self, count: int) -> None:
        """Go back to an earlier `save`."""
        os.truncate(self.path, 8 * count)
        self.digests = set(np.fromfile(self.path, "<u8").tolist())
