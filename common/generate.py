"""Sampling text from a model, and `python -m common.generate RUN`."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from common import checkpoint, lesson
from common.data import Data
from common.errors import UserError, command
from common.settings import Settings, flags, parse_as
from common.tokenizer import from_state


def filtered(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Logits (..., V) with all but the `top_k` most likely, or all outside the smallest set of probability `top_p`, at -inf.

    Source: top-p is nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751.
    """
    if top_k is not None:
        smallest = logits.topk(min(top_k, logits.size(-1))).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p is not None:
        ordered, places = logits.sort(descending=True)
        before = F.softmax(ordered, dim=-1).cumsum(dim=-1) - F.softmax(ordered, dim=-1)  # probability of all likelier tokens
        keep = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, places, before < top_p)
        logits = logits.masked_fill(~keep, -torch.inf)
    return logits


@torch.no_grad()
def generate(
    model: nn.Module,
    ids: Tensor,
    block_size: int,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield `length` tokens (B,), one at a time, that go on from `ids` (B, T). Temperature 0 always takes the most likely.

    The model sees the last `block_size` tokens. `generator` lives on the CPU, so a seed gives the same text on every device.
    """
    training = model.training
    model.eval()
    try:
        for _ in range(length):
            logits = model(ids[:, -block_size:])  # (B, T, V) or (B, V)
            logits = (logits[:, -1] if logits.ndim == 3 else logits).float().cpu()
            if temperature == 0:
                chosen = logits.argmax(dim=-1)
            else:
                weights = F.softmax(filtered(logits / temperature, top_k, top_p), dim=-1)
                chosen = torch.multinomial(weights, 1, generator=generator).squeeze(1)
            chosen = chosen.to(ids.device)
            ids = torch.cat([ids, chosen[:, None]], dim=1)
            yield chosen
    finally:
        model.train(training)


def text(model: nn.Module, tokenizer, block_size: int, prompt: str, length: int, seed: int, device: str = "cpu", **how) -> str:
    """`prompt` and what follows it. Raises UserError when the vocabulary lacks a character of the prompt."""
    ids = torch.from_numpy(tokenizer.encode(prompt))[None].to(device)
    generator = torch.Generator().manual_seed(seed)
    return prompt + tokenizer.decode(int(token) for token in generate(model, ids, block_size, length, generator=generator, **how))


def names(
    model: nn.Module, tokenizer, block_size: int, known: frozenset[str], count: int, seed: int, prompt: str = "", device: str = "cpu", **how
) -> list[str]:
    """`count` different names that are not in `known`, each beginning with `prompt`; fewer if the model hardly invents any."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.from_numpy(tokenizer.encode("\n" * block_size + prompt))
    found: dict[str, None] = {}
    for _ in range(20):
        rows = torch.stack(
            list(generate(model, start.repeat(2 * count, 1).to(device), block_size, 30, generator=generator, **how)), dim=1
        )  # (B, 30)
        for row in rows.tolist():
            name = prompt + tokenizer.decode(row).split("\n")[0]
            if name != prompt and name not in known and len(found) < count:
                found[name] = None
        if len(found) == count:
            break
    return list(found)


# ---- from a run folder -----------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A trained model and what is needed to sample from it."""

    model: nn.Module
    tokenizer: object
    settings: Settings
    plan: lesson.Plan
    state: dict
    device: str

    def sample(self, prompt: str = "", length: int = 300, seed: int = 1, **how) -> str:
        """Text that goes on from `prompt`, or ten new names where the model was trained on names."""
        data = self.plan.load(self.settings, self.device, self.tokenizer)
        return sample(self.model, data, self.settings, seed, prompt, length, **how)


def sample(model: nn.Module, data: Data, s: Settings, seed: int, prompt: str = "", length: int = 300, **how) -> str:
    """What a model writes: text that goes on from `prompt` (default: a new line), or ten names that are in no training list."""
    if not data.names:
        start = prompt or ("\n" if "\n" in data.tokenizer.decode(range(data.tokenizer.vocab_size)) else data.corpus.text[0])
        return text(model, data.tokenizer, s.block_size, start, length, seed, data.device, **how).strip("\n")
    return " ".join(names(model, data.tokenizer, s.block_size, data.names, 10, seed, prompt, data.device))


def run_folder(experiment: str, arm: str, seed: int, config: str) -> Path:
    """Where the checkpoint of a run is kept."""
    return lesson.logs_folder() / "runs" / experiment / f"{arm}-seed{seed}-{config}"


def board_folder(plan: lesson.Plan, s: Settings, corpus: str, arms: list[str], seeds) -> Path:
    """Where the pictures of these arms and seeds together are kept: one folder for each choice, setting and state of the code."""
    runs = [f"{plan.config(arm, s, corpus)}:{arm}:{seed}" for arm in arms for seed in sorted(seeds)]
    digest = hashlib.sha256(" ".join([lesson.code_hash(plan.script), *runs]).encode()).hexdigest()[:12]
    return lesson.logs_folder() / "runs" / plan.experiment / f"board-{digest}"


def find_run(plan: lesson.Plan, arm: str, seed: int, s: Settings) -> Path:
    """The folder of the newest run with these settings. Raises UserError that names the runs there are, and the command to train."""
    folders = [path.parent for path in run_folder(plan.experiment, arm, seed, "x").parent.glob(f"{arm}-seed{seed}-*/{checkpoint.NAME}")]
    trained = {folder: type(plan.defaults)(**checkpoint.load(folder / checkpoint.NAME).state["settings"]) for folder in folders}
    found = [folder for folder, settings in trained.items() if settings == plan.own(arm, s)]
    if not found:
        others = sorted({flags(plan.own(arm, plan.defaults), settings) or "the default settings" for settings in trained.values()})
        there = f"; there are runs with {' and with '.join(others)}" if others else ""
        choice = f" --arms {arm}" if len(plan.arms) > 1 else ""
        command = f"python {plan.experiment}.py --seeds {seed}{choice} {flags(plan.defaults, s)}".strip()
        raise UserError(
            f"{plan.experiment} has no checkpoint of arm {arm!r}, seed {seed} with these settings{there}; train it first: {command}"
        )
    return max(found, key=lambda folder: (folder / checkpoint.NAME).stat().st_mtime)


def load_run(folder: Path, device: str = "cpu") -> Run:
    """The model of a run folder. Raises UserError if it holds no checkpoint of a script of this project as the script is now."""
    saved = checkpoint.load(folder / checkpoint.NAME)
    experiment = str(saved.state["experiment"])
    script = (lesson.ROOT / f"{experiment}.py").resolve()
    if script.parent.parent != lesson.ROOT or not script.is_file():
        raise UserError(f"{folder} names the script {experiment!r}, which is not in this project; only runs of its own scripts are loaded")
    if saved.state.get("code_hash") != lesson.code_hash(script):
        raise UserError(f"{folder} was trained by another version of {experiment}.py; train again")
    plan = lesson.plan(script)
    s = type(plan.defaults)(**saved.state["settings"])
    tokenizer = from_state(saved.state["tokenizer"])
    model = plan.arms[saved.state["arm"]](s, tokenizer.vocab_size).to(device)
    checkpoint.restore_model(saved, model)
    return Run(model, tokenizer, s, plan, saved.state, device)


def locate(name: str) -> Path:
    """The run that a name means: a run folder, or an experiment's run at default settings with seed 1. Raises UserError."""
    if (Path(name) / checkpoint.NAME).exists():
        return Path(name)
    if Path(name).is_dir():
        raise UserError(f"{name} holds no {checkpoint.NAME}; give the folder of a run, or the name of an experiment")
    reference = lesson.refer(name)
    return find_run(lesson.course_plan(reference.experiment), reference.arm, 1, reference.settings())


@dataclass(frozen=True)
class Arguments:
    """Sample from the checkpoint of a run."""

    run: tyro.conf.Positional[str] = ""
    """A run folder, or an experiment (`multi_head`): its run at default settings with seed 1."""
    prompt: str = ""
    """Text to go on from."""
    length: int = 300
    """Tokens to add."""
    temperature: float = 1.0
    """0 takes the most likely token every time; above 1 is wilder than the training text."""
    top_k: int | None = None
    """Choose among the k most likely tokens only."""
    top_p: float | None = None
    """Choose among the likeliest tokens that together have this probability."""
    seed: int = 1
    """The same seed gives the same text."""


@command
def main() -> None:
    a = parse_as(Arguments, sys.argv[1:])
    if not a.run:
        raise UserError("name a run folder or an experiment: python -m common.generate multi_head --prompt KING (--help lists all flags)")
    if a.temperature < 0:
        raise UserError(f"--temperature {a.temperature} makes no sense; it must be 0 or above")
    if a.top_p is not None and not 0 < a.top_p <= 1:
        raise UserError(f"--top-p {a.top_p} makes no sense; it must be above 0 and at most 1")
    if a.top_k is not None and a.top_k < 1:
        raise UserError(f"--top-k {a.top_k} makes no sense; it must be at least 1")
    if a.length < 1:
        raise UserError(f"--length {a.length} makes no sense; it must be at least 1")
    folder = locate(a.run)
    run = load_run(folder)
    print(folder, file=sys.stderr)
    how = {"temperature": a.temperature, "top_k": a.top_k, "top_p": a.top_p}
    print(run.sample(a.prompt, a.length, a.seed, **how))


if __name__ == "__main__":
    main()
