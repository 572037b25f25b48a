"""Every import of ESPnet's goes through here: the layout of its versions, and what it prints while importing."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch


def load(name: str) -> ModuleType:
    """Import a module of ESPnet's by its name of release 202511.

    Releases after 202511 keep ``espnet.*`` as ``espnet2.legacy.*``. What ESPnet prints to stdout while importing
    (a notice about flash attention) is swallowed: it would end up in configurations printed by --print_config.

    Raises:
        ImportError: ESPnet is not installed; the message says how to install it.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if name.startswith("espnet.") and error.name and error.name.startswith("espnet"):
                return importlib.import_module("espnet2.legacy." + name.removeprefix("espnet."))
            if error.name in ("espnet2", "espnet"):
                raise ImportError(
                    "training needs ESPnet: run `make setup`, or pip install 'espnet2_legonn[train]'"
                ) from None
            raise


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
    """``torch.save`` that never leaves half a file under the final name: ESPnet writes checkpoints in place."""

    def wrapped(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            save(obj, f, *args, **kwargs)
            return
        path = Path(f)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        try:
            save(obj, temporary, *args, **kwargs)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    return wrapped


def safe_checkpoints() -> contextlib.AbstractContextManager[None]:
    """While this is open, checkpoints appear whole or not at all."""
    return patched(torch, save=atomic_save(torch.save))
