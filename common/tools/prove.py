"""Old evidence for new code: does the present code compute, bit for bit, what the code computed that the rows
were made with?

For each line of the course whose code changed since, both versions run side by side on this machine with one
thread: the data, the untrained weights, the first steps and those around the end of the warm-up, the rate of
every step, the scores of the weights that come out. Where all is equal, a receipt says so and the rows stay
valid. `python -m common.tools.course prove [STAGE]`.
"""

import contextlib
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common import results
from common.errors import UserError
from common.lessons import receipts
from common.lessons.course import Reference
from common.paths import ROOT
from common.report.evidence import Measured

PROGRAM = Path(__file__).with_name("proof.py")


@dataclass(frozen=True)
class Claim:
    """A line whose rows are to be carried over, from the code that they were last proved with."""

    reference: Reference
    old_code: str
    commit: str


@dataclass
class Verdict:
    """What a proof showed: whether all is equal, and in words where it is not, or why it could not be run."""

    claim: Claim
    equal: bool
    words: str
    steps: int = 0
    digest: str = ""


def claims(references: list[Reference]) -> list[Claim]:
    """The lines among these that have rows, but of other code.

    Raises UserError for rows that no commit can be asked about.
    """
    measured, known = Measured(), receipts.read()
    listed = []
    for reference in references:
        line = measured.line(reference)
        made = (
            {(str(row.code_hash), str(row.git_commit)) for row in line.rows.itertuples()}
            if line.state == "stale"
            else set()
        )
        for code, commit in sorted(made):
            for receipt in known:  # in order: the last one that goes on from there
                line_of = tuple(receipt[name] for name in ("experiment", "arm", "config_hash", "old_code"))
                if line_of == (reference.experiment, reference.arm, reference.config(), code):
                    code, commit = receipt["new_code"], receipt["new_commit"]
            listed.append(Claim(reference, code, commit))
    return listed


def prove(references: list[Reference]) -> bool:
    """Prove what can be proved, append receipts, and print what each line came to.

    True if nothing is left to be measured.
    """
    commit = _present_commit()
    waiting = claims(references)
    print(f"{len(waiting)} lines have rows of other code", flush=True)
    start, equal = time.perf_counter(), 0
    by_commit: dict[str, list[Claim]] = {}
    for claim in waiting:
        by_commit.setdefault(claim.commit, []).append(claim)
    for old, together in by_commit.items():
        for verdict in _compare(old, together):
            equal += verdict.equal
            print(f"{str(verdict.claim.reference):<72} {verdict.words}", flush=True)
            if verdict.equal:
                _append(verdict, commit)
    print(
        f"{equal} of {len(waiting)} lines compute the same bits, {time.perf_counter() - start:.0f} s; "
        "their rows stay valid"
    )
    if equal < len(waiting):
        print("what is left has to be measured again: python -m common.tools.course run")
    return equal == len(waiting)


def _append(verdict: Verdict, commit: str) -> None:
    claim = verdict.claim
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    receipts.append(
        {
            "timestamp": now, "experiment": claim.reference.experiment, "arm": claim.reference.arm,
            "config_hash": claim.reference.config(), "old_code": claim.old_code,
            "new_code": claim.reference.code,
            "old_commit": claim.commit, "new_commit": commit, "steps": verdict.steps,
            "digest": verdict.digest, "threads": 1,
            "torch_version": torch.__version__, "platform": f"{platform.system()}-{platform.machine()}",
        }
    )  # fmt: skip


def _compare(commit: str, waiting: list[Claim]) -> Iterator[Verdict]:
    """Run the lines in the code of a commit and in the present code, at the same time."""
    try:
        with _worktree(commit) as old, _running(old, waiting) as before, _running(ROOT, waiting) as now:
            for claim in waiting:
                a, b = (_next(process) for process in (before, now))
                if "error" in a or "error" in b:
                    side = f"the code of {commit}" if "error" in a else "the present code"
                    yield Verdict(
                        claim, False, f"not proved: {side} cannot be run here: {a.get('error') or b['error']}"
                    )
                    continue
                wrong = _other_code(claim, a["code"], b["code"])
                if wrong:
                    yield Verdict(claim, False, f"not proved: {wrong}")
                    continue
                different = next((x[0] for x, y in zip(a["facts"], b["facts"], strict=False) if x != y), None)
                if different is None and len(a["facts"]) != len(b["facts"]):
                    different = "the number of steps"
                digest = hashlib.sha256(json.dumps(b["facts"]).encode()).hexdigest()[:12]
                words = f"different from {commit}: {different}" if different else f"the same bits as {commit}"
                yield Verdict(claim, not different, words, b["steps"], digest)
    except UserError as error:
        for claim in waiting:
            yield Verdict(claim, False, f"not proved: {error}")


def _other_code(claim: Claim, old: str, new: str) -> str:
    """Why the two versions are not those that a receipt would name; empty if they are."""
    if old != claim.old_code:
        made = f"({old}, not {claim.old_code})"
        return f"the code of commit {claim.commit} is not what its rows were made with {made}"
    return "the present code changed while it was compared" if new != claim.reference.code else ""


@contextlib.contextmanager
def _running(tree: Path, waiting: list[Claim]) -> Iterator[subprocess.Popen]:
    """The program that computes, in one version of the project."""
    lines = [
        {"experiment": c.reference.experiment, "arm": c.reference.arm, "flags": c.reference.flags}
        for c in waiting
    ]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    with tempfile.TemporaryDirectory() as logs:
        process: Any = subprocess.Popen(  # with pipes, which its type does not know
            [sys.executable, str(PROGRAM)], cwd=tree, env=environment | {"GPT_STAIRCASE_LOGS": logs},
            text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as asked:
                asked.write(json.dumps(lines))
            yield process
        finally:
            process.kill()
            process.wait()


def _next(process) -> dict:
    """The next line that the program prints as JSON; what else is printed, a word of a version about its
    corpus, is passed over.
    """
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    return {"error": "it ended before this line"}


@contextlib.contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """The project as it was at a commit, in a temporary folder.

    Raises UserError, one line, where that cannot be had.
    """
    if not commit or commit.endswith("+"):
        raise UserError("its rows were made with changes that are in no commit; measure it again")
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise UserError(f"commit {commit} is not here; fetch it: git fetch --unshallow")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "tree"
        made = _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
        if made.returncode:
            raise UserError(
                f"commit {commit} cannot be put into a folder: {made.stderr.strip().splitlines()[-1]}"
            )
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _present_commit() -> str:
    """The commit that the present code is.

    Raises UserError outside a repository, and where the code has changes that are in none.
    """
    commit = results.git_commit()
    if not commit:
        raise UserError(
            "this is no git repository, so there is no earlier code to compare with; clone the course "
            "with git"
        )
    if commit.endswith("+"):
        raise UserError(
            "the code has changes that are in no commit; commit them first, for a receipt names the commit"
        )
    return commit


def _git(*arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"git cannot be run: {error.strerror}") from None
