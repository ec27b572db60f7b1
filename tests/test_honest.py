"""What is printed is so: of runs that were stopped, of texts that were not the one asked for, of what was
learned by heart.
"""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import safetensors.torch

from common import generate, results
from common.data import corpora, splits
from common.errors import UserError
from common.generation.load import load_run
from common.lessons import run_folder
from common.lessons.course import course_plan
from common.paths import ROOT
from common.training import checkpoint

# ---- a run that was stopped ----------------------------------------------------------------------


def stop_at(path, step: int) -> None:
    """Let a checkpoint be that of a run which was stopped at this step."""
    saved = checkpoint.load(path)
    state = {k: v for k, v in saved.state.items() if k != "scores"} | {"step": step}
    state["curve"] = [point for point in state["curve"] if point[0] <= step]
    safetensors.torch.save_file(saved.tensors, path, metadata={"state": json.dumps(state)})


def only_run(logs):
    return next(logs.glob("runs/**/checkpoint.safetensors"))


def test_a_finished_run_tells_its_own_score_and_a_stopped_one_that_it_was_stopped(script, own_logs):
    """Not the score of the row that a finished run with the same settings left in the results."""
    assert script("02_attention/multi_head", "--corpus pydoc --steps 6").returncode == 0
    path, row = only_run(own_logs), results.read().iloc[0]
    said = generate.banner(load_run(path.parent))
    assert "6 steps on pydoc" in said and f"test {row.test_bpc:.3f} bits per character" in said
    other = row.to_dict() | {"test_bpc": 1.0}
    results.results_path().unlink()
    results.append(other)
    assert f"test {row.test_bpc:.3f}" in generate.banner(load_run(path.parent)), (
        "the score is that of the weights"
    )
    stop_at(path, 4)
    said = generate.banner(load_run(path.parent))
    assert (
        "stopped at step 4 of 6 on pydoc" in said
        and "test" not in said
        and "validation" in said
        and "at step 4" in said
    )
    command = [sys.executable, "-m", "common.tools.attention_map", str(path.parent), "--prompt", "line"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    assert "stopped at step 4 of 6 on pydoc" in done.stderr
    sampled = script("02_attention/multi_head", "--corpus pydoc --steps 6 --generate")
    assert "(stopped at step 4 of 6)" in sampled.stdout


def test_fine_tuning_from_a_run_that_was_stopped(script, own_logs, monkeypatch):
    """A run folder is taken, and told; a script's name means its finished run."""
    assert script("01_bigram/names_wavenet", "--corpus indian --steps 4").returncode == 0
    path = only_run(own_logs)
    stop_at(path, 2)
    tuned = script("01_bigram/names_wavenet", f"--corpus indian --steps 2 --init-from {path.parent}")
    assert f"starts from {path.parent} (stopped at step 2 of 4)" in tuned.stdout
    monkeypatch.setattr(run_folder, "find_run", lambda *_: path.parent)
    from common import one_run

    s = course_plan("01_bigram/names_wavenet").settings("--corpus indian --init-from 01_bigram/names_wavenet")
    with pytest.raises(
        UserError, match="stopped at step 2 of 4; go on with it first: python 01_bigram/names_wavenet.py"
    ):
        one_run.initial(s.init_from, 1)


# ---- a text that was not the one asked for -------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "asked", "had"),
    [("02_attention/bigram", "tinyshakespeare", "pydoc"), ("01_bigram/names_bigram", "names", "faker")],
)
def test_a_run_on_the_built_in_text_does_not_answer_for_another(
    experiment, asked, had, in_process, own_logs, monkeypatch, text_file
):
    def offline(_):
        raise ConnectionError("no network")

    monkeypatch.setattr(corpora, "find_named", offline)
    done = in_process(experiment, "--steps 3")
    assert done.returncode == 0 and "going on with the built-in corpus" in done.stdout, done.stderr
    monkeypatch.setattr(corpora, "find_named", lambda _: text_file)  # now the text is at hand
    plan = course_plan(experiment)
    with pytest.raises(UserError, match=f"there are runs with --corpus {had} --steps 3"):
        run_folder.find_run(plan, "default", 1, plan.settings("--steps 3"))
    folder = run_folder.find_run(plan, "default", 1, plan.settings(f"--steps 3 --corpus {had}"))
    loaded = load_run(folder)
    assert (
        loaded.settings.corpus == had
        and loaded.data().corpus.name == results.read().corpus[0]
        and loaded.sample(length=5)
    )
    again = in_process(experiment, "--steps 3 --resume")
    assert f"there are runs with --corpus {had} --steps 3; begins at step 0" in again.stdout
    assert results.read().corpus.tolist()[0].startswith(had) and results.read().corpus.tolist()[1] == asked


# ---- pictures of attention, whatever the tokens --------------------------------------------------

