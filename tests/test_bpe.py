"""Byte-pair encoding: the merges an independent trainer finds, the same ids from every implementation, any
text there and back, speed.
"""

import json
import os
import random
import runpy
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from common import lessons
from common.data import bpe
from common.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, from_state, load, make
from common.errors import UserError

TAUGHT = runpy.run_path(str(lessons.ROOT / "07_tokenizer_gqa/bpe.py"))["BPE"]
BOTH = pytest.mark.parametrize("train", [TAUGHT.train, BPETokenizer.train], ids=["taught", "graduated"])
DATA = Path(os.environ.get("GPT_STAIRCASE_DATA") or "nowhere")
END = bpe.END
WORDS = st.text(st.sampled_from("aabbcd é\n'1"), min_size=1, max_size=60)


def naive(text: str, vocab_size: int) -> list[tuple[bytes, bytes]]:
    """Count all pairs anew for each merge, and take the most frequent, the lexicographically greatest where
    several are.
    """
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    words = [
        [bytes([b]) for b in piece.encode()]
        for part in text.split(END)
        for piece in regex.findall(pattern, part)
    ]
    tokens, merges = {bytes([b]) for b in range(256)}, []
    while len(tokens) < vocab_size - 1:
        counts = Counter((word[i], word[i + 1]) for word in words for i in range(len(word) - 1))
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        tokens.add(best[0] + best[1])
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [best[0] + best[1]]
                i += 1
    return merges


@BOTH
@given(WORDS, st.integers(257, 300))
@settings(deadline=None)
def test_merges_are_those_of_a_trainer_that_counts_anew_each_time(train, text, vocab_size):
    assert train(text, vocab_size).merges == naive(text, vocab_size)


@BOTH
def test_merges_of_a_real_text(train):
    from pydoc_data.topics import topics

    text = topics["assignment"][:6000] + END + topics["typesseq"][:6000]
    assert train(text, 400).merges == naive(text, 400)


@BOTH
def test_equally_frequent_pairs_the_greater_bytes_first(train):
    """A token is greater than one that it begins with."""
    assert train("ab ac", 258).merges == [(b"a", b"c")]
    text = "ab\nab\nab\nxab\nxab\nxa\nxa"  # first ab; then, twice each, x before ab and x before a
    learned = train(text, 262).merges
    assert learned == naive(text, 262) and learned.index((b"x", b"ab")) < learned.index((b"x", b"a"))


PARTS = st.one_of(
    st.sampled_from(
        [
            "the",
            " the",
            "theatre",
            " thing",
            "'s",
            "'ll",
            " they're",
            "naïve",
            " 語語",
            "1234",
            "\n\n  ",
            " ",
            "ll",
            " end:",
        ]
    ),
    st.text(
        st.characters(exclude_categories=("Cs", "Cn")), max_size=6
    ),  # what is a letter only in a newer Unicode, libraries disagree on
)


@given(st.lists(PARTS, max_size=12).map("".join))
@settings(deadline=None, max_examples=300)
def test_taught_graduated_and_exported_encoding_give_the_same_ids(text):
    taught = TAUGHT_EXAMPLE
    ids = taught.encode(text).tolist()
    assert (
        ids
        == taught.fast().encode_ordinary(text)
        == GRADUATED_EXAMPLE.encode(text).tolist()
        == from_state(taught.state()).encode(text).tolist()
    )
    assert taught.decode(ids) == GRADUATED_EXAMPLE.decode(ids) == text


EXAMPLE = "the theatre, the thing's end: 'twas 1234 5678 they're naïve déjà\n\n  vu   \t語語語 we'll ll l" * 3
TAUGHT_EXAMPLE = TAUGHT.train(EXAMPLE, 340)
GRADUATED_EXAMPLE = BPETokenizer.train(EXAMPLE, 340)


def test_ten_thousand_random_strings_there_and_back():
    """Characters of every plane, near those that the vocabulary knows and far from them."""
    draw = random.Random(1)
    # all but the halves of surrogate pairs
    planes = [range(32, 127), range(0, 0x250), range(0, 0xD800), range(0xE000, 0x110000)]
    tokenizers = [TAUGHT_EXAMPLE, GRADUATED_EXAMPLE, ByteTokenizer()]
    for _ in range(10_000):
        text = "".join(chr(draw.choice(draw.choice(planes))) for _ in range(draw.randrange(1, 24)))
        for tokenizer in tokenizers:
            assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


