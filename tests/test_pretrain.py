"""The loop of a long run: accumulated gradients, windows without replacement, its log, its best weights."""

import dataclasses
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_pretraining import Watching

from common import lessons, results
from common.data import text_data
from common.model import assemble
from common.model.documents import keep_apart
from common.paths import ROOT
from common.training import checkpoint, memory
from common.training import optimizer as optimizers
from common.training.ahead import REACHED, ahead
from common.training.distributed import ALONE
from common.training.step_log import StepLog, operations_of_a_token, read_steps, speed_of_products

PRETRAIN = "09_pretraining/pretrain"
CONFIGS = sorted((ROOT / "09_pretraining/configs").glob("*.yaml"))
SMALL = {"n_embd": 32, "n_head": 2, "n_layer": 2, "block_size": 16, "batch_size": 4, "corpus": "pydoc"}
FLAGS = "--corpus pydoc --tokenizer char --n-embd 16 --n-head 2 --n-layer 1 --block-size 16 --batch-size 4"


def script() -> dict:
    return lessons.course_plan(PRETRAIN).train.__globals__


def settings(**own):
    winners = lessons.course_plan(PRETRAIN).settings("--config winners --training.schedule linear")
    return dataclasses.replace(winners, **SMALL | {"tokenizer": "char", "steps": 12, "warm_up": 3} | own)


class Recorder(Watching):
    """Keeps losses and rates, and has no checkpoint."""

    def __init__(self, steps, folder):
        super().__init__(steps)
        self.folder, self.path = folder, folder / checkpoint.NAME
        self.state, self.loss, self.dashboard, self.group = {"curve": []}, math.nan, None, ALONE

    def record(self, loss):
        super().record(loss)
        self.loss = self.losses[-1]

    def steps(self, model, optimizer):
        self.optimizer = optimizer
        return super().steps(model, optimizer)


def trained(s, folder, start=None, group=ALONE):
    """A small model after the steps of the loop. start: weights to begin with."""
    torch.manual_seed(3)
    data = text_data(s, "cpu").with_seed(1)
    model = assemble(s, data.tokenizer.vocab_size).double()
    model.load_state_dict(start or model.state_dict())
    recorder = Recorder(s.steps, folder)
    recorder.group = group
    script()["train"](model, data, s, recorder)
    return model, recorder


def test_a_step_of_several_batches_is_that_of_one_large_batch(tmp_path):
    s = settings(batch_size=16)
    whole, big = trained(s, tmp_path / "a")
    parts, small = trained(dataclasses.replace(s, batch_size=4, accumulate=4), tmp_path / "b")
    assert small.losses == pytest.approx(big.losses, rel=1e-9)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_a_batch_divided_wrongly_would_be_seen(tmp_path, monkeypatch):
    """Without the division a step of four batches has four times the gradient; clipping shows its length."""
    s = settings(batch_size=4, accumulate=4, steps=2)
    trained(s, tmp_path / "a")
    trained(dataclasses.replace(s, batch_size=16, accumulate=1), tmp_path / "b")
    norms = [read_steps(tmp_path / name / "log/steps.csv")[0]["norm"] for name in "ab"]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_every_window_comes_once_in_an_epoch():
    s = settings(batch_size=8, accumulate=2, block_size=16)
    data = text_data(s, "cpu").with_seed(1)
    data = dataclasses.replace(data, train=data.train.head(16 * 64))
    seen = [x for step in range(4) for x, _ in script()["batches"](data, s, step)]
    windows = torch.cat(seen)[:63]  # of 64 x 16 tokens, with a beginning of their own, 63 fit
    assert len({tuple(window.tolist()) for window in windows}) == 63


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns_and_its_rate_follows_the_schedule(optimizer, tmp_path):
    s = settings(steps=60, lr=1e-2, schedule="linear", optimizer=optimizer)
    _, recorder = trained(s, tmp_path)
    assert sum(recorder.losses[-10:]) < sum(recorder.losses[:10]) - 5
    rates = [rate for (rate,) in recorder.rates]
    assert max(rates) == rates[3] == 1e-2 and rates[-1] == pytest.approx(1e-2 / 57)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_tables_have_a_rate_and_pairs_a_decay_of_their_own(optimizer, tmp_path):
    own = {"lr": 1e-2, "table_lr": 3e-2, "pair_decay": 0.5, "weight_decay": 0.1, "n_bigram": 64}
    s = settings(optimizer=optimizer, embedding="bigram", schedule="linear", **own)
    model, recorder = trained(s, tmp_path)
    for inside, tables in map(sorted, recorder.rates):
        assert tables == pytest.approx(3 * inside)
    groups = recorder.optimizer.param_groups
    assert [group["share"] for group in groups] == [1.0, 3.0, 3.0]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.5]
    assert [len(group["params"]) for group in groups] == [8, 6, 1]  # others: tokens, five norms
    assert groups[2]["params"][0] is model.token.pairs.weight


