"""Whatever a file holds and whatever is typed: a result, or one line that says what is wrong.

Each test runs some examples among the fast tests, always the same; `pytest -m long tests/test_fuzz.py` goes
on with new ones for GPT_STAIRCASE_FUZZ seconds each (100), about twenty minutes in all.
"""

import contextlib
import copy
import gzip
import io
import json
import os
import random
import runpy
import string
import sys
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from test_results import row

from common import command_line, config_file, generate, lessons, results
from common.data import bpe, documents, tokens
from common.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, from_state
from common.data.tokenizer import load as load_vocabulary
from common.errors import UserError
from common.generation import sampling
from common.generation.load import load_run
from common.generation.sampling import Sampling
from common.lessons import receipts
from common.results import extra
from common.settings import Options, Settings
from common.training import checkpoint
from common.training.loss_log import read_losses
from common.training.step_log import read_steps

SECONDS = float(os.environ.get("GPT_STAIRCASE_FUZZ", "100"))
EFFORT = pytest.mark.parametrize("seconds", [0, pytest.param(SECONDS, marks=pytest.mark.long)])


def fuzz(seconds: float, examples: st.SearchStrategy, check, few: int = 60) -> None:
    """Check examples: a few, always the same, or for so many seconds new ones."""
    usual = settings(
        max_examples=few, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        derandomize=not seconds,
    )  # fmt: skip
    end, number = time.monotonic() + seconds, random.randrange(2**32) if seconds else 0
    while True:
        round_ = usual(given(examples)(check))
        (with_seed(number)(round_) if seconds else round_)()
        number += 1
        if time.monotonic() >= end:
            return


@contextlib.contextmanager
def one_line_at_most():
    """A mistake may be told, in one line."""
    try:
        yield
    except UserError as error:
        assert str(error) and "\n" not in str(error), repr(str(error))


# ---- what is done to a file ----------------------------------------------------------------------

SCRAPS = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [b"", b"\n", b"\r\n", b"\r", b",", b'"', b"\0", b"\xff", b"\xef\xbb\xbf", b"nan", b"inf", b"1e999"]
        + [b"-1", b"NA", b"None", b"{", b"}", b"[", b"]", b":", b"- ", b"  ", b"\t", b"#", b"&a", b"*a"]
    ),
)  # fmt: skip
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), SCRAPS), min_size=1, max_size=6)


def edited(raw: bytes, edits) -> bytes:
    """Bytes in which some stretches are replaced by scraps."""
    for where, length, scrap in edits:
        at = int(where * len(raw))
        raw = raw[:at] + scrap + raw[at + length :]
    return raw


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10), st.integers(), st.floats(), st.text(max_size=5)
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
)
CHANGES = st.lists(
    st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=4), VALUES | st.just("remove")),
    min_size=1, max_size=3,
)  # fmt: skip


def changed(document: dict, changes) -> dict:
    """A document in which some values, at any depth, are others or gone."""
    document = copy.deepcopy(document)
    for path, value in changes:
        inside = document
        for number, step in enumerate(path):
            keys = list(inside) if isinstance(inside, dict) else range(len(inside))
            if not keys:
                break
            key = keys[step % len(keys)]
            deeper = isinstance(inside[key], dict | list) and number < len(path) - 1
            if deeper:
                inside = inside[key]
                continue
            if value == "remove":
                del inside[key]
            else:
                inside[key] = value
            break
    return document


# ---- files ---------------------------------------------------------------------------------------


@EFFORT
def test_a_results_file(seconds, own_logs):
    for number in (1, 2, 3):
        results.append(row(seed=number))
    path = results.results_path()
    good = path.read_bytes()

    def check(edits):
        path.write_bytes(edited(good, edits))
        with one_line_at_most():
            rows = results.read()
            assert {"test_bpc", "seed"} <= set(rows.columns)
        before = path.read_bytes()
        with one_line_at_most():
            results.append(row(seed=4))
        assert path.read_bytes().startswith(before.rstrip(b"\r\n")[:200])

    fuzz(seconds, EDITS, check)


