"""Invented parallel sentences in English, German and Romanian, and the containers that campaigns ship text in."""

from __future__ import annotations

import gzip
import random
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

LANGUAGES = ("en", "de", "ro")
WHO = [
    ("the commission", "die Kommission", "comisia"),
    ("our committee", "unser Ausschuss", "comitetul nostru"),
    ("a young engineer", "eine junge Ingenieurin", "o ingineră tânără"),
    ("the mayor", "der Bürgermeister", "primarul"),
    ("Mrs Popescu", "Frau Popescu", "doamna Popescu"),
]
DOES = [
    ("approved", "genehmigte", "a aprobat"),
    ("rejected", "verwarf", "a respins"),
    ("described", "beschrieb", "a descris"),
    ("praised", "lobte", "a lăudat"),
]
WHAT = [
    ("the plans", "die Pläne", "planurile"),
    ("public-transport schemes", "Nahverkehrs-Vorhaben", "proiectele de transport public"),
    ('the "green" budget', 'den „grünen" Haushalt', 'bugetul "verde"'),
    ("the city's bridges", "die Brücken der Stadt", "podurile orașului"),
    ("two new schools (see annex 3)", "zwei neue Schulen (siehe Anhang 3)", "două școli noi (vezi anexa 3)"),
]
WHEN = [
    ("today", "heute", "astăzi"),
    ("last year", "voriges Jahr", "anul trecut"),
    ("in March", "im März", "în martie"),
    ("without a vote", "ohne Abstimmung", "fără vot"),
]


def sentences(number: int, seed: int) -> list[tuple[str, str, str]]:
    """Sentences in the order of ``LANGUAGES``, the same for the same seed."""
    rng = random.Random(seed)
    made = []
    for _ in range(number):
        parts = [rng.choice(options) for options in (WHO, DOES, WHAT, WHEN)]
        words = [" ".join(part[i] for part in parts) for i in range(3)]
        made.append(tuple(w[0].upper() + w[1:] + "." for w in words))
    return made  # type: ignore[return-value]


def side(rows: Sequence[tuple[str, str, str]], language: str) -> list[str]:
    """One language of the sentences."""
    return [row[LANGUAGES.index(language)] for row in rows]


def write_lines(path: Path, lines: Iterable[str | bytes]) -> Path:
    """One line each; ``.gz`` is packed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def write_zip(path: Path, members: dict[str, Iterable[str]]) -> Path:
    """A zip of text files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, lines in members.items():
            archive.writestr(name, "".join(line + "\n" for line in lines))
    return path


def write_sgm(path: Path, lines: Sequence[str], kind: str, setid: str, languages: tuple[str, str]) -> Path:
    """A test set as WMT ships it, in two documents whose ids restart: a headline, then paragraphs."""
    src, trg = languages
    head = f'<{kind}set setid="{setid}" srclang="any"' + (f' trglang="{trg}">' if kind == "ref" else ">")
    rows, half = [head], max(1, len(lines) // 2)
    for number, document in enumerate(filter(None, (lines[:half], lines[half:]))):
        rows += [
            f'<doc sysid="ref" docid="example.com/2099/{number}" genre="news" origlang="{src}">',
            "<hl>",
            f'<seg id="1">{document[0].replace("&", "&amp;")} </seg>',
            "</hl>",
            "<p>",
            *(f'<seg id="{i}"> {line.replace("&", "&amp;")} </seg>' for i, line in enumerate(document[1:], 2)),
            "</p>",
            "</doc>",
        ]
    return write_lines(path, [*rows, f"</{kind}set>"])
