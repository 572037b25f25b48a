"""Stage 5: token lists in ESPnet's layout (`<blank>`, `<unk>`, units, `<sos/eos>`) and how well they cover.

Several input files make one joint vocabulary, which is what lets decoders be shared between tasks (LegoNN,
section III-A.2).
Everything is deterministic: the same files give the same tokens.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet2_legonn.data.checks import text_fault
from espnet2_legonn.data.tables import Faults, atomic_path, atomic_text, split_fields
from espnet2_legonn.data.text import placed
from espnet2_legonn.data.vocabulary import BLANK, SOS_EOS, UNK, Vocabulary
from espnet2_legonn.errors import DataError

_SPECIAL = (BLANK, UNK, SOS_EOS)
# sentencepiece's normalisation rules. Its own default, nmt_nfkc, gives another text back than it was given.
NORMALIZERS = ("identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf")
MAX_CHANGES, SHOWN_CHANGES = 1000, 5
WORDS = 1 << 16  # of which a meter remembers what becomes of them
HIGH_OOV = 0.05  # of the tokens: beyond it, the vocabulary is not that of the text


@dataclass(frozen=True)
class Coverage:
    """How a vocabulary covers one corpus. Rates are fractions; fertility is tokens per word.

    ``changed_lines`` do not come back from their tokens as they were, though no token is ``<unk>``; ``changed`` lists
    them as ``place: word -> word``, the first ``MAX_CHANGES``.
    """

    corpus: str
    lines: int
    words: int
    tokens: int
    unknown_tokens: int
    unknown_words: int
    changed_lines: int = 0
    changed: tuple[str, ...] = ()

    @property
    def oov_rate(self) -> float:
        """Tokens that are `<unk>` (the paper's OOV rate, appendix A-B: 0.096 %)."""
        return self.unknown_tokens / max(self.tokens, 1)

    @property
    def fertility(self) -> float:
        """Tokens per word."""
        return self.tokens / max(self.words, 1)

    def warnings(self) -> list[str]:
        """What somebody should look at before training."""
        told = []
        if self.oov_rate > HIGH_OOV:
            told.append(
                f"warning: {self.corpus}: {100 * self.oov_rate:.1f} % of the tokens are {UNK}, more than "
                f"{100 * HIGH_OOV:g} %; is it the text that the vocabulary is for (language, case, normalisation)?"
            )
        if self.changed_lines:
            more = " ..." if self.changed_lines > SHOWN_CHANGES else ""
            told.append(
                f"warning: {self.corpus}: {self.changed_lines} of {self.lines} lines do not come back from their "
                f"tokens as they were: {'; '.join(self.changed[:SHOWN_CHANGES])}{more}"
            )
        return told


@dataclass
class VocabReport:
    """What was made (`size` counts the three special tokens) and how it covers each corpus."""

    unit: str
    size: int
    asked: int | None
    sha256: str
    normalizer: str | None = None
    coverage: list[Coverage] = field(default_factory=list)

    def __str__(self) -> str:
        rule = f", sentencepiece normaliser {self.normalizer}" if self.normalizer else ""
        lines = [f"{self.unit} vocabulary of {self.size} tokens{rule}"]
        if self.asked is not None and self.size < self.asked:
            lines.append(f"warning: vocab_size {self.asked} is too high, these texts support {self.size}")
        lines += [
            f"{c.corpus}: {c.lines} lines, {c.words} words, {c.tokens} tokens ({c.fertility:.3f} per word), "
            f"OOV {100 * c.oov_rate:.3f} % of tokens, {c.unknown_words} words"
            for c in self.coverage
        ]
        lines += [warning for c in self.coverage for warning in c.warnings()]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """The content of report.json."""
        rows = [asdict(c) | {"oov_rate": c.oov_rate, "fertility": c.fertility} for c in self.coverage]
        return asdict(self) | {"coverage": rows}


def make_bpe(
    texts: Sequence[Path | str],
    vocab_size: int,
    out_dir: Path | str,
    *,
    model_type: str = "unigram",
    character_coverage: float = 1.0,
    user_defined_symbols: Sequence[str] = (),
    input_sentence_size: int = 0,
    normalizer: str = "identity",
    plain: bool = False,
    extra: Sequence[Path | str] = (),
) -> VocabReport:
    """Train sentencepiece on all `texts` together; writes tokens.txt, bpe.model, report.json.

    Args:
        vocab_size: tokens wanted, special ones included; fewer are made when the texts do not support as
            many.
        model_type: `unigram` or `bpe`.
        input_sentence_size: train on a fixed random sample of this many lines; 0: all.
        normalizer: what sentencepiece does to a text before it splits it, one of ``NORMALIZERS``; it is part of the
            model from then on.
        plain: `texts` are plain text, not tables with ids.
        extra: further corpora to report on, in the same form.

    Raises:
        DataError: empty, missing or faulty texts, an unknown model type or normaliser, or a size below the number of
            characters.
    """
    if model_type not in ("unigram", "bpe"):
        raise DataError(f"model type '{model_type}': choose unigram or bpe")
    if normalizer not in NORMALIZERS:
        raise DataError(f"normaliser '{normalizer}': choose one of {', '.join(NORMALIZERS)}")
    out = Path(out_dir)
    options = {
        "vocab_size": vocab_size,
        "model_type": model_type,
        "character_coverage": character_coverage,
        "user_defined_symbols": list(user_defined_symbols),
        "input_sentence_size": input_sentence_size,
        "shuffle_input_sentence": input_sentence_size > 0,
        "normalization_rule_name": normalizer,
    }
    with atomic_path(out / "bpe.model") as temporary:
        temporary.write_bytes(_train(texts, plain, options))
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(out / "bpe.model"))
    # Pieces 0-2 are sentencepiece's own <unk>, <s>, </s>.
    pieces = [processor.id_to_piece(i) for i in range(3, processor.get_piece_size())]
    return _finish(out, "bpe", pieces, vocab_size, [*texts, *extra], plain)


