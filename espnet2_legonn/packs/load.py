"""Any reference to a chain, checked and loaded."""

from __future__ import annotations

import os
from pathlib import Path

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.packs import store, warm
from espnet2_legonn.packs.card import CARD, Card
from espnet2_legonn.packs.espnet_archive import locate
from espnet2_legonn.packs.fetch import kind, resolve
from espnet2_legonn.packs.files import opened, verified
from espnet2_legonn.packs.pack import describe


def load(
    cls: type[Chain], reference: str | Path, model_file: str | Path | None = None, trust: bool = False
) -> Chain:
    """A chain in evaluation mode, from whatever ``resolve`` understands or an ESPnet experiment folder.

    Every file of a pack is compared with its card first. Without a card, there is nothing to compare with.

    Args:
        trust: also load archives without a card, for instance of ``espnet2.bin.pack``. A folder needs no card.

    Raises:
        CheckpointError, ConfigError, DataError: what is missing or wrong, by file and module.
    """
    path = resolve(reference)
    if path.name == store.CONFIG:
        path = path.parent
    is_folder = path.is_dir() and kind(reference) == "path"
    with opened(path) as folder:
        if os.path.lexists(folder / CARD):
            with verified(folder) as card:
                chain = store.from_pretrained(cls, folder, model_file, card.files)
            _require_truth(chain, card, folder)
            chain.search = card.search
            return chain
        if not (is_folder or trust):
            remedy = "if you trust who made it, LegoNN.from_pretrained(..., trust=True), or --trust for commands"
            raise CheckpointError(f"{reference}: no {CARD}, so nothing says what it should hold; {remedy}")
        home, weights = folder, model_file
        if found := locate(folder):
            folder, weights = found[0].parent, model_file or found[1]
        return store.from_pretrained(cls, folder, weights, home=_home(home))


def _home(folder: Path) -> Path:
    """What the files of a folder may be links into: the folder, or the Hub's cache, which is made of links."""
    inside = [p.parent for p in folder.parents if p.name == "snapshots"]
    return inside[0] if inside else folder


def _require_truth(chain: Chain, card: Card, folder: Path) -> None:
    """What ``legonn check`` promised from the card is what was loaded."""
    true = describe(chain, {"name": card.name}, card.files)
    faults = []
    if [m.name for m in true.modules] != [m.name for m in card.modules] or true.vocabs != card.vocabs:
        faults.append(f"{folder / CARD}: lists other modules or vocabularies than {store.CONFIG}")
    for told, found in zip(card.modules, true.modules):
        if (told.reads, told.writes) != (found.reads, found.writes):
            faults.append(f"{folder / CARD}: {told.name}: reads or writes something else than {store.CONFIG} says")
    if faults:
        raise CheckpointError(f"{fault}; get the pack again" for fault in faults)


def init_modules(chain: Chain) -> list[str]:
    """Fill modules from the ``init`` of their descriptions; see ``warm.init_modules``."""
    return warm.init_modules(chain, lambda source: load(Chain, source))
