"""Exercises: the solution of the course keeps every promise, each usual mistake gets the hint that fits."""

import re

import pytest

from common.exercises import judge
from common.exercises.catalogue import exercises, written
from common.exercises.gaps import with_gaps
from common.exercises.observation import Failed
from common.lessons.course import COURSE
from common.paths import ROOT

ALL = exercises()
MISTAKES = [(name, number) for name, one in ALL.items() for number in range(len(one.mistakes))]
# all of them take five minutes; each run has every eighth
SOME = [
    pytest.param(*one, marks=[pytest.mark.long] if place % 8 else []) for place, one in enumerate(MISTAKES)
]


@pytest.mark.parametrize("name", ALL)
def test_the_solution_of_the_course_keeps_every_promise(name):
    one = ALL[name]
    seen = judge.look_at(one.source.read_text(encoding="utf-8"), one, one.source)
    assert not [verdict for verdict in judge.verdicts(seen) if verdict.broken]
    # nothing holds only because it fails alike: an error is seen where bad input is refused, and nowhere else
    failed = {s.observation.promise for s in seen if isinstance(s.reference, Failed)}
    assert failed <= {"refused"}
    assert all(s.reference is True for s in seen if s.observation.promise == "learns")


@pytest.mark.parametrize("name", ALL)
def test_a_file_with_gaps_is_told_what_to_write(name):
    one = ALL[name]
    text = with_gaps(one)
    seen = judge.look_at(text, one, one.source)
    assert "is not written yet" in judge.unfinished(seen)
    solution = written(one.source.read_text(encoding="utf-8"), one.write)
    assert all(part not in text for part in solution)


@pytest.mark.parametrize("name", ALL)
def test_every_mistake_can_be_made(name):
    """What it replaces is in the part to write, and what comes of it is Python."""
    one = ALL[name]
    text = one.source.read_text(encoding="utf-8")
    made = [mistake.made_in(text, one.write) for mistake in one.mistakes]
    assert len({*made, text}) == len(made) + 1
    for other in made:
        compile(other, one.name, "exec")


@pytest.mark.parametrize(("name", "number"), SOME)
def test_a_usual_mistake_breaks_a_promise_and_gets_its_hint(name, number):
    one = ALL[name]
    mistake = one.mistakes[number]
    text = mistake.made_in(one.source.read_text(encoding="utf-8"), one.write)
    seen = judge.look_at(text, one, one.source, dear=False)
    assert [verdict for verdict in judge.verdicts(seen) if verdict.broken], "nothing is broken by this"
    assert judge.looks_like(seen, one) == (mistake,)


def test_the_readme_names_every_exercise_in_its_stage():
    """And none that is not there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = {}
    for section in re.split(r"^## (?=0\d )", readme, flags=re.MULTILINE)[1:]:
        (line,) = re.findall(r"^\*\*Write it yourself\.\*\* .*$", section, flags=re.MULTILINE)
        own = [re.search(r"exercise start (\w+)`", line)[1], *re.findall(r"`(\w+)`", line)]
        listed |= {name: section[:2] for name in own if name not in ("check", "start")}
    stages = {name: one.source.parent.name[:2] for name, one in ALL.items()}
    assert listed == stages | {"sampling": "01"}  # it is in common/generation


def test_every_exercise_has_hints_and_ten_mistakes():
    assert all(len(one.hints) >= 3 and len(one.mistakes) >= 10 for one in ALL.values())
    scripts = {one.source for one in ALL.values()}
    without = {e.split("/")[1] for e in COURSE if ROOT / f"{e}.py" not in scripts}
    # a law that is fitted, recipes made of parts, a program
    assert without == {"sizes", "ablation", "prepare", "pretrain"}
