"""Packs as files: folders and zips, each file compared with the card. No torch."""

from __future__ import annotations

import contextlib
import errno
import itertools
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from espnet2_legonn.errors import CheckpointError, ConfigError, LegoNNError
from espnet2_legonn.files import archive
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.files.scratch import scratch
from espnet2_legonn.packs.card import CARD, MAX_CARD_BYTES, Card, FileEntry, read_card
from espnet2_legonn.packs.espnet_archive import META

CONFIG, README = "config.yaml", "README.md"
# Most bytes of a file that is unpacked alone: a vocabulary, an example.
MAX_SINGLE_BYTES = 64 << 20
# Beside the files of a card: a composition's checkpoint for ESPnet, and its training config.
BESIDE = ("model.pth", "train.yaml")


def beside_pack(folder: Path) -> list[str] | None:
    """What a pack's folder holds beside the pack; None if there is no pack, or its card cannot be read."""
    if not (folder / CARD).is_file():
        return None
    try:
        known = {CARD, README, *BESIDE, *read_card(folder).files}
    except ConfigError:
        return None
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


def is_pack(folder: Path) -> bool:
    """Whether there is nothing but a pack, or nothing at all, so that it may be replaced."""
    return folder.is_dir() and (beside_pack(folder) == [] or not any(folder.iterdir()))


@contextlib.contextmanager
def replacing(folder: Path, ours: Callable[[Path], bool] = is_pack, what: str = "pack") -> Iterator[Path]:
    """A temporary folder that takes the place of ``folder`` at the end; on an error, nothing has changed.

    A process that is killed leaves at most a hidden folder beside it, which the next one sweeps, never a part of a pack
    under its name.

    Args:
        ours: whether a folder that is there may be replaced; what: it is then.

    Raises:
        FileExistsError: it may not.
    """

    def require_ours() -> None:
        if folder.exists() and not ours(folder):
            raise FileExistsError(f"{folder} exists and is no {what}; choose another folder or remove it")

    require_ours()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch(folder.parent, folder.name) as temporary:
        new = temporary / "new"
        new.mkdir()
        yield new
        _swap(new, folder, temporary, require_ours)


def _swap(new: Path, folder: Path, beside: Path, require_ours: Callable[[], None]) -> None:
    """Rename ``new`` to ``folder``; what stood there goes to ``beside``, and returns if this fails."""
    for attempt in itertools.count():
        old = beside / f"old{attempt}"
        with contextlib.suppress(FileNotFoundError):
            require_ours()
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


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Digest and size of every file but the card."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(sha256_of(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (CARD, README)
    }


def is_as_told(folder: Path, card: Card, name: str) -> bool:
    """Whether a small file of a pack is there and what the card says; a link to another file of this machine is not."""
    entry, path = card.files[name], folder / name
    try:
        return path.is_file() and path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256
    except OSError:
        return False


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


def require_no_links(folder: Path, names: Collection[str]) -> None:
    """A pack that is sent away holds what it names, not what a link makes of another file of this machine.

    Raises:
        CheckpointError: names every file that is a link, or lies behind one.
    """
    home = folder.resolve()
    if linked := [name for name in names if (folder / name).resolve() != home / name]:
        raise CheckpointError(f"{folder / name}: is a link; put a copy of the file in its place" for name in linked)


def zip_pack(folder: Path, target: Path) -> Path:
    """A pack as one file; the same pack gives the same bytes.

    Raises:
        CheckpointError: as ``verify``, and for links.
    """
    card = verify(folder)
    names = [CARD, *card.files]
    if (folder / README).is_file():
        names.append(README)
    require_no_links(folder, names)
    return archive.write_zip(folder, names, target)


@contextlib.contextmanager
def opened(path: Path, names: Collection[str] | None = None) -> Iterator[Path]:
    """The folder of a pack that is a folder or a zip; a zip is unpacked for as long as this lasts.

    Errors that are raised meanwhile name the zip, not the folder.

    Args:
        names: besides the card, unpack only these files, as the card calls them; reading the card of a large zip costs
            nothing.

    Raises:
        CheckpointError: neither, or an archive that is damaged or not to be trusted.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise CheckpointError(f"{path}: no such folder or zip")
    with contextlib.ExitStack() as stack:
        try:
            with path.open("rb") as f:
                if not zipfile.is_zipfile(f):
                    raise CheckpointError(f"{path}: not a zip of a pack; damaged or truncated?")
            room = Path(tempfile.gettempdir())
            temporary = stack.enter_context(scratch(room, "pack"))
        except OSError as error:
            raise CheckpointError(f"{error.filename or path}: {error.strerror}; is TMPDIR right?") from None
        stack.enter_context(renamed({temporary: str(path)}))
        if names is None:
            archive.extract(path, temporary)
            root = pack_root(temporary, path)
        else:
            root = _unpack_some(path, temporary, {CARD, *names})
        stack.enter_context(renamed({root: str(path)}))
        yield root


def _unpack_some(path: Path, folder: Path, names: Collection[str]) -> Path:
    """Files of a pack by their names in the card; the folder they are in."""
    sizes = archive.listing(path)
    inside = _root(sizes, path)
    limits = {str(inside / name): MAX_CARD_BYTES if name == CARD else MAX_SINGLE_BYTES for name in names}
    if large := [name for name, limit in limits.items() if sizes.get(name, 0) > limit]:
        raise CheckpointError(f"{path}: {name}: {sizes[name]} bytes, at most {limits[name]} are read" for name in large)
    archive.extract(path, folder, lambda name: str(PurePosixPath(name)) in limits)
    (folder / inside).mkdir(parents=True, exist_ok=True)
    return folder / inside


def card_of(path: Path) -> Card:
    """The card of a pack that is a folder or a zip; of a zip, nothing else is unpacked.

    Raises:
        CheckpointError: neither, or an archive that is damaged or not to be trusted.
        ConfigError: no card, or faults in it.
    """
    with opened(path, ()) as folder:
        return read_card(folder)


@contextlib.contextmanager
def renamed(names: Mapping[Path, str]) -> Iterator[None]:
    """Messages name what the user knows, not our temporary files."""
    try:
        yield
    except LegoNNError as error:
        faults = error.faults
        for path, name in names.items():
            faults = [f.replace(f"{path}/", f"{name}: ").replace(str(path), name) for f in faults]
        raise type(error)(faults) from None


def pack_root(unpacked: Path, where: str | Path) -> Path:
    """The folder with the card (or, for older archives, config) inside an unpacked archive.

    Raises:
        CheckpointError: there is neither.
    """
    inside = (p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.name in (CARD, META, CONFIG))
    return unpacked / _root(list(inside), where)


def _root(names: Collection[str], where: str | Path) -> PurePosixPath:
    paths = [PurePosixPath(name) for name in names]
    for wanted in (CARD, META, CONFIG):
        if roots := sorted(path.parent for path in paths if path.name == wanted):
            return min(roots, key=lambda root: len(root.parts))
    raise CheckpointError(f"{where}: neither {CARD} nor {CONFIG} inside")
