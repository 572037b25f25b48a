"""Should these modules be plugged? A hundred examples, a few searches, and what the modules were trained with.

The weights of the search are chosen on one half of the examples and judged on the other, and the other way round: a
score with weights that were chosen by it would be too good.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.decode import decode_table, inputs_of
from espnet2_legonn.inference.fusion import makers
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.interface import RATIO_TOLERANCE
from espnet2_legonn.model.module import DecoderModule, EncoderModule, consumed, produced
from espnet2_legonn.recipes.tune import NGRAM_WEIGHTS, PENALTIES, Candidates, find_candidates
from espnet2_legonn.scoring.bootstrap import Segments, confidence_interval
from espnet2_legonn.scoring.metrics import known, statistics
from espnet2_legonn.scoring.significance import Comparison, compare
from espnet2_legonn.search.chain_search import ScorerMaker
from espnet2_legonn.search.options import DEFAULT_LENGTH_PENALTY, BeamOptions
from espnet2_legonn.studies.evaluate import Figures, Speakers, drawn, evaluate

LEAST = 20  # utterances: fewer say nothing
# Speakers: a bootstrap over fewer is too narrow to decide. Of two equal systems it prefers one in 20 % of all trials
# with 4 speakers, in 8 % with 10, where it should in 5 %.
FEW = 10
UNSURE = 0.8  # share of an interface's tokens that are right, below which a warm start is worth a thought
CONTROL = (
    "a control: an n-gram model of the donor's texts may give the encoder as much as the plug does; make one over the "
    "encoder's tokens (legonn ngram TEXT --vocab A -o ARPA) and give it as --ngram_file ARPA"
)


@dataclass(frozen=True)
class Trial:
    """One way to decode, and its score; weights that were chosen were chosen on other examples.

    Args:
        ngram: whether an n-gram model searches, too.
    """

    name: str
    segments: Segments
    ngram: bool = False

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
        gain: of ``plug`` over ``control``.
        control: the encoder alone, or the encoder with the n-gram model where that is better.
        plug: the plug searched jointly, or with the n-gram model, too, where that is better.
        trials: all that were made. One that nothing is compared with is the plug by the decoder alone.
        interface: figures of the encoder's last interface; hints: what else could be done.
        speakers: that the data name, see ``Speakers``.
    """

    verdict: str
    gain: Comparison
    control: Trial
    plug: Trial
    trials: list[Trial]
    interface: Figures
    hints: list[str] = field(default_factory=list)
    speakers: int | None = None

    def as_text(self) -> str:
        """A few lines."""
        better = 1 if known(self.gain.metric).higher else -1
        low, high = sorted(better * x for x in self.gain.ci)
        between = f"{better * self.gain.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        plug = "the plug with the n-gram" if self.plug.ngram else "the plug"
        gain = f"gain of {plug} over {self.control.name}: {between}"
        lines = [self.verdict, *(trial.as_text() for trial in self.trials), gain, *(f"- {hint}" for hint in self.hints)]
        over = drawn(self.gain.unit, self.gain.units, self.speakers)
        lines.append(f"on {self.plug.segments.count} examples; {over}")
        return "\n".join(lines)


def judged(name: str, candidates: Candidates, metric: str, language: str | None, speakers: Sequence[str] = ()) -> Trial:
    """Score of candidates, each half ranked by the weights that are best on the other half.

    Args:
        speakers: of the utterances, whom intervals draw; none: they draw utterances.
    """
    references = [[texts[i] for i in candidates.owner] for texts in candidates.references]
    stats, score = statistics(metric, references, candidates.texts, language)
    better, n = 1 if known(metric).higher else -1, candidates.utterances
    places = itertools.product(candidates.weights(), NGRAM_WEIGHTS if candidates.modelled else (0.0,), PENALTIES)
    chosen = [stats[candidates.best(place)] for place in places]
    halves = np.arange(n) % 2 == 0
    out = np.zeros_like(chosen[0])
    for half in (halves, ~halves):
        best = max(chosen, key=lambda rows: better * float(score(rows[~half].sum(0, keepdims=True))[0]))
        out[half] = best[half]
    return Trial(name, Segments.of(metric, "the same examples", out, score, speakers), candidates.modelled)


