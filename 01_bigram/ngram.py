"""N-grams: counting longer sequences, with a say for the shorter ones where the text was too short to count.

Previous : 01_bigram/count_bigram.py
Changes  : Table, Model, count
Idea     : modified interpolated Kneser-Ney: take a little from every count and give it to the shorter
           context, where a character counts by how many different contexts it was seen in
Source   : Chen and Goodman 1999, Computer Speech & Language 13, pages 359-394 (modified Kneser-Ney)
Expect   : each order better than the one below; beyond order 5 little is left to gain on a megabyte of text
Also     : --block-size 64; --tokenizer bpe-1024
"""

import functools

import torch
from torch import nn

from common.run import run
from common.settings import Lesson, Settings


class Table(nn.Module):
    """All different sequences of k characters in the training text, sorted, with what each is worth in its
    context.

    A sequence is its context (the first k - 1 characters) and one follower. Its key is the index of the
    context in the table of k - 1, times V, plus the follower: so the followers of one context stand side by
    side.
    """

    def __init__(self):
        super().__init__()
        for name, dtype in (("keys", torch.long), ("starts", torch.long),
                            ("discounted", torch.float), ("gamma", torch.float)):
            self.register_buffer(name, torch.empty(0, dtype=dtype))

    def fit(self, keys, counts, contexts: int, vocab_size: int):
        """keys (S,) in order, counts (S,) of each; contexts: the size of the table before."""
        n1, n2, n3, n4 = (float((counts == i).sum()) for i in (1, 2, 3, 4))  # sequences seen exactly i times
        y = n1 / max(n1 + 2 * n2, 1)
        steps = ((1, n1, n2), (2, n2, n3), (3, n3, n4))                      # D_i = i - (i+1) Y n_(i+1) / n_i
        discounts = [i - (i + 1) * y * more / fewer if fewer else i for i, fewer, more in steps]
        discounts = [d if 0 < d <= i else i / 2 for i, d in enumerate(discounts, 1)]  # D may be negative
        taken = torch.tensor([0.0, *discounts])[counts.clamp(max=3)]  # 0, D_1, D_2 or D_3: (S,)
        context = keys // vocab_size
        total = torch.zeros(contexts).index_add(0, context, counts.float())  # N(h): (contexts,)
        self.keys = keys
        self.starts = torch.searchsorted(keys, torch.arange(contexts + 1) * vocab_size)  # where h begins
        self.discounted = (counts - taken) / total[context].clamp(min=1)  # (N(h, w) - D) / N(h): (S,)
        gamma = torch.zeros(contexts).index_add(0, context, taken) / total.clamp(min=1)
        self.gamma = torch.where(total > 0, gamma, 1.0)                      # no follower: all to the shorter

    def find(self, keys):
        """Index of each key, -1 where the training text has no such sequence."""
        at = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[at] == keys, at, -1)

    def mix(self, shorter, context):
        """Probabilities with one more character of context: (M, V).

        shorter (M, V): with one character less. context (M,): indices into the table before, -1 for none.
        Of two contexts, the first may have 3 followers, from place 10 of the table on, the second 2, from 40
        on. Then first is [10, 40], many [3, 2], rows [0, 0, 0, 1, 1] and entries [10, 11, 12, 40, 41].
        """
        known = context >= 0
        context = context.clamp(min=0)
        first, many = self.starts[context], (self.starts[context + 1] - self.starts[context]) * known
        rows = torch.repeat_interleave(torch.arange(len(context)), many)  # follower i is of row rows[i]
        entries = torch.arange(len(rows)) - torch.repeat_interleave(many.cumsum(0) - many - first, many)
        mixed = shorter * torch.where(known, self.gamma[context], 1.0)[:, None]
        return mixed.index_put_((rows, self.keys[entries] % shorter.size(1)), self.discounted[entries],
                                accumulate=True)


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V): scores that softmax turns into probabilities.

    Here they are log-probabilities, so softmax gives back exactly the probabilities that were counted.
    """

    def __init__(self, s: Settings, vocab_size: int, order: int):
        super().__init__()
        self.vocab_size = vocab_size
        self.tables = nn.ModuleList(Table() for _ in range(order))

    def forward(self, ids):
        B, T = ids.shape
        probabilities = torch.full((B * T, self.vocab_size), 1 / self.vocab_size)  # knowing nothing
        context = torch.zeros_like(ids)                                      # the empty one, known everywhere
        for table in self.tables:
            probabilities = table.mix(probabilities, context.flatten())
            # the context of t - 1 and the character at t make a longer context; the first position has no
            # earlier one
            before = (torch.cat([torch.full_like(ids[:, :1], -1), context[:, :-1]], dim=1)
                      if table is not self.tables[0] else context)
            context = torch.where(before >= 0, table.find(before * self.vocab_size + ids), -1)
        return probabilities.log().view(B, T, -1)                                  # (B, T, V)


def count(model, data, s, recorder):
    """Read the training text once per order, from short to long."""
    V, tokens = model.vocab_size, data.train.tokens
    index, seen = torch.zeros(len(tokens) + 1, dtype=torch.long), []         # of the sequence ending here
    for _ in model.tables:
        keys, index, counts = (index[:-1] * V + tokens[len(seen) :]).unique(return_inverse=True,
                                                                            return_counts=True)
        seen.append((keys, index, counts))
    contexts = 1
    for k, (table, (keys, index, counts)) in enumerate(zip(model.tables, seen, strict=True)):
        if k + 1 < len(seen):                                                # once for each character before
            longer_keys, longer_index, _ = seen[k + 1]
            suffix = torch.zeros_like(longer_keys).scatter_(0, longer_index, index[1:])
            counts = torch.bincount(suffix, minlength=len(keys))
        table.fit(keys, counts, contexts, V)
        contexts = len(keys)


# long windows: counting needs none, and at the start of each the context is short
arms = {str(order): functools.partial(Model, order=order) for order in range(1, 9)}
lesson = Lesson(arms, Settings(block_size=4096), train=count)

if __name__ == "__main__":
    run(lesson)
