"""Every import of ESPnet's goes through here: the layout of its versions, and what it prints while importing."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.files.scratch import whole
from espnet2_legonn.packs.store import read_checkpoint


class _Muted(io.TextIOBase):
    """Silent until closed, then whatever stdout is."""

    muted = True

    def __exit__(self, *_: object) -> None:
        self.muted = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text) if self.muted else sys.stdout.write(text)

    def flush(self) -> None:
        if not self.muted:
            sys.stdout.flush()


def load(name: str) -> ModuleType:
    """Import a module of ESPnet's by its name of release 202511.

    Releases after 202511 keep ``espnet.*`` as ``espnet2.legacy.*``. What ESPnet prints to stdout while importing
    (a notice about flash attention) is swallowed: it would end up in configurations printed by --print_config. Those
    go to what ESPnet takes for stdout while importing, so that stream passes on whatever comes later.

    Raises:
        ImportError: ESPnet is not installed; the message says how to install it.
    """
    stream = _Muted()
    with contextlib.redirect_stdout(stream), stream:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if name.startswith("espnet.") and error.name and error.name.startswith("espnet"):
                return importlib.import_module("espnet2.legacy." + name.removeprefix("espnet."))
            if error.name in ("espnet2", "espnet"):
                raise ImportError(
                    "training needs ESPnet: run `make setup`, or pip install 'espnet2_legonn[train]'"
                ) from None
            if error.name in LEFT_OUT:
                sys.modules[error.name] = _Absent(error.name)
                return load(name)
            raise


# What set-up leaves out (CONTRIBUTING.md). ESPnet imports them at the top of modules that decode, too.
LEFT_OUT = ("ci_sdr", "pyworld")


class _Absent(ModuleType):
    """Stands in for a package that is not installed, until something of it is wanted."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(f"{self.__name__} is not installed: pip install {self.__name__}")


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
