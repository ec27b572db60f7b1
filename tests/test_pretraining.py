"""How training goes (stage 09): first weights, schedules, optimizers."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from common import lessons, results
from common.data import documents, text_data
from common.lessons.fingerprint import asked
from common.model.gpt import GPT
from common.paths import ROOT
from common.report.summary import Result
from common.settings import OptimizerSettings, ScheduleSettings, Settings
from common.training import loop
from common.training.loss_log import LossLog, read_losses
from common.training.recorder import Recorder

INIT, SCHEDULE, OPTIMIZER, ABLATION = (
    f"09_pretraining/{name}" for name in ("init", "schedule", "optimizer", "ablation")
)
SMALL = {"n_embd": 32, "n_head": 2, "n_layer": 2, "block_size": 16, "batch_size": 4, "corpus": "pydoc"}


def lesson(experiment: str) -> dict:
    """What the script of an experiment defines."""
    plan = lessons.course_plan(experiment)
    return (plan.overview or plan.train).__globals__


class Watching:
    """In the place of a recorder: notes the rate of each step and its loss."""

    def __init__(self, steps: int):
        self.count, self.rates, self.losses = steps, [], []

    def steps(self, model, optimizer):
        for step in range(self.count):
            yield step
            self.rates.append({group["lr"] for group in optimizer.param_groups})

    def record(self, loss):
        self.losses.append(loss.item())


def trained(train, s) -> tuple[nn.Module, Watching]:
    """A small model after the steps of a loop."""
    torch.manual_seed(3)
    data = text_data(dataclasses.replace(s, tokenizer="char"), "cpu").with_seed(1)
    model, watching = GPT(s, data.tokenizer.vocab_size), Watching(s.steps)
    train(model, data, s, watching)
    return model, watching


# ---- first weights -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "std", "writing"),
    [
        ("gpt2", 0.02, 0.02 / 8**0.5),
        ("unscaled", 0.02, 0.02),
        ("zero", 0.02, 0.0),
        ("small", 0.002, 0.002 / 8**0.5),
        ("large", 0.2, 0.2 / 8**0.5),
        ("gpt2-16", 0.02, 0.02 / 32**0.5),
        ("unscaled-16", 0.02, 0.02),
    ],
)
def test_each_matrix_has_the_width_that_its_arm_says(arm, std, writing):
    plan = lessons.course_plan(INIT)
    torch.manual_seed(1)
    model = plan.arms[arm](plan.own(arm, plan.defaults), 1024)
    seen = {"writing": 0, "others": 0}
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            assert set(weight.unique().tolist()) <= {0.0, 1.0}, name
            continue
        writes = name.endswith(("attention.projection.weight", "feed_forward.2.weight"))
        seen["writing" if writes else "others"] += 1
        expected = writing if writes else std
        assert weight.std().item() == pytest.approx(expected, rel=0.08), name
        assert abs(weight.mean().item()) <= 0.1 * expected + 1e-12, name
    depth = plan.own(arm, plan.defaults).n_layer
    assert seen == {"writing": 2 * depth, "others": 2 * depth + 2}


def test_gpt2_is_what_the_model_of_the_course_does_by_itself():
    plan = lessons.course_plan(INIT)
    for arm in ("gpt2", "gpt2-16"):
        s = plan.own(arm, plan.defaults)
        own, usual = plan.arms[arm](s, 1024), GPT(s, 1024)
        for (name, a), b in zip(own.named_parameters(), usual.parameters(), strict=True):
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.1, abs=1e-9), name


def test_a_block_that_begins_at_zero_hands_on_what_it_got():
    plan = lessons.course_plan(INIT)
    model = plan.arms["zero"](plan.own("zero", plan.defaults), 65)
    x = torch.randn(2, 8, 64)
    assert all(torch.equal(block(x, model.position), x) for block in model.blocks)


def test_the_probe_is_the_size_and_the_gradient_of_each_block():
    plan = lessons.course_plan(INIT)
    torch.manual_seed(0)
    model = plan.arms["gpt2"](plan.own("gpt2", plan.defaults), 65).double()
    x, y = torch.randint(65, (3, 20)), torch.randint(65, (3, 20))
    found = lesson(INIT)["probe"](model, x, y)
    stream, expected = model.position(model.token(x), 0), []
    for block in model.blocks:
        stream = block(stream, model.position)
        expected.append(stream.square().mean().sqrt().item())
    assert found["size of the stream"] == pytest.approx(expected, rel=1e-9)
    model.zero_grad()
    nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    norms = [sum(p.grad.square().sum() for p in block.parameters()).sqrt().item() for block in model.blocks]
    assert found["norm of the gradient"] == pytest.approx(norms, rel=1e-9)


# ---- schedules -----------------------------------------------------------------------------------


def rates(**settings) -> list[float]:
    s = ScheduleSettings(**{"steps": 200, "warm_up": 20, "lr": 0.5} | settings)
    return [lesson(SCHEDULE)["learning_rate"](step, s) for step in range(s.steps)]


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "stable-decay"])
def test_a_schedule_rises_to_the_peak_and_never_above_it(name):
    found = rates(schedule=name)
    assert found[:20] == pytest.approx([0.5 * (step + 1) / 21 for step in range(20)])
    assert max(found) == found[20] == 0.5
    assert all(later <= earlier for earlier, later in zip(found[20:], found[21:], strict=False))
    assert found[-1] == 0.5 if name == "constant" else 0 < found[-1] < 0.02


def test_schedules_where_they_are_known():
    assert rates(schedule="linear")[110] == pytest.approx(0.25)
    assert rates(schedule="cosine")[110] == pytest.approx(0.25)
    assert rates(schedule="cosine")[65] == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))
    late = rates(schedule="stable-decay")
    assert set(late[20:164]) == {0.5} and late[182] == pytest.approx(0.25)
    assert set(rates(warm_up=0)) == {0.5}


@pytest.mark.parametrize(("schedule", "cosine"), [("constant", False), ("cosine", True)])
def test_the_rate_is_that_of_the_loop_of_the_course(schedule, cosine):
    s = Settings(steps=200, warm_up=20, lr=0.5, cosine=cosine)
    expected = [loop.learning_rate(s, step) for step in range(s.steps)]
    assert rates(schedule=schedule) == pytest.approx(expected, rel=1e-12)


def every_step_is_taken_at_its_rate(script: dict) -> None:
    s = ScheduleSettings(**SMALL, schedule="linear", steps=8, warm_up=3, lr=1e-2, clip=1.0)
    _, watching = trained(script["train"], s)
    assert [rate for (rate,) in watching.rates] == pytest.approx(
        [1e-2 * share for share in (1 / 4, 2 / 4, 3 / 4, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5)]
    )


def test_every_step_is_taken_at_its_rate():
    every_step_is_taken_at_its_rate(lesson(SCHEDULE))


def test_at_a_constant_rate_it_is_the_loop_of_the_course():
    s = ScheduleSettings(**SMALL, steps=12, lr=1e-2, clip=1.0, beta2=0.99)
    own, watched = trained(lesson(SCHEDULE)["train"], s)
    usual, expected = trained(loop.train, s)
    assert watched.losses == expected.losses
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), usual.parameters(), strict=True))
    assert watched.losses[-1] < watched.losses[0]


# ---- optimizers ----------------------------------------------------------------------------------


def nearest_by_values(g: torch.Tensor) -> torch.Tensor:
    """Muon's polynomial applied to the singular values themselves, in float64."""
    u, values, v = torch.linalg.svd(g.double(), full_matrices=False)
    values = values / values.square().sum(-1, keepdim=True).sqrt()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return u * values[..., None, :] @ v


