"""Exercises of stage 01 and of sampling: solutions written in other ways, and the same with a mistake."""

import pytest

from common.exercises import judge
from common.exercises.catalogue import exercise, nodes

COUNTED = {
    "Model": """
class Model(nn.Module):
    def __init__(self, s, vocab_size):
        super().__init__()
        self.register_buffer("counts", torch.zeros(vocab_size, vocab_size))

    def forward(self, ids):
        B, T = ids.shape
        rows = self.counts.index_select(0, ids.flatten()) + 1
        return (torch.log(rows) - torch.log(rows.sum(-1))[:, None]).reshape(B, T, -1)
""",
    "count": """
def count(model, data, s, recorder):
    text = data.train.tokens.tolist()
    for a, b in zip(text, text[1:]):
        model.counts[a, b] += 1
""",
}
ORDERS = {
    "Table.find": """
    def find(self, keys):
        place = {key: index for index, key in enumerate(self.keys.tolist())}
        return torch.tensor([place.get(key, -1) for key in keys.flatten().tolist()]).view(keys.shape)
""",
    "Model.forward": """
    def forward(self, ids):
        rows = []
        for text in ids:
            p = torch.ones(len(text), self.vocab_size) / self.vocab_size
            ends = [0] * len(text)
            for order, table in enumerate(self.tables):
                p = table.mix(p, torch.tensor(ends))
                earlier = [-1] + ends[:-1] if order else ends
                keys = [e * self.vocab_size + int(t) for e, t in zip(earlier, text)]
                found = table.find(torch.tensor(keys)).tolist()
                ends = [f if e >= 0 else -1 for e, f in zip(earlier, found)]
            rows.append(p)
        return torch.log(torch.stack(rows))
""",
    "count": """
def count(model, data, s, recorder):
    text, orders, before = data.train.tokens.tolist(), len(model.tables), 1
    known = [{(): 0}]
    for k in range(1, orders + 1):
        found = {tuple(text[i : i + k]) for i in range(len(text) - k + 1)}
        index = known[-1]
        ordered = sorted(found, key=lambda one: index[one[:-1]] * model.vocab_size + one[-1])
        known.append({one: number for number, one in enumerate(ordered)})
    for k in range(1, orders + 1):
        counts = [0] * len(known[k])
        if k == orders:
            for i in range(len(text) - k + 1):
                counts[known[k][tuple(text[i : i + k])]] += 1
        else:
            for longer in known[k + 1]:
                counts[known[k][longer[1:]]] += 1
        keys = [known[k - 1][one[:-1]] * model.vocab_size + one[-1] for one in known[k]]
        model.tables[k - 1].fit(torch.tensor(keys), torch.tensor(counts), before, model.vocab_size)
        before = len(keys)
""",
}
STEPPED = {
    "Model": """
class Model(nn.Module):
    def __init__(self, s, vocab_size):
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocab_size, vocab_size).fill_(0))

    def forward(self, ids):
        return nn.functional.one_hot(ids, len(self.table)).to(self.table.dtype) @ self.table
""",
    "train": """
def train(model, data, s, recorder):
    for step in recorder.steps(model):
        x, y = data.batch(step)
        loss = nn.functional.cross_entropy(model(x).transpose(1, 2), y)
        (slope,) = torch.autograd.grad(loss, model.table)
        left = (s.steps - step) / s.steps
        model.table.data.sub_(slope, alpha=s.lr * left)
        recorder.record(loss.item())
""",
}
NORMALISED = {
    "BatchNorm": """
class BatchNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        for name, number in (("running_mean", 0.0), ("running_variance", 1.0)):
            self.register_buffer(name, torch.full((size,), number))

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_variance, self.scale, self.shift,
                            training=self.training, momentum=0.1, eps=1e-5)
""",
    "Model": """
class Model(nn.Module):
    def __init__(self, settings, vocab_size):
        super().__init__()
        wide, self.token = 8 * settings.n_embd, nn.Embedding(vocab_size, settings.n_embd)
        layers = [Layer(settings.block_size * settings.n_embd, wide)]
        for _ in range(settings.n_layer - 1):
            layers.append(Layer(wide, wide))
        self.hidden, self.head = nn.Sequential(*layers), nn.Linear(wide, vocab_size)

    def forward(self, ids):
        h = torch.cat([self.token(ids[:, t]) for t in range(ids.shape[1])], dim=-1)
        for layer in self.hidden:
            h = layer(h)
        return h @ self.head.weight.T + self.head.bias
""",
}
PAIRED = {
    "Model": """
class Model(nn.Module):
    def __init__(self, s, vocab_size):
        super().__init__()
        T, width, layers = s.block_size, s.n_embd, []
        if T < 2 or T & (T - 1):
            raise UserError("two, four, eight ... letters")
        self.token = nn.Embedding(vocab_size, s.n_embd)
        while T > 1:
            layers.append(Layer(2 * width, 8 * s.n_embd))
            T, width = T // 2, 8 * s.n_embd
        self.hidden, self.head = nn.Sequential(*layers), nn.Linear(width, vocab_size)

    def forward(self, ids):
        x = self.token(ids)
        for layer in self.hidden:
            x = layer(torch.cat([x[:, 0::2], x[:, 1::2]], dim=-1))
        return self.head(x)[:, 0]
"""
}
DRAWN = {
    "filtered": """
def filtered(logits, top_k=None, top_p=None, min_p=None):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row in out:
        if top_k is not None:
            row[row < row.sort().values[-min(top_k, len(row))]] = float("-inf")
        if top_p is not None:
            p, total = row.softmax(0), 0.0
            for place in p.argsort(descending=True).tolist():
                if total >= top_p:
                    row[place] = float("-inf")
                total += float(p[place])
        if min_p is not None:
            p = row.softmax(0)
            row[p / p.max() < min_p] = float("-inf")
    return out.reshape(logits.shape)
""",
    "penalised": """
def penalised(logits, ids, penalty):
    there = (ids[:, :, None] == torch.arange(logits.size(1))).any(dim=1)
    return torch.where(there, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
""",
    "choose": """
def choose(logits, ids, how, generator):
    logits = penalised(logits, ids, how.repetition_penalty)
    if how.temperature == 0:
        return logits.max(dim=-1).indices
    kept = filtered(logits / how.temperature, how.top_k, how.top_p, how.min_p)
    noise = -torch.log(torch.empty_like(kept).exponential_(generator=generator))
    return (kept + noise).argmax(dim=-1)
""",
}
SOLUTIONS = {
    "count_bigram": COUNTED,
    "ngram": ORDERS,
    "by_hand": STEPPED,
    "names_deep": NORMALISED,
    "names_wavenet": PAIRED,
    "sampling": DRAWN,
}
WRONG = [
    ("count_bigram", "ids.flatten()) + 1", "ids.flatten())", "Nothing is added"),
    ("count_bigram", "model.counts[a, b] += 1", "model.counts[b, a] += 1", "have changed places"),
    ("count_bigram", "zip(text, text[1:])", "zip(text, text[:-1])", "only the diagonal"),
    ("ngram", "place.get(key, -1)", "place.get(key, 0)", "gets the index 0"),
    ("ngram", "longer[1:]", "longer[:-1]", "its first characters"),
    ("ngram", "[-1] + ends[:-1] if order else ends", "ends", "stands in it twice"),
    ("ngram", "return torch.log(torch.stack(rows))", "return torch.stack(rows)", "Take the logarithm"),
    ("by_hand", "sub_(slope", "add_(slope", "uphill"),
    ("by_hand", "(s.steps - step) / s.steps", "1", "as large as the first"),
    ("by_hand", "cross_entropy(model(x).transpose(1, 2), y)", "cross_entropy(model(x).transpose(1, 2), x)",
     "token here is taken"),
    ("names_deep", "torch.cat([self.token(ids[:, t]) for t in range(ids.shape[1])], dim=-1)",
     "sum(self.token(ids[:, t]) for t in range(ids.shape[1]))", "lost which came first"),
    ("names_deep", "momentum=0.1", "momentum=0.9", "nine tenths"),
    ("names_deep", "range(settings.n_layer - 1)", "range(settings.n_layer - 2)", "a layer too few"),
    ("names_wavenet", "x[:, 0::2], x[:, 1::2]", "*x.chunk(2, dim=1)", "across the window"),
    ("names_wavenet", "T < 2 or T & (T - 1)", "T & (T - 1)", "has no pair"),
    ("sampling", "row < row.sort()", "row <= row.sort()", "thrown out too"),
    ("sampling", "p / p.max() < min_p", "p < min_p", "share of the largest"),
    ("sampling", "logits / penalty, logits * penalty", "logits / penalty, logits / penalty", "nearer to 0"),
    ("sampling", "logits / how.temperature", "logits * how.temperature", "Divide."),
    ("sampling", "exponential_(generator=generator)", "exponential_()", "generator is not used"),
]  # fmt: skip


