"""Pretrain: the loop of a production run, on one core or many machines.

Previous : 09_pretraining/prepare.py
Changes  : PretrainSettings, load, batches, train, keep_best, picture
Idea     : what the scripts before taught, in one loop that can be left alone for days: token files, every
           window once in an epoch, several batches to a step, a log of each step, the best weights kept
Teaches  : common.training.optimizer, common.training.schedule
Source   : the parts as in their scripts; Chowdhery et al. 2022, arXiv:2204.02311 (what share of a machine's
           speed a run uses)
Expect   : when the yardstick's time is over the recipe is below six counted characters (2.29 bits), most of
           it by the vocabulary; a tenth of a bit by the table of pairs, and as much by Muon
Also     : --tokenizer char; --pair-decay 0; --preset sixteenth; --config winners --training.schedule linear;
           --config llama_tiny; --config llama_tiny --training.optimizer muon --training.lr 8e-3;
           --preset eighth; --preset eighth --tokenizer char; --preset eighth --tokenizer bpe-1024;
           --preset eighth --embedding token; --preset eighth --pair-decay 0;
           --preset eighth --position learned; --preset eighth --feed-forward gelu;
           --preset eighth --qk-norm; --preset eighth --head untied;
           --preset eighth --optimizer adamw --lr 1e-3; --preset eighth --table-lr 1e-2;
           --preset eighth --schedule constant
Seeds    : 1 2 3 4 5; 1 2 3 with --config winners --training.schedule linear; 1 2 3 with --config llama_tiny;
           1 2 3 with --config llama_tiny --training.optimizer muon --training.lr 8e-3
Stairs   : default, --config llama_tiny
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.data import order, text_data
from common.data.token_files import end_of_text
from common.data.tokens import prepared_data
from common.errors import UserError
from common.model import assemble
from common.model.documents import keep_apart
from common.run import run
from common.settings import Lesson, PartSettings
from common.training import optimizer as optimizers
from common.training.ahead import ahead
from common.training.distributed import ALONE, whole
from common.training.loop import auxiliary_loss
from common.training.optimizer import parameter_groups
from common.training.schedule import rate
from common.training.step_log import StepLog, operations_of_a_token, read_steps, speed_of_products


@dataclass(frozen=True)
class PretrainSettings(PartSettings):
    """Settings of a long run: its parts, and how it is led."""

    corpus: str = "tinyshakespeare"
    """A corpus of the course, the path of a text, or a folder of token files (09_pretraining/prepare.py)."""
    schedule: Literal["constant", "cosine", "linear", "stable-decay"] = "constant"
    """What the learning rate does after the warm-up."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """What makes a step of a gradient; either lets matrices inside of blocks decay and nothing else."""
    table_lr: float = 0.0
    """Learning rate of what is no matrix inside of a block, the tables of tokens above all; 0: --lr."""
    pair_decay: float = 0.0
    """Decay of the table of pairs (--embedding bigram) per step, times its rate."""
    accumulate: int = 1
    """Batches whose gradients make a step together: what does not fit into memory at once."""
    compile: bool = False
    """Let torch.compile write kernels for this model; the first step waits for them."""
    document_mask: bool = False
    """Let no token see another document than its own, where a window holds several."""


def load(s, device="cpu", tokenizer=None):
    """A text of the course; or token files, with the tokenizer that made them."""
    folder = Path(s.corpus)
    if s.document_mask and not (folder.is_dir() and s.attention in ("flash", "gqa", "explicit")):
        raise UserError("--document-mask takes token files (prepare.py) and attention flash, gqa or explicit")
    return prepared_data(folder, s, device) if folder.is_dir() else text_data(s, device, tokenizer)


def batches(data, s, step, processes=ALONE):
    """What this process computes in a step: batches (B, T) and (B, T) of at most `batch_size` windows. Which
    windows a step has follows from seed and step: each once in an epoch, whether it is one batch of 32 or
    four of 8, and however many processes share them.
    """
    rows = s.batch_size * s.accumulate
    starts = processes.own(order.windows(step * rows, rows, len(data.train) + 1, s.block_size, data.seed))
    fewest = -(-len(starts) // s.batch_size)
    count = next(n for n in range(fewest, len(starts) + 1) if len(starts) % n == 0)
    parts = [data.train.at(torch.from_numpy(part)) for part in np.split(starts, count)]
    return [(x.to(data.device), y.to(data.device)) for x, y in parts]


def train(model, data, s, recorder):
    """A step: its rate, the gradients of its batches, their length, the step itself, a line in the log."""
    if s.document_mask:
        keep_apart(model, end_of_text(data.tokenizer))
    processes, kind = recorder.group, torch.device(data.device).type
    mixed = torch.autocast(kind, torch.bfloat16, enabled=s.dtype == "bfloat16")
    shared = processes.share(model)  # itself, where one process trains alone
    forward = torch.compile(shared) if s.compile else shared
    parts = parameter_groups(model, s.weight_decay, s.pair_decay, (s.table_lr or s.lr) / s.lr)
    optimizer = getattr(optimizers, s.optimizer)(parts, s.lr, s.beta2)
    work = operations_of_a_token(model, s.n_layer, s.n_embd, s.block_size)
    most = speed_of_products(kind, getattr(torch, s.dtype))
    print(ahead(assemble, s, data, work / most, processes), flush=True)
    log = StepLog(recorder.folder / "log/steps.csv", COLUMNS, recorder.dashboard, processes.leads)
    for step in recorder.steps(model, optimizer):
        keep_best(recorder)
        start, loss = time.perf_counter(), 0.0
        lr = rate(step, s.steps, s.lr, s.warm_up, s.schedule)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["share"]
        optimizer.zero_grad()
        parts = batches(data, s, step, processes)
        for number, (x, y) in enumerate(parts, 1):
            processes.sync(shared, number == len(parts))  # gradients go to the other processes once a step
            with mixed:
                part = F.cross_entropy(forward(x).flatten(0, -2), y.flatten())
                total = (part + auxiliary_loss(model)) / len(parts)  # the mean over all windows of the step
            total.backward()
            loss = loss + part.detach() / len(parts)
        norm = whole(nn.utils.clip_grad_norm_(model.parameters(), s.clip or math.inf))
        optimizer.step()
        recorder.record(processes.mean(loss))
        speed = s.batch_size * s.accumulate * y.size(1) / (time.perf_counter() - start)  # tokens a second
        nats = recorder.loss
        recorder.state["ema"] = 0.99 * recorder.state.get("ema", nats) + 0.01 * nats
        log.add(step, nats, recorder.state["ema"], math.exp(min(700.0, nats)), lr, norm.item(), speed,
                speed * work / (most * processes.size))
    keep_best(recorder)
    log.close()


def keep_best(recorder):
    """Where the model was just looked at: keep a copy of the weights if none before were as good."""
    curve, step = recorder.state["curve"], recorder.state.get("step")
    if len(curve) > 1 and curve[-1][0] == step and curve[-1][2] == min(point[2] for point in curve):
        recorder.copy(recorder.folder / "best.safetensors")


def picture(model, data, result, folder):
    """Draw the run from its log: losses, perplexity, length of the gradient, rate, speed; and when it passes
    what counting reaches.
    """
    from common.report import pretraining

    drawn = pretraining.draw_run(read_steps(folder / "log/steps.csv"), result.curve, folder)
    return drawn + pretraining.draw_passing(result.row, result.curve, folder)


COLUMNS = ("loss", "ema", "perplexity", "lr", "norm", "tokens_per_second", "mfu")
EIGHTH = {"steps": 150, "warm_up": 8, "table_lr": 4e-2}
SIXTEENTH = {"n_embd": 96, "n_layer": 2, "steps": 100, "warm_up": 5, "table_lr": 4e-2}
lesson = Lesson(assemble, PretrainSettings(), load=load, train=train, picture=picture, config="recipe",
                presets={"eighth": EIGHTH, "sixteenth": SIXTEENTH}, quick=EIGHTH)

if __name__ == "__main__":
    run(lesson)
