"""Run jobs on a Slurm cluster, with the command line and log format of run.pl: what slurm.pl does.

usage: slurm.pl [options] [JOB=1:N] LOG COMMAND [ARGUMENT...]

  slurm.pl --mem 4G JOB=1:8 exp/decode.JOB.log decode.sh keys.JOB.scp
  slurm.pl --gpu 8 --num_threads 8 --num_nodes 2 exp/train.log srun --export=ALL python3 train.py

JOB (any name) is replaced by 1..N in LOG and COMMAND; N jobs are one job array and write N logs. An argument that is a
whole shell operator (| || && ; < > >> 2> 2>&1 ...) works as one; every other argument reaches the command as given.
The folder of the logs must be seen by all machines. The command returns when all jobs have ended; jobs that died are
named with Slurm's reason and the end of a log. A signal (Ctrl-C) cancels the jobs.

options:
  --gpu N            GPUs of each node (default 0)
  --num_threads N    cores of each node
  --num_nodes N      nodes of one job; start the program with srun, once on each (default 1)
  --mem X            memory of each node, as sbatch takes it: 4G
  --time T           time limit, as sbatch takes it: 1-12:00:00
  --max-jobs-run N   jobs of the array at a time
  --name S           name of the job
  --config FILE      what these mean on your cluster (default: conf/slurm.conf if it is there)

A config holds lines "command sbatch ...", "option NAME=VALUE arguments of sbatch", where * is any value and $0 what was
given, and "default NAME=VALUE" for what was not. Its lines for an option replace the built-in ones:

{rules}
Exit status: 0 if all jobs succeeded, 1 if any failed, 2 on wrong usage, 128 + signal when stopped by a signal.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from espnet2_legonn.data.tables import atomic_text
from espnet2_legonn.errors import LegoNNError
from espnet2_legonn.recipes.launcher import Request, UsageError, date, log_head, parse

# A job of several nodes is not begun again by Slurm itself: its processes would meet at the file of those that died.
RULES = """\
command sbatch --export=ALL
option name=* --job-name $0
option mem=* --mem $0
option time=* --time $0
option num_threads=* --cpus-per-task $0
option num_nodes=* --nodes $0 --ntasks-per-node 1 --no-requeue
option num_nodes=1 --nodes 1
option gpu=* --gres gpu:$0
option gpu=0
"""
CONFIG = Path("conf/slurm.conf")
# States of a job that wrote no last word, and never will.
DEAD = {"BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
ENDED = {"COMPLETED", "FAILED"}
GRACE_SECONDS = 30.0  # a shared file system may show another machine's files that much later
LONGEST_SLEEP, LONGEST_BETWEEN_QUESTIONS = 2.0, 15.0

# Words in capitals are filled in by `batch_script`.
SCRIPT = r"""#!/usr/bin/env bash
# Written by slurm.pl: a batch script for sbatch.
cd FOLDER || exit 1
if [ -f path.sh ]; then . ./path.sh; fi # for clusters that hand on no environment
number=${SLURM_ARRAY_TASK_ID:-FIRST}
case "${number}" in
CASES
esac
# sbatch says how many cores a task has, srun listens to another name
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK}"; fi
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then # Slurm began the job again, on another machine perhaps
    exec >>"${log}" || exit 1
else
    exec >"${log}" || exit 1
