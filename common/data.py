"""Corpora, their splits, and batches of token ids.

A corpus is named, a path, or built in. Running text is cut once into its first 90 % (train), the next 5 % (validation) and the last
5 % (test). Lists of names are shuffled once with a fixed seed and cut 80/10/10.
"""

import dataclasses
import hashlib
import http.client
import os
import random
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError, nearest
from common.settings import NamesSettings, Settings
from common.tokenizer import CharTokenizer


@dataclass(frozen=True)
class Source:
    """Where a named corpus comes from, and the checksum that says it is the right one."""

    url: str
    sha256: str


SOURCES = {
    "tinyshakespeare": Source(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "names": Source(
        "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
        "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
    ),
}
TEXTS = ("tinyshakespeare", "pydoc")
NAMES = ("names", "indian")
PYTHON = ".".join(map(str, sys.version_info[:3]))


@dataclass(frozen=True)
class Corpus:
    """`name` is what results are logged under; `family` is what the configuration is compared by (no Python version in it)."""

    name: str
    family: str
    text: str


# ---- finding the text ------------------------------------------------------------------------------------------------


def read_file(path: Path) -> str:
    """The text of a UTF-8 file, line ends as in Unix. Raises UserError that says what is wrong with the file, with the byte offset."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"corpus file {str(path)!r} does not exist; give a path to a text file, or one of {', '.join(TEXTS + NAMES)}") from None
    except IsADirectoryError:
        raise UserError(f"corpus {str(path)!r} is a folder; give a path to one text file") from None
    except OSError as error:
        if path.is_dir():  # what Windows says of a folder is 'permission denied'
            raise UserError(f"corpus {str(path)!r} is a folder; give a path to one text file") from None
        raise UserError(f"corpus file {str(path)!r} cannot be read: {error.strerror}") from None
    if not raw:
        raise UserError(f"corpus file {str(path)!r} is empty")
    if b"\0" in raw:
        raise UserError(f"corpus file {str(path)!r} is not text: NUL byte at byte {raw.index(0)}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"corpus file {str(path)!r} is not UTF-8: byte {raw[error.start]:#04x} at byte {error.start}; save it as UTF-8") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def cache_folder() -> Path:
    """Where downloaded corpora are kept: the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("gpt-staircase"))


def find_named(name: str) -> Path:
    """The checked file of a named corpus: from $GPT_STAIRCASE_DATA, then the cache, then downloaded.

    Raises UserError for a wrong checksum or a download that breaks off; ConnectionError where there is no network.
    """
    source = SOURCES[name]
    folders = [Path(os.environ["GPT_STAIRCASE_DATA"])] if os.environ.get("GPT_STAIRCASE_DATA") else []
    for folder in [*folders, cache_folder()]:
        path = folder / f"{name}.txt"
        if path.is_file():
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != source.sha256:
                raise UserError(f"{path} is not the {name} this course was measured on (SHA-256 {found[:12]}..., not {source.sha256[:12]}...); remove it")
            return path
    return download(source, cache_folder() / f"{name}.txt")


def download(source: Source, path: Path) -> Path:
    """Fetch over https, check, and only then put in place. Raises as `find_named`."""
    try:
        with urllib.request.urlopen(source.url, timeout=10) as response:
            content = response.read()
    except http.client.IncompleteRead as error:
        raise UserError(f"the download of {source.url} broke off after {len(error.partial)} bytes; try again, or use --corpus pydoc") from None
    except (urllib.error.URLError, OSError) as error:
        raise ConnectionError(str(getattr(error, "reason", error))) from None
    if hashlib.sha256(content).hexdigest() != source.sha256:
        raise UserError(f"what {source.url} sent has the wrong SHA-256 checksum, and was thrown away; try again, or use --corpus pydoc")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            part.write(content)
        Path(part.name).replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); set GPT_STAIRCASE_DATA to a folder that holds {path.name}") from None
    return path


def pydoc() -> Corpus:
    """The built-in corpus: the language reference that every Python carries, about 460,000 characters."""
    from pydoc_data.topics import topics

    return Corpus(f"pydoc-{PYTHON}", "pydoc", "\n".join(topics[name] for name in sorted(topics)))


