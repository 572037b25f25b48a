"""run.pl with real jobs, parse_options.sh by Kaldi's rules, path.sh, cmd.sh and db.sh."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).resolve().parents[2] / "egs2" / "TEMPLATE" / "legonn1"
RUN = TEMPLATE / "run.pl"


def run(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), *args]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)


def bash(cwd: Path, script: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", script, "./recipe.sh", *args]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | env
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=60, check=False)


# ---- run.pl


def test_is_executable_on_its_own(tmp_path: Path) -> None:
    assert os.access(RUN, os.X_OK)
    assert RUN.read_text().startswith("#!/usr/bin/env python3\n")


def test_one_job_and_its_log(tmp_path: Path) -> None:
    done = run(tmp_path, "--gpu", "0", "--mem", "4G", "--name", "n", "--time", "1:0:0", "deep/a.log", "echo", "hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = (tmp_path / "deep" / "a.log").read_text().splitlines()
    assert lines[0] == "# echo hi" and lines[1].startswith("# Started at ")
    assert "hi" in lines
    assert lines[-2] == "# Accounting: time=0 threads=1"
    assert lines[-1].startswith("# Ended (code 0) at ") and lines[-1].endswith("elapsed time 0 seconds")


def test_job_is_replaced_in_log_and_arguments(tmp_path: Path) -> None:
    done = run(tmp_path, "JOB=2:4", "log.JOB", "echo", "part JOB of keys.JOB.scp", ">", "out.JOB")
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"out.{n}").read_text() for n in (2, 3, 4)] == [
        f"part {n} of keys.{n}.scp\n" for n in (2, 3, 4)
    ]
    assert sorted(p.name for p in tmp_path.glob("log.*")) == ["log.2", "log.3", "log.4"]
    assert run(tmp_path, "N=7", "x.N.log", "echo", "N").returncode == 0
    assert "\n7\n" in (tmp_path / "x.7.log").read_text()


def test_arguments_arrive_as_given(tmp_path: Path) -> None:
    odd = ["<unk>", "a(b)", "$HOME", "it's", 'say "x"', "*", "", "a b", "a;b", "x|y", "--opt=1", "a\nb"]
    code = "import sys, json; json.dump(sys.argv[1:], open('got.json', 'w'))"
    assert run(tmp_path, "x.log", sys.executable, "-c", code, *odd).returncode == 0
    assert json.loads((tmp_path / "got.json").read_text()) == odd


def test_operators_work_and_a_broken_pipe_part_fails(tmp_path: Path) -> None:
    assert run(tmp_path, "x.log", "echo", "a", "|", "tr", "a", "b", ">", "out").returncode == 0
    assert (tmp_path / "out").read_text() == "b\n"
    assert run(tmp_path, "x.log", "false", "|", "cat").returncode == 1
    assert run(tmp_path, "x.log", "echo", "a", "&&", "echo", "b", ">>", "out", "2>&1").returncode == 0


def test_failures_are_counted_and_shown(tmp_path: Path) -> None:
    script = "echo working on JOB; if [ JOB -gt 1 ]; then echo the reason JOB >&2; exit 3; fi"
    done = run(tmp_path, "JOB=1:3", "j.JOB.log", "bash", "-c", script)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "run.pl: 2 / 3 failed, log is in j.JOB.log"
    assert "the reason 2" in done.stderr and "# Ended (code 3)" in done.stderr
    assert "# Ended (code 0)" in (tmp_path / "j.1.log").read_text()
    done = run(tmp_path, "one.log", "no-such-command")
    assert "run.pl: 1 / 1 failed, log is in one.log" in done.stderr and "no-such-command" in done.stderr
    assert "# Ended (code 127)" in (tmp_path / "one.log").read_text()


def test_output_on_the_terminal_too(tmp_path: Path) -> None:
    done = run(tmp_path, "--show", "1", "JOB=1:2", "x.JOB.log", "echo", "said JOB")
    assert done.returncode == 0 and sorted(done.stdout.split("\n"))[1:] == ["said 1", "said 2"]
    assert "\nsaid 2\n# Accounting" in (tmp_path / "x.2.log").read_text()
    assert run(tmp_path, "--show", "1", "x.log", "false").returncode == 1


def test_a_second_run_replaces_the_log(tmp_path: Path) -> None:
    run(tmp_path, "x.log", "echo", "first")
    run(tmp_path, "x.log", "echo", "second")
    assert "first" not in (tmp_path / "x.log").read_text()


def test_jobs_run_in_parallel_within_the_limit(tmp_path: Path) -> None:
    # Every job notes how many are running: the largest note is the limit. The first wait until three have begun (or
    # until the test gives up), so that a slow machine starts no job after another has ended.
    wait = "touch run.JOB begun.JOB; for n in {1..400}; do [ $(ls begun.* | wc -l) -ge 3 ] && break; sleep 0.05; done; "
    script = "ls run.* | wc -l > seen.JOB; rm run.JOB"
    assert run(tmp_path, "--max-jobs-run", "3", "JOB=1:6", "l.JOB", "bash", "-c", wait + script).returncode == 0
    assert max(int(p.read_text()) for p in tmp_path.glob("seen.*")) == 3
    script = f"touch run.JOB; sleep 0.3; {script}"
    assert run(tmp_path, "--max_jobs_run", "1", "JOB=1:2", "l.JOB", "bash", "-c", script).returncode == 0
    assert [int((tmp_path / f"seen.{n}").read_text()) for n in (1, 2)] == [1, 1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--gpus", "1", "x.log", "true"], "unknown option --gpus; known: --config --gpu"),
        (["--gpu"], "--gpu needs a value"),
        (["--gpu", "one", "x.log", "true"], "--gpu needs a number, got 'one'"),
        (["--num_nodes", "2", "x.log", "true"], "this machine is one node; use a batch system (cmd.sh)"),
        (["JOB=0:3", "x.JOB.log", "true"], "bad job range JOB=0:3"),
        (["JOB=3:2", "x.JOB.log", "true"], "bad job range JOB=3:2"),
        (["JOB=1:3", "x.log", "true"], "3 jobs would write one log, x.log; put JOB into its name"),
        (["x.log"], "give a log file and a command"),
        ([], "give a log file and a command"),
    ],
)
def test_wrong_usage(tmp_path: Path, args: list[str], message: str) -> None:
    done = run(tmp_path, *args)
    assert done.returncode == 2 and f"run.pl: {message}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_unwritable_log(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path, "file/x.log", "true")
    assert done.returncode == 1 and done.stderr.startswith("run.pl: ") and "Traceback" not in done.stderr


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_jobs(tmp_path: Path, number: int) -> None:
    # A job with a child of its own: both must go.
    script = "sleep 60 & echo $! > child.JOB.new; mv child.JOB.new child.JOB; wait"
    command = [sys.executable, str(RUN), "--max-jobs-run", "2", "JOB=1:3", "l.JOB", "bash", "-c", script]
    # Jobs in the background of a script inherit SIGINT as ignored; a person's terminal does not ignore it.
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.time() + 20
    while len(list(tmp_path.glob("child.[12]"))) < 2 and time.time() < deadline:
        time.sleep(0.02)
    children = [int(p.read_text()) for p in tmp_path.glob("child.[12]")]
    assert len(children) == 2
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert f"run.pl: stopped by signal {int(number)}, all jobs ended" in error
    assert not any(map(alive, children))
    assert "# Ended (code 143)" in (tmp_path / "l.1").read_text()
    assert not (tmp_path / "l.3").exists(), "no new job is started"


@pytest.mark.skipif(importlib.util.find_spec("espnet2") is None, reason="espnet is not installed")
def test_espnets_launch(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "espnet2.bin.launch", "--cmd", "run.pl --name train", "--log", "exp/train.log"]
    command += ["--ngpu", "0", "--num_nodes", "1", "--init_file_prefix", "exp/.dist_init_"]
    command += ["--multiprocessing_distributed", "true", "--", "echo", "trained", "<unk>"]
    env = {**os.environ, "PATH": f"{TEMPLATE}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "exp" / "train.log").read_text()
    assert "trained <unk> --ngpu 0 --multiprocessing_distributed True" in log and "# Ended (code 0)" in log
    command[command.index("echo")] = "false"
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "run.pl: 1 / 1 failed, log is in exp/train.log" in done.stderr
    assert (tmp_path / "exp" / "train.1.log").exists(), "launch rotates logs"


# ---- parse_options.sh

OPTIONS = f"""
set -euo pipefail
stage=1; skip_train=false; asr_args=; help_message="Usage: $0
 100% help"
