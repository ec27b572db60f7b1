"""Solutions of stages 02 to 05 in other words keep every promise, and with a mistake get the fitting hint."""

import ast

import pytest

from common.exercises import judge
from common.exercises.catalogue import exercise, nodes

AVERAGE = """
class Average(nn.Module):
    def __init__(self, block_size):
        super().__init__()

    def forward(self, x):
        counts = torch.arange(1, x.size(1) + 1, device=x.device)
        return x.cumsum(dim=1) / counts[:, None]
"""
HEAD = """
class Head(nn.Module):
    def __init__(self, n_embd, head_size, block_size):
        super().__init__()
        for name in ("query", "key", "value"):
            setattr(self, name, nn.Linear(n_embd, head_size, bias=False))

    def forward(self, x):
        rows = []
        for t in range(x.size(1)):
            past = x[:, : t + 1]
            scores = torch.einsum("bd,bsd->bs", self.query(x[:, t]), self.key(past))
            shares = (scores / scores.new_tensor(self.key.out_features).sqrt()).softmax(dim=1)
            rows.append(torch.einsum("bs,bsd->bd", shares, self.value(past)))
        return torch.stack(rows, dim=1)

    def weights(self, x):
        raise ValueError("forward does without")
"""
SEVERAL_HEADS = """
class MultiHeadAttention(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.projection = nn.Linear(width, width)

    def forward(self, x):
        size = x.size(-1) // self.heads
        allowed = torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).tril()
        found = []
        for q, k, v in zip(*(part(x).split(size, dim=-1) for part in (self.query, self.key, self.value))):
            scores = torch.einsum("btd,bsd->bts", q, k).masked_fill(~allowed, float("-inf"))
            found.append((scores * size**-0.5).softmax(-1) @ v)
        return self.projection(torch.cat(found, dim=-1))
"""
MULTI_HEAD = SEVERAL_HEADS.replace("        self.projection = nn.Linear(width, width)\n", "").replace(
    "self.projection(torch.cat(found, dim=-1))", "torch.cat(found, dim=-1)"
)
FEED_FORWARD = """
class FeedForward(nn.Sequential):
    def __init__(self, width, kind):
        super().__init__()
        parts = [nn.Linear(width, width * 4), kind(), nn.Linear(width * 4, width)]
        for number, part in enumerate(parts):
            self.add_module(str(number), part)
"""
STACKED = """
class Model(nn.Module):
    def __init__(self, s, vocab_size):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.position = nn.Embedding(s.block_size, s.n_embd)
        self.blocks = nn.ModuleList()
        while len(self.blocks) < s.n_layer:
            self.blocks.append(Block(s.n_embd, s.n_head, s.block_size))
        self.head = nn.Linear(s.n_embd, vocab_size)

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device)
        h = self.position(places) + self.token(ids)
        for block in self.blocks:
            h = block(h)
        return self.head(h)
"""
RESIDUAL = """
class Block(nn.Module):
    def __init__(self, n_embd, n_head, block_size):
        super().__init__()
        self.feed_forward = FeedForward(n_embd)
        self.attention = MultiHeadAttention(n_embd, n_head, block_size)

    def forward(self, x):
        found = self.attention(x)
        return self.feed_forward(found + x) + found + x
"""
NORM = """
class LayerNorm(nn.Module):
    def __init__(self, n_embd):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.bias = nn.Parameter(torch.zeros(n_embd))

    def forward(self, x):
        C = x.shape[-1]
        centred = x - x.sum(-1, keepdim=True) / C
        scale = torch.rsqrt(centred.pow(2).sum(-1, keepdim=True) / C + 0.00001)
        return torch.addcmul(self.bias, centred * scale, self.weight)
"""
PRE = """
class Block(nn.Module):
    def __init__(self, n_embd, n_head, block_size):
        super().__init__()
        self.norm1 = nn.LayerNorm(n_embd)
        self.norm2 = nn.LayerNorm(n_embd)
        self.attention = MultiHeadAttention(n_embd, n_head, block_size)
        self.feed_forward = FeedForward(n_embd)

    def forward(self, stream):
        for norm, part in ((self.norm1, self.attention), (self.norm2, self.feed_forward)):
            stream = part(norm(stream)) + stream
        return stream
"""
DROPPING = """
class Block(nn.Module):
    def __init__(self, n_embd, n_head, block_size, dropout):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.attention = MultiHeadAttention(n_embd, n_head, block_size)
        self.feed_forward = FeedForward(n_embd)
        self.share = dropout

    def dropped(self, x):
        if not self.training:
            return x
        return x * (torch.rand_like(x) > self.share) / (1 - self.share)

    def forward(self, x):
        h = x + self.dropped(self.attention(self.norm1(x)))
        return h + self.dropped(self.feed_forward(self.norm2(h)))
"""
WIRED = """
class Block(nn.Module):
    def __init__(self, n_embd, n_head, block_size, wiring):
        super().__init__()
        self.pre, self.post = wiring == "pre-LN", wiring == "post-LN"
        self.plus = wiring != "plain"
        if self.pre or self.post:
            self.norm1, self.norm2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.attention = MultiHeadAttention(n_embd, n_head, block_size)
        self.feed_forward = FeedForward(n_embd)

    def forward(self, x):
        for part, name in ((self.attention, "norm1"), (self.feed_forward, "norm2")):
            answer = part(getattr(self, name)(x) if self.pre else x)
            x = x + answer if self.plus else answer
            x = getattr(self, name)(x) if self.post else x
        return x
"""
SOLUTIONS = {
    "average": AVERAGE, "self_attention": HEAD, "multi_head": MULTI_HEAD, "feed_forward": FEED_FORWARD,
    "stack": STACKED, "residual": RESIDUAL, "projection": SEVERAL_HEADS, "layer_norm": NORM, "pre_ln": PRE,
    "dropout": DROPPING, "depth_map": WIRED,
}  # fmt: skip
WRONG = [  # an exercise, what is changed in its solution above, and a part of the hint
    ("average", " / counts[:, None]", "", "sum over the past"),
    ("average", " / counts[:, None]", " / x.size(1)", "divided by T"),
    ("average", ", device=x.device", "", None),
    ("self_attention", ": t + 1]", ": t + 2]", "sees one token ahead"),
    ("self_attention", ".sqrt()", "", "square root of D"),
    ("self_attention", "self.value(past)", "past", "gathered is x itself"),
    ("multi_head", "size**-0.5", "x.size(-1) ** -0.5", "divided by sqrt(C)"),
    ("multi_head", ".tril()", ".tril(1)", "sees one token ahead"),
    ("multi_head", "masked_fill(~allowed, float(\"-inf\"))", "masked_fill(~allowed, 0.0)", "exp(0) is 1"),
    ("feed_forward", "width * 4", "width * 2", "inner width is 2 C"),
    ("feed_forward", "kind()", "nn.GELU() if kind is nn.GELU else nn.Identity()", None),
    ("stack", "h = block(h)", "return self.head(block(h))", "only the first block is used"),
    ("stack", "len(self.blocks) < s.n_layer", "len(self.blocks) <= s.n_layer", "one block too many"),
    ("stack", "self.position(places) + ", "", "nothing is taken from it"),
    ("residual", "self.feed_forward(found + x)", "self.feed_forward(x)", "side by side"),
    ("residual", " + found + x", " + x", "x from before attention"),
    ("residual", " + found + x", "", "feed-forward layer still replaces"),
    ("projection", "nn.Linear(width, width)\n\n", "nn.Linear(width, width, bias=False)\n\n", "has no bias"),
    ("projection", "self.projection(torch.cat(found, dim=-1))", "torch.cat(found, dim=-1)", "never used"),
    ("layer_norm", ".sum(-1, keepdim=True) / C + 0", ".sum(-1, keepdim=True) / (C - 1) + 0", "C - 1"),
    ("layer_norm", " + 0.00001", "", "variance of zero"),
    ("layer_norm", "sum(-1", "sum(-2", None),
    ("pre_ln", "part(norm(stream)) + stream", "norm(part(stream)) + stream", "Normalise what they read"),
    ("pre_ln", "part(norm(stream)) + stream", "norm(part(stream) + stream)", "post-LN"),
    ("pre_ln", "(self.norm2, self.feed", "(self.norm1, self.feed", "used twice"),
    ("dropout", " / (1 - self.share)", "", "not scaled up"),
    ("dropout", "if not self.training", "if self.share == 0", None),
    ("dropout", "> self.share) / (1 - self.share)", "< self.share) / self.share", "what should be kept"),
    ("depth_map", "wiring != \"plain\"", "True", "plain wiring adds"),
    ("depth_map", "\"norm2\")", "\"norm1\")", "used twice"),
]  # fmt: skip


