"""Options that several commands of ``legonn`` have, looked at once, before anything is loaded."""

from __future__ import annotations

import argparse

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.output import output_faults


def require_options(args: argparse.Namespace) -> None:
    """Refuse what no command can use.

    Args:
        args: of a command. Of its options ``batch_size``, ``limit``, ``device``, ``out`` (a folder) and ``out_file``
            are looked at.

    Raises:
        ConfigError: all that is wrong.
    """
    faults = []
    for name in ("batch_size", "limit"):
        value = getattr(args, name, None)
        if value is not None and value < 1:
            faults.append(f"{name}: {value} is less than 1")
    device = getattr(args, "device", "cpu")
    if device != "cpu" and getattr(args, "backend", "torch") == "torch":
        from espnet2_legonn.inference.legonn import device_faults  # loads PyTorch, as these commands do anyway

        faults += device_faults(device)
    for name in ("out", "out_file"):
        if (place := getattr(args, name, None)) is not None:
            faults += output_faults(place, folder=name == "out")
    if faults:
        raise ConfigError(faults)
