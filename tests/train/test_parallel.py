"""Training on two processes (gloo, CPU) equals training on one with the summed batch."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml

from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.training.compat import load
from espnet2_legonn.training.model import LegoNNModel
from tests.modules import reference as ref
from tests.train.toys import DECODER, ENCODER, MODULES, PRONUNCIATION, QUIET, Lab, config, figures, gap, weights

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


def _noted(work: Callable[[int], None], folder: Path, rank: int) -> None:
    try:
        work(rank)
    except BaseException:
        (folder / f"fault.{rank}").write_text(traceback.format_exc())
        raise


def in_two(work: Callable[[int], None], folder: Path) -> None:
    """``work(rank)`` in two forked processes, which need not import ESPnet again; they meet at ``rendezvous``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rendezvous").unlink(missing_ok=True)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_noted, args=(work, folder, rank)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)  # a hang; a busy machine takes a minute
    for process in processes:
        with contextlib.suppress(AttributeError):
            process.kill()
    faults = "".join(p.read_text() for p in sorted(folder.glob("fault.*")))
    assert [p.exitcode for p in processes] == [0, 0], faults


def two_processes(lab: Lab, exp: Path, kind: str, *more: str, **options: Any) -> None:
    """The same training in two processes; rank 1 writes into a folder of its own beside ``exp``."""

    def work(rank: int) -> None:
        words = ["--dist_backend", "gloo", "--dist_world_size", "2", "--dist_rank", str(rank)]
        words += ["--multiprocessing_distributed", "false", "--dist_init_method", f"file://{exp.parent}/rendezvous"]
        lab.train(exp if rank == 0 else exp.with_name("rank1"), kind, *words, *more, **options)

    in_two(work, exp.parent)


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
    assert gap(weights(tmp_path / "one", 1), weights(tmp_path / "two" / "exp", 1)) < 1e-9
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
def test_what_all_processes_saw_is_kept_after_resume_too(lab: Lab, tmp_path: Path) -> None:
    """Slots, tokens and the longest item are exact; rank 0's checkpoint holds those of all."""
    options = {**SGD, "modules": sober(MODULES["tokens"]), "batch_type": "unsorted"}
    one, two = tmp_path / "one", tmp_path / "two" / "exp"
    for epochs in (1, 2):
        more = [] if epochs == 1 else ["--resume", "true"]
        if more:
            shutil.copy(two / "checkpoint.pth", two.with_name("rank1"))
        lab.train(one, "tokens", *more, **{**options, "max_epoch": epochs})
        two_processes(lab, two, "tokens", *more, **{**options, "max_epoch": epochs})
        left, right = weights(one, epochs), weights(two, epochs)
        seen = {k for k in left if ".seen." in k}
        assert {k.rpartition(".")[2] for k in seen} == {"totals", "longest"}
        assert all(left[k].min() > 0 and torch.equal(left[k], right[k]) for k in seen)
    assert int(left["chain.mods.decoder.input.seen.totals"][1]) == 2 * tokens_of(lab)


def tokens_of(lab: Lab) -> int:
    """Target tokens of the training set."""
    lines = (lab.corpus.root / "train" / "text").read_text().splitlines()
    return sum(len(line.split()) - 1 for line in lines)


# -- beyond 512 positions --------------------------------------------------------------------------

LONG = {"length_control": {"ratio": 1, "max_length": 800, "num_blocks": 1}}


def long_model() -> LegoNNModel:
    """Text -> P(phones) -> P(words) -> text, in float64, with up to 800 slots; what its ports saw before is not 0."""
    torch.manual_seed(0)
    modules = [{**ENCODER, "output": {"vocab": "phones"}, **LONG}, {**PRONUNCIATION, **LONG}, DECODER]
    model = LegoNNModel(Chain.from_config(config(sober(modules)))).double()
    for name, buffer in model.named_buffers():
        if ".seen." in name:
            buffer.add_(1000 if name.endswith("totals") else 3)
    return model