@pytest.mark.parametrize(
    "tokenizer", [TAUGHT_EXAMPLE, GRADUATED_EXAMPLE, ByteTokenizer()], ids=["taught", "graduated", "bytes"]
)
def test_half_of_a_surrogate_pair_is_refused_and_named(tokenizer):
    with pytest.raises(UserError, match=r"\\ud83d.*half of a surrogate pair.*errors='replace'"):
        tokenizer.encode("fine \ud83d not")
    with pytest.raises(UserError, match="surrogate"):
        BPETokenizer.train("fine \ud83d not", 300)


@pytest.mark.parametrize("tokenizer", [TAUGHT_EXAMPLE, GRADUATED_EXAMPLE], ids=["taught", "graduated"])
def test_bytes_that_are_no_character_are_replaced(tokenizer):
    assert tokenizer.decode([0xFF, ord("a"), 0xE2, 0x82]) == "\ufffda\ufffd"
    assert tokenizer.decode([]) == ""


def test_the_special_token_is_plain_text_unless_it_is_meant():
    text = f"the end{END}the{END}"
    plain, meant = TAUGHT_EXAMPLE.encode(text).tolist(), TAUGHT_EXAMPLE.encode(text, special=True).tolist()
    last = TAUGHT_EXAMPLE.vocab_size - 1
    assert (
        last not in plain
        and meant.count(last) == 2
        and TAUGHT_EXAMPLE.decode(plain) == TAUGHT_EXAMPLE.decode(meant) == text
    )
    assert meant == TAUGHT_EXAMPLE.fast().encode(text, allowed_special="all")
    assert (
        GRADUATED_EXAMPLE.encode(text).tolist() == plain
        and GRADUATED_EXAMPLE.encode(text, special=True).tolist() == meant
    )


@BOTH
def test_the_special_token_is_never_split_or_merged(train):
    """Neither is it learned from, nor does a merge reach across it."""
    learned = train(f"ab{END}" * 50, 290)
    assert learned.merges == [(b"a", b"b")]


CUTS = st.sampled_from(
    [
        END,
        END[:5],
        END[5:],
        "<|",
        "ab",
        " the",
        "'",
        "l",
        "'l",
        "l ",
        " ",
        "  ",
        "\n",
        "\t",
        "1",
        "é",
        "!",
        " !",
    ]
)


@given(st.lists(CUTS, max_size=12), st.booleans())
@settings(deadline=None)
def test_a_stream_has_the_ids_of_the_whole_text(parts, special):
    """However the text is cut: inside a contraction, white space, a special token."""
    whole = "".join(parts)
    assert (
        list(TAUGHT_EXAMPLE.encode_iterable(parts, special)) == TAUGHT_EXAMPLE.encode(whole, special).tolist()
    )
    assert (
        list(TAUGHT_EXAMPLE.encode_iterable(iter(whole), special))
        == TAUGHT_EXAMPLE.encode(whole, special).tolist()
    )


def test_saved_and_loaded(tmp_path):
    TAUGHT_EXAMPLE.save(tmp_path / "taught.json")
    GRADUATED_EXAMPLE.save(tmp_path / "graduated.json")
    assert json.loads((tmp_path / "taught.json").read_text(encoding="ascii")) == json.loads(
        (tmp_path / "graduated.json").read_text(encoding="ascii")
    )
    assert TAUGHT.load(tmp_path / "graduated.json").merges == TAUGHT_EXAMPLE.merges
    text = "the naïve 語 end"
    assert (
        make(str(tmp_path / "taught.json"), "", "").encode(text).tolist()
        == TAUGHT_EXAMPLE.encode(text).tolist()
    )


@pytest.mark.parametrize(
    "content", ["", "{}", '{"merges": 3}', '{"merges": [["a"]]}', '{"merges": [["a", "語"]]}', "[1]", '"x"']
)
def test_a_file_that_holds_no_vocabulary(content, tmp_path):
    path = tmp_path / "v.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="holds no vocabulary"):
        load(path)


@BOTH
def test_what_no_vocabulary_can_be_learned_from(train):
    with pytest.raises(UserError, match="256 bytes and the end mark are 257"):
        train("some text", 256)
    with pytest.raises(UserError, match="empty text"):
        train("", 300)
    with pytest.raises(UserError, match="empty text"):
        train(END, 300)


