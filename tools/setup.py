#!/usr/bin/env python3
"""Make the project's own environment: `.venv` at the repository root, versions from constraints.txt.

Usage: python3 tools/setup.py          (or `make setup`; any Python 3.10-3.12, standard library only)
  PIP_ARGS   extra arguments for every pip call, e.g. the index of a CPU-only torch

A finished environment carries a stamp, so a second run costs a fraction of a second. Every pip from 23.0
to the newest installs the same packages, whose files must have the hashes of constraints.txt (tools/hashes.py
writes them); UNHASHED says which need none, SKIPPED which of ESPnet's requirements are left out and why.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OWNED = VENV / ".legonn-venv"  # we made this folder, so we may remake it
STAMP = VENV / ".legonn-ready"  # everything is installed, for this hash of the inputs
LOG = VENV / "setup.log"
PINS = VENV / "pins.txt"  # constraints.txt without hashes
CONSTRAINTS = ROOT / "constraints.txt"
INPUTS = (CONSTRAINTS, ROOT / "setup.py", ROOT / "pyproject.toml", Path(__file__).resolve())

# ESPnet requirements that are not installed; `pip check` may complain of these and of nothing else.
SKIPPED = {
    "ci-sdr": "an extra of it names git addresses, which the newest pip refuses; for speech enhancement",
    "pyworld": "it has no wheels and wants a C++ compiler; for text-to-speech",
}

# From the index that fits the user's GPU, whose files differ from the public index's.
UNHASHED = {
    "torch": "its CPU-only and CUDA builds have one version and many files",
    "torchaudio": "as torch",
}

REMEDIES = (
    ("No space left on device", "free about 10 GB on this disk, then run the same command again"),
    ("NewConnectionError", "pip cannot reach its package index: check the network and pip's proxy settings"),
    ("timed out", "the package index answers too slowly: run the same command again later"),
    ("Could not find a version", "the index lacks a pinned version: check PIP_ARGS and pip's own settings"),
    ("ResolutionImpossible", "the index lacks a pinned version: check PIP_ARGS and pip's own settings"),
    ("DO NOT MATCH", "a file differs from the one constraints.txt names: another index? a proxy that rewrites?"),
    ("Permission denied", "this user may not write there: check who owns the repository folder"),
)


class SetupFailed(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def main() -> int:
    """Set up unless the stamp says that it is done; returns the exit status."""
    try:
        if not (3, 10) <= sys.version_info[:2] <= (3, 12):
            raise SetupFailed(
                f"Python {sys.version.split()[0]} is not supported, 3.10, 3.11 or 3.12 is: "
                "name one with PYTHON, e.g. `make setup PYTHON=python3.11`"
            )
        with open(ROOT / ".setup.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once: the second waits and finds it done
            if is_ready():
                return 0
            return install()
    except SetupFailed as failure:
        print(f"\nset-up failed: {failure}", file=sys.stderr)
        return 1


def fingerprint() -> str:
    """Hash of all that decides what .venv holds; its place counts, because scripts in .venv carry it."""
    parts = [path.read_bytes() for path in INPUTS]
    parts += [sys.version.encode(), str(ROOT).encode(), os.environ.get("PIP_ARGS", "").encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_ready() -> bool:
    """Whether .venv was finished from these very inputs and its Python still starts."""
    if not STAMP.is_file() or STAMP.read_text().strip() != fingerprint():
        return False
    try:
        return subprocess.run([PYTHON, "-c", ""], stdin=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def install() -> int:
    """Make .venv anew and fill it; the stamp is written last."""
    started = time.monotonic()
    print(f"setting up {VENV} with Python {sys.version.split()[0]} (a few minutes, once)", flush=True)
    make_venv()
    pins = read_pins()[1]
    PINS.write_text("".join(f"{pin.line}\n" for pin in pins))
    tools = {"setuptools", "wheel", "packaging"}
    hashed = [pin for pin in pins if pin.hashes]
    step("1/4 build tools", only("tools", [pin for pin in hashed if pin.name in tools]))
    step("2/4 this package", ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    step("3/4 the libraries", only("libraries", [pin for pin in hashed if pin.name not in tools]))
    with compiling():  # the libraries, while pip unpacks torch
        step("3/4 torch", ["--no-compile", *(pin.line for pin in pins if pin.name in UNHASHED)])
    compile_all()
    check()
    part = STAMP.with_suffix(".part")
    part.write_text(fingerprint() + "\n")
    os.replace(part, STAMP)
    print(f"set up in {time.monotonic() - started:.0f} s; log: {LOG}", flush=True)
    return 0


def make_venv() -> None:
    """An empty .venv; a .venv that somebody else made is never touched."""
    if VENV.exists():
        if not OWNED.exists():
            raise SetupFailed(f"{VENV} was not made by tools/setup.py: move or remove it and run this again")
        shutil.rmtree(VENV)
    VENV.mkdir()
    OWNED.write_text("made by tools/setup.py, which may remove this folder and make it again\n")
    # Not sys.executable: with .venv activated that is the very file just removed.
    base = getattr(sys, "_base_executable", sys.executable)
    made = subprocess.run(
        [base, "-m", "venv", str(VENV)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if made.returncode != 0:
        raise SetupFailed(
            f"{base} cannot make a virtual environment:\n{made.stdout}{made.stderr}"
            "install Python's venv module (Debian and Ubuntu: the package python3-venv), then run this again"
        )


@dataclass(frozen=True)
class Pin:
    """One version of constraints.txt: its requirement line and the hashes of its files (`sha256:...`)."""

    line: str
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The package."""
        return self.line.split("==")[0]


