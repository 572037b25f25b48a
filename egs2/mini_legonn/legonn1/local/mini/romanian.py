"""Romanian: enclitic articles, adjectives after the noun, three genders, clitics and pe, pro-drop.

The hyphen of a clitic (l-a văzut) is a space here, as punctuation removal leaves it.
"""

from __future__ import annotations

from mini.lexicon import Name, Noun
from mini.meaning import NP, PP, Clause, Sentence

PREPOSITIONS = {"in": "în", "on": "pe", "under": "sub", "at": "la", "to": "la", "with": "cu", "for": "pentru"}
SUBJECT = {"i": "eu", "you": "tu", "he": "el", "she": "ea", "we": "noi", "they": "ei"}
TONIC = SUBJECT | {"i": "mine", "you": "tine"}
CLITIC = {"i": "mă", "you": "te", "he": "îl", "she": "o", "we": "ne", "they": "îi"}
BEFORE_HAVE = {"mă": "m", "te": "te", "îl": "l", "ne": "ne", "îi": "i", "le": "le"}
# 1sg 2sg 3sg 1pl 3pl
HAVE = "am ai a am au".split()
WILL = "voi vei va vom vor".split()
BE = "sunt ești este suntem sunt".split()
WAS = "eram erai era eram erau".split()
MODALS = {
    "want": "vreau vrei vrea vrem vor".split(),
    "can": "pot poți poate putem pot".split(),
    "must": ["trebuie"] * 5,
}
# m.sg f.sg m.pl f.pl
DETERMINERS = {
    "a": "un o - -".split(),
    "this": "acest această acești aceste".split(),
    "many": "- - mulți multe".split(),
    "two": "- - doi două".split(),
    "three": "- - trei trei".split(),
    "four": "- - patru patru".split(),
    "eight": "- - opt opt".split(),
}
POSSESSIVES = {
    "my": "meu mea mei mele".split(),
    "our": "nostru noastră noștri noastre".split(),
    "his": ["lui"] * 4,
    "her": ["ei"] * 4,
}
LINKS = {"because": "pentru că", "that": "că", "when": "când"}
INFINITIVE, PRESENT, SUBJUNCTIVE, PARTICIPLE = 0, 1, 6, 7


def sentence(s: Sentence) -> str:
    """The sentence in lower case without punctuation."""
    main = clause(s.main)
    if s.sub is None:
        return " ".join(main)
    link, sub = LINKS[s.link or ""].split(), clause(s.sub)
    return " ".join([*link, *sub, *main] if s.link == "when" else [*main, *link, *sub])


def clause(c: Clause, antecedent: NP | None = None, gap: str = "") -> list[str]:
    """The words of a clause. In a relative clause `gap` is missing. An object gap leaves a clitic."""
    subject = [] if gap == "subject" else subject_words(c)
    place = [w for pp in c.pps for w in prepositional(pp)]
    if c.there:
        return [*place, BE[c.subject.person], *noun_phrase(c.subject)]
    doubled, obj = object_words(c.object) if gap != "object" else (clitic(antecedent), [])
    group = verb_group(c, doubled)
    edge, mid = [], []
    if c.time:
        edge, mid = (c.time.ro.split(), []) if c.time.edge else ([], c.time.ro.split())
    if gap == "object":  # the verb comes first: câinele pe care îl vede fata
        return [*group, *mid, *subject, *place, *edge]
    pred = [c.pred.ro[form_index(c.subject)]] if c.pred else []
    words = [*subject, *group, *mid, *pred, *obj, *place]
    return [*edge, *words] if c.front == "time" else [*words, *edge]


def subject_words(c: Clause) -> list[str]:
    """The subject, without eu, tu and noi where the verb shows them (am văzut is 1sg too: noi stays)."""
    if c.subject.pronoun in ("i", "you"):
        return []
    if c.subject.pronoun == "we" and c.tense not in ("past", "perf"):
        return []
    return noun_phrase(c.subject)


