"""The course on one screen, and what a script of each stage writes."""

import os
import time
from pathlib import Path

import pytest

from common import lessons, results
from common.errors import UserError
from common.lessons.course import COURSE, refer
from common.report import readme, samples
from common.report.evidence import DAGGER, Measured
from common.tools import samples as writing
from common.tools import tour
from common.tools.side_by_side import Pool
from common.tools.tour import Stop, Tour

QUICK = (
    Stop("02_attention/bigram", "--corpus pydoc --steps 3", "the control"),
    Stop("01_bigram/count_bigram", "--corpus pydoc", "counting"),
)


def test_a_tour_has_a_script_of_each_stage_in_order():
    stages = [stop.script.split("/")[0] for stop in tour.STOPS]
    assert list(dict.fromkeys(stages)) == list(dict.fromkeys(e.split("/")[0] for e in COURSE))
    assert [COURSE.index(stop.script) for stop in tour.STOPS] == sorted(
        COURSE.index(stop.script) for stop in tour.STOPS
    )
    for stop in tour.STOPS:
        arm = "" if "--arms" not in stop.flags else stop.flags.split("--arms ")[1].split()[0]
        flags = stop.flags.replace(f"--arms {arm}", "").strip()
        plan = lessons.course_plan(stop.script)
        assert plan.settings(flags) and (not arm or arm in plan.arms)


def test_what_a_tour_shows(monkeypatch, capsys, own_logs):
    monkeypatch.setattr(tour, "STOPS", QUICK)
    tour.tour(Tour(prompt="in", jobs=2))
    said = capsys.readouterr().out
    first, second = said.index("02_attention/bigram: the control   "), said.index("count_bigram: counting   ")
    assert first < second and said.count("\n      in") == 2
    bits = [float(line.split()[-1]) for line in said.splitlines() if line.startswith("0")]
    assert 4 < bits[0] < 8 and 2 < bits[1] < 4
    assert not own_logs.exists() or not list(own_logs.rglob("*.safetensors"))


def test_what_a_tour_refuses(monkeypatch):
    for wrong, said in (
        (Tour(prompt=""), "cannot be said by all"),
        (Tour(prompt="日本"), "cannot be said by all"),
        (Tour(length=0), "at least 1"),
        (Tour(jobs=0), "at least 1"),
    ):
        with pytest.raises(UserError, match=said):
            tour.tour(wrong)
    broken = Stop("02_attention/bigram", "--corpus nothing.txt", "")
    monkeypatch.setattr(tour, "STOPS", (broken,))
    with pytest.raises(
        UserError, match="bigram ended with exit code 2: error: corpus file 'nothing.txt' does"
    ):
        tour.tour(Tour())


@pytest.mark.long
def test_a_tour_takes_three_minutes(capsys):
    begun = time.perf_counter()
    tour.tour(Tour())
    assert time.perf_counter() - begun < 180 and "09_pretraining/pretrain" in capsys.readouterr().out


# ---- samples of each stage -----------------------------------------------------------------------

# they are of lines of the course, which are trained on its text
NEEDS_TEXT = pytest.mark.skipif(
    not (Path(os.environ.get("GPT_STAIRCASE_DATA", "")) / "tinyshakespeare.txt").exists(),
    reason="needs tinyshakespeare.txt in GPT_STAIRCASE_DATA",
)


def test_the_lines_that_write_are_of_each_stage():
    references = [refer(name) for name in samples.LINES]
    assert len({r.experiment.split("/")[0] for r in references}) == 9
    assert all(r in lessons.course_references() for r in references)


@NEEDS_TEXT
def test_samples_are_made_kept_and_shown(monkeypatch, own_logs, tracked):
    """A line that is not trained is trained first, with nothing logged; with other code its sample is old."""
    monkeypatch.setattr(samples, "LINES", ("01_bigram/count_bigram",))
    before = results.results_path().read_bytes()

    def work(tasks, jobs):
        assert [event for event, *_ in Pool(tasks, jobs).run()] == ["begin", "end"]

    writing.samples(writing.Samples(prompt="KI", length=20), work)
    assert results.results_path().read_bytes() == before
    first = "01_bigram/count_bigram", "1"
    text = samples.read()[first]["text"]
    assert text.startswith("KI") and len(text) == 20
    again = writing.Samples(prompt="KI", length=20)
    writing.samples(again, lambda *_: pytest.fail("it is trained already"))
    assert samples.read()[first]["text"] == text
    page = "<!-- samples: KI -->\n<!-- end -->"
    shown = readme.render(page, Measured()).text
    assert "| 01 | Counting pairs | 3.59" in shown and "| KI" in shown and DAGGER not in shown.split("KI")[-1]
    block = "<!-- sample: 01_bigram -->\n<!-- end -->"
    shown = readme.render(block, Measured()).text
    assert "after `KI`: `count_bigram`, 3.59 bits." in shown and f"```text\n{text.strip()}\n```" in shown
    assert readme.render(block.replace("01_bigram", "10_more"), Measured()).problems
    row = samples.read()[first]
    samples.write([row | {"fingerprint": "another"}])
    assert f"**What it writes**{DAGGER} after" in readme.render(block, Measured()).text
    assert DAGGER in readme.render(page, Measured()).text.split("| KI")[-1]
    assert "not measured yet" in readme.render(page.replace("KI", "QUEEN"), Measured()).text


def test_a_file_that_holds_no_samples(own_logs):
    own_logs.mkdir()
    torn = f'{",".join(samples.COLUMNS)}\na,1,b,c,d,"e'.encode()
    for content in (b"a,b\n1,2\n", b"\xff\n", torn, b""):
        samples.samples_path().write_bytes(content)
        with pytest.raises(UserError, match="is no file of samples"):
            samples.read()


def test_what_markdown_would_read_is_shown_as_it_is():
    assert samples._one_line("a|b\n\n *c* <d> `e`\n") == "a\\|b ↵ \\*c\\* &lt;d&gt; \\`e\\`"


@NEEDS_TEXT
def test_one_line_writes_at_several_temperatures(monkeypatch, own_logs, tracked):
    monkeypatch.setattr(samples, "LINES", ("01_bigram/count_bigram",))
    monkeypatch.setattr(samples, "TEMPERED", "01_bigram/count_bigram")
    writing.samples(
        writing.Samples(prompt="KI", length=30), lambda tasks, jobs: list(Pool(tasks, jobs).run())
    )
    kept = {temperature: row["text"] for (_, temperature), row in samples.read().items()}
    assert list(kept) == list(samples.TEMPERATURES) and len(set(kept.values())) == len(kept)
    assert len(set(kept["0"])) < len(set(kept["2"]))  # the likeliest again and again, against anything
    shown = readme.render("<!-- temperatures: KI -->\n<!-- end -->", Measured()).text
    assert [line.split(" | ")[0] for line in shown.splitlines()[3:7]] == ["| 0", "| 0.5", "| 1", "| 2"]
