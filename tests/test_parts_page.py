"""What Research/parts.md says that a part costs: its formulas, computed, against the modules."""

import re
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from common.model import PARTS, assemble, part
from common.model.norm import RMSNorm
from common.model.position import Position
from common.paths import ROOT
from common.settings import PartSettings
from common.training.optimizer import adamw, muon, orthogonal, parameter_groups
from common.training.schedule import SCHEDULES

PAGE = (ROOT / "Research/parts.md").read_text(encoding="utf-8")
V, K, R, N = 97, 2, 50, 3
WIDTHS = (24, 48, 96)  # with thirds, since a gated layer is 8/3 as wide as the stream
H, T, W = 4, 64, 16


def table(heading: str) -> dict[str, dict[str, str]]:
    """The first table below a heading of the page: {name in code: {column: cell}}."""
    lines = PAGE.split(f"\n{heading}\n")[1].split("\n##")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    found: dict[str, dict[str, str]] = {}
    for row in rows[2:]:
        name = re.match(r"`([^`]+)`", row[0])
        if name and len(row) == len(rows[0]):
            found.setdefault(name[1], dict(zip(rows[0], row, strict=True)))
    return found


def value(formula: str, **letters: float) -> float:
    """`8 E C² / k + E C` with numbers for the letters; what stands side by side is multiplied."""
    terms, before = "", "+"
    for term in re.findall(r"[A-Za-z]+|\d+|[²³+/()]", formula):
        beside = term not in "²³+/)" and before not in "+/("
        terms += ("*" if beside else "") + {"²": "**2", "³": "**3"}.get(term, term)
        before = term
    return eval(terms, {}, letters)


def settings(C: int, **own) -> PartSettings:
    return PartSettings(n_embd=C, n_head=H, n_layer=N, block_size=T, window=W, n_bigram=R, **own)


def letters(C: int) -> dict[str, int]:
    return {"C": C, "T": T, "H": H, "D": C // H, "K": K, "V": V, "R": R, "N": N, "w": W, "E": 8, "k": 2}


def built(socket: str, name: str, s: PartSettings) -> nn.Module:
    if socket == "head":
        return part(socket, name)(s, nn.Embedding(V, s.n_embd))
    return part(socket, name)(s, V) if socket == "embedding" else part(socket, name)(s)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def products(compute) -> float:
    """The multiply-adds of all products of matrices."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        compute()
    return counter.get_total_flops() / 2


CASES = [(socket, name) for socket, names in PARTS.items() for name in names]


@pytest.mark.parametrize("socket", PARTS)
def test_the_page_has_every_part_and_no_other(socket):
    assert set(table(f"## `{socket}`")) == set(PARTS[socket])


@pytest.mark.parametrize(("socket", "name"), CASES)
def test_the_parameters_of_a_part_are_those_of_its_formula(socket, name):
    for C in WIDTHS:
        module = built(socket, name, settings(C, n_kv_head=K if name == "gqa" else 0))
        shared = V * C if (socket, name) == ("head", "tied") else 0
        formula = table(f"## `{socket}`")[name]["parameters"]
        assert parameters(module) - shared == pytest.approx(value(formula, **letters(C))), (formula, C)


def test_a_gated_layer_has_the_nearest_whole_width():
    assert "a gated layer has 3 C · round(8 C / 3) parameters" in PAGE
    for C in (64, 100):
        assert parameters(built("feed_forward", "swiglu", settings(C))) == 3 * C * round(8 * C / 3)


def test_the_parameters_of_the_whole_and_of_a_norm_of_queries_and_keys():
    (formula,) = re.findall(r"a\s+GPT\s+has\s+(.*?)\s+parameters", PAGE)
    for C in WIDTHS:
        assert parameters(assemble(settings(C), V)) == value(formula, **letters(C))
        normed = part("attention", "flash")(settings(C), qk_norm=partial(RMSNorm))
        more = parameters(normed) - parameters(built("attention", "flash", settings(C)))
        assert "2 D parameters" in PAGE and more == 2 * C // H


@pytest.mark.parametrize(
    ("socket", "name"), [c for c in CASES if c[0] in ("feed_forward", "attention", "head")]
)
def test_the_operations_of_a_part_are_those_of_its_formula(socket, name):
    """Of products of matrices, for one token. Linear attention: of a chunk that has a past."""

    def of(length: int) -> float:
        x = torch.randn(1, length, C)
        inputs: tuple[Tensor | Position, ...] = (x, Position(s)) if socket == "attention" else (x,)
        return products(lambda: module(*inputs))

    for C in WIDTHS:
        s = settings(C, n_kv_head=K if name == "gqa" else 0)
        module = built(socket, name, s).requires_grad_(False)
        counted = (of(3 * T) - of(2 * T)) / T if name == "linear" else of(T) / T
        formula = table(f"## `{socket}`")[name]["operations"]
        assert counted == pytest.approx(value(formula, **letters(C))), (formula, C)


@pytest.mark.parametrize("name", PARTS["attention"])
def test_what_a_cache_keeps_is_what_the_page_says(name):
    """Per token in the table of attention, after S tokens in that of the cache."""
    C, S = 48, 20
    s = settings(C, n_kv_head=K if name == "gqa" else 0)
    layer = built("attention", name, s)
    cache = layer.new_cache()
    with torch.no_grad():
        layer(torch.randn(1, S, C), Position(s), cache)
    kept = cache.nbytes / 4
    section = PAGE.split("\n## Cache\n")[1].split("\n##")[0]
    (formula,) = re.findall(rf"\|[^|\n]*`{name}`[^|\n]* \| ([^|]*) \|", section)
    assert kept == value(formula, S=S, **letters(C))
    if name != "linear":
        token = table("## `attention`")[name]["kept for a token"]
        assert kept == S * value(token, **letters(C))


def test_the_operations_of_muon_are_those_of_the_formula():
    (formula,) = re.findall(r"For A ≤ B they take\s+(.*?)\s+operations", PAGE)
    for A, B in ((8, 8), (8, 24), (24, 8)):
        counted = products(lambda A=A, B=B: orthogonal(torch.randn(1, A, B)))
        assert counted == value(formula, A=min(A, B), B=max(A, B))


def test_every_schedule_stands_on_the_page():
    assert set(table("### Schedules")) == set(SCHEDULES)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_what_an_optimizer_keeps_for_a_parameter(name):
    model = assemble(settings(24), V)
    parts = parameter_groups(model, 0.1)
    kinds = {"adamw": lambda: adamw(parts, 1e-3, 0.99), "muon": lambda: muon(parts, 1e-3, 0.99)}
    kinds["sgd"] = lambda: torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    optimizer = kinds[name]()
    model(torch.zeros(1, 8, dtype=torch.long)).sum().backward()
    optimizer.step()
    matrix = model.blocks[0].attention.projection.weight
    kept = sum(x.numel() for x in optimizer.state[matrix].values() if isinstance(x, Tensor) and x.ndim)
    assert kept == matrix.numel() * int(table("### Optimizers")[name]["kept for a parameter"])
