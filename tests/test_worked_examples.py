"""The examples for a pencil in the README: every number in them is computed here, by the course's own code
where there is some. And the programs that it asks a reader to type.
"""

import contextlib
import io
import math
import re
import runpy
import textwrap
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from common import lessons
from common.data import bpe, corpora
from common.model.gpt import GPT
from common.model.position import RoPE
from common.paths import ROOT
from common.settings import Settings
from common.training.optimizer import orthogonal
from common.training.schedule import rate

README = (ROOT / "README.md").read_text(encoding="utf-8")


def numbers(values, form: str = ".2f") -> str:
    return "  ".join(f"{value:{form}}" for value in values)


def counted_pairs() -> str:
    """`banana`, smoothed as in count_bigram."""
    text, letters = "banana", "abn"
    counts = [[sum(text[i : i + 2] == a + b for i in range(5)) for b in letters] for a in letters]
    row = [(n + 1) / (sum(counts[0]) + 3) for n in counts[0]]
    bits = -math.log2(row[2])
    more = [n + 1 for n in counts[0]]
    return f"""text      b a n a n a      pairs  ba  an  na  an  na
after a   a {counts[0][0]} times, b {counts[0][1]} times, n {counts[0][2]} times
plus one  {more[0]}  {more[1]}  {more[2]}, together {sum(more)}
so        a {row[0]:.2f}, b {row[1]:.2f}, n {row[2]:.2f}
costs     -log2 {row[2]:.2f} = {bits:.2f} bits where n follows a, {-math.log2(row[0]):.2f} where a does"""


def softmax() -> str:
    logits = torch.tensor([1.0, 2.0, 3.0])
    p = F.softmax(logits, dim=0)
    loss = F.cross_entropy(logits[None], torch.tensor([2]))
    return f"""logits             1      2      3
e to each         {numbers(logits.exp(), "6.3f")}      sum {logits.exp().sum():.3f}
divided by it      {numbers(p, ".3f")}
loss               -ln {p[2]:.3f} = {loss:.3f} nats = {loss / math.log(2):.3f} bits, if the third came"""


def gradient() -> str:
    logits = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    loss = F.cross_entropy(logits[None], torch.tensor([2]))
    loss.backward()
    with torch.no_grad():
        new = logits - logits.grad
        after = F.cross_entropy(new[None], torch.tensor([2]))
        assert torch.allclose(logits.grad, F.softmax(logits, 0) - torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)
        return f"""probabilities      {numbers(F.softmax(logits, 0), ".3f")}      the third came
gradient           {numbers(logits.grad[:2], ".3f")} {logits.grad[2]:6.3f}      minus 1 at the third
a step of rate 1   {numbers(new, ".3f")}      logits minus gradient
loss               {loss:.3f} before, {after:.3f} after"""


def masked_mean() -> str:
    x = torch.tensor([6.0, 0.0, 3.0])
    scores = torch.full((3, 3), -math.inf).triu(1)
    weights = F.softmax(scores, dim=1)
    rows = [
        "   ".join(" -∞" if value < 0 else "  0" for value in scores[t].tolist())
        + f"     {numbers(weights[t])}     {x[t]:.0f}     {weights[t] @ x:.0f}"
        for t in range(3)
    ]
    return "\n".join([" scores              weights            x     mean of the past", *rows])


def hidden_layer() -> str:
    first, last = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.ones(2)
    shown = []
    for x in (torch.tensor([1.0, -1.0]), torch.tensor([-1.0, 1.0])):
        h = first @ x
        shown.append((h, F.relu(h), last @ F.relu(h), last @ h))
    (h, r, with_it, without), (h2, r2, with_it2, without2) = shown
    return f"""x                        1  -1        -1   1
hidden  x1-x2  x2-x1    {numbers(h, "2.0f")}        {numbers(h2, "2.0f")}
ReLU                    {numbers(r, "2.0f")}        {numbers(r2, "2.0f")}
out, their sum             {with_it:2.0f}            {with_it2:2.0f}
without ReLU               {without:2.0f}            {without2:2.0f}"""


def chain() -> str:
    slope, blocks = 0.1, 4
    plain, added = slope**blocks, (1 + slope) ** blocks
    return f"""plain      x <- f(x)        0.1 * 0.1 * 0.1 * 0.1  =  {plain:.4f}
residual   x <- x + f(x)    1.1 * 1.1 * 1.1 * 1.1  =  {added:.4f}"""


