"""``Speech2Text`` and ``Text2Text`` with the call and return shapes of ESPnet's inference classes.

A script written for ``espnet2.bin.asr_inference`` or ``espnet2.bin.mt_inference`` needs another import line only::

    from espnet2_legonn.bin.legonn_inference import Speech2Text

    speech2text = Speech2Text.from_pretrained("asr.zip", beam_size=10)
    text, tokens, token_ids, hypothesis = speech2text(speech)[0]
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.files.schema import nearest
from espnet2_legonn.inference.legonn import LegoNN, device_faults
from espnet2_legonn.model.inputs import as_items, is_list
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.search import options as search
from espnet2_legonn.search.answers import Answer
from espnet2_legonn.search.options import BeamOptions

_NO_MODE = "a LegoNN chain has no such mode"
# ESPnet's keywords that name a model or a way of working: to leave one out is to run another system.
REFUSED = {
    **dict.fromkeys(
        (
            "transducer_conf", "streaming", "enh_s2t_task", "quantize_asr_model", "quantize_lm", "hugging_face_decoder",
            "time_sync", "multi_asr", "lid_prompt", "lang_prompt_token", "nlp_prompt_token", "prompt_token_file",
            "partial_ar",
        ),
        _NO_MODE,
    ),
}  # fmt: skip
# ESPnet's keywords that tune the search of another model, or say what the chain knows itself.
IGNORED = {
    "ngram_scorer": "the n-gram model scores every candidate",
    **dict.fromkeys(("token_type", "bpemodel"), "the chain carries its own vocabulary"),
    **dict.fromkeys(
        ("quantize_modules", "quantize_dtype", "hugging_face_decoder_conf", "threshold_probability", "max_seq_len",
         "max_mask_parallel"),
        _NO_MODE,
    ),
}  # fmt: skip
# Fields of BeamOptions that are no parameters of their own.
_SEARCH = {field.name for field in dataclasses.fields(BeamOptions)}
# ESPnet's keywords that are ours under another name.
TRANSLATED = ("normalize_length",)


class ESPnetHypothesis(NamedTuple):
    """One answer, with the fields of ESPnet's.

    Args:
        yseq: ids with <sos/eos> before and after, (L + 2,).
        score: what the answers are ranked by (0-dim): log-probability / length ** length_penalty.
        scores: log-probability (0-dim) by scorer, ``decoder`` and ``ctc``, without their weights.
        states, hs: empty; the caches of the search are gone when it ends.
    """

    yseq: torch.Tensor
    score: torch.Tensor
    scores: dict[str, torch.Tensor]
    states: dict[str, Any]
    hs: list[torch.Tensor]

    def asdict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        plain = self._replace(yseq=self.yseq.tolist(), score=float(self.score))  # type: ignore[arg-type]
        return {**plain._asdict(), "scores": {name: float(value) for name, value in self.scores.items()}}


Hypothesis = ESPnetHypothesis  # as ESPnet calls it
Result = tuple[str, list[str], list[int], ESPnetHypothesis]


class ChainInference:
    """What both classes share.

    Args:
        legonn_train_config: a pack (folder, zip, URL, name, hub tag), ``config.yaml`` of an experiment, or a LegoNN in
            memory, for instance a plug; it is put into evaluation mode. ESPnet's names (``asr_train_config``,
            ``st_train_config``; ``mt_train_config``) work, too.
        legonn_model_file: weights, if not the best that the folder has; also ``asr_model_file`` and so on.
        device: ``cpu``, ``cuda``, ``cuda:1``.
        maxlenratio, minlenratio: as in BeamOptions; relative to the slots that the decoder module reads.
        batch_size: inputs of a list decoded together; it does not change the answers.
        dtype: as in BeamOptions: ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        beam_size: ESPnet's default, 20.
        nbest: answers for each input.
        length_penalty: score = log-probability / length ** length_penalty; None: as in BeamOptions.
        ctc_weight: as ESPnet's: w in (1 - w) * decoder + w * CTC; None: as in BeamOptions.
        temperature: as in BeamOptions.
        more: other fields of BeamOptions (``hotwords``), and keywords of ESPnet's. ``normalize_length`` is its
            spelling of a length_penalty: True is 1, False is 0. ``lm_weight`` and ``ngram_weight`` are 0.3 unless given
            or tuned (ESPnet: 1.0 and 0.9). What only tunes another search is left out with a warning, so that old
            scripts run; what names a way of working that is not here (``streaming``) is an error, since leaving it out
            would be another system. Both only when switched on.

    Raises:
        ConfigError: options that make no sense, all of them at once.
        DataError: the chain reads something else.
        CheckpointError: the chain cannot be loaded.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    elsewhere: ClassVar[str]
    times: bool = False  # whether answers have words with their times

    def __init__(
        self,
        legonn_train_config: str | Path | LegoNN | None = None,
        legonn_model_file: str | Path | None = None,
        device: str = "cpu",
        maxlenratio: float = 0.0,
        minlenratio: float = 0.0,
        batch_size: int = 32,
        dtype: str = "float32",
        beam_size: int = 20,
        nbest: int = 1,
        length_penalty: float | None = None,
        ctc_weight: float | None = None,
        temperature: float = 1.0,
        **more: Any,
    ) -> None:
        faults: list[str] = []
        search = {name: more.pop(name) for name in _SEARCH if name in more}
        espnet = more
        source = self._one_name("train_config", legonn_train_config, espnet, faults)
        weights = self._one_name("model_file", legonn_model_file, espnet, faults)
        normalize_length = espnet.pop("normalize_length", None)
        faults += _check_espnet(type(self).__name__, espnet)
        if source is None:
            faults.append("no chain: give legonn_train_config, or use from_pretrained")
        if length_penalty is not None and normalize_length is not None:
            faults.append("length_penalty and normalize_length say the same thing: give one of them")
        if isinstance(source, LegoNN) and weights is not None:
            faults.append("a chain in memory has its weights: leave out the model file, or use chain.load(...)")
        faults += device_faults(device)
        if length_penalty is None and normalize_length is not None:
            length_penalty = float(normalize_length)
        try:
            self.options = BeamOptions(
                beam_size, length_penalty, maxlenratio, minlenratio, nbest, ctc_weight, temperature, dtype, **search
            )
        except ConfigError as error:
            faults += error.faults
        if faults:
            raise ConfigError(faults)
        chain = source if isinstance(source, LegoNN) else LegoNN.from_pretrained(source, weights)
        self.chain = chain.to(device).eval()
        self.vocab = self._check_chain()
        self.device, self.batch_size = device, max(1, batch_size)

    @classmethod
    def from_pretrained(cls, model_tag: str | Path | None = None, **options: Any) -> Self:
        """As ESPnet's: ``model_tag`` is a pack (folder, zip, URL, name, hub tag), the rest goes to the constructor."""
        return cls(**options) if model_tag is None else cls(model_tag, **options)

    def _one_name(self, suffix: str, value: Any, espnet: dict[str, Any], faults: list[str]) -> Any:
        """The value given under our name or one of ESPnet's, which are taken out of ``espnet``."""
        names = {f"legonn_{suffix}": value}
        for task in self.tasks:
            names[f"{task}_{suffix}"] = espnet.pop(f"{task}_{suffix}", None)
        given = {name: v for name, v in names.items() if v is not None}
        if len(given) > 1:
            faults.append(f"{' and '.join(given)} name the same thing: give one of them")
        return next(iter(given.values()), None)

    def _check_chain(self) -> Vocabulary:
        chain = self.chain
        if chain.input_kind != self.kind:
            raise DataError(f"{chain.names[0]} reads {chain.input_kind}, not {self.kind}; {self.elsewhere}")
        return chain.require_text()

    # -- reading ---------------------------------------------------------------------------------------------------

    def marginals(self, inputs: Any, module: str | int = -1) -> Marginals:
        """Distributions of one interface, see ``LegoNN.marginals``; one input is a batch of 1."""
        return self._model.marginals(as_items(inputs), module)

    @property
    def _model(self) -> LegoNN:
        return self.chain.converted(self.options.dtype)

    def interfaces(self, inputs: Any) -> Any:
        """What each encoder module says: ``{module: greedy text}``, or a list of them for a list."""
        texts: list[dict[str, str]] = []
        items = as_items(inputs)
        for begin in range(0, len(items), self.batch_size):
            batch = items[begin : begin + self.batch_size]
            found, _, _ = self._model.encode(*self.chain.batch(batch))
            said = {name: marginals.greedy_texts() for name, marginals in found.items()}
            texts += [{name: items[i] for name, items in said.items()} for i in range(len(batch))]
        return texts if is_list(inputs) else texts[0]

    def answers(self, inputs: Sequence[Any]) -> list[Answer]:
        """All that the chain says of each input; they are decoded as one batch.

        Raises:
            DataError: every input that cannot be used.
        """
        return self.chain.answer(list(inputs), self.options, times=self.times)

    def _results(self, inputs: Any) -> Any:
        """ESPnet's return value for one input, a list of those for a list."""
        items = as_items(inputs)
        results: list[list[Result]] = []
        for begin in range(0, len(items), self.batch_size):
            for i, answer in enumerate(self.answers(items[begin : begin + self.batch_size]), begin):
                for message in answer.notes:
                    warnings.warn(f"input {i}: {message}", stacklevel=3)
                results.append([self._result(hypothesis) for hypothesis in answer.nbest])
        return results if is_list(inputs) else results[0]

    def _result(self, found: search.Hypothesis) -> Result:
        ends, ids = [self.vocab.sos_eos_id], found.ids
        parts = {name: torch.tensor(value) for name, value in found.parts.items()}
        hypothesis = ESPnetHypothesis(torch.tensor(ends + ids + ends), torch.tensor(found.score), parts, {}, [])
        return self.vocab.decode(ids), [self.vocab.tokens[i] for i in ids], ids, hypothesis


