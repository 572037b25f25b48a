"""Multi-head attention on PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.model.dropout import dropout
from espnet2_legonn.model.precision import Int8Linear


class MultiHeadAttention(nn.Module):
    """MHA(q, k, v) of equations 10, 14 and 15. Parameter names are ESPnet's, so weights can be exchanged.

    Args:
        size: width D; a multiple of ``heads``.
        heads: number of heads.
        dropout: on attention weights.
    """

    def __init__(self, size: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.size, self.heads, self.dropout = size, heads, dropout
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
        keys, values = joined(self.linear_k, self.linear_v)(source).chunk(2, -1)
        return self._split(keys), self._split(values)

    def _attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, causal: bool
    ) -> torch.Tensor:
        rate = self.dropout if self.training else 0.0
        if rate and q.device.type == "cpu":  # the fused kernel has no dropout there
            heads = _with_dropout(q, k, v, mask, causal, rate)
        else:
            heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate, is_causal=causal)
        return self.linear_out(heads.transpose(1, 2).flatten(2))

    def forward(
        self,
        query: torch.Tensor,
        source: torch.Tensor,
        mask: torch.Tensor | None = None,
        causal: bool = False,
    ) -> torch.Tensor:
        """(B, Q, D) queries over (B, S, D) source -> (B, Q, D); ``mask`` is True where a key may be read."""
        if query is source:
            qkv = joined(self.linear_q, self.linear_k, self.linear_v)(query)
            q, k, v = (self._split(x) for x in qkv.chunk(3, -1))
        else:
            q, (k, v) = self._split(self.linear_q(query)), self.keys_values(source)
        return self._attend(q, k, v, mask, causal)

    def weights(self, query: torch.Tensor, source: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(B, heads, Q, S): how much of each step of the source every query reads, in float32."""
        scores = self._split(self.linear_q(query)) @ self.keys_values(source)[0].transpose(-2, -1)
        scores = scores.float() * (self.size // self.heads) ** -0.5
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)


def joined(*linears: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Several layers as one: (..., D) to what each makes of it, side by side; by one product where all are plain."""
    if all(type(linear) is Int8Linear for linear in linears):
        return Int8Linear.join(cast("tuple[Int8Linear, ...]", linears))
    if not all(type(linear) is nn.Linear for linear in linears):  # an adapter has a forward of its own
        return lambda x: torch.cat([linear(x) for linear in linears], -1)
    weight = torch.cat([cast(torch.Tensor, linear.weight) for linear in linears])
    bias = torch.cat([cast(torch.Tensor, linear.bias) for linear in linears])
    return lambda x: F.linear(x, weight, bias)


def _with_dropout(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, causal: bool, rate: float
) -> torch.Tensor:
    """``F.scaled_dot_product_attention`` with dropout on the weights, a step at a time."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return dropout(scores.softmax(-1), rate) @ v