def _train(texts: Sequence[Path | str], plain: bool, options: dict[str, Any]) -> bytes:
    import io

    import sentencepiece

    # BPE is made of words and their counts. Sampling and unigram models want lines, which sentencepiece itself holds.
    count = options["model_type"] == "bpe" and not options["input_sentence_size"]
    lines: Iterable[str] = _counted_words(_training_lines(texts, plain)) if count else _training_lines(texts, plain)
    # The default (4192 bytes) leaves out longer lines without saying so.
    longest = max(4192, max(len(line.encode()) + 1 for line in lines))
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines) if count else _training_lines(texts, plain),
            input_format="tsv" if count else "",
            model_writer=model,
            hard_vocab_limit=False,
            minloglevel=2,
            **options,
            max_sentence_length=longest,
        )
    except RuntimeError as error:
        raise DataError(
            f"sentencepiece cannot make {options['vocab_size']} {options['model_type']} units of this: "
            f"{_reason(str(error))}"
        ) from error
    return model.getvalue()


def _reason(message: str) -> str:
    if "smaller than required_chars" in message:
        needed = message.split(" vs ")[-1].split(".")[0]
        return f"too many different characters; ask for {needed} or more, or lower --character_coverage"
    if "too high" in message:
        return f"vocab_size is too high; {message.split(']')[-1].strip()}"
    return message


def make_char(
    texts: Sequence[Path | str],
    out_dir: Path | str,
    *,
    user_defined_symbols: Sequence[str] = (),
    plain: bool = False,
    extra: Sequence[Path | str] = (),
) -> VocabReport:
    """Characters by frequency, a blank as `<space>`, behind symbols that are one token each."""
    return _make_counted("char", texts, out_dir, None, plain, extra, user_defined_symbols)


def make_word(
    texts: Sequence[Path | str],
    out_dir: Path | str,
    *,
    vocab_size: int | None = None,
    user_defined_symbols: Sequence[str] = (),
    plain: bool = False,
    extra: Sequence[Path | str] = (),
) -> VocabReport:
    """Words by frequency, the most frequent `vocab_size` (special tokens and symbols, which come first, included)."""
    return _make_counted("word", texts, out_dir, vocab_size, plain, extra, user_defined_symbols)


def make_phn(
    texts: Sequence[Path | str],
    out_dir: Path | str,
    *,
    user_defined_symbols: Sequence[str] = (),
    plain: bool = False,
    extra: Sequence[Path | str] = (),
) -> VocabReport:
    """Phonemes of text_phn files (already separated by blanks) by frequency, behind symbols."""
    return _make_counted("phn", texts, out_dir, None, plain, extra, user_defined_symbols)


