"""Plain data from YAML to dataclasses, with all faults at once and the nearest valid name for each mistyped one."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from espnet2_legonn.errors import SHOWN, ConfigError

# Far beyond honest files: 250 000 tokens written out are 4 MB. A value costs the reader some 400 bytes.
MAX_YAML_BYTES, MAX_VALUES, MAX_DEPTH, MAX_NUMBER = 16 << 20, 500_000, 50, 100
MAX_SHOWN = 200  # characters of a value in a message
MAX_COMPARED, MAX_KNOWN = 50, 5000  # characters of a name, and names, that a mistyped one is compared with
_NUMBER = re.compile(r"[-+.]?(0[xXbo][0-9a-fA-F_]+|[0-9][-+0-9._:eE]*)")
_YAML = "tag:yaml.org,2002:"
_TEXT = {None, "!", _YAML + "str"}
_TAGS = _TEXT | {_YAML + name for name in ("int", "float", "bool", "null", "map", "seq")}


# Metadata of a field that takes the keys of its mapping that no other field has: who knows them checks them later.
REST = "rest"


def key_of(spec: dataclasses.Field) -> str:
    """The name of a field in YAML: ``metadata={"key": ...}`` where Python keeps the word for itself."""
    return spec.metadata.get("key", spec.name)


def to_plain(value: Any) -> Any:
    """What ``Reader.build`` read, back to mappings, lists and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        data: dict[str, Any] = {}
        for spec in dataclasses.fields(value):
            inner = to_plain(getattr(value, spec.name))
            data |= inner if spec.metadata.get(REST) else {key_of(spec): inner}
        return data
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return {k: to_plain(v) for k, v in value.items()} if isinstance(value, dict) else value


class Reader:
    """Turns plain data into the dataclasses, collecting faults as it goes."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def fault(self, where: str, message: str) -> None:
        """Note a fault; reading goes on."""
        self.faults.append(f"{where}: {message}")

    def choose(self, table: Mapping[str, type], value: Any, where: str, default: str | None = None) -> Any:
        """A dataclass named by the entry's ``type``."""
        if not isinstance(value, dict):
            return self.fault(where, f"must be a mapping with type: {' | '.join(table)}, found {shown(value)}")
        kind = value.get("type", default)
        if not isinstance(kind, str) or kind not in table:
            more = nearest(kind, table) or getattr(table, "missing", "")
            return self.fault(where, f"type {shown(kind)} is not one of {', '.join(table)}{more}")
        return self.build(table[kind], value, where)

    def build(self, cls: type, value: Any, where: str) -> Any:
        """A dataclass from a mapping; unknown and missing keys are faults."""
        if not isinstance(value, dict):
            return self.fault(where, f"must be a mapping, found {shown(value)}")
        hints, fields = _keys(cls)
        rest = next((name for name, spec in fields.items() if spec.metadata.get(REST)), None)
        if rest is not None:
            own = {key: v for key, v in value.items() if key in fields and key != rest}
            value = {**own, rest: {key: v for key, v in value.items() if key not in own}}
        for key in value:
            if key not in fields:
                hint = nearest(key, fields) if len(self.faults) < SHOWN else ""  # it takes time, nobody reads more
                self.fault(where, f"unknown key {shown(key)}{hint}; known: {', '.join(fields)}")
        given = {}
        for name, spec in fields.items():
            if name in value:
                given[spec.name] = self.coerce(hints[spec.name], value[name], f"{where}.{name}")
            elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
                self.fault(where, f"key {name!r} is missing")
                given[spec.name] = None
        return cls(**given)

    def coerce(self, hint: Any, value: Any, where: str) -> Any:
        """Check one value against its type; YAML 1.1 reads ``1e-3`` as a string, which is cured here."""
        if hint is Any:
            return value
        options = (
            typing.get_args(hint)
            if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
            else (hint,)
        )
        if value is None and type(None) in options:
            return None
        for option in options:
            if dataclasses.is_dataclass(option) and isinstance(option, type):
                if isinstance(value, dict) or set(options) <= {option, type(None)}:
                    return self.build(option, value, where)
            if option is bool and isinstance(value, bool):
                return value
            if option is int and isinstance(value, int) and not isinstance(value, bool):
                return value
            if option is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
                number = None if isinstance(value, str) and str in options else _finite(value)
                if number is not None:
                    return number
            if option is str and isinstance(value, str):
                return value
            if typing.get_origin(option) is list and isinstance(value, (list, tuple)):
                return [self.coerce(typing.get_args(option)[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
            if typing.get_origin(option) is dict and isinstance(value, dict):
                for key in value:
                    if not isinstance(key, str):
                        self.fault(where, f"key {shown(key)} is no string; quote it")
                return {str(k): self.coerce(typing.get_args(option)[1], v, f"{where}.{k}") for k, v in value.items()}
        names = ["mapping" if dataclasses.is_dataclass(o) else getattr(o, "__name__", str(o)) for o in options]
        return self.fault(where, f"must be {' or '.join(n for n in names if n != 'NoneType')}, found {shown(value)}")


@functools.cache
def _keys(cls: type) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]]]:
    """Types and fields of a dataclass by name; working out the types takes most of the time of reading an index."""
    return typing.get_type_hints(cls), {key_of(f): f for f in dataclasses.fields(cls)}


