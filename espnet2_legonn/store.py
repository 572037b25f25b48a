"""Chains on disk: safetensors weights, safe YAML, no code. Loading is whole or an error by module."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from espnet2_legonn.build import build_modules
from espnet2_legonn.chain import Chain
from espnet2_legonn.config import parse as parse_config
from espnet2_legonn.config import plain, read_yaml
from espnet2_legonn.errors import CheckpointError, ConfigError, LegoNNError
from espnet2_legonn.modules.seen import Seen

CONFIG, WEIGHTS = "config.yaml", "weights.safetensors"
# What an ESPnet experiment offers, best first.
CHECKPOINTS = ("valid.decoded.ave.pth", "train.total_count.ave.pth", "valid.acc.ave.pth", "latest.pth")
MAX_FILES, MAX_BYTES = 1000, 20 << 30


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


def save(chain: Chain, folder: str | Path) -> Path:
    """Write config.yaml, weights.safetensors and the vocabularies; the folder appears whole or not at all.

    Raises:
        FileExistsError: the folder exists and holds something else than a saved chain.
    """
    folder = Path(folder)
    if folder.exists() and not _is_ours(folder):
        raise FileExistsError(f"{folder} exists and is no saved chain; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, vocab in chain.vocabs.items():
            (temporary / f"{name}.tokens.txt").write_text("".join(f"{t}\n" for t in vocab.tokens), encoding="utf-8")
            if vocab.bpemodel:
                (temporary / f"{name}.bpe.model").write_bytes(vocab.bpemodel)
        text = yaml.safe_dump(description(chain), sort_keys=False, allow_unicode=True)
        (temporary / CONFIG).write_text(text, encoding="utf-8")
        save_file(unique_tensors(chain), temporary / WEIGHTS)
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _is_ours(folder: Path) -> bool:
    """Nothing but a saved chain, so that it may be replaced."""
    if not folder.is_dir():
        return False
    names = [p.name for p in folder.iterdir()]
    return all(n in (CONFIG, WEIGHTS) or n.endswith((".tokens.txt", ".bpe.model")) for n in names)


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
    """Tensors of a safetensors file or of an ESPnet checkpoint (no pickled objects).

    Raises:
        CheckpointError: the file is missing, damaged or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or truncated ({_first_line(error)}); copy it again") from None
    except Exception as error:  # pickle.UnpicklingError: objects other than tensors
        raise CheckpointError(f"{path}: not plain weights: {_first_line(error)}") from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: holds no tensors by name; give an <n>epoch.pth, an averaged one or {WEIGHTS}")
    return {k.removeprefix("chain."): v for k, v in state.items()}


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
        if any(not torch.equal(tensors[k], tensors[stored[0]]) for k in stored[1:]):
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


def from_pretrained(cls: type[Chain], path: str | Path, model_file: str | Path | None = None) -> Chain:
    """A chain from a saved folder, a zip of one, or an ESPnet experiment folder; in evaluation mode.

    Raises:
        CheckpointError, ConfigError, DataError: what is missing or wrong, by file and module.
    """
    path = Path(path)
    if path.is_file() and zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory(prefix="legonn.") as temporary:
            extract(path, Path(temporary))
            roots = sorted(p.parent for p in Path(temporary).rglob(CONFIG))
            if not roots:
                raise CheckpointError(f"{path}: no {CONFIG} inside")
            try:
                return from_pretrained(cls, roots[0], model_file)
            except LegoNNError as error:
                raise type(error)(f.replace(f"{roots[0]}/", f"{path}: ") for f in error.faults) from None
    if path.name == CONFIG:
        path = path.parent
    elif path.is_file():
        raise CheckpointError(f"{path}: not a zip of a saved chain; damaged or truncated?")
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder or zip")
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"{path}: no {CONFIG}; is this the folder of a saved chain or of an experiment?")
    data = read_yaml(path / CONFIG)
    if not isinstance(data, dict) or "modules" not in data:
        raise ConfigError(f"{path / CONFIG}: describes no chain (no 'modules')")
    config = parse_config({"vocabs": data.get("vocabs"), "modules": data["modules"]})
    modules, vocabs = build_modules(config, path)
    chain = cls(modules, config.modules, vocabs)
    load_weights(chain, find_weights(path, model_file))
    return chain.eval()


def extract(archive: Path, folder: Path) -> None:
    """Unpack a zip that may come from anybody.

    Raises:
        CheckpointError: names every entry that would leave the folder, links, or is absurdly large.
    """
    faults = []
    with zipfile.ZipFile(archive) as z:
        entries = z.infolist()
        if len(entries) > MAX_FILES:
            faults.append(f"{archive}: {len(entries)} entries, at most {MAX_FILES} are read")
        if sum(e.file_size for e in entries) > MAX_BYTES:
            faults.append(f"{archive}: unpacks to more than {MAX_BYTES >> 30} GiB")
        for entry in entries:
            name = PurePosixPath(entry.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or ":" in str(name):
                faults.append(f"{archive}: entry {entry.filename!r} points out of the archive")
            if stat.S_ISLNK(entry.external_attr >> 16):
                faults.append(f"{archive}: entry {entry.filename!r} is a link")
        if faults:
            raise CheckpointError(faults)
        try:
            z.extractall(folder)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{archive}: damaged ({_first_line(error)})") from None


def forget(chain: Chain) -> None:
    """Reset what the ports saw: they are about to be trained on other data."""
    for part in chain.modules():
        if isinstance(part, Seen):
            part.reset()


def init_modules(chain: Chain, load: type[Chain] = Chain) -> list[str]:
    """Fill modules from the ``init`` of their descriptions, ``FOLDER_OR_ZIP[#module]``.

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
            donors[source] = from_pretrained(load, source)
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
