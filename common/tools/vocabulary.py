"""Learn a vocabulary from a text, and write it to a file.

From the command line:

    python -m common.tools.vocabulary my_text.txt --size 8192 --out my_vocabulary.json
    python 02_attention/multi_head.py --corpus my_text.txt --tokenizer my_vocabulary.json
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from common.command_line import parse_as
from common.data.tokenizer import BPETokenizer
from common.errors import UserError, command


@dataclass(frozen=True)
class Arguments:
    """Learn a vocabulary from a text (or from documents in a .jsonl file), and write it to a file."""

    source: tyro.conf.Positional[Path] = Path()
    """A UTF-8 text, or a .jsonl file with a document in the field "text" of each line."""
    size: int = 8192
    """Entries: the 256 bytes, what is learned, and the end mark."""
    out: Path = Path("vocabulary.json")
    """The file to write."""


def documents(path: Path) -> Iterator[str]:
    """The texts of a file, one after the other. Raises UserError for a line that holds none."""
    if path.suffix != ".jsonl":
        yield path.read_text(encoding="utf-8")
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{path}, line {number} is no JSON object with a field 'text'; mend or remove that line"
                ) from None


@command
def main() -> None:
    a = parse_as(Arguments, sys.argv[1:])
    if not a.source.is_file():
        raise UserError(f"{a.source} is no file; give a text to learn from (--help lists all flags)")
    if not a.out.absolute().parent.is_dir():
        raise UserError(f"the folder of {a.out} does not exist; make it first")
    try:
        tokenizer = BPETokenizer.train(documents(a.source), a.size)
        tokenizer.save(a.out)
    except UnicodeDecodeError as error:
        raise UserError(f"{a.source} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{a.out} cannot be written ({error.strerror})") from None
    print(f"{tokenizer.vocab_size:,} entries in {a.out}; use them with --tokenizer {a.out}")


if __name__ == "__main__":
    main()
