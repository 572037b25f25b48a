"""Beam search against searches that are too plain to be wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.best import best_places
from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.search.beam import BeamOptions, Hypothesis, beam_search

pytestmark = pytest.mark.usefixtures("float64")
Batch = tuple[torch.Tensor, torch.Tensor]
Make = Callable[..., DecoderModule]
LONGEST = 3
PENALTIES = (0.0, 0.6, 1.0, 1.7)


def teacher_forced(decoder: DecoderModule, x: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """(L + 1, V) log-probabilities after each prefix of ids, computed without any cache; blank is not allowed."""
    with torch.no_grad():
        labels = torch.tensor([ids], dtype=torch.long)
        logits, _ = decoder(x, torch.tensor([x.shape[1]]), labels, torch.tensor([len(ids)]))
    return logits[0].log_softmax(-1)


def log_probability(decoder: DecoderModule, x: torch.Tensor, ids: list[int]) -> float:
    steps = teacher_forced(decoder, x, ids)
    return sum(float(row[i]) for row, i in zip(steps, [*ids, decoder.sos_eos]))


def every_text(vocab: int, longest: int, shortest: int = 0) -> list[list[int]]:
    """All sequences of real tokens (no blank, no end)."""
    tokens = range(1, vocab - 1)
    return [list(ids) for n in range(shortest, longest + 1) for ids in itertools.product(tokens, repeat=n)]


def brute_force(
    decoder: DecoderModule, x: torch.Tensor, penalty: float, shortest: int = 0
) -> list[Hypothesis]:
    found = []
    for ids in every_text(decoder.sos_eos + 1, LONGEST, shortest):
        log_prob = log_probability(decoder, x, ids)
        found.append(Hypothesis(ids, log_prob / (len(ids) + 1) ** penalty, log_prob, {}))
    return sorted(found, key=lambda h: -h.score)


def plain_search(decoder: DecoderModule, x: torch.Tensor, options: BeamOptions) -> list[Hypothesis]:
    """fairseq's rule for one utterance, with lists, a loop and no cache."""
    most, fewest = (int(n) for n in options.limits(torch.tensor([x.shape[1]])))
    alive: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[Hypothesis] = []
    for length in range(most + 1):
        candidates = []
        for score, ids in alive:
            row = teacher_forced(decoder, x, ids)[-1]
            for token in range(1, len(row)):
                end = token == decoder.sos_eos
                if (end and length < fewest) or (not end and length >= most):
                    continue
                candidates.append((score + float(row[token]), ids, token))
        candidates.sort(key=lambda c: -c[0])
        for score, ids, token in candidates[: options.beam_size]:
            if token == decoder.sos_eos:
                done.append(Hypothesis(ids, score / (len(ids) + 1) ** options.length_power, score, {}))
        on = [(score, [*ids, token]) for score, ids, token in candidates if token != decoder.sos_eos]
        alive = on[: options.beam_size]
        if len(done) >= options.beam_size:
            break
    return sorted(done, key=lambda h: -h.score)[: options.nbest]


def same(found: list[Hypothesis], wanted: list[Hypothesis]) -> None:
    assert [h.ids for h in found] == [h.ids for h in wanted]
    for a, b in zip(found, wanted):
        assert a.score == pytest.approx(b.score, abs=1e-9)
        assert a.log_prob == pytest.approx(b.log_prob, abs=1e-9)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_wide_beam_is_exact(make: Make, marginals: Batch, seed: int, penalty: float) -> None:
    """40 texts of at most 3 of 3 tokens: a beam of 40 (eight times the vocabulary) must list them all in order."""
    decoder, (x, lengths) = make(seed), marginals
    everything = every_text(decoder.sos_eos + 1, LONGEST)
    options = BeamOptions(len(everything), penalty, maxlenratio=-LONGEST, nbest=len(everything))
    for found, row, length in zip(beam_search(decoder, x, lengths, options), x, lengths):
        wanted = brute_force(decoder, row[None, :length], penalty)
        assert len(wanted) == 40
        same(found, wanted)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beam_is_exact_with_a_shortest_length(
    decoder: DecoderModule, marginals: Batch, penalty: float
) -> None:
    x, lengths = marginals
    options = BeamOptions(40, penalty, maxlenratio=-LONGEST, minlenratio=-2, nbest=40)
    for found, row, length in zip(beam_search(decoder, x, lengths, options), x, lengths):
        same(found, brute_force(decoder, row[None, :length], penalty, shortest=2))


