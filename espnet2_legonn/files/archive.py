"""Zip archives from anybody: checked before and while unpacking, the same everywhere; digests of files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.files.scratch import whole

MAX_FILES, MAX_BYTES = 1000, 20 << 30
# Weights hardly shrink; what shrinks a hundredfold is a bomb.
MAX_RATIO, RATIO_FROM = 100, 10 << 20
MAX_NAME = 200
# Of a list of a thousand files, a few hundred bytes for each.
MAX_DIRECTORY = 4 << 20
_CHUNK = 1 << 20
_HEADER, _ENCRYPTED, _UTF8 = 30, 1, 0x800
# Info-ZIP's field for a second name, which Python reads from 3.12 on.
_UNICODE_PATH = 0x7075
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


class Member(NamedTuple):
    """An entry of a zip by its one name: what is checked is what is written.

    ``ZipInfo`` has two, ``orig_filename`` and ``filename``, and which of the names inside the file they are depends on
    the version of Python; neither is used beyond ``_member``.
    """

    name: str
    is_folder: bool
    entry: zipfile.ZipInfo
    fault: str | None

    @property
    def shown(self) -> str:
        """The name as it stands in the archive, for messages."""
        return self.name if self.name != self.entry.orig_filename.replace("\\", "/") else self.entry.orig_filename

    @property
    def place(self) -> PurePosixPath:
        """For comparing: systems differ in what they take for the same name."""
        return PurePosixPath(unicodedata.normalize("NFC", self.name).casefold())


def _member(entry: zipfile.ZipInfo) -> Member:
    name, fault = entry.orig_filename, None
    raw = name.encode("utf-8" if entry.flag_bits & _UTF8 else "cp437", "replace")
    for second in _second_names(entry.extra):
        if second != raw:
            fault = "has two names, and programs differ in which they take; zip it again with another program"
        else:  # the same bytes, said to be UTF-8
            name = raw.decode("utf-8", "replace")
    name = name.replace("\\", "/")
    if not fault and name != "./":  # some tools write it
        fault = refusal(name)
    return Member(name, name.endswith("/"), entry, fault or _odd(entry))


def _second_names(extra: bytes) -> Iterator[bytes]:
    """What Unicode Path fields of an entry say."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == _UNICODE_PATH:
            yield extra[9 : 4 + size]
        extra = extra[4 + size :]


def listing(archive: Path) -> dict[str, int]:
    """Names and sizes of all files in a zip.

    Raises:
        CheckpointError: as ``extract``.
    """
    with _opened(archive) as (_, members):
        return {m.name: m.entry.file_size for m in members if not m.is_folder}


def extract(archive: Path, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Unpack a zip into an existing folder; nothing is written outside it.

    Args:
        wanted: which entries; all are checked.

    Raises:
        CheckpointError: names every entry that would leave the folder, links, repeats another or is absurdly large;
            a damaged archive; a full disk.
    """
    with _opened(archive) as (z, members):
        try:
            for member in members:
                if wanted(member.name):
                    _unpack(z, member, folder, str(archive))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            fault = f"{folder}: no space left to unpack {archive}; free some, nothing is kept"
            raise CheckpointError(fault) from None


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tuple[zipfile.ZipFile, list[Member]]]:
    """The zip and its members, all of them checked; whatever its bytes make Python raise names the archive."""
    try:
        with _Archive(io.FileIO(archive)) as file, zipfile.ZipFile(file) as z:
            members = [_member(entry) for entry in z.infolist()]
            if faults := _faults(archive, members):
                raise CheckpointError(faults)
            yield z, members
    except OSError as error:
        raise CheckpointError(f"{archive}: cannot be unpacked ({error})") from None
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, LookupError, struct.error) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{archive}: damaged ({reason}); copy it again") from None


def _faults(archive: Path, members: list[Member]) -> list[str]:
    faults, entries = [], [m.entry for m in members]
    if len(entries) > MAX_FILES:
        faults.append(f"{archive}: {len(entries)} entries, at most {MAX_FILES} are read")
    size, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
    if size > MAX_BYTES:
        faults.append(f"{archive}: unpacks to more than {MAX_BYTES >> 30} GiB")
    elif size > RATIO_FROM and size > MAX_RATIO * max(packed, 1):
        faults.append(f"{archive}: unpacks to {size // max(packed, 1)} times its size; no weights shrink like that")
    by_place = sorted(members, key=lambda m: m.entry.header_offset)
    for a, b in zip(by_place, by_place[1:]):
        if a.entry.header_offset + _HEADER + a.entry.compress_size > b.entry.header_offset:
            faults.append(f"{archive}: entries {a.name!r} and {b.name!r} share their bytes")
    files = {m.place for m in members if m.place.parts and not m.is_folder}
    seen: set[PurePosixPath] = set()
    for member in members:
        if fault := member.fault or ("stands there twice" if member.place in seen else None):
            faults.append(f"{archive}: entry {member.shown!r} {fault}")
        elif not files.isdisjoint(member.place.parents) or (member.is_folder and member.place in files):
            faults.append(f"{archive}: entry {member.name!r} is a file and a folder at once")
        seen.add(member.place)
    return faults


def _odd(entry: zipfile.ZipInfo) -> str | None:
    """Why an entry is no plain file or folder."""
    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "is a link"
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a device or pipe"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted; zip it without a password"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in a rare way; zip it with 'deflate'"
    return None


def _unpack(z: zipfile.ZipFile, member: Member, folder: Path, where: str) -> None:
    target = folder / member.name
    if member.is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.entry.file_size
    with z.open(member.entry) as source, target.open("xb") as sink:
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:  # a header may lie
                raise CheckpointError(f"{where}: entry {member.name!r} is larger than it says")
            sink.write(chunk)
    if left:
        raise CheckpointError(f"{where}: entry {member.name!r} is smaller than it says")


def write_zip(folder: Path, names: Iterable[str], target: Path) -> Path:
    """Files of a folder as a zip that is the same bytes for the same files; it appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as z:
        for name in sorted(names):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, (stat.S_IFREG | 0o644) << 16
            with (folder / name).open("rb") as source, z.open(info, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
    return target


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    return digest_of(path, hashlib.sha256)


def digest_of(path: Path, begin: Callable[[], Any]) -> str:
    """Digest of a file in hexadecimal.

    Args:
        begin: makes one of hashlib's.
    """
    with path.open("rb") as f:
        return hashlib.file_digest(f, begin).hexdigest() if hasattr(hashlib, "file_digest") else _digest_310(f, begin)


def _digest_310(f: Any, begin: Callable[[], Any]) -> str:
    digest = begin()
    while chunk := f.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
