"""A recipe on a real Slurm: `make test-slurm` starts one for these tests (tools/slurm_local.sh)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tests.train.toys import FS, MODULES, Corpus, config

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "egs2" / "TEMPLATE" / "legonn1"
pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]
LIMIT = 500  # seconds until a command counts as hung: a node may have gone


@pytest.fixture(scope="module", autouse=True)
def nodes() -> int:
    """Number of nodes of the cluster."""
    if shutil.which("sbatch") is None:
        pytest.skip("no sbatch here; install Debian's slurm-wlm and munge, then `make test-slurm`")
    done = subprocess.run(["sinfo", "--noheader", "--Node"], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"no Slurm answers here, `make test-slurm` starts one: {done.stderr.strip()[:100]}")
    return len(done.stdout.splitlines())


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    path = f"{TEMPLATE}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def call(cwd: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=LIMIT, check=False
    )


def make_recipe(folder: Path) -> Path:
    """A recipe of the toy language in sound, three modules; its data directories are those of stage 1."""
    (folder / "conf").mkdir(parents=True)
    for name in ("path.sh", "cmd.sh", "db.sh"):
        (folder / name).symlink_to(TEMPLATE / name)
    Corpus(folder / "data").write()
    for name in ("train", "valid"):
        keys = [line.split()[0] for line in (folder / "data" / name / "text").read_text().splitlines()]
        for table in ("utt2spk", "spk2utt"):
            (folder / "data" / name / table).write_text("".join(f"{key} {key}\n" for key in keys))
        (folder / "data" / name / "src_text").unlink()
    options = {"max_epoch": 2, "num_workers": 0, "use_matplotlib": False, "use_tensorboard": False}
    text = yaml.safe_dump(config(MODULES["speech"], **options), sort_keys=False)
    (folder / "conf" / "train_toy.yaml").write_text(text)
    (folder / "conf" / "decode.yaml").write_text("beam_size: 2\nmaxlenratio: -6\n")
    return folder


def recipe(folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    sets = ["--train_set", "train", "--valid_set", "valid", "--test_sets", "valid", "--skip_stages", "1 2 5 14"]
    sets += ["--legonn_config", "conf/train_toy.yaml", "--inference_config", "conf/decode.yaml", "--fs", str(FS)]
    sets += ["--nj", "2", "--inference_nj", "2", "--average_window", "1", "--audio_format", "wav"]
    return call(folder, "legonn.sh", *sets, *options, **env)


def results(folder: Path) -> dict[str, str]:
    """Everything that the stages made and that has to be the same wherever the jobs ran."""
    found = {}
    for pattern in (
        "dump/raw/*/text", "dump/raw/*/utt2num_samples", "exp/*stats*/*/*_shape",
        "exp/legonn_toy/decode/valid/text", "exp/legonn_toy/decode/valid/token_int",
        "exp/legonn_toy/decode/valid/interfaces/*/text", "exp/legonn_toy/decode/valid/score_wer/result.txt",
    ):  # fmt: skip
        paths = sorted(folder.glob(pattern))
        assert paths, f"{pattern}: nothing was made"
        found.update({str(p.relative_to(folder)): p.read_text() for p in paths})
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe, through stages 3 to 13 on the cluster."""
    folder = make_recipe(tmp_path_factory.mktemp("slurm") / "recipe")
    ended = recipe(folder, cmd_backend="slurm")
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert len(re.findall(r"slurm\.pl: Slurm job \d+: ", ended.stderr)) >= 8
    return folder


# ---- a recipe


def test_stages_run_as_jobs(done: Path) -> None:
    logs = [*done.glob("exp/*stats*/logdir/stats.[12].log"), done / "exp" / "legonn_toy" / "train.log"]
    logs += [done / "exp/legonn_toy/decode/valid/logdir" / f"legonn_inference.{n}.log" for n in (1, 2)]
    logs += [*done.glob("dump/log/format_*.log"), done / "exp" / "legonn_toy" / "average.log"]
    assert len(logs) == 8, logs
    jobs = {re.search(r"^# Slurm job (\d+) on ", log.read_text(), re.MULTILINE)[1] for log in logs}  # type: ignore[index]
    assert len(jobs) == 8
    assert all("# Ended (code 0)" in log.read_text() for log in logs)