def count() -> str:
    s, V = Settings(n_layer=4), 65
    C, T, N = s.n_embd, s.block_size, s.n_layer
    parts = {"tokens": V * C, "positions": T * C, "blocks": N * 12 * C * C, "norms": (2 * N + 1) * C}
    model = lessons.course_plan("06_transformer/gpt").arms["default"](s, V)
    assert sum(p.numel() for p in model.parameters()) == sum(parts.values())
    return f"""token table       65 * 64             {parts["tokens"]:>8,}   also the head
positions         64 * 64             {parts["positions"]:>8,}
4 blocks          4 * 12 * 64 * 64    {parts["blocks"]:>8,}   attention 4 C * C, feed-forward 8 C * C
9 norms           (4 * 2 + 1) * 64    {parts["norms"]:>8,}
together                              {sum(parts.values()):>8,}"""


HEAD = {
    "q": torch.tensor([1.0, 0.0]), "k": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    "v": torch.tensor([[4.0], [0.0], [2.0]]),
}  # fmt: skip


def attention() -> str:
    q, k, v = HEAD["q"], HEAD["k"], HEAD["v"]
    scores, scaled = k @ q, k @ q / 2**0.5
    weights = F.softmax(scaled, dim=0)
    whole = F.scaled_dot_product_attention(q[None, None], k[None], v[None])
    assert torch.allclose(whole.squeeze(), (weights @ v).squeeze())
    parts = " + ".join(f"{w:.4f} * {x:.0f}" for w, x in zip(weights, v[:, 0], strict=True))
    return f"""query of the third token     ( 1  0 )
keys of the three tokens     ( 1  0 )   ( 0  1 )   ( 1  1 )
their values                 4   0   2              (of one number each, to keep it short)
scores, query times key      {numbers(scores)}
divided by the root of 2     {numbers(scaled)}
softmax                      {numbers(weights, ".4f")}
what the token takes         {parts} = {(weights @ v).item():.3f}"""


def scale() -> str:
    wide = torch.tensor([4.0, 0.0, -4.0])
    return f"""scores of a head of 16 numbers    4   0  -4     softmax  {numbers(F.softmax(wide, dim=0))}
divided by the root of 16         1   0  -1     softmax  {numbers(F.softmax(wide / 4, dim=0))}"""


def layer_norm() -> str:
    x = torch.tensor([1.0, 2.0, 6.0])
    y = F.layer_norm(x, (3,), eps=0.0)
    assert abs(y.mean()) < 1e-6 and abs(y.var(unbiased=False) - 1) < 1e-5
    variance = x.var(unbiased=False)
    return f"""a vector           1     2     6       mean {x.mean():.2f}, variance {variance:.2f}
minus its mean    {numbers(x - x.mean(), "5.2f")}
LayerNorm         {numbers(y, "5.2f")}      divided by the root of the variance, {variance.sqrt():.2f}"""


def one_merge() -> str:
    text = "ab abc abc"
    first, second = bpe.train([text], 259)
    assert (first, second) == ((b"a", b"b"), (b"ab", b"c"))
    taught = runpy.run_path(str(ROOT / "07_tokenizer_gqa/bpe.py"))["BPE"]
    assert taught.train(text, 259).merges == [first, second]
    return """pieces        ab, " abc" twice
pairs         a b: 3     b c: 2     space a: 2
first merge   ab          [ab], [space][ab][c] twice
pairs         ab c: 2     space ab: 2                as frequent: the greater bytes win, a before space
second merge  abc         [ab], [space][abc] twice"""


def rotary() -> str:
    x = torch.tensor([1.0, 0.0]).expand(1, 1, 8, 2)
    turned = RoPE(Settings(n_embd=2, n_head=1)).rotate(x, x)[0][0, 0]
    q1, k3, q2, k4 = turned[1], turned[3], turned[2], turned[4]
    assert torch.allclose(q1 @ k3, q2 @ k4) and abs(q1 @ k3 - math.cos(2)) < 1e-6
    return f"""a pair ( 1  0 ), turned by one radian for each place
at place 1    ( {numbers(turned[1], "5.2f")} )
at place 3    ( {numbers(turned[3], "5.2f")} )      dot product  {q1 @ k3:.2f}
at place 2    ( {numbers(turned[2], "5.2f")} )
at place 4    ( {numbers(turned[4], "5.2f")} )      dot product  {q2 @ k4:.2f}: as far apart"""


