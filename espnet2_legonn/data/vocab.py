"""Stage 5: token lists in ESPnet's layout (`<blank>`, `<unk>`, units, `<sos/eos>`) and how well they cover.

Several input files make one joint vocabulary, which is what lets decoders be shared between tasks (LegoNN,
section III-A.2).
Everything is deterministic: the same files give the same tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from espnet2_legonn.data.tables import atomic_path, atomic_text
from espnet2_legonn.data.text import corpus
from espnet2_legonn.errors import DataError
from espnet2_legonn.interface import BLANK, SOS_EOS, UNK, Vocabulary

_SPECIAL = (BLANK, UNK, SOS_EOS)


@dataclass(frozen=True)
class Coverage:
    """How a vocabulary covers one corpus. Rates are fractions; fertility is tokens per word."""

    corpus: str
    lines: int
    words: int
    tokens: int
    unknown_tokens: int
    unknown_words: int

    @property
    def oov_rate(self) -> float:
        """Tokens that are `<unk>` (the paper's OOV rate, appendix A-B: 0.096 %)."""
        return self.unknown_tokens / max(self.tokens, 1)

    @property
    def fertility(self) -> float:
        """Tokens per word."""
        return self.tokens / max(self.words, 1)


@dataclass
class VocabReport:
    """What was made (`size` counts the three special tokens) and how it covers each corpus."""

    unit: str
    size: int
    asked: int | None
    sha256: str
    coverage: list[Coverage] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.unit} vocabulary of {self.size} tokens"]
        if self.asked is not None and self.size < self.asked:
            lines.append(f"warning: vocab_size {self.asked} is too high, these texts support {self.size}")
        lines += [
            f"{c.corpus}: {c.lines} lines, {c.words} words, {c.tokens} tokens ({c.fertility:.3f} per word), "
            f"OOV {100 * c.oov_rate:.3f} % of tokens, {c.unknown_words} words"
            for c in self.coverage
        ]
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
    plain: bool = False,
    extra: Sequence[Path | str] = (),
) -> VocabReport:
    """Train sentencepiece on all `texts` together; writes tokens.txt, bpe.model, report.json.

    Args:
        vocab_size: tokens wanted, special ones included; fewer are made when the texts do not support as
            many.
        model_type: `unigram` or `bpe`.
        input_sentence_size: train on a fixed random sample of this many lines; 0: all.
        plain: `texts` are plain text, not tables with ids.
        extra: further corpora to report on, in the same form.

    Raises:
        DataError: empty or missing texts, an unknown model type, or a size below the number of characters.
    """
    if model_type not in ("unigram", "bpe"):
        raise DataError(f"model type '{model_type}': choose unigram or bpe")
    lines = _training_lines(texts, plain)
    out = Path(out_dir)
    with atomic_path(out / "bpe.model") as temporary:
        temporary.write_bytes(
            _train(lines, vocab_size, model_type, character_coverage, user_defined_symbols, input_sentence_size)
        )
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(out / "bpe.model"))
    # Pieces 0-2 are sentencepiece's own <unk>, <s>, </s>.
    pieces = [processor.id_to_piece(i) for i in range(3, processor.get_piece_size())]
    return _finish(out, "bpe", pieces, vocab_size, [*texts, *extra], plain)


def _train(
    lines: list[str], vocab_size: int, model_type: str, coverage: float, symbols: Sequence[str], sample: int
) -> bytes:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=coverage,
            user_defined_symbols=list(symbols),
            hard_vocab_limit=False,
            input_sentence_size=sample,
            shuffle_input_sentence=sample > 0,
            minloglevel=2,
            # The default (4192 bytes) leaves out longer lines without saying so.
            max_sentence_length=max(4192, *(len(line.encode()) + 1 for line in lines)),
        )
    except RuntimeError as error:
        raise DataError(
            f"sentencepiece cannot make {vocab_size} {model_type} units of this: {_reason(str(error))}"
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
    texts: Sequence[Path | str], out_dir: Path | str, *, plain: bool = False, extra: Sequence[Path | str] = ()
) -> VocabReport:
    """Characters by frequency, a blank as `<space>`."""
    return _make_counted("char", texts, out_dir, None, plain, extra)


def make_word(
    texts: Sequence[Path | str],
    out_dir: Path | str,
    *,
    vocab_size: int | None = None,
    plain: bool = False,
    extra: Sequence[Path | str] = (),
) -> VocabReport:
    """Words by frequency, the most frequent `vocab_size` (special tokens included)."""
    return _make_counted("word", texts, out_dir, vocab_size, plain, extra)


def make_phn(
    texts: Sequence[Path | str], out_dir: Path | str, *, plain: bool = False, extra: Sequence[Path | str] = ()
) -> VocabReport:
    """Phonemes of text_phn files (already separated by blanks) by frequency."""
    return _make_counted("phn", texts, out_dir, None, plain, extra)


def _make_counted(
    unit: str,
    texts: Sequence[Path | str],
    out_dir: Path | str,
    vocab_size: int | None,
    plain: bool,
    extra: Sequence[Path | str],
) -> VocabReport:
    # Any token list serves: how a text is split depends on the unit only, and must be as the model will do
    # it.
    split = Vocabulary((BLANK, UNK, "?", SOS_EOS), unit).split
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
    ordered = [token for token, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    if vocab_size is not None:
        if vocab_size <= len(_SPECIAL):
            raise DataError(f"vocab_size {vocab_size}: {len(_SPECIAL)} tokens are special; ask for more")
        ordered = ordered[: vocab_size - len(_SPECIAL)]
    return _finish(Path(out_dir), unit, ordered, vocab_size, [*texts, *extra], plain)


def _training_lines(texts: Sequence[Path | str], plain: bool) -> list[str]:
    if not texts:
        raise DataError("vocabulary: name at least one text file")
    lines = [line for path in texts for line in corpus(path, plain=plain) if line.strip()]
    if not lines:
        raise DataError(f"vocabulary: no text in {', '.join(str(path) for path in texts)}")
    return lines


def _finish(
    out: Path, unit: str, tokens: Iterable[str], asked: int | None, corpora: Sequence[Path | str], plain: bool
) -> VocabReport:
    with atomic_text(out / "tokens.txt") as stream:
        stream.writelines(token + "\n" for token in (BLANK, UNK, *tokens, SOS_EOS))
    vocab = Vocabulary.from_files(out / "tokens.txt", unit, out / "bpe.model" if unit == "bpe" else None)
    report = VocabReport(unit, len(vocab), asked, vocab.sha256)
    report.coverage = [measure(vocab, path, plain=plain) for path in corpora]
    with atomic_text(out / "report.json") as stream:
        json.dump(report.as_dict(), stream, indent=1, ensure_ascii=False)
        stream.write("\n")
    return report


def measure(vocab: Vocabulary, path: Path | str, *, plain: bool = False) -> Coverage:
    """How `vocab` covers the texts of a table, or of a plain file."""
    lines = words = tokens = unknown_tokens = unknown_words = 0
    known: dict[str, tuple[int, int]] = {}
    for line in corpus(path, plain=plain):
        lines += 1
        for word in line.split():
            if word not in known:
                ids = vocab.encode(word)
                known[word] = (len(ids), ids.count(vocab.unk_id))
            words += 1
            unknown_tokens += known[word][1]
            unknown_words += known[word][1] > 0
            tokens += known[word][0]
        if vocab.unit == "char":
            tokens += max(len(line.split()) - 1, 0)  # the <space> between words
    return Coverage(str(path), lines, words, tokens, unknown_tokens, unknown_words)
