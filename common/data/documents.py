"""Documents from files, a few at a time, however large the files are: texts, folders, JSON lines (plain,
gzip, zstandard), Parquet, and data sets of the Hugging Face hub.
"""

import gzip
import importlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import UserError
from common.text import decode_text, is_utf16

TEXT, LINES, TABLE, HUB = ".txt", (".jsonl", ".jsonl.gz", ".jsonl.zst"), ".parquet", "hf:"
SUFFIXES = (TEXT, *LINES, TABLE)
ABOUT = 1 << 20  # bytes of source that are handed on at once


@dataclass(frozen=True)
class Part:
    """Some documents that follow one another, as they were read."""

    source: str
    """The file, or the data set."""
    first: int
    """The number of the first document or line, from 1."""
    raw: list[Any]
    """Lines of JSON, as bytes; or texts."""
    read: int
    """Bytes of the source that were read up to here, as they lie on the disk; 0 where that is not known."""

    def texts(self, key: str, bad: list[str] | None = None) -> list[str]:
        """The documents. bad: takes what is wrong with lines that hold none, which are left out.

        Raises UserError for the first such line where no list is given.
        """
        found = []
        for number, line in enumerate(self.raw, self.first):
            try:
                found.append(_text(line, key) if isinstance(line, bytes) else _checked(line, key))
            except ValueError as error:
                said = f"{self.source}, line {number}: {error}"
                if bad is None:
                    raise UserError(f"{said}; mend it, or leave such lines out with --skip-bad") from None
                bad.append(said)
        return found