. {TEMPLATE}/parse_options.sh
echo "stage=$stage skip_train=$skip_train asr_args=[$asr_args] rest=[$*]"
"""


@pytest.mark.parametrize(
    ("args", "printed"),
    [
        ([], "stage=1 skip_train=false asr_args=[] rest=[]"),
        (["--stage", "3", "--skip-train", "true"], "stage=3 skip_train=true asr_args=[] rest=[]"),
        (["--skip_train", "true", "a", "--stage", "9"], "stage=1 skip_train=true asr_args=[] rest=[a --stage 9]"),
        (["--asr_args", '--lr=1 "$HOME" `x`'], 'stage=1 skip_train=false asr_args=[--lr=1 "$HOME" `x`] rest=[]'),
        (["--stage", "", "--stage", "4"], "stage=4 skip_train=false asr_args=[] rest=[]"),
    ],
)
def test_options(tmp_path: Path, args: list[str], printed: str) -> None:
    done = bash(tmp_path, OPTIONS, *args)
    assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stage=3"], "write '--stage 3' instead of '--stage=3'"),
        (["--stag", "3"], "unknown option --stag"),
        (["--"], "unknown option --"),
        (["--sta ge", "1"], "unknown option --sta ge"),
        (["--stage"], "option --stage needs a value"),
        (["--skip_train", "yes"], "option --skip_train accepts true or false, not 'yes'"),
        (["--config", "nowhere.conf"], "--config nowhere.conf: no such file"),
        (["--config"], "option --config needs a file"),
    ],
)
def test_option_faults(tmp_path: Path, args: list[str], message: str) -> None:
    done = bash(tmp_path, OPTIONS, *args)
    assert done.returncode == 1 and done.stdout == ""
    assert f"./recipe.sh: {message}" in done.stderr and "run with --help" in done.stderr


def test_config_is_sourced_first_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "my.conf").write_text("stage=5\nskip_train=true\n")
    done = bash(tmp_path, OPTIONS, "--stage", "6", "--config", "my.conf")
    assert done.stdout.strip() == "stage=6 skip_train=true asr_args=[] rest=[]", done.stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(tmp_path: Path, flag: str) -> None:
    done = bash(tmp_path, OPTIONS, "--stage", "2", flag)
    assert (done.returncode, done.stdout) == (0, "Usage: ./recipe.sh\n 100% help\n")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    script = f"set -u; stage=1; . {TEMPLATE}/parse_options.sh; set | grep -c ^_po_ || true; declare -F"
    assert bash(tmp_path, script, "--stage", "2").stdout.strip() == "0"


# ---- path.sh, cmd.sh, db.sh


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A repository of its own with the template and one recipe that links path.sh."""
    template = tmp_path / "repo" / "egs2" / "TEMPLATE" / "legonn1"
    shutil.copytree(TEMPLATE, template)
    recipe = tmp_path / "repo" / "egs2" / "mini" / "legonn1"
    recipe.mkdir(parents=True)
    for name in ("path.sh", "cmd.sh", "db.sh"):
        (recipe / name).symlink_to(f"../../TEMPLATE/legonn1/{name}")
    return recipe


