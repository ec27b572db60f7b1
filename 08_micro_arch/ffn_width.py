"""Width of the feed-forward layer: how much room should a position have to think?

Previous : 07_tokenizer_gqa/gqa.py
Changes  : FeedForward, wide, without_embeddings, overview
Idea     : the hidden layer is m times as wide as the stream; at equal parameters, a wider one is paid for
           with depth, or with the width of the stream
Source   : Vaswani et al. 2017, arXiv:1706.03762, section 3.3 (m = 4); Kaplan et al. 2020, arXiv:2001.08361,
           figure 5 (it hardly matters)
Expect   : at equal depth, wider is better, by less and less; at equal parameters, no measurable difference
           from 1x to 4x
Seeds    : 1 2 3 4 5
Stairs   : none
"""

from functools import partial

from torch import nn

from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, Settings


class FeedForward(nn.Module):
    """Each position thinks, in a layer `multiple` times as wide as the stream. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings, multiple: float):
        super().__init__()
        hidden = round(multiple * s.n_embd)
        self.up = nn.Linear(s.n_embd, hidden, bias=False)
        self.activation = nn.GELU()
        self.down = nn.Linear(hidden, s.n_embd, bias=False)
        self.down.writes_to_stream = True                              # starts smaller, as in gpt

    def forward(self, x):
        return self.down(self.activation(self.up(x)))                  # (B, T, mC) inside


def wide(multiple: float):
    return partial(GPT, feed_forward=partial(FeedForward, multiple=multiple))


def without_embeddings(row):
    """Parameters of the blocks: without those for tokens (which the head shares) and places."""
    return int(row["params"] - (row["vocab_size"] + row["block_size"]) * row["n_embd"])


def overview(results, folder):
    """Draw test bits per character against the hidden layer's width, at equal depth and equal parameters."""
    from common.report import overviews

    rows = [r.row for r in results if not r.row["diverged"]]
    first = [row for row in rows if row["seed"] == rows[0]["seed"]]
    sizes = [(row["arm"], row["seed"], int(row["n_layer"]), int(row["n_embd"]), without_embeddings(row))
             for row in first]
    header = ["arm", "seed", "n_layer", "n_embd", "parameters_without_embeddings"]
    overviews.write_table(folder / "sizes", header, sizes)
    panels = {"4 layers": DEPTH, "equal parameters": EQUAL}
    marks = [overviews.Mark("a run", widths[row["arm"]], row["test_bpc"], row, panel)
             for row in rows for panel, widths in panels.items() if row["arm"] in widths]
    labels = ("hidden layer / stream", "test, bits per character")
    return marks and [overviews.points(marks, labels, "How wide should a position think?", folder / "bits")]


# Attention has 4 C² parameters, the feed-forward layer 2 m C². At 4x, four layers have 48 C²; 8 layers of 1x
# or 6 of 2x have as many, 10 of 0.5x have 50 C². No number of layers fits 8x: 3 of them, with a stream of 56.
arms = {f"{m:g}x": Arm(wide(m)) for m in (4, 0.5, 1, 2, 8)}            # the first is the baseline
arms |= {f"{m:g}x-equal": Arm(wide(m), n_layer=layers) for m, layers in ((0.5, 10), (1, 8), (2, 6))}
arms["8x-equal"] = Arm(wide(8), n_layer=3, n_embd=56)
DEPTH = {f"{m:g}x": m for m in (0.5, 1, 2, 4, 8)}
EQUAL = {f"{m:g}x-equal": m for m in (0.5, 1, 2, 8)} | {"4x": 4}
lesson = Lesson(arms, MICRO_ARCH, overview=overview)

if __name__ == "__main__":
    run(lesson)
