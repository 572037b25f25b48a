"""slurm.pl without Slurm: what it asks of sbatch, the script it writes, what it makes of ends and deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espnet2_legonn.recipes import jobs, slurm
from espnet2_legonn.recipes.launcher import UsageError
from tests.says import Says

TEMPLATE = Path(__file__).resolve().parents[2] / "egs2" / "TEMPLATE" / "legonn1"

# Runs the jobs of the array before it answers; a number in the file `dead` is not run. Notes how it was called.
SBATCH = """
import json, os, subprocess, sys
from pathlib import Path
args = sys.argv[1:]
seen = {k: v for k, v in os.environ.items() if k.startswith("SLURM_")}
Path("sbatch.json").write_text(json.dumps({"args": args, "env": seen}))
if Path("refuse").exists():
    sys.exit("sbatch: error: no such partition")
first, last = 1, 1
if "--array" in args:
    first, last = map(int, args[args.index("--array") + 1].split("%")[0].split("-"))
dead = Path("dead").read_text().split() if Path("dead").exists() else []
for n in range(first, last + 1):
    if str(n) in dead:
        continue
    env = dict(os.environ, SLURM_JOB_ID="7", **({"SLURM_ARRAY_TASK_ID": str(n)} if "--array" in args else {}))
    with open(args[args.index("--output") + 1].replace("%a", str(n)), "w") as out:
        subprocess.run(["bash", args[-1]], env=env, stdout=out, stderr=subprocess.STDOUT)
print("7;cluster")
"""
SQUEUE = "cat states 2>/dev/null || { echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1; }"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with such an sbatch and such a squeue, and little patience."""
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", f"#!{sys.executable}\n{SBATCH}"), ("squeue", f"#!/usr/bin/env bash\n{SQUEUE}\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(slurm, "LONGEST_BETWEEN_QUESTIONS", 0.2)
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield tmp_path
    for number, handler in kept.items():
        signal.signal(number, handler)


def asked() -> list[str]:
    """Arguments of the last sbatch, less the script and where its own output goes."""
    args = json.loads(Path("sbatch.json").read_text())["args"]
    where = args.index("--output")
    return args[:where] + args[where + 2 : -1]


# ---- jobs


def test_an_array_and_its_logs() -> None:
    assert slurm.main(["JOB=2:4", "logs/x.JOB.log", "echo", "part JOB", "<unk>", ">", "out.JOB"]) == 0
    assert [Path(f"out.{n}").read_text() for n in (2, 3, 4)] == [f"part {n} <unk>\n" for n in (2, 3, 4)]
    assert asked() == ["--export=ALL", "--parsable", "--array", "2-4"]
    lines = Path("logs/x.3.log").read_text().splitlines()
    assert lines[0] == "# echo 'part 3' '<unk>' > out.3" and lines[1].startswith("# Slurm job 7 on ")
    assert lines[-2] == "# Accounting: time=0 threads=1"
    assert lines[-1].startswith("# Ended (code 0) at ") and lines[-1].endswith("elapsed time 0 seconds")
    assert sorted(p.name for p in Path("logs").iterdir()) == ["slurm", "x.2.log", "x.3.log", "x.4.log"]


def test_one_job_without_a_number() -> None:
    assert slurm.main(["deep/a.log", "echo", "hi", "|", "tr", "h", "H"]) == 0
    assert asked() == ["--export=ALL", "--parsable"] and "\nHi\n" in Path("deep/a.log").read_text()
    assert slurm.main(["a.log", "false", "|", "cat"]) == 1, "a broken part of a pipe"


def test_a_number_in_a_folder() -> None:
    assert slurm.main(["JOB=1:2", "parts/JOB/x.log", "echo", "JOB"]) == 0
    assert "\n2\n" in Path("parts/2/x.log").read_text() and Path("parts/slurm/x.log.sh").is_file()


def test_arguments_arrive_as_given() -> None:
    odd = [
        "<unk>",
        "a(b)",
        "$HOME",
        "it's",
        'say "x"',
        "*",
        "",
        "a b",
        "a;b",
        "x|y",
        "--opt=1",
        "a\nb",
        "EOF",
        "%s",
        "ü",
    ]
    code = "import sys, json; json.dump(sys.argv[1:], open('got.json', 'w'))"
    assert slurm.main(["JOB=1:1", "x.JOB.log", sys.executable, "-c", code, *odd]) == 0
    assert json.loads(Path("got.json").read_text()) == odd


def test_path_sh_is_sourced_on_the_other_machine() -> None:
    Path("path.sh").write_text("export SAID=hello number=99 log=elsewhere\n")
    assert slurm.main(["JOB=1:2", "x.JOB.log", "bash", "-c", "echo $SAID"]) == 0
    assert "\nhello\n" in Path("x.2.log").read_text()


def test_a_job_begun_again_by_slurm_adds_to_its_log() -> None:
    assert slurm.main(["x.log", "echo", "said"]) == 0
    env = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
    subprocess.run(["bash", "slurm/x.log.sh"], env=env, check=True)
    assert Path("x.log").read_text().count("\nsaid\n") == 2
    subprocess.run(["bash", "slurm/x.log.sh"], env={**env, "SLURM_RESTART_COUNT": "0"}, check=True)
    assert Path("x.log").read_text().count("\nsaid\n") == 1


