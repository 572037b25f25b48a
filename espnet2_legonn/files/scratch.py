"""Temporary folders and files that appear whole, swept by the next command after a killed one; locks of folders."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from espnet2_legonn.errors import BusyError

# What only one process at a time does in a folder.
TRAINING, LAUNCHING, JOBS = "training", "stage_11", "jobs"
_held: set[int] = set()
# Folders with this in their names are ours to sweep once nobody holds their lock.
MARK = ".legonn-"


@contextlib.contextmanager
def scratch(parent: Path, stem: str) -> Iterator[Path]:
    """A new private folder in ``parent``, gone at the end; those that killed commands left there go first.

    A live command holds a lock on its folder, which the kernel opens when the command ends, however it ends.

    Args:
        stem: what it is for; part of its name.

    Raises:
        OSError: of the disk.
    """
    sweep(parent)
    folder, lock = _locked_folder(parent, f".{stem[:100]}{MARK}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the name ``path`` at the end, when it is on the disk; after an error, never.

    Raises:
        OSError: of the disk.
    """
    with scratch(path.parent, path.name) as folder:
        yield folder / path.name
        sync(folder / path.name)
        os.replace(folder / path.name, path)
    with contextlib.suppress(OSError):  # some disks cannot
        sync(path.parent)


@contextlib.contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Nobody else does the same in a folder while this is open.

    The kernel opens the lock when the process ends, however it ends. On disks that know no locks there is none.

    Args:
        what: is done, one word.

    Raises:
        BusyError: another process does it; the message says which and where.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{what}.lock"
    lock = _locked_file(path, f"{folder}: in use, {what} goes on there")
    _held.add(lock)
    try:
        os.truncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        _held.discard(lock)
        os.close(lock)


def _locked_file(path: Path, busy: str) -> int:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 200).decode(errors="replace") or "another process"
            os.close(lock)
            remedy = "wait for its end or stop it, or give another folder"
            raise BusyError(f"{busy} ({holder}); {remedy}") from None
        except OSError:  # a disk without locks
            return lock
        with contextlib.suppress(FileNotFoundError):  # whoever held it took the name away
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        os.close(lock)


def _close_held() -> None:
    """In a forked child, such as a data loader's: it must not hold what its parent held."""
    for lock in _held:
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_close_held)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(parent: Path) -> None:
    """Remove the scratch folders of commands that are no more."""
    for folder in parent.glob(f".*{MARK}*"):
        with contextlib.suppress(OSError):  # others sweep, too; or it is another user's
            seen = folder.lstat()
            if stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid():
                lock = _lock(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):  # swept before it was locked
            lock = _lock(folder, required=False)
            if folder.is_dir() and os.path.samestat(os.fstat(lock), folder.stat()):
                return folder, lock
            os.close(lock)


def _lock(folder: Path, required: bool = True) -> int:
    """The descriptor that holds the lock; on disks that know none, there is none to be had or needed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if required or isinstance(error, BlockingIOError):
            os.close(descriptor)
            raise
    return descriptor
