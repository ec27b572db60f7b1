"""The course tool: what it lists, and running only what is missing."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from common import results
from common.lessons.course import COURSE, refer
from common.lessons.header import read_header
from common.paths import ROOT
from common.report import pictures
from common.report.evidence import Measured
from common.report.further import every_reference
from common.tools.course import to_draw
from common.training.metrics import PROTOCOL


def course(*arguments: str, **environment) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "common.tools.course", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


def test_list_has_every_script_in_order_with_its_title():
    said = course("list").stdout
    lines = [line for line in said.splitlines() if ".py" in line]
    assert [line.split()[0].removesuffix(".py") for line in lines] == list(COURSE)
    whole = " ".join(said.split())  # a long title is wrapped
    assert all(f"{e}.py {' '.join(read_header(ROOT / f'{e}.py').title.split())}" in whole for e in COURSE)


@pytest.fixture
def small_corpus(tmp_path, text_file):
    """The course's corpus is looked for where a small stand-in with the wrong checksum cannot be: so use the
    network-free fallback.
    """
    return {
        "GPT_STAIRCASE_DATA": str(tmp_path / "none"),
        "https_proxy": "http://127.0.0.1:9",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.mark.slow
def test_quick_runs_one_seed_of_a_stage(small_corpus):
    done = course(
        "run", "01_bigram/count_bigram", "02_attention/bigram", "--quick", "--jobs", "2", **small_corpus
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2] 02_attention/bigram" in done.stdout and "everything runs" in done.stdout
    assert not results.results_path().exists()


@pytest.mark.slow
def test_only_what_is_missing_is_run(own_logs):
    reference = refer("count_bigram")
    values = dict.fromkeys(results.COLUMNS, 1.0) | {
        "experiment": reference.experiment,
        "arm": "default",
        "corpus": "tinyshakespeare",
    }
    for seed in (1, 2, 3):
        results.append(
            values
            | {
                "seed": seed,
                "config_hash": reference.config(),
                "code_hash": reference.code,
                "protocol": PROTOCOL,
            }
        )
    done = course("run", "01_bigram/count_bigram")
    assert done.returncode == 0 and "0 runs to do, 3 of 3 are done already" in done.stdout
    status = course("status")
    line = next(line for line in status.stdout.splitlines() if line.startswith("01_bigram/count_bigram"))
    assert "seeds 1 2 3" in line and "not measured" not in line and status.returncode == 1
    assert "01_bigram/by_hand" in status.stdout and "not measured yet" in status.stdout
    last = status.stdout.splitlines()[-1]
    assert re.fullmatch(
        r"\d+ lines to run, \d+ runs, about [\d.]+ h one after the other: python -m common.tools.course run",
        last,
    ), last


@pytest.mark.slow
def test_status_tells_what_earlier_code_measured_and_exits_with_0_when_all_is_there(tracked):
    measured = Measured()
    lines = {measured.line(reference).state for reference in every_reference()}
    whole = lines | {pictures.state(e) for e in pictures.drawing()}
    done = course("status")
    assert (
        (done.returncode == 0) == (done.stdout.splitlines()[-1] == "complete") == (whole == {"measured"})
    ), done.stdout[-300:]
    path = tracked / "results_All.csv"
    (own,) = set(results.course_rows(refer("multi_head")).code_hash)
    path.write_text(path.read_text(encoding="utf-8").replace(own, "older"), encoding="utf-8")
    done = course("status")
    line = next(line for line in done.stdout.splitlines() if line.startswith("02_attention/multi_head"))
    assert "seeds -  " in line and "test bpc 3.3719" in line and line.endswith("measured with earlier code")
    assert done.returncode == 1 and re.match(
        r"\d+ lines to run, \d+ runs, about [\d.]+ (s|min|h) ", done.stdout.splitlines()[-1]
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_an_interrupted_course_goes_on_from_its_checkpoint(own_logs, small_corpus):
    command = [sys.executable, "-m", "common.tools.course", "run", "02_attention/average", "--seeds", "1"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | small_corpus,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(own_logs.glob("runs/**/checkpoint.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from there" in said, (said, error)
    assert not results.results_path().exists()
    done = course("run", "02_attention/average", "--seeds", "1", **small_corpus)
    assert (
        done.returncode == 0
        and "note: 1 of 1 runs left no row of the course, 02_attention/average first: is its text here?"
        in done.stdout
    )
    assert len(results.read()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "03_fn"], "'03_fn' is no script of the course"),
        (["run", "--seeds"], "--seeds wants"),
        (["run", "--jobs", "0"], "--jobs 0 makes no sense; it must be at least 1"),
        (["walk"], "walk"),
        ([], "run, tour, samples, list, status"),
    ],
)
def test_bad_input_is_one_line(arguments, said):
    done = course(*arguments)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_an_answer_to_a_question_draws_no_picture_again(monkeypatch):
    monkeypatch.setattr(pictures, "is_drawn", lambda experiment: True)
    line, answer = refer("depth_map:plain-4"), refer("depth_map:plain-4 --steps 2000")
    assert to_draw([(line, 1)], [line.experiment], again=False) == [line.experiment]
    assert to_draw([(answer, 1)], [line.experiment], again=False) == []
