"""Named text normalisations. Their names are recorded in interfaces: never change what a name means.

tc      true case: Unicode NFC, control and zero-width characters removed, white space collapsed.
lc      tc, lower-cased.
lc.rm   lc, punctuation and symbols replaced by blanks, apostrophes within words kept (as ').
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from espnet2_legonn.data.tables import Made, Table, atomic_text, ordered, read_rows, shown, write_table
from espnet2_legonn.errors import DataError
from espnet2_legonn.files import lines

NORMALIZATIONS = ("tc", "lc", "lc.rm")

# Soft hyphen, zero-width space/non-joiner/joiner, direction marks, word joiner, byte-order mark: invisible,
# split vocabularies.
_INVISIBLE = dict.fromkeys([0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF])
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`\u2032\uff07", "'"))
_INNER_APOSTROPHE = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])")
_KEPT = "\ue000"  # private use: stands for an apostrophe that stays


def normalize(text: str, name: str) -> str:
    """Apply the normalisation called `name` ("tc", "lc", "lc.rm"); idempotent.

    Raises:
        DataError: unknown name.
    """
    if name not in NORMALIZATIONS:
        raise DataError(f"unknown text normalisation '{name}'; choose one of {', '.join(NORMALIZATIONS)}")
    text = unicodedata.normalize("NFC", text).translate(_INVISIBLE)
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    if name != "tc":
        # Lower-casing can decompose (capital I with dot), hence NFC again.
        text = unicodedata.normalize("NFC", text.lower())
    if name == "lc.rm":
        text = _INNER_APOSTROPHE.sub(_KEPT, text.translate(_APOSTROPHES))
        text = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in text).replace(_KEPT, "'")
    return " ".join(text.split())


def normalize_table(source: Path | str, dest: Path | str, name: str) -> tuple[int, list[str]]:
    """Normalise the values of a table; returns the number of lines and the ids whose text became empty."""
    table, empty = Table(Path(source)), list[str]()

    def changed() -> Iterator[tuple[str, str]]:
        empty.clear()
        for key, value in table.items():
            text = normalize(value, name)
            if not text:
                empty.append(key)
            yield key, text

    ordered(lambda: write_table(dest, Made(changed)))
    return table.count, empty


def normalize_lines(source: Path | str, dest: Path | str, name: str) -> tuple[int, int]:
    """Normalise plain text; returns the lines and how many became empty (they stay, for alignment)."""
    count = empty = 0
    with atomic_text(dest) as stream:
        for line in plain_lines(source):
            text = normalize(line, name)
            stream.write(text + "\n")
            count += 1
            empty += not text
    return count, empty


def plain_lines(path: Path | str) -> Iterator[str]:
    """Lines of a text that is no table; a Windows line end is left out.

    Raises:
        DataError: the file is missing, or every line that is none (see `files/lines.py`).
    """
    return lines.read(path)


def placed(path: Path | str, *, plain: bool = False) -> Iterator[tuple[str, str]]:
    """Place (for messages) and text of each line of a table, or of a plain file."""
    if plain:
        yield from ((f"{path}:{number}:", line) for number, line in enumerate(plain_lines(path), start=1))
    else:
        yield from ((f"{path}: {shown(key)}", text) for key, text in read_rows(path))
