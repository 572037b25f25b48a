"""The runner's parts in numpy against the package's: CTC, the beam, collapsing, texts, features. No onnxruntime."""

from __future__ import annotations

import itertools
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet2_legonn.data import text as package
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.export import runner, search
from espnet2_legonn.model.parts import ingestor
from espnet2_legonn.model.parts.speech import LogMel
from espnet2_legonn.search.beam import joint_search
from espnet2_legonn.search.ctc import CTCScorer
from espnet2_legonn.search.options import BeamOptions
from tests.search.listing import next_log_probs, prefix_probability, texts_of
from tests.zoo.sounds import tone

VOCAB, END = 5, 4
PREFIXES = [p for n in range(4) for p in itertools.product(range(1, END), repeat=n)]


def marginals(slots: int, seed: int, size: int = VOCAB, sparse: bool = False) -> torch.Tensor:
    torch.manual_seed(seed)
    x = 2 * torch.randn(slots, size)
    if sparse:
        x = x.scatter(-1, x.topk(3, -1, largest=False).indices, -torch.inf)
    return x.log_softmax(-1)


def walked(x: torch.Tensor, tokens: tuple[int, ...]) -> search.CTC:
    scorer = search.CTC(x.numpy(), 1, 3)
    for token in tokens:
        scorer.advance(np.zeros(1, int), np.array([token]))
    return scorer


# -- CTC ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "sparse"), [(1, False), (3, False), (5, False), (4, True)])
def test_every_prefix_and_every_next_token(slots: int, sparse: bool) -> None:
    """Against a list of all alignments."""
    x, tried = marginals(slots, slots, sparse=sparse), 0
    everything = texts_of(x)
    for prefix in PREFIXES:
        if prefix_probability(everything, prefix) > 0:
            found = walked(x, prefix).score(np.arange(1, VOCAB)[None])[0]
            np.testing.assert_allclose(np.exp(found), np.exp(next_log_probs(everything, prefix, END)), atol=1e-5)
            tried += 1
    assert tried >= 4


def test_a_text_is_the_sum_over_its_alignments() -> None:
    x = marginals(5, 3)
    for text, probability in texts_of(x).items():
        if END not in text:
            assert search.CTC.of_text(x.numpy(), text) == pytest.approx(np.log(probability), abs=1e-5)
    assert search.CTC.of_text(x.numpy(), (1,) * 6) == -np.inf


@pytest.mark.parametrize("seed", [1, 2])
def test_scores_and_proposals_are_the_packages(seed: int) -> None:
    """Several hypotheses that cross each other, over many slots."""
    x = marginals(30, seed, 40)
    ours = search.CTC(x.numpy(), 3, 4)
    theirs = CTCScorer(x[None], torch.tensor([30]), 3, 1.0, 4)
    generator = np.random.default_rng(seed)
    for _ in range(12):
        assert np.array_equal(ours.propose(4), theirs.propose(4)[0].numpy())
        candidates = generator.integers(1, 40, (3, 6))
        wanted = theirs.score(torch.from_numpy(candidates)[None])[0].numpy()
        np.testing.assert_allclose(ours.score(candidates), wanted, rtol=1e-4, atol=1e-4)
        rows, tokens = generator.integers(0, 3, 3), generator.choice([3, 4, 5], 3)
        ours.advance(rows, tokens)
        theirs.advance(torch.from_numpy(rows), torch.from_numpy(tokens), None)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"beam_size": 1}, {"beam_size": 3, "nbest": 3}, {"length_penalty": 0.7}, {"maxlenratio": 0.5},
        {"maxlenratio": -2.0}, {"minlenratio": -7.0}, {"minlenratio": 1.0, "nbest": 4},
    ],
    ids=str,
)  # fmt: skip
def test_the_beam_is_the_packages(options: dict) -> None:
    chosen = BeamOptions(**options)
    for slots, seed in ((1, 0), (4, 1), (9, 2)):
        x = marginals(slots, seed, 8)
        scorer = CTCScorer(x[None], torch.tensor([slots]), chosen.beam_size, 1.0, 2 * chosen.beam_size)
        wanted = joint_search([scorer], torch.tensor([slots]), chosen, 7)[0]
        ctc = search.CTC(x.numpy(), chosen.beam_size, 2 * chosen.beam_size)
        beam = search.Beam(slots, chosen, chosen.length_power, 7, {"ctc": 1.0}, ctc)
        runner.Runner._run([beam], None)
        found = sorted(beam.finished, key=lambda h: -h.score)[: chosen.nbest]
        assert [h.ids for h in found] == [h.ids for h in wanted] and wanted
        np.testing.assert_allclose([h.score for h in found], [h.score for h in wanted], rtol=1e-4, atol=1e-4)


