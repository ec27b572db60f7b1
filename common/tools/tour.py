"""The course on one screen: a short form of a script of each stage, what it writes and what it scores.

From the command line:

    python -m common.tools.course tour

Nothing is logged and nothing is kept: a tour is a first look, its runs are too short to compare.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from textwrap import TextWrapper

from tqdm import tqdm

from common.errors import UserError
from common.generation.load import load_run
from common.paths import ROOT
from common.tools.side_by_side import jobs_at_once
from common.training import checkpoint


@dataclass(frozen=True)
class Tour:
    """In about three minutes: a short form of a script of each stage, what it writes after a prompt, and its
    bits per character.
    """

    prompt: str = "KING"
    """What each goes on from."""
    length: int = 120
    """Characters that each writes, about."""
    jobs: int | None = None
    """Scripts at once, one thread each (none given: as many as cores)."""


@dataclass(frozen=True)
class Stop:
    """One script of a tour, and what it has that those before it had not."""

    script: str
    flags: str
    adds: str


STOPS = (
    Stop("01_bigram/count_bigram", "", "counts which character follows which"),
    Stop("01_bigram/ngram", "--arms 5", "counts sequences of five"),
    Stop("02_attention/multi_head", "--steps 400 --lr 4e-3", "attention looks back"),
    Stop("03_ffn/feed_forward", "--steps 400 --lr 4e-3 --arms gelu", "a feed-forward layer after it"),
    Stop("04_stacking/stack", "--steps 500", "four such blocks, one on the other: too deep to learn so"),
    Stop("05_residual_norm/pre_ln", "--steps 500 --lr 4e-3", "four blocks that add to a stream, normalised"),
    Stop("06_transformer/fast_gpt", "--steps 500 --lr 4e-3", "the complete GPT: first weights, warm-up"),
    Stop("07_tokenizer_gqa/bpe", "--steps 500 --arms bpe-1024", "tokens instead of characters"),
    Stop("08_micro_arch/assemble", "--steps 500 --config llama", "rotary positions, gates, RMSNorm"),
    Stop("09_pretraining/pretrain", "--preset sixteenth", "Muon, hashed pairs, a falling rate"),
)


def tour(a: Tour) -> None:
    """Train the short forms side by side and show them in order. Raises UserError."""
    if not a.prompt or not a.prompt.isascii() or not a.prompt.isprintable():
        raise UserError(
            f"--prompt {a.prompt!r} cannot be said by all; give letters of the text, for example KING"
        )
    if a.length < 1:
        raise UserError(f"--length {a.length} makes no sense; it must be at least 1")
    begun, jobs = time.perf_counter(), jobs_at_once(a.jobs)
    print(f"{len(STOPS)} short runs, {jobs} at once; nothing of them is logged or kept", flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(_visit, stop, Path(folder), a): stop for stop in STOPS}
        bar = tqdm(as_completed(waiting), total=len(STOPS), unit=" scripts", disable=None, leave=False)
        try:
            shown: dict[Stop, str] = {waiting[done]: _said(waiting[done], done) for done in bar}
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    print(f"after {a.prompt!r}, in bits per character of the test text (the lower, the better):")
    for stop in STOPS:
        print(f"\n{shown[stop]}")
    print(f"\n{time.perf_counter() - begun:.0f} s. Longer, measured, one idea at a time: README.md")


def _visit(stop: Stop, folder: Path, a: Tour) -> tuple[float, str]:
    """Train one in a folder of its own. Its bits per character, and what it writes.

    Raises UserError with the last line of what it said, if it fails.
    """
    logs = folder / stop.script.replace("/", "-")
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{stop.script}.py"), *stop.flags.split(), *COMMON],
        cwd=ROOT, env=os.environ | {"GPT_STAIRCASE_LOGS": str(logs)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise UserError(f"{stop.script} ended with exit code {done.returncode}: {said[-1]}")
    run = load_run(next(logs.rglob(checkpoint.NAME)).parent)
    return run.state["scores"]["test"]["bpc"], run.sample(a.prompt, a.length, seed=STOPS.index(stop) + 1)


COMMON = ("--seeds", "1", "--threads", "1", "--no-log", "--no-pictures")
WIDTH = 100


def _said(stop: Stop, done: Future) -> str:
    """Two or three lines on a stop."""
    bits, text = done.result()
    wrap = TextWrapper(WIDTH, "      ", "      ", max_lines=2, placeholder=" ...")
    text = wrap.fill(" / ".join(line for line in text.split("\n") if line.strip()))
    return f"{stop.script}: {stop.adds}   {bits:.2f}\n{text}"
