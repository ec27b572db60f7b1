"""Text -> ids -> text, for any text."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.tokenizer import CharTokenizer, TiktokenTokenizer, from_state
from common.errors import UserError

HAS_TIKTOKEN = bool(os.environ.get("TIKTOKEN_CACHE_DIR")) and Path(os.environ["TIKTOKEN_CACHE_DIR"]).exists()


@given(st.text(min_size=1))
@settings(deadline=None)  # a busy machine is no fault
def test_characters_round_trip(text):
    tokenizer = CharTokenizer(text)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text) and tokenizer.decode(ids.tolist()) == text
    assert from_state(tokenizer.state()).encode(text).tolist() == ids.tolist()


def test_unknown_characters_are_named():
    with pytest.raises(UserError, match="'x' 'ß'"):
        CharTokenizer("abc").encode("axßb")


def test_a_line_break_is_the_first_character():
    assert CharTokenizer("hello\nworld").encode("\n").tolist() == [0]


def test_an_unknown_encoding_is_named():
    with pytest.raises(UserError, match="did you mean 'gpt2'"):
        TiktokenTokenizer("gtp2")


@pytest.mark.skipif(not HAS_TIKTOKEN, reason="needs the gpt2 file in TIKTOKEN_CACHE_DIR")
@given(st.text())
@settings(deadline=None)  # the first call reads the vocabulary
def test_gpt2_round_trips(text):
    tokenizer = TiktokenTokenizer("gpt2")
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


@pytest.mark.skipif(not HAS_TIKTOKEN, reason="needs the gpt2 file in TIKTOKEN_CACHE_DIR")
def test_special_tokens_in_a_text_are_plain_text():
    tokenizer = TiktokenTokenizer("gpt2")
    assert len(tokenizer.encode("<|endoftext|>")) > 1 and tokenizer.vocab_size == 50257
