"""Exercises: the solution of the course keeps every promise, each usual mistake gets the hint that fits."""

import pytest
import torch

from common.exercises import judge
from common.exercises.catalogue import exercises, written
from common.exercises.gaps import with_gaps

ALL = exercises()
MISTAKES = [(name, number) for name, one in ALL.items() for number in range(len(one.mistakes))]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ALL)
def test_the_solution_of_the_course_keeps_every_promise(name):
    one = ALL[name]
    seen = judge.look_at(one.source.read_text(encoding="utf-8"), one, one.source)
    assert not [verdict for verdict in judge.verdicts(seen) if verdict.broken]
    assert seen[-1].own is not None


@pytest.mark.parametrize("name", ALL)
def test_a_file_with_gaps_is_told_what_to_write(name):
    one = ALL[name]
    text = with_gaps(one)
    seen = judge.look_at(text, one, one.source)
    assert "is not written yet" in judge.unfinished(seen)
    solution = one.source.read_text(encoding="utf-8")
    assert all(body not in text for body in written(solution, one.write))


@pytest.mark.parametrize(("name", "number"), MISTAKES)
def test_a_usual_mistake_breaks_a_promise_and_gets_its_hint(name, number):
    one = ALL[name]
    mistake = one.mistakes[number]
    text = mistake.made_in(one.source.read_text(encoding="utf-8"), one.write)
    seen = judge.look_at(text, one, one.source)
    assert [verdict for verdict in judge.verdicts(seen) if verdict.broken], "nothing is broken by this"
    assert judge.looks_like(seen, one) == (mistake,)