@EFFORT
def test_further_scores_and_receipts(seconds, own_logs):
    known = {"experiment": "a/b", "arm": "x", "seed": 1, "what": "share", "value": 0.5, "fingerprint": "abc"}
    extra.append([known, known | {"seed": 2}])
    receipt = dict.fromkeys(("experiment", "arm", "config_hash", "code_hash", "equal_to", "commit"), "abc")
    with contextlib.suppress(KeyError, TypeError):
        receipts.append(receipt)
    files = [(extra.extra_path(), extra.read), (receipts.receipts_path(), receipts.read)]
    files = [(path, read, path.read_bytes()) for path, read in files if path.exists()]
    assert files

    def check(example):
        which, edits = example
        path, read, good = files[which % len(files)]
        path.write_bytes(edited(good, edits))
        with one_line_at_most():
            read(path)

    fuzz(seconds, st.tuples(st.integers(0, 1), EDITS), check)


@EFFORT
def test_logs_of_steps(seconds, tmp_path):
    path = tmp_path / "a.csv"
    good = b"step,loss,lr\n1,3.5,0.1\n2,3.25,0.1\n3,3.0,0.1\n"

    def check(edits):
        path.write_bytes(edited(good, edits))
        with one_line_at_most():
            read_steps(path)
        with one_line_at_most():
            read_losses(path)

    fuzz(seconds, EDITS, check)


@pytest.fixture
def trained(in_process, own_logs, text_file):
    """The folder of a run."""
    assert in_process("02_attention/multi_head", f"--corpus {text_file} --steps 2 --n-embd 8").returncode == 0
    return next(own_logs.glob("runs/**/checkpoint.safetensors")).parent


@EFFORT
def test_a_checkpoint(seconds, trained):
    path = trained / checkpoint.NAME
    good = path.read_bytes()

    def check(edits):
        path.write_bytes(edited(good, edits))
        with one_line_at_most():
            load_run(trained).sample("a", length=2)

    fuzz(seconds, EDITS, check)


@EFFORT
def test_what_a_checkpoint_says(seconds, trained):
    """Its own form is whole, and what it says of its run is not."""
    path = trained / checkpoint.NAME
    good = checkpoint.load(path)

    def check(changes):
        checkpoint.write(path, good.tensors, changed(good.state, changes))
        with one_line_at_most():
            run = load_run(trained)
            generate.banner(run)
            run.sample("a", length=2)

    fuzz(seconds, CHANGES, check)


YAML = st.lists(
    st.sampled_from(
        ["model:", "training:", "data:", "\n", "\n  ", "n_layer", "norm", "lr", ": ", "- ", "rmsnorm", "3"]
        + ["1e-3", "true", "null", "!!python/object:os.system", "&a", "*a", "<<", "{", "}", "[", "]", '"']
        + ["|", "~", "\t"]
    )
    | st.text(max_size=4),
    max_size=14,
).map("".join)  # fmt: skip


@EFFORT
def test_a_configuration(seconds, tmp_path):
    path, plan = tmp_path / "a.yaml", lessons.course_plan("08_micro_arch/assemble")
    whole = (lessons.ROOT / "08_micro_arch/configs/llama.yaml").read_bytes()

    def check(raw):
        path.write_bytes(raw)
        with one_line_at_most():
            s, _ = command_line.parse(plan.defaults, "", ["--config", str(path), "--n-layer", "1"])
            command_line.check_settings(plan, "default", s)
        with one_line_at_most():
            config_file.read(str(path), plan.defaults)

    own = YAML.map(lambda text: text.encode("utf-8", "surrogatepass"))
    fuzz(seconds, own | EDITS.map(lambda edits: edited(whole, edits)), check)


