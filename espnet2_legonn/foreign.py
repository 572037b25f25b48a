"""Packages that are imported only when something of theirs is wanted: ESPnet, transformers and peft."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from types import ModuleType
from typing import Any


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
                return load("espnet2.legacy." + name.removeprefix("espnet."))
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


def transformers() -> ModuleType:
    """Hugging Face's package.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        lib = importlib.import_module("transformers")
        lib.utils.logging.disable_progress_bar()  # of every tensor that is read
        return lib
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ImportError("transformers is not installed: pip install 'espnet2_legonn[pretrained]'") from None


def peft() -> ModuleType:
    """Hugging Face's LoRA.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module("peft")
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise ImportError("peft is not installed: pip install 'espnet2_legonn[lora]'") from None
