"""Archives in the shape of ``espnet2.bin.pack``: meta.yaml says which file is the config and which the weights."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import yaml

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.files.schema import read_yaml

META = "meta.yaml"


def about(config: str, weights: str, task: str) -> str:
    """meta.yaml of a pack: ESPnet's own ``unpack`` gives what ``Speech2Text`` and ``Text2Text`` are called with.

    The config is a plain file there: ESPnet would write places of this machine into what it calls YAML files, and the
    pack would not be what its card says.
    """
    files = {f"{task}_train_config": config, f"{task}_model_file": weights}
    return yaml.safe_dump({"files": files, "yaml_files": {}}, sort_keys=False)


def locate(folder: Path) -> tuple[Path, Path] | None:
    """Config and weights of an unpacked ESPnet archive of our task; None if it is no such archive.

    Raises:
        CheckpointError: meta.yaml names files that are not there, or that lie outside.
    """
    path = folder / META
    if not path.is_file():
        return None
    meta = read_yaml(path)
    tables = [meta.get(key) if isinstance(meta, dict) else None for key in ("yaml_files", "files")]
    if not all(isinstance(table, dict) for table in tables):
        raise CheckpointError(f"{path}: no archive of espnet2.bin.pack (needs files and yaml_files)")
    if not tables[0]:
        return None  # of a pack of ours, see ``about``
    found = []
    for table, suffix in zip(tables, ("_train_config", "_model_file")):
        assert isinstance(table, dict)
        names = [value for key, value in table.items() if str(key).endswith(suffix) and "lm_" not in str(key)]
        if len(names) != 1 or not isinstance(names[0], str):
            raise CheckpointError(f"{path}: one entry ...{suffix} is needed, found {len(names)}")
        # ESPnet stores absolute paths of files outside the packer's working folder, without their leading slash.
        inside = PurePosixPath(names[0].lstrip("/"))
        if ".." in inside.parts or not (folder / inside).is_file():
            raise CheckpointError(f"{path}: {names[0]} is not in the archive")
        found.append(folder / inside)
    return found[0], found[1]