@pytest.mark.parametrize("shape", [(64, 64), (64, 192), (256, 64), (3, 5)])
def test_a_turned_matrix_has_singular_values_near_one(shape):
    """Between 0.7 and 1.2, as published; the same one by one as in a batch; and what the polynomial says."""
    orthogonal = lesson(OPTIMIZER)["orthogonal"]
    torch.manual_seed(0)
    batch = torch.randn(4, *shape)
    found = orthogonal(batch)
    values = torch.linalg.svdvals(found)
    # of a square matrix a few are too small to be driven there
    share = 0.95 if shape[0] == shape[1] else 0.999
    assert values.max() < 1.25 and (values > 0.65).float().mean() > share
    for one, g in zip(found, batch, strict=True):
        torch.testing.assert_close(orthogonal(g), one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.double(), nearest_by_values(batch), rtol=0, atol=1e-4)
    torch.testing.assert_close(orthogonal(1000 * batch), found, rtol=1e-4, atol=1e-5)  # length is no matter


def test_a_flat_gradient_is_no_trouble():
    """Of a matrix of zeros, and of one that has a single direction, no step is not a number."""
    orthogonal = lesson(OPTIMIZER)["orthogonal"]
    assert torch.equal(orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))
    one = orthogonal(torch.outer(torch.arange(1.0, 5), torch.ones(3)))
    assert torch.isfinite(one).all() and 0.65 < torch.linalg.svdvals(one)[0] < 1.25


