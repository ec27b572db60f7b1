"""Pages and plots follow from the results: change one digit and the check fails."""

import functools
import re
import shlex
import shutil

import pytest

from common import command_line, lessons, results
from common.errors import UserError
from common.lessons.course import course_plan, course_references, refer
from common.paths import ROOT
from common.report import code, drawing, evidence, further, generated, pages, plots, readme, tables, update
from common.report.evidence import DAGGER, NOT_YET, Measured
from common.report.steps import steps
from common.results.table import repeated_rows, timed
from common.tools import course, side_by_side

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in pages.paths()}
# the sections that most of what follows is about: a tenth of the time of the whole
SHORT = "".join(part for part in re.split(r"(?m)^(?=## )", README) if re.match(r"## (0[237]|Trust)", part))


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(README, encoding="utf-8")
    return path


@pytest.fixture
def short(page):
    """A page of a few sections, in order."""
    page.write_text(SHORT, encoding="utf-8")
    return page


@pytest.fixture(autouse=True)
def pictures_in_order_are_not_drawn_again(monkeypatch):
    """What shows its data already takes half of the time of a report."""
    draw = update.draw

    def draw_what_changed(path, data):
        if update.plot_problems(path, data):
            draw(path, data)

    monkeypatch.setattr(update, "draw", draw_what_changed)


def test_the_committed_pages_and_plots_follow_from_the_results(tracked):
    assert update.check(*pages.paths()) == []


def test_one_changed_digit_in_a_table_or_sentence_is_found(tracked, short):
    for pattern in (r"(?m)^\| \[multi_head\].*?(\d)\.\d+\u00a0±", r"<!--=value.*?-->\d\.(\d)"):
        match = re.search(pattern, SHORT)
        at = match.start(1)
        short.write_text(SHORT[:at] + str((int(SHORT[at]) + 1) % 10) + SHORT[at + 1 :], encoding="utf-8")
        problems = update.check(short)
        assert len(problems) == 1 and problems[0].startswith(
            f"README.md, line {SHORT[:at].count(chr(10)) + 1}: has "
        ), problems


def changed(text: str, at: int) -> str:
    """A text with another digit at one place."""
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def first_figure(name: str) -> re.Match:
    """The first difference with its interval in a page: its last digit is the group."""
    found = re.search(r"<!--=difference\(.*?-->[+−]\d\.\d*(\d)\u00a0±", PAGES[name])
    assert found, f"{name} has no generated figure"
    return found


@pytest.mark.parametrize("name", ["design.md", "parts.md"])
def test_one_changed_digit_in_another_page_is_found_and_mended(tracked, tmp_path, name):
    """And the page is named; its links lead up, in what is generated too."""
    path = tmp_path / "Research" / name
    path.parent.mkdir()
    at = first_figure(name).start(1)
    path.write_text(changed(PAGES[name], at), encoding="utf-8")
    (problem,) = generated.problems(path, Measured())
    assert problem.startswith(f"{name}, line {PAGES[name][:at].count(chr(10)) + 1}: has ")
    assert generated.write(path, Measured()) == [] and path.read_text(encoding="utf-8") == PAGES[name]


def test_links_of_a_page_below_lead_up(tracked, tmp_path):
    path = tmp_path / "Research/page.md"
    path.parent.mkdir()
    parts = ("table: multi_head", "picture: staircase | The staircase")
    path.write_text("\n".join(f"<!-- {part} -->\n<!-- end -->\n" for part in parts), encoding="utf-8")
    assert generated.write(path, Measured()) == []
    shown = path.read_text(encoding="utf-8")
    assert "[multi_head](../02_attention/multi_head.py)" in shown
    assert "![The staircase](../logs/plots/staircase.png)" in shown
    assert generated.from_below(f"3.37{DAGGER}") == "3.37[†](../README.md#trust)"


def test_a_line_that_only_another_page_names_counts(monkeypatch, tmp_path):
    """What it says of seconds runs alone, and what it compares at equal time keeps its curves."""
    monkeypatch.setattr(pages, "paths", lambda: [tmp_path / "page.md"])
    (tmp_path / "page.md").write_text("Nothing.\n", encoding="utf-8")
    job = (refer("multi_head"), 1)
    assert not side_by_side.plan_tasks([job], [], True)[0].alone and update._read_at_equal_time() == []
    text = "It takes <!--=value(multi_head, train_seconds, .0f)--><!--/--> s.\n\n<!-- equal time: bpe -->\n"
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    assert side_by_side.plan_tasks([job], [], True)[0].alone
    assert update._read_at_equal_time() == ["07_tokenizer_gqa/bpe"]
    (tmp_path / "page.md").write_text("<!--=value(multi_head --steps 7, test_bpc)--><!--/-->", "utf-8")
    assert further.further_references() == [refer("multi_head --steps 7")]


