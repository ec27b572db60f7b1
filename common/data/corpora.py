"""Corpora: where a text or a list of names comes from. A corpus is named, a path to a file, or built in."""

import hashlib
import http.client
import os
import sys
import sysconfig
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from common.errors import UserError, nearest
from common.text import decode_text

PYTHON = ".".join(map(str, sys.version_info[:3]))


@dataclass(frozen=True)
class Corpus:
    """`name` is what results are logged under; `family` is what the configuration is compared by (no Python
    version in it).
    """

    name: str
    family: str
    text: str
    resolved: str | None = None
    """The name that means this text, where another was asked for and could not be had."""


def read_file(path: Path) -> str:
    """The text of a UTF-8 file, line ends as in Unix.

    Raises UserError that says what is wrong with the file, with the byte offset.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"corpus file {str(path)!r} does not exist; give a path to a text file, or one of "
            f"{', '.join(CORPORA)}"
        ) from None
    except IsADirectoryError:
        raise UserError(f"corpus {str(path)!r} is a folder; give a path to one text file") from None
    except OSError as error:
        if path.is_dir():  # what Windows says of a folder is 'permission denied'
            raise UserError(f"corpus {str(path)!r} is a folder; give a path to one text file") from None
        raise UserError(f"corpus file {str(path)!r} cannot be read: {error.strerror}") from None
    if not raw:
        raise UserError(f"corpus file {str(path)!r} is empty")
    return decode_text(raw, f"corpus file {str(path)!r}")


def cache_folder() -> Path:
    """Where downloaded corpora are kept: the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("gpt-staircase"))


def find_named(name: str) -> Path:
    """The checked file of a named corpus: from $GPT_STAIRCASE_DATA, then the cache, then downloaded.

    Raises UserError for a wrong checksum or a download that breaks off; ConnectionError where there is no
    network.
    """
    source = CORPORA[name]
    folders = [Path(os.environ["GPT_STAIRCASE_DATA"])] if os.environ.get("GPT_STAIRCASE_DATA") else []
    for folder in [*folders, cache_folder()]:
        path = folder / f"{name}.txt"
        if path.is_file():
            checksum = hashlib.sha256(path.read_bytes()).hexdigest()
            if checksum != source.sha256:
                raise UserError(
                    f"{path} is not the {name} this course was measured on (SHA-256 {checksum[:8]}..., not "
                    f"{source.sha256[:8]}...); remove it"
                )
            return path
    return download(source, cache_folder() / f"{name}.txt")


def download(source: "Source", path: Path) -> Path:
    """Fetch over https, check, and only then put in place. Raises as `find_named`."""
    try:
        with urllib.request.urlopen(source.url, timeout=10) as response:
            content = response.read()
    except http.client.IncompleteRead as error:
        raise UserError(
            f"the download of {source.url} broke off after {len(error.partial)} bytes; try again, or use "
            "--corpus pydoc"
        ) from None
    except (urllib.error.URLError, OSError) as error:
        raise ConnectionError(str(getattr(error, "reason", error))) from None
    if hashlib.sha256(content).hexdigest() != source.sha256:
        raise UserError(
            f"what {source.url} sent has the wrong SHA-256 checksum, and was thrown away; try again, or "
            "use --corpus pydoc"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            part.write(content)
        Path(part.name).replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); set GPT_STAIRCASE_DATA to a folder that holds "
            f"{path.name}"
        ) from None
    return path


def pydoc() -> Corpus:
    """The built-in corpus: the language reference that every Python carries, about 460,000 characters."""
    from pydoc_data.topics import topics

    return Corpus(f"pydoc-{PYTHON}", "pydoc", "\n".join(topics[name] for name in sorted(topics)))


LEFT_OUT = {  # of the standard library: what some distributions leave out too, tables of characters, jokes
    "distutils", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtle", "turtledemo", "venv",
    "encodings", "antigravity", "this",
}  # fmt: skip


