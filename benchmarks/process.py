"""Processor time and memory of a Python process.

Linux counts the memory of whoever starts a process as that process's own. So a bare Python starts it, not the caller,
which may have PyTorch in memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

STARTER = """import json, os, sys
new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
files = [(os.POSIX_SPAWN_OPEN, fd, sys.argv[fd], new, 0o644) for fd in (1, 2)]
pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[3:]], os.environ, file_actions=files)
_, status, used = os.wait4(pid, 0)
print(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))"""


class Used(NamedTuple):
    """What a process wrote to its standard output, its processor seconds, and its greatest resident memory (MB)."""

    out: str
    seconds: float
    mb: float


def run(words: Sequence[str], folder: Path) -> Used:
    """``python WORDS...``; what it writes goes to files in ``folder``.

    Raises:
        SystemExit: it failed.
    """
    out, errors = folder / "stdout", folder / "stderr"
    command = [sys.executable, "-I", "-S", "-c", STARTER, str(out), str(errors), *words]
    status, seconds, mb = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if status:
        sys.exit(f"{' '.join(words)}\n{errors.read_text(encoding='utf-8')[-2000:]}")
    return Used(out.read_text(encoding="utf-8"), seconds, mb)
