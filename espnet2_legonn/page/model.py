"""One run of the page: an input through a plugged chain, with everything that is shown of it. No web framework."""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.inference.plot import Picture, picture
from espnet2_legonn.model.inputs import RATES
from espnet2_legonn.model.parts.waves import MAX_SECONDS
from espnet2_legonn.packs.fetch import resolve
from espnet2_legonn.packs.files import card_of, is_as_told, opened
from espnet2_legonn.page.shelf import Choice, Example
from espnet2_legonn.search import answers
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.search.words import Word

# Packs kept in memory, each once, however many of its parts are chosen.
LOADED = 8


@dataclass
class ModuleText:
    """What one module says by itself: the best path of its interface, or the decoder's answer."""

    module: str
    text: str
    seconds: float
    picture: Picture | None = None


@dataclass
class PageAnswer:
    """All that a run shows.

    Args:
        steps: what took how many seconds, besides the modules themselves.
        notes: what a person should know: resampled, normalised, unknown words, cut.
        parts: log-probability of the text by scorer.
        ctc_weight: weight of CTC in the search.
        words: of the text with their times, where sound was read; exact: whether those are exact.
    """

    text: str = ""
    said: list[ModuleText] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    ctc_weight: float = 0.0
    words: list[Word] = field(default_factory=list)
    exact: bool = True


@functools.lru_cache(maxsize=LOADED)
def load(source: str) -> LegoNN:
    """The chain of a pack; kept in memory."""
    return LegoNN.from_pretrained(source)


def plug(choices: Sequence[Choice]) -> LegoNN:
    """The chosen parts as one chain.

    Raises:
        LegoNNError: a pack cannot be loaded, or parts do not fit, with every reason.
    """
    parts = []
    for choice in choices:
        whole = load(choice.source)
        start = whole.names.index(choice.modules[0])
        parts.append(whole[start : start + len(choice.modules)])
    chain = parts[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the verdict has said them
        for part in parts[1:]:
            chain = chain + part
    whole = load(choices[0].source)
    if {c.source for c in choices} == {choices[0].source} and chain.names == whole.names:
        chain.search = whole.search  # nothing was exchanged: what was tuned for the pack holds
    return chain


def run(choices: Sequence[Choice], given: str | Path | None, ctc_weight: float | None = None) -> PageAnswer:
    """Send an input through the chosen parts.

    Args:
        choices: in order; the last one is a decoder part.
        given: the text, or the file of a recording or of whatever else the first part reads.
        ctc_weight: as in BeamOptions.

    Raises:
        LegoNNError: what is wrong with the input or the parts, in words.
    """
    answer, options = PageAnswer(), BeamOptions(ctc_weight=ctc_weight)
    known = load.cache_info().misses
    started = time.perf_counter()
    chain = plug(choices)
    loaded = load.cache_info().misses > known
    answer.steps["load and plug" if loaded else "plug (packs are in memory)"] = time.perf_counter() - started
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _timed(answer.steps, "read the input"):
            item = chain.first.input.accept(given, answer.notes)
        found = chain.answer([item], options, judge_all=True, times=True)[0]
    _tell(chain, found, answer)
    answer.notes += found.notes
    # Inputs are numbered there; here is only one.
    answer.notes += [str(w.message).removeprefix("input 0: ") for w in caught if issubclass(w.category, UserWarning)]
    with _timed(answer.steps, "draw the interfaces"):
        for said in answer.said:
            if said.module in found.interfaces:
                marginals = found.interfaces[said.module].marginals
                said.picture = picture(marginals, f"{said.module}: {said.text}")
    return answer


@contextlib.contextmanager
def _timed(steps: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    steps[name] = time.perf_counter() - started


def _tell(chain: LegoNN, found: answers.Answer, answer: PageAnswer) -> None:
    """What the chain found, in the order of its modules."""
    for name in chain.names:
        if name in found.interfaces:
            text = found.interfaces[name].text
        else:
            text = found.text if name == chain.names[-1] else ""
        answer.said.append(ModuleText(name, text, found.seconds[name]))
    answer.text, answer.parts = found.text, found.best.parts
    answer.ctc_weight = found.options.ctc_weight or 0.0
    answer.words, answer.exact = found.words, found.exact


def example_input(choice: Choice, example: Example) -> str | tuple[int, np.ndarray]:
    """An example of a pack: its text, or sampling rate and samples of its recording."""
    if not example.is_file:
        return example.text
    import soundfile

    path = resolve(choice.source)
    with opened(path, [example.text]) as folder:
        if not is_as_told(folder, card_of(path), example.text):
            raise DataError(f"{example.text}: not what the card of its pack says")
        with soundfile.SoundFile(str(folder / example.text)) as file:
            rate = file.samplerate
            samples = file.read(min(file.frames, int(MAX_SECONDS * min(rate, RATES[1]))), dtype="int16")
    return rate, samples
