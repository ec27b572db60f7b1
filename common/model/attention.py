"""How positions gather from one another."""

from torch import Tensor, nn
from torch.nn import functional as F


class MultiHeadAttention(nn.Module):
    """Causal attention through several heads side by side. (B, T, C) -> (B, T, C)

    Taught in 06_transformer/fast_gpt.py. s: n_embd, n_head, dropout.
    """

    def __init__(self, s):
        super().__init__()
        self.n_head, self.dropout = s.n_head, s.dropout
        self.qkv = nn.Linear(s.n_embd, 3 * s.n_embd, bias=False)
        self.projection = nn.Linear(s.n_embd, s.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)  # (B, H, T, D)
        return self.projection(heads.transpose(1, 2).reshape(B, T, C))