def test_a_pair_that_does_not_come_any_more_is_forgotten():
    own = {"embedding": "bigram", "n_bigram": 64}
    model = assemble(settings(**own), 65)
    torch.nn.init.ones_(model.token.pairs.weight)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = optimizers.muon(optimizers.parameter_groups(model, 0.0, 0.5, 2.0), 0.1, 0.99)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["share"]
    optimizer.step()
    for name, p in model.named_parameters():
        expected = 0.9 if name == "token.pairs.weight" else 1.0  # 1 - 2 x 0.1 x 0.5
        torch.testing.assert_close(p, expected * before[name])


def test_the_recipe_is_what_runs_without_flags():
    plan = lessons.course_plan(PRETRAIN)
    assert plan.defaults == plan.settings("--config recipe")
    assert plan.settings("--steps 7 --warm-up 1") == dataclasses.replace(plan.defaults, steps=7, warm_up=1)
    eighth, sixteenth = (plan.settings(f"--preset {name}") for name in ("eighth", "sixteenth"))
    assert eighth.steps == pytest.approx(plan.defaults.steps / 8, rel=0.05)
    assert eighth == dataclasses.replace(plan.defaults, **script()["EIGHTH"])
    assert sixteenth.n_layer == 2 and sixteenth.steps < eighth.steps
    bare = dataclasses.asdict(plan.settings("--config llama_tiny"))  # nothing of the recipe is left
    assert bare["embedding"] == "token" and bare["head"] == "tied" and bare["optimizer"] == "adamw"
    assert bare["pair_decay"] == bare["table_lr"] == 0 and not bare["qk_norm"]


