"""Windows that hold several documents, none of which sees another."""

import torch
from torch import Tensor, nn


def keep_apart(model: nn.Module, end_of_text: int) -> None:
    """Let a GPT attend within documents only, from now on: what comes after an end of text sees nothing of
    what came before it. The end itself is the first token of the document that follows.

    For attention that adds `position.bias` to its scores: flash, gqa and explicit. The mask goes there, so
    weights and their names stay as they are. Taught in 09_pretraining/pretrain.py.
    """
    document: dict[str, Tensor] = {}
    plain = model.position.bias

    def look_at(module: nn.Module, arguments: tuple, named: dict) -> None:
        ids, cache = arguments[0], [*arguments[1:], named.get("cache")][0]
        number = (ids == end_of_text).cumsum(dim=1)                                # (B, T)
        if cache and cache[0].length:                                              # go on from earlier ones
            before = document["number"]
            number = torch.cat([before, before[:, -1:] + number], dim=1)
        document["number"] = number

    def bias(T: int, S: int) -> Tensor:
        number = document["number"][:, -S:]
        others = number[:, None, -T:, None] != number[:, None, None, :]            # (B, 1, T, S)
        known = plain(T, S)
        scores = torch.zeros(1, device=others.device) if known is None else known  # (H, T, S), or the same
        return scores.masked_fill(others, -torch.inf)                              # (B, 1 or H, T, S)

    model.register_forward_pre_hook(look_at, with_kwargs=True)
    model.position.bias = bias
