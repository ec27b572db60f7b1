"""Texts and lists of names, cut into splits, and as tokens: what a run learns from and is measured on.

Others take from here `text_data` and `names_data`, which give the data of a run.
"""

from common.data.splits import Data, NameSplit, TextSplit, names_data, text_data

__all__ = ["Data", "NameSplit", "TextSplit", "names_data", "text_data"]
