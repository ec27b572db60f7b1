"""Any text becomes token files: the same whatever the kind of file, and after an interruption."""

import contextlib
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch

from common import lessons
from common.data import documents, splits, token_files, tokens
from common.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer
from common.errors import UserError
from common.paths import ROOT
from common.settings import Settings

SCRIPT = ROOT / "09_pretraining/prepare.py"
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "the", "dog", "run", "over", "hills", "far"]


@pytest.fixture(scope="module")
def script():
    lessons.plan(SCRIPT)
    return vars(next(module for name, module in sys.modules.items() if name.startswith("stage_prepare_")))


def texts(count: int, seed: int = 0) -> list[str]:
    """Documents that differ, with line ends and characters of several bytes."""
    pick = random.Random(seed)
    return [
        f"{number} é\n" + " ".join(pick.choices(WORDS, k=pick.randrange(5, 60))) + "."
        for number in range(count)
    ]


def write_lines(path, found: list[str]):
    lines = "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(found))
    path.write_text(lines, encoding="utf-8")
    return path


def prepare(script, sources, out, **asked):
    """What the program does with these sources."""
    asked = {"tokenizer": "byte", "workers": 2} | asked
    a = script["Preparing"](sources=tuple(map(str, sources)), out=str(out), **asked)
    return script["prepare"](documents.find(a.sources), out, a)


def read_back(folder) -> dict[str, list[str]]:
    """The documents of each split."""
    meta = tokens.verify(folder)
    tokenizer, found = tokens.from_state(meta["tokenizer"]), {}
    for split in token_files.SPLITS:
        ids = tokens.stretch(folder, meta, split)[:].numpy()
        ends = np.flatnonzero(ids == meta["end_of_text"])
        assert ends[0] == 0 and ends[-1] == len(ids) - 1
        found[split] = [tokenizer.decode(ids[a + 1 : b]) for a, b in zip(ends, ends[1:], strict=False)]
        counts = meta["splits"][split]
        assert counts["tokens"] == len(ids) and counts["documents"] == len(found[split])
        assert counts["characters"] == sum(map(len, found[split]))
        assert counts["bytes"] == sum(len(text.encode()) for text in found[split])
    return found


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ---- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe-300"])
def test_every_document_is_in_one_split_and_comes_back(tokenizer, script, tmp_path):
    wanted = texts(300)
    meta = prepare(script, [write_lines(tmp_path / "a.jsonl", wanted)], tmp_path / "out", tokenizer=tokenizer)
    found = read_back(tmp_path / "out")
    assert sorted(sum(found.values(), [])) == sorted(wanted)
    assert found["train"] == [text for text in wanted if text in set(found["train"])]  # in their order
    assert 5 <= len(found["test"]) <= 30 and 5 <= len(found["validation"]) <= 30
    assert meta["copies"] == meta["bad"] == 0 and meta["dtype"] == "uint16"
    assert set(files(tmp_path / "out")) == {"meta.json", *(f"{s}-00000.bin" for s in token_files.SPLITS)}


def test_a_corpus_that_grows_moves_nothing_between_splits(script, tmp_path):
    wanted = texts(400)
    prepare(script, [write_lines(tmp_path / "a.jsonl", wanted[:200])], tmp_path / "half")
    prepare(script, [write_lines(tmp_path / "b.jsonl", wanted)], tmp_path / "whole")
    half, whole = read_back(tmp_path / "half"), read_back(tmp_path / "whole")
    for split in token_files.SPLITS:
        assert [text for text in whole[split] if text in set(wanted[:200])] == half[split]


def test_copies_are_counted_and_left_out(script, tmp_path):
    wanted = texts(100)
    meta = prepare(script, [write_lines(tmp_path / "a.jsonl", wanted + wanted[:40])], tmp_path / "out")
    assert meta["copies"] == 40 and sorted(sum(read_back(tmp_path / "out").values(), [])) == sorted(wanted)


