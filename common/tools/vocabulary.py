"""Learn a vocabulary from a text, and write it to a file.

From the command line:

    python -m common.tools.vocabulary my_text.txt --size 8192 --out my_vocabulary.json
    python 02_attention/multi_head.py --corpus my_text.txt --tokenizer my_vocabulary.json
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from common.data import documents
from common.data.corpora import read_file
from common.data.tokenizer import BPETokenizer
from common.errors import UserError, command
from common.parsing import parse_as
from common.text import chunks


@dataclass(frozen=True)
class Arguments:
    """Learn a vocabulary from a text (or from the documents of a file that holds many), and write it to a
    file.
    """

    source: tyro.conf.Positional[Path] = Path()
    """A UTF-8 text, JSON lines (.jsonl, also .gz or .zst) or a Parquet file."""
    size: int = 8192
    """Entries: the 256 bytes, what is learned, and the end mark."""
    out: Path = Path("vocabulary.json")
    """The file to write."""
    field: str = "text"
    """Where a document of JSON lines or a Parquet file has its text."""
    skip_bad: bool = False
    """Leave out lines that hold no document, instead of stopping at the first."""


def texts(a: Arguments) -> Iterator[str]:
    """The documents of the source, one after the other; a text comes in parts. Raises UserError for none."""
    if not a.source.name.endswith((*documents.LINES, documents.TABLE)):
        yield from chunks(read_file(a.source))
        return
    bad: list[str] | None = [] if a.skip_bad else None
    for part in documents.find([str(a.source)]).parts(a.field):
        yield from part.texts(a.field, bad)
    if bad:
        print(f"{len(bad)} lines hold no document and are left out, the first: {bad[0]}", file=sys.stderr)


@command
def main() -> None:
    a = parse_as(Arguments, sys.argv[1:])
    if not a.source.is_file():
        raise UserError(f"{a.source} is no file; give a text to learn from (--help lists all flags)")
    if a.out.is_dir():
        raise UserError(
            f"--out {a.out} is a folder; name a file in it, for example {a.out / 'vocabulary.json'}"
        )
    if not a.out.absolute().parent.is_dir():
        raise UserError(f"the folder of {a.out} does not exist; make it first")
    try:
        tokenizer = BPETokenizer.train(tqdm(texts(a), "reading", unit=" texts", disable=None), a.size)
        tokenizer.save(a.out)
    except OSError as error:
        raise UserError(f"{a.out} cannot be written ({error.strerror})") from None
    name = a.out if a.out.suffix or len(a.out.parts) > 1 else f"./{a.out}"  # or else it is taken for a name
    print(f"{tokenizer.vocab_size:,} entries in {a.out}; use them with --tokenizer {name}")


if __name__ == "__main__":
    main()
