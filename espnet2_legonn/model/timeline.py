"""Where in the sound the slots of an interface lie: through collapsed runs and length controllers, back to seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from typing_extensions import Self

from espnet2_legonn.model.attention import MultiHeadAttention
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.model.module import EncoderModule, Module
from espnet2_legonn.model.parts.ingestor import runs

# Steps around a slot's share of the sound that it is looked for in (a standard deviation), and the least weight.
NEAR, _FLOOR = 8.0, 1e-6


@dataclass(frozen=True)
class Spans:
    """Of each slot the sound it stands for, in seconds from the beginning of its item.

    Args:
        start, end: (B, K).
        exact: slots are tied to time: no length controller stands between them and the sound.
    """

    start: torch.Tensor
    end: torch.Tensor
    exact: bool = True


@dataclass
class Timeline:
    """Watches one ``encode`` of a chain that reads sound, as a context: ``with Timeline(chain) as timeline: ...``.

    Slots are in the order of time, steps of 40 ms for instance. A run that is collapsed lies where its slots lie.
    A slot behind a length controller lies where its cross-attention reads (``attended``): that is an estimate.
    """

    chain: Chain
    _read: dict[MultiHeadAttention, tuple[Any, ...]] = field(default_factory=dict)
    _hooks: list[RemovableHandle] = field(default_factory=list)

    def __enter__(self) -> Self:
        for module in self.chain:
            for attention in source_attentions(module):
                self._hooks.append(attention.register_forward_pre_hook(self._keep))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, attention: torch.nn.Module, read: tuple[Any, ...]) -> None:
        assert isinstance(attention, MultiHeadAttention)
        self._read[attention] = read

    @torch.inference_mode()
    def spans(self, lengths: torch.Tensor, found: Mapping[str, Marginals]) -> Spans | None:
        """Of the slots of the last interface; None if the chain reads no sound or has no interface.

        Args:
            lengths: (B,) of the chain's input; found: marginals that were made of it.
        """
        second = self.chain.first.input.step_seconds
        if second is None or not found:
            return None
        steps = self.chain.first.input.steps(lengths)
        start = second * torch.arange(int(steps.max()), device=lengths.device).expand(len(lengths), -1)
        spans, before = Spans(start, start + second), None
        for name, module in zip(self.chain.names, self.chain):
            if not isinstance(module, EncoderModule):
                break
            if module.input.collapse_slots and before is not None:
                spans = _collapsed(spans, before)
            if module.length_control is not None:
                attentions = source_attentions(module)
                weights = [a.weights(*self._read[a]) for a in attentions]
                steps = self._read[attentions[0]][2].flatten(1).sum(1)  # of the mask over what is read
                spans = _attended(spans, weights, steps, module.length_control.slots(steps))
            before = found.get(name)
            if before is not None and before is list(found.values())[-1]:
                break
        return spans


def source_attentions(module: Module) -> list[MultiHeadAttention]:
    """Those of a length controller that read the sound."""
    control = module.length_control if isinstance(module, EncoderModule) else None
    return [] if control is None else [block.src_attn for block in control.blocks.cross_blocks()]


def _collapsed(spans: Spans, marginals: Marginals) -> Spans:
    """Of runs of slots: from the first's start to the last's end."""
    place, kept, lengths = runs(marginals.log_probs.argmax(-1), marginals.lengths)
    longest = max(int(lengths.max()), 1)
    place = place.masked_fill(~kept, longest)
    empty = spans.start.new_zeros(len(place), longest + 1)
    start = empty.scatter_reduce(1, place, spans.start, "amin", include_self=False)
    end = empty.scatter_reduce(1, place, spans.end, "amax", include_self=False)
    return Spans(start[:, :longest], end[:, :longest], spans.exact)


def _attended(spans: Spans, weights: list[torch.Tensor], steps: torch.Tensor, slots: torch.Tensor) -> Spans:
    """Of slots that read steps: the mean place of what all heads read together, near the slot's share of the sound.

    Heads look far around, so that slots evenly over the sound are a better guess than any of them alone. Both together
    are the best that was found (docs/speech.md).

    Args:
        weights: of each block, (B, heads, K, T); steps: (B,) T of each item; slots: (B,) K of each.
    """
    logs = torch.stack([(w + _FLOOR).log().mean(1) for w in weights]).mean(0)
    places = torch.arange(logs.shape[2], device=logs.device)
    even = (torch.arange(logs.shape[1], device=logs.device) + 0.5) * (steps / slots.clamp(min=1)).unsqueeze(1)
    logs = logs - (places + 0.5 - even.unsqueeze(-1)).square() / (2 * NEAR**2)
    read = logs.masked_fill(places >= steps.view(-1, 1, 1), -torch.inf).softmax(-1)
    middle = (spans.start + spans.end) / 2
    place = (read.to(middle) @ middle.unsqueeze(-1)).squeeze(-1).cummax(1).values  # slots are in the order of time
    half = (spans.end - spans.start)[:, :1] / 2
    return Spans(place - half, place + half, exact=False)
