"""How much memory a run will take, asked before it starts; and memory that is freed and asked for again at
every step.
"""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator

import psutil
import torch
from torch.nn import functional as F

from common.data import Data
from common.errors import UserError
from common.settings import Settings
from common.training.distributed import ALONE, Group


def needed(
    build: Callable, s: Settings, vocab_size: int, x: torch.Tensor, y: torch.Tensor, group: Group = ALONE
) -> tuple[int, int]:
    """Bytes for parameters, gradients and AdamW's two moments; and bytes that a forward pass of one batch
    keeps for the way back. Where a group of processes shares them: of one process.

    x, y: one window and its target, (1, T) and (1, T) or (1,). Nothing is computed: tensors on the `meta`
    device have shapes only. Where shapes depend on numbers (which expert gets which token), one window is
    computed, and counts as often as the batch has windows.
    """
    rows = -(-s.batch_size * getattr(s, "accumulate", 1) // group.size)
    rows, parts = min(s.batch_size, rows), group.size if group.sharded else 1
    with torch.device("meta"):
        model = build(s, vocab_size)
        batch = (torch.empty(rows, *z.shape[1:], dtype=z.dtype) for z in (x, y))
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        try:
            return 4 * weights // parts, kept(model, *batch)
        except NotImplementedError:
            pass
    with torch.random.fork_rng(devices=[]):
        return 4 * weights // parts, rows * kept(build(s, vocab_size), x.cpu(), y.cpu())


def kept(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    """Bytes that a forward pass keeps for the way back, without the parameters."""
    found: dict[int, torch.Tensor] = {}
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda z: found.setdefault(z.untyped_storage()._cdata, z), lambda z: z
    ):
        F.cross_entropy(model(x).flatten(0, -2), y.flatten())
    return sum(z.untyped_storage().nbytes() for key, z in found.items() if key not in weights)


def available(device: str) -> int | None:
    """Free bytes on a device; None where that cannot be asked."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available if device == "cpu" else None


def check(name: str, build: Callable, s: Settings, data: Data, group: Group = ALONE) -> None:
    """Raise UserError, with the estimate, when a run, or the part of it that one process of a group has,
    cannot fit.
    """
    free = available(data.device)
    if free is None:
        return
    weights, activations = needed(
        build, s, data.tokenizer.vocab_size, *data.train.at(torch.zeros(1, dtype=torch.long)), group
    )
    if weights + activations > free:
        raise UserError(
            f"{name} would need about {size(weights + activations)} of memory ({size(weights)} for "
            "weights, gradients and moments, "
            f"{size(activations)} for one batch on its way), and {size(free)} are free; use a smaller "
            "--n-embd, --n-layer or --batch-size"
        )


@contextlib.contextmanager
def shortage_told(name: str) -> Iterator[None]:
    """Raise UserError, with what to make smaller, when memory runs out within it all the same."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        cpu = "can't allocate memory" in str(error) or "not enough memory" in str(error)
        if not (cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)):
            raise
        raise UserError(
            f"{name} ran out of memory; use a smaller --batch-size (with --accumulate, if there is one, a "
            "step sees as much), --block-size, --n-embd or --n-layer"
        ) from None


def peak() -> int:
    """The most bytes that this process has held at once."""
    usage = psutil.Process().memory_info()
    if hasattr(usage, "peak_wset"):  # Windows, which has no `resource`
        return usage.peak_wset
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def up_to_the_peak() -> torch.Tensor:
    """A tensor that fills what is missing to the peak: as long as it is kept, whatever is asked for raises
    the peak.
    """
    return torch.ones(max(0, peak() - psutil.Process().memory_info().rss), dtype=torch.uint8)


def keep_freed() -> None:
    """Let the C library of Linux keep what a step frees for the next step, instead of handing it back and
    asking the system for it anew.

    A step of a small model frees and asks for tens of megabytes; the system clears each page again. Elsewhere
    this does nothing.
    """
    _mallopt(2**30)


def free_at_once() -> None:
    """Let the C library of Linux hand back what is freed at once: then the peak is what is held together, and
    no leftovers.
    """
    _mallopt(2**16)


def _mallopt(threshold: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, threshold)  # M_TRIM_THRESHOLD
        mallopt(-3, threshold)  # M_MMAP_THRESHOLD


def size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
