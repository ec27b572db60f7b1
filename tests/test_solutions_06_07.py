"""Exercises of stages 06 and 07: solutions written differently keep every promise; mistakes in them get the
hint that fits.
"""

import re

import pytest

from common.exercises import judge
from common.exercises.catalogue import exercise, nodes

GPT_ATTENTION = """
class MultiHeadAttention(nn.Module):
    def __init__(self, s):
        super().__init__()
        C = s.n_embd
        self.projection = nn.Linear(C, C, bias=False)
        self.value = nn.Linear(C, C, bias=False)
        self.key = nn.Linear(C, C, bias=False)
        self.query = nn.Linear(C, C, bias=False)
        self.heads, self.rate = s.n_head, s.dropout

    def forward(self, stream):
        found = []
        q, k, v = self.query(stream), self.key(stream), self.value(stream)
        size = stream.shape[-1] // self.heads
        later = torch.ones(stream.shape[1], stream.shape[1], dtype=torch.bool).triu(diagonal=1)
        for q, k, v in zip(q.split(size, -1), k.split(size, -1), v.split(size, -1)):
            scores = torch.einsum("btd,bsd->bts", q, k) * size**-0.5
            weights = torch.softmax(scores.masked_fill(later, float("-inf")), 2)
            found.append(F.dropout(weights, self.rate, self.training) @ v)
        return self.projection(torch.cat(found, -1))
"""
GPT_BLOCK = """
class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.attention, self.feed_forward = MultiHeadAttention(s), FeedForward(s)
        self.norm1 = nn.LayerNorm(s.n_embd, bias=False)
        self.norm2 = nn.LayerNorm(s.n_embd, bias=False)
        self.rate = s.dropout

    def forward(self, x):
        for norm, part in ((self.norm1, self.attention), (self.norm2, self.feed_forward)):
            x = F.dropout(part(norm(x)), self.rate, self.training) + x
        return x
"""
GPT_MODEL = """
class Model(nn.Module):
    def __init__(self, s, vocab_size):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.position = nn.Embedding(s.block_size, s.n_embd)
        self.blocks = nn.Sequential(*[Block(s) for _ in range(s.n_layer)])
        self.norm = nn.LayerNorm(s.n_embd, bias=False)
        self.head = nn.Linear(s.n_embd, vocab_size, bias=False)
        self.token.weight = self.head.weight
        self.drop = nn.Dropout(s.dropout)
        self.apply(self.start)
        for block in self.blocks:
            for layer in (block.attention.projection, block.feed_forward[2]):
                layer.weight.data.div_((2 * s.n_layer) ** 0.5)

    def start(self, part):
        if isinstance(part, (nn.Linear, nn.Embedding)):
            part.weight.data.normal_(0.0, 0.02)

    def forward(self, ids):
        places = torch.arange(ids.shape[1])
        stream = self.drop(self.position(places) + self.token(ids))
        for block in self.blocks:
            stream = block(stream)
        return self.norm(stream) @ self.token.weight.T
"""
FAST = """
class MultiHeadAttention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.qkv = nn.Linear(s.n_embd, 3 * s.n_embd, bias=False)
        self.projection = nn.Linear(s.n_embd, s.n_embd, bias=False)
        self.s = s

    def forward(self, x):
        parts = [part.unflatten(-1, (self.s.n_head, -1)).movedim(2, 1) for part in self.qkv(x).chunk(3, -1)]
        rate = self.s.dropout * self.training
        found = F.scaled_dot_product_attention(*parts, dropout_p=rate, is_causal=True)
        return self.projection(found.movedim(1, 2).flatten(2))
"""
JOIN = """
def join(word, pair):
    found = []
    for token in word:
        if found and (found[-1], token) == pair:
            found[-1] += token
        else:
            found.append(token)
    return found
"""
TRAIN = """
    def train(cls, text, vocab_size):
        if vocab_size < 257:
            raise UserError("too small")
        pieces = [piece for document in text.split(END) for piece in PIECE.findall(document)]
        if not pieces:
            raise UserError("no text")
        words = [[bytes([byte]) for byte in piece.encode()] for piece in pieces]
        merges = []
        while len(merges) < vocab_size - 257:
            counts = Counter(pair for word in words for pair in zip(word, word[1:]))
            if not counts:
                break
            merges.append(max(counts, key=lambda pair: (counts[pair], pair)))
            words = [join(word, merges[-1]) for word in words]
        return cls(merges)
"""
ENCODE = """
    def encode_piece(self, piece):
        parts = [bytes([byte]) for byte in piece.encode()]
        for pair in self.merges:
            parts = join(parts, pair)
        return [self.ids[part] for part in parts]
"""
CACHE = """
class Cache:
    def __init__(self):
        self.kept, self.length, self.nbytes = None, 0, 0

    def append(self, k, v):
        both = torch.stack([k, v])
        self.kept = both if self.kept is None else torch.cat([self.kept, both], dim=-2)
        self.length = self.kept.shape[-2]
        self.nbytes = self.kept.numel() * self.kept.element_size()
        return self.kept[0], self.kept[1]
"""
GREEDY = """
def greedy(model, ids, length, cache):
    start, text = 0, ids
    for step in range(length):
        answer = model(text[:, start:], cache) if cache is not None else model(text)
        if cache is not None:
            start = text.shape[1]
        text = torch.cat((text, answer[:, -1].max(dim=-1, keepdim=True).indices), dim=1)
    return text
"""
GQA = """
class MultiHeadAttention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.H, self.K = s.n_head, s.n_kv_head if s.n_kv_head else s.n_head
        self.D, self.rate = s.n_embd // s.n_head, s.dropout
        self.query, self.projection = (nn.Linear(s.n_embd, s.n_embd, bias=False) for _ in range(2))
        self.key, self.value = (nn.Linear(s.n_embd, self.K * self.D, bias=False) for _ in range(2))
        self.projection.writes_to_stream = True

    def forward(self, x, position, cache=None):
        q, k, v = (layer(x).unflatten(2, (-1, self.D)).transpose(1, 2)
                   for layer in (self.query, self.key, self.value))
        if cache is not None:
            k, v = cache.append(k, v)
        k, v = k.repeat_interleave(self.H // self.K, 1), v.repeat_interleave(self.H // self.K, 1)
        T, S = q.shape[2], k.shape[2]
        seen = torch.arange(S) <= torch.arange(S - T, S)[:, None]
        found = F.scaled_dot_product_attention(q, k, v, seen)
        return self.projection(found.transpose(1, 2).flatten(2))

    def new_cache(self):
        return Cache()
"""
OWN = {
    "gpt": {"MultiHeadAttention": GPT_ATTENTION, "Block": GPT_BLOCK, "Model": GPT_MODEL},
    "fast_gpt": {"MultiHeadAttention": FAST},
    "bpe": {"join": JOIN, "BPE.train": TRAIN, "BPE.encode_piece": ENCODE},
    "kv_cache": {"Cache": CACHE, "greedy": GREEDY},
    "gqa": {"MultiHeadAttention": GQA},
}
MADE = (
    ("gpt", "triu(diagonal=1)", "triu(diagonal=0)", "The diagonal is masked too"),
    ("gpt", "x = F.dropout(part(norm(x)), self.rate, self.training) + x",
     "x = F.dropout(part(norm(x)) + x, self.rate, self.training)", "Dropout cuts holes into the stream"),
    ("gpt", "(2 * s.n_layer) ** 0.5", "s.n_layer**0.5", "divided by sqrt(n_layer)"),
    ("fast_gpt", ", is_causal=True", "", "There is no mask"),
    ("fast_gpt", "dropout_p=rate, ", "", "No attention weight is dropped"),
    ("fast_gpt",
     "[part.unflatten(-1, (self.s.n_head, -1)).movedim(2, 1) for part in self.qkv(x).chunk(3, -1)]",
     "self.qkv(x).unflatten(-1, (self.s.n_head, 3, -1)).permute(3, 0, 2, 1, 4)", "cut by heads first"),
    ("bpe", "            found[-1] += token",
     "            found.append(found.pop() + token)\n            break", ""),
    ("bpe", "(counts[pair], pair)", "counts[pair]", "the one that was met first"),
    ("bpe", "for word in words for pair", "for word in set(map(tuple, words)) for pair",
     "Each piece counts once"),
    ("bpe", "in self.merges:", "in self.merges[::-1]:", ""),
    ("kv_cache", "torch.cat([self.kept, both], dim=-2)", "torch.cat([both, self.kept], dim=-2)",
     "newest positions are put first"),
    ("kv_cache", "self.nbytes = self.kept.numel()", "self.nbytes = k.numel()", ""),
    ("kv_cache", "        if cache is not None:\n            start = text.shape[1]\n", "", "once more"),
    ("gqa", "k.repeat_interleave(self.H // self.K, 1), v.repeat_interleave(self.H // self.K, 1)",
     "k.repeat(1, self.H // self.K, 1, 1), v.repeat(1, self.H // self.K, 1, 1)", "as after repeat."),
    ("gqa", "torch.arange(S - T, S)", "torch.arange(T)", "The mask counts from the first key"),
    ("gqa", "        self.projection.writes_to_stream = True\n", "", "does not say that it writes"),
)  # fmt: skip


def own_solution(name):
    """The script, with its definitions written differently."""
    one = exercise(name)
    text = one.source.read_text(encoding="utf-8")
    for part, body in OWN[name].items():
        (node,) = nodes(text, (part,))
        lines = text.splitlines()
        lines[node.lineno - 1 : node.end_lineno] = body.strip("\n").splitlines()
        text = "\n".join(lines) + "\n"
    return text


def broken(name, text):
    one = exercise(name)
    seen = judge.look_at(text, one, one.source)
    return seen, {v.promise: [b.wrong for b in v.broken] for v in judge.verdicts(seen) if v.broken}


@pytest.mark.parametrize("name", OWN)
def test_a_solution_that_is_written_differently_keeps_every_promise(name):
    assert not broken(name, own_solution(name))[1]


@pytest.mark.long
@pytest.mark.parametrize(("name", "old", "new", "hint"), MADE)
def test_a_mistake_in_it_gets_the_hint_that_fits(name, old, new, hint):
    text = own_solution(name)
    assert old in text
    seen, wrong = broken(name, text.replace(old, new))
    assert wrong
    if hint:
        assert re.search(re.escape(hint), " ".join(m.hint for m in judge.looks_like(seen, exercise(name))))
