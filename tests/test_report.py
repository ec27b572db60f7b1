"""README and plots follow from the results: change one digit and the check fails."""

import re
import shutil

import pytest

from common import plots, readme, report, results
from common.errors import UserError
from common.lesson import ROOT, course_plan, course_references, refer
from common.readme import Measured

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(README, encoding="utf-8")
    return path


def test_the_committed_readme_and_plots_follow_from_the_results(tracked, page):
    assert report.check(page) == []


def test_every_line_of_the_course_has_its_seeds(tracked):
    measured = Measured()
    for reference in course_references():
        plan = course_plan(reference.experiment)
        assert ({1, 2} if plan.board else {1, 2, 3}) <= set(measured.rows(reference).seed), reference  # a map has many cells


def test_one_changed_digit_in_a_table_or_sentence_is_found(tracked, page):
    for pattern in (r"(?m)^\| \[multi_head\].*?(\d)\.\d+ ±", r"<!--=value.*?-->\d\.(\d)"):
        match = re.search(pattern, README)
        at = match.start(1)
        page.write_text(README[:at] + str((int(README[at]) + 1) % 10) + README[at + 1 :], encoding="utf-8")
        problems = report.check(page)
        assert len(problems) == 1 and problems[0].startswith(f"README.md, line {README[:at].count(chr(10)) + 1}: has "), problems


def test_a_changed_result_makes_readme_and_staircase_stale(tracked, page):
    path = tracked / "results_All.csv"
    rows = results.read()
    value = results.course_rows(refer("multi_head"), rows).test_bpc.iloc[0]
    path.write_text(path.read_text(encoding="utf-8").replace(repr(float(value)), repr(float(value) + 1)), encoding="utf-8")
    problems = report.check(page)
    assert any(p.startswith("README.md, line") for p in problems) and any(p.startswith("staircase.csv: line") for p in problems)


def test_a_users_runs_never_make_the_page_stale(tracked, page):
    """Neither other settings, nor a seed the course does not use, nor a repeated run."""
    row = results.course_rows(refer("multi_head")).iloc[0].to_dict()
    for change in ({"seed": 99}, {"config_hash": "another"}, {"test_bpc": 1.0}):
        results.append(row | {"test_bpc": 9.0} | change)
    assert report.check(page) == []


def test_a_picture_of_other_data_is_found(tracked, page):
    shutil.copyfile(tracked / "plots/staircase.png", tracked / "plots/curves_02_attention.png")
    (tracked / "plots/02_attention_self_attention_attention.png").unlink()
    problems = report.check(page)
    assert len(problems) == 2 and problems[0].startswith("curves_02_attention.png")
    assert problems[1] == "the pictures of 02_attention/self_attention are missing"


def test_a_learning_curve_that_does_not_belong_to_its_row_is_found(tracked, page):
    path = tracked / "plots/curves_02_attention.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="learning curve of 02_attention/multi_head, seed 8"):
        report.check(page)