TEXTS = {
    "latin": "line of text that says something again, and again\n" * 200,
    "cyrillic": "это строка текста, которая говорит что-то снова и снова\n" * 200,
    "dollars": "it costs $$ or $5 or \\alpha or $x_1^2$, and { that } is it\n" * 200,
}


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("latin", "--tokenizer bpe-270"),
        ("cyrillic", "--tokenizer byte"),
        ("cyrillic", "--tokenizer byte --block-size 128"),
        ("dollars", ""),
        ("dollars", "--tokenizer bpe-290"),
    ],
)
@pytest.mark.parametrize("experiment", ["02_attention/self_attention", "02_attention/positions"])
def test_a_picture_of_attention_has_a_label_for_each_token(
    experiment, text, flags, in_process, tmp_path, own_logs
):
    path = tmp_path / "own.txt"
    path.write_text(TEXTS[text], encoding="utf-8")
    done = in_process(experiment, f"--corpus {path} --steps 2 --batch-size 2 {flags}".strip())
    assert done.returncode == 0, done.stderr
    drawn = pd.read_csv(next(own_logs.glob("runs/**/attention.csv")), keep_default_na=False)
    folder = only_run(own_logs).parent
    ids = load_run(folder).data().first_line().tolist()
    assert drawn.row.max() + 1 == len(ids) == drawn.column.max() + 1 <= 48


def test_the_line_that_is_looked_at_fits_every_window(in_process, tmp_path, own_logs):
    """The tool's own line is never refused, also where a character is several tokens."""
    path = tmp_path / "own.txt"
    path.write_text(TEXTS["cyrillic"], encoding="utf-8")
    assert (
        in_process(
            "02_attention/self_attention", f"--corpus {path} --steps 2 --block-size 16 --tokenizer byte"
        ).returncode
        == 0
    )
    folder = only_run(own_logs).parent
    command = [sys.executable, "-m", "common.tools.attention_map", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0 and (folder / "attention_map.png").exists(), done.stderr
    assert (folder / "attention.png").exists(), "the picture of the script is not overwritten"


# ---- by heart ------------------------------------------------------------------------------------


def test_what_was_learned_by_heart_is_called_so_and_a_short_text_is_told_before(in_process, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("ab" * 504 + "a" * 112, encoding="utf-8")
    done = in_process("02_attention/bigram", f"--corpus {path} --steps 300 --lr 1e-2 --block-size 16")
    before, _, after = done.stdout.partition("sample")
    assert "note: short.txt has 1,007 training tokens, and 300 steps see each about 153 times" in before
    assert (
        "worse than a uniform guess: it learned its training text by heart (0." in after
        and "did not learn" not in after
    )
    few = in_process("02_attention/bigram", f"--corpus {path} --steps 20 --lr 1e-5 --block-size 16")
    assert "note:" not in few.stdout


# ---- other faults of the same kind ---------------------------------------------------------------


def test_a_flag_that_is_given_twice_is_refused(in_process):
    for flags, twice in (
        ("--seeds 1 --seeds 2", "--seeds"),
        ("--steps 3 --steps=4", "--steps"),
        ("--log --no-log", "--log"),
    ):
        done = in_process("02_attention/bigram", f"--corpus pydoc {flags}")
        assert (
            done.returncode == 2 and f"{twice} is given twice" in done.stderr and done.stderr.count("\n") == 1
        ), done.stderr


def test_ctrl_c_before_training_does_not_claim_that_something_was_saved(in_process, monkeypatch, own_logs):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(splits, "load_text", interrupted)
    done = in_process("02_attention/bigram", "--corpus pydoc --tokenizer bpe-300 --steps 3")
    assert done.returncode == 130 and "saved nothing new; the same command begins again" in done.stderr
    assert "state saved" not in done.stderr and not list(own_logs.glob("runs/**/*.safetensors"))


@pytest.mark.parametrize("flags", ["", " --no-log"])
def test_a_logs_folder_that_cannot_be_written_is_one_line_also_without_a_log(
    flags, in_process, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("GPT_STAIRCASE_LOGS", str(tmp_path / "file" / "logs"))
    done = in_process("02_attention/bigram", f"--corpus pydoc --steps 2{flags}")
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "set GPT_STAIRCASE_LOGS to another folder" in done.stderr
    )
    assert "--no-log" not in done.stderr


def test_a_script_of_another_clone_is_refused(tmp_path):
    """Its results would go to the clone that `common` is installed from."""
    other = tmp_path / "clone"
    for name in ("02_attention/bigram.py", "common/run.py"):
        (other / name).parent.mkdir(parents=True)
        shutil.copyfile(ROOT / name, other / name)
    # what is installed comes first where `common` of the other clone is not on the path
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "02_attention/bigram.py", "--steps", "2"],
        cwd=other,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"belongs to the course in {other}" in done.stderr and f"pip install -e {other}" in done.stderr