def test_muon_is_that_of_the_library():
    """Which computes in bfloat16: equal to about three digits of a step."""
    torch.manual_seed(0)
    first = [torch.randn(48, 16), torch.randn(16, 48), torch.randn(16, 48)]
    ours, theirs = ([nn.Parameter(w.clone()) for w in first] for _ in range(2))
    part = {"params": ours, "weight_decay": 0.1, "orthogonal": True}
    own = lesson(OPTIMIZER)["Muon"]([part], 1e-2, (0.9, 0.99))
    library = torch.optim.Muon(
        theirs, lr=1e-2, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(20):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        own.step()
        library.step()
    for a, b, w in zip(ours, theirs, first, strict=True):
        assert (a - b).norm() < 0.02 * (a - w).norm()


def test_adamw_by_hand_is_that_of_the_library():
    """The part of Muon that is for all but matrices, over 50 steps, in float64."""
    torch.manual_seed(0)
    first = [torch.randn(7, 5).double(), torch.randn(5).double()]
    ours, theirs = ([nn.Parameter(w.clone()) for w in first] for _ in range(2))
    parts = [{"params": ours[:1], "weight_decay": 0.3}, {"params": ours[1:], "weight_decay": 0.0}]
    own = lesson(OPTIMIZER)["Muon"](parts, 1e-2, (0.9, 0.99))
    parts = [{"params": theirs[:1], "weight_decay": 0.3}, {"params": theirs[1:], "weight_decay": 0.0}]
    library = torch.optim.AdamW(parts, lr=1e-2, betas=(0.9, 0.99))
    for _ in range(50):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        own.step()
        library.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def written_out(model, gradients, s, decayed) -> dict[str, torch.Tensor]:
    """Weights after AdamW steps, as the paper has them. decayed: which names decay."""
    weights = {name: p.detach().double() for name, p in model.named_parameters()}
    means = {name: torch.zeros_like(w) for name, w in weights.items()}
    squares = {name: torch.zeros_like(w) for name, w in weights.items()}
    for t, step in enumerate(gradients, 1):
        for name, g in step.items():
            means[name] = 0.9 * means[name] + 0.1 * g
            squares[name] = s.beta2 * squares[name] + (1 - s.beta2) * g**2
            mean, square = means[name] / (1 - 0.9**t), squares[name] / (1 - s.beta2**t)
            decay = s.weight_decay if name in decayed else 0.0
            weights[name] = weights[name] * (1 - s.lr * decay) - s.lr * mean / (square.sqrt() + 1e-8)
    return weights


def decay_is_for_what_the_settings_say(script: dict, matrices_only: bool = True) -> None:
    s = OptimizerSettings(**SMALL, weight_decay=0.3, decay_matrices=matrices_only, lr=1e-2, beta2=0.99)
    torch.manual_seed(0)
    model = GPT(s, 65).double()
    names = [name for name, _ in model.named_parameters()]
    inside = {n for n in names if n.startswith("blocks.") and "norm" not in n}
    optimizer = script["adamw"](model, s)
    gradients = [{n: torch.randn_like(p) for n, p in model.named_parameters()} for _ in range(50)]
    expected = written_out(model, gradients, s, inside if matrices_only else set(names))
    for step in gradients:
        for name, p in model.named_parameters():
            p.grad = step[name].clone()
        optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("matrices_only", [True, False])
def test_decay_is_for_what_the_settings_say(matrices_only):
    """With groups: for matrices inside the blocks, not for norms and embeddings. 50 steps, by hand."""
    decay_is_for_what_the_settings_say(lesson(OPTIMIZER), matrices_only)


def test_every_parameter_has_one_optimizer_and_its_own_kind():
    s = OptimizerSettings(**SMALL, weight_decay=0.1)
    model = GPT(s, 65)
    names = {id(p): name for name, p in model.named_parameters()}
    for make in lesson(OPTIMIZER)["OPTIMIZERS"].values():
        held = [id(p) for group in make(model, s).param_groups for p in group["params"]]
        assert sorted(held) == sorted(names)
    turned = [g for g in lesson(OPTIMIZER)["muon"](model, s).param_groups if g["orthogonal"]]
    assert len(turned) == 1 and {names[id(p)].split(".")[2] for p in turned[0]["params"]} == {
        "attention",
        "feed_forward",
    }


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_each_optimizer_learns_and_goes_on_from_a_checkpoint(name, tmp_path):
    """Saved after four steps and gone on from, a run has the weights of one that was not interrupted."""
    s = OptimizerSettings(**SMALL, optimizer=name, steps=8, lr=1e-2, clip=1.0, warm_up=2)
    model, watching = trained(lesson(OPTIMIZER)["train"], s)
    assert watching.losses[-1] < watching.losses[0]
    assert watching.rates == [{s.lr * min(1.0, (step + 1) / 3)} for step in range(8)]
    data = text_data(dataclasses.replace(s, tokenizer="char"), "cpu")

    def run(folder, steps, resume):
        torch.manual_seed(3)
        own = GPT(s, data.tokenizer.vocab_size)
        state = {"experiment": OPTIMIZER, "arm": name, "seed": 1, "settings": {}, "code_hash": "c"}
        state |= {
            "tokenizer": data.tokenizer.state(),
            "corpus": data.corpus.name,
            "config_hash": "",
            "threads": 1,
        }
        own_steps = dataclasses.replace(s, steps=steps)
        recorder = Recorder(tmp_path / folder, data, own_steps, state, "")
        if resume:
            recorder.go_on_from({"c"})
        with recorder.held():
            lesson(OPTIMIZER)["train"](own, data.with_seed(1), s, recorder)
        return own

    whole = run("whole", 8, resume=False)
    run("parts", 4, resume=False)
    for a, b in zip(whole.parameters(), run("parts", 8, resume=True).parameters(), strict=True):
        assert torch.equal(a, b)


# ---- what a loop of its own reads ----------------------------------------------------------------


def test_flags_that_the_loop_reads_are_taken_and_others_refused(script):
    plan = lessons.course_plan(SCHEDULE)
    assert {"clip", "warm_up", "beta2", "schedule"} <= asked(plan.train)
    ignored = plan.ignores("constant", plan.defaults)
    assert {"cosine", "min_lr", "weight_decay", "decay_matrices", "dtype"} <= ignored
    assert not {"clip", "warm_up", "beta2", "tokenizer", "lr"} & ignored
    for flag in ("--weight-decay 0.1", "--decay-matrices", "--dtype bfloat16", "--cosine"):
        done = script(SCHEDULE, f"{flag} --corpus pydoc --arms warm-up-cosine")
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert f"{flag.split()[0]} does nothing in {SCHEDULE}" in done.stderr
    done = script(SCHEDULE, "--schedule cosin --corpus pydoc")
    assert done.returncode == 2 and "cosine" in done.stderr and done.stderr.count("\n") == 1


def test_the_loops_of_stage_01_still_have_no_recipe():
    for name in ("by_hand", "names_mlp"):
        plan = lessons.course_plan(f"01_bigram/{name}")
        ignored = plan.ignores("default", plan.defaults)
        assert {"dtype", "seconds", "warm_up", "clip", "weight_decay", "beta2"} <= ignored
        assert ("tokenizer" in ignored) == (name == "names_mlp")  # names are read letter by letter


# ---- the ablation study --------------------------------------------------------------------------

SEVEN = {
    "-b": "baseline", "-r": "rope", "-s": "swiglu", "-n": "rmsnorm", "-w": "warm-up", "-c": "warm-up-cosine",
    "-a": "all",
}  # fmt: skip


def spelled(text: str) -> list[str]:
    return lesson(ABLATION)["spelled_out"](text.split())


def test_a_letter_is_a_run_and_several_are_one_run():
    for letter, arm in SEVEN.items():
        assert spelled(letter) == ["--arms", arm]
    assert spelled("-n --steps 9 -w -r") == ["--steps", "9", "--arms", "rope+rmsnorm+warm-up"]
    assert spelled("-s -n -r -c") == ["--arms", "all"]
    assert spelled("--all-runs --quick") == ["--quick"] and spelled("") == []
    plan = lessons.course_plan(ABLATION)
    assert plan.course_arms == list(SEVEN.values())
    assert len(plan.arms) == 24  # of 32 sets of five parts, eight have both a warm-up and its cosine
    for letters in ("-r -s", "-n -w", "-r -s -n -w", "-s -c"):
        assert spelled(letters)[1] in plan.arms


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("-a -r", "-a is all parts: -r -s -n -c; leave it out, or leave -r out"),
        ("-s -b", "-b is the baseline, without any part; leave it out, or leave -s out"),
        ("-w -c", "-w is in it"),
        ("-r --all-runs", "-r chooses one run"),
        ("-r --arms swiglu", "-r chooses one run"),
        ("-r --lr 0", "--lr 0.0 makes no sense"),
        ("-x", "-x"),
    ],
)
def test_flags_that_contradict_one_another(flags, said, script, own_logs):
    done = script(ABLATION, f"{flags} --corpus pydoc")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (own_logs / "results_All.csv").exists()


