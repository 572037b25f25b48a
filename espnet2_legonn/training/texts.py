"""Texts of training read where they lie: ESPnet holds them in every process, gigabytes at ten million lines."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet2_legonn.foreign import load


class MappedTable(Mapping[str, str]):
    """A table in byte order of its keys, as a mapping to what ESPnet reads of each line; a key is found by bisection.

    What has been read stays in the system's cache, which all processes of a machine share.

    Args:
        count: lines.
    """

    def __init__(self, path: str | Path, count: int) -> None:
        self._of = path, count
        with open(path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedTable, self._of  # in a data loader's process the file is mapped anew

    def _line(self, place: int) -> tuple[int, int]:
        """Beginning and end of the line that a byte is in."""
        end = self._bytes.find(b"\n", place)
        return self._bytes.rfind(b"\n", 0, place) + 1, len(self._bytes) if end < 0 else end

    def __getitem__(self, key: str) -> str:
        wanted, low, high = key.encode(), 0, len(self._bytes)
        while low < high:
            begin, end = self._line((low + high) // 2)
            line = self._bytes[begin:end]
            found = line.split(None, 1)[0]
            if found == wanted:
                return _value(line.decode())
            low, high = (end + 1, high) if found < wanted else (low, begin)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        with open(self._of[0], "rb") as file:
            for line in file:
                yield line.split(None, 1)[0].decode()

    def __len__(self) -> int:
        return self._of[1]


def _value(line: str) -> str:
    fields = line.rstrip().split(maxsplit=1)
    return fields[1] if len(fields) > 1 else ""


def text_table(path: str | Path, keys_to_load: Collection[str | int] | None = None) -> Mapping[str, str]:
    """What ESPnet's ``read_2columns_text`` gives; a table whose keys go up is not held."""
    count, last = 0, b""
    with open(path, "rb") as file:
        for line in file:
            key = line[:256].split(None, 1)[:1]
            if not key or key[0] <= last:
                return dict(load("espnet2.fileio.read_text").read_2columns_text(path, keys_to_load))
            count, last = count + 1, key[0]
    return MappedTable(path, count) if count else {}


@contextlib.contextmanager
def mapped_texts() -> Iterator[None]:
    """While this is open, ESPnet's data sets read texts by ``text_table``."""
    types = load("espnet2.train.dataset").DATA_TYPES
    original = types["text"]
    types["text"] = {**original, "func": text_table}
    try:
        yield
    finally:
        types["text"] = original
