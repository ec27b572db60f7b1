"""Bad input: one line that says what is wrong and what to do, exit code 2, nothing written."""

import os
import subprocess
import sys

import pytest

from common import results
from common.command_line import parse
from common.errors import UserError
from common.paths import ROOT
from common.settings import Settings

BIGRAM, HEADS, DROPOUT = "02_attention/bigram", "02_attention/multi_head", "05_residual_norm/dropout"


@pytest.mark.parametrize(
    ("experiment", "flags", "said"),
    [
        (BIGRAM, "--corpus tinyshakspeare", "did you mean 'tinyshakespeare'"),
        (BIGRAM, "--corpus nowhere/missing.txt", "does not exist"),
        (BIGRAM, "--corpus .", "is a folder"),
        (BIGRAM, "--seeds", "names no seed"),
        (BIGRAM, "--seeds -1", "a seed is a whole number from 0"),
        (BIGRAM, "--seeds 1 1", "names a seed twice"),
        (BIGRAM, "--steps 0", "--steps 0 makes no sense"),
        (BIGRAM, "--batch-size 0", "--batch-size 0 makes no sense"),
        (BIGRAM, "--block-size 0", "--block-size 0 makes no sense"),
        (BIGRAM, "--lr 0", "--lr 0.0 makes no sense"),
        (BIGRAM, "--lr nan", "makes no sense"),
        (BIGRAM, "--steps many", "--steps"),
        (BIGRAM, "--stepps 3", "did you mean '--steps'"),
        (BIGRAM, "--seeds 1,2,3", "write --seeds 1 2 3 (--help"),
        (BIGRAM, "--seeds 1, 2 --steps 3", "write --seeds 1 2 (--help"),
        (BIGRAM, "--prompt -First", "write --prompt=-First for a value"),
        (BIGRAM, "--prompt --", "write --prompt=-- for a value"),
        (BIGRAM, "--batch-size 99999999999999999999", "it must be below 2,147,483,648"),
        (BIGRAM, "--dtype int8", "int8"),
        (BIGRAM, "--device tpu", "tpu"),
        (BIGRAM, "--n-layer 8", "--n-layer does nothing in 02_attention/bigram"),
        (HEADS, "--n-embd 50", "--n-embd 50 is not divisible by --n-head 4"),
        (BIGRAM, "--arms fast", "arm 'fast' is not known"),
        ("01_bigram/ngram", "--arms 9", "arm '9' is not known"),
        ("01_bigram/count_bigram", "--steps 5", "--steps does nothing in 01_bigram/count_bigram"),
        ("01_bigram/by_hand", "--dtype bfloat16", "--dtype does nothing in 01_bigram/by_hand"),
        ("01_bigram/count_bigram", "--check --corpus pydoc", "has nothing to overfit"),
        (BIGRAM, "--corpus pydoc --prompt \u4f60\u597d", "has no '\u4f60' '\u597d'"),
        (BIGRAM, "--generate", "has no checkpoint"),
        (BIGRAM, "--init-from nothing", "'nothing' is no script of the course"),
        (BIGRAM, "--init-from multi_head", "02_attention/multi_head has no checkpoint"),
        (
            "01_bigram/names_bigram",
            "--corpus indian --drop-leaked",
            "--drop-leaked does nothing without --keep-duplicates",
        ),
        ("01_bigram/names_wavenet", "--corpus indian --block-size 6", "cannot be halved down to one pair"),
        ("01_bigram/ngram", "--device cuda", "counting is done on the CPU"),
        (BIGRAM, "--corpus names", "is a list of names"),
        ("01_bigram/names_bigram", "--corpus name", "did you mean 'names'"),
        ("04_stacking/stack", "--n-layer 0", "--n-layer 0 makes no sense; it must be at least 1"),
        (DROPOUT, "--dropout 1", "--dropout 1.0 makes no sense; it must be at least 0 and below 1"),
        ("05_residual_norm/pre_ln", "--dropout 0.1", "--dropout does nothing in 05_residual_norm/pre_ln"),
        ("05_residual_norm/depth_map", "--n-layer 3", "each of its arms has its own; choose with --arms"),
        ("06_transformer/sizes", "--sizes giant", "arm 'giant' is not known"),
        ("06_transformer/gpt", "--preset yardstik", "did you mean 'yardstick'"),
        ("01_bigram/by_hand", "--clip 1", "--clip does nothing in 01_bigram/by_hand"),
        (BIGRAM, "--tokenizer gtp2", "tokenizer 'gtp2' is not known; did you mean 'gpt2'"),
        (BIGRAM, "--tokenizer bpe-256 --corpus pydoc", "a vocabulary of 256 is too small"),
        (BIGRAM, "--tokenizer ./none.json --corpus pydoc", "holds no vocabulary"),
        ("01_bigram/names_mlp", "--tokenizer byte", "--tokenizer does nothing in 01_bigram/names_mlp"),
        (
            "09_pretraining/bigrams",
            "--arms rows-512 --n-bigram 8",
            "each of its arms has its own; choose with --arms",
        ),
        ("09_pretraining/pretrain", "--embedding bigram --n-bigram 0", "--n-bigram 0 makes no sense"),
        (
            "09_pretraining/pretrain",
            "--embedding token --n-bigram 8",
            "--n-bigram does nothing in 09_pretraining/pretrain",
        ),
        (BIGRAM, "--seconds -1", "--seconds -1.0 makes no sense"),
        (BIGRAM, "--seconds 5 --cosine", "--cosine has to know its last step"),
        (BIGRAM, "--measure", "--measure does nothing in 02_attention/bigram"),
        (HEADS, "--n-kv-head 2", "--n-kv-head does nothing in 02_attention/multi_head"),
        ("07_tokenizer_gqa/gqa", "--n-kv-head 2", "each of its arms has its own; choose with --arms"),
        (
            "08_micro_arch/position",
            "--arms rope --n-embd 60",
            "a head of 15 is odd; choose another --n-embd or --n-head",
        ),
        ("08_micro_arch/position", "--n-embd 60", "a head of 15 is odd"),
        ("08_micro_arch/norm", "--arms rmsnrom", "arm 'rmsnrom' is not known; did you mean 'rmsnorm'"),
        ("08_micro_arch/qk_norm", "--lr 1e-3", "each of its arms has its own; choose with --arms"),
        (
            "08_micro_arch/activation",
            "--n-kv-head 3",
            "--n-head 4 is not divisible by 3 heads of keys and values",
        ),
        ("07_tokenizer_gqa/bpe", "--arms bpe-500", "arm 'bpe-500' is not known; did you mean 'bpe-512'"),
    ],
)
def test_one_line_and_exit_code_2(experiment, flags, said, in_process, own_logs):
    done = in_process(experiment, flags)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert said in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), (
        done.stderr
    )
    assert not results.results_path().exists() and not list(own_logs.glob("runs/**/checkpoint*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--dropout -0.1", "--dropout -0.1 makes no sense"),
        ("--dropout nan", "--dropout nan makes no sense"),
        ("--preset yardstick", "this script has none"),
        ("--warm-up -1", "--warm-up -1 makes no sense"),
        ("--warm-up 20 --steps 10", "it must be below --steps 10"),
        ("--min-lr 1e-4", "--min-lr 0.0001 does nothing without --cosine"),
        ("--cosine --min-lr 1", "at most --lr"),
        ("--beta2 1", "--beta2 1.0 makes no sense"),
        ("--clip -1", "--clip -1.0 makes no sense"),
        ("--weight-decay inf", "--weight-decay inf makes no sense"),
        ("--preset", "--preset"),
    ],
)
def test_settings_that_cannot_be_meant(arguments, said):
    with pytest.raises(UserError) as error:
        parse(Settings(), "", arguments.split())
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("flags", ["--n-embd 400000", "--n-embd 8192 --n-layer 200"])
def test_what_does_not_fit_in_memory_is_told_before_it_starts(flags, script, own_logs):
    done = script("06_transformer/fast_gpt", f"--corpus pydoc {flags}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, (done.returncode, done.stderr)
    assert "would need about" in done.stderr and "are free; use a smaller" in done.stderr
    assert not results.results_path().exists() and not (own_logs / "runs").exists()


def test_the_same_as_a_process_of_its_own(script, own_logs):
    done = script(BIGRAM, "--stepps 3")
    assert (
        done.returncode == 2
        and "did you mean '--steps'" in done.stderr
        and done.stderr.count("\n") == 1
        and not own_logs.exists()
    )


def test_cuda_where_there_is_none(script):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    done = script(BIGRAM, "--device cuda")
    assert done.returncode == 2 and "--device cuda is not available on this machine; use" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\x89PNG\0\1", "NUL byte at byte 4"),
        (b"abc\xff\xfe", "byte 0xff at byte 3"),
        (b"too short", "is too short"),
    ],
)
def test_a_file_that_is_no_corpus(content, said, script, tmp_path):
    (tmp_path / "corpus.txt").write_bytes(content)
    done = script(BIGRAM, "--corpus corpus.txt")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not results.results_path().exists()


