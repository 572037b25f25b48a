"""Old names of modules, which keep working for one version: `espnet2_legonn.api` is now `inference.legonn`."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import CodeType, ModuleType

# The readers of corpora are in a checkout's local/, beside the package.
ROOMS = {
    "corpora": "legonn_corpora",
    "lab": "inference",
    "modules": "model",
    "recipe": "recipes",
    "tasks": "training",
    "train": "training",
    "zoo": "packs",
}
MODULES = {
    "_compat": "training.compat",
    "api": "inference.legonn",
    "archive": "files.archive",
    "build": "model.build",
    "chain": "model.chain",
    "compose": "inference.compose",
    "config": "model.description",
    "decode": "inference.decode",
    "inputs": "model.inputs",
    "interface": "model.interface",
    "lab.plot": "inference.plot",
    "lines": "files.lines",
    "modules.attention": "model.attention",
    "modules.ctc": "model.parts.ctc",
    "modules.ingestor": "model.parts.ingestor",
    "modules.length_control": "model.length_control",
    "modules.masks": "model.masks",
    "modules.module": "model.module",
    "modules.position": "model.position",
    "modules.seen": "model.seen",
    "modules.speech_input": "model.parts.speech",
    "modules.token_input": "model.parts.tokens",
    "modules.transformer": "model.transformer",
    "parts": "model.freeze",
    "pieces": "data.pieces",
    "remap": "packs.remap",
    "schema": "files.schema",
    "scoring.glm": "legonn_corpora.glm",
    "scoring.hub5": "legonn_corpora.hub5",
    "scratch": "files.scratch",
    "spm": "data.spm",
    "store": "packs.store",
    "tasks.description": "training.description",
    "tasks.legonn": "training.task",
    "tasks.options": "training.options",
    "tasks.register": "training.register",
    "tasks.resume": "training.resume",
    "tasks.stock": "training.stock",
    "warm": "packs.warm",
}
_HERE = "espnet2_legonn."


def new_name(old: str) -> str | None:
    """Where a module is now, by full names; None if it never had another name."""
    inside = old.removeprefix(_HERE)
    if inside == old:
        return None
    room, dot, rest = inside.partition(".")
    new = MODULES.get(inside) or (ROOMS[room] + dot + rest if room in ROOMS else None)
    return new if new is None or new.startswith("legonn_corpora") else _HERE + new


class _Loader:
    """Hands out the module of the new name; there is one of each."""

    def __init__(self, new: importlib.machinery.ModuleSpec) -> None:
        self.new = new

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.new.name)
        self.own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run under its new name, which it keeps."""
        module.__spec__ = self.own

    def get_code(self, fullname: str) -> CodeType | None:  # for python -m
        get_code = getattr(self.new.loader, "get_code", None)
        return None if get_code is None else get_code(self.new.name)

    def get_source(self, fullname: str) -> str | None:
        return None


class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        new = new_name(fullname)
        found = new and importlib.util.find_spec(new)
        if not new or not found:
            return None
        warnings.warn(f"{fullname} is {new} now; the old name goes with the next version", FutureWarning, stacklevel=2)
        package = fullname.removeprefix(_HERE) in ROOMS
        loader = _Loader(found)  # importlib.abc, which has the class that mypy wants, takes longer than all the rest
        return importlib.machinery.ModuleSpec(fullname, loader, origin=found.origin, is_package=package)  # type: ignore[arg-type]


def install() -> None:
    """Let Python find modules by their old names; before others, which would load a renamed room's files again."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
