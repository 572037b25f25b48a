"""The card of a pack: what its modules read and write, where they come from, how good they are. No torch."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.files.archive import MAX_FILES, refusal
from espnet2_legonn.files.schema import Reader, read_yaml, shown
from espnet2_legonn.model.interface import Interface, SearchChoice

CARD = "card.yaml"
VERSION = 1
# A card is read before anything is trusted: this is far beyond any honest one.
MAX_CARD_BYTES = 1 << 20
# What is read of modules grows with their square: every run of them may be a part.
MAX_PARTS = 100
# Without these a pack is none.
NEEDED = ("config.yaml", "weights.safetensors")
_SHA256 = re.compile("[0-9a-f]{64}")
# What a pack must say before it is shared.
REQUIRED = ("description", "license", "training_data", "language")


@dataclass
class FileEntry:
    """One file of the pack."""

    sha256: str
    bytes: int


@dataclass
class VocabCard:
    """The contract of a vocabulary; tokens and sentencepiece model are files of the pack."""

    sha256: str
    size: int
    unit: str
    tokens: str
    blank_id: int = 0
    bpemodel: str | None = None
    language: str | None = None
    normalization: str | None = None


@dataclass
class PortCard:
    """One side of a module.

    Args:
        kind: speech, tokens, marginals, states or text.
        vocab: name of a vocabulary of the card.
        size: width of states.
        slots_per_token, longest: what was seen in training, if the port writes or reads marginals.
        grounded: trained with CTC (written marginals).
        ingestor, k, collapse: how marginals are read.
        fs, n_mels, normalize: how speech is read; Hz, mel bands, utterance | global | none.
        part: type of a part that this package does not bring, and what it says of itself.
    """

    kind: str
    vocab: str | None = None
    size: int | None = None
    slots_per_token: float | None = None
    longest: int | None = None
    grounded: bool | None = None
    ingestor: str | None = None
    k: int | None = None
    collapse: bool | None = None
    fs: int | None = None
    n_mels: int | None = None
    normalize: str | None = None
    part: str | None = None


@dataclass
class ModuleCard:
    """One module of the pack.

    Args:
        parent: ``PACK#MODULE`` that it was taken from without an update, or initialised with.
    """

    name: str
    reads: PortCard
    writes: PortCard
    parameters: int
    body: str
    parent: str | None = None


@dataclass
class CardScore:
    """A figure: of one module's interface, or of the whole chain (no module).

    Args:
        composition: the chain it was measured in, if not this pack itself.
    """

    metric: str
    value: float
    dataset: str
    module: str | None = None
    sentences: int | None = None
    interval: list[float] | None = None
    signature: str | None = None
    composition: str | None = None


@dataclass
class Parent:
    """A pack that modules were taken from; ``sha256`` is that pack's ``content_sha256``."""

    name: str
    sha256: str
    modules: list[str]


@dataclass
class Provenance:
    """How the pack came to be."""

    package: str | None = None
    commit: str | None = None
    python: str | None = None
    torch: str | None = None
    espnet: str | None = None
    seed: int | None = None
    updates: int | None = None
    config_sha256: str | None = None
    parents: list[Parent] = field(default_factory=list)


@dataclass
class About:
    """What only a person knows.

    Args:
        domain: what the training data are about (parliament, talks, captions, ...).
        training_data: names, with versions and licences.
    """

    description: str | None = None
    license: str | None = None
    language: list[str] | None = None
    domain: str | None = None
    training_data: list[str] | None = None
    citation: str | None = None


@dataclass
class Card:
    """A pack's card.

    Args:
        content_sha256: digest over all files but the card: the pack's identity.
        search: weights of the search that were tuned for the whole chain.
    """

    name: str
    modules: list[ModuleCard]
    vocabs: dict[str, VocabCard]
    files: dict[str, FileEntry]
    content_sha256: str
    version: int = VERSION
    about: About = field(default_factory=About)
    metrics: list[CardScore] = field(default_factory=list)
    provenance: Provenance = field(default_factory=Provenance)
    search: SearchChoice | None = None

    @property
    def missing(self) -> list[str]:
        """Fields that must be filled before a pack is shared."""
        return [name for name in REQUIRED if not getattr(self.about, name)]

    def module(self, name: str) -> ModuleCard:
        """The module of this name.

        Raises:
            ConfigError: there is none.
        """
        for entry in self.modules:
            if entry.name == name:
                return entry
        raise ConfigError(f"{self.name}: no module {name!r}; it has {', '.join(m.name for m in self.modules)}")


