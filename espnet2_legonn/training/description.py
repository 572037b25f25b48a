"""From ESPnet's arguments to a self-contained description of a chain.

``config.yaml`` is written after ``build_model``, so what is resolved here (token lists inlined, sentencepiece models
copied beside it, length ratios derived from the data) makes it reload by itself.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
from pathlib import Path
from typing import Any

from espnet2_legonn.data.tables import read_rows
from espnet2_legonn.data.vocabulary import read_tokens
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.files.schema import read_yaml
from espnet2_legonn.files.scratch import whole
from espnet2_legonn.model.description import (
    ChainConfig,
    ModuleConfig,
    override,
    parse,
    parse_ratio,
    require_taught,
)
from espnet2_legonn.model.registry import use_plugins
from espnet2_legonn.packs.card import CARD
from espnet2_legonn.training.resume import keep_ratios

VOCAB_FOLDER = "vocabs"


def resolve(args: argparse.Namespace) -> tuple[ChainConfig, Path]:
    """Checked description of the chain, and the folder its files are relative to; ``args`` is updated.

    Raises:
        ConfigError, DataError: everything that is wrong.
    """
    _use_plugins(args)
    if not getattr(args, "modules", None):
        raise ConfigError(
            "no modules: the training config describes the chain under 'modules'; see conf/reference.yaml"
        )
    data = {"vocabs": _beside(args.vocabs or {}, getattr(args, "config", None)), "modules": args.modules}
    if getattr(args, "modules_conf", None):
        data = override(data, args.modules_conf)
        args.modules_conf = {}
    base = Path(getattr(args, "output_dir", None) or ".")
    require_taught(parse(data))  # report faults of the description before touching files
    _require_files(data["vocabs"])
    data["vocabs"] = {name: _self_contained(name, vocab, base) for name, vocab in data["vocabs"].items()}
    config = parse(data)
    if derived := _derive_ratios(args, config, data):
        keep_ratios(base, derived)
    args.vocabs, args.modules = data["vocabs"], data["modules"]
    return config, base


def _use_plugins(args: argparse.Namespace) -> None:
    """Import the modules with parts of the user's own; what came with a pack may name none."""
    named, config = getattr(args, "plugin", None) or [], getattr(args, "config", None)
    named = [named] if isinstance(named, str) else named
    if not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise ConfigError(f"plugin: {named!r} is no list of Python modules")
    if config is not None and (Path(config).parent / CARD).is_file() and (read_yaml(config) or {}).get("plugin"):
        raise ConfigError(f"{config}: a pack's config may not name Python modules (plugin); give --plugin yourself")
    use_plugins(named)


def _beside(vocabs: dict[str, Any], config: str | None) -> dict[str, Any]:
    """Files named in the config of a pack lie beside it, wherever training is started."""
    if config is None:
        return vocabs
    found = {}
    for name, vocab in vocabs.items():
        found[name] = dict(vocab) if isinstance(vocab, dict) else vocab
        for key in ("tokens", "bpemodel") if isinstance(vocab, dict) else ():
            path = vocab.get(key)
            if isinstance(path, str) and not Path(path).is_file() and (Path(config).parent / path).is_file():
                found[name][key] = str(Path(config).parent / path)
    return found


def _require_files(vocabs: dict[str, Any]) -> None:
    faults = []
    for name, vocab in vocabs.items():
        model = vocab.get("bpemodel")
        paths = {"tokens": vocab["tokens"], "bpemodel": None if model == f"{VOCAB_FOLDER}/{name}.model" else model}
        for key, path in paths.items():
            if isinstance(path, str) and not Path(path).is_file():
                faults.append(f"vocabs.{name}.{key}: {path} does not exist; stage 5 of the recipe makes it")
    if faults:
        raise DataError(faults)


def _self_contained(name: str, vocab: dict[str, Any], base: Path) -> dict[str, Any]:
    vocab = dict(vocab)
    if isinstance(vocab["tokens"], str):
        vocab["tokens"] = read_tokens(Path(vocab["tokens"]))
    model = vocab.get("bpemodel")
    kept = f"{VOCAB_FOLDER}/{name}.model"
    if model and model != kept:
        target = base / kept
        if not (target.is_file() and filecmp.cmp(model, target, shallow=False)):
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole(target) as temporary:
                shutil.copyfile(model, temporary)
        vocab["bpemodel"] = kept
    return vocab


def stats_folder(args: argparse.Namespace) -> Path | None:
    """Where stage 10 put the statistics of the training data."""
    shapes = getattr(args, "train_shape_file", None) or []
    return Path(shapes[0]).parent if shapes else None


def total_length(path: Path) -> int:
    """Sum of the first dimension over an ESPnet shape file.

    Raises:
        DataError: the file is missing or a line is no shape.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such shape file; stage 10 makes it")
    total, faults = 0, []
    for number, (key, value) in enumerate(read_rows(path), 1):
        first = value.partition(",")[0]
        if first.isascii() and first.isdigit():
            total += int(first)
        else:
            faults.append(f"{path}:{number}: not a shape: {f'{key} {value}'.strip()!r}")
    if faults:
        raise DataError(faults)
    return total


def _derive_ratios(args: argparse.Namespace, config: ChainConfig, data: dict[str, Any]) -> dict[str, Any]:
    """Turn ``slots_per_token`` into ``ratio`` by the lengths of the training data (DESIGN: two slots per token).

    Returns:
        what was derived, by module name.
    """
    folder = None if getattr(args, "collect_stats", False) else stats_folder(args)
    steps: float | None = None
    derived: dict[str, dict[str, Any]] = {}
    for index, module in enumerate(config.modules):
        control = module.length_control
        if control is None or module.decodes:
            continue
        if control.ratio is None:
            if folder is None and getattr(args, "collect_stats", False):
                control.ratio = 1  # statistics need no slots; nothing is written back
                continue
            if folder is None:
                raise ConfigError(
                    f"{module.name}.length_control: slots_per_token needs --train_shape_file of stage 10, or give ratio"
                )
            if steps is None:
                steps = _input_steps(config.modules, index, folder)
            slots = (control.slots_per_token or 0) * total_length(folder / f"text_{module.name}_shape")
            control.ratio = f"{slots / steps:.4f}"
            derived[module.name] = {"slots_per_token": control.slots_per_token, "ratio": control.ratio}
            data["modules"][index]["length_control"]["ratio"] = control.ratio
            steps = slots
        elif steps is not None:
            steps *= float(parse_ratio(control.ratio))
    return derived


def _input_steps(modules: list[ModuleConfig], index: int, folder: Path) -> float:
    """Input steps of a module over the training data, when no module before it derives its ratio."""
    column = modules[0].reads.data
    if column is None:
        raise ConfigError(f"{modules[0].name}: slots_per_token works for what data directories have; give ratio")
    path = folder / f"{column.name}_shape"
    steps = modules[0].reads.total_steps(modules[0].input, total_length(path), sum(1 for _ in read_rows(path)))
    for module in modules[:index]:
        if module.length_control is not None and module.length_control.ratio is not None:
            steps *= float(parse_ratio(module.length_control.ratio))
    return steps
