"""Models from names: any sensible combination builds, learns, decodes and comes back; what makes no sense is
refused in one line.
"""

import itertools
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from common import config_file, lessons, results
from common.command_line import parse
from common.errors import UserError
from common.generation.sampling import Sampling, generate
from common.model import PARTS, assemble
from common.paths import ROOT
from common.settings import MICRO_ARCH, PartSettings
from common.training import checkpoint
from common.training.loop import auxiliary_loss

ASSEMBLE = "08_micro_arch/assemble"
CONFIGS = sorted((ROOT / "08_micro_arch/configs").glob("*.yaml"))
V = 31
TINY = PartSettings(n_layer=2, n_head=4, n_kv_head=2, n_embd=16, block_size=12, window=4, n_expert=4)
CHOICES = {socket: list(known) for socket, known in PARTS.items()} | {"qk_norm": [False, True]}


def sensible(names: dict) -> bool:
    return not (names["attention"] == "linear" and names["position"] in ("rope", "alibi"))


def pairwise() -> list[dict]:
    """Combinations in which each pair of names of two sockets stands together at least once."""
    sockets, found = list(CHOICES), []
    pairs = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(sockets, 2)
        for x in CHOICES[a]
        for y in CHOICES[b]
    }
    pairs -= {(("attention", "linear"), ("position", position)) for position in ("rope", "alibi")}
    while pairs:
        best, most = None, -1
        first, second = min(pairs)
        rest = [socket for socket in sockets if socket not in (first[0], second[0])]
        for offset in range(
            60
        ):  # a fixed choice of what stands beside the pair; the one that covers most is taken
            names = dict([first, second])
            names |= {
                socket: CHOICES[socket][(offset * (3 + place) + place) % len(CHOICES[socket])]
                for place, socket in enumerate(rest)
            }
            covered = sum(
                pair in pairs for pair in itertools.combinations([(s, names[s]) for s in sockets], 2)
            )
            if sensible(names) and covered > most:
                best, most = names, covered
        pairs -= set(itertools.combinations([(s, best[s]) for s in sockets], 2))
        found.append(best)
    return found


def goes_through_everything(names: dict, folder) -> None:
    """Builds, gives finite logits, takes a step that lowers the loss, decodes with its cache as without,
    comes back from a checkpoint.
    """
    s = replace(TINY, **names)
    model = lessons.build_model(assemble, s, V, 1)
    ids = torch.randint(V, (2, 12))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss + auxiliary_loss(model)).backward()
        optimizer.step()
    assert losses[-1] < losses[0], names
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused or names["feed_forward"] == "moe", (names, unused)
    model.eval()
    texts = [
        torch.stack(
            list(generate(model, ids[:, :3], 12, 9, Sampling(), torch.Generator().manual_seed(1), cached))
        )
        for cached in (True, False)
    ]
    assert torch.equal(*texts), names
    checkpoint.write(
        folder / "checkpoint.safetensors",
        checkpoint.tensors(model, optimizer, [checkpoint.random_state()]),
        {"experiment": ASSEMBLE, "step": 4},
    )
    other = lessons.build_model(assemble, s, V, 2).eval()
    checkpoint.restore_model(checkpoint.load(folder / "checkpoint.safetensors"), other)
    assert torch.equal(other(ids), model(ids)), names


def test_every_pair_of_parts_goes_together(tmp_path):
    found = pairwise()
    for socket, other in itertools.combinations(CHOICES, 2):
        together = {(names[socket], names[other]) for names in found}
        assert len(together) == len(CHOICES[socket]) * len(CHOICES[other]) - 2 * (
            (socket, other) == ("attention", "position")
        )
    assert len(found) < 100
    for names in found:
        goes_through_everything(names, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("attention", CHOICES["attention"])
@pytest.mark.parametrize("feed_forward", CHOICES["feed_forward"])
def test_the_whole_product_goes_together(attention, feed_forward, tmp_path):
    rest = [socket for socket in CHOICES if socket not in ("attention", "feed_forward")]
    for chosen in itertools.product(*(CHOICES[socket] for socket in rest)):
        names = {"attention": attention, "feed_forward": feed_forward} | dict(zip(rest, chosen, strict=True))
        if sensible(names):
            goes_through_everything(names, tmp_path)
        else:
            with pytest.raises(ValueError, match="does not go with position"):
                assemble(replace(TINY, **names), V)


def test_the_taught_assembling_is_the_graduated_one():
    plan = lessons.course_plan(ASSEMBLE)
    taught = vars(sys.modules[plan.describe.__module__])["assemble"]
    ids = torch.randint(V, (2, 12))
    for names in pairwise()[::5]:
        s = replace(TINY, **names)
        assert torch.equal(*(lessons.build_model(build, s, V, 1).eval()(ids) for build in (taught, assemble)))
    for build in (taught, assemble):
        with pytest.raises(ValueError, match="'linear' does not go with position 'rope': it has no scores"):
            build(replace(TINY, attention="linear", position="rope"), V)
    assert next(iter(plan.arms.values())) is taught


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_of_the_course_is_a_model(path):
    plan = lessons.course_plan(ASSEMBLE)
    s, _ = parse(plan.defaults, "", ["--config", str(path)])
    with torch.device("meta"):
        model = assemble(s, 1024)
    said = plan.describe(model, s)
    total = sum(p.numel() for p in model.parameters())
    parts = [int(line.split()[-2].replace(",", "")) for line in said.splitlines()]
    assert sum(parts[:-1]) == parts[-1] == total and f" {s.norm} " in said


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fast_gpt", "06_transformer/fast_gpt"),
        ("gqa", "07_tokenizer_gqa/gqa:gqa"),
        ("baseline", "08_micro_arch/ffn_width:4x"),
    ],
)
def test_the_files_of_the_courses_own_models_are_those_models(name, line):
    """The same settings, the same weights and the same logits as the line of the course."""
    reference = lessons.refer(line)
    plan = lessons.course_plan(reference.experiment)
    theirs = plan.own(reference.arm, plan.settings())
    ours, _ = parse(
        lessons.course_plan(ASSEMBLE).defaults, "", ["--config", f"08_micro_arch/configs/{name}.yaml"]
    )
    assert vars(theirs).items() <= vars(ours).items()
    ids = torch.randint(V, (2, 30))
    logits = [
        lessons.build_model(build, s, V, 1)(ids)
        for build, s in ((plan.arms[reference.arm], theirs), (assemble, ours))
    ]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-6)


