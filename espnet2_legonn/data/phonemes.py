"""Text to phonemes, once at data preparation (LegoNN, appendix A-B), each word once.

Backends: `lexicon` (a file), `g2p_en` (CMUdict, homographs by part of speech, a small neural model for other
    words), `auto` (lexicon, then g2p_en for words it lacks). Nothing is downloaded.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from espnet2_legonn.data.tables import Made, Rows, Table, ordered, write_table
from espnet2_legonn.data.text import normalize, plain_lines
from espnet2_legonn.data.vocabulary import UNK
from espnet2_legonn.errors import DataError

BACKENDS = ("lexicon", "g2p_en", "auto")
_ALTERNATE = re.compile(r"\(\d+\)$")
_STRESS = re.compile(r"(?<=[A-Z])[0-2]$")
_CMUDICT, _TAGGER = "corpora/cmudict.zip", "taggers/averaged_perceptron_tagger_eng.zip"
_ADVICE = (
    "get it once with `python -m nltk.downloader -d DIR cmudict averaged_perceptron_tagger_eng` and set "
    "NLTK_DATA=DIR (DIR and its files must not be writable by group or others: chmod -R go-w DIR)"
)


class Backend(Protocol):
    """Pronounces sentences word by word."""

    def words(self, text: str) -> list[str]:
        """Words of a text as this backend looks them up."""

    def pronounce(self, words: Sequence[str]) -> list[tuple[str, ...] | None]:
        """Phonemes of each word; None when there is no pronunciation."""


class Lexicon:
    """A file of `word phoneme phoneme ...` lines (tab or blanks); `;;;` and `#` begin comments.

    Of alternates (a repeated word, or CMUdict's `word(2)`), the first is used. Case is ignored.

    Raises:
        DataError: missing file, not UTF-8, or lines without phonemes, all listed.
    """

    def __init__(self, path: Path | str) -> None:
        self.entries: dict[str, tuple[str, ...]] = {}
        faults: list[str] = []
        for number, line in enumerate(plain_lines(path), start=1):
            if not line.strip() or line.startswith((";;;", "# ")):
                continue
            word, *phones = line.split()
            # CMUdict has comments after entries.
            phones = phones[: phones.index("#")] if "#" in phones else phones
            if not phones:
                faults.append(f"{path}:{number}: '{word}' has no phonemes")
            self.entries.setdefault(_ALTERNATE.sub("", word).lower(), tuple(phones))
        if faults:
            raise DataError(faults)
        if not self.entries:
            raise DataError(f"{path}: the lexicon is empty")

    def words(self, text: str) -> list[str]:
        """See Backend."""
        return normalize(text, "lc.rm").split()

    def pronounce(self, words: Sequence[str]) -> list[tuple[str, ...] | None]:
        """See Backend."""
        return [self.entries.get(word) for word in words]


class G2pEn:
    """The g2p_en package (numpy), with or without NLTK's data.

    With CMUdict and tagger it gives what g2p_en itself gives for a sentence. Without CMUdict every word
    comes from the neural model; without the tagger homographs get the reading g2p_en uses for an unmatched
    tag. Either is said once, in a warning.

    Raises:
        DataError: the package is not installed.
    """

    def __init__(self) -> None:
        self._g2p, self._expand = _load_g2p_en()
        self._tag = _tagger()
        self._cache: dict[str, tuple[str, ...] | None] = {}
        missing = [
            what
            for what, lacks in (("cmudict", not self._g2p.cmu), ("part-of-speech tagger", self._tag is None))
            if lacks
        ]
        if missing:
            logging.getLogger(__name__).warning(
                "g2p_en: NLTK's %s cannot be used, phonemes will be less accurate; %s%s",
                " and ".join(missing),
                _ADVICE,
                _refused(),
            )

    def words(self, text: str) -> list[str]:
        """See Backend."""
        # Numbers are spelled out before punctuation goes; accents are stripped as g2p_en does.
        spelled = unicodedata.normalize("NFD", self._expand(text))
        plain = "".join(c for c in spelled if unicodedata.category(c) != "Mn")
        return normalize(plain, "lc.rm").split()

    def pronounce(self, words: Sequence[str]) -> list[tuple[str, ...] | None]:
        """See Backend."""
        homographs = self._g2p.homograph2features
        tags = self._tag(list(words)) if self._tag and any(word in homographs for word in words) else None
        phones: list[tuple[str, ...] | None] = []
        for position, word in enumerate(words):
            if word in homographs:
                first, second, tag = homographs[word]
                phones.append(tuple(first if tags and tags[position][1].startswith(tag) else second))
            else:
                if word not in self._cache:
                    self._cache[word] = self._single(word)
                phones.append(self._cache[word])
        return phones

    def _single(self, word: str) -> tuple[str, ...] | None:
        if word in self._g2p.cmu:
            return tuple(self._g2p.cmu[word][0])
        if re.fullmatch(r"[a-z']+", word) is None:
            return None
        return tuple(phone for phone in self._g2p.predict(word) if not phone.startswith("<")) or None


def _load_g2p_en() -> tuple[Any, Callable[[str], str]]:
    """A G2p object and its number expansion, with neither network nor NLTK data needed."""
    try:
        import nltk
    except ImportError as error:
        raise DataError("backend g2p_en: install the packages g2p_en and nltk, or use --backend lexicon") from error
    download = nltk.download
    # g2p_en downloads at import when data are missing: never at run time.
    nltk.download = lambda *args, **kwargs: False
    try:
        from g2p_en import g2p as module
    except ImportError as error:
        raise DataError(f"backend g2p_en: install the package g2p_en, or use --backend lexicon ({error})") from error
    finally:
        nltk.download = download
    reader = module.cmudict
    try:
        return module.G2p(), module.normalize_numbers
    except (LookupError, OSError):  # absent, or refused by NLTK as unsafe
        module.cmudict = _NoDictionary()
        try:
            return module.G2p(), module.normalize_numbers
        finally:
            module.cmudict = reader


class _NoDictionary:
    """Stands for NLTK's cmudict reader when its data are missing."""

    @staticmethod
    def dict() -> dict[str, list[list[str]]]:
        return {}


def _tagger() -> Callable[[list[str]], list[tuple[str, str]]] | None:
    from nltk import pos_tag

    try:
        pos_tag(["test"])
    except (LookupError, OSError):
        return None
    return pos_tag


def _refused() -> str:
    """NLTK reports folders that others may write to as missing: say which."""
    bad: list[str] = []
    for folder in filter(None, os.environ.get("NLTK_DATA", "").split(os.pathsep)):
        for path in (Path(folder), Path(folder) / _CMUDICT, Path(folder) / _TAGGER):
            if path.exists() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                bad.append(str(path))
    return f"; writable by group or others now: {', '.join(bad)}" if bad else ""


class Auto:
    """A lexicon first, g2p_en for the words it lacks."""

    def __init__(self, lexicon: Lexicon, fallback: G2pEn) -> None:
        self._lexicon, self._fallback = lexicon, fallback

    def words(self, text: str) -> list[str]:
        """See Backend."""
        return self._fallback.words(text)

    def pronounce(self, words: Sequence[str]) -> list[tuple[str, ...] | None]:
        """See Backend."""
        found = self._lexicon.pronounce(words)
        if None not in found:
            return found
        return [own or other for own, other in zip(found, self._fallback.pronounce(words), strict=True)]


def make_backend(name: str, lexicon: Path | str | None = None) -> Backend:
    """`lexicon`, `g2p_en` or `auto` (without a file: g2p_en). DataError for other names or a missing file."""
    if name not in BACKENDS:
        raise DataError(f"phoneme backend '{name}': choose one of {', '.join(BACKENDS)}")
    if name == "lexicon" and lexicon is None:
        raise DataError("backend lexicon: give the file with --lexicon FILE")
    if name == "g2p_en" and lexicon is not None:
        raise DataError("backend g2p_en reads no lexicon; use --backend auto for lexicon, then g2p_en")
    if name == "lexicon" and lexicon is not None:
        return Lexicon(lexicon)
    return G2pEn() if lexicon is None else Auto(Lexicon(lexicon), G2pEn())


@dataclass
class PhonemeReport:
    """Counts of a run; `oov`: words not pronounced (written `<unk>`); `empty`: ids with no phonemes."""

    utterances: int = 0
    words: int = 0
    phonemes: int = 0
    oov: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.utterances} utterances, {self.words} words, {self.phonemes} phonemes"]
        if self.oov:
            examples = ", ".join(f"{word} ({count})" for word, count in self.oov.most_common(10))
            rate = 100 * self.oov.total() / max(self.words, 1)
            lines.append(f"OOV as <unk>: {self.oov.total()} words ({rate:.3f} %), {len(self.oov)} forms: {examples}")
        if self.empty:
            lines.append(f"{len(self.empty)} utterances without phonemes (see `filter`): {', '.join(self.empty[:5])}")
        return "\n".join(lines)


