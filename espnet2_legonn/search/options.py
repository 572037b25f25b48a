"""What a search is asked for, and what it answers."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.interface import SearchChoice
from espnet2_legonn.model.precision import DTYPES, no_dtype

# Better than the decoder alone in every pair measured; the best value follows which side is stronger (docs/search.md).
DEFAULT_CTC_WEIGHT, DEFAULT_LENGTH_PENALTY = 0.4, 1.0
DEFAULT_LM_WEIGHT = 0.3
_KINDS = {"int": numbers.Integral, "float": numbers.Real}
DEFAULT_HOTWORD_WEIGHT = 1.0  # lowest WER of 0.5 to 3 behind a plugged decoder (docs/speech.md)


@dataclass(frozen=True)
class BeamOptions:
    """How to search.

    Args:
        beam_size: hypotheses kept of each utterance.
        length_penalty: score = log-probability / length ** length_penalty (fairseq), <sos/eos> counted; None: what
            was tuned for the chain, else 1.0.
        maxlenratio: > 0: at most this times the slots; < 0: at most -maxlenratio tokens; 0: twice the slots + 10.
        minlenratio: at least this times the slots; < 0: at least -minlenratio tokens.
        nbest: hypotheses returned, at most beam_size.
        ctc_weight: w in (1 - w) * decoder + w * CTC of the last interface, 0 to 1; 0 is the paper's search. None: what
            was tuned for the chain, else 0.4 where the interface is grounded and has the decoder's vocabulary, else 0.
        temperature: the decoder reads the distributions to the power of 1 / temperature: above 1 they are flatter.
        dtype: what products are made in: ``float32``, ``bfloat16`` or ``float16`` (on machines that have
            them), or ``int8`` (on CPUs). Distributions stay float32.
        penalty: ESPnet's: a bonus for each token, <sos/eos> counted, before the length penalty.
        lm_train_config, lm_file: description and weights of a language model of ESPnet's over the tokens searched.
        lm_weight: its log-probability is added so many times; None: what was tuned for the chain, else 0.3.
        ngram_file: an ARPA file over the tokens searched.
        ngram_weight: as ``lm_weight``.
        ilm_weight: what the decoder writes whatever it reads is taken away so many times.
        hotwords: words and phrases that are expected (a string is one); texts that say them gain.
        hotword_weight: how much, in nats for each token of a hotword (``search/hotwords.py``).

    Raises:
        ConfigError: values that make no sense, all of them.
    """

    beam_size: int = 5
    length_penalty: float | None = None
    maxlenratio: float = 0.0
    minlenratio: float = 0.0
    nbest: int = 1
    ctc_weight: float | None = None
    temperature: float = 1.0
    dtype: str = "float32"
    penalty: float = 0.0
    lm_train_config: str | None = None
    lm_file: str | None = None
    lm_weight: float | None = None
    ngram_file: str | None = None
    ngram_weight: float | None = None
    ilm_weight: float = 0.0
    hotwords: tuple[str, ...] | str = ()
    hotword_weight: float = DEFAULT_HOTWORD_WEIGHT

    def __post_init__(self) -> None:
        words = (self.hotwords,) if isinstance(self.hotwords, str) else tuple(self.hotwords)  # a list in YAML
        object.__setattr__(self, "hotwords", words)
        faults = self._no_numbers()
        if self.beam_size < 1:
            faults.append(f"beam_size: {self.beam_size} is less than 1")
        elif not 1 <= self.nbest <= self.beam_size:
            faults.append(f"nbest: {self.nbest} is not between 1 and beam_size ({self.beam_size})")
        if self.ctc_weight is not None and not 0 <= self.ctc_weight <= 1:
            faults.append(f"ctc_weight: {self.ctc_weight} is not between 0 and 1")
        if not self.temperature > 0:
            faults.append(f"temperature: {self.temperature} is not above 0")
        if self.dtype not in DTYPES:
            faults.append(no_dtype(self.dtype))
        if faults:
            raise ConfigError(faults)

    def _no_numbers(self) -> list[str]:
        """Values that are not finite.

        Raises:
            ConfigError: values that are no numbers, all of them.
        """
        wrong, infinite = [], []
        for field in fields(self):
            value, (kind, *optional) = getattr(self, field.name), str(field.type).split(" | ")
            if kind not in _KINDS or (optional and value is None):
                continue
            if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
                wrong.append(f"{field.name}: {value!r} is no {kind}")
            elif not math.isfinite(value):
                infinite.append(f"{field.name}: {value} is not finite")
        if wrong:
            raise ConfigError(wrong)
        return infinite

    @property
    def length_power(self) -> float:
        """The length penalty to search with."""
        return DEFAULT_LENGTH_PENALTY if self.length_penalty is None else self.length_penalty

    def filled(self, choice: SearchChoice | None, natural: bool) -> BeamOptions:
        """With numbers for what is None.

        Args:
            choice: what was tuned for the chain.
            natural: whether there is a grounded interface over the decoder's tokens.
        """
        if choice is None:
            choice = SearchChoice(DEFAULT_CTC_WEIGHT if natural else 0.0, DEFAULT_LENGTH_PENALTY)
        weight = choice.ctc_weight if self.ctc_weight is None else self.ctc_weight
        penalty = choice.length_penalty if self.length_penalty is None else self.length_penalty
        lm, ngram = (
            next((w for w in weights if w is not None), DEFAULT_LM_WEIGHT)
            for weights in ((self.lm_weight, choice.lm_weight), (self.ngram_weight, choice.ngram_weight))
        )
        return replace(self, ctc_weight=weight, length_penalty=penalty, lm_weight=lm, ngram_weight=ngram)

    def limits(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Most and fewest tokens (without <sos/eos>) of each utterance, (B,) each."""
        if self.maxlenratio < 0:
            most = torch.full_like(slots, int(-self.maxlenratio))
        elif self.maxlenratio > 0:
            most = (slots * self.maxlenratio).long().clamp(min=1)
        else:
            most = 2 * slots + 10
        if self.minlenratio < 0:
            fewest = torch.full_like(slots, int(-self.minlenratio))
        else:
            fewest = (slots * self.minlenratio).long()
        return most, torch.minimum(fewest, most)


class Hypothesis(NamedTuple):
    """One answer.

    Args:
        ids: without <sos/eos>.
        score: what answers are ranked by: log_prob / length ** length_penalty.
        log_prob: weighted sum of the parts.
        parts: log-probability by scorer, for instance ``decoder`` and ``ctc``, without their weights.
    """

    ids: list[int]
    score: float
    log_prob: float
    parts: dict[str, float]