def stdlib() -> Corpus:
    """The other built-in corpus: the sources of the standard library without tests, about 7 million
    characters.

    Files in ASCII only, in an order that depends on nothing but their names, so that each split has some of
    everything. The corpus carries a checksum in its name: two Pythons of the same version may differ in what
    they install. Raises UserError where there are no sources.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [library / f"{module}.py" for module in sys.stdlib_module_names - LEFT_OUT]
    for module in sys.stdlib_module_names - LEFT_OUT:
        files += (library / module).rglob("*.py")
    names = [path.relative_to(library) for path in files if path.is_file()]
    names = [name for name in names if not {"test", "tests"} & set(name.parts)]
    parts = [
        (library / name).read_bytes()
        for name in sorted(names, key=lambda name: hashlib.sha256(name.as_posix().encode()).digest())
    ]
    text = "\n".join(part.decode().replace("\r\n", "\n") for part in parts if part.isascii())
    if len(text) < 1_000_000:
        raise UserError(
            f"corpus 'stdlib': this Python carries no sources of its standard library in {library}; use "
            "--corpus pydoc"
        )
    return Corpus(f"stdlib-{PYTHON}-{hashlib.sha256(text.encode()).hexdigest()[:6]}", "stdlib", text)


LOCALES = {"indian": "en_IN", "faker": "en"}


def faker_names(name: str) -> Corpus:
    """First names from the lists of the faker package, lower case, letters a to z, one per line.

    Lists change with faker's version; the corpus carries a checksum of the list in its name, so that no two
    are mixed.
    """
    import importlib

    provider = importlib.import_module(f"faker.providers.person.{LOCALES[name]}").Provider
    names = sorted({n.lower() for n in provider.first_names if n.isascii() and n.isalpha()})
    text = "\n".join(names) + "\n"
    return Corpus(f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}", name, text)


# ---- the registry --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Where a named corpus comes from: a file with a checksum, to be fetched, or a function that makes it."""

    kind: Literal["text", "names"]
    """Running text, or a list of names."""
    url: str = ""
    sha256: str = ""
    make: Callable[[], Corpus] | None = None


CORPORA = {  # the first of a kind is its default; a new one is one entry here
    "tinyshakespeare": Source(
        "text",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "pydoc": Source("text", make=pydoc),
    "stdlib": Source("text", make=stdlib),
    "names": Source(
        "names",
        "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
        "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
    ),
    "indian": Source("names", make=partial(faker_names, "indian")),
    "faker": Source("names", make=partial(faker_names, "faker")),
}
# where a file is not here and there is no network
FALLBACK: dict[str, Callable[[], Corpus]] = {"text": pydoc, "names": partial(faker_names, "faker")}


def known(kind: str) -> list[str]:
    """The names of the corpora of a kind."""
    return [name for name, source in CORPORA.items() if source.kind == kind]


def load_text(name: str) -> Corpus:
    """A running text by name or path. Raises UserError for an unknown name or an unusable file."""
    return _load(name, "text")


def load_names(name: str) -> Corpus:
    """A list of names by name or path. Raises UserError for an unknown name or an unusable file."""
    return _load(name, "names")


def _load(name: str, kind: str) -> Corpus:
    if name not in known(kind):
        text = _read_own(name, kind)
        return Corpus(Path(name).name, _digest(Path(name).name, text), text)
    source = CORPORA[name]
    if source.make:
        return source.make()
    try:
        return Corpus(name, name, read_file(find_named(name)))
    except ConnectionError as error:
        corpus = FALLBACK[kind]()
        print(
            f"corpus {name!r} is not here and cannot be downloaded ({error}); going on with the "
            f"built-in corpus {corpus.name}"
        )
        return replace(corpus, resolved=corpus.family)


def _read_own(name: str, kind: str) -> str:
    path = Path(name).expanduser()
    if not path.exists() and path.name == name and not path.suffix:
        other = (
            "; that is a list of names, which the scripts 01_bigram/names_* read"
            if kind == "text" and name in known("names")
            else nearest(name, known(kind))
        )
        raise UserError(
            f"corpus {name!r} is not known{other} (or give a path to a text file; "
            f"known: {', '.join(known(kind))})"
        )
    return read_file(path)


def _digest(name: str, text: str) -> str:
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def family_of(name: str) -> str:
    """What the configuration of a run on this corpus is compared by: a name, or the name and digest of the
    user's own file, or of what a folder of token files says of itself.
    """
    meta = Path(name).expanduser() / "meta.json"
    if name not in CORPORA and meta.is_file():
        return _digest(meta.parent.resolve().name, meta.read_text(encoding="utf-8"))
    return name if name in CORPORA else _digest(Path(name).name, _read_own(name, "text"))
