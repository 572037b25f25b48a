"""English: fixed order, do-support, progressive, irregular verbs, a or an."""

from __future__ import annotations

from mini.lexicon import Name, Verb
from mini.meaning import NP, NUMBERS, POSSESSIVES, Clause, Sentence

OBJECT_PRONOUN = {"i": "me", "you": "you", "he": "him", "she": "her", "we": "us", "they": "them"}
AM = ("am", "are", "is", "are", "are")
WAS = ("was", "were", "was", "were", "were")
BASE, S, PAST, PARTICIPLE, ING = range(5)


def sentence(s: Sentence) -> str:
    """The sentence in lower case without punctuation."""
    main = clause(s.main)
    if s.sub is None:
        return " ".join(main)
    sub = clause(s.sub)
    if s.link == "when":
        return " ".join(["when", *sub, *main])
    link = [] if s.link == "that" and s.drop_that else [s.link or ""]
    return " ".join([*main, *link, *sub])


def clause(c: Clause, gap: str = "") -> list[str]:
    """The words of a clause. `gap` (subject or object) is left out, as in a relative clause."""
    subject = [] if gap == "subject" else noun_phrase(c.subject)
    rest = [] if c.object is None or gap == "object" else noun_phrase(c.object, obj=True)
    rest += [w for pp in c.pps for w in (pp.prep, *noun_phrase(pp.np, obj=True))]
    if c.there:
        return ["there", AM[c.subject.person], *subject, *rest]
    edge = c.time.en.split() if c.time and c.time.edge else []
    words = [*subject, *verb_group(c), *rest]
    return [*edge, *words] if c.en_front else [*words, *edge]


def verb_group(c: Clause) -> list[str]:
    """Auxiliaries, not, mid-position adverb and verb."""
    p, adverb, no = c.subject.person, [], ["not"] if c.negated else []
    if c.time and not c.time.edge:
        adverb = [c.time.en]
    if c.verb is None:
        assert c.pred is not None
        return [(WAS if c.tense == "past" else AM)[p], *no, *adverb, c.pred.en]
    finite, rest = auxiliary(c, c.verb, p)
    if finite:
        return [*finite.split(), *no, *adverb, *rest]
    return [*adverb, *rest]


def auxiliary(c: Clause, verb: Verb, p: int) -> tuple[str, list[str]]:
    """The finite auxiliary ("" without one) and the words that follow it."""
    third = p == 2
    base, s, past, participle, ing = (form.split() for form in verb.en)
    if c.tense == "prog":
        return AM[p], ing
    if c.tense == "perf":
        return "has" if third else "have", participle
    if c.tense == "fut":
        return "will", base
    if c.tense == "modal":
        if c.modal == "want":
            if c.negated:
                return "does" if third else "do", ["want", "to", *base]
            return "", ["wants" if third else "want", "to", *base]
        return c.modal or "", base
    if c.negated:
        return ("did" if c.tense == "past" else "does" if third else "do"), base
    if c.tense == "past":
        return "", past
    return "", s if third else base


def noun_phrase(np: NP, obj: bool = False) -> list[str]:
    """The words of a noun phrase. `obj` asks for him instead of he."""
    if np.parts:
        return [*noun_phrase(np.parts[0]), "and", *noun_phrase(np.parts[1])]
    if np.pronoun:
        return [OBJECT_PRONOUN[np.pronoun] if obj else np.pronoun]
    if np.word is None or isinstance(np.word, Name):
        return [np.word.en] if np.word else []
    noun = np.word.en_pl if np.many else np.word.en
    words = [*([np.adj.en] if np.adj else []), noun or np.word.en]
    words = [*determiner(np, words[0]), *words]
    if np.rel:
        who = "who" if np.human and not np.rel_object else "that"
        words += [who, *clause(np.rel, "object" if np.rel_object else "subject")]
    return words


def determiner(np: NP, next_word: str) -> list[str]:
    """The determiner before `next_word`. `a` is `an` before a vowel sound (the h of honest is mute)."""
    if np.det == "a":
        return ["an" if next_word[0] in "aeiou" or next_word == "honest" else "a"]
    if np.det == "this":
        return ["these" if np.many else "this"]
    if np.det == "zero":
        return []
    assert np.det in ("the", "many", *POSSESSIVES, *NUMBERS), np.det
    return [np.det]
