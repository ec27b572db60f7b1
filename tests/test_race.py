"""Lines by turns: times within a round, the results of the course untouched."""

import pandas as pd
import pytest

from common import results
from common.tools import race


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["race", *arguments])
    race.main()


def test_lines_are_trained_by_turns_and_compared(own_logs, tmp_path, monkeypatch, capsys):
    first, other = "by_hand --corpus pydoc --steps 3", "bigram --corpus pydoc --steps 20 --batch-size 4"
    file = tmp_path / "race.csv"
    command(monkeypatch, first, "--against", other, "--rounds", "2", "--out", str(file))
    runs = pd.read_csv(file)
    names = [f"01_bigram/{first}", f"02_attention/{other}"]
    assert list(runs.line) == [*names, *reversed(names)] and list(runs["round"]) == [1, 1, 2, 2]
    assert list(runs.seed) == [1, 1, 2, 2] and list(runs.steps) == [3, 20, 20, 3]
    assert (runs.seconds - runs.loading - runs.training).abs().max() < 2e-3 and (runs.loading > 0).all()
    assert (runs.test_nats / runs.test_bpc - 0.693147).abs().max() < 1e-5
    assert not results.results_path().exists() and not (own_logs / "runs").exists()
    told = capsys.readouterr().out
    ratio = (runs.seconds[0] / runs.seconds[1] + runs.seconds[3] / runs.seconds[2]) / 2
    assert f"{names[0]} takes {ratio:.4f}"[:-2] in told and f"of the time of {names[1]}" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bigram", "--rounds", "0"], "--rounds 0 makes no sense"),
        (["bigram", "--against", "bigram"], "a line against itself says nothing"),
        (["bigram", "--out", "README.md"], "README.md exists"),
        (["bigram", "--out", "no/such/folder.csv"], "the folder of no/such/folder.csv does not exist"),
        (["bigramm"], "bigramm"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_trained(arguments, says, monkeypatch, capsys):
    monkeypatch.setattr(race, "trained", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and says in error and error.count("\n") == 1
