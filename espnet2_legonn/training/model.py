"""A chain as ESPnet's trainer wants to see it: batch in; loss, statistics and weight out."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from espnet2_legonn.model.chain import Chain, Labels, ModuleLoss
from espnet2_legonn.model.seen import Seen
from espnet2_legonn.training.compat import load
from espnet2_legonn.training.tally import Tally


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes of a distributed training."""
    if dist.is_available() and dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def processes() -> int:
    """Number of processes of a distributed training, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class Shards:
    """What the ports of every process see in one batch, so that each process keeps the totals of all.

    Made before the losses, which add the batch of this process; ``own`` then goes through one sum over processes,
    and ``merge`` keeps what came out. All processes hold equal totals at all times: it does not matter that DDP
    broadcasts those of rank 0, and the checkpoint of rank 0 is that of all.

    Args:
        chain: its ports are the same in all processes.
    """

    def __init__(self, chain: Chain) -> None:
        self.ports = [part for part in chain.modules() if isinstance(part, Seen)]
        self.before = [port.totals.clone() for port in self.ports]

    def own(self) -> list[torch.Tensor]:
        """For each port (2 + processes,) float64: slots and tokens, then the longest item at the rank of this process.

        A sum over processes puts the longest items side by side, so their maximum needs no collective of its own.
        """
        parts = []
        for port, before in zip(self.ports, self.before):
            longest = port.totals.new_zeros(processes())
            longest[dist.get_rank()] = port.longest
            parts.append(torch.cat([port.totals - before, longest]))
        return parts

    def merge(self, sums: torch.Tensor) -> None:
        """The sums over processes of ``own``, one after another (ports * (2 + processes),)."""
        for port, before, row in zip(self.ports, self.before, sums.split(2 + processes())):
            port.totals.copy_(before + row[:2])
            port.longest.copy_(row[2:].max())


class LegoNNModel(load("espnet2.train.abs_espnet_model").AbsESPnetModel):  # type: ignore[misc]
    """Equation 9 over a batch.

    Each module's loss is a sum divided by its number of target tokens *in the whole batch of all processes*, so
    training on several devices equals training on one with the summed batch. What ports see is of all processes, too.

    Args:
        chain: the modules.
        amp_dtype: torch.bfloat16 or torch.float16 for autocast (CPU and GPU); None for full precision.
    """

    def __init__(self, chain: Chain, amp_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.chain, self.amp_dtype = chain, amp_dtype
        self.tally = Tally(chain)

    def forward(self, **batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """The input (``speech`` ...) and ``text_<module>``, with ``<name>_lengths``, to loss, stats, weight."""
        x, lengths = self._input(batch)
        labels = {
            module: Labels(batch[f"text_{module}"], batch[f"text_{module}_lengths"])
            for module in self.chain.names
            if f"text_{module}" in batch
        }
        shards = Shards(self.chain) if self.training and processes() > 1 else None
        with torch.autocast(x.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            parts = self.chain.losses(x, lengths, labels)
        return combine(parts, shards, self.tally)

    def collect_feats(self, **batch: Any) -> dict[str, torch.Tensor]:
        """Features for ESPnet's statistics (mean and variance); token input has none."""
        found = self.chain.first.input.statistics(*self._input(batch))
        return {} if found is None else {"feats": found[0], "feats_lengths": found[1]}

    def _input(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        column = self.chain.first.input.data
        assert column is not None
        return batch[column.name], batch[f"{column.name}_lengths"]


def combine(
    parts: dict[str, ModuleLoss], shards: Shards | None = None, tally: Tally | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Loss, statistics and weight of ESPnet's trainer, from the losses of the modules.

    One all_reduce carries all counts, those of the ports in ``shards`` too. ESPnet multiplies by the weight, divides
    by its sum over processes and multiplies by their number; with equal weights what remains is this loss, and DDP's
    mean of gradients over processes is undone by their number below.
    """
    names, pairs = [], []
    for module, part in parts.items():
        names.append(f"loss_{module}")
        pairs.append((part.total.detach(), part.tokens))
        for key, pair in part.stats.items():
            names.append(f"{key}_{module}")
            pairs.append(pair)
    flat = torch.stack([value.detach().double() for pair in pairs for value in pair])
    seen = [] if shards is None else shards.own()
    everything = sum_over_processes(torch.cat([flat, *seen]))
    if shards is not None:
        shards.merge(everything[len(flat) :])
    sums = everything[: len(flat)].view(-1, 2)
    if tally is not None:
        for name, pair in zip(names, sums):
            if name.startswith("infeasible_"):
                tally.add(name.removeprefix("infeasible_"), pair)
    means = (sums[:, 0] / sums[:, 1].clamp(min=1)).float()
    counts = dict(zip(names, sums[:, 1]))
    loss = sum(processes() * part.total / counts[f"loss_{m}"].clamp(min=1).to(part.total) for m, part in parts.items())
    stats = dict(zip(names, means))
    stats["loss"] = sum(stats[f"loss_{module}"] for module in parts)
    last = list(parts)[-1]
    if f"acc_{last}" in stats:
        stats["acc"] = stats.pop(f"acc_{last}")
    assert isinstance(loss, torch.Tensor)
    # ESPnet gathers figures of one dimension over processes, and divides by their weights: 0 would be NaN.
    weight = counts[f"loss_{last}"].clamp(min=1).float().reshape(1)
    figures = torch.cat([weight, *(value.reshape(1).to(weight) for value in stats.values())])
    if processes() == 1:  # ESPnet's reporter asks for each figure: one wait for the device instead of many
        figures = figures.cpu()
    weight, *values = figures.split(1)
    return loss, dict(zip(stats, values)), weight
