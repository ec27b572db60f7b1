"""Prepare: any text becomes files of token ids, which training maps into memory.

Previous : 09_pretraining/ablation.py
Changes  : Preparing, Piece, split_of, cut, assigned, encode, in_order, parts_of, vocabulary, going_on,
           prepare, inspect, tell, main
Idea     : a corpus that does not fit into memory is tokenised once, a few documents at a time; whether a
           document trains or tests follows from a hash of its text
Source   : Raffel et al. 2020, arXiv:1910.10683, and Lee et al. 2022, arXiv:2107.06499 (copies of a document);
           Andonian et al. 2023, doi:10.5281/zenodo.5879544 (GPT-NeoX: files that are mapped into memory)
Expect   : about the speed of the tokenizer times the cores, and memory that does not grow with the text
"""

import hashlib
import json
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from common.data import documents, token_files, tokens
from common.data.tokenizer import CharTokenizer, from_state, identity, make
from common.errors import UserError, command
from common.parsing import parse_as

lesson = None                                                          # a program: it trains nothing
SAVED, LEARNED = 64, 50_000_000                                        # parts between saves; characters


@dataclass(frozen=True)
class Preparing:
    """Turn texts into a folder of token files, or look into one (--inspect)."""

    sources: tyro.conf.Positional[tuple[str, ...]] = ()
    """Files (.txt, .jsonl, .jsonl.gz, .jsonl.zst, .parquet), folders of such, or hf:NAME."""
    out: str = ""
    """The folder to make."""
    tokenizer: str = "gpt2"
    """char, byte, bpe-SIZE (learned from training documents), gpt2, cl100k_base, or a vocabulary file."""
    field: str = "text"
    """Where the text of a document is, in JSON and Parquet."""
    limit: int = 0
    """Take only so many documents; 0: all."""
    held_out: float = 0.05
    """Share of the documents that is for validation, and as many for the test."""
    workers: int = os.cpu_count() or 1
    """Threads that encode."""
    skip_bad: bool = False
    """Leave out and count lines that hold no document, instead of stopping there."""
    inspect: str = ""
    """Print documents of this prepared folder, and compare its files with their checksums."""


@dataclass(frozen=True)
class Piece:
    """A document, or a piece of one, as it is written."""

    split: str
    digest: int
    ids: np.ndarray                                                    # (N,)
    characters: int
    bytes: int


def split_of(digest, held_out):
    """The same document is always for the same: a corpus that grows moves none from training to test."""
    place = digest / 2**64
    return "test" if place < held_out else "validation" if place < 2 * held_out else "train"


def cut(text):
    """A document alone is cut as every text of the course: 90 % train, 5 % validation, 5 % test."""
    ends = [0, int(0.9 * len(text)), int(0.95 * len(text)), len(text)]
    return [(split, text[a:b]) for split, a, b in zip(token_files.SPLITS, ends, ends[1:], strict=False)]


def assigned(part, alone, a):
    """Split, digest and text of each document of a part; and how many lines held none."""
    bad = [] if a.skip_bad else None
    found = []
    for text in part.texts(a.field, bad):
        digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        pieces = cut(text) if alone else [(split_of(digest, a.held_out), text)]
        found += [(split, digest, piece) for split, piece in pieces]
    return found, len(bad or [])


def encode(part, alone, a, tokenizer):
    """The documents of a part as ids. Threads are enough: the library lets go of the interpreter."""
    found, bad = assigned(part, alone, a)
    pieces = []
    for split, digest, text in found:
        ids = tokenizer.encode(text.replace(token_files.END, ""))
        pieces.append(Piece(split, digest, ids, len(text), len(text.encode())))
    return pieces, bad


def in_order(pool, function, items, ahead):
    """Each item with what a function makes of it, in their order, while the next ones are at work."""
    running = deque()
    for item in items:
        running.append((item, pool.submit(function, item)))
        if len(running) == ahead:
            item, future = running.popleft()
            yield item, future.result()
    for item, future in running:
        yield item, future.result()


def parts_of(sources, a):
    """The parts of the sources up to the limit, and whether there is a single document in all of them."""
    def limited():
        left = a.limit or sys.maxsize
        for part in sources.parts(a.field):
            if left <= 0:
                return
            yield replace(part, raw=part.raw[:left])
            left -= len(part.raw)

    first = list(islice(limited(), 2))
    return limited(), len(first) == 1 and len(first[0].raw) == 1


