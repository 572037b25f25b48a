"""The chains of a recipe's configurations in tiny: the same modules, vocabularies and length control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from espnet2_legonn.files.configs import read_config

# Options of run.sh, and of a script of compositions, for trainings that last seconds.
AVERAGE = "--average_window 2 --average_candidates 1"
STAGES = ("--nj", "1", "--inference_nj", "1", *AVERAGE.split())
COMPOSE = ("--nj", "1", "--train_opts", AVERAGE)
BODY = {"num_blocks": 1, "size": 16, "heads": 2, "linear_units": 32}
TRAINING: dict[str, Any] = {
    "batch_bins": 800,
    "accum_grad": 1,
    "num_iters_per_epoch": 4,
    "max_epoch": 2,
    "keep_nbest_models": 3,
    "amp_dtype": "none",
    "num_workers": 0,
    "use_tensorboard": False,
    "scheduler_conf": {"warmup_steps": 10, "init_lr": 1.0e-8},
}


def tiny(recipe: Path, *systems: str, folder: str = "conf_tiny") -> str:
    """``conf_tiny/train_<system>.yaml`` in a recipe's folder; the folder's name."""
    (recipe / folder).mkdir()
    for name in [f"train_{system}" for system in systems]:
        data = read_config(recipe / "conf" / f"{name}.yaml")
        for module in data["modules"]:
            module["body"].update(BODY)
            if "num_blocks" in module["input"]:
                module["input"]["num_blocks"] = 1
            if module["input"]["type"] == "beam_conv":
                module["input"].update(k=5, embed_size=8)
            if "length_control" in module:
                module["length_control"]["num_blocks"] = 1
        write(recipe / folder / f"{name}.yaml", {**data, **TRAINING})
    return folder


def write(path: Path, data: dict[str, Any]) -> None:
    """A configuration."""
    path.write_text(yaml.safe_dump(data, sort_keys=False))