def test_the_check_command_names_the_place_and_exits_with_1(tracked, monkeypatch, capsys, page):
    monkeypatch.setattr(report, "ROOT", page.parent)
    monkeypatch.setattr("sys.argv", ["report", "--check"])
    report.main()
    page.write_text(README.replace("| [multi_head]", "| [multihead]"), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        report.main()
    assert stop.value.code == 1 and "stale: README.md, line" in capsys.readouterr().out


def test_writing_mends_what_the_check_finds(tracked, page):
    page.write_text(re.sub(r"(<!--=.*?-->).*?<!--/-->", r"\1<!--/-->", README), encoding="utf-8")
    (tracked / "plots/staircase.png").unlink()
    assert report.check(page)
    report.write(page)
    assert report.check(page) == [] and page.read_text(encoding="utf-8") == README


def test_a_missing_seed_is_named_with_the_command_to_run(own_logs, page):
    with pytest.raises(UserError, match="has no current row for seed 1 2 3: python -m common.tools.course run 01_bigram/"):
        report.check(page)


def test_figures_say_what_they_cannot_read(tracked):
    measured = Measured()
    for expression, said in (
        ("value(multi_head)", "is none of"),
        ("sum(multi_head, test_bpc)", "is none of"),
        ("value(multi_head, test_bcp)", "column 'test_bcp' is not in the results"),
        ("value(multihead, test_bpc)", "did you mean 'multi_head'"),
        ("value(ngram:9, test_bpc)", "has no arm '9'"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            readme.figure(measured, expression)


def test_no_figure_of_ours_is_typed_by_hand():
    """Outside generated parts, code and formulas, a decimal number stands only beside its source."""
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    text = re.sub(r"<!-- (table|data):.*?<!-- end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--=.*?<!--/-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`\n]*`|\([^()\n ]*\)", "", text, flags=re.DOTALL)
    for line in text.splitlines():
        for number in re.findall(r"\d+\.\d+", line):
            assert "published" in line.lower() or number in ("3.10", "3.13", "1.1"), line


def test_every_picture_of_the_readme_exists_and_every_plot_is_shown():
    shown = set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README))
    assert shown == {p.relative_to(ROOT).as_posix() for p in (ROOT / "logs/plots").glob("*.png")}


def test_links_of_the_readme_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_tables_and_figures_of_data_files(monkeypatch, tmp_path):
    """A table shows a data file, a figure one of its numbers or the ratio of two; what is not there is said."""
    monkeypatch.setattr(plots, "folder", lambda: tmp_path)
    text = "what,cache,before,value\none more (ms),with,512,0.12345\none more (ms),without,512,12.345\n"
    (tmp_path / "speed.csv").write_text(text, encoding="ascii")
    text = "<!-- data: speed -->\n<!-- end -->\n<!--=cell(speed, one more (ms)/with/512, value, .2f)--><!--/-->"
    made = readme.render(text, Measured())
    assert "| what | cache | before | value |" in made and "| one more (ms) | with | 512 | 0.123 |" in made
    assert made.endswith("-->0.12<!--/-->")
    assert readme.figure(Measured(), "cells(speed, one more (ms)/without/512, one more (ms)/with/512, value, .1f)") == "100.0"
    for wrong in ("cell(speed, two more, value)", "cell(nothing, one, value)", "cell(speed, one more (ms), values)"):
        with pytest.raises(UserError):
            readme.figure(Measured(), wrong)


def test_the_mark_of_a_picture_follows_its_data(tmp_path):
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots()
    plots.save(figure, tmp_path / "a.png", plots.mark("1,2\n"))
    assert plots.mark_problem(tmp_path / "a.csv", "1,2\n") == []
    assert plots.mark_problem(tmp_path / "a.csv", "1,3\n") and plots.mark_problem(tmp_path / "b.csv", "")
    plots.copy_marked(tmp_path / "a.png", tmp_path / "c.png", "1,2\n", "config code")
    assert plots.mark_problem(tmp_path / "c.csv", "1,2\n", "config code") == [] and plots.mark_problem(tmp_path / "c.csv", "1,2\n", "other")


def test_every_run_of_the_course_trains_in_about_a_minute(tracked):
    """All sizes together in twenty. That is on two cores where the yardstick takes 55 seconds; where it takes longer, in proportion."""
    measured = Measured()
    yardstick = measured.rows(refer("gpt --preset yardstick")).train_seconds.min()
    sizes = "06_transformer/sizes"
    for reference in course_references():
        own = course_plan(reference.experiment).own(reference.arm, reference.settings())
        if "--preset" not in reference.flags and not own.seconds and reference.experiment != sizes:
            assert measured.rows(reference).train_seconds.min() < 60 * max(1.0, yardstick / 55), reference
    spent = sum(measured.rows(reference).train_seconds.min() for reference in course_references(sizes))
    assert spent < 20 * 60 * max(1.0, yardstick / 55), "all sizes together take twenty minutes for a seed"


def test_loss_and_accuracy_are_not_shown_across_tokenizers(tracked):
    """In a table of one tokenizer they are, in one of several only what can be compared; both have as many cells as their header."""
    measured = Measured()
    one, several = readme.table(measured, "gqa:mha; gqa:mqa vs gqa:mha"), readme.table(measured, "bpe:char; bpe:bpe-1024 vs bpe:char")
    assert "accuracy" in one and "test loss" in one and "test bpc" in one
    assert "accuracy" not in several and "loss" not in several and "test bpc" in several
    for text in (one, several):
        assert len({line.count("|") for line in text.splitlines()}) == 1
    measured.rows(refer("bpe:bpe-1024")).loc[:, "diverged"] = True
    assert len({line.count("|") for line in readme.table(measured, "bpe:char; bpe:bpe-1024 vs bpe:char").splitlines()}) == 1
