"""Packs that came from elsewhere, unpacked and checked, each whole or not there at all. No torch."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from espnet2_legonn.errors import CheckpointError, ConfigError, LegoNNError
from espnet2_legonn.files import archive
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.packs.card import CARD, Card, read_card
from espnet2_legonn.packs.files import pack_root, renamed, verify
from espnet2_legonn.packs.transfer import DISK_FULL, download, is_url, locked


class ZipSource(NamedTuple):
    """A zip somewhere: URL or path, a word for people, and what an index says of it, if one does.

    Args:
        differs: in what the card inside differs from the index, in words.
    """

    place: str
    label: str
    sha256: str | None = None
    bytes: int | None = None
    differs: Callable[[Card], list[str]] = lambda card: []


def cache_folder() -> Path:
    """LEGONN_CACHE, or ~/.cache/espnet2_legonn."""
    return Path(os.environ.get("LEGONN_CACHE") or "~/.cache/espnet2_legonn").expanduser()


def keep(source: ZipSource) -> Path:
    """The unpacked pack, from the cache or fetched into it.

    What is there and not what the index says now, or not whole any more, is fetched again. Processes that want the
    same pack at once wait for the first. A cache that cannot be written serves what it has.

    Raises:
        CheckpointError: not reachable, not what the index or the card says, no zip, or no room for it; of a download
            that was cut off the beginning stays, of all others nothing.
    """
    cache = cache_folder()
    # The digest is the pack's identity wherever it lies; a URL without one stands for what it held when asked.
    key = source.sha256 or hashlib.sha256(source.place.encode()).hexdigest()
    final = cache / f"{source.label}-{key[:16]}"
    try:
        if not _is_good(source, final):
            cache.mkdir(parents=True, exist_ok=True)
            with locked(cache / f".{final.name}.lock", source.label):
                if not _is_good(source, final):
                    _fetch(source, final)
        return pack_root(final, source.place)
    except OSError as error:
        if error.errno in DISK_FULL:
            fault = f"{cache}: no space left for {source.place}; free some or set LEGONN_CACHE, nothing is kept"
            raise CheckpointError(fault) from None
        reason = error.strerror or error
        raise CheckpointError(f"{cache}: cannot be used ({reason}); set LEGONN_CACHE to a folder of your own") from None


def _is_good(source: ZipSource, folder: Path) -> bool:
    """Whether this is there, with all files in the sizes of its card, which says what the index says.

    Whoever loads it compares the digests.
    """
    if not folder.is_dir():
        return False
    try:
        root = pack_root(folder, source.place)
        if not (root / CARD).is_file():
            return not source.sha256  # an index lists packs with cards only
        card = read_card(root)
        return not source.differs(card) and all((root / n).stat().st_size == e.bytes for n, e in card.files.items())
    except (OSError, CheckpointError, ConfigError):
        return False


def _fetch(source: ZipSource, final: Path) -> None:
    part, unpacked = final.with_name(f".{final.name}.part"), final.with_name(f".{final.name}.new")
    shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
    try:
        if not is_url(source.place):
            _unpack(source, Path(source.place), unpacked)
        else:
            for last in (False, True):
                pieced = _download(source, part)
                try:
                    _unpack(source, part, unpacked)
                    break
                except LegoNNError:
                    # The beginning may have been another version's; everything else stays wrong.
                    if last or not pieced:
                        raise
                finally:
                    part.unlink(missing_ok=True)
        if final.exists():  # damaged, or of another index
            os.replace(final, final.with_name(f".{final.name}.old"))
            shutil.rmtree(final.with_name(f".{final.name}.old"), ignore_errors=True)
        os.replace(unpacked, final)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _download(source: ZipSource, part: Path) -> bool:
    try:
        return download(source.place, part, source.label, source.bytes)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _unpack(source: ZipSource, zipped: Path, folder: Path) -> None:
    """Into a new folder, if it is what it should be; messages name where it came from."""
    if not zipped.is_file():
        raise CheckpointError(f"{source.place}: no such zip, though the index beside it lists it")
    if source.bytes is not None and (size := zipped.stat().st_size) != source.bytes:
        raise CheckpointError(f"{source.place}: {size} bytes, the index says {source.bytes}; it may be changing")
    if source.sha256 is not None and (found := sha256_of(zipped)) != source.sha256:
        raise CheckpointError(f"{source.place}: SHA-256 is {found}, the index says {source.sha256}; tell its owner")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with renamed({zipped: source.place, folder: str(folder.parent)}):
        archive.extract(zipped, folder)
    root = pack_root(folder, source.place)
    if (root / CARD).is_file():
        with renamed({folder: source.place}):
            card = verify(root)
        if faults := source.differs(card):
            raise CheckpointError(f"{source.place}: {fault}; tell its owner" for fault in faults)
    elif source.sha256 is not None:
        raise CheckpointError(f"{source.place}: no {CARD} inside, though the index lists it as a pack; tell its owner")