def test_a_changed_result_makes_readme_and_staircase_stale(tracked, short):
    path = tracked / "results_All.csv"
    rows = results.read()
    value = results.course_rows(refer("multi_head"), rows).test_bpc.iloc[0]
    path.write_text(
        path.read_text(encoding="utf-8").replace(repr(float(value)), repr(float(value) + 1)), encoding="utf-8"
    )
    problems = update.check(short)
    assert any(p.startswith("README.md, line") for p in problems) and any(
        p.startswith("staircase.csv: line") for p in problems
    )


def test_a_users_runs_never_make_the_page_stale(tracked, short):
    """Neither other settings, nor a seed the course does not use, nor a repeated run."""
    row = results.course_rows(refer("multi_head")).iloc[0].to_dict()
    for change in ({"seed": 99}, {"config_hash": "another"}, {"test_bpc": 1.0}):
        results.append(row | {"test_bpc": 9.0} | change)
    assert update.check(short) == []


def test_a_picture_of_other_data_is_found(tracked, short):
    shutil.copyfile(tracked / "plots/staircase.png", tracked / "plots/curves_02_attention.png")
    shutil.copyfile(
        tracked / "plots/staircase.png", tracked / "plots/02_attention_self_attention_attention.png"
    )
    problems = update.check(short)
    assert [problem.split(" ")[0] for problem in problems if ".png" in problem] == [
        "curves_02_attention.png", "02_attention_self_attention_attention.png",
    ]  # fmt: skip


def test_a_learning_curve_that_does_not_belong_to_its_row_is_found(tracked, short):
    """Every one of them, and the rest of the check goes on."""
    for stage in ("02_attention", "03_ffn"):
        path = tracked / f"plots/curves_{stage}.csv"
        lines = path.read_text(encoding="utf-8").splitlines()
        last = max(number for number, line in enumerate(lines) if line.endswith(",measured"))
        path.write_text("\n".join(lines[:last] + lines[last + 1 :]) + "\n", encoding="utf-8")
    problems = update.check(short)
    lost = [problem for problem in problems if problem.startswith("the learning curve of")]
    assert len(lost) == 2 and lost[0].startswith(
        "the learning curve of 02_attention/multi_head, seed 8, is not that of its row"
    )
    assert lost[0].endswith("run it again: python -m common.tools.course run 02_attention/multi_head --again")
    assert any(problem.startswith("curves_02_attention.csv: line") for problem in problems)


