"""ESPnet's option ``cleaner``: the texts of a data directory, cleaned once, before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from espnet2_legonn.data.tables import Made, Table, ordered, write_table
from espnet2_legonn.data.text import NORMALIZATIONS, normalize
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.files.schema import nearest
from espnet2_legonn.training.compat import load

ESPNET = ("tacotron", "jaconv", "vietnamese", "korean_cleaner", "whisper_en", "whisper_basic")
TEXTS = ("text", "src_text")


def cleaner(name: str) -> Callable[[str], str]:
    """A cleaner: one of our normalisations, or ESPnet's of that name.

    Raises:
        ConfigError: there is none, or its package is not installed.
    """
    if name in NORMALIZATIONS:
        return lambda text: normalize(text, name)
    known = (*NORMALIZATIONS, *ESPNET)
    if name not in ESPNET:
        raise ConfigError(f"cleaner: {name!r} is none of {', '.join(known)}{nearest(name, known)}")
    try:
        clean = load("espnet2.text.cleaner").TextCleaner(name)
        clean("a")
    except (ImportError, RuntimeError) as error:
        raise ConfigError(f"cleaner: {name} cannot be used: {error}") from None
    return lambda text: " ".join(clean(text).split())


def clean_dir(data: Path, name: str) -> dict[str, int]:
    """Clean ``text``, further references and ``src_text`` of a data directory in place.

    Returns:
        how many lines changed, by table.

    Raises:
        ConfigError: see ``cleaner``.
        DataError: there is no text.
    """
    clean = cleaner(name)
    tables = [path for path in sorted(data.glob("*text*")) if path.name.split(".")[0] in TEXTS and path.is_file()]
    if not tables:
        raise DataError(f"{data}: no text to clean")
    changed = {}
    for path in tables:
        changed[path.name] = ordered(partial(_clean, Table(path), clean))
    return changed


def _clean(table: Table, clean: Callable[[str], str]) -> int:
    changed = 0

    def rows() -> Iterator[tuple[str, str]]:
        nonlocal changed
        for key, text in table.items():
            new = clean(text)
            changed += new != text
            yield key, new

    write_table(table.path, Made(rows))
    return changed
