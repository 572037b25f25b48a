"""What a sentence says, before any language says it: noun phrases, clauses, sentences."""

from __future__ import annotations

from dataclasses import dataclass

from mini.lexicon import Adjective, Adverb, Name, Noun, Verb

POSSESSIVES = ("my", "his", "her", "our")
NUMBERS = ("two", "three", "four", "eight")
# prog: happens now, simple: habit or state, past, perf: done by now, fut, modal: wants to, can, must
TENSES = ("prog", "simple", "past", "perf", "fut", "modal")
MODALS = ("want", "can", "must")


@dataclass(frozen=True)
class NP:
    """A noun phrase: a pronoun (its English subject form), a name, a noun and its company, or two by `and`.

    det: the, a, this, zero, many, a possessive or a number. rel_object: the phrase is the object in `rel`.
    """

    pronoun: str | None = None
    word: Noun | Name | None = None
    det: str = "the"
    adj: Adjective | None = None
    many: bool = False
    parts: tuple[NP, NP] | None = None
    rel: Clause | None = None
    rel_object: bool = False

    @property
    def plural(self) -> bool:
        return self.many or self.parts is not None or self.pronoun in ("we", "they")

    @property
    def person(self) -> int:
        """0: 1sg, 1: 2sg, 2: 3sg, 3: 1pl, 4: 3pl."""
        fixed = {"i": 0, "you": 1, "we": 3}
        return fixed.get(self.pronoun or "", 4 if self.plural else 2)

    @property
    def human(self) -> bool:
        if isinstance(self.word, Noun):
            return self.word.cls == "P"
        return (
            self.pronoun is not None
            or self.parts is not None
            or isinstance(self.word, Name)
            and self.word.kind != "city"
        )

    @property
    def city(self) -> bool:
        return isinstance(self.word, Name) and self.word.kind == "city"

    @property
    def definite(self) -> bool:
        """True for pronouns and names too: their determiner is the default."""
        return self.det in ("the", "this", *POSSESSIVES)


@dataclass(frozen=True)
class PP:
    """A prepositional phrase, by its English preposition: in, on, under, at, to, with, for."""

    prep: str
    np: NP


@dataclass(frozen=True)
class Clause:
    """Subject, verb and company. Without a verb: a copula with `pred`, or, without `pred` too, `there is`.

    front: what German puts before the verb of a main clause (subject, time or place).
    en_front: English puts the time first.
    """

    subject: NP
    verb: Verb | None = None
    object: NP | None = None
    pps: tuple[PP, ...] = ()
    time: Adverb | None = None
    tense: str = "simple"
    modal: str | None = None
    negated: bool = False
    pred: Adjective | None = None
    front: str = "subject"
    en_front: bool = False

    @property
    def there(self) -> bool:
        return self.verb is None and self.pred is None


@dataclass(frozen=True)
class Sentence:
    """A main clause and, for the links because, that and when, a second one (order: when SUB MAIN)."""

    main: Clause
    link: str | None = None
    sub: Clause | None = None
    drop_that: bool = False