fi
exec 2>&1 </dev/null
printf '%s' "${head}"
echo "# Slurm job ${SLURM_JOB_ID} on $(hostname), started at $(LC_ALL=C date)"
echo "#"
SECONDS=0
bash -c "set -o pipefail
${command}"
code=$?
echo "# Accounting: time=${SECONDS} threads=THREADS"
echo "# Ended (code ${code}) at $(LC_ALL=C date), elapsed time ${SECONDS} seconds"
echo "${code}" >"${done}.part" && mv "${done}.part" "${done}"
exit "${code}"
"""


@dataclasses.dataclass
class Settings:
    """What launcher options mean on a cluster: ``rules[option][value or "*"]`` are arguments of ``command``."""

    command: list[str]
    rules: dict[str, dict[str, str]]
    defaults: dict[str, str]

    def arguments(self, options: dict[str, str]) -> list[str]:
        """Arguments of sbatch for these options.

        Raises:
            UsageError: there is no rule for one.
        """
        found: list[str] = []
        missing: list[str] = []
        for name, value in {**self.defaults, **options}.items():
            if name in ("config", "max_jobs_run") and name not in self.rules:
                continue
            rule = self.rules.get(name, {})
            text = rule.get(value, rule.get("*"))
            if text is None:
                missing.append(f"no rule for --{name} {value}; add `option {name}=* ...` to {CONFIG}")
            else:
                found += [word.replace("$0", value) for word in shlex.split(text)]
        if missing:
            raise UsageError(missing)
        return found


def read_settings(text: str, source: str, base: Settings | None = None) -> Settings:
    """Parse a config; what it says about an option replaces all that ``base`` says about it.

    Raises:
        UsageError: lines that cannot be read, each with its number.
    """
    command: list[str] | None = None
    own: dict[str, dict[str, str]] = {}
    defaults: dict[str, str] = {}
    faults: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].strip()
        kind, _, rest = line.partition(" ")
        match = re.match(r"([\w-]+)=(\S+)\s*(.*)$", rest.strip())
        if kind == "command" and rest.strip():
            command = shlex.split(rest)
        elif match and kind == "option":
            own.setdefault(match[1].replace("-", "_"), {})[match[2]] = match[3]
        elif match and kind == "default" and not match[3]:
            defaults[match[1].replace("-", "_")] = match[2]
        elif line:
            faults.append(
                f"{source}:{number}: {line!r} is none of `command ...`, `option NAME=VALUE ...`, `default ...`"
            )
    if faults:
        raise UsageError(faults)
    old = base or Settings(["sbatch"], {}, {})
    return Settings(command or old.command, {**old.rules, **own}, {**old.defaults, **defaults})


def settings_of(argv: list[str]) -> Settings:
    """Built-in rules, and those of ``--config`` or of conf/slurm.conf."""
    base = read_settings(RULES, "slurm.py")
    given, rest = None, argv
    while len(rest) > 1 and rest[0].startswith("-"):  # up to the log: the command may have a --config of its own
        given, rest = Path(rest[1]) if rest[0] == "--config" else given, rest[2:]
    path = given or CONFIG
    if given is None and not path.is_file():
        return base
    try:
        return read_settings(path.read_text(encoding="utf-8"), str(path), base)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None


@dataclasses.dataclass
class Place:
    """Files of one submission, in a folder ``slurm`` beside its logs."""

    folder: Path
    stem: str

    @classmethod
    def of(cls, request: Request) -> Place:
        """Beside the logs, above what the job's number is part of."""
        folder = Path(request.log).absolute().parent
        while request.job is not None and request.job in str(folder):
            folder = folder.parent
        return cls(folder / "slurm", Path(request.log).name)

    def file(self, kind: str) -> Path:
        """The submission's ``sh`` (script), ``id`` (Slurm's), ``out`` (of sbatch itself), ``done.<n>`` (exit code)."""
        return self.folder / f"{self.stem}.{kind}"

    def codes(self) -> dict[int, int]:
        """Exit codes of the jobs that have ended. The folder is listed: a file system asks its server only then."""
        found = {}
        for path in self.folder.iterdir():
            if path.name.startswith(f"{self.stem}.done.") and path.suffix != ".part":
                text = path.read_text().strip()
                if text:
                    found[int(path.suffix[1:])] = int(text)
        return found

    def clear(self) -> None:
        """Remove what an earlier submission left."""
        for path in self.folder.glob(f"{glob.escape(self.stem)}.*"):
            path.unlink()


def batch_script(request: Request, place: Place) -> str:
    """The script for sbatch: the array's task number chooses log and command."""
    cases = []
    for number in request.numbers:
        log, command = request.of(number)
        values = {"log": log, "head": log_head(command), "command": command, "done": place.file(f"done.{number}")}
        cases.append(f"{number}) " + " ".join(f"{name}={shlex.quote(str(v))}" for name, v in values.items()) + " ;;")
    filled = {
        "FOLDER": shlex.quote(os.getcwd()),
        "FIRST": str(request.first),
        "CASES": "\n".join(cases),
        "THREADS": str(request.number("num_threads", 1)),
    }
    return re.sub("FOLDER|FIRST|CASES|THREADS", lambda m: filled[m[0]], SCRIPT)


class Stopped(Exception):
    """A signal arrived."""


