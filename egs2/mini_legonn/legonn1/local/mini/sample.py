"""Random meanings, by domain.

Two things are left free, as in real translation: a time adverbial in front stays in front in English in 3 of
4 cases (elsewhere it comes first in 1 of 10), and `that` is left out in 1 of 4. Almost all else in English
follows from the source, often from far away (`jetzt` makes a progressive, `wenn` a simple present).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from mini import lexicon as lx
from mini.meaning import MODALS, NP, NUMBERS, POSSESSIVES, PP, Clause, Sentence

FRONT_KEPT, FRONT_GAINED, THAT_DROPPED = 0.75, 0.1, 0.25
T = TypeVar("T")


@dataclass(frozen=True)
class Domain:
    """What people talk about: weights of topics and of kinds of sentence, chance of an animal as subject."""

    topics: dict[str, float]
    kinds: dict[str, float]
    animals: float


DOMAINS = {
    "home": Domain(
        topics={"home": 2.0, "work": 1.0},
        kinds={"plain": 0.5, "because": 0.16, "that": 0.12, "when": 0.08, "copula": 0.08, "there": 0.06},
        animals=0.35,
    ),
    "talk": Domain(
        topics={"home": 1.0, "work": 5.0},
        kinds={"plain": 0.32, "because": 0.14, "that": 0.3, "when": 0.12, "copula": 0.1, "there": 0.02},
        animals=0.1,
    ),
}
ACTIVE = {"prog": 0.22, "simple": 0.2, "past": 0.3, "perf": 0.1, "fut": 0.1, "modal": 0.08}
STATIVE = {"simple": 0.4, "past": 0.3, "perf": 0.1, "fut": 0.1, "modal": 0.1}
# chance of a time adverbial. Habits and perfects cannot do without
TIMED = {"prog": 0.5, "past": 0.55, "fut": 0.7, "modal": 0.3}


def pick(rng: Random, weights: dict[T, float]) -> T:
    """A key by its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


