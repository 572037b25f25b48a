"""N-grams counted in NumPy against sacreBLEU's own counting, and resampling in groups."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from espnet2_legonn.scoring import bootstrap, ngrams
from espnet2_legonn.scoring.bleu import Sentences
from espnet2_legonn.scoring.bootstrap import Units, confidence_interval
from espnet2_legonn.scoring.wer import rates


def texts(seed: int, number: int = 60) -> list[str]:
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcde éß漢字\U0001f600.,'", k=draw.randint(1, 6))) for _ in range(25)]
    return ["", "   ", "a", "a b", *(" ".join(draw.choices(words, k=draw.randint(0, 12))) for _ in range(number))]


@pytest.mark.parametrize("references", [1, 2, 3])
@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenize", ["13a", "none", "char"])
@pytest.mark.parametrize("renumbered", [False, True])
def test_counts_are_sacrebleus(
    references: int, lowercase: bool, tokenize: str, renumbered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if renumbered:  # as for many words in many texts, whose n-grams would need too large numbers
        monkeypatch.setattr(ngrams, "_MOST", 20_000)
    hyps, refs = texts(0), [texts(seed)[::-1] if seed == 2 else texts(seed) for seed in range(1, references + 1)]
    refs[0][5:20] = hyps[5:20]
    bleu = BLEU(lowercase=lowercase, tokenize=tokenize, force=True)
    ours = Sentences(lowercase, tokenize)
    assert (ours.counts(hyps, refs) == np.array(bleu._extract_corpus_statistics(hyps, refs))).all()
    chrf = CHRF(lowercase=lowercase)
    characters = ours.characters(hyps, refs)
    assert (characters == np.array(chrf._extract_corpus_statistics(hyps, refs))).all()
    total = characters.sum(0, keepdims=True)
    assert ngrams.chrf(total)[0] == pytest.approx(chrf.corpus_score(hyps, refs).score, abs=1e-12)


def test_nothing_at_all() -> None:
    ours = Sentences(False, "none")
    assert ours.counts([""], [[""]]).tolist() == [[0] * 10]
    assert ours.characters([""], [[""]]).tolist() == [[0] * 18] and ngrams.chrf(np.zeros((1, 18)))[0] == 0


@pytest.mark.parametrize("speakers", [False, True])
def test_many_units_are_drawn_in_groups(speakers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums are exact, and the interval is that of single units: what is dealt out to groups is independent."""
    rng = np.random.default_rng(0)
    stats = np.stack([rng.integers(0, 3, 6000), rng.integers(5, 15, 6000)], axis=1)
    names = [f"s{i:04d}" if speakers else None for i in range(6000)]

    def made(most: int) -> bootstrap.Segments:
        monkeypatch.setattr(Units, "MOST", most)
        units = Units(2)
        for begin in range(0, 6000, 700):
            units.add(stats[begin : begin + 700], names[begin : begin + 700])
        return units.segments("wer", "r", rates)

    single, groups = made(6000), made(1000)
    assert (single.sums.sum(0) == stats.sum(0)).all() and (groups.sums.sum(0) == stats.sum(0)).all()
    assert len(single.sums) == 6000 and len(groups.sums) == 1000 and groups.count == 6000
    assert single.unit == ("speaker" if speakers else "utterance") and groups.unit == f"{single.unit} group"
    one, other = confidence_interval(single), confidence_interval(groups)
    assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.15)
    assert "bootstrap over 1000 " in other.as_text() and " groups)" in other.as_text()


def test_speakers_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    units = Units(1)
    units.add(np.array([[1], [2], [4], [8]]), ["b", "a", "b", "c"])
    assert units.segments("wer", "r", rates).sums.tolist() == [[2], [5], [8]]