def read_pins() -> tuple[list[str], list[Pin]]:
    """The comments that constraints.txt begins with, and its pins."""
    head: list[str] = []
    pins: list[Pin] = []
    for line in CONSTRAINTS.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("#"):
            head.append(line)
        elif line.strip():
            requirement, *found = line.split(" --hash=")
            pins.append(Pin(requirement.strip(), tuple(h.strip() for h in found)))
    return head, pins


def only(name: str, pins: list[Pin]) -> list[str]:
    """pip's words to install these pins, from files with these hashes, and nothing besides."""
    path = VENV / f"hashed-{name}.txt"
    path.write_text("".join(" ".join([p.line, *(f"--hash={h}" for h in p.hashes)]) + "\n" for p in pins))
    return ["--no-deps", "--no-compile", "--require-hashes", "--requirement", str(path)]


def pip_environment() -> dict[str, str]:
    """Environment of pip: constraints for what is installed and for builds of packages without wheels."""
    env = dict(os.environ, PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONUNBUFFERED="1")
    env["PIP_CONSTRAINT"] = str(PINS)  # old pips pass it on to builds
    env["PIP_BUILD_CONSTRAINT"] = str(PINS)  # new pips want to be told, old ones ignore it
    return env


def step(title: str, arguments: list[str]) -> None:
    """Run pip, show that it moves, keep its words in the log; raises SetupFailed with the last of them."""
    command = [str(PYTHON), "-m", "pip", "install", *arguments, *shlex.split(os.environ.get("PIP_ARGS", ""))]
    started, shown, last = time.monotonic(), 0.0, "starting"
    lines: queue.Queue[str | None] = queue.Queue()
    said: list[str] = []
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env=pip_environment(), cwd=ROOT,
    )  # fmt: skip
    threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
    with open(LOG, "a") as log:
        print("$", shlex.join(command), file=log)
        while True:
            try:
                line = lines.get(timeout=1)
            except queue.Empty:
                line = ""
            if line is None:
                break
            if line:
                log.write(line)
                said.append(line.rstrip())
                last = _headline(line) or last
            shown = _show(title, last, started, shown)
    if process.wait() != 0:
        raise SetupFailed(explain(title, said))
    _show(title, "done", started, 0.0, final=True)


def _pump(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _headline(line: str) -> str:
    """The part of a line of pip's that tells a person where it is; '' when the line tells nothing."""
    words = line.split()
    if len(words) > 1 and words[0] in ("Collecting", "Downloading", "Building"):
        return f"{words[0].lower()} {words[1].rsplit('/', 1)[-1]}"
    return "installing (the longest part)" if line.startswith("Installing collected") else ""


def _show(title: str, last: str, started: float, shown: float, final: bool = False) -> float:
    """One moving line on a terminal, else a line every 15 s; returns when something was last shown."""
    now = time.monotonic()
    live = sys.stdout.isatty()
    if not final and now - max(shown, started) < (0.2 if live else 15):
        return shown
    text = f"[{title}] {now - started:4.0f} s  {last}"
    print(f"\r{text[:100]:<100}" if live else text, end="" if live and not final else "\n", flush=True)
    return now


def explain(title: str, said: list[str]) -> str:
    """The end of pip's output, the log's place and what to do."""
    tail = said[-25:]
    remedy = next((advice for sign, advice in REMEDIES if any(sign in line for line in said)), None)
    remedy = remedy or "read the lines above; `make setup` starts afresh once the cause is gone"
    head = f"pip stopped at [{title}]. Its last lines:"
    return "\n".join([head, *tail, f"full log: {LOG}", f"what to do: {remedy}"])


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Bytecode for what is installed so far, in the background; pip's own compiling uses one core."""
    # Tests, and parts of torch that make code for GPUs, are compiled when somebody imports them. Some libraries carry
    # templates and Python 2 files that do not compile; nobody imports those.
    words = ["-m", "compileall", "-q", "-j", "0", "-x", r"/(tests?|testing|_inductor)/", str(VENV / "lib")]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen([str(PYTHON), *words], stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        yield
        process.wait()
    finally:
        process.kill()
        process.wait()


def compile_all() -> None:
    """Bytecode for all that has none yet."""
    started = time.monotonic()
    with compiling():
        pass
    _show("4/4 compile", "done", started, 0.0, final=True)


def check() -> None:
    """All requirements met but SKIPPED, and the packages that matter import; raises SetupFailed otherwise."""
    started = time.monotonic()
    met = subprocess.run(
        [PYTHON, "-m", "pip", "check"], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT
    )
    excused = tuple(f" requires {name}, which is not installed" for name in SKIPPED)
    complaints = [line for line in met.stdout.splitlines() if met.returncode != 0]
    wrong = [line for line in complaints if not any(e in line.replace("_", "-") for e in excused)]
    if wrong:
        raise SetupFailed("\n".join(["constraints.txt does not fit together:", *wrong]))
    code = "import torch, torchaudio, sentencepiece, soundfile, espnet2, espnet2_legonn"
    tried = subprocess.run(
        [PYTHON, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=VENV
    )
    if tried.returncode != 0:
        raise SetupFailed(f"`{code}` fails in {VENV}:\n{tried.stderr}")
    _show("4/4 check", "all fits together", started, 0.0, final=True)


if __name__ == "__main__":
    sys.exit(main())
