"""Several processes that train one model: as one, killed, gone on with, and started wrongly."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_pretrain import FLAGS, PRETRAIN, settings, trained

from common.errors import UserError
from common.paths import ROOT
from common.training import checkpoint, sharded
from common.training.distributed import Group, join, part_of, whole
from common.training.step_log import read_steps

SCRIPT = str(ROOT / f"{PRETRAIN}.py")


def environment(rank: int, size: int, port: int, **own: str) -> dict:
    """What torchrun gives to a process."""
    numbers = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_PORT": port,
    }
    same = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return os.environ | {name: str(value) for name, value in numbers.items()} | same | own


def port() -> int:
    """One that nobody uses now."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def start(*programs: list[str], size: int = 0, **own: str) -> list[subprocess.Popen]:
    """Processes of one group, each with its own arguments for Python. size: how many are said to come."""
    free = port()
    return [
        subprocess.Popen(
            [sys.executable, *program],
            env=environment(rank, size or len(programs), free, **own),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, program in enumerate(programs)
    ]


def ends(processes: list[subprocess.Popen], seconds: float = 120) -> list[tuple[str, str, int]]:
    """Output, errors and exit code of each; none is left running."""
    try:
        return [(*p.communicate(timeout=seconds), p.returncode) for p in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def torchrun(count: int, flags: str, logs: Path) -> subprocess.CompletedProcess:
    """The script in so many processes, as a user starts it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--master-port", str(port())]
    return subprocess.run(
        [*command, "--nproc-per-node", str(count), SCRIPT, *flags.split()],
        env=os.environ | {"GPT_STAIRCASE_LOGS": str(logs), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )


def one_line(stderr: str) -> str:
    """The only line that is an error; what the libraries warn of besides is theirs."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in stderr
    return line


# ---- the same numbers ----------------------------------------------------------------------------

# trains as both kinds of group, counts what is sent in a step of three batches, and writes what came of it
WORKER = """
import json, sys
from pathlib import Path
import torch
from torch.distributed.tensor.debug import CommDebugMode
folder, tests = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, tests)
from test_pretrain import settings, trained
from common.model import assemble
from common.training.distributed import join, whole
import dataclasses
group = join("cpu", False)
found = {}
for kind in ("ddp", "fsdp"):
    group = dataclasses.replace(group, sharded=kind == "fsdp")
    for optimizer in ("adamw", "muon"):
        s = settings(optimizer=optimizer, accumulate=3, steps=20, clip=0.5)
        model, recorder = trained(s, folder, group=group)
        weights = {name: whole(x).tolist() for name, x in model.state_dict().items()}
        found[f"{kind} {optimizer}"] = recorder.losses, weights
    model = assemble(settings(), 50)
    shared = group.share(model)
    sent = []
    for last in (False, False, True):
        group.sync(shared, last)
        total = shared(torch.randint(50, (2, 16))).sum()
        with CommDebugMode() as counted:
            total.backward()
        names = {str(name): count for name, count in counted.get_comm_counts().items()}
        sent.append(sum(count for name, count in names.items() if "reduce" in name))
    found[f"{kind} sent"] = sent
    found[f"{kind} mean"] = group.mean(torch.tensor(float(group.rank))).item()
    found[f"{kind} most"] = group.max(group.rank, -group.rank)
if group.leads:
    (folder / "found.json").write_text(json.dumps(found))
group.leave()
"""


def test_two_processes_learn_what_one_does_and_send_gradients_once_a_step(tmp_path):
    """In 64 bits, so that a batch too much or a division too little cannot hide behind rounding."""
    (tmp_path / "worker.py").write_text(WORKER)
    program = [str(tmp_path / "worker.py"), str(tmp_path), str(ROOT / "tests")]
    for _, stderr, code in ends(start(program, program)):
        assert code == 0, stderr
    found = json.loads((tmp_path / "found.json").read_text())
    for optimizer in ("adamw", "muon"):
        model, recorder = trained(settings(optimizer=optimizer, accumulate=3, steps=20, clip=0.5), tmp_path)
        for kind in ("ddp", "fsdp"):
            losses, weights = found[f"{kind} {optimizer}"]
            assert losses == pytest.approx(recorder.losses, rel=1e-9)
            for name, x in model.state_dict().items():
                theirs = torch.tensor(weights[name], dtype=x.dtype)
                torch.testing.assert_close(theirs, x, rtol=1e-6, atol=1e-8)
    for kind in ("ddp", "fsdp"):
        first, second, last = found[f"{kind} sent"]
        assert first == second == 0 < last
        assert found[f"{kind} mean"] == 0.5 and found[f"{kind} most"] == [1, 0]


def test_one_process_is_a_group_of_its_own():
    alone, x = Group(), torch.randn(3)
    model = torch.nn.Linear(2, 2)
    assert alone.leads and alone.share(model) is model and alone.gather(7) == [7]
    assert torch.equal(alone.mean(x), x) and alone.max(2, 1) == [2, 1]
    assert whole(x) is x and part_of(x, x) is x
    alone.sync(model, True), alone.barrier(), alone.leave(), alone.agree({"a": 1})


@pytest.mark.parametrize(
    ("size", "batch_size", "accumulate"), [(1, 4, 3), (2, 4, 3), (3, 4, 3), (6, 4, 1), (12, 4, 3)]
)
def test_the_windows_of_a_step_do_not_depend_on_how_many_share_them(size, batch_size, accumulate):
    batches = trained.__globals__["script"]()["batches"]
    data = trained.__globals__["text_data"](settings(), "cpu").with_seed(1)
    s = settings(batch_size=batch_size, accumulate=accumulate)
    if (batch_size * accumulate) % size:
        with pytest.raises(UserError, match=f"multiple of {size}"):
            Group(0, size).check(batch_size * accumulate)
        return
    shares = [batches(data, s, 5, Group(rank, size)) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(x) == len(share[0][0]) <= batch_size for share in shares for x, _ in share)
    together = torch.cat([x for share in shares for x, _ in share])
    assert torch.equal(together, torch.cat([x for x, _ in batches(data, s, 5)]))


# ---- a whole run: interrupted, killed, with another number of processes --------------------------

RUN = f"{FLAGS} --steps 40 --warm-up 3 --accumulate 2 --seeds 4 --threads 1 --no-pictures --resume"


def end(logs: Path) -> tuple[checkpoint.Checkpoint, list[dict]]:
    """Checkpoint and log of the one run in a folder."""
    (folder,) = logs.glob(f"runs/{PRETRAIN}/default-seed4-*")
    assert not list(folder.glob("sharded-*"))
    return checkpoint.load(folder / checkpoint.NAME), read_steps(folder / "log/steps.csv")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run in one process."""
    logs = tmp_path_factory.mktemp("alone")
    own = {"GPT_STAIRCASE_LOGS": str(logs), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, SCRIPT, *RUN.split()]
    subprocess.run(command, env=os.environ | own, check=True, capture_output=True)
    return end(logs)


# kills its process at the call of a function with that number, or asks it to end, as a cluster does
STOPPED = """
import importlib, os, runpy, signal, sys
module, name, call, kind, rank, *sys.argv = sys.argv[1:]
module, left = importlib.import_module(module), int(call)
whole = getattr(module, name)
def stops(*arguments, **named):
    global left
    left -= 1
    if left == 0 and os.environ["RANK"] == rank:
        os.kill(os.getpid(), getattr(signal, kind))
    return whole(*arguments, **named)
setattr(module, name, stops)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def stopped(count: int, logs: Path, kind: str, rank: int, flags: str, call: str = "25") -> list[tuple]:
    """The run in so many processes, one of which gets a signal in a step."""
    program = ["-c", STOPPED, "common.data.order", "windows", call, kind, str(rank), SCRIPT, *flags.split()]
    return ends(start(*[program] * count, GPT_STAIRCASE_LOGS=str(logs)))


@pytest.mark.parametrize(
    ("kind", "then"),
    [
        pytest.param("ddp", 4, marks=pytest.mark.slow),
        pytest.param("fsdp", 1, marks=pytest.mark.slow),
        pytest.param("fsdp", 4, marks=pytest.mark.long),
        pytest.param("ddp", 1, marks=pytest.mark.long),
    ],
)
def test_other_numbers_of_processes_go_on_with_a_run(kind, then, alone, tmp_path):
    parallel = f" --parallel {kind}"
    for _, stderr, code in stopped(2, tmp_path, "SIGTERM", 1, RUN + parallel):
        assert code == 130, stderr
    saved, lines = end(tmp_path)
    assert saved.state["step"] == len(lines) == 25
    if then == 1:
        own = {"GPT_STAIRCASE_LOGS": str(tmp_path), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, SCRIPT, *RUN.split()], env=os.environ | own, check=True)
    else:
        done = torchrun(then, RUN + parallel, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("sample, seed 4") == 1
    saved, lines = end(tmp_path)
    whole, expected = alone
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=1e-5)
    assert saved.state["curve"][-1] == pytest.approx(whole.state["curve"][-1], rel=1e-5)
    assert len((tmp_path / "results_All.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "kind", [pytest.param("fsdp", marks=pytest.mark.slow), pytest.param("ddp", marks=pytest.mark.long)]
)
def test_when_one_is_killed_the_other_says_so_and_the_run_goes_on_bit_for_bit(kind, tmp_path):
    flags = f"{RUN} --parallel {kind}"
    for name in ("whole", "killed"):
        if name == "killed":
            begun = time.time()
            (_, stderr, code), (_, _, killed) = stopped(2, tmp_path / name, "SIGKILL", 1, flags)
            assert code == 2 and killed == -signal.SIGKILL and time.time() - begun < 60
            assert "another is no longer there" in one_line(stderr) and "--resume" in stderr
            left = "sharded-*/state.json" if kind == "fsdp" else checkpoint.NAME
            assert list(tmp_path.glob(f"killed/runs/{PRETRAIN}/default-seed4-*/{left}"))
        done = torchrun(2, flags, tmp_path / name)
        assert done.returncode == 0, done.stderr
    (whole, lines), (again, lines_again) = end(tmp_path / "whole"), end(tmp_path / "killed")
    assert set(whole.tensors) == set(again.tensors)
    assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)
    assert whole.state["curve"] == again.state["curve"]
    assert [line["loss"] for line in lines] == [line["loss"] for line in lines_again]


def test_a_checkpoint_in_parts_counts_when_it_is_whole(tmp_path):
    """One that was being written when its process ended has no state."""
    for step in (8, 16, 9):
        (tmp_path / f"sharded-{step}").mkdir()
    assert sharded.newest(tmp_path) is None
    for step in (8, 9):
        (tmp_path / f"sharded-{step}" / sharded.STATE).write_text("{}")
    assert sharded.newest(tmp_path) == tmp_path / "sharded-9"
    sharded.remove(tmp_path)
    assert not list(tmp_path.iterdir())


# ---- started wrongly -----------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_with_different_commands_say_what_differs(tmp_path):
    first, second = ([SCRIPT, *f"{RUN} --lr {lr}".split()] for lr in (1e-3, 2e-3))
    for _, stderr, code in ends(start(first, second, GPT_STAIRCASE_LOGS=str(tmp_path))):
        assert code == 2 and "has --lr 0.00" in one_line(stderr)
    assert not list(tmp_path.glob("runs/**/*.safetensors")) and not (tmp_path / "results_All.csv").exists()


@pytest.mark.slow
def test_windows_that_cannot_be_dealt_out(tmp_path):
    odd = [SCRIPT, *RUN.replace("--batch-size 4", "--batch-size 3").replace("--accumulate 2", "").split()]
    (_, stderr, code), (_, silent, other) = ends(start(odd, odd, GPT_STAIRCASE_LOGS=str(tmp_path)))
    assert code == other == 2 and "let --batch-size times --accumulate be a multiple of 2" in one_line(stderr)
    assert "error" not in silent


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_whose_others_do_not_come(rank, monkeypatch):
    from datetime import timedelta

    from common.training import distributed

    own = environment(rank, 2, port())
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, own[name])
    monkeypatch.setattr(distributed, "TOGETHER", timedelta(seconds=2))
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    begun = time.time()
    with pytest.raises(UserError, match=f"process {rank} of 2 did not find the others in 2 seconds"):
        join("cpu", False)
    assert time.time() - begun < 20


