"""Stage 08: solutions written in other ways keep every promise; with a mistake in them they get its hint."""

from textwrap import dedent

import pytest

from common.exercises import judge
from common.exercises.catalogue import exercise, nodes

NORM = """
class LayerNorm(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.weight = nn.Parameter(torch.full((s.n_embd,), 1.0))

    def forward(self, x):
        return F.layer_norm(x, (x.shape[-1],), eps=EPS) * self.weight

class RMSNorm(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(s.n_embd))

    def forward(self, x):
        power = torch.einsum("...c,...c->...", x, x) / len(self.weight)
        return torch.einsum("...c,...,c->...c", x, 1 / torch.sqrt(power + EPS), self.weight)

class ScaleNorm(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.length = nn.Parameter(torch.tensor(float(s.n_embd)).sqrt())

    def forward(self, x):
        return F.normalize(x, dim=-1, eps=EPS) * self.length
"""
ROPE = """
class RoPE(Position):
    def __init__(self, s):
        super().__init__(s)
        if (s.n_embd // s.n_head) % 2 == 1:
            raise ValueError("an odd head")

    def rotate(self, q, k, start=0):
        B, H, T, D = q.shape
        known = angles_of(start, T, D)
        return tuple(turn(x, known) for x in (q, k))

def angles_of(start, T, size):
    place = torch.tensor([float(start + t) for t in range(T)], dtype=torch.float64)
    rates = torch.tensor([10_000 ** (-2 * i / size) for i in range(size // 2)], dtype=torch.float64)
    return torch.outer(place, rates)

def turn(x, angles):
    half = x.size(-1) // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    spun = pairs * torch.polar(torch.ones_like(angles), angles).to(pairs)
    return torch.cat([spun.real, spun.imag], dim=-1)
"""
WAVES = """
class SinusoidalPosition(Position):
    def forward(self, x, start=0):
        B, T, C = x.shape
        known, waves = angles_of(start, T, C), torch.zeros(T, C + C % 2, dtype=torch.float64)
        waves[:, 0::2] = torch.sin(known)
        waves[:, 1::2] = torch.cos(known)
        return math.sqrt(C) * x + waves[:, :C].type_as(x)

def angles_of(start, T, size):
    halves = -(-size // 2)
    table = torch.empty(T, halves, dtype=torch.float64)
    for t in range(T):
        for i in range(halves):
            table[t, i] = (start + t) / 10_000 ** (2 * i / size)
    return table

import math
"""
ALIBI = """
class ALiBi(Position):
    def __init__(self, s):
        super().__init__(s)
        self.rates = torch.tensor(slopes(s.n_head))

    def bias(self, T, S):
        table = torch.zeros(len(self.rates), T, S)
        for row in range(T):
            for column in range(S):
                far = S - T + row - column
                table[:, row, column] = -self.rates * max(far, 0)
        return table

def slopes(heads):
    power = 1
    while 2 * power <= heads:
        power *= 2
    first = [0.5 ** (8 * h / power) for h in range(1, power + 1)]
    more = [0.5 ** (4 * h / power) for h in range(1, 2 * power, 2)]
    return (first + more)[:heads]
"""
FLASH = """
class Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, size):
        behind, answers, logs = k.size(2) - q.size(2), [], []
        for rows in torch.arange(q.size(2)).split(size):
            top = q.new_full((*q.shape[:2], len(rows), 1), -1e300)
            bottom, sums = torch.zeros_like(top), torch.zeros_like(q[:, :, rows])
            for columns in torch.arange(k.size(2)).split(size):
                if columns[0] > rows[-1] + behind:
                    break
                block = torch.einsum("bhrd,bhcd->bhrc", q[:, :, rows], k[:, :, columns]) / q.size(-1) ** 0.5
                block = block.where(columns <= rows[:, None] + behind, -torch.inf)
                new = torch.cat([top, block], dim=-1).amax(dim=-1, keepdim=True)
                kept, weights = (top - new).exp(), (block - new).exp()
                bottom = kept * bottom + weights.sum(-1, keepdim=True)
                sums = kept * sums + weights @ v[:, :, columns]
                top = new
            answers.append(sums / bottom)
            logs.append(top + bottom.log())
        out = torch.cat(answers, dim=2)
        ctx.size = size
        ctx.save_for_backward(q, k, v, out, torch.cat(logs, dim=2))
        return out

    @staticmethod
    def backward(ctx, d):
        q, k, v, out, logs = ctx.saved_tensors
        behind, grads = k.size(2) - q.size(2), [torch.zeros_like(x) for x in (q, k, v)]
        for columns in torch.arange(k.size(2)).split(ctx.size):
            for rows in torch.arange(q.size(2)).split(ctx.size):
                block = q[:, :, rows] @ k[:, :, columns].mT / q.size(-1) ** 0.5
                p = (block - logs[:, :, rows]).exp() * (columns <= rows[:, None] + behind)
                error = d[:, :, rows] @ v[:, :, columns].mT
                error = p * (error - (d * out).sum(-1, keepdim=True)[:, :, rows]) / q.size(-1) ** 0.5
                grads[0][:, :, rows] += error @ k[:, :, columns]
                grads[1][:, :, columns] += error.mT @ q[:, :, rows]
                grads[2][:, :, columns] += p.mT @ d[:, :, rows]
        return *grads, None
"""
LOCAL = """
def local(q, k, v, window=32):
    answers, behind = [], k.size(2) - q.size(2)
    for t in range(q.size(2)):
        first, last = max(0, t + behind - window + 1), t + behind + 1
        scores = torch.einsum("bhd,bhsd->bhs", q[:, :, t], k[:, :, first:last]) / q.size(-1) ** 0.5
        answers.append(torch.einsum("bhs,bhsd->bhd", scores.softmax(-1), v[:, :, first:last]))
    return torch.stack(answers, dim=2)
"""
LINEAR = """
def features(x):
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())

class Sums:
    def __init__(self):
        self.length = 0
        self.above = self.below = None

def linear(q, k, v, past=None, size=64):
    past = Sums() if past is None else past
    answers = []
    for t in range(q.size(2)):
        a, b = features(q[:, :, t]), features(k[:, :, t])
        above, below = torch.einsum("bhd,bhe->bhde", b, v[:, :, t]), b
        if past.length:
            above, below = above + past.above, below + past.below
        past.above, past.below, past.length = above, below, past.length + 1
        answers.append(torch.einsum("bhd,bhde->bhe", a, above) / (a * below).sum(-1, keepdim=True))
    return torch.stack(answers, dim=2)
"""
MOE = """
class MoE(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.router = nn.Linear(s.n_embd, s.n_expert, bias=False)
        self.experts = nn.ModuleList()
        for _ in range(s.n_expert):
            self.experts.append(FeedForward(s, multiple=4 / s.n_expert_per_token))

    def forward(self, x):
        s, flat = self.s, x.reshape(-1, x.size(-1))
        p = torch.softmax(self.router(flat), -1)
        order = p.argsort(dim=-1, descending=True)[:, : s.n_expert_per_token]
        picked = torch.zeros_like(p).scatter(1, order, 1.0)
        gates = picked * p
        if s.n_expert_per_token > 1:
            gates = gates / gates.sum(1, keepdim=True)
        count = picked.sum()
        if self.training and s.capacity is not None:
            room = math.ceil(s.capacity * int(count) / s.n_expert)
            gates = gates * (picked.cumsum(0) <= room)
        every = torch.stack([expert(flat) for expert in self.experts], dim=1)
        self.load = picked.sum(0) / count
        self.auxiliary_loss = s.balance * s.n_expert * torch.dot(self.load, p.mean(0))
        return torch.einsum("ne,nec->nc", gates, every).reshape(x.shape)
"""
ASSEMBLE = """
def assemble(s, vocab_size):
    attention = part("attention", s.attention)
    if s.attention == "linear" and s.position not in ("none", "learned", "sinusoidal"):
        raise ValueError("linear attention has no scores")
    if s.qk_norm:
        plain = attention
        attention = lambda s: plain(s, qk_norm=RMSNorm)
    return GPT(
        s, vocab_size, attention, part("feed_forward", s.feed_forward), part("norm", s.norm),
        part("position", s.position), part("head", s.head), part("embedding", s.embedding),
    )
"""
SOLUTIONS = {"norm": NORM, "rope": ROPE, "sinusoidal": WAVES, "alibi": ALIBI,
             "flash": FLASH, "local_attention": LOCAL, "linear_attention": LINEAR,
             "moe": MOE, "assemble": ASSEMBLE}  # fmt: skip
