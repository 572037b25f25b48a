"""Stage 4: remove utterances that are too long, too short, empty or badly aligned; nothing goes uncounted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espnet2_legonn.data.audio import is_pipe, seconds
from espnet2_legonn.data.datadir import DataDir, keep_marks, select
from espnet2_legonn.data.dirops import text_names
from espnet2_legonn.data.tables import Table
from espnet2_legonn.data.tokenizer_json import BEGINNING, TokenizerJson
from espnet2_legonn.errors import DataError

Length = Callable[[str], int]


@dataclass(frozen=True)
class Limits:
    """What is kept; None: no limit. Bounds are inclusive.

    min/max_wav_duration: seconds at `fs` Hz, from utt2num_samples. min/max_tokens: of every text table.
    max_ratio: longer side / shorter side of `pair` (LegoNN, section IV-B: 1.5, at most 250 tokens;
    appendix A-A: 1.5, at most 80).
    """

    fs: int | None = None
    min_wav_duration: float | None = None
    max_wav_duration: float | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    max_ratio: float | None = None
    pair: tuple[str, str] | None = None


@dataclass
class FilterReport:
    """How many utterances there were, how many stay, and how many left for which (first) reason; seconds of audio."""

    total: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    lost: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __str__(self) -> str:
        lines = [f"kept {self.kept} of {self.total} utterances"]
        lines += [f"dropped {count}: {reason}{self._hours(reason)}" for reason, count in sorted(self.reasons.items())]
        return "\n".join(lines)

    def _hours(self, reason: str) -> str:
        if not self.seconds:
            return ""
        return f" ({self.lost[reason] / 3600:.2f} h, {100 * self.lost[reason] / self.seconds:.1f} % of the audio)"


def words(text: str) -> int:
    """Length in words."""
    return len(text.split())


def pieces(bpemodel: Path | str) -> Length:
    """Length in units of a sentencepiece model, as the paper counts tokens, or of a tokenizer.json."""
    import sentencepiece

    if not Path(bpemodel).is_file():
        raise DataError(f"{bpemodel}: no such sentencepiece model")
    if (data := Path(bpemodel).read_bytes()).startswith(BEGINNING):
        tokenizer = TokenizerJson(data)
        return lambda text: len(tokenizer.split(text))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(bpemodel))
    return lambda text: len(processor.encode(text))


def filter_dir(
    source: Path | str,
    dest: Path | str,
    limits: Limits,
    *,
    texts: Sequence[str] | None = None,
    length: Length = words,
) -> FilterReport:
    """Write the utterances of `source` within `limits` and with non-empty texts to `dest`.

    Args:
        texts: text tables to look at; all when None.
        length: tokens of a text.

    Raises:
        DataError: the directory has faults or audio at another rate than the limits say, a table or option that a
            limit needs is missing, or nothing would be left.
    """
    data = DataDir(source)
    tables = data.tables()
    checks = _checks(source, tables, limits, text_names(data, texts), length)
    report = FilterReport()
    fs = limits.fs if "utt2num_samples" in tables else None

    def keep(_: str, values: Mapping[str, str]) -> bool:
        reason = next((r for check in checks if (r := check(values)) is not None), None)
        audio = int(values["utt2num_samples"]) / fs if fs else 0.0
        report.total += 1
        report.seconds += audio
        if reason is None:
            report.kept += 1
        else:
            report.reasons[reason] += 1
            report.lost[reason] += audio
        return reason is None

    try:
        select(tables, dest, keep)
    except DataError:
        if report.kept:
            raise
        raise DataError([f"{source}: no utterance is within the limits", str(report)]) from None
    keep_marks(data, dest)
    return report


Check = Callable[[Mapping[str, str]], "str | None"]


def _checks(
    source: Path | str, tables: Mapping[str, Table], limits: Limits, names: Sequence[str], length: Length
) -> list[Check]:
    checks: list[Check] = []
    if limits.min_wav_duration is not None or limits.max_wav_duration is not None:
        if limits.fs is None or "utt2num_samples" not in tables:
            raise DataError(f"{source}: limits of duration need --fs and utt2num_samples (made by `format`)")
        if "wav.scp" in tables:
            _same_rate(tables["wav.scp"], limits.fs)
        checks.append(_duration(limits))
    checks += [_text(name, limits, length) for name in names]
    if limits.max_ratio is not None:
        pair = limits.pair or ("src_text", "text")
        missing = [name for name in pair if name not in tables]
        if missing or limits.max_ratio < 1:
            raise DataError(
                f"{source}: --max_ratio must be >= 1 and needs a pair of texts; missing: {missing or 'none'}"
            )
        checks.append(_ratio(pair, limits.max_ratio, length))
    return checks


def _same_rate(wavs: Table, fs: int) -> None:
    """`format` writes all files at one rate, so the first tells whether seconds are counted at the right one."""
    _, spec = next(wavs.items())
    if not is_pipe(spec) and Path(spec).is_file():
        seconds(spec, fs)


def _duration(limits: Limits) -> Check:
    def check(values: Mapping[str, str]) -> str | None:
        duration = int(values["utt2num_samples"]) / (limits.fs or 1)
        if limits.min_wav_duration is not None and duration < limits.min_wav_duration:
            return f"shorter than {limits.min_wav_duration:g} s"
        if limits.max_wav_duration is not None and duration > limits.max_wav_duration:
            return f"longer than {limits.max_wav_duration:g} s"
        return None

    return check


def _text(name: str, limits: Limits, length: Length) -> Check:
    bounded = limits.min_tokens is not None or limits.max_tokens is not None
    # Phonemes and characters have their own scale: limits in words or pieces would not mean anything for
    # them.
    bounded = bounded and not name.startswith("text_")

    def check(values: Mapping[str, str]) -> str | None:
        text = values[name]
        if not text:
            return f"empty {name}"
        if not bounded:
            return None
        tokens = length(text)
        if limits.min_tokens is not None and tokens < limits.min_tokens:
            return f"{name} shorter than {limits.min_tokens} tokens"
        if limits.max_tokens is not None and tokens > limits.max_tokens:
            return f"{name} longer than {limits.max_tokens} tokens"
        return None

    return check


def _ratio(pair: tuple[str, str], limit: float, length: Length) -> Check:
    def check(values: Mapping[str, str]) -> str | None:
        a, b = (length(values[name]) for name in pair)
        return f"length ratio above {limit:g}" if max(a, b) > limit * min(a, b) else None

    return check
