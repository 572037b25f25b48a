"""Zip archives that may come from anybody: checked before and while unpacking, and written the same everywhere."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from espnet2_legonn.errors import CheckpointError

MAX_FILES, MAX_BYTES = 1000, 20 << 30
# Weights hardly shrink; what shrinks a hundredfold is a bomb.
MAX_RATIO, RATIO_FROM = 100, 10 << 20
MAX_NAME = 200
# Of a list of a thousand files, a few hundred bytes for each.
MAX_DIRECTORY = 4 << 20
_CHUNK = 1 << 20
_HEADER, _ENCRYPTED = 30, 1
_EPOCH = (1980, 1, 1, 0, 0, 0)


def refusal(name: str) -> str | None:
    """Why a stranger's name is not that of a file below the folder it will be joined to, on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name:
        return "points out of the archive"
    if not path.parts or not name.isprintable() or len(name.encode(errors="replace")) > MAX_NAME:
        return "is no name for a file"
    return None


class _Archive(io.BufferedReader):
    """A file that gives at most a few MB at once: zipfile would read a list of millions of entries whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As always, or an error."""
        left = os.fstat(self.fileno()).st_size - self.tell()
        if (left if size is None or size < 0 else min(size, left)) > MAX_DIRECTORY:
            raise zipfile.BadZipFile("a list of files of many MB")
        return super().read(size)


def extract(archive: Path, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Unpack a zip into an existing folder; nothing is written outside it.

    Args:
        wanted: which entries; all are checked.

    Raises:
        CheckpointError: names every entry that would leave the folder, links, repeats another or is absurdly large;
            a damaged archive; a full disk.
    """
    try:
        with _Archive(io.FileIO(archive)) as file, zipfile.ZipFile(file) as z:
            entries = z.infolist()
            if faults := _faults(archive, entries):
                raise CheckpointError(faults)
            for entry in filter(lambda e: wanted(e.filename), entries):
                _unpack(z, entry, folder, str(archive))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CheckpointError(f"{folder}: no space left to unpack {archive}; free some, nothing is kept") from None
        raise CheckpointError(f"{archive}: cannot be unpacked ({error})") from None
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, LookupError, struct.error) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{archive}: damaged ({reason}); copy it again") from None


def _faults(archive: Path, entries: list[zipfile.ZipInfo]) -> list[str]:
    faults = []
    if len(entries) > MAX_FILES:
        faults.append(f"{archive}: {len(entries)} entries, at most {MAX_FILES} are read")
    size, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
    if size > MAX_BYTES:
        faults.append(f"{archive}: unpacks to more than {MAX_BYTES >> 30} GiB")
    elif size > RATIO_FROM and size > MAX_RATIO * max(packed, 1):
        faults.append(f"{archive}: unpacks to {size // max(packed, 1)} times its size; no weights shrink like that")
    by_place = sorted(entries, key=lambda e: e.header_offset)
    for a, b in zip(by_place, by_place[1:]):
        if a.header_offset + _HEADER + a.compress_size > b.header_offset:
            faults.append(f"{archive}: entries {a.filename!r} and {b.filename!r} share their bytes")
    places = [PurePosixPath(e.filename.replace("\\", "/").casefold()) for e in entries]
    files = {place for place, e in zip(places, entries) if place.parts and not e.filename.endswith("/")}
    seen: set[PurePosixPath] = set()
    for entry, place in zip(entries, places):
        if fault := _fault(entry) or ("stands there twice" if place in seen else None):
            faults.append(f"{archive}: entry {entry.filename!r} {fault}")
        elif not files.isdisjoint(place.parents) or (entry.filename.endswith("/") and place in files):
            faults.append(f"{archive}: entry {entry.filename!r} is a file and a folder at once")
        seen.add(place)
    return faults


def _fault(entry: zipfile.ZipInfo) -> str | None:
    mode = entry.external_attr >> 16
    if entry.orig_filename != "./" and (fault := refusal(entry.orig_filename)):  # some tools write ./
        return fault
    if stat.S_ISLNK(mode):
        return "is a link"
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a device or pipe"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted; zip it without a password"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in a rare way; zip it with 'deflate'"
    return None


def _unpack(z: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, where: str) -> None:
    target = folder / entry.filename.replace("\\", "/")
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with z.open(entry) as source, target.open("xb") as sink:
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:  # a header may lie
                raise CheckpointError(f"{where}: entry {entry.filename!r} is larger than it says")
            sink.write(chunk)
    if left:
        raise CheckpointError(f"{where}: entry {entry.filename!r} is smaller than it says")


def write_zip(folder: Path, names: Iterable[str], target: Path) -> Path:
    """Files of a folder as a zip that is the same bytes for the same files; it appears whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as z:
            for name in sorted(names):
                info = zipfile.ZipInfo(name, _EPOCH)
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, (stat.S_IFREG | 0o644) << 16
                with (folder / name).open("rb") as source, z.open(info, "w", force_zip64=True) as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target
