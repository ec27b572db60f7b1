"""Corpora, splits and batches."""

import hashlib
import http.server
import inspect
import threading
from pathlib import Path

import pytest
import torch

from common.data import corpora, names_data, text_data
from common.data.corpora import Source, load_names, load_text
from common.errors import UserError
from common.settings import NamesSettings, Settings


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serve bytes on this machine as the source of tinyshakespeare; returns (set content, cache folder)."""
    state = {"body": b"", "claimed": None}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(state["claimed"] or len(state["body"])))
            self.end_headers()
            self.wfile.write(state["body"])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cache = tmp_path / "cache"
    monkeypatch.setattr(corpora, "cache_folder", lambda: cache)
    monkeypatch.delenv("GPT_STAIRCASE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def serve(body: bytes, claimed: int | None = None, sha: str | None = None):
        state.update(body=body, claimed=claimed)
        source = Source(
            "text", f"http://127.0.0.1:{server.server_port}/x", sha or hashlib.sha256(body).hexdigest()
        )
        monkeypatch.setitem(corpora.CORPORA, "tinyshakespeare", source)

    yield serve, cache
    server.shutdown()
    server.server_close()


def test_a_named_corpus_is_downloaded_once_and_kept(served):
    serve, cache = served
    serve(b"some text\n" * 30)
    assert load_text("tinyshakespeare").text == "some text\n" * 30
    assert [p.name for p in cache.iterdir()] == ["tinyshakespeare.txt"]
    corpora.CORPORA["tinyshakespeare"] = Source(
        "text", "http://127.0.0.1:9/gone", corpora.CORPORA["tinyshakespeare"].sha256
    )
    assert load_text("tinyshakespeare").name == "tinyshakespeare"


def test_a_download_that_breaks_off_leaves_nothing(served):
    serve, cache = served
    serve(b"half of it", claimed=1000)
    with pytest.raises(UserError, match="broke off after 10 bytes"):
        load_text("tinyshakespeare")
    assert not cache.exists() or not list(cache.iterdir())


def test_a_download_with_the_wrong_checksum_leaves_nothing(served):
    serve, cache = served
    serve(b"not what it should be", sha="0" * 64)
    with pytest.raises(UserError, match="wrong SHA-256"):
        load_text("tinyshakespeare")
    assert not cache.exists() or not list(cache.iterdir())


def test_the_real_sources_are_https():
    fetched = [source for source in corpora.CORPORA.values() if not source.make]
    assert len(fetched) == 2
    assert all(source.url.startswith("https://") and len(source.sha256) == 64 for source in fetched)


def test_the_help_names_every_corpus():
    from common.settings import NamesSettings, Settings

    for kind, settings in (("text", Settings), ("names", NamesSettings)):
        source = Path(inspect.getsourcefile(settings)).read_text(encoding="utf-8")
        own = source[source.index(f"class {settings.__name__}") :]
        said = own[own.index("corpus: str") :].split('"""')[1]
        assert said.split(", or path")[0].split(", ") == corpora.known(kind)


def test_a_changed_file_in_the_data_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT_STAIRCASE_DATA", str(tmp_path))
    (tmp_path / "tinyshakespeare.txt").write_text("something else", encoding="utf-8")
    with pytest.raises(UserError, match="is not the tinyshakespeare"):
        load_text("tinyshakespeare")


def test_line_ends_and_byte_order_mark_make_no_difference(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\r\n".encode())
    assert load_text(str(tmp_path / "a.txt")).text == "one\ntwo\n"


def test_the_built_in_corpora_need_no_file():
    assert len(corpora.pydoc().text) > 300_000
    assert len(corpora.faker_names("faker").text.split()) > 3_000
    assert len(load_names("indian").text.split()) > 300


def test_no_name_is_in_two_splits_and_duplicates_stay_when_asked(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text(
        "\n".join(f"{'abcdefghij'[i % 10]}{'klmno'[i % 5]}{i % 37 * 'x'}" for i in range(400)),
        encoding="utf-8",
    )

    def parts(keep: bool, drop: bool = False):
        d = names_data(NamesSettings(corpus=str(path), keep_duplicates=keep, drop_leaked=drop, block_size=2))
        return [
            d.tokenizer.decode(split.targets.tolist()).split("\n")[:-1]
            for split in (d.train, d.validation, d.test)
        ]

    train, validation, test = parts(keep=False)
    assert not set(train) & set(validation) and not set(train) & set(test) and not set(validation) & set(test)
    assert (
        len(train + validation + test)
        == len(set(train + validation + test))
        == len(set(path.read_text(encoding="utf-8").split()))
    )
    assert abs(len(train) - 0.8 * len(train + validation + test)) < 1
    kept = parts(keep=True)
    assert sum(map(len, kept)) == 400 and set(kept[0]) & set(kept[2])
    dropped = parts(keep=True, drop=True)
    assert dropped[1:] == kept[1:] and dropped[0] == [
        name for name in kept[0] if name not in {*kept[1], *kept[2]}
    ]


def test_batches_depend_on_seed_and_step_alone(text_file):
    d = text_data(Settings(corpus=str(text_file), block_size=8, batch_size=4))
    torch.rand(3)
    x, y = d.batch(7)
    assert x.shape == y.shape == (4, 8) and torch.equal(x[:, 1:], y[:, :-1])
    again = text_data(Settings(corpus=str(text_file), block_size=8, batch_size=4)).batch(7)
    assert torch.equal(x, again[0])
    assert not torch.equal(x, d.batch(8)[0]) and not torch.equal(x, d.with_seed(2).batch(7)[0])


def test_every_window_of_the_training_text_can_be_drawn(text_file):
    d = text_data(Settings(corpus=str(text_file), block_size=8))
    x, y = d.train.at(torch.tensor([0, d.train.choices - 1]))
    assert torch.equal(x[0], d.train.tokens[:8]) and torch.equal(y[1], d.train.tokens[-8:])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"ab\0c", "NUL byte at byte 2"),
        (b"caf\xe9 and so on", "not UTF-8: byte 0xe9 at byte 3"),
        (b"short", "is too short"),
    ],
)
def test_an_unusable_file_is_described(tmp_path, content, said):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        text_data(Settings(corpus=str(path)))


def test_unknown_corpora_folders_and_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="did you mean 'tinyshakespeare'"):
        load_text("tinyshakspeare")
    with pytest.raises(UserError, match="does not exist"):
        load_text(str(tmp_path / "none.txt"))
    with pytest.raises(UserError, match="is a folder"):
        load_text(str(tmp_path))
    few = tmp_path / "few.txt"
    few.write_text("anna\nben\n", encoding="utf-8")
    with pytest.raises(UserError, match="has 2 names"):
        names_data(NamesSettings(corpus=str(few)))


def test_no_module_opens_a_file_without_saying_utf_8():
    """Checked by the linter everywhere; here for the one way around it, read_text() and write_text() without
    an encoding.
    """
    root = Path(corpora.__file__).parents[1]
    for path in [*root.glob("common/**/*.py"), *root.glob("0*/*.py"), *root.glob("tests/*.py")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if ".read_text(" in line or ".write_text(" in line:
                assert "encoding=" in line or "glob(" in line or '".read_text("' in line, (
                    f"{path.name}: {line.strip()}"
                )
