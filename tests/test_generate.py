"""Sampling: filters, determinism, and which runs are loaded."""

import pytest
import torch
from torch import nn

from common import generate
from common.errors import UserError
from common.generate import filtered
from common.tokenizer import CharTokenizer


class Fixed(nn.Module):
    """The same logits everywhere."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, ids):
        return self.logits.expand(*ids.shape, -1)


def drawn(model, length=400, seed=1, **how) -> list[int]:
    ids = torch.zeros(1, 1, dtype=torch.long)
    return [int(t) for t in generate.generate(model, ids, 4, length, generator=torch.Generator().manual_seed(seed), **how)]


def test_top_k_and_top_p_keep_the_likeliest():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert filtered(logits, top_k=2).isfinite().tolist() == [True, True, False, False]
    assert filtered(logits, top_p=0.6).isfinite().tolist() == [True, True, False, False]
    assert filtered(logits, top_p=0.4).isfinite().tolist() == [True, False, False, False]
    assert filtered(logits, top_p=1.0).isfinite().all() and filtered(logits, top_k=99).isfinite().all()
    batch = torch.stack([logits, logits.flip(0)])
    assert filtered(batch, top_k=1).isfinite().tolist() == [[True, False, False, False], [False, False, False, True]]


def test_temperature_zero_is_greedy_and_sampling_follows_the_probabilities():
    model = Fixed([2.0, 1.0, 0.0, -9.0])
    assert set(drawn(model, temperature=0)) == {0}
    share = drawn(model, 4000).count(0) / 4000
    assert abs(share - torch.softmax(model.logits, 0)[0].item()) < 0.03
    assert drawn(model, 4000, temperature=0.3).count(0) / 4000 > share + 0.1
    assert set(drawn(model, top_k=2)) == {0, 1}


def test_a_seed_gives_the_same_text_and_the_mode_is_restored():
    model = nn.Sequential(Fixed([1.0, 1.0, 1.0]), nn.Dropout(0.5))
    assert drawn(model, seed=5) == drawn(model, seed=5) != drawn(model, seed=6)
    assert model.training


def test_the_model_sees_at_most_its_window():
    seen = []

    class Watch(Fixed):
        def forward(self, ids):
            seen.append(ids.size(1))
            return super().forward(ids)

    drawn(Watch([0.0, 0.0]), 10)
    assert max(seen) == 4


def test_names_are_new_different_and_as_many_as_asked():
    tokenizer = CharTokenizer("\nabc")
    found = generate.names(Fixed([0.5, 1.0, 1.0, 1.0]), tokenizer, 2, frozenset({"a", "b", "c"}), 10, seed=1)
    assert len(found) == len(set(found)) == 10 and not set(found) & {"a", "b", "c", ""}
    started = generate.names(Fixed([0.5, 1.0, 1.0, 1.0]), tokenizer, 2, frozenset(), 5, seed=1, prompt="ab")
    assert all(name.startswith("ab") and len(name) > 2 for name in started)


def test_the_command_line_samples_a_run(script, own_logs, capsys, monkeypatch):
    assert script("02_attention/bigram", "--corpus pydoc --steps 5").returncode == 0
    folder = next(own_logs.glob("runs/**/checkpoint.safetensors")).parent
    texts = []
    for arguments in ([str(folder)], [str(folder)], [str(folder), "--seed", "2"]):
        monkeypatch.setattr("sys.argv", ["generate", *arguments, "--prompt", "The", "--length", "50", "--top-k", "20"])
        generate.main()
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2] and all(t.startswith("The") for t in texts)


def test_an_experiment_means_its_run_at_default_settings_and_no_other(script, own_logs, capsys, monkeypatch):
    assert script("02_attention/bigram", "--corpus pydoc --steps 5").returncode == 0
    monkeypatch.setattr("sys.argv", ["generate", "bigram"])
    with pytest.raises(SystemExit):
        generate.main()
    error = capsys.readouterr().err
    assert "there are runs with --corpus pydoc --steps 5; train it first: python 02_attention/bigram.py --seeds 1" in error
    assert script("02_attention/bigram", "--generate").returncode == 2
    assert script("02_attention/bigram", "--generate --corpus pydoc --steps 5").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a run folder or an experiment"),
        (["bigram"], "has no checkpoint"),
        (["nothing"], "is no script of the course"),
        (["."], "holds no checkpoint.safetensors"),
        (["bigram", "--temperature", "-1"], "--temperature -1.0 makes no sense"),
        (["bigram", "--top-p", "0"], "--top-p 0.0 makes no sense"),
        (["bigram", "--top-p", "1.5"], "--top-p 1.5 makes no sense"),
        (["bigram", "--top-k", "0"], "--top-k 0 makes no sense"),
        (["bigram", "--length", "0"], "--length 0 makes no sense"),
    ],
)
def test_bad_input_is_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["generate", *arguments])
    with pytest.raises(SystemExit) as stop:
        generate.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and said in error and error.count("\n") == 1


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at"):
        generate.load_run(tmp_path)
