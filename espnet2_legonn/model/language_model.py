"""Language models of transformers: their description, and how they are had, with their tables in our order.

The vocabulary is the model's own (``legonn vocab --from-hf``). When a model is fetched, its tables are put into that
order once, so that ids are ours everywhere (``model/language_body.py`` reads and writes with it).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.data.hf_vocab import of_model
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.foreign import peft
from espnet2_legonn.model.hf_models import Kinds, keep_digest, library, telling
from espnet2_legonn.model.transformer import BodyConfig

# The logit of a token that the model does not have: its probability is 0 in every format, and no number is infinite.
NEVER = -1e4


class LanguageFamily(NamedTuple):
    """A kind of language model.

    Args:
        config, model: transformers' classes.
        targets: layers that LoRA changes unless told otherwise.
        bounded: it has no positions beyond the longest that it was made for.
    """

    config: str
    model: str
    targets: tuple[str, ...]
    bounded: bool = False


_QV = ("q_proj", "v_proj")
CAUSAL = {
    "gpt2": LanguageFamily("GPT2Config", "GPT2LMHeadModel", ("c_attn",), True),
    "gpt_neox": LanguageFamily("GPTNeoXConfig", "GPTNeoXForCausalLM", ("query_key_value",)),
    "llama": LanguageFamily("LlamaConfig", "LlamaForCausalLM", _QV),
    "qwen2": LanguageFamily("Qwen2Config", "Qwen2ForCausalLM", _QV),
    "qwen3": LanguageFamily("Qwen3Config", "Qwen3ForCausalLM", _QV),
    "gemma": LanguageFamily("GemmaConfig", "GemmaForCausalLM", _QV),
}
SEQ2SEQ = {
    "t5": LanguageFamily("T5Config", "T5ForConditionalGeneration", ("q", "v")),
    "mt5": LanguageFamily("MT5Config", "MT5ForConditionalGeneration", ("q", "v")),
    "bart": LanguageFamily("BartConfig", "BartForConditionalGeneration", _QV, True),
    "marian": LanguageFamily("MarianConfig", "MarianMTModel", _QV, True),
}
# Ids and sizes that follow from our vocabulary.
_OURS = frozenset((
    "vocab_size", "decoder_vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id",
    "forced_bos_token_id", "forced_eos_token_id", "sep_token_id", "bad_words_ids", "use_cache",
))  # fmt: skip
KINDS = {"hf_causal_lm": Kinds(CAUSAL, _OURS), "hf_seq2seq": Kinds(SEQ2SEQ, _OURS)}


@dataclass
class AdapterConfig:
    """LoRA (Hu et al. 2021, arXiv:2106.09685) by peft: W x + alpha / rank * B A x, of which A and B learn.

    Args:
        rank: of B A.
        alpha: its scale is alpha / rank.
        dropout: on x.
        targets: names of the layers; empty: queries and values of attention.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=list)


