"""Training on two processes (gloo, CPU) equals training on one with the summed batch."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from espnet2_legonn._compat import load
from tests.train.toys import DECODER, ENCODER, MODULES, QUIET, Lab, config, figures, gap, weights

pytestmark = pytest.mark.xdist_group("espnet")
# No dropout and no SpecAugment: the two processes would draw other numbers than the one. In float64, where only the
# order of sums is left between them; float32 kernels round batches of 8 and of 4 in another way on every CPU.
SGD: dict[str, Any] = {
    "train_dtype": "float64",
    "optim": "sgd",
    "optim_conf": {"lr": 0.5},
    "scheduler": None,
    "max_epoch": 1,
    "batch_size": 8,  # 15 utterances: two updates
    "grad_clip": 1000.0,
}


def sober(modules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**m, "body": {**m["body"], "dropout": 0.0}} for m in modules]


def _rank(lab: Lab, exp: Path, kind: str, rank: int, options: dict[str, Any]) -> None:
    words = ["--dist_backend", "gloo", "--dist_world_size", "2", "--dist_rank", str(rank)]
    words += ["--multiprocessing_distributed", "false", "--dist_init_method", f"file://{exp.parent}/rendezvous"]
    try:
        lab.train(exp if rank == 0 else exp.with_name("rank1"), kind, *words, **options)
    except BaseException:
        exp.with_name(f"fault.{rank}").write_text(traceback.format_exc())
        raise


def two_processes(lab: Lab, exp: Path, kind: str, **options: Any) -> None:
    """The same training in two forked processes, which need not import ESPnet again."""
    exp.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank, args=(lab, exp, kind, rank, options)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    for process in processes:
        with contextlib.suppress(AttributeError):
            process.kill()
    faults = "".join(p.read_text() for p in sorted(exp.parent.glob("fault.*")))
    assert [p.exitcode for p in processes] == [0, 0], faults


needs_fork = pytest.mark.skipif(torch.cuda.is_available(), reason="a process that saw a GPU cannot be forked")


@needs_fork
@pytest.mark.parametrize(
    ("kind", "accum_grad"), [("tokens", 1), ("speech", 1), ("tokens", 3)], ids=["tokens", "speech", "leftover"]
)
def test_two_processes_equal_one(lab: Lab, tmp_path: Path, kind: str, accum_grad: int) -> None:
    modules = sober(MODULES[kind])
    options = {**SGD, "accum_grad": accum_grad, "modules": modules}
    lab.train(tmp_path / "one", kind, **options)
    two_processes(lab, tmp_path / "two" / "exp", kind, **options)
    left, right = weights(tmp_path / "one", 1), weights(tmp_path / "two" / "exp", 1)
    learned = {k for k in left if "seen" not in k}  # totals of rank 0 alone: checked below
    assert gap({k: left[k] for k in learned}, {k: right[k] for k in learned}) < 1e-9
    for phase in ("train", "valid"):
        one, two = (figures(exp, 1, phase) for exp in (tmp_path / "one", tmp_path / "two" / "exp"))
        for figure in one:
            if not figure.startswith("optim"):
                assert two[figure] == pytest.approx(one[figure], rel=1e-6, abs=1e-7), (phase, figure)


@needs_fork
def test_infeasible_utterances_of_all_processes_are_counted(lab: Lab, tmp_path: Path) -> None:
    encoder = {**ENCODER, "length_control": {"max_length": 2, "num_blocks": 1, "ratio": 1}}
    options = {**SGD, "modules": sober([encoder, DECODER])}
    lab.train(tmp_path / "one", "tokens", **options)
    two_processes(lab, tmp_path / "two" / "exp", "tokens", **options)
    one, two = (figures(exp, 1)["infeasible_encoder"] for exp in (tmp_path / "one", tmp_path / "two" / "exp"))
    assert one > 0 and two == pytest.approx(one)


@needs_fork
def test_slots_of_all_processes_are_seen(lab: Lab, tmp_path: Path) -> None:
    options = {**SGD, "modules": sober(MODULES["tokens"])}
    lab.train(tmp_path / "one", "tokens", **options)
    two_processes(lab, tmp_path / "two" / "exp", "tokens", **options)
    left, right = weights(tmp_path / "one", 1), weights(tmp_path / "two" / "exp", 1)
    seen = [k for k in left if k.endswith("seen.totals")]
    assert seen
    for key in seen:
        ratios = [float(state[key][0] / state[key][1]) for state in (left, right)]
        assert ratios[0] == pytest.approx(ratios[1], rel=0.05), key


@pytest.mark.slow
def test_torchrun(lab: Lab, tmp_path: Path) -> None:
    """As a user starts it; the processes find each other through torchrun's environment."""
    modules = sober(MODULES["tokens"])
    lab.train(tmp_path / "one", "tokens", modules=modules, **SGD)
    exp = tmp_path / "two"
    exp.mkdir()
    (exp / "train.yaml").write_text(yaml.safe_dump(config(modules, **SGD), sort_keys=False))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["-m", "espnet2_legonn.bin.legonn_train", "--config", str(exp / "train.yaml"), "--output_dir", str(exp)]
    command += [*QUIET, "--dist_backend", "gloo"]
    command += [*lab.corpus.data("tokens"), *lab.corpus.shapes("tokens", lab.stats["tokens"])]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    left, right = weights(tmp_path / "one", 1), weights(exp, 1)
    learned = {k for k in left if "seen" not in k}
    assert gap({k: left[k] for k in learned}, {k: right[k] for k in learned}) < 1e-9


def test_schedulers_are_known_to_a_process_that_parsed_no_options(lab: Lab, tmp_path: Path) -> None:
    """ESPnet starts one process for each GPU with the parsed options: get_parser is not called there."""
    from espnet2_legonn.tasks.legonn import LegoNNTask

    task = load("espnet2.tasks.abs_task")
    args = LegoNNTask.get_parser().parse_args([])
    vars(args).update(config(MODULES["encoder"]), output_dir=str(tmp_path), distributed=False, dry_run=True)
    args.train_shape_file = [str(lab.stats["tokens"] / "train" / "src_text_shape")]
    args.num_workers, args.version = 0, "x"
    known = dict(task.scheduler_classes)
    try:
        task.scheduler_classes.pop("inverse_sqrt", None)
        LegoNNTask.main_worker(args)
    finally:
        task.scheduler_classes.update(known)
