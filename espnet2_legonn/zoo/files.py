"""Packs as files: folders and zips, each file compared with the card. No torch."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espnet2_legonn import archive
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.zoo.card import CARD, Card, FileEntry, read_card
from espnet2_legonn.zoo.espnet_archive import META

CONFIG, README = "config.yaml", "README.md"
# Beside the files of a card: a composition's checkpoint for ESPnet, and its training config.
WEIGHTS = (".safetensors", ".pth")
BESIDE = ("model.pth", "train.yaml")


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``folder`` at the end; on an error, nothing has changed.

    A process that is killed leaves at most a hidden folder beside it, never a part of a pack under its name.
    """
    _require_ours(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}.", dir=folder.parent))
    new = temporary / "new"
    try:
        new.mkdir()
        yield new
        _swap(new, folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, folder: Path, beside: Path) -> None:
    """Rename ``new`` to ``folder``; what stood there goes to ``beside``, and returns if this fails."""
    for attempt in itertools.count():
        old = beside / f"old{attempt}"
        with contextlib.suppress(FileNotFoundError):
            _require_ours(folder)
            folder.rename(old)
        try:
            new.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                if old.exists():
                    old.rename(folder)
                raise
            # Another process put its pack there in between: the last one wins.


def _require_ours(folder: Path) -> None:
    if folder.exists() and not _is_ours(folder):
        raise FileExistsError(f"{folder} exists and is no pack; choose another folder or remove it")


def _is_ours(folder: Path) -> bool:
    """Nothing but a pack, so that it may be replaced."""
    if not folder.is_dir():
        return False
    names = {p.name for p in folder.iterdir()}
    if CARD not in names:
        return not names
    with contextlib.suppress(ConfigError):
        return names <= {CARD, README, *BESIDE, *read_card(folder).files}
    return False


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Digest and size of every file but the card."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(sha256_of(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (CARD, README)
    }


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256_310(f)


def _sha256_310(f: Any) -> str:
    digest = hashlib.sha256()
    while chunk := f.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def verify(folder: Path, card: Card | None = None) -> Card:
    """Compare every file with the card.

    Raises:
        CheckpointError: names each file that is missing or differs, with expected and found digest.
    """
    card = card or read_card(folder)
    faults = []
    for name, entry in card.files.items():
        path = folder / name
        try:
            if not path.is_file():
                faults.append(f"{folder}: {name} is missing; get the pack again")
            elif path.stat().st_size != entry.bytes:
                faults.append(f"{path}: {path.stat().st_size} bytes, the card says {entry.bytes}; get the pack again")
            elif (found := sha256_of(path)) != entry.sha256:
                faults.append(f"{path}: SHA-256 is {found}, the card says {entry.sha256}; get the pack again")
        except OSError as error:
            faults.append(f"{path}: cannot be read ({error.strerror})")
    if faults:
        raise CheckpointError(faults)
    return card


@contextlib.contextmanager
def verified(folder: Path) -> Iterator[Card]:
    """The card of a pack whose files are what it says, and stay so for as long as this lasts.

    Raises:
        CheckpointError: as ``verify``; files that were written or replaced meanwhile.
    """
    card = read_card(folder)
    before = _stamps(folder, card)
    verify(folder, card)
    yield card
    if changed := [name for name, stamp in _stamps(folder, card).items() if stamp != before[name]]:
        raise CheckpointError(f"{folder / name}: changed while it was read; try again" for name in changed)


def _stamps(folder: Path, card: Card) -> dict[str, tuple[int, ...] | None]:
    stamps: dict[str, tuple[int, ...] | None] = {}
    for name in (CARD, *card.files):
        try:
            seen = (folder / name).stat()
            stamps[name] = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        except OSError:
            stamps[name] = None
    return stamps


def zip_pack(folder: Path, target: Path) -> Path:
    """A pack as one file; the same pack gives the same bytes."""
    card = verify(folder)
    names = [CARD, *card.files]
    if (folder / README).is_file():
        names.append(README)
    return archive.write_zip(folder, names, target)


@contextlib.contextmanager
def opened(path: Path, weights: bool = True) -> Iterator[Path]:
    """The folder of a pack that is a folder or a zip; a zip is unpacked for as long as this lasts.

    Args:
        weights: without them, reading the card of a large zip costs nothing.

    Raises:
        CheckpointError: neither, or an archive that is damaged or not to be trusted.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise CheckpointError(f"{path}: no such folder or zip")
    try:
        with path.open("rb") as f:
            if not zipfile.is_zipfile(f):
                raise CheckpointError(f"{path}: not a zip of a pack; damaged or truncated?")
        temporary = tempfile.TemporaryDirectory(prefix="legonn.")
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: {error.strerror}; is TMPDIR right?") from None
    with temporary:
        archive.extract(path, Path(temporary.name), lambda name: weights or not name.endswith(WEIGHTS))
        yield pack_root(Path(temporary.name), path)


def pack_root(unpacked: Path, where: str | Path) -> Path:
    """The folder with the card (or, for older archives, config) inside an unpacked archive."""
    for name in (CARD, META, CONFIG):
        roots = sorted(p.parent for p in unpacked.rglob(name))
        if roots:
            return min(roots, key=lambda p: len(p.parts))
    raise CheckpointError(f"{where}: neither {CARD} nor {CONFIG} inside")
