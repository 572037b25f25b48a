"""The one table of metrics: what each is called, which way is better, and how a set of texts is scored by it.

Stage 13, the choice of checkpoints, plans and reports ask here, so they know the same names and mean the same by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from espnet2_legonn.errors import DataError
from espnet2_legonn.files.schema import nearest

if TYPE_CHECKING:  # who asks for names alone waits for no library
    import numpy as np

    from espnet2_legonn.scoring.bleu import BleuReport
    from espnet2_legonn.scoring.wer import ErrorReport


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


def scored_by(name: str, unit: str) -> str | None:
    """What texts of a vocabulary are scored by: phonemes by PER, whatever is asked for; None: others are not."""
    if unit == "phn":
        return "per"
    return None if name == "per" else name


def require_scored_by(metric: str, units: Mapping[str, str]) -> None:
    """A metric of phonemes needs a module that says them.

    Args:
        units: of the vocabulary of each module that is scored.

    Raises:
        DataError: there is none.
    """
    if units and all(scored_by(metric, unit) is None for unit in units.values()):
        says = ", ".join(f"{name} says {unit}" for name, unit in units.items())
        raise DataError(f"metric {metric!r} is of phonemes, and {says}; take wer, cer or bleu")


def reference_files(name: str, data: Path, table: str = "text") -> list[Path]:
    """Reference tables of a data directory for a metric, the first and (for BLEU of ``text``) further ones."""
    from espnet2_legonn.scoring.translation import references

    return references(data, name, table) if known(name).higher else [data / table]


def speakers_of(data: Path) -> Path | None:
    """The speakers of a data directory, whom intervals draw; None if it names none."""
    file = data / "utt2spk"
    return file if file.is_file() else None


def score(
    name: str, data: Path, hyp: Path, language: str | None = None, utt2spk: Path | None = None, table: str = "text"
) -> BleuReport | ErrorReport:
    """Score a hypothesis table against the references of a data directory, with intervals.

    Args:
        language: of the target: how BLEU cuts its texts.
        table: of the references; only those of ``text`` have further ones.

    Raises:
        DataError: see ``score_error_rate`` and ``score_translation``.
    """
    from espnet2_legonn.scoring.translation import score_translation
    from espnet2_legonn.scoring.wer import score_error_rate

    if known(name).higher:
        return score_translation(name, data, hyp, language, utt2spk, table)
    return score_error_rate(data / table, hyp, name, utt2spk)


def statistics(
    name: str, refs: Sequence[Sequence[str]], hyps: Sequence[str], language: str | None = None
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Counts (n, k) of each hypothesis, and what makes scores (r,) of their sums (r, k): for scoring many selections.

    Args:
        refs: one list of texts for each reference, parallel to ``hyps``; error rates take the first.

    Raises:
        DataError: no such metric, or a tokenizer's package is missing.
    """
    import numpy as np

    from espnet2_legonn.scoring.bleu import corpus_bleu, segment_stats, usable
    from espnet2_legonn.scoring.wer import TOKENIZERS, count_errors, rates

    if not known(name).higher:
        split = TOKENIZERS[name]
        counts = [count_errors(split(ref), split(hyp)) for ref, hyp in zip(refs[0], hyps, strict=True)]
        return np.array([[c.errors, c.ref] for c in counts]), rates
    refs, hyps, tokenize = _changed(name, refs, hyps, language)
    with usable(tokenize):
        return segment_stats(hyps, refs, tokenize=tokenize), corpus_bleu


def _changed(
    name: str, refs: Sequence[Sequence[str]], hyps: Sequence[str], language: str | None
) -> tuple[Sequence[Sequence[str]], Sequence[str], str]:
    """References and hypotheses as BLEU of this name reads them, and sacreBLEU's tokenizer."""
    from espnet2_legonn.scoring.translation import change_of

    change = change_of(name, language)
    if change is None:
        return refs, hyps, "13a"
    return [[*map(change.ref, ref)] for ref in refs], [*map(change.hyp, hyps)], change.tokenize


def value(name: str, refs: Sequence[Sequence[str]], hyps: Sequence[str], language: str | None = None) -> float:
    """The figure alone, as ``score`` would give it.

    Args:
        refs: one list of texts for each reference, parallel to ``hyps``; error rates take the first.

    Raises:
        DataError: no such metric, a tokenizer's package is missing, or there is no word in the references.
    """
    counts, rate = statistics(name, refs, hyps, language)
    sums = counts.reshape(len(hyps), -1).sum(0, keepdims=True)
    if not known(name).higher and not sums[0, 1:].any():
        raise DataError(f"{name}: no reference holds a single token")
    return float(rate(sums)[0])
