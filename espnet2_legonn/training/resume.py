"""What a training finds in its folder: nothing, what it goes on from, or what it must not write over."""

from __future__ import annotations

import argparse
import filecmp
import json
import logging
from pathlib import Path
from typing import Any

import yaml

from espnet2_legonn.data.vocabulary import read_tokens
from espnet2_legonn.errors import CheckpointError, ConfigError, DataError, LegoNNError
from espnet2_legonn.files.schema import read_yaml
from espnet2_legonn.files.scratch import whole
from espnet2_legonn.model.description import override, parse_ratio
from espnet2_legonn.packs import store
from espnet2_legonn.packs.store import CHECKPOINT
from espnet2_legonn.training.averaging import epochs_in

# Slots for each input step as they were derived when the training began.
RATIOS = "ratios.yaml"
# The checkpoint has the state of these and wins: another value would be read and ignored.
IN_CHECKPOINT = ("optim", "optim_conf", "scheduler", "scheduler_conf", "exclude_weight_decay")
# These take effect from now on, and the result is that of neither value alone.
IN_EFFECT = (
    "train_data_path_and_name_and_type", "train_shape_file", "valid_data_path_and_name_and_type", "valid_shape_file",
    "batch_type", "batch_size", "batch_bins", "accum_grad", "grad_clip", "num_iters_per_epoch", "seed", "amp_dtype",
    "train_dtype",
)  # fmt: skip


def goes_on(args: argparse.Namespace) -> bool:
    """Whether a training with these options is one that was broken off."""
    return bool(getattr(args, "resume", False)) and (Path(args.output_dir or ".") / CHECKPOINT).is_file()


def prepare(args: argparse.Namespace) -> None:
    """Before a training: look at its folder; what it goes on with is taken over into ``args``.

    Raises:
        CheckpointError: epochs of a training that cannot be gone on with.
        ConfigError: options that a resumed training would ignore, all of them.
    """
    folder = Path(args.output_dir or ".")
    if not goes_on(args):
        _require_no_epochs(folder, bool(getattr(args, "resume", False)))
        return
    kept = _kept_config(folder)
    if getattr(args, "modules_conf", None):
        args.modules = override({"modules": args.modules}, args.modules_conf)["modules"]
        args.modules_conf = {}
    faults = _ignored(args, kept) + _other_vocabs(args, kept, folder) + _keep_ratios(args, kept, folder)
    if faults:
        remedy = f"put it back, or train in another --output_dir, beginning with these weights (init: {folder})"
        raise ConfigError(f"{folder}: {fault}; {remedy}" for fault in faults)
    for key in IN_EFFECT:
        if kept is not None and key in kept and _plain(kept[key]) != _plain(getattr(args, key, None)):
            logging.warning("resumed with another %s: %s, it was %s", key, getattr(args, key, None), kept[key])


def keep_ratios(folder: Path, ratios: dict[str, dict[str, Any]]) -> None:
    """Note what was derived, for ``prepare`` when the training is resumed.

    Args:
        ratios: ``slots_per_token`` and ``ratio`` by module name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / RATIOS) as new:
        new.write_text(yaml.safe_dump(ratios, sort_keys=False), encoding="utf-8")


def _require_no_epochs(folder: Path, resume: bool) -> None:
    epochs = epochs_in(folder)
    if not epochs:
        return
    names = ", ".join(path.name for path in epochs[-3:])
    anew = f"to begin anew, remove them or give another --output_dir (init: {folder} begins with their weights)"
    if not resume:
        raise CheckpointError(f"{folder}: holds a training ({names}); --resume true goes on with it; {anew}")
    raise CheckpointError(f"{folder}: holds {names}, but no {CHECKPOINT} to go on from; put it back, or {anew}")


def _kept_config(folder: Path) -> dict[str, Any] | None:
    """``config.yaml`` of the training that goes on; None where a killed start left none."""
    try:
        kept = read_yaml(folder / store.CONFIG)
    except LegoNNError:
        kept = None
    if isinstance(kept, dict) and isinstance(kept.get("modules"), list):
        return kept
    logging.warning("%s: missing or damaged; options cannot be compared with those before", folder / store.CONFIG)
    return None


def _plain(value: Any) -> Any:
    """As it would come back from YAML."""
    return json.loads(json.dumps(value, default=str, sort_keys=True))


def _ignored(args: argparse.Namespace, kept: dict[str, Any] | None) -> list[str]:
    if kept is None:
        return []
    faults = []
    for key in IN_CHECKPOINT:
        now, before = getattr(args, key, None), kept.get(key)
        if key in kept and _plain(now) != _plain(before):
            faults.append(f"{key} is {now}, it was {before}; {CHECKPOINT} has its state, so this would be ignored")
    rates = {m.get("name"): m.get("lr_scale", 1.0) for m in kept["modules"]}
    for module in args.modules or []:
        name, now = module.get("name"), module.get("lr_scale", 1.0)
        if name in rates and now != rates[name]:
            faults.append(
                f"{name}.lr_scale is {now}, it was {rates[name]}; {CHECKPOINT} has its state, so this would be ignored"
            )
    return faults


def _other_vocabs(args: argparse.Namespace, kept: dict[str, Any] | None, folder: Path) -> list[str]:
    """Vocabularies under the same names whose ids or pieces mean something else."""
    faults = []
    for name, vocab in (args.vocabs or {}).items() if kept is not None else ():
        before = (kept or {}).get("vocabs", {}).get(name)
        if not isinstance(before, dict) or not isinstance(vocab, dict):
            continue
        tokens, model, own = vocab.get("tokens"), vocab.get("bpemodel"), before.get("bpemodel")
        try:
            listed = read_tokens(Path(tokens)) if isinstance(tokens, str) and Path(tokens).is_file() else tokens
        except DataError:
            continue  # told when it is read
        if isinstance(listed, list) and isinstance(before.get("tokens"), list) and listed != before["tokens"]:
            faults.append(f"vocabs.{name}.tokens: other tokens than this training began with")
        if model and own and Path(model).is_file() and (folder / own).is_file():
            if not filecmp.cmp(model, folder / own, shallow=False):
                faults.append(f"vocabs.{name}.bpemodel: another model than this training began with")
    return faults


def _keep_ratios(args: argparse.Namespace, kept: dict[str, Any] | None, folder: Path) -> list[str]:
    """Take over the ratios that were derived; another number of slots is a fault."""
    known = {m.get("name"): m.get("length_control") or {} for m in (kept or {}).get("modules", [])}
    if (folder / RATIOS).is_file():
        derived = read_yaml(folder / RATIOS)
        known.update(derived if isinstance(derived, dict) else {})
    faults = []
    for module in args.modules or []:
        name, control = module.get("name"), module.get("length_control")
        if not isinstance(control, dict):
            continue
        before = known.get(name, {})
        for key in ("slots_per_token", "ratio"):
            now = control.get(key)
            if now is not None and key in before and before[key] is not None and _number(now) != _number(before[key]):
                faults.append(f"{name}.length_control.{key} is {now}, it was {before[key]}")
        if control.get("ratio") is None and control.get("slots_per_token") is not None:
            if before.get("ratio") is None:
                faults.append(f"{name}.length_control: neither {RATIOS} nor {store.CONFIG} has its ratio any more")
            control["ratio"] = before.get("ratio")
    return faults


def _number(value: Any) -> Any:
    try:
        return parse_ratio(value)
    except (ValueError, ZeroDivisionError):
        return value
