"""The results file: whole rows under concurrency, nothing foreign overwritten, honest intervals."""

import csv
import math
import multiprocessing
import random

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from common import lessons, results
from common.errors import UserError
from common.lessons.course import refer
from common.results import comparison
from common.results.statistics import Interval, interval, paired
from common.results.table import COLUMNS, append, course_rows, logged, read


def row(**values) -> dict:
    """A whole row."""
    filled = {name: 1.5 for name in COLUMNS} | {
        "experiment": "02_attention/bigram",
        "arm": "default",
        "seed": 1,
        "corpus": "pydoc-3.11.7",
        "diverged": False,
    }
    return (
        filled
        | {
            "config_hash": "c",
            "code_hash": "d",
            "protocol": 1,
            "tokenizer": "char, with a comma",
            "git_commit": "1234567",
        }
        | values
    )


def append_fifty(worker: int) -> None:
    for n in range(50):
        append(row(seed=1000 * worker + n, timestamp="x" * random.randrange(200)))


@pytest.mark.slow
def test_eight_processes_append_fifty_rows_each(own_logs):
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        pool.map(append_fifty, range(8))
    rows = read()
    assert sorted(rows.seed) == sorted(1000 * w + n for w in range(8) for n in range(50))
    assert set(rows.tokenizer) == {"char, with a comma"}


def test_figures_survive_to_the_last_bit(own_logs):
    values = [0.1 + 0.2, 1e-300, math.pi, float("nan")]
    for n, value in enumerate(values):
        append(row(seed=n, test_loss=value))
    assert [repr(v) for v in read().test_loss] == [repr(v) for v in values]


def test_a_foreign_file_is_never_touched(own_logs):
    own_logs.mkdir()
    path = results.results_path()
    path.write_text("date,loss\n2024,1.0\n", encoding="utf-8")
    for use in (lambda: append(row()), read, results.check_writable):
        with pytest.raises(UserError, match="not a results file of this course"):
            use()
    assert path.read_text(encoding="utf-8") == "date,loss\n2024,1.0\n"


def test_a_row_that_was_cut_off_is_named_and_does_not_swallow_the_next(own_logs):
    append(row())
    with results.results_path().open("a", encoding="utf-8") as file:
        file.write("2024,half a row")
    append(row(seed=2))
    with pytest.raises(UserError, match="line 3 has 2 cells"):
        read()


# ---- columns that came later, and columns of others ----------------------------------------------


def rewrite(change) -> list[list[str]]:
    """Change the cells of the results file, line by line, and return what was written."""
    path = results.results_path()
    with path.open(encoding="utf-8", newline="") as file:
        lines = [change(line, number) for number, line in enumerate(csv.reader(file))]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    return lines


def test_a_file_of_the_first_version_is_read_and_gets_its_new_columns_with_the_next_row(own_logs):
    append(row(test_loss=0.1 + 0.2))
    rewrite(lambda line, _: line[: len(results.FIRST_COLUMNS)])
    old = results.results_path().read_text(encoding="utf-8").splitlines()
    results.check_writable()
    rows = read()
    assert list(rows.columns) == list(COLUMNS) and rows[["threads", "alone", "last10_bpc"]].isna().all(
        axis=None
    )
    assert len(results.timed(rows)) == 1  # before it was noted, nothing ran beside
    append(row(seed=2, threads=2, alone=False, last10_bpc=2.5))
    lines = results.results_path().read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(COLUMNS) and lines[1] == old[1] + ",,,,"
    rows = read()
    assert (
        rows.test_loss.iloc[0] == 0.1 + 0.2
        and rows.threads.iloc[1] == 2
        and list(results.timed(rows).seed) == [1]
    )


def test_the_tracked_file_keeps_its_rows_when_a_row_is_added(tracked):
    old = results.results_path().read_text(encoding="utf-8").splitlines()
    append(row())
    lines = results.results_path().read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(old) + 1 and all(
        line.startswith(was) for line, was in zip(lines[1:], old[1:], strict=False)
    )
    assert len(read()) == len(old)


def test_an_unknown_column_is_read_kept_and_named(own_logs, capsys):
    append(row())
    rewrite(lambda line, number: ["note" if number == 0 else "mine, of Tuesday", *line])
    results.check_writable()
    error = capsys.readouterr().err
    assert (
        "has a column 'note' that this version of the course does not know; kept" in error
        and error.count("\n") == 1
    )
    append(row(seed=2))
    rows = read()
    assert (
        rows.note.iloc[0] == "mine, of Tuesday"
        and math.isnan(rows.note.iloc[1])
        and rows.seed.tolist() == [1, 2]
    )


