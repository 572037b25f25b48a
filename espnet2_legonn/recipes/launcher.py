"""The command line that run.pl and slurm.pl share, which is that of Kaldi's launchers."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from espnet2_legonn.errors import LegoNNError

INTEGERS = frozenset({"gpu", "num_threads", "max_jobs_run", "num_nodes"})
TEXTS = frozenset({"mem", "time", "name", "config"})
OPERATOR = re.compile(r"\|&?|\|\||&&|;|<|[12&]?>>?|[12]?>&[12]")
TAIL_LINES = 30


class UsageError(LegoNNError):
    """The command line of a launcher is wrong; the text says how."""


@dataclasses.dataclass
class Request:
    """What a launcher's command line asks for.

    Jobs ``first`` to ``last``; ``job`` is the name to replace by their numbers, None without ``JOB=``. ``options``
    holds what was given, with ``_`` for ``-`` in the names.
    """

    options: dict[str, str]
    job: str | None
    first: int
    last: int
    log: str
    command: list[str]

    @property
    def numbers(self) -> range:
        return range(self.first, self.last + 1)

    def number(self, option: str, default: int) -> int:
        """An option that is a whole number."""
        return int(self.options.get(option, default))

    def of(self, number: int) -> tuple[Path, str]:
        """Log file and shell command of one job."""

        def fill(text: str) -> str:
            return text if self.job is None else text.replace(self.job, str(number))

        words = [word if OPERATOR.fullmatch(word) else shlex.quote(fill(word)) for word in self.command]
        return Path(fill(self.log)), " ".join(words)

    def report(self, program: str, failed: Collection[int], shown: Path | None = None) -> None:
        """Say on standard error which jobs failed, with the last lines of the log of the first (or of ``shown``)."""
        path = shown or self.of(min(failed))[0]
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:] if path.is_file() else []
        print(f"# last lines of {path}:", *lines, sep="\n", file=sys.stderr)
        print(f"{program}: {len(failed)} / {len(self.numbers)} failed, log is in {self.log}", file=sys.stderr)


def parse(argv: Sequence[str], more: Collection[str] = ()) -> Request:
    """Read the command line; ``more`` are options of this launcher alone.

    Raises:
        UsageError: unknown option, bad value, bad range, one log for several jobs, or nothing to run.
    """
    rest = list(argv)
    known = INTEGERS | TEXTS | set(more)
    options: dict[str, str] = {}
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        name = flag.lstrip("-").replace("-", "_")
        if name not in known:
            raise UsageError(f"unknown option {flag}; known: {' '.join(f'--{option}' for option in sorted(known))}")
        if not rest:
            raise UsageError(f"{flag} needs a value")
        value = rest.pop(0)
        if name in INTEGERS and not re.fullmatch(r"\d+", value):
            raise UsageError(f"{flag} needs a number, got {value!r}")
        options[name] = value
    job, first, last = None, 1, 1
    match = re.fullmatch(r"([A-Za-z_]\w*)=(\d+)(?::(\d+))?", rest[0]) if rest else None
    if match:
        rest.pop(0)
        job, first, last = match[1], int(match[2]), int(match[3] or match[2])
        if not 1 <= first <= last:
            raise UsageError(f"bad job range {match[0]}; give 1 <= first <= last")
    if len(rest) < 2:
        raise UsageError("give a log file and a command")
    log, *command = rest
    if job is not None and last > first and job not in log:
        raise UsageError(f"{last - first + 1} jobs would write one log, {log}; put {job} into its name")
    return Request(options, job, first, last, log, command)


def date() -> str:
    """Now, as date(1) prints it."""
    return time.strftime("%a %b %e %H:%M:%S %Z %Y")


def log_head(command: str, *facts: str) -> str:
    """First lines of a job's log, all of them comments."""
    heading = command.replace("\n", "\n# ")
    return "".join(f"# {line}".rstrip() + "\n" for line in (heading, *facts))
