"""The joint search of decoder and CTC against lists of all texts, and what a chain's options come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.model.interface import Interface, Marginals
from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.search.beam import beam_search
from espnet2_legonn.search.chain_search import fill, rescore, search_ctc, search_decoder
from espnet2_legonn.search.options import BeamOptions, Hypothesis, SearchChoice
from tests.search.listing import log, texts_of
from tests.search.test_beam import LONGEST, every_text, log_probability

Batch = tuple[torch.Tensor, torch.Tensor]
Make = Callable[..., DecoderModule]
WEIGHTS = (0.1, 0.4, 0.9, 1.0)


def over(decoder: DecoderModule, batch: Batch, **about: Any) -> Marginals:
    """Marginals over the decoder's own tokens."""
    vocab = decoder.ports[1].vocab
    assert vocab is not None
    return Marginals(*batch, Interface(vocab, **about))


def search(decoder: DecoderModule, batch: Batch, judge_all: bool = False, **options: Any) -> list[list[Hypothesis]]:
    found = over(decoder, batch)
    return search_decoder(decoder, *batch, found, BeamOptions(**options), judge_all=judge_all)


def ctc_log_prob(row: torch.Tensor, ids: list[int]) -> float:
    """PyTorch's loss, in float64."""
    loss = torch.nn.functional.ctc_loss(
        row.double()[:, None], torch.tensor([ids], dtype=torch.long), torch.tensor([len(row)]),
        torch.tensor([len(ids)]), reduction="none",
    )  # fmt: skip
    return -float(loss)


def same(found: list[Hypothesis], wanted: list[Hypothesis], tolerance: float = 2e-4) -> None:
    assert [h.ids for h in found] == [h.ids for h in wanted]
    for a, b in zip(found, wanted):
        assert (a.score, a.log_prob) == pytest.approx((b.score, b.log_prob), abs=tolerance)
        assert a.parts == pytest.approx(b.parts, abs=tolerance)


@pytest.fixture(scope="module")
def judged() -> Callable[[DecoderModule, Batch], list[list[tuple[list[int], float, float]]]]:
    """Every text of at most 3 tokens for each utterance, with its decoder's and CTC's log-probability."""

    def judge(decoder: DecoderModule, batch: Batch) -> list[list[tuple[list[int], float, float]]]:
        texts = every_text(decoder.sos_eos + 1, LONGEST)
        rows = [row[:length] for row, length in zip(batch[0], batch[1].tolist())]
        return [[(t, log_probability(decoder, row[None], t), ctc_log_prob(row, t)) for t in texts] for row in rows]

    return judge


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_wide_beam_lists_all_texts_in_order(
    make: Make, marginals: Batch, judged: Any, seed: int, weight: float
) -> None:
    """For several length penalties; texts that CTC has no slots for are not there. Parts are the scorers' own."""
    decoder = make(seed)
    known = judged(decoder, marginals)
    for penalty in (0.0, 0.6, 1.0, 1.7):
        options = {"beam_size": 40, "nbest": 40, "maxlenratio": -LONGEST}
        everything = search(decoder, marginals, True, ctc_weight=weight, length_penalty=penalty, **options)
        for found, texts in zip(everything, known):
            wanted = []
            for ids, said, heard in texts:
                total = (1 - weight) * said + weight * heard
                if np.isfinite(total):
                    score = total / (len(ids) + 1) ** penalty
                    wanted.append(Hypothesis(ids, score, total, {"decoder": said, "ctc": heard}))
            same(found, sorted(wanted, key=lambda h: -h.score))
        assert len(everything[2]) < 40 == len(everything[1]), "two slots cannot say everything"


def test_ctc_of_the_reference_is_the_sum_over_alignments(decoder: DecoderModule, marginals: Batch) -> None:
    row = marginals[0][0, :4]
    texts = texts_of(row)
    for ids in every_text(decoder.sos_eos + 1, LONGEST):
        assert ctc_log_prob(row, ids) == pytest.approx(log(texts.get(tuple(ids), 0.0)), abs=1e-5)


