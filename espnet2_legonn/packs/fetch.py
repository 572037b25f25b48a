"""A reference (folder, zip, URL, inventory name, hub tag) to a pack on this machine."""

from __future__ import annotations

import os
import re
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.files.schema import nearest

if TYPE_CHECKING:
    from espnet2_legonn.packs.inventory import Entry

# What lies behind a URL is imported where it is needed: `legonn check` of local packs stays fast.

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w./-]*)?")
# Folders of recipes and of this repository: a mistyped experiment does not reach for the network.
_FOLDERS = ("exp", "data", "dump", "conf", "local", "packs", "egs2", "downloads", "tests", "tmp")
_PATH_SUFFIXES = (".zip", ".yaml", ".yml", ".pth", ".safetensors")
_REPOSITORY = Path(__file__).resolve().parents[2]


def resolve(reference: str | Path, inventory: str | Path | None = None) -> Path:
    """The folder or zip of a pack; what is not on this machine is downloaded once and checked.

    What looks like a path (``.zip``, ``~``, a leading dot, two slashes, a first folder that exists or is called like
    one of a recipe's, for instance ``exp``) never reaches for the network. A URL that was downloaded is not asked
    again; a new version needs a new URL.

    Args:
        reference: folder, zip, config.yaml, URL of a zip (https, s3, ...), name in an inventory, or hub tag
            ``org/name[@revision]``, which may be written ``hf://org/name`` to tell it from a path.
        inventory: where names are looked up; else LEGONN_INVENTORY (several, separated by blanks), then the packs that
            ship with this package.

    Raises:
        CheckpointError: there is none, or it cannot be had, or it is damaged.
        ConfigError: an index or card that is not usable.
    """
    text = str(reference)
    found = kind(reference, inventory)
    if found == "url":
        return _from_url(text)
    if found == "name":
        return _from_inventories(text, inventories() if inventory is None else [str(inventory)])
    if found == "hub":
        return _from_hub(text)
    return _path(text)


def kind(reference: str | Path, inventory: str | Path | None = None) -> str:
    """What a reference is: ``path`` (there is such a file or folder), ``url``, ``name`` or ``hub``.

    Raises:
        CheckpointError: a path, and there is nothing.
    """
    text = str(reference)
    scheme, remote, _ = text.partition("://")
    if isinstance(reference, str) and remote and scheme != "file":
        return "hub" if scheme == "hf" else "url"
    if inventory is not None and NAME.fullmatch(text):
        return "name"
    if text.strip() and os.path.exists(_path(text)):
        return "path"
    tag = text.partition("@")[0]
    first = tag.partition("/")[0]
    if not (isinstance(reference, Path) or tag.endswith(_PATH_SUFFIXES)):
        if NAME.fullmatch(text):
            return "name"
        if _HUB.fullmatch(text) and not (os.path.isdir(first) or first in _FOLDERS):
            return "hub"
        if _HUB.fullmatch(text):
            hint = f" in {first}/; for the Hugging Face Hub: hf://{text}"
            raise CheckpointError(f"{reference}: no such folder or zip{hint}")
    source, _, modules = text.partition("#")
    if modules:
        remedy = f"give {source}, or make a chain of modules: legonn compose PACK#MODULE,... -o DIR"
        raise CheckpointError(f"{reference}: #{modules} names modules, a whole chain is needed here; {remedy}")
    raise CheckpointError(f"{reference}: no such folder or zip")


def _path(text: str) -> Path:
    if text.startswith("file://"):
        text = urllib.parse.unquote(text.removeprefix("file://").removeprefix("localhost"))
    return Path(os.path.expanduser(text))


def inventories() -> list[str]:
    """Places that names are looked up in: LEGONN_INVENTORY, then the packs that ship with this package."""
    shipped = Path(os.environ.get("LEGONN_PACKS") or _REPOSITORY / "packs")
    return os.environ.get("LEGONN_INVENTORY", "").split() + ([str(shipped)] if shipped.is_dir() else [])


def hub_tag(text: str) -> tuple[str, str | None]:
    """``[hf://]org/name[@revision]`` to repository and revision.

    Raises:
        ConfigError: it is no such tag.
    """
    text = text.removeprefix("hf://")
    if not _HUB.fullmatch(text):
        raise ConfigError(f"{text!r}: no tag of the Hugging Face Hub; write ORG/NAME or ORG/NAME@REVISION")
    repository, _, revision = text.partition("@")
    return repository, revision or None


def _from_hub(tag: str) -> Path:
    from espnet2_legonn.packs.hub import snapshot

    return snapshot(*hub_tag(tag))


def _from_url(url: str) -> Path:
    from espnet2_legonn.packs.cache import ZipSource, keep

    stem = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rstrip("/").rpartition("/")[2].removesuffix(".zip")
    return keep(ZipSource(url, re.sub(r"[^\w.-]", "_", stem)[:80].strip(".") or "pack"))


def _from_inventories(name: str, places: list[str]) -> Path:
    from espnet2_legonn.packs.cache import ZipSource, keep

    place, entry = look_up(name, places)
    return keep(ZipSource(f"{place}/{entry.archive}", entry.name, entry.sha256, entry.bytes, entry.differs))


def look_up(name: str, places: list[str]) -> tuple[str, Entry]:
    """The first inventory with a pack of this name, and its entry there.

    Raises:
        CheckpointError: there is none; an inventory that cannot be read counts, for it might have one.
    """
    from espnet2_legonn.packs.inventory import Inventory

    known: list[str] = []
    for place in places:
        found = Inventory.open(place)
        for entry in found.entries:
            if entry.name == name:
                return found.place, entry
            known.append(entry.name)
    if not places:
        remedy = "and no inventory to look for a pack of this name: set LEGONN_INVENTORY"
    else:
        remedy = f"and no pack of this name in {', '.join(places)}{nearest(name, known)}"
    raise CheckpointError(f"{name}: no such folder or zip, {remedy}")
