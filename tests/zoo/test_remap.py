"""A reader for a close vocabulary: exact where it can be, and how much is lost where it cannot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from espnet2_legonn import InterfaceMismatch, LegoNN
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.model.module import consumed
from espnet2_legonn.packs.remap import remap
from tests.zoo.toys import build, change, pair

pytestmark = pytest.mark.usefixtures("float64")
BEAM = {"type": "beam_conv", "k": 3, "embed_size": 4}


def vocabulary(words: str, **about: Any) -> Vocabulary:
    return Vocabulary(("<blank>", "<unk>", *words.split(), "<sos/eos>"), "word", **about)


def marginals(own: Vocabulary, seed: int = 0) -> Marginals:
    torch.manual_seed(seed)
    log_probs = torch.randn(2, 6, len(own)).mul(2).log_softmax(-1)
    decoder = build(pair())[1:]
    interface = consumed(decoder.first)
    assert interface is not None
    return Marginals(log_probs, torch.tensor([6, 4]), interface.__class__(own))


def reordered(source: Marginals, target: Vocabulary) -> Marginals:
    """The same distributions over the same tokens in another order."""
    order = [source.interface.vocab.ids[t] for t in target.tokens]
    return Marginals(source.log_probs[..., order], source.lengths, source.interface.__class__(target))


def answers(reader: LegoNN, source: Marginals) -> list[tuple[list[int], Any]]:
    """Ids and scores of the n best; summing in another order may change a score by its last digits.

    By the decoder alone: what it reads is remapped, while CTC of other tokens cannot follow its search.
    """
    found = reader.generate(source, beam_size=3, nbest=3, ctc_weight=0)
    return [(h.ids, pytest.approx(h.score, abs=1e-9)) for hypotheses in found for h in hypotheses]


def plain(found: list[tuple[list[int], Any]]) -> list[tuple[list[int], float]]:
    return [(ids, score.expected) for ids, score in found]


@pytest.mark.parametrize("reader", [{}, {"receptive_field": 3}, {"collapse": True}, BEAM])
def test_another_order_is_exact(reader: dict[str, Any]) -> None:
    own = vocabulary("a b c d")
    decoder, other = build(pair(**reader))[1:], vocabulary("d b a c")
    moved, report = remap(decoder, other, "tgt2")
    assert report.exact and report.kept == 7 and report.moved == 3 and report.unused == ()
    source = marginals(own)
    assert plain(answers(moved, reordered(source, other))) == answers(decoder, source)


def test_a_part_of_the_vocabulary_is_exact() -> None:
    """A writer without a token is a writer that never gives it mass."""
    own, other = vocabulary("a b c d"), vocabulary("a b c")
    decoder = build(pair())[1:]
    moved, report = remap(decoder, other, "tgt2")
    assert report.exact and report.unused == ("d",)
    small = marginals(other)
    full = torch.full((2, 6, len(own)), -torch.inf)
    full[..., [own.ids[t] for t in other.tokens]] = small.log_probs
    wide = Marginals(full, small.lengths, small.interface.__class__(own))
    assert plain(answers(moved, small)) == answers(decoder, wide)


def test_what_is_not_known_is_read_as_unk_and_measured() -> None:
    own, other = vocabulary("a b c d"), vocabulary("a b c d e f")
    decoder = build(pair())[1:]
    moved, report = remap(decoder, other, "tgt2")
    assert report.lost == ("e", "f") and not report.exact
    assert "the mass of 2 is read as <unk>: e f" in str(report)
    source = marginals(other)
    probs = source.probs()
    summed = torch.zeros(2, 6, len(own))
    for i, token in enumerate(other.tokens):
        summed[..., own.ids.get(token, own.unk_id)] += probs[..., i]
    same = Marginals(summed.log(), source.lengths, source.interface.__class__(own))
    assert plain(answers(moved, source)) == answers(decoder, same)
    valid = torch.cat([probs[0], probs[1, :4]])
    wanted = valid[:, [6, 7]].sum() / valid[:, 1:].sum()
    assert report.lost_mass(source) == pytest.approx(float(wanted), rel=1e-9)


def test_the_donor_is_left_as_it_was_and_the_output_stays() -> None:
    decoder = build(pair())[1:]
    before = copy.deepcopy(decoder.state_dict())
    moved, _ = remap(decoder, vocabulary("d b a c"), "tgt")
    assert all(torch.equal(v, before[k]) for k, v in decoder.state_dict().items())
    assert moved.last.ports[1].vocab == decoder.last.ports[1].vocab
    assert moved.last.ports[0].vocab == vocabulary("d b a c")


def test_a_remapped_chain_is_saved_and_loaded(tmp_path: Any) -> None:
    moved, _ = remap(build(pair())[1:], vocabulary("d b a c"), "tgt")
    again = LegoNN.from_pretrained(moved.save(tmp_path / "moved"))
    source = marginals(vocabulary("d b a c"))
    assert plain(answers(again, source)) == answers(moved, source)


def test_refusals_with_every_reason() -> None:
    data = change(pair(), "vocabs.tgt.language", "en")
    other = Vocabulary(("<blank>", "<unk>", *"p q r s t u v".split(), "<sos/eos>"), "char", "de")
    with pytest.raises(InterfaceMismatch) as error:
        remap(build(data)[1:], other, "x")
    unit, language, vocab = error.value.faults
    assert "unit: char is written, word is read" in unit
    assert "language: de is written, en is read" in language
    assert "only 3 of 10 tokens are known; train a reader for it instead" in vocab
    with pytest.raises(InterfaceMismatch, match="encoder: reads tokens, only marginals can be remapped"):
        remap(build(pair()), other, "x")
    with pytest.raises(InterfaceMismatch, match="BeamConv keeps 7 tokens of a slot, 5 are written"):
        remap(build(pair(type="beam_conv", k=7, embed_size=4))[1:], vocabulary("a b"), "x")
