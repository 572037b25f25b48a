"""Packs on disk: a saved chain with a card, as a folder or a zip. Every file is checked before it is used."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet2_legonn import archive, store
from espnet2_legonn.chain import Chain
from espnet2_legonn.config import ModuleConfig, SpeechConfig
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.interface import Vocabulary
from espnet2_legonn.modules.module import Module, consumed, produced
from espnet2_legonn.zoo.card import (
    CARD,
    About,
    Card,
    FileEntry,
    ModuleCard,
    PortCard,
    Provenance,
    VocabCard,
    content_digest,
    dump,
    read_card,
)

README = "README.md"


def write(chain: Chain, folder: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a pack; the folder appears whole or not at all.

    Args:
        chain: one module or several.
        folder: is replaced if it holds a pack and nothing else.
        about: ``name`` (default: the folder's), fields of About, ``metrics``, ``provenance``, ``module_parents``
            (by module name), and ``extra``: more files to take along, by name.

    Raises:
        FileExistsError: the folder exists and holds something else than a pack.
    """
    folder, about = Path(folder), dict(about or {})
    extra: Mapping[str, Path] = about.pop("extra", {})
    with replacing(folder) as temporary:
        store.write(chain, temporary)
        for name, source in extra.items():
            shutil.copyfile(source, temporary / name)
        card = describe(chain, {"name": folder.name, **about}, list_files(temporary))
        (temporary / CARD).write_text(dump(card), encoding="utf-8")
    return folder


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``folder`` at the end; on an error, nothing has changed."""
    if folder.exists() and not _is_ours(folder):
        raise FileExistsError(f"{folder} exists and is no pack; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _is_ours(folder: Path) -> bool:
    """Nothing but a pack, so that it may be replaced."""
    if not folder.is_dir():
        return False
    names = {p.name for p in folder.iterdir()}
    if CARD not in names:
        return not names
    with contextlib.suppress(ConfigError):
        return names <= {CARD, README, *read_card(folder).files}
    return False


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Digest and size of every file but the card."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(sha256_of(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (CARD, README)
    }


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256_310(f)


def _sha256_310(f: Any) -> str:
    digest = hashlib.sha256()
    while chunk := f.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def describe(chain: Chain, about: Mapping[str, Any], files: dict[str, FileEntry]) -> Card:
    """The card of a chain."""
    parents = about.get("module_parents", {})
    modules = []
    for config, module in zip(chain.configs, chain):
        reads, writes = _ports(config, module, chain.vocabs)
        body = f"{config.body.type} {config.body.num_blocks} x {config.body.size}"
        parameters = sum(p.numel() for p in module.parameters())
        modules.append(ModuleCard(config.name, reads, writes, parameters, body, parents.get(config.name)))
    vocabs = {
        name: VocabCard(
            sha256=v.sha256,
            size=len(v),
            unit=v.unit,
            tokens=f"{name}.tokens.txt",
            blank_id=v.blank_id,
            bpemodel=f"{name}.bpe.model" if v.bpemodel else None,
            language=v.language,
            normalization=v.normalization,
        )
        for name, v in chain.vocabs.items()
    }
    told = {f.name: about[f.name] for f in dataclasses.fields(About) if f.name in about}
    spoken = sorted({v.language for v in chain.vocabs.values() if v.language})
    return Card(
        name=about["name"],
        modules=modules,
        vocabs=vocabs,
        files=files,
        content_sha256=content_digest(files),
        about=About(**{"language": spoken or None, **told}),
        metrics=list(about.get("metrics", [])),
        provenance=about.get("provenance") or Provenance(),
    )


def _ports(config: ModuleConfig, module: Module, vocabs: Mapping[str, Vocabulary]) -> tuple[PortCard, PortCard]:
    names = {v: n for n, v in vocabs.items()}
    sides = []
    for port, contract in zip(module.ports, (consumed(module), produced(module))):
        card = PortCard(port.kind, names[port.vocab] if port.vocab else None, port.size)
        if contract is not None:
            ratio = contract.slots_per_token
            card.slots_per_token = None if ratio is None else round(ratio, 4)
            card.longest = contract.longest
        sides.append(card)
    reads, writes = sides
    _describe_input(config.input, reads)
    if writes.kind == "marginals":
        writes.grounded = config.output.ctc_weight > 0
    return reads, writes


def _describe_input(config: Any, reads: PortCard) -> None:
    if isinstance(config, SpeechConfig):
        reads.fs, reads.n_mels, reads.normalize = config.fs, config.n_mels, config.normalize
    elif reads.kind == "marginals":
        reads.ingestor, reads.k, reads.collapse = config.type, getattr(config, "k", None), config.collapse


def verify(folder: Path, card: Card | None = None) -> Card:
    """Compare every file with the card.

    Raises:
        CheckpointError: names each file that is missing or differs, with expected and found digest.
    """
    card = card or read_card(folder)
    faults = []
    for name, entry in card.files.items():
        path = folder / name
        if not path.is_file() or path.is_symlink() and not path.resolve().is_file():
            faults.append(f"{folder}: {name} is missing; get the pack again")
        elif path.stat().st_size != entry.bytes:
            faults.append(f"{path}: {path.stat().st_size} bytes, the card says {entry.bytes}; get the pack again")
        elif (found := sha256_of(path)) != entry.sha256:
            faults.append(f"{path}: SHA-256 is {found}, the card says {entry.sha256}; get the pack again")
    if faults:
        raise CheckpointError(faults)
    return card


def zip_pack(folder: Path, target: Path) -> Path:
    """A pack as one file; the same pack gives the same bytes."""
    card = verify(folder)
    names = [CARD, *card.files]
    if (folder / README).is_file():
        names.append(README)
    return archive.write_zip(folder, names, target)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder of a pack that is a folder or a zip; a zip is unpacked for as long as this lasts.

    Raises:
        CheckpointError: neither, or an archive that is damaged or not to be trusted.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise CheckpointError(f"{path}: no such folder or zip")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: not a zip of a pack; damaged or truncated?")
    with tempfile.TemporaryDirectory(prefix="legonn.", dir=os.environ.get("TMPDIR")) as temporary:
        archive.extract(path, Path(temporary))
        yield pack_root(Path(temporary), path)


def pack_root(unpacked: Path, where: Path) -> Path:
    """The folder with the card (or, for older archives, config) inside an unpacked archive."""
    for name in (CARD, store.CONFIG):
        roots = sorted(p.parent for p in unpacked.rglob(name))
        if roots:
            return min(roots, key=lambda p: len(p.parts))
    raise CheckpointError(f"{where}: neither {CARD} nor {store.CONFIG} inside")

