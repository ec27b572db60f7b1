"""The exercise program: nothing of a reader's is lost, and a slip is told in one line."""

import subprocess
import sys

import pytest

from common.errors import UserError
from common.exercises import judge
from common.exercises.catalogue import exercise
from common.exercises.desk import COLUMNS, Desk, Event
from common.paths import ROOT
from common.tools import exercise as tool

NAME = "bigram" if "bigram" in tool.exercises() else "self_attention"


@pytest.fixture
def desk(tmp_path):
    return Desk(str(tmp_path / "desk"))


def asked(kind, desk, name=NAME):
    return kind(folder=str(desk.folder), name=name)


def test_from_nothing_to_done(desk, capsys):
    """Start, a check that says what is lacking, hints, the solution, a check that is passed, the record."""
    one = exercise(NAME)
    tool.start(asked(tool.Start, desk))
    assert desk.path(one).is_file() and "write " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        tool.check(asked(tool.Check, desk))
    assert stop.value.code == 1 and "not written yet: " in capsys.readouterr().out
    for number in range(len(one.hints)):
        tool.hint(asked(tool.Hint, desk))
        assert f"hint {number + 1} of {len(one.hints)}: " in capsys.readouterr().out
    tool.hint(asked(tool.Hint, desk))
    assert "that was all" in capsys.readouterr().out
    tool.solution(asked(tool.Solution, desk))
    shown = capsys.readouterr().out
    assert "-        raise NotImplementedError" in shown and "\033" not in shown
    desk.path(one).write_text(one.source.read_text(encoding="utf-8"), encoding="utf-8")
    tool.check(tool.Check(folder=str(desk.folder)))  # no name: all that are begun
    assert "FAILED" not in capsys.readouterr().out
    tool.solution(asked(tool.Solution, desk))
    assert capsys.readouterr().out == "no difference\n"
    tool.progress(tool.Progress(folder=str(desk.folder)))
    said = capsys.readouterr().out
    assert f"1 of {len(tool.exercises())} exercises done" in said
    assert "2 checks" in said and f"{len(one.hints)} hints" in said and "solution seen" in said
    tool.show_list(tool.List(folder=str(desk.folder)))
    assert f"  {NAME:<18}done" in capsys.readouterr().out


def test_a_broken_promise_is_told_with_what_it_means(desk, capsys):
    """By the hint of a usual mistake, or where it is none, by what the promise usually means."""
    one = exercise("self_attention")
    text = one.source.read_text(encoding="utf-8")
    desk.put(one, text.replace(" / q.size(-1) ** 0.5", ""))
    with pytest.raises(SystemExit):
        tool.check(asked(tool.Check, desk, one.name))
    said = capsys.readouterr().out
    assert "not divided by sqrt(D)" in said and said.count("FAILED") >= 2
    desk.path(one).write_text(text.replace("** 0.5", "** 0.37"), encoding="utf-8")
    with pytest.raises(SystemExit):
        tool.check(asked(tool.Check, desk, one.name))
    said = capsys.readouterr().out
    assert "usually that means: " in said and "usual mistake" not in said


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("def (", "SyntaxError"),
        (
            "import nothing_of_this_name",
            "ModuleNotFoundError: No module named 'nothing_of_this_name' (line 1)",
        ),
        ("raise SystemExit(3)", "SystemExit: 3 (line 1)"),
        ("", "AttributeError: module 'this file' has no attribute 'lesson'"),
    ],
)
def test_a_file_that_cannot_be_run_is_told_so(desk, capsys, broken, told):
    desk.put(exercise(NAME), broken)
    with pytest.raises(SystemExit) as stop:
        tool.check(asked(tool.Check, desk))
    assert stop.value.code == 1 and told in capsys.readouterr().out


def test_nothing_of_the_readers_is_overwritten(desk):
    one = exercise(NAME)
    desk.put(one, "my work")
    with pytest.raises(UserError, match="is there already, with your work in it"):
        tool.start(asked(tool.Start, desk))
    assert desk.path(one).read_text(encoding="utf-8") == "my work" and desk.events() == []
    desk.record.write_text("my own list\n", encoding="utf-8")
    with pytest.raises(UserError, match="is no record of exercises"):
        tool.progress(tool.Progress(folder=str(desk.folder)))
    with pytest.raises(UserError, match="is no record of exercises"):
        desk.note(Event(NAME, "hint"))
    assert desk.record.read_text(encoding="utf-8") == "my own list\n"