MISTAKEN = [
    ("norm", "/ len(self.weight)", "", "It is the mean of the squares, not their sum"),
    ("norm", "(x.shape[-1],), eps=EPS", "(x.shape[-1],), eps=0.0", "LayerNorm divides zeros by zero"),
    ("rope", "spun = pairs * torch.polar(torch.ones_like(angles), angles)",
     "spun = pairs * torch.polar(torch.ones_like(angles), -angles)", "Pairs turn backwards"),
    ("rope", "for i in range(size // 2)", "for i in range(1, size // 2 + 1)", "The pairs are counted from 1"),
    ("sinusoidal", "math.sqrt(C) * x", "x", "Multiply x by sqrt(C)"),
    ("alibi", "range(1, 2 * power, 2)", "range(1, 2 * power)", "Take every other one"),
    ("alibi", "-self.rates", "self.rates", "What is far away scores higher"),
    ("flash", "bottom = kept * bottom", "bottom = bottom", "The sum of weights does not shrink"),
    ("flash", "return *grads, None", "return tuple(grads)", "backward has to return a gradient for each"),
    ("local_attention", "window + 1)", "window)", "Each place sees one place too many"),
    ("linear_attention", "a, b = features(q[:, :, t]), ", "a, b = q[:, :, t], ",
     "do not go through features"),
    ("moe", "gates = gates / gates.sum(1, keepdim=True)", "pass", "do not sum to 1"),
    ("moe", "if self.training and", "if", "Tokens are dropped in evaluation too"),
    ("assemble", 'not in ("none", "learned", "sinusoidal")', '== "rope"', "with alibi is not refused"),
]  # fmt: skip


def written_as(name: str, solution: str) -> str:
    """The script of an exercise with these definitions in the place of its own."""
    one = exercise(name)
    text = one.source.read_text(encoding="utf-8")
    lines, own = text.splitlines(), nodes(text, one.write)
    for node in reversed(own):
        lines[node.lineno - 1 : node.end_lineno] = dedent(solution).splitlines() if node is own[0] else []
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", SOLUTIONS)
def test_another_way_to_write_it_keeps_every_promise(name):
    one = exercise(name)
    seen = judge.look_at(written_as(name, SOLUTIONS[name]), one, one.source)
    assert not [
        (verdict.title, verdict.broken[0].wrong) for verdict in judge.verdicts(seen) if verdict.broken
    ]


@pytest.mark.long
@pytest.mark.parametrize(("name", "old", "new", "hint"), MISTAKEN)
def test_a_mistake_in_it_gets_the_same_hint(name, old, new, hint):
    one = exercise(name)
    assert old in SOLUTIONS[name]
    seen = judge.look_at(written_as(name, SOLUTIONS[name].replace(old, new)), one, one.source, dear=False)
    likely = judge.looks_like(seen, one)
    assert len(likely) == 1 and hint in likely[0].hint