class Speech2Text(ChainInference):
    """Speech to text: recognition, or translation where a chain was plugged for it; options of ChainInference.

    >>> speech2text = Speech2Text.from_pretrained("asr.zip")        # doctest: +SKIP
    >>> text, *_ = speech2text(speech)[0]                           # doctest: +SKIP
    """

    kind, tasks, elsewhere = "speech", ("asr", "st"), "take Text2Text (legonn translate) for texts"

    @property
    def asr_model(self) -> LegoNN:
        return self.chain

    def __call__(self, speech: Any) -> Any:
        """ESPnet's list of (text, tokens, ids, hypothesis) for one waveform or file name, a list of those for a list.

        A waveform is one-dimensional, at the sampling rate of the model (``fs``), in -1 ... 1 or 16-bit integers.

        Raises:
            DataError: every input that cannot be used.
        """
        return self._results(speech)

    @property
    def fs(self) -> int:
        """Sampling rate of the model in Hz."""
        return int(self.chain.first.config.input.fs)


class Text2Text(ChainInference):
    """Text to text: translation, or pronunciations to words; options of ChainInference.

    >>> text2text = Text2Text.from_pretrained("mt.zip")             # doctest: +SKIP
    >>> text, *_ = text2text("ein Hund läuft")[0]                   # doctest: +SKIP
    """

    kind, tasks, elsewhere = "tokens", ("mt",), "take Speech2Text (legonn transcribe) for speech"

    @property
    def mt_model(self) -> LegoNN:
        return self.chain

    @property
    def source(self) -> Vocabulary:
        """Of the texts it reads."""
        vocab = self.chain.first.ports[0].vocab
        assert vocab is not None
        return vocab

    def __call__(self, src_text: Any) -> Any:
        """ESPnet's list of (text, tokens, ids, hypothesis) for one text, a list of those for a list of texts.

        A text is a string, or ids as array, tensor or list of numbers.

        Raises:
            DataError: every input that cannot be used.
        """
        return self._results(src_text)


def _check_espnet(owner: str, given: dict[str, Any]) -> list[str]:
    """Faults among ESPnet's other keywords; those that are left out are a warning."""
    known, own = {*REFUSED, *IGNORED}, [*inspect.signature(ChainInference).parameters, *_SEARCH, *TRANSLATED]
    faults = [f"{owner}: {name!r} is no option{nearest(name, [*own, *known])}" for name in given if name not in known]
    active = {name: value for name, value in given.items() if value is not None and value}
    faults += [f"{name}: {REFUSED[name]}; leave it out" for name in active if name in REFUSED]
    left_out = [f"{name} ({IGNORED[name]})" for name in active if name in IGNORED]
    if left_out and not faults:
        warnings.warn(f"{owner}: left out: {'; '.join(left_out)}", stacklevel=3)
    return faults