def test_the_larger_file_is_what_it_says():
    s, _ = parse(
        lessons.course_plan(ASSEMBLE).defaults, "", ["--config=08_micro_arch/configs/six_layers.yaml"]
    )
    assert (s.n_layer, s.n_embd, s.n_head, s.block_size) == (6, 256, 8, 256)
    assert (s.attention, s.feed_forward, s.norm, s.position) == ("flash", "swiglu", "rmsnorm", "sinusoidal")


def test_flags_change_what_the_file_says_and_the_file_what_the_script_says(tmp_path):
    file = tmp_path / "mine.yaml"
    text = (
        "model:\n  n_layer: 2\n  norm: rmsnorm\n  capacity: 2\ndata:\ntraining:\n  lr: 1e-3\n  cosine: true\n"
    )
    file.write_text(text, encoding="utf-8")
    defaults = lessons.course_plan(ASSEMBLE).defaults
    s, _ = parse(
        defaults,
        "",
        [
            "--config",
            str(file),
            "--model.n-layer",
            "6",
            "--training.min-lr=1e-4",
            "--model.qk-norm",
            "--n-head",
            "2",
        ],
    )
    assert (s.n_layer, s.norm, s.capacity, s.lr, s.cosine, s.min_lr, s.qk_norm, s.n_head) == (
        6,
        "rmsnorm",
        2.0,
        1e-3,
        True,
        1e-4,
        True,
        2,
    )
    assert s.tokenizer == MICRO_ARCH.tokenizer and s.clip == MICRO_ARCH.clip
    assert parse(defaults, "", ["--config", str(file), "--training.no-cosine"])[0].cosine is False


BAD = {
    "": "is no mapping of sections",
    "- norm\n": "is no mapping of sections",
    "rmsnorm": "is no mapping of sections",
    "modle:\n  n_layer: 2\n": "section 'modle' is not known; did you mean 'model'?",
    "n_layer: 2\n": "section 'n_layer' is not known; it belongs in section model",
    "model: rmsnorm\n": "section model is no mapping",
    "model:\n  nrom: rmsnorm\n": "model has no setting 'nrom'; did you mean 'norm'?",
    "model:\n  lr: 1e-3\n": "model has no setting 'lr'; it belongs in section training",
    "model:\n  norm: rmsnrom\n": "norm 'rmsnrom' is not known; did you mean 'rmsnorm'?",
    "model:\n  norm: 3\n": "model.norm is 3; it must be a name",
    "model:\n  norm: no\n": "put a name in quotes",
    "model:\n  norm:\n": "model.norm is empty; it must be a name",
    "model:\n  n_layer: six\n": "model.n_layer is 'six'; it must be a whole number",
    "model:\n  n_layer: 2.5\n": "model.n_layer is 2.5; it must be a whole number",
    "model:\n  n_layer: true\n": "model.n_layer is True; it must be a whole number",
    "model:\n  n_layer: 0\n": "--n-layer 0 makes no sense",
    "model:\n  qk_norm: rmsnorm\n": "model.qk_norm is 'rmsnorm'; it must be true or false",
    "training:\n  lr: fast\n": "training.lr is 'fast'; it must be a number",
    "training:\n  lr: .nan\n": "makes no sense",
    "training:\n  dtype: float16\n": "training.dtype is 'float16'; did you mean 'bfloat16'?",
    "model:\n\tnorm: rmsnorm\n": "line 2: a tab stands where only spaces may",
    "model:\n  norm: rmsnorm\n n_layer: 2\n": "line 3",
    "model: {norm: rmsnorm\n": "line 2",
    "model:\n  n_layer: 2\n  n_layer: 3\n": "n_layer stands twice",
    "model:\n  attention: local\n  window: 0\n": "window 0 makes no sense",
    "model:\n  attention: linear\n  position: alibi\n": "'linear' does not go with position 'alibi'",
    "model:\n  attention: gqa\n": "set n_kv_head to a smaller divisor of n_head",
    "model:\n  attention: tiled\n  dropout: 0.1\n": "'tiled' has no dropout",
    "model:\n  feed_forward: moe\n  n_expert_per_token: 9\n": "n_expert_per_token 9 makes no sense; it "
    "must be at least 1, at most all 8",
    "model:\n  feed_forward: moe\n  capacity: 0\n": "capacity 0.0 makes no sense",
    "model:\n  window: 5\n": "--window does nothing in 08_micro_arch/assemble",
    "model:\n  n_expert: 5\n": "--n-expert does nothing in 08_micro_arch/assemble",
    "model: !!python/object:os.system {}\n": "could not determine a constructor",
}


