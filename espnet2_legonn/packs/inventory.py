"""Inventories: one index file and the zips it lists, in a folder, on a web server, in S3 or wherever fsspec reaches."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import re
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.files.archive import MAX_BYTES, sha256_of
from espnet2_legonn.files.schema import Reader
from espnet2_legonn.files.scratch import scratch, whole
from espnet2_legonn.packs.card import About, Card, CardScore, ModuleCard, PortCard, VocabCard, too_many
from espnet2_legonn.packs.fetch import NAME
from espnet2_legonn.packs.files import verify, zip_pack
from espnet2_legonn.packs.model_card import require_complete
from espnet2_legonn.packs.transfer import DISK_FULL, filesystem, is_url, is_web, locked, read_small, telling

INDEX = "inventory.json"
VERSION = 1
_ARCHIVE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}\.zip")
MAX_INDEX_BYTES = 16 << 20
# Stores that write on condition.
_CONDITIONAL = ("s3://", "s3a://")
# On others: look whether the entry is still there, and write again.
_WRITES = 8


@dataclass
class Entry:
    """A pack of an inventory: what its card says, less files and provenance.

    Args:
        archive: the zip, beside the index.
        sha256, bytes: of the zip.
    """

    name: str
    archive: str
    sha256: str
    bytes: int
    content_sha256: str
    modules: list[ModuleCard]
    vocabs: dict[str, VocabCard]
    about: About = field(default_factory=About)
    metrics: list[CardScore] = field(default_factory=list)

    def differs(self, card: Card) -> list[str]:
        """In what a pack's card differs from this."""
        names = ("name", "content_sha256", "modules", "vocabs")
        return [f"its card has another {n} than the index" for n in names if getattr(self, n) != getattr(card, n)]


class Hit(NamedTuple):
    """Modules of a pack that follow each other and answer a query."""

    entry: Entry
    modules: list[ModuleCard]

    @property
    def spec(self) -> str:
        """As ``legonn check`` takes it."""
        if len(self.modules) == len(self.entry.modules):
            return self.entry.name
        return f"{self.entry.name}#{','.join(m.name for m in self.modules)}"


@dataclass
class _Index:
    version: int
    packs: list[Entry]


class Inventory:
    """Packs in one place.

    Args:
        place: folder or URL of the folder.
        entries: what its index lists.
    """

    def __init__(self, place: str, entries: list[Entry]) -> None:
        self.place, self.entries = place, entries

    @classmethod
    def open(cls, place: str | Path, new: bool = False) -> Inventory:
        """Read the index.

        Args:
            place: folder, URL of a folder (``https://``, ``s3://`` ...), or of the index in it.
            new: an inventory without packs if there is none, to publish into.

        Raises:
            CheckpointError: there is none, or it cannot be reached.
            ConfigError: everything that is wrong with it.
        """
        place = _normal(str(place))
        data = _read(place)
        if data is None and not new:
            remedy = f"`legonn push PACK --inventory {place}` makes one"
            raise CheckpointError(f"{place}: no {INDEX}, so this is no inventory; mistyped? {remedy}")
        return cls(place, parse(data, f"{place}/{INDEX}") if data is not None else [])

    def find(self, reads: str | None = None, writes: str | None = None) -> list[Hit]:
        """Modules by their ports: all of a pack, or those that follow each other from ``reads`` to ``writes``.

        Args:
            reads, writes: words that must all hold for the port: name of the vocabulary or at least six digits of its
                SHA-256, kind (speech, tokens, marginals, states, text), unit, language.
        """
        if not (reads or writes):
            return [Hit(entry, entry.modules) for entry in self.entries]
        found = []
        for entry in self.entries:
            starts = [i for i, m in enumerate(entry.modules) if _holds(entry, m.reads, reads)]
            ends = [i for i, m in enumerate(entry.modules) if _holds(entry, m.writes, writes)]
            if not reads:
                starts = ends
            elif not writes:
                ends = starts
            for start in starts:
                if end := [e for e in ends if e >= start][:1]:
                    found.append(Hit(entry, entry.modules[start : end[0] + 1]))
        return found

    @property
    def shared(self) -> bool:
        """Whether several may publish at once."""
        return not is_url(self.place) or self.place.startswith(_CONDITIONAL)

    def publish(self, folder: Path, replace: bool = False, dry_run: bool = False) -> Entry:
        """Add a pack: first its zip, then the index, so that no reader meets an entry without its zip.

        Packs that others publish meanwhile stay in a folder, which is locked, and on S3, which writes on condition.
        Other stores can do neither: there, one may publish at a time (see ``shared``).

        Args:
            folder: an unpacked pack.
            replace: another pack of this name gives way; its zip stays for those who read the old index.
            dry_run: the entry as it would be; nothing is written.

        Raises:
            CheckpointError: a damaged pack, a place that cannot be written, no space left.
            ConfigError: required fields that are empty (all of them), a name that is taken or no name, a web server.
        """
        if is_web(self.place):
            remedy = "publish into the folder it serves, into S3 (s3://BUCKET/FOLDER) or on the Hub"
            raise ConfigError(f"{self.place}: a web server is read, not written; {remedy}")
        card = verify(folder)
        require_complete(card)
        if not NAME.fullmatch(card.name):
            raise ConfigError(f"{card.name!r}: no name for an inventory; at most 100 letters, digits, '.', '_' and '-'")
        _merged(self.entries, card.name, card.content_sha256, replace)
        try:
            with scratch(Path(tempfile.gettempdir()), "pack") as temporary:
                zipped = zip_pack(folder, temporary / "pack.zip")
                entry = _entry(card, zipped)
                if not dry_run:
                    self._write(zipped, entry, replace)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise CheckpointError(f"{self.place}: no space left for {card.name}; nothing is published") from None
            raise CheckpointError(f"{self.place}: cannot be written ({error.strerror or error})") from None
        return entry

    def _write(self, zipped: Path, entry: Entry, replace: bool) -> None:
        def change(entries: list[Entry]) -> list[Entry]:
            return [*_merged(entries, entry.name, entry.content_sha256, replace), entry]

        if is_url(self.place):
            self.entries = _write_store(self.place, zipped, entry, change)
        else:
            self.entries = _write_folder(Path(self.place), zipped, entry, change)