@EFFORT
def test_token_files(seconds, tmp_path):
    import test_prepare

    source = test_prepare.write_lines(tmp_path / "a.jsonl", test_prepare.texts(40))
    script = runpy.run_path(str(lessons.ROOT / "09_pretraining/prepare.py"))
    test_prepare.prepare(script, [source], tmp_path / "out", workers=1)
    meta = tmp_path / "out" / "meta.json"
    good = meta.read_text(encoding="utf-8")

    def check(example):
        changes, edits = example
        raw = json.dumps(changed(json.loads(good), changes)).encode()
        meta.write_bytes(edited(raw, edits))
        with one_line_at_most():
            data = tokens.prepared_data(tmp_path / "out", Settings(block_size=4, batch_size=2))
            data.train.at(torch.tensor([0, data.train.choices - 1]))
        with one_line_at_most():
            tokens.verify(tmp_path / "out")

    fuzz(seconds, st.tuples(CHANGES, st.just([]) | EDITS), check)


@EFFORT
def test_documents(seconds, tmp_path):
    import pyarrow
    import pyarrow.parquet
    import zstandard

    lines = b'{"text": "some text"}\n{"text": "more", "id": 3}\n\n{"id": 1, "text": "\\u00e9"}\n'
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b", None]}), tmp_path / "good.parquet")
    good = {
        "a.txt": b"some text\r\nand more\n", "a.jsonl": lines, "a.jsonl.gz": gzip.compress(lines),
        "a.jsonl.zst": zstandard.compress(lines), "a.parquet": (tmp_path / "good.parquet").read_bytes(),
    }  # fmt: skip

    def check(example):
        name, edits = example
        (tmp_path / name).write_bytes(edited(good[name], edits))
        for bad in (None, []):
            with one_line_at_most():
                for part in documents.find([str(tmp_path / name)]).parts("text"):
                    assert all(isinstance(text, str) for text in part.texts("text", bad))

    fuzz(seconds, st.tuples(st.sampled_from(sorted(good)), EDITS), check)


# ---- texts and vocabularies ----------------------------------------------------------------------

ANY = st.text(st.characters(exclude_categories=()), max_size=40)  # halves of surrogate pairs too


@EFFORT
def test_texts_there_and_back(seconds):
    made = [
        CharTokenizer(string.printable),
        ByteTokenizer(),
        BPETokenizer.train("the theatre, the end" * 3, 280),
    ]

    def check(text):
        for tokenizer in made:
            with one_line_at_most():
                ids = tokenizer.encode(text).tolist()
                assert tokenizer.decode(ids) == text
        with one_line_at_most():
            learned = BPETokenizer(bpe.train([text], 270))
            assert learned.decode(learned.encode(text).tolist()) == text

    fuzz(seconds, ANY, check)


@EFFORT
def test_vocabularies(seconds, tmp_path):
    path = tmp_path / "v.json"
    good = BPETokenizer.train("the theatre, the end" * 3, 280).state()

    def check(example):
        changes, edits = example
        state = changed(good, changes)
        path.write_bytes(edited(json.dumps(state).encode(), edits))
        for make in (lambda: load_vocabulary(path), lambda: from_state(state)):
            with one_line_at_most():
                tokenizer = make()
                tokenizer.decode(tokenizer.encode("the end").tolist())

    fuzz(seconds, st.tuples(CHANGES, st.just([]) | EDITS), check)


# ---- what is typed -------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(["0", "1", "-1", "3", "64", "1e3", "1e-3", "0.5", "nan", "inf", "-inf", "1e999", ""]),
    st.sampled_from(["True", "none", "char", "bpe-300", "bpe-", "llama", "=", "1,2", "--", "-x"]),
    st.sampled_from(["'", '"', "é", "\udcff", "a b"]),
    st.text(max_size=5), st.integers(-10, 1000).map(str),
)  # fmt: skip


def flags_of(plan) -> list[str]:
    names = {*vars(plan.defaults), *vars(Options())} - {"generate", "check"}
    return [f"--{name.replace('_', '-')}" for name in sorted(names)]


