"""Updates of ESPnet's trainer and of ours, on the same batch of 32 x 20 tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.systems import LENGTH, Size, baseline, translation

BATCH = 32
Train = Callable[[int], None]  # a number of updates

_OPTIONS: dict[str, Any] = dict(  # noqa: C408
    ngpu=0, resume=False, use_amp=False, train_dtype="float32", grad_noise=False, accum_grad=1, grad_clip=5.0,
    grad_clip_type=2.0, log_interval=1000, no_forward_run=False, use_matplotlib=False, use_tensorboard=False,
    use_wandb=False, adapter="lora", use_adapter=False, save_strategy="all", output_dir="", max_epoch=1, seed=0,
    sharded_ddp=False, patience=None, keep_nbest_models=[1], nbest_averaging_interval=0,
    early_stopping_criterion=("valid", "loss", "min"), best_model_criterion=[("valid", "loss", "min")],
    val_scheduler_criterion=("valid", "loss"), unused_parameters=False, wandb_model_log_interval=-1,
    create_graph_in_tensorboard=False, gradient_as_bucket_view=True, ddp_comm_hook=None,
)  # fmt: skip


class _Autocast(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(**batch)


def trainings(size: Size, espnets: Any, bfloat16: bool) -> dict[str, Train]:
    """By name; the first is ESPnet's, whose model is given."""
    from espnet2.train.trainer import Trainer

    from espnet2_legonn.training.model import LegoNNModel
    from espnet2_legonn.training.trainer import LegoNNTrainer

    logging.getLogger().setLevel(logging.ERROR)
    found: dict[str, Train] = {}

    def add(name: str, trainer: Any, model: torch.nn.Module, columns: Iterable[str], fused: bool) -> None:
        parameters = model.train().parameters()
        kind, how = (torch.optim.AdamW, {"fused": True}) if fused else (torch.optim.Adam, {})
        optimizer = kind(parameters, lr=1e-5, **how)
        batch = _batch(size, columns)
        found[name] = lambda updates: _train(trainer, model, optimizer, batch, updates)

    theirs, ours = ("text", "src_text"), ("text_decoder", "src_text")
    add("ESPnet", Trainer, espnets, theirs, False)
    add("baseline", LegoNNTrainer, LegoNNModel(baseline(size)), ours, True)
    add("LegoNN chain", LegoNNTrainer, LegoNNModel(translation(size)), ("text_encoder", *ours), True)
    if bfloat16:
        half = torch.bfloat16
        add("ESPnet, bfloat16", Trainer, _Autocast(espnets), theirs, False)
        add("baseline, bfloat16", LegoNNTrainer, LegoNNModel(baseline(size), half), ours, True)
        chain = LegoNNModel(translation(size), half)
        add("LegoNN chain, bfloat16", LegoNNTrainer, chain, ("text_encoder", *ours), True)
    return found


def _batch(size: Size, columns: Iterable[str]) -> dict[str, torch.Tensor]:
    generator, batch = torch.Generator().manual_seed(1), dict[str, torch.Tensor]()
    for name in columns:
        batch[name] = torch.randint(2, size.vocab - 1, (BATCH, LENGTH), generator=generator)
        batch[f"{name}_lengths"] = torch.full((BATCH,), LENGTH)
    return batch


def _train(trainer: Any, model: torch.nn.Module, optimizer: Any, batch: dict[str, torch.Tensor], updates: int) -> None:
    from espnet2.train.distributed_utils import DistributedOption
    from espnet2.train.reporter import Reporter
    from espnet2.train.trainer import TrainerOptions

    reporter = Reporter()
    reporter.set_epoch(1)
    names = [str(i) for i in range(BATCH)]
    with reporter.observe("train") as observed:
        trainer.train_one_epoch(
            model=model, optimizers=[optimizer], schedulers=[None], scaler=None,
            iterator=[(names, dict(batch)) for _ in range(updates)], reporter=observed, summary_writer=None,
            options=TrainerOptions(**_OPTIONS), distributed_option=DistributedOption(),
        )  # fmt: skip
