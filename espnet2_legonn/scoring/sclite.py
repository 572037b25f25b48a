"""sclite's alignment of two texts with alternatives `{ a / b }`, optional words `(a)` and fragments `a-`.

A text is a network of words: an alternative is a branch, `@` stands for no word. Costs are sclite's (its options -F
and -D): 4 for a substitution, 3 for a deletion or insertion, 2 for leaving out an optional word, 0.001 for leaving
out `@`. A left-out optional word counts as correct, and words are counted along the branch that was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.wer import Counts

NO_WORD = "@"
# In thousandths, so that sums are exact.
_SUBSTITUTION, _GAP, _OPTIONAL_GAP, _NO_WORD_GAP, _NO_WORD_PAIR = 4000, 3000, 2000, 1, 1000


@dataclass(frozen=True)
class Arc:
    """An arc of a network.

    Args:
        text: without parentheses, in lower case.
        optional: may be left out without an error.
        before: arcs that may come before this one; -1 is the beginning.
    """

    text: str
    optional: bool
    before: tuple[int, ...]

    @property
    def gap(self) -> int:
        """Cost of leaving this word out."""
        if self.text == NO_WORD and not self.optional:
            return _NO_WORD_GAP
        return _OPTIONAL_GAP if self.optional else _GAP


@dataclass(frozen=True)
class Network:
    """Words in an order in which each stands behind those that may come before it; `ends` may be the last."""

    words: tuple[Arc, ...]
    ends: tuple[int, ...]


def network(text: str) -> Network:
    """Parse a text.

    Raises:
        DataError: braces that do not pair.
    """
    words: list[Arc] = []
    ends, rest = _sequence(text.split(), words, (-1,))
    if rest:
        raise DataError(f"braces do not pair in '{text}'")
    return Network(tuple(words), ends)


def _sequence(tokens: Sequence[str], words: list[Arc], before: tuple[int, ...]) -> tuple[tuple[int, ...], list[str]]:
    """Append the arcs of a text; returns its last arcs, and what is left behind an unpaired brace."""
    tokens = [part for token in tokens for part in _braces(token)]
    place = 0
    while place < len(tokens):
        token = tokens[place]
        if token == "}":
            return before, list(tokens[place:])
        if token == "{":
            close = _closing(tokens, place)
            if close is None:
                return before, list(tokens[place:])
            ends: list[int] = []
            for branch in _branches(tokens[place + 1 : close]):
                last, rest = _sequence(branch, words, before)
                if rest:
                    return before, rest
                ends += last
            before = tuple(ends) or before
            place = close
        else:
            words.append(_word(token, before))
            before = (len(words) - 1,)
        place += 1
    return before, []


def _braces(token: str) -> list[str]:
    return token.replace("{", " { ").replace("}", " } ").split()


def _closing(tokens: Sequence[str], start: int) -> int | None:
    depth = 0
    for place in range(start, len(tokens)):
        depth += (tokens[place] == "{") - (tokens[place] == "}")
        if depth == 0:
            return place
    return None


def _branches(tokens: Sequence[str]) -> list[list[str]]:
    """Cut at the slashes outside inner braces; empty branches do not count."""
    branches: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "{") - (token == "}")
        parts = token.split("/") if depth == 0 and "/" in token else [token]
        for index, part in enumerate(parts):
            if index:
                branches.append([])
            if part:
                branches[-1].append(part)
    return [branch for branch in branches if branch]


def _word(token: str, before: tuple[int, ...]) -> Arc:
    text = token.lower()
    if len(text) > 1 and text.endswith("*"):
        text = text[:-1]
    if len(text) > 2 and text[0] == "(" and text[-1] == ")":
        return Arc(text[1:-1], True, before)
    return Arc(text, False, before)


def same(one: Arc, other: Arc) -> bool:
    """Whether two words are equal; of a fragment `a-` or `-a` the part that is there decides."""
    a, b = one.text, other.text
    if _fragment(one) or _fragment(other):
        for part, whole in ((a, b), (b, a)):
            if len(part) > 1 and part[0] == "-":
                return len(whole) >= len(part) - 1 and whole.endswith(part[1:])
            if len(part) > 1 and part[-1] == "-":
                return whole.startswith(part[:-1])
    return a == b


def _fragment(word: Arc) -> bool:
    # In parentheses sclite looks at the last letter only.
    return word.text.endswith("-") or (word.text.startswith("-") and not word.optional)


def align(ref: Network, hyp: Network) -> Counts:
    """Counts of the cheapest alignment; of equally cheap ones, sclite's."""
    rows, columns = len(ref.words) + 1, len(hyp.words) + 1
    cost = [[0] * columns for _ in range(rows)]
    back = [[(0, 0)] * columns for _ in range(rows)]
    for b, right in enumerate(hyp.words, start=1):
        side = min((q + 1 for q in right.before), key=lambda q: cost[0][q])
        cost[0][b], back[0][b] = cost[0][side] + right.gap, (0, side)
    for a, left in enumerate(ref.words, start=1):
        befores = [q + 1 for q in left.before]
        up = min(befores, key=lambda q: cost[q][0])
        cost[a][0], back[a][0] = cost[up][0] + left.gap, (up, 0)
        for b, right in enumerate(hyp.words, start=1):
            rights = [q + 1 for q in right.before]
            up = min(befores, key=lambda q: cost[q][b])
            side = min(rights, key=lambda q: cost[a][q])
            corner = min(((p, q) for p in befores for q in rights), key=lambda pq: cost[pq[0]][pq[1]])
            swap = cost[corner[0]][corner[1]] + _pair(left, right)
            delete = cost[up][b] + left.gap
            insert = cost[a][side] + right.gap
            if swap <= delete and swap <= insert:
                cost[a][b], back[a][b] = swap, corner
            elif delete < insert:
                cost[a][b], back[a][b] = delete, (up, b)
            else:
                cost[a][b], back[a][b] = insert, (a, side)
    start = min(((p + 1, q + 1) for p in ref.ends for q in hyp.ends), key=lambda pq: cost[pq[0]][pq[1]])
    return _trace(ref, hyp, back, start)


def _pair(left: Arc, right: Arc) -> int:
    if left.text == right.text == NO_WORD:
        return _NO_WORD_PAIR
    return 0 if same(left, right) else _SUBSTITUTION


def _trace(ref: Network, hyp: Network, back: list[list[tuple[int, int]]], place: tuple[int, int]) -> Counts:
    corr = sub = dele = ins = 0
    a, b = place
    while a > 0 or b > 0:
        a_before, b_before = back[a][b]
        if a_before == a:
            right = hyp.words[b - 1]
            corr += right.optional
            ins += not right.optional and right.text != NO_WORD
        elif b_before == b:
            left = ref.words[a - 1]
            corr += left.optional
            dele += not left.optional and left.text != NO_WORD
        else:
            left, right = ref.words[a - 1], hyp.words[b - 1]
            if not left.text == right.text == NO_WORD:
                equal = same(left, right)
                corr += equal
                sub += not equal
        a, b = a_before, b_before
    return Counts(corr, sub, dele, ins, 1, int(sub + dele + ins > 0))