def faker_names(locale: str, name: str) -> Corpus:
    """First names from the lists of the faker package, lower case, letters a to z, one per line.

    Lists change with faker's version; the corpus carries a checksum of the list in its name, so that no two are mixed.
    """
    import importlib

    provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
    names = sorted({n.lower() for n in provider.first_names if n.isascii() and n.isalpha()})
    text = "\n".join(names) + "\n"
    return Corpus(f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}", name, text)


def load_text(name: str) -> Corpus:
    """A running text by name or path. Raises UserError for an unknown name or an unusable file."""
    return _load(name, TEXTS, pydoc)


def load_names(name: str) -> Corpus:
    """A list of names by name or path. Raises UserError for an unknown name or an unusable file."""
    if name == "indian":
        return faker_names("en_IN", "indian")
    return _load(name, NAMES, lambda: faker_names("en", "faker"))


def _load(name: str, known: tuple[str, ...], built_in) -> Corpus:
    if name == "pydoc" and name in known:
        return built_in()
    if name in known:
        try:
            return Corpus(name, name, read_file(find_named(name)))
        except ConnectionError as error:
            corpus = built_in()
            print(f"corpus {name!r} is not on this machine and cannot be downloaded ({error}); going on with the built-in corpus {corpus.name}")
            return corpus
    path = Path(name).expanduser()
    if not path.exists() and path.name == name and not path.suffix:
        raise UserError(f"corpus {name!r} is not known{nearest(name, known)} (or give a path to a text file; known: {', '.join(known)})")
    text = read_file(path)
    return Corpus(path.name, f"{path.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}", text)


# ---- splits and batches ----------------------------------------------------------------------------------------------


class TextSplit:
    """A stretch of running text: N tokens to predict, each from what stands before it.

    tokens (N + 1,): the N tokens and the one that precedes them, which is context only.
    """

    def __init__(self, tokens: Tensor, characters: int, block_size: int):
        self.tokens, self.characters, self.block_size = tokens, characters, block_size
        self.windows = tokens.unfold(0, min(block_size + 1, len(tokens)), 1)  # (N - T + 1, T + 1), a view
        self.choices = len(self.windows)

    def __len__(self) -> int:
        return len(self.tokens) - 1

    def at(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, T) and targets (B, T) of the windows that begin at `starts` (B,)."""
        windows = self.windows[starts]
        return windows[:, :-1], windows[:, 1:]

    def in_order(self, rows: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
        """Every target exactly once, in windows that do not overlap, `rows` at a time; the last window may be shorter."""
        whole = len(self) // self.block_size
        for first in range(0, whole, rows):
            yield self.at(torch.arange(first, min(first + rows, whole), device=self.tokens.device) * self.block_size)
        rest = self.tokens[whole * self.block_size :]
        if len(rest) > 1:
            yield rest[None, :-1], rest[None, 1:]

    def tail(self, tokens: int) -> "TextSplit":
        """The last `tokens` tokens; its characters count as one per token, so only its loss has a meaning."""
        return TextSplit(self.tokens[-(tokens + 1) :], tokens, self.block_size)


class NameSplit:
    """A list of names: each letter, and the end of each name, predicted from the letters before it in that name.

    contexts (N, T): the last T letters, filled up on the left with the end mark (id 0); targets (N,).
    """

    def __init__(self, contexts: Tensor, targets: Tensor):
        self.contexts, self.targets = contexts, targets
        self.choices = self.characters = len(targets)

    @classmethod
    def of(cls, tokens: np.ndarray, block_size: int) -> "NameSplit":
        """From the ids of all names, each followed by the end mark."""
        starts = np.concatenate([[0], np.flatnonzero(tokens == 0)[:-1] + 1])
        place = np.arange(len(tokens)) - np.repeat(starts, np.diff([*starts, len(tokens)]))  # letters of the same name that came before
        columns = [np.where(place >= back, np.roll(tokens, back), 0) for back in range(block_size, 0, -1)]
        return cls(torch.from_numpy(np.stack(columns, axis=1)), torch.from_numpy(tokens))

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts (B, T) and targets (B,)."""
        return self.contexts[choices], self.targets[choices]

    def in_order(self, rows: int = 8192) -> Iterator[tuple[Tensor, Tensor]]:
        """Every target exactly once."""
        yield from zip(self.contexts.split(rows), self.targets.split(rows), strict=True)

    def tail(self, tokens: int) -> "NameSplit":
        """The last `tokens` predictions."""
        return NameSplit(self.contexts[-tokens:], self.targets[-tokens:])


