"""Configurations that share what they have in common: ``defaults`` names files, ``definitions`` describes modules.

``defaults: [FILE, ...]`` (relative to the file that says so) is read first. Mappings are merged key by key, anything
else is replaced. A later file wins over an earlier one, and the file itself wins over all of them. A file that is named
twice, here or in inherited files, is merged once, at its first place.

``definitions`` has ``modules`` and ``vocabs`` by name. Where ``modules`` of the merged result lists names, their
descriptions are taken from there, with the vocabularies that they use. Neither key is left in the result.

python -m espnet2_legonn.files.configs FILE    prints the whole configuration
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from espnet2_legonn.errors import ConfigError, command
from espnet2_legonn.files.schema import Reader, nearest, read_yaml

DEFAULTS, DEFINITIONS = "defaults", "definitions"


@dataclass
class Definitions:
    """Modules and vocabularies that configurations choose from."""

    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    vocabs: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_config(path: str | Path) -> Any:
    """A configuration with all that it takes from other files.

    Raises:
        ConfigError: a file is missing or no YAML, files name each other in a circle (with file and line), or a module
            is not defined.
    """
    merged: Any = None
    for _, layer in _layers(Path(path), (), set()):
        merged = _merge(merged, layer)
    if not isinstance(merged, dict):
        return merged
    merged.pop(DEFAULTS, None)
    return _with_definitions(merged, path) if DEFINITIONS in merged else merged


def sources(path: str | Path) -> list[Path]:
    """The files of a configuration, in the order of reading; the file itself is the last one.

    Raises:
        ConfigError: as ``read_config``.
    """
    return [file for file, _ in _layers(Path(path), (), set())]


def files_of(word: str | Path) -> list[Path]:
    """The files behind a word of a command line: those of a configuration, or the word itself."""
    path = Path(word)
    return sources(path) if path.suffix in (".yaml", ".yml") and path.is_file() else [path]


def _layers(path: Path, above: tuple[Path, ...], done: set[Path]) -> Iterator[tuple[Path, Any]]:
    """Files and their content. A later one wins.

    Args:
        above: files that are being read, the one that names ``path`` last.
        done: files that were named before. It grows.
    """
    data = read_yaml(path)
    names = data.get(DEFAULTS, []) if isinstance(data, dict) else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}:{_line(path, 0)}: {DEFAULTS}: must be a list of files")
    reading = (*above, path.resolve())
    for number, name in enumerate(names):
        inherited = path.parent / name
        if inherited.resolve() in reading:
            circle = [*reading[reading.index(inherited.resolve()) :], inherited]
            raise ConfigError(f"{_place(path, number, name)}: a circle: {' -> '.join(file.name for file in circle)}")
        if not inherited.is_file():
            raise ConfigError(f"{_place(path, number, name)}: no such file: {inherited}")
        if inherited.resolve() in done:
            continue
        done.add(inherited.resolve())
        for file, layer in _layers(inherited, reading, done):
            if not isinstance(layer, dict):
                raise ConfigError(f"{file}: must be a mapping of options ({_place(path, number, name)})")
            yield file, layer
    yield path, data


def _place(path: Path, number: int, name: str) -> str:
    """Where an entry of ``defaults`` stands, for its faults: to find the line, the file is read once more."""
    return f"{path}:{_line(path, number)}: {DEFAULTS}: {name}"


def _line(path: Path, number: int) -> int:
    """The line of an entry of ``defaults``."""
    root: Any = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    node = next((value for key, value in root.value if key.value == DEFAULTS), root)  # it may come by an alias
    if isinstance(node, yaml.SequenceNode) and number < len(node.value):
        node = node.value[number]
    return int(node.start_mark.line) + 1


def _merge(below: Any, above: Any) -> Any:
    """Always new lists and mappings: what YAML names by an alias can be changed in one place."""
    if isinstance(above, dict):
        kept = below if isinstance(below, dict) else {}
        return {**kept, **{key: _merge(kept.get(key), value) for key, value in above.items()}}
    return [_merge(None, value) for value in above] if isinstance(above, list) else above


def _with_definitions(data: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """The configuration with modules in place of their names, and their vocabularies."""
    reader = Reader()
    defined = reader.build(Definitions, data.pop(DEFINITIONS), f"{path}: {DEFINITIONS}")
    listed = data["modules"] if isinstance(data.get("modules"), list) else []
    names = [m for m in listed if isinstance(m, str)]
    for name in names if not reader.faults else ():
        if name not in defined.modules:
            reader.fault(f"{path}: modules", f"{name!r} is not among the {DEFINITIONS}{nearest(name, defined.modules)}")
    if reader.faults:
        raise ConfigError(reader.faults)
    if names:
        data["modules"] = [_merge(None, defined.modules[m]) if isinstance(m, str) else m for m in listed]
        used = set(_named(data["modules"]))
        vocabs = {name: vocab for name, vocab in defined.vocabs.items() if name in used}
        data["vocabs"] = _merge(vocabs, data.get("vocabs") or {})
    return data


def _named(value: Any) -> Iterator[str]:
    """Names of vocabularies in descriptions of modules."""
    if isinstance(value, list):
        for item in value:
            yield from _named(item)
    for key, item in value.items() if isinstance(value, dict) else ():
        if key == "vocab" and isinstance(item, str):
            yield item
        else:
            yield from _named(item)


@command
def main(argv: list[str] | None = None) -> None:
    """Print the whole configuration."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 1:
        raise ConfigError("python -m espnet2_legonn.files.configs FILE")
    yaml.safe_dump(read_config(argv[0]), sys.stdout, sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    sys.exit(main())