def test_a_file_that_lacks_a_column_of_the_first_version_is_refused(own_logs):
    append(row())
    rewrite(lambda line, _: [cell for cell, name in zip(line, COLUMNS, strict=True) if name != "seed"])
    text = results.results_path().read_text(encoding="utf-8")
    for use in (lambda: append(row()), read, results.check_writable):
        with pytest.raises(UserError, match="lacks the column 'seed'; mend its first line"):
            use()
    assert results.results_path().read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"\xff\xfe", "is damaged after line"),
        (b"x", "line 2 has 'x' for seed, which is no number"),
        (b"7;7", "line 2 has '7;7' for seed"),
        (b"", "line 2 has '' for seed"),
    ],
)
def test_a_damaged_row_is_one_line(damage, said, own_logs):
    append(row(seed=7777777))
    path = results.results_path()
    path.write_bytes(path.read_bytes().replace(b"7777777", damage))
    with pytest.raises(UserError, match=said):
        read()


def test_a_row_that_was_cut_off_survives_new_columns(own_logs):
    append(row())
    rewrite(lambda line, _: line[: len(results.FIRST_COLUMNS)])
    with results.results_path().open("a", encoding="utf-8") as file:
        file.write("2024,half a row")
    append(row(seed=2))
    with pytest.raises(UserError, match="line 3 has 2 cells"):
        read()


def test_interval_is_students_t():
    values = np.random.default_rng(0).normal(3.0, 1.0, 7)
    found = interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    assert math.isclose(found.mean - found.half, low) and math.isclose(found.mean + found.half, high)
    assert math.isnan(interval([1.0]).half)


def test_an_interval_of_95_percent_holds_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    inside = sum(
        abs(found.mean) <= found.half for found in (interval(rng.normal(0.0, 1.0, 3)) for _ in range(2000))
    )
    assert 0.93 < inside / 2000 < 0.97


def test_verdicts():
    assert Interval(-0.2, 0.1, 3).verdict == "better" and Interval(0.2, 0.1, 3).verdict == "worse"
    assert (
        Interval(0.1, 0.2, 3).verdict == "no measurable difference"
        and Interval(0.0, 0.0, 3).verdict == "no measurable difference"
    )
    assert "no verdict" in Interval(-1.0, math.nan, 1).verdict


def test_differences_are_paired_by_seed(own_logs):
    for seed, (a, b) in enumerate([(1.0, 2.0), (5.0, 6.1), (9.0, 9.9)], start=1):
        append(row(experiment="a", seed=seed, test_bpc=a))
        append(row(experiment="b", seed=seed, test_bpc=b))
    rows = read()
    found = paired(rows[rows.experiment == "a"], rows[rows.experiment == "b"])
    # unpaired, the spread of 4 would hide it
    assert math.isclose(found.mean, -1.0) and found.half < 0.3 and found.verdict == "better"
    append(row(experiment="c", corpus="other", test_bpc=1.0))
    rows = read()
    with pytest.raises(UserError, match="different corpora"):
        paired(rows[rows.experiment == "c"], rows[rows.experiment == "a"])
    with pytest.raises(UserError, match="no seed in common"):
        paired(rows[rows.experiment == "c"], rows[(rows.experiment == "a") & (rows.seed == 3)])


def test_a_seed_that_diverged_is_no_part_of_a_difference():
    nan = float("nan")
    rows = pd.DataFrame({"seed": [1, 2, 3], "test_bpc": [2.0, nan, 2.2], "corpus": "a"})
    base = pd.DataFrame({"seed": [1, 2, 3], "test_bpc": [1.0, 1.0, 1.1], "corpus": "a"})
    assert paired(rows, base) == paired(rows[rows.seed != 2], base)
    assert paired(rows, base).mean == pytest.approx(1.05) and paired(base, rows).n == 2
    with pytest.raises(UserError, match="no seed in common"):
        paired(rows[rows.seed == 2], base)


def test_the_course_uses_the_first_current_row_of_each_seed(own_logs):
    reference = refer("bigram")
    current = {"config_hash": reference.config(), "code_hash": reference.code, "corpus": "tinyshakespeare"}
    append(row(seed=1, test_bpc=9.0, **current | {"config_hash": "a user's settings"}))
    append(row(seed=1, test_bpc=9.0, **current | {"code_hash": "older code"}))
    append(row(seed=1, test_bpc=9.0, protocol=0, **current))
    append(row(seed=2, test_bpc=2.0, **current))
    append(row(seed=1, test_bpc=1.0, **current))
    append(row(seed=1, test_bpc=9.0, **current))
    append(row(seed=3, test_bpc=9.0, **current | {"corpus": "another text of the same name"}))
    assert course_rows(reference).test_bpc.tolist() == [1.0, 2.0]


