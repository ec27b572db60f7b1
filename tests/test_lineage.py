"""The diff is the lesson: copies are equal, differences small, and nothing is used before it was taught."""

import ast
import hashlib
import re
import shutil
import subprocess
import sys

import pytest

from common import lessons
from common.lessons import header
from common.lessons.course import COURSE
from common.lessons.definitions import canonical
from common.lessons.header import read_header
from common.paths import ROOT
from common.results.comparison import code_difference

LESSONS = {e: read_header(ROOT / f"{e}.py") for e in COURSE}
BUDGET = 40  # changed lines of code between a script and its predecessor, added and removed
LONGER = {  # scripts whose idea takes more, and why
    "01_bigram/ngram": "Kneser-Ney is an algorithm of its own, beside the table of pairs",
    "05_residual_norm/depth_map": "four wirings in one block, and the pictures of all cells",
    "06_transformer/gpt": "the reference of the course: every line is commented, and the recipe of the "
    "yardstick stands at its end",
    "06_transformer/sizes": "the law that is fitted, and the pictures of all sizes",
    "02_attention/multi_head": "the head is written anew in batched form, which every later stage keeps",
}
LINES = 150
ROOMY = {
    # byte-pair encoding written in full: train, encode, decode, stream, save, export
    "07_tokenizer_gqa/bpe": 230,
    # five ways in one place, one of them forward and backward by hand, and what each costs
    "08_micro_arch/attention": 216,
    # Muon in full beside AdamW by hand, and what part of a step is theirs
    "09_pretraining/optimizer": 175,
    # sixteen bits in two ways, and what they and a compiler cost
    "09_pretraining/precision": 153,
    # a program that may be interrupted anywhere and goes on
    "09_pretraining/prepare": 250,
    "09_pretraining/pretrain": 165,
}
LIBRARY = {"nn.Module", "nn.ModuleList", "nn.Sequential"}  # containers, not ideas
TAUGHT_BY_LANGUAGE = {"torch", "numpy", "scipy", *sys.stdlib_module_names}


def tree(experiment: str) -> ast.Module:
    return ast.parse((ROOT / f"{experiment}.py").read_text(encoding="utf-8"))


def pieces(experiment: str) -> dict[str, str]:
    """Top-level classes and functions of a script as source-independent text."""
    return {
        n.name: ast.dump(n) for n in tree(experiment).body if isinstance(n, ast.ClassDef | ast.FunctionDef)
    }


def plugs_in(experiment: str) -> bool:
    """Whether a script takes its GPT from common.model and writes only its own part."""
    text = (ROOT / f"{experiment}.py").read_text(encoding="utf-8")
    return any(
        line in text
        for line in ("from common.model.gpt import GPT", "from common.model import assemble", "lesson = None")
    )


@pytest.mark.parametrize("experiment", COURSE)
def test_header_is_complete(experiment):
    found = LESSONS[experiment]
    assert found.title.endswith((".", "?", ":", "!")) and len(found.title) < 120
    for field in ("Previous", "Changes", "Idea", "Source", "Expect"):
        assert found.fields.get(field), field
    assert list(found.fields) == [f for f in header.FIELDS if f in found.fields], (
        "fields stand in the order of the plan"
    )
    if found.previous:
        assert (ROOT / f"{found.previous}.py").exists() and COURSE.index(found.previous) < COURSE.index(
            experiment
        )
    else:
        assert experiment == COURSE[0]


@pytest.mark.parametrize("experiment", COURSE)
def test_what_is_not_listed_as_changed_is_equal_to_the_predecessors_copy(experiment):
    found = LESSONS[experiment]
    own, before = pieces(experiment), pieces(found.previous) if found.previous else {}
    for name in own.keys() | before.keys():
        if name in found.changes:
            assert own.get(name) != before.get(name), f"{name} is listed under Changes and did not change"
        elif name in own:
            assert own[name] == before.get(name), (
                f"{name} differs from {found.previous} and is not listed under Changes"
            )
        elif not plugs_in(experiment):  # from there on a script has only what it plugs into common.model
            pytest.fail(f"{name} of {found.previous} is gone, and not listed under Changes")


@pytest.mark.parametrize(
    "experiment", [e for e in COURSE if LESSONS[e].previous and e not in LONGER and not plugs_in(e)]
)
def test_the_difference_to_the_predecessor_is_small(experiment):
    difference = code_difference(ROOT / f"{experiment}.py", ROOT / f"{LESSONS[experiment].previous}.py")
    changed = [line for line in difference if re.match(r"[+-](?![+-]{2} )", line) and line[1:].strip()]
    assert len(changed) <= BUDGET, f"{len(changed)} changed lines"