def fake_python(folder: Path, found: bool) -> str:
    """A PATH whose python3 answers whether the package is installed."""
    folder.mkdir()
    (folder / "python3").write_text(f"#!/bin/sh\nexit {0 if found else 1}\n")
    (folder / "python3").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("copied", [False, True])
def test_path(recipe: Path, tmp_path: Path, copied: bool) -> None:
    root = tmp_path / "repo"
    if copied:
        (recipe / "path.sh").unlink()
        shutil.copy(TEMPLATE / "path.sh", recipe)
    script = "set -euo pipefail; . ./path.sh; command -v run.pl; "
    script += "echo $PYTHONPATH $OMP_NUM_THREADS $PYTHONIOENCODING $LC_ALL"
    done = bash(recipe, script, PATH=fake_python(tmp_path / "bin", found=False), OMP_NUM_THREADS="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{root}/egs2/TEMPLATE/legonn1/run.pl", f"{root} 3 UTF-8 C"]


def test_path_with_the_package_installed_and_local_additions(recipe: Path, tmp_path: Path) -> None:
    (recipe / "local").mkdir()
    (recipe / "local" / "path.sh").write_text("export LC_ALL=C.UTF-8\n")
    done = bash(
        recipe,
        "set -eu; . ./path.sh; echo [${PYTHONPATH:-}] $OMP_NUM_THREADS $LC_ALL",
        PATH=fake_python(tmp_path / "bin", found=True),
        OMP_NUM_THREADS="",
    )
    assert done.stdout.strip() == "[] 1 C.UTF-8", done.stderr