def test_the_record_keeps_a_line_for_each_event(desk):
    for what in ("started", "checked", "hint"):
        desk.note(Event(NAME, what, 2, 9))
    assert desk.record.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert [event.what for event in desk.events()] == ["started", "checked", "hint"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("start nothing", "there is no exercise 'nothing'"),
        ("start self_atention", "did you mean 'self_attention'?"),
        ("start", "name an exercise"),
        ("check self_attention", "is not there; begin with"),
        ("check", "nothing is begun yet"),
        ("hint self_attention", "is not there; begin with"),
        ("solution self_attention", "is not there; begin with"),
    ],
)
def test_a_slip_is_one_line(tmp_path, command, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["exercise", *command.split(), "--folder", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as stop:
        tool.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert told in said and not (tmp_path / "none").exists()


def test_a_loop_without_an_end_is_named(tmp_path):
    one, folder = exercise("self_attention"), tmp_path / "desk"
    text = one.source.read_text(encoding="utf-8").replace(
        "        x = self.token(ids)", "        while True:\n            pass\n        x = self.token(ids)"
    )
    Desk(str(folder)).put(one, text)
    program = "from common.tools import exercise; exercise.LONGEST = 4.0; exercise.main()"
    command = [sys.executable, "-c", program, "check", "self_attention", "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    line = next(n for n, said in enumerate(text.splitlines(), 1) if "while True" in said)
    assert done.returncode == 2 and "a loop that never ends?" in done.stderr
    assert f"line {line} of" in done.stderr or f"line {line + 1} of" in done.stderr


def test_what_can_be_told_before_all_is_written(desk, capsys):
    """The gaps that are left, and the promises that need none of them."""
    one = exercise("schedule")
    text = one.source.read_text(encoding="utf-8")
    start = text.index("    optimizer = torch.optim.AdamW(")
    end = text.index("def overview")
    desk.put(one, text[:start] + '    raise NotImplementedError("train")\n\n\n' + text[end:])
    with pytest.raises(SystemExit):
        tool.check(asked(tool.Check, desk, one.name))
    said = capsys.readouterr().out
    assert "not written yet: train\n" in said and "FAILED" not in said
    assert "\n  so far  the learning rate of each step" in said  # it is asked in training too
    assert "promises kept" in said


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("s.n_embd", "s.n_embed", "There is no such name"),
        ("self.value(x)", "self.value(x.mT)", "Two shapes do not fit there"),
        ("super().__init__()\n        self.query", "self.query", "super().__init__() is missing"),
    ],
)
def test_an_error_is_told_once_with_what_it_means(desk, capsys, old, new, told):
    one = exercise("self_attention")
    text = one.source.read_text(encoding="utf-8")
    assert old in text
    desk.put(one, text.replace(old, new))
    with pytest.raises(SystemExit):
        tool.check(asked(tool.Check, desk, one.name))
    said = capsys.readouterr().out
    assert told in said and "the same error" in said


def test_the_name_of_a_script_leads_to_its_exercises():
    with pytest.raises(UserError, match="position.py has 3 exercises; name one: sinusoidal, rope, alibi"):
        exercise("position")


def test_done_stays_done(desk):
    desk.note(Event(NAME, "checked", 9, 9))
    desk.note(Event(NAME, "checked", 3, 9))
    assert tool._states(desk) == {NAME: "done"}


def test_a_file_with_another_rest_is_told_so(desk, capsys):
    one = exercise("schedule")
    text = one.source.read_text(encoding="utf-8")
    desk.put(one, text.replace('"linear": linear, ', ""))
    with pytest.raises(SystemExit):
        tool.check(asked(tool.Check, desk, one.name))
    assert "something outside of the gaps was changed" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["def (", "x = 1\x00"])
def test_the_solution_of_a_file_that_is_no_python(desk, broken):
    desk.put(exercise(NAME), broken)
    with pytest.raises(UserError, match="cannot be read as Python"):
        tool.solution(asked(tool.Solution, desk))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a,b\n", b'timestamp,exercise,what,kept,of\n1,2,"3'])
def test_a_record_that_is_none_stops_before_anything_is_written(desk, content):
    desk.folder.mkdir()
    desk.record.write_bytes(content)
    with pytest.raises(UserError, match="is no record of exercises"):
        tool.start(asked(tool.Start, desk))
    assert not desk.path(exercise(NAME)).exists() and desk.record.read_bytes() == content


def test_a_mistake_is_told_though_another_shows_on_another_device(monkeypatch):
    monkeypatch.setattr(judge, "PAIRS_SECONDS", -1.0)  # without looking for two usual mistakes
    one = exercise("multi_head")
    text = one.source.read_text(encoding="utf-8").replace(" / q.size(-1) ** 0.5", "")
    text = text.replace("self.position.weight[: ids.size(1)]", "self.position(torch.arange(ids.size(1)))")
    seen = judge.look_at(text, one, one.source, dear=False)
    assert "device" in {verdict.promise for verdict in judge.verdicts(seen) if verdict.broken}
    (found,) = judge.looks_like(seen, one)
    assert "sqrt(D)" in found.hint
