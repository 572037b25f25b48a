"""A chain as ESPnet's trainer wants to see it: batch in; loss, statistics and weight out."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from espnet2_legonn._compat import load
from espnet2_legonn.chain import Chain, Labels, ModuleLoss
from espnet2_legonn.decode import KINDS
from espnet2_legonn.modules.speech_input import SpeechInput


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes of a distributed training."""
    if dist.is_available() and dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


class LegoNNModel(load("espnet2.train.abs_espnet_model").AbsESPnetModel):  # type: ignore[misc]
    """Equation 9 over a batch.

    Each module's loss is a sum divided by its number of target tokens *in the whole batch of all processes*, so
    training on several devices equals training on one with the summed batch.

    Args:
        chain: the modules.
        amp_dtype: torch.bfloat16 or torch.float16 for autocast (CPU and GPU); None for full precision.
    """

    def __init__(self, chain: Chain, amp_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.chain, self.amp_dtype = chain, amp_dtype

    def forward(self, **batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """``speech`` or ``src_text`` and ``text_<module>``, each with ``<name>_lengths``, to loss, stats, weight."""
        _, name, _ = KINDS[self.chain.input_kind]
        x, lengths = batch[name], batch[f"{name}_lengths"]
        labels = {
            module: Labels(batch[f"text_{module}"], batch[f"text_{module}_lengths"])
            for module in self.chain.names
            if f"text_{module}" in batch
        }
        with torch.autocast(x.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            parts = self.chain.losses(x, lengths, labels)
        return combine(parts)

    def collect_feats(self, **batch: Any) -> dict[str, torch.Tensor]:
        """Features for ESPnet's statistics (mean and variance); token input has none."""
        first = self.chain.first.input
        if not isinstance(first, SpeechInput):
            return {}
        features, lengths = first.features(batch["speech"], batch["speech_lengths"])
        return {"feats": features, "feats_lengths": lengths}


def combine(parts: dict[str, ModuleLoss]) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Loss, statistics and weight of ESPnet's trainer, from the losses of the modules.

    One all_reduce carries all counts. ESPnet multiplies by the weight, divides by its sum over processes and
    multiplies by their number; with equal weights what remains is this loss, and DDP's mean of gradients over
    ``world`` processes is undone by ``world`` below.
    """
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    names, pairs = [], []
    for module, part in parts.items():
        names.append(f"loss_{module}")
        pairs.append((part.total.detach(), part.tokens))
        for key, pair in part.stats.items():
            names.append(f"{key}_{module}")
            pairs.append(pair)
    flat = torch.stack([value.detach().double() for pair in pairs for value in pair])
    sums = sum_over_processes(flat).view(-1, 2)
    means = (sums[:, 0] / sums[:, 1].clamp(min=1)).float()
    counts = dict(zip(names, sums[:, 1]))
    loss = sum(world * part.total / counts[f"loss_{m}"].clamp(min=1).to(part.total) for m, part in parts.items())
    stats = dict(zip(names, means))
    stats["loss"] = sum(stats[f"loss_{module}"] for module in parts)
    last = list(parts)[-1]
    if f"acc_{last}" in stats:
        stats["acc"] = stats.pop(f"acc_{last}")
    assert isinstance(loss, torch.Tensor)
    # ESPnet gathers figures of one dimension over processes.
    return loss, {name: value.reshape(1) for name, value in stats.items()}, counts[f"loss_{last}"].float().reshape(1)
