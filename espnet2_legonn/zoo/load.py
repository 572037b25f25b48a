"""Any reference to a chain, checked and loaded."""

from __future__ import annotations

import os
from pathlib import Path

from espnet2_legonn import store, warm
from espnet2_legonn.chain import Chain
from espnet2_legonn.errors import CheckpointError, LegoNNError
from espnet2_legonn.zoo.card import CARD, Card
from espnet2_legonn.zoo.espnet_archive import locate
from espnet2_legonn.zoo.fetch import resolve
from espnet2_legonn.zoo.files import opened, verified
from espnet2_legonn.zoo.pack import describe


def load(cls: type[Chain], reference: str | Path, model_file: str | Path | None = None) -> Chain:
    """A chain in evaluation mode, from whatever ``resolve`` understands or an ESPnet experiment folder.

    Every file of a pack is compared with its card first.

    Raises:
        CheckpointError, ConfigError, DataError: what is missing or wrong, by file and module.
    """
    path = resolve(reference)
    if path.name == store.CONFIG:
        path = path.parent
    with opened(path) as folder:
        try:
            return _load(cls, folder, model_file)
        except LegoNNError as error:
            if folder == path:
                raise
            told = (f.replace(f"{folder}/", f"{path}: ").replace(str(folder), str(path)) for f in error.faults)
            raise type(error)(told) from None


def _load(cls: type[Chain], folder: Path, model_file: str | Path | None) -> Chain:
    if os.path.lexists(folder / CARD):
        with verified(folder) as card:
            chain = store.from_pretrained(cls, folder, model_file, card.files)
        _require_truth(chain, card, folder)
        chain.search = card.search
        return chain
    if found := locate(folder):
        return store.from_pretrained(cls, found[0].parent, model_file or found[1])
    return store.from_pretrained(cls, folder, model_file)


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
