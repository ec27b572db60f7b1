"""Mistakes that a user can put right: one line that says what is wrong and what to do, exit code 2."""

import contextlib
import difflib
import functools
import io
import os
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Its message is the one line the user sees: the thing, the value, the way out."""

    def __str__(self) -> str:
        return super().__str__().replace("\n", "\\n")  # of a value, which may have anything in it


class OwnError(UserError):
    """Concerns one of several processes that work together: each says its own."""


def nearest(value: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` when a known name is close to `value`, else an empty string."""
    match = difflib.get_close_matches(value, list(known), n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


class LostError(OwnError):
    """Another process of the run is no longer there."""


def command(main: Callable) -> Callable:
    """Turn a UserError inside `main` into one line on stderr and exit code 2; Ctrl-C into exit code 130; a
    closed pipe into silence; and what the terminal cannot show, or was typed in no encoding, into a mark.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        _replace_what_has_no_code()
        try:
            return main(*args, **kwargs)
        except UserError as error:
            if os.environ.get("LOCAL_RANK", "0") != "0" and not isinstance(error, OwnError):
                raise SystemExit(2) from None  # the first process of this machine says the same
            print(f"error: {error}", file=sys.stderr)
            if isinstance(error, LostError):  # what still waits for the other would end in an abort
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(2)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            raise SystemExit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None

    return wrapped


def _replace_what_has_no_code() -> None:
    """A character that the encoding of the terminal or of a pipe does not have costs a `?`, not the run."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            with contextlib.suppress(io.UnsupportedOperation):  # somebody has read from it already
                stream.reconfigure(errors="replace")
