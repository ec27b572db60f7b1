"""Scripts that draw one picture of many runs; presets and the smaller form; memory told in advance; attention
of any model.
"""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from common import results
from common.command_line import flags, parse
from common.data import text_data
from common.data.corpora import family_of
from common.errors import UserError
from common.generation.load import Run, load_run
from common.lessons import receipts
from common.lessons.course import course_plan
from common.paths import ROOT
from common.report import maps, pictures
from common.report.evidence import Measured
from common.settings import Arm, Settings
from common.tools import attention_map
from common.training import checkpoint, memory

MAP = "05_residual_norm/depth_map"


def cells(path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---- the depth map -------------------------------------------------------------------------------


def test_the_map_has_every_cell_the_issue_of_depth_needs():
    plan = course_plan(MAP)
    assert len(plan.arms) == 4 * 2 * 6 and plan.header.seeds == [1, 2]
    assert {plan.own(arm, plan.defaults).n_layer for arm in plan.arms} == {1, 2, 4, 8, 16, 32}
    assert {plan.own(arm, plan.defaults).warm_up for arm in plan.arms} == {0, 100}
    # depth and warm-up are settings; the wiring is the arm
    assert len({plan.config(arm, plan.defaults) for arm in plan.arms}) == 12


def test_each_wiring_is_what_its_script_taught():
    """The same weights give the same output as the scripts that the wirings come from."""
    for wiring, script in (("plain", "04_stacking/stack"), ("residual", "05_residual_norm/projection"),
                           ("post-LN", "05_residual_norm/post_ln"),
                           ("pre-LN", "05_residual_norm/pre_ln")):  # fmt: skip
        s = dataclasses.replace(course_plan(MAP).defaults, n_layer=2)
        cell = course_plan(MAP).arms[f"{wiring}-2"](s, 65)
        taught = course_plan(script).arms["default"](s, 65)
        missing = taught.load_state_dict(cell.state_dict(), strict=wiring != "plain")
        if wiring == "plain":  # stack has no projection yet: one that changes nothing is as good as none
            assert all("projection" in name for name in missing.unexpected_keys) and not missing.missing_keys
            for block in cell.blocks:
                block.attention.projection.weight.data.copy_(torch.eye(s.n_embd))
                block.attention.projection.bias.data.zero_()
        x = torch.randint(65, (2, s.block_size))
        torch.testing.assert_close(cell(x), taught(x))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_the_map_is_resumed_cell_by_cell(script, own_logs, text_file):
    flags = f"--corpus {text_file} --arms plain-1 pre-LN-1 post-LN-warm-up-1 --steps 400"
    flags += " --batch-size 2 --seeds 1 2"
    command = [sys.executable, str(ROOT / f"{MAP}.py"), *flags.split()]
    process = subprocess.Popen(
        command, env=os.environ | {"GPT_STAIRCASE_LOGS": str(own_logs)}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not len(results.read()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "--resume" in error
    done_before = len(results.read())
    assert 1 <= done_before < 6
    kept = {path: path.stat().st_mtime_ns for path in own_logs.glob("runs/**/checkpoint.safetensors")}
    done = script(MAP, f"{flags} --resume")
    assert done.returncode == 0, done.stderr
    rows = results.read()
    assert len(rows) == 6 and len(rows.drop_duplicates(["arm", "seed"])) == 6
    again = sum(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert again >= done_before, "a finished cell was trained again"
    drawn = cells(next(own_logs.glob("runs/05_residual_norm/depth_map/overview-*/map.csv")))
    assert {(c["arm"], int(c["seed"]), float(c["test_bpc"])) for c in drawn} == {
        (r.arm, r.seed, r.test_bpc) for r in rows.itertuples()
    }


def test_a_map_goes_on_after_its_script_was_edited(script, own_logs, text_file):
    """A cell whose checkpoint is of other code is trained anew; a half-trained cell with a row is finished
    before it is drawn.
    """
    flags = f"--corpus {text_file} --arms post-LN-1 --steps 6 --batch-size 2"
    assert script(MAP, flags).returncode == 0
    path = next(own_logs.glob("runs/**/checkpoint.safetensors"))
    saved = checkpoint.load(path)
    for change in ({"code_hash": "older"}, {"step": 3}):
        safetensors.torch.save_file(saved.tensors, path, metadata={"state": json.dumps(saved.state | change)})
        done = script(MAP, f"{flags} --resume")
        assert done.returncode == 0, done.stderr
        own = (
            path
            if "step" in change
            else path.parent.with_name(f"{path.parent.name}-{saved.state['code_hash']}") / path.name
        )
        assert (
            checkpoint.load(own).state["step"] == 6
            and checkpoint.load(own).state["code_hash"] == saved.state["code_hash"]
        )
        if own != path:  # the other code's is kept where it was
            assert checkpoint.load(path).state["code_hash"] == "older"
            shutil.rmtree(own.parent)
    assert len(results.read()) == 1


def test_a_cell_of_code_that_was_proved_equal_is_not_trained_again(script, own_logs, text_file):
    flags = f"--corpus {text_file} --arms post-LN-1 --steps 6 --batch-size 2"
    assert script(MAP, flags).returncode == 0
    path, row = next(own_logs.glob("runs/**/checkpoint.safetensors")), results.read().iloc[0]
    saved = checkpoint.load(path)
    safetensors.torch.save_file(
        saved.tensors, path, metadata={"state": json.dumps(saved.state | {"code_hash": "older"})}
    )
    names = {
        "experiment": MAP,
        "arm": row.arm,
        "config_hash": row.config_hash,
        "old_code": "older",
        "new_code": row.code_hash,
    }
    receipts.append(dict.fromkeys(receipts.COLUMNS, "x") | names)
    before = path.stat().st_mtime_ns
    done = script(MAP, f"{flags} --resume")
    assert done.returncode == 0 and path.stat().st_mtime_ns == before and len(results.read()) == 1


def test_a_diverged_cell_is_marked(tmp_path):
    found = [
        ("plain", "1", "plain-1", 1, 3.0),
        ("plain", "2", "plain-2", 1, None),
        ("plain", "2", "plain-2", 2, 4.0),
    ]
    path = maps.heat_map(found, ("blocks", "bits"), "title", tmp_path / "map")
    assert path.exists() and [c["test_bpc"] for c in cells(path.with_suffix(".csv"))] == ["3.0", "nan", "4.0"]


def test_a_changed_cell_of_a_tracked_map_is_found(tmp_path, tracked):
    paths = sorted((tracked / "plots").glob(f"{MAP.replace('/', '_')}_*.csv"))
    assert [path.stem.split("_")[-1] for path in paths] == ["gradient", "map"]
    assert pictures.overview_problems(Measured(), MAP, paths) == []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        value = text.splitlines()[1].split(",")[-1]
        path.write_text(text.replace(value, str(float(value) + 0.1), 1), encoding="utf-8")
        assert pictures.overview_problems(Measured(), MAP, paths)[0].startswith(
            f"{path.name}: what it says of plain-1, seed 1"
        )
        path.write_text(
            "\n".join(line for line in text.splitlines() if "plain-4," not in line), encoding="utf-8"
        )
        if path.stem.endswith("map"):
            assert "lack plain-4, seed 1" in pictures.table_problems(Measured(), MAP, [path])[0]
        path.write_text(text, encoding="utf-8")


# ---- presets, the smaller form, arms with settings of their own ----------------------------------


def test_a_preset_sets_what_it_says_and_single_flags_still_count():
    presets = {"a": {"n_layer": 2, "lr": 0.5}}
    assert parse(Settings(), "", ["--preset", "a"], presets)[0] == Settings(n_layer=2, lr=0.5)
    assert parse(Settings(), "", ["--preset", "a", "--lr", "0.1"], presets)[0] == Settings(n_layer=2, lr=0.1)
    s, options = parse(Settings(), "", ["--quick"], presets, {"steps": 3})
    assert s.steps == 3 and not options.log
    on = {"a": {"cosine": True, "lr": 0.5}}
    assert parse(Settings(), "", ["--preset=a", "--no-cosine"], on)[0] == Settings(lr=0.5)
    assert flags(Settings(cosine=True), Settings()) == "--no-cosine"
    with pytest.raises(UserError, match="it has a"):
        parse(Settings(), "", ["--preset", "b"], presets)


def test_the_smaller_form_logs_nothing(script):
    done = script("02_attention/bigram", "--corpus pydoc --quick")
    assert done.returncode == 0 and "not logged" in done.stdout and not results.results_path().exists()


def test_arms_with_settings_of_their_own_are_told_apart():
    heads = course_plan("02_attention/multi_head")
    model = heads.arms["default"]
    plan = dataclasses.replace(heads, arms={"two": Arm(model, n_head=2), "four": model})
    s = plan.defaults
    assert plan.own("two", s).n_head == 2 and plan.own("four", s).n_head == 4
    assert plan.config("two", s) != plan.config("four", s) == heads.config("default", s)


# ---- memory --------------------------------------------------------------------------------------


def test_the_estimate_is_what_is_really_kept(text_file):
    """Bytes counted on tensors without memory equal those counted in a real step."""
    s = Settings(corpus=str(text_file), n_layer=2, n_embd=32, block_size=16, batch_size=8)
    data = text_data(s)
    build = course_plan("06_transformer/gpt").arms["default"]
    window = data.train.at(torch.zeros(1, dtype=torch.long))
    weights, activations = memory.needed(build, s, data.tokenizer.vocab_size, *window)
    model = build(s, data.tokenizer.vocab_size)
    assert weights == 16 * sum(p.numel() for p in model.parameters())
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}
    x, y = data.batch(0)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda z: kept.setdefault(z.untyped_storage().data_ptr(), z), lambda z: z
    ):
        F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    real = sum(z.untyped_storage().nbytes() for key, z in kept.items() if key not in own)
    assert abs(activations - real) <= 0.02 * real


# ---- attention of any model ----------------------------------------------------------------------


@pytest.fixture
def trained(script, own_logs, text_file):
    def train(experiment: str) -> Run:
        done = script(experiment, f"--corpus {text_file} --steps 3 --batch-size 4")
        assert done.returncode == 0, done.stderr
        return load_run(next(own_logs.glob(f"runs/{experiment}/*/checkpoint.safetensors")).parent)

    return train


SHAPES = {
    "02_attention/average": (1, 1),
    "02_attention/positions": (1, 1),
    "05_residual_norm/post_ln": (4, 4),
    "06_transformer/fast_gpt": (4, 4),
}


@pytest.mark.parametrize(("experiment", "shape"), SHAPES.items())
def test_attention_of_every_head_is_caught(experiment, shape, trained):
    run = trained(experiment)
    layers = attention_map.attention(run, "line 12 says 5 times")
    assert (len(layers), len(layers[0])) == shape
    for weights in layers:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
        assert weights.triu(1).abs().max() == 0  # nothing of the future
    if experiment.endswith("average"):
        torch.testing.assert_close(layers[0][0, 9, :10], torch.full((10,), 0.1))
        once = sum(1 / t for t in range(2, 21)) / 19  # row t of an average puts 1/t on each of t positions
        torch.testing.assert_close(
            torch.tensor(attention_map.habits(layers[0])[0]), torch.tensor([once, once, 11.0])
        )


def test_fast_attention_shows_what_the_readable_one_computes(trained, script, own_logs):
    """The weights that the fused kernel never writes are those of the explicit form."""
    from test_transformer import fused

    fast = trained("06_transformer/fast_gpt")
    slow = course_plan("06_transformer/gpt").arms["default"](fast.settings, fast.tokenizer.vocab_size)
    for p in slow.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    fast.model.load_state_dict(fused(slow.state_dict()))
    there = dataclasses.replace(fast, model=slow)
    for a, b in zip(
        attention_map.attention(fast, "again and"), attention_map.attention(there, "again and"), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_attention_map_as_a_command(trained, own_logs, tmp_path):
    trained("02_attention/multi_head")
    folder = next(own_logs.glob("runs/**/checkpoint.safetensors")).parent
    tool = [sys.executable, "-m", "common.tools.attention_map", str(folder)]

    def call(*flags):
        return subprocess.run([*tool, *flags], capture_output=True, text=True, encoding="utf-8", cwd=ROOT)

    done = call("--prompt", "line 1\n", "--out", str(tmp_path / "a.png"))
    assert done.returncode == 0 and (tmp_path / "a.png").stat().st_size > 5000, done.stderr
    assert len(done.stdout.splitlines()) == 4 + 2
    assert call().returncode == 0 and (folder / "attention_map.png").exists()
    for wrong_flags, said in (
        (["--prompt", "a" * 65], "takes 2 to 64"),
        (["--prompt", "\u4f60\u597d"], "has no"),
        (["--out", "no/where.png"], "does not exist"),
        (["--out", "a.svg"], "ends in .png"),
    ):
        wrong = call(*wrong_flags)
        assert wrong.returncode == 2 and said in wrong.stderr and wrong.stderr.count("\n") == 1, wrong.stderr


def test_a_model_without_attention_says_so(trained):
    with pytest.raises(UserError, match="has no attention to show"):
        attention_map.attention(trained("02_attention/bigram"), "lines")


def test_the_built_in_library_corpus_is_the_same_every_time():
    from common.data.corpora import load_text

    corpus = load_text("stdlib")
    assert corpus == load_text("stdlib") and corpus.name.startswith("stdlib-3.") and corpus.family == "stdlib"
    assert 5_000_000 < len(corpus.text) < 12_000_000 and corpus.text.isascii() and len(set(corpus.text)) < 100
    assert family_of("stdlib") == "stdlib"


def test_a_table_that_was_made_of_all_runs_is_not_compared_with_single_rows(tmp_path):
    """As the sum of an ablation's parts, which has neither arm nor seed; one with both is compared."""
    sums, cells = tmp_path / "sum.csv", tmp_path / "cells.csv"
    sums.write_text("what,mean,half\nall,-0.3,0.1\n", encoding="utf-8")
    cells.write_text("arm,seed,test_bpc\nnobody,1,9.0\n", encoding="utf-8")
    measured, experiment = Measured(), "09_pretraining/ablation"
    assert pictures.overview_problems(measured, experiment, [sums]) == []
    assert pictures.overview_problems(measured, experiment, [sums, cells]) == [
        "cells.csv: what it says of nobody, seed 1 is not what the results say"
    ]