def _finite(value: float | str) -> float | None:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def excess(value: Any, most: float) -> str | None:
    """What is wrong with numbers, alone or in a list, that would fill the memory or take for ever."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, (int, float)) and abs(number) > most:
            return f"{number} is more than {most}"
    return None


def shown(value: Any) -> str:
    """A value in a message, cut to a length that can be read."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def nearest(word: Any, known: Any) -> str:
    """`` (did you mean 'x'?)`` for a mistyped word, or nothing."""
    # Comparing takes time by the square of their lengths, for each of them.
    names = [str(k)[:MAX_COMPARED] for k in itertools.islice(known, MAX_KNOWN)]
    close = difflib.get_close_matches(str(word)[:MAX_COMPARED], names, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


@dataclass
class _Open:
    """A list or mapping that is being read: its values so far, each alias counted as what it stands for."""

    anchor: str | None = None
    mapping: bool = False
    children: int = 0
    values: int = 1
    keys: set[str] = field(default_factory=set)


def _inspect(text: str, loader: Any) -> str | None:
    """What forbids reading this YAML, from its events alone: they nest no calls and build no values.

    The loader itself would crash on deep nesting, and readers walk what aliases stand for again and again.
    """
    stack, anchors = [_Open()], dict[str, int | None]()
    for event in yaml.parse(text, Loader=loader):
        above, line = stack[-1], f"line {event.start_mark.line + 1 if event.start_mark else 0}"
        if isinstance(event, yaml.CollectionEndEvent):
            done = stack.pop()
            stack[-1].values += done.values
            if done.anchor:
                anchors[done.anchor] = done.values
        elif isinstance(event, yaml.NodeEvent):
            above.children += 1
            if isinstance(event, yaml.AliasEvent):
                size = anchors.get(str(event.anchor), 0)
                if size is None:
                    return f"{line}: *{event.anchor} stands inside itself"
                above.values += size
                continue
            assert isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
            if event.tag not in _TAGS:
                return f"{line}: tag {event.tag} is not plain data"
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
                anchors |= {event.anchor: None} if event.anchor else {}
            else:
                above.values += 1
                anchors |= {event.anchor: 1} if event.anchor else {}
                if fault := _scalar_fault(event, above):
                    return f"{line}: {fault}"
        if len(stack) > MAX_DEPTH:
            return f"{line}: nested more than {MAX_DEPTH} deep"
        if stack[-1].values > MAX_VALUES:
            return f"{line}: more than {MAX_VALUES} values, aliases counted as what they stand for"
    return None


def _scalar_fault(event: yaml.ScalarEvent, above: _Open) -> str | None:
    if above.mapping and above.children % 2:
        if event.value in above.keys:
            return f"key {shown(event.value)} stands there twice"
        above.keys.add(event.value)
    # Plain words become numbers by their looks, others by their tag; base 60 takes hours for a long one.
    is_number = _NUMBER.fullmatch(event.value) if event.implicit[0] else event.tag not in _TEXT
    if is_number and len(event.value) > MAX_NUMBER:
        return f"a number of {len(event.value)} characters"
    return None


def read_yaml(path: str | Path, max_bytes: int = MAX_YAML_BYTES) -> Any:
    """Plain data from YAML that may come from anybody; time and memory are bounded, no tag makes an object.

    The C loader is used: a 41k token list takes 0.4 s instead of 3 s.

    Raises:
        ConfigError: the file is missing, no YAML, or absurd; the file and line are named.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with open(path, "rb") as f:
            content = f.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ConfigError(f"{path}: more than {max_bytes} bytes; no honest file of its kind is that long")
        text = content.decode("utf-8")
        if fault := _inspect(text, loader):
            raise ConfigError(f"{path}: {fault}; refused")
        return yaml.load(text, Loader=loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    except ConfigError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # what PyYAML makes of `!!int x`, 2001-99-99
        raise ConfigError(f"{path}: not YAML: a value is not what its form says ({error})") from None