def test_a_foreign_results_file_is_not_overwritten(script, own_logs):
    own_logs.mkdir()
    results.results_path().write_text("a,b\n1,2\n", encoding="utf-8")
    done = script(BIGRAM, "--corpus pydoc --steps 2")
    assert done.returncode == 2 and "is not a results file of this course" in done.stderr
    assert results.results_path().read_text(encoding="utf-8") == "a,b\n1,2\n"
    assert not (own_logs / "runs").exists()


def test_a_logs_folder_that_cannot_be_written(script, tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    done = script(BIGRAM, "--corpus pydoc --steps 2", GPT_STAIRCASE_LOGS=str(tmp_path / "file" / "logs"))
    assert (
        done.returncode == 2
        and "results cannot be written to" in done.stderr
        and done.stderr.count("\n") == 1
    ), done.stderr


@pytest.mark.skipif(
    os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0),
    reason="permissions do not bind this user",
)
def test_a_read_only_logs_folder(script, own_logs):
    own_logs.mkdir(mode=0o555)
    done = script(BIGRAM, "--corpus pydoc --steps 2")
    assert done.returncode == 2 and "results cannot be written to" in done.stderr


def test_a_prompt_the_vocabulary_can_say_is_used(script):
    done = script(BIGRAM, "--corpus pydoc --steps 2 --prompt class")
    assert done.returncode == 0 and "\nclass" in done.stdout


