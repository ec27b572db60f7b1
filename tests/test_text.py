"""A text comes the same way from a file wherever it is read, and gives the same tokens in parts as in one."""

import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bpe import BOTH, GRADUATED_EXAMPLE, TAUGHT_EXAMPLE
from test_tokenizer import HAS_TIKTOKEN

from common import config_file
from common.data import text_data
from common.data.corpora import load_text
from common.data.documents import find
from common.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, TiktokenTokenizer
from common.errors import UserError
from common.settings import Settings
from common.text import chunks
from common.tools import vocabulary

READERS = {
    "run": lambda path: load_text(str(path)).text,
    "tool": lambda path: "".join(vocabulary.texts(vocabulary.Arguments(path))),
    "documents": lambda path: "".join(
        text for part in find([str(path)]).parts("text") for text in part.texts("text")
    ),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("\ufeffone\ntwo\n".encode(), "one\ntwo\n"),
        (b"one\r\ntwo\r\n", "one\ntwo\n"),
        (b"one\rtwo\r\n\rthree", "one\ntwo\n\nthree"),
        ("naïve 語".encode(), "naïve 語"),
    ],
)
def test_every_reader_gives_the_same_text(read, raw, text, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(raw)
    assert read(path) == text


UTF16 = {"with a mark": "utf-16", "little": "utf-16-le", "big": "utf-16-be"}


@pytest.mark.parametrize("encoding", UTF16.values(), ids=UTF16)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_utf_16_is_told_as_such(read, encoding, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("some text".encode(encoding))
    with pytest.raises(UserError, match="is UTF-16, not UTF-8; save it as UTF-8"):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.yaml"])
def test_utf_16_in_other_files(name, tmp_path):
    path = tmp_path / name
    path.write_bytes('{"text": "fine"}\r\n'.encode("utf-16"))
    with pytest.raises(UserError, match="is UTF-16, not UTF-8; save it as UTF-8"):
        READERS["documents"](path) if name == "a.jsonl" else config_file.read(str(path), Settings())


def test_an_alphabet_of_thousands_is_not_printed():
    with pytest.raises(UserError, match=r"has no '!'; it has .* and 3,900 more$") as error:
        CharTokenizer(map(chr, range(0x4E00, 0x4E00 + 4000))).encode("!")
    assert len(str(error.value)) < 300


# ---- in parts ------------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from(["the", " ", "  ", " the", "\n", " \n", "'s", "1", ".", "\u3000", "é", "<|endoftext|>"])
).map("".join)
TOKENIZERS = [GRADUATED_EXAMPLE, ByteTokenizer()] + ([TiktokenTokenizer("gpt2")] if HAS_TIKTOKEN else [])
if HAS_TIKTOKEN:
    TOKENIZERS.append(TiktokenTokenizer("cl100k_base"))


@given(WORDS, st.integers(1, 9), st.integers(0, 5))
@settings(deadline=None, max_examples=300)
def test_parts_give_the_tokens_of_the_whole(text, characters, left_out):
    first, end = left_out, max(left_out, len(text) - left_out)
    parts = list(chunks(text, first, end, characters))
    assert "".join(parts) == text[first:end] and all(parts)
    for tokenizer in TOKENIZERS:
        together = [token for part in parts for token in tokenizer.encode(part).tolist()]
        assert together == tokenizer.encode(text[first:end]).tolist(), tokenizer.name


def test_parts_are_hardly_longer_than_asked_for():
    text = "one two three four five " * 50_000
    lengths = [len(part) for part in chunks(text, characters=100_000)]
    assert len(lengths) == 12 and max(lengths) < 100_010


@pytest.mark.parametrize("white", [" ", "\n", "\t ", "\u3000"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.name)
def test_a_million_characters_of_white_space(tokenizer, white):
    """The library's search for pieces gives up there, with an error that is no Exception."""
    for text in (f"a{white * 1_000_000}b", white * 1_000_000):
        assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
    text = f"the end{white * 60_000}<|endoftext|>{white * 120_000}the"  # as long as the library can take
    if encoding := getattr(tokenizer, "encoding", None):
        assert tokenizer.encode(text).tolist() == encoding.encode_ordinary(text)
        meant = encoding.encode(text, allowed_special="all")
        assert tokenizer.encode(text, special=True).tolist() == meant


# ---- long pieces: seconds of the processor where what grows with the square takes minutes ---------


def seconds(work) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def test_a_long_piece_is_encoded_in_time():
    draw = random.Random(1)
    piece = "".join(draw.choice("theating") for _ in range(32_000))
    assert seconds(lambda: TAUGHT_EXAMPLE.encode_piece(piece)) < 15
    assert TAUGHT_EXAMPLE.encode_piece(piece) == TAUGHT_EXAMPLE.fast().encode_ordinary(piece)


def test_a_stream_of_blank_lines_is_encoded_in_time():
    lines = ["\n"] * 40_000
    assert seconds(lambda: list(TAUGHT_EXAMPLE.encode_iterable(lines))) < 15
    assert list(TAUGHT_EXAMPLE.encode_iterable(lines)) == TAUGHT_EXAMPLE.encode("\n" * 40_000).tolist()


def test_one_long_word_is_learned_from_in_time():
    draw = random.Random(1)
    word = "".join(draw.choice("acgt") for _ in range(300_000))
    assert seconds(lambda: BPETokenizer.train(word, 1024)) < 15


@BOTH
def test_the_merges_of_one_long_word(train):
    """By both ways of counting; each of four letters is as frequent, so that many pairs are nearly even."""
    draw = random.Random(2)
    word = "".join(draw.choice("acgt") for _ in range(3000)) + "a" * 300
    assert train(word, 600).merges == BPETokenizer.train([word], 600).merges


PEAK = """
import re, sys
from pathlib import Path
from common.data import text_data
from common.data.tokenizer import make
from common.settings import Settings
path, tokenizer = sys.argv[1:]
make(tokenizer, "a", "a").encode("a")
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
data = text_data(Settings(corpus=path, tokenizer=tokenizer))
print((peak() - before) / Path(path).stat().st_size)
print(data.tokenizer.decode(data.test.tokens[-3:].tolist()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("kind", ["char", "vocabulary"])
def test_a_text_takes_at_most_four_times_its_size(kind, tmp_path):
    (tmp_path / "large.txt").write_text("the end of the theatre, " * 1_200_000, encoding="utf-8")
    GRADUATED_EXAMPLE.save(tmp_path / "v.json")
    name = "char" if kind == "char" else str(tmp_path / "v.json")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "large.txt"), name], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    times, text = done.stdout.split("\n", 1)
    assert 1 < float(times) <= 4 and "of the theatre, ".endswith(text.rstrip("\n"))


def test_small_integers_come_out_as_usual(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(map(chr, range(0x4E00, 0x4E00 + 300))) * 20, encoding="utf-8")
    data = text_data(Settings(corpus=str(path), block_size=8))
    x, y = data.batch(1)
    assert data.train.ids.element_size() == 2 and x.dtype == y.dtype == data.train.tokens.dtype
    assert data.train.tokens[:300].tolist() == list(range(300)) and data.corpus.text == "\u4e00"
