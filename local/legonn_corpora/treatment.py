"""Text treatments of translation corpora: Moses tokenisation by sacremoses, BPE undone, or speech-like text.

A name here is the ``normalization`` of a vocabulary in a recipe's YAML: modules fit only if it is equal.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from espnet2_legonn.data.text import normalize
from espnet2_legonn.data.vocabulary import JOINT
from espnet2_legonn.errors import DataError

# tc.tok     cased, Moses tokens                            (WMT14)
# lc.tok     tokenised, then lower-cased                    (Ro-En and De-En, appendix A-A)
# lc.rm      lower-cased, without punctuation, as speech    (De-En beside speech, appendix A-B). data/text.py defines it
# undone     given text whose BPE is undone: its tokens as they are
# kept       given text as it is, `@@ ` and all
TREATMENTS = ("tc.tok", "lc.tok", "lc.rm", "undone", "kept")

# As Moses escapes them. The ampersand comes last, so that nothing is undone twice.
_ENTITIES = (
    ("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&#39;", "'"), ("&#124;", "|"), ("&#91;", "["),
    ("&#93;", "]"), ("&amp;", "&"),
)  # fmt: skip


def undo_bpe(text: str) -> str:
    """Words of subword-nmt's pieces: ``ap@@ proved`` -> ``approved``."""
    return JOINT.sub("", text)


def undo_entities(text: str) -> str:
    """Characters of Moses' and SGML's entities: ``it&apos;s`` -> ``it's``. Some corpora and test sets are escaped."""
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text


@functools.cache
def _moses(language: str) -> tuple[Any, Any]:
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError:
        raise DataError("Moses tokenisation needs sacremoses: pip install sacremoses") from None
    # As normalize-punctuation.perl -l LANG, then remove-non-printing-char.perl.
    return MosesPunctNormalizer(lang=language, post_remove_control_chars=True), MosesTokenizer(lang=language)


def moses(text: str, language: str, split_hyphens: bool) -> str:
    """``normalize-punctuation | remove-non-printing-char | tokenizer.perl [-a] -l LANGUAGE``, entities escaped.

    Args:
        split_hyphens: ``-a``: ``public-transport`` -> ``public @-@ transport``.
    """
    normalizer, tokenizer = _moses(language)
    clean = normalizer.normalize(normalize(undo_entities(text), "tc"))
    return str(tokenizer.tokenize(clean, aggressive_dash_splits=split_hyphens, return_str=True, escape=True))


@dataclass(frozen=True)
class Treatment:
    """What is done to one side of a corpus. It is picklable, so that processes can share the work.

    Args:
        name: one of ``TREATMENTS``.
        language: of the side, for Moses.
        split_hyphens: see ``moses``.
    """

    name: str
    language: str
    split_hyphens: bool = True

    def __post_init__(self) -> None:
        if self.name not in TREATMENTS:
            raise DataError(f"unknown text treatment {self.name!r}; choose one of {', '.join(TREATMENTS)}")

    def __call__(self, text: str) -> str:
        """Treated text, its tokens separated by one blank."""
        if self.name == "lc.rm":
            return normalize(undo_entities(text), "lc.rm")
        if self.name in ("undone", "kept"):
            return " ".join((undo_bpe(text) if self.name == "undone" else text).split())
        tokens = moses(text, self.language, self.split_hyphens)
        # Lower-casing comes after tokenising: the list of abbreviations is cased.
        return tokens.lower() if self.name == "lc.tok" else tokens
