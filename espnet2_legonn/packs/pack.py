"""Chains to packs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.files.scratch import scratch
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.description import ModuleConfig
from espnet2_legonn.model.interface import SearchChoice
from espnet2_legonn.model.module import Module, consumed, produced
from espnet2_legonn.packs import espnet_archive, store
from espnet2_legonn.packs.card import (
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
from espnet2_legonn.packs.espnet_archive import META
from espnet2_legonn.packs.files import beside_pack, list_files, replacing
from espnet2_legonn.packs.transfer import DISK_FULL
from espnet2_legonn.scoring.tables import write_atomic


def write(chain: Chain, folder: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a pack; the folder appears whole or not at all.

    Args:
        chain: one module or several.
        folder: is replaced if it holds a pack and nothing else. If it holds this very pack and what was made with it, a
            recipe's decodings for instance, its card alone is written anew.
        about: ``name`` (default: the folder's), fields of About, ``metrics``, ``provenance``, ``module_parents``
            (by module name), and ``extra``: more files to take along, by name.

    Raises:
        FileExistsError: the folder exists and holds something else than a pack, or more than another pack.
        CheckpointError: the disk is full.
    """
    folder, about = Path(folder), dict(about or {})
    extra: Mapping[str, Path] = about.pop("extra", {})
    try:
        if beside := beside_pack(folder):
            with scratch(folder.parent, folder.name) as temporary:
                card = _fill(temporary, chain, {"name": folder.name, **about}, extra)
            _renew(folder, card, beside)
        else:
            with replacing(folder) as temporary:
                _fill(temporary, chain, {"name": folder.name, **about}, extra)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in DISK_FULL:
            raise
        remedy = "is the disk full? free some and try again, what was there before is kept"
        raise CheckpointError(f"{folder}: cannot be written ({error}); {remedy}") from None
    return folder


def _fill(folder: Path, chain: Chain, about: Mapping[str, Any], extra: Mapping[str, Path]) -> Card:
    """All files of a pack into an empty folder."""
    store.write(chain, folder)
    task = "mt" if chain.first.ports[0].kind == "tokens" else "asr"
    (folder / META).write_text(espnet_archive.about(store.CONFIG, store.WEIGHTS, task), encoding="utf-8")
    for name, source in extra.items():
        shutil.copyfile(source, folder / name)
    card = describe(chain, about, list_files(folder))
    (folder / CARD).write_text(dump(card), encoding="utf-8")
    return card


def _renew(folder: Path, card: Card, beside: list[str]) -> None:
    """The card of a pack that is there already; weights that were tuned for it and figures stay.

    Raises:
        FileExistsError: it is another pack.
    """
    old = read_card(folder)
    if card.content_sha256 != old.content_sha256:
        names = ", ".join(beside[:5])
        raise FileExistsError(f"{folder} holds another pack, and {names} beside it; remove it or choose another folder")
    search, metrics = card.search or old.search, card.metrics or old.metrics
    write_atomic(folder / CARD, dump(dataclasses.replace(card, search=search, metrics=metrics)))


def keep_search(folder: Path, choice: SearchChoice, model: str | Path | None = None) -> Path:
    """Keep tuned weights where the chain will find them: in a pack's card, or beside an experiment's config.

    Args:
        model: which of an experiment's weights were searched (None: the best it has).

    Returns:
        the file that holds them.
    """
    if (folder / CARD).is_file():
        card = dataclasses.replace(read_card(folder), search=choice)
        write_atomic(folder / CARD, dump(card))
        return folder / CARD
    path = folder / store.SEARCH
    choice = dataclasses.replace(choice, weights=sha256_of(store.find_weights(folder, model)))
    write_atomic(path, yaml.safe_dump(dataclasses.asdict(choice), sort_keys=False))
    return path


def describe(chain: Chain, about: Mapping[str, Any], files: dict[str, FileEntry]) -> Card:
    """The card of a chain."""
    parents = about.get("module_parents", {})
    modules = []
    for config, module in zip(chain.configs, chain):
        reads, writes = _ports(config, module)
        parameters = sum(p.numel() for p in module.parameters())
        modules.append(ModuleCard(config.name, reads, writes, parameters, config.body.shape, parents.get(config.name)))
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
        search=chain.search,
    )


def _ports(config: ModuleConfig, module: Module) -> tuple[PortCard, PortCard]:
    # By the description: of two vocabularies that fit without being equal, a composition keeps the writer's alone.
    names = (config.source_vocab, config.target_vocab)
    sides = []
    for port, name, contract in zip(module.ports, names, (consumed(module), produced(module))):
        card = PortCard(port.kind, name if port.vocab else None, port.size)
        if contract is not None:
            ratio = contract.slots_per_token
            card.slots_per_token = None if ratio is None else round(ratio, 4)
            card.longest = contract.longest
        sides.append(card)
    reads, writes = sides
    reads = dataclasses.replace(reads, **config.reads.card(config.input))
    if writes.kind == "marginals":
        writes.grounded = config.writes.teaches(config.output)
    return reads, writes