def vocabulary(sources, a):
    """The tokenizer. To learn one, or to know which characters occur, the sources are read once before."""
    def texts(learning):
        parts, alone = parts_of(sources, a)
        read = 0
        for part in parts:
            for split, _, text in assigned(part, alone, a)[0]:
                if not learning or split == "train":
                    yield text
                    read += len(text)
            if learning and read >= LEARNED:                           # that much is enough to learn from
                return

    if a.tokenizer == "char":
        alphabet = set(token_files.END)
        for text in texts(learning=False):
            alphabet.update(text)
        return CharTokenizer(alphabet)
    learn = a.tokenizer.startswith("bpe-")
    return make(a.tokenizer, "", texts(learning=True) if learn else "")


def going_on(out, asked):
    """What an interrupted run had done. Raises UserError where it was asked for something else."""
    known = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if token_files.META in known:
        raise UserError(f"{out} is finished; look into it with --inspect {out}, or name another --out")
    if known and "progress.json" not in known:
        raise UserError(f"{out} has other files; name a new folder")
    if not known:
        return {}
    state = json.loads((out / "progress.json").read_text(encoding="utf-8"))
    for name, value in asked.items():
        if state["asked"].get(name) != value:
            raise UserError(f"{out} was begun with other {name}; ask for the same, or remove the folder")
    return state


def prepare(sources, out, a):
    """Write the folder, or go on where an interrupted run had come to. Returns what it holds."""
    asked = {"sources": sources.state(), "tokenizer": identity(a.tokenizer), "field": a.field,
             "limit": a.limit, "held_out": a.held_out}
    state = going_on(out, asked)
    tokenizer = vocabulary(sources, a)
    out.mkdir(parents=True, exist_ok=True)
    dtype, end = token_files.type_for(tokenizer.vocab_size), token_files.end_of_text(tokenizer)
    writer = token_files.Writer(out, dtype, end)
    seen = token_files.Seen(out / "seen.bin")
    if state:
        writer.restore(state["written"])
        seen.restore(state["seen"])
    else:
        writer.begin()
    done, bad, copies, read = (state.get(name, 0) for name in ("parts", "bad", "copies", "read"))
    parts, alone = parts_of(sources, a)
    function = partial(encode, alone=alone, a=a, tokenizer=tokenizer)

    def save():
        kept = {"written": writer.save(), "seen": seen.save(), "asked": asked}
        kept |= {"parts": done, "bad": bad, "copies": copies, "read": read}
        token_files.write_whole(out / "progress.json", json.dumps(kept))

    save()
    with ThreadPoolExecutor(a.workers) as pool, tqdm(
            total=sources.size or None, initial=read, unit="B", unit_scale=True, desc="prepare") as bar:
        for part, (pieces, wrong) in in_order(pool, function, islice(parts, done, None), 2 * a.workers):
            for piece in pieces:
                if not alone and not seen.add(piece.digest):
                    copies += 1
                    continue
                writer.add(piece.split, piece.ids, piece.characters, piece.bytes)
            done, bad, read = done + 1, bad + wrong, part.read
            bar.update(read - bar.n)
            if done % SAVED == 0:
                save()
    meta = writer.finish(tokenizer, {"sources": sources.names, "copies": copies, "bad": bad})
    for name in ("progress.json", "seen.bin"):
        (out / name).unlink()
    return meta


def inspect(folder):
    """Print what a folder holds and how some documents begin, if its files are as they were written."""
    meta = tokens.verify(folder)
    tell(folder, meta)
    tokenizer = from_state(meta["tokenizer"])
    for split in token_files.SPLITS:
        ids = tokens.stretch(folder, meta, split)[:2000].numpy()
        ends = np.flatnonzero(ids == meta["end_of_text"]).tolist()
        for number, (start, end) in enumerate(zip(ends, [*ends[1:], len(ids)], strict=True)):
            if number < 2 and end > start + 1:
                print(f"\n{split}, document {number + 1}:\n{tokenizer.decode(ids[start + 1 : end])[:300]}")


def tell(folder, meta):
    for split, counts in meta["splits"].items():
        print(f"{split:<11}" + ", ".join(f"{count:,} {what}" for what, count in counts.items()))
    print(f"{meta['copies']:,} copies and {meta['bad']:,} bad lines left out; in {folder}")


@command
def main():
    a = parse_as(Preparing, None, __doc__.splitlines()[0])
    if a.inspect:
        return inspect(Path(a.inspect))
    if not a.out:
        raise UserError("--out names no folder; say where the token files shall stand")
    if not 0 < a.held_out < 0.5 or a.workers < 1 or a.limit < 0:
        raise UserError("--held-out is above 0 and below 0.5, --workers at least 1, --limit at least 0")
    sources, out = documents.find(a.sources), Path(a.out)
    try:
        meta = prepare(sources, out, a)
    except OSError as error:
        kept = "what is there is kept, and the same command goes on with it"
        raise UserError(f"{out} cannot be written ({error.strerror or error}); {kept}") from None
    tell(out, meta)


if __name__ == "__main__":
    main()
