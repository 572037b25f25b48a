#!/usr/bin/env python3
"""Runs jobs on this machine, with the command line and log format of Kaldi's run.pl.

usage: run.pl [options] [JOB=1:N] LOG COMMAND [ARGUMENT...]

  run.pl exp/train.log python3 train.py --lr 0.1
  run.pl --max-jobs-run 4 JOB=1:8 exp/decode.JOB.log decode.sh keys.JOB.scp '>' out.JOB

JOB (any name) is replaced by 1..N in LOG and COMMAND; N jobs write N logs. An argument that is a whole
shell operator (| || && ; < > >> 2> 2>&1 ...) works as one; every other argument reaches the command exactly
as given. (Kaldi's run.pl gives every argument without a space to the shell, where <unk> or a(b) break.)
A pipeline fails if any part fails.

options:
  --max-jobs-run N   jobs at a time; default: CPUs / num_threads, or with --gpu the GPUs / N
  --num_threads N    CPUs one job uses (default 1)
  --gpu N            GPUs one job uses (default 0)
  --mem X, --time T, --name S, --num_nodes 1, --config FILE   for batch systems; accepted and ignored here

Exit status: 0 if all jobs succeeded, 1 if any failed, 2 on wrong usage, 128 + signal when stopped by a signal
(all jobs are stopped too).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

INTEGERS = {"gpu", "num_threads", "max_jobs_run", "num_nodes"}
IGNORED = {"mem", "time", "name", "config"}
OPERATOR = re.compile(r"\|&?|\|\||&&|;|<|[12&]?>>?|[12]?>&[12]")
TAIL_LINES = 30
GRACE_SECONDS = 5


class UsageError(Exception):
    """The command line is wrong; the text says how."""


@dataclasses.dataclass
class Request:
    """What the command line asks for.

    Jobs `first` to `last`; `job` is the name to replace by their numbers, None without JOB=.
    """

    options: dict[str, int]
    job: str | None
    first: int
    last: int
    log: str
    command: list[str]

    def of(self, number: int) -> tuple[Path, str]:
        """Log file and shell command of one job."""

        def fill(text: str) -> str:
            return text if self.job is None else text.replace(self.job, str(number))

        words = [word if OPERATOR.fullmatch(word) else shlex.quote(fill(word)) for word in self.command]
        return Path(fill(self.log)), " ".join(words)


def parse(argv: list[str]) -> Request:
    """Reads the command line.

    Raises:
        UsageError: unknown option, bad value, bad range, one log for several jobs, or nothing to run.
    """
    rest = list(argv)
    options = {"gpu": 0, "num_threads": 1, "max_jobs_run": 0, "num_nodes": 1}
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        name = flag.lstrip("-").replace("-", "_")
        if name not in INTEGERS | IGNORED:
            known = " ".join(f"--{option}" for option in sorted(INTEGERS | IGNORED))
            raise UsageError(f"unknown option {flag}; known: {known}")
        if not rest:
            raise UsageError(f"{flag} needs a value")
        value = rest.pop(0)
        if name in INTEGERS:
            if not re.fullmatch(r"\d+", value):
                raise UsageError(f"{flag} needs a number, got {value!r}")
            options[name] = int(value)
    if options["num_nodes"] > 1:
        raise UsageError("this machine is one node; use a batch system (cmd.sh) for --num_nodes above 1")
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


def slots(options: dict[str, int]) -> int:
    """How many jobs may run at a time."""
    if options["max_jobs_run"]:
        return options["max_jobs_run"]
    if options["gpu"]:
        gpus = 0
        if shutil.which("nvidia-smi"):
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
            gpus = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
        return max(1, gpus // options["gpu"])
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cpus // max(1, options["num_threads"]))


def date() -> str:
    """Now, as date(1) prints it."""
    return time.strftime("%a %b %e %H:%M:%S %Z %Y")


@dataclasses.dataclass
class Job:
    """A running job: the leader of a process group of its own."""

    pid: int
    log: Path
    started: float

    def finish(self, code: int, threads: int) -> None:
        """Writes the last lines of the log."""
        seconds = round(time.time() - self.started)
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(f"# Accounting: time={seconds} threads={threads}\n")
            stream.write(f"# Ended (code {code}) at {date()}, elapsed time {seconds} seconds\n")

    def kill(self, number: int) -> None:
        """Sends a signal to everything the job started."""
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self.pid, number)

    def exists(self) -> bool:
        """Whether any process of the group is left."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