def _text(line: bytes, key: str) -> str:
    """The text of a line of JSON. Raises ValueError that says what is wrong with it."""
    try:
        document = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None
    except ValueError as error:
        raise ValueError(f"no JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    if key not in document:
        raise ValueError(f"no field {key!r}; it has {', '.join(map(repr, document)) or 'none'}")
    return _checked(document[key], key)


def _checked(text: object, key: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"field {key!r} is no text but {type(text).__name__}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"no Unicode: half a surrogate pair at character {error.start}") from None
    return text


@dataclass(frozen=True)
class Sources:
    """Files and data sets, in the order in which they are read."""

    names: list[str]
    sizes: list[int] = field(default_factory=list)
    """Bytes of each; 0 for a data set of the hub."""

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def state(self) -> list:
        """What has to be the same for an interrupted run to go on."""
        return [[name, size] for name, size in zip(self.names, self.sizes, strict=True)]

    def parts(self, key: str) -> Iterator[Part]:
        """All documents, about a megabyte at a time, always cut at the same places.

        key: the field that holds the text. Raises UserError for a file that cannot be read or is broken.
        """
        before = 0
        for name, size in zip(self.names, self.sizes, strict=True):
            for part in _parts_of(name, key):
                yield Part(part.source, part.first, part.raw, before + part.read)
            before += size


def find(sources: Iterable[str]) -> Sources:
    """The files that these names mean; of a folder all that it holds, at any depth, by name.

    Raises UserError for a name that means nothing, an empty file, or a kind of file that cannot be read.
    """
    names: list[str] = []
    for source in sources:
        path = Path(source).expanduser()
        if source.startswith(HUB):
            names.append(source)
        elif path.is_dir():
            inside = sorted(str(p) for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
            if not inside:
                raise UserError(f"folder {source!r} holds no file that ends with {', '.join(SUFFIXES)}")
            names += inside
        elif not path.is_file():
            raise UserError(f"source {source!r} does not exist; give files, folders, or {HUB}NAME")
        elif not path.name.endswith(SUFFIXES):
            raise UserError(
                f"source {source!r} is of no known kind; a file ends with {', '.join(SUFFIXES)} "
                "(rename a text to .txt)"
            )
        else:
            names.append(str(path))
    if not names:
        raise UserError("no source is named; give files, folders, or hf:NAME")
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice:
        raise UserError(f"source {twice!r} is named twice; name it once")
    sizes = [0 if name.startswith(HUB) else Path(name).stat().st_size for name in names]
    for name, size in zip(names, sizes, strict=True):
        if not size and not name.startswith(HUB):
            raise UserError(f"source {name!r} is empty; leave it out")
    return Sources(names, sizes)


# ---- kinds of files ------------------------------------------------------------------------------


def _parts_of(name: str, key: str) -> Iterator[Part]:
    if name.startswith(HUB):
        yield from _of_texts(name, _hub(name, key))
    elif name.endswith(TABLE):
        yield from _of_texts(name, _table(name, key))
    elif name.endswith(TEXT):
        yield Part(name, 1, [_whole(Path(name))], Path(name).stat().st_size)
    else:
        yield from _of_lines(name)


def _whole(path: Path) -> str:
    """A text is one document, line ends as in Unix."""
    return decode_text(path.read_bytes(), str(path))


def _of_lines(name: str) -> Iterator[Part]:
    """The lines of a file that are not blank, about a megabyte at a time."""
    path, number = Path(name), 0
    with path.open("rb") as file:
        lines = _unpacked(file, name)
        while True:
            try:
                raw = lines.readlines(ABOUT)
            except Exception as error:
                library = type(error).__module__.partition(".")[0]
                if isinstance(error, OSError | EOFError | zlib.error) or library == "zstandard":
                    why = f"is broken after line {number} ({error})"
                    raise UserError(f"{name} {why}; fetch it again") from None
                raise
            if not raw:
                return
            if not number and is_utf16(raw[0]):
                decode_text(raw[0], name)
            first, number = number + 1, number + len(raw)
            # a blank line keeps its number, and is no document
            for start, end in _filled(raw):
                yield Part(name, first + start, raw[start:end], file.tell())


def _filled(lines: list[bytes]) -> Iterator[tuple[int, int]]:
    """Stretches of lines that are not blank, as (first, end)."""
    start = None
    for place, line in enumerate([*lines, b""]):
        if line.strip():
            start = place if start is None else start
        elif start is not None:
            yield start, place
            start = None


def _unpacked(file: BinaryIO, name: str) -> io.BufferedReader:
    if name.endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=file))  # type: ignore[arg-type]
    if name.endswith(".zst"):
        zstandard = _library("zstandard", name)
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return io.BufferedReader(stream, ABOUT)
    return file  # type: ignore[return-value]


def _of_texts(name: str, texts: Iterator[tuple[str, int]]) -> Iterator[Part]:
    """Texts, about a megabyte at a time. texts: each with the bytes of the source that were read so far."""
    kept: list[str] = []
    first, size, read = 1, 0, 0
    for text, read in texts:
        kept.append(text)
        size += len(text) if isinstance(text, str) else 0
        if size >= ABOUT:
            yield Part(name, first, kept, read)
            first, size, kept = first + len(kept), 0, []
    if kept:
        yield Part(name, first, kept, read)


def _table(name: str, key: str) -> Iterator[tuple[str, int]]:
    parquet = _library("pyarrow.parquet", name)
    try:
        file = parquet.ParquetFile(name)
    except Exception as error:
        raise UserError(f"{name} is no Parquet file ({_first_line(error)}); fetch it again") from None
    columns = file.schema_arrow.names
    if key not in columns:
        raise UserError(f"{name} has no column {key!r}; it has {', '.join(map(repr, columns))} (--field)")
    size, rows, done = Path(name).stat().st_size, max(1, file.metadata.num_rows), 0
    try:
        for batch in file.iter_batches(batch_size=256, columns=[key]):
            for text in batch.column(0).to_pylist():
                done += 1
                yield text, size * done // rows
    except (OSError, ValueError) as error:  # a ValueError is the library's for what it cannot decode
        why = f"is broken after row {done} ({_first_line(error)})"
        raise UserError(f"{name} {why}; fetch it again") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _hub(name: str, key: str) -> Iterator[tuple[str, int]]:
    """hf:NAME or hf:NAME:CONFIGURATION, its training part."""
    datasets = _library("datasets", name)
    path, _, configuration = name.removeprefix(HUB).partition(":")
    try:
        stream = datasets.load_dataset(path, configuration or None, split="train", streaming=True)
        for row in stream:
            if key not in row:
                raise UserError(f"{name} has no field {key!r}; it has {', '.join(map(repr, row))} (--field)")
            yield row[key], 0
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be had ({_first_line(error)})") from None


def _library(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise UserError(f"{name} needs the package {package}: pip install {package}") from None
