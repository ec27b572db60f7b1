"""Every script runs as a user runs it, and appends a valid row."""

import contextlib
import io
import math
import os
import re
import subprocess
import sys
from dataclasses import fields

import pandas as pd
import pytest

from common import command_line, lessons, results
from common.data.tokenizer import make
from common.lessons.course import COURSE
from common.paths import ROOT
from common.settings import Options
from common.tools import course

NAMES = [e for e in COURSE if "/names_" in e]


def test_every_script_of_a_numbered_folder_is_in_the_course():
    found = sorted(
        str(p.relative_to(ROOT).with_suffix("").as_posix()) for p in ROOT.glob("[0-9][0-9]_*/*.py")
    )
    assert found == sorted(COURSE)


@pytest.mark.parametrize("experiment", [e for e in COURSE if lessons.course_plan(e).arms])
def test_script_runs_and_appends_a_valid_row(experiment, script):
    plan = lessons.course_plan(experiment)
    trains = plan.trains(next(iter(plan.arms)))
    # a map has many cells
    arms = [arm for arm in plan.arms if arm in plan.small()[1][::3]] if plan.overview else plan.course_arms
    arms = ["char", "byte", "bpe-512", "bpe-1024-context"] if experiment == "07_tokenizer_gqa/bpe" else arms
    own_warm_up = any("warm_up" in getattr(plan.arms[arm], "settings", {}) for arm in arms)
    steps = max(plan.own(arm, plan.defaults).warm_up for arm in arms) + 3 if own_warm_up else 3
    flags = f"--corpus {'indian' if experiment in NAMES else 'pydoc'}{f' --steps {steps}' if trains else ''}"
    # three steps leave no room for one
    flags += " --warm-up 0" if plan.defaults.warm_up and not own_warm_up else ""
    done = script(experiment, f"{flags} --arms {' '.join(arms)}" if plan.overview else flags)
    assert done.returncode == 0, done.stderr
    rows = results.read()
    assert list(rows.columns) == list(results.COLUMNS)
    assert list(rows.arm) == arms and set(rows.experiment) == {experiment} and set(rows.seed) == {1}
    assert ("only bits per character can be compared" in done.stdout) == (rows.tokenizer.nunique() > 1)
    for row in rows.itertuples():
        assert not row.diverged
        assert math.isclose(row.test_perplexity, math.exp(row.test_loss), rel_tol=1e-9)
        if row.tokenizer == "char":
            # one character per token
            assert math.isclose(row.test_bpc, row.test_loss / math.log(2), rel_tol=1e-9)
        assert 0 < row.test_accuracy < 1
        assert (
            min(row.val_loss, row.test_loss) - 1e-9
            <= row.last10_loss
            <= max(row.val_loss, row.test_loss) + 1e-9
        )
        assert row.tokens_seen > 0 and row.vocab_size > 2
        assert pd.isna(row.steps) == (not trains)
        assert row.code_hash == plan.code(row.arm)
    assert (
        "test bpc" in done.stdout
        and str(results.results_path()) in done.stdout
        and ("picture" if plan.overview else "sample") in done.stdout
    )


@pytest.mark.parametrize("experiment", NAMES)
def test_a_names_script_prints_ten_new_names(experiment, script):
    done = script(experiment, "--corpus indian --steps 60")
    names = done.stdout.split("seed 1:\n")[1].split("\n")[0].split()
    known = (
        lessons.course_plan(experiment)
        .load(lessons.course_plan(experiment).settings("--corpus indian"))
        .names
    )
    assert len(names) == len(set(names)) == 10 and not set(names) & known


def test_the_picture_of_self_attention_is_written(script, own_logs):
    done = script("02_attention/self_attention", "--corpus pydoc --steps 2")
    pictures = list(own_logs.glob("runs/02_attention/self_attention/*/attention.png"))
    assert len(pictures) == 1 and str(pictures[0]) in done.stdout
    weights = pd.read_csv(pictures[0].with_suffix(".csv"), keep_default_na=False)
    sums = weights.groupby("row").weight.sum()
    assert (sums - 1).abs().max() < 1e-3 and (weights.column <= weights.row).all()


def test_the_picture_fits_a_short_window(script):
    done = script("02_attention/positions", "--corpus pydoc --steps 2 --block-size 8")
    assert done.returncode == 0, done.stderr


def test_several_seeds_and_the_options_of_a_run(script):
    assert script("02_attention/bigram", "--corpus pydoc --steps 2 --seeds 1 2 5").returncode == 0
    assert list(results.read().seed) == [1, 2, 5] and results.read().test_loss.nunique() == 3
    assert script("02_attention/bigram", "--corpus pydoc --steps 2 --no-log").returncode == 0
    assert len(results.read()) == 3
    continued = script("02_attention/bigram", "--generate --corpus pydoc --steps 2", "--prompt The")
    assert continued.returncode == 0 and "The" in continued.stdout
    checked = script("02_attention/bigram", "--corpus pydoc --check")
    assert checked.returncode == 0 and checked.stdout.strip().endswith("ok")


