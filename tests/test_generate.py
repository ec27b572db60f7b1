"""Sampling: filters, determinism, and which runs are loaded."""

import pytest
import tiktoken
import torch
from torch import nn

from common import generate
from common.data.tokenizer import ByteTokenizer, CharTokenizer, TiktokenTokenizer
from common.errors import UserError
from common.generation import sampling
from common.generation.load import load_run
from common.generation.sampling import Sampling, choose, filtered, text, texts, unused_ids
from common.model.gpt import GPT
from common.settings import Settings


class Fixed(nn.Module):
    """The same logits everywhere."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, ids):
        return self.logits.expand(*ids.shape, -1)


def drawn(model, length=400, seed=1, **how) -> list[int]:
    ids = torch.zeros(1, 1, dtype=torch.long)
    return [
        int(t)
        for t in sampling.generate(
            model, ids, 4, length, Sampling(**how), torch.Generator().manual_seed(seed)
        )
    ]


def test_top_k_and_top_p_keep_the_likeliest():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert filtered(logits, top_k=2).isfinite().tolist() == [True, True, False, False]
    assert filtered(logits, top_p=0.6).isfinite().tolist() == [True, True, False, False]
    assert filtered(logits, top_p=0.4).isfinite().tolist() == [True, False, False, False]
    assert filtered(logits, top_p=1.0).isfinite().all() and filtered(logits, top_k=99).isfinite().all()
    batch = torch.stack([logits, logits.flip(0)])
    assert filtered(batch, top_k=1).isfinite().tolist() == [
        [True, False, False, False],
        [False, False, False, True],
    ]


@pytest.mark.parametrize("how", [{"temperature": 1e-46}, {"top_p": 1e-46}, {"min_p": 1.0}, {"top_k": 1}])
def test_the_smallest_values_take_the_likeliest(how):
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        assert choose(logits, torch.tensor([[0]]), Sampling(**how), generator) == 1


def test_all_of_the_probability_leaves_nothing_out():
    """The sum of a softmax may reach 1 before its last terms."""
    logits = torch.cat([torch.zeros(1000), torch.tensor([-25.0, -30.0])])
    assert torch.equal(filtered(logits, top_p=1.0), logits)


def test_ids_that_stand_for_no_token_are_never_chosen(monkeypatch):
    """As 16 of cl100k_base; here of a small encoding with gaps."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 260}
    tokenizer = TiktokenTokenizer.__new__(TiktokenTokenizer)
    tokenizer.name = "gaps"
    tokenizer.encoding = tiktoken.Encoding(
        "gaps", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens={"<end>": 262}
    )
    assert unused_ids(tokenizer).tolist() == [256, 257, 258, 259, 261] and tokenizer.vocab_size == 263

    class Likes(torch.nn.Module):
        def forward(self, ids):
            logits = torch.full((*ids.shape, 263), -9.0)
            logits[..., 256:260], logits[..., 260], logits[..., 261] = 5.0, 4.0, 6.0
            return logits

    assert text(Likes(), tokenizer, 8, "x", 6, 1, temperature=0) == "x" + 6 * "ab"
    assert "ab" in texts(Likes(), tokenizer, 8, ["x", "y"], 6, 1)[1]
    assert unused_ids(ByteTokenizer()) is None


def test_min_p_is_relative_to_the_likeliest():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert filtered(logits, min_p=0.5).isfinite().tolist() == [True, True, False, False]
    assert filtered(logits, min_p=0.25).isfinite().tolist() == [True, True, True, False]
    assert filtered(logits, min_p=0.0).isfinite().all()


def test_a_penalty_makes_what_is_there_less_likely():
    """Logits above zero are divided, those below multiplied; what the text does not have stays as it was."""
    logits, ids = torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[0, 1, 0]])
    assert sampling.penalised(logits, ids, 2.0).tolist() == [[1.0, -4.0, 1.0]]
    repeats, varies = (
        drawn(Fixed([2.0, 1.9, 1.8]), 30, temperature=0),
        drawn(Fixed([2.0, 1.9, 1.8]), 30, temperature=0, repetition_penalty=3),
    )
    assert set(repeats) == {0} and len(set(varies)) == 3


class Script(nn.Module):
    """Writes a text, one token after the other, whatever the prompt of one token."""

    def __init__(self, ids, vocab_size):
        super().__init__()
        self.ids, self.vocab_size = ids, vocab_size
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, ids):
        return (
            99
            * torch.nn.functional.one_hot(torch.tensor(self.ids)[ids.size(1) - 1], self.vocab_size)[
                None, None
            ].float()
        )


@pytest.mark.parametrize("stop", ["", " say", "s s", "zz", "t"])
def test_a_stream_joins_to_the_text_and_ends_before_the_stop(stop):
    """Characters of several bytes come whole, and no part of the stop is shown before it is sure."""
    said, tokenizer = "naïve 語 say so st", ByteTokenizer()
    ids = tokenizer.encode(said).tolist()
    parts = list(sampling.stream(Script(ids, 256), tokenizer, 99, "x", len(ids), seed=1, stop=stop))
    assert "".join(parts) == (said.split(stop)[0] if stop else said)
    assert "\ufffd" not in "".join(parts) and all(parts) and len(parts) > 3


