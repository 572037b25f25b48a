"""ESPnet's options that this task would accept and ignore: each is made to work, or refused with the cure."""

from __future__ import annotations

import argparse
import inspect
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.schema import nearest
from espnet2_legonn.packs.store import read_checkpoint
from espnet2_legonn.training.compat import load

AMP = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# Options without an effect here, beside the value that asks for none, and what does what they are for.
USELESS: dict[str, tuple[Any, str]] = {
    "num_att_plot": (0, "attention weights are not kept; set 0, and look at an interface with `legonn demo`"),
    "create_graph_in_tensorboard": (False, "TensorBoard draws no model that takes batches by name; leave it out"),
    "exclude_weight_decay_conf": ({}, "exclude_weight_decay alone leaves out all biases and norms; leave it empty"),
    "use_adapter": (False, "there are no adapters; use init and freeze of a module"),
    "save_strategy": ("all", "checkpoints hold all weights; leave it out"),
    "use_deepspeed": (False, "DeepSpeed takes ESPnet's own trainer only; leave it out"),
    "sharded_ddp": (False, "what fairscale shards cannot be averaged; leave it out"),
    "pretrain_path": (None, "ESPnet has given it up; use init of a module, or --init_param"),
}


def settle(args: argparse.Namespace) -> None:
    """Make parsed options mean what they say, before a model is built; ``args`` are changed.

    Raises:
        ConfigError: options that would have no effect, or another one than they say.
    """
    faults = [
        f"{name}: {getattr(args, name)!r} would have no effect: {cure}"
        for name, (none, cure) in USELESS.items()
        if getattr(args, name, none) != none
    ]
    faults += _precision(args)
    for name in ("optim", "scheduler"):
        faults += _conf(args, name)
    if getattr(args, "ngpu", 0) > 1:  # in a process of its own, each GPU is one
        cure = "--multiprocessing_distributed true gives each its own"
        faults.append(f"ngpu: {args.ngpu} GPUs in one process would see their part of the data only; {cure}")
    for spec in getattr(args, "init_param", None) or []:
        faults += _init_param(spec)
    if faults:
        raise ConfigError(faults)


def _precision(args: argparse.Namespace) -> list[str]:
    """``use_amp`` chooses what ``amp_dtype`` does not; losses are scaled where the numbers are too coarse for them."""
    chosen = args.amp_dtype = getattr(args, "amp_dtype", None) or "none"  # ESPnet-EZ makes None of "none"
    if chosen not in AMP:
        return [f"amp_dtype: {chosen!r} is not one of {', '.join(AMP)}{nearest(chosen, AMP)}"]
    gpu = getattr(args, "ngpu", 0) > 0
    if getattr(args, "use_amp", False) and chosen == "none":
        args.amp_dtype = "bf16" if not gpu or torch.cuda.is_bf16_supported() else "fp16"
        logging.info("use_amp: amp_dtype %s", args.amp_dtype)
    # ESPnet's use_amp is what scales losses, and that is for fp16 on a GPU alone.
    args.use_amp = gpu and args.amp_dtype == "fp16"
    return []


def _conf(args: argparse.Namespace, name: str) -> list[str]:
    """Faults of ``optim_conf`` or ``scheduler_conf``; YAML 1.1 reads 1e-3 as a text, which is cured here."""
    kind, conf = getattr(args, name, None), getattr(args, f"{name}_conf", None)
    if not isinstance(conf, dict):
        return [f"{name}_conf: must be a mapping, found {conf!r}"] if conf is not None else []
    numbers = {key: number(value) for key, value in conf.items()}
    setattr(args, f"{name}_conf", numbers)
    classes = getattr(load("espnet2.tasks.abs_task"), f"{name}_classes")
    if kind is None:
        if conf:  # no fault: a config that has both may be run with `--scheduler none`
            logging.warning("%s_conf has no effect without %s: one of %s", name, name, ", ".join(classes))
        return []
    if kind not in classes:
        return [f"{name}: {kind!r} is not one of {', '.join(classes)}{nearest(kind, classes)}"]
    known = inspect.signature(classes[kind]).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return []
    names = list(known)[1:]  # behind the parameters, or the optimizer
    return [f"{name}_conf: {kind} has no {key!r}{nearest(key, names)}" for key in numbers if key not in names]


def number(value: Any) -> Any:
    """``"1e-3"`` to 0.001, in lists too; all else as it is."""
    if isinstance(value, (list, tuple)):
        return [number(v) for v in value]
    if not isinstance(value, str) or not any(c.isdigit() for c in value):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _init_param(spec: str) -> list[str]:
    """Faults of FILE:SOURCE:TARGET:EXCLUDED; ESPnet loads nothing, without a word, where no name begins so."""
    path, source, _, excluded, *_ = [*spec.split(":", 4), "", "", ""]
    if not Path(path).is_file():
        return [f"init_param: {path}: no such file"]
    names = list(read_checkpoint(Path(path)))
    wanted = [("takes", source)] + [("excludes", part) for part in excluded.split(",")]
    known = _prefixes(names)
    return [
        f"init_param: {spec}: {what} {part!r}, but no tensor of {path} is called so{nearest(part, known)}"
        for what, part in wanted
        if part and not any(name.startswith(part) for name in names)
    ]


def _prefixes(names: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        words = name.split(".")
        found.update({".".join(words[:n]): None for n in range(1, len(words) + 1)})
    return list(found)


def freeze_params(args: argparse.Namespace, model: torch.nn.Module) -> None:
    """``freeze_param`` by the names of modules and their parts, or of ESPnet's; a name without a tensor is a fault.

    Raises:
        ConfigError: names that freeze nothing.
    """
    known = _prefixes(name for name, _ in model.named_parameters())
    faults, names = [], []
    for word in getattr(args, "freeze_param", None) or []:
        full = next((head + word for head in ("", "chain.mods.", "chain.") if head + word in known), None)
        if full is None:
            short = [name.removeprefix("chain.mods.") for name in known if name.startswith("chain.mods.")]
            faults.append(f"freeze_param: no module or part is called {word!r}{nearest(word, short)}")
        names.append(full or word)
    if faults:
        raise ConfigError(faults)
    args.freeze_param = names