def test_fine_tuning_starts_from_the_run_it_names_and_no_other(script, own_logs):
    """A run with other settings is not taken instead; a run folder is taken as it is."""
    assert script("01_bigram/names_wavenet", "--corpus indian --steps 3").returncode == 0
    refused = script(
        "01_bigram/names_wavenet", "--corpus indian --steps 2 --init-from 01_bigram/names_wavenet"
    )
    assert refused.returncode == 2 and "there are runs with --corpus indian --steps 3" in refused.stderr
    folder = next(own_logs.glob("runs/**/checkpoint.safetensors")).parent
    tuned = script("01_bigram/names_wavenet", f"--corpus indian --steps 2 --init-from {folder}")
    assert tuned.returncode == 0 and f"starts from {folder}" in tuned.stdout, tuned.stderr


def test_the_predecessor_is_named_with_a_command_that_works(script):
    done = script("02_attention/multi_head", "--corpus pydoc --steps 2 --n-head 8")
    line = next(line for line in done.stdout.splitlines() if "not measured so yet" in line)
    assert line.endswith("python 02_attention/positions.py --corpus pydoc --steps 2")
    assert script("02_attention/positions", "--corpus pydoc --steps 2").returncode == 0
    again = script("02_attention/multi_head", "--corpus pydoc --steps 2 --n-head 8")
    assert "not measured" not in again.stdout and "02_attention/positions  " in again.stdout


def test_one_arm_of_several(script):
    assert script("01_bigram/ngram", "--corpus pydoc --arms 2 3").returncode == 0
    assert list(results.read().arm) == ["2", "3"]


def test_bfloat16_trains(script):
    done = script("02_attention/multi_head", "--corpus pydoc --steps 5 --dtype bfloat16")
    assert done.returncode == 0, done.stderr
    assert results.read().dtype.tolist() == ["bfloat16"]


def test_help_names_every_flag(script):
    done = script("02_attention/multi_head", "--help")
    assert done.returncode == 0
    for flag in [
        "steps",
        "batch-size",
        "lr",
        "seeds",
        "device",
        "dtype",
        "corpus",
        "n-embd",
        "n-head",
        "block-size",
        "resume",
        "generate",
        "prompt",
        "check",
        "no-log",
        "init-from",
    ]:
        assert f"--{flag}" in done.stdout, flag
    for flag in ("arms", "n-layer", "n-kv-head", "measure"):  # of no use to this script
        assert f"--{flag}" not in done.stdout, flag


@pytest.mark.slow
def test_without_network_or_data_a_script_says_so_and_goes_on(script, tmp_path):
    offline = {
        "GPT_STAIRCASE_DATA": str(tmp_path / "nothing"),
        "https_proxy": "http://127.0.0.1:9",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
        "LOCALAPPDATA": str(tmp_path),
    }
    done = script("02_attention/bigram", "--steps 2", **offline)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "built-in corpus" in line]
    assert len(said) == 1 and set(results.read().corpus) == {said[0].split()[-1]}
    names = script("01_bigram/names_bigram", "--steps 2", **offline)
    assert names.returncode == 0 and "built-in corpus faker" in names.stdout


@pytest.mark.parametrize(
    ("experiment", "table", "rows"),
    [
        ("07_tokenizer_gqa/kv_cache", "decoding", 24),
        ("07_tokenizer_gqa/gqa", "decoding", 6),
        ("08_micro_arch/norm", "time", 15),
        ("09_pretraining/optimizer", "share", 6),
        ("09_pretraining/precision", "cost", 6),
        pytest.param(
            "08_micro_arch/attention", "cost", 20, marks=pytest.mark.slow
        ),  # a process for each point
    ],
)
def test_speed_and_memory_are_measured_when_asked(experiment, table, rows, script, own_logs):
    """In the smaller form beside what is kept; a run with other settings than the default ones measures
    nothing of itself.
    """
    first = lessons.course_plan(experiment).course_arms[0]
    flags = f"--corpus pydoc --steps 2 --warm-up 0 --quick --arms {first}"
    assert "measuring" not in script(experiment, flags).stdout
    done = script(experiment, f"{flags} --measure")
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(next(own_logs.glob(f"runs/{experiment}/measured-quick/{table}.csv")))
    assert len(found) == rows and (found.iloc[:, -1] >= 0).all()
    unseen = found[found.iloc[:, -1] == 0]  # the system counts memory in steps of a quarter of a megabyte
    assert unseen.empty or (set(unseen.what), set(unseen.context)) == ({"peak memory (MB)"}, {64})
    assert f"measured-quick/{table}.png" in done.stdout


