"""The word tables (*.txt beside this file) as typed rows; a broken row is reported with file and line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
PLACE_PREPOSITIONS = {"in", "on", "under", "at"}


@dataclass(frozen=True)
class Noun:
    """A noun: singular and plural (None for mass nouns and places) and the facts that agreement needs."""

    en: str
    en_pl: str | None
    cls: str
    topic: str
    de_gender: str
    de: str
    de_pl: str | None
    ro_gender: str
    ro: tuple[str, str, str, str]
    places: tuple[str, ...]

    @property
    def weak(self) -> bool:
        """German n-declension: every case but the nominative ends like the plural (den studenten)."""
        return self.de_gender == "mw"

    @property
    def feminine(self) -> bool:
        """Natural gender of a person, for he or she."""
        return self.cls == "P" and self.ro_gender == "f"


@dataclass(frozen=True)
class Name:
    """A person (kind m or f) or a city."""

    en: str
    de: str
    ro: str
    kind: str


@dataclass(frozen=True)
class Verb:
    """A verb. `en`: base, 3sg, past, participle, -ing. `de`: infinitive, 1sg, 2sg, 3sg without the prefix.

    `ro`: infinitive, 1sg, 2sg, 3sg, 1pl, 3pl, 3rd person subjunctive, participle.
    """

    en: tuple[str, ...]
    stative: bool
    subjects: str
    objects: str
    adjuncts: frozenset[str]
    de_prefix: str
    de: tuple[str, ...]
    de_participle: str
    de_aux: str
    de_case: str
    ro: tuple[str, ...]


@dataclass(frozen=True)
class Adjective:
    """An adjective; `ro` is m.sg f.sg m.pl f.pl, `de_stem` takes the endings, `de` is predicative."""

    en: str
    nouns: str
    de: str
    de_stem: str
    ro: tuple[str, str, str, str]


@dataclass(frozen=True)
class Adverb:
    """A time adverbial; `edge` ones stand first or last in English, the others before the verb."""

    en: str
    de: str
    ro: str
    edge: bool
    tenses: frozenset[str]


@dataclass(frozen=True)
class Lexicon:
    """All tables; look-ups by English word are by `noun`, `verb`, `adjective`, `adverb`, `name`."""

    nouns: tuple[Noun, ...]
    verbs: tuple[Verb, ...]
    adjectives: tuple[Adjective, ...]
    adverbs: tuple[Adverb, ...]
    names: tuple[Name, ...]

    def noun(self, en: str) -> Noun:
        return next(n for n in self.nouns if n.en == en)

    def verb(self, en: str) -> Verb:
        return next(v for v in self.verbs if v.en[0] == en)

    def adjective(self, en: str, noun: Noun | None = None) -> Adjective:
        """The adjective `en` that goes with `noun` (old: bătrân of a dog, vechi of a house)."""
        return next(a for a in self.adjectives if a.en == en and (noun is None or fits(noun, a.nouns)))

    def adverb(self, en: str) -> Adverb:
        return next(a for a in self.adverbs if a.en == en)

    def name(self, en: str) -> Name:
        return next(n for n in self.names if n.en == en)


def fits(noun: Noun, selection: str) -> bool:
    """True if a noun is in a selection: class letters and nouns by name, with commas (`PA,song`)."""
    for part in selection.split(","):
        if (part.isupper() and noun.cls in part) or part == noun.en:
            return True
    return False


def _rows(path: Path, widths: tuple[tuple[int, ...], ...]) -> Iterator[list[list[str]]]:
    """Yield the fields of each row; `widths` gives the allowed number of values of each field."""
    faults = []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [part.split() for part in line.split("|")]
        fields += [[]] * (len(widths) - len(fields))
        found = [len(f) for f in fields]
        if len(fields) != len(widths) or any(n not in w for n, w in zip(found, widths, strict=True)):
            expected = " | ".join(" or ".join(map(str, w)) for w in widths)
            row = f"{path.name}:{number}"
            faults.append(f"{row}: fields have {found} values, expected {expected}: {line.strip()}")
        rows.append([[w.replace("_", " ") for w in f] for f in fields])
    if faults:
        raise ValueError("\n".join(faults))
    yield from rows


def _form(word: str) -> str | None:
    return None if word == "-" else word


def _nouns(folder: Path) -> Iterator[Noun]:
    for (en, en_pl), (cls, topic), (gender, de, de_pl), (ro_gender, *ro), places in _rows(
        folder / "nouns.txt", ((2,), (2,), (3,), (5,), (0, 1, 2))
    ):
        unknown = set(places) - PLACE_PREPOSITIONS
        if unknown or gender not in {"m", "f", "n", "mw"} or ro_gender not in {"m", "f", "n"}:
            raise ValueError(
                f"nouns.txt: {en}: unknown gender or preposition: {gender} {ro_gender} {sorted(unknown)}"
            )
        yield Noun(
            en, _form(en_pl), cls, topic, gender, de, _form(de_pl), ro_gender, tuple(ro), tuple(places)
        )


def _verbs(folder: Path) -> Iterator[Verb]:
    for en, (kind, subjects, objects, adjuncts), de, ro in _rows(
        folder / "verbs.txt", ((5,), (4,), (8,), (8,))
    ):
        prefix, *forms, participle, aux, case = de
        yield Verb(
            en=tuple(en),
            stative=kind == "state",
            subjects=subjects,
            objects="" if objects == "-" else objects,
            adjuncts=frozenset(adjuncts.replace("-", "").split(",")) - {""},
            de_prefix="" if prefix == "-" else prefix,
            de=tuple(forms),
            de_participle=participle,
            de_aux=aux,
            de_case=case,
            ro=tuple(ro),
        )


@cache
def load(folder: Path = HERE) -> Lexicon:
    """Read the five tables of a folder.

    Raises:
        ValueError: rows with a wrong number of values, named by file and line.
    """
    adjectives = _rows(folder / "adjectives.txt", ((1,), (1,), (2,), (4,)))
    adverbs = _rows(folder / "adverbs.txt", ((1,), (1,), (1,), (1,), (1, 2)))
    names = _rows(folder / "names.txt", ((3,), (1,)))
    return Lexicon(
        nouns=tuple(_nouns(folder)),
        verbs=tuple(_verbs(folder)),
        adjectives=tuple(
            Adjective(en, sel, de, stem, tuple(ro)) for (en,), (sel,), (de, stem), ro in adjectives
        ),
        adverbs=tuple(
            Adverb(en, de, ro, at == "edge", frozenset(t)) for (en,), (de,), (ro,), (at,), t in adverbs
        ),
        names=tuple(Name(en, de, ro, kind) for (en, de, ro), (kind,) in names),
    )