def test_path_activates_the_repositorys_environment_unless_one_is_active(recipe: Path, tmp_path: Path) -> None:
    activate = tmp_path / "repo" / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("export VIRTUAL_ENV=own\n")
    assert bash(recipe, "set -eu; . ./path.sh; echo $VIRTUAL_ENV").stdout.strip() == "own"
    assert bash(recipe, "set -eu; . ./path.sh; echo $VIRTUAL_ENV", VIRTUAL_ENV="mine").stdout.strip() == "mine"


def test_cmd(recipe: Path, tmp_path: Path) -> None:
    show = "set -eu; . ./path.sh; . ./cmd.sh; echo $train_cmd $cuda_cmd $decode_cmd"
    assert bash(recipe, show).stdout.strip() == "run.pl run.pl run.pl"
    assert bash(recipe, show, cmd_backend="stdout").stdout.splitlines() == ["run.pl --show 1 " * 2 + "run.pl --show 1"]
    (tmp_path / "bin").mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = bash(recipe, show, cmd_backend="sge")
    assert done.returncode == 1 and "queue.pl of cmd_backend=sge is not on PATH" in done.stderr
    for name in ("queue.pl", "sbatch"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    done = bash(recipe, show, cmd_backend="sge", PATH=path)
    assert done.stdout.strip() == "queue.pl queue.pl queue.pl", done.stderr
    done = bash(recipe, show, cmd_backend="slurm", PATH=path, train_cmd_opts="--mem 4G", decode_cmd_opts="--time 1:0:0")
    assert done.stdout.strip() == "slurm.pl --mem 4G slurm.pl slurm.pl --time 1:0:0", done.stderr
    bare = "set -eu; . ./path.sh; PATH=$MAIN_ROOT/egs2/TEMPLATE/legonn1; . ./cmd.sh"
    done = bash(recipe, bare, cmd_backend="slurm")
    assert done.returncode == 1 and "cmd_backend=slurm, but sbatch is not on PATH" in done.stderr
    done = bash(recipe, show, cmd_backend="lsf")
    assert done.returncode == 1 and "unknown cmd_backend=lsf; choose local, stdout" in done.stderr


def test_db_lets_the_environment_win(recipe: Path) -> None:
    done = bash(recipe, "set -eu; . ./db.sh; echo [$AN4] [$MULTI30K] [$EUROPARL_ST]", AN4="/data/an4", MULTI30K="")
    assert done.stdout.strip() == "[/data/an4] [] []", done.stderr
