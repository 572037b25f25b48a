"""Language models of transformers as bodies of decoder modules, by their own embeddings, heads and caches.

::

    input: {type: hf_embedding, vocab: lm, prompt: "Transcribe:"}
    body: {type: hf_causal_lm, model: NAME_OF_THE_HUB_OR_FOLDER, freeze: true, lora: {rank: 8}}
    output: {vocab: lm}

``hf_causal_lm`` reads ``before prompt slots start text`` as one sequence, each item without gaps. ``hf_seq2seq`` reads
``before prompt slots behind`` with its encoder and writes ``start text`` with its decoder.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.model.hf_models import Borrowed, library
from espnet2_legonn.model.language_model import KINDS, LanguageModel, LanguageModelConfig, adapt, fetch, fresh
from espnet2_legonn.model.masks import valid_mask
from espnet2_legonn.model.stepping import Stepper
from espnet2_legonn.model.transformer import BODIES


class LanguageModelStepper(Stepper):
    """A step of hypotheses with the model's own cache.

    Args:
        lm: the model.
        utterances: B.
        room: positions that it has; None: as many as are wanted.
    """

    def __init__(self, lm: LanguageModel, utterances: int, room: int | None) -> None:
        self.lm, self.utterances, self.room, self.written = lm, utterances, room, 0

    @property
    @abstractmethod
    def ends(self) -> torch.Tensor | None:
        """(N,) hypotheses that have no position left; None: nobody counts."""

    @abstractmethod
    def spread(self, number: int) -> None:
        """From one row an utterance to ``number``."""

    @abstractmethod
    def one(self, y: torch.Tensor) -> torch.Tensor:
        """(N, 1, D) -> states (N, 1, D)."""

    def step(self, y: torch.Tensor) -> torch.Tensor:
        if not self.written:
            self.spread(len(y) // self.utterances)
        states = self.one(y.unsqueeze(1)).squeeze(1)
        self.written += 1
        return states


class _CausalStepper(LanguageModelStepper):
    """What was read stands in the cache before the text; padding behind shorter items is masked."""

    def __init__(self, lm: LanguageModel, memory: torch.Tensor, lengths: torch.Tensor, room: int | None) -> None:
        super().__init__(lm, len(memory), room)
        self.cache = library().DynamicCache()
        lm.run(self.cache, inputs_embeds=memory)  # padding is on the right, behind the causal mask
        self.lengths, self.mask = lengths, valid_mask(lengths, memory.shape[1]).long()

    @property
    def ends(self) -> torch.Tensor | None:
        return None if self.room is None else self.lengths + self.written >= self.room

    def spread(self, number: int) -> None:
        self.cache.batch_repeat_interleave(number)
        self.lengths, self.mask = (x.repeat_interleave(number, 0) for x in (self.lengths, self.mask))

    def one(self, y: torch.Tensor) -> torch.Tensor:
        self.mask = F.pad(self.mask, (0, 1), value=1)
        places = (self.lengths + self.written).unsqueeze(1)
        return self.lm.run(self.cache, inputs_embeds=y, attention_mask=self.mask, position_ids=places)

    def select(self, rows: torch.Tensor, utterances: torch.Tensor | None = None) -> None:
        self.cache.reorder_cache(rows)
        self.lengths, self.mask = self.lengths.index_select(0, rows), self.mask.index_select(0, rows)


class _Seq2SeqStepper(LanguageModelStepper):
    """Hypotheses of an utterance read the same, so that only utterances that leave move it."""

    def __init__(self, lm: LanguageModel, memory: torch.Tensor, lengths: torch.Tensor, room: int | None) -> None:
        super().__init__(lm, len(memory), room)
        lib = library()
        self.cache = lib.EncoderDecoderCache(lib.DynamicCache(), lib.DynamicCache())
        self.mask = valid_mask(lengths, memory.shape[1]).long()
        self.states = lm.model.get_encoder()(inputs_embeds=memory, attention_mask=self.mask)[0]
        self.number = 1

    @property
    def ends(self) -> torch.Tensor | None:
        full = self.room is not None and self.written >= self.room
        return self.mask.new_ones(len(self.mask), dtype=torch.bool) if full else None

    def spread(self, number: int) -> None:
        self.number = number
        self.states, self.mask = (x.repeat_interleave(number, 0) for x in (self.states, self.mask))

    def one(self, y: torch.Tensor) -> torch.Tensor:
        read = {"encoder_outputs": (self.states,), "attention_mask": self.mask}
        return self.lm.run(self.cache, decoder_inputs_embeds=y, **read)

    def select(self, rows: torch.Tensor, utterances: torch.Tensor | None = None) -> None:
        self.cache.self_attention_cache.reorder_cache(rows)
        if utterances is not None:
            self.cache.cross_attention_cache.reorder_cache(rows)
            self.states, self.mask = self.states.index_select(0, rows), self.mask.index_select(0, rows)


class LanguageModelBody(Borrowed):
    """What both kinds share. A decoder module with such a body has the model's words, and none of its own.

    Args:
        config: its description; what was found out about the model is written into it.
        vocab: the model's own.
        where: place of the description.

    Raises:
        ConfigError: it is not there, of a kind that is not read here, or over other tokens.
        CheckpointError: weights that a description names are others now.
    """

    Config: ClassVar[type] = LanguageModelConfig
    decodes: ClassVar[bool] = True
    speaks: ClassVar[bool] = True
    int8: ClassVar[bool] = False

    def __init__(self, config: LanguageModelConfig, vocab: Vocabulary, where: str) -> None:
        super().__init__()
        known = config.architecture is not None and config.hold
        model = fresh(config, len(vocab), where) if known else fetch(config, vocab, where)
        config.width = int(model.config.hidden_size)
        assert config.absent is not None
        lm = LanguageModel(model, config.absent)
        self.config, self.start = config, _ids([config.start or vocab.tokens[-1]], vocab, where)[0]
        self.before, self.behind = (_ids(names or [], vocab, where) for names in (config.before, config.behind))
        family = KINDS[config.type].families[model.config.model_type]
        self.room = int(model.config.max_position_embeddings) if family.bounded else None
        if config.freeze:
            lm.requires_grad_(False).eval()
        if config.lora is not None:
            adapt(model, config.lora, family.targets, f"{where}.lora")
        self.borrow(lm, config.hold)
        learned = {n.replace(".", "-"): p for n, p in lm.named_parameters() if p.requires_grad and not config.hold}
        self.adapters = nn.ParameterDict(learned)

    @property
    def lm(self) -> LanguageModel:
        """The model."""
        found: LanguageModel = self.borrowed
        return found

    def train(self, mode: bool = True) -> Self:
        """As in torch; of a frozen model only LoRA's dropout is on."""
        super().train(mode)
        if self.config.freeze:
            self.lm.eval()
            for name, part in self.lm.named_modules():
                if name.endswith("lora_dropout"):
                    part.train(mode)
        return self

    def require_room(self, positions: torch.Tensor) -> None:
        """Raises: DataError: the model has fewer positions than an item (B,) needs."""
        if self.room is None:
            return
        if faults := [
            f"input {i}: {self.config.model}: {number} positions are read and written, the model has {self.room}; "
            "give shorter inputs, a shorter prompt, or fewer slots per token"
            for i, number in enumerate(positions.tolist())
            if number > self.room
        ]:
            raise DataError(faults)

    @abstractmethod
    def forward(self, y: torch.Tensor, memory: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Embedded text (B, L, D) behind what was read, (B, S, D) and (B,) -> states (B, L, D)."""

    @abstractmethod
    def stepper(self, memory: torch.Tensor, lengths: torch.Tensor) -> LanguageModelStepper:
        """The beginning of hypotheses over (B, S, D), (B,)."""


@BODIES.add("hf_causal_lm")
class CausalBody(LanguageModelBody):
    """A model that goes on with a text: what is read stands before it."""

    def forward(self, y: torch.Tensor, memory: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        size, slots = y.shape[1], memory.shape[1]
        places = torch.arange(slots + size, device=y.device)
        # Each item in one piece, its padding behind it: position t is slot t, or the text's.
        after = places >= lengths.unsqueeze(1)
        index = torch.where(after, slots + (places - lengths.unsqueeze(1)).clamp(max=size - 1), places)
        whole = int(lengths.max()) + size
        self.require_room(lengths + size)
        wide = index[:, :whole, None].expand(-1, -1, y.shape[2])
        states = self.lm.run(inputs_embeds=torch.cat([memory, y.to(memory.dtype)], 1).gather(1, wide))
        text = (lengths.unsqueeze(1) + torch.arange(size, device=y.device)).unsqueeze(2)
        return states.gather(1, text.expand(-1, -1, states.shape[2]))

    def stepper(self, memory: torch.Tensor, lengths: torch.Tensor) -> LanguageModelStepper:
        self.require_room(lengths + 1)
        return _CausalStepper(self.lm, memory, lengths, self.room)


@BODIES.add("hf_seq2seq")
class Seq2SeqBody(LanguageModelBody):
    """A model with an encoder, which reads, and a decoder, which writes."""

    def forward(self, y: torch.Tensor, memory: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        self.require_room(lengths.clamp(min=y.shape[1]))
        mask = valid_mask(lengths, memory.shape[1]).long()
        return self.lm.run(inputs_embeds=memory, attention_mask=mask, decoder_inputs_embeds=y)

    def stepper(self, memory: torch.Tensor, lengths: torch.Tensor) -> LanguageModelStepper:
        self.require_room(lengths)
        return _Seq2SeqStepper(self.lm, memory, lengths, self.room)


def _ids(tokens: list[str], vocab: Vocabulary, where: str) -> list[int]:
    if odd := [token for token in tokens if token not in vocab.ids]:
        raise ConfigError(f"{where}: {odd[0]!r} (start, before, behind) is no token of the vocabulary")
    return [vocab.ids[token] for token in tokens]