class Runner:
    """Runs the jobs of a request, at most `slots` at a time."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.running: dict[int, Job] = {}
        self.failed: list[Path] = []
        self.stopped_by = 0
        self.told_to_stop: dict[int, Job] = {}

    def run(self) -> int:
        """Returns the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP: keep it so
                signal.signal(number, self._on_signal)
        signal.signal(signal.SIGALRM, lambda *_: self._kill_all(signal.SIGKILL))
        try:
            self._run_all()
        except BaseException:
            self._kill_all(signal.SIGTERM)  # e.g. a log that cannot be written: leave no job behind
            self._bury()
            raise
        if self.stopped_by:
            self._bury()
            print(f"run.pl: stopped by signal {self.stopped_by}, all jobs ended", file=sys.stderr)
            return 128 + self.stopped_by
        return self._report() if self.failed else 0

    def _run_all(self) -> None:
        pending = list(range(self.request.first, self.request.last + 1))
        limit = slots(self.request.options)
        while self.running or (pending and not self.stopped_by):
            while pending and len(self.running) < limit and not self.stopped_by:
                self._start(pending.pop(0))
            if self.running:
                self._wait()

    def _bury(self) -> None:
        # A shell dies of the signal before the processes it started: give those the same time, then end them.
        deadline = time.time() + GRACE_SECONDS
        for job in self.told_to_stop.values():
            while job.exists() and time.time() < deadline:
                time.sleep(0.05)
            job.kill(signal.SIGKILL)

    def _start(self, number: int) -> None:
        log, command = self.request.of(number)
        log.parent.mkdir(parents=True, exist_ok=True)
        heading = command.replace("\n", "\n# ")
        with log.open("w", encoding="utf-8") as stream:
            stream.write(f"# {heading}\n# Started at {date()}\n#\n")
            stream.flush()
            # A session of its own, so that one signal reaches everything the job started.
            process = subprocess.Popen(
                ["bash", "-c", f"set -o pipefail\n{command}"],
                stdin=subprocess.DEVNULL,
                stdout=stream.fileno(),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        job = Job(process.pid, log, time.time())
        self.running[process.pid] = job
        process.returncode = 0  # reaped by _wait, not by Popen
        if self.stopped_by:  # the signal came between Popen and the line above
            self._kill_all(signal.SIGTERM)

    def _wait(self) -> None:
        pid, status = os.waitpid(-1, 0)
        job = self.running.pop(pid, None)
        if job is None:
            return
        code = os.waitstatus_to_exitcode(status)
        code = 128 - code if code < 0 else code
        job.finish(code, self.request.options["num_threads"])
        if code:
            self.failed.append(job.log)

    def _on_signal(self, number: int, _frame: object) -> None:
        self.stopped_by = self.stopped_by or number
        self._kill_all(signal.SIGTERM)
        signal.alarm(GRACE_SECONDS)

    def _kill_all(self, number: int) -> None:
        self.told_to_stop.update(self.running)
        for job in list(self.running.values()):
            job.kill(number)

    def _report(self) -> int:
        total = self.request.last - self.request.first + 1
        shown = sorted(self.failed, key=lambda log: (len(log.name), log.name))[0]
        lines = shown.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        print(f"# last lines of {shown}:", *lines, sep="\n", file=sys.stderr)
        print(f"run.pl: {len(self.failed)} / {total} failed, log is in {self.request.log}", file=sys.stderr)
        return 1


def main(argv: list[str]) -> int:
    if argv[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    try:
        request = parse(argv)
    except UsageError as error:
        print(f"run.pl: {error}\nrun.pl: --help shows the usage", file=sys.stderr)
        return 2
    try:
        return Runner(request).run()
    except OSError as error:
        print(f"run.pl: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