def plain(entry: Any) -> dict[str, Any]:
    """An entry or a card as data for JSON; what is not known is left out."""
    return dataclasses.asdict(entry, dict_factory=lambda items: {k: v for k, v in items if v is not None})


def parse(data: bytes, where: str) -> list[Entry]:
    """The index, which anybody may have written.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: no JSON ({error or 'nested too deeply'})") from None
    if isinstance(content, dict) and content.get("version", VERSION) != VERSION:
        raise ConfigError(f"{where}: version {content['version']!r}; this package reads {VERSION}, update it")
    reader = Reader()
    index = reader.build(_Index, content, where)
    faults = reader.faults
    if not faults:
        faults = [fault for entry in index.packs for fault in _inconsistent(entry, f"{where}: {entry.name!r}")]
        names = collections.Counter(entry.name for entry in index.packs)
        faults += [f"{where}: {name!r} stands there twice" for name, count in sorted(names.items()) if count > 1]
    if faults:
        raise ConfigError(fault if len(fault) < 400 else f"{fault[:400]}..." for fault in faults)
    return index.packs


def _inconsistent(entry: Entry, where: str) -> list[str]:
    if faults := too_many(entry.modules, entry.vocabs, where):
        return faults
    if not NAME.fullmatch(entry.name):
        faults.append(f"{where}: no name for a pack")
    if not _ARCHIVE.fullmatch(entry.archive):
        faults.append(f"{where}: archive {entry.archive!r} is no file beside the index")
    if len(entry.sha256) != 64 or not set(entry.sha256) <= set("0123456789abcdef"):
        faults.append(f"{where}: sha256 {entry.sha256!r} is no SHA-256")
    if not 0 < entry.bytes <= MAX_BYTES:
        faults.append(f"{where}: {entry.bytes} bytes; a pack has at most {MAX_BYTES}")
    if not entry.modules:
        faults.append(f"{where}: no modules")
    ports = [port for m in entry.modules for port in (m.reads, m.writes)]
    unknown = {p.vocab for p in ports if p.vocab is not None and p.vocab not in entry.vocabs}
    return faults + [f"{where}: a port of vocabulary {name!r}, which is not described" for name in sorted(unknown)]


def _normal(place: str) -> str:
    scheme, remote, path = place.partition("://")
    if remote and scheme in ("file", "local"):  # a folder, which can be locked
        place = urllib.parse.unquote(path.removeprefix("localhost"))
    if not is_url(place):
        here = Path(place).expanduser()
        return str(here.parent if here.name == INDEX else here)
    shorter = place.removesuffix(f"/{INDEX}").rstrip("/")
    return place if shorter.endswith(":") else shorter


def _read(place: str) -> bytes | None:
    """The index; none if there is none."""
    if is_web(place):
        try:
            return read_small(f"{place}/{INDEX}", MAX_INDEX_BYTES)
        except CheckpointError as error:
            raise CheckpointError(f"inventory {fault}" for fault in error.faults) from None
    try:
        if is_url(place):
            fs, path = filesystem(place)
            fs.invalidate_cache()
            with telling(place):
                if not fs.exists(f"{path}/{INDEX}"):
                    return None
        return read_small(f"{place}/{INDEX}", MAX_INDEX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CheckpointError(f"{place}/{INDEX}: {error.strerror or error}") from None


def _holds(entry: Entry, port: PortCard, query: str | None) -> bool:
    vocab = entry.vocabs[port.vocab] if port.vocab else None
    words = {port.kind}
    # Only a vocabulary has a language of its own; speech has the languages of the pack.
    words |= {vocab.unit, vocab.language or "", port.vocab or ""} if vocab else set(entry.about.language or ())

    def holds(word: str) -> bool:
        return word in words or (vocab is not None and len(word) >= 6 and vocab.sha256.startswith(word.lower()))

    return all(holds(word) for word in (query or "").split())


def _entry(card: Card, zipped: Path) -> Entry:
    digest = sha256_of(zipped)
    return Entry(
        name=card.name,
        archive=f"{card.name}-{digest[:12]}.zip",
        sha256=digest,
        bytes=zipped.stat().st_size,
        content_sha256=card.content_sha256,
        modules=card.modules,
        vocabs=card.vocabs,
        about=card.about,
        metrics=card.metrics,
    )


def _merged(entries: Iterable[Entry], name: str, content: str, replace: bool) -> list[Entry]:
    """The other entries; one of this name must be the same pack or give way."""
    entries = list(entries)
    if not replace and any(e.name == name and e.content_sha256 != content for e in entries):
        raise ConfigError(f"{name}: the inventory has another pack of this name; choose another or --replace it")
    return [e for e in entries if e.name != name]


def _dump(entries: list[Entry]) -> bytes:
    packs = [plain(e) for e in sorted(entries, key=lambda e: e.name)]
    return (json.dumps({"version": VERSION, "packs": packs}, indent=1, ensure_ascii=False) + "\n").encode()


Change = Callable[[list[Entry]], list[Entry]]


def _write_folder(folder: Path, zipped: Path, entry: Entry, change: Change) -> list[Entry]:
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{INDEX}.lock", str(folder)):
        entries = change(Inventory.open(folder, new=True).entries)
        index = zipped.with_name(INDEX)
        index.write_bytes(_dump(entries))
        for source, name in ((zipped, entry.archive), (index, INDEX)):
            with whole(folder / name) as new:
                shutil.copyfile(source, new)
    return entries


def _write_store(place: str, zipped: Path, entry: Entry, change: Change) -> list[Entry]:
    fs, path = filesystem(place)
    with telling(place):
        if not fs.exists(f"{path}/{entry.archive}") or fs.size(f"{path}/{entry.archive}") != entry.bytes:
            if "/" in path.strip("/"):  # a folder may be made, a bucket not: its name may be mistyped
                with contextlib.suppress(FileExistsError):
                    fs.mkdir(path, create_parents=False)
            fs.put_file(str(zipped), f"{path}/{entry.archive}")
    for turn in range(_WRITES):
        with telling(place):
            before = _state(fs, f"{path}/{INDEX}")
            entries = change(Inventory.open(place, new=True).entries)
            try:
                _put_if(fs, f"{path}/{INDEX}", _dump(entries), before)
            except OSError:
                if _state(fs, f"{path}/{INDEX}") == before:
                    raise
                continue  # somebody else was faster
        entries = Inventory.open(place).entries
        if any(e.name == entry.name and e.sha256 == entry.sha256 for e in entries):
            return entries
        time.sleep(0.1 * 2**turn)
    raise CheckpointError(f"{place}: the index was changed by others {_WRITES} times meanwhile; push again")


def _state(fs: Any, path: str) -> str | None:
    """What tells one version of a file from the next, if the store has such a thing."""
    fs.invalidate_cache()
    return fs.info(path).get("ETag") if fs.exists(path) else None


def _put_if(fs: Any, path: str, data: bytes, before: str | None) -> None:
    """Write; on S3 only if the file is still the one that was read."""
    condition: dict[str, str] = {}
    if "s3" in fs.protocol:
        condition = {"IfMatch": before} if before else {"IfNoneMatch": "*"}
    fs.pipe_file(path, data, **condition)