def test_variables_that_do_not_belong_together(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="start with torchrun, or unset"):
        join("cpu", False)


def test_what_only_several_processes_can_do(in_process, monkeypatch):
    done = in_process(PRETRAIN, f"{FLAGS} --steps 5 --warm-up 0 --parallel fsdp")
    assert done.returncode == 2 and "--parallel fsdp does nothing in one process" in done.stderr
    done = in_process("05_residual_norm/pre_ln", "--steps 5 --parallel fsdp")
    assert done.returncode == 2 and "trains in one process" in done.stderr
    monkeypatch.setenv("RANK", "0")
    done = in_process("05_residual_norm/pre_ln", "--steps 5")
    assert done.returncode == 2 and "start it with python" in done.stderr


# ---- on a cluster --------------------------------------------------------------------------------


def stub(folder: Path, name: str, program: str) -> None:
    """A program in the place of one of Slurm's."""
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{program}\n", encoding="utf-8")
    path.chmod(0o755)


def test_a_slurm_job_starts_torchrun_once_a_node(tmp_path):
    script = ROOT / "09_pretraining/slurm/pretrain.sh"
    stub(tmp_path, "srun", 'for node in $(seq "$SLURM_JOB_NUM_NODES"); do "${@:2}"; done')
    stub(tmp_path, "scontrol", "printf 'gpu03\\ngpu04\\n'")
    job = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "gpu[03-04]"}
    own = (
        os.environ
        | job
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCHRUN": "echo", "SLURM_GPUS_ON_NODE": "4"}
    )
    command = ["bash", str(script), "--config", "gpt2_124m"]
    done = subprocess.run(command, env=own, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second and "--nnodes=2 --nproc-per-node=4" in first
    assert "--rdzv-id=77 --rdzv-backend=c10d --rdzv-endpoint=gpu03:29500" in first
    assert first.endswith("09_pretraining/pretrain.py --config gpt2_124m --device cuda --resume")
    text = script.read_text(encoding="utf-8")
    assert "#SBATCH --requeue" in text and "#SBATCH --ntasks-per-node=1" in text
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    for cwd, reason in ((ROOT, "this is no Slurm job"), (tmp_path, "is not the folder of the course")):
        wrong = subprocess.run(command, env=bare, cwd=cwd, capture_output=True, text=True)
        assert wrong.returncode == 2 and reason in wrong.stderr


@pytest.mark.slow
def test_two_torchruns_that_meet_are_one_run(alone, tmp_path):
    """As two nodes of a cluster do: each has a torchrun of its own, and they find one another by name."""
    meeting = [
        "--rdzv-backend",
        "c10d",
        "--rdzv-id",
        "x",
        "--rdzv-endpoint",
        f"127.0.0.1:{port()}",
        "--local-addr",
        "127.0.0.1",
    ]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        *meeting,
        SCRIPT,
    ]
    own = os.environ | {"GPT_STAIRCASE_LOGS": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            [*command, *RUN.split()], env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = ends(nodes)
    assert [code for *_, code in outputs] == [0, 0], outputs
    assert sorted(stdout.count("sample, seed 4") for stdout, *_ in outputs) == [0, 1]
    (_, lines), (_, expected) = end(tmp_path), alone
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_compiled_model_is_shared_too(kind, alone, tmp_path):
    done = torchrun(2, f"{RUN} --compile --parallel {kind}", tmp_path)
    assert done.returncode == 0, done.stderr
    (_, lines), (_, expected) = end(tmp_path), alone
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=1e-5)
