"""From the words of a command line to a dataclass; a slip is one line, with what was probably meant."""

import contextlib
import dataclasses
import io
import shlex
import sys
import typing
from itertools import pairwise, takewhile

import tyro

from common.errors import UserError, nearest


def parse_as(parser, arguments: list[str] | None = None, description: str | None = None, kinds: tuple = ()):
    """An instance of a dataclass from the command line. kinds: whose fields are the flags, if not its own.

    Raises UserError, one line, for what cannot be parsed.
    """
    _refuse_repeated(sys.argv[1:] if arguments is None else arguments)
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            config = (tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff)
            return tyro.cli(parser, description=description, args=arguments, config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        own = (parser,) if dataclasses.is_dataclass(parser) else typing.get_args(parser)
        known = [flag(f.name) for kind in kinds or own for f in _fields(kind)]
        raise UserError(_one_line(message.getvalue(), arguments or sys.argv[1:], known)) from None


def _fields(kind) -> tuple:
    """The fields of a dataclass, also of one with a note to the parser (`Annotated`)."""
    kind = kind if dataclasses.is_dataclass(kind) else next(iter(typing.get_args(kind)), None)
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _refuse_repeated(arguments: list[str]) -> None:
    """Raise UserError for a flag that is given twice: only the last would count, without a word."""
    given = [
        a.partition("=")[0].replace("_", "-").replace("--no-", "--")
        for a in arguments
        if a.startswith("--") and len(a) > 2
    ]
    twice = next((name for number, name in enumerate(given) if name in given[:number]), None)
    if twice:
        raise UserError(f"{twice} is given twice; give it once, with all its values")


def _one_line(box: str, arguments: list[str], known: list[str]) -> str:
    """The sentence inside the box that the parser prints, and what was probably meant."""
    lines = [line.strip("│ \n") for line in box.splitlines()]
    inside = [line for line in lines if line and line[0] not in "╭╰"]
    rule = next((i for i, line in enumerate(inside) if line.startswith("─")), len(inside))
    sentence = " ".join(inside[:rule])
    hint = _hint(sentence, arguments, known)
    return f"{sentence.removesuffix('.') if hint else sentence}{hint} (--help lists all flags)"


def _hint(sentence: str, arguments: list[str], known: list[str]) -> str:
    """What was probably meant: the nearest flag; a value that begins with a dash; values with spaces between
    them.
    """
    pairs = list(pairwise(arguments))
    dashed = [(a, value) for a, value in pairs if a.startswith("--") and value.startswith("-")]
    for name, value in dashed:
        if f"'{name}'" in sentence or value in sentence.split()[-1:]:
            return f"; write {shlex.quote(f'{name}={value}')} for a value that begins with a dash"
    for place, name in enumerate(arguments):
        if f"parsing {name}:" in sentence and "," in "".join(arguments[place + 1 : place + 2]):
            values = " ".join(takewhile(lambda a: not a.startswith("-"), arguments[place + 1 :]))
            return f"; write {name} {' '.join(values.replace(',', ' ').split())}"
    wrong = next((a for a in arguments if a.startswith("--") and a in sentence), "")
    return nearest(wrong, known) if "Unrecognized" in sentence else ""


def flag(name: str) -> str:
    """The command-line flag of a setting: `n_embd` -> `--n-embd`."""
    return "--" + name.replace("_", "-")
