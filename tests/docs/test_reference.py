"""conf/reference.yaml shows every key of the schema, is valid as it stands, and so is every alternative in it."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn.files.schema import key_of, read_yaml
from espnet2_legonn.model import description as config
from espnet2_legonn.model import parts, transformer
from espnet2_legonn.model.description import parse
from espnet2_legonn.model.parts.frames import MaskPolicy
from tests.docs.pages import ROOT

PATH = ROOT / "conf/reference.yaml"
TEXT = PATH.read_text(encoding="utf-8")
SCHEMA = [
    value
    for name, value in {**vars(config), **vars(parts), **vars(transformer), "MaskPolicy": MaskPolicy}.items()
    if isinstance(value, type) and dataclasses.is_dataclass(value) and name.endswith(("Config", "Policy"))
]
OR = re.compile(r"^  # or (\w+): (.*?)(?:   # .*)?$")


def chain_data() -> dict[str, Any]:
    data = read_yaml(PATH)
    return {key: data[key] for key in ("vocabs", "modules")}


def alternatives() -> list[tuple[str, str, Any]]:
    """(module, key, value) of the lines that begin with "# or"."""
    found, module = [], ""
    for line in TEXT.splitlines():
        if line.startswith("- name: "):
            module = line.removeprefix("- name: ").split("#")[0].strip()
        elif match := OR.match(line):
            found.append((module, match[1], yaml.safe_load(match[2])))
    return found


def changed(data: dict[str, Any], module: str, key: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(data)
    next(m for m in data["modules"] if m["name"] == module)[key] = value
    return data


def test_the_reference_is_a_valid_chain() -> None:
    chain = parse(chain_data())
    assert [m.name for m in chain.modules] == ["phoneme_recognizer", "pronunciation", "decoder"]


def test_every_alternative_is_valid() -> None:
    data, states = chain_data(), chain_data()
    found = alternatives()
    assert len(found) >= 7
    for module, key, value in found:
        if isinstance(value, dict) and value.get("type") == "states":  # both sides of a joint change together
            states = changed(states, module, key, value)
        else:
            parse(changed(data, module, key, value))
    assert states != data
    parse(states)


@pytest.mark.parametrize("cls", SCHEMA, ids=lambda c: c.__name__)
def test_every_key_appears_with_its_meaning(cls: type) -> None:
    """In the place where it belongs, or in an alternative for that place."""
    found = alternatives()
    shown = {id(node): node for node in _mappings(chain_data())}
    shown |= {id(node): node for _, _, value in found for node in _mappings(value)}
    names = {key_of(f) for f in dataclasses.fields(cls)}
    kinds = {f.default for f in dataclasses.fields(cls) if f.name == "type"}
    own = [m for m in shown.values() if set(m) <= names and (not kinds or m.get("type") in kinds or "type" not in m)]
    missing = names - {key for mapping in own for key in mapping}
    # BeamConv shares these with WEmb, where each has its comment.
    missing -= {"collapse", "attention_dropout", "references"} if cls is parts.BeamConvConfig else set()
    assert not missing, f"conf/reference.yaml: no {', '.join(sorted(missing))} of {cls.__name__}"


def _mappings(value: Any) -> list[dict[str, Any]]:
    """All mappings in plain data, at any depth."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    own = [value] if isinstance(value, dict) else []
    return own + [m for part in inner for m in _mappings(part)]


def test_a_missing_key_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass
    class LengthControlConfig(config.LengthControlConfig):
        brand_new: int = 0

    with pytest.raises(AssertionError, match="no brand_new of LengthControlConfig"):
        test_every_key_appears_with_its_meaning(LengthControlConfig)


def test_every_key_written_out_has_a_comment() -> None:
    """Keys on lines of their own say what they mean, at their first appearance."""
    first: dict[str, str] = {}
    for line in TEXT.splitlines():
        if match := re.match(r"^[\s-]*(\w+):", line):
            first.setdefault(match[1], line)
    containers = {"input", "body", "output", "vocabs", "modules", "phn_en", "bpe_en", "word_xx"}
    plain = {
        "num_freq",
        "num_time",
        "seed",
        "ngpu",
        "optim_conf",
        "scheduler_conf",
        "use_tensorboard",
        "use_matplotlib",
    }
    bare = sorted(k for k, line in first.items() if "#" not in line and k not in containers | plain)
    assert len(first) > 50 and not bare, f"no comment: {bare}"


@pytest.mark.slow
def test_training_takes_every_option(tmp_path: Path) -> None:
    from espnet2_legonn.training.task import LegoNNTask

    args = LegoNNTask.get_parser().parse_args(["--config", str(PATH), "--output_dir", str(tmp_path)])
    assert args.scheduler == "tristagelr" and args.amp_dtype == "none" and len(args.modules) == 3