def used_names(experiment: str) -> set[str]:
    """`nn.X`, `F.x` and `torch.optim.X` that a script uses."""
    found = set()
    for node in ast.walk(tree(experiment)):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("nn", "F")
        ):
            found.add(f"{node.value.id}.{node.attr}")
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch.optim":
            found.add(f"torch.optim.{node.attr}")
        if isinstance(node, ast.Attribute) and node.attr == "register_buffer":
            found.add(node.attr)
    return found


@pytest.mark.parametrize("experiment", COURSE)
def test_nothing_is_used_before_it_was_taught(experiment):
    taught = {name for e in COURSE[: COURSE.index(experiment) + 1] for name in LESSONS[e].teaches}
    assert used_names(experiment) - LIBRARY <= taught
    plan = lessons.course_plan(experiment)
    if plan.train.__module__ == "common.training.loop":
        assert {"common.training", "torch.optim.AdamW"} <= taught


@pytest.mark.parametrize("experiment", COURSE)
def test_what_a_script_teaches_it_uses(experiment):
    text = (ROOT / f"{experiment}.py").read_text(encoding="utf-8").split('"""', 2)[2]
    for name in LESSONS[experiment].teaches:
        assert name in ("F.cross_entropy", "common.training") or name.split(".")[-1] in text, name


