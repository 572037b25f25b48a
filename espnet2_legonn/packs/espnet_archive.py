"""Archives in the shape of ``espnet2.bin.pack``: meta.yaml says which file is the config and which the weights."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.files.schema import read_yaml

META = "meta.yaml"


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