@pytest.mark.slow
def test_without_the_files_of_an_encoding_the_other_arms_go_on(script, tmp_path):
    """The line says which variable to set; alone, the arm is refused."""
    nowhere = {
        "TIKTOKEN_CACHE_DIR": str(tmp_path / "empty"),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    done = script("07_tokenizer_gqa/bpe", "--arms gpt2 bpe-1024 --corpus pydoc --quick", **nowhere)
    assert done.returncode == 0, done.stderr
    assert (
        "gpt2 is left out" in done.stdout
        and "set TIKTOKEN_CACHE_DIR" in done.stdout
        and "bpe:bpe-1024" in done.stdout
    )
    done = script("07_tokenizer_gqa/bpe", "--arms gpt2 --corpus pydoc", **nowhere)
    assert done.returncode == 2 and "set TIKTOKEN_CACHE_DIR" in done.stderr and done.stderr.count("\n") == 1
    assert not results.results_path().exists()


def test_a_file_name_that_is_no_text():
    with pytest.raises(UserError, match="--corpus 'a.*udcff.txt' has bytes that are not UTF-8"):
        parse(Settings(), "", ["--corpus", "a\udcff.txt"])
    with pytest.raises(UserError, match="--prompt '.*udcff' has bytes"):
        parse(Settings(), "", ["--prompt", "\udcff"])


def test_a_terminal_that_lacks_characters_costs_question_marks_not_the_run(tmp_path, own_logs):
    """As where Windows writes to a file; and a byte that is no text, typed at the prompt."""
    text = tmp_path / "arrows.txt"
    text.write_text("a → b, ž ω\n" * 300, encoding="utf-8")
    poor = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    size = "--steps 3 --block-size 8 --batch-size 4 --threads 1 --no-pictures"
    command = [sys.executable, "02_attention/bigram.py", "--corpus", str(text), *size.split()]
    done = subprocess.run(command, cwd=ROOT, env=poor, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"?" in done.stdout.partition(b"sample")[2] and b"results  " in done.stdout
    folder = next(own_logs.glob("runs/02_attention/bigram/*"))
    command = [sys.executable, "-m", "common.generate", str(folder), "--length", "5"]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        command, cwd=ROOT, env=strict, input=b"a\xff\n/length 3\nquit\n", capture_output=True
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr


def test_a_warm_up_is_shortened_with_its_run(in_process):
    """Unless it was asked for by hand, which is refused."""
    small = "--corpus pydoc --tokenizer byte --n-layer 1 --batch-size 2 --no-pictures --seeds 1 --steps 30"
    done = in_process("07_tokenizer_gqa/gqa", f"{small} --arms mqa")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("note: the warm-up is shortened with the run, from 100 steps to 2 of 30\n") == 1
    done = in_process("09_pretraining/ablation", f"{small} --arms warm-up")
    assert done.returncode == 0, done.stderr
    assert "ablation:warm-up is shortened with the run, from 60 steps to 3 of 30\n" in done.stdout
    refused = in_process("07_tokenizer_gqa/gqa", f"{small} --arms mqa --warm-up 40")
    assert refused.returncode == 2 and "it must be below --steps 30" in refused.stderr
