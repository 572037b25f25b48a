"""A recipe that is killed takes along what it started: no training goes on behind anybody's back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.recipes.test_launcher import alive

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs2" / "mini_legonn" / "legonn1"
STAGE = """
import sys
from espnet2_legonn.recipes.jobs import call
sys.exit(call(["bash", "-c", "run.pl training.log bash -c 'echo $$ > new; mv new pid; sleep 60'"]))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """As recipes are: run.sh calls a script of stages, which calls Python, which calls the launcher, and so on."""
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "path.sh").write_text(f". {RECIPE}/path.sh\n")
    (tmp_path / "legonn.sh").write_text("set -euo pipefail\n{\n. ./path.sh\npython3 stage.py\necho next\nexit\n}\n")
    (tmp_path / "run.sh").write_text("set -euo pipefail\n. ./path.sh\nbash legonn.sh\necho next\n")
    return tmp_path


def started(recipe: Path, *command: str) -> tuple[subprocess.Popen[str], int]:
    """The running recipe, and the process of its training."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VIRTUAL_ENV": sys.prefix}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    process = subprocess.Popen(
        command, cwd=recipe, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
    )  # fmt: skip
    deadline = time.time() + 120
    while not (recipe / "pid").exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    assert (recipe / "pid").exists(), process.communicate(timeout=20)[0]
    return process, int((recipe / "pid").read_text())


def ended(pid: int) -> bool:
    deadline = time.time() + 30
    while alive(pid) and time.time() < deadline:
        time.sleep(0.05)
    return not alive(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_killed_run_sh_leaves_no_training(recipe: Path, number: int) -> None:
    process, training = started(recipe, "bash", "run.sh")
    process.send_signal(number)  # to the script alone, as `kill` does
    assert ended(training)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == -number and "next" not in said, said


def test_a_killed_stage_leaves_no_training(recipe: Path) -> None:
    process, training = started(recipe, "bash", "-c", ". ./path.sh; exec python3 stage.py")
    process.send_signal(signal.SIGTERM)
    assert ended(training)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_what_runs_in_the_background_stays(recipe: Path) -> None:
    """A script that starts something and ends has not been killed."""
    (recipe / "run.sh").write_text(". ./path.sh\nsleep 60 > /dev/null 2>&1 &\necho $! > pid\n")
    done = subprocess.run(["bash", "run.sh"], cwd=recipe, capture_output=True, text=True, check=False)
    pid = int((recipe / "pid").read_text())
    assert done.returncode == 0 and alive(pid), done.stderr
    os.kill(pid, signal.SIGTERM)
