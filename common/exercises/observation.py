"""What a solution does, one observation after the other, and how two solutions differ."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Failed:
    """An observation that ended in an error."""

    kind: str
    message: str
    line: int | None
    """The line of the solution in which it came up."""

    @property
    def is_gap(self) -> bool:
        """Whether it came from a part that is not written; PyTorch's own errors of this kind say more."""
        return self.kind == "NotImplementedError" and " " not in self.message

    def like(self, other: "Failed") -> bool:
        """Whether it is the same kind of error; of sizes that do not fit, whether they are the same sizes."""
        sizes = self.kind in ("RuntimeError", "IndexError")
        return self.kind == other.kind and not (sizes and _numbers(self.message) != _numbers(other.message))

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line else ""
        if self.is_gap:
            return f"{self.message or 'a part'} is not written yet{where}"
        return f"{self.kind}: {' '.join(self.message.split())[:200]}{where}"


@dataclass(frozen=True)
class Observation:
    """Something to look at in a solution, which should be as it is in the reference."""

    promise: str
    """Which promise it is about: a name in `promises.yaml`."""
    look: Callable[[], object]
    """What is seen: numbers, tensors, texts, or lists and dictionaries of these."""
    tolerance: float = 1e-6
    """How far numbers may be from those of the reference, as a share of the largest."""
    what: str = ""
    """Which arm or case it is about, where there are several."""
    dear: bool = False
    """Takes so long that mistakes are told apart without it."""
    single: bool = False
    """In float32, as a script itself computes; else numbers are float64, those that a solution makes too."""

    def taken(self, file: str) -> object:
        """What is seen, or how it failed. file: that of the solution, whose line is named."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32 if self.single else torch.float64)
        torch.default_generator.manual_seed(0)  # weights that a look makes are the same each time
        try:
            return self.look()
        except (Exception, SystemExit) as error:
            return Failed(type(error).__name__, str(error), _line(error, file))
        finally:
            torch.set_default_dtype(before)


def _line(error: BaseException, file: str) -> int | None:
    """The last line of a file that an error passed through."""
    if isinstance(error, SyntaxError):
        return error.lineno
    found, trace = None, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == file:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def same(own: object, reference: object, tolerance: float) -> bool:
    """Whether two observations are the same, up to rounding."""
    if isinstance(own, Failed) or isinstance(reference, Failed):
        return isinstance(own, Failed) and isinstance(reference, Failed) and own.like(reference)
    if isinstance(reference, Tensor):
        return isinstance(own, Tensor) and own.shape == reference.shape and _close(own, reference, tolerance)
    if isinstance(reference, dict):
        return (
            isinstance(own, dict)
            and own.keys() == reference.keys()
            and all(same(own[key], value, tolerance) for key, value in reference.items())
        )
    if isinstance(reference, list | tuple):
        return (
            isinstance(own, list | tuple)
            and len(own) == len(reference)
            and all(same(a, b, tolerance) for a, b in zip(own, reference, strict=True))
        )
    if isinstance(reference, float) and isinstance(own, int | float):
        return _close(torch.tensor(float(own)), torch.tensor(reference), tolerance)
    return own == reference


def _close(own: Tensor, reference: Tensor, tolerance: float) -> bool:
    if not (own.is_floating_point() or reference.is_floating_point()):
        return torch.equal(own, reference)
    own, reference = own.detach().double(), reference.detach().double()
    finite = reference[reference.isfinite()]
    slack = tolerance * float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(own, reference, rtol=0.0, atol=slack + 1e-12, equal_nan=True)


# ---- how two observations differ, in a line ------------------------------------------------------


def difference(promise: str, own: object, reference: object) -> str:
    """What is wrong with an observation, in one line."""
    if isinstance(own, Failed):
        return str(own)
    if isinstance(reference, Failed):
        return f"should be refused with a {reference.kind}"
    if promise == "influence" and isinstance(own, Tensor) and isinstance(reference, Tensor):
        return _influence(own, reference)
    return "; ".join(_differences(own, reference)) or f"is {_short(own)}"


def _influence(own: Tensor, reference: Tensor) -> str:
    """own, reference: true where the answer at the row's place depends on the token at the column's."""
    if own.shape != reference.shape:
        return f"gives answers for {len(own)} places instead of {len(reference)}"
    at, seen = (own != reference).nonzero()[0].tolist()
    verb = "depends" if own[at, seen] else "does not depend"
    answer = f"the answer at position {at}" if len(reference) > 1 else "the answer"
    return f"{answer} {verb} on the token at position {seen} (counted from 0)"


def _differences(own: object, reference: object) -> Iterator[str]:
    if isinstance(reference, dict) and isinstance(own, dict):
        yield from _of_names(own, reference)
    elif isinstance(reference, Tensor) and isinstance(own, Tensor):
        yield _of_tensors(own, reference)
    elif _as_long(own, reference):
        pairs = zip(own, reference, strict=True)  # type: ignore[call-overload]
        yield from (next(_differences(a, b), "differs") for a, b in pairs if not same(a, b, 1e-6))
    elif isinstance(own, list) and isinstance(reference, list) and len(own) == len(reference) > 0:
        at = next((n for n in range(len(own)) if not same(own[n], reference[n], 1e-6)), 0)
        yield f"number {at} (from 0) is {_short(own[at])}, should be {_short(reference[at])}"
    elif type(own) is not type(reference) or own != reference:
        yield f"is {_short(own)}, should be {_short(reference)}"


def _as_long(own: object, reference: object) -> bool:
    """Whether both are lists that have as many members, and there are tensors among these."""
    if not (isinstance(own, list | tuple) and isinstance(reference, list | tuple)):
        return False
    return len(own) == len(reference) and any(isinstance(one, Tensor) for one in reference)


def _of_names(own: dict, reference: dict) -> Iterator[str]:
    lacking = [name for name in reference if name not in own]
    further = [name for name in own if name not in reference]
    if lacking:
        yield "lacks " + _few([f"{name} {_short(reference[name])}".strip() for name in lacking])
    if further:
        yield "has besides " + _few([f"{name} {_short(own[name])}".strip() for name in further])
    if not lacking and not further:
        wrong = [name for name in reference if not same(own[name], reference[name], 1e-6)]
        pairs = [(name, own[name], reference[name]) for name in wrong]
        yield _few([f"{name}: {next(_differences(a, b), 'differs')}" for name, a, b in pairs])


def _of_tensors(own: Tensor, reference: Tensor) -> str:
    if own.shape != reference.shape:
        return f"has shape {tuple(own.shape)}, should have {tuple(reference.shape)}"
    own, reference = own.detach().double(), reference.detach().double()
    apart = torch.where(own == reference, 0.0, own - reference).abs()  # -inf - -inf is none
    if not apart.isfinite().all():
        at = tuple(apart.isfinite().logical_not().nonzero()[0].tolist())
        return f"has {own[at]:.3g} at {list(at)}, should have {reference[at]:.3g}"
    places = (apart > 1e-6 * reference.abs().max()).nonzero()
    first = f", first at {places[0].tolist()}" if len(places) and own.ndim else ""
    return f"is off by up to {apart.max():.2g}{first}"


def _few(parts: list[str]) -> str:
    return ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return (
            str(tuple(value.shape))
            if value.numel() > 8
            else str([round(v, 4) for v in value.flatten().tolist()])
        )
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    if isinstance(value, list) and value and isinstance(value[0], float):
        return "[" + ", ".join(_short(one) for one in value[:8]) + (", ...]" if len(value) > 8 else "]")
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
