"""Bytes from and to other places: resumed downloads with progress, small files, locks between processes. No torch."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import io
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from espnet2_legonn.errors import CheckpointError, LegoNNError
from espnet2_legonn.files.archive import MAX_BYTES

# Attempts in a row that bring nothing new, and the pause after the first, which doubles.
ATTEMPTS, PAUSE = 3, 1.0
# Seconds without a byte; for the whole of an answer's head, or of a small file.
TIMEOUT, DEADLINE = 30.0, 60.0
# Bytes a second of a download on average, once it has taken this long: a server may send one now and then, for ever.
SLOWEST, GRACE = 1000.0, 60.0
CHUNK = 1 << 20
# Seconds before the bar appears.
DELAY = 1.0
_BLOCK = 16 << 20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*DISK_FULL, errno.EROFS, errno.EIO, errno.EFBIG)
# Of the codes that a server answers with, those that another attempt may cure.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
EXTRA = "pip install 'espnet2_legonn[zoo]'"


class _Stream(NamedTuple):
    """Bytes from ``begin`` on, of ``total`` if that is known."""

    file: Any
    begin: int
    total: int | None


def is_url(place: str) -> bool:
    """Not a path of this machine."""
    return "://" in place


def is_web(place: str) -> bool:
    """Behind a web server, which is read and not written."""
    return place.startswith(("http://", "https://"))


def filesystem(url: str) -> tuple[Any, str]:
    """What reads and writes URLs of this kind (fsspec), and the path it knows this one by.

    Raises:
        CheckpointError: no such kind, or a package is missing.
    """
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise CheckpointError(f"{url}: a package is missing ({error}); {EXTRA}") from None
    except ValueError as error:
        raise CheckpointError(f"{url}: {error}") from None


@contextlib.contextmanager
def telling(url: str) -> Iterator[None]:
    """Whatever a store's client raises, as one line with the URL; errors of this machine's disk pass."""
    try:
        yield
    except (LegoNNError, ConnectionError, TimeoutError, http.client.HTTPException):
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{url}: no such file; mistyped?") from None
    except Exception as error:  # each client has errors of its own, for instance for missing credentials
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        line = next(iter(str(error).splitlines()), "")
        raise CheckpointError(f"{url}: {type(error).__name__}: {line}") from None


def download(url: str, part: Path, label: str, size: int | None = None) -> bool:
    """Fill ``part``, going on from what it holds where the server can.

    Args:
        label: for the progress bar, which appears if this takes more than a moment.
        size: if known; more than that is never written.

    Returns:
        whether it was put together from several answers, which might belong to different versions.

    Raises:
        CheckpointError: what the server says, or that it went away too often; ``part`` may hold a beginning.
        OSError: of this machine's disk.
    """
    pace = _Pace(url, _length(part))
    best, fruitless, limit = pace.begin, 0, MAX_BYTES if size is None else size
    if best == size:
        return True
    while True:
        try:
            with telling(url), _opened(url, _length(part)) as stream:
                if (stream.total or 0) > limit:
                    raise CheckpointError(f"{url}: {stream.total} bytes, should be at most {limit}; not downloaded")
                _copy(stream, part, label, limit, pace)
            if stream.total is None or _length(part) >= stream.total:
                return stream.begin > 0
            fault = f"the connection ended after {_length(part)} of {stream.total} bytes"
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            fault = str(error) or type(error).__name__
        here = _length(part)
        pace.require(here)
        fruitless, best = (1, here) if here > best else (fruitless + 1, best)
        if fruitless >= ATTEMPTS:
            keeping = "; what arrived is kept, the next call goes on from there" if here else ""
            raise CheckpointError(f"{url}: {fault}; {ATTEMPTS} attempts brought no more{keeping}")
        time.sleep(PAUSE * 2 ** (fruitless - 1))


class _Pace:
    """How fast a download is from its first attempt on.

    Args:
        begin: bytes that were there already.
    """

    def __init__(self, url: str, begin: int) -> None:
        self.url, self.begin, self.started = url, begin, time.monotonic()

    def require(self, here: int) -> None:
        """Go on, or not.

        Raises:
            CheckpointError: too slow to ever end.
        """
        seconds, got = time.monotonic() - self.started, here - self.begin
        if seconds > GRACE and got < SLOWEST * seconds:
            keeping = "; what arrived is kept, the next call goes on from there" if here else ""
            raise CheckpointError(f"{self.url}: too slow, {got} bytes in {seconds:.0f} s{keeping}")


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _some(file: Any) -> bytes:
    """What has arrived, at least a byte; nothing at the end."""
    return getattr(file, "read1", file.read)(CHUNK)


def _copy(stream: _Stream, part: Path, label: str, limit: int, pace: _Pace) -> None:
    from tqdm import tqdm

    shown: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "delay": DELAY}
    # A log file gets a line now and then, a terminal a moving bar.
    shown["mininterval"] = 0.2 if sys.stderr.isatty() else 30.0
    with (
        part.open("r+b" if stream.begin else "wb") as sink,
        tqdm(desc=label, total=stream.total, initial=stream.begin, **shown) as bar,
    ):
        sink.seek(stream.begin)
        sink.truncate()
        here = stream.begin
        while chunk := _some(stream.file):
            here += len(chunk)
            if here > limit:
                part.unlink()
                raise CheckpointError(f"{pace.url}: more than {limit} bytes arrive; not the file that was asked for")
            sink.write(chunk)
            bar.update(len(chunk))
            pace.require(here)


@contextlib.contextmanager
def _opened(url: str, start: int) -> Iterator[_Stream]:
    if is_web(url):
        with _open_web(url, start) as stream:
            yield stream
        return
    fs, path = filesystem(url)
    total = fs.size(path)
    begin = start if total is not None and start <= total else 0
    with fs.open(path, "rb", block_size=_BLOCK, cache_type="readahead") as file:
        if begin:
            file.seek(begin)
        yield _Stream(file, begin, total)


@contextlib.contextmanager
def _open_web(url: str, start: int) -> Iterator[_Stream]:
    """Plain urllib: fsspec's HTTP files read in blocks and fail on servers that do not know ranges."""
    headers = {"User-Agent": "espnet2_legonn", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = _asked(urllib.request.Request(url, headers=headers))
    except urllib.error.HTTPError as error:
        with error:
            said = f"the server says {error.code} {error.reason}"
            if error.code in _PASSING:
                raise ConnectionError(said) from None
            if error.code != 416 or not start:
                raise CheckpointError(f"{url}: {said}; mistyped?") from None
            whole = error.headers.get("Content-Range") == f"bytes */{start}"
        if whole:  # nothing is left to send
            yield _Stream(io.BytesIO(), start, start)
        else:
            with _open_web(url, 0) as stream:
                yield stream
        return
    except urllib.error.URLError as error:
        raise ConnectionError(f"cannot be reached ({error.reason})") from None
    except (http.client.InvalidURL, ValueError) as error:
        raise CheckpointError(f"{url}: no URL ({error})") from None
    with response:
        begin = start if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        yield _Stream(response, begin, begin + int(length) if length and length.isdigit() else None)


def _asked(request: urllib.request.Request) -> Any:
    """The head of the answer, within the deadline: a socket's timeout begins again with every byte.

    Raises:
        TimeoutError: it takes longer.
        OSError, http.client.HTTPException: as ``urlopen``.
    """
    answer: list[Any] = []
    given_up = threading.Event()

    def ask() -> None:
        try:
            answer.append(urllib.request.urlopen(request, timeout=TIMEOUT))
        except BaseException as error:
            answer.append(error)
        if given_up.is_set() and not isinstance(answer[0], BaseException):
            answer[0].close()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(DEADLINE)
    if not answer:
        given_up.set()
        raise TimeoutError(f"no answer in {DEADLINE:.0f} s")
    if isinstance(answer[0], BaseException):
        raise answer[0]
    return answer[0]


def _read_within(stream: _Stream, limit: int) -> bytes:
    """All of a small file, and of a larger one enough to see that it is."""
    until, data = time.monotonic() + DEADLINE, bytearray()
    while len(data) <= limit and (chunk := _some(stream.file)):
        data += chunk
        if time.monotonic() > until:
            raise TimeoutError(f"{len(data)} bytes in {DEADLINE:.0f} s; too slow")
    if stream.total is not None and len(data) < min(stream.total, limit + 1):
        raise ConnectionError(f"the connection ended after {len(data)} of {stream.total} bytes")
    return bytes(data[: limit + 1])


def read_small(place: str, limit: int) -> bytes:
    """A file of at most ``limit`` bytes, from a path or URL.

    Raises:
        FileNotFoundError: there is none, on this machine.
        CheckpointError: none elsewhere, not reachable, or too large.
    """
    if not is_url(place):
        with open(place, "rb") as file:
            data = file.read(limit + 1)
    else:
        try:
            with telling(place), _opened(place, 0) as stream:
                data = _read_within(stream, limit)
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            raise CheckpointError(f"{place}: {error}") from None
    if len(data) > limit:
        raise CheckpointError(f"{place}: more than {limit} bytes; not what it should be")
    return data


@contextlib.contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """One process at a time; the others wait and say so. The file is gone afterwards.

    Raises:
        OSError: of this machine's disk; some network disks know no locks.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{purpose}: waiting for another process", file=sys.stderr)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held it may have removed the file: a lock on that keeps nobody out.
            if _same_file(descriptor, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
