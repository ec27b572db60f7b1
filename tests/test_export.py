"""Out into other software, and in from it: the same logits, the same greedy text, the same tokens."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common import lessons
from common.data import bpe
from common.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, TiktokenTokenizer
from common.errors import UserError
from common.generation import Sampling, generate
from common.generation import published as reading
from common.generation.load import Run
from common.model import assemble, part
from common.model.gpt import GPT
from common.settings import PartSettings
from common.tools import export
from common.tools.forms import form_of

tokenizers = pytest.importorskip(
    "tokenizers", reason="the extra `export` brings tokenizers, which is not installed"
)
from common.tools.tokenizer_files import as_hf  # noqa: E402

TEXT = "".join(
    f"It's line {n}, and we'll say it's fine;\n\n  then 'tis {n * 7919} times over.\t" for n in range(60)
)
SIZE = PartSettings(n_layer=2, n_head=4, n_embd=32, block_size=24)
LLAMA = {"norm": "rmsnorm", "position": "rope", "feed_forward": "swiglu"}
GPT2 = {"feed_forward": "gelu-tanh"}


def tokenizer_of(name: str):
    if name == "char":
        return CharTokenizer(TEXT + "\u00e9\u4f60\U0001f600")
    return ByteTokenizer() if name == "byte" else BPETokenizer(bpe.train([TEXT], 330))


def trained(names: dict, vocab_size: int = 97) -> GPT:
    """A model of these parts with weights that have something to say."""
    model = lessons.build_model(assemble, dataclasses.replace(SIZE, **names), vocab_size, 1)
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return model.eval()


def as_run(model, tokenizer):
    """What `export` asks of a run."""
    return dataclasses.make_dataclass("R", ["model", "tokenizer", "settings"])(model, tokenizer, SIZE)


# ---- tokenizers ----------------------------------------------------------------------------------

PUBLISHED = {}


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.text(max_size=40),
        st.text("aA \n\t'sl1.,<|>\u00e9\u4f60\U0001f600\r", max_size=60),
        st.just("<|endoftext|> it's  \n\n"),
    )
)
@pytest.mark.parametrize("name", ["char", "byte", "bpe", "gpt2", "cl100k_base"])
def test_the_exported_tokenizer_gives_the_same_tokens_and_the_same_text(name, text):
    if name not in PUBLISHED:
        try:
            ours = TiktokenTokenizer(name) if name in ("gpt2", "cl100k_base") else tokenizer_of(name)
        except UserError as error:
            pytest.skip(str(error))
        theirs = tokenizers.Tokenizer.from_str(as_hf(ours).to_str())
        theirs.encode_special_tokens = True  # what tokenizer_config.json asks for
        PUBLISHED[name] = ours, theirs
    ours, theirs = PUBLISHED[name]
    text = "".join(c for c in text if c in ours.alphabet) if name == "char" else text
    try:
        ids = ours.encode(text).tolist()
    except UserError:  # half of a surrogate pair, which is no text
        return
    assert theirs.encode(text, add_special_tokens=False).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == text


# ---- the folder ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip(
        "transformers", reason="the extra `dev` brings transformers, which is not installed"
    )


FORMS = [
    ("char", LLAMA | {"n_kv_head": 4}),
    ("bpe", LLAMA | {"n_kv_head": 2, "attention": "gqa"}),
    ("byte", LLAMA | {"n_kv_head": 1, "head": "untied", "attention": "tiled"}),
    ("bpe", GPT2),
    ("char", {"feed_forward": "gelu", "head": "untied", "attention": "explicit"}),
    ("byte", {"feed_forward": "relu"}),
    ("byte", {"feed_forward": "silu"}),
]


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "names"),
    FORMS,
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_the_library_loads_it_and_writes_the_same_text(name, names, tmp_path, transformers):
    ours = tokenizer_of(name)
    model = trained(names, ours.vocab_size)
    export.export(as_run(model, ours), "hf", tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    cutter = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = "we'll say  it"
    ids = torch.from_numpy(ours.encode(prompt))[None]
    assert cutter(prompt, add_special_tokens=False)["input_ids"] == ids[0].tolist()
    expected = model(ids)
    assert expected.std() > 0.3
    torch.testing.assert_close(theirs(ids).logits, expected, rtol=0, atol=2e-5)
    for said in (theirs.config, theirs.generation_config):  # no token of ours begins or ends a text there
        assert said.bos_token_id is None and said.eos_token_id is None
    written = torch.cat(
        [ids[0], torch.cat(list(generate(model, ids, 24, 24 - ids.size(1), Sampling(temperature=0))))]
    )
    found = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=24 - ids.size(1),
        do_sample=False,
        pad_token_id=0,
    )
    assert found[0].tolist() == written.tolist()
    assert cutter.decode(found[0]) == ours.decode(written.tolist())


REFUSED = [
    ({"position": "alibi"}, "GPT-2 has no ALiBi"),
    (
        {"position": "sinusoidal", "norm": "rmsnorm", "feed_forward": "swiglu"},
        "Llama has no SinusoidalPosition",
    ),
    ({"norm": "scalenorm"}, "GPT-2 has no ScaleNorm"),
    ({"norm": "none"}, "no block without norms"),
    ({"qk_norm": True}, "GPT-2 has no norm of queries and keys"),
    ({"feed_forward": "relu2"}, "GPT-2 has no activation SquaredReLU"),
    (LLAMA | {"feed_forward": "geglu"}, "Llama has no gate through GELU"),
    (LLAMA | {"feed_forward": "moe"}, "Llama has no MoE"),
    (LLAMA | {"norm": "layernorm"}, "Llama has no LayerNorm"),
    ({"attention": "local"}, "GPT-2 has no LocalAttention"),
    ({"attention": "linear"}, "GPT-2 has no LinearAttention"),
    ({"n_kv_head": 2}, "GPT-2 has no keys and values shared by heads"),
]


@pytest.mark.parametrize(("names", "said"), REFUSED)
def test_what_has_no_form_is_refused_with_the_part_that_does_not_fit(names, said, tmp_path):
    with pytest.raises(UserError) as error:
        export.export(as_run(trained(names), tokenizer_of("byte")), "hf", tmp_path / "out")
    assert said in str(error.value) and "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_mixed_norms_and_models_of_a_script_are_refused():
    mixed = GPT(SIZE, 97, norm=(part("norm", "layernorm"), part("norm", "rmsnorm")))
    with pytest.raises(UserError, match="GPT-2 has no RMSNorm"):
        form_of(mixed, 24)
    plan = lessons.course_plan("07_tokenizer_gqa/gqa")
    with pytest.raises(
        UserError, match="has no GroupedQueryAttention of a script of its own|of a script of its own"
    ):
        form_of(lessons.build_model(plan.arms["mha"], plan.defaults, 97, 1), 64)
    plan = lessons.course_plan("06_transformer/gpt")
    with pytest.raises(UserError, match="written out in its script"):
        form_of(lessons.build_model(plan.arms["default"], plan.defaults, 97, 1), 64)


def test_a_folder_that_is_there_is_left_alone_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    run = as_run(trained(GPT2), tokenizer_of("byte"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="is there already and not empty"):
        export.export(run, "hf", tmp_path / "full")
    (tmp_path / "empty").mkdir()
    assert export.export(run, "hf", tmp_path / "empty").name == "GPT-2"

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(UserError, match="cannot be written"):
        export.export(run, "hf", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]


def test_from_a_run_to_a_folder(tmp_path, in_process, own_logs, monkeypatch, capsys, transformers):
    """The command, on a run of a model of a file; and what it says where the script writes its own parts."""
    done = in_process(
        "08_micro_arch/assemble",
        "--norm rmsnorm --position rope --feed-forward swiglu --corpus pydoc --tokenizer byte --steps 3 "
        "--warm-up 1 --n-layer 1 "
        "--n-embd 16 --block-size 16 --threads 1 --no-pictures",
    )
    assert done.returncode == 0, done.stderr
    folder = next(own_logs.glob("runs/08_micro_arch/assemble/default-seed1-*"))
    monkeypatch.setattr(sys, "argv", ["export", str(folder)])
    export.main()
    assert "the form of Llama" in capsys.readouterr().out
    assert transformers.AutoModelForCausalLM.from_pretrained(folder / "hf").config.num_hidden_layers == 1
    for arguments, said in (
        ([str(folder)], "is there already"),
        ([], "name a run folder"),
        ([str(tmp_path)], "holds no checkpoint"),
    ):
        monkeypatch.setattr(sys, "argv", ["export", *arguments])
        with pytest.raises(SystemExit) as stop:
            export.main()
        assert stop.value.code == 2 and said in capsys.readouterr().err


# ---- one file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "names"), [("bpe", LLAMA | {"n_kv_head": 2}), ("bpe", LLAMA | {"head": "untied"}), ("bpe", GPT2)]
)
def test_the_tensors_of_a_gguf_file_are_ours(name, names, tmp_path):
    """Read back with the package's own reader; queries and keys of Llama stand in another order, so that RoPE
    turns neighbours.
    """
    gguf = pytest.importorskip("gguf", reason="the extra `export` brings gguf, which is not installed")
    ours = tokenizer_of(name)
    model = trained(names, ours.vocab_size)
    form = export.export(as_run(model, ours), "gguf", tmp_path / "out")
    read = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    found = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in read.tensors}
    assert len(found) == len(form.tensors)
    torch.testing.assert_close(found["token_embd.weight"], model.token.weight.detach(), rtol=0, atol=0)
    block = model.blocks[1]
    if form.name == "Llama":
        # back to (i, i + D/2)
        q = found["blk.1.attn_q.weight"].unflatten(0, (4, -1, 2)).transpose(1, 2).flatten(0, 2)
        assert torch.equal(q, block.attention.qkv.weight[:32]) and not torch.equal(
            found["blk.1.attn_q.weight"], q
        )
        k = (
            found["blk.1.attn_k.weight"]
            .unflatten(0, (block.attention.n_kv_head, -1, 2))
            .transpose(1, 2)
            .flatten(0, 2)
        )
        assert torch.equal(k, block.attention.qkv.weight[32 : 32 + len(k)])
        assert torch.equal(found["blk.1.ffn_gate.weight"], block.feed_forward.gate.weight)
        assert ("output.weight" in found) == (names.get("head") == "untied")
    else:
        assert torch.equal(found["blk.1.attn_qkv.weight"], block.attention.qkv.weight)
        assert (
            torch.equal(found["blk.1.ffn_down.weight"], block.feed_forward[2].weight)
            and found["blk.1.ffn_down.bias"].abs().max() == 0
        )
    fields = {key: field.contents() for key, field in read.fields.items()}
    architecture = fields["general.architecture"]
    assert fields[f"{architecture}.block_count"] == 2 and fields[f"{architecture}.context_length"] == 24
    assert len(fields["tokenizer.ggml.tokens"]) == ours.vocab_size
    assert len(fields["tokenizer.ggml.merges"]) >= len(ours.merges) > 0


@pytest.mark.long
@pytest.mark.parametrize("names", [LLAMA | {"n_kv_head": 2}, LLAMA | {"head": "untied"}, GPT2])
def test_llama_cpp_loads_a_gguf_file_and_computes_the_same(names, tmp_path):
    """Tokens and logits; it keeps keys and values in half precision."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    ours = tokenizer_of("bpe")
    model = trained(names, ours.vocab_size)
    export.export(as_run(model, ours), "gguf", tmp_path / "out")
    theirs = llama_cpp.Llama(str(tmp_path / "out" / "model.gguf"), n_ctx=24, logits_all=True, verbose=False)
    ids = theirs.tokenize(TEXT.encode(), add_bos=False)[:24]
    assert ids == ours.encode(TEXT)[:24].tolist()
    theirs.eval(ids)
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0]
    assert expected.std() > 0.3
    found = torch.from_numpy(theirs.scores[: len(ids)].copy())
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def test_a_gguf_file_that_would_not_be_the_same_model_is_refused(tmp_path):
    pytest.importorskip("gguf", reason="the extra `export` brings gguf, which is not installed")
    for names, name, said in (
        (GPT2, "char", "tokenizer char has none"),
        (LLAMA, "byte", "tokenizer byte has none"),
        ({}, "bpe", "GELU by tanh only"),
    ):
        ours = tokenizer_of(name)
        with pytest.raises(UserError, match=said):
            export.export(as_run(trained(names, ours.vocab_size), ours), "gguf", tmp_path / "out")
    assert not list(tmp_path.iterdir())


