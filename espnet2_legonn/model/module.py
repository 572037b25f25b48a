"""Ports, and the two kinds of module: encoder modules and decoder modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.bodies import BODIES, BodyConfig
from espnet2_legonn.model.bridge import text_loss
from espnet2_legonn.model.description import LengthControlConfig, ModuleConfig, parse_ratio
from espnet2_legonn.model.dropout import Dropout
from espnet2_legonn.model.interface import Interface
from espnet2_legonn.model.language_body import LanguageModelStepper
from espnet2_legonn.model.length_control import LengthController
from espnet2_legonn.model.losses import Labels, ModuleLoss, cross_entropy
from espnet2_legonn.model.parts import InputPart, OutputPart
from espnet2_legonn.model.parts.hf_embedding import HFEmbeddingInput
from espnet2_legonn.model.parts.ingestor import Embedded
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.seen import Seen
from espnet2_legonn.model.stepping import Stepper


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


Vocabularies = Mapping[str, Vocabulary]
# What the module before wrote; Embedded, where its vocabulary is large.
Read = torch.Tensor | Embedded


def _input(config: ModuleConfig, vocabs: Vocabularies) -> tuple[Port, InputPart]:
    """The input part of a module, fresh, and its port."""
    name = config.source_vocab
    vocab = None if name is None else vocabs[name]
    part = config.reads.make(config.input, config.body, vocab, f"{config.name}.input")
    part.vocab = vocab
    return Port(part.kind, vocab, config.body.size if part.kind == "states" else None), part


class EncoderModule(nn.Module):
    """Input -> body -> [length controller] -> CTC interface (left side of Figure 2).

    ::

        hidden states -.-- CTC interface --> marginals, loss        (LegoNN: these are read)
                        `-----------------> states                  (baseline: these; CTC may help in training)

    Args:
        config: its description; its length ratio is known.
        vocabs: by the names that it uses.

    Raises:
        ConfigError: BeamConv's k exceeds the vocabulary, or the length ratio is still to be derived.
    """

    def __init__(self, config: ModuleConfig, vocabs: Vocabularies) -> None:
        super().__init__()
        self.config, size = config, config.body.size
        vocab = None if config.target_vocab is None else vocabs[config.target_vocab]
        # Weights are drawn in this order, so that a seed begins where it always did.
        reads, part = _input(config, vocabs)
        control = _length_control(config.name, config.body, config.length_control)
        output: OutputPart = config.writes.make(config.output, size, vocab)
        body = BODIES[config.body.type](config.body)
        self.input, self.body, self.length_control, self.interface = part, body, control, output
        self.ports = (reads, Port(output.kind, vocab, size if output.kind == "states" else None))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Input of the port's kind, (B,) -> log-probabilities (B, K, V) or states (B, K, D), and (B,) slots."""
        x, lengths = self.states(x, lengths)
        return self.interface(x), lengths

    def states(
        self,
        x: Read,
        lengths: torch.Tensor,
        kept: list[torch.Tensor] | None = None,
        labels: Labels | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the output part reads: (B, K, D), and (B,) slots.

        Args:
            kept: log-probabilities (B, K, V) between the blocks go there, if a loss is to read them.
            labels: of which training may show some (``OutputPart.glimpses``).
        """
        read, steps = self.input(x, lengths)
        return self.stacks(read, steps, kept, labels)

    def stacks(
        self,
        x: torch.Tensor,
        steps: torch.Tensor,
        kept: list[torch.Tensor] | None = None,
        labels: Labels | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``states``, behind the input part: from (B, T, D) and (B,)."""
        between = self.interface.between(kept)
        more = [] if between is None else [between]
        if self.length_control is None:
            return self.body(x, steps, *more), steps
        read, shown = self.body(x, steps), None
        if labels is not None and self._glances:
            with torch.no_grad():
                first, slots = self.length_control(read, steps, self.interface.between(None))
            shown = self.interface.glimpses(first, slots, labels)
        return self.length_control(read, steps, between, shown)

    @property
    def _glances(self) -> bool:
        """Whether labels are shown: in training, to what learns."""
        return self.training and self.interface.glancing > 0 and learns(self)

    @property
    def passes_twice(self) -> bool:
        """Whether a batch goes through it twice: in training, where two draws of dropout and masks must agree."""
        return self.training and self.interface.consistency > 0 and learns(self)


def _length_control(name: str, body: BodyConfig, control: LengthControlConfig | None) -> LengthController | None:
    if control is None:
        return None
    if control.ratio is None:
        raise ConfigError(
            f"{name}.length_control: slots_per_token needs the data's lengths to become a ratio; "
            "run stage 10 (statistics) first, or give ratio"
        )
    ratio = parse_ratio(control.ratio)
    blocks = body.blocks(control.num_blocks)
    return LengthController(blocks, (ratio.numerator, ratio.denominator), control.max_length, control.aligned)


class DecoderState:
    """Hypotheses that are being written: ``beam`` rows for each utterance, all at the same length."""

    def __init__(self, body: Stepper) -> None:
        self.body, self.length = body, 0

    def select(self, rows: torch.Tensor, utterances: torch.Tensor | None = None) -> None:
        """Keep hypotheses ``rows`` (N',) in this order and, if given, utterances (B',)."""
        self.body.select(rows, utterances)


class DecoderModule(nn.Module):
    """Ingestor -> transformer decoder -> next-token distribution (right side of Figure 2, equation 7).

    With ``tie`` the decoder's embedding and output are one matrix; with a WEmb ingestor of receptive field 1 over the
    same vocabulary, its table too. Never across modules: that would not be portable.

    Args:
        config: its description.
        vocabs: by the names that it uses.

    Raises:
        ConfigError: BeamConv's k exceeds the vocabulary.
    """

    def __init__(self, config: ModuleConfig, vocabs: Vocabularies) -> None:
        super().__init__()
        vocab = vocabs[config.output.vocab]
        self.config, self.label_smoothing, self.sos_eos = config, config.output.label_smoothing, len(vocab) - 1
        self.ports = (self._make(vocab, vocabs), Port("text", vocab))

    def _make(self, vocab: Vocabulary, vocabs: Vocabularies) -> Port:
        """Its parts; returns the port that it reads."""
        config, size, output = self.config, self.config.body.size, self.config.output
        reads, self.input = _input(config, vocabs)
        self.body = BODIES[config.body.type](config.body)
        self.embed = nn.Embedding(len(vocab), size)
        nn.init.normal_(self.embed.weight, std=size**-0.5)
        self.output = nn.Linear(size, len(vocab), bias=output.bias)
        if output.tie:
            self.output.weight = self.embed.weight
            if reads.vocab == vocab:
                self.input.tie(self.embed.weight)
        else:
            nn.init.normal_(self.output.weight, std=size**-0.5)
        self.positions = SinusoidalPositions(size)
        self.dropout, self.scale = Dropout(config.body.dropout), size**0.5
        return reads

    def _embed(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        y = self.embed(tokens) * self.scale
        return self.dropout(self.positions(y, self.embed.weight.dtype, start))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """States (..., D) to next tokens (..., V)."""
        return self.output(states)

    def ingest(self, x: Read, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Input of the port's kind to memory (B, S, D), (B,)."""
        return self.input(x, lengths)

    def forward(
        self, x: Read, lengths: torch.Tensor, labels: torch.Tensor, label_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher forcing: (B, L) labels -> logits (B, L+1, V) and targets (B, L+1), -1 beyond the end."""
        states, targets = self.states(x, lengths, labels, label_lengths)
        return self.logits(states), targets

    def states(
        self, x: Read, lengths: torch.Tensor, labels: torch.Tensor, label_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``forward``, before the output layer: (B, L+1, D)."""
        memory, memory_lengths = self.ingest(x, lengths)
        tokens = F.pad(labels.clamp(min=0), (1, 0), value=self.sos_eos)
        targets = F.pad(labels, (0, 1)).scatter(1, label_lengths.unsqueeze(1), self.sos_eos)
        beyond = torch.arange(targets.shape[1], device=targets.device) > label_lengths.unsqueeze(1)
        return self.body(self._embed(tokens), memory, memory_lengths), targets.masked_fill(beyond, -1)

    def loss(self, x: Read, lengths: torch.Tensor, labels: Labels) -> ModuleLoss:
        """Cross-entropy of labels behind this input."""

        def read(states: torch.Tensor, targets: torch.Tensor) -> ModuleLoss:
            return cross_entropy(self.logits(states), targets, self.label_smoothing)

        return text_loss(read, self.sos_eos + 1, *self.states(x, lengths, *labels))

    def start(self, x: torch.Tensor, lengths: torch.Tensor) -> DecoderState:
        """Ingest once and begin to write."""
        return DecoderState(self.body.stepper(*self.ingest(x, lengths)))

    def step(self, tokens: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Last tokens (N,) -> log-probabilities of the next ones (N, V); advances the state."""
        y = self._embed(tokens.unsqueeze(1), state.length).squeeze(1)
        state.length += 1
        logits = self.logits(state.body.step(y))
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


class LanguageModelDecoder(DecoderModule):
    """A decoder module whose body is a language model of somebody else's, which brings its own words.

    Raises:
        ConfigError: it reads in another way than by its own table, or other tokens than it writes.
    """

    def _make(self, vocab: Vocabulary, vocabs: Vocabularies) -> Port:
        config, source = self.config, self.config.source_vocab
        if config.input.type != "hf_embedding" or source is None or vocabs[source].sha256 != vocab.sha256:
            raise ConfigError(
                f"{config.name}: a language model reads and writes one vocabulary, its own, by its own table: "
                "input: {type: hf_embedding, vocab: X}, output: {vocab: X}"
            )
        self.body = BODIES[config.body.type](config.body, vocab, f"{config.name}.body")
        reads, self.input = _input(config, vocabs)
        assert isinstance(self.input, HFEmbeddingInput)
        self.input.bind(self.body)
        return reads

    def _embed(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        """As the model reads them; a text begins behind its own token."""
        if start == 0:
            tokens = torch.cat([torch.full_like(tokens[:, :1], self.body.start), tokens[:, 1:]], 1)
        return self.body.lm.embed(tokens)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """By its own head."""
        return self.body.lm.logits(states)

    def loss(self, x: Read, lengths: torch.Tensor, labels: Labels) -> ModuleLoss:
        """Cross-entropy over the tokens that the model has; others are no targets."""
        absent = self.body.lm.absent

        def read(states: torch.Tensor, targets: torch.Tensor) -> ModuleLoss:
            wanted = (targets - absent).clamp(min=-1)
            return cross_entropy(self.logits(states)[..., absent:], wanted, self.label_smoothing)

        return text_loss(read, self.sos_eos + 1, *self.states(x, lengths, *labels))

    def step(self, tokens: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """As of any decoder; where the model has no position left, a text ends."""
        log_probs = super().step(tokens, state)
        assert isinstance(state.body, LanguageModelStepper)
        ends = state.body.ends
        if ends is None:
            return log_probs
        end = torch.full_like(log_probs[0], -torch.inf)
        end[self.sos_eos] = 0.0
        return torch.where(ends.unsqueeze(1), end, log_probs)


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
    if not isinstance(module, EncoderModule):
        return None
    return _interface(module.ports[1], module.interface.contract, module.interface.ctc_weight > 0)


def consumed(module: Module) -> Interface | None:
    """The interface a module reads, with what it saw in training."""
    return _interface(module.ports[0], module.input.contract, True)


def _interface(port: Port, seen: Seen | None, grounded: bool) -> Interface | None:
    if seen is None:
        return None
    assert port.vocab is not None
    return Interface(port.vocab, grounded, seen.slots_per_token, int(seen.longest) or None)


def build_module(config: ModuleConfig, vocabs: Vocabularies) -> Module:
    """One module with fresh weights.

    Raises:
        ConfigError: BeamConv's k exceeds the vocabulary, or the length ratio is still to be derived.
    """
    if not config.decodes:
        return EncoderModule(config, vocabs)
    speaks = getattr(BODIES[config.body.type], "speaks", False)
    return LanguageModelDecoder(config, vocabs) if speaks else DecoderModule(config, vocabs)
