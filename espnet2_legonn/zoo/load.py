"""Any reference to a chain, checked and loaded."""

from __future__ import annotations

from pathlib import Path

from espnet2_legonn import store
from espnet2_legonn.chain import Chain
from espnet2_legonn.errors import LegoNNError
from espnet2_legonn.zoo.card import CARD
from espnet2_legonn.zoo.espnet_archive import locate
from espnet2_legonn.zoo.fetch import resolve
from espnet2_legonn.zoo.files import opened, verify


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
            if (folder / CARD).is_file():
                verify(folder)
            elif found := locate(folder):
                return store.from_pretrained(cls, found[0].parent, model_file or found[1])
            return store.from_pretrained(cls, folder, model_file)
        except LegoNNError as error:
            if folder == path:
                raise
            raise type(error)(f.replace(f"{folder}/", f"{path}: ") for f in error.faults) from None


def init_modules(chain: Chain) -> list[str]:
    """Fill modules from the ``init`` of their descriptions; see ``store.init_modules``."""
    return store.init_modules(chain, lambda source: load(Chain, source))
