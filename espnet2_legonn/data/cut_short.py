"""Does a sound file end where its header says? libsndfile reads what is there and says no word of the rest.

flac and mp3 need nothing here: libsndfile tells what their headers say, and a decoder what is there.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

# Programs that write to a pipe cannot know the size: they write 0, or about the largest number (sox: 0x7ffff...).
_UNKNOWN = 0x7FFF0000
_NIST_FIELDS = ("channel_count", "sample_count", "sample_n_bytes")


def missing(stream: BinaryIO) -> float:
    """The part of the samples that the header promises and that is not there, 0 to 1.

    0 for a whole file, for one whose header names no size, and for a format that is not known here; 1 for an ogg file
    without its last page, which could be of any length.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    try:
        if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
            found = _riff(stream, size, ">" if head[:4] == b"RIFX" else "<")
        elif head[:4] == b"FORM" and head[8:11] == b"AIF":
            found = _chunks(stream, size, ">", b"SSND", 12, {})
        elif head[:4] == b".snd":
            found = (struct.unpack(">I", head[4:8])[0], struct.unpack(">I", head[8:12])[0])
        elif head == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00":
            found = _wave64(stream, size)
        elif head[:4] == b"caff":
            found = _core_audio(stream, size)
        elif head[:4] == b"OggS":
            return 0.0 if _ends_with_last_page(stream, size) else 1.0
        elif head.startswith(b"NIST_1A\n"):
            found = _nist(stream, int(head[8:16]))
        else:
            return 0.0
    except (struct.error, ValueError, KeyError):
        return 0.0  # no such header: whoever decodes it will say what is wrong
    start, promised = found
    if not promised or promised >= _UNKNOWN and start + promised > size and head[:4] != b"RF64":
        return 0.0
    return max(0.0, 1 - max(0, size - start) / promised)


def _riff(stream: BinaryIO, size: int, order: str) -> tuple[int, int]:
    sizes: dict[bytes, int] = {}
    stream.seek(12)
    if stream.read(4) == b"ds64":  # RF64: the sizes that 32 bits do not hold
        stream.seek(20)
        sizes[b"data"] = struct.unpack("<QQ", stream.read(16))[1]
    return _chunks(stream, size, order, b"data", 12, sizes)


def _chunks(
    stream: BinaryIO, size: int, order: str, wanted: bytes, place: int, sizes: dict[bytes, int]
) -> tuple[int, int]:
    """Where the content of a chunk begins, and how many bytes it should have."""
    while place + 8 <= size:
        stream.seek(place)
        name, length = struct.unpack(order + "4sI", stream.read(8))
        if name == wanted:
            return place + 8, sizes.get(name, length) if length == 0xFFFFFFFF else length
        place += 8 + length + length % 2
    return 0, 0


def _wave64(stream: BinaryIO, size: int) -> tuple[int, int]:
    place = 40
    while place + 24 <= size:
        stream.seek(place)
        name, length = struct.unpack("<16sQ", stream.read(24))
        if name[:4] == b"data":
            return place + 24, length - 24
        if length < 24:
            break
        place += (length + 7) // 8 * 8
    return 0, 0


def _core_audio(stream: BinaryIO, size: int) -> tuple[int, int]:
    place = 8
    while place + 12 <= size:
        stream.seek(place)
        name, length = struct.unpack(">4sq", stream.read(12))
        if name == b"data":
            return place + 12, max(0, length)  # -1: not known
        if length < 0:
            break
        place += 12 + length
    return 0, 0


def _ends_with_last_page(stream: BinaryIO, size: int) -> bool:
    """The last page of an ogg file is whole and says that it is the last."""
    stream.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
    tail = stream.read()
    place = tail.rfind(b"OggS")
    if place < 0 or place + 27 > len(tail):
        return False
    segments = tail[place + 27 : place + 27 + tail[place + 26]]
    whole = len(segments) == tail[place + 26] and place + 27 + len(segments) + sum(segments) <= len(tail)
    return whole and bool(tail[place + 5] & 4)


def _nist(stream: BinaryIO, header: int) -> tuple[int, int]:
    stream.seek(0)
    fields = {}
    for line in stream.read(min(header, 1 << 16)).decode("latin-1").split("\n"):
        parts = line.split(None, 2)
        if len(parts) == 3:
            fields[parts[0]] = parts[2].strip()
    if "," in fields.get("sample_coding", ""):
        return 0, 0  # compressed
    channels, samples, width = (int(fields[name]) for name in _NIST_FIELDS)
    return header, channels * samples * width
