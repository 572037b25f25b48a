"""ARPA: the text format of n-gram models that KenLM, SRILM and IRSTLM write as well, plain or with gzip."""

from __future__ import annotations

import gzip
import io
import math
import re
import warnings
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from espnet2_legonn.data.ngram import NOTHING, NgramTree
from espnet2_legonn.data.tables import atomic_path
from espnet2_legonn.data.vocabulary import UNK, Vocabulary
from espnet2_legonn.errors import DataError

_BEGIN, _END = "<s>", "</s>"
# How KenLM's binary files begin, which people have beside the ARPA file.
_KENLM_BINARY = b"mmap lm http://kheafield.com/code"
_COUNT = re.compile(rb"ngram\s+(\d+)\s*=\s*(\d+)")
_LEAST = -100.0  # log10 of what a model without <unk> does not know, as in KenLM
_LINES = 1 << 16  # written at a time


def write_arpa(path: Path | str, tree: NgramTree, vocab: Vocabulary) -> None:
    """Write a model over the tokens of ``vocab``; with gzip where ``path`` ends in ``.gz``. The same bytes every time.

    Raises:
        DataError: a token that the format cannot hold.
    """
    tokens = _names(vocab)
    path = Path(path)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        with gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix == ".gz" else file as binary:
            stream = io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
            # <blank> is left out, <sos/eos> is two.
            stream.write("\\data\\\n" + "".join(f"ngram {n}={size}\n" for n, size in enumerate(tree.sizes, 1)))
            for n in range(1, tree.order + 1):
                stream.write(f"\n\\{n}-grams:\n")
                stream.writelines(_lines(tree, n, tokens))
            stream.write("\n\\end\\\n")
            stream.flush()
            stream.detach()


def _names(vocab: Vocabulary) -> list[str]:
    names = list(vocab.tokens)
    # bytes.split is how readers of the format, this one too, cut a line.
    faults = [
        f"n-gram: token {i} ({name!r}) cannot be written as ARPA; leave it out of the vocabulary"
        for i, name in enumerate(names)
        if name.encode().split() != [name.encode()] or name in (_BEGIN, _END)
    ]
    if faults:
        raise DataError(faults)
    names[vocab.sos_eos_id] = _END
    return names


def _lines(tree: NgramTree, n: int, names: list[str]) -> Iterator[str]:
    span, end = tree.span(n), len(names) - 1
    ids, last = tree.ngrams(n), n == tree.order
    log_probs, backoffs = tree.log_probs[span], tree.backoffs[span]
    if n == 1:
        yield f"{NOTHING:g}\t{_BEGIN}" + ("\n" if last else f"\t{backoffs[end]:.9g}\n")
        ids, log_probs, backoffs = ids[1:], log_probs[1:], backoffs[1:]
    for begin in range(0, len(ids), _LINES):
        part = slice(begin, begin + _LINES)
        rows = zip(ids[part].tolist(), log_probs[part].tolist(), backoffs[part].tolist())
        for words, log_prob, backoff in rows:
            text = " ".join([names[i] for i in words])
            if n > 1 and words[0] == end:
                text = _BEGIN + text[len(_END) :]
            # 9 digits tell every float32 from its neighbours.
            tail = "\n" if last or words[-1] == end else f"\t{backoff:.9g}\n"
            yield f"{log_prob:.9g}\t{text}{tail}"


