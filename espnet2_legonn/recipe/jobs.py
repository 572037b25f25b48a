"""Fan work out over jobs with a run.pl-compatible launcher."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.data.tables import atomic_text
from espnet2_legonn.errors import DataError, LegoNNError


def read_keys(path: Path) -> list[str]:
    """First column of a table, in order.

    Raises:
        DataError: the file is missing or has no lines.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run the stages before this one")
    keys = [line.split(maxsplit=1)[0] for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    if not keys:
        raise DataError(f"{path}: no utterances")
    return keys


def split_keys(path: Path, number: int, folder: Path) -> int:
    """Write ``keys.<n>.scp`` with the lines of a table dealt out in blocks; the number of files is returned."""
    lines = [f"{key} {key}\n" for key in read_keys(path)]
    number = max(1, min(number, len(lines)))
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        part = lines[i * len(lines) // number : (i + 1) * len(lines) // number]
        with atomic_text(folder / f"keys.{i + 1}.scp") as f:
            f.writelines(part)
    return number


def run(cmd: str, log: Path, command: Sequence[str], jobs: int | None = None, gpus: int = 0) -> None:
    """Run a command through the launcher ``cmd``; with ``jobs``, ``JOB`` in its words is 1 ... jobs.

    Raises:
        LegoNNError: a job failed; the launcher has already shown the end of its log.
    """
    launcher = shlex.split(cmd) + (["--gpu", str(gpus)] if gpus else []) + ([f"JOB=1:{jobs}"] if jobs else [])
    log.parent.mkdir(parents=True, exist_ok=True)
    if subprocess.call([*launcher, str(log), *command]):
        raise LegoNNError(f"a job failed; its log is {str(log).replace('JOB', '*')}")


def module(name: str, *options: str | Path) -> list[str]:
    """``python -m name options...`` with this Python."""
    return [sys.executable, "-m", name, *(str(o) for o in options)]
