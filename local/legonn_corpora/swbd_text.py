"""Text rules of Switchboard's Mississippi State transcripts, as Kaldi's and ESPnet's recipes apply them.

One rule is as it was meant: Kaldi's script makes `ammn-t-` of `ammu[n]it-` by a slip. Its comment says `ammu-it-`, and
so it is here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from espnet2_legonn.errors import DataError

_ASIDE = re.compile(r"<[be]_aside>", re.IGNORECASE)
_SILENCE = "[silence]"
# In this order. Case does not matter.
_WORD_RULES = [
    (re.compile(pattern, re.IGNORECASE), target)
    for pattern, target in (
        (r"^\[laughter-(.+)\](-?)$", r"\1\2"),  # laughed words
        (r"^\[(.+)/.+\](-?)$", r"\1\2"),  # mispronounced: as it was said
        (r"^-?\[[^][]+\](.+)$", r"-\1"),  # the beginning is missing
        (r"^(.+)\[[^][]+\]-?$", r"\1-"),  # the end is missing
        (r"([^][]+)\[.+\]$", r"\1"),  # a slip of the transcribers: ex[specially]-/especially]
        (r"^\{(.+)\}$", r"\1"),  # no dictionary word
        (r"([a-z])\[[^][]+\]([a-z])", r"\1-\2"),  # the middle is missing
        (r"_\d", ""),  # numbered pronunciations
    )
]
# How the transcripts' own dictionary spells the names of letters.
_LETTERS = {
    "A": "ey", "B": "b iy", "C": "s iy", "D": "d iy", "E": "iy", "F": "eh f", "G": "jh iy", "H": "ey ch", "I": "ay",
    "J": "jh ey", "K": "k ey", "L": "eh l", "M": "eh m", "N": "eh n", "O": "ow", "P": "p iy", "Q": "k y uw",
    "R": "aa r", "S": "eh s", "T": "t iy", "U": "y uw", "V": "v iy", "W": "d ah b ax l y uw", "X": "eh k s",
    "Y": "w ay", "Z": "z iy",
}  # fmt: skip
_ACRONYM = re.compile(r"([A-Za-z]+?)('s|s)?")
_SINGLE = re.compile(r"[A-Z]")


def map_word(word: str) -> str:
    """A transcribed word without its markup: `[laughter-story]` -> `story`, `ab[solute]-` -> `ab-`, ..."""
    for pattern, target in _WORD_RULES:
        word = pattern.sub(target, word, count=1)
    return word


def clean(text: str) -> list[str]:
    """Words of a transcript without [silence] and aside marks. [noise], [laughter], [vocalized-noise] stay."""
    return [map_word(word) for word in _ASIDE.sub("", text).split() if word.lower() != _SILENCE]


def letters(word: str) -> str:
    """An acronym in Fisher's style: `IBM` -> `i._b._m.`, `BBCs` -> `b._b._c.s`, `TV's` -> `t._v.'s`."""
    match = _ACRONYM.fullmatch(word)
    base, suffix = (match[1], match[2] or "") if match else (word, "")
    return "._".join(base.lower()) + "." + suffix


def read_acronyms(dictionary: Path) -> dict[str, str]:
    """Acronyms of the transcripts' dictionary (sw-ms98-dict.text): words pronounced as the names of their letters.

    The 26 letters themselves are among them.

    A byte that is not UTF-8 spoils its word alone: no acronym has one.

    Raises:
        DataError: a missing file.
    """
    if not dictionary.is_file():
        raise DataError(f"{dictionary}: no such file")
    lines = dictionary.read_text(encoding="utf-8", errors="replace").split("\n")
    found = {letter: letters(letter) for letter in _LETTERS}
    for line in lines[1:]:  # the first line is a title
        fields = line.split()
        if len(fields) > 1 and not line.startswith("#") and _spelled(word := map_word(fields[0]), fields[1:]):
            found[word] = letters(word)
    return found


def _spelled(word: str, phones: list[str]) -> bool:
    match = _ACRONYM.fullmatch(word)
    if match is None:
        return False
    base, suffix = match[1], match[2]
    if suffix:
        if phones[-1] not in ("s", "z"):
            return False
        phones = phones[:-1]
    return " ".join(phones) == " ".join(_LETTERS[letter.upper()] for letter in base)


def map_acronyms(words: list[str], acronyms: Mapping[str, str]) -> str:
    """A text in lower case, its acronyms in Fisher's style.

    `I` is a letter only next to other single letters. Alone it is the pronoun.
    """
    mapped = list(words)
    for place, word in enumerate(words):
        if word != "I":
            mapped[place] = word if word == "i" else acronyms.get(word, word)
        elif any(0 <= p < len(words) and _SINGLE.fullmatch(words[p]) for p in (place - 1, place + 1)):
            mapped[place] = letters("I")
    return " ".join(mapped).lower()


def final(text: str) -> str:
    """The training text: acronyms as letters between blanks (`i._b._m.` -> `i b m`)."""
    return text.replace("._", " ").replace(".", "")