@pytest.mark.parametrize("judge_all", [False, True])
def test_without_weight_it_is_the_papers_search(make: Make, marginals: Batch, judge_all: bool) -> None:
    """CTC proposes nothing then and forbids nothing; if asked, it says what it thinks, log 0 included."""
    impossible = 0
    for seed, beam in ((1, 1), (2, 4), (3, 40)):
        decoder = make(seed)
        found = search(decoder, marginals, judge_all, beam_size=beam, nbest=beam, ctc_weight=0.0)
        paper = beam_search(decoder, *marginals, BeamOptions(beam, nbest=beam))
        assert [[(h.ids, h.score) for h in item] for item in found] == [[(h.ids, h.score) for h in i] for i in paper]
        for item, row, length in zip(found, *marginals):
            for h in item:
                assert set(h.parts) == ({"decoder", "ctc"} if judge_all else {"decoder"})
                if judge_all:
                    wanted = ctc_log_prob(row[:length], h.ids)
                    assert h.parts["ctc"] == pytest.approx(wanted, abs=1e-3)
                    impossible += not np.isfinite(wanted)
    assert impossible > 10 or not judge_all


def test_weight_one_asks_ctc_alone(decoder: DecoderModule, marginals: Batch) -> None:
    options = {"beam_size": 5, "nbest": 5, "ctc_weight": 1.0, "length_penalty": 0.7}
    alone = search_ctc(over(decoder, marginals), BeamOptions(**options))
    for found, judged, wanted in zip(
        search(decoder, marginals, **options), search(decoder, marginals, True, **options), alone
    ):
        same(found, wanted)
        assert [h.ids for h in judged] == [h.ids for h in wanted] and set(judged[0].parts) == {"decoder", "ctc"}


@pytest.mark.parametrize("collapse", [False, True])
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_batch_equals_single_in_any_order(
    make: Make, marginals: Batch, weight: float, beam: int, collapse: bool
) -> None:
    decoder, (x, lengths) = make(5, collapse=collapse), marginals
    options = {"beam_size": beam, "nbest": beam, "ctc_weight": weight}
    order = torch.tensor([3, 1, 4, 0, 2])
    together, shuffled = search(decoder, marginals, **options), search(decoder, (x[order], lengths[order]), **options)
    for place, origin in enumerate(order.tolist()):
        same(shuffled[place], together[origin])
    for found, row, length in zip(together, x, lengths):
        same(search(decoder, (row[None, :length], length[None]), **options)[0], found)


def test_nan_beyond_the_ends_is_not_read(decoder: DecoderModule, marginals: Batch) -> None:
    x, lengths = marginals
    padded = x.clone()
    for row, length in zip(padded, lengths.tolist()):
        row[length:] = torch.nan
    options = {"beam_size": 3, "nbest": 3, "ctc_weight": 0.4, "temperature": 1.5}
    for found, wanted in zip(search(decoder, (padded, lengths), **options), search(decoder, marginals, **options)):
        same(found, wanted)


@pytest.mark.parametrize("rounded", ["autocast", "marginals", "both"])
def test_bfloat16_says_the_same_where_it_is_clear(make: Make, marginals: Batch, rounded: str) -> None:
    """Where the best text is better by more than rounding is worth; scores are close everywhere."""
    decoder, (x, lengths), clear = make(2), marginals, 0
    options = {"beam_size": 40, "nbest": 2, "maxlenratio": -LONGEST, "ctc_weight": 0.4}
    exact = search(decoder, marginals, **options)
    rough = (x if rounded == "autocast" else x.bfloat16().float(), lengths)
    with torch.autocast("cpu", torch.bfloat16, rounded != "marginals"):
        found = search(decoder, rough, **options)
    for (best, *_), (wanted, second) in zip(found, exact):
        if wanted.score - second.score > 0.05:
            clear += 1
            assert best.ids == wanted.ids and best.parts == pytest.approx(wanted.parts, abs=0.15)
        assert best.score == pytest.approx(wanted.score, abs=0.05)
    assert clear >= 2


@pytest.mark.parametrize("where", ["ctc", "decoder"])
def test_nan_is_an_error(decoder: DecoderModule, marginals: Batch, where: str) -> None:
    x, lengths = marginals
    bad = x.clone()
    bad[1, 3] = torch.nan
    read, heard = (bad, x) if where == "decoder" else (x, bad)
    with pytest.raises(DataError, match="probabilities are NaN"):
        search_decoder(decoder, read, lengths, over(decoder, (heard, lengths)), BeamOptions(3, ctc_weight=0.4))


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("beam", [1, 5])
def test_lengths_keep_within_their_limits(make: Make, marginals: Batch, weight: float, beam: int) -> None:
    decoder = make(3)
    for most, fewest, limits in (
        (0.5, 0.0, [(0, 2), (0, 4), (0, 1), (0, 3), (0, 4)]),
        (-2, -1, [(1, 2)] * 5),
        (0.0, 0.5, [(2, 4), (4, 9), (1, 2), (3, 6), (4, 9)]),  # CTC has no more labels than slots
    ):
        found = search(
            decoder, marginals, beam_size=beam, nbest=beam, maxlenratio=most, minlenratio=fewest, ctc_weight=weight
        )
        for item, (low, high) in zip(found, limits):
            assert item and all(low <= len(h.ids) and (len(h.ids) <= high or not weight) for h in item)