@pytest.mark.skipif(
    not (DATA / "tinyshakespeare.txt").exists(), reason="needs tinyshakespeare.txt in GPT_STAIRCASE_DATA"
)
def test_each_arm_sees_as_much_text():
    """What the script says of tinyshakespeare: 2048 characters in the windows of a step, 192 in a window of
    equal context.
    """
    plan, text = (
        lessons.course_plan("07_tokenizer_gqa/bpe"),
        (DATA / "tinyshakespeare.txt").read_text(encoding="utf-8"),
    )
    train = text[: int(0.9 * len(text))]
    for name in ("char", "byte", "bpe-512", "bpe-1024", "bpe-2048", "bpe-4096"):
        own = plan.own(name, plan.defaults)
        characters = len(train) / len(make(name, text, train).encode(train))
        assert abs(own.batch_size * own.block_size * characters / 2048 - 1) < 0.04, name
        if f"{name}-context" in plan.arms:
            wide = plan.own(f"{name}-context", plan.defaults)
            assert abs(wide.block_size * characters / 192 - 1) < 0.04, name


def test_a_short_text_gives_as_many_merges_as_it_has():
    assert BPETokenizer.train("abab", 500).vocab_size == 257 + 2 == TAUGHT.train("abab", 500).vocab_size


def test_names_of_tokenizers():
    text = "some text, some more text"
    assert isinstance(make("char", text, text), CharTokenizer) and isinstance(
        make("byte", text, text), ByteTokenizer
    )
    assert make("bpe-260", text, text).name == "bpe-260"
    with pytest.raises(UserError, match="did you mean 'byte'"):
        make("bytes", text, text)
    with pytest.raises(UserError, match="holds no vocabulary"):
        make("there/is/none.json", text, text)


# ---- speed and memory ----------------------------------------------------------------------------


def seconds(function, *arguments) -> float:
    start = time.process_time()  # of this process alone: other tests run beside it
    function(*arguments)
    return time.process_time() - start


@BOTH
def test_a_small_vocabulary_is_learned_within_a_second(train):
    from pydoc_data.topics import topics

    assert seconds(train, "\n".join(topics.values())[:130_000], 500) < 1.0


@pytest.mark.slow
@BOTH
@pytest.mark.skipif(
    not (DATA / "tinyshakespeare.txt").exists(), reason="needs tinyshakespeare.txt in GPT_STAIRCASE_DATA"
)
def test_a_vocabulary_of_4096_is_learned_within_six_seconds(train):
    assert seconds(train, (DATA / "tinyshakespeare.txt").read_text(encoding="utf-8"), 4096) < 6.0


MEASURE = """
import json, sys, time
import psutil
sys.path.insert(0, {root!r})
from common.data.tokenizer import BPETokenizer
documents = lambda: (json.loads(line)["text"] for line in open({path!r}, encoding="utf-8"))
start = time.process_time()
tokenizer = BPETokenizer.train(documents(), 8192)
spent, peak = time.process_time() - start, psutil.Process().memory_info().rss  # it only grew
print(json.dumps([spent, peak, tokenizer.vocab_size, tokenizer.state()]))
"""

STREAM = """
import json, runpy, sys, time
sys.path.insert(0, {root!r})
import psutil
taught = runpy.run_path({script!r})["BPE"].load(__import__("pathlib").Path(sys.argv[1]))
documents = (json.loads(line)["text"] for line in open({path!r}, encoding="utf-8"))
process, before, most, count = psutil.Process(), psutil.Process().memory_info().rss, 0, 0
for token in taught.encode_iterable(documents):
    count += 1
    if count % 20000 == 0:
        most = max(most, process.memory_info().rss)
print(json.dumps([most - before, count]))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not (DATA / "documents.jsonl").exists(), reason="needs documents.jsonl in GPT_STAIRCASE_DATA"
)
def test_17_megabytes_in_a_minute_and_encoded_in_constant_memory(tmp_path):
    places = {
        "root": str(lessons.ROOT),
        "path": str(DATA / "documents.jsonl"),
        "script": str(lessons.ROOT / "07_tokenizer_gqa/bpe.py"),
    }
    run = [sys.executable, "-c"]
    done = subprocess.run([*run, MEASURE.format(**places)], capture_output=True, text=True, check=True)
    spent, peak, vocab_size, state = json.loads(done.stdout)
    assert spent < 60 and peak < 1e9 and vocab_size == 8192
    (tmp_path / "v.json").write_text(json.dumps(state), encoding="ascii")
    done = subprocess.run(
        [*run, STREAM.format(**places), str(tmp_path / "v.json")], capture_output=True, text=True, check=True
    )
    grown, count = json.loads(done.stdout)
    assert grown < 50e6 and count > 1e6
