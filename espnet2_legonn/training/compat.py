"""What training changes in ESPnet and PyTorch: checkpoints appear whole, and nothing that is read in one runs.

``load`` imports every module of ESPnet's (``foreign.py``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.files.scratch import whole
from espnet2_legonn.foreign import load
from espnet2_legonn.packs.store import read_checkpoint

__all__ = ["atomic_save", "load", "patched", "plain_loads", "safe_checkpoints"]


@contextlib.contextmanager
def patched(module: Any, **replacements: Any) -> Iterator[None]:
    """Replace attributes of a module for a while."""
    originals = {name: getattr(module, name) for name in replacements}
    try:
        for name, value in replacements.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in originals.items():
            setattr(module, name, value)


def atomic_save(save: Callable[..., None]) -> Callable[..., None]:
    """``torch.save`` that never leaves half a file under the final name, nor one that a loss of power would halve.

    ESPnet writes checkpoints in place.
    """

    def wrapped(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            save(obj, f, *args, **kwargs)
            return
        try:
            with whole(Path(f)) as temporary:
                save(obj, temporary, *args, **kwargs)
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
            remedy = "is the disk full? free some and run the same command again, what was there before is kept"
            raise CheckpointError(f"{f}: cannot be written ({str(error).splitlines()[0]}); {remedy}") from error

    return wrapped


_torch_load = torch.load


def _plain_load(f: Any, map_location: Any = None, **kwargs: Any) -> Any:
    """``torch.load`` of plain data, whatever the caller allows: ESPnet's unpickle whatever is there."""
    if isinstance(f, (str, os.PathLike)):
        return read_checkpoint(Path(f), map_location)
    return _torch_load(f, map_location, weights_only=True)


def plain_loads() -> contextlib.AbstractContextManager[None]:
    """While this is open, nothing that ``torch.load`` reads runs."""
    return patched(torch, load=_plain_load)


def safe_checkpoints() -> contextlib.AbstractContextManager[None]:
    """While this is open, checkpoints appear whole or not at all, and nothing that is read in one runs."""
    return patched(torch, save=atomic_save(torch.save), load=_plain_load)
