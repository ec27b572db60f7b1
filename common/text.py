"""Text as it comes from a file, and in pieces of about a megabyte."""

from collections.abc import Iterator

import regex

from common.errors import UserError

# A space after a character that is none: there every tokenizer begins a token.
SURE_START = regex.compile(r"(?<=\S) ")
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def is_utf16(raw: bytes) -> bool:
    """Whether bytes begin as UTF-16 does: with its byte-order mark, or with a zero in every second place."""
    first = raw[:8]
    halves = any(first[::2]), any(first[1::2])
    return raw.startswith(UTF16) or (len(first) == 8 and halves in ((True, False), (False, True)))


def decode_text(raw: bytes, name: str) -> str:
    """The text of a file in UTF-8, without a byte-order mark, line ends as in Unix.

    name: what the file is called in a message. Raises UserError that says what is wrong, and at which byte.
    """
    if is_utf16(raw):
        raise UserError(
            f"{name} is UTF-16, not UTF-8; save it as UTF-8 (in an editor, or: iconv -f UTF-16 -t UTF-8)"
        )
    if b"\0" in raw:
        raise UserError(f"{name} is not text: NUL byte at byte {raw.index(0)}")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8: byte {raw[error.start]:#04x} at byte {error.start}; save it as UTF-8"
        ) from None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix("\ufeff")


def chunks(text: str, first: int = 0, end: int | None = None, characters: int = 1 << 20) -> Iterator[str]:
    """A text from `first` to `end` in parts, each as long as asked for or a little longer, that give the same
    tokens as the whole.

    A part may be much longer where the text has no single space, as a megabyte of digits.
    """
    end = len(text) if end is None else end
    while first < end:
        found = SURE_START.search(text, first + characters, end) if end - first > characters else None
        stop = found.start() if found else end
        yield text[first:stop]
        first = stop
