"""A script says what it would run: the course imports it and reads its lesson."""

import sys

import pytest
import torch
from torch import nn

from common import lessons, results
from common.data import text_data
from common.errors import UserError
from common.lessons.course import COURSE, course_plan
from common.model.gpt import GPT
from common.paths import ROOT
from common.settings import Settings
from common.tools import course, verify
from common.training.loop import train


@pytest.mark.parametrize("experiment", COURSE)
def test_a_script_ends_with_its_lesson_and_runs_it_only_by_hand(experiment):
    lines = (ROOT / f"{experiment}.py").read_text(encoding="utf-8").rstrip().splitlines()
    if "lesson = None" in "\n".join(lines):  # a program
        assert lines[-2:] == ['if __name__ == "__main__":', "    main()"]
        return
    assert lines[-2:] == ['if __name__ == "__main__":', "    run(lesson)"]
    assert sum(line.startswith("lesson = Lesson(") for line in lines) == 1
    assert list(course_plan(experiment).arms)


def write(folder, end: str):
    """A script of a stage of its own, with this end."""
    path = folder / "02_attention" / "mine.py"
    path.parent.mkdir(exist_ok=True)
    text = (ROOT / "02_attention/bigram.py").read_text(encoding="utf-8")
    path.write_text(text[: text.index("lesson = ")] + end, encoding="utf-8")
    return path


def test_a_program_has_no_lesson_and_no_runs(tmp_path):
    plan = lessons.plan(write(tmp_path, "lesson = None\n"))
    assert plan.arms == {} and plan.course_arms == [] and plan.header.title.startswith("Bigram")


def test_a_script_without_a_lesson_is_told_how_to_end(tmp_path):
    with pytest.raises(UserError, match="mine.py has no `lesson`; end it with lesson = Lesson"):
        lessons.plan(write(tmp_path, "arms = 3\n"))


def test_what_a_lesson_leaves_out_is_the_usual(tmp_path):
    plan = lessons.plan(
        write(
            tmp_path,
            "lesson = Lesson({'a': Model, 'b': Model}, Settings(steps=7), quick={'steps': 3, 'arms': "
            "['b']})\n",
        )
    )
    assert plan.load is text_data and plan.train is train and plan.picture is None and plan.presets == {}
    assert (
        plan.defaults.steps == 7 and plan.course_arms == ["a", "b"] and plan.small() == ({"steps": 3}, ["b"])
    )


def test_reading_a_lesson_runs_nothing(tmp_path):
    """And an error in a script is the script's own."""
    path = write(
        tmp_path, "lesson = Lesson(Model)\n\nif __name__ == '__main__':\n    raise SystemExit('it ran')\n"
    )
    assert list(lessons.plan(path).arms) == ["default"]
    with pytest.raises(ZeroDivisionError):
        lessons.plan(write(tmp_path, "lesson = 1 / 0\n"))


# ---- what a part writes to the stream ------------------------------------------------------------


class Gated(nn.Module):
    """A feed-forward part whose last layer has a name of its own."""

    def __init__(self, s, says: bool = True):
        super().__init__()
        self.up, self.gate, self.down = (nn.Linear(s.n_embd, s.n_embd, bias=False) for _ in range(3))
        if says:
            self.down.writes_to_stream = True

    def forward(self, x):
        return self.down(self.up(x) * self.gate(x).relu())


@pytest.mark.parametrize("n_layer", [1, 8])
def test_weights_that_write_to_the_stream_start_smaller_whatever_their_name(n_layer):
    torch.manual_seed(1)
    s = Settings(n_layer=n_layer, n_embd=128)
    for block in GPT(s, 65, feed_forward=Gated).blocks:
        for weight in (block.attention.projection.weight, block.feed_forward.down.weight):
            assert abs(weight.std() / (0.02 / (2 * n_layer) ** 0.5) - 1) < 0.05
        for weight in (
            block.attention.qkv.weight,
            block.feed_forward.up.weight,
            block.feed_forward.gate.weight,
        ):
            assert abs(weight.std() / 0.02 - 1) < 0.05
    for block in GPT(s, 65).blocks:
        assert abs(block.feed_forward[2].weight.std() / (0.02 / (2 * n_layer) ** 0.5) - 1) < 0.05


@pytest.mark.parametrize("experiment", ["07_tokenizer_gqa/gqa", "07_tokenizer_gqa/kv_cache"])
def test_the_parts_of_scripts_say_what_they_write(experiment):
    plan = course_plan(experiment)
    model = plan.arms[next(iter(plan.arms))](Settings(n_embd=128), 65)
    for block in model.blocks:
        assert abs(block.attention.projection.weight.std() / (0.02 / 8**0.5) - 1) < 0.05


# ---- verify --------------------------------------------------------------------------------------


@pytest.fixture
def published(script, own_logs, monkeypatch):
    """A course of three seeds of a short run, and a function that verifies one of them."""
    assert (
        script("02_attention/bigram", "--corpus pydoc --steps 40 --seeds 1 2 3 --threads 1").returncode == 0
    )
    real = verify.Measured.line

    def line(self, reference):
        return type(real(self, reference))(results.read(), "measured", (1, 2, 3))

    monkeypatch.setattr(verify.Measured, "line", line)
    return lambda seed: verify.verify(
        lessons.Reference("02_attention/bigram", "default", "--corpus pydoc --steps 40"), seed
    )


def change(seed: int, by: float) -> None:
    rows = results.read()
    results.results_path().unlink()
    for row in rows.to_dict("records"):
        results.append(row | ({"test_bpc": row["test_bpc"] + by} if row["seed"] == seed else {}))


def test_the_same_bits_inside_and_outside(published, capsys):
    assert published(2) and "the same bits" in capsys.readouterr().out
    change(2, 1e-9)
    assert published(2)
    said = capsys.readouterr().out
    assert "not the same bits" in said and "inside of what 3 published seeds let one more be" in said
    for seed in (1, 2, 3):
        change(seed, 1.0)
    assert not published(2) and "outside of what 3 published" in capsys.readouterr().out
    text = results.results_path().read_text(encoding="utf-8")
    results.results_path().write_text(
        text.replace(results.read().corpus[0], "another-text"), encoding="utf-8"
    )
    with pytest.raises(
        UserError, match="was published on another-text, and only pydoc-.* is here; nothing can be compared"
    ):
        published(2)
    with pytest.raises(UserError, match="no published row of seed 9; published seeds: 1, 2, 3"):
        published(9)
    assert len(results.read()) == 3, "nothing is added"


def test_verify_is_a_command(monkeypatch, capsys, own_logs):
    monkeypatch.setattr(sys, "argv", ["course", "verify", "pre_lm"])
    with pytest.raises(SystemExit) as stop:
        course.main()
    assert stop.value.code == 2 and "did you mean 'pre_ln'" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["course", "verify", "pre_ln"])
    with pytest.raises(SystemExit) as stop:
        course.main()
    assert (
        stop.value.code == 2
        and "no published row of seed 1; published seeds: none" in capsys.readouterr().err
    )
