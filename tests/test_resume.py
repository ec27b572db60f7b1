"""The same command gives the same bits, also when it was interrupted; a run that diverges ends in order."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from common import results
from common.errors import UserError
from common.generation.load import load_run, locate
from common.paths import ROOT
from common.report import pictures, summary
from common.training import checkpoint, threads

SCRIPT = "02_attention/multi_head"


def row_without_times() -> dict:
    rows = results.read()
    assert len(rows) == 1
    return rows.drop(columns=list(results.VARYING)).astype(str).iloc[0].to_dict()


def start(script: str, flags: str, logs) -> subprocess.Popen:
    """Start a script; it runs on while the test goes on."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / f"{script}.py"), *flags.split()],
        env=os.environ | {"GPT_STAIRCASE_LOGS": str(logs)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip


def wait_for_checkpoint(logs, process) -> None:
    """Wait until the run has saved something."""
    deadline = time.monotonic() + 60
    while not list(logs.glob("runs/**/checkpoint.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(
    "experiment",
    [
        "01_bigram/by_hand",
        *(
            pytest.param(e, marks=pytest.mark.slow)
            for e in ("02_attention/multi_head", "01_bigram/names_bigram", "01_bigram/names_wavenet")
        ),
    ],
)
def test_the_same_command_gives_the_same_bits(experiment, script, tmp_path, monkeypatch):
    """With two threads: sums taken in the order in which threads arrive would differ from run to run.

    Two are asked for: a run that chooses the number itself goes by the time of its steps, and may choose
    another one next time.
    """
    found = []
    for n in range(2):
        monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(tmp_path / str(n)))
        corpus = "indian --steps 40" if "names" in experiment else "pydoc --steps 100"
        flags = f"--corpus {corpus} --seeds 3 --threads {min(2, threads.limit())}"
        done = script(experiment, flags, OMP_NUM_THREADS="2")
        assert done.returncode == 0, done.stderr
        found.append(row_without_times())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param("02_attention/multi_head", marks=pytest.mark.slow),
        *(pytest.param(e, marks=pytest.mark.long) for e in ("01_bigram/by_hand", "01_bigram/names_deep")),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_at_a_random_moment_and_resumed_equals_uninterrupted(
    experiment, script, tmp_path, monkeypatch
):
    steps = 600 if experiment == "01_bigram/by_hand" else 300  # it is fast
    flags = f"--corpus {'indian' if 'names' in experiment else 'pydoc'} --steps {steps} --seeds 3"
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(tmp_path / "whole"))
    assert script(experiment, flags).returncode == 0
    expected = row_without_times()

    killed, cut = tmp_path / "killed", 0
    for _ in range(2):
        process = start(experiment, flags + " --resume", killed)
        wait_for_checkpoint(killed, process)
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        process.communicate()
        if (killed / "results_All.csv").exists():
            break
        cut += 1
    assert cut or experiment == "01_bigram/by_hand"  # which is sometimes done before it can be killed
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(killed))
    done = script(experiment, flags + " --resume")
    assert done.returncode == 0, done.stderr
    assert row_without_times() == expected
    assert script(experiment, flags + " --resume").returncode == 0  # finished: nothing is added
    assert row_without_times() == expected


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(script, own_logs):
    process = start(SCRIPT, "--corpus pydoc --steps 100000", own_logs)
    wait_for_checkpoint_or_start(own_logs)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    line = error.strip().splitlines()[-1]
    assert line.startswith("stopped, state saved; go on with: python") and line.endswith(
        "--steps 100000 --resume"
    )
    saved = checkpoint.load(next(own_logs.glob("runs/**/checkpoint.safetensors")))
    assert saved.state["step"] > 0 and not results.results_path().exists()


