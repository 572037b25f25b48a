"""Classes by the ``type`` of a description: those of the package, of a user's module and of installed packages."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from espnet2_legonn.errors import ConfigError

ENTRY_POINTS, PLUGINS = "espnet2_legonn.parts", "LEGONN_PLUGINS"
_T = TypeVar("_T")


class Registry(Mapping[str, type[_T]], Generic[_T]):
    """Classes by the ``type`` of descriptions; installed packages are asked for types that are not here."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.known: dict[str, type[_T]] = {}
        # Names that somebody may try, and why there is no such type.
        self.refused: dict[str, str] = {}

    def add(self, name: str) -> Callable[[type[_T]], type[_T]]:
        """Decorator: this class is meant by ``type: name``.

        Raises:
            ConfigError: another class has the name.
        """

        def register(cls: type[_T]) -> type[_T]:
            other = self.known.setdefault(name, cls)
            if other is not cls and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ConfigError(f"{self.what} {name!r}: {cls.__module__} and {other.__module__} both bring one")
            self.known[name] = cls
            return cls

        return register

    def __getitem__(self, name: str) -> type[_T]:
        if name not in self.known and name in self.refused:
            raise ConfigError(f"{self.what} type {name}: {self.refused[name]}")
        if name not in self.known:
            for entry in _entry_points().select(name=name):
                try:
                    entry.load()
                except (ImportError, AttributeError) as error:
                    raise ConfigError(f"entry point {entry.name}: {entry.value} cannot be imported ({error})") from None
        return self.known[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


class Configs(Mapping[str, type]):
    """The dataclasses of descriptions by ``type``.

    ``missing`` tells who misses a type where it may come from.
    """

    missing = f"; a type of your own is known once {PLUGINS} names its Python module"

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def __getitem__(self, name: str) -> type:
        config: type = self.registry[name].Config
        return config

    def __iter__(self) -> Iterator[str]:
        return iter(self.registry)

    def __len__(self) -> int:
        return len(self.registry)


def load_plugins(names: Iterable[str] = ()) -> None:
    """Import the modules that bring parts of a user's own: those named, and those of ``LEGONN_PLUGINS`` (a,b).

    Raises:
        ConfigError: a module cannot be imported.
    """
    for name in [*names, *_named()]:
        try:
            importlib.import_module(name)
        except (ImportError, TypeError, ValueError) as error:  # the last two: what is no name of a module
            raise ConfigError(f"plugin {name}: cannot be imported ({error}); is its folder on PYTHONPATH?") from None


def use_plugins(names: Iterable[str]) -> None:
    """``load_plugins`` of these, here and in all processes that this one starts.

    Raises:
        ConfigError: a module cannot be imported.
    """
    load_plugins(names)
    os.environ[PLUGINS] = ",".join(dict.fromkeys([*_named(), *names]))


def _named() -> list[str]:
    """Modules that the environment names."""
    return list(filter(None, map(str.strip, os.environ.get(PLUGINS, "").split(","))))


@functools.cache
def _entry_points() -> importlib.metadata.EntryPoints:
    """Of installed packages; to look through all of them takes a while."""
    return importlib.metadata.entry_points(group=ENTRY_POINTS)