@dataclass
class LanguageModelConfig:
    """A language model of somebody else's.

    Args:
        model: name on the Hub, or a folder of transformers'.
        type: ``hf_causal_lm`` or ``hf_seq2seq``.
        revision: of the Hub.
        freeze: it learns nothing but LoRA, and its dropout is off.
        lora: what is learned beside its weights; null: nothing.
        hold: packs and checkpoints have its weights; false needs ``freeze``, and LoRA's are kept all the same.
        sha256: of its weights, where they are not held.
        architecture: transformers' description of it, without its vocabulary.
        width: D.
        start: token that a text begins behind; null: as the tokenizer says.
        before, behind: tokens at the ends of what is read; null: as the tokenizer says.
        absent: so many tokens of the beginning (``<blank>``, perhaps ``<unk>``) are none of the model's.
    """

    model: str
    type: str = "hf_causal_lm"
    revision: str | None = None
    freeze: bool = True
    lora: AdapterConfig | None = None
    hold: bool = True
    sha256: str | None = None
    architecture: dict[str, Any] | None = None
    width: int | None = None
    start: str | None = None
    before: list[str] | None = None
    behind: list[str] | None = None
    absent: int | None = None

    # What other parts of a module ask of a body (see BodyConfig).
    heads: ClassVar[int] = 1
    dropout: ClassVar[float] = 0.0
    num_blocks: ClassVar[int] = 0
    places: ClassVar[bool] = True

    @property
    def size(self) -> int:
        """Width D, once the model is known."""
        return self.width or 2

    @property
    def shape(self) -> str:
        """For the card of a pack."""
        name = f"{self.model}@{self.revision}" if self.revision else self.model
        parts = [f"{self.type} {name}", f"{(self.architecture or {}).get('model_type')}, {self.size} wide"]
        parts += [f"LoRA of rank {self.lora.rank}"] if self.lora else []
        parts += [] if self.hold else [f"weights not in the pack (SHA-256 {self.sha256})"]
        return ", ".join(parts)

    @property
    def settled(self) -> dict[str, Any]:
        """What makes it again without its source."""
        names = ("architecture", "width", "start", "before", "behind", "absent", "sha256")
        return {name: getattr(self, name) for name in names}

    @property
    def least_values(self) -> int:
        """Numbers that its weights hold, its tables left out."""
        return self.values(1)

    def values(self, vocab: int) -> int:
        """Numbers that its weights hold with so many tokens, where they are known and held."""
        if self.architecture is None or not self.hold:
            return 0
        with torch.device("meta"):
            return sum(p.numel() for p in fresh(self, vocab, "body").parameters())

    def blocks(self, number: int, attention_dropout: float | None = None) -> BodyConfig:
        """A stack of plain blocks of this width."""
        return BodyConfig(number, self.size, 1, 4 * self.size, 0.0)

    def faults(self, where: str) -> list[str]:
        """Values that do not go together."""
        faults = []
        if self.absent not in (None, 1, 2) or (self.hold and self.architecture is not None and self.absent is None):
            faults.append(f"{where}.absent: {self.absent} is not 1 or 2, which goes with architecture")
        if not self.hold and not self.freeze:
            faults.append(f"{where}.hold: false, but freeze is false: what is learned must be kept")
        if self.lora is not None and not self.freeze:
            faults.append(f"{where}.lora: goes with freeze: true; without, all weights learn")
        if self.lora is not None and not 1 <= self.lora.rank <= 10_000:
            faults.append(f"{where}.lora.rank: {self.lora.rank} is not between 1 and 10000")
        if self.lora is not None and not 0 <= self.lora.dropout < 1:
            faults.append(f"{where}.lora.dropout: {self.lora.dropout} is not at least 0 and less than 1")
        return faults


# -- transformers' models ------------------------------------------------------------------------------------------


def fresh(config: LanguageModelConfig, vocab: int, where: str) -> Any:
    """A model of a description, with random weights and so many tokens."""
    assert config.architecture is not None
    kinds = KINDS[config.type]
    return kinds.fresh(_described(kinds, config.architecture, vocab, f"{where}.architecture"), where)


def _described(kinds: Kinds, architecture: dict[str, Any], vocab: int, where: str) -> Any:
    tokens: dict[str, Any] = {"vocab_size": vocab, "pad_token_id": 0}
    if architecture.get("model_type") == "marian":
        tokens |= {"decoder_vocab_size": vocab, "decoder_start_token_id": 0}
    if architecture.get("share_encoder_decoder_embeddings") is False:
        raise ConfigError(f"{where}: it has a table for each side; only models with one vocabulary are read")
    if architecture.get("use_sliding_window") or architecture.get("add_cross_attention"):
        raise ConfigError(f"{where}: use_sliding_window and add_cross_attention are not read")
    return kinds.architecture(architecture, where, **tokens)


def fetch(config: LanguageModelConfig, vocab: Vocabulary, where: str) -> Any:
    """The model that a description names, its tables in our order; what was found out is noted in the description.

    Raises:
        ConfigError: it is not there, of a kind that is not read here, or over other tokens.
        CheckpointError: weights that a description names are others now.
    """
    lib, kinds, where = library(f"body type {config.type}"), KINDS[config.type], f"{where}.model: {config.model}"
    found, names = kinds.found(lib, config.model, config.revision, where)
    own = of_model(config.model, config.revision, vocab.language, vocab.normalization)
    if own.vocab.sha256 != vocab.sha256:
        raise ConfigError(
            f"{where}: its tokenizer has {len(own.vocab)} tokens (SHA-256 {own.vocab.sha256[:12]}...), the vocabulary "
            f"{len(vocab)} others ({vocab.sha256[:12]}...); make it by `legonn vocab DIR --from-hf {config.model}`"
        )
    config.architecture = kinds.described(found)
    described = _described(kinds, config.architecture, found.vocab_size, where)
    with telling(where):
        model = getattr(lib, names.model).from_pretrained(
            config.model, revision=config.revision, config=described, use_safetensors=True,
            dtype=torch.get_default_dtype(),
        )  # fmt: skip
    keep_digest(config, model, f"{where}: its weights")
    config.absent = sum(place < 0 for place in own.rows)
    config.start = own.start if config.start is None else config.start
    config.before = list(own.before) if config.before is None else config.before
    config.behind = list(own.behind) if config.behind is None else config.behind
    reorder(model, own.rows)
    return model