# ---- published weights, in our GPT ---------------------------------------------------------------


@pytest.fixture
def tiny_gpt2(tmp_path, transformers) -> tuple[Path, object]:
    """A random GPT-2 with biases, as the library writes it, and a tokenizer beside it."""
    ours = tokenizer_of("bpe")
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=ours.vocab_size, n_positions=24, n_embd=32, n_layer=2, n_head=4, n_inner=96
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for p in theirs.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    folder = tmp_path / "tiny"
    theirs.save_pretrained(folder)
    as_hf(ours).save(str(folder / "tokenizer.json"))
    return folder, theirs


@torch.no_grad()
def test_published_weights_give_the_librarys_logits(tiny_gpt2):
    folder, theirs = tiny_gpt2
    found = reading.load_gpt2(folder)
    ids = torch.from_numpy(found.tokenizer.encode("It's line 7"))[None]
    torch.testing.assert_close(found.model(ids), theirs(ids).logits, rtol=0, atol=2e-5)
    assert any(p.abs().max() > 0 for name, p in found.model.named_parameters() if name.endswith("bias"))
    written = [int(token) for token in generate(found.model, ids, 24, 8, Sampling(temperature=0))]
    expected = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert expected[0, ids.size(1) :].tolist() == written


def test_published_weights_write(tiny_gpt2, monkeypatch, capsys):
    from common import generate as program

    folder, _ = tiny_gpt2
    monkeypatch.setattr(sys, "argv", ["generate", str(folder), "--prompt", "It's", "--length", "5"])
    program.main()
    said = capsys.readouterr()
    assert said.out.startswith("It's") and "not trained here" in said.err


