"""The demo's sets: who needs which sentences. Held-out sentences are unseen everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from mini import english, german, lexicon, romanian
from mini.sample import DOMAINS, Sampler

SHORTEST, LONGEST = 4, 12  # English words
PATIENCE = 2000  # draws in a row that bring nothing new before we say that the grammar is exhausted


@dataclass(frozen=True)
class SetSpec:
    """One data directory: `source` is de or ro (translation) or None (speech)."""

    name: str
    source: str | None
    domain: str
    size: int


@dataclass(frozen=True)
class Triple:
    """One meaning in three languages."""

    en: str
    de: str
    ro: str

    def keys(self) -> tuple[str, str, str]:
        """What may not be met again in training, in any language."""
        return f"en {self.en}", f"de {self.de}", f"ro {self.ro}"


def specs(sizes: dict[str, int]) -> list[SetSpec]:
    """The eleven sets from the sizes `de_en`, `ro_en`, `asr`, `ted`, `valid`, `test`. Held-out sets first."""
    tasks = (("de_en", "de", "home"), ("ro_en", "ro", "home"), ("asr", None, "home"), ("ted", None, "talk"))
    parts = [(part, sizes[part]) for part in ("test", "valid")]
    held = [SetSpec(f"{p}_{t}", s, d, n) for p, n in parts for t, s, d in tasks if (p, t) != ("test", "ted")]
    return held + [SetSpec(f"train_{t}", s, d, sizes[t]) for t, s, d in tasks]


def write_sets(sizes: dict[str, int], seed: int) -> dict[str, list[Triple]]:
    """Draw the sentences of every set, the same for the same sizes and seed.

    No English sentence occurs twice in a set. No English, German or Romanian sentence of a test or valid set
    occurs in any other set of any task.

    Raises:
        ValueError: the grammar cannot write that many different sentences.
    """
    held: set[str] = set()
    sets = {}
    for spec in specs(sizes):
        sets[spec.name] = _draw(spec, seed, held)
        if not spec.name.startswith("train"):
            held.update(key for triple in sets[spec.name] for key in triple.keys())
    return sets


def _draw(spec: SetSpec, seed: int, held: set[str]) -> list[Triple]:
    sampler = Sampler(Random(f"{seed} {spec.name}"), DOMAINS[spec.domain], lexicon.load())
    found: dict[str, Triple] = {}
    idle = 0
    while len(found) < spec.size:
        meaning = sampler.sentence()
        en = english.sentence(meaning)
        idle += 1
        if idle > PATIENCE:
            found_of = f"{len(found)} of {spec.size}"
            raise ValueError(f"{spec.name}: only {found_of} different sentences found: ask for fewer")
        if not SHORTEST <= en.count(" ") + 1 <= LONGEST or en in found:
            continue
        triple = Triple(en, german.sentence(meaning), romanian.sentence(meaning))
        if held.isdisjoint(triple.keys()):
            found[en] = triple
            idle = 0
    return list(found.values())
