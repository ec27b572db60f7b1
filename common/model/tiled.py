"""Attention block by block: of all scores only one block is there at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from common.model.position import Position


class Tiled(torch.autograd.Function):
    """Causal attention with an online softmax over blocks, and its own way back.

    `Tiled.apply(q, k, v, position, size)`; q: the last T of S places, (B, H, T, D); k, v: (B, H, S, D); size:
    of a block. -> (B, H, T, D). Taught in 08_micro_arch/attention.py.
    Source: Dao et al. 2022, arXiv:2205.14135, algorithm 1; Dao 2023, arXiv:2307.08691.
    """

    @staticmethod
    def blocks(q: Tensor, k: Tensor, position: Position, size: int) -> Iterator[tuple[slice, slice, Tensor]]:
        """Pairs of blocks that see one another: (rows, columns, scores (B, H, size, size)), row by row."""
        T, S, scale = q.size(2), k.size(2), q.size(-1) ** -0.5
        for top in range(0, T, size):
            rows = slice(top, min(top + size, T))
            last = S - T + rows.stop
            bias = position.bias(rows.stop - rows.start, last)         # (H, rows, last)
            for left in range(0, last, size):
                columns = slice(left, min(left + size, last))
                scores = q[:, :, rows] @ k[:, :, columns].mT * scale
                scores = scores if bias is None else scores + bias[:, :, columns].to(scores)
                place = torch.arange(rows.start, rows.stop, device=q.device)[:, None] + S - T
                future = torch.arange(columns.start, columns.stop, device=q.device) > place
                yield rows, columns, scores.masked_fill(future, -torch.inf)

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, position: Position, size: int) -> Tensor:
        most = q.new_full(q.shape[:3], -torch.inf)                     # (B, H, T): the largest score so far
        total, out = torch.zeros_like(most), torch.zeros_like(q)       # of weights, and of weighted v
        for rows, columns, scores in Tiled.blocks(q, k, position, size):
            larger = torch.maximum(most[:, :, rows], scores.amax(dim=-1))
            shrink = (most[:, :, rows] - larger).exp()                 # what was summed so far is too large
            weights = (scores - larger[..., None]).exp()
            total[:, :, rows] = total[:, :, rows] * shrink + weights.sum(dim=-1)
            out[:, :, rows] = out[:, :, rows] * shrink[..., None] + weights @ v[:, :, columns]
            most[:, :, rows] = larger
        out = out / total[..., None]
        ctx.save_for_backward(q, k, v, out, most + total.log())        # enough to make the weights again
        ctx.position, ctx.size = position, size
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, log_total = ctx.saved_tensors
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        mean = (d_out * out).sum(dim=-1, keepdim=True)                 # (B, H, T, 1)
        for rows, columns, scores in Tiled.blocks(q, k, ctx.position, ctx.size):
            weights = (scores - log_total[:, :, rows, None]).exp()     # those of the softmax
            d_weights = d_out[:, :, rows] @ v[:, :, columns].mT
            d_scores = weights * (d_weights - mean[:, :, rows]) * q.size(-1) ** -0.5
            dv[:, :, columns] += weights.mT @ d_out[:, :, rows]
            dq[:, :, rows] += d_scores @ k[:, :, columns]
            dk[:, :, columns] += d_scores.mT @ q[:, :, rows]
        return dq, dk, dv, None, None
