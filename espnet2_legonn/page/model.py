"""One run of the page: an input through a plugged chain, with everything that is shown of it. No web framework."""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.inference.plot import Picture, picture
from espnet2_legonn.inference.vote import Vote
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
    """What one module says by itself: the best path of its interface, or the decoder's answer.

    Args:
        reader: the module that reads its interface; none behind an encoder that votes.
    """

    module: str
    text: str
    seconds: float
    picture: Picture | None = None
    reader: str = ""


class Voter(NamedTuple):
    """An encoder part beside the first, what it is given, and its weight (None: that of the first one's CTC)."""

    choice: Choice
    given: str | Path | None
    weight: float | None = None


class SourceText(NamedTuple):
    """What the decoder part writes behind one of the encoder parts alone, and the weight of its CTC in the vote."""

    name: str
    weight: float
    text: str


@dataclass
class PageAnswer:
    """All that a run shows.

    Args:
        steps: what took how many seconds, besides the modules themselves.
        notes: what a person should know: resampled, normalised, unknown words, cut.
        parts: log-probability of the text by scorer.
        ctc_weight: weight of CTC in the search.
        sources: what each encoder part leads to alone, where several vote.
        words: of the text with their times, where sound was read; exact: whether those are exact.
    """

    text: str = ""
    said: list[ModuleText] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    ctc_weight: float = 0.0
    sources: list[SourceText] = field(default_factory=list)
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


def run(
    choices: Sequence[Choice],
    given: str | Path | None,
    ctc_weight: float | None = None,
    voters: Sequence[Voter] = (),
) -> PageAnswer:
    """Send an input through the chosen parts.

    Args:
        choices: in order; the last one is a decoder part.
        given: the text, or the file of a recording or of whatever else the first part reads.
        ctc_weight: as in BeamOptions.
        voters: encoder parts that vote with what stands before the decoder part.

    Raises:
        LegoNNError: what is wrong with the inputs or the parts, in words.
    """
    answer, options = PageAnswer(), BeamOptions(ctc_weight=ctc_weight)
    known = load.cache_info().misses
    started = time.perf_counter()
    chains = [plug(choices), *(plug([voter.choice, choices[-1]]) for voter in voters)]
    loaded = load.cache_info().misses > known
    answer.steps["load and plug" if loaded else "plug (packs are in memory)"] = time.perf_counter() - started
    names = [" + ".join(c.spec for c in choices[:-1]), *(v.choice.spec for v in voters)] if voters else [""]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _timed(answer.steps, "read the input"):
            inputs = [given, *(voter.given for voter in voters)]
            items = [_accepted(*source, answer.notes) for source in zip(chains, inputs, names)]
        if voters:
            with _timed(answer.steps, "search behind each encoder alone"):
                alone = [chain.answer([item], options)[0] for chain, item in zip(chains, items)]
            found, weights = _vote(chains, voters, items, options)
            answer.sources = [SourceText(*source) for source in zip(names, weights, (a.text for a in alone))]
        else:
            alone, found = [], chains[0].answer(items, options, judge_all=True, times=True)[0]
    answer.text, answer.parts, answer.words, answer.exact = found.text, found.best.parts, found.words, found.exact
    answer.ctc_weight = found.options.ctc_weight or 0.0
    for name, told in zip(names, [found, *alone[1:]]):
        answer.notes += _named(name, told.notes)
    # Inputs are numbered there; here is one of each encoder.
    said = (str(w.message).removeprefix("input 0: ") for w in caught if issubclass(w.category, UserWarning))
    answer.notes += dict.fromkeys(said)
    with _timed(answer.steps, "draw the interfaces"):
        own = _said(chains[0], found)
        others = [m for v, c, told in zip(voters, chains[1:], alone[1:]) for m in _said(_encoder(c, v), told, v.choice)]
        behind = len(own) - len(choices[-1].modules)
        answer.said = [*own[:behind], *others, *own[behind:]]
    return answer


def _encoder(chain: LegoNN, voter: Voter) -> LegoNN:
    """Without the decoder part."""
    return chain[: len(voter.choice.modules)]


def _vote(
    chains: Sequence[LegoNN], voters: Sequence[Voter], items: Sequence[Any], options: BeamOptions
) -> tuple[answers.Answer, list[float]]:
    """What all say together, and the weight of the CTC of each."""
    others = [_encoder(chain, voter) for chain, voter in zip(chains[1:], voters)]
    vote = Vote(chains[0], others, [voter.weight for voter in voters])
    found = vote.answer([[item] for item in items], options, judge_all=True, times=True)[0]
    return found, [found.options.ctc_weight or 0.0, *vote.filled(options)]


@contextlib.contextmanager
def _timed(steps: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    steps[name] = time.perf_counter() - started


def _accepted(chain: LegoNN, given: str | Path | None, name: str, notes: list[str]) -> Any:
    """An input as the chain takes it; notes and faults say whose it is where there are several."""
    own: list[str] = []
    try:
        item = chain.first.input.accept(given, own)
    except DataError as error:
        raise DataError(_named(name, error.faults)) from None
    notes += _named(name, own)
    return item


def _named(name: str, messages: Sequence[str]) -> list[str]:
    return [f"{name}: {message}" if name else message for message in messages]


def _said(chain: LegoNN, found: answers.Answer, choice: Choice | None = None) -> list[ModuleText]:
    """What was found of these modules, in their order; those of a ``choice`` are called by their pack, too."""
    told, pack = [], f"{choice.spec.rpartition('#')[0]}#" if choice else ""
    for name, reader in zip(chain.names, [*chain.names[1:], ""]):
        path = found.interfaces.get(name)
        text = path.text if path else found.text if name == chain.names[-1] else ""
        shown = picture(path.marginals, f"{pack}{name}: {text}") if path else None
        told.append(ModuleText(pack + name, text, found.seconds[name], shown, reader and pack + reader))
    return told


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