def test_the_letters_stand_in_the_help(script):
    done = script(ABLATION, "--help")
    assert "-r RoPE" in done.stdout and "-a all of them" in done.stdout


def test_each_part_is_one_setting():
    plan = lessons.course_plan(ABLATION)
    base = dataclasses.asdict(plan.own("baseline", plan.defaults))
    changed = {
        arm: {k: v for k, v in dataclasses.asdict(plan.own(arm, plan.defaults)).items() if base[k] != v}
        for arm in plan.arms
    }
    assert changed["rope"] == {"position": "rope"} and changed["swiglu"] == {"feed_forward": "swiglu"}
    assert changed["rmsnorm"] == {"norm": "rmsnorm"} and changed["warm-up"] == {"warm_up": 60}
    assert changed["warm-up-cosine"] == {"warm_up": 60, "cosine": True} and changed["baseline"] == {}
    parts = ("rope", "swiglu", "rmsnorm", "warm-up-cosine")
    assert changed["all"] == {k: v for part in parts for k, v in changed[part].items()}
    counts = {
        arm: sum(p.numel() for p in plan.arms[arm](plan.own(arm, plan.defaults), 1024).parameters())
        for arm in SEVEN.values()
    }
    assert abs(counts["swiglu"] / counts["baseline"] - 1) < 0.01