def test_a_text_alone_is_cut_as_everywhere_in_the_course(script, tmp_path):
    text = "".join(texts(50))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="\n")
    prepare(script, [tmp_path / "a.txt"], tmp_path / "out", tokenizer="char")
    found = read_back(tmp_path / "out")
    data = splits.text_data(Settings(corpus=str(tmp_path / "a.txt")), "cpu")
    for split in token_files.SPLITS:
        assert len(found[split]) == 1 and len(found[split][0]) == getattr(data, split).characters
    assert "".join(found[split][0] for split in token_files.SPLITS) == text


def test_a_vocabulary_is_learned_from_training_documents_only(script, tmp_path):
    wanted = texts(300)
    meta = prepare(script, [write_lines(tmp_path / "a.jsonl", wanted)], tmp_path / "out", tokenizer="bpe-320")
    assert meta["tokenizer"] == BPETokenizer.train(read_back(tmp_path / "out")["train"], 320).state()


def test_all_kinds_of_files_give_the_same_tokens(script, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    zstandard = pytest.importorskip("zstandard")
    wanted = texts(120)
    lines = write_lines(tmp_path / "a.jsonl", wanted).read_bytes()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines[:3000]) + gzip.compress(lines[3000:]))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(lines[:500]) + zstandard.compress(lines[500:]))
    parquet.write_table(pyarrow.table({"n": range(120), "text": wanted}), tmp_path / "d.parquet")
    (tmp_path / "e/deep").mkdir(parents=True)
    for number, text in enumerate(wanted):
        (tmp_path / f"e/deep/{number:03}.txt").write_text(text, encoding="utf-8", newline="\n")
    found = []
    for source in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet", "e"):
        prepare(script, [tmp_path / source], tmp_path / f"out-{source}")
        found.append({k: v for k, v in files(tmp_path / f"out-{source}").items() if k != "meta.json"})
    assert all(other == found[0] for other in found[1:])


def test_a_data_set_of_the_hub(script, tmp_path, monkeypatch):
    """Whatever the package gives, a row at a time."""
    wanted = texts(30)

    class Package:
        @staticmethod
        def load_dataset(path, name, split, streaming):
            assert (path, name, split, streaming) == ("some/where", "small", "train", True)
            return iter([{"text": text} for text in wanted])

    monkeypatch.setitem(sys.modules, "datasets", Package)
    prepare(script, ["hf:some/where:small"], tmp_path / "out")
    assert sorted(sum(read_back(tmp_path / "out").values(), [])) == sorted(wanted)


def test_blank_lines_and_the_limit(script, tmp_path):
    wanted = texts(20)
    lines = write_lines(tmp_path / "a.jsonl", wanted).read_text(encoding="utf-8").replace("\n", "\n\n \n")
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    prepare(script, [tmp_path / "a.jsonl"], tmp_path / "out", limit=7)
    assert sorted(sum(read_back(tmp_path / "out").values(), [])) == sorted(wanted[:7])


def test_large_vocabularies_take_four_bytes():
    assert token_files.type_for(65536) == "uint16" and token_files.type_for(65537) == "uint32"


def test_ids_above_two_bytes_come_back(tmp_path):
    """As those of cl100k_base, which two bytes would fold onto others."""
    writer = token_files.Writer(tmp_path, token_files.type_for(100_277), 100_257)
    writer.begin()
    for split in token_files.SPLITS:
        writer.add(split, np.array([1, 65_535, 65_536, 100_276]), 4, 4)
    meta = writer.finish(ByteTokenizer(), {})
    assert meta["dtype"] == "uint32"
    assert tokens.stretch(tmp_path, meta, "test")[:].tolist() == [
        100_257,
        1,
        65_535,
        65_536,
        100_276,
        100_257,
    ]