def content_digest(files: Mapping[str, FileEntry]) -> str:
    """One digest for the names and contents of all files."""
    lines = "".join(f"{name} {entry.sha256}\n" for name, entry in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def dump(card: Card) -> str:
    """YAML; what is not known is left out."""
    return yaml.safe_dump(_without_none(dataclasses.asdict(card)), sort_keys=False, allow_unicode=True, width=120)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


def parse(data: Any, where: str) -> Card:
    """Plain data to a checked card.

    Raises:
        ConfigError: every fault, with its place.
    """
    if isinstance(data, dict) and data.get("version", VERSION) != VERSION:
        raise ConfigError(f"{where}: card version {shown(data['version'])}; this package reads {VERSION}, update it")
    reader = Reader()
    card = reader.build(Card, data, where)
    if card is not None and not reader.faults:
        reader.faults += _inconsistent(card, where)
    if card is None or reader.faults:
        raise ConfigError(reader.faults)
    return card


def _inconsistent(card: Card, where: str) -> list[str]:
    if faults := too_many(card.modules, card.vocabs, where):
        return faults
    if len(card.files) > MAX_FILES:
        return [f"{where}.files: {len(card.files)}, at most {MAX_FILES} are read"]
    if not card.modules:
        faults.append(f"{where}.modules: at least one is needed")
    faults += [f"{where}.files: {name} is not listed" for name in NEEDED if name not in card.files]
    for name, entry in card.files.items():
        if refusal(name) or name == CARD or not _SHA256.fullmatch(entry.sha256):
            faults.append(f"{where}.files: {shown(name)} is no file inside the pack with a SHA-256 of 64 digits")
    faults += [f"{where}: control characters in {shown(t)}" for t in _texts(dataclasses.asdict(card)) if _odd(t)]
    for name, vocab in card.vocabs.items():
        for file in filter(None, (vocab.tokens, vocab.bpemodel)):
            if file not in card.files:
                faults.append(f"{where}.vocabs.{name}: {file} is not among the pack's files")
    for module in card.modules:
        for port in (module.reads, module.writes):
            if port.vocab is not None and port.vocab not in card.vocabs:
                faults.append(f"{where}: {module.name}: no vocabulary {port.vocab!r} in the card")
            elif port.kind in ("marginals", "tokens", "text") and port.vocab is None:
                faults.append(f"{where}: {module.name}: a port of {port.kind} needs a vocabulary")
    faults += card.search.faults(f"{where}.search") if card.search else []
    if not faults and content_digest(card.files) != card.content_sha256:
        faults.append(f"{where}: content_sha256 is not the digest of the files listed; the card was changed by hand")
    return faults


def too_many(modules: Sized, vocabs: Sized, where: str) -> list[str]:
    """Faults of a description that is longer than any honest one."""
    parts = (("modules", modules), ("vocabs", vocabs))
    return [f"{where}.{name}: {len(p)}, at most {MAX_PARTS} are read" for name, p in parts if len(p) > MAX_PARTS]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(part)


def _odd(text: str) -> bool:
    """Whether it could move a terminal's cursor or hide what it says."""
    return not text.replace("\n", "").replace("\t", "").isprintable()


def read_card(folder: Path) -> Card:
    """The card of an unpacked pack.

    Raises:
        ConfigError: no card, or faults in it.
    """
    path = folder / CARD
    if not path.is_file():
        raise ConfigError(f"{folder}: no {CARD}; make a pack of it with `legonn pack {folder}`")
    return parse(read_yaml(path, MAX_CARD_BYTES), str(path))


def vocabulary(card: Card, folder: Path, name: str) -> Vocabulary:
    """A vocabulary with its tokens; what the card says of it is checked.

    Raises:
        CheckpointError: the token list is not the one of the card.
    """
    entry = card.vocabs[name]
    model = folder / entry.bpemodel if entry.bpemodel else None
    vocab = Vocabulary.from_files(folder / entry.tokens, entry.unit, model, entry.language, entry.normalization)
    if vocab.sha256 != entry.sha256 or len(vocab) != entry.size:
        raise CheckpointError(
            f"{folder / entry.tokens}: SHA-256 of the tokens is {vocab.sha256}, the card says {entry.sha256}"
        )
    return vocab


def interface(card: Card, folder: Path, port: PortCard) -> Interface:
    """The contract of a marginals port."""
    assert port.vocab is not None
    grounded = port.grounded is not False
    return Interface(vocabulary(card, folder, port.vocab), grounded, port.slots_per_token, port.longest)
