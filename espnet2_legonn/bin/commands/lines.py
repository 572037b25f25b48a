"""Answers of ``legonn transcribe`` and ``translate`` as lines of their formats."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from espnet2_legonn.errors import harmless

if TYPE_CHECKING:
    from espnet2_legonn.export import runner, search
    from espnet2_legonn.inference.cues import Spoken
    from espnet2_legonn.search import answers, options
    from espnet2_legonn.search.words import Word

    Answer = answers.Answer | runner.Result
    Hypothesis = options.Hypothesis | search.Candidate

# What `legonn transcribe` writes; those of TIMED say when each word was said.
SPEECH_FORMATS, TIMED = ("text", "json", "srt", "vtt", "ctm"), ("json", "srt", "vtt", "ctm")


class Part(NamedTuple):
    """A part of a recording, from when to when in seconds, and the answer to it."""

    start: float
    end: float
    answer: Answer

    @property
    def text(self) -> str:
        return harmless(self.answer.text)

    @property
    def words(self) -> list[Word]:
        """With the times of the whole recording; none if they are not known."""
        found = [word.later(self.start) for word in getattr(self.answer, "words", ())]
        return [w._replace(text=harmless(w.text), end=max(w.start, min(w.end, self.end))) for w in found]

    @property
    def spoken(self) -> Spoken:
        """For subtitles."""
        from espnet2_legonn.inference.cues import Spoken

        return Spoken(self.start, self.end, self.text, self.words)


class Lines:
    """Answers as lines of one of the formats.

    Args:
        several: inputs are named.
        nbest: answers asked for each input.
    """

    def __init__(self, format: str, nbest: int = 1, several: bool = False) -> None:
        self.format, self.nbest, self.several, self.index = format, nbest, several, 0
        self.opening = "WEBVTT\n\n"  # of the first file, also of one in which nobody speaks

    def speech(self, file: str, seconds: float, parts: Sequence[Part], channel: int | None = None) -> str:
        """A file's answers, one for each of its parts."""
        from espnet2_legonn.inference import cues

        text, file = " ".join(part.text for part in parts if part.text), harmless(file)
        if self.format == "json":
            return _json({"file": file, "text": text, "seconds": round(seconds, 3), **self._told(parts)})
        if self.format == "ctm":
            return "".join(cues.ctm(file, part.words, channel) for part in parts)
        if self.format in ("srt", "vtt"):
            found = cues.cues(part.spoken for part in parts)
            first, self.index = self.index + 1, self.index + len(found)
            if self.format == "srt":
                return cues.srt(found, first)
            opening, self.opening = self.opening, ""
            return opening + cues.vtt(found)
        if self.nbest > 1:
            return "".join(self._moses(part.answer) for part in parts)
        return f"{file}\t{text}\n" if self.several else f"{text}\n"

    def text(self, source: str, answer: Answer | None) -> str:
        """A text's answer; there is a line for each source, so that files stay parallel."""
        text = harmless(answer.text) if answer else ""
        if self.format == "text":
            return f"{text}\n" if self.nbest == 1 else self._moses(answer)
        return _json({"source": source, "text": text, **self._scores(answer)})

    def _told(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Scores, words and, of a recording in several parts, the same of each."""
        if len(parts) == 1:
            return {**self._scores(parts[0].answer), **_timed(parts)}
        each = [
            {"start": round(p.start, 3), "end": round(p.end, 3), "text": p.text, **self._scores(p.answer)}
            for p in parts
        ]
        return {**_timed(parts), "parts": each}

    def _scores(self, answer: Answer | None) -> dict[str, Any]:
        """Score, parts by scorer and interfaces; all answers, if more than one was asked for."""
        if answer is None:
            return {"score": None, "scores": {}, "interfaces": {}}
        shown = {name: harmless(path.text) for name, path in answer.interfaces.items()}
        best: dict[str, Any] = {**_numbers(answer.best), "interfaces": shown}
        if self.nbest > 1:
            hypotheses: Sequence[Hypothesis] = answer.nbest
            pairs = zip(answer.texts, hypotheses)
            best["nbest"] = [{"text": harmless(text), **_numbers(hypothesis)} for text, hypothesis in pairs]
        return best

    def _moses(self, answer: Answer | None) -> str:
        """Lines that tools for n-best lists read; the number is that of the input, from 0."""
        number, self.index = self.index, self.index + 1
        lines = []
        hypotheses: Sequence[Hypothesis] = answer.nbest if answer else ()
        for text, hypothesis in zip(answer.texts if answer else (), hypotheses):
            parts = " ".join(f"{name}= {value:.6f}" for name, value in hypothesis.parts.items())
            lines.append(f"{number} ||| {harmless(text)} ||| {parts} ||| {hypothesis.score:.6f}\n")
        return "".join(lines) or f"{number} |||  |||  ||| \n"


def _timed(parts: Sequence[Part]) -> dict[str, Any]:
    """Words with times in seconds and confidences, and whether the times are exact."""
    words = [
        {"word": w.text, "start": round(w.start, 3), "end": round(w.end, 3), "confidence": round(w.confidence, 4)}
        for part in parts
        for w in part.words
    ]
    exact = all(getattr(part.answer, "exact", True) for part in parts)
    return {"words": words, "times": "exact" if exact else "approximate"} if words else {"words": words}


def _numbers(hypothesis: Hypothesis) -> dict[str, Any]:
    scores = {name: _number(value) for name, value in hypothesis.parts.items()}
    return {"score": _number(hypothesis.score), "scores": scores}


def _number(value: Any) -> float | None:
    """None for what CTC finds impossible: JSON has no infinity."""
    return round(float(value), 6) if math.isfinite(value) else None


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False) + "\n"