def test_the_log_has_every_number_of_every_step(tmp_path):
    s = settings()
    _, recorder = trained(s, tmp_path)
    lines = read_steps(tmp_path / "log/steps.csv")
    assert [line["step"] for line in lines] == list(range(12))
    assert [line["loss"] for line in lines] == pytest.approx(recorder.losses, rel=1e-6)
    ema = recorder.losses[0]
    for line, loss in zip(lines, recorder.losses, strict=True):
        ema = 0.99 * ema + 0.01 * loss
        assert line["ema"] == pytest.approx(ema, rel=1e-6)
        assert line["perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
        assert line["norm"] > 0 and 0 < line["mfu"] < 1.5 and line["tokens_per_second"] > 0


def test_a_log_that_was_cut_off_goes_on(tmp_path):
    log = StepLog(tmp_path / "steps.csv", ("loss", "lr"))
    for step in range(5):
        log.add(step, step / 3, 0.1)
    log.close()
    path = tmp_path / "steps.csv"
    path.write_text(path.read_text()[:-9] + "nonsense\n5,0.3", encoding="utf-8")
    again = StepLog(path, ("loss", "lr"))
    again.add(3, 9.0, 0.2)
    again.close()
    assert [(line["step"], line["loss"]) for line in read_steps(path)] == [
        (0, 0), (1, pytest.approx(1 / 3)), (2, pytest.approx(2 / 3)), (3, 9.0),
    ]  # fmt: skip
    assert read_steps(tmp_path / "none.csv") == []


def test_a_run_that_was_interrupted_ends_with_the_same_weights(in_process, own_logs):
    """Also its log has each step once, and the best weights are there."""
    flags = f"{FLAGS} --steps 30 --warm-up 3 --accumulate 2 --seeds 4 --threads 1"
    assert (done := in_process(PRETRAIN, flags)).returncode == 0, done.stderr
    folder = next(own_logs.glob(f"runs/{PRETRAIN}/default-seed4-*"))
    whole = checkpoint.load(folder / checkpoint.NAME)
    lines = read_steps(folder / "log/steps.csv")
    assert (folder / "best.safetensors").exists() and (folder / "training.png").exists()
    curve = whole.state["curve"]
    best = checkpoint.read_state(folder / "best.safetensors")
    assert best["curve"][-1][2] == min(point[2] for point in curve[1:])
    plan = lessons.course_plan(PRETRAIN)
    middle = curve[len(curve) // 2][0]
    assert 0 < middle < 30

    class Stop(Exception):
        pass

    def breaks(self, step, *values):
        if step == middle + 1:
            raise Stop
        return add(self, step, *values)

    add = StepLog.add
    (folder / checkpoint.NAME).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepLog, "add", breaks)
        with pytest.raises(Stop):
            in_process(PRETRAIN, flags)
    assert checkpoint.read_state(folder / checkpoint.NAME)["step"] == middle
    assert (done := in_process(PRETRAIN, f"{flags} --resume")).returncode == 0, done.stderr
    again = checkpoint.load(folder / checkpoint.NAME)
    assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)
    now = read_steps(folder / "log/steps.csv")
    assert [(a["step"], a["loss"], a["ema"]) for a in now] == [
        (a["step"], a["loss"], a["ema"]) for a in lines
    ]
    assert plan.course_arms == ["default"] and len(results.read()) >= 1


