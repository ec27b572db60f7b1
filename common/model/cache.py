"""What a layer keeps of the positions it has seen, so that the next token alone has to go through the model.
"""

import torch
from torch import Tensor


class Cache:
    """Keys and values of one layer, (B, H, S, D) each, with room for more than is there yet.

    Taught in 07_tokenizer_gqa/kv_cache.py.
    """

    def __init__(self):
        self.length, self.keys, self.values = 0, None, None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take in keys and values of new positions, (B, H, T, D).

        Returns those of all positions, views of (B, H, S, D).
        """
        end = self.length + k.size(2)
        if self.keys is None or end > self.keys.size(2):
            self.keys = self._grown(self.keys, k, 2 * end)
            self.values = self._grown(self.values, v, 2 * end)
        self.keys[:, :, self.length : end], self.values[:, :, self.length : end] = k, v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grown(self, kept: Tensor | None, new: Tensor, room: int) -> Tensor:
        larger = new.new_empty(*new.shape[:2], room, new.size(3))
        if kept is not None:
            larger[:, :, : self.length] = kept[:, :, : self.length]
        return larger

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values that are there, without the room for more."""
        kept = [] if self.keys is None else [self.keys, self.values]
        return sum(tensor[:, :, : self.length].numel() * tensor.element_size() for tensor in kept)


class Sums:
    """What linear attention keeps of the past, however long it is: the sums of k v^T (B, H, D, D) and of k
    (B, H, 1, D).

    Taught in 08_micro_arch/attention.py.
    """

    def __init__(self):
        self.length, self.products, self.keys = 0, 0.0, 0.0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of new positions as they are: no older ones are kept."""
        return k, v

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Take in the features of new keys, and the values, (B, H, T, D) each."""
        self.products = self.products + keys.mT @ values
        self.keys = self.keys + keys.sum(dim=2, keepdim=True)
        self.length += keys.size(2)

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        kept = [sums for sums in (self.products, self.keys) if isinstance(sums, Tensor)]
        return sum(sums.numel() * sums.element_size() for sums in kept)


class Caches(list):
    """What a model keeps of a text that it goes on with: a part for each layer, and the last token (B, 1)."""

    last: Tensor | None = None


def causal_mask(new: int, all_: int, device=None) -> Tensor:
    """Which of `all_` positions each of the last `new` may look at: itself and all before.

    (T, S), true where it may.
    """
    return torch.ones(new, all_, dtype=torch.bool, device=device).tril(all_ - new)