@pytest.mark.parametrize("text", BAD)
def test_a_file_that_cannot_be_meant_is_refused_in_one_line(text, tmp_path, in_process, own_logs):
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    done = in_process(ASSEMBLE, f"--config {file}")
    assert done.returncode == 2 and BAD[text] in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert not results.results_path().exists() and not list(own_logs.glob("runs/**/checkpoint*"))


@pytest.mark.parametrize(
    ("experiment", "flags", "said"),
    [
        (ASSEMBLE, "--config nowhere.yaml", "config nowhere.yaml does not exist"),
        (ASSEMBLE, "--config 08_micro_arch/configs/lama.yaml", "does not exist; did you mean 'llama'?"),
        (ASSEMBLE, "--config lama", "config lama does not exist; did you mean 'llama'?"),
        (ASSEMBLE, "--config .", "config . cannot be read"),
        (ASSEMBLE, "--config", "--config"),
        (
            ASSEMBLE,
            "--modle.n-layer 3",
            "section 'modle' of --modle.n-layer is not known; did you mean 'model'?",
        ),
        (ASSEMBLE, "--model.lr 1", "lr stands in section training; write --training.lr"),
        (ASSEMBLE, "--model.n-layers 3", "did you mean '--n-layer'"),
        (ASSEMBLE, "--model.n-layer 3 --n-layer 4", "--n-layer is given twice"),
        (ASSEMBLE, "--norm rmsnrom", "norm 'rmsnrom' is not known; did you mean 'rmsnorm'?"),
        (
            "08_micro_arch/moe",
            "--config 08_micro_arch/configs/llama.yaml",
            "only 08_micro_arch/assemble.py makes a model of a file",
        ),
        ("08_micro_arch/moe", "--n-expert-per-token 9 --arms top-2", "--n-expert-per-token 9 makes no sense"),
        ("08_micro_arch/moe", "--capacity 0 --arms top-2", "--capacity 0.0 makes no sense"),
        ("08_micro_arch/moe", "--n-expert 4 --arms dense", "--n-expert does nothing in 08_micro_arch/moe"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused_in_one_line(experiment, flags, said, in_process, own_logs):
    done = in_process(experiment, flags)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not results.results_path().exists()


def test_a_file_that_is_not_utf_8(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes("# für\nmodel:\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        config_file.read(str(file), PartSettings())


# ---- from a file to text -------------------------------------------------------------------------


def test_a_model_of_a_file_trains_and_writes(tmp_path, in_process, own_logs, capsys, monkeypatch):
    """The banner says the parts, the row too; the run folder is loaded, and writes, as any other."""
    from common import generate as program

    file = tmp_path / "mine.yaml"
    text = (
        "model:\n  attention: local\n  window: 8\n  feed_forward: moe\n  n_expert: 3\n  norm: scalenorm\n  "
        "position: alibi\n"
        "  qk_norm: true\n  n_layer: 2\n  n_embd: 16\n  head: untied\n"
        "data:\n  corpus: pydoc\n  tokenizer: byte\ntraining:\n  steps: 4\n  warm_up: 1\n"
    )
    file.write_text(text, encoding="utf-8")
    done = in_process(ASSEMBLE, f"--config {file} --model.block-size 16 --threads 1")
    assert done.returncode == 0, done.stderr
    assert "local + qk_norm" in done.stdout and "2 blocks" in done.stdout
    row = results.read().iloc[-1]
    assert row["parts"] == "local+qk_norm moe scalenorm alibi untied" and row["block_size"] == 16
    folder = next(own_logs.glob("runs/08_micro_arch/assemble/default-seed1-*"))
    monkeypatch.setattr(sys, "argv", ["generate", str(folder), "--prompt", "ab", "--length", "5"])
    program.main()
    said = capsys.readouterr()
    assert said.out.startswith("ab") and "local + qk_norm" in said.err and "untied" in said.err
