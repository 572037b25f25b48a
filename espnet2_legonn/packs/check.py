"""Will these modules fit? Read from cards alone: no weights, no torch."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from espnet2_legonn.errors import ConfigError, LegoNNError
from espnet2_legonn.model.interface import RATIO_TOLERANCE, compare
from espnet2_legonn.packs.card import Card, ModuleCard, interface
from espnet2_legonn.packs.fetch import resolve
from espnet2_legonn.packs.files import card_of, opened


class Verdict(enum.IntEnum):
    """How much a reason weighs; also the exit status of ``legonn check``."""

    FITS = 0
    DIFFERS = 1
    MISFIT = 2

    @property
    def words(self) -> str:
        return ("fits", "fits, but differs from training", "will not fit")[self]


class Reason(NamedTuple):
    """One reason for or against a joint."""

    verdict: Verdict
    message: str


@dataclass
class PackPart:
    """Modules of a pack that follow each other, in an unpacked folder."""

    spec: str
    card: Card
    folder: Path
    modules: list[ModuleCard]


@dataclass
class Joint:
    """Where one part meets the next, and every reason for and against."""

    left: str
    right: str
    reasons: list[Reason]

    @property
    def verdict(self) -> Verdict:
        return max((r.verdict for r in self.reasons), default=Verdict.FITS)


@dataclass
class Report:
    """What ``check`` found: the chain's ends, and each joint."""

    parts: list[str]
    reads: str
    writes: str
    joints: list[Joint]

    @property
    def verdict(self) -> Verdict:
        return max((j.verdict for j in self.joints), default=Verdict.FITS)

    def __str__(self) -> str:
        marks = ("+", "~", "x")
        lines = [f"{self.reads} -> {' -> '.join(self.parts)} -> {self.writes}"]
        for joint in self.joints:
            lines.append(f"{joint.left} -> {joint.right}: {joint.verdict.words}")
            lines += [f"  {marks[r.verdict]} {r.message}" for r in sorted(joint.reasons, key=lambda r: -r.verdict)]
        lines.append(f"verdict: {self.verdict.words}")
        return "\n".join(lines)


def choose(card: Card, names: str, spec: str) -> list[ModuleCard]:
    """Modules ``a,b`` of a card; all of them for an empty string.

    Raises:
        ConfigError: unknown modules, or modules that do not follow each other.
    """
    if not names:
        return card.modules
    own = [m.name for m in card.modules]
    wanted = names.split(",")
    if unknown := [n for n in wanted if n not in own]:
        raise ConfigError(f"{spec}: no module {', '.join(unknown)}; it has {', '.join(own)}")
    first = own.index(wanted[0])
    if wanted != own[first : first + len(wanted)]:
        raise ConfigError(f"{spec}: modules must follow each other in the chain ({', '.join(own)})")
    return card.modules[first : first + len(wanted)]


def check(specs: Sequence[str]) -> Report:
    """Every reason for and against plugging the given parts together.

    Args:
        specs: ``PACK[#module[,module...]]``, in order; PACK is whatever ``resolve`` understands.

    Raises:
        LegoNNError: packs that cannot be read (all of them are named), or unknown modules.
    """
    with contextlib.ExitStack() as stack:
        parts, faults = [], []
        for spec in specs:
            source, _, names = spec.partition("#")
            try:
                path = resolve(source)
                card = card_of(path)
                modules = choose(card, names, spec)
                parts.append(PackPart(spec, card, stack.enter_context(opened(path, _vocab_files(card))), modules))
            except LegoNNError as error:
                faults += error.faults
        if faults:
            raise ConfigError(faults)
        joints = [_joint(a, b) for a, b in zip(parts, parts[1:])]
        said = [f"{p.card.name}#{m.name}" for p in parts for m in p.modules]
        return Report(said, _end(parts[0], reads=True), _end(parts[-1], reads=False), joints)


def _vocab_files(card: Card) -> set[str]:
    return {name for vocab in card.vocabs.values() for name in (vocab.tokens, vocab.bpemodel) if name}


def _end(part: PackPart, reads: bool) -> str:
    port = part.modules[0].reads if reads else part.modules[-1].writes
    if port.kind == "speech":
        return f"speech at {(port.fs or 0) / 1000:g} kHz"
    if port.vocab is None:
        return port.part or port.kind
    vocab = part.card.vocabs[port.vocab]
    language = f", {vocab.language}" if vocab.language else ""
    return f"{port.kind} ({port.vocab}: {vocab.size} {vocab.unit}{language})"


def _joint(left: PackPart, right: PackPart) -> Joint:
    writer, reader = left.modules[-1], right.modules[0]
    out, into = writer.writes, reader.reads
    joint = Joint(f"{left.card.name}#{writer.name}", f"{right.card.name}#{reader.name}", [])
    say = joint.reasons.append
    if out.kind != into.kind:
        say(Reason(Verdict.MISFIT, f"{writer.name} writes {out.kind}, {reader.name} reads {into.kind}"))
        return joint
    if out.kind == "states":
        if out.size != into.size:
            say(Reason(Verdict.MISFIT, f"states of width {out.size} are written, {into.size} are read"))
        else:
            say(Reason(Verdict.DIFFERS, "hidden states are no interface: trained together or not understood"))
        return joint
    source, sink = interface(left.card, left.folder, out), interface(right.card, right.folder, into)
    for finding in compare(source, sink, bool(into.collapse)):
        say(Reason(Verdict.MISFIT if finding.fatal else Verdict.DIFFERS, finding.message))
    if source.vocab.sha256 == sink.vocab.sha256:
        same = f"the same vocabulary: {len(source.vocab)} {source.vocab.unit} tokens in the same order"
        say(Reason(Verdict.FITS, f"{same}, blank id {source.vocab.blank_id}"))
    joint.reasons += _lengths(out.slots_per_token, into.slots_per_token, bool(into.collapse))
    if out.longest and into.longest and out.longest > RATIO_TOLERANCE * into.longest:
        longer = f"length: up to {out.longest} slots are written, the reader saw at most {into.longest} in training"
        say(Reason(Verdict.DIFFERS, f"{longer}; long inputs may fail, split them"))
    a, b = left.card.about.domain, right.card.about.domain
    if a and b and a != b:
        say(Reason(Verdict.DIFFERS, f"domain: {a} there, {b} here"))
    return joint


def _lengths(written: float | None, read: float | None, collapse: bool) -> list[Reason]:
    """The good news about slots per token; the bad is found by ``compare``."""
    if written is None or read is None:
        return [Reason(Verdict.FITS, "slots per token: not recorded on both sides, so not compared")]
    if collapse:
        return [Reason(Verdict.FITS, f"slots per token: {written:.2f} are written; the reader collapses, any will do")]
    if 1 / RATIO_TOLERANCE <= written / read <= RATIO_TOLERANCE:
        return [Reason(Verdict.FITS, f"slots per token: {written:.2f} are written, {read:.2f} were seen in training")]
    return []
