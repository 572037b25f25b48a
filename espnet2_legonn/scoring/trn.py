"""What was scored, as users of sclite expect it: ``ref.trn``, ``hyp.trn``, and the alignment ``hyp.trn.pra``.

A line of a trn file is a text and, in parentheses, speaker and utterance. Some signs mean something to sclite that they
do not mean to us: ``{a / b}``, ``(word)``, ``@``, and ``;;`` at the beginning of a line.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from espnet2_legonn.data.tables import atomic_text, ordered, read_rows
from espnet2_legonn.data.vocabulary import SPACE
from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.tables import Joined, write_atomic
from espnet2_legonn.scoring.wer import TOKENIZERS

_SCLITE = ("sclite", "/usr/lib/sctk/bin/sclite")  # Debian's package has it outside PATH
_SUBSTITUTION, _GAP = 4, 3


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Pairs of tokens by sclite's costs, None for no token; of equally cheap ways the one with most substitutions.

    The counts are those of ``wer.count_errors``.
    """
    rows = [[(_GAP * j, 0) for j in range(len(hyp) + 1)]]
    for i, token in enumerate(ref, 1):
        before, row = rows[-1], [(_GAP * i, 0)]
        for j, other in enumerate(hyp, 1):
            cost, subs = before[j - 1]
            diagonal = (cost, subs) if token == other else (cost + _SUBSTITUTION, subs - 1)
            gaps = ((c + _GAP, s) for c, s in (before[j], row[j - 1]))
            row.append(min(diagonal, *gaps))
        rows.append(row)
    pairs: list[tuple[str | None, str | None]] = []
    i, j = len(ref), len(hyp)
    while i or j:
        cost, subs = rows[i][j]
        if i and j:
            same = ref[i - 1] == hyp[j - 1]
            c, s = rows[i - 1][j - 1]
            if (c, s) == ((cost, subs) if same else (cost - _SUBSTITUTION, subs + 1)):
                i, j = i - 1, j - 1
                pairs.append((ref[i], hyp[j]))
                continue
        if i and rows[i - 1][j] == (cost - _GAP, subs):
            i -= 1
            pairs.append((ref[i], None))
        else:
            j -= 1
            pairs.append((None, hyp[j]))
    return pairs[::-1]


def alignment(name: str, pairs: Sequence[tuple[str | None, str | None]]) -> str:
    """One utterance as sclite prints it: errors in capitals, ``***`` for no word, a letter below each error."""
    counts = {"C": 0, "S": 0, "D": 0, "I": 0}
    rows: tuple[list[str], list[str], list[str]] = ([], [], [])
    for ref, hyp in pairs:
        kind = "I" if ref is None else "D" if hyp is None else "C" if ref == hyp else "S"
        counts[kind] += 1
        words = [w if kind == "C" else w.upper() for w in (ref or "", hyp or "")]
        width = max(len(words[0]), len(words[1]))
        cells = [word or "*" * width for word in words]
        for row, cell in zip(rows, (*cells, "" if kind == "C" else kind)):
            row.append(f"{cell:<{width}}")
    lines = [f"{title:<6}{' '.join(row).rstrip()}" for title, row in zip(("REF:", "HYP:", "Eval:"), rows)]
    total = " ".join(str(counts[kind]) for kind in "CSDI")
    return "\n".join([f"id: ({name})", f"Scores: (#C #S #D #I) {total}", *lines]) + "\n"


def _tokens(metric: str, text: str) -> list[str]:
    split = TOKENIZERS.get(metric, str.split)
    return [SPACE if token == " " else token for token in split(text)]


def write_trn(
    metric: str, refs: Sequence[Path], hyp: Path, folder: Path, utt2spk: Path | None = None, missing: bool = False
) -> None:
    """Write ``ref.trn`` (further references ``ref.trn.1``, ...) and ``hyp.trn``; of words and phonemes ``hyp.trn.pra``.

    Args:
        missing: a hypothesis that is not there is empty.

    Raises:
        DataError: ids of references and hypotheses differ.
    """
    joined = Joined(refs, hyp, utt2spk, "empty" if missing else "error")
    ordered(lambda: _write(metric, joined, folder))


def _write(metric: str, joined: Joined, folder: Path) -> None:
    names = [f"ref.trn{f'.{number}' if number else ''}" for number in range(len(joined.refs))]
    aligned = metric in ("wer", "per")
    names += ["hyp.trn", *(["hyp.trn.pra"] if aligned else [])]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(atomic_text(folder / name)) for name in names]
        for number, (uid, refs, hyp, speaker) in enumerate(joined.pairs()):
            name = f"{speaker or uid}-{uid}"
            tokens = [_tokens(metric, text) for text in (*refs, hyp)]
            for file, words in zip(files, tokens):
                file.write(f"{' '.join(words)} ({name})".lstrip() + "\n")
            if aligned:
                files[-1].write(("\n" if number else "") + alignment(name, align(tokens[0], tokens[-1])))


def run_sclite(folder: Path, options: str = "") -> Path | None:
    """What sclite says of ``ref.trn`` and ``hyp.trn``, in ``sclite.txt``; None where SCTK is not installed.

    Args:
        options: further ones, ``-s -c NOASCII``.

    Raises:
        DataError: options are given and there is no sclite, or it failed.
    """
    sclite = next((found for name in _SCLITE if (found := shutil.which(name))), None)
    out = folder / "sclite.txt"
    out.unlink(missing_ok=True)
    if sclite is None:
        if options:
            raise DataError(f"score_opts: {options}: sclite is not on PATH; install SCTK, or leave the option out")
        return None
    command = [sclite, *options.split(), "-r", str(folder / "ref.trn"), "trn", "-h", str(folder / "hyp.trn"), "trn"]
    command += ["-i", "rm", "-o", "all", "stdout"]
    done = subprocess.run(command, capture_output=True, errors="replace", text=True)
    if done.returncode:
        raise DataError(f"{folder}: sclite failed: {(done.stderr or done.stdout).strip()[-500:]}")
    write_atomic(out, done.stdout)
    return out


def without_symbols(source: Path, target: Path, symbols: Iterable[str]) -> Path:
    """A copy of a text table without these words; ``target`` is returned."""
    out = set(symbols)
    with atomic_text(target) as stream:
        for key, text in read_rows(source):
            stream.write(" ".join([key, *(word for word in text.split() if word not in out)]) + "\n")
    return target
