"""Multi-head attention on PyTorch's fused kernel, with key/value caches for decoding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class KVCache:
    """Keys and values of one attention layer, (N, heads, S, D/heads), grown a step at a time.

    Cross-attention fills it once per utterance; self-attention appends. Rows are re-ordered by ``select``.
    """

    def __init__(self, keys: torch.Tensor | None = None, values: torch.Tensor | None = None) -> None:
        self.keys, self.values = keys, values

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add positions (N, heads, 1, D/heads); all so far are returned."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)
        self.keys, self.values = keys, values
        return keys, values

    def select(self, rows: torch.Tensor) -> None:
        """Keep the rows (N',) in this order."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)


class MultiHeadAttention(nn.Module):
    """MHA(q, k, v) of equations 10, 14 and 15. Parameter names are ESPnet's, so weights can be exchanged.

    Args:
        size: width D; a multiple of ``heads``.
        heads: number of heads.
        dropout: on attention weights.
    """

    def __init__(self, size: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.linear_q = nn.Linear(size, size)
        self.linear_k = nn.Linear(size, size)
        self.linear_v = nn.Linear(size, size)
        self.linear_out = nn.Linear(size, size)
        for linear in (self.linear_q, self.linear_k, self.linear_v, self.linear_out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, S, D) -> keys and values (B, heads, S, D/heads)."""
        return self._split(self.linear_k(source)), self._split(self.linear_v(source))

    def attend(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None = None,
        causal: bool = False,
    ) -> torch.Tensor:
        """(B, Q, D) queries over prepared keys and values; ``mask`` is True where a key may be read."""
        heads = F.scaled_dot_product_attention(
            self._split(self.linear_q(query)),
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        return self.linear_out(heads.transpose(1, 2).flatten(2))

    def forward(
        self,
        query: torch.Tensor,
        source: torch.Tensor,
        mask: torch.Tensor | None = None,
        causal: bool = False,
    ) -> torch.Tensor:
        """(B, Q, D) queries over (B, S, D) source -> (B, Q, D)."""
        return self.attend(query, *self.keys_values(source), mask, causal)