@pytest.mark.parametrize("experiment", COURSE)
def test_imports_are_the_library_and_common(experiment):
    for node in ast.walk(tree(experiment)):
        modules = (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        for module in modules:
            assert (
                module.split(".")[0] in TAUGHT_BY_LANGUAGE
                or module
                in (
                    "common",
                    "common.run",
                    "common.settings",
                    "common.data",
                    "common.training",
                    "common.training.loop",
                    "common.training.ahead",
                    "common.training.loss_log",
                    "common.training.optimizer",
                    "common.training.schedule",
                    "common.training.step_log",
                    "common.results.statistics",
                    "common.training.distributed",
                    "common.training.metrics",
                    "common.model",
                    "common.errors",
                    "common.report",
                    "common.generation.sampling",
                    "common.parsing",
                    "regex",
                    "tiktoken",
                    "tyro",
                    "tqdm",
                )
                or module.startswith(("common.model.", "common.data."))
            ), module


def test_rooms_are_small():
    for path in ROOT.glob("0*/*.py"):
        limit = ROOMY.get(path.relative_to(ROOT).with_suffix("").as_posix(), LINES)
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, path
    for path in ROOT.glob("common/**/*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 40, f"{path.name}: {node.name}"


ORDER = (  # a room imports only from rooms before it; `model` knows nothing of the rest
    "errors", "text", "parsing", "paths", "settings", "configuration", "config_file", "command_line",
    "data", "model",
    "training", "lessons", "results", "generation",
    "report", "exercises", "one_run", "outcome", "run", "generate", "tools",
)  # fmt: skip
# in a room, too, a module imports only from those before it
ROOMS = {
    "data": ("bpe", "tokenizer", "corpora", "splits", "documents", "token_files", "tokens", "order"),
    "training": (
        "metrics",
        "loop",
        "schedule",
        "distributed",
        "optimizer",
        "memory",
        "ahead",
        "loss_log",
        "step_log",
        "tracking",
        "checkpoint",
        "sharded",
        "recorder",
        "presence",
        "threads",
    ),
    "lessons": (
        "definitions",
        "fingerprint",
        "header",
        "plan",
        "course",
        "receipts",
        "run_folder",
        "overfit",
    ),
    "results": ("statistics", "table", "sweeps", "extra", "families", "row", "predictions", "comparison"),
    "generation": ("sampling", "load", "published"),
    "report": (
        "labels",
        "plots",
        "figures",
        "staircase",
        "inside",
        "maps",
        "overviews",
        "size_law",
        "ablations",
        "pretraining",
        "pages",
        "further",
        "redraw",
        "evidence",
        "pictures",
        "picture_data",
        "tables",
        "samples",
        "code",
        "steps",
        "drawing",
        "equal_time",
        "summary",
        "readme",
        "generated",
        "update",
    ),
    "exercises": (
        "catalogue",
        "running",
        "gaps",
        "observation",
        "models",
        "steps",
        "parts",
        "counting",
        "wiring",
        "dropping",
        "decoding",
        "mixing",
        "learning",
        "judge",
        "desk",
    ),
}


def imported_modules(path) -> set[str]:
    """The modules of the project that a module imports, as dotted names; imports that only types need are
    left out.
    """
    module = ast.parse(path.read_text(encoding="utf-8"))
    for_types = [
        n
        for block in module.body
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for n in block.body
    ]
    names = set()
    for node in ast.walk(module):
        if (
            isinstance(node, ast.ImportFrom)
            and node not in for_types
            and (node.module or "").startswith("common")
        ):
            for alias in node.names:
                inner = ROOT.joinpath(*node.module.split("."), alias.name)
                there = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                names.add(f"{node.module}.{alias.name}" if there else node.module)
    return names


def test_imports_of_common_run_one_way():
    """From the foundations up, room by room and in each room; the model knows nothing of the rest, the stages
    not of one another.
    """
    for path in ROOT.glob("common/**/*.py"):
        own = path.relative_to(ROOT / "common").with_suffix("").parts
        for name in imported_modules(path):
            other = name.split(".")[1:]
            if own[0] == "model":
                assert other[0] == "model", f"{path} imports {name}"
            elif other and other[0] != own[0]:
                assert ORDER.index(other[0]) < ORDER.index(own[0]), f"{path} imports {name}"
            elif own[0] in ROOMS and len(other) > 1 and own[1] not in ("__init__", "__main__"):
                assert ROOMS[own[0]].index(other[1]) < ROOMS[own[0]].index(own[1]), f"{path} imports {name}"


def test_the_rooms_are_those_of_the_plan():
    for room, modules in ROOMS.items():
        there = {path.stem for path in (ROOT / "common" / room).glob("*.py")} - {"__init__", "__main__"}
        assert there == set(modules), room
    top = {
        path.stem
        for path in (ROOT / "common").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert top - {"__init__"} == set(ORDER)
    for room in (*ROOMS, "model", "tools"):
        docstring = ast.get_docstring(
            ast.parse((ROOT / "common" / room / "__init__.py").read_text(encoding="utf-8"))
        )
        assert docstring and len(docstring.splitlines()[0]) < 120, room


def test_the_tree_in_contributing_is_that_of_the_folders():
    """Every module of common/ stands in it, in the order in which they may import one another, and nothing
    else does.
    """
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = text[text.index("```\ncommon/\n") :].split("```")[1].splitlines()[2:]
    listed, room = {}, ""
    for line in lines:
        names = re.findall(r"\S+\.py|^  \S+/", line)
        if not line.startswith("    "):
            room = names[0].strip().removesuffix("/") if names[0].endswith("/") else ""
            listed |= {names[0].strip(): None} if not room else {}
            continue
        listed |= {f"{room}/{name}": None for name in names}
    there = {path.relative_to(ROOT / "common").as_posix() for path in (ROOT / "common").glob("**/*.py")}
    assert set(listed) == {path for path in there if not path.endswith(("__init__.py", "__main__.py"))}
    for room, modules in ROOMS.items():
        assert [name for name in listed if name.startswith(f"{room}/")] == [
            f"{room}/{module}.py" for module in modules
        ]


def test_script_names_shadow_nothing():
    import importlib.metadata

    taken = set(sys.stdlib_module_names) | {name for name in importlib.metadata.packages_distributions()}
    for experiment in COURSE:
        stem = experiment.split("/")[1]
        assert stem not in taken and stem == stem.lower() and not any(c.isdigit() for c in stem)


@pytest.mark.parametrize("python", ["python3.10", "python3.11", "python3.12", "python3.13"])
def test_fingerprint_is_the_same_in_every_python(python):
    if not shutil.which(python) or subprocess.run([python, "--version"], capture_output=True).returncode:
        pytest.skip(f"{python} is not on this machine")
    source = (ROOT / "common/lessons/definitions.py").read_text(encoding="utf-8")
    start = source.index("def canonical")
    program = (
        "import ast, hashlib, sys\n"
        + source[start : source.index("\n\n\n", start)]
        + "\nfor p in sys.argv[1:]:\n    tree = canonical(ast.parse(open(p, encoding='utf-8').read()))"
        + "\n    print(hashlib.sha256(repr([tree]).encode()).hexdigest()[:12])"
    )
    files = [*(ROOT / f"{e}.py" for e in COURSE), *sorted((ROOT / "common/model").glob("*.py"))]
    done = subprocess.run([python, "-c", program, *map(str, files)], capture_output=True, text=True)
    here = [
        hashlib.sha256(repr([canonical(ast.parse(p.read_text(encoding="utf-8")))]).encode()).hexdigest()[:12]
        for p in files
    ]
    assert done.stdout.split() == here, done.stderr