def test_length_penalty_changes_the_winner(make: Make, marginals: Batch) -> None:
    """Without it the comparison above would prove little."""
    winners = set()
    for penalty in PENALTIES:
        options = BeamOptions(40, penalty, maxlenratio=-LONGEST)
        found = (beam_search(make(seed), *marginals, options) for seed in (1, 2, 3))
        winners.add(str([[h[0].ids for h in per_seed] for per_seed in found]))
    assert len(winners) > 1


@pytest.mark.parametrize("beam", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("kind", ["wemb", "beam_conv"])
def test_cached_batch_equals_plain_uncached_search(
    make: Make, marginals: Batch, kind: str, beam: int
) -> None:
    decoder, (x, lengths) = make(4, kind), marginals
    options = BeamOptions(beam, 0.6, maxlenratio=1.0, minlenratio=0.3, nbest=beam)
    for found, row, length in zip(beam_search(decoder, x, lengths, options), x, lengths):
        same(found, plain_search(decoder, row[None, :length], options))


@pytest.mark.parametrize("collapse", [False, True])
@pytest.mark.parametrize("kind", ["wemb", "beam_conv"])
@pytest.mark.parametrize("beam", [1, 4])
def test_batch_equals_single(make: Make, marginals: Batch, kind: str, beam: int, collapse: bool) -> None:
    decoder, (x, lengths) = make(5, kind, collapse=collapse), marginals
    options = BeamOptions(beam, 1.0, maxlenratio=1.5, nbest=beam)
    together = beam_search(decoder, x, lengths, options)
    for found, row, length in zip(together, x, lengths):
        alone = beam_search(decoder, row[None, :length], length[None], options)[0]
        same(found, alone)


def test_order_of_the_batch_does_not_matter(decoder: DecoderModule, marginals: Batch) -> None:
    x, lengths = marginals
    order = torch.tensor([3, 1, 4, 0, 2])
    options = BeamOptions(3, nbest=3)
    straight = beam_search(decoder, x, lengths, options)
    shuffled = beam_search(decoder, x[order], lengths[order], options)
    for place, origin in enumerate(order.tolist()):
        same(shuffled[place], straight[origin])


@pytest.mark.parametrize("beam", [2, 5, 40])
def test_nbest_is_sorted_and_distinct(decoder: DecoderModule, marginals: Batch, beam: int) -> None:
    for found in beam_search(decoder, *marginals, BeamOptions(beam, 0.6, nbest=beam)):
        assert 1 <= len(found) <= beam
        scores = [h.score for h in found]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(h.ids) for h in found}) == len(found)
        assert not any({0, decoder.sos_eos} & set(h.ids) for h in found)


def test_fewer_than_nbest_are_asked_for(decoder: DecoderModule, marginals: Batch) -> None:
    many = beam_search(decoder, *marginals, BeamOptions(5, nbest=5))
    for few, all_five in zip(beam_search(decoder, *marginals, BeamOptions(5, nbest=2)), many):
        assert few == all_five[:2]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_log_prob_is_the_teacher_forced_one(decoder: DecoderModule, marginals: Batch, penalty: float) -> None:
    x, lengths = marginals
    found = beam_search(decoder, x, lengths, BeamOptions(4, penalty, nbest=4))
    for hypotheses, row, length in zip(found, x, lengths):
        for hypothesis in hypotheses:
            wanted = log_probability(decoder, row[None, :length], hypothesis.ids)
            assert hypothesis.log_prob == pytest.approx(wanted, abs=1e-9)
            assert hypothesis.score == pytest.approx(wanted / (len(hypothesis.ids) + 1) ** penalty, abs=1e-9)


@pytest.mark.parametrize(
    ("most", "fewest", "limits"),
    [
        (0.5, 0.0, [(0, 2), (0, 4), (0, 1), (0, 3), (0, 4)]),  # rounded down, at least one token
        (0.1, 0.0, [(0, 1)] * 5),
        (-3, 0.0, [(0, 3)] * 5),
        (1.0, 1.0, [(4, 4), (9, 9), (2, 2), (6, 6), (9, 9)]),
        (-5, -5, [(5, 5)] * 5),
        (-2, 1.0, [(2, 2)] * 5),  # the longest wins over the shortest
        (0.0, 2.0, [(8, 18), (18, 28), (4, 14), (12, 22), (18, 28)]),
    ],
)
def test_length_limits(
    decoder: DecoderModule, marginals: Batch, most: float, fewest: float, limits: list[tuple[int, int]]
) -> None:
    options = BeamOptions(3, maxlenratio=most, minlenratio=fewest, nbest=3)
    for found, (low, high) in zip(beam_search(decoder, *marginals, options), limits):
        assert found
        assert all(low <= len(h.ids) <= high for h in found)


