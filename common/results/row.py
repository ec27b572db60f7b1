"""What is measured at the end of a run, and its line in the results file."""

import datetime
import math

import torch
from torch import nn

from common import results
from common.data import Data
from common.lessons.plan import Plan
from common.settings import ARCHITECTURE, PartSettings, Settings
from common.training.metrics import PROTOCOL, Score, score
from common.training.recorder import Diverged, Recorder


def measure(model: nn.Module, data: Data, quick: bool) -> dict[str, Score]:
    """Scores on validation, test, and the end of the training text, as long as the validation text. Raises
    Diverged if not finite.

    In the smaller form, of which nothing is logged, on the test text only.
    """
    scores = {"test": score(model, data.test, data.device)}
    if not quick:
        scores |= {"train": score(model, data.train.tail(len(data.validation)), data.device)}
        scores |= {"validation": score(model, data.validation, data.device)}
    if not all(math.isfinite(of_split.loss) for of_split in scores.values()):
        raise Diverged("a score is not finite")
    return scores


def make_row(
    plan: Plan,
    arm: str,
    seed: int,
    s: Settings,
    data: Data,
    reads: set[str],
    model: nn.Module,
    recorder: Recorder,
    scores,
) -> dict:
    """The line of the results file for a run; `scores` is None where it diverged, `reads` names the settings
    that its model asked for.
    """
    seconds = recorder.state["seconds"]
    tokens = recorder.state["step"] * data.batch(0)[1].numel() if recorder.looped else len(data.train)
    row = dict.fromkeys(results.COLUMNS)
    row |= {
        name: getattr(s, name)
        for name in ("block_size", "dtype", *(("batch_size", "lr") if recorder.looped else ()))
    }
    row |= {name: getattr(s, name) for name in ARCHITECTURE if name in reads and name in row}
    row |= {
        "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "experiment": plan.experiment, "arm": arm, "seed": seed, "corpus": data.corpus.name,
        "tokenizer": data.tokenizer.name,
        "vocab_size": data.tokenizer.vocab_size, "params": sum(p.numel() for p in model.parameters()),
        "tokens_seen": tokens,
        "steps": recorder.state["step"] if recorder.looped else None, "train_seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds) if seconds else None, "device": data.device,
        "diverged": scores is None, "config_hash": recorder.state["config_hash"],
        "code_hash": recorder.state["code_hash"],
        "protocol": PROTOCOL, "git_commit": results.git_commit(), "torch_version": torch.__version__,
        "threads": recorder.state["threads"],
    }  # fmt: skip
    row["parts"] = _parts(s) if isinstance(s, PartSettings) else None
    return row | _columns_of(scores or {})


def _parts(s: PartSettings) -> str:
    """What a model that is made of names is made of."""
    names = [s.attention + "+qk_norm" * s.qk_norm, s.feed_forward, s.norm, s.position, s.head]
    return " ".join(names + [s.embedding] * (s.embedding != "token"))


def _columns_of(scores: dict[str, Score]) -> dict[str, float]:
    """The columns of the results that scores fill."""
    columns: dict[str, float] = {}
    train, val, test = (scores.get(split) for split in ("train", "validation", "test"))
    if test:
        columns |= {"test_loss": test.loss, "test_accuracy": test.accuracy, "test_bpc": test.bpc}
        columns |= {"test_perplexity": test.perplexity}
    if train:
        columns |= {"train_loss": train.loss}
    if val:
        columns |= {"val_loss": val.loss, "val_bpc": val.bpc}
    if val and test:
        columns |= {"last10_loss": (val + test).loss, "last10_bpc": (val + test).bpc}
    return columns