def test_results_are_those_of_one_machine(done: Path, tmp_path: Path) -> None:
    folder = make_recipe(tmp_path / "recipe")
    ended = recipe(folder, cmd_backend="local")
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    there, here = results(done), results(folder)
    assert there == here and len(here) >= 15
    weights = [torch.load(f / "exp/legonn_toy/2epoch.pth", weights_only=True) for f in (done, folder)]
    assert weights[0].keys() == weights[1].keys() and all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_dead_job_is_shown_and_a_rerun_does_the_rest(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    shutil.copytree(done, folder, symlinks=True)
    table = dict(line.split() for line in (folder / "dump/raw/valid/wav.scp").read_text().splitlines())
    broken = folder / table["valid04"]
    assert not Path(table["valid04"]).is_absolute()
    hidden = broken.rename(broken.with_suffix(".hidden"))
    ended = recipe(folder, "--stage", "12", cmd_backend="slurm")
    assert ended.returncode != 0
    assert "slurm.pl: 1 / 2 failed" in ended.stderr and "# last lines of" in ended.stderr and "valid04" in ended.stderr
    parts = folder / "exp/legonn_toy/decode/valid/logdir"
    finished = (parts / "output.1/1best_recog/text").stat().st_mtime_ns
    assert not (parts / "output.2/.done").exists()
    hidden.rename(broken)
    ended = recipe(folder, "--stage", "12", cmd_backend="slurm")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (parts / "output.1/1best_recog/text").stat().st_mtime_ns == finished, "the first job was not run again"
    assert results(folder) == results(done)


def test_cancelled_training_resumes(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    shutil.copytree(done, folder, symlinks=True)
    with subprocess.Popen(
        ["bash", "-c", 'exec "$@"', "bash", *training("long", 400)],
        cwd=folder, env=environment(cmd_backend="slurm"), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        until(lambda: (folder / "exp/legonn_long/3epoch.pth").is_file(), process)
        number = (folder / "exp/legonn_long/slurm/train.log.id").read_text().strip()
        subprocess.run(["scancel", number], check=True)
        said = "".join(process.communicate(timeout=LIMIT))
    assert process.returncode != 0 and "Slurm says CANCELLED of job 1" in said
    reached = max(int(p.name.split("epoch")[0]) for p in (folder / "exp/legonn_long").glob("[0-9]*epoch.pth"))
    ended = call(folder, *training("long", reached + 2), cmd_backend="slurm")
    assert ended.returncode == 0, ended.stderr[-3000:]
    log = (folder / "exp/legonn_long/train.log").read_text()
    assert "The training was resumed" in log and f"{reached + 2}epoch results" in log and "\n2epoch results" not in log


def training(tag: str, epochs: int, *options: str) -> list[str]:
    """Stage 11 alone, with the statistics that are there."""
    sets = ["--train_set", "train", "--valid_set", "valid", "--test_sets", "valid"]
    sets += ["--stage", "11", "--stop_stage", "11"]
    chain = ["--legonn_config", "conf/train_toy.yaml", "--legonn_tag", tag, "--legonn_args", f"--max_epoch {epochs}"]
    return ["legonn.sh", *sets, *chain, "--average_window", "0", *options]


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT
    while not true():
        assert process.poll() is None and time.monotonic() < deadline, "it ended, or hangs"
        time.sleep(0.1)


# ---- over nodes


def test_training_over_two_nodes(done: Path, tmp_path: Path, nodes: int) -> None:
    """ESPnet's launcher hands slurm.pl the nodes and starts the program with srun on each."""
    if nodes < 2:
        pytest.skip("this cluster has one node; as root, `make test-slurm` starts two")
    folder = tmp_path / "recipe"
    shutil.copytree(done, folder, symlinks=True)
    ended = call(folder, *training("two", 1, "--num_nodes", "2"), cmd_backend="slurm")
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-3000:]
    log = (folder / "exp/legonn_two/train.log").read_text()
    assert "srun --export=ALL" in log.splitlines()[0]
    assert re.search(r"^\[\S+:0/2\] .* 1epoch results: ", log, re.MULTILINE), "ESPnet writes rank/processes"
    assert (folder / "exp/legonn_two/1epoch.pth").is_file()


# ---- slurm.pl


def test_a_device_is_granted(tmp_path: Path) -> None:
    done = call(tmp_path, "slurm.pl", "--gpu", "1", "x.log", "bash", "-c", "echo device=$CUDA_VISIBLE_DEVICES")
    if "Requested node configuration is not available" in done.stderr:
        pytest.skip("this cluster has no GPUs")
    assert done.returncode == 0 and "device=0" in (tmp_path / "x.log").read_text()


def test_a_request_that_no_node_can_meet(tmp_path: Path) -> None:
    done = call(tmp_path, "slurm.pl", "--gpu", "999", "x.log", "true")
    assert done.returncode == 1 and "sbatch refused the job" in done.stderr and "not available" in done.stderr


def test_interrupted(tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["slurm.pl", "JOB=1:2", "x.JOB.log", "sleep", "300"],
        cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    number = process.stderr.readline().split("Slurm job ")[1].split(":")[0]
    until(lambda: (tmp_path / "x.1.log").is_file(), process)
    again = call(tmp_path, "slurm.pl", "JOB=1:2", "x.JOB.log", "true")
    assert again.returncode == 1 and f"Slurm job {number} of an earlier run still writes x.JOB.log" in again.stderr
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143 and f"stopped by signal 15, job {number} cancelled" in said
    left = subprocess.run(["squeue", "--noheader", "--jobs", number], capture_output=True, text=True, check=False)
    assert "sleep" not in left.stdout and " R " not in left.stdout
