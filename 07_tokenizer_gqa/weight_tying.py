"""Weight tying: one table for what a token means going in, and what it takes to come out.

Previous : 07_tokenizer_gqa/bpe.py
Changes  : TiedHead, UntiedHead, overview
Idea     : the head reads the table of embeddings backwards, logits = x E^T, instead of having a matrix of its
           own
Source   : Press and Wolf 2017, arXiv:1608.05859
Expect   : no measurable difference for 65 characters; for thousands of tokens the tied head is better, with
           half of the table's parameters
"""

from functools import partial

from torch import nn

from common.model.gpt import GPT
from common.run import run
from common.settings import Arm, Lesson, Settings


class TiedHead(nn.Linear):
    """Logits from the embeddings themselves: how far the stream points to each. (B, T, C) -> (B, T, V)"""

    def __init__(self, s, token: nn.Embedding):
        super().__init__(s.n_embd, token.num_embeddings, bias=False)
        self.weight = token.weight                                     # the same numbers, not a copy


class UntiedHead(nn.Linear):
    """Logits from a matrix of its own. (B, T, C) -> (B, T, V)"""

    def __init__(self, s, token: nn.Embedding):
        super().__init__(s.n_embd, token.num_embeddings, bias=False)


def overview(results, folder):
    """Draw test bits per character against the size of the vocabulary, with either head."""
    from common.report import overviews

    rows = [r.row for r in results if not r.row["diverged"]]
    marks = [overviews.Mark(row["arm"].split("-")[0], row["vocab_size"], row["test_bpc"], row)
             for row in rows]
    labels = ("entries of the vocabulary", "test, bits per character")
    return marks and [overviews.points(marks, labels, "One table or two?", folder / "bits")]


WINDOWS = {"char": 32, "bpe-512": 16, "bpe-1024": 13, "bpe-4096": 10}  # as in bpe: 2048 characters a step

heads = {"tied": TiedHead, "untied": UntiedHead}
arms = {f"{kind}-{name}": Arm(partial(GPT, head=head), tokenizer=name, batch_size=windows)
        for name, windows in WINDOWS.items() for kind, head in heads.items()}
lesson = Lesson(arms, Settings(lr=4e-3, warm_up=100), overview=overview)

if __name__ == "__main__":
    run(lesson)
