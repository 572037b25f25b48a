"""Products in fewer bits, for decoding alone: weights are converted once, in a copy of a module.

Distributions and features stay in float32. (Autocast would convert the weights at every step.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TypeVar, cast

import torch
from torch import nn

from espnet2_legonn.errors import ConfigError

DTYPES = ("float32", "bfloat16", "float16", "int8")
# Inputs have 7 bits: CPUs without VNNI add two products in 16 bits, where 8 bits times 8 bits would be cut off, and
# an answer should not depend on the CPU.
_MIDDLE, _STEPS = 64, 63

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Int8Linear(nn.Module):
    """A linear layer with 8 bits for a weight and 7 for an input; sums are exact, the output is float32.

    Each row of weights and each row of inputs has a scale of its own, so that a row does not depend on its batch.

    Args:
        weight: (out, in) per-channel int8 (``torch.quantize_per_channel``); bias: (out,) or None.

    Raises:
        ConfigError: PyTorch has no int8 products for this machine.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.quantized, self.bias = weight, bias
        try:
            self._packed = torch.ops.quantized.linear_prepack(weight, None)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"dtype: int8 is not to be had on this machine ({reason}); give float32") from None
        self._joint: Int8Linear | None = None

    @classmethod
    def of(cls, linear: nn.Linear) -> Int8Linear:
        """From a layer of floats."""
        weight = linear.weight.detach().float()
        scales = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(weight), dtype=torch.long)
        quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        return cls(quantized, None if linear.bias is None else linear.bias.detach().float())

    @classmethod
    def join(cls, layers: Sequence[Int8Linear]) -> Int8Linear:
        """Layers that read the same as one, outputs side by side; made once."""
        first = layers[0]
        if first._joint is None:
            weights = [layer.quantized for layer in layers]
            scales = torch.cat([w.q_per_channel_scales() for w in weights])
            zeros = torch.cat([w.q_per_channel_zero_points() for w in weights])
            values = torch.cat([w.int_repr() for w in weights])
            weight = torch._make_per_channel_quantized_tensor(values, scales, zeros, 0)
            # Outside of the module tree: it is no layer of its own.
            object.__setattr__(first, "_joint", cls(weight, torch.cat([cast(torch.Tensor, x.bias) for x in layers])))
        assert first._joint is not None
        return first._joint

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        rows = x.float().flatten(0, -2)
        most = rows.abs().amax(1, keepdim=True).clamp(min=1e-30)
        # NaN has no integer; it comes back with its row's scale.
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / most, 1 / _STEPS, _MIDDLE, self._packed
        ).mul_(most)
        if self.bias is not None:
            y.add_(self.bias)
        return cast(torch.Tensor, y.unflatten(0, x.shape[:-1]))


def no_dtype(dtype: str) -> str:
    """What is wrong with a name that is none of ``DTYPES``."""
    return f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}"


def converted(module: AnyModule, dtype: str) -> AnyModule:
    """A copy for decoding whose products are made in ``dtype``; what is not converted is shared.

    Raises:
        ConfigError: no such dtype, or int8 on a GPU.
    """
    if dtype not in DTYPES:
        raise ConfigError(no_dtype(dtype))
    parts = list(_modules(module))
    shared = {id(tensor): tensor for part in parts for tensor in (*part.parameters(False), *part.buffers(False))}
    twin = copy.deepcopy(module, shared)
    if dtype in ("bfloat16", "float16"):
        _to_half(twin, getattr(torch, dtype))
    elif dtype == "int8":
        if any(parameter.device.type != "cpu" for parameter in module.parameters()):
            raise ConfigError("dtype: int8 is made for CPUs; give bfloat16 on this device")
        _to_int8(twin)
    return twin.eval()


def _modules(module: nn.Module) -> Iterator[nn.Module]:
    """All modules, also those whose weights are not held (``hf_models.Borrowed``)."""
    for part in module.modules():
        yield part
        for apart in getattr(part, "_apart", ()):
            yield from apart.modules()


def _to_half(module: nn.Module, dtype: torch.dtype) -> None:
    """All weights; buffers (filters, means, what ports saw) stay."""
    done: dict[int, nn.Parameter] = {}  # tied matrices stay tied
    for part in _modules(module):
        if isinstance(part, nn.modules.batchnorm._BatchNorm):  # PyTorch wants its weights as its statistics are
            continue
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                if id(parameter) not in done:
                    done[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
                part._parameters[name] = done[id(parameter)]


def _to_int8(module: nn.Module) -> None:
    """Linear layers; tables, convolutions and normalisation stay in float32.

    Raises:
        ConfigError: a part does not take other layers.
    """
    parts = list(_modules(module))
    if not all(getattr(part, "int8", True) for part in parts):
        raise ConfigError("dtype: int8 is not for language models of transformers, nor for WavLM; give bfloat16")
    for part in parts:
        for name, child in part.named_children():
            if type(child) is nn.Linear:
                setattr(part, name, Int8Linear.of(child))
