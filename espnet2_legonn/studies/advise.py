"""Should these modules be plugged? A hundred examples, three searches, and what the modules were trained with.

The weights of the search are chosen on one half of the examples and judged on the other, and the other way round: a
score with weights that were chosen by it would be too good.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.interface import RATIO_TOLERANCE
from espnet2_legonn.model.module import DecoderModule, EncoderModule, consumed, produced
from espnet2_legonn.recipes.tune import PENALTIES, Candidates, find_candidates
from espnet2_legonn.scoring.bootstrap import Segments, confidence_interval
from espnet2_legonn.scoring.metrics import known, statistics
from espnet2_legonn.scoring.significance import Comparison, compare
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.studies.evaluate import Figures, evaluate

LEAST = 20  # utterances: fewer say nothing
UNSURE = 0.8  # share of an interface's tokens that are right, below which a warm start is worth a thought


@dataclass(frozen=True)
class Trial:
    """One way to decode: its score with weights that were chosen on other examples."""

    name: str
    segments: Segments

    def as_text(self) -> str:
        """One phrase: name, score, 95 % interval over the examples."""
        interval = confidence_interval(self.segments)
        between = "" if interval.low is None else f" ({interval.low:.1f} to {interval.high:.1f})"
        return f"{self.name}: {known(self.segments.metric).label} {self.segments.value:.1f}{between}"


@dataclass
class Advice:
    """What to do, in words, and what it rests on.

    Args:
        verdict: plug, leave the encoder alone, or undecided.
        gain: of the joint search over the encoder alone, turned so that more is better.
        trials: the encoder alone, the plug by the decoder alone, the plug searched jointly.
        interface: figures of the encoder's last interface; hints: what else could be done.
    """

    verdict: str
    gain: Comparison
    trials: list[Trial]
    interface: Figures
    hints: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """A few lines."""
        better = 1 if known(self.gain.metric).higher else -1
        low, high = sorted(better * x for x in self.gain.ci)
        between = f"{better * self.gain.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        gain = f"gain of the plug over the encoder alone: {between}"
        lines = [self.verdict, *(trial.as_text() for trial in self.trials), gain, *(f"- {hint}" for hint in self.hints)]
        lines.append(f"on {self.gain.units} examples, 95 % intervals by bootstrap over them")
        return "\n".join(lines)


def judged(name: str, candidates: Candidates, metric: str, language: str | None, weight: float | None = None) -> Trial:
    """Score of candidates, each half ranked by the weights that are best on the other half."""
    references = [[texts[i] for i in candidates.owner] for texts in candidates.references]
    stats, score = statistics(metric, references, candidates.texts, language)
    better, n = 1 if known(metric).higher else -1, candidates.utterances
    places = itertools.product(candidates.weights(weight), PENALTIES)
    chosen = [stats[candidates.best((w, 0.0, penalty))] for w, penalty in places]
    halves = np.arange(n) % 2 == 0
    out = np.zeros_like(chosen[0])
    for half in (halves, ~halves):
        best = max(chosen, key=lambda rows: better * float(score(rows[~half].sum(0, keepdims=True))[0]))
        out[half] = best[half]
    return Trial(name, Segments.of(metric, "the same examples", out, score))


def advise(encoder: LegoNN, donor: LegoNN, data: Path, metric: str, limit: int = 100, beam_size: int = 4) -> Advice:
    """Try a plug of a donor's decoder behind an encoder.

    Args:
        encoder: a chain; a decoder at its end is left out. donor: a chain that ends in a decoder.
        data: a data directory of the encoder's task, with references; limit: examples, the first of it.

    Raises:
        ConfigError: the donor has no decoder, the encoder is none, or one of them says phonemes and the other words.
        InterfaceMismatch: they do not fit. DataError: bad data, or fewer than 20 examples.
    """
    alone = encoder[:-1] if isinstance(encoder.last, DecoderModule) and len(encoder) > 1 else encoder
    if not isinstance(donor.last, DecoderModule):
        raise ConfigError(f"{donor.names[-1]}, the last module of the second chain, is no decoder")
    if produced(alone.last) is None:
        raise ConfigError(f"{alone.names[-1]} of the first chain writes no interface that a decoder could read")
    plugged = alone + donor[-1:]
    said, answered = (chain.last.ports[1].vocab for chain in (alone, plugged))
    if said and answered and (said.unit == "phn") != (answered.unit == "phn"):
        pair = f"{alone.names[-1]} says {said.unit}, the plug {answered.unit}"
        raise ConfigError(f"{pair}: phonemes and words have no score in common, so there is no advice")
    interface = evaluate(alone, data, metric, limit=limit)[-1]
    if interface.utterances < LEAST:
        raise DataError(f"{data}: {interface.utterances} examples say nothing; at least {LEAST} are needed")
    vocab = plugged.require_text()
    own = find_candidates(alone, data, metric, BeamOptions(beam_size), limit=limit)
    both = find_candidates(plugged, data, metric, BeamOptions(beam_size), limit=limit)
    trials = [
        judged("the encoder alone", own, metric, vocab.language),
        judged("plugged, the decoder alone (as in the paper)", both, metric, vocab.language, 0.0),
        judged("plugged, joint search", both, metric, vocab.language),
    ]
    gain = compare(trials[0].segments, trials[2].segments)
    low, high = sorted(x if known(metric).higher else -x for x in gain.ci)
    verdict = (
        "plug, with joint search" if low > 0
        else "leave the encoder alone: the plug makes it worse" if high < 0
        else "undecided: no clear difference on so few examples (--limit)"
    )  # fmt: skip
    return Advice(verdict, gain, trials, interface, hints(alone, donor, interface))


def hints(alone: LegoNN, donor: LegoNN, interface: Figures) -> list[str]:
    """What could make the plug better: another number of slots, a collapsed reader, a warm start."""
    found = []
    reads = consumed(donor.last)
    expected = None if reads is None else reads.slots_per_token
    made = interface.slots_per_token
    if donor.last.input.collapse_slots:
        found.append("the decoder reads collapsed slots: slots a token do not matter to it")
    elif expected and made and not 1 / RATIO_TOLERANCE <= made / expected <= RATIO_TOLERANCE:
        found.append(
            f"re-time: the encoder makes {made:.2f} slots a token, the decoder was trained on {expected:.2f}; train "
            f"the encoder with slots_per_token: {expected:.1f}, or take a decoder with collapse: true"
        )
    taken = warm_parts(alone, donor)
    if taken and interface.right is not None and interface.right < UNSURE:
        found.append(
            f"warm start: {100 * interface.right:.0f} % of the encoder's tokens are right, and the donor's encoder has "
            f"its sizes; train it from there (init: {{from: DONOR#{taken}, except: [input]}}), the decoder as it is"
        )
    return found


def warm_parts(alone: LegoNN, donor: LegoNN) -> str | None:
    """The donor's encoder module whose weights, all but the input's, have the shapes of this encoder's last module.

    None as well for an encoder that began warm already.
    """

    def shapes(module: EncoderModule) -> dict[str, Sequence[int]]:
        return {k: tuple(v.shape) for k, v in module.state_dict().items() if not k.startswith("input.")}

    last = alone.last
    if last.config.donor is not None:
        return None
    for name, module in zip(reversed(donor.names[:-1]), reversed(list(donor)[:-1])):
        if isinstance(module, EncoderModule) and isinstance(last, EncoderModule) and shapes(module) == shapes(last):
            return name
    return None
