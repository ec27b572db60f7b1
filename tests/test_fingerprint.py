"""What makes rows stale and what does not, edit by edit; the same bits proved, or not."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from common import results
from common.configuration import INTRODUCED, config_hash
from common.errors import UserError
from common.generation.load import load_run
from common.lessons import definitions, fingerprint, receipts
from common.lessons.course import COURSE, course_plan, course_references, refer
from common.lessons.definitions import Place
from common.paths import ROOT
from common.settings import FIRST, KINDS
from common.tools import prove as prover

LINES = ("01_bigram/by_hand", "01_bigram/ngram:3", "01_bigram/names_mlp", "02_attention/positions",
         "05_residual_norm/depth_map:pre-LN-4", "06_transformer/gpt", "06_transformer/sizes:pico",
         "07_tokenizer_gqa/bpe:bpe-1024", "07_tokenizer_gqa/gqa:gqa")  # fmt: skip
TEXT = {line for line in LINES if "names" not in line}
SAMPLED = set(LINES) - {"01_bigram/ngram:3"}  # which reads the whole text
LOOP = TEXT - {"01_bigram/by_hand", "01_bigram/ngram:3"}
BASE = {"07_tokenizer_gqa/bpe:bpe-1024", "07_tokenizer_gqa/gqa:gqa"}  # on the GPT of common/model


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the code, and a function that gives the fingerprints of some lines in it: of what stands
    there now.
    """
    folder = tmp_path / "copy"
    for name in ("common", *dict.fromkeys(e.split("/")[0] for e in COURSE)):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(definitions, "ROOT", folder)
    monkeypatch.setattr(fingerprint, "ROOT", folder)

    def codes() -> dict[str, list[str]]:
        for cached in (definitions.source, definitions.find, definitions.units):
            cached.cache_clear()
        found = {}
        for line in LINES:
            plan, arm = course_plan(refer(line).experiment), refer(line).arm
            with (
                monkeypatch.context() as real
            ):  # the objects are those of the project; their definitions stand in the copy too
                real.setattr(fingerprint, "ROOT", ROOT)
                described = [fingerprint.describe(thing) for thing in (plan.arms[arm], plan.load, plan.train)]
            places = {Place(folder / p.path.relative_to(ROOT), p.name) for own, _ in described for p in own}
            found[line] = sorted(
                fingerprint.reached(places | set(map(definitions.find, fingerprint.ROOTS))).values()
            )
        return found

    yield folder, codes
    for cached in (definitions.source, definitions.find, definitions.units):
        cached.cache_clear()


