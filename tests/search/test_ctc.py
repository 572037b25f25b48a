"""CTC over prefixes against a list of all alignments, and against PyTorch's loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from espnet2_legonn.search.beam import joint_search
from espnet2_legonn.search.ctc import CTCScorer
from espnet2_legonn.search.options import BeamOptions
from tests.search.listing import next_log_probs, prefix_probability, texts_of

VOCAB, END = 5, 4
TOKENS = range(1, END)
LENGTHS = torch.tensor([4, 5, 1, 3, 2])
PREFIXES = [p for n in range(4) for p in itertools.product(TOKENS, repeat=n)]


def soft(seed: int, sharp: float = 2.0) -> torch.Tensor:
    """(5, 5, V) marginals; NaN and garbage beyond the ends."""
    torch.manual_seed(seed)
    log_probs = (sharp * torch.randn(len(LENGTHS), 5, VOCAB)).log_softmax(-1)
    for i, (row, length) in enumerate(zip(log_probs, LENGTHS.tolist())):
        row[length:] = torch.nan if i % 2 else 50.0
    return log_probs


def sparse(seed: int) -> torch.Tensor:
    """Each slot allows two labels; the others have probability 0 exactly."""
    log_probs = soft(seed)
    least = log_probs.topk(3, -1, largest=False).indices
    rest = log_probs.scatter(-1, least, -torch.inf)
    return torch.where(log_probs > 0, log_probs, rest - rest.logsumexp(-1, keepdim=True))


def one_hot(labels: list[int]) -> torch.Tensor:
    """(1, K, V): one label in each slot, without any doubt."""
    return torch.nn.functional.one_hot(torch.tensor([labels]), VOCAB).double().log().float()


def lists(log_probs: torch.Tensor) -> list[dict[tuple[int, ...], float]]:
    return [texts_of(row[:length]) for row, length in zip(log_probs, LENGTHS.tolist())]


def walk(scorer: CTCScorer, tokens: tuple[int, ...], utterances: int) -> torch.Tensor:
    """(U, C) scores of all tokens and the end after this prefix, the same for all utterances; a beam of 1."""
    for token in tokens:
        scorer.advance(torch.arange(utterances), torch.full((utterances,), token), None)
    return scorer.score(torch.arange(1, VOCAB).expand(utterances, 1, -1))[:, 0]


@pytest.mark.parametrize("make", [soft, sparse])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_prefix_and_every_next_token(make: object, seed: int) -> None:
    """Repeats, the end, prefixes with more labels than slots, several lengths in one batch."""
    log_probs = make(seed)  # type: ignore[operator]
    everything, impossible = lists(log_probs), 0
    for prefix in PREFIXES:
        found = walk(CTCScorer(log_probs, LENGTHS, 1), prefix, len(LENGTHS))
        wanted = np.array([next_log_probs(texts, prefix, END) for texts in everything])
        np.testing.assert_allclose(found.numpy(), wanted, atol=2e-4, err_msg=str(prefix))
        impossible += int(np.isneginf(wanted).sum())
    assert impossible > 50, "log 0 is log 0, not just small"


def test_labels_that_need_more_slots_than_there_are() -> None:
    """Three labels in two slots; two equal labels need a blank between them."""
    log_probs = soft(3)
    found = walk(CTCScorer(log_probs, LENGTHS, 1), (1, 2), len(LENGTHS))
    assert torch.isneginf(found[4, :-1]).all() and torch.isfinite(found[4, -1]), "two slots say two labels and no more"
    assert torch.isneginf(found[2]).all(), "one slot has not said this prefix"
    repeated = walk(CTCScorer(log_probs, LENGTHS, 1), (1,), len(LENGTHS))
    assert torch.isneginf(repeated[4, 0]) and torch.isfinite(repeated[4, 1:]).all()
    assert torch.isfinite(repeated[3, 0]), "three slots can say it twice"


def test_hypotheses_change_places_and_utterances_leave() -> None:
    """Six hypotheses; rows are exchanged between beams, then two utterances are done."""
    log_probs = soft(4)
    scorer, everything = CTCScorer(log_probs, LENGTHS, 3), lists(log_probs)
    texts: list[tuple[int, ...]] = [()] * 15
    left = list(range(5))
    generator = torch.Generator().manual_seed(0)
    for going in (None, torch.tensor([0, 1, 3]), torch.tensor([0, 2])):
        alive = list(range(len(left))) if going is None else going.tolist()
        rows = torch.cat([3 * b + torch.randint(3, (3,), generator=generator) for b in alive])
        tokens = torch.randint(1, END, (len(rows),), generator=generator)
        scorer.advance(rows, tokens, going)
        texts = [(*texts[row], token) for row, token in zip(rows.tolist(), tokens.tolist())]
        left = [left[b] for b in alive]
        found = scorer.score(torch.arange(1, VOCAB).expand(len(left), 3, -1)).flatten(0, 1)
        for row, text, utterance in zip(found, texts, [u for u in left for _ in range(3)]):
            np.testing.assert_allclose(row, next_log_probs(everything[utterance], text, END), atol=2e-4)


@pytest.mark.parametrize("make", [soft, sparse])
def test_what_it_proposes_is_the_best(make: object) -> None:
    log_probs = make(5)  # type: ignore[operator]
    everything = lists(log_probs)
    for prefix in PREFIXES[:13]:
        scorer = CTCScorer(log_probs, LENGTHS, 1)
        walk(scorer, prefix, len(LENGTHS))
        for texts, ids in zip(everything, scorer.propose(2)[:, 0].tolist()):
            nexts = next_log_probs(texts, prefix, END)[:-1]
            assert len(set(ids)) == 2
            assert [nexts[i - 1] for i in ids if i] == pytest.approx(sorted(nexts)[::-1][:2][: sum(map(bool, ids))])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_marginals_in_another_precision(dtype: torch.dtype) -> None:
    log_probs = soft(6).to(dtype)
    for prefix in PREFIXES[:13]:
        found = walk(CTCScorer(log_probs, LENGTHS, 1), prefix, len(LENGTHS))
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        exact = walk(CTCScorer(log_probs.double(), LENGTHS, 1), prefix, len(LENGTHS))
        np.testing.assert_allclose(found.numpy(), exact.numpy(), atol=1e-4)


def test_two_thousand_slots_equal_the_loss() -> None:
    """Nothing is lost of long sums: a text of 300 labels, and one that hardly any slot says."""
    torch.manual_seed(8)
    slots = torch.tensor([2000, 700])
    log_probs = (3 * torch.randn(2, 2000, 8)).log_softmax(-1)
    for labels in (torch.randint(1, 7, (300,)), torch.arange(60) % 6 + 1):
        scorer, total = CTCScorer(log_probs, slots, 1), torch.zeros(2, dtype=torch.float64)
        for token in [*labels.tolist(), 7]:
            total += scorer.score(torch.full((2, 1, 1), token))[:, 0, 0]
            if token != 7:
                scorer.advance(torch.arange(2), torch.full((2,), token), None)
        wanted = -torch.nn.functional.ctc_loss(
            log_probs.double().transpose(0, 1), labels.expand(2, -1), slots, torch.tensor([len(labels)] * 2),
            reduction="none",
        )  # fmt: skip
        torch.testing.assert_close(total, wanted, atol=2e-3, rtol=1e-6)


# -- CTC alone in the search -------------------------------------------------------------------------------------------


def alone(log_probs: torch.Tensor, slots: torch.Tensor, options: BeamOptions, number: int = 10) -> list[list]:
    scorer = CTCScorer(log_probs, slots, options.beam_size, 1.0, number)
    return joint_search([scorer], slots, options, log_probs.shape[2] - 1)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("make", [soft, sparse])
def test_a_wide_prefix_beam_lists_all_texts_in_order(make: object, penalty: float) -> None:
    log_probs = make(9)  # type: ignore[operator]
    for row, length, found in zip(log_probs, LENGTHS, alone(log_probs, LENGTHS, BeamOptions(400, penalty, nbest=400))):
        texts = {t: p for t, p in texts_of(row[:length]).items() if p and END not in t}
        wanted = sorted(((np.log(p) / (len(t) + 1) ** penalty, t) for t, p in texts.items()), reverse=True)
        assert [h.score for h in found] == pytest.approx([score for score, _ in wanted], abs=2e-4)
        assert {tuple(h.ids) for h in found} == set(texts)
        assert all(h.parts == {"ctc": h.log_prob} for h in found)


@pytest.mark.parametrize("beam", [1, 2, 7])
def test_all_blank_is_no_text(beam: int) -> None:
    for log_probs in (one_hot([0, 0, 0]), one_hot([0])):
        (found,) = alone(log_probs, torch.tensor([log_probs.shape[1]]), BeamOptions(beam, 0.0, nbest=beam))
        assert [(h.ids, h.log_prob) for h in found] == [([], 0.0)], "no other text is possible"


@pytest.mark.parametrize(
    ("labels", "text"),
    [([1, 1, 2], [1, 2]), ([1, 0, 1], [1, 1]), ([3], [3]), ([2, 2, 0, 2, 2], [2, 2]), ([0, 3, 0], [3])],
)
@pytest.mark.parametrize("beam", [1, 9])
def test_no_doubt(labels: list[int], text: list[int], beam: int) -> None:
    """Probabilities of exactly 0 and 1."""
    (found,) = alone(one_hot(labels), torch.tensor([len(labels)]), BeamOptions(beam, 0.0, nbest=beam))
    assert [(h.ids, h.log_prob) for h in found] == [(text, pytest.approx(0.0, abs=1e-4))]


@pytest.mark.parametrize(
    ("options", "text"),
    [({"minlenratio": -3}, [1]), ({"maxlenratio": -1}, [1]), ({"minlenratio": -2, "maxlenratio": -2}, [1, 2])],
)
def test_limits_that_no_text_meets_give_the_best_prefix(options: dict[str, float], text: list[int]) -> None:
    """``1 2`` in all certainty, or (in one slot) ``1``: there is always an answer, and never an endless search."""
    log_probs = one_hot([1, 2]) if text == [1, 2] or "maxlenratio" in options else one_hot([1])
    (found,) = alone(log_probs, torch.tensor([log_probs.shape[1]]), BeamOptions(3, 0.0, nbest=3, **options))
    assert [h.ids for h in found] == [text]
    assert np.isneginf(found[0].log_prob) == ("maxlenratio" in options and len(text) == 1)


@pytest.mark.parametrize("sharp", [0.5, 4.0])
def test_the_shortlist_does_not_change_the_answer_of_a_wide_beam(sharp: float) -> None:
    """298 tokens, of which 108 are short-listed for six slots and a beam of 20; 300 are all."""
    torch.manual_seed(10)
    log_probs = (sharp * torch.randn(4, 6, 300)).log_softmax(-1)
    log_probs[..., 0] += 4
    log_probs, slots = log_probs.log_softmax(-1), torch.tensor([6, 2, 5, 1])
    options = BeamOptions(20, 0.0, nbest=5)
    few, many = alone(log_probs, slots, options, 40), alone(log_probs, slots, options, 300)
    assert [[h.ids for h in item] for item in few] == [[h.ids for h in item] for item in many]
    assert CTCScorer(log_probs, slots, 20, 1.0, 40).short.shape == (4, 108)


def test_an_utterance_has_the_same_shortlist_beside_longer_ones() -> None:
    torch.manual_seed(11)
    log_probs = torch.randn(2, 40, 300).log_softmax(-1)
    slots = torch.tensor([3, 40])
    together = CTCScorer(log_probs, slots, 4, 1.0, 5).propose(200)[0, 0]
    apart = CTCScorer(log_probs[:1, :3], slots[:1], 4, 1.0, 5)
    assert together[: apart.short.shape[1]].tolist() == apart.propose(200)[0, 0].tolist()


def test_the_prefix_is_never_more_likely_than_what_it_begins() -> None:
    """The test's own reference, against itself."""
    texts = texts_of(soft(12)[0, :4])
    assert sum(texts.values()) == pytest.approx(1.0, abs=1e-6)
    assert prefix_probability(texts, (1,)) >= prefix_probability(texts, (1, 2)) >= texts[(1, 2)]
