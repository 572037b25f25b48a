"""Vocabularies that exist already, used as they are: token lists, subword-nmt's merges and lists, sentencepiece's."""

from __future__ import annotations

from pathlib import Path

from espnet2_legonn.data.tables import atomic_path, atomic_text
from espnet2_legonn.data.text import plain_lines
from espnet2_legonn.data.vocabulary import BLANK, MERGES, SOS_EOS, UNK, Vocabulary
from espnet2_legonn.errors import DataError

# Special tokens of other toolkits; ours are put in their own places.
_FOREIGN = {BLANK, UNK, SOS_EOS, "<s>", "</s>", "<pad>", "<eos>", "<EOS>"}


def read_list(path: Path) -> list[str]:
    """Units of a list: one a line, perhaps with a count or a score behind it, special tokens left out.

    Raises:
        DataError: a unit occurs twice, or there is none; with file and line.
    """
    seen: dict[str, int] = {}
    faults = []
    for number, line in enumerate(plain_lines(path), 1):
        fields = line.split("\t") if "\t" in line else line.split(" ")
        unit = fields[0]
        if not unit:
            faults.append(f"{path}:{number}: no unit at the start of the line; every line is a unit")
        elif len(fields) > 2:
            faults.append(f"{path}:{number}: {len(fields)} fields; a unit, and perhaps its count, are expected")
        elif unit in seen:
            faults.append(f"{path}:{number}: {unit!r} stands in line {seen[unit]} already")
        elif unit not in _FOREIGN:
            seen[unit] = number
    if not seen and not faults:
        faults.append(f"{path}: no unit in this list")
    if faults:
        raise DataError(faults)
    return list(seen)


def adopt(units: Path, out: Path, unit: str, model: Path | None = None) -> Vocabulary:
    """Write a given list as ``tokens.txt`` in ESPnet's order, with its merges or model as ``bpe.model``.

    Args:
        units: list of units (``vocab.bpe.32000``, ``tokens.txt``, ``bpe.vocab``).
        model: for unit ``bpe``: merges of subword-nmt (``bpe.32000``) or a sentencepiece model.

    Raises:
        DataError: a file is missing or damaged, or unit ``bpe`` comes without ``model``.
    """
    tokens = read_list(units)
    if (unit == "bpe") != (model is not None):
        raise DataError(f"unit {unit}: merges or a sentencepiece model go with unit bpe, and with no other")
    if model is not None:
        if not model.is_file():
            raise DataError(f"{model}: no such file of merges, and no sentencepiece model")
        data = model.read_bytes()
        if not data.startswith((MERGES, b"\n")):  # a sentencepiece model begins with the tag of its first field
            data = b"#version: 0.1\n" + data  # how subword-nmt reads merges without a head
        with atomic_path(out / "bpe.model") as temporary:
            temporary.write_bytes(data)
    with atomic_text(out / "tokens.txt") as stream:
        stream.writelines(token + "\n" for token in (BLANK, UNK, *tokens, SOS_EOS))
    vocab = Vocabulary.from_files(out / "tokens.txt", unit, out / "bpe.model" if model else None)
    vocab.split("a")  # a damaged model is a fault here, not in training
    return vocab
