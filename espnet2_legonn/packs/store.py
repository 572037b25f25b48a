"""Chains in folders: safetensors weights, safe YAML, no code. Loading is whole or an error by module."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.files.archive import refusal, sha256_of
from espnet2_legonn.files.schema import Reader, read_yaml
from espnet2_legonn.model.build import least_values, load_vocabs
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.description import parse as parse_config
from espnet2_legonn.model.description import plain
from espnet2_legonn.model.interface import SearchChoice
from espnet2_legonn.model.module import build_module
from espnet2_legonn.packs.names import CHECKPOINT as CHECKPOINT
from espnet2_legonn.packs.names import CHECKPOINTS as CHECKPOINTS
from espnet2_legonn.packs.names import CONFIG, SEARCH, WEIGHTS, find_weights

# The state of ESPnet's reporter: times, and figures as NumPy has them. None of them can do anything.
_SCALAR: Any = np.float64(0).__reduce__()[0]
torch.serialization.add_safe_globals([datetime.timedelta, np.dtype, _SCALAR])
torch.serialization.add_safe_globals([type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")])
_torch_load = torch.load  # training replaces it by one that asks here


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


def read_figures(checkpoint: Path) -> dict[int, dict[str, Any]]:
    """Figures of a training by epoch and phase, as ESPnet's reporter keeps them in ``CHECKPOINT``; {} without any.

    Raises:
        CheckpointError: the file is missing, damaged or another's.
    """
    kept = read_checkpoint(checkpoint)
    reporter = kept.get("reporter") if isinstance(kept, dict) else None
    return (reporter.get("stats") or {}) if isinstance(reporter, dict) else {}


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
    chain.load_state_dict(match(chain, tensors, where))


class Misfit(NamedTuple):
    """A tensor that keeps weights from fitting: of which module, how, its name, and what to say of it."""

    module: str
    kind: str
    name: str
    text: str


def match(chain: Chain, tensors: dict[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """A value for each tensor of a chain; one name of a tied matrix is enough.

    Raises:
        CheckpointError: missing, unexpected and misshapen tensors, listed by module.
    """
    given, misfits = pair(chain, tensors)
    faults: dict[tuple[str, str], list[str]] = {}
    for misfit in misfits:
        faults.setdefault((misfit.module, misfit.kind), []).append(misfit.text)
    if faults:
        raise CheckpointError(
            f"{where}: module {module}: {len(keys)} tensors {kind}: {', '.join(sorted(keys)[:3])}"
            + (" ..." if len(keys) > 3 else "")
            for (module, kind), keys in sorted(faults.items())
        )
    return given


def pair(chain: Chain, tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[Misfit]]:
    """As ``match``, with what does not fit as a list."""
    own = chain.state_dict()
    given, misfits = dict(tensors), []
    for keys in tied(own):
        stored = [k for k in keys if k in tensors]
        if any(not _same(tensors[k], tensors[stored[0]]) for k in stored[1:]):
            misfits += [Misfit(k.split(".")[1], "tied here but different there", k, k) for k in stored]
        for key in keys:
            if stored and key not in given:
                given[key] = tensors[stored[0]]
    for key in own.keys() | given.keys():
        module = key.split(".")[1] if key.startswith("mods.") else "(no module)"
        if key not in given:
            misfits.append(Misfit(module, "missing", key, key))
        elif key not in own:
            misfits.append(Misfit(module, "unexpected", key, key))
        elif own[key].shape != given[key].shape:
            shapes = f"{key} is {tuple(given[key].shape)}, should be {tuple(own[key].shape)}"
            misfits.append(Misfit(module, "of another shape", key, shapes))
    return given, misfits


def tied(state: dict[str, torch.Tensor]) -> list[list[str]]:
    """Names of each tensor of a model's state; more than one where matrices are tied."""
    aliases: dict[int, list[str]] = {}
    for key, tensor in state.items():
        aliases.setdefault(tensor.data_ptr() if tensor.numel() else -len(aliases), []).append(key)
    return list(aliases.values())


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


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
    chain = cls([build_module(module, vocabs) for module in config.modules], vocabs)
    fill(chain, tensors, str(path))
    if files is None:
        chain.search = read_search(folder, path)
    return chain.eval()


def _is_inside(folder: Path, name: str, home: Path) -> bool:
    return refusal(name) is None and (folder / name).resolve().is_relative_to(home.resolve())


def read_search(folder: Path, weights: Path) -> SearchChoice | None:
    """The search that was tuned for these weights of an experiment, if one was.

    Raises:
        ConfigError: the file is no such description.
    """
    path = folder / SEARCH
    if not path.is_file():
        return None
    reader = Reader()
    choice = reader.build(SearchChoice, read_yaml(path), str(path))
    if faults := reader.faults or choice.faults(str(path)):
        raise ConfigError(faults)
    if choice.weights is not None and choice.weights != sha256_of(weights):
        logging.warning("%s was tuned for other weights than %s: not used; stage 12 tunes anew", path, weights)
        return None
    return dataclasses.replace(choice, weights=None)
