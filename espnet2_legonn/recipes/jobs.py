"""Fan work out over jobs with a run.pl-compatible launcher; what a broken run finished is not done again."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from espnet2_legonn.data.tables import atomic_text, read_rows
from espnet2_legonn.errors import DataError, LegoNNError
from espnet2_legonn.files.scratch import JOBS, alone

WORK = ".work"  # in a folder of jobs: what they were about


def count_keys(path: Path) -> int:
    """Lines of a table.

    Raises:
        DataError: the file is missing, is no table or has no lines.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run the stages before this one")
    count = sum(1 for _ in read_rows(path))
    if not count:
        raise DataError(f"{path}: no utterances")
    return count


def split_keys(path: Path, number: int, folder: Path) -> int:
    """Write ``keys.<n>.scp`` with the lines of a table dealt out in blocks; the number of files is returned."""
    count = count_keys(path)
    number = max(1, min(number, count))
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{key} {key}\n" for key, _ in read_rows(path))
    for i in range(number):
        with atomic_text(folder / f"keys.{i + 1}.scp") as f:
            f.writelines(itertools.islice(lines, (i + 1) * count // number - i * count // number))
    return number


def run(cmd: str, log: Path, command: Sequence[str], jobs: int | None = None, gpus: int = 0) -> None:
    """Run a command through the launcher ``cmd``; with ``jobs``, ``JOB`` in its words is 1 ... jobs.

    Raises:
        LegoNNError: a job failed; the launcher has already shown the end of its log.
    """
    launcher = shlex.split(cmd) + (["--gpu", str(gpus)] if gpus else []) + ([f"JOB=1:{jobs}"] if jobs else [])
    log.parent.mkdir(parents=True, exist_ok=True)
    if call([*launcher, str(log), *command]):
        raise LegoNNError(f"a job failed; its log is {str(log).replace('JOB', '*')}")


def call(command: Sequence[str]) -> int:
    """Exit status of a command; a signal that ends this process ends all that the command started, too."""
    process = subprocess.Popen(list(command))

    def stop(number: int, _frame: object) -> None:
        for pid in [process.pid, *descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise SystemExit(128 + number)

    kept = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP: keep it so
                kept[number] = signal.signal(number, stop)
    try:
        return process.wait()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and what those started; none where the system does not tell."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def module(name: str, *options: str | Path) -> list[str]:
    """``python -m name options...`` with this Python."""
    return [sys.executable, "-m", name, *(str(o) for o in options)]


def unchanged(files: Iterable[Path]) -> list[list[object]]:
    """What tells a file from another version of it: path, size, time of change; none for a file that is not there."""
    found = [(path, path.stat()) for path in files if os.path.isfile(path)]  # a word may be too long for a path
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in found]


@contextlib.contextmanager
def working(folder: Path, command: Sequence[str], files: Iterable[Path]) -> Iterator[None]:
    """A folder for jobs while they run: what a broken run of the same command on the same files left there stays.

    Raises:
        BusyError: another command runs jobs there.
    """
    with alone(folder.parent, JOBS):
        _begin(folder, command, files)
        yield
        (folder / WORK).unlink(missing_ok=True)  # all is done: the next run of these jobs begins afresh


def _begin(folder: Path, command: Sequence[str], files: Iterable[Path]) -> None:
    mark = hashlib.sha256(json.dumps([list(command), unchanged(files)]).encode()).hexdigest()
    path = folder / WORK
    if not (path.is_file() and path.read_text() == mark):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_text(path) as f:
        f.write(mark)


def once(command: Sequence[str], output: Path) -> list[str]:
    """A command for a launcher that fills the folder ``output``, and does nothing where that is done."""
    mark = str(output / ".done")
    return ["test", "-f", mark, "||", *command, "&&", "touch", mark]
