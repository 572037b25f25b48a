"""Words with their times as subtitles (SubRip, WebVTT) and as NIST's CTM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_legonn.search.words import Word

# What people can read: two lines of 42 letters, seven seconds, and nothing stays while nobody speaks.
LINE, LONGEST, PAUSE = 42, 7.0, 1.0


class Spoken(NamedTuple):
    """One part of a recording.

    Args:
        start, end: seconds.
        text: what is said there; words: the same with their times, or none if those are not known.
    """

    start: float
    end: float
    text: str
    words: Sequence[Word] = ()


class Cue(NamedTuple):
    """One subtitle: from when to when, in seconds, and its text."""

    start: float
    end: float
    text: str


def cues(parts: Iterable[Spoken]) -> list[Cue]:
    """Subtitles of a recording; a part whose words have no times is one of them."""
    found: list[Cue] = []
    for part in parts:
        if not part.words:
            found += [Cue(part.start, part.end, part.text)] if part.text else []
            continue
        group: list[Word] = []
        for word in part.words:
            lines = _lines([*group, word])
            if group and (
                max(map(len, lines)) > LINE or word.end - group[0].start > LONGEST or word.start - group[-1].end > PAUSE
            ):
                found.append(_cue(group))
                group = []
            group.append(word)
        found.append(_cue(group))
    return found


def _cue(words: Sequence[Word]) -> Cue:
    return Cue(words[0].start, max(words[-1].end, words[0].start), "\n".join(_lines(words)))


def _lines(words: Sequence[Word]) -> list[str]:
    """Words as one line, or as two that are as equal as can be."""
    texts = [word.text for word in words]
    pairs = [[" ".join(texts[:i]), " ".join(texts[i:])] for i in range(1, len(texts))]
    line = " ".join(texts)
    return min(pairs, key=lambda pair: max(map(len, pair))) if len(line) > LINE and pairs else [line]


def clock(seconds: float, mark: str = ",") -> str:
    """hh:mm:ss,mmm of SubRip, or hh:mm:ss.mmm of WebVTT."""
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{mark}{ms % 1000:03d}"


def srt(found: Sequence[Cue], first: int = 1) -> str:
    """SubRip, numbered from ``first``."""
    entries = enumerate(found, first)
    return "".join(f"{i}\n{clock(cue.start)} --> {clock(cue.end)}\n{cue.text}\n\n" for i, cue in entries)


def vtt(found: Sequence[Cue]) -> str:
    """WebVTT, without its first line; its marks in a text are escaped."""

    def plain(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    return "".join(f"{clock(c.start, '.')} --> {clock(c.end, '.')}\n{plain(c.text)}\n\n" for c in found)


def ctm(file: str, words: Iterable[Word], channel: int | None = None) -> str:
    """NIST's table: file, channel, begin, duration, word, confidence; the file's name without folder and blanks."""
    name, side = "_".join(Path(file).stem.split()) or "-", 1 if channel is None else channel + 1
    return "".join(
        f"{name} {side} {w.start:.2f} {max(0.0, w.end - w.start):.2f} {w.text} {w.confidence:.3f}\n" for w in words
    )