def test_nan_is_an_error() -> None:
    beam = search.Beam(3, search.SearchOptions(), 1.0, 7, {"decoder": 1.0}, None)
    with pytest.raises(search.RunnerError, match="probabilities are NaN"):
        beam.extend(np.full((5, 8), np.nan, np.float32))


def test_best_places_are_the_largest_in_order() -> None:
    x = np.random.default_rng(0).permutation(600).reshape(3, 200).astype(np.float32)
    assert np.array_equal(search.best_places(x, 7), np.argsort(-x)[:, :7])
    assert np.array_equal(search.best_places(x, 200), np.argsort(-x))


@pytest.mark.parametrize("sharp", [0.5, 5.0])
def test_collapsing_is_the_packages(sharp: float) -> None:
    torch.manual_seed(0)
    logits = sharp * torch.randn(6, 12, 4)
    logits[1, :, 0] += 50  # blanks alone: one slot stays
    x = logits.log_softmax(-1)
    lengths = torch.tensor([12, 12, 7, 1, 5, 3])
    wanted, sizes = ingestor.collapse(x, lengths)
    for row, length, target, size in zip(x, lengths, wanted, sizes):
        found = search.collapse(row[:length].numpy())
        assert len(found) == size
        np.testing.assert_allclose(found, target[:size].numpy(), rtol=1e-5, atol=1e-5)
    assert sizes[1] == 1 and sizes.max() > 2


# -- features ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fs", "seconds"), [(16000, 0.31), (16000, 0.01), (8000, 0.5), (22050, 0.2)])
def test_features_are_torchaudios(fs: int, seconds: float) -> None:
    """Also of less than a window, and where a window is shorter than its transform."""
    module, noise = LogMel(fs, 20), np.random.default_rng(0).standard_normal(round(seconds * fs))
    wave = tone(seconds, 1, fs) + 0.01 * noise
    wanted, lengths = module(torch.from_numpy(wave).float()[None], torch.tensor([len(wave)]))
    window, filters = (x.double().numpy() for x in (module.mel.spectrogram.window, module.mel.mel_scale.fb))
    found = runner.log_mel(wave, window, filters, module.hop)
    assert found.shape == (lengths[0], 20) == tuple(wanted.shape[1:])
    np.testing.assert_allclose(found, wanted[0].numpy(), atol=2e-3)
    assert np.ptp(found) > 1


# -- texts -------------------------------------------------------------------------------------------------------------

LETTERS = st.characters(codec="utf-8") | st.sampled_from("'’`İßàe\u0301\u00ad\u200b -–.\t\n")


@given(st.text(LETTERS, max_size=30), st.sampled_from(package.NORMALIZATIONS))
@settings(max_examples=300, deadline=None)
def test_normalisation_is_the_packages(text: str, name: str) -> None:
    assert runner.normalize(text, name) == package.normalize(text, name)


def test_all_characters_are_normalised_alike() -> None:
    every = "".join(f"a{c}b" for c in map(chr, range(0x3000)) if unicodedata.category(c) != "Cs")
    for name in package.NORMALIZATIONS:
        assert runner.normalize(every, name) == package.normalize(every, name)


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("word", "ab c a"), ("char", "a b c <space>"), ("phn", "a b c"),
        ("bpe", "\u2581a b \u2581c <0x0A> " + " ".join(f"<0x{i:02X}>" for i in range(256) if i != 10)),
    ],
)  # fmt: skip
@given(text=st.text("abc AZ", max_size=12), chosen=st.lists(st.integers(0, 200), max_size=9))
@settings(max_examples=60, deadline=None)
def test_ids_and_texts_are_the_packages(unit: str, words: str, text: str, chosen: list[int]) -> None:
    tokens = ("<blank>", "<unk>", *dict.fromkeys(words.split()), "<sos/eos>")
    ours = runner.TokenTable.__new__(runner.TokenTable)
    theirs = Vocabulary(tokens, unit, normalization="lc")
    about = {"unit": unit, "normalization": "lc", "sha256": "", "bpemodel": None}
    ours.__init__(_Tokens(tokens), {**about, "tokens": "t"})  # type: ignore[misc]
    ids = [i % len(tokens) for i in chosen]
    assert ours.decode(ids) == theirs.decode(ids)
    if unit != "bpe":
        clean = text if unit == "phn" else package.normalize(text, "lc")
        assert ours.encode(text) == theirs.encode(clean)


class _Tokens:
    """A folder with one token list."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self.tokens = tokens

    def __truediv__(self, name: str) -> _Tokens:
        return self

    def read_text(self, encoding: str) -> str:
        return "".join(f"{token}\n" for token in self.tokens)
