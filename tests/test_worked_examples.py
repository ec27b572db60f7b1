"""The examples for a pencil in the README: every number in them is computed here, by the course's own code
where there is some.
"""

import math
import runpy

import pytest
import torch
import torch.nn.functional as F

from common.data import bpe
from common.model.position import RoPE
from common.paths import ROOT
from common.settings import Settings
from common.training.optimizer import orthogonal

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
costs     {bits:.2f} bits where n follows a, {-math.log2(row[0]):.2f} where a follows a"""


def softmax() -> str:
    logits = torch.tensor([1.0, 2.0, 3.0])
    p = F.softmax(logits, dim=0)
    loss = F.cross_entropy(logits[None], torch.tensor([2]))
    return f"""logits            1     2     3
e to each        {numbers(logits.exp(), "5.2f")}      sum {logits.exp().sum():.2f}
divided by it     {numbers(p)}
loss              -ln {p[2]:.2f} = {loss:.2f} nats = {loss / math.log(2):.2f} bits, if the third came"""


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
    parts = " + ".join(f"{w:.3f} * {x:.0f}" for w, x in zip(weights, v[:, 0], strict=True))
    return f"""query of the third token     ( 1  0 )
keys of the three tokens     ( 1  0 )   ( 0  1 )   ( 1  1 )      values  4  0  2
scores, query times key      {numbers(scores)}
divided by the root of 2     {numbers(scaled)}
softmax                      {numbers(weights, ".3f")}
what the token takes         {parts} = {(weights @ v).item():.3f}"""


def scale() -> str:
    wide = torch.tensor([4.0, 0.0, -4.0])
    return f"""scores of a head of 16 numbers    4   0  -4     softmax  {numbers(F.softmax(wide, dim=0))}
divided by the root of 16         1   0  -1     softmax  {numbers(F.softmax(wide / 4, dim=0))}"""


def layer_norm() -> str:
    x = torch.tensor([1.0, 2.0, 6.0])
    y = F.layer_norm(x, (3,), eps=0.0)
    assert abs(y.mean()) < 1e-6 and abs(y.var(unbiased=False) - 1) < 1e-5
    root = x.pow(2).mean().sqrt()
    variance = x.var(unbiased=False)
    return f"""a vector           1     2     6       mean {x.mean():.2f}, variance {variance:.2f}
minus its mean    {numbers(x - x.mean(), "5.2f")}
LayerNorm         {numbers(y, "5.2f")}      divided by the root of the variance, {variance.sqrt():.2f}
RMSNorm            {numbers(x / root)}      the vector divided by the root of its mean square, {root:.2f}"""


def one_merge() -> str:
    text = "ab abc abc"
    first, second = bpe.train([text], 259)
    assert (first, second) == ((b"a", b"b"), (b"ab", b"c"))
    taught = runpy.run_path(str(ROOT / "07_tokenizer_gqa/bpe.py"))["BPE"]
    assert taught.train(text, 259).merges == [first, second]
    return """pieces        ab, " abc" twice
pairs         a b: 3     b c: 2     space a: 2
first merge   ab          [ab], [space][ab][c] twice
pairs         ab c: 2     space ab: 2                of two that are as frequent, the greater bytes
second merge  abc         [ab], [space][abc] twice"""


def rotary() -> str:
    x = torch.tensor([1.0, 0.0]).expand(1, 1, 8, 2)
    turned = RoPE(Settings(n_embd=2, n_head=1)).rotate(x, x)[0][0, 0]
    q1, k3, q2, k4 = turned[1], turned[3], turned[2], turned[4]
    assert torch.allclose(q1 @ k3, q2 @ k4) and abs(q1 @ k3 - math.cos(2)) < 1e-6
    return f"""a pair ( 1  0 ), turned by one radian for each place
at place 1    ( {numbers(turned[1], "5.2f")} )
at place 3    ( {numbers(turned[3], "5.2f")} )      times each other  {q1 @ k3:.2f}
at place 2    ( {numbers(turned[2], "5.2f")} )
at place 4    ( {numbers(turned[4], "5.2f")} )      times each other  {q2 @ k4:.2f}: as far apart"""


def newton_schulz() -> str:
    """On a diagonal matrix each entry goes its own way: a x + b x^3 + c x^5."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x, lines = torch.tensor([3.0, 1.0], dtype=torch.float64), []
    matrix = torch.diag(x)
    x = x / x.norm()
    lines.append(f"divided by its length   {numbers(x)}")
    for number in range(1, 6):
        x = a * x + b * x**3 + c * x**5
        lines.append(f"round {number}                 {numbers(x)}")
    assert torch.allclose(orthogonal(matrix.float()[None])[0].double(), torch.diag(x), atol=1e-3)
    return "a matrix with 3 and 1 on its diagonal: one direction three times as strong\n" + "\n".join(lines)


EXAMPLES = (counted_pairs, softmax, attention, scale, layer_norm, one_merge, rotary, newton_schulz)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_readme_is_right(example):
    assert f"```text\n{example()}\n```" in README
