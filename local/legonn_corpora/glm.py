"""NIST's global mapping files (glm, format NIST1) and the text filter around them, as SCTK's csrfilt does it.

A rule `SOURCE => TARGET / LEFT __ RIGHT` replaces SOURCE where LEFT stands before it and RIGHT behind it. The text is
read from left to right. At each place the first rule of the file that fits is taken, and reading goes on behind
SOURCE. LEFT and RIGHT are looked up in the text as it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.data.text import plain_lines
from espnet2_legonn.errors import DataError

_APPLIES = re.compile(r';;\s+INPUT_DEPENDENT_APPLICATION\s*=\s*"([^"]*)"')
_QUOTED = re.compile(r"""["'](.*?)["']""")
_BLANKS = re.compile(r"[ \t]+")
_INNER_HYPHEN = re.compile(r"([^( ])-(?=[^) ])")
_TWO_OPTIONAL = re.compile(r"(\(\s+[^()\s]+\s+)([^()\s]+)", re.ASCII)
_OPTIONAL = re.compile(r"\([^()]*\)")
_UPPER = str.maketrans({chr(c): chr(c - 32) for c in range(ord("a"), ord("z") + 1)})
# What rules with no such header mean (rfilter1).
_MOST_RULES = 400


@dataclass(frozen=True)
class Rule:
    """One replacement with its contexts ("" matches anywhere)."""

    source: str
    target: str
    left: str = ""
    right: str = ""


class Glm:
    """The rules of a glm that apply to one kind of input.

    Args:
        rules: in file order.
        case_sensitive: False matches letters in either case.
        copy: False drops what no rule touches.
    """

    def __init__(self, rules: list[Rule], case_sensitive: bool = True, copy: bool = True) -> None:
        self.rules = rules
        self.copy = copy
        flags = re.ASCII if case_sensitive else re.ASCII | re.IGNORECASE
        by_first: dict[str, list[Rule]] = {}
        for rule in rules:
            if rule.source:
                first = rule.source[0] if case_sensitive else rule.source[0].upper()
                by_first.setdefault(first, []).append(rule)
        self._targets = {first: [rule.target for rule in group] for first, group in by_first.items()}
        self._patterns = {
            first: re.compile("|".join(f"({_pattern(rule)})" for rule in group), flags)
            for first, group in by_first.items()
        }
        self._fold = not case_sensitive

    def replace(self, text: str) -> str:
        """The rules alone, without the rest of the filter."""
        parts, place = [], 0
        while place < len(text):
            first = text[place].upper() if self._fold else text[place]
            pattern = self._patterns.get(first)
            match = pattern.match(text, place) if pattern else None
            if match and match.lastindex:
                parts.append(self._targets[first][match.lastindex - 1])
                place = match.end()
            else:
                parts.append(text[place] if self.copy else "")
                place += 1
        return "".join(parts)

    def filter(self, text: str) -> str:
        """All of the filter: upper case, rules, hyphens between letters to blanks, each optional word by itself.

        Raises:
            DataError: parentheses that do not pair, or stand in each other.
        """
        text = _BLANKS.sub(" ", text.strip()).translate(_UPPER).replace("(", "( ").replace(")", " )")
        if re.search("[()]", _OPTIONAL.sub("", text)):
            raise DataError(f"parentheses do not pair in '{text}'")
        text = _INNER_HYPHEN.sub(r"\1 ", self.replace(f"  {text}  "))
        while (split := _TWO_OPTIONAL.sub(r"\1) ( \2", text, count=1)) != text:
            text = split
        text = re.sub(r"\s+\)", ")", re.sub(r"\(\s+", "(", text, flags=re.ASCII), flags=re.ASCII)
        return _BLANKS.sub(" ", text).strip(" \t")


def _pattern(rule: Rule) -> str:
    before = f"(?<={re.escape(rule.left)})" if rule.left else ""
    behind = f"(?={re.escape(rule.right)})" if rule.right else ""
    return before + re.escape(rule.source) + behind


def read_glm(path: Path | str, kind: str, purpose: str) -> Glm:
    """Read the rules of a file that apply to `kind` of `purpose`.

    Args:
        kind: stm, ctm or trn.
        purpose: ref or hyp.

    Raises:
        DataError: a missing file, lines without an arrow, too many rules, or another format. All faults at once.
    """
    path = Path(path)
    lines = _applicable(path, kind, purpose)
    comment = lines[0][1].split(" ")[0].split("\t")[0] if lines else ""
    header: dict[str, str] = {}
    rules: list[Rule] = []
    faults: list[str] = []
    for number, line in lines[1:]:
        line = line.rstrip()
        if not line or (comment and line.startswith(comment)):
            continue
        if line.startswith("*"):
            quoted = _QUOTED.search(line)
            if quoted is None:
                faults.append(f"{path}:{number}: a header line needs a value in quotes")
            else:
                header[line[1:].split()[0].lower()] = quoted[1]
            continue
        line = line.split(comment)[0] if comment else line
        if not line.strip():
            continue
        if (rule := _parse(line)) is None:
            faults.append(f"{path}:{number}: a rule needs an arrow (SOURCE => TARGET)")
        else:
            rules.append(rule)
    if header.get("format", "NIST1") != "NIST1":
        faults.append(f"{path}: format '{header['format']}'; only NIST1 is known")
    if len(rules) > (most := int(header.get("max_nrules", _MOST_RULES))):
        faults.append(f"{path}: {len(rules)} rules, but max_nrules is {most}")
    if faults:
        raise DataError(faults)
    yes = {name: value.upper()[:1] in ("T", "Y", "1") for name, value in header.items()}
    return Glm(rules, yes.get("case_sensitive", True), yes.get("copy_no_hit", True))


def _applicable(path: Path, kind: str, purpose: str) -> list[tuple[int, str]]:
    found, applies = [], True
    for number, line in enumerate(plain_lines(path), start=1):
        if match := _APPLIES.match(line):
            expression = match[1].lower()
            applies = any(re.search(expression, name) for name in (kind, purpose))
        if applies:
            found.append((number, line))
    return found


def _parse(line: str) -> Rule | None:
    """One rule. The last slash begins the context, unless a closing bracket comes behind it before an opening one."""
    if "=>" not in line:
        return None
    left = right = ""
    body, slash, context = line.rpartition("/")
    opening, closing = context.find("["), context.find("]")
    if not slash or "=>" not in body or (opening >= 0 and closing < opening):
        body, context = line, ""
    source, _, target = body.partition("=>")
    if "_" in context:
        before, behind = context.split("_", 1)
        left, right = _bare(before), _bare(behind.lstrip("_"))
    return Rule(_bare(source), _bare(target), left, right)


def _bare(text: str) -> str:
    """Without blanks around it and then without its brackets or quotes."""
    text = text.strip()
    if len(text) >= 2 and (text[0], text[-1]) in (("[", "]"), ('"', '"')):
        return text[1:-1]
    return text