@pytest.mark.parametrize("beam", [1, 3])
def test_there_is_an_answer_even_if_none_is_long_enough(make: Make, marginals: Batch, beam: int) -> None:
    """Twenty tokens are asked for where CTC has two to nine slots: the best prefix it can still explain."""
    for seed in (1, 2, 3):
        decoder = make(seed)
        for item, row, length in zip(
            search(decoder, marginals, beam_size=beam, nbest=beam, minlenratio=-20, ctc_weight=0.4), *marginals
        ):
            (answer,) = item
            assert 1 <= len(answer.ids) <= length
            assert answer.parts["ctc"] == pytest.approx(ctc_log_prob(row[:length], answer.ids), abs=1e-3)
            assert np.isfinite(answer.score)


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("beam", [1, 2, 9, 60])
def test_one_utterance_of_one_slot(make: Make, slots: int, beam: int) -> None:
    decoder = make(6, vocab=4)  # two tokens: beams wider than the vocabulary
    torch.manual_seed(0)
    batch = torch.randn(1, slots, 4).log_softmax(-1), torch.tensor([slots])
    (found,) = search(decoder, batch, beam_size=beam, nbest=beam, ctc_weight=0.5)
    texts = [list(t) for t in texts_of(batch[0][0]) if decoder.sos_eos not in t]
    assert found and all(h.ids in texts for h in found)
    if beam == 60:
        assert sorted(h.ids for h in found) == sorted(texts)


def test_blank_everywhere(decoder: DecoderModule) -> None:
    """CTC hears nothing, with certainty: no other text is possible, whatever the decoder would say."""
    x = torch.full((2, 6, 5), -torch.inf)
    x[..., 0] = 0.0
    lengths = torch.tensor([6, 2])
    near = x.clamp(min=-80.0)  # a decoder cannot read log 0
    found = search_decoder(decoder, near, lengths, over(decoder, (x, lengths)), BeamOptions(3, nbest=3, ctc_weight=0.1))
    assert [[(h.ids, h.parts["ctc"]) for h in item] for item in found] == [[([], 0.0)]] * 2


# -- temperature -------------------------------------------------------------------------------------------------------


