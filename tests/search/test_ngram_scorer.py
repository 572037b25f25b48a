"""The n-gram model in the search: KenLM's scores, the chain rule, whole batches."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet2_legonn.data.ngram import NgramTree, estimate
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.search.ngram import NgramModel, NgramScorer

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden" / "lmplz_pruned.arpa.gz"
# log10 by kenlm.Model(GOLDEN).score(text), kenlm 0.3.0; "nobody" is not in the model.
KENLM = {
    "w0 w1 w0": -3.5839805603027344,
    "w11 w0 w2 w0 w0 w1": -10.247973442077637,
    "w56 nobody w3": -8.659902572631836,
    "w0": -0.9696600437164307,
}
SIZE, END = 7, 6


def vocabulary(reverse: bool = False) -> Vocabulary:
    words = sorted((f"w{i}" for i in range(90)), reverse=reverse)
    return Vocabulary(("<blank>", "<unk>", *words, "<sos/eos>"), "word")


def small_tree(order: int = 4, prune: tuple[int, ...] = ()) -> NgramTree:
    """Tokens 2 to 5 in sentences of 1 to 6; <unk> was never seen, many n-grams were not."""
    rng = np.random.default_rng(3)
    text = [(2 + rng.integers(0, 4, size=rng.integers(1, 7))).tolist() for _ in range(40)]
    return estimate(text, SIZE, order, prune)


@pytest.fixture(params=[(4, ()), (4, (0, 0, 1)), (2, ()), (1, ())], ids=str)
def model(request: pytest.FixtureRequest) -> NgramModel:
    return NgramModel(small_tree(*request.param))


pytestmark = pytest.mark.filterwarnings("ignore:n-gram. texts too few")


def total(model: NgramModel, ids: list[int]) -> float:
    """Log-probability of a whole text."""
    nodes, found = model.start(1), 0.0
    for token in [*ids, model.vocab_size - 1]:
        found += float(model.score(nodes, torch.tensor([[token]])))
        nodes = model.step(nodes, torch.tensor([token]))
    return found


@pytest.mark.parametrize("reverse", [False, True])
def test_texts_have_the_probabilities_that_kenlm_gives_them(reverse: bool) -> None:
    vocab = vocabulary(reverse)
    model = NgramModel.read(GOLDEN, vocab)
    for text, wanted in KENLM.items():
        assert total(model, vocab.encode(text)) / math.log(10) == pytest.approx(wanted, abs=2e-6), text


def test_all_texts_together_have_probability_one(model: NgramModel) -> None:
    """Texts of up to four tokens, and what is left to longer ones."""
    ended, nodes, open_ = 0.0, model.start(1), torch.zeros(1)
    inner = torch.arange(1, END)
    for _ in range(5):
        log_probs = open_.unsqueeze(1) + model.distributions(nodes)
        assert torch.isneginf(log_probs[:, 0]).all()
        ended += float(log_probs[:, END].exp().sum())
        tokens = inner.repeat(len(nodes))
        open_ = log_probs[:, 1:END].flatten()
        nodes = model.step(nodes.repeat_interleave(len(inner), 0), tokens)
    assert len(nodes) == 5**5 and 0.1 < ended < 1
    assert ended + float(open_.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_distributions_and_single_scores_agree(model: NgramModel) -> None:
    contexts = [c for n in range(5) for c in itertools.product(range(1, END), repeat=n)][::7]
    rows = []
    for context in contexts:
        nodes = model.start(1)
        for token in context:
            nodes = model.step(nodes, torch.tensor([token]))
        rows.append(nodes)
    nodes = torch.cat([*rows, *rows[:9]])  # some contexts twice
    dense = model.distributions(nodes)
    assert torch.equal(dense, model.distributions(nodes)), "a call changed the model"
    assert dense.dtype == torch.float32 and dense.shape == (len(nodes), SIZE)
    torch.testing.assert_close(dense, model.score(nodes, torch.arange(SIZE).expand(len(nodes), -1)))


def test_a_model_by_hand() -> None:
    """ARPA's rule: the longest n-gram that is listed, with the back-off weights of the contexts that are not."""
    logs, weights = np.log10([1e-90, 1, 4, 3, 2]), np.array([0, 0, -0.2, -0.1, -0.3])  # blank, unk, a, b, end
    tree = NgramTree.of_unigrams(logs - 1, weights)
    # "<s> a" and "a b" with weight, then "<s> a b": keys ascend by parent and token.
    tree = tree.extended(np.array([3, 5]), np.array([3, 2]), np.array([-0.4, -0.5]), np.array([-0.05, -0.15]))
    tree = tree.extended(np.array([7]), np.array([3]), np.array([-0.6]), np.array([0.0]))
    model = NgramModel(tree)
    nodes = model.step(model.start(1), torch.tensor([2]))  # <s> a
    found = model.score(nodes, torch.tensor([[3, 4, 2]]))[0] / math.log(10)
    wanted = [-0.6, -0.15 - 0.2 + math.log10(0.2), -0.15 - 0.2 + math.log10(0.4)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    nodes = model.step(nodes, torch.tensor([3]))  # a b; there is no 3-gram that begins so
    found = model.score(nodes, torch.tensor([[2]])) / math.log(10)
    assert float(found) == pytest.approx(-0.05 - 0.1 + math.log10(0.4))


def test_a_search_goes_as_its_hypotheses_do_alone() -> None:
    """Rows are mixed, utterances leave, and every hypothesis is judged as if there were no other."""
    model, beam = NgramModel(small_tree()), 3
    generator = torch.Generator().manual_seed(0)
    scorer = NgramScorer(model, 4, beam, 0.3)
    assert (scorer.name, scorer.weight, scorer.propose(5)) == ("ngram", 0.3, None)
    texts: list[list[int]] = [[] for _ in range(4 * beam)]
    alive = 4
    for length in range(6):
        candidates = torch.randint(0, SIZE, (alive, beam, 5), generator=generator)
        scores = scorer.score(candidates)
        assert scores.shape == candidates.shape and scores.dtype == torch.float32
        for row, text in enumerate(texts):
            nodes = model.start(1)
            for token in text:
                nodes = model.step(nodes, torch.tensor([token]))
            one = model.score(nodes, candidates.view(-1, 1, 5)[row])
            assert torch.equal(one[0], scores.view(-1, 5)[row]), text
        going = torch.tensor([0, 2, 3][: alive - 1]) if length in (2, 4) else None
        stay = range(alive) if going is None else going.tolist()
        parents = torch.randint(0, beam, (len(stay), beam), generator=generator)
        rows = (torch.tensor([b * beam for b in stay]).unsqueeze(1) + parents).flatten()
        tokens = torch.randint(1, SIZE, (len(rows),), generator=generator)
        scorer.advance(rows, tokens, going)
        texts = [[*texts[row], token] for row, token in zip(rows.tolist(), tokens.tolist())]
        alive = len(stay)
