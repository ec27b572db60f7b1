"""The results of a class: put together, told apart, and judged by seeds."""

import pytest

from common import results
from common.errors import UserError
from common.lessons.course import refer
from common.results.table import COLUMNS
from common.tools.merge import Merge, difference, merge, together
from common.training.metrics import PROTOCOL

BIGRAM, AVERAGE = refer("02_attention/bigram"), refer("average")


def row(line, seed: int, bpc: float, when: str) -> dict:
    made = dict.fromkeys(COLUMNS, 1.0) | {
        "timestamp": when, "experiment": line.experiment, "arm": line.arm, "seed": seed,
        "corpus": "tinyshakespeare",
        "tokenizer": "char", "test_bpc": bpc, "diverged": False, "config_hash": line.config(),
        "code_hash": line.code, "protocol": PROTOCOL, "device": "cpu", "dtype": "float32", "parts": None,
        "git_commit": "a", "torch_version": "2", "alone": True,
    }  # fmt: skip
    return made


@pytest.fixture
def files(tmp_path, own_logs):
    """The course's file, and those of two students with it: Anna has seeds 1 and 2, Ben 2 and 3."""
    own_logs.mkdir()
    results.append(course := row(BIGRAM, 1, 9.0, "the course"))
    made = {"anna": [(1, 3.0, 4.0), (2, 3.2, 4.1)], "ben": [(2, 3.3, 4.2), (3, 3.1, 4.3)]}
    for name, runs in made.items():
        path = tmp_path / f"{name}.csv"
        results.append(course, path)
        for seed, first, second in runs:
            results.append(row(BIGRAM, seed, first, f"{name} {seed}"), path)
            results.append(row(AVERAGE, seed, second, f"{name} {seed}"), path)
    return [tmp_path / "anna.csv", tmp_path / "ben.csv"]


def test_rows_of_the_course_are_left_out_and_students_are_named(files):
    rows = together(files)
    assert len(rows) == 8 and list(rows.student) == ["anna"] * 4 + ["ben"] * 4
    assert "the course" not in set(rows.timestamp)


def test_a_difference_is_paired_within_a_student_and_judged_by_seeds(files):
    rows = together(files)
    found = difference(
        rows[rows.experiment == AVERAGE.experiment], rows[rows.experiment == BIGRAM.experiment]
    )
    # seed 1: 1.0; seed 2: 0.9 of Anna and 0.9 of Ben are one value; seed 3: 1.2
    assert found.n == 3 and found.mean == pytest.approx((1.0 + 0.9 + 1.2) / 3) and found.verdict == "worse"
    alone = rows[rows.student == "anna"]
    with_other = difference(
        alone[alone.experiment == AVERAGE.experiment],
        rows[(rows.experiment == BIGRAM.experiment) & (rows.student == "ben")],
    )
    assert with_other is None, "rows of two machines are no pair"


def test_what_a_class_measured_is_printed_and_written(files, tmp_path, capsys):
    merge(Merge(tuple(map(str, files)), out=str(tmp_path / "class.csv")))
    said = capsys.readouterr().out
    assert "anna: 4 rows" in said and "8 rows of 2 students" in said
    bigram = next(line for line in said.splitlines() if line.startswith("02_attention/bigram"))
    assert bigram.split()[1:5] == ["2", "3", "3.117", "±"] and "9.000" in bigram
    assert "worse" in next(line for line in said.splitlines() if line.startswith("02_attention/average"))
    written = results.read(tmp_path / "class.csv")
    assert list(written.student) == ["anna"] * 4 + ["ben"] * 4 and written.test_bpc.sum() == pytest.approx(
        29.2
    )
    with pytest.raises(UserError, match="is there already"):
        merge(Merge(tuple(map(str, files)), out=str(tmp_path / "class.csv")))


def test_a_copied_row_a_lone_file_and_a_missing_one_are_refused(files, tmp_path):
    results.append(row(BIGRAM, 2, 3.2, "anna 2"), files[1])
    with pytest.raises(
        UserError, match="anna and ben have the same row .anna 2 02_attention/bigram default 2"
    ):
        together(files)
    with pytest.raises(UserError, match="two results files or more"):
        together(files[:1])
    with pytest.raises(UserError, match="does not exist"):
        together([files[0], tmp_path / "carl.csv"])


def test_an_arm_is_compared_with_the_baseline_of_its_script(tmp_path, own_logs, capsys):
    first, other = refer("norm:layernorm"), refer("norm:rmsnorm")
    for name, seed in (("anna", 11), ("ben", 12)):
        results.append(row(first, seed, 3.0, name), tmp_path / f"{name}.csv")
        results.append(row(other, seed, 3.5 + seed / 100, name), tmp_path / f"{name}.csv")
    merge(Merge((str(tmp_path / "anna.csv"), str(tmp_path / "ben.csv"))))
    said = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("08_micro_arch/norm:rms")
    )
    assert "+0.615" in said and said.endswith("worse")
