"""What a line is, for every text file that is read here: UTF-8 without a byte-order mark, ended by ``\\n`` alone.

Another Unicode separator (U+2028, U+0085, form feed, ...) is a character like any other. A carriage return is not:
Python's text mode, and so ESPnet, ends a line there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from espnet2_legonn.errors import DataError

BOM = b"\xef\xbb\xbf"
BLOCK = 1 << 16  # bytes read together


class Line(NamedTuple):
    """One line. ``number`` counts from 1; ``text`` is cured where that is possible, None where it is not."""

    number: int
    text: str | None
    faults: tuple[str, ...] = ()


def scan_file(path: str | Path, *, windows: bool = False) -> Iterator[Line]:
    """Lines of a file as ``scan`` gives them, many times faster where nothing is wrong with them."""
    with open(path, "rb") as stream:
        start = 1
        while block := stream.readlines(BLOCK):
            raw = b"".join(block)
            try:
                text = None if b"\r" in raw or raw.startswith(BOM) else raw.decode("utf-8")
            except UnicodeDecodeError:
                text = None
            if text is None:
                yield from scan(block, path, windows=windows, start=start)
            else:
                lines = text.removesuffix("\n").split("\n")
                yield from map(Line, range(start, start + len(block)), lines)
            start += len(block)


def scan(stream: Iterable[bytes], name: str | Path, *, windows: bool = False, start: int = 1) -> Iterator[Line]:
    """Lines of a binary stream with what is wrong with each, as ``name:line: ...``.

    Args:
        name: of the stream, for the faults; start: number of the first line.
        windows: for text from outside, which no other tool reads as it is: a Windows line end is cured without a word,
            and a carriage return inside a line is one more odd character.
    """
    for number, raw in enumerate(stream, start):
        raw = raw.removesuffix(b"\n")
        where, faults = f"{name}:{number}", []
        if number == 1 and raw.startswith(BOM):
            faults.append(f"{where}: starts with a byte-order mark; remove it")
            raw = raw[len(BOM) :]
        if raw.endswith(b"\r"):
            raw = raw.rstrip(b"\r")
            if not windows:
                faults.append(f"{where}: Windows line end; write the file with \\n only")
        text: str | None = None
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            faults.append(f"{where}: not UTF-8 (byte {error.start + 1}); convert the file with iconv")
        if text is not None and "\r" in text and not windows:
            faults.append(f"{where}: a carriage return inside the line, where ESPnet would end it; remove it")
            text = None
        yield Line(number, text, tuple(faults))


def read(path: str | Path, *, windows: bool = True) -> Iterator[str]:
    """Lines of a file; see ``scan``.

    Raises:
        DataError: the file is missing or cannot be read, or has faulty lines: all of them, when the first is met.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    faults: list[str] = []
    try:
        for line in scan_file(path, windows=windows):
            faults += line.faults
            if not faults and line.text is not None:
                yield line.text
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if faults:
        raise DataError(faults)
