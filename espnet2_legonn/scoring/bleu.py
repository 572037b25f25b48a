"""sacreBLEU and chrF of text tables, joined by id, several references possible.

Texts are scored as they are: nothing is stripped (brackets stay), nothing is lower-cased unless asked, and
the signature records tokenizer, case, references and version.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.bleu import BLEUScore

from espnet2_legonn.data.tables import ordered
from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bootstrap import RESAMPLES, SEED, Interval, Segments, Units, confidence_interval
from espnet2_legonn.scoring.ngrams import CHARACTERS, ORDER, bleu_statistics, chrf, chrf_statistics
from espnet2_legonn.scoring.tables import Joined, Missing, write_report

BATCH, TOKENIZED = 1000, 100  # sentences counted together; so many with ` .` at the end are worth a word
# What sacreBLEU's tokenizers need beside it.
_PACKAGES = {
    "ja-mecab": "pip install 'sacrebleu[ja]'",
    "ko-mecab": "pip install 'sacrebleu[ko]'",
    "flores101": "pip install sentencepiece, and its model once from the network",
    "flores200": "pip install sentencepiece, and its model once from the network",
    "spm": "pip install sentencepiece, and its model once from the network",
}


@contextlib.contextmanager
def usable(tokenize: str) -> Iterator[None]:
    """sacreBLEU with a tokenizer that may need more than sacreBLEU.

    Raises:
        DataError: it does; names what to get.
    """
    try:
        yield
    except (ImportError, RuntimeError, OSError) as error:
        if tokenize not in _PACKAGES:
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"tokenizer {tokenize!r} of sacreBLEU cannot be used ({reason}); {_PACKAGES[tokenize]}"
        ) from None


@dataclass(frozen=True)
class Change:
    """What is done to texts before BLEU (scoring/translation.py has those that papers use).

    Args:
        label: stands in the signature; "" when the tokenizer says it all.
        hyp, ref: the change of a hypothesis and of a reference.
        tokenize: sacreBLEU's tokenizer afterwards.
    """

    label: str
    hyp: Callable[[str], str]
    ref: Callable[[str], str]
    tokenize: str


@dataclass(frozen=True)
class BleuReport:
    """BLEU of one set.

    Args:
        value: corpus BLEU, 0 to 100.
        signature: sacreBLEU's; a score without it cannot be compared.
        verbose: n-gram precisions, brevity penalty and lengths, as sacreBLEU prints them.
        chrf, chrf_signature: chrF2 of the same texts.
        segments, interval, absent, lowercase: as in `ErrorReport`.
    """

    value: float
    signature: str
    verbose: str
    chrf: float
    chrf_signature: str
    segments: Segments
    interval: Interval
    absent: tuple[str, ...]
    lowercase: bool

    def as_json(self) -> dict[str, object]:
        """Content of result.json."""
        return {
            "metric": "bleu",
            "value": self.value,
            "n": self.segments.count,
            "sentences": self.segments.count,
            "signature": self.signature,
            "verbose_score": self.verbose,
            "chrf": self.chrf,
            "chrf_signature": self.chrf_signature,
            **self.interval.as_json(),
            "missing": len(self.absent),
            "lowercase": self.lowercase,
        }

    def as_text(self) -> str:
        """Content of result.txt."""
        lines = [
            f"BLEU|{self.signature} = {self.value:.2f} {self.verbose}",
            f"chrF2|{self.chrf_signature} = {self.chrf:.2f}",
            f"{self.segments.count} sentences, {self.interval.as_text()} of BLEU",
        ]
        if self.absent:
            lines.append(f"{len(self.absent)} sentence(s) had no hypothesis and count as empty:")
            lines += [f"  {key}" for key in self.absent]
        return "\n".join(lines) + "\n"

    def write(self, outdir: str | Path, made_by: Mapping[str, object] | None = None) -> None:
        """Writes result.txt and result.json, replacing older ones; ``made_by``: what the answers came of."""
        write_report(outdir, self.as_text(), self.as_json(), made_by)


def corpus_bleu(sums: np.ndarray) -> np.ndarray:
    """sacreBLEU's formula on (r, 10) sums: hypothesis and reference length, 4 matches, 4 n-gram totals."""
    return np.array([_bleu(row).score for row in np.rint(sums)])


def _bleu(sums: np.ndarray) -> BLEUScore:
    hyp_len, ref_len, *counts = map(int, sums)  # plain integers: sacreBLEU formats them with :d
    return BLEU.compute_bleu(counts[:ORDER], counts[ORDER:], hyp_len, ref_len, smooth_method="exp")