def test_a_run_is_known_by_seed_settings_code_and_protocol(own_logs):
    assert not logged(row())
    append(row())
    assert logged(row(test_loss=99.0, timestamp="later"))
    for change in (
        {"seed": 2},
        {"config_hash": "e"},
        {"code_hash": "e"},
        {"corpus": "e"},
        {"protocol": 0},
        {"arm": "other"},
    ):
        assert not logged(row(**change))


def test_settings_a_model_does_not_read_do_not_count():
    bigram, attention = (
        lessons.course_plan("02_attention/bigram"),
        lessons.course_plan("02_attention/multi_head"),
    )
    import dataclasses

    def config(plan, **changes):
        return plan.config("default", dataclasses.replace(plan.defaults, **changes))

    assert config(bigram, n_head=2) == config(bigram) != config(bigram, n_embd=32)
    assert config(attention, n_head=2) != config(attention)
    assert (
        len(
            {
                config(bigram),
                config(bigram, lr=2e-3),
                config(bigram, steps=7),
                config(bigram, corpus="pydoc"),
                config(bigram, init_from="x"),
            }
        )
        == 5
    )


def test_the_command_line_compares_and_shows_the_difference(own_logs, capsys, monkeypatch):
    for name, values in (("positions", (3.0, 3.1, 3.2)), ("multi_head", (2.5, 2.6, 2.7))):
        reference = refer(name)
        for seed, value in enumerate(values, start=1):
            append(
                row(
                    experiment=reference.experiment,
                    seed=seed,
                    test_bpc=value,
                    config_hash=reference.config(),
                    code_hash=reference.code,
                    corpus="tinyshakespeare",
                )
            )
    monkeypatch.setattr("sys.argv", ["results", "compare", "multi_head", "positions"])
    comparison.main()
    assert "-0.5000 bits per character ± 0.0000 (95 % interval, 3 seeds): better" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["results", "diff", "multi_head"])  # against what comes before it
    comparison.main()
    said = capsys.readouterr().out
    assert (
        "+class MultiHeadAttention(nn.Module):" in said
        and "-class Head(nn.Module):" in said
        and "better" in said
    )
    monkeypatch.setattr("sys.argv", ["results", "compare", "multi_head", "bigram"])
    with pytest.raises(SystemExit) as stop:
        comparison.main()
    error = capsys.readouterr().err
    assert "\n+ new, 02_attention/multi_head: " in said and "\n- old, 02_attention/positions: " in said
    assert "\nnew minus old: -0.5" in said and "\nnew  02_" in said and "\nold  02_" in said
    assert (
        stop.value.code == 2
        and "bigram has no row with the code as it is now; run it: python 02_attention/bigram.py "
        "--seeds 1 2 3"
        in error
    )


def test_runs_on_a_users_own_text_can_be_compared(own_logs, script, text_file, capsys, monkeypatch):
    for name in ("bigram", "average"):
        assert script(f"02_attention/{name}", f"--corpus {text_file} --steps 5 --seeds 1 2").returncode == 0
    monkeypatch.setattr(
        "sys.argv",
        ["results", "compare", *(f"{name} --corpus {text_file} --steps 5" for name in ("average", "bigram"))],
    )
    comparison.main()
    assert "2 seeds" in capsys.readouterr().out


def test_a_decimal_comma_is_told_by_line_and_column(own_logs):
    append(row(seed=1))
    append(row(seed=2) | {"test_bpc": "3,59"})
    with pytest.raises(UserError, match="line 3 has '3,59' for test_bpc, which is no number"):
        results.read()


def test_what_a_spreadsheet_adds_is_no_error(own_logs):
    """A mark of the encoding at the beginning, blank lines, other line ends."""
    append(row(seed=1))
    append(row(seed=2))
    before, path = results.read(), results.results_path()
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\ufeff" + "\r\n\r\n".join(lines) + "\r\n\r\n", encoding="utf-8", newline="")
    pd.testing.assert_frame_equal(results.read(), before)


@pytest.mark.parametrize("name", ["NA", "nan", "null", "None", "1e3", "007"])
def test_a_corpus_may_be_called_anything(name, own_logs):
    run = row(seed=1) | {"corpus": name}
    append(run)
    assert list(results.read().corpus) == [name] and results.logged(run)


@pytest.mark.parametrize(
    "words", [["pre_ln --lr '3", "pre_ln"], ["multi_head", 'positions --n-head "8'], ["pre_ln 'x", "post_ln"]]
)
def test_a_quotation_mark_without_its_other_half(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["results", "compare", *words])
    with pytest.raises(SystemExit) as stop:
        comparison.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1, said
    assert "no closing quotation; write a quotation mark in pairs" in said or "is no script" in said


def test_what_has_nothing_before_it_is_compared_with_what_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["results", "diff", "count_bigram"])
    with pytest.raises(SystemExit):
        comparison.main()
    assert "count_bigram has nothing before it to be compared with; write diff NEW OLD" in (
        capsys.readouterr().err
    )
