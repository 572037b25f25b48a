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
  --show 1           output on the terminal too, not in the log alone (cmd_backend=stdout)
  --mem X, --time T, --name S, --num_nodes 1, --config FILE   for batch systems; accepted and ignored here

Exit status: 0 if all jobs succeeded, 1 if any failed, 2 on wrong usage, 128 + signal when stopped by a signal
(all jobs are stopped too).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # where the package is when it is not installed
from espnet2_legonn.recipes.launcher import Request, UsageError, date, log_head, parse  # noqa: E402

GRACE_SECONDS = 5


def slots(request: Request) -> int:
    """How many jobs may run at a time."""
    if request.number("max_jobs_run", 0):
        return request.number("max_jobs_run", 0)
    if request.number("gpu", 0):
        gpus = 0
        if shutil.which("nvidia-smi"):
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
            gpus = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
        return max(1, gpus // request.number("gpu", 0))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cpus // max(1, request.number("num_threads", 1)))


@dataclasses.dataclass
class Job:
    """A running job: the leader of a process group of its own."""

    number: int
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
        self.show = request.options.get("show", "0") != "0"
        self.running: dict[int, Job] = {}
        self.failed: list[int] = []
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
        if self.failed:
            self.request.report("run.pl", self.failed)
        return 1 if self.failed else 0

    def _run_all(self) -> None:
        pending = list(self.request.numbers)
        limit = slots(self.request)
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
        script = f"set -o pipefail\n{command}"
        if self.show:
            script = f"set -o pipefail\n{{\n{command}\n}} 2>&1 | tee -a {shlex.quote(str(log))}"
        with log.open("w", encoding="utf-8") as stream:
            stream.write(log_head(command, f"Started at {date()}", ""))
            stream.flush()
            # A session of its own, so that one signal reaches everything the job started.
            process = subprocess.Popen(
                ["bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=None if self.show else stream.fileno(),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        job = Job(number, process.pid, log, time.time())
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
        job.finish(code, self.request.number("num_threads", 1))
        if code:
            self.failed.append(job.number)

    def _on_signal(self, number: int, _frame: object) -> None:
        self.stopped_by = self.stopped_by or number
        self._kill_all(signal.SIGTERM)
        signal.alarm(GRACE_SECONDS)

    def _kill_all(self, number: int) -> None:
        self.told_to_stop.update(self.running)
        for job in list(self.running.values()):
            job.kill(number)


def main(argv: list[str]) -> int:
    if argv[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    try:
        request = parse(argv, more=("show",))
        if request.number("num_nodes", 1) > 1:
            raise UsageError("this machine is one node; use a batch system (cmd.sh) for --num_nodes above 1")
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