def test_the_preset_of_the_study_is_a_model_of_gpt2s_size():
    plan = lessons.course_plan(ABLATION)
    s = plan.settings("--preset pile")
    assert (s.block_size, s.batch_size, s.lr, s.tokenizer) == (512, 16, 5e-6, "gpt2")
    with torch.device("meta"):
        model = plan.arms["all"](plan.own("all", s), 50_257)
    assert 110e6 < sum(p.numel() for p in model.parameters()) < 130e6
    small = dataclasses.replace(s, n_layer=1, batch_size=1)  # one step at its width and length
    model = plan.arms["all"](plan.own("all", small), 300)
    x = torch.randint(300, (1, 512))
    nn.functional.cross_entropy(model(x).flatten(0, -2), x.flatten()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_log_of_losses_has_each_step_once_also_after_an_interruption(script, own_logs, tmp_path):
    """A run that goes on drops what came after its checkpoint, and a line that was left half written."""
    path = tmp_path / "losses" / "a.csv"
    log = LossLog(path)
    for step in range(5):
        log.add(step, 4.0 - step / 3)
    log.close()
    assert read_losses(path) == [(step, 4.0 - step / 3) for step in range(5)]
    path.write_text(path.read_text() + "5,2.3", encoding="utf-8")  # no end of line: who knows what is missing
    assert [step for step, _ in read_losses(path)] == [0, 1, 2, 3, 4]
    path.write_text(path.read_text() + "\nrubbish\n,\n", encoding="utf-8")
    log = LossLog(path)
    log.add(3, 1.5)
    log.close()
    assert read_losses(path)[2:] == [(2, 4.0 - 2 / 3), (3, 1.5)]
    assert read_losses(tmp_path / "none.csv") == []
    flags = "-b --corpus pydoc --tokenizer char --steps 6 --threads 1"
    assert script(ABLATION, flags).returncode == 0
    kept = next(own_logs.glob(f"runs/{ABLATION}/baseline-seed1-*/losses/baseline.csv"))
    assert [step for step, _ in read_losses(kept)] == list(range(6))


def test_pictures_are_drawn_again_without_training(script, own_logs):
    flags = "--arms baseline rope --corpus pydoc --tokenizer char --steps 6 --threads 1"
    first = script(ABLATION, flags)
    assert first.returncode == 0, first.stderr
    drawn = sorted(own_logs.glob(f"runs/{ABLATION}/overview-*/**/*.png"))
    assert {p.stem for p in drawn} == {"training_comparison", "individual_grid", "baseline", "rope"}
    for path in drawn:
        path.unlink()
    rows = (own_logs / "results_All.csv").read_text(encoding="utf-8")
    assert script(ABLATION, f"{flags} --resume").returncode == 0
    assert sorted(own_logs.glob(f"runs/{ABLATION}/overview-*/**/*.png")) == drawn
    assert (own_logs / "results_All.csv").read_text(encoding="utf-8") == rows


def test_is_all_the_sum_of_its_parts():
    def result(arm, seed, bpc):
        return Result({"arm": arm, "seed": seed, "test_bpc": bpc}, [], [])

    gains = {"baseline": 0.0, "rope": -0.1, "swiglu": 0.02, "rmsnorm": 0.0, "warm-up": 0.5,
             "warm-up-cosine": -0.05, "all": -0.1}  # fmt: skip
    results = [
        result(arm, seed, 2.7 + seed / 100 + gain) for arm, gain in gains.items() for seed in (1, 2, 3)
    ]
    lines = {what: (mean, half) for what, mean, half in lesson(ABLATION)["sum_of_parts"](results)}
    assert lines["all"] == pytest.approx((-0.1, 0), abs=1e-9)
    assert lines["sum of the parts"] == pytest.approx((-0.13, 0), abs=1e-9)  # -w is part of -c
    assert lines["all minus the sum"] == pytest.approx((0.03, 0), abs=1e-9)
    assert lesson(ABLATION)["sum_of_parts"](results[:6]) == []


def test_slurm_gets_seven_jobs_of_one_gpu_each(tmp_path):
    """With a stub in the place of sbatch, which runs each job's script with `echo` for Python."""
    slurm = ROOT / "09_pretraining" / "slurm"
    stub = tmp_path / "sbatch"
    stub.write_text(
        '#!/usr/bin/env bash\necho "$@" >> "$JOBS"\nshift\nPYTHON=echo bash "$@"\n', encoding="utf-8"
    )
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "JOBS": str(tmp_path / "jobs")}
    done = subprocess.run(
        ["bash", slurm / "run_all.sh", "--device", "cuda"],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"09_pretraining/ablation.py {letter} --device cuda" for letter in SEVEN
    ]
    jobs = (tmp_path / "jobs").read_text(encoding="utf-8").splitlines()
    assert len(jobs) == 7 and all(
        f"run_single.sh {letter} " in job for letter, job in zip(SEVEN, jobs, strict=True)
    )
    assert "#SBATCH --gres=gpu:1" in (slurm / "run_single.sh").read_text(encoding="utf-8")
    wrong = subprocess.run(["bash", slurm / "run_single.sh", "-x"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and "wants one of -b -r -s -n -w -c -a" in wrong.stderr
    elsewhere = subprocess.run(
        ["bash", slurm / "run_single.sh", "-b"], capture_output=True, text=True, cwd=tmp_path
    )
    assert elsewhere.returncode == 2 and "is not the folder of the course" in elsewhere.stderr
    bare = {**os.environ, "PATH": "/usr/bin:/bin"}
    missing = subprocess.run(["bash", slurm / "run_all.sh"], env=bare, capture_output=True, text=True)
    assert missing.returncode == 2 and "sbatch is not here" in missing.stderr


def test_an_ablation_on_token_files(in_process, own_logs, tmp_path):
    """With the tokenizer that made them; bits per character are over the characters of the documents."""
    lessons.course_plan("09_pretraining/prepare")
    prepare = next(m for name, m in sys.modules.items() if name.startswith("stage_prepare_"))
    words = [f"number {n} and {n * n % 97} and {n * n * n % 89}" for n in range(900)]
    lines = "".join(json.dumps({"text": " ".join(words[n : n + 3])}) + "\n" for n in range(0, 900, 3))
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    a = prepare.Preparing(sources=(str(tmp_path / "a.jsonl"),), tokenizer="byte", workers=1)
    meta = prepare.prepare(documents.find(a.sources), tmp_path / "out", a)
    flags = f"-r --data {tmp_path / 'out'} --steps 3 --n-embd 16 --n-layer 1 --batch-size 2 --block-size 16"
    assert (done := in_process(ABLATION, flags)).returncode == 0, done.stderr
    row = results.read().iloc[0]
    assert (row.arm, row.tokenizer, row.vocab_size, row.corpus) == ("rope", "byte", 256, "out")
    counts = meta["splits"]["test"]
    nats = row.test_loss * (counts["tokens"] - 1)
    assert row.test_bpc == pytest.approx(nats / math.log(2) / counts["characters"], rel=1e-9)
    assert (done := in_process(ABLATION, f"{flags} --resume")).returncode == 0, done.stderr
    assert len(results.read()) == 1  # found again
    refused = in_process(ABLATION, f"{flags} --tokenizer char")
    assert refused.returncode == 2 and "leave --tokenizer out" in refused.stderr
