"""Hub5'00 (LDC2002S09 speech, LDC2002T43 transcripts): 40 calls, half Switchboard (sw_), half CallHome (en_).

The stm (with its known slips repaired) and the glm are kept beside the tables: scoring reads them. `text` is for
reading: lower case, without hesitations in parentheses, other parentheses opened. ESPnet's pattern for these runs to
the last parenthesis of a line and takes words with it; here only what is between two parentheses goes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.corpora import sphere
from espnet2_legonn.corpora.speech import Tally, check_counts, parse_expected, read_lines, write_set
from espnet2_legonn.corpora.swbd import side_tables
from espnet2_legonn.data.audio import MAX_OVERSHOOT
from espnet2_legonn.data.datadir import restrict
from espnet2_legonn.data.tables import atomic_text
from espnet2_legonn.data.text import plain_lines
from espnet2_legonn.errors import DataError, command
from espnet2_legonn.scoring.glm import read_glm
from espnet2_legonn.scoring.hub5 import parse_stm
from espnet2_legonn.zoo.files import sha256_of

STM, GLM, PEM = "hub5e00.english.000405.stm", "en20000405_hub5.glm", "hub5e_00.pem"
PUBLISHED = {"recordings": (80,), "segments": (4459,), "swb": (1831,), "ch": (2628,)}
WIDENING = 0.1
_ASIDE = re.compile(r"<[BE]_ASIDE>", re.IGNORECASE)
_HESITATION = re.compile(r" \(%[^()]*\)")
_MARKUP = re.compile(r" <[^<>]*>")


@dataclass(frozen=True)
class Span:
    """A piece of a call side, seconds; `place` is file:line."""

    side: str
    start: float
    end: float
    place: str

    @property
    def key(self) -> str:
        """Utterance id: hundredths cut off, not rounded, as Kaldi's awk does."""
        return f"{self.side}_{int(self.start * 100):06d}-{int(self.end * 100):06d}"


def read_pem(path: Path) -> list[Span]:
    """The partitioned evaluation map, repeated lines once.

    Raises:
        DataError: every line that has not five fields, or impossible times.
    """
    faults: list[str] = []
    spans: dict[str, Span] = {}
    for number, line in enumerate(read_lines(path, faults), start=1):
        fields = line.split()
        if not fields or ";;" in line:
            continue
        try:
            file, channel, _, start, end = fields
            span = Span(f"{file}-{channel}", float(start), float(end), f"{path}:{number}")
        except ValueError:
            faults.append(f"{path}:{number}: <file> <channel> <speaker> <start> <end> expected")
            continue
        if channel not in sphere.SIDES or not 0 <= span.start < span.end:
            faults.append(f"{path}:{number}: channel A or B and 0 <= start < end are needed")
        elif (first := spans.setdefault(span.key, span)) != span and (first.start, first.end) != (span.start, span.end):
            faults.append(f"{path}:{number}: id {span.key} occurs twice, first at {first.place}")
    if faults:
        raise DataError(faults)
    return [spans[key] for key in sorted(spans)]


def extend_segments(segments: Mapping[str, tuple[str, float, float]], by: float) -> dict[str, tuple[str, float, float]]:
    """Segments widened on both sides, by less where the next segment of the recording is near.

    A gap between two segments is shared by halves; segments that overlap already keep the times between them. The first
    does not begin before 0.

    Args:
        segments: utterance -> (recording, start, end).
    """
    found = {utt: [start, end] for utt, (_, start, end) in segments.items()}
    recordings: dict[str, list[str]] = {}
    for utt, (recording, _, _) in segments.items():
        recordings.setdefault(recording, []).append(utt)
    for utts in recordings.values():
        utts.sort(key=lambda utt: segments[utt][1])
        found[utts[0]][0] = max(0.0, segments[utts[0]][1] - by)
        found[utts[-1]][1] = segments[utts[-1]][2] + by
        for before, behind in zip(utts, utts[1:]):
            end, start = segments[before][2], segments[behind][1]
            if end <= start:
                more = min(by, 0.5 * (start - end))
                found[before][1], found[behind][0] = end + more, start - more
    return {utt: (segments[utt][0], start, end) for utt, (start, end) in found.items()}


def repair_stm(lines: Sequence[str]) -> list[str]:
    """Known slips that scoring tools stumble over: doubled opening parentheses, aside marks."""
    return [line if line.lstrip().startswith(";;") else _ASIDE.sub("", line).replace("((", "(") for line in lines]


def plain_text(text: str) -> str:
    """Reference words in lower case without hesitations in parentheses, markup and parentheses."""
    text = _MARKUP.sub("", _HESITATION.sub("", f" {text.lower()}"))
    return " ".join(text.replace("(", "").replace(")", "").split())


