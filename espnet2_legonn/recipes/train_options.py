"""Options of asr.sh that become options of training: weights to begin with, and a training set in parts."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.errors import ConfigError, LegoNNError
from espnet2_legonn.model.description import ChainConfig
from espnet2_legonn.recipes.jobs import module


def pretrained(config: ChainConfig, model: str, ignore_mismatch: bool = False) -> list[str]:
    """Training options for weights to begin with.

    Args:
        model: ``FILE.pth[:source[:target[:left out]]]``, ESPnet's ``--init_param``; or an experiment, a pack, a URL, a
            name of an inventory: modules of this chain that it has begin with its weights, by name.
        ignore_mismatch: of FILE.pth, leave what has another shape. Of a pack it is always left, and named in the log.

    Raises:
        ConfigError: a pack has no module of this chain's.
    """
    file = Path(model.partition(":")[0])
    if file.suffix == ".pth":
        if not file.is_file():
            raise ConfigError(f"pretrained_model: {file}: no such file")
        return ["--init_param", model, "--ignore_init_mismatch", str(ignore_mismatch).lower()]
    from espnet2_legonn.inference.legonn import LegoNN

    theirs = LegoNN.from_pretrained(model).names
    ours = [m.name for m in config.modules]
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise ConfigError(
            f"pretrained_model: {model} has the modules {', '.join(theirs)}, the chain has {', '.join(ours)}; "
            f"name them in the config: init: {model}#{theirs[0]}"
        )
    return [word for name in shared for word in ("--modules_conf", f"{name}.init={model}#{name}")]


def in_parts(options: Sequence[str], stats_dir: Path, number: int) -> list[str]:
    """Options of training with the training set in so many parts, one read after the other: ``num_splits`` of asr.sh.

    ESPnet's ``split_scps`` writes the parts beside the shapes: ``<stats_dir>/train/<table>.split<number>``.

    Raises:
        LegoNNError: tables that cannot be split.
    """
    if number <= 1:
        return list(options)
    folder, split = stats_dir / "train", list(options)
    tables: list[str] = []
    for place, word in enumerate(options[:-1]):
        if word in ("--train_data_path_and_name_and_type", "--train_shape_file"):
            path, *rest = options[place + 1].split(",")
            tables.append(path)
            split[place + 1] = ",".join([str(folder / f"{Path(path).name}.split{number}"), *rest])
    names = [f"{Path(path).name}.split{number}" for path in tables]
    command = module("espnet2.bin.split_scps", "--scps", *tables, "--names", *names)
    command += ["--num_splits", str(number), "--output_dir", str(folder), "--log_level", "WARNING"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LegoNNError(f"num_splits {number}: {done.stderr.strip().splitlines()[-1]}")
    return [*split, "--multiple_iterator", "true"]
