"""What the tests share.

They never write to the tracked results, and need no network: the corpora are built in or made here.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and each would ask for every core

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def own_logs(tmp_path, monkeypatch):
    """Every test has a logs folder of its own."""
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("PYTHONUTF8", "1")
    return tmp_path / "logs"


@pytest.fixture(scope="session")
def ready():
    """A process that has imported what scripts import, and runs them; None where there is no fork."""
    if not hasattr(os, "fork"):
        yield None
        return
    command = [sys.executable, str(ROOT / "tests" / "ready.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def script(own_logs, tmp_path, ready):
    """Run a script as a user does: `script("02_attention/bigram", "--steps 3")` -> the finished process.

    With a changed environment in a new Python, else forked from one that has its imports behind it, which
    spares two seconds.
    """

    def run(name: str, *flags: str, cwd=tmp_path, **environment) -> subprocess.CompletedProcess:
        arguments = (
            [a for flag in flags for a in flag.split(" ")]
            if all("\n" not in f for f in flags)
            else list(flags)
        )
        command = [sys.executable, str(ROOT / f"{name}.py"), *arguments]
        if environment or not ready:
            environment = os.environ | environment
            return subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=300,
            )
        files = [tmp_path.with_suffix(".out"), tmp_path.with_suffix(".err")]
        request = {
            "script": command[1],
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": dict(os.environ),
        }
        print(
            json.dumps(request | {"out": str(files[0]), "err": str(files[1])}), file=ready.stdin, flush=True
        )
        code = int(ready.stdout.readline())
        return subprocess.CompletedProcess(command, code, *(f.read_text(encoding="utf-8") for f in files))

    return run


@pytest.fixture
def in_process(own_logs, tmp_path, monkeypatch, capsys):
    """Run a script in this process, which spares the start of Python: `in_process(name, flags)` -> the
    finished process.
    """

    def run(name: str, flags: str) -> subprocess.CompletedProcess:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *flags.split(" ")])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        return subprocess.CompletedProcess(sys.argv, code, *capsys.readouterr())

    return run


@pytest.fixture
def text_file(tmp_path):
    """A small corpus of running text, the same for every run."""
    path = tmp_path / "text.txt"
    path.write_text(
        "".join(f"line {n} says {n * n % 97} times over, and {'again ' * (n % 4)}\n" for n in range(400)),
        encoding="utf-8",
    )
    return path


@pytest.fixture
def tracked(own_logs):
    """A copy of the tracked results and plots."""
    own_logs.mkdir()
    for name in ("results_All.csv", "receipts.csv", "extra.csv", "samples.csv"):
        if (ROOT / "logs" / name).exists():
            shutil.copyfile(ROOT / "logs" / name, own_logs / name)
    shutil.copytree(ROOT / "logs/plots", own_logs / "plots")
    return own_logs