def test_a_vocabulary_is_learned_written_and_used(script, tmp_path, monkeypatch):
    tool = [sys.executable, "-m", "common.tools.vocabulary"]
    (tmp_path / "texts.jsonl").write_text(
        '{"text": "the theatre of the thing"}\n{"text": "the end"}\n', encoding="utf-8"
    )
    (tmp_path / "null.jsonl").write_text(  # a BOM and a blank line are no errors
        '\ufeff{"text": "the theatre of the thing"}\n\n{"text": null}\n[1]\n{"text": "the end"}\n',
        encoding="utf-8",
    )
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"texts": 3}\n', encoding="utf-8")

    def learn(*arguments):
        return subprocess.run(
            [*tool, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    done = learn("texts.jsonl", "--size", "262", "--out", "v.json")
    assert done.returncode == 0 and "262 entries" in done.stdout, done.stderr
    assert (
        script(
            "02_attention/bigram", f"--corpus pydoc --steps 2 --tokenizer {tmp_path / 'v.json'}"
        ).returncode
        == 0
    )
    assert results.read().tokenizer.tolist() == ["bpe-262"]
    for arguments, said in (
        (["bad.jsonl"], "line 2"),
        (["none.txt"], "is no file"),
        (["texts.jsonl", "--size", "9"], "too small"),
        (["null.jsonl"], "null.jsonl, line 3: field 'text' is no text but NoneType"),
        (["texts.jsonl", "--out", "."], "--out . is a folder"),
    ):
        done = learn(*arguments)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "vocabulary.json").exists()
    done = learn("null.jsonl", "--skip-bad", "--size", "262", "--out", "short")
    assert done.returncode == 0 and "2 lines hold no document" in done.stderr, done.stderr
    told = done.stdout.split()[-1]  # without a suffix it would be taken for the name of an encoding
    monkeypatch.chdir(tmp_path)
    assert make(told, "", "").merges == make("v.json", "", "").merges


def test_the_smaller_form_of_the_cache_times_it(script, own_logs):
    """What the script is about is not left out of a first look; nothing is kept of it."""
    done = script("07_tokenizer_gqa/kv_cache", "--quick")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("one more token (ms)"))
    assert [float(cell) > 0 for cell in line.split()[-2:]] == [True, True]
    assert "measured-quick/decoding.png" in done.stdout and not (own_logs / "results_All.csv").exists()


# ---- a script of one's own ------------------------------------------------------------------------


def test_a_copy_outside_the_project_trains_and_writes(tmp_path, own_logs, text_file):
    mine = tmp_path / "mine.py"
    mine.write_text((ROOT / "02_attention/average.py").read_text(encoding="utf-8"), encoding="utf-8")

    def run(*flags, command=(str(mine),)):
        return subprocess.run(
            [sys.executable, *command, *flags], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    flags = ("--corpus", str(text_file), "--steps", "5")
    assert run(*flags).returncode == 0
    done = run(*flags, "--generate", "--prompt", "a l")
    assert done.returncode == 0 and "\na l" in done.stdout, done.stderr
    folder = next(own_logs.glob("runs/**/checkpoint.safetensors")).parent
    other = run(str(folder), "--prompt", "a", command=("-m", "common.generate"))
    assert other.returncode == 2 and "mine.py --generate" in other.stderr and other.stderr.count("\n") == 1


# ---- what --help lists ----------------------------------------------------------------------------


def listed(plan) -> set[str]:
    """The flags that --help lists."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        command_line.parse(plan.defaults, "", ["--help"], plan.presets, hidden=plan.unused())
    entries = " ".join(re.findall(r"(?m)^\W{1,3}(--\S.*?)(?:  |$)", out.getvalue()))
    return set(re.findall(r"--([a-z][a-z0-9-]*)", entries))


@pytest.mark.parametrize("experiment", [e for e in COURSE if lessons.course_plan(e).arms])
def test_help_lists_what_the_script_reads(experiment):
    plan = lessons.course_plan(experiment)
    names = [f.name.replace("_", "-") for kind in (plan.defaults, Options()) for f in fields(kind)]
    shown = {name for name in names if {name, f"no-{name}"} & listed(plan)}
    unused = {name.replace("_", "-") for name in plan.unused()}
    assert shown == set(names) - unused
    assert {"corpus", "seeds", "quick"} <= shown and ("arms" in shown) == (len(plan.arms) > 1)


@pytest.mark.parametrize(
    ("experiment", "there", "not_there"),
    [
        ("01_bigram/count_bigram", {"corpus"}, {"steps", "n-head", "device", "arms", "parallel"}),
        ("05_residual_norm/pre_ln", {"n-head", "lr"}, {"dropout", "n-kv-head", "measure", "trackio"}),
        ("07_tokenizer_gqa/gqa", {"sizes", "measure"}, {"n-kv-head", "config", "preset"}),
        ("09_pretraining/pretrain", {"parallel", "preset", "config", "pair-decay"}, {"measure", "arms"}),
    ],
)
def test_flags_that_help_lists(experiment, there, not_there):
    shown = listed(lessons.course_plan(experiment))
    assert there <= shown and not shown & not_there


def test_help_is_there_in_three_seconds():
    before = os.times().children_user  # of the processor: tests run side by side
    done = subprocess.run(
        [sys.executable, str(ROOT / "05_residual_norm/pre_ln.py"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and os.times().children_user - before < 3


def test_a_package_that_is_not_installed_is_one_line(tmp_path):
    """As on a computer where the course was only unpacked."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "common.tools.course", "list"],  # -S: without what is installed
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: torch is not installed; in the course's folder: pip install -e .\n"


def test_the_list_of_scripts_fits_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    course.show_list()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100 and sum(line.startswith("0") for line in lines) == len(COURSE)