def test_what_an_outer_job_was_given_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "SLURM_ARRAY_TASK_ID", "SLURM_CONF"):
        monkeypatch.setenv(name, "5")
    assert slurm.main(["x.log", "true"]) == 0
    assert json.loads(Path("sbatch.json").read_text())["env"] == {"SLURM_CONF": "5"}


def test_is_executable_on_its_own() -> None:
    assert os.access(TEMPLATE / "slurm.pl", os.X_OK)
    done = subprocess.run([TEMPLATE / "slurm.pl", "--help"], capture_output=True, text=True, check=True)
    assert "usage: slurm.pl" in done.stdout and "  option gpu=* --gres gpu:$0\n" in done.stdout
    done = subprocess.run([TEMPLATE / "slurm.pl", "x.log"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "slurm.pl: give a log file and a command" in done.stderr


# ---- options


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--gpu", "2"], ["--gres", "gpu:2"]),
        (["--gpu", "0"], []),
        (["--mem", "4G", "--time", "1-0", "--name", "a b"], ["--mem", "4G", "--time", "1-0", "--job-name", "a b"]),
        (["--num-threads", "8", "--num_nodes", "1"], ["--cpus-per-task", "8", "--nodes", "1"]),
        (["--num_nodes", "2"], ["--nodes", "2", "--ntasks-per-node", "1", "--no-requeue"]),
        (["--max-jobs-run", "3"], []),
    ],
)
def test_options(options: list[str], wanted: list[str]) -> None:
    assert slurm.main([*options, "x.log", "true"]) == 0
    assert asked() == ["--export=ALL", *wanted, "--parsable"]


def test_jobs_at_a_time() -> None:
    assert slurm.main(["--max-jobs-run", "3", "JOB=1:8", "x.JOB.log", "true"]) == 0
    assert asked()[-2:] == ["--array", "1-8%3"]


CONF = """
# our cluster
command sbatch --export=PATH --account me   # and the account
option time=* --time $0
option gpu=* -p gpu --gres=gpu:$0 -c $0
option gpu=0 -p cpu
default gpu=0
option queue=* -p $0
option max_jobs_run=*
"""


def test_config_of_a_cluster(place: Path) -> None:
    (place / "conf").mkdir()
    (place / "conf" / "slurm.conf").write_text(CONF)
    ours = ["--export=PATH", "--account", "me"]
    assert slurm.main(["--mem", "1G", "x.log", "true"]) == 0
    assert asked() == [*ours, "-p", "cpu", "--mem", "1G", "--parsable"]
    assert slurm.main(["--gpu", "2", "--queue", "big", "--max-jobs-run", "1", "x.log", "true"]) == 0
    assert asked() == [*ours, "-p", "gpu", "--gres=gpu:2", "-c", "2", "-p", "big", "--parsable"]
    assert slurm.main(["x.log", "true", "--config", "none.yaml"]) == 0, "an option of the command"
    (place / "other.conf").write_text("option gpu=*\n")
    assert slurm.main(["--config", "other.conf", "--gpu", "2", "x.log", "true"]) == 0
    assert asked() == ["--export=ALL", "--parsable"]


def test_faults_of_a_config(place: Path, capsys: pytest.CaptureFixture[str], says: Says) -> None:
    (place / "bad.conf").write_text("command\noption gpu 2\n\ndefault gpu=0 more\noption gpu=1 --x\n")
    said = says(slurm.main, ["--config", "bad.conf", "x.log", "true"], 2)
    assert [line for line in (1, 2, 3, 4, 5) if f"bad.conf:{line}: " in said] == [1, 2, 4]
    assert "--config none.conf: No such file" in says(slurm.main, ["--config", "none.conf", "x.log", "true"], 2)
    (place / "bad.conf").write_text("option gpu=1 --x\n")
    assert slurm.main(["--config", "bad.conf", "--gpu", "2", "x.log", "true"]) == 2
    assert "no rule for --gpu 2; add `option gpu=* ...`" in capsys.readouterr().err
    assert not Path("sbatch.json").exists()