def edit(folder, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text, f"{name} has no {old!r}"
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


STALE = {
    "AdamW's first beta": ("common/training/loop.py", "betas=(0.9,", "betas=(0.8,", LOOP),
    "the rate halved in the loop": (
        "common/training/loop.py",
        "= learning_rate(s, step)",
        "= learning_rate(s, step) / 2",
        LOOP,
    ),
    "the order of two lines of the loop": (
        "common/training/loop.py",
        "        optimizer.zero_grad()\n        total.backward()",
        "        total.backward()\n        optimizer.zero_grad()",
        LOOP,
    ),
    "the warm-up": (
        "common/training/loop.py",
        "s.lr * (step + 1) / (s.warm_up + 1)",
        "s.lr * (step + 1) / s.warm_up",
        LOOP,
    ),
    "the split": ("common/data/splits.py", "int(0.9 * len(text))", "int(0.5 * len(text))", TEXT),
    "the choice of a batch": (
        "common/data/splits.py",
        "default_rng((self.seed, step))",
        "default_rng((step, self.seed))",
        SAMPLED,
    ),
    "the metric's division": (
        "common/training/metrics.py",
        "math.log(2) / self.characters",
        "math.log(2) / self.tokens",
        set(LINES),
    ),
    "what is scored": (
        "common/results/row.py",
        "score(model, data.test,",
        "score(model, data.validation,",
        set(LINES),
    ),
    "the seed of the weights": (
        "common/lessons/plan.py",
        "torch.manual_seed(seed)",
        "torch.manual_seed(seed + 1)",
        set(LINES),
    ),
    "what the built-in text is": (
        "common/data/corpora.py",
        "for name in sorted(topics)",
        "for name in topics",
        set(LINES),
    ),
    "which pair is joined first": ("common/data/bpe.py", "heapq.heappop(heap)", "heap.pop()", TEXT),
    "which pair is joined first, as taught": (
        "07_tokenizer_gqa/bpe.py",
        "heappop(heap)",
        "heap.pop()",
        {"07_tokenizer_gqa/bpe:bpe-1024"},
    ),
    "an operator of a part": (
        "common/model/attention.py",
        "2 * self.n_kv_head) * size",
        "3 * self.n_kv_head) * size",
        BASE,
    ),
    "a constant of a part": ("common/model/gpt.py", "std=0.02 /", "std=0.03 /", BASE),
    "an operator of a script": (
        "02_attention/positions.py",
        "** 0.5 ",
        "** 0.4 ",
        {"02_attention/positions"},
    ),
    "a constant of a script": ("06_transformer/gpt.py", "std=0.02 /", "std=0.03 /", {"06_transformer/gpt"}),
    "a base class": (
        "common/model/norm.py",
        "class LayerNorm(nn.LayerNorm)",
        "class LayerNorm(nn.RMSNorm)",
        BASE,
    ),
    "what an import means": (
        "common/training/loop.py",
        "from torch.nn import functional as F",
        "from mine import functional as F",
        LOOP,
    ),
}


@pytest.mark.parametrize("what", STALE)
def test_an_edit_that_changes_numbers_makes_rows_stale(what, copy):
    """Of the lines that run it, and of no other."""
    folder, codes = copy
    name, old, new, lines = STALE[what]
    before = codes()
    edit(folder, name, old, new)
    after = codes()
    assert {line for line in LINES if before[line] != after[line]} == lines


VALID = {
    "a local variable renamed in the attention": ("common/model/attention.py", "heads", "joined"),
    "a local variable renamed in the loop": ("common/training/loop.py", "logits", "scores"),
    "a docstring": ("common/training/loop.py", "Train `model` in place with AdamW.", "Train it."),
    "a comment": ("02_attention/positions.py", "# (B, T, T); ", "# "),
    "an annotation": ("common/training/metrics.py", "split, device: str", "split: object, device: str"),
    "an error's wording in the positions": (
        "common/model/position.py",
        "is outside the window of",
        "is not in the window of",
    ),
    "an error's wording in the tokenizer": ("common/data/tokenizer.py", "is not known", "means nothing here"),
    "a picture's title": ("07_tokenizer_gqa/bpe.py", "What does a tokenizer buy?", "What do tokens buy?"),
    "what is drawn": ("02_attention/positions.py", "data.first_line()", "data.first_line(12)"),
    "what is looked at": ("05_residual_norm/depth_map.py", "p.grad.double().norm()", "p.grad.norm()"),
    "the line that is drawn": ("common/data/splits.py", "if len(line) > 20", "if len(line) > 10"),
    "a fit of finished runs": ("06_transformer/sizes.py", "p0=(1.0, 1.0, 0.3)", "p0=(2.0, 1.0, 0.3)"),
    "a class beside": (
        "common/model/norm.py",
        "class LayerNorm",
        "class Other(nn.Module):\n    pass\n\n\nclass LayerNorm",
    ),
    "a function beside": (
        "common/training/loop.py",
        "def adamw",
        "def other(x):\n    return x\n\n\ndef adamw",
    ),
    "an import sorted": (
        "common/training/loop.py",
        "import torch\nfrom torch import nn\n",
        "from torch import nn\nimport torch\n",
    ),
    "an import beside": ("common/data/splits.py", "import random\n", "import random\nimport math\n"),
    "another name for an import": (
        "common/results/row.py",
        "from common.training.metrics import PROTOCOL, Score, score",
        "from common.training import metrics\nfrom common.training.metrics import PROTOCOL, Score, score",
    ),
    "a progress bar": ("common/training/recorder.py", 'unit="step"', 'unit="steps"'),
    "a new setting": (
        "common/settings.py",
        "    n_kv_head: int = 0\n",
        "    n_kv_head: int = 0\n    other: int = 3\n",
    ),
    "a new corpus": (
        "common/data/corpora.py",
        '    "pydoc": Source("text", make=pydoc),\n',
        '    "pydoc": Source("text", make=pydoc),\n    "other": Source("text", make=pydoc),\n',
    ),
    "how a text is fetched": ("common/data/corpora.py", "timeout=10", "timeout=20"),
    "how names are sampled": ("common/generation/sampling.py", "for _ in range(20)", "for _ in range(30)"),
}


@pytest.mark.parametrize("what", VALID)
def test_an_edit_that_changes_no_number_leaves_rows_valid(what, copy):
    folder, codes = copy
    before = codes()
    edit(folder, *VALID[what])
    assert codes() == before


def test_a_definition_that_moves_to_another_module_is_the_same(copy):
    folder, codes = copy
    before = codes()
    text = (folder / "common/model/norm.py").read_text(encoding="utf-8")
    (folder / "common/model/scale.py").write_text(text, encoding="utf-8")
    (folder / "common/model/norm.py").write_text('"""Moved."""\n', encoding="utf-8")
    edit(
        folder,
        "common/model/gpt.py",
        "from common.model.norm import LayerNorm",
        "from common.model.scale import LayerNorm",
    )
    assert codes() == before
    edit(
        folder,
        "common/model/gpt.py",
        "from common.model.scale import LayerNorm",
        "from common.model import scale",
    )
    edit(folder, "common/model/gpt.py", "norm=LayerNorm", "norm=scale.LayerNorm")
    assert codes() == before


def test_what_an_arm_is_made_of_counts():
    """Its class, the arguments that are bound to it, and what a function closes over."""
    codes = {
        arm: course_plan("05_residual_norm/depth_map").code(arm)
        for arm in ("plain-4", "plain-8", "pre-LN-4", "pre-LN-warm-up-4")
    }
    # depth and warm-up are settings
    assert codes["plain-4"] == codes["plain-8"] != codes["pre-LN-4"] == codes["pre-LN-warm-up-4"]
    tying = course_plan("07_tokenizer_gqa/weight_tying")
    assert tying.code("tied-char") != tying.code("untied-char")
    assert len({course_plan("01_bigram/ngram").code(order) for order in "123456"}) == 6


def test_a_decorated_function_is_followed_to_where_it_was_written():
    """Measuring without gradients is still the script's measuring: a change of it, or of what it decodes
    with, is seen.
    """
    found = {}
    for experiment in ("07_tokenizer_gqa/kv_cache", "07_tokenizer_gqa/gqa"):
        places, _ = fingerprint.describe(course_plan(experiment).measure)
        assert {place.path.relative_to(ROOT).as_posix() for place in places} == {f"{experiment}.py"}
        found[experiment] = fingerprint.reached(places)
    assert "common/generation/sampling.py:generate." in found["07_tokenizer_gqa/gqa"]
    assert "07_tokenizer_gqa/kv_cache.py:greedy." in found["07_tokenizer_gqa/kv_cache"]


# ---- settings ------------------------------------------------------------------------------------


def test_every_later_setting_has_the_value_it_came_with():
    own = [type(course_plan(e).defaults) for e in COURSE]  # a script may have a kind of its own
    found = {f.name for kind in (*KINDS, *own) for f in dataclasses.fields(kind)}
    assert found == {*FIRST, *INTRODUCED}


@pytest.mark.parametrize(("name", "value"), [("weight_decay", 0.5), ("n_kv_head", 1), ("beta2", 0.99)])
def test_a_changed_default_is_seen_where_the_line_reads_it(name, value):
    """The value that a line has decides, not whether it is the default."""
    plan = course_plan("07_tokenizer_gqa/gqa")
    s, reads = plan.defaults, plan.reads("mha", plan.defaults)
    changed = dataclasses.make_dataclass(
        "Changed", [(name, type(value), value)], bases=(type(s),), frozen=True
    )
    other = changed(**dataclasses.asdict(s) | {name: value})
    assert config_hash(other, reads) != config_hash(s, reads)
    # where the model does not ask for it
    assert (config_hash(other, reads - {name}) == config_hash(s, reads)) == (name == "n_kv_head")
    new = dataclasses.make_dataclass("New", [("other", int, 3)], bases=(type(s),), frozen=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(INTRODUCED, "other", 3)
        assert config_hash(new(**dataclasses.asdict(s)), reads) == config_hash(s, reads)


def test_the_whole_course_takes_little_time():
    import time

    plans = [(course_plan(r.experiment), r.arm) for r in course_references()]
    start = time.perf_counter()
    for plan, arm in plans:
        plan.code(arm)
    assert time.perf_counter() - start < 3


NAMELESS = [lambda s, v: None]


def test_an_arm_without_a_name_is_told_so():
    with pytest.raises(
        UserError, match="is not defined at the top of the file; define it there, or use functools.partial"
    ):
        fingerprint.fingerprint([NAMELESS[0]])


# ---- receipts ------------------------------------------------------------------------------------


def receipt(old: str, new: str, **other) -> dict:
    values = {
        "experiment": "02_attention/bigram",
        "arm": "default",
        "config_hash": "s",
        "old_code": old,
        "new_code": new,
    }
    return dict.fromkeys(receipts.COLUMNS, "x") | values | other


def test_receipts_lead_from_code_to_code(own_logs):
    others = (
        receipt("x", "c", arm="other"),
        receipt("y", "c", experiment="02_attention/average"),
        receipt("z", "c", config_hash="t"),
    )
    for one in (receipt("a", "b"), receipt("b", "c"), *others):
        receipts.append(one)
    assert receipts.codes("02_attention/bigram", "default", "s", "c") == {"a", "b", "c"}
    # not backwards: what came later may be more
    assert receipts.codes("02_attention/bigram", "default", "s", "a") == {"a"}
    assert receipts.codes("02_attention/bigram", "other", "s", "c") == {"x", "c"}
    # what was proved with other settings is not proved
    assert receipts.codes("02_attention/bigram", "default", "t", "c") == {"z", "c"}


def test_rows_curves_and_checkpoints_of_proved_code_are_good(script, own_logs):
    """The row counts, a run is gone on from, and its checkpoint is loaded."""

    assert script("02_attention/bigram", "--corpus pydoc --steps 4").returncode == 0
    code = refer("bigram").code
    path = next(own_logs.glob("runs/**/checkpoint.safetensors"))
    path.write_bytes(path.read_bytes().replace(code.encode(), b"0" * 12))
    results.results_path().write_text(
        results.results_path().read_text(encoding="utf-8").replace(code, "0" * 12), encoding="utf-8"
    )
    with pytest.raises(UserError, match="another version"):
        load_run(path.parent)
    receipts.append(receipt("0" * 12, code, config_hash=results.read().config_hash[0]))
    assert load_run(path.parent)
    again = script("02_attention/bigram", "--corpus pydoc --steps 4 --resume")
    assert again.returncode == 0 and "begins at step 0" not in again.stdout and len(results.read()) == 1


def test_a_broken_file_of_receipts_is_one_line(own_logs):
    receipts.append(receipt("a", "b"))
    whole = receipts.receipts_path().read_text(encoding="utf-8")
    receipts.receipts_path().write_text(whole.rstrip("\n"), encoding="utf-8")  # no line break at its end
    receipts.append(receipt("b", "c"))
    assert len(receipts.read()) == 2
    receipts.receipts_path().write_bytes(whole.encode() + b"\xff\n")
    with pytest.raises(UserError, match="is damaged"):
        receipts.read()
    for text, said in (
        (whole + "half a line\n", "line 3 has 1 cells"),
        ("date,code\n1,2\n", "is not a file of receipts"),
    ):
        receipts.receipts_path().write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=said):
            receipts.read()


# ---- proving -------------------------------------------------------------------------------------


@pytest.fixture
def history(tmp_path):
    """A repository whose second commit is the project, and a function that commits an edit to it and then
    proves a line.
    """
    folder = tmp_path / "project"
    ignored = shutil.ignore_patterns(
        "runs", ".git", "__pycache__", "*.egg-info", ".venv", "tests", "Research"
    )
    shutil.copytree(ROOT, folder, ignore=ignored)
    environment = {k: v for k, v in os.environ.items() if k != "GPT_STAIRCASE_LOGS"} | {
        "PYTHONPATH": str(folder)
    }

    def call(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
        )

    def commit() -> str:
        call("git", "add", "-A")
        call("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x")
        return call("git", "rev-parse", "--short", "HEAD").stdout.strip()

    call("git", "init", "-q")
    first = commit()
    code = refer("bigram").code
    header = ",".join(results.COLUMNS)
    values = {
        "experiment": "02_attention/bigram",
        "arm": "default",
        "corpus": "tinyshakespeare",
        "config_hash": refer("bigram").config(),
    }
    rows = [
        values | {"seed": seed, "code_hash": code, "git_commit": first, "protocol": 1, "diverged": False}
        for seed in range(1, 9)
    ]
    lines = [",".join(str(row.get(name, 1.5)) for name in results.COLUMNS) for row in rows]
    (folder / "logs/results_All.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    (folder / "logs/receipts.csv").unlink(missing_ok=True)

    def prove() -> subprocess.CompletedProcess:
        return call(sys.executable, "-m", "common.tools.course", "prove", "02_attention/bigram")

    return folder, commit, prove


@pytest.mark.slow
def test_a_refactoring_keeps_its_rows_and_a_changed_bit_does_not(history):
    folder, commit, prove = history
    commit()
    edit(folder, "common/training/loop.py", "            loss = F.cross_entropy(logits.flatten(0, -2), "
                                            "y.flatten())\n",
         "            flat = logits.flatten(0, -2)\n            loss = F.cross_entropy(flat, "
         "y.flatten())\n")  # fmt: skip
    refused = prove()
    assert refused.returncode == 2 and "changes that are in no commit; commit them first" in refused.stderr
    second = commit()
    done = prove()
    assert done.returncode == 0 and "1 of 1 lines compute the same bits" in done.stdout, (
        done.stdout + done.stderr
    )
    lines = (folder / "logs/receipts.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 and f",{second}," in lines[1]
    assert "0 lines have rows of other code" in prove().stdout
    edit(
        folder,
        "common/training/loop.py",
        "flat = logits.flatten(0, -2)",
        "flat = logits.flatten(0, -2) * 1.0000001",
    )
    commit()
    changed = prove()
    assert changed.returncode == 1 and f"different from {second}: loss at step" in changed.stdout, (
        changed.stdout
    )
    edit(folder, "common/training/loop.py", " * 1.0000001", "")
    edit(
        folder,
        "common/training/loop.py",
        "        return s.lr * (step + 1) / (s.warm_up + 1)\n    if",
        "        return s.lr * (step + 1) / (s.warm_up + 1)\n    if step > 700: return s.lr * "
        "0.999999\n    if",
    )
    commit()
    late = prove()
    assert late.returncode == 1 and f"different from {second}: " in late.stdout, late.stdout
    edit(
        folder,
        "common/training/loop.py",
        "    if step > 700: return s.lr * 0.999999\n",
        "    nothing_is_here\n",
    )
    commit()
    broken = prove()
    assert (
        broken.returncode == 1
        and "not proved: the present code cannot be run here: NameError" in broken.stdout
    ), broken.stdout
    assert len((folder / "logs/receipts.csv").read_text(encoding="utf-8").splitlines()) == 2


def test_a_row_that_names_another_commit_than_its_code_is_not_proved():
    """Somebody committed while it was trained: what is compared is not what the row was made with."""
    claim = prover.Claim(refer("bigram"), "old", "abc1234")
    assert "is not what its rows were made with (other, not old)" in prover._other_code(
        claim, "other", refer("bigram").code
    )
    assert prover._other_code(claim, "old", "changed") == "the present code changed while it was compared"
    assert prover._other_code(claim, "old", refer("bigram").code) == ""


@pytest.mark.parametrize(
    ("commit", "said"),
    [
        ("0123456", "is not here; fetch it"),
        ("abc1234+", "changes that are in no commit"),
        ("", "in no commit"),
    ],
)
def test_a_commit_that_cannot_be_had_is_told(commit, said):
    claim = prover.Claim(refer("bigram"), "x", commit)
    verdicts = list(prover._compare(commit, [claim]))
    assert [v.equal for v in verdicts] == [False] and said in verdicts[0].words


def test_outside_a_repository_nothing_is_proved(monkeypatch):
    monkeypatch.setattr(results, "git_commit", lambda: "")
    with pytest.raises(UserError, match="no git repository"):
        prover.prove([])


def test_a_worktree_that_cannot_be_made_is_one_line(monkeypatch):
    real = prover._git

    def refuse(*arguments):
        return (
            subprocess.CompletedProcess(arguments, 1, "", "fatal: no room\n")
            if arguments[0] == "worktree"
            else real(*arguments)
        )

    monkeypatch.setattr(prover, "_git", refuse)
    head = real("rev-parse", "HEAD").stdout.strip()
    if not head:
        pytest.skip("this is no git repository")
    verdicts = list(prover._compare(head, [prover.Claim(refer("bigram"), "x", head)]))
    assert "cannot be put into a folder: fatal: no room" in verdicts[0].words


def test_the_program_of_a_proof_tells_an_error_and_goes_on(tmp_path):
    lines = [
        {"experiment": "02_attention/none", "arm": "default", "flags": ""},
        {"experiment": "01_bigram/count_bigram", "arm": "default", "flags": "--corpus pydoc"},
    ]
    done = subprocess.run(
        [sys.executable, str(prover.PROGRAM)],
        input=json.dumps(lines),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    first, second = map(json.loads, done.stdout.splitlines())
    assert "error" in first and [name for name, _ in second["facts"]] == [
        "data", "tokens that are scored", "untrained weights", "batches", "fitted", "scores",
    ]  # fmt: skip
