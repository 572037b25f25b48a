"""The configurations of a speech recipe in tiny, in their places: the same modules and options, a few updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from espnet2_legonn.files.configs import read_config
from tests.corpora.tiny import BODY

TRAINING: dict[str, Any] = {
    "batch_bins": 400000,
    "accum_grad": 1,
    "num_iters_per_epoch": 2,
    "max_epoch": 2,
    "num_workers": 0,
    "use_tensorboard": False,
    "use_matplotlib": False,
}


def shrink(recipe: Path, *names: str) -> None:
    """Overwrite ``conf/<name>.yaml`` in a copy of a recipe, and its search."""
    for name in names:
        path = recipe / "conf" / f"{name}.yaml"
        data = read_config(path)
        for module in data.get("modules", []):
            module["body"].update(BODY)
            if module["input"]["type"] == "speech":
                module["input"]["channels"] = [4, 8]
            if module["input"]["type"] == "beam_conv":
                module["input"].update(k=5, embed_size=8)
            if "num_blocks" in module["input"]:
                module["input"]["num_blocks"] = 1
            if module.get("length_control"):
                # The invented texts say much in little time, in pieces of a letter or two: they need many slots.
                module["length_control"].update(num_blocks=1, ratio="1")
        path.write_text(yaml.safe_dump({**data, **TRAINING}, sort_keys=False))
    (recipe / "conf" / "decode.yaml").write_text("beam_size: 2\nmaxlenratio: -6\nbatch_size: 16\n")
