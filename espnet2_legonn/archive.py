"""Zip archives that may come from anybody: checked before and while unpacking, and written the same everywhere."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from espnet2_legonn.errors import CheckpointError

MAX_FILES, MAX_BYTES = 1000, 20 << 30
# Weights hardly shrink; what shrinks a thousandfold is a bomb.
MAX_RATIO, RATIO_FROM = 1000, 10 << 20
_CHUNK = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


def extract(archive: Path, folder: Path) -> None:
    """Unpack a zip into an existing folder; nothing is written outside it.

    Raises:
        CheckpointError: names every entry that would leave the folder, links, repeats another or is absurdly large;
            a damaged archive; a full disk.
    """
    try:
        with zipfile.ZipFile(archive) as z:
            entries = z.infolist()
            if faults := _faults(archive, entries):
                raise CheckpointError(faults)
            for entry in entries:
                _unpack(z, entry, folder, str(archive))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CheckpointError(f"{folder}: no space left to unpack {archive}; free some, nothing is kept") from None
        raise CheckpointError(f"{archive}: cannot be unpacked ({error})") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, NotImplementedError) as error:
        if isinstance(error, CheckpointError):
            raise
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
    seen: set[str] = set()
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        mode = entry.external_attr >> 16
        if path.is_absolute() or ".." in path.parts or ":" in str(path) or "\0" in entry.orig_filename:
            faults.append(f"{archive}: entry {entry.filename!r} points out of the archive")
        elif stat.S_ISLNK(mode):
            faults.append(f"{archive}: entry {entry.filename!r} is a link")
        elif mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            faults.append(f"{archive}: entry {entry.filename!r} is a device or pipe")
        elif str(path).lower() in seen:
            faults.append(f"{archive}: entry {entry.filename!r} stands there twice")
        seen.add(str(path).lower())
    return faults


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