def test_a_repeated_run_stands_in_for_a_lost_curve(tracked, short):
    """The row is the first one's, the curve that of a run that was made again and ended elsewhere."""
    path = tracked / "plots/curves_02_attention.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    last = max(number for number, line in enumerate(lines) if line.endswith(",measured"))
    *_, loss, bits, _ = lines[last].split(",")
    again = f"{float(loss) + 1e-7!r}"
    lines[last] = lines[last].replace(f"{loss},{bits}", f"{again},{bits}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert any("the learning curve of 02_attention/multi_head, seed 8" in p for p in update.check(short))
    row = results.course_rows(refer("multi_head")).query("seed == 8").iloc[0].to_dict()
    results.append(row | {"val_loss": float(again), "test_bpc": 9.0})
    redrawn = "curves_02_attention.png was drawn from other data than the results give"
    assert update.check(short) == [redrawn]


def test_a_line_of_which_a_seed_diverged_says_so_and_compares_the_others(tracked):
    measured = Measured()
    line, other = refer("03_ffn/feed_forward:gelu"), refer("03_ffn/feed_forward:relu")
    rows = measured.rows(line)
    rows.loc[rows.index[0], ["diverged", "test_bpc"]] = [True, float("nan")]
    _, bits, against, difference, verdict = tables.table_row(measured, line, other)
    assert "nan" not in bits + difference and against == "relu"
    assert verdict.endswith(f"; diverged in 1 of {len(rows)} seeds")
    mean = rows.test_bpc.iloc[1:].mean()
    assert readme.figure(measured, f"value({line}, test_bpc, .3f)") == f"{mean:.3f}"
    assert tables.table_row(measured, line, line)[2:] == ["", "", f"diverged in 1 of {len(rows)} seeds"]
    rows["test_bpc"] = float("nan")
    assert readme.figure(measured, f"spread({line}, test_bpc)") == "diverged"


def test_the_check_lists_every_place(tracked, short):
    # in different lines
    places = [match.start(1) for match in re.finditer(r"^.*?<!--=value.*?-->(\d)\.\d", SHORT, re.MULTILINE)][
        :3
    ]
    broken = SHORT
    for at in places:
        broken = broken[:at] + str((int(broken[at]) + 1) % 10) + broken[at + 1 :]
    short.write_text(broken.replace("<!--=verdict(", "<!--=verdit(", 1), encoding="utf-8")
    problems = update.check(short)
    assert len(problems) == 4 and "figure 'verdit(" in problems[3], problems
    for at, problem in zip(places, problems, strict=False):
        assert problem.startswith(f"README.md, line {SHORT[:at].count(chr(10)) + 1}: has ")


def test_the_check_command_names_the_place_and_exits_with_1(tracked, monkeypatch, capsys, page):
    monkeypatch.setattr(update, "ROOT", page.parent)
    monkeypatch.setattr("sys.argv", ["report", "--check"])
    monkeypatch.setattr(pages, "NAMES", ("README.md", "Research/design.md"))
    other = page.parent / "Research/design.md"
    other.parent.mkdir()
    page.write_text(SHORT, encoding="utf-8")
    other.write_text(PAGES["design.md"], encoding="utf-8")
    update.main()
    page.write_text(SHORT.replace("| [multi_head]", "| [multihead]"), encoding="utf-8")
    other.write_text(changed(PAGES["design.md"], first_figure("design.md").start(1)), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        update.main()
    said = capsys.readouterr().out
    assert stop.value.code == 1 and "stale: README.md, line" in said and "stale: design.md, line" in said


def test_writing_mends_what_the_check_finds(tracked, short):
    short.write_text(re.sub(r"(<!--=.*?-->).*?<!--/-->", r"\1<!--/-->", SHORT), encoding="utf-8")
    (tracked / "plots/staircase.png").unlink()
    assert update.check(short)
    update.write(short)
    assert update.check(short) == [] and short.read_text(encoding="utf-8") == SHORT


# ---- what is not measured yet, and what earlier code measured ------------------------------------


@pytest.fixture
def without(tracked):
    """Take the rows of an experiment away, or let earlier code have made them:
    `without("02_attention/bigram", "older")`.
    """

    def change(experiment: str, code: str | None = None, keep=()) -> None:
        path = tracked / "results_All.csv"
        lines = path.read_text(encoding="utf-8").splitlines()
        seeds, own = lines[0].split(",").index("seed"), set(results.course_rows(refer(experiment)).code_hash)
        found = []
        for line in lines:
            if f",{experiment}," not in line or int(line.split(",")[seeds]) in keep:
                found.append(line)
            elif code:
                found.append(functools.reduce(lambda text, old: text.replace(old, code), own, line))
        path.write_text("\n".join(found) + "\n", encoding="utf-8")

    return change


def test_without_any_results_every_line_is_not_measured_yet(own_logs, page):
    """Nothing has to be there, nothing stops, and the page that is written then is in order."""
    assert update.write(page) == []
    assert update.check(page) == []
    text = page.read_text(encoding="utf-8")
    assert f"| [multi_head](02_attention/multi_head.py) | {NOT_YET} |" in text and "not measured yet_" in text
    assert "0 of the" in text and "logs/plots/staircase.png" in text and "logs/plots/curves" not in text
    assert set(re.findall(r"<!--=(?!coverage).*?-->(.*?)<!--/-->", text)) == {NOT_YET}


def test_a_line_without_rows_is_not_measured_yet(tracked, short, without):
    """In tables, sentences, the staircase and the curves, and one seed is not a line."""
    assert update.write(short) == []
    without("02_attention/multi_head", keep=(1, 2))
    assert any(problem.startswith("README.md, line") for problem in update.check(short))
    assert update.write(short) == [] and update.check(short) == []
    text = short.read_text(encoding="utf-8")
    assert f"| [multi_head](02_attention/multi_head.py) | {NOT_YET} |  |  |  |" in text
    assert f"<!--=value(multi_head, test_bpc, .2f)-->{NOT_YET}<!--/-->" in text
    assert f"| multi_head | {NOT_YET} |  |" in text  # what is compared with it
    assert re.search(
        r"(\d+) of the \d+ lines of the course are measured with the present code; .*not measured yet: "
        r".*`multi_head`",
        text,
    )
    assert "02_attention/multi_head,stage,,,missing" in (tracked / "plots/staircase.csv").read_text(
        encoding="utf-8"
    )
    assert "02_attention/multi_head,default,,,,,,,,missing" in (
        tracked / "plots/curves_02_attention.csv"
    ).read_text(encoding="utf-8")


def test_a_line_that_earlier_code_measured_has_a_dagger(tracked, short, without):
    """And a footnote; the newest earlier code that has all seeds counts.

    Its learning curves are those of the same code.
    """
    (own,) = set(results.course_rows(refer("multi_head")).code_hash)
    without("02_attention/multi_head", "older")
    path = tracked / "plots/curves_02_attention.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(own, "older"), encoding="utf-8")
    assert update.write(short) == [] and update.check(short) == []
    text = short.read_text(encoding="utf-8")
    assert f"| [multi_head](02_attention/multi_head.py){DAGGER} | 3.372\u00a0±\u00a00.021 |" in text
    assert f"| [multi_head](02_attention/multi_head.py){DAGGER} | 24,769 |" in text
    assert "\n\n† measured with an earlier version of the code\n\n<details>" in text
    assert f"<!--=value(multi_head, test_bpc, .2f)-->3.37{DAGGER}<!--/-->" in text
    assert re.search(
        r"are measured with the present code; .*measured with earlier code \(†\): .*`multi_head`", text
    )
    assert re.search(
        r"02_attention/multi_head,stage,3.37\d+,0.0\d+,stale",
        (tracked / "plots/staircase.csv").read_text(encoding="utf-8"),
    )
    assert path.read_text(encoding="utf-8").count(",stale\n") == 8 * 16
    # a picture without the dagger
    shutil.copyfile(ROOT / "logs/plots/staircase.png", tracked / "plots/staircase.png")
    assert update.check(short) == ["staircase.png was drawn from other data than the results give"]


def test_pictures_of_earlier_code_and_pictures_not_drawn_yet(tracked, short):
    """Neither is a mistake, and the page says so beside the picture and beside each figure that was read from
    its data.
    """
    for kind in ("stale", "missing"):
        for path in (tracked / "plots").glob("07_tokenizer_gqa_kv_cache_*"):
            if kind == "missing":
                path.unlink()
            elif path.suffix == ".png":
                data = path.with_suffix(".csv").read_text(encoding="utf-8")
                plots.copy_marked(path, path, data, "measured-earlier-code")
        assert update.write(short) == [] and update.check(short) == []
        text = short.read_text(encoding="utf-8")
        figure = re.search(r"<!--=cell\(07_tokenizer_gqa_kv_cache_decoding.*?-->(.*?)<!--/-->", text)[1]
        shown = text.split("<!-- picture: 07_tokenizer_gqa_kv_cache_decoding")[1].split("<!-- end -->")[0]
        if kind == "stale":
            assert (
                figure.endswith(DAGGER)
                and "![What do further tokens cost?](" in shown
                and "† measured with an earlier" in shown
            )
        else:
            assert figure == NOT_YET and shown.strip().endswith(
                "_What do further tokens cost?: not measured yet_"
            )


def test_no_figure_of_speed_is_of_a_run_beside_another(tracked):
    measured = Measured()
    line = measured.line(refer("fast_gpt"))
    before = readme.figure(measured, "value(fast_gpt, tokens_per_second, .0f)")
    line.rows["alone"] = [True, False, True]
    first, _, last = line.rows.tokens_per_second
    assert (
        readme.figure(measured, "value(fast_gpt, tokens_per_second, .0f)")
        == f"{(first + last) / 2:.0f}"
        != before
    )
    line.rows["alone"] = False
    assert readme.figure(measured, "value(fast_gpt, train_seconds, .0f)") == NOT_YET
    assert readme.figure(measured, "ratio(fast_gpt, gpt, tokens_per_second, .0f)") == NOT_YET
    assert tables.costs_row(measured, refer("fast_gpt"), per_token=True)[2] == ""
    assert readme.figure(measured, "value(fast_gpt, test_bpc, .2f)") == "2.80"
    assert {refer("gpt"), refer("fast_gpt --preset yardstick")} <= readme.timed_lines(README)


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


def typed_figures(text: str) -> list[tuple[str, str]]:
    """The decimal numbers of a page outside generated parts, code and formulas, each with its line."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    made = "table|data|scores|picture|equal time|own rates|samples?|temperatures|drawing|diff"
    text = re.sub(rf"<!-- ({made}):.*?<!-- end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--=.*?<!--/-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`\n]*`|\([^()\n ]*\)", "", text, flags=re.DOTALL)
    text = re.sub(r"arXiv:\d+\.\d+", "", text)
    return [(number, line) for line in text.splitlines() for number in re.findall(r"\d+\.\d+", line)]


@pytest.mark.parametrize("name", PAGES)
def test_no_figure_of_ours_is_typed_by_hand(name):
    """A decimal number stands only beside its source."""
    for number, line in typed_figures(PAGES[name]):
        assert "published" in line.lower() or number in ("3.10", "3.13", "1.1"), line


def test_a_figure_that_is_typed_by_hand_is_found():
    text = PAGES["design.md"] + "\nThe mean of all needs 3.37 bits.\n"
    assert [number for number, line in typed_figures(text) if "published" not in line] == ["3.37"]


def test_every_picture_of_the_readme_exists_and_every_plot_is_shown():
    shown = set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README))
    there = [p for p in (ROOT / "logs/plots").iterdir() if p.suffix in (".png", ".svg")]
    assert shown == {p.relative_to(ROOT).as_posix() for p in there}


@pytest.mark.parametrize("page", pages.paths(), ids=str)
def test_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page.name]):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_tables_and_figures_of_data_files(monkeypatch, tmp_path):
    """A table shows a data file, a figure one number or the ratio of two; what is not there is said."""
    monkeypatch.setattr(plots, "folder", lambda: tmp_path)
    text = "what,cache,before,value\none more (ms),with,512,0.12345\none more (ms),without,512,12.345\n"
    (tmp_path / "speed.csv").write_text(text, encoding="ascii")
    text = "<!-- data: speed -->\n<!-- end -->\n\n"
    text += "It took <!--=cell(speed, one more (ms)/with/512, value, .2f)--><!--/-->"
    made = readme.render(text, Measured()).text
    assert "| what | cache | before | value |" in made and "| one more (ms) | with | 512 | 0.123 |" in made
    assert made.endswith("-->0.12<!--/-->") and not readme.render(text, Measured()).problems
    assert (
        readme.figure(
            Measured(), "cells(speed, one more (ms)/without/512, one more (ms)/with/512, value, .1f)"
        )
        == "100.0"
    )
    for wrong in (
        "cell(speed, two more, value)",
        "cell(nothing, one, value)",
        "cell(speed, one more (ms), values)",
    ):
        with pytest.raises(UserError):
            readme.figure(Measured(), wrong)


def test_the_mark_of_a_picture_follows_its_data(tmp_path):
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots()
    plots.save(figure, tmp_path / "a.png", plots.mark("1,2\n"))
    assert plots.mark_problem(tmp_path / "a.csv", "1,2\n") == []
    assert plots.mark_problem(tmp_path / "a.csv", "1,3\n") and plots.mark_problem(tmp_path / "b.csv", "")
    plots.copy_marked(tmp_path / "a.png", tmp_path / "c.png", "1,2\n", "config code")
    assert plots.read_mark(tmp_path / "c.png").split(" ")[1:] == ["config", "code"]


def test_every_run_of_the_course_trains_in_about_a_minute(tracked):
    """All sizes together in twenty.

    That is on two cores where the yardstick takes 55 seconds; where it takes longer, in proportion.
    """
    measured = Measured()

    def seconds(reference) -> float:
        return timed(
            measured.rows(reference)
        ).train_seconds.min()  # no number where none had the machine to itself

    yardstick = seconds(refer("gpt --preset yardstick"))
    sizes = "06_transformer/sizes"
    for reference in course_references():
        own = course_plan(reference.experiment).own(reference.arm, reference.settings())
        if "--preset" not in reference.flags and not own.seconds and reference.experiment != sizes:
            assert not seconds(reference) >= 60 * max(1.0, yardstick / 55), reference
    spent = sum(seconds(reference) for reference in course_references(sizes))
    assert not spent >= 20 * 60 * max(1.0, yardstick / 55), (
        "all sizes together take twenty minutes for a seed"
    )


def test_loss_and_accuracy_are_not_shown_across_tokenizers(tracked):
    """In a table of one tokenizer they are, in one of several only what can be compared; both have as many
    cells as their header.
    """
    measured = Measured()
    one, several = (
        tables.table(measured, "gqa:mha; gqa:mqa vs gqa:mha"),
        tables.table(measured, "bpe:char; bpe:bpe-1024 vs bpe:char"),
    )
    assert "accuracy" in one and "test loss" in one and "test bpc" in one
    assert "accuracy" not in several and "loss" not in several and "test bpc" in several
    measured.rows(refer("bpe:bpe-1024")).loc[:, "diverged"] = True
    for text in (one, several, tables.table(measured, "bpe:char; bpe:bpe-1024 vs bpe:char")):
        for part in text.split("<details>"):
            assert len({line.count("|") for line in part.splitlines() if line.startswith("|")}) == 1


# ---- the page as a reader sees it ----------------------------------------------------------------


def paragraphs(text: str) -> list[str]:
    """What a reader sees of each paragraph, heading and table cell: no comments, no HTML."""
    from markdown_it import MarkdownIt

    found = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        assert token.type != "html_block" or "<!--=" not in token.content, (
            f"torn apart by a figure: {token.content[:80]!r}"
        )
        if token.type == "inline":
            seen = {
                "text": lambda c: c.content,
                "code_inline": lambda c: f"`{c.content.replace('*', '')}`",
                "html_inline": lambda _: "",
            }
            found.append(
                " ".join(
                    "".join(
                        seen.get(child.type, lambda _: " ")(child) for child in token.children or ()
                    ).split()
                )
            )
    return found


@pytest.mark.parametrize("name", PAGES)
def test_no_sentence_of_a_page_is_torn_apart(name):
    """The page means the same paragraphs as its text without the comments that stand around figures."""
    meant = re.sub(r"<!--=.*?-->|<!--/-->", "", PAGES[name])
    assert paragraphs(PAGES[name]) == paragraphs(meant)
    assert not any(text.count("**") or "<!--" in text for text in paragraphs(PAGES[name]))


def test_a_figure_at_the_beginning_of_a_line_moves_up(tracked):
    figure = "<!--=value(multi_head, test_bpc, .2f)-->3.37<!--/-->"
    made = readme.render(
        f"It needs\n{figure} bits,\n  {figure} or\n{figure}.\n\n- as\n  {figure} here\n", Measured()
    )
    assert made.text == f"It needs {figure} bits, {figure} or {figure}.\n\n- as {figure} here\n"
    assert not made.problems and readme.render(made.text, Measured()) == made


@pytest.mark.parametrize("start", ["", "- ", "1. ", "> "])
def test_a_paragraph_that_begins_with_a_figure_is_a_mistake(start, tracked):
    text = f"Before.\n\n{start}<!--=value(multi_head, test_bpc, .2f)--><!--/--> bits\n"
    problems = readme.render(text, Measured()).problems
    assert any("a paragraph begins with a figure" in problem for problem in problems)


def test_no_table_is_wider_than_the_page():
    """GitHub gives a README 798 pixels.

    What cannot be broken decides: a letter takes about 8 pixels, a cell 27 beside it. A line may end at a
    space and after a hyphen.
    """
    text = re.sub(r"<!--.*?-->", "", README)
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        rows = [row for row in rows if not set("".join(row)) <= set("-: ")]
        widest = [0] * max(map(len, rows))
        for row in rows:
            for column, cell in enumerate(row):
                seen = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace("`", "")
                words = seen.replace("-", "- ").split(" ")
                widest[column] = max(widest[column], *map(len, words))
        assert sum(8 * length + 27 for length in widest) < 798, rows[0]
        if rows[0][:2] == ["script", "test bpc"]:
            assert 8 * (widest[0] + widest[1]) + 54 < 358, f"on a phone {rows[1]} is off the screen"


def test_what_is_not_there_yet_says_so():
    """Stages that the page promises are in the course, or the page says beside each mention that they are
    not.
    """
    there = {experiment[:2] for experiment in lessons.COURSE}
    for text in paragraphs(README):
        for stage in re.findall(r"[Ss]tages? (0\d)", text):
            assert stage in there or "not there yet" in text, text
    for stage, state in re.findall(r"^\| (0\d)_\w+ \|.*\| (.*) \|$", README, flags=re.MULTILINE):
        assert stage not in there and state == "not there yet"
    for path in (ROOT / "common").glob("**/*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            stage = re.search(r"stage (0\d)", line)
            assert not stage or stage[1] in there or "not there yet" in line, f"{path.name}: {line}"


def test_minutes_of_a_stage_are_those_of_its_rows(tracked):
    measured = Measured()
    rows = [measured.rows(reference) for reference in course_references("07_tokenizer_gqa")]
    rows = [timed(own) if len(timed(own)) else own for own in rows if len(own)]
    seconds = sum(own.train_seconds.mean() for own in rows)
    assert readme.figure(measured, "minutes(07_tokenizer_gqa)") == f"{seconds / 60:.0f}"
    seconds = repeated_rows(refer("gqa:mqa"), measured.every(refer("gqa:mqa"))).train_seconds.min()
    assert readme.figure(measured, "minutes(gqa:mqa)") == f"{max(1, seconds / 60):.0f}"
    with pytest.raises(UserError, match="'10_more' is no script"):
        readme.figure(measured, "minutes(10_more)")


def commands_of_the_readme() -> list[str]:
    text = re.sub(r"<!--.*?-->", "", README, flags=re.DOTALL)
    found = re.findall(r"`python (0\d_\w+/\w+\.py[^`]*)`", text)
    return [command for command in dict.fromkeys(found) if " ..." not in command]


@pytest.mark.parametrize("command", commands_of_the_readme())
def test_a_command_of_the_readme_is_accepted(command, monkeypatch, capsys):
    """Up to the training: flags, values, arms and what fits together."""
    script, *arguments = shlex.split(command)
    plan = course_plan(script.removesuffix(".py"))
    if not plan.arms:  # a program
        return
    arguments = plan.arguments(arguments) if plan.arguments else arguments
    monkeypatch.setattr("sys.argv", [script, *arguments])
    if "--help" in arguments:
        return
    quick = plan.small()[0]
    s, options = command_line.parse(plan.defaults, "", arguments, plan.presets, quick, plan.bare)
    for arm in command_line.chosen_arms(plan, options, plan.course_arms):
        command_line.check_settings(plan, arm, s)


# ---- drawings of models --------------------------------------------------------------------------


def labels(row) -> list[str]:
    return [box.label for box in row]


def test_a_drawing_has_the_steps_of_the_model():
    found = steps("05_residual_norm/pre_ln", "default")
    whole, block = found.model, found.block
    assert labels(whole) == ["ids", "token", "position", "+", "blocks", "norm", "head"]
    assert labels(block) == ["x", "norm1", "attention", "+", "norm2", "feed_forward", "+"]
    assert block[3].inputs == [0, 2] and block[6].inputs == [3, 5]  # x + attention(norm1(x)), and so on
    assert whole[4].note.startswith("4 x Block 199,168") and whole[6].note == "Linear 4,225"


def test_the_steps_of_a_part_tell_what_goes_where():
    head = steps("02_attention/multi_head", "default").part
    assert labels(head) == ["x", "query", "key", "value", "@", "softmax", "@"]
    assert [box.inputs for box in head] == [[], [0], [0], [0], [1, 2], [4], [5, 3]]
    assert [box.note for box in head[4:]] == ["(B, H, T, T)", "(B, H, T, T)", "(B, H, T, D)"]
    gated = steps("08_micro_arch/activation", "swiglu").part
    assert labels(gated) == ["x", "gate", "activation", "up", "×", "down"] and gated[4].inputs == [2, 3]
    experts = steps("08_micro_arch/moe", "top-2")
    assert labels(experts.part) == ["x", "router", "softmax", "topk", "experts", "×", "sum"]
    assert experts.part[4].note == "8 x FeedForward 131,072" and experts.part[5].inputs == [3, 4]
    assert experts.part[4].inputs == [0, 3], "the router chooses which expert sees a token"
    turned = steps("08_micro_arch/position", "rope")
    assert labels(turned.part) == ["x", "qkv", "rotate", "attention", "projection"]
    assert "position" not in labels(turned.model), "RoPE does nothing to the stream"
    tied = steps("06_transformer/gpt", "default").model
    counts = [int(box.note.rpartition(" ")[2].replace(",", "")) for box in tied if box.note[-1:].isdigit()]
    assert tied[-1].note == "Linear, shared" and sum(counts) == 205_440, (
        "a tied head has no parameters of its own"
    )
    assert labels(experts.model)[3] == "blocks" and experts.model[3].note.startswith("4 x Block ")
    assert steps("05_residual_norm/pre_ln", "default").part == [], "how parts are wired is in the block"


def test_no_box_of_a_drawing_lies_on_another():
    for name in ("multi_head", "projection", "gqa:gqa vs gqa:mha", "moe:top-2 vs moe:dense"):
        found = re.findall(
            r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="50"', drawing.drawing(name)
        )
        boxes = [tuple(map(float, box)) for box in found]
        assert len(boxes) > 8
        for i, (x, y, wide) in enumerate(boxes):
            for left, top, width in boxes[:i]:
                assert abs(y - top) >= 50 or x >= left + width or left >= x + wide, name


def coloured(name: str) -> list[str]:
    """The names in the boxes that a drawing colours."""
    svg = drawing.drawing(name)
    found = re.findall(rf'fill="{drawing.CHANGED}".*?/><text[^>]*>([^<]+)<', svg)
    return found


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("positions", ["+", "position"]),
        ("multi_head", ["@", "@", "attention", "softmax"]),
        ("residual", ["+", "+"]),
        ("layer_norm", ["norm"]),
        ("pre_ln", ["norm", "norm1", "norm2", "+"]),
        ("self_attention", ["@", "@", "attention", "key", "query", "softmax", "value"]),
        ("gqa:gqa vs gqa:mha", ["@", "@", "attention", "key", "softmax", "value"]),
        ("norm:rmsnorm vs norm:layernorm", ["norm", "norm1", "norm2"]),
        ("activation:swiglu vs activation:gelu", ["activation", "down", "feed_forward", "gate", "up", "×"]),
        ("position:rope vs position:learned", ["attention", "rotate"]),
        ("bigrams:rows-4096 vs bigrams:tokens", ["+", "embedding", "pairs", "token"]),
    ],
)
def test_a_drawing_colours_what_changes(name, changed):
    assert sorted(coloured(name)) == sorted(changed)


def test_a_model_that_cannot_be_followed_is_told():
    with pytest.raises(UserError, match="cannot be drawn"):
        drawing.drawing("count_bigram")


def test_a_drawing_of_another_model_is_found(tracked, page):
    path = tracked / "plots/drawing_05_residual_norm_pre_ln.svg"
    assert drawing.problems(README) == []
    path.write_text(path.read_text(encoding="utf-8").replace("norm1", "norm9"), encoding="utf-8")
    assert drawing.problems(README) == [f"{path.name} is not the drawing of the model as it is"]


def test_what_changes_in_the_code_is_folded():
    shown = code.difference("pre_ln")
    assert "<code>pre_ln.py</code> against <code>post_ln.py</code>" in shown
    assert "\n+        x = x + self.attention(self.norm1(x))\n" in shown and "\n ...\n" in shown
    with pytest.raises(UserError, match="has no script before it"):
        code.difference("count_bigram")


def anchors(text: str) -> set[str]:
    """As GitHub makes an anchor of a heading: small letters, no signs, a hyphen for each space."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_to_a_place_within_a_page_has_its_heading(name):
    """In the page itself, or in README."""
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGES[name])) <= anchors(PAGES[name])
    assert set(re.findall(r"\]\(\.\./README\.md#([^)]+)\)", PAGES[name])) <= anchors(README)


def test_lines_that_only_the_page_names_belong_to_the_course_too(monkeypatch):
    text = (
        "<!--=difference(multi_head, multi_head --steps 7, test_bpc)--><!--/--> "
        "<!--=value(bigram, test_bpc)--><!--/--> <!--=best(01_bigram)--><!--/-->\n"
        "<!-- table: 02_attention; gqa:mqa --n-head 8 vs gqa:mha --n-head 8 -->\n<!-- end -->\n"
        "<!--=verdict(average, bigram)--><!--/-->"
    )
    named = ["multi_head --steps 7", "gqa:mqa --n-head 8", "gqa:mha --n-head 8"]
    found = further.further_references(text)
    assert found == [refer(name) for name in named]
    assert refer("sizes:xlarge") in further.further_references(), "an arm that runs only when it is named"
    monkeypatch.setattr(further, "further_references", lambda: found)
    assert f"of the {len(course_references()) + 3} lines" in evidence.coverage(Measured())
    assert found[0] in course.chosen(("02_attention",)) and found[1] not in course.chosen(("02_attention",))
    assert found[0] not in course.chosen((), further=False)
