"""German: verb second, verb last in subordinate clauses, brackets, three genders and cases, n-declension."""

from __future__ import annotations

from mini.lexicon import Name, Noun
from mini.meaning import NP, PP, Clause, Sentence

# columns m f n plural
DER = {"nom": "der die das die", "acc": "den die das die", "dat": "dem der dem den"}
DIES = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}  # also the strong adjective endings
EIN = {"nom": "- e - e", "acc": "en e - e", "dat": "em er em en"}
WEAK = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"}
MIXED = {"nom": "er e es en", "acc": "en e es en", "dat": "en en en en"}
EIN_WORDS = {"a": "ein", "my": "mein", "his": "sein", "her": "ihr", "our": "unser"}
NUMBERS = {"two": "zwei", "three": "drei", "four": "vier", "eight": "acht"}
PRONOUNS = {
    "i": "ich mich mir",
    "you": "du dich dir",
    "he": "er ihn ihm",
    "she": "sie sie ihr",
    "we": "wir uns uns",
    "they": "sie sie ihnen",
}
CASES = ("nom", "acc", "dat")
PREPOSITIONS = {
    "in": ("in", "dat"),
    "on": ("auf", "dat"),
    "under": ("unter", "dat"),
    "at": ("an", "dat"),
    "to": ("zu", "dat"),
    "with": ("mit", "dat"),
    "for": ("für", "acc"),
}
CONTRACTIONS = {("in", "dem"): "im", ("an", "dem"): "am", ("zu", "dem"): "zum", ("zu", "der"): "zur"}
# 1sg 2sg 3sg plural
HELPERS = {
    "haben": "habe hast hat haben",
    "sein": "bin bist ist sind",
    "werden": "werde wirst wird werden",
    "want": "will willst will wollen",
    "can": "kann kannst kann können",
    "must": "muss musst muss müssen",
    "war": "war warst war waren",
}
LINKS = {"because": "weil", "that": "dass", "when": "wenn"}


def sentence(s: Sentence) -> str:
    """The sentence in lower case without punctuation."""
    if s.sub is None:
        return " ".join(main_clause(s.main))
    sub = [LINKS[s.link or ""], *subordinate(s.sub)]
    if s.link == "when":  # the whole clause stands before the verb: subject and verb change places
        return " ".join([*sub, *main_clause(s.main, after_clause=True)])
    return " ".join([*main_clause(s.main), *sub])


def main_clause(c: Clause, after_clause: bool = False) -> list[str]:
    """Verb second: one constituent (c.front, or a clause), the finite verb, the rest, the right bracket."""
    fields = midfield(c)
    finite, right = verbs(c)
    first = "" if after_clause else c.front
    before = [] if after_clause else fields[first]
    rest = [w for name, words in fields.items() if name != first for w in words]
    return [*before, *finite, *rest, *right]


def subordinate(c: Clause, gap: str = "") -> list[str]:
    """Verb last: a prefix joins its verb, an auxiliary follows its participle. `gap` is left out."""
    finite, right = verbs(c)
    if c.verb and right == [c.verb.de_prefix]:
        finite, right = [right[0] + finite[0]], []
    rest = [w for name, words in midfield(c).items() if name != gap for w in words]
    return [*rest, *right, *finite]


def midfield(c: Clause) -> dict[str, list[str]]:
    """The constituents by name in the order of the midfield."""
    place = [w for pp in c.pps for w in prepositional(pp)]
    if c.there:
        return {"subject": ["es"], "place": place, "object": noun_phrase(c.subject, "acc")}
    time = c.time.de.split() if c.time else []
    obj = noun_phrase(c.object, c.verb.de_case) if c.object and c.verb else []
    fields = {"subject": noun_phrase(c.subject, "nom")}
    pronoun = c.object is not None and c.object.pronoun is not None
    known = c.object is not None and c.object.definite
    late = c.time is not None and not c.time.edge  # oft, immer, nie, schon follow what is known
    if pronoun or (late and known):
        fields |= {"object": obj, "time": time}
    else:
        fields |= {"time": time, "object": obj}
    fields["not"] = ["nicht"] if c.negated else []
    return fields | {"place": place, "pred": [c.pred.de] if c.pred else []}


def verbs(c: Clause) -> tuple[list[str], list[str]]:
    """The finite verb and the right bracket (prefix, participle or infinitive) of a main clause."""
    p = min(c.subject.person, 3)
    if c.there:
        return ["gibt"], []
    if c.verb is None:
        return [helper("war" if c.tense == "past" else "sein", p)], []
    v = c.verb
    if c.tense in ("past", "perf"):
        return [helper(v.de_aux, p)], [v.de_participle]
    if c.tense in ("fut", "modal"):
        return [helper("werden" if c.tense == "fut" else c.modal or "", p)], [v.de_prefix + v.de[0]]
    return [v.de[0] if p == 3 else v.de[1 + p]], [v.de_prefix] if v.de_prefix else []


def helper(verb: str, p: int) -> str:
    """The present (war: past) of an auxiliary, p 0 to 3: 1sg, 2sg, 3sg, plural."""
    return HELPERS[verb].split()[p]


def prepositional(pp: PP) -> list[str]:
    """Preposition and phrase in its case: im, am, zum, zur, and nach before cities."""
    prep, case = PREPOSITIONS[pp.prep]
    words = noun_phrase(pp.np, case)
    if pp.prep == "to" and pp.np.city:
        return ["nach", *words]
    if isinstance(pp.np.word, Noun) and (prep, words[0]) in CONTRACTIONS:
        return [CONTRACTIONS[prep, words[0]], *words[1:]]
    return [prep, *words]


def noun_phrase(np: NP, case: str) -> list[str]:
    """The words of a noun phrase in a case (nom, acc, dat)."""
    if np.parts:
        return [*noun_phrase(np.parts[0], case), "und", *noun_phrase(np.parts[1], case)]
    if np.pronoun:
        return [PRONOUNS[np.pronoun].split()[CASES.index(case)]]
    if np.word is None or isinstance(np.word, Name):
        return [np.word.de] if np.word else []
    column = 3 if np.many else "mfn".index(np.word.de_gender[0])
    article, endings = determiner(np.det, case, column)
    adj = [np.adj.de_stem + endings[case].split()[column]] if np.adj else []
    words = [*article, *adj, noun_form(np.word, case, np.many)]
    if np.rel:
        role = "acc" if np.rel_object else "nom"
        words += [DER[role].split()[column], *subordinate(np.rel, "object" if np.rel_object else "subject")]
    return words


def determiner(det: str, case: str, column: int) -> tuple[list[str], dict[str, str]]:
    """The determiner's words and the table of the adjective endings that it asks for."""
    if det == "the":
        return [DER[case].split()[column]], WEAK
    if det == "this":
        return ["dies" + DIES[case].split()[column]], WEAK
    if det in EIN_WORDS:
        return [EIN_WORDS[det] + EIN[case].split()[column].strip("-")], MIXED
    if det == "many":
        return ["viel" + DIES[case].split()[column]], DIES
    return [NUMBERS[det]] if det in NUMBERS else [], DIES


def noun_form(noun: Noun, case: str, many: bool) -> str:
    """The noun in case and number: -n in the dative plural, n-declension of weak masculines."""
    if not many:
        return noun.de_pl or noun.de if noun.weak and case != "nom" else noun.de
    plural = noun.de_pl or noun.de
    return plural + "n" if case == "dat" and plural[-1] not in "ns" else plural