def newton_schulz() -> str:
    """On a diagonal matrix each entry goes its own way: a x + b x^3 + c x^5."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x, lines = torch.tensor([100.0, 1.0], dtype=torch.float64), []
    matrix = torch.diag(x)
    x = x / x.norm()
    lines.append(f"divided by its length   {numbers(x)}")
    for number in range(1, 6):
        x = a * x + b * x**3 + c * x**5
        lines.append(f"round {number}                 {numbers(x)}")
    assert torch.allclose(orthogonal(matrix.float()[None])[0].double(), torch.diag(x), atol=1e-3)
    return "a matrix with 100 and 1 on its diagonal\n" + "\n".join(lines)


def shorter_context() -> str:
    """Kneser-Ney with one discount, on `banana`."""
    text, taken = "banana", 0.75
    pairs = {text[i : i + 2] for i in range(5)}
    follows = [text[i + 1] for i in range(5) if text[i] == "n"]
    kinds = {letter: sum(pair[1] == letter for pair in pairs) for letter in "abn"}
    below = {letter: kinds[letter] / len(pairs) for letter in "abn"}
    own = (follows.count("a") - taken) / len(follows)
    share = taken * len(set(follows)) / len(follows)
    p = {letter: (own if letter == "a" else 0) + share * below[letter] for letter in "abn"}
    assert follows == ["a", "a"] and abs(sum(p.values()) - 1) < 1e-12
    return f"""after n          a twice, nothing else
less {taken}        a {own:.3f}, and {share:.3f} to give away
after how many   a after b and n, n after a, b after nothing:  a {below["a"]:.2f}, n {below["n"]:.2f}
for a            {own:.3f} + {share:.3f} * {below["a"]:.2f} = {p["a"]:.3f}
for n                    {share:.3f} * {below["n"]:.2f} = {p["n"]:.3f}"""


def kept_heads() -> str:
    shown = []
    for name, heads in (("MHA", 4), ("GQA", 2), ("MQA", 1)):
        model = GPT(Settings(n_layer=4, n_kv_head=heads), 65)
        cache = model.new_cache()
        model(torch.zeros(1, 10, dtype=torch.long), cache)
        kept = sum(layer.nbytes for layer in cache) // 10
        assert kept == 2 * 4 * heads * 16 * 4
        numbers_of = f"{name}   2 * 4 layers * {heads} heads * 16 = {kept // 4:>3} numbers"
        shown.append(f"{numbers_of}   {kept:>5,} bytes in float32")
    return "\n".join(shown)


def root_mean_square() -> str:
    x = torch.tensor([1.0, 2.0, 6.0])
    norms = runpy.run_path(str(ROOT / "08_micro_arch/norm.py"))
    layer, rms = (norms[name](Settings(n_embd=3)) for name in ("LayerNorm", "RMSNorm"))
    with torch.no_grad():
        size = x.square().mean().sqrt()
        return f"""a vector                  1     2     6      mean {x.mean():.2f}, size {size:.2f}
LayerNorm             {numbers(layer(x), "5.2f")}
RMSNorm               {numbers(rms(x), "5.2f")}
10 added to each: LN  {numbers(layer(x + 10), "5.2f")}      the mean is forgotten
10 added to each: RMS {numbers(rms(x + 10), "5.2f")}      the mean is nearly all that is left"""


def gate() -> str:
    gates, up = torch.tensor([-2.0, 0.0, 2.0]), torch.tensor([1.0, 1.0, -3.0])
    return f"""gate        {numbers(gates, "5.2f")}
SiLU        {numbers(F.silu(gates), "5.2f")}      nearly shut, shut, open
up          {numbers(up, "5.2f")}
product     {numbers(F.silu(gates) * up, "5.2f")}      the gate decides how much, the other one what"""


def two_experts() -> str:
    p = F.softmax(torch.tensor([2.0, 1.0, 0.0, 0.0]), dim=0)
    weights, chosen = p.topk(2)
    assert chosen.tolist() == [0, 1]
    weights = weights / weights.sum()
    return f"""router            2      1      0      0