def read_arpa(path: Path | str, vocab: Vocabulary) -> NgramTree:
    """Read a model for the tokens of ``vocab``; n-grams with other tokens are left out.

    Tokens without a unigram get the probability of ``<unk>``, or next to nothing where the model has none.

    Raises:
        DataError: the file is missing, damaged or over other tokens; with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such n-gram model; `legonn ngram` makes one")
    reader = _Reader(path, vocab)
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as stream:
                return reader.read(stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}:{reader.line}: damaged or truncated ({error}); copy it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


class _Section:
    """The n-grams of one order as they are read."""

    def __init__(self) -> None:
        self.ids, self.lines = array("i"), array("q")
        self.log_probs, self.backoffs = array("f"), array("f")

    def add(self, line: int, ids: list[int], log_prob: float, backoff: float) -> None:
        self.ids.extend(ids)
        self.lines.append(line)
        self.log_probs.append(log_prob)
        self.backoffs.append(backoff)


class _Reader:
    def __init__(self, path: Path, vocab: Vocabulary) -> None:
        self.path, self.vocab, self.line = path, vocab, 0
        end = vocab.sos_eos_id
        self.inner = {t.encode(): i for i, t in enumerate(vocab.tokens) if i not in (vocab.blank_id, end)}
        self.inner.setdefault(UNK.upper().encode(), vocab.unk_id)
        self.first = self.inner | {_BEGIN.encode(): end}
        self.last = self.inner | {_END.encode(): end}

    def fault(self, message: str, line: int | None = None) -> DataError:
        return DataError(f"{self.path}:{self.line if line is None else line}: {message}")

    def read(self, stream: Iterable[bytes]) -> NgramTree:
        lines = self._lines(stream)
        counts, head = self._header(lines)
        tree: NgramTree | None = None
        for n, count in enumerate(counts, 1):
            if head != f"\\{n}-grams:".encode():
                raise self.fault(f"\\{n}-grams: is expected here, this line is {_shown(head)}")
            section, seen, head = self._section(lines, n)
            if seen != count:
                raise self.fault(f"{seen} {n}-grams; the head of the file promises {count}: truncated or edited?")
            tree = self._unigrams(section) if tree is None else self._longer(tree, section, n)
        if head != b"\\end\\":
            raise self.fault(f"\\end\\ is expected here, this line is {_shown(head)}: truncated?")
        assert tree is not None
        return tree

    def _lines(self, stream: Iterable[bytes]) -> Iterator[bytes]:
        for line in stream:
            self.line += 1
            yield line

    def _header(self, lines: Iterator[bytes]) -> tuple[list[int], bytes]:
        """Numbers of n-grams, and the head of the first section."""
        for line in lines:
            if line.startswith(_KENLM_BINARY):
                raise self.fault("a binary file of KenLM; give the ARPA file that it was made from")
            if line.strip() == b"\\data\\":
                break
        else:
            raise self.fault("no line \\data\\: this is no ARPA file")
        counts: list[int] = []
        for line in lines:
            line = line.strip()
            if line.startswith(b"\\"):
                if not counts:
                    raise self.fault("no 'ngram 1=...' before this line")
                return counts, line
            if line:
                match = _COUNT.fullmatch(line)
                if not match or int(match[1]) != len(counts) + 1:
                    raise self.fault(f"'ngram {len(counts) + 1}=...' is expected here, this line is {_shown(line)}")
                counts.append(int(match[2]))
        raise self.fault("no n-grams: truncated?")

    def _section(self, lines: Iterator[bytes], n: int) -> tuple[_Section, int, bytes]:
        """What is over our tokens, how many n-grams there are, and the line after them."""
        section, seen = _Section(), 0
        if n == 1:  # <s> has its back-off weight and </s> its probability; the one is read as the other's twin
            places = [self.inner | self.first | {_END.encode(): len(self.vocab)}]
        else:
            places = [self.first, *[self.inner] * (n - 2), self.last]
        for line in lines:
            fields = line.split()
            if not fields:
                continue
            if fields[0].startswith(b"\\"):
                return section, seen, line.strip()
            seen += 1
            if len(fields) not in (n + 1, n + 2):
                raise self.fault(f"{len(fields)} fields; a {n}-gram has log10 probability, {n} tokens, back-off weight")
            try:
                log_prob = float(fields[0])
                backoff = float(fields[n + 1]) if len(fields) == n + 2 else 0.0
            except ValueError:
                raise self.fault(f"no number: {_shown(fields[0])} or {_shown(fields[-1])}") from None
            if not log_prob < 1e-4 or not math.isfinite(backoff):  # NaN, too; rounding may leave a little above 0
                raise self.fault(f"log10 probability {log_prob:g}, back-off weight {backoff:g}: impossible")
            ids = [place.get(word, -1) for place, word in zip(places, fields[1:])]
            if -1 not in ids:
                section.add(self.line, ids, log_prob, backoff)
        raise self.fault("the file ends without \\end\\: truncated")

    def _unigrams(self, section: _Section) -> NgramTree:
        size, ids = len(self.vocab), np.array(section.ids)
        unique, first, times = np.unique(ids, return_index=True, return_counts=True)
        if (times > 1).any():
            again = int(np.flatnonzero(ids == unique[times.argmax()])[1])
            raise self.fault("this unigram stands in the file twice", section.lines[again])
        if size not in unique:
            raise self.fault("no unigram </s>: the model does not know where a text ends")
        log_probs: np.ndarray = np.full(size + 1, np.nan)
        backoffs = np.zeros(size + 1)
        log_probs[ids], backoffs[ids] = section.log_probs, section.backoffs
        end, unk = self.vocab.sos_eos_id, self.vocab.unk_id
        log_probs[end], log_probs[self.vocab.blank_id] = log_probs[size], -np.inf
        log_probs = log_probs[:size]
        missing = np.isnan(log_probs)
        missing[unk] = False
        known, wanted = size - 3 - int(missing.sum()), size - 3
        if not known:
            raise self.fault("knows no token of the vocabulary: over words or other pieces? `legonn ngram` makes one")
        if 2 * known < wanted:
            warnings.warn(
                f"{self.path}: knows {known} of the vocabulary's {wanted} tokens; is it over other pieces?",
                stacklevel=5,
            )
        log_probs[missing] = log_probs[unk] = _LEAST if np.isnan(log_probs[unk]) else log_probs[unk]
        return NgramTree.of_unigrams(log_probs, backoffs[:size])

    def _longer(self, tree: NgramTree, section: _Section, n: int) -> NgramTree:
        ids = np.array(section.ids, np.int64).reshape(-1, n)
        parents = np.zeros(len(ids), np.int64)
        for place in range(n - 1):
            parents = tree.find(parents, ids[:, place])
        if (parents < 0).any():
            line = section.lines[int((parents < 0).argmax())]
            raise self.fault(f"the first {n - 1} tokens of this {n}-gram are no {n - 1}-gram of the file", line)
        order = np.lexsort((ids[:, -1], parents))
        parents, tokens = parents[order], ids[order, -1]
        twice = np.flatnonzero((np.diff(parents) == 0) & (np.diff(tokens) == 0))
        if len(twice):
            raise self.fault(f"this {n}-gram stands in the file twice", section.lines[int(order[twice[0] + 1])])
        numbers = (np.array(a)[order] for a in (section.log_probs, section.backoffs))
        return tree.extended(parents, tokens, *numbers)


def _shown(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace"))