class Phonemizer:
    """Texts to phoneme sequences.

    Args:
        strip_stress: AH0 -> AH.
        word_boundary: symbol between words, e.g. `<wb>`; None: no symbol.
    """

    def __init__(self, backend: Backend, *, strip_stress: bool = False, word_boundary: str | None = None) -> None:
        self._backend = backend
        self._strip = strip_stress
        self._boundary = word_boundary

    def __call__(self, text: str, report: PhonemeReport) -> list[str]:
        """Phonemes of one text; counts go to `report`."""
        words = self._backend.words(text)
        phones: list[str] = []
        for position, (word, found) in enumerate(zip(words, self._backend.pronounce(words), strict=True)):
            if position and self._boundary:
                phones.append(self._boundary)
            if found is None:
                report.oov[word] += 1
            phones += (UNK,) if found is None else (_STRESS.sub("", p) for p in found) if self._strip else found
        report.words += len(words)
        report.phonemes += len(phones)
        return phones

    def rows(self, texts: Rows, report: PhonemeReport) -> Iterator[tuple[str, str]]:
        """Phonemes of a whole table, one utterance after another."""
        for utt, text in texts.items():
            phones = " ".join(self(text, report))
            report.utterances += 1
            if not phones:
                report.empty.append(utt)
            yield utt, phones


def phonemize_table(source: Path | str, dest: Path | str, phonemizer: Phonemizer) -> PhonemeReport:
    """Read a text table, write its phonemes.

    Raises:
        DataError: no word at all has a pronunciation (a lexicon of another language or case, usually).
    """
    texts = Table(Path(source))

    def rows(report: PhonemeReport) -> Iterator[tuple[str, str]]:
        yield from phonemizer.rows(texts, report)
        if report.words and report.oov.total() == report.words:
            said = f"none of {report.words} words has a pronunciation; is the lexicon of this language?"
            raise DataError(f"{source}: {said}")

    def write() -> PhonemeReport:
        report = PhonemeReport()
        write_table(dest, Made(lambda: rows(report)))
        return report

    return ordered(write)