class Sampler:
    """Draws sentences of a domain. The same `rng` state gives the same sentences."""

    def __init__(self, rng: Random, domain: Domain, lexicon: lx.Lexicon) -> None:
        self.rng, self.domain, self.lex = rng, domain, lexicon

    def sentence(self) -> Sentence:
        """A random sentence of any length."""
        kind = pick(self.rng, self.domain.kinds)
        if kind == "plain":
            return Sentence(self.main(self.clause(full=True)))
        if kind == "copula":
            return Sentence(self.main(self.copula(relative=True)))
        if kind == "there":
            return Sentence(self.existential())
        if kind == "when":
            return Sentence(self.habit(), "when", self.habit())
        if kind == "because":
            main = self.clause() if self.rng.random() < 0.75 else self.copula()
            sub = self.clause() if self.rng.random() < 0.7 else self.copula()
            return Sentence(main, "because", self.same_subject(main, sub))
        verb = self.rng.choice([v for v in self.lex.verbs if v.objects == "that"])
        tense = "past" if self.rng.random() < 0.35 else "simple"
        main = Clause(self.person(subject=True), verb, tense=tense, negated=self.rng.random() < 0.15)
        sub = self.clause() if self.rng.random() < 0.75 else self.copula()
        return Sentence(main, "that", sub, drop_that=self.rng.random() < THAT_DROPPED)

    def main(self, clause: Clause) -> Clause:
        """Choose what stands in front of a main clause."""
        if clause.time and clause.time.edge:
            front = "time" if self.rng.random() < 0.5 else "subject"
            kept = FRONT_KEPT if front == "time" else FRONT_GAINED
            return replace(clause, front=front, en_front=self.rng.random() < kept)
        if any(pp.prep in lx.PLACE_PREPOSITIONS for pp in clause.pps):
            return replace(clause, front="place" if self.rng.random() < 0.4 else "subject")
        return clause

    def same_subject(self, main: Clause, sub: Clause) -> Clause:
        """Half of the second clauses about a person take the first one's subject up by a pronoun."""
        s = main.subject
        if not (s.human and sub.subject.human) or s.pronoun or self.rng.random() < 0.5:
            return sub
        feminine = (
            s.word.feminine if isinstance(s.word, lx.Noun) else s.word is not None and s.word.kind == "f"
        )
        subject = NP(pronoun="they" if s.plural else "she" if feminine else "he")
        if sub.object and sub.object.pronoun and clash(subject, sub.object):
            return sub
        return replace(sub, subject=subject)

    def clause(self, full: bool = False) -> Clause:
        """A clause with a verb. `full` ones may have adjuncts and a relative clause."""
        verb = self.rng.choice([v for v in self.lex.verbs if v.objects != "that"])
        tense = pick(self.rng, STATIVE if verb.stative else ACTIVE)
        time = None
        needed = tense == "perf" or (tense == "simple" and not verb.stative)
        if needed or self.rng.random() < TIMED.get(tense, 0.2):
            time = self.rng.choice([a for a in self.lex.adverbs if tense in a.tenses])
        subject = self.subject(verb)
        obj = self.object(verb, subject)
        pps = self.adjuncts(verb, full, (subject, obj))
        if full and self.rng.random() < 0.15:
            subject = self.relative(subject)
        elif full and obj and not pps and (time is None or not time.edge) and self.rng.random() < 0.25:
            obj = self.relative(obj)  # nothing follows that could be taken for a part of the relative clause
        clause = Clause(
            subject,
            verb,
            obj,
            pps=pps,
            time=time,
            tense=tense,
            modal=self.rng.choice(MODALS) if tense == "modal" else None,
        )
        return replace(clause, negated=self.rng.random() < 0.15 and may_negate(clause))

    def habit(self) -> Clause:
        """A short clause in the simple present without an adverbial, for when-sentences."""
        if self.rng.random() < 0.2:
            return self.copula(timed=False)
        verb = self.rng.choice([v for v in self.lex.verbs if v.objects != "that"])
        subject = self.subject(verb)
        obj = self.object(verb, subject)
        return Clause(subject, verb, obj, pps=self.adjuncts(verb, False, (subject, obj)))

    def copula(self, relative: bool = False, timed: bool = True) -> Clause:
        """Somebody or something is or was so."""
        adj = self.rng.choice(self.lex.adjectives)
        fitting = [n for n in self.lex.nouns if lx.fits(n, adj.nouns)]
        if any(n.cls == "P" for n in fitting) and "P" in adj.nouns and self.rng.random() < 0.4:
            subject = self.person(subject=True, described=False)
        else:
            subject = self.noun(fitting, described=False, known=True)
        if isinstance(subject.word, lx.Noun) and not lx.fits(subject.word, adj.nouns):
            subject = NP(pronoun="she")
        if relative and self.rng.random() < 0.35:
            subject = self.relative(subject)
        tense = "past" if timed and self.rng.random() < 0.35 else "simple"
        time = None
        if timed and subject.human and self.rng.random() < 0.5:
            choices = [a for a in self.lex.adverbs if tense in a.tenses and a.en != "every day"]
            time = self.rng.choice(choices)
        negated = self.rng.random() < 0.15 and (time is None or time.edge and time.en != "sometimes")
        return Clause(subject, time=time, tense=tense, pred=adj, negated=negated)

    def existential(self) -> Clause:
        """There is something somewhere."""
        where = self.place()
        things = [n for n in self.lex.nouns if n.cls in ("PA" if "in" in where.prep else "AT")]
        np = self.noun(things)
        np = replace(np, det=self.rng.choice((*NUMBERS, "many")) if np.many else "a")
        return Clause(np, pps=(where,), front="place" if self.rng.random() < 0.4 else "subject")

    def subject(self, verb: lx.Verb) -> NP:
        """Who does it."""
        if "A" in verb.subjects and self.rng.random() < self.domain.animals:
            return self.noun([n for n in self.lex.nouns if n.cls == "A"])
        return self.person(subject=True)

    def object(self, verb: lx.Verb, subject: NP) -> NP | None:
        """What it is done to, or None for an intransitive verb."""
        if not verb.objects:
            return None
        fitting = [n for n in self.lex.nouns if lx.fits(n, verb.objects) and n is not subject.word]
        human = any(n.cls == "P" for n in fitting)
        if human and self.rng.random() < (0.6 if verb.objects[0] == "P" else 0.3):
            np = self.person(german_case=verb.de_case)
            while clash(subject, np):
                np = self.person(german_case=verb.de_case)
            return np
        if any(n.cls == "L" for n in fitting) and verb.en[0] == "visit" and self.rng.random() < 0.3:
            return NP(word=self.rng.choice(self.names("city")))
        return self.noun(fitting)

    def person(self, subject: bool = False, described: bool = True, german_case: str = "nom") -> NP:
        """A pronoun, a name, a pair (subjects only) or a noun. German sie (acc) is kept for her."""
        u = self.rng.random()
        if u < 0.28:
            pronouns = ["i", "you", "he", "she", "we", "they"]
            if german_case == "acc":
                pronouns.remove("they")
            return NP(pronoun=self.rng.choice(pronouns))
        if u < 0.45:
            return NP(word=self.rng.choice(self.names("m", "f")))
        if u < 0.5 and subject:
            first, second = self.rng.sample(self.names("m", "f"), 2)
            return NP(parts=(NP(word=first), NP(word=second)))
        return self.noun([n for n in self.lex.nouns if n.cls == "P"], described)

    def names(self, *kinds: str) -> list[lx.Name]:
        return [n for n in self.lex.names if n.kind in kinds]

    def noun(self, nouns: list[lx.Noun], described: bool = True, known: bool = False) -> NP:
        """A phrase with one of the nouns. `known` asks for a definite one."""
        rng = self.rng
        noun = rng.choices(nouns, [self.domain.topics[n.topic] for n in nouns])[0]
        many = noun.en_pl is not None and rng.random() < 0.3
        if noun.cls in "FD" and noun.en_pl is None:
            dets = {"the": 0.4, "zero": 0.4, "own": 0.2}
        elif many:
            dets = {"the": 0.42, "own": 0.15, "this": 0.1, "number": 0.23, "many": 0.1}
        else:
            dets = {"the": 0.42, "a": 0.28, "own": 0.2, "this": 0.1}
        if known:
            dets = {det: w for det, w in dets.items() if det in ("the", "own", "this")}
        det = pick(rng, dets)
        det = rng.choice(POSSESSIVES) if det == "own" else rng.choice(NUMBERS) if det == "number" else det
        fitting = [a for a in self.lex.adjectives if lx.fits(noun, a.nouns)]
        adj = rng.choice(fitting) if described and fitting and rng.random() < 0.35 else None
        return NP(word=noun, det=det, adj=adj, many=many)

    def relative(self, np: NP) -> NP:
        """A definite phrase with a short relative clause about it, if it is a noun."""
        if not isinstance(np.word, lx.Noun) or np.word.cls in "LM":
            return np
        head = replace(np, det="the", adj=None)
        verbs = [v for v in self.lex.verbs if v.objects != "that" and "to" not in v.adjuncts]
        as_object = [v for v in verbs if lx.fits(np.word, v.objects) and v.de_case == "acc"]
        as_subject = [v for v in verbs if lx.fits(np.word, v.subjects)]
        if as_object and (not as_subject or self.rng.random() < 0.5):
            verb = self.rng.choice(as_object)
            other = self.person(subject=True, described=False)
            if other.word is np.word or other.parts:
                other = NP(pronoun="i")
            return replace(head, rel=self.rel_clause(Clause(other, verb, head)), rel_object=True)
        if not as_subject:
            return np
        verb = self.rng.choice(as_subject)
        return replace(head, rel=self.rel_clause(Clause(head, verb, self.object(verb, head))))

    def rel_clause(self, clause: Clause) -> Clause:
        """Give a relative clause its tense, with adverbials only where the tense needs one."""
        assert clause.verb is not None
        if clause.verb.stative:
            return replace(clause, tense=self.rng.choice(("simple", "past")))
        tense = self.rng.choice(("prog", "past", "past", "simple"))
        often = [a for a in self.lex.adverbs if "simple" in a.tenses and not a.edge]
        return replace(clause, tense=tense, time=self.rng.choice(often) if tense == "simple" else None)

    def adjuncts(self, verb: lx.Verb, full: bool, others: tuple[NP | None, ...]) -> tuple[PP, ...]:
        """Obligatory goals, and in full clauses at most one place, companion or beneficiary."""
        goal = (PP("to", self.goal()),) if "to" in verb.adjuncts else ()
        kinds = sorted(verb.adjuncts - {"to"})
        if not full or not kinds or self.rng.random() > 0.45:
            return goal
        kind = pick(self.rng, {k: 3.0 if k == "loc" else 1.0 for k in kinds})
        if kind == "loc":
            place = self.place(lying=others[1] is None)
            return goal if any(o and o.word is place.np.word for o in others) else (place,)
        np = self.person(described=False, german_case="acc" if kind == "for" else "dat")
        if any(o and (o.word is not None and o.word is np.word or clash(o, np)) for o in others):
            return goal
        return (PP(kind, np), *goal)

    def goal(self) -> NP:
        """Where somebody goes."""
        if self.rng.random() < 0.3:
            return NP(word=self.rng.choice(self.names("city")))
        return self.place_noun([n for n in self.lex.nouns if n.cls == "L"])

    def place(self, lying: bool = True) -> PP:
        """In, on, under or at a place."""
        if self.rng.random() < 0.2:
            return PP("in", NP(word=self.rng.choice(self.names("city"))))
        np = self.place_noun([n for n in self.lex.nouns if n.cls == "L" or n.cls == "M" and lying])
        assert isinstance(np.word, lx.Noun)
        return PP(self.rng.choice(np.word.places), np)

    def place_noun(self, nouns: list[lx.Noun]) -> NP:
        return replace(self.noun(nouns, described=self.rng.random() < 0.5), many=False)


def clash(subject: NP, obj: NP) -> bool:
    """True for pairs like we ... me, he ... him, anna ... anna, which need a reflexive or sound odd."""
    if isinstance(obj.word, lx.Name):
        return any(np.word is obj.word for np in (subject, *(subject.parts or ())))
    groups = ({"i", "we"}, {"you"}, {"he"}, {"she"}, {"they"})
    return subject.pronoun is not None and any(subject.pronoun in g and obj.pronoun in g for g in groups)


def may_negate(c: Clause) -> bool:
    """German nicht fits only behind what is known, and beside few adverbs ("must not" is not "muss nicht")."""
    known = c.object is None or c.object.definite and c.object.rel is None
    calm = c.time is None or c.time.edge and c.time.en != "sometimes"
    return known and calm and c.modal != "must" and c.tense != "perf"