def rewritten(name: str, old: str = "", new: str = "") -> str:
    """The source of an exercise with another solution in it, in which `old` became `new`."""
    one = exercise(name)
    text = one.source.read_text(encoding="utf-8")
    own = SOLUTIONS[name]
    assert old in "".join(own.values())
    for node, definition in sorted(
        ((nodes(text, (part,))[0], code) for part, code in own.items()), key=lambda pair: -pair[0].lineno
    ):
        lines = text.splitlines()
        lines[node.lineno - 1 : node.end_lineno] = definition.replace(old, new).strip("\n").splitlines()
        text = "\n".join(lines) + "\n"
    return text


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_solution_written_in_another_way_keeps_every_promise(name):
    one = exercise(name)
    seen = judge.look_at(rewritten(name), one, one.source)
    assert not [seen.wrong for verdict in judge.verdicts(seen) for seen in verdict.broken]


@pytest.mark.long
@pytest.mark.parametrize(("name", "old", "new", "said"), WRONG)
def test_a_mistake_in_it_gets_the_fitting_hint(name, old, new, said):
    one = exercise(name)
    seen = judge.look_at(rewritten(name, old, new), one, one.source)
    assert [verdict for verdict in judge.verdicts(seen) if verdict.broken]
    found = judge.looks_like(seen, one)
    assert len(found) == 1
    assert said in found[0].hint