def test_bad_folders_of_weights_are_refused_in_one_line(tiny_gpt2, tmp_path):
    folder, _ = tiny_gpt2
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))

    def refused(said: str, **files: str | bytes | None) -> None:
        bad = tmp_path / "bad"
        shutil.copytree(folder, bad)
        for name, content in files.items():
            path = (
                bad
                / {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}[
                    name
                ]
            )
            path.unlink() if content is None else path.write_bytes(
                content if isinstance(content, bytes) else content.encode()
            )
        with pytest.raises(UserError) as error:
            reading.load_gpt2(bad)
        assert said in str(error.value) and "\n" not in str(error.value)
        shutil.rmtree(bad)

    refused("only gpt2 is read here", config=json.dumps(config | {"model_type": "bert"}))
    refused("activation 'tanh' is not one of", config=json.dumps(config | {"activation_function": "tanh"}))
    refused("says nothing of 'n_embd'", config=json.dumps({k: v for k, v in config.items() if k != "n_embd"}))
    refused("cannot be read", config="{")
    refused("holds no settings", config="[]")
    refused("the two files are not of one model", config=json.dumps(config | {"n_positions": 12}))
    refused("has no h.2.", config=json.dumps(config | {"n_layer": 3}))
    refused("does not exist", weights=None)
    refused("is not a whole file of weights", weights=(folder / "model.safetensors").read_bytes()[:1000])
    refused("holds no tokenizer", tokenizer=None)


def test_others_may_read_what_was_exported(tmp_path):
    """It is made in a temporary folder, which they may not."""
    own = tmp_path / "own"
    own.mkdir()
    run = Run(GPT(SIZE, 256), ByteTokenizer(), SIZE, None, {}, "cpu")
    export.export(run, "hf", tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == own.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "own"]
