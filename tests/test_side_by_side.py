"""Lines of the course side by side: what may run at once, what measures time and runs alone, and what a row
says of that.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common import results
from common.errors import UserError
from common.lessons.course import course_references, refer
from common.paths import ROOT
from common.report import pictures
from common.tools import course, side_by_side
from common.tools.side_by_side import Pool, Task, plan_tasks, small, training
from common.training import presence
from common.training.presence import Presence

MAP = "05_residual_norm/depth_map"


@pytest.fixture(autouse=True)
def own_notes(tmp_path, monkeypatch):
    """The tests that run beside this one are none of its business."""
    monkeypatch.setattr(presence, "folder", lambda: tmp_path / "running")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "running"


def task(name: str, tmp_path: Path, takes: float = 0.4, code: int = 0, **how) -> Task:
    """A command that notes when it began and when it ended, and with which arguments."""
    program = (
        f"import sys, time; start = time.time(); time.sleep({takes}); "
        f"print(start, time.time(), sys.argv[1:], file=open({str(tmp_path / name)!r}, 'w', "
        f"encoding='utf-8')); sys.exit({code})"
    )
    return Task(name, [sys.executable, "-c", program], **{"jobs": [(name, 1)]} | how)


def times(path: Path) -> tuple[float, float]:
    start, end, _ = path.read_text(encoding="utf-8").split(" ", 2)
    return float(start), float(end)


def overlap(a: Path, b: Path) -> bool:
    (start, end), (other_start, other_end) = times(a), times(b)
    return start < other_end and other_start < end


def test_two_run_at_once_with_one_thread_each_and_what_measures_time_runs_alone(tmp_path):
    tasks = [
        task("timed", tmp_path, alone=True),
        task("a", tmp_path),
        task("b", tmp_path),
        task("c", tmp_path),
    ]
    events = [(event, t.name) for event, t, _ in Pool(tasks, 2).run()]
    assert (
        events[:2] == [("begin", "a"), ("begin", "b")] and events[-1] == ("end", "timed") and len(events) == 8
    )
    assert overlap(tmp_path / "a", tmp_path / "b")
    assert not any(overlap(tmp_path / "timed", tmp_path / name) for name in "abc")
    for name in "abc":
        assert "'--threads', '1'" in (tmp_path / name).read_text(encoding="utf-8")
    # which chooses as it does by hand
    assert "threads" not in (tmp_path / "timed").read_text(encoding="utf-8")


def test_towards_the_end_the_longest_comes_first(tmp_path):
    tasks = [task(f"{n}", tmp_path, 0.05, seconds=float(n)) for n in range(8)]
    assert [t.name for event, t, _ in Pool(tasks, 2).run() if event == "begin"][:4] == ["0", "1", "7", "6"]


def test_one_job_keeps_the_order_and_leaves_threads_to_the_script(tmp_path):
    tasks = [task("timed", tmp_path, 0.1, alone=True), task("a", tmp_path, 0.1), task("b", tmp_path, 0.1)]
    assert [t.name for event, t, _ in Pool(tasks, 1).run() if event == "begin"] == ["timed", "a", "b"]
    assert not overlap(tmp_path / "a", tmp_path / "b") and "threads" not in (tmp_path / "a").read_text(
        encoding="utf-8"
    )


def test_what_needs_another_line_waits_for_it(tmp_path):
    tasks = [task("tuned", tmp_path, after=[("base", 1)]), task("base", tmp_path), task("other", tmp_path)]
    assert [t.name for event, t, _ in Pool(tasks, 2).run() if event == "begin"] == ["base", "other", "tuned"]
    assert times(tmp_path / "base")[1] <= times(tmp_path / "tuned")[0]
    alone_first = [task("x", tmp_path, 0.1, after=[("timed", 1)]), task("timed", tmp_path, 0.1, alone=True)]
    assert [t.name for event, t, _ in Pool(alone_first, 2).run() if event == "begin"] == ["timed", "x"]


def test_a_task_that_fails_stops_no_other_and_is_named(tmp_path, capsys):
    pool = Pool(
        [task("bad", tmp_path, 0.1, code=2), task("good", tmp_path, 0.1), task("late", tmp_path, 0.1)], 2
    )
    assert [t.name for event, t, _ in pool.run() if event == "end"] == ["good", "late"] and pool.failed == [
        "bad"
    ]
    assert "bad ended with exit code 2" in capsys.readouterr().out
    with pytest.raises(
        UserError, match="1 commands failed, bad first; mend that and run the same command again"
    ):
        course.work([task("bad", tmp_path, 0.1, code=2, jobs=[])], 1, False)


def test_ctrl_c_lets_what_runs_end_and_begins_nothing_more(tmp_path):
    pool = Pool([task(str(n), tmp_path, 0.5) for n in range(4)], 2)
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    assert sorted(t.name for event, t, _ in pool.run() if event == "end") == ["0", "1"] and pool.stopped
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_each_arm_of_a_picture_is_a_command_of_its_own_and_the_picture_comes_last(tracked):
    jobs = [(refer(f"{MAP}:{arm}"), seed) for arm in ("plain-1", "pre-LN-2") for seed in (1, 2)]
    found = plan_tasks(jobs, [], again=False)
    assert [t.jobs for t in found] == [[job] for job in jobs]
    assert (
        found[0].command[2:] == ["--seeds", "1", "--arms", "plain-1", "--no-pictures"] and not found[0].alone
    )
    whole = plan_tasks(jobs, [MAP], again=False)  # no checkpoint is here, so the picture needs every cell
    assert len(whole) == 96 + 1 and sum(t.jobs[0] in jobs for t in whole if t.jobs) == 4
    assert whole[-1].name == f"{MAP}, picture" and whole[-1].command[2:] == ["--seeds", "1", "2", "--resume"]
    assert set(whole[-1].after) == {job for t in whole for job in t.jobs}


def test_what_measures_time_is_known(tracked):
    """Every `measure`, and the lines whose seconds a sentence of the README uses; runs of so many seconds."""
    wanted = [(reference, 1) for reference in course_references()]
    found = plan_tasks(wanted, ["07_tokenizer_gqa/kv_cache"], again=True)
    alone = {t.name for t in found if t.alone}
    assert {
        "06_transformer/fast_gpt seed 1",
        "06_transformer/gpt --preset yardstick seed 1",
        "07_tokenizer_gqa/kv_cache, measuring",
    } <= alone
    assert training((refer("bigram --seconds 3"), 1), False, set()).alone
    assert "05_residual_norm/pre_ln seed 1" not in alone and "07_tokenizer_gqa/kv_cache seed 1" not in alone
    tuned = next(t for t in found if "--init-from" in t.command)
    assert tuned.after == [(refer("names_wavenet"), 1)]
    assert [t.jobs[0][0] for t in found if t.jobs] == course_references()  # in course order


def test_an_interrupted_run_goes_on_and_again_begins_anew(monkeypatch):
    job = (refer("bigram"), 1)
    assert "--resume" not in training(job, False, set()).command
    monkeypatch.setattr(side_by_side, "_saved", lambda _: {"step": 3})
    assert "--resume" in training(job, False, set()).command
    assert "--resume" not in training(job, True, set()).command


def test_the_smaller_form_of_a_map_is_one_command():
    assert small(refer(f"{MAP}:plain-4")).command[2:] == ["--seeds", "1", "--quick"]
    assert small(refer("feed_forward:gelu")).command[2:] == ["--seeds", "1", "--quick", "--arms", "gelu"]


def test_pictures_that_are_drawn_already_are_not_drawn_again(tracked, monkeypatch):
    monkeypatch.setattr(pictures, "state", lambda _: "measured")
    assert course.to_draw([], [MAP, "02_attention/bigram"], False) == []
    assert (
        course.to_draw([], [MAP], True)
        == [MAP]
        == course.to_draw([(refer(f"{MAP}:plain-1"), 1)], [MAP], False)
    )
    monkeypatch.setattr(pictures, "state", lambda _: "stale")
    assert course.to_draw([], [MAP], False) == [MAP]


# ---- what a row says -----------------------------------------------------------------------------


def test_two_processes_of_the_course_know_of_one_another(own_notes):
    with Presence() as first:
        first.begin()
        assert first.alone() is True
        with Presence() as second:
            second.begin()
            assert second.alone() is False and first.alone() is False
        assert first.alone() is False, "the other is gone, but it was there"
        first.begin()
        assert first.alone() is True
    assert list(own_notes.iterdir()) == []


def test_the_note_of_a_killed_process_is_no_company(own_notes):
    program = (
        "import os; from pathlib import Path; import common.training.presence as b; Presence = b.Presence; "
    )
    program += f"b.folder = lambda: Path({str(own_notes)!r}); Presence().join(); os._exit(1)"
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert len(list(own_notes.iterdir())) == 1
    with Presence() as note:
        note.begin()
        assert note.alone() is True


def test_where_no_note_can_be_left_nothing_is_claimed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(presence, "folder", lambda: tmp_path / "file" / "running")
    with Presence() as note:
        note.begin()
        assert note.alone() is None


def test_a_row_says_whether_it_ran_alone_and_with_how_many_threads(script):
    assert script("02_attention/bigram", "--corpus pydoc --steps 3").returncode == 0
    with_another = (
        "from common.training.presence import Presence; Presence().join(); import time; time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", with_another], env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        deadline = time.monotonic() + 30
        while not list(Path(os.environ["XDG_CACHE_HOME"]).glob("**/running/*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert script("02_attention/bigram", "--corpus pydoc --steps 3 --seeds 2").returncode == 0
    finally:
        other.kill()
        other.wait()
    rows = results.read()
    assert rows.alone.tolist() == [True, False] and rows.threads.tolist() == [1, 1]


def test_notes_of_other_machines_and_orphans_are_no_trouble(own_notes):
    """Two machines may share a home, and the name of one may begin like that of the other."""
    import socket

    own_notes.mkdir()
    host = socket.gethostname()
    for name in (f"{host}-a-123-ab", "other-1-cd", f"{host}-1x-ef", "strange"):
        (own_notes / name).touch()
    with Presence() as note:
        note.begin()
        assert note.alone() is True
    assert len(list(own_notes.iterdir())) == 4


def test_command_lines_that_differ_in_numbers_alone():
    assert all(map(side_by_side.only_numbers, ("--clip 1 --lr 4e-3", "--block-size 64", "--lr -1.5e+2")))
    others = (
        "",
        "--preset yardstick",
        "--keep-duplicates",
        "--clip 1 --no-log",
        "--lr 1 2",
        "--config llama --lr 1",
    )
    assert not any(map(side_by_side.only_numbers, others))