softmax         {numbers(p, ".3f")}
the two         {numbers(weights, ".3f")}                 divided by their sum, {p[:2].sum():.3f}
answers of them   6      2
together        {weights[0]:.3f} * 6 + {weights[1]:.3f} * 2 = {weights @ torch.tensor([6.0, 2.0]):.2f}"""


def falling() -> str:
    shown = ["step      constant  cosine    linear    stable-decay"]
    for step in (0, 50, 100, 350, 500, 590):
        names = ("constant", "cosine", "linear", "stable-decay")
        rates = [rate(step, 600, 4e-3, 100, name) for name in names]
        shown.append(f"{step:<8}  {'  '.join(f'{value:.6f}' for value in rates)}")
    return "\n".join(shown)


def adam() -> str:
    lines = ["three gradients            steps of SGD                  steps of AdamW"]
    for gradients in ((1.0, 1.0, 1.0), (0.01, 0.01, 0.01), (0.01, -0.01, 0.01)):
        steps: list[list[float]] = []
        sgd = partial(torch.optim.SGD, momentum=0.9)
        for make in (sgd, partial(torch.optim.AdamW, betas=(0.9, 0.99), weight_decay=0)):
            x = torch.zeros(1, requires_grad=True)
            one = make([x], lr=0.1)
            steps.append([])
            for g in gradients:
                before, x.grad = x.item(), torch.tensor([g])
                one.step()
                steps[-1].append(before - x.item())
        forms = zip((gradients, *steps), ("6.3f", "7.4f", "6.3f"), strict=True)
        lines.append("     ".join(numbers(values, form) for values, form in forms))
    return "\n".join(lines)


def chain_rule() -> str:
    x = torch.tensor(3.0, requires_grad=True)
    h = 2 * x
    h.retain_grad()
    loss = h**2
    loss.backward()
    return f"""forward    x = 3    h = 2 x = {h:.0f}    L = h * h = {loss:.0f}
backward   dL/dh = 2 h = {h.grad:.0f}    dL/dx = dL/dh * dh/dx = {h.grad:.0f} * 2 = {x.grad:.0f}"""


def by_blocks() -> str:
    scores, values = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 2.0])
    shrink = (scores[0] - scores[1]).exp()
    total, weighted = shrink + 1, 4 * shrink + 2
    assert torch.allclose(weighted / total, F.softmax(scores, dim=0) @ values)
    head = "score  value    maximum so far   weights, added               times values, added"
    return f"""                  {head}
first block       1      4        1                1                            4
second block      3      2        3                1 * {shrink:.3f} + 1 = {total:.3f}          \
4 * {shrink:.3f} + 2 = {weighted:.3f}
shrinks by        e^(1 - 3) = {shrink:.3f}, as the maximum grew by 2
attention         {weighted:.3f} / {total:.3f} = {weighted / total:.2f}, as softmax over both scores gives"""


def sixteen_bits() -> str:
    def rounded(value: float) -> float:
        return torch.tensor(value).bfloat16().item()

    assert rounded(1 + 1e-3) == 1 and rounded(0.02 + 1e-3) != rounded(0.02)
    return f"""1 + 0.001      -> {rounded(1 + 1e-3):.6f}      the step is lost
0.02 + 0.001   -> {rounded(0.02 + 1e-3):.6f}      kept, near enough
256 + 1        -> {rounded(257.0):.0f}           counting ends here
0.1            -> {rounded(0.1):.6f}      three digits are right"""


EXAMPLES = (
    counted_pairs, softmax, gradient, masked_mean, attention, scale, hidden_layer, chain, layer_norm, count,
    one_merge, rotary, newton_schulz, shorter_context, kept_heads, root_mean_square, gate, two_experts,
    falling, adam, sixteen_bits, chain_rule, by_blocks,
)  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_readme_is_right(example):
    assert f"```text\n{example()}\n```" in README


def programs() -> dict[str, tuple[str, str]]:
    """The programs of the questions: {title: (program, what the answer says that it prints)}."""
    fence = r"{}```{}\n(.*?)\n *```"
    pattern = r"\d\. \*([^*]*)\*(?:(?!\n\d\. ).)*?" + fence.format("", "python")
    found = re.findall(pattern + r"\s*<details>.*?" + fence.format("", "text"), README, re.DOTALL)
    return {title: (textwrap.dedent(code), textwrap.dedent(said)) for title, code, said in found}


@pytest.mark.parametrize("title", programs())
def test_a_program_of_the_readme_prints_what_the_answer_says(title):
    program, said = programs()[title]
    if "text_data" in program:
        try:
            corpora.find_named("tinyshakespeare")
        except ConnectionError:
            pytest.skip("tinyshakespeare is not here")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    assert printed.getvalue().rstrip() == said.rstrip()


def test_no_program_of_the_readme_goes_untried():
    assert len(programs()) == README.count("```python\n") > 2


def test_the_rounds_that_the_readme_shows_are_those_of_muon():
    matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    program = programs()["How exact must Muon be?"][0]
    shown = program.replace("torch.randn(64, 64)", "matrix").replace("range(1, 9)", "range(1, 6)")
    names = {"matrix": matrix}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(shown, names)
    assert torch.allclose(names["x"], orthogonal(matrix[None])[0], atol=1e-3)
