"""sacreBLEU and chrF of text tables, joined by id, several references possible.

Texts are scored as they are: nothing is stripped (brackets stay), nothing is lower-cased unless asked, and
the signature records tokenizer, case, references and version.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bootstrap import RESAMPLES, SEED, Interval, Segments, confidence_interval
from espnet2_legonn.scoring.tables import Joined, Missing, join_tables, read_table, speakers_of, write_report

_ORDER = 4
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

    def apply(self, joined: Joined) -> Joined:
        """Changed texts of the same ids."""
        refs = tuple(tuple(map(self.ref, ref)) for ref in joined.refs)
        return replace(joined, refs=refs, hyps=tuple(map(self.hyp, joined.hyps)))


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
            "n": len(self.segments.ids),
            "sentences": len(self.segments.ids),
            "signature": self.signature,
            "verbose_score": self.verbose,
            "chrf": self.chrf,
            "chrf_signature": self.chrf_signature,
            "ci_low": self.interval.low,
            "ci_high": self.interval.high,
            "ci_unit": self.interval.unit,
            "ci_units": self.interval.units,
            "missing": len(self.absent),
            "lowercase": self.lowercase,
        }

    def as_text(self) -> str:
        """Content of result.txt."""
        lines = [
            f"BLEU|{self.signature} = {self.value:.2f} {self.verbose}",
            f"chrF2|{self.chrf_signature} = {self.chrf:.2f}",
            f"{len(self.segments.ids)} sentences, {self.interval.as_text()} of BLEU",
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
    scores = []
    for row in np.rint(sums).astype(np.int64).tolist():  # plain integers: sacreBLEU formats them with :d
        hyp_len, ref_len, *counts = row
        matches, totals = counts[:_ORDER], counts[_ORDER:]
        scores.append(BLEU.compute_bleu(matches, totals, hyp_len, ref_len, smooth_method="exp").score)
    return np.array(scores)


def segment_stats(
    hyps: Sequence[str], refs: Sequence[Sequence[str]], lowercase: bool = False, tokenize: str = "13a"
) -> np.ndarray:
    """(n, 10) counts of each sentence for ``corpus_bleu``; one list of texts for each reference."""
    # The sentence scores themselves are not used: effective_order only silences a warning about them.
    metric = BLEU(lowercase=lowercase, tokenize=tokenize, effective_order=True, force=tokenize != "13a")
    rows = []
    for hyp, *each in zip(hyps, *refs, strict=True):
        score = metric.sentence_score(hyp, each)
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return np.array(rows, dtype=np.int64)


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
    """Scores a hypothesis table against one or more reference tables.

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
    joined = join_tables([read_table(ref) for ref in refs], read_table(hyp), missing)
    if not any(text for ref in joined.refs for text in ref):
        raise DataError(f"{', '.join(map(str, refs))}: every reference is empty; check the file")
    speakers = speakers_of(joined.ids, read_table(utt2spk)) if utt2spk is not None else None
    joined = change.apply(joined) if change else joined
    with usable(tokenize):
        return _scored(joined, lowercase, tokenize, change, speakers, resamples, seed)


def _scored(
    joined: Joined,
    lowercase: bool,
    tokenize: str,
    change: Change | None,
    speakers: tuple[str, ...] | None,
    resamples: int,
    seed: int,
) -> BleuReport:
    # force: no advice to detokenise; whoever asks for another tokenizer knows it, and the signature says it.
    bleu, chrf = BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize != "13a"), CHRF(lowercase=lowercase)
    score = bleu.corpus_score(joined.hyps, joined.refs)
    chrf_score = chrf.corpus_score(joined.hyps, joined.refs)
    stats = segment_stats(joined.hyps, joined.refs, lowercase, tokenize)
    signature = "|".join(filter(None, (str(bleu.get_signature()), change.label if change else "")))
    segments = Segments("bleu", f"{joined.sha256} {signature}", joined.ids, stats, corpus_bleu, speakers)
    return BleuReport(
        value=score.score,
        signature=signature,
        verbose=" ".join(score.format(signature="").split(" ")[3:]),
        chrf=chrf_score.score,
        chrf_signature=str(chrf.get_signature()),
        segments=segments,
        interval=confidence_interval(segments, resamples, seed),
        absent=joined.absent,
        lowercase=lowercase,
    )