# runs a script, and kills its process at a call of a function: before it, or, where it writes, in the middle
KILLED = """
import importlib, os, runpy, signal, sys
module, name, call, *sys.argv = sys.argv[1:]
module, left = importlib.import_module(module), int(call)
whole = getattr(module, name)
def partly(*arguments, **named):
    global left
    left -= 1
    if left == 0:
        if name == "save_file":
            whole(*arguments, **named)
            os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **named)
setattr(module, name, partly)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
STEPS = f"{FLAGS} --steps 60 --warm-up 3 --accumulate 2 --seeds 4 --threads 1 --no-pictures --resume"


def same_end(logs, other) -> bool:
    """Whether the checkpoints of two runs hold the same bits: weights, moments, random state."""
    ends = [checkpoint.load(next(folder.glob("runs/**/" + checkpoint.NAME))) for folder in (logs, other)]
    first, second = (end.tensors for end in ends)
    same = set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)
    return same and ends[0].state["curve"] == ends[1].state["curve"]


def call(logs, *program: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"GPT_STAIRCASE_LOGS": str(logs), "PYTHONPATH": str(ROOT)}
    arguments = [*program, str(ROOT / f"{PRETRAIN}.py"), *STEPS.split()]
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize(
    "place",
    [
        ("common.data.order", "windows", "40"),  # in a step, between two checkpoints
        ("common.training.recorder", "score", "3"),  # before an evaluation
        ("common.training.checkpoint", "save_file", "2"),  # a checkpoint is half written
        ("shutil", "copyfile", "2"),  # the best weights are not yet copied
    ],
    ids=lambda place: place[1],
)
def test_killed_anywhere_it_ends_with_the_same_bits(place, tmp_path):
    assert call(tmp_path / "whole").returncode == 0
    assert call(tmp_path / "killed", "-c", KILLED, *place).returncode == -signal.SIGKILL
    saved = next((tmp_path / "killed").glob(f"runs/**/{checkpoint.NAME}"))
    step = checkpoint.read_state(saved)["step"]
    before = read_steps(saved.parent / "log/steps.csv")[:step]
    assert 0 < step == len(before) < 60
    done = call(tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    log = read_steps(saved.parent / "log/steps.csv")
    assert [line["step"] for line in log] == list(range(60))
    assert log[:step] == before  # with their times: these steps were not taken again
    assert same_end(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_at_twenty_random_moments_it_ends_with_the_same_bits(tmp_path):
    """The moments lie in the whole of a run, from its first step to its last checkpoint."""
    assert call(tmp_path / "whole").returncode == 0
    pick, killed, kills = random.Random(2), tmp_path / "killed", 0
    environment = os.environ | {"GPT_STAIRCASE_LOGS": str(killed), "PYTHONPATH": str(ROOT)}
    while kills < 20:
        running = subprocess.Popen(
            [sys.executable, str(ROOT / f"{PRETRAIN}.py"), *STEPS.split()],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while running.poll() is None and not list(killed.glob("runs/**/steps.csv")):
            time.sleep(0.01)
        time.sleep(pick.uniform(0, 1.5))
        if running.poll() is None:
            kills += 1
            running.kill()
        running.wait()
        if (killed / "results_All.csv").exists():  # done before it was killed: once more from the beginning
            assert same_end(tmp_path / "whole", killed)
            shutil.rmtree(killed)
    assert call(killed).returncode == 0
    assert same_end(tmp_path / "whole", killed)


def test_the_best_weights_are_copied_once_for_each_time_they_are_better(in_process, own_logs, monkeypatch):
    copied, copy = [], shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda a, b: copied.append(a) or copy(a, b))
    done = in_process(PRETRAIN, f"{FLAGS} --steps 30 --warm-up 3 --threads 1 --no-pictures")
    assert done.returncode == 0, done.stderr
    folder = next(own_logs.glob(f"runs/{PRETRAIN}/default-seed1-*"))
    curve = checkpoint.read_state(folder / checkpoint.NAME)["curve"]
    better = [n for n in range(1, len(curve)) if curve[n][2] == min(point[2] for point in curve[: n + 1])]
    assert 0 < len(copied) == len(better) < 30


# ---- documents that are kept apart ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("attention", "position"),
    [("flash", "rope"), ("explicit", "rope"), ("gqa", "alibi"), ("explicit", "alibi"), ("flash", "none")],
)
def test_a_document_in_a_window_is_read_as_if_it_were_alone(attention, position):
    """All at once and token by token; without the mask it is not."""
    shared = 1 if attention == "gqa" else 0
    torch.manual_seed(1)
    model = assemble(settings(attention=attention, position=position, n_kv_head=shared, block_size=32), 50)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    ids = torch.randint(1, 50, (2, 32))
    ids[0, 10] = ids[0, 25] = ids[1, 0] = 0
    alone = [model(ids[:1, :10]), model(ids[:1, 10:25]), model(ids[:1, 25:])]
    open_to_all = model(ids)
    keep_apart(model, end_of_text=0)
    masked = model(ids)
    torch.testing.assert_close(masked[:1], torch.cat(alone, dim=1), rtol=1e-4, atol=1e-4)
    assert (masked[0] - open_to_all[0]).abs().amax(-1)[10:].min() > 1e-3
    torch.testing.assert_close(masked[1], open_to_all[1], rtol=1e-4, atol=1e-4)
    cache = model.new_cache()
    pieces = [model(ids[:, :12], cache=cache), *(model(ids[:, t : t + 1], cache) for t in range(12, 32))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), masked, rtol=1e-4, atol=1e-4)


@pytest.fixture
def prepared(tmp_path):
    """A folder of token files with many short documents."""
    lines = [json.dumps({"text": f"document {n}: {'ab' * (n % 7)}"}) for n in range(300)]
    (tmp_path / "source.jsonl").write_text("\n".join(lines), encoding="utf-8")
    arguments = [str(tmp_path / "source.jsonl"), "--tokenizer", "char", "--out", str(tmp_path / "folder")]
    subprocess.run([sys.executable, ROOT / "09_pretraining/prepare.py", *arguments], check=True)
    return tmp_path / "folder"


def test_a_run_with_documents_kept_apart(prepared, in_process, own_logs):
    """Trains, scores and writes; and its losses are not those of a run that sees across."""
    small = FLAGS.replace("--corpus pydoc --tokenizer char ", f"--corpus {prepared} ")
    flags = f"{small} --steps 8 --warm-up 0 --threads 1 --no-pictures"
    logs = []
    for mask in ("", " --document-mask"):
        assert (done := in_process(PRETRAIN, flags + mask)).returncode == 0, done.stderr
        assert "ahead       8 steps of 4 x 16 tokens, 512 in all" in done.stdout
        folder = max(own_logs.glob(f"runs/{PRETRAIN}/default-*"), key=lambda f: f.stat().st_mtime)
        logs.append([line["loss"] for line in read_steps(folder / "log/steps.csv")])
    assert len(logs[0]) == len(logs[1]) == 8 and logs[0] != logs[1]
    refused = in_process(PRETRAIN, f"{flags} --document-mask --attention local")
    assert refused.returncode == 2 and "attention flash, gqa or explicit" in refused.stderr


# ---- what a user is told -------------------------------------------------------------------------


def test_what_lies_ahead_is_counted():
    s = settings(steps=50, batch_size=4, accumulate=3, block_size=16)
    data = text_data(s, "cpu")
    tokens = 50 * 12 * 16
    said = ahead(assemble, s, data, seconds=7200 * REACHED / tokens)
    assert f"50 steps of 12 x 16 tokens, {tokens:,} in all: {tokens / len(data.train):.2g} times" in said
    weights, kept = memory.needed(
        assemble, s, data.tokenizer.vocab_size, *data.train.at(torch.zeros(1).long())
    )
    assert f"about {memory.size(weights + kept)} of memory and 2 hours" in said


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_out_of_memory_says_what_to_shrink(device, in_process, own_logs, monkeypatch):
    """The CPU's error, as the library raises it, and that of a GPU."""

    def fails(*_):
        torch.empty(2**52 if device == "cpu" else 1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("common.data.order.windows", fails)
    done = in_process(PRETRAIN, f"{FLAGS} --steps 3 --warm-up 0 --threads 1 --no-pictures")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "ran out of memory; use a smaller --batch-size" in last, done.stderr
    assert not results.results_path().exists()


def test_going_on_with_other_settings_says_which_there_are(in_process, own_logs):
    flags = f"{FLAGS} --steps 3 --warm-up 0 --threads 1 --no-pictures"
    assert in_process(PRETRAIN, flags).returncode == 0
    done = in_process(PRETRAIN, f"{flags} --lr 1e-3 --resume")
    said = next(line for line in done.stdout.splitlines() if line.startswith("no checkpoint with these"))
    assert "there are runs with --corpus pydoc" in said and "--lr" not in said and done.returncode == 0


class Trackio:
    """In the place of the package: keeps what a run is told."""

    def __init__(self):
        self.begun, self.logged, self.finished = [], [], 0

    def init(self, project, name, config, resume, embed):
        self.begun.append((project, name, config["steps"], resume, embed))
        return self

    def log(self, numbers, step):
        self.logged.append((step, numbers))

    def finish(self):
        self.finished += 1


def test_the_dashboard_gets_the_numbers_of_the_log(in_process, own_logs, monkeypatch):
    package = Trackio()
    monkeypatch.setitem(sys.modules, "trackio", package)
    flags = f"{FLAGS} --steps 4 --warm-up 0 --threads 1 --no-pictures --trackio"
    assert (done := in_process(PRETRAIN, flags)).returncode == 0, done.stderr
    folder = next(own_logs.glob(f"runs/{PRETRAIN}/default-seed1-*"))
    assert package.begun == [("gpt-staircase", f"pretrain {folder.name}", 4, "allow", False)]
    lines = read_steps(folder / "log/steps.csv")
    assert [step for step, _ in package.logged] == [0, 1, 2, 3] and package.finished == 1
    for (_, numbers), line in zip(package.logged, lines, strict=True):
        assert {"step": line["step"], **numbers} == pytest.approx(line, rel=1e-6)
    monkeypatch.setitem(sys.modules, "trackio", None)
    refused = in_process(PRETRAIN, flags)
    assert refused.returncode == 2 and "pip install trackio" in refused.stderr
    refused = in_process("02_attention/bigram", "--trackio")
    assert refused.returncode == 2 and "--trackio does nothing in 02_attention/bigram" in refused.stderr


# ---- configurations ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_builds_and_says_how_large_it_is(path):
    plan = lessons.course_plan(PRETRAIN)
    s = plan.settings(f"--config {path.stem}")
    with torch.device("meta"):
        model = assemble(s, 50_257 if s.tokenizer == "gpt2" else 1024)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    about = {"yardstick": 0.9, "llama_tiny": 0.26, "gpt2_124m": 124, "wikipedia": 50.9, "1b": 1000}
    about |= {"recipe": 1.83, "ten_minutes": 3.73}
    assert millions == pytest.approx(about[path.stem], rel=0.07)
    if path.stem == "wikipedia":
        assert millions == pytest.approx(50.9, abs=0.05)
        with torch.device("meta"):
            untied = assemble(dataclasses.replace(s, head="untied"), 50_257)
        assert sum(p.numel() for p in untied.parameters()) / 1e6 == pytest.approx(76.6, abs=0.05)


@pytest.mark.parametrize("name", ["yardstick", "llama_tiny"])
def test_small_configurations_train(name, in_process, own_logs):
    flags = f"--config {name} --data.corpus pydoc --training.steps 3 --training.warm-up 0 --no-pictures"
    done = in_process(PRETRAIN, flags)
    assert done.returncode == 0, done.stderr
    assert results.read().test_bpc.notna().all()


def test_operations_of_a_token_are_those_of_the_formula():
    s = settings(n_embd=64, n_head=4, n_layer=3, block_size=128, position="rope", feed_forward="gelu")
    model = assemble(s, 500)
    matrices = 3 * 12 * 64 * 64 + 500 * 64
    norms = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    assert operations_of_a_token(model, 3, 64, 128) == 6 * (matrices + norms) + 12 * 3 * 64 * 128
    untied = assemble(dataclasses.replace(s, head="untied", position="learned"), 500)
    assert operations_of_a_token(untied, 3, 64, 128) == operations_of_a_token(model, 3, 64, 128)


def test_the_first_product_does_not_count(monkeypatch):
    """Everything that is loaded for it makes it slow: a share of the speed was once above one."""

    class Slow:
        laps = 0

        def to(self, dtype):
            return self

        def __matmul__(self, other):
            time.sleep(0.25 if Slow.laps == 0 else 0.002)
            Slow.laps += 1

    monkeypatch.setattr(torch, "randn", lambda *size, device: Slow())
    speed = speed_of_products("cpu", torch.float32)
    assert 2 * 1024**3 / 0.02 < speed < 2 * 1024**3 / 0.002 and Slow.laps >= 5


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--accumulate 0", "--accumulate 0 makes no sense; it must be at least 1"),
        ("--schedule cosin", "cosin"),
        ("--config lama_tiny", "config lama_tiny does not exist; did you mean 'llama_tiny'?"),
        ("--document-mask", "--document-mask takes token files (prepare.py)"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags, said, in_process):
    done = in_process(PRETRAIN, flags)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_when_a_run_passes_a_floor(tmp_path, monkeypatch):
    from common.report import pretraining

    monkeypatch.setattr(
        pretraining, "_floors", lambda corpus: {"2-gram": 3.0, "6-gram": 1.0, "yardstick": 2.5}
    )
    curve = [(0, None, 4.0, 6.0), (10, 3.0, 3.0, 2.9), (20, 2.0, 2.0, 2.5)]
    row = {"corpus": "text", "train_seconds": 8.0, "steps": 20}
    assert pretraining.draw_passing(row, curve, tmp_path) == [tmp_path / "floors.png"]
    lines = [line.split(",") for line in (tmp_path / "floors.csv").read_text("utf-8").splitlines()[1:]]
    assert {label: at for kind, label, at, _ in lines if kind == "floor"} == {
        "2-gram": "4.0", "6-gram": "", "yardstick": "8.0",
    }  # fmt: skip
    assert pretraining.draw_passing(row, curve[:1], tmp_path) == []