def test_a_batch_of_prompts_has_each_its_own_continuation():
    """Greedy: the same as one by one, whatever their lengths; and a stop ends each for itself."""
    torch.manual_seed(1)
    tokenizer = ByteTokenizer()
    model = GPT(Settings(n_layer=2, n_embd=32, block_size=32), 256)
    for p in model.parameters():
        p.data.add_(0.2 * torch.randn_like(p))
    prompts = ["one", "two", "longer", "x", "six"]
    together = sampling.texts(model, tokenizer, 32, prompts, 20, seed=1, temperature=0)
    alone = [sampling.text(model, tokenizer, 32, prompt, 20, seed=1, temperature=0) for prompt in prompts]
    assert together == alone and len(set(together)) == 5
    with pytest.raises(UserError, match="prompt is empty"):
        sampling.texts(model, tokenizer, 32, ["a", ""], 5, seed=1)


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
    found = sampling.names(Fixed([0.5, 1.0, 1.0, 1.0]), tokenizer, 2, frozenset({"a", "b", "c"}), 10, seed=1)
    assert len(found) == len(set(found)) == 10 and not set(found) & {"a", "b", "c", ""}
    started = sampling.names(Fixed([0.5, 1.0, 1.0, 1.0]), tokenizer, 2, frozenset(), 5, seed=1, prompt="ab")
    assert all(name.startswith("ab") and len(name) > 2 for name in started)


def test_the_command_line_samples_a_run(script, own_logs, capsys, monkeypatch):
    assert script("02_attention/bigram", "--corpus pydoc --steps 5").returncode == 0
    folder = next(own_logs.glob("runs/**/checkpoint.safetensors")).parent
    texts = []
    for arguments in ([str(folder)], [str(folder)], [str(folder), "--seed", "2"]):
        monkeypatch.setattr(
            "sys.argv", ["generate", *arguments, "--prompt", "The", "--length", "50", "--top-k", "20"]
        )
        generate.main()
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2] and all(t.startswith("The") for t in texts)


def test_an_experiment_means_its_run_at_default_settings_and_no_other(script, own_logs, capsys, monkeypatch):
    assert script("02_attention/bigram", "--corpus pydoc --steps 5").returncode == 0
    monkeypatch.setattr("sys.argv", ["generate", "bigram"])
    with pytest.raises(SystemExit):
        generate.main()
    error = capsys.readouterr().err
    assert (
        "there are runs with --corpus pydoc --steps 5; train it first: python 02_attention/bigram.py "
        "--seeds 1" in error
    )
    assert script("02_attention/bigram", "--generate").returncode == 2
    assert script("02_attention/bigram", "--generate --corpus pydoc --steps 5").returncode == 0


def test_a_conversation(script, own_logs, capsys, monkeypatch):
    """Each line is gone on from; commands set and clear; a slip says what is wrong and ends nothing."""
    assert script("02_attention/bigram", "--corpus pydoc --steps 5").returncode == 0
    folder = next(own_logs.glob("runs/**/checkpoint.safetensors")).parent
    typed = iter(
        [
            "The",
            "/temperature 0",
            "/temperatur 1",
            "/temperature -1",
            "/top-k many",
            "/length 7",
            "/top_k 1e1",
            "/length",
            "/help",
            "/clear",
            "\u4f60",
            "So",
            "So",
            "/quit",
            "no",
        ]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    monkeypatch.setattr("sys.argv", ["generate", str(folder), "--length", "5"])
    generate.main()
    out, err = capsys.readouterr()
    assert (
        "parameters" in err
        and "vocabulary char of" in err
        and "bits per character" in err
        and "/temperature 0.8" in err
    )
    assert (
        "did you mean 'temperature'" in err
        and "--temperature -1.0 makes no sense" in err
        and "takes a whole number, not 'many'" in err
    )
    assert "temperature 0\n" in err and "top-k 10\n" in err and err.count("length 7\n") == 2
    assert err.count("/quit ends") == 2 and "> " not in out  # typed at no terminal
    assert "has no '\u4f60'" in err
    lines = [line for line in out.split("\n") if line]
    assert next(typed) == "no" and len(lines) >= 2


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
        (["bigram", "--repetition-penalty", "1e-46"], "--repetition-penalty 1e-46 makes no sense"),
        (["bigram", "--length", "0"], "--length 0 makes no sense"),
        (["bigram", "--min-p", "2"], "--min-p 2.0 makes no sense"),
        (["bigram", "--repetition-penalty", "0"], "--repetition-penalty 0.0 makes no sense"),
        (["bigram", "--temperature", "nan"], "--temperature nan makes no sense"),
        (["bigram", "--prompt", ""], "--prompt is empty"),
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
        load_run(tmp_path)