def _make_counted(
    unit: str,
    texts: Sequence[Path | str],
    out_dir: Path | str,
    vocab_size: int | None,
    plain: bool,
    extra: Sequence[Path | str],
    symbols: Sequence[str],
) -> VocabReport:
    # How a text is split depends on the unit and these symbols, and must be as the model will do it.
    split = Vocabulary((BLANK, UNK, *(symbols or "?"), SOS_EOS), unit).split
    counts: Counter[str] = Counter()
    for line in _training_lines(texts, plain):
        counts.update(split(line))
    # <unk> may stand in text_phn for a word without pronunciation: it is a special token already.
    counts.pop(UNK, None)
    faults = [
        f"token '{token}' occurs in the texts; it is reserved, rename it" for token in _SPECIAL if token in counts
    ]
    if faults:
        raise DataError(faults)
    counted = (token for token, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    ordered = list(dict.fromkeys([*symbols, *counted]))
    if vocab_size is not None:
        if vocab_size <= len(_SPECIAL):
            raise DataError(f"vocab_size {vocab_size}: {len(_SPECIAL)} tokens are special; ask for more")
        ordered = ordered[: vocab_size - len(_SPECIAL)]
    return _finish(Path(out_dir), unit, ordered, vocab_size, [*texts, *extra], plain)


def _training_lines(texts: Sequence[Path | str], plain: bool) -> Iterator[str]:
    """Lines of all texts that have words.

    Raises:
        DataError: no file, or, at the end, no words or characters that no token may have.
    """
    if not texts:
        raise DataError("vocabulary: name at least one text file")
    faults, found = Faults(), False
    for path in texts:
        for place, line in placed(path, plain=plain):
            # A letter and its accent may stay two characters; white space that nobody sees may be no token.
            if fault := text_fault(line, nfc=False):
                faults.add(f"{place} {fault}")
            elif line.strip():
                found = True
                yield line
    if faults:
        raise DataError(faults)
    if not found:
        raise DataError(f"vocabulary: no text in {', '.join(str(path) for path in texts)}")


def _counted_words(lines: Iterable[str]) -> list[str]:
    """``word<TAB>count`` of each word, as sentencepiece reads it: the same tokens come of it as of the lines."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(split_fields(line))
    return [f"{word}\t{count}" for word, count in counts.items() if word]


def _finish(
    out: Path, unit: str, tokens: Iterable[str], asked: int | None, corpora: Sequence[Path | str], plain: bool
) -> VocabReport:
    with atomic_text(out / "tokens.txt") as stream:
        stream.writelines(token + "\n" for token in (BLANK, UNK, *tokens, SOS_EOS))
    vocab = Vocabulary.from_files(out / "tokens.txt", unit, out / "bpe.model" if unit == "bpe" else None)
    report = VocabReport(unit, len(vocab), asked, vocab.sha256, vocab.normalizer)
    report.coverage = [measure(vocab, path, plain=plain) for path in corpora]
    with atomic_text(out / "report.json") as stream:
        json.dump(report.as_dict(), stream, indent=1, ensure_ascii=False)
        stream.write("\n")
    return report


@dataclass
class Meter:
    """Counts for a ``Coverage``, line by line; what becomes of a frequent word is looked up once."""

    vocab: Vocabulary
    lines: int = 0
    words: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    unknown_words: int = 0
    changed_lines: int = 0
    changed: list[str] = field(default_factory=list)
    reserved: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self._known = functools.lru_cache(WORDS)(self._encoded)

    def _encoded(self, piece: str) -> tuple[list[int], str]:
        ids = self.vocab.encode(piece)
        return ids, self.vocab.decode(ids)

    def add(self, place: str, line: str) -> list[int]:
        """Count one line and return its ids; ``place`` names it in ``changed``."""
        fields = split_fields(line.strip(" \t"))
        # In characters, the blanks between the words are tokens, too.
        pieces = [" ".join(fields)] if self.vocab.unit == "char" else fields
        ids: list[int] = []
        different = []
        for piece in filter(None, pieces):
            encoded, back = self._known(piece)
            ids += encoded
            if back != piece and self.vocab.unk_id not in encoded:
                different.append(f"{place} {piece} -> {back}")
            if self.vocab.unit != "char":
                self.unknown_words += self.vocab.unk_id in encoded
        if self.vocab.unit == "char":
            self.unknown_words += sum(self.vocab.unk_id in self.vocab.encode(word) for word in fields)
        self.reserved.add(*(f"{place} says {t}, which is reserved; rename it" for t in self.vocab.reserved(line)))
        self.lines += 1
        self.words += len(fields)
        self.tokens += len(ids)
        self.unknown_tokens += ids.count(self.vocab.unk_id)
        self.changed_lines += bool(different)
        if len(self.changed) < MAX_CHANGES:
            self.changed += different[:1]
        return ids

    def coverage(self, corpus: str) -> Coverage:
        """What was counted.

        Raises:
            DataError: lines that say ``<blank>`` or ``<sos/eos>``.
        """
        if self.reserved:
            raise DataError(f if f.startswith(corpus) else f"{corpus}: {f}" for f in self.reserved)
        counts = (self.lines, self.words, self.tokens, self.unknown_tokens, self.unknown_words, self.changed_lines)
        return Coverage(corpus, *counts, tuple(self.changed))


def measure(vocab: Vocabulary, path: Path | str, *, plain: bool = False) -> Coverage:
    """How `vocab` covers the texts of a table, or of a plain file."""
    meter = Meter(vocab)
    for place, line in placed(path, plain=plain):
        meter.add(place, line)
    return meter.coverage(str(path))
