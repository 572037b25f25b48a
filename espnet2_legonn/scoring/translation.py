"""BLEU of translations as papers report it: tokenised, with compounds split, or detokenised; each named by its metric.

bleu        sacreBLEU of the texts as they are, cut into words as their language is (``BY_LANGUAGE``; 13a for most)
bleu_tok    tokenised BLEU: the texts are tokens already and are not tokenised again (multi-bleu)
bleu_split  as bleu_tok, compounds split at hyphens on both sides: higher figures, only for comparison with papers
bleu_detok  sacreBLEU of hypotheses detokenised in the *target* language against raw references (``text.raw``)

Pieces of a given BPE (``ap@@ proved``) are joined first in the last three. Further references stand beside the first:
``text.1``, ``text.2``; ``text.raw.1``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espnet2_legonn.data.vocabulary import JOINT
from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bleu import BleuReport, Change, score_bleu

METRICS = ("bleu", "bleu_tok", "bleu_split", "bleu_detok")
# sacreBLEU's tokenizers for languages that do not put blanks between words: with 13a, a sentence is one word.
BY_LANGUAGE = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn", "yue", "wuu"), "zh"),
    **dict.fromkeys(("ja", "jpn"), "ja-mecab"),
    **dict.fromkeys(("ko", "kor"), "ko-mecab"),
    **dict.fromkeys(("th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bo", "bod", "dz", "dzo"), "flores200"),
}
_HYPHEN = re.compile(r"(\S)-(\S)")


def join_pieces(text: str) -> str:
    """Words of subword-nmt's pieces; other text stays."""
    return JOINT.sub("", text)


def split_compounds(text: str) -> str:
    """``Kosten-Nutzen`` -> ``Kosten ##AT##-##AT## Nutzen``: the rule of the published En-De figures.

    One pass from left to right, so the middle of ``a-b-c`` is not split twice, as with the original.
    """
    return _HYPHEN.sub(r"\1 ##AT##-##AT## \2", text)


@functools.cache
def _detokenizer(language: str) -> Any:
    try:
        from sacremoses import MosesDetokenizer
    except ImportError:
        raise DataError("bleu_detok needs sacremoses: pip install sacremoses") from None
    return MosesDetokenizer(lang=language)


def detokenize(text: str, language: str) -> str:
    """Moses tokens to running text; escaped characters (``&quot;``) are restored."""
    return str(_detokenizer(language).detokenize(text.split(), return_str=True, unescape=True))


def tokenizer_of(language: str | None) -> str:
    """sacreBLEU's tokenizer for texts in a language (``zh``, ``zh-TW``, ``cmn_Hans``); 13a where there is none."""
    return BY_LANGUAGE.get(re.split("[-_]", language or "")[0].lower(), "13a")


def change_of(metric: str, language: str | None) -> Change | None:
    """What a metric does to texts before BLEU; None for nothing.

    Raises:
        DataError: no such metric, or detokenisation without a language.
    """
    tokenizer = tokenizer_of(language)
    if metric == "bleu":
        return None if tokenizer == "13a" else Change("", str, str, tokenizer)
    if metric == "bleu_tok":
        return Change("", join_pieces, join_pieces, "none")
    if metric == "bleu_split":

        def split(text: str) -> str:
            return split_compounds(join_pieces(text))

        return Change("compounds:split", split, split, "none")
    if metric != "bleu_detok":
        raise DataError(f"metric {metric!r} is none of {', '.join(METRICS)}")
    if language is None:
        raise DataError("bleu_detok: the target vocabulary names no language; give `language` in the YAML")
    undo: Callable[[str], str] = lambda text: detokenize(join_pieces(text), language)  # noqa: E731
    return Change(f"detok:moses-{language}", undo, str, tokenizer)


def references(data: Path, metric: str, table: str = "text") -> list[Path]:
    """The reference tables of a data directory for one metric, the first and (of ``text``) further ones."""
    if table != "text":
        return [data / table]
    name = "text.raw" if metric == "bleu_detok" else "text"
    further = [p for p in data.glob(f"{name}.*") if p.suffix[1:].isdigit() and p.name.count(".") == name.count(".") + 1]
    return [data / name, *sorted(further, key=lambda p: int(p.suffix[1:]))]


def score_translation(
    metric: str,
    data: Path,
    hyp: Path,
    language: str | None = None,
    utt2spk: Path | None = None,
    table: str = "text",
) -> BleuReport:
    """Score a hypothesis table against the references of a data directory.

    Args:
        metric: one of ``METRICS``.
        language: of the target, for tokenisation and detokenisation.
        utt2spk: see ``score_bleu``; table: of the references.

    Raises:
        DataError: see ``score_bleu`` and ``change_of``.
    """
    return score_bleu(references(data, metric, table), hyp, utt2spk, change=change_of(metric, language))