def reorder(model: Any, rows: Sequence[int]) -> None:
    """Put the tables of a model in the order of ``rows``, its ids; a row of -1 is of zeros."""
    index = torch.tensor(rows)

    def ordered(table: torch.Tensor) -> torch.Tensor:
        return table.detach()[index.clamp(min=0)].masked_fill((index < 0).unsqueeze(1), 0.0)

    tables = {id(part.weight): part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    moved = {place: nn.Parameter(ordered(table)) for place, table in tables.items()}
    for part in model.modules():
        if id(getattr(part, "weight", None)) in moved:
            part.weight = moved[id(part.weight)]
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias = ordered(model.final_logits_bias.T).T


class LanguageModel(nn.Module):
    """A model of transformers whose head is apart.

    Args:
        model: with its tables in our order.
        absent: so many tokens of the beginning (``<blank>``, perhaps ``<unk>``) are none of the model's.
    """

    bias: torch.Tensor | None

    def __init__(self, model: Any, absent: int) -> None:
        super().__init__()
        self.head, self.absent = model.get_output_embeddings(), absent
        model.set_output_embeddings(nn.Identity())
        self.register_buffer("bias", None)
        if hasattr(model, "final_logits_bias"):
            self.bias, model.final_logits_bias = model.final_logits_bias, torch.zeros(1)
        self.model = model
        self._cache = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        for part in model.modules():
            if isinstance(part, nn.Embedding) and part.weight is self.table:
                part.num_embeddings, part.padding_idx = len(part.weight), None
        self.read_scale, self.text_scale = self._scales()

    @torch.no_grad()
    def _scales(self) -> tuple[float, float]:
        """What rows are multiplied by before the model is given them, those that are read and those of a text.

        Some models scale their rows, and it depends on the class and its version whether they do it for rows that they
        are given. So what the model makes of ids is compared with what it makes of rows.
        """
        config, id_ = self.model.config, len(self.table) - 1
        if not (getattr(config, "scale_embedding", False) or config.model_type == "gemma"):
            return 1.0, 1.0
        ids = torch.tensor([[id_]], device=self.table.device)
        own, row, training = [1.0, self.table.shape[1] ** 0.5], self.table[ids], self.model.training
        self.model.eval()
        if config.is_encoder_decoder:
            wanted = self.run(input_ids=ids, decoder_input_ids=ids)
            gaps = {
                (a, b): self.run(inputs_embeds=a * row, decoder_inputs_embeds=b * row) - wanted
                for a in own
                for b in own
            }
        else:
            wanted = self.run(input_ids=ids)
            gaps = {(a, a): self.run(inputs_embeds=a * row) - wanted for a in own}
        self.model.train(training)
        return min(gaps, key=lambda pair: float(gaps[pair].abs().max()))

    @property
    def table(self) -> torch.Tensor:
        """(V, D) in our order."""
        table: torch.Tensor = self.model.get_input_embeddings().weight
        return table

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """A text that is written, (...) -> (..., D)."""
        return F.embedding(ids, self.table) * self.text_scale

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., V)."""
        logits = self.head(states)
        logits = logits if self.bias is None else logits + self.bias.view(-1)
        return F.pad(logits[..., self.absent :], (self.absent, 0), value=NEVER)

    def run(self, cache: Any = None, **given: Any) -> torch.Tensor:
        """States (B, T, D) behind the last layer; what it writes goes to the cache, if there is one."""
        more = {"use_cache": False} if cache is None else {"use_cache": True, self._cache: cache}
        states: torch.Tensor = self.model(**given, **more).logits
        return states


def adapt(model: Any, config: AdapterConfig, targets: Sequence[str], where: str) -> None:
    """Put LoRA beside layers of a model, whose own weights learn nothing any more."""
    try:
        lib = peft()
    except ImportError as error:
        raise ConfigError(f"{where}: {error}") from None
    with telling(where):
        options = lib.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout,
            target_modules=list(config.targets or targets), fan_in_fan_out=model.config.model_type == "gpt2",
        )  # fmt: skip
        lib.inject_adapter_in_model(options, model)