def test_finished_utterances_leave_the_batch(decoder: DecoderModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text has as many tokens as its utterance slots: 1, 3 and 5; the end is one step more."""
    sizes, step = [], decoder.step

    def counting(tokens: torch.Tensor, state: object) -> torch.Tensor:
        sizes.append(len(tokens))
        return step(tokens, state)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder, "step", counting)
    x = torch.randn(3, 5, decoder.sos_eos + 1).log_softmax(-1)
    beam_search(decoder, x, torch.tensor([3, 1, 5]), BeamOptions(2, maxlenratio=1, minlenratio=1))
    assert sizes == [6, 6, 4, 4, 2, 2]


def test_stops_when_enough_have_ended(decoder: DecoderModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that always wants to end is done after as many steps as it needs to fill the beam."""
    calls, step = [], decoder.step

    def hasty(tokens: torch.Tensor, state: object) -> torch.Tensor:
        calls.append(1)
        log_probs = step(tokens, state)  # type: ignore[arg-type]
        log_probs[:, decoder.sos_eos] += 100.0
        return log_probs

    monkeypatch.setattr(decoder, "step", hasty)
    x = torch.randn(1, 50, decoder.sos_eos + 1).log_softmax(-1)
    found = beam_search(decoder, x, torch.tensor([50]), BeamOptions(2, nbest=2))
    assert len(calls) == 2
    assert found[0][0].ids == []


def test_smallest_vocabulary_with_a_wide_beam(make: Make) -> None:
    """One real token besides <unk>: four candidates for a beam of seven."""
    decoder = make(6, vocab=4)
    x = torch.randn(2, 3, 4).log_softmax(-1)
    options = BeamOptions(7, maxlenratio=-2, nbest=7)
    for found, row in zip(beam_search(decoder, x, torch.tensor([3, 3]), options), x):
        same(found, plain_search(decoder, row[None], options))
        assert len(found) == 7  # all texts of at most two of two tokens


def test_greedy_is_a_beam_of_one(decoder: DecoderModule, marginals: Batch) -> None:
    x, lengths = marginals
    for found, row, length in zip(beam_search(decoder, x, lengths, BeamOptions(1)), x, lengths):
        ids: list[int] = []
        while len(ids) < 2 * int(length) + 10:
            best = int(teacher_forced(decoder, row[None, :length], ids)[-1][1:].argmax()) + 1
            if best == decoder.sos_eos:
                break
            ids.append(best)
        assert found[0].ids == ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size: 0 is less than 1"),
        ({"beam_size": -3}, "beam_size: -3 is less than 1"),
        ({"nbest": 0}, r"nbest: 0 is not between 1 and beam_size \(5\)"),
        ({"beam_size": 2, "nbest": 3}, r"nbest: 3 is not between 1 and beam_size \(2\)"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BeamOptions(**options)


def test_marginals_of_nan_end_the_search(decoder: DecoderModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """A diverged model must not hang the decoder: an error or an answer, but within the longest length."""
    steps, step = [], decoder.step

    def counting(tokens: torch.Tensor, state: object) -> torch.Tensor:
        steps.append(1)
        if len(steps) > 100:
            pytest.fail("100 steps for a text of at most 3 tokens: the search never ends")
        return step(tokens, state)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder, "step", counting)
    x = torch.full((1, 4, decoder.sos_eos + 1), float("nan"))
    try:
        beam_search(decoder, x, torch.tensor([4]), BeamOptions(2, maxlenratio=-3))
    except ValueError as error:
        assert "nan" in str(error).lower() or "finite" in str(error).lower()


@pytest.mark.parametrize("vocab", [50, 639, 4000, 8003])
def test_best_places_of_a_large_vocabulary_are_those_of_a_sort(vocab: int) -> None:
    x = torch.randn(7, vocab, generator=torch.Generator().manual_seed(vocab))
    x[0, : vocab // 2] = -torch.inf
    x[1, -3:] = torch.tensor([9.0, 8.0, 7.0])  # behind the last whole block
    x[2, 64:74] += 9.0  # all in one block
    assert torch.equal(best_places(x, 10), x.topk(10).indices)