def looked_at(name: str, own: str) -> list[judge.Seen]:
    """What is seen where these definitions stand in the place of the course's."""
    one = exercise(name)
    text = one.source.read_text(encoding="utf-8")
    for node in ast.parse(own).body:
        assert isinstance(node, ast.ClassDef)
        there, lines = nodes(text, (node.name,))[0], text.splitlines()
        lines[there.lineno - 1 : there.end_lineno] = (ast.get_source_segment(own, node) or "").splitlines()
        text = "\n".join(lines) + "\n"
    return judge.look_at(text, one, one.source, dear=False)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_solution_in_other_words_keeps_every_promise(name):
    assert [one.wrong for one in looked_at(name, SOLUTIONS[name]) if not one.holds] == []


@pytest.mark.long
@pytest.mark.parametrize(("name", "old", "new", "hint"), WRONG)
def test_a_mistake_in_other_words_gets_the_hint_that_fits(name, old, new, hint):
    assert old in SOLUTIONS[name]
    seen = looked_at(name, SOLUTIONS[name].replace(old, new))
    assert not all(one.holds for one in seen) and not judge.unfinished(seen)
    if hint:
        (found,) = judge.looks_like(seen, exercise(name))
        assert hint in found.hint


def test_a_container_that_cannot_be_called_is_no_unwritten_part():
    loop = "        for block in self.blocks:\n            h = block(h)\n"
    own = STACKED.replace(loop, "").replace("self.head(h)", "self.head(self.blocks(h))")
    seen = looked_at("stack", own)
    assert judge.unfinished(seen) == ""
    (found,) = judge.looks_like(seen, exercise("stack"))
    assert "cannot be called" in found.hint