def test_temperature_changes_what_the_decoder_reads_and_nothing_else(make: Make, marginals: Batch) -> None:
    decoder, (x, lengths) = make(2), marginals
    options = {"beam_size": 4, "nbest": 4, "ctc_weight": 0.4}
    flat = x.exp() ** (1 / 1.7)
    flat = (flat / flat.sum(-1, keepdim=True)).log()
    found = search(decoder, marginals, temperature=1.7, **options)
    by_hand = search_decoder(decoder, flat, lengths, over(decoder, marginals), BeamOptions(**options))
    for a, b, plain in zip(found, by_hand, search(decoder, marginals, **options)):
        same(a, b, 1e-3)
        assert a[0].score != pytest.approx(plain[0].score, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature: 0.0 is not above 0"),
        ({"temperature": float("nan")}, "temperature: nan is not above 0"),
        ({"ctc_weight": -0.1}, "ctc_weight: -0.1 is not between 0 and 1"),
        ({"ctc_weight": 1.01}, "ctc_weight: 1.01 is not between 0 and 1"),
        ({"ctc_weight": float("nan")}, "ctc_weight: nan is not between 0 and 1"),
        ({"length_penalty": float("nan")}, "length_penalty: nan is not finite"),
        ({"temperature": float("inf")}, "temperature: inf is not finite"),
        ({"beam_size": 2.5}, "beam_size: 2.5 is no int"),
        ({"beam_size": "5", "length_penalty": "1"}, "beam_size: '5' is no int\nlength_penalty: '1' is no float"),
        ({"nbest": True}, "nbest: True is no int"),
        ({"penalty": None}, "penalty: None is no float"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BeamOptions(**options)


def test_one_hotword_is_a_string() -> None:
    assert BeamOptions(hotwords="new york").hotwords == ("new york",)


# -- what was left open ------------------------------------------------------------------------------------------------


def test_the_weight_that_was_left_open(decoder: DecoderModule, marginals: Batch) -> None:
    """Tuned, else 0.4 where CTC can score each step of this decoder, else the paper's search."""
    own, tuned = over(decoder, marginals), SearchChoice(0.7, 1.4)
    ungrounded = over(decoder, marginals, grounded=False)
    vocab = Vocabulary(("<blank>", "<unk>", "w1", "w0", "<sos/eos>"), "word")
    other = Marginals(*marginals, Interface(vocab))
    table = [
        (own, None, (0.4, 1.0)),
        (ungrounded, None, (0.0, 1.0)),
        (other, None, (0.0, 1.0)),
        (None, None, (0.0, 1.0)),
        (own, tuned, (0.7, 1.4)),
        (other, tuned, (0.7, 1.4)),
    ]
    for found, choice, wanted in table:
        options = fill(decoder, found, BeamOptions(), choice)
        assert (options.ctc_weight, options.length_penalty) == wanted
        assert fill(decoder, own, options) == options, "what is filled stays"
        given = fill(decoder, found, BeamOptions(ctc_weight=0.2, length_penalty=0.1), choice)
        assert (given.ctc_weight, given.length_penalty) == (0.2, 0.1)


def test_the_default_is_used(decoder: DecoderModule, marginals: Batch) -> None:
    for found, wanted in zip(search(decoder, marginals), search(decoder, marginals, ctc_weight=0.4)):
        same(found, wanted)


def test_ctc_alone_has_no_length_penalty_unless_told(decoder: DecoderModule, marginals: Batch) -> None:
    own = over(decoder, marginals)
    for (plain,), (given,), (tuned,) in zip(
        search_ctc(own, BeamOptions(3)),
        search_ctc(own, BeamOptions(3, length_penalty=1.0)),
        search_ctc(own, BeamOptions(3), SearchChoice(0.4, 0.5)),
    ):
        assert plain.score == plain.log_prob
        assert given.score == pytest.approx(given.log_prob / (len(given.ids) + 1))
        assert tuned.score == pytest.approx(tuned.log_prob / (len(tuned.ids) + 1) ** 0.5)


def test_without_a_search_ctc_answers_by_its_best_path(decoder: DecoderModule, marginals: Batch) -> None:
    own = over(decoder, marginals)
    found = search_ctc(own, BeamOptions(3, nbest=3, ctc_weight=0.0))
    assert [[h.ids for h in item] for item in found] == [[ids] for ids in own.greedy_ids()]
    best = [float(row[:length].max(-1).values.sum()) for row, length in zip(*marginals)]
    assert [item[0].score for item in found] == pytest.approx(best)


def test_the_best_path_listens_to_nobody(decoder: DecoderModule, marginals: Batch) -> None:
    own = over(decoder, marginals)
    options = BeamOptions(ctc_weight=0.0, penalty=1.0, hotwords=own.interface.vocab.tokens[2])
    with pytest.raises(ConfigError, match="0 is the best path of CTC alone, without length_bonus, hotwords; leave"):
        search_ctc(own, options)


def test_a_weight_without_an_interface(decoder: DecoderModule, marginals: Batch) -> None:
    with pytest.raises(ConfigError, match="ctc_weight: this chain has no interface, so there is no CTC to search with"):
        search_decoder(decoder, *marginals, None, BeamOptions(ctc_weight=0.1))
    assert search_decoder(decoder, *marginals, None, BeamOptions())[0]


# -- other tokens ------------------------------------------------------------------------------------------------------


def test_rescoring_through_the_text(make: Make, marginals: Batch) -> None:
    """The decoder's tokens w0, w1 are ids 2, 3; the interface has them the other way round."""
    decoder, weight, penalty, moved = make(3), 0.6, 0.8, 0
    vocab = Vocabulary(("<blank>", "<unk>", "w1", "w0", "<sos/eos>"), "word")
    interface = Marginals(*marginals, Interface(vocab))
    options = BeamOptions(6, penalty, nbest=4, ctc_weight=weight)
    found = search_decoder(decoder, *marginals, interface, options)
    first = beam_search(decoder, *marginals, BeamOptions(6, penalty, nbest=6))
    for item, nbest, row, length in zip(found, first, *marginals):
        wanted = []
        for h in nbest:
            heard = ctc_log_prob(row[:length], [{1: 1, 2: 3, 3: 2}[i] for i in h.ids])
            total = (1 - weight) * h.log_prob + weight * heard
            parts = {"decoder": h.log_prob, "ctc": heard}
            wanted.append(Hypothesis(h.ids, total / (len(h.ids) + 1) ** penalty, total, parts))
        wanted.sort(key=lambda h: -h.score)
        same(item, wanted[:4], 1e-3)
        moved += item[0].ids != nbest[0].ids
    assert moved, "or nothing was shown"


def test_phonemes_are_not_rescored(decoder: DecoderModule, marginals: Batch) -> None:
    vocab = Vocabulary(("<blank>", "<unk>", "AA", "B", "<sos/eos>"), "phn")
    interface = Marginals(*marginals, Interface(vocab))
    with pytest.raises(ConfigError, match="the last interface is over phonemes, a text cannot be scored by it; give 0"):
        search_decoder(decoder, *marginals, interface, BeamOptions(ctc_weight=0.3))
    paper = beam_search(decoder, *marginals)
    found = search_decoder(decoder, *marginals, interface, BeamOptions())
    assert [h[0].ids for h in found] == [h[0].ids for h in paper]


def test_other_scorers_keep_their_weight_when_rescored(decoder: DecoderModule, marginals: Batch) -> None:
    """CTC takes its share from the decoder, not from a language model."""
    from espnet2_legonn.search.scorers import Scorer

    class Short(Scorer):
        """Likes short texts."""

        def score(self, candidates: torch.Tensor) -> torch.Tensor:
            return torch.full(candidates.shape, -0.5)

        def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None: ...

    interface = Marginals(*marginals, Interface(Vocabulary(("<blank>", "<unk>", "w1", "w0", "<sos/eos>"), "word")))
    own, makers = over(decoder, marginals), [lambda size, beam, device: Short("short", 2.0)]
    for found in (interface, own):
        for (h,) in search_decoder(decoder, *marginals, found, BeamOptions(3, ctc_weight=0.3), more=makers):
            assert h.parts["short"] == pytest.approx(-0.5 * (len(h.ids) + 1))
            total = 0.7 * h.parts["decoder"] + 0.3 * h.parts["ctc"] + 2 * h.parts["short"]
            assert h.log_prob == pytest.approx(total, abs=1e-4) or not np.isfinite(total)


def test_rescoring_where_nothing_was_said(decoder: DecoderModule, marginals: Batch) -> None:
    """All texts empty, and one slot for two tokens: an order there is still."""
    interface = Marginals(*marginals, Interface(Vocabulary(("<blank>", "<unk>", "w1", "w0", "<sos/eos>"), "word")))
    for most, least in ((-1, 0), (-2, -2)):
        options = BeamOptions(2, maxlenratio=most, minlenratio=least, nbest=2, ctc_weight=0.5)
        for item, row, length in zip(search_decoder(decoder, *marginals, interface, options), *marginals):
            for h in item:
                heard = ctc_log_prob(row[:length], [{1: 1, 2: 3, 3: 2}[i] for i in h.ids])
                assert h.parts["ctc"] == pytest.approx(heard, abs=1e-3)
    vocab = decoder.ports[1].vocab
    nothing = [[Hypothesis([], -1.0, -1.0, {"decoder": -1.0})]] * len(marginals[1])
    options = BeamOptions(1, 1.0, ctc_weight=0.5)
    for (h,), row, length in zip(rescore(nothing, vocab, interface, options), *marginals):
        assert h.parts["ctc"] == pytest.approx(ctc_log_prob(row[:length], []), abs=1e-3)
        assert h.score == pytest.approx(0.5 * -1.0 + 0.5 * h.parts["ctc"])


def test_weight_zero_rescores_nothing_even_where_ctc_says_never(decoder: DecoderModule, marginals: Batch) -> None:
    interface = Marginals(*marginals, Interface(Vocabulary(("<blank>", "<unk>", "w1", "w0", "<sos/eos>"), "word")))
    nbest = [[Hypothesis([1, 1, 1, 1, 1, 1], -2.0, -14.0, {"decoder": -14.0})]] * len(marginals[1])
    vocab = decoder.ports[1].vocab
    (h,) = rescore(nbest, vocab, interface, BeamOptions(1, 1.0, ctc_weight=0.0))[2]
    assert (h.log_prob, h.score, h.parts["ctc"]) == (-14.0, -2.0, -np.inf)


def test_options_are_values(decoder: DecoderModule, marginals: Batch) -> None:
    """A search leaves the options as they were."""
    options = BeamOptions()
    search_decoder(decoder, *marginals, over(decoder, marginals), options, SearchChoice(0.2, 0.3))
    assert options == BeamOptions() and dataclasses.is_dataclass(options)