class Submission:
    """One job array, from sbatch to the last of its jobs."""

    def __init__(self, request: Request, settings: Settings) -> None:
        self.request = request
        self.settings = settings
        self.place = Place.of(request)
        self.codes: dict[int, int] = {}
        self.dead: dict[int, str] = {}  # number -> Slurm's word for it
        self.job_id = ""

    def run(self) -> int:
        """Submit and wait; returns the exit status.

        Raises:
            LegoNNError: an earlier submission still runs, or sbatch refused this one.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP: keep it so
                signal.signal(number, self._on_signal)
        self._refuse_a_second()
        try:
            self._submit()
            self._wait()
        except Stopped as stop:
            self._cancel()
            number = stop.args[0]
            print(f"slurm.pl: stopped by signal {number}, job {self.job_id} cancelled", file=sys.stderr)
            return 128 + int(number)
        self.place.file("id").unlink(missing_ok=True)
        return self._report()

    def _on_signal(self, number: int, _frame: object) -> None:
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    def _refuse_a_second(self) -> None:
        """Two jobs must not write the same files: the first may live on after its launcher was killed."""
        if not self.place.file("id").is_file():
            return
        old = self.place.file("id").read_text().strip()
        if any(state not in DEAD | ENDED for state in (states(old) or {}).values()):
            raise LegoNNError(
                f"Slurm job {old} of an earlier run still writes {self.request.log}; wait for it, or `scancel {old}`"
            )

    def _submit(self) -> None:
        arguments = self.settings.arguments(self.request.options)
        self.place.folder.mkdir(parents=True, exist_ok=True)
        self.place.clear()
        for number in self.request.numbers:
            self.request.of(number)[0].parent.mkdir(parents=True, exist_ok=True)
        with atomic_text(self.place.file("sh")) as stream:
            stream.write(batch_script(self.request, self.place))
        output = "out.%a" if self.request.job else "out"
        command = [*self.settings.command, *arguments, "--parsable", "--output", str(self.place.file(output))]
        if self.request.job is not None:
            most = self.request.number("max_jobs_run", 0)
            tasks = f"{self.request.first}-{self.request.last}" + (f"%{most}" if most else "")
            command += ["--array", tasks]
        # A launcher that itself runs inside a job must not hand on what that job was given.
        kept = ("SLURM_CONF", "SLURM_CLUSTERS")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k in kept}
        done = subprocess.run(
            [*command, str(self.place.file("sh"))], env=environment, capture_output=True, text=True, check=False
        )
        sys.stderr.write(done.stderr)
        if done.returncode:
            raise LegoNNError(f"sbatch refused the job (exit status {done.returncode}): {shlex.join(command)}")
        self.job_id = done.stdout.strip().splitlines()[-1].split(";")[0]
        self.place.file("id").write_text(f"{self.job_id}\n")
        print(f"slurm.pl: Slurm job {self.job_id}: {self.request.log}", file=sys.stderr)

    def _wait(self) -> None:
        missing_since: dict[int, float] = {}
        sleep, between, asked = 0.1, 1.0, time.monotonic()
        while True:
            self.codes = self.place.codes()
            left = [n for n in self.request.numbers if n not in self.codes and n not in self.dead]
            if not left:
                return
            time.sleep(sleep)
            sleep = min(sleep * 1.3, LONGEST_SLEEP)
            if time.monotonic() - asked < between:
                continue
            known = states(self.job_id)
            asked, between = time.monotonic(), min(between * 1.5, LONGEST_BETWEEN_QUESTIONS)
            if known is not None:
                self._bury(left, known, missing_since)

    def _bury(self, left: Iterable[int], known: dict[int | None, str], missing_since: dict[int, float]) -> None:
        """Note jobs that ended without a last word."""
        for number in left:
            state = known.get(number, known.get(None, "gone"))
            if state not in DEAD | ENDED | {"gone"}:
                missing_since.pop(number, None)
                continue
            since = missing_since.setdefault(number, time.monotonic())
            if (state in DEAD or time.monotonic() - since > GRACE_SECONDS) and number not in self.place.codes():
                self.dead[number] = state
                log = self.request.of(number)[0]
                if log.is_file():
                    with log.open("a", encoding="utf-8") as stream:
                        stream.write(f"# Ended (Slurm: {state}) at {date()}\n")

    def _cancel(self) -> None:
        if not self.job_id:
            return
        subprocess.run(["scancel", self.job_id], check=False)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            known = states(self.job_id)
            if known is not None and all(state in DEAD | ENDED for state in known.values()):
                return
            time.sleep(0.5)

    def _report(self) -> int:
        failed = sorted({n for n, code in self.codes.items() if code} | set(self.dead))
        if not failed:
            return 0
        log = self.request.of(failed[0])[0]
        output = self.place.file(f"out.{failed[0]}" if self.request.job else "out")
        for state in sorted(set(self.dead.values())):
            numbers = [str(n) for n in sorted(self.dead) if self.dead[n] == state]
            print(f"slurm.pl: Slurm says {state} of job {' '.join(numbers)}", file=sys.stderr)
        self.request.report("slurm.pl", failed, log if log.is_file() else output)
        return 1


def states(job_id: str) -> dict[int | None, str] | None:
    """State of each job of an array (of number None where there is no array); None if Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%K %T", "--jobs", job_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {} if "Invalid job id" in done.stderr else None
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    return {int(task) if task.isdigit() else None: state for task, state in rows}


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    if argv[:1] in (["-h"], ["--help"]):
        print((__doc__ or "").format(rules="".join(f"  {line}\n" for line in RULES.splitlines())))
        return 0
    try:
        settings = settings_of(argv)
        request = parse(argv, more=settings.rules)
        settings.arguments(request.options)
        if shutil.which(settings.command[0]) is None:
            raise UsageError(f"{settings.command[0]} is not on PATH: is this a machine of the cluster?")
    except UsageError as error:
        print(f"slurm.pl: {error}\nslurm.pl: --help shows the usage", file=sys.stderr)
        return 2
    try:
        return Submission(request, settings).run()
    except (LegoNNError, OSError) as error:
        print(f"slurm.pl: {error}", file=sys.stderr)
        return 1