# ---- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 1, 5, 17, 40])
def test_an_interrupted_run_goes_on_and_ends_the_same(stop, script, tmp_path, monkeypatch):
    """It breaks off while it writes a document; what was written since the last save is done again."""
    monkeypatch.setattr(documents, "ABOUT", 500)
    monkeypatch.setitem(script["prepare"].__globals__, "SAVED", 3)
    monkeypatch.setattr(token_files, "SHARD", 2000)
    monkeypatch.setattr(token_files.Writer.__init__, "__defaults__", (2000,))
    sources = [
        write_lines(tmp_path / "a.jsonl", texts(60) + texts(9)),
        write_lines(tmp_path / "b.jsonl", texts(50, 1)),
    ]
    prepare(script, sources, tmp_path / "whole")
    add, left = token_files.Writer.add, [stop]

    def breaks(self, *document):
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        add(self, *document)

    monkeypatch.setattr(token_files.Writer, "add", breaks)
    with pytest.raises(OSError, match="No space"):
        prepare(script, sources, tmp_path / "parts")
    with pytest.raises(UserError, match="parts is not finished; the same prepare command goes on with it"):
        tokens.read_meta(tmp_path / "parts")
    monkeypatch.setattr(token_files.Writer, "add", add)
    with pytest.raises(UserError, match="was begun with other tokenizer; ask for the same, or remove"):
        prepare(script, sources, tmp_path / "parts", tokenizer="char")
    prepare(script, sources, tmp_path / "parts")
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert len(files(tmp_path / "whole")) > 5  # several shards
    assert json.loads(files(tmp_path / "whole")["meta.json"])["copies"] == 9