@dataclass(frozen=True)
class Data:
    """What a run learns from and is measured on."""

    corpus: Corpus
    tokenizer: CharTokenizer
    train: TextSplit | NameSplit
    validation: TextSplit | NameSplit
    test: TextSplit | NameSplit
    batch_size: int
    seed: int = 1
    device: str = "cpu"
    names: frozenset[str] = frozenset()  # the training list, where the corpus is one

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step depends on seed and step alone, so a resumed run goes on with the batches it would have had."""
        choices = np.random.default_rng((self.seed, step)).integers(self.train.choices, size=self.batch_size)
        x, y = self.train.at(torch.from_numpy(choices))
        return x.to(self.device), y.to(self.device)

    def first_line(self, longest: int = 48) -> Tensor:
        """Ids (T,) of the first line of the test text that is not blank: a real sentence that no model was trained on."""
        lines = (line for line in self.tokenizer.decode(self.test.tokens[1:2000].tolist()).split("\n")[1:] if len(line) > 20)
        return torch.from_numpy(self.tokenizer.encode(next(lines, self.corpus.text)[:longest])).to(self.device)

    def with_seed(self, seed: int) -> "Data":
        return dataclasses.replace(self, seed=seed)


def text_data(s: Settings, device: str = "cpu", tokenizer=None) -> Data:
    """Running text, cut by characters and then tokenised, so that every tokenizer is measured on the same characters."""
    corpus = load_text(s.corpus)
    tokenizer = tokenizer or CharTokenizer(corpus.text)
    ends = [int(0.9 * len(corpus.text)), int(0.95 * len(corpus.text)), len(corpus.text)]
    parts = [corpus.text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    tokens = [tokenizer.encode(part) for part in parts]
    if min(map(len, tokens)) < 1 or len(tokens[0]) <= s.block_size:
        raise UserError(f"corpus {corpus.name!r} is too short: {len(corpus.text)} characters give {len(tokens[0])} training tokens, a window takes {s.block_size + 1}")
    splits = [TextSplit(torch.from_numpy(tokens[0]), len(parts[0]), s.block_size)]
    for before, own, part in zip(tokens, tokens[1:], parts[1:], strict=False):
        splits.append(TextSplit(torch.from_numpy(np.concatenate([before[-1:], own])), len(part), s.block_size))
    return Data(corpus, tokenizer, *splits, batch_size=s.batch_size, device=device)


def names_data(s: NamesSettings, device: str = "cpu", tokenizer=None) -> Data:
    """A list of names, one per line. Duplicates are removed before the split, unless the settings keep them."""
    corpus = load_names(s.corpus)
    names = [line.strip() for line in corpus.text.splitlines() if line.strip()]
    if not s.keep_duplicates:
        names = list(dict.fromkeys(names))
    random.Random(42).shuffle(names)  # once, whatever the seed of the run: every run is measured on the same names
    parts = [names[: int(0.8 * len(names))], names[int(0.8 * len(names)) : int(0.9 * len(names))], names[int(0.9 * len(names)) :]]
    if not all(parts):
        raise UserError(f"corpus {corpus.name!r} has {len(names)} names; at least 10 are needed for a training, a validation and a test list")
    tokenizer = tokenizer or CharTokenizer("\n" + "".join(names))
    if tokenizer.encode("\n") != [0]:
        raise UserError(f"corpus {corpus.name!r} has control characters in its names; remove them")
    splits = [NameSplit.of(tokenizer.encode("".join(f"{name}\n" for name in part)), s.block_size) for part in parts]
    return Data(corpus, tokenizer, *splits, batch_size=s.batch_size, device=device, names=frozenset(parts[0]))