@EFFORT
@pytest.mark.parametrize(
    "experiment", ["02_attention/multi_head", "07_tokenizer_gqa/gqa", "09_pretraining/pretrain"]
)
def test_a_command_line(seconds, experiment, monkeypatch):
    """All that is refused before anything begins."""
    plan = lessons.course_plan(experiment)
    flag = st.sampled_from(flags_of(plan)) | st.text(max_size=6).map(lambda name: f"--{name}")
    pair = st.tuples(flag, WORDS).map(list) | st.tuples(flag, WORDS).map("=".join).map(lambda a: [a])
    lines = st.lists(pair | WORDS.map(lambda a: [a]), max_size=4).map(lambda parts: sum(parts, []))

    def check(arguments):
        monkeypatch.setattr(sys, "argv", [experiment, *arguments])
        with one_line_at_most(), contextlib.redirect_stdout(io.StringIO()):
            try:
                s, options = command_line.parse(
                    plan.defaults, "", arguments, plan.presets, plan.small()[0], plan.bare
                )
            except SystemExit as end:  # --help
                assert not end.code
                return
            for arm in command_line.chosen_arms(plan, options, plan.course_arms):
                command_line.check_settings(plan, arm, s)
            command_line.device(plan, options.device)

    fuzz(seconds / 3, lines, check)


@EFFORT
def test_the_lines_of_a_conversation(seconds):
    names = [f"/{name}" for name in generate.COMMANDS] + ["/", "/x", "//"]
    lines = st.tuples(st.sampled_from(names), st.sampled_from(["", " ", "  "]), WORDS | ANY).map("".join)

    def check(line):
        with one_line_at_most(), contextlib.redirect_stderr(io.StringIO()):
            assert isinstance(generate.change(line, generate.Arguments()), generate.Arguments)

    fuzz(seconds, lines, check)


@EFFORT
def test_references(seconds):
    names = ["multi_head", "ngram:5", "ngram:", ":", "names_mlp", "pretrain", "bpe:char", "gpt"]
    parts = st.lists(
        st.sampled_from([*names, " ", "--steps", "--lr", "--arms", "'", '"']) | WORDS, max_size=5
    )

    def check(words):
        with one_line_at_most(), contextlib.redirect_stdout(io.StringIO()):
            try:
                lessons.refer(" ".join(words)).settings()
            except SystemExit as end:  # --help
                assert not end.code

    fuzz(seconds, parts, check)


class Fixed(torch.nn.Module):
    """The same logits everywhere."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, ids):
        return self.logits.expand(*ids.shape, -1)


@EFFORT
def test_prompts_and_ways_of_choosing(seconds):
    tokenizer = CharTokenizer("ab\n é")
    number = st.one_of(st.floats(), st.integers(-2, 10), st.sampled_from([0.0, 1.0, 1e-46, 1e46, 5e-324]))
    how = st.fixed_dictionaries(
        {}, optional={"temperature": number, "top_k": st.none() | st.integers(-2, 9) | st.integers(),
                      "top_p": st.none() | number, "min_p": st.none() | number, "repetition_penalty": number}
    )  # fmt: skip
    logits = st.lists(st.floats(-1e4, 1e4, width=32), min_size=5, max_size=5)

    def check(example):
        kinds, values, prompt, seed = example
        with one_line_at_most():
            asked = Sampling(**{name: value for name, value in kinds.items() if hasattr(Sampling, name)})
            asked.check()
            said = sampling.text(Fixed(values), tokenizer, 3, prompt, 4, seed, **vars(asked))
            assert said.startswith(prompt) and len(said) == len(prompt) + 4

    prompts = st.text("ab\n é", max_size=6) | st.text(max_size=4)
    fuzz(seconds, st.tuples(how, logits, prompts, st.integers(0, 2**63 - 1)), check)