def test_a_source_that_changed_meanwhile_is_told(script, tmp_path, monkeypatch):
    source = write_lines(tmp_path / "a.jsonl", texts(60))
    monkeypatch.setattr(token_files.Writer, "finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(script, [source], tmp_path / "out")
    monkeypatch.undo()
    write_lines(source, texts(61))
    with pytest.raises(UserError, match="was begun with other sources"):
        prepare(script, [source], tmp_path / "out")


@pytest.mark.long
def test_killed_at_any_moment_it_goes_on(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", texts(60_000))
    command = [sys.executable, str(SCRIPT), str(source), "--tokenizer", "byte", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    pick = random.Random(1)
    for _ in range(20):
        running = subprocess.Popen([*command, str(tmp_path / "parts")], stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(1.5 + 2 * pick.random())
        if running.poll() is not None:
            break
        running.send_signal(signal.SIGKILL)
        running.wait()
    if not (tmp_path / "parts/meta.json").exists():
        subprocess.run([*command, str(tmp_path / "parts")], check=True, capture_output=True)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


# ---- reading -------------------------------------------------------------------------------------


@pytest.fixture
def folder(script, tmp_path, monkeypatch):
    """Prepared, in files of 1,000 tokens."""
    monkeypatch.setattr(token_files.Writer.__init__, "__defaults__", (1000,))
    prepare(script, [write_lines(tmp_path / "a.jsonl", texts(300))], tmp_path / "out")
    return tmp_path / "out"


def test_a_split_on_the_disk_is_as_one_in_memory(folder):
    meta = tokens.verify(folder)
    assert len(meta["shards"]) > 20
    ids = tokens.stretch(folder, meta, "train")
    raw = b"".join(path.read_bytes() for path in sorted(folder.glob("train-*.bin")))
    memory = torch.from_numpy(np.frombuffer(raw, "<u2").astype(np.int64))
    assert torch.equal(ids[:], memory) and torch.equal(ids[990:2010], memory[990:2010])
    ours, usual = tokens.TokenSplit(ids, 5000, 16, 8), splits.TextSplit(memory, 5000, 16, 8)
    for a, b in (
        (ours, usual),
        (ours.head(1500), usual.head(1500)),
        (ours.tail(77), usual.tail(77)),
        (ours.in_windows(40), usual.in_windows(40)),
    ):
        assert (len(a), a.choices, a.characters, a.rows) == (len(b), b.choices, b.characters, b.rows)
        for (x, y), (u, v) in zip(a.in_order(), b.in_order(), strict=True):
            assert torch.equal(x, u) and torch.equal(y, v) and x.dtype == torch.int64
        starts = torch.tensor([0, 3, a.choices - 1])
        assert all(torch.equal(x, u) for x, u in zip(a.at(starts), b.at(starts), strict=True))


def test_the_data_of_a_run(folder):
    data = tokens.prepared_data(folder, Settings(block_size=16, batch_size=4))
    x, y = data.batch(3)
    assert x.shape == y.shape == (4, 16) and torch.equal(x[:, 1:], y[:, :-1])
    assert (
        data.validation.characters
        == json.loads((folder / "meta.json").read_text())["splits"]["validation"]["characters"]
    )
    assert data.corpus.family != data.corpus.name and data.tokenizer.name == "byte"
    assert torch.equal(data.batch(3)[0], x) and not torch.equal(data.with_seed(2).batch(3)[0], x)
    with pytest.raises(UserError, match="is too short: its train part has"):
        tokens.prepared_data(folder, Settings(block_size=100_000))


def test_a_folder_that_is_broken_is_told(folder):
    path = folder / "train-00001.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-2])
    with pytest.raises(
        UserError, match="train-00001.bin has 1,998 bytes instead of 2,000; prepare the folder"
    ):
        tokens.read_meta(folder)
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    tokens.read_meta(folder)
    with pytest.raises(UserError, match="train-00001.bin has another checksum than it was written with"):
        tokens.verify(folder)
    path.unlink()
    with pytest.raises(UserError, match="train-00001.bin has 0 bytes instead of 2,000"):
        tokens.read_meta(folder)
    (folder / "meta.json").write_text("{")
    with pytest.raises(UserError, match="meta.json cannot be read"):
        tokens.read_meta(folder)


def test_the_end_of_a_text_has_an_id_of_its_own():
    assert (
        token_files.end_of_text(CharTokenizer("ab\x03\n")) == 0
        and token_files.end_of_text(ByteTokenizer()) == 3
    )
    assert token_files.end_of_text(BPETokenizer.train("some text and some more", 260)) == 259


# ---- bad input -----------------------------------------------------------------------------------


@pytest.fixture
def run(script, tmp_path, monkeypatch, capsys):
    """The program with these arguments: its exit code, what it says, and what it complains about."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, arguments)])
        code = 0
        try:
            script["main"]()
        except SystemExit as stop:
            code = stop.code
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_from_the_command_line(run, tmp_path):
    write_lines(tmp_path / "a.jsonl", texts(200))
    code, told, wrong = run("a.jsonl", "--tokenizer", "byte", "--out", "out")
    assert code == 0 and "train      " in told and "0 copies" in told, wrong
    code, told, _ = run("--inspect", "out")
    assert code == 0 and "\ntest, document 1:\n" in told
    code, _, wrong = run("a.jsonl", "--tokenizer", "byte", "--out", "out")
    told = "error: out is finished; look into it with --inspect out, or name another --out\n"
    assert code == 2 and wrong == told


def test_as_a_user_runs_it(tmp_path):
    write_lines(tmp_path / "a.jsonl", texts(50))
    command = [sys.executable, str(SCRIPT), "a.jsonl", "--tokenizer", "byte", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "out/meta.json").is_file(), done.stderr


BAD = {
    "no field": (
        b'{"title": "x", "n": 3}\n',
        "a.jsonl, line 1: no field 'text'; it has 'title', 'n'; mend it",
    ),
    "no text": (b'{"text": 3}\n', "a.jsonl, line 1: field 'text' is no text but int"),
    "no JSON": (b'{"text": "a"}\n\n{"text": \n', "a.jsonl, line 3: no JSON (Expecting value"),
    "no object": (b'"text"\n', "a.jsonl, line 1: no JSON object"),
    "no UTF-8": (b'{"text": "a\xff"}\n', "a.jsonl, line 1: not UTF-8 (byte 11)"),
    "half a pair": (b'{"text": "\\ud800"}\n', "a.jsonl, line 1: no Unicode: half a surrogate pair"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_and_can_be_left_out(name, script, tmp_path):
    bad, said = BAD[name]
    good = write_lines(tmp_path / "good.jsonl", texts(100)).read_bytes()
    (tmp_path / "a.jsonl").write_bytes(bad + good)
    with pytest.raises(UserError) as raised:
        prepare(script, [tmp_path / "a.jsonl"], tmp_path / "out")
    assert said in str(raised.value)
    meta = prepare(script, [tmp_path / "a.jsonl"], tmp_path / "out", skip_bad=True)  # goes on
    assert meta["bad"] == 1 and sum(c["documents"] for c in meta["splits"].values()) >= 100


def test_sources_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.pdf").write_text("x")
    (tmp_path / "nul.txt").write_bytes(b"a\0b")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    for name, said in {
        "missing.txt": "does not exist; give files, folders, or hf:NAME",
        "empty.txt": "is empty; leave it out",
        "folder": "holds no file that ends with .txt, .jsonl",
        "a.pdf": "is of no known kind",
    }.items():
        with pytest.raises(UserError, match=said):
            documents.find([str(tmp_path / name)])
    for name, said in {
        "nul.txt": "not text: NUL byte at byte 1",
        "latin.txt": "not UTF-8: byte 0xe9 at byte 0; save it",
    }.items():
        with pytest.raises(UserError, match=said):
            list(documents.find([str(tmp_path / name)]).parts("text"))
    with pytest.raises(UserError, match="is named twice; name it once"):
        documents.find([str(tmp_path / "nul.txt")] * 2)


def test_a_file_that_breaks_off_is_told(tmp_path):
    lines = write_lines(tmp_path / "a.jsonl", texts(3000)).read_bytes()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines)[:-1000])
    with pytest.raises(UserError, match=r"b.jsonl.gz is broken after line \d+ \(.*\); fetch it again"):
        list(documents.find([str(tmp_path / "b.jsonl.gz")]).parts("text"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("a.jsonl", "--out names no folder"),
        ("--out out", "no source is named"),
        ("a.jsonl --out out --held-out 0.5", "--held-out is above 0 and below 0.5"),
        ("a.jsonl --out out --tokenizer gpt3", "tokenizer 'gpt3' is not known"),
        ("a.jsonl --out out --feild x", "did you mean '--field'?"),
        ("a.jsonl --out .", ". has other files; name a new folder"),
        ("--inspect nowhere", "nowhere is no folder of token files"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags, said, run, tmp_path):
    write_lines(tmp_path / "a.jsonl", texts(30))
    before = sorted(tmp_path.iterdir())
    code, _, wrong = run(*flags.split())
    assert code == 2 and said in wrong and len(wrong.splitlines()) == 1, wrong
    assert sorted(tmp_path.iterdir()) == before


# ---- speed and memory ----------------------------------------------------------------------------


@pytest.mark.long
def test_memory_does_not_grow_with_the_text(script, tmp_path):
    """A gigabyte of documents that differ: less than 300 MB more than at the start."""
    source, pick = tmp_path / "a.jsonl", random.Random(0)
    base = [" ".join(pick.choices(WORDS, k=600)) for _ in range(1000)]
    with source.open("w", encoding="utf-8") as file:
        for number in range(420_000):
            file.write(json.dumps({"text": f"{number} {base[number % 1000]}"}) + "\n")
    running = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(source), "--tokenizer", "byte", "--out", str(tmp_path / "out")]
    )
    found = []
    while running.poll() is None:
        time.sleep(0.5)
        found.append(anonymous(running.pid))
    assert running.returncode == 0 and source.stat().st_size > 9e8
    assert max(found) - found[3] < 300e6
    prepare(script, [source], tmp_path / "few", limit=2000)
    trained = [while_training(tmp_path / name, tmp_path) for name in ("few", "out")]
    assert abs(trained[1] - trained[0]) < 50e6, trained


def anonymous(process: int) -> int:
    """Bytes that a process holds which are no file's."""
    with contextlib.suppress(psutil.Error):
        memory = psutil.Process(process).memory_info()
        return memory.rss - memory.shared
    return 0


def while_training(folder, logs) -> int:
    """The most memory that is no file's in the first steps of a run on token files."""
    small = "--n-embd 16 --n-head 2 --n-layer 1 --block-size 64 --batch-size 32 --warm-up 0 --steps 1000000"
    program = [sys.executable, str(ROOT / "09_pretraining/pretrain.py"), "--corpus", str(folder)]
    running = subprocess.Popen(
        [*program, *small.split(), "--threads", "1"],
        env=os.environ | {"GPT_STAIRCASE_LOGS": str(logs / f"logs-{folder.name}")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    found, deadline = [], time.monotonic() + 120
    while running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
        found.append(anonymous(running.pid))
        log = next((logs / f"logs-{folder.name}").glob("runs/**/steps.csv"), None)
        if log and log.read_text().count("\n") > 2000:
            break
    assert running.poll() is None and time.monotonic() < deadline
    running.kill()
    running.wait()
    return max(found)
