"""The grammar's three languages: goldens by hand, reordering, agreement, vocabulary."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from mini import dirs, english, german, lexicon, romanian
from mini.meaning import NP, PP, Clause, Sentence
from mini.sample import DOMAINS, Sampler

LEX = lexicon.load()
LEXICON = Path(dirs.__file__).parents[1] / "lexicon.txt"


def noun(en: str, det: str = "the", adj: str | None = None, many: bool = False, **rel: object) -> NP:
    word = LEX.noun(en)
    return NP(word=word, det=det, adj=LEX.adjective(adj, word) if adj else None, many=many, **rel)


def name(en: str) -> NP:
    return NP(word=LEX.name(en))


def clause(subject: NP, verb: str, obj: NP | None = None, time: str | None = None, **more: object) -> Clause:
    return Clause(subject, LEX.verb(verb), obj, time=LEX.adverb(time) if time else None, **more)


def draw(domain: str, count: int, seed: int = 1) -> list[Sentence]:
    sampler = Sampler(Random(seed), DOMAINS[domain], LEX)
    return [sampler.sentence() for _ in range(count)]


TIRED = LEX.adjective("tired")
GOLDENS = [
    (
        Sentence(
            clause(
                noun("man", adj="old"),
                "see",
                noun("dog", "a", "black"),
                "yesterday",
                tense="past",
                front="time",
            )
        ),
        "the old man saw a black dog yesterday",
        "gestern hat der alte mann einen schwarzen hund gesehen",
        "ieri bărbatul bătrân a văzut un câine negru",
    ),
    (
        Sentence(
            clause(
                noun("woman"), "open", noun("window", "our", "old", True), "now", tense="prog", en_front=True
            )
        ),
        "now the woman is opening our old windows",
        "die frau macht jetzt unsere alten fenster auf",
        "femeia deschide ferestrele noastre vechi acum",
    ),
    (
        Sentence(
            Clause(NP(pronoun="i"), pred=TIRED),
            "because",
            clause(NP(pronoun="i"), "clean", noun("kitchen"), "this morning", tense="past"),
        ),
        "i am tired because i cleaned the kitchen this morning",
        "ich bin müde weil ich heute morgen die küche geputzt habe",
        "sunt obosit pentru că am curățat bucătăria azi dimineață",
    ),
    (
        Sentence(
            clause(noun("student"), "say", tense="past"),
            "that",
            clause(NP(pronoun="she"), "arrive", tense="prog"),
        ),
        "the student said that she is arriving",
        "der student hat gesagt dass sie ankommt",
        "studentul a spus că ea ajunge",
    ),
    (
        Sentence(clause(NP(pronoun="we"), "laugh"), "when", clause(noun("child"), "fall asleep")),
        "when the child falls asleep we laugh",
        "wenn das kind einschläft lachen wir",
        "când copilul adoarme râdem",
    ),
    (
        Sentence(clause(NP(pronoun="he"), "help", noun("student"), tense="past", negated=True)),
        "he did not help the student",
        "er hat dem studenten nicht geholfen",
        "el nu l a ajutat pe student",
    ),
    (
        Sentence(
            clause(
                noun("girl", "two", None, True),
                "go",
                time="already",
                tense="perf",
                pps=(PP("to", noun("school")),),
            )
        ),
        "two girls have already gone to the school",
        "zwei mädchen sind schon zur schule gegangen",
        "două fete au mers deja la școală",
    ),
    (
        Sentence(
            Clause(
                noun("cat", rel=clause(noun("boy"), "love", noun("cat")), rel_object=True),
                pred=LEX.adjective("white"),
                tense="past",
            )
        ),
        "the cat that the boy loves was white",
        "die katze die der junge liebt war weiß",
        "pisica pe care o iubește băiatul era albă",
    ),
    (
        Sentence(clause(name("maria"), "call", noun("sister", "her"), tense="modal", modal="want")),
        "maria wants to call her sister",
        "maria will ihre schwester anrufen",
        "maria vrea să o sune pe sora ei",
    ),
    (
        Sentence(
            Clause(noun("egg", "eight", "fresh", True), pps=(PP("on", noun("table", "a")),), front="place")
        ),
        "there are eight fresh eggs on a table",
        "auf einem tisch gibt es acht frische eier",
        "pe o masă sunt opt ouă proaspete",
    ),
    (
        Sentence(
            clause(
                noun("artist", "a", "honest"),
                "write",
                noun("letter", many=True),
                "tomorrow",
                tense="fut",
                pps=(PP("for", noun("farmer")),),
            )
        ),
        "an honest artist will write the letters for the farmer tomorrow",
        "ein ehrlicher künstler wird morgen die briefe für den bauern schreiben",
        "un artist sincer va scrie scrisorile pentru fermier mâine",
    ),
    (
        Sentence(
            clause(
                noun("mouse", "many", None, True),
                "eat",
                noun("bread", "this"),
                tense="past",
                pps=(PP("in", noun("garden", "a")),),
            )
        ),
        "many mice ate this bread in a garden",
        "viele mäuse haben dieses brot in einem garten gegessen",
        "mulți șoareci au mâncat această pâine într o grădină",
    ),
]


@pytest.mark.parametrize(("meaning", "en", "de", "ro"), GOLDENS, ids=[g[1] for g in GOLDENS])
def test_goldens_by_hand(meaning: Sentence, en: str, de: str, ro: str) -> None:
    assert english.sentence(meaning) == en
    assert german.sentence(meaning) == de
    assert romanian.sentence(meaning) == ro


@pytest.mark.parametrize(
    ("det", "many", "nom", "acc", "dat"),
    [
        ("the", False, "der kleine junge", "den kleinen jungen", "dem kleinen jungen"),
        ("a", False, "ein kleiner junge", "einen kleinen jungen", "einem kleinen jungen"),
        ("our", False, "unser kleiner junge", "unseren kleinen jungen", "unserem kleinen jungen"),
        ("this", True, "diese kleinen jungen", "diese kleinen jungen", "diesen kleinen jungen"),
        ("two", True, "zwei kleine jungen", "zwei kleine jungen", "zwei kleinen jungen"),
        ("many", True, "viele kleine jungen", "viele kleine jungen", "vielen kleinen jungen"),
    ],
)
def test_german_declension(det: str, many: bool, nom: str, acc: str, dat: str) -> None:
    np = noun("boy", det, "small", many)
    assert [" ".join(german.noun_phrase(np, case)) for case in german.CASES] == [nom, acc, dat]


def test_german_dative_plural_takes_n() -> None:
    assert german.noun_phrase(noun("man", many=True), "dat") == ["den", "männern"]
    assert german.noun_phrase(noun("girl", many=True), "dat") == ["den", "mädchen"]


@pytest.mark.parametrize(
    ("np", "ro"),
    [
        (noun("house", adj="big"), "casa mare"),
        (noun("egg", "this", "white"), "acest ou alb"),
        (noun("egg", "this", "white", True), "aceste ouă albe"),
        (noun("sister", "my", "young", True), "surorile mele tinere"),
        (noun("bicycle", "his", "red"), "bicicleta lui roșie"),
        (noun("horse", "two", "black", True), "doi cai negri"),
    ],
)
def test_romanian_agreement(np: NP, ro: str) -> None:
    assert " ".join(romanian.noun_phrase(np)) == ro


def test_definite_places_lose_their_article_only_when_alone() -> None:
    assert romanian.prepositional(PP("in", noun("garden"))) == ["în", "grădină"]
    assert romanian.prepositional(PP("in", noun("garden", adj="small"))) == ["în", "grădina", "mică"]
    assert romanian.prepositional(PP("with", noun("teacher"))) == ["cu", "profesorul"]


def test_german_subordinate_clauses_end_in_their_verb() -> None:
    subs = [s.sub for s in draw("home", 3000) if s.sub]
    assert len(subs) > 600
    for sub in subs:
        words, (finite, right) = german.subordinate(sub), german.verbs(sub)
        assert words[-1].endswith(finite[0]), words
        assert not right or right[-1] in " ".join(words[-2:]), words


def test_german_reorders_and_english_does_not() -> None:
    mains = [s.main for s in draw("home", 3000) if s.link != "when" and s.main.verb]
    bracket = [c for c in mains if german.verbs(c)[1] and (c.object or c.pps)]
    inverted = [c for c in mains if c.front != "subject"]
    assert len(bracket) / len(mains) > 0.25
    assert len(inverted) / len(mains) > 0.1
    for c in bracket:  # the participle, infinitive or prefix ends the clause, far from the finite verb
        assert german.main_clause(c)[-1] == german.verbs(c)[1][-1]
    for c in inverted:
        assert german.main_clause(c)[0] != german.midfield(c)["subject"][0] or c.front == "time"


def test_pronouns_of_one_german_form_are_not_confused() -> None:
    """sie is she, they and her: as an object it is never them, so that German alone decides."""
    for s in draw("home", 3000) + draw("talk", 3000):
        for c in filter(None, (s.main, s.sub)):
            if c.verb and c.object and c.object.pronoun == "they":
                assert c.verb.de_case == "dat"


def test_a_or_an_follows_the_sound() -> None:
    for s in draw("home", 3000):
        words = english.sentence(s).split()
        for first, second in pairwise(words):
            if first in ("a", "an"):
                assert (first == "an") == (second[0] in "aeiou" or second == "honest"), words


def test_lexicon_is_exactly_the_english_word_forms() -> None:
    sentences = draw("home", 12000) + draw("talk", 4000)
    used = {w for s in sentences for w in english.sentence(s).split()}
    pronounced = dirs.read_lexicon(LEXICON)
    assert used == set(pronounced)
    assert 250 <= len(used) <= 360
    phones = {p for entry in pronounced.values() for p in entry.split()}
    assert len(phones) == 38  # ARPAbet without stress; no word of ours has ZH
    assert pronounced["eight"] == pronounced["ate"] and pronounced["new"] == pronounced["knew"]


def test_no_form_is_a_placeholder() -> None:
    for s in draw("talk", 3000):
        for text in (english.sentence(s), german.sentence(s), romanian.sentence(s)):
            assert text == " ".join(text.lower().split())
            assert all(w.isalpha() for w in text.split()), text


def test_a_broken_table_row_is_named(tmp_path: Path) -> None:
    for table in Path(lexicon.__file__).parent.glob("*.txt"):
        (tmp_path / table.name).write_text(table.read_text(encoding="utf-8"), encoding="utf-8")
    with (tmp_path / "nouns.txt").open("a", encoding="utf-8") as file:
        file.write("tree trees | P home | m baum | m pom pomul pomi pomii\n")
    with pytest.raises(
        ValueError, match=r"nouns.txt:\d+: fields have \[2, 2, 2, 5, 0\] values, expected 2 .*tree trees"
    ):
        lexicon.load(tmp_path)