def batch_of(*sizes: int) -> dict[str, torch.Tensor]:
    """Sources of these lengths; targets are a tenth shorter and repeat no token."""
    rows = {"src_text": list(sizes), **{f"text_{name}": [s - s // 10 for s in sizes] for name in NAMES}}
    batch = {}
    for key, lengths in rows.items():
        at = torch.arange(max(lengths)).expand(len(lengths), -1)
        batch[key] = (2 + at % 5).masked_fill(at >= torch.tensor(lengths)[:, None], -1)
        batch[f"{key}_lengths"] = torch.tensor(lengths)
    return batch


NAMES = ("encoder", "words", "decoder")
SHORT, BEYOND = (6, 4), (600, 7)


def step(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gradients of a batch, and what the ports have seen by then."""
    model.zero_grad()
    model(**batch)[0].backward()
    plain = getattr(model, "module", model)
    seen = {name: buffer.clone() for name, buffer in plain.named_buffers() if ".seen." in name}
    return {**{name: p.grad.clone() for name, p in plain.named_parameters()}, **seen}


def decode(chain: Chain, batch: dict[str, torch.Tensor]) -> None:
    """As between two epochs: needs the longest positions, in inference mode."""
    chain.eval()
    _, x, lengths = chain.encode(batch["src_text"], batch["src_text_lengths"])
    with torch.inference_mode():
        chain.last(x, lengths, batch["text_decoder"], batch["text_decoder_lengths"])
    chain.train()


@needs_fork
@pytest.mark.parametrize("decodes", [False, True], ids=["plain", "decoded_before"])
def test_items_on_both_sides_of_512_positions(tmp_path: Path, decodes: bool) -> None:
    """Steps, slots and tokens of one process stay below 512, those of the other do not; then they change places."""

    def work(rank: int) -> None:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=rank, world_size=2)
        plain = long_model()
        if rank:  # what rank 0 holds, from its checkpoint for instance, is what counts
            for parameter in plain.parameters():
                parameter.data.zero_()
        model = torch.nn.parallel.DistributedDataParallel(plain)
        if decodes:
            decode(plain.chain, batch_of(*BEYOND))
        found = [step(model, batch_of(*sizes)) for sizes in ((SHORT, BEYOND) if rank == 0 else (BEYOND, SHORT))]
        tables = {n: p(torch.zeros(700, 16), torch.float32) for n, p in plain.named_modules() if is_positions(p)}
        torch.save((found, tables), tmp_path / f"found.{rank}")

    in_two(work, tmp_path)
    wanted = step(long_model(), batch_of(*SHORT, *BEYOND))
    assert any(key.endswith("longest") and value == 601 for key, value in wanted.items())
    twice = {k: v + (v - 1000) if k.endswith("totals") else v for k, v in wanted.items()}
    for rank in range(2):
        found, tables = torch.load(tmp_path / f"found.{rank}", weights_only=True)
        assert [gap(*pair) < 1e-9 for pair in zip(found, (wanted, twice))] == [True, True]
        assert len(tables) == 6, "each input, controller and the decoder's tokens"
        exact = torch.from_numpy(ref.positions(700, 16))
        assert all((table.double() - exact).abs().max() < 1e-6 for table in tables.values())


def is_positions(module: torch.nn.Module) -> bool:
    return isinstance(module, SinusoidalPositions)


@needs_fork
def test_one_sum_over_processes_carries_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, counts and what the ports of all modules see: one collective for each batch, none of them in DDP."""

    def work(rank: int) -> None:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=rank, world_size=2)
        model, calls = long_model(), []
        real = dist.all_reduce
        monkeypatch.setattr(dist, "all_reduce", lambda *args: (calls.append(args[0].numel()), real(*args)))
        found = step(model, batch_of(*(SHORT if rank else BEYOND)))
        model.eval()(**batch_of(*SHORT))
        torch.save((len(calls), {k: v for k, v in found.items() if ".seen." in k}), tmp_path / f"found.{rank}")

    in_two(work, tmp_path)
    wanted = step(long_model(), batch_of(*SHORT, *BEYOND))
    for rank in range(2):
        calls, seen = torch.load(tmp_path / f"found.{rank}", weights_only=True)
        assert calls == 2 and len(seen) == 8
        assert all(torch.equal(value, wanted[key]) for key, value in seen.items())


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
    assert gap(weights(tmp_path / "one", 1), weights(exp, 1)) < 1e-9


def test_schedulers_are_known_to_a_process_that_parsed_no_options(lab: Lab, tmp_path: Path) -> None:
    """ESPnet starts one process for each GPU with the parsed options: get_parser is not called there."""
    from espnet2_legonn.training.task import LegoNNTask

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
