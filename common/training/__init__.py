"""Training: the loop, and what happens around its steps (record, checkpoint, exact scores, memory, threads).

Others take from here `train`, the loop of the course, and `score`, the exact score of a split.
"""

from common.training.loop import train
from common.training.metrics import score

__all__ = ["score", "train"]