def object_words(np: NP | None) -> tuple[str, list[str]]:
    """(clitic or "", words): a clitic doubles a known person, marked by pe. A pronoun is the clitic alone."""
    if np is None:
        return "", []
    if np.pronoun:
        return clitic(np), []
    if np.human and np.definite:
        return clitic(np), ["pe", *noun_phrase(np, bare=True)]
    return "", noun_phrase(np)


def clitic(np: NP | None) -> str:
    """The accusative clitic that stands for a phrase."""
    if np is None:
        return ""
    if np.pronoun:
        return CLITIC[np.pronoun]
    return ("îl", "o", "îi", "le")[form_index(np)]


def verb_group(c: Clause, doubled: str) -> list[str]:
    """Negation, clitic, auxiliary and verb in their order."""
    p = c.subject.person
    no = ["nu"] if c.negated or (c.time and c.time.en == "never") else []
    before = [doubled] if doubled else []
    if c.verb is None:
        return [*no, (WAS if c.tense == "past" else BE)[p]]
    ro = c.verb.ro
    if c.tense in ("past", "perf"):
        if doubled == "o":  # the one clitic that follows the participle
            return [*no, HAVE[p], ro[PARTICIPLE], "o"]
        return [*no, *(BEFORE_HAVE[w] for w in before), HAVE[p], ro[PARTICIPLE]]
    if c.tense == "fut":
        return [*no, *before, WILL[p], ro[INFINITIVE]]
    present = ro[PRESENT + p]
    if c.tense == "modal":
        return [*no, MODALS[c.modal or ""][p], "să", *before, ro[SUBJUNCTIVE] if p in (2, 4) else present]
    return [*no, *before, present]


def prepositional(pp: PP) -> list[str]:
    """Preposition and phrase. After all but cu a lone known noun has no article (în casă, în casa mare)."""
    prep = PREPOSITIONS[pp.prep]
    if pp.np.pronoun:
        return [prep, TONIC[pp.np.pronoun]]
    if pp.np.city:
        prep = "la"
    if pp.prep == "to" and isinstance(pp.np.word, Noun) and "on" in pp.np.word.places:
        prep = "pe"
    words = noun_phrase(pp.np, bare=pp.prep != "with")
    if prep == "în" and words[0] in ("un", "o"):
        prep = "într"
    return [prep, *words]


def form_index(np: NP) -> int:
    """0 to 3: m.sg, f.sg, m.pl, f.pl. Neuters are masculine in the singular, feminine in the plural."""
    if np.parts:
        return 3 if all(form_index(part) % 2 for part in np.parts) else 2
    if np.pronoun:
        return 1 if np.pronoun == "she" else 2 if np.plural else 0
    if isinstance(np.word, Noun):
        gender = {"n": "f" if np.many else "m"}.get(np.word.ro_gender, np.word.ro_gender)
    else:
        gender = np.word.kind if np.word else "m"
    return 2 * np.many + (gender == "f")


def noun_phrase(np: NP, bare: bool = False) -> list[str]:
    """The words of a noun phrase. `bare` drops the article of a definite noun that has no company."""
    if np.parts:
        return [*noun_phrase(np.parts[0]), "și", *noun_phrase(np.parts[1])]
    if np.pronoun:
        return [SUBJECT[np.pronoun]]
    if np.word is None or isinstance(np.word, Name):
        return [np.word.ro] if np.word else []
    i = form_index(np)
    possessed = [POSSESSIVES[np.det][i]] if np.det in POSSESSIVES else []
    adj = [np.adj.ro[i]] if np.adj else []
    articled = possessed or (np.det == "the" and not (bare and not adj and not np.rel))
    noun = np.word.ro[2 * np.many + bool(articled)]
    words = [*([DETERMINERS[np.det][i]] if np.det in DETERMINERS else []), noun, *possessed, *adj]
    if np.rel:
        gap = "object" if np.rel_object else "subject"
        words += [*(["pe"] if np.rel_object else []), "care", *clause(np.rel, np, gap)]
    return words
