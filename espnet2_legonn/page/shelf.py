"""What can be chosen on the page: parts of packs that can begin, continue or end a chain. Cards only, no torch."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from espnet2_legonn.errors import ConfigError, LegoNNError
from espnet2_legonn.packs.card import CARD, Card, ModuleCard, PortCard
from espnet2_legonn.packs.check import Report, Verdict, check
from espnet2_legonn.packs.fetch import resolve
from espnet2_legonn.packs.files import card_of, is_as_told, opened

ENCODER, MIDDLE, DECODER = "encoder", "middle", "decoder"
# Roles of parts that read distributions; other runs of modules (hidden states) cannot be plugged.
ROLES = {"marginals": MIDDLE, "text": DECODER}
# A pack may bring examples of its input: a text a line, and recordings whose names begin like this.
EXAMPLE_TEXTS, EXAMPLE_SOUNDS = "examples.txt", "example"
SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MAX_EXAMPLES = 4
DEFAULT_VARIABLE = "LEGONN_PACKS"
# The folders of an absolute path; not the ends of URLs.
_FOLDERS = re.compile(r"(?<![\w:/.])/(?=\S)(?:[^/:'\"\n]+/)+")


class Example(NamedTuple):
    """An input that a pack brings along: a text, or the name of a recording in the pack."""

    text: str
    is_file: bool = False


@dataclass(frozen=True)
class Choice:
    """Modules of a pack that can be one part of a chain.

    Args:
        spec: ``NAME#module[,module...]``: what a browser is told and sends. Not where the pack lies.
        source: the pack, as ``resolve`` reads it.
        label: what a person reads: the pack, its modules unless they are all, what goes in and out.
        role: encoder, middle or decoder.
        reads: speech, tokens or marginals.
        tokens: digest of the vocabulary of its interface; of a decoder part only if it writes the same tokens.
    """

    spec: str
    source: str
    label: str
    role: str
    reads: str
    tokens: str | None = None
    examples: tuple[Example, ...] = ()

    @property
    def modules(self) -> list[str]:
        """Names of the modules, in order."""
        return self.spec.rpartition("#")[2].split(",")


@dataclass
class Shelf:
    """All choices, in the order of the packs, and what is wrong with packs that give none."""

    choices: list[Choice]
    faults: list[str] = field(default_factory=list)

    def of(self, role: str) -> list[Choice]:
        """The choices for one place of the chain."""
        return [choice for choice in self.choices if choice.role == role]

    def find(self, specs: Sequence[str | None]) -> list[Choice]:
        """Choices by their specs; places left empty are skipped.

        Raises:
            ConfigError: a part that is not on this page.
        """
        known = {choice.spec: choice for choice in self.choices}
        if unknown := [spec for spec in specs if spec and spec not in known]:
            raise ConfigError(f"not on this page: {', '.join(unknown)}; reload it, or start it with that pack")
        return [known[spec] for spec in specs if spec]

    def judge(self, specs: Sequence[str | None]) -> Report:
        """Every reason for and against; see ``check``.

        Raises:
            LegoNNError: parts that are not on the page, or packs that cannot be read any more.
        """
        return _check(tuple(f"{choice.source}#{','.join(choice.modules)}" for choice in self.find(specs)))

    def voters(self, encoder: str, decoder: str) -> list[Choice]:
        """Encoder parts that can vote beside one: over the tokens that this decoder part reads and writes."""
        found, tokens = [], self.find([decoder])[0].tokens
        for choice in self.of(ENCODER):
            if tokens and choice.tokens == tokens and choice.spec != encoder:
                with contextlib.suppress(LegoNNError):
                    if self.judge([choice.spec, decoder]).verdict < Verdict.MISFIT:
                        found.append(choice)
        return found

    def first_fit(self) -> tuple[str, str]:
        """An encoder part and a decoder part that fit, or that do so best."""
        pairs = ((e.spec, d.spec) for e in self.of(ENCODER) for d in self.of(DECODER))
        best, weight = (self.of(ENCODER)[0].spec, self.of(DECODER)[0].spec), 3
        for pair in pairs:
            try:
                verdict = int(self.judge(pair).verdict)
            except LegoNNError:
                continue
            if verdict < weight:
                best, weight = pair, verdict
            if weight == 0:
                break
        return best


@functools.lru_cache(maxsize=1024)
def _check(specs: tuple[str, ...]) -> Report:
    return check(specs)


def default_packs() -> Path:
    """The folder of the packs that ship with the repository, or the one that ``LEGONN_PACKS`` names."""
    return Path(os.environ.get(DEFAULT_VARIABLE) or Path(__file__).resolve().parents[2] / "packs")


def open_shelf(references: Sequence[str | Path] = ()) -> Shelf:
    """Read the cards of packs, and of folders of packs (default: ``default_packs()``).

    A pack that cannot be read does not hide the others: it is named in ``faults``.

    Raises:
        ConfigError: no encoder part or no decoder part is left, with everything that was found wrong.
    """
    shelf, seen = Shelf([]), set()
    found: list[tuple[str, Card, tuple[Example, ...]]] = []
    sources, shelf.faults = _sources(references)
    for source in sources:
        try:
            path = resolve(source)
            card = card_of(path)
            with opened(path, [EXAMPLE_TEXTS]) as folder:
                examples = tuple(_examples(card, folder))
        except LegoNNError as error:
            shelf.faults += error.faults
            continue
        # `legonn pack` writes a folder and its zip side by side: one of them is enough.
        if card.content_sha256 not in seen:
            seen.add(card.content_sha256)
            found.append((source, card, examples))
    titles: set[str] = set()
    for source, card, examples in found:
        same = (f"{card.name} ({i})" for i in itertools.count(2))
        title = card.name if card.name not in titles else next(t for t in same if t not in titles)
        titles.add(title)
        choices = list(_choices(source, card, title, examples))
        shelf.choices += choices
        if not choices:
            shelf.faults.append(f"{source}: nothing to plug, its modules pass hidden states; train them with CTC")
    lacking = [role for role in (ENCODER, DECODER) if not shelf.of(role)]
    if lacking and shelf.choices:
        shelf.faults.append(f"no {' and no '.join(lacking)} part among these packs; name a pack that has one as well")
    if lacking:
        raise ConfigError(shelf.faults)
    return shelf


def public(messages: Sequence[str]) -> list[str]:
    """Messages for a browser: of paths of this machine only the last part."""
    return [_FOLDERS.sub("", message) for message in messages]


def _sources(references: Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """Packs that references stand for, and folders that hold none."""
    sources: list[str] = []
    faults: list[str] = []
    for reference in references or [default_packs()]:
        folder = Path(reference).expanduser()
        if folder.is_dir() and not (folder / CARD).is_file():
            inside = [p for p in sorted(folder.iterdir()) if (p / CARD).is_file() or p.suffix == ".zip"]
            sources += map(str, inside)
            if not inside:
                remedy = "name others, `legonn demo PACK_OR_FOLDER ...`, or make one, `legonn pack EXPERIMENT`"
                faults.append(f"{folder}: no pack in it (a folder with {CARD}, or a zip); {remedy}")
        elif not references and not folder.exists():
            faults.append(f"{folder}: no such folder of packs; name some: `legonn demo PACK_OR_FOLDER ...`")
        else:
            sources.append(str(reference))
    return sources, faults


def _examples(card: Card, folder: Path) -> Iterator[Example]:
    if EXAMPLE_TEXTS in card.files and is_as_told(folder, card, EXAMPLE_TEXTS):
        text = (folder / EXAMPLE_TEXTS).read_text(encoding="utf-8", errors="replace")
        for line in [line for line in text.splitlines() if line.strip()][:MAX_EXAMPLES]:
            yield Example(line.strip())
    sounds = [n for n in card.files if n.startswith(EXAMPLE_SOUNDS) and n.lower().endswith(SOUND_SUFFIXES)]
    yield from (Example(name, is_file=True) for name in sorted(sounds)[:MAX_EXAMPLES])


def _choices(source: str, card: Card, title: str, examples: tuple[Example, ...]) -> Iterator[Choice]:
    """Every run of modules of a pack that has a role."""
    for i, first in enumerate(card.modules):
        for j, last in enumerate(card.modules[i:], i):
            if role := _role(first.reads.kind, last.writes.kind):
                names = ",".join(m.name for m in card.modules[i : j + 1])
                whole = j - i + 1 == len(card.modules)
                place = title if whole else f"{title}#{names}"
                label = f"{place}: {_words(card, first.reads)} → {_words(card, last.writes)}"
                kind = first.reads.kind
                fitting = {"tokens": False, "speech": True}.get(kind)  # of other inputs there are no examples
                own = tuple(e for e in examples if role == ENCODER and e.is_file is fitting)
                yield Choice(f"{title}#{names}", source, label, role, kind, _tokens(card, role, first, last), own)


def _tokens(card: Card, role: str, first: ModuleCard, last: ModuleCard) -> str | None:
    vocabs = [card.vocabs.get(p.vocab or "") for p in (last.writes, *([first.reads] if role == DECODER else []))]
    digests = {vocab.sha256 if vocab else None for vocab in vocabs}
    return digests.pop() if len(digests) == 1 else None


def _role(reads: str, writes: str) -> str | None:
    """What a part can be, from what its ends read and write: whatever ends in distributions begins a chain."""
    if reads == "marginals":
        return ROLES.get(writes)
    return ENCODER if writes == "marginals" and reads != "states" else None


def _words(card: Card, port: PortCard) -> str:
    """A port in a few words."""
    if port.kind == "speech":
        return f"speech, {(port.fs or 0) / 1000:g} kHz"
    if port.part or port.vocab not in card.vocabs:  # an input that this package does not bring
        return port.part or port.kind
    vocab = card.vocabs[port.vocab or ""]
    if port.kind == "marginals":
        return ", ".join(filter(None, [f"{vocab.size} {vocab.unit}", vocab.language]))
    return f"text ({vocab.language})" if vocab.language else "text"
