"""Hub5 scoring (eval2000): hypotheses against an stm through NIST's mapping rules, whole and by corpus.

As in ESPnet's and Kaldi's recipes: words are spread over their utterance, fillers and fragments leave the hypothesis,
and SCTK's hubscr scores all segments, those of Switchboard (not `en_...`) and those of CallHome (not `sw_...`).
Without SCTK the same is done here (glm.py, sclite.py). Different from ESPnet's script on purpose: times below a tenth
of a second are written as they are (`0.05`, not `0.5`), and of `laughter`, `[laughter]` and `slaughter` only the second
leaves the hypothesis.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet2_legonn.data.tables import read_table
from espnet2_legonn.data.text import plain_lines
from espnet2_legonn.errors import DataError, command
from espnet2_legonn.scoring.sclite import align, network
from espnet2_legonn.scoring.tables import write_atomic, write_report
from espnet2_legonn.scoring.wer import Counts, ErrorReport, summarize
from legonn_corpora.glm import Glm, read_glm

IGNORED = "IGNORE_TIME_SEGMENT_IN_SCORING"
# What the glm maps to hesitations: optional in the reference, so leaving them out costs nothing.
HESITATIONS = frozenset("UH UM EH MM HM AH HUH HA ER OOF HEE ACH EEE EW".split())
# name of the score directory's variant -> prefix of the files left out
SUBSETS = {"hub5": None, "swb": "en_", "ch": "sw_"}
SCORERS = ("auto", "sctk", "python")
_UTTERANCE = re.compile(r"(?P<file>.+)-(?P<channel>[AB])_(?P<start>\d+)-(?P<end>\d+)")
_PRA = re.compile(r"^id: \((?P<id>\S+)\)$.*?^Scores: \(#C #S #D #I\) (?P<counts>[\d ]+)$", re.MULTILINE | re.DOTALL)
_SCTK_FOLDERS = ("/usr/lib/sctk/bin", "/usr/local/sctk/bin")


@dataclass(frozen=True)
class Segment:
    """A line of an stm, and `line` counted from 1."""

    file: str
    channel: str
    speaker: str
    start: float
    end: float
    label: str
    text: str
    line: int

    @property
    def ignored(self) -> bool:
        """Cut out of scoring, with what the hypothesis has there."""
        return IGNORED.lower() in self.text.lower()


@dataclass(frozen=True)
class TimedWord:
    """A line of a ctm, in seconds."""

    file: str
    channel: str
    start: float
    duration: float
    text: str

    def __str__(self) -> str:
        return f"{self.file} {self.channel} {self.start:.3f} {self.duration:.3f} {self.text}"


def read_stm(path: Path | str) -> list[Segment]:
    """Segments of an stm file. DataError: it is missing, or as `parse_stm`."""
    return parse_stm(plain_lines(path), path)


def parse_stm(lines: Iterable[str], path: Path | str) -> list[Segment]:
    """Segments of an stm in file order, comments left out.

    Raises:
        DataError: every line of `path` with too few fields, times that are none, or that repeats another.
    """
    segments: list[Segment] = []
    faults: list[str] = []
    seen: dict[tuple[str, str, float, float], int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        fields = line.split(maxsplit=5)
        rest = fields[5] if len(fields) > 5 else ""
        label, text = [*rest.split(maxsplit=1), "", ""][:2] if rest.startswith("<") else ("", rest)
        try:
            file, channel, speaker = fields[:3]
            start, end = float(fields[3]), float(fields[4])
        except (IndexError, ValueError):
            faults.append(f"{path}:{number}: <file> <channel> <speaker> <start> <end> <<labels>> <text> expected")
            continue
        key = (file, channel, start, end)
        if not 0 <= start < end:
            faults.append(f"{path}:{number}: segment from {start:g} to {end:g} s; 0 <= start < end is needed")
        elif key in seen:
            faults.append(f"{path}:{number}: repeats the segment of line {seen[key]}")
        seen.setdefault(key, number)
        segments.append(Segment(file, channel, speaker, start, end, label, text.strip(), number))
    if faults:
        raise DataError(faults)
    return segments


def spread(texts: Mapping[str, str]) -> list[TimedWord]:
    """Words of hypotheses, in upper case, at equal distances over their utterance.

    Args:
        texts: by utterance id `<file>-<channel>_<start>-<end>`, times in hundredths of a second.

    Raises:
        DataError: ids of another form.
    """
    words: list[TimedWord] = []
    faults: list[str] = []
    for utt, text in texts.items():
        match = _UTTERANCE.fullmatch(utt)
        if match is None:
            faults.append(f"'{utt}': hub5 scoring needs ids like en_4156-A_030185-030248 (file, channel, times)")
            continue
        spoken = text.upper().split()
        start, length = int(match["start"]) / 100, (int(match["end"]) - int(match["start"])) / 100
        step = length / max(1, len(spoken))
        words += [TimedWord(match["file"], match["channel"], start + i * step, step, w) for i, w in enumerate(spoken)]
    if faults:
        raise DataError(faults)
    return sorted(words, key=lambda w: (w.file, w.channel, w.start))


def is_filler(word: str) -> bool:
    """Whether a word leaves the hypothesis: noises, <unk>, hesitations, fragments."""
    word = word.upper()
    bracketed = word.startswith("[") and word.endswith("]")
    return bracketed or word == "<UNK>" or word in HESITATIONS or word.endswith("-")


def score_python(segments: Iterable[Segment], words: Iterable[TimedWord], glm: Path | str) -> dict[str, Counts]:
    """Counts by sclite's utterance id (`<speaker>-<number>`), as hubscr gives them.

    Raises:
        DataError: references that the filter cannot read, all of them by line.
    """
    reference, hypothesis = read_glm(glm, "stm", "ref"), read_glm(glm, "ctm", "hyp")
    spoken: dict[tuple[str, str], list[TimedWord]] = {}
    for word in words:
        spoken.setdefault((word.file.lower(), word.channel.lower()), []).append(word)
    sides: dict[tuple[str, str], list[Segment]] = {}
    for segment in segments:
        sides.setdefault((segment.file.lower(), segment.channel.lower()), []).append(segment)
    counts: dict[str, Counts] = {}
    numbers: dict[str, int] = {}
    faults: list[str] = []
    for side in sorted(sides):
        own = sorted(sides[side], key=lambda s: s.start)
        heard = sorted(spoken.get(side, ()), key=lambda w: w.start)
        for segment, text in zip(own, _deal(own, heard, hypothesis), strict=True):
            if segment.ignored:
                continue
            speaker = segment.speaker.lower()
            number = numbers[speaker] = numbers.get(speaker, -1) + 1
            try:
                found = align(network(reference.filter(segment.text)), network(text))
            except DataError as error:
                faults.append(f"stm:{segment.line}: {error}")
                continue
            counts[f"{speaker}-{number:03d}"] = found
    if faults:
        raise DataError(faults)
    return counts


def _deal(segments: Sequence[Segment], words: Sequence[TimedWord], glm: Glm) -> list[str]:
    """The filtered hypothesis of each segment: all words whose middle lies before its end. The last takes the rest.

    sclite keeps ends of segments in single precision, which decides about middles that fall on one.
    """
    pieces = [piece for word in words for piece in _filtered(word, glm)]
    texts: list[str] = []
    place = 0
    for segment in segments:
        own: list[str] = []
        end = float(np.float32(segment.end))
        while place < len(pieces) and (segment is segments[-1] or pieces[place][0] < end):
            own.append(pieces[place][1])
            place += 1
        texts.append(" ".join(own))
    return texts


def _filtered(word: TimedWord, glm: Glm) -> list[tuple[float, str]]:
    """Middle and text of what one word of the hypothesis became. Alternatives stay together, at their latest middle."""
    text = glm.filter(word.text)
    if "/" in text:
        branches = [branch.replace("{", " ").replace("}", " ").split() for branch in text.split("/")]
        longest = max(1, *(len(branch) for branch in branches))
        together = " / ".join(" ".join(branch) for branch in branches)
        return [(word.start + word.duration * (1 - 0.5 / longest), f"{{ {together} }}")]
    parts = text.split()
    step = word.duration / max(1, len(parts))
    return [(word.start + step * (i + 0.5), part) for i, part in enumerate(parts)]


def find_hubscr() -> Path | None:
    """SCTK's hubscr.pl: on PATH, in the folder SCTK_BIN, or where Debian's package puts it."""
    if shutil.which("perl") is None:
        return None
    found = shutil.which("hubscr.pl")
    folders = [Path(found).parent] if found else []
    folders += [Path(p) for p in (os.environ.get("SCTK_BIN", ""), *_SCTK_FOLDERS) if p]
    return next((p / "hubscr.pl" for p in folders if (p / "hubscr.pl").is_file() and (p / "sclite").is_file()), None)


def score_sctk(hubscr: Path, stm: Path, ctm: Path, glm: Path) -> dict[str, Counts]:
    """Counts by sclite's utterance id from hubscr. Its reports lie beside `ctm`.

    Raises:
        DataError: hubscr failed, with the end of what it said.
    """
    command = ["perl", str(hubscr), "-p", str(hubscr.parent), "-V", "-l", "english", "-h", "hub5"]
    command += ["-g", str(glm), "-r", str(stm), str(ctm)]
    done = subprocess.run(command, capture_output=True, check=False)
    report = Path(f"{ctm}.filt.pra")
    if done.returncode or not report.is_file():
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[-1500:]
        raise DataError(f"hubscr failed ({' '.join(command)}):\n{said}")
    counts = {}
    for match in _PRA.finditer(report.read_text(encoding="utf-8", errors="replace")):
        c, s, d, i = map(int, match["counts"].split())
        counts[match["id"]] = Counts(c, s, d, i, 1, int(s + d + i > 0))
    return counts


def score_hub5(
    stm: Path | str, glm: Path | str, hyp: Path | str, outdir: Path | str, scorer: str = "auto"
) -> dict[str, ErrorReport]:
    """Score a hypothesis table. Writes `outdir`/score_wer_{hub5,swb,ch}/{hyp.ctm,ref.stm,result.txt,result.json}.

    Args:
        hyp: text table with ids like en_4156-A_030185-030248.
        scorer: sctk, python, or auto: sctk when it is installed.

    Returns:
        reports by variant. A corpus of which there is no segment has none.

    Raises:
        DataError: faulty files, or SCTK is asked for and not installed.
    """
    hubscr = None if scorer == "python" else find_hubscr()
    if scorer == "sctk" and hubscr is None:
        raise DataError("no hubscr.pl of SCTK: apt-get install sctk, or set SCTK_BIN=FOLDER, or use --scorer python")
    segments = read_stm(stm)
    if not (texts := read_table(hyp)):
        raise DataError(f"{hyp}: the file is empty; nothing to score")
    words = [word for word in spread(texts) if not is_filler(word.text)]
    reports = {}
    for variant, left_out in SUBSETS.items():
        own = [s for s in segments if not (left_out and s.file.startswith(left_out))]
        if not any(not s.ignored for s in own):
            continue
        folder = Path(outdir) / f"score_wer_{variant}"
        shutil.rmtree(folder, ignore_errors=True)
        lines = (line for line in plain_lines(stm) if not (left_out and line.startswith(left_out)))
        write_atomic(folder / "ref.stm", "".join(f"{line}\n" for line in lines))
        heard = [w for w in words if not (left_out and w.file.startswith(left_out))]
        write_atomic(folder / "hyp.ctm", "".join(f"{word}\n" for word in heard))
        if hubscr is None:
            counts = score_python(own, heard, glm)
        else:
            counts = score_sctk(hubscr, folder / "ref.stm", folder / "hyp.ctm", Path(glm))
        digest = hashlib.sha256((folder / "ref.stm").read_bytes() + Path(glm).read_bytes()).hexdigest()
        reports[variant] = _report(counts, folder, digest, "python" if hubscr is None else "SCTK hubscr")
    return reports


def _report(counts: dict[str, Counts], folder: Path, digest: str, scorer: str) -> ErrorReport:
    counts = dict(sorted(counts.items()))
    if not sum(c.ref for c in counts.values()):
        raise DataError(f"{folder / 'ref.stm'}: no reference word is left, so a rate is undefined")
    rows = ((key, count, key.rsplit("-", 1)[0]) for key, count in counts.items())
    report = summarize("wer", rows, lambda: f"hub5 {digest}", lowercase=True)
    text = f"Scored through glm filtering by {scorer}\n\n{report.as_text()}"
    write_report(folder, text, {**report.as_json(), "scorer": scorer})
    return report


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Score eval2000 and return 0, or 2 with the faults on stderr."""
    parser = argparse.ArgumentParser(prog="python -m legonn_corpora.hub5", description=__doc__.split("\n")[0])
    parser.add_argument("--stm", type=Path, required=True, help="references, as data preparation wrote them")
    parser.add_argument("--glm", type=Path, required=True, help="mapping rules, for instance en20000405_hub5.glm")
    parser.add_argument("--hyp", type=Path, required=True, help="text table of hypotheses")
    parser.add_argument("--outdir", type=Path, required=True, help="gets score_wer_{hub5,swb,ch}/")
    parser.add_argument("--scorer", choices=SCORERS, default="auto")
    args = parser.parse_args(cmd)
    reports = score_hub5(args.stm, args.glm, args.hyp, args.outdir, args.scorer)
    for variant, report in reports.items():
        total = report.total
        print(f"{args.outdir}: {variant}: WER {report.value:.1f} % of {total.ref} words, {total.sentences} segments")
    return 0


if __name__ == "__main__":
    sys.exit(main())
