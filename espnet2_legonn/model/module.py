"""Ports, and the two kinds of module: encoder modules and decoder modules."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.attention import KVCache
from espnet2_legonn.model.ctc import CTCInterface
from espnet2_legonn.model.interface import Interface
from espnet2_legonn.model.length_control import LengthController
from espnet2_legonn.model.masks import key_mask
from espnet2_legonn.model.parts.ingestor import Ingestor
from espnet2_legonn.model.parts.speech import SpeechInput
from espnet2_legonn.model.parts.tokens import TokenInput
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.transformer import CrossTransformer, TransformerEncoder


class StatesInput(nn.Module):
    """Hidden states of the module before, as in an ordinary encoder-decoder model (the paper's baseline)."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, D), (B,) -> the same."""
        return x, lengths


class Port(NamedTuple):
    """One side of a module.

    Args:
        kind: ``speech``, ``tokens``, ``marginals``, ``states`` or ``text``.
        vocab: of tokens, marginals and text; of states, that of their auxiliary CTC, if they have one.
        size: width of states.
    """

    kind: str
    vocab: Vocabulary | None = None
    size: int | None = None


Input = SpeechInput | TokenInput | Ingestor | StatesInput


class EncoderModule(nn.Module):
    """Input -> body -> [length controller] -> CTC interface (left side of Figure 2).

    ::

        hidden states -.-- CTC interface --> marginals, loss        (LegoNN: these are read)
                        `-----------------> states                  (baseline: these; CTC may help in training)

    Args:
        ports: input port and output port (marginals, or states for the baseline).
        input: input layer or ingestor.
        body: transformer encoder.
        length_control: or None: as many slots as input steps.
        interface: CTC interface; beside states it is an auxiliary, or None.
        ctc_weight: weight of this module's CTC loss; 0 trains it ungrounded (Table X).
    """

    def __init__(
        self,
        ports: tuple[Port, Port],
        input: Input,
        body: TransformerEncoder,
        length_control: LengthController | None,
        interface: CTCInterface | None,
        ctc_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.ports, self.ctc_weight = ports, ctc_weight
        self.input, self.body, self.length_control, self.interface = input, body, length_control, interface

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Input of the port's kind, (B,) -> log-probabilities (B, K, V) or states (B, K, D), and (B,) slots."""
        x, lengths = self.input(x, lengths)
        x = self.body(x, lengths)
        if self.length_control is not None:
            x, lengths = self.length_control(x, lengths)
        writes = self.interface if self.ports[1].kind == "marginals" else None
        return (x if writes is None else writes(x)), lengths

    def log_probs(self, output: torch.Tensor) -> torch.Tensor | None:
        """What ``forward`` returned, as log-probabilities (B, K, V) of the interface; None where there is none."""
        if self.interface is None:
            return None
        return output if self.ports[1].kind == "marginals" else self.interface(output)

    @property
    def share_behind(self) -> float:
        """Share of the loss of all modules behind: beside an auxiliary CTC of weight w it is 1 - w, else 1."""
        return 1.0 - self.ctc_weight if self.ports[1].kind == "states" else 1.0


class DecoderState:
    """Caches of one batch of hypotheses: ``beam`` rows for each utterance, all at the same length."""

    def __init__(self, own: list[KVCache], source: list[KVCache], source_mask: torch.Tensor) -> None:
        self.own, self.source, self.source_mask, self.length = own, source, source_mask, 0

    def select(self, rows: torch.Tensor, utterances: torch.Tensor | None = None) -> None:
        """Keep hypotheses ``rows`` (N',) in this order and, if given, utterances (B',)."""
        for cache in self.own:
            cache.select(rows)
        if utterances is not None:
            for cache in self.source:
                cache.select(utterances)
            self.source_mask = self.source_mask.index_select(0, utterances)


class DecoderModule(nn.Module):
    """Ingestor -> transformer decoder -> next-token distribution (right side of Figure 2, equation 7).

    Args:
        ports: input port (marginals, or states for the baseline) and text port.
        input: ingestor, or StatesInput.
        body: decoder blocks.
        size: width D.
        dropout: on embedded tokens.
        label_smoothing: of the cross-entropy.
        tie: decoder embedding and output are one matrix; with a WEmb ingestor of receptive field 1 over the same
            vocabulary, its table too. Never across modules: that would not be portable.
    """

    def __init__(
        self,
        ports: tuple[Port, Port],
        input: Input,
        body: CrossTransformer,
        size: int,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        tie: bool = True,
    ) -> None:
        super().__init__()
        self.ports, self.input, self.body = ports, input, body
        self.label_smoothing = label_smoothing
        assert ports[1].vocab is not None
        vocab_size = len(ports[1].vocab)
        self.sos_eos = vocab_size - 1
        self.embed = nn.Embedding(vocab_size, size)
        nn.init.normal_(self.embed.weight, std=size**-0.5)
        self.output = nn.Linear(size, vocab_size, bias=False)
        if tie:
            self.output.weight = self.embed.weight
            reader = getattr(input, "embed", None)
            table = getattr(reader, "weight", None)
            same = ports[0].vocab == ports[1].vocab
            if same and reader is not None and table is not None and table.shape == self.embed.weight.shape:
                reader.weight = self.embed.weight
        else:
            nn.init.normal_(self.output.weight, std=size**-0.5)
        self.positions = SinusoidalPositions(size)
        self.dropout, self.scale = nn.Dropout(dropout), size**0.5

    def _embed(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        y = self.embed(tokens) * self.scale
        return self.dropout(self.positions(y, self.embed.weight.dtype, start))

    def ingest(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Input of the port's kind to memory (B, S, D), (B,)."""
        return self.input(x, lengths)

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor, label_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher forcing: (B, L) labels -> logits (B, L+1, V) and targets (B, L+1), -1 beyond the end."""
        memory, memory_lengths = self.ingest(x, lengths)
        tokens = F.pad(labels.clamp(min=0), (1, 0), value=self.sos_eos)
        targets = F.pad(labels, (0, 1)).scatter(1, label_lengths.unsqueeze(1), self.sos_eos)
        beyond = torch.arange(targets.shape[1], device=targets.device) > label_lengths.unsqueeze(1)
        y = self.body(self._embed(tokens), memory, memory_lengths)
        return self.output(y), targets.masked_fill(beyond, -1)

    def start(self, x: torch.Tensor, lengths: torch.Tensor) -> DecoderState:
        """Ingest once and prepare the caches."""
        memory, memory_lengths = self.ingest(x, lengths)
        own = [KVCache() for _ in self.body.decoders]
        return DecoderState(own, self.body.fill(memory), key_mask(memory_lengths, memory.shape[1]))

    def step(self, tokens: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Last tokens (N,) -> log-probabilities of the next ones (N, V); advances the state."""
        y = self._embed(tokens.unsqueeze(1), state.length)
        state.length += 1
        y = self.body.step(y, state.own, state.source, state.source_mask)
        logits = self.output(y).squeeze(1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


Module = EncoderModule | DecoderModule


def parts_of(module: Module) -> list[str]:
    """Names of submodules that hold weights, ``input`` and ``input.embed`` for instance."""
    found: dict[str, None] = {}
    for key in module.state_dict():
        words = key.split(".")
        found.update(dict.fromkeys(".".join(words[:i]) for i in range(1, len(words))))
    return list(found)


def learns(module: Module) -> bool:
    """Whether any of its weights is trained; if none is, it keeps the contract it was trained with."""
    return any(p.requires_grad for p in module.parameters())


def produced(module: Module) -> Interface | None:
    """The interface a module writes (or has beside its states), with what it saw in training."""
    if not isinstance(module, EncoderModule) or module.interface is None:
        return None
    vocab, seen = module.ports[1].vocab, module.interface.seen
    assert vocab is not None
    return Interface(vocab, module.ctc_weight > 0, seen.slots_per_token, int(seen.longest) or None)


def consumed(module: Module) -> Interface | None:
    """The interface a module reads, with what it saw in training."""
    if not isinstance(module.input, Ingestor):
        return None
    vocab, seen = module.ports[0].vocab, module.input.seen
    assert vocab is not None
    return Interface(vocab, True, seen.slots_per_token, int(seen.longest) or None)