def _reference(corpus: Path) -> Path:
    """The folder with stm and glm; the one between may be absent."""
    inner = corpus / "LDC2002T43" / "2000_hub5_eng_eval_tr" / "reference"
    return inner if inner.is_dir() else corpus / "LDC2002T43" / "reference"


def _match(pem: Sequence[Span], stm: Path, lines: Sequence[str]) -> dict[str, str]:
    """Text by utterance id; pem and stm must hold the same segments. Ignored ones have no entry."""
    faults: list[str] = []
    texts: dict[str, str] = {}
    seen: set[str] = set()
    wanted = {span.key for span in pem}
    for segment in parse_stm(lines, stm):
        span = Span(f"{segment.file}-{segment.channel}", segment.start, segment.end, f"{stm}:{segment.line}")
        if span.key in seen:
            faults.append(f"{span.place}: id {span.key} occurs twice")
        elif span.key not in wanted:
            faults.append(f"{span.place}: {span.key} is not in {PEM}")
        seen.add(span.key)
        if not segment.ignored:
            texts[span.key] = segment.text
    faults += [f"{span.place}: {span.key} is not in {STM}" for span in pem if span.key not in seen]
    if faults:
        raise DataError(faults)
    return texts


def prepare(corpus: Path, out: Path, expect: Sequence[str] | None) -> list[str]:
    """Read, check and write; returns the lines of the report."""
    speech = corpus / "LDC2002S09" / "hub5e_00" / "english"
    reference = _reference(corpus)
    needed = (speech / PEM, reference / STM, reference / GLM)
    if missing := [path for path in needed if not path.is_file()]:
        raise DataError(f"{path}: no such file; SWBD=DIR must hold LDC2002S09 and LDC2002T43" for path in missing)
    specs, seconds = sphere.sides(sphere.find(speech))
    read_glm(reference / GLM, "stm", "ref")
    read_glm(reference / GLM, "ctm", "hyp")
    pem = read_pem(speech / PEM)
    faults: list[str] = []
    stm = repair_stm(read_lines(reference / STM, faults))
    if faults:
        raise DataError(faults)
    texts = _match(pem, reference / STM, stm)
    faults = [f"{span.place}: no audio file {span.side[:-2]}.sph" for span in pem if span.side not in specs]
    faults += [
        f"{span.place}: the segment ends at {span.end:.2f} s, {span.side[:-2]}.sph lasts {seconds[span.side]:.2f} s"
        for span in pem
        if span.end > seconds.get(span.side, span.end) + MAX_OVERSHOOT
    ]
    if faults:
        raise DataError(faults)
    tally = Tally("eval2000")
    plain = {key: plain_text(text) for key, text in texts.items()}
    found = {
        "recordings": len(specs),
        "segments": len(texts),
        "swb": sum(not key.startswith("en_") for key in texts),
        "ch": sum(not key.startswith("sw_") for key in texts),
    }
    for name, number in {"segments in pem": len(pem), "segments ignored": len(pem) - len(texts), **found}.items():
        tally.add(name, number)
    tally.add("dropped from decoding, nothing but optional words", sum(not text for text in plain.values()))
    agreed = check_counts(found, PUBLISHED, parse_expected(expect), "of eval2000")
    lines = [str(tally), *agreed, write_set(out, _tables(pem, plain, specs))]
    for name, content in (("stm", stm), ("glm", plain_lines(reference / GLM))):
        with atomic_text(out / name) as stream:
            stream.writelines(f"{line}\n" for line in content)
    return lines + [f"{out / name}: sha256 {sha256_of(out / name)}" for name in ("stm", "glm")]


def _tables(pem: Sequence[Span], texts: Mapping[str, str], specs: Mapping[str, str]) -> dict[str, dict[str, str]]:
    wide = extend_segments({span.key: (span.side, span.start, span.end) for span in pem}, WIDENING)
    keep = [span for span in pem if texts.get(span.key)]
    tables = {
        "text": {span.key: texts[span.key] for span in keep},
        "segments": {span.key: f"{span.side} {wide[span.key][1]:.2f} {wide[span.key][2]:.2f}" for span in keep},
        "utt2spk": {span.key: span.side for span in keep},
        **side_tables(specs),
    }
    return restrict(tables, tables["text"])


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Write data/eval2000; 0 on success, 2 with the faults on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet2_legonn.corpora.eval2000", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder that holds LDC2002S09/ and LDC2002T43/")
    parser.add_argument("--out", type=Path, default=Path("data/eval2000"))
    parser.add_argument("--expect", nargs="+", metavar="NAME=NUMBER", help="recordings, segments, swb, ch")
    args = parser.parse_args(cmd)
    print("\n".join(prepare(args.corpus, args.out, args.expect)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