def test_settings_without_faults() -> None:
    with pytest.raises(UsageError, match="x:1: 'optoin' is none of"):
        slurm.read_settings("optoin\n", "x")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--gpus", "1", "x.log", "true"], "unknown option --gpus; known: --config --gpu"),
        (["--gpu", "one", "x.log", "true"], "--gpu needs a number, got 'one'"),
        (["JOB=1:3", "x.log", "true"], "3 jobs would write one log, x.log; put JOB into its name"),
        ([], "give a log file and a command"),
    ],
)
def test_wrong_usage(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert slurm.main(args) == 2 and f"slurm.pl: {message}" in capsys.readouterr().err


def test_not_on_a_cluster(monkeypatch: pytest.MonkeyPatch, says: Says) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "sbatch is not on PATH: is this a machine of the cluster?" in says(slurm.main, ["x.log", "true"], 2)


# ---- deaths


def test_failures_are_counted_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    script = "echo working on JOB; if [ JOB -gt 1 ]; then echo the reason JOB >&2; exit 3; fi"
    assert slurm.main(["JOB=1:3", "j.JOB.log", "bash", "-c", script]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == "slurm.pl: 2 / 3 failed, log is in j.JOB.log"
    assert "# last lines of j.2.log:" in said and "the reason 2" in said and "# Ended (code 3)" in said


def test_a_killed_job_is_reported_with_slurms_word(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "dead").write_text("2")
    (place / "states").write_text("1 COMPLETED\n2 TIMEOUT\n")
    (place / "x.2.log").write_text("so far\n")
    assert slurm.main(["JOB=1:2", "x.JOB.log", "true"]) == 1
    said = capsys.readouterr().err
    assert "slurm.pl: Slurm says TIMEOUT of job 2\n" in said and "so far\n# Ended (Slurm: TIMEOUT)" in said
    assert said.splitlines()[-1] == "slurm.pl: 1 / 2 failed, log is in x.JOB.log"


@pytest.mark.parametrize(("states", "word"), [(None, "gone"), ("N/A FAILED\n", "FAILED")])
def test_a_job_that_left_no_word(
    place: Path, capsys: pytest.CaptureFixture[str], states: str | None, word: str
) -> None:
    """It could not even open its log: what sbatch kept of its output is shown."""
    (place / "x.log").mkdir()
    if states:
        (place / "states").write_text(states)
    assert slurm.main(["x.log", "true"]) == 1
    said = capsys.readouterr().err
    assert f"Slurm says {word} of job 1" in said and "x.log: Is a directory" in said


def test_a_controller_that_does_not_answer_is_no_death(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([None, {None: "PENDING"}, {None: "RUNNING"}])

    def states(job_id: str) -> dict[int | None, str] | None:
        answer = next(answers, None)
        if answer == {None: "RUNNING"}:
            Path("slurm/x.log.done.1").write_text("0\n")
        return answer

    (place / "dead").write_text("1")
    monkeypatch.setattr(slurm, "states", states)
    assert slurm.main(["x.log", "true"]) == 0


def test_sbatch_refuses(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "refuse").touch()
    assert slurm.main(["--mem", "4G", "x.log", "true"]) == 1
    said = capsys.readouterr().err
    assert (
        "no such partition" in said and "sbatch refused the job (exit status 1): sbatch --export=ALL --mem 4G" in said
    )


def test_two_submissions_do_not_write_one_log(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "slurm").mkdir()
    (place / "slurm" / "x.log.id").write_text("6\n")
    (place / "states").write_text("N/A RUNNING\n")
    assert slurm.main(["x.log", "true"]) == 1
    assert "Slurm job 6 of an earlier run still writes x.log; wait for it, or `scancel 6`" in capsys.readouterr().err
    (place / "states").unlink()
    assert slurm.main(["x.log", "true"]) == 0 and not Path("slurm/x.log.id").exists()


def test_a_signal_cancels_the_jobs(place: Path) -> None:
    (place / "bin" / "scancel").write_text("#!/bin/sh\necho $1 > cancelled\necho '1 CANCELLED' > states\n")
    (place / "bin" / "scancel").chmod(0o755)
    (place / "dead").write_text("1")
    (place / "states").write_text("1 RUNNING\n")
    command = [sys.executable, str(TEMPLATE / "slurm.pl"), "JOB=1:1", "x.JOB.log", "true"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and "Slurm job 7: x.JOB.log" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert "slurm.pl: stopped by signal 15, job 7 cancelled" in process.communicate(timeout=20)[1]
    assert process.returncode == 143 and Path("cancelled").read_text() == "7\n"


# ---- what a broken run finished


def test_only_what_is_missing_is_done_again(place: Path) -> None:
    table, run_pl = place / "table", f"{sys.executable} {TEMPLATE / 'run.pl'}"
    table.write_text("a\n")
    script = "mkdir -p out/part.JOB; echo x >> out/part.JOB/done; [ JOB = 1 ] || test -f well"

    def work() -> None:
        command = ["bash", "-c", script]
        with jobs.working(place / "out", command, [table, place / "none"]):
            jobs.run(run_pl, place / "out" / "x.JOB.log", jobs.once(command, Path("out/part.JOB")), 2)

    def counts() -> list[int]:
        return [len((place / "out" / f"part.{n}" / "done").read_text().split()) for n in (1, 2)]

    for _ in range(2):
        with pytest.raises(jobs.LegoNNError, match="a job failed"):
            work()
    assert counts() == [1, 2], "the first was done at once"
    (place / "well").touch()
    work()
    assert counts() == [1, 3]
    work()
    assert counts() == [1, 1], "what has finished is done anew"
    (place / "well").unlink()
    with pytest.raises(jobs.LegoNNError):
        work()
    table.write_text("b c\n")
    with pytest.raises(jobs.LegoNNError):
        work()
    assert counts() == [1, 1], "other data: nothing of before is kept"
