"""The one table of metrics: what each is called, which way is better, and how a set of texts is scored by it.

Stage 13, the choice of checkpoints, plans and reports ask here, so they know the same names and mean the same by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sacrebleu.metrics import BLEU

from espnet2_legonn.errors import DataError
from espnet2_legonn.schema import nearest
from espnet2_legonn.scoring.bleu import BleuReport, usable
from espnet2_legonn.scoring.translation import change_of, references, score_translation
from espnet2_legonn.scoring.wer import TOKENIZERS, ErrorReport, count_errors, score_error_rate


@dataclass(frozen=True)
class Metric:
    """``label`` is what tables call it; ``higher`` says which way is better."""

    name: str
    label: str
    higher: bool

    @property
    def direction(self) -> str:
        """``higher is better`` or ``lower is better``."""
        return f"{'higher' if self.higher else 'lower'} is better"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("wer", "% WER", False),
        Metric("cer", "% CER", False),
        Metric("per", "% PER", False),
        Metric("bleu", "BLEU", True),
        Metric("bleu_tok", "BLEU, tokenised", True),
        Metric("bleu_split", "BLEU, compounds split", True),
        Metric("bleu_detok", "BLEU, detokenised", True),
    )
}


def known(name: str) -> Metric:
    """The metric called ``name``.

    Raises:
        DataError: there is none.
    """
    if name not in METRICS:
        raise DataError(f"metric {name!r} is none of {', '.join(METRICS)}{nearest(name, METRICS)}")
    return METRICS[name]


def reference_files(name: str, data: Path, phonemes: bool = False) -> list[Path]:
    """Reference tables of a data directory for a metric, the first and (for BLEU) further ones."""
    if phonemes or not known(name).higher:
        return [data / ("text_phn" if phonemes else "text")]
    return references(data, name)


def score(
    name: str, data: Path, hyp: Path, language: str | None = None, utt2spk: Path | None = None, phonemes: bool = False
) -> BleuReport | ErrorReport:
    """Score a hypothesis table against the references of a data directory, with intervals.

    Args:
        language: of the target: how BLEU cuts its texts.
        phonemes: the references are ``text_phn``.

    Raises:
        DataError: see ``score_error_rate`` and ``score_translation``.
    """
    if known(name).higher:
        return score_translation(name, data, hyp, language, utt2spk)
    return score_error_rate(reference_files(name, data, phonemes)[0], hyp, name, utt2spk)


def value(name: str, refs: Sequence[Sequence[str]], hyps: Sequence[str], language: str | None = None) -> float:
    """The figure alone, as ``score`` would give it.

    Args:
        refs: one list of texts for each reference, parallel to ``hyps``; error rates take the first.

    Raises:
        DataError: no such metric, a tokenizer's package is missing, or there is no word in the references.
    """
    if not known(name).higher:
        split = TOKENIZERS[name]
        counts = [count_errors(split(ref), split(hyp)) for ref, hyp in zip(refs[0], hyps, strict=True)]
        if not (total := sum(c.ref for c in counts)):
            raise DataError(f"{name}: no reference holds a single token")
        return 100 * sum(c.errors for c in counts) / total
    change = change_of(name, language)
    tokenize = change.tokenize if change else "13a"
    if change:
        refs, hyps = [[*map(change.ref, ref)] for ref in refs], [*map(change.hyp, hyps)]
    with usable(tokenize):
        return float(BLEU(tokenize=tokenize, force=tokenize != "13a").corpus_score(hyps, refs).score)
