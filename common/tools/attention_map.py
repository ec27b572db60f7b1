"""Where does every head of every layer look? For any run, on any text.

From the command line:

    python -m common.tools.attention_map pre_ln --prompt "What is the matter"

Nothing in a model has to be prepared for this: the weights are caught where torch computes them.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from common.errors import UserError, command
from common.generation.load import Run, load_run, locate
from common.lessons.run_folder import progress
from common.parsing import parse_as


class Catch(TorchFunctionMode):
    """While it is active, causal attention leaves its weights (B, H, T, T) in `weights`."""

    def __init__(self):
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is F.scaled_dot_product_attention:
            # one kernel that never shows its weights: they are computed again
            q, k = args[:2]
            # heads of keys that serve several of queries
            k = k.repeat_interleave(q.size(-3) // k.size(-3), dim=-3)
            ahead = torch.full((q.size(-2), k.size(-2)), -torch.inf, device=q.device).triu(1)
            self._keep(torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)) + ahead, dim=-1))
        elif function is F.softmax and out.ndim >= 2 and out.size(-1) == out.size(-2):
            self._keep(out)
        return out

    def _keep(self, weights: Tensor) -> None:
        """(T, T), (B, T, T), (B, H, T, T) or (B, K, G, T, T) -> (B, H, T, T)"""
        if weights.ndim == 5:  # heads in groups
            weights = weights.flatten(1, 2)
        while weights.ndim < 4:
            weights = weights.unsqueeze(0 if weights.ndim == 2 else 1)
        self.weights.append(weights.detach())


def attention(run: Run, text: str) -> list[Tensor]:
    """The attention weights of every layer on a text of T tokens: one (H, T, T) per layer, rows sum to 1.

    Raises as `attention_of`.
    """
    return attention_of(run, torch.from_numpy(run.tokenizer.encode(text)))


@torch.no_grad()
def attention_of(run: Run, ids: Tensor) -> list[Tensor]:
    """The attention weights of every layer on tokens (T,): one (H, T, T) per layer.

    Raises UserError for fewer than two tokens or more than the window has, and for a model without attention.
    """
    ids = ids[None].to(run.device)
    if not 2 <= ids.size(1) <= run.settings.block_size:
        raise UserError(
            f"the text has {ids.size(1)} tokens; this model takes 2 to {run.settings.block_size} (its "
            "--block-size)"
        )
    if "/names_" in run.plan.experiment:
        raise UserError(
            f"{run.plan.experiment} has no attention to show; take a run of a stage from "
            "02_attention/average on"
        )
    run.model.eval()
    with Catch() as catch:
        run.model(ids)
    if not catch.weights:
        raise UserError(
            f"{run.plan.experiment} has no attention to show; take a run of a stage from "
            "02_attention/average on"
        )
    return [weights[0].float().cpu() for weights in catch.weights]


def habits(weights: Tensor) -> list[tuple[float, float, float]]:
    """What each head of a layer (H, T, T) does on average: weight on the token itself, on the one before, and
    tokens looked at.

    The last is the perplexity of the weights: 1 where all weight is on one token. Rows from the second on
    count.
    """
    itself = weights.diagonal(dim1=1, dim2=2)[:, 1:].mean(dim=1)
    before = weights.diagonal(offset=-1, dim1=1, dim2=2).mean(dim=1)
    spread = torch.special.entr(weights[:, 1:]).sum(dim=-1).exp().mean(dim=1)
    return list(zip(itself.tolist(), before.tolist(), spread.tolist(), strict=True))


@dataclass(frozen=True)
class Arguments:
    """Draw the attention of every head of every layer."""

    run: tyro.conf.Positional[str] = ""
    """A run folder, or an experiment (`pre_ln`): its run at default settings with seed 1."""
    prompt: str = ""
    """The text to look at; none given: the first longer line of the test text."""
    out: Path | None = None
    """Where to write the picture; none given: attention_map.png in the run's folder."""


@command
def main() -> None:
    a = parse_as(Arguments, sys.argv[1:])
    if not a.run:
        raise UserError(
            "name a run folder or an experiment: python -m common.tools.attention_map pre_ln --prompt "
            '"What is"'
        )
    folder = locate(a.run)
    run = load_run(folder)
    ids = (
        torch.from_numpy(run.tokenizer.encode(a.prompt or "ab"))
        if a.prompt or "/names_" in run.plan.experiment
        else run.data().first_line()
    )
    layers = attention_of(run, ids)
    path = a.out or folder / "attention_map.png"
    if not path.parent.is_dir() or path.suffix != ".png":
        what = (
            "has no name that ends in .png"
            if path.parent.is_dir()
            else f"is in a folder that does not exist: {str(path.parent)!r}"
        )
        raise UserError(f"--out {str(path)!r} {what}")
    from common.report import inside

    symbols = [run.tokenizer.decode([token]) for token in ids.tolist()]
    title = f"{run.plan.experiment}, {progress(run.state)}: where does each head look?"
    try:
        inside.attention_grid(layers, symbols, title, path)
    except OSError as error:
        raise UserError(f"--out {str(path)!r} cannot be written: {error.strerror}") from None
    print(
        f"{run.plan.experiment}, seed {run.state['seed']}: {progress(run.state)} on {run.state['corpus']}",
        file=sys.stderr,
    )
    print(f"{'layer':>5}{'head':>6}{'on itself':>11}{'on the one before':>19}{'tokens looked at':>18}")
    for layer, weights in enumerate(layers, start=1):
        for head, (itself, before, spread) in enumerate(habits(weights), start=1):
            print(f"{layer:>5}{head:>6}{itself:>11.2f}{before:>19.2f}{spread:>18.1f}")
    print(f"picture     {path}")


if __name__ == "__main__":
    main()