def wait_for_checkpoint_or_start(logs) -> None:
    """Wait until training has begun: the run's folder is there, and a moment has passed."""
    deadline = time.monotonic() + 60
    while not list(logs.glob("runs/**/lock")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(2.0)


def test_a_run_that_diverges_is_a_row_and_the_next_seed_goes_on(script, own_logs):
    done = script("02_attention/multi_head", "--corpus pydoc --steps 60 --lr 1e30 --seeds 1 2")
    assert done.returncode == 0, done.stderr
    rows = results.read()
    assert (
        rows.diverged.tolist() == [True, True]
        and rows.test_loss.isna().all()
        and rows.seed.tolist() == [1, 2]
    )
    assert done.stdout.count("diverged (") == 2
    for path in own_logs.glob("runs/**/checkpoint.safetensors"):
        assert all(
            v.isfinite().all() for k, v in checkpoint.load(path).tensors.items() if k.startswith("model.")
        )


def only_folder(own_logs):
    return next(own_logs.glob("runs/**/checkpoint.safetensors")).parent


def test_resume_puts_a_damaged_checkpoint_aside_and_leaves_that_of_other_code_alone(script, own_logs):
    """A run of an edited script has a folder of its own, with its checkpoint and its pictures."""
    flags = "--corpus pydoc --steps 30"
    assert script("02_attention/bigram", flags).returncode == 0
    path = only_folder(own_logs) / checkpoint.NAME
    whole = path.read_bytes()
    for content, said in (
        (whole[: len(whole) // 2], "not a whole checkpoint"),
        (b"hello", "not a whole checkpoint"),
        (b"", "not a whole checkpoint"),
    ):
        path.write_bytes(content)
        done = script("02_attention/bigram", flags + " --resume")
        assert done.returncode == 0 and said in done.stdout and "begins at step 0" in done.stdout, done.stderr
        assert path.with_name(f"{path.name}.broken").read_bytes() == content  # nothing is lost
        assert checkpoint.whole_state(path)["step"] == 30
    code = results.read().code_hash[0]
    saved = whole.replace(code.encode(), b"0" * 12)
    path.write_bytes(saved)
    done = script("02_attention/bigram", flags + " --resume")
    assert (
        done.returncode == 0
        and "there are runs with another version of the code; begins at step 0" in done.stdout
    )
    assert (
        path.read_bytes() == saved
        and (path.parent.with_name(f"{path.parent.name}-{code}") / checkpoint.NAME).exists()
    )
    assert len(results.read()) == 1


def test_a_longer_run_says_that_it_begins_anew(script):
    assert script("02_attention/bigram", "--corpus pydoc --steps 20").returncode == 0
    done = script("02_attention/bigram", "--corpus pydoc --steps 40 --resume")
    assert (
        "no checkpoint with these settings and this code to go on from; there are runs with" in done.stdout
        and "--steps 20" in done.stdout
    )
    assert done.returncode == 0 and results.read().steps.tolist() == [20, 40]


def test_a_checkpoint_of_another_project_is_not_loaded(script, own_logs):
    assert script("02_attention/bigram", "--corpus pydoc --steps 5").returncode == 0
    folder = only_folder(own_logs)
    whole = (folder / checkpoint.NAME).read_bytes()
    (folder / checkpoint.NAME).write_bytes(whole.replace(b"02_attention/bigram", b"../../evil/bigram_x"))
    with pytest.raises(UserError, match="not in this project"):
        load_run(folder)


def test_saving_is_atomic(tmp_path, monkeypatch):
    """A write that fails half way leaves the old checkpoint, and no other file."""
    model = torch.nn.Linear(3, 3)
    path = tmp_path / checkpoint.NAME
    checkpoint.write(path, checkpoint.tensors(model, None, []), {"experiment": "x", "step": 1})
    before = path.read_bytes()

    def fail(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(path, checkpoint.tensors(model, None, []), {"experiment": "x", "step": 2})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [checkpoint.NAME]


def test_a_run_of_so_many_seconds_ends_then_and_can_be_gone_on_from(script, own_logs):
    """Its row has the steps it made; --resume does not train beyond its time."""
    flags = "02_attention/bigram", "--corpus pydoc --seconds 1"
    assert script(*flags).returncode == 0
    first = results.read().iloc[0]
    assert 1 <= first.train_seconds < 3 and first.steps > 20 and first.tokens_seen == first.steps * 32 * 64
    folder = next(own_logs.glob("runs/02_attention/bigram/*/checkpoint.safetensors"))
    state = checkpoint.load(folder).state
    assert 5 <= len(state["curve"]) <= 17 and state["curve"][-1][0] == first.steps
    assert script(flags[0], flags[1] + " --resume").returncode == 0
    assert checkpoint.load(folder).state["step"] == first.steps and len(results.read()) == 1


def test_a_vocabulary_in_a_file_is_known_by_its_content(script, tmp_path):
    """Another vocabulary at the same path is another configuration."""
    from common.data.tokenizer import BPETokenizer

    path, hashes = tmp_path / "v.json", []
    for text in ("ab ab cd", "xy xy zw"):
        BPETokenizer.train(text, 259).save(path)
        done = script("02_attention/bigram", f"--corpus pydoc --steps 2 --tokenizer {path} --resume")
        assert done.returncode == 0, done.stderr
        hashes.append(results.read().config_hash.iloc[-1])
    assert hashes[0] != hashes[1] and len(results.read()) == 2


def test_two_processes_do_not_train_the_same_run(script, own_logs):
    process = start("02_attention/bigram", "--corpus pydoc --steps 100000", own_logs)
    try:
        wait_for_checkpoint_or_start(own_logs)
        done = script("02_attention/bigram", "--corpus pydoc --steps 100000")
        assert done.returncode == 2 and "another process is training this run" in done.stderr
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_full_disk_costs_one_line(own_logs):
    """The library that writes checkpoints has an error of its own."""
    flags = "--corpus pydoc --steps 2 --n-embd 128 --threads 1"
    script = [sys.executable, f"{SCRIPT}.py", *flags.split()]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 40; exec "$@"', "bash", *script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the checkpoint cannot be written to") and "Traceback" not in done.stderr
    assert not results.results_path().exists()


# ---- one broken checkpoint beside a good one ------------------------------------------------------


def _break_the_first(own_logs) -> Path:
    path = next(own_logs.glob(f"runs/**/*-seed1-*/{checkpoint.NAME}"))
    path.write_bytes(path.read_bytes()[:1000])
    return path


def test_a_broken_checkpoint_blocks_no_other(script, own_logs):
    flags = "--corpus pydoc --steps 30 --seeds 1 2"
    assert script("02_attention/bigram", flags).returncode == 0
    path = _break_the_first(own_logs)
    written = script("02_attention/bigram", flags + " --generate")
    assert (
        written.returncode == 2 and "seed2-" in written.stdout and "arm 'default', seed 1" in written.stderr
    )
    more = script("02_attention/bigram", flags + " 3 --resume")
    assert more.returncode == 0, more.stderr
    assert f"put aside as {checkpoint.NAME}.broken" in more.stdout and path.exists()
    assert sorted(results.read().seed) == [1, 2, 3]


def test_pictures_are_drawn_beside_a_broken_checkpoint(own_logs):
    """What the report reads of run folders."""
    folder = own_logs / "runs" / "some"
    folder.mkdir(parents=True)
    (folder / checkpoint.NAME).write_bytes(b"hello")
    assert summary.read_curve(folder) == [] and not pictures._outdated("02_attention/bigram", folder)


def test_a_text_that_is_gone_is_not_needed_to_write(script, own_logs, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("some line of text, again and again\n" * 300, encoding="utf-8")
    flags = f"--corpus {path} --steps 5"
    assert script("02_attention/bigram", flags).returncode == 0
    path.unlink()
    written = script("02_attention/bigram", flags + " --generate --prompt som")
    assert written.returncode == 0 and "\nsom" in written.stdout, written.stderr
    name = f"02_attention/bigram {flags}"
    assert load_run(locate(name)).sample("text", length=5).startswith("text")
    other = script("02_attention/bigram", f"--corpus {path} --steps 6 --generate")
    assert other.returncode == 2 and "own.txt' does not exist" in other.stderr


def test_names_that_are_gone_are_not_needed_to_write(script, own_logs, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("\n".join(f"{a}{b}" for a in ("anna", "ben", "carla") for b in "abcdefgh"), "utf-8")
    flags = f"--corpus {path} --steps 5"
    assert script("01_bigram/names_mlp", flags).returncode == 0
    path.unlink()
    written = script("01_bigram/names_mlp", flags + " --generate")
    assert written.returncode == 0 and "own.txt' does not exist" in written.stderr, written.stderr
    assert "may be among these" in written.stderr and len(written.stdout.split("\n")[1].split()) >= 5