def segment_stats(
    hyps: Sequence[str], refs: Sequence[Sequence[str]], lowercase: bool = False, tokenize: str = "13a"
) -> np.ndarray:
    """(n, 10) counts of each sentence for ``corpus_bleu``; one list of texts for each reference."""
    return Sentences(lowercase, tokenize).counts(hyps, refs)


class Sentences:
    """Counts sentences as sacreBLEU does."""

    def __init__(self, lowercase: bool, tokenize: str) -> None:
        self.bleu, self.chrf = BLEU(lowercase=lowercase, tokenize=tokenize), CHRF(lowercase=lowercase)
        self._fold: Callable[[str], str] = str.lower if lowercase else str

    def _words(self, text: str) -> list[str]:
        return str(self.bleu.tokenizer(self._fold(text).rstrip())).split()

    def counts(self, hyps: Sequence[str], refs: Sequence[Sequence[str]]) -> np.ndarray:
        """(n, 10) for ``corpus_bleu``."""
        return bleu_statistics([*map(self._words, hyps)], [[*map(self._words, ref)] for ref in refs])

    def characters(self, hyps: Sequence[str], refs: Sequence[Sequence[str]]) -> np.ndarray:
        """(n, 18) for ``ngrams.chrf``."""
        return chrf_statistics([*map(self._fold, hyps)], [[*map(self._fold, ref)] for ref in refs])


def score_bleu(
    refs: Sequence[str | Path],
    hyp: str | Path,
    utt2spk: str | Path | None = None,
    lowercase: bool = False,
    tokenize: str = "13a",
    missing: Missing = "error",
    resamples: int = RESAMPLES,
    seed: int = SEED,
    change: Change | None = None,
) -> BleuReport:
    """Scores a hypothesis table against one or more reference tables, which are read once and not held.

    Args:
        refs: reference tables with the same ids.
        utt2spk: makes the bootstrap draw speakers (or documents) instead of sentences.
        tokenize: sacreBLEU's tokenizer; `none` for BLEU on already tokenised text.
        missing: "error", or "empty" to score absent hypotheses as empty (and list them).
        change: done to all texts first; it brings its own tokenizer.

    Raises:
        DataError: files unreadable, ids differ, unknown tokenizer, or every reference is empty.
    """
    tokenize = change.tokenize if change else tokenize
    if tokenize not in BLEU.TOKENIZERS:
        raise DataError(f"tokenizer {tokenize!r} is none of {', '.join(sorted(BLEU.TOKENIZERS))}")
    joined = Joined(refs, hyp, utt2spk, missing)
    with usable(tokenize):
        return ordered(lambda: _scored(joined, lowercase, tokenize, change, resamples, seed))


def _scored(
    joined: Joined, lowercase: bool, tokenize: str, change: Change | None, resamples: int, seed: int
) -> BleuReport:
    sentences, units, digest = Sentences(lowercase, tokenize), Units(2 + 2 * ORDER), hashlib.sha256()
    pairs, characters, said, apart = joined.pairs(), np.zeros((1, 3 * CHARACTERS), np.int64), False, 0
    while batch := list(itertools.islice(pairs, BATCH)):
        if change is not None:
            batch = [p._replace(refs=tuple(map(change.ref, p.refs)), hyp=change.hyp(p.hyp)) for p in batch]
        for pair in batch:
            digest.update("\t".join((pair.uid, *pair.refs)).encode() + b"\n")
            said = said or any(pair.refs)
            apart += pair.hyp.endswith(" .")
        hyps, refs = [pair.hyp for pair in batch], list(zip(*(pair.refs for pair in batch)))
        units.add(sentences.counts(hyps, refs), [pair.speaker for pair in batch])
        characters += sentences.characters(hyps, refs).sum(0)
    files = [str(table.path) for table in joined.refs]
    if not said:
        raise DataError(f"{', '.join(files)}: every reference is empty; check the file")
    if apart >= TOKENIZED and tokenize == "13a":
        logging.warning("%d hypotheses end in a period that stands alone: BLEU wants text that is not tokenised", apart)
    for metric in (sentences.bleu, sentences.chrf):
        metric.num_refs = len(files)
    signature = "|".join(filter(None, (str(sentences.bleu.get_signature()), change.label if change else "")))
    segments = units.segments("bleu", f"{digest.hexdigest()} {signature}", corpus_bleu)
    score = _bleu(segments.sums.sum(0))
    return BleuReport(
        value=score.score,
        signature=signature,
        verbose=" ".join(score.format(signature="").split(" ")[3:]),
        chrf=float(chrf(characters)[0]),
        chrf_signature=str(sentences.chrf.get_signature()),
        segments=segments,
        interval=confidence_interval(segments, resamples, seed),
        absent=tuple(joined.absent),
        lowercase=lowercase,
    )
