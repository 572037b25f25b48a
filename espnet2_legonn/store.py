"""Chains in folders: safetensors weights, safe YAML, no code. Loading is whole or an error by module."""

from __future__ import annotations

import contextlib
import datetime
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from espnet2_legonn.archive import refusal
from espnet2_legonn.build import build_module, least_values, load_vocabs
from espnet2_legonn.chain import Chain
from espnet2_legonn.config import parse as parse_config
from espnet2_legonn.config import plain
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.modules.seen import Seen
from espnet2_legonn.schema import read_yaml

CONFIG, WEIGHTS = "config.yaml", "weights.safetensors"
# The state of ESPnet's reporter: times, and figures as NumPy has them. None of them can do anything.
torch.serialization.add_safe_globals([datetime.timedelta, np.dtype, np.float64(0).__reduce__()[0]])
torch.serialization.add_safe_globals([type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")])
_torch_load = torch.load  # training replaces it by one that asks here
# What an ESPnet experiment offers, best first.
CHECKPOINTS = ("valid.decoded.ave.pth", "train.total_count.ave.pth", "valid.acc.ave.pth", "latest.pth")


def description(chain: Chain, folder: str = "") -> dict:
    """Plain data of a chain; vocabularies refer to files in ``folder``."""
    vocabs = {}
    for name, vocab in chain.vocabs.items():
        vocabs[name] = {
            "tokens": f"{folder}{name}.tokens.txt",
            "unit": vocab.unit,
            "bpemodel": f"{folder}{name}.bpe.model" if vocab.bpemodel else None,
            "language": vocab.language,
            "normalization": vocab.normalization,
        }
    return {"vocabs": vocabs, "modules": [plain(config) for config in chain.configs]}


def write(chain: Chain, folder: Path) -> None:
    """Fill an empty folder with config.yaml, weights.safetensors and the vocabularies."""
    for name, vocab in chain.vocabs.items():
        (folder / f"{name}.tokens.txt").write_text("".join(f"{t}\n" for t in vocab.tokens), encoding="utf-8")
        if vocab.bpemodel:
            (folder / f"{name}.bpe.model").write_bytes(vocab.bpemodel)
    text = yaml.safe_dump(description(chain), sort_keys=False, allow_unicode=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    save_file(unique_tensors(chain), folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it for the owner alone


def unique_tensors(chain: Chain) -> dict[str, torch.Tensor]:
    """State of a chain with each matrix tied within a module once (safetensors keeps no aliases)."""
    seen: set[tuple[str, int]] = set()
    tensors = {}
    for key, tensor in chain.state_dict().items():
        # A module that stands twice in a chain is stored twice: it is built as two.
        place = (key.split(".")[1], tensor.data_ptr())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        tensors[key] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file or of an ESPnet checkpoint, by the names they have in a chain.

    Raises:
        CheckpointError: the file is missing, damaged or holds more than tensors.
    """
    return {name.removeprefix("chain."): tensor for name, tensor in read_tensors(path).items()}


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """As ``read_weights``, by the names they have in the file."""
    path = Path(path)
    if path.suffix == ".safetensors":
        with _telling(path):
            return _plain(load_file(path), path)
    state = read_checkpoint(path)
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: holds no tensors by name; give an <n>epoch.pth, an averaged one or {WEIGHTS}")
    return _plain({str(k): v for k, v in state.items()}, path)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> Any:
    """What a file of ``torch.save`` holds, if it is tensors and plain data: nothing of it runs.

    Raises:
        CheckpointError: the file is missing, damaged or holds more.
    """
    path = Path(path)
    with _telling(path):
        if zipfile.is_zipfile(path):  # torch stores as it is, but would unpack a bomb
            with zipfile.ZipFile(path) as z:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in z.infolist()):
                    raise CheckpointError(f"{path}: compressed inside, which torch never does; refused")
        return _torch_load(path, map_location=map_location, weights_only=True)


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Whatever a file of weights makes its reader raise, with the file and what to do."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights")
    try:
        yield
    except CheckpointError:
        raise
    except PermissionError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: damaged or truncated ({_first_line(error)}); copy it again") from None
    except Exception as error:  # pickle.UnpicklingError: objects other than plain data
        raise CheckpointError(f"{path}: not plain weights: {_first_line(error)}") from None


def _plain(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Tensors that can be copied into a model: dense, in memory, of real numbers."""
    for key, tensor in tensors.items():
        dense = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not dense or tensor.is_complex():
            raise CheckpointError(f"{path}: {key} is {tensor.type()}, no plain tensor of real numbers")
    return tensors


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def load_weights(chain: Chain, path: str | Path) -> None:
    """Fill a chain from a file; every tensor must fit, none may be left over.

    Raises:
        CheckpointError: missing, unexpected and misshapen tensors, listed by module.
    """
    fill(chain, read_weights(path), str(path))


def fill(chain: Chain, tensors: dict[str, torch.Tensor], where: str) -> None:
    """As ``load_weights``, from tensors in memory."""
    own = chain.state_dict()
    aliases: dict[int, list[str]] = {}
    for key, tensor in own.items():
        aliases.setdefault(tensor.data_ptr() if tensor.numel() else -len(aliases), []).append(key)
    given = dict(tensors)
    faults: dict[tuple[str, str], list[str]] = {}
    for keys in aliases.values():
        stored = [k for k in keys if k in tensors]
        if any(not _same(tensors[k], tensors[stored[0]]) for k in stored[1:]):
            faults.setdefault((stored[0].split(".")[1], "tied here but different there"), []).extend(stored)
        for key in keys:
            if stored and key not in given:
                given[key] = tensors[stored[0]]
    for key in own.keys() | given.keys():
        module = key.split(".")[1] if key.startswith("mods.") else "(no module)"
        if key not in given:
            faults.setdefault((module, "missing"), []).append(key)
        elif key not in own:
            faults.setdefault((module, "unexpected"), []).append(key)
        elif own[key].shape != given[key].shape:
            shapes = f"{key} is {tuple(given[key].shape)}, should be {tuple(own[key].shape)}"
            faults.setdefault((module, "of another shape"), []).append(shapes)
    if faults:
        raise CheckpointError(
            f"{where}: module {module}: {len(keys)} tensors {kind}: {', '.join(sorted(keys)[:3])}"
            + (" ..." if len(keys) > 3 else "")
            for (module, kind), keys in sorted(faults.items())
        )
    chain.load_state_dict(given)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def find_weights(folder: Path, model_file: str | Path | None) -> Path:
    """The weights of a saved chain or of an ESPnet experiment."""
    if model_file is not None:
        inside = folder / model_file
        return inside if inside.is_file() else Path(model_file)
    for name in (WEIGHTS, *CHECKPOINTS):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder}: no {WEIGHTS} and none of {', '.join(CHECKPOINTS)}; name the weights with model_file"
    )


def from_pretrained(
    cls: type[Chain],
    folder: Path,
    model_file: str | Path | None = None,
    files: Collection[str] | None = None,
    home: Path | None = None,
) -> Chain:
    """A chain from the folder of a saved chain or of an ESPnet experiment; in evaluation mode.

    Args:
        files: what a card lists; nothing else in the folder is read, except a ``model_file`` asked for.
        home: without a card, what the files that the config names must lie in, links followed (default: the folder).

    Raises:
        CheckpointError, ConfigError, DataError: what is missing or wrong, by file and module.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: no {CONFIG}; is this the folder of a saved chain or of an experiment?")
    data = read_yaml(folder / CONFIG)
    if not isinstance(data, dict) or "modules" not in data:
        raise ConfigError(f"{folder / CONFIG}: describes no chain (no 'modules')")
    config = parse_config({"vocabs": data.get("vocabs"), "modules": data["modules"]})
    named = {f for v in config.vocabs.values() for f in (v.tokens, v.bpemodel) if isinstance(f, str)}
    if files is not None:
        model_file = model_file or WEIGHTS
        if missing := sorted({CONFIG, *named}.difference(files)):
            raise CheckpointError(f"{folder}: {name} is not among the files of its card" for name in missing)
    elif outside := sorted(name for name in named if not _is_inside(folder, name, home or folder)):
        remedy = "such a config may read any file of this machine; put the file beside it"
        raise CheckpointError(f"{folder / CONFIG}: {name} is not in this folder; {remedy}" for name in outside)
    vocabs = load_vocabs(config, folder)
    path = find_weights(folder, model_file)
    tensors = read_weights(path)
    if (least := least_values(config, vocabs)) > path.stat().st_size:  # a value takes a byte or more
        raise CheckpointError(
            f"{path}: {path.stat().st_size} bytes, the modules of {folder / CONFIG} need {least} values or more; "
            "they do not belong together"
        )
    chain = cls([build_module(m, vocabs) for m in config.modules], config.modules, vocabs)
    fill(chain, tensors, str(path))
    return chain.eval()


def _is_inside(folder: Path, name: str, home: Path) -> bool:
    return refusal(name) is None and (folder / name).resolve().is_relative_to(home.resolve())


def forget(chain: Chain) -> None:
    """Reset what the ports saw: they are about to be trained on other data."""
    for part in chain.modules():
        if isinstance(part, Seen):
            part.reset()


def init_modules(chain: Chain, load: Callable[[str], Chain]) -> list[str]:
    """Fill modules from the ``init`` of their descriptions, ``PACK_OR_EXPERIMENT[#module]``.

    The module is the one of the same name unless given. What its ports saw is forgotten unless it is frozen.

    Returns:
        one line for each module that was filled, for the log.

    Raises:
        CheckpointError: the donor has no such module, or it does not fit.
    """
    lines, donors = [], {}
    for config in chain.configs:
        if not config.init:
            continue
        source, _, name = config.init.partition("#")
        if source not in donors:
            donors[source] = load(source)
        donor = donors[source]
        name = name or config.name
        if name not in donor.mods:
            raise CheckpointError(f"{config.name}.init: {source} has no module {name!r}, only {', '.join(donor.names)}")
        part, own = donor[name], chain[config.name]
        for side, theirs, ours in zip(("reads", "writes"), part.first.ports, own.first.ports):
            if theirs.vocab is not None and ours.vocab is not None and theirs.vocab.sha256 != ours.vocab.sha256:
                raise CheckpointError(f"{config.name}.init: {config.init} {side} another vocabulary, or another order")
        tensors = {k.replace(f"mods.{name}.", f"mods.{config.name}.", 1): v for k, v in part.state_dict().items()}
        fill(own, tensors, config.init)
        if not config.freeze:
            forget(own)
        lines.append(f"{config.name}: {sum(v.numel() for v in tensors.values())} values from {config.init}")
    return lines