def by_decoder(
    chain: LegoNN,
    inputs: Mapping[str, str],
    references: Sequence[Sequence[str]],
    metric: str,
    beam_size: int = 4,
    speakers: Sequence[str] = (),
) -> Trial:
    """The paper's search: the decoder proposes and judges, and no weight is chosen.

    The candidates of ``find_candidates`` would not do: CTC has proposed some of them.

    Args:
        references: of the inputs, one list for each table; speakers: see ``judged``.
    """
    options = BeamOptions(beam_size, DEFAULT_LENGTH_PENALTY, ctc_weight=0.0)
    said = decode_table(chain, dict(inputs), options, 64).nbest[0].text
    stats, score = statistics(metric, references, [said[uid] for uid in inputs], chain.require_text().language)
    segments = Segments.of(metric, "the same examples", stats, score, speakers)
    return Trial("plugged, the decoder alone (the paper's search, no weights chosen)", segments)


def advise(
    encoder: LegoNN,
    donor: LegoNN,
    data: Path,
    metric: str,
    limit: int = 100,
    beam_size: int = 4,
    ngram_file: Path | None = None,
) -> Advice:
    """Try a plug of a donor's decoder behind an encoder.

    Args:
        encoder: a chain; a decoder at its end is left out. donor: a chain that ends in a decoder.
        data: a data directory of the encoder's task, with references; limit: examples, spread over the set.
        ngram_file: ARPA over the tokens of the encoder's interface: two more trials, and what the plug must beat is
            the better of the encoder alone and the encoder with this model.

    Raises:
        ConfigError: the donor has no decoder, the encoder is none, or one of them says phonemes and the other words.
        InterfaceMismatch: they do not fit. DataError: bad data or n-gram model, or fewer than 20 examples.
    """
    alone, plugged = _sides(encoder, donor)
    more = _models(alone, beam_size, ngram_file)
    inputs = inputs_of(alone, data, limit)
    if len(inputs) < LEAST:
        raise DataError(f"{data}: {len(inputs)} examples say nothing; at least {LEAST} are needed")
    speakers = Speakers.read(data, inputs)
    whom = speakers.drawn(list(inputs)) if (speakers.number or 0) >= FEW else []
    language = plugged.require_text().language

    def tried(name: str, chain: LegoNN, models: Sequence[ScorerMaker]) -> tuple[Trial, Candidates]:
        found = find_candidates(chain, data, metric, BeamOptions(beam_size), models, limit)
        return judged(name, found, metric, language, whom), found

    interface = evaluate(alone, data, metric, limit=limit)[-1]
    own, found = tried("the encoder alone", alone, ())
    decoder = by_decoder(plugged, inputs, found.references, metric, beam_size, whom)
    controls, plugs = [own], [tried("plugged, joint search", plugged, ())[0]]
    if more:
        controls.append(tried("the encoder alone, with the n-gram", alone, more)[0])
        if plugged.require_text().sha256 == alone.require_text().sha256:
            plugs.append(tried("plugged, joint search, with the n-gram", plugged, more)[0])
    better = 1 if known(metric).higher else -1
    control, plug = (max(some, key=lambda t: better * t.segments.value) for some in (controls, plugs))
    gain = compare(control.segments, plug.segments)
    found_hints = hints(alone, donor, interface) + ([] if more else [CONTROL])
    if len(controls) > len(plugs):
        found_hints.append("the plug was not tried with the n-gram: its decoder writes other tokens than the encoder")
    trials = [own, decoder, plugs[0], *controls[1:], *plugs[1:]]
    return Advice(_verdict(gain, control, plug), gain, control, plug, trials, interface, found_hints, speakers.number)


def _sides(encoder: LegoNN, donor: LegoNN) -> tuple[LegoNN, LegoNN]:
    """The encoder alone, and with the donor's decoder; errors as ``advise`` says."""
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
    return alone, plugged


def _models(alone: LegoNN, beam_size: int, ngram_file: Path | None) -> list[ScorerMaker]:
    """Makers of the n-gram model's scorers, read at once: a bad file is found before anything is decoded."""
    if ngram_file is None:
        return []
    options = BeamOptions(beam_size, ngram_file=str(ngram_file)).filled(None, True)
    found = makers(options, alone.require_text())
    for make in found:
        make(1, beam_size, alone.device)
    return found


def _verdict(gain: Comparison, control: Trial, plug: Trial) -> str:
    """What to do, in words."""
    low, high = sorted(x if known(gain.metric).higher else -x for x in gain.ci)
    if low > 0:
        return f"plug, with joint search{' and the n-gram' if plug.ngram else ''}"
    if high < 0 and control.ngram:
        return "leave the encoder alone, with the n-gram: the plug is worse"
    if high < 0:
        return "leave the encoder alone: the plug makes it worse"
    return "undecided: no clear difference on so few examples (--limit)"


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
