"""The class a user meets first: a chain that reads files, arrays and texts and answers in text."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference import fusion
from espnet2_legonn.model.chain import Chain, warn_of_plug
from espnet2_legonn.model.inputs import Batch, as_items, collect, is_list
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.model.module import DecoderModule, consumed
from espnet2_legonn.model.precision import converted
from espnet2_legonn.model.timeline import Timeline
from espnet2_legonn.packs import pack, store
from espnet2_legonn.packs.load import load
from espnet2_legonn.search.answers import Answer, add_words, best_paths, beyond_training
from espnet2_legonn.search.chain_search import ScorerMaker, fill, search_ctc, search_decoder, warn_without_ctc
from espnet2_legonn.search.options import BeamOptions, Hypothesis


def device_faults(device: str) -> list[str]:
    """Why PyTorch cannot compute there; empty where it can."""
    try:
        kind = torch.device(device).type
    except RuntimeError:
        return [f"device: {device!r} is not known; use cpu, cuda or cuda:N"]
    if kind == "cuda" and not torch.cuda.is_available():
        return ["device: no CUDA on this machine; use cpu"]
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ImportError):  # a number, or a kind that this PyTorch was not built for
        return [f"device: {device!r} is not on this machine; use cpu, cuda or cuda:N"]
    return []


class LegoNN(Chain):
    """Modules that snap together: ``plugged = asr[:-1] + mt[-1:]``, then ``plugged("speech.wav")``."""

    _warned = False
    _converted: tuple[str, list[tuple[int, int]], Self] | None = None

    @classmethod
    def from_pretrained(
        cls, path: str | Path, model_file: str | Path | None = None, device: str = "cpu", trust: bool = False
    ) -> Self:
        """A chain from a pack (folder, zip, URL, name, hub tag) or an ESPnet experiment folder; ready to decode.

        Args:
            trust: load an archive without a card, which nothing is compared with; see ``packs.load.load``.

        Raises:
            ConfigError: no such device; else see ``packs.load.load``.
        """
        if faults := device_faults(device):
            raise ConfigError(faults)
        return load(cls, path, model_file, trust).to(device)  # type: ignore[return-value]

    def save(self, folder: str | Path, **about: Any) -> Path:
        """Write a pack; the folder appears whole or not at all. ``about``: fields of its card."""
        return pack.write(self, folder, about)

    def load(self, path: str | Path) -> Self:
        """Fill this chain from a weights file (.safetensors, .pth) or from a folder's weights; whole or an error."""
        path = Path(path)
        store.load_weights(self, store.find_weights(path, None) if path.is_dir() else path)
        return self

    @property
    def device(self) -> torch.device:
        return next(itertools.chain(self.parameters(), self.buffers())).device  # weights may lie elsewhere

    def batch(self, inputs: Any) -> Batch:
        """One input or a list of them to a padded batch.

        A speech chain takes file names and waveforms; a text chain takes strings and ids; a chain that begins with
        an ingestor takes Marginals. Only a list is several inputs: an array is one, whatever its shape.

        Raises:
            DataError: every input that cannot be used.
        """
        if isinstance(inputs, Marginals):
            reads = consumed(self.first)
            if reads is None:
                raise DataError(f"{self.names[0]} reads {self.input_kind}, not Marginals; leave out the modules before")
            warn_of_plug(inputs.interface, self.first, f"Marginals -> {self.names[0]}")
            inputs.require_numbers("Marginals")
            return inputs.log_probs.to(self.device), inputs.lengths.to(self.device)
        items = as_items(inputs)
        if not items:
            raise DataError("no inputs: the list is empty")
        part = self.first.input
        if part.data is None:
            raise DataError(
                f"{self.names[0]} reads {self.input_kind}: give Marginals, or put an encoder module before it"
            )
        return part.pad(collect(items, part.read), self.device)

    def marginals(self, inputs: Any, module: str | int = -1) -> Marginals:
        """Distributions of one interface: of the last one, or of the module of this name or number.

        Raises:
            DataError: the chain has no interface there.
        """
        found, _, _ = self.encode(*self.batch(inputs))
        if not found:
            raise DataError(f"no interface in this chain ({', '.join(self.names)}): its modules pass hidden states")
        names = list(found)
        if isinstance(module, int):
            module = names[module] if -len(names) <= module < len(names) else str(module)
        if module not in found:
            raise DataError(f"no interface behind {module!r}; there are {', '.join(found)}")
        return found[module]

    def generate(self, inputs: Any, **options: Any) -> list[list[Hypothesis]]:
        """Beam search for each input; options are those of BeamOptions. Without a decoder module CTC alone searches.

        Raises:
            DataError: bad inputs, or a chain that writes hidden states.
        """
        return [answer.nbest for answer in self.answer(inputs, BeamOptions(**options))]

    def answer(
        self,
        inputs: Any,
        options: BeamOptions | None = None,
        more: Sequence[ScorerMaker] = (),
        judge_all: bool = False,
        times: bool = False,
    ) -> list[Answer]:
        """All that the chain says of each input; they are decoded as one batch.

        Args:
            inputs: as for ``batch``.
            options: of the search.
            more: other scorers over the decoder's tokens.
            judge_all: scorers of weight 0 judge, too.
            times: also words with their times and confidences, where the chain reads sound.

        Raises:
            DataError: every input that cannot be used, or a chain that writes hidden states.
            ConfigError: options that this chain cannot follow.
        """
        options, seconds = options or BeamOptions(), dict[str, float]()
        if options.dtype != "float32":
            twin, options = self.converted(options.dtype), replace(options, dtype="float32")
            return twin.answer(inputs, options, more, judge_all, times)
        vocab = self.require_text()
        batch = self.batch(inputs)
        with Timeline(self) if times else contextlib.nullcontext() as timeline:
            found, x, lengths = self.encode(*batch, seconds)
        searched, started = found, time.perf_counter()
        if isinstance(inputs, Marginals) and not found and isinstance(self.last, DecoderModule):
            searched = {"given": Marginals(*batch, inputs.interface)}  # its CTC searches beside the decoder
        options = self._filled(searched, options)
        more = [*more, *fusion.makers(options.filled(self.search, True), vocab)]
        nbest = self.decode_encoded(searched, x, lengths, options, more, judge_all)
        if isinstance(self.last, DecoderModule):
            seconds[self.names[-1]] = time.perf_counter() - started
        said = {name: best_paths(marginals) for name, marginals in found.items()}
        notes = beyond_training(self, batch[1], found)
        answers = [
            Answer(hypotheses, vocab, {name: paths[i] for name, paths in said.items()}, notes[i], seconds, options)
            for i, hypotheses in enumerate(nbest)
        ]
        if timeline is not None and (spans := timeline.spans(batch[1], found)) is not None:
            add_words(answers, list(found.values())[-1], spans)
        return answers

    def converted(self, dtype: str) -> Self:
        """This chain for decoding in another ``dtype`` (see BeamOptions); made once, anew when weights have changed.

        Raises:
            ConfigError: no such dtype, or int8 on a GPU.
        """
        if dtype == "float32":
            return self
        state = [(p.data_ptr(), p._version) for p in self.parameters()]
        if self._converted is None or self._converted[:2] != (dtype, state):
            twin = type(self)([converted(module, dtype) for module in self], self.vocabs, self.names)
            object.__setattr__(self, "_converted", (dtype, state, twin))  # no module of this one
        assert self._converted is not None
        twin = self._converted[2]
        twin.search = self.search  # it may have been tuned since
        return twin

    def _filled(self, found: dict[str, Marginals], options: BeamOptions) -> BeamOptions:
        last = list(found.values())[-1] if found else None
        return fill(self.last, last, options, self.search) if isinstance(self.last, DecoderModule) else options

    def decode_encoded(
        self,
        found: dict[str, Marginals],
        x: torch.Tensor,
        lengths: torch.Tensor,
        options: BeamOptions,
        more: Sequence[ScorerMaker] = (),
        judge_all: bool = False,
    ) -> list[list[Hypothesis]]:
        """Hypotheses from what ``encode`` gave; the rest is that of ``answer``."""
        last = list(found.values())[-1] if found else None
        if isinstance(self.last, DecoderModule):
            options = self._filled(found, options)
            if not self._warned:
                self._warned = warn_without_ctc(self.last, self.input_kind == "speech", options)
            return search_decoder(self.last, x, lengths, last, options, self.search, more, judge_all)
        if last is None:
            raise DataError(f"{self.names[-1]} writes hidden states, no text; add the module that reads them")
        return search_ctc(last, options, self.search, more)

    def text(self, ids: list[int]) -> str:
        """Ids of the last module's vocabulary to text."""
        return self.require_text().decode(ids)

    def require_text(self) -> Vocabulary:
        """The vocabulary that the last module writes in.

        Raises:
            DataError: it writes hidden states.
        """
        vocab = self.last.ports[1].vocab
        if vocab is None:
            raise DataError(f"{self.names[-1]} writes hidden states, no text; add the module that reads them")
        return vocab

    def forward(self, inputs: Any, **options: Any) -> Any:
        """Text for one input, a list of texts for a list; options are those of BeamOptions."""
        texts = [answer.text for answer in self.answer(inputs, BeamOptions(**options))]
        return texts if is_list(inputs) or isinstance(inputs, Marginals) else texts[0]
