"""Hub5'00 (LDC2002S09 speech, LDC2002T43 transcripts): 40 calls, half Switchboard (sw_), half CallHome (en_).

The stm (with its known slips repaired) and the glm are kept beside the tables: scoring reads them. `text` is for
reading: lower case, without hesitations in parentheses, other parentheses opened. ESPnet's pattern for these runs to
the last parenthesis of a line and takes words with it. Here only what is between two parentheses goes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.data.audio import MAX_OVERSHOOT
from espnet2_legonn.data.datadir import restrict
from espnet2_legonn.data.tables import atomic_text
from espnet2_legonn.data.text import plain_lines
from espnet2_legonn.errors import DataError, command, hand_over
from espnet2_legonn.files.archive import sha256_of
from legonn_corpora import sphere
from legonn_corpora.glm import read_glm
from legonn_corpora.hub5 import parse_stm
from legonn_corpora.options import Parser
from legonn_corpora.speech import Tally, check_counts, parse_expected, read_lines, settle, write_set

STM, GLM, PEM = "hub5e00.english.000405.stm", "en20000405_hub5.glm", "hub5e_00.pem"
# ESPnet's data directory has 4,458 texts, hubscr counts 4,459 segments. Both are right.
PUBLISHED = {"recordings": (80,), "segments": (4459, 4458), "swb": (1831,), "ch": (2628, 2627)}
WIDENING = 0.1
_ASIDE = re.compile(r"<[BE]_ASIDE>", re.IGNORECASE)
_HESITATION = re.compile(r" \(%[^()]*\)")
_MARKUP = re.compile(r" <[^<>]*>")


@dataclass(frozen=True)
class Span:
    """A piece of a call side, seconds. `place` is file:line."""

    side: str
    start: float
    end: float
    place: str

    @property
    def key(self) -> str:
        """Utterance id: hundredths cut off, not rounded, as Kaldi's awk does."""
        return f"{self.side}_{int(self.start * 100):06d}-{int(self.end * 100):06d}"


def read_pem(path: Path, tally: Tally | None = None, bad: list[str] | None = None) -> list[Span]:
    """The partitioned evaluation map. Of several segments with one id it has the first, and none without length.

    Args:
        tally: counts these two.
        bad: faults go there, and the lines are left out.

    Raises:
        DataError: every line that has not five fields, or impossible times.
    """
    faults: list[str] = []
    tally = tally or Tally("pem")
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
        if channel not in sphere.SIDES or not 0 <= span.start <= span.end:
            faults.append(f"{path}:{number}: channel A or B and 0 <= start < end are needed")
        elif span.start == span.end:
            tally.add("pem: dropped, no length")
        elif span.key in spans:
            tally.add("pem: merged, the id again")
        else:
            spans[span.key] = span
    hand_over(faults, bad)
    return [spans[key] for key in sorted(spans)]


def extend_segments(segments: Mapping[str, tuple[str, float, float]], by: float) -> dict[str, tuple[str, float, float]]:
    """Segments widened on both sides, by less where the next segment of the recording is near.

    A gap between two segments is shared by halves. Segments that overlap already keep the times between them. The first
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


def once(lines: Sequence[str], tally: Tally) -> list[str]:
    """Lines of an stm without those that have no length, or an id (times cut to hundredths) that was there before.

    Args:
        tally: counts them.
    """
    kept, seen = [], set()
    for line in lines:
        fields = line.split()
        if not line.strip() or line.lstrip().startswith(";;"):
            kept.append(line)
            continue
        try:
            key = Span(f"{fields[0]}-{fields[1]}", float(fields[3]), float(fields[4]), "").key
            empty = float(fields[3]) == float(fields[4])
        except (IndexError, ValueError, OverflowError):
            key, empty = line, False  # parse_stm says what is wrong with it
        if empty or key in seen:
            tally.add("stm: dropped, no length" if empty else "stm: merged, the id again")
            kept.append("")  # so that faults are told at their own line
        else:
            kept.append(line)
        seen.add(key)
    return kept


def plain_text(text: str) -> str:
    """Reference words in lower case without hesitations in parentheses, markup and parentheses."""
    text = _MARKUP.sub("", _HESITATION.sub("", f" {text.lower()}"))
    return " ".join(text.replace("(", "").replace(")", "").split())


def _reference(corpus: Path) -> Path:
    """The folder with stm and glm. The one between may be absent."""
    inner = corpus / "LDC2002T43" / "2000_hub5_eng_eval_tr" / "reference"
    return inner if inner.is_dir() else corpus / "LDC2002T43" / "reference"


def _speech(corpus: Path) -> Path:
    """The folder with the pem. `hub5e_00/` or `english/` may be absent."""
    base = corpus / "LDC2002S09"
    places = [base / "hub5e_00" / "english", base / "english", base / "hub5e_00", base]
    return next((place for place in places if (place / PEM).is_file()), places[0])


def _match(pem: Sequence[Span], stm: Path, lines: Sequence[str], faults: list[str]) -> dict[str, str]:
    """Text by utterance id. Pem and stm must hold the same segments. Ignored ones have no entry."""
    texts: dict[str, str] = {}
    seen: set[str] = set()
    wanted = {span.key for span in pem}
    for segment in parse_stm(lines, stm):
        span = Span(f"{segment.file}-{segment.channel}", segment.start, segment.end, f"{stm}:{segment.line}")
        seen.add(span.key)
        if span.key not in wanted:
            faults.append(f"{span.place}: {span.key} is not in {PEM}")
        elif not segment.ignored:
            texts[span.key] = segment.text
    faults += [f"{span.place}: {span.key} is not in {STM}" for span in pem if span.key not in seen]
    return texts


def prepare(corpus: Path, out: Path, expect: Sequence[str] | None, skip_bad: bool = False) -> list[str]:
    """Read, check and write. Returns the lines of the report.

    Args:
        skip_bad: leave out and list segments with faults. The stm keeps all, so that scoring counts them as deleted.

    Raises:
        DataError: missing or damaged files, and all segments with faults.
    """
    speech = _speech(corpus)
    tally = Tally("eval2000")
    bad: list[str] = []
    reference = _reference(corpus)
    needed = (speech / PEM, reference / STM, reference / GLM)
    if missing := [path for path in needed if not path.is_file()]:
        raise DataError(f"{path}: no such file; SWBD=DIR must hold LDC2002S09 and LDC2002T43" for path in missing)
    specs, seconds = sphere.sides(sphere.find(speech), bad)
    read_glm(reference / GLM, "stm", "ref")
    read_glm(reference / GLM, "ctm", "hyp")
    pem = read_pem(speech / PEM, tally, bad)
    faults: list[str] = []
    stm = once(repair_stm(read_lines(reference / STM, faults)), tally)
    if faults:
        raise DataError(faults)
    texts = _match(pem, reference / STM, stm, bad)
    silent = [f"{span.place}: no audio file {span.side[:-2]}.sph" for span in pem if span.side not in specs]
    beyond = [
        f"{span.place}: the segment ends at {span.end:.2f} s, {span.side[:-2]}.sph lasts {seconds[span.side]:.2f} s"
        for span in pem
        if span.end > seconds.get(span.side, span.end) + MAX_OVERSHOOT
    ]
    left = settle(bad + silent + beyond, skip_bad, out.with_name(f"left_out_{out.name}.txt"))
    late = {place.split(": ")[0] for place in beyond}
    pem = [span for span in pem if span.side in specs and span.place not in late]
    texts = {span.key: texts[span.key] for span in pem if span.key in texts}
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
    agreed = check_counts(found, PUBLISHED, parse_expected(expect, list(PUBLISHED)), "of eval2000")
    lines = [str(tally), *left, *agreed, write_set(out, _tables(pem, plain, specs))]
    for name, content in (("stm", stm), ("glm", plain_lines(reference / GLM))):
        with atomic_text(out / name) as stream:
            stream.writelines(f"{line}\n" for line in content if line.strip())
    return lines + [f"{out / name}: sha256 {sha256_of(out / name)}" for name in ("stm", "glm")]


def _tables(pem: Sequence[Span], texts: Mapping[str, str], specs: Mapping[str, str]) -> dict[str, dict[str, str]]:
    wide = extend_segments({span.key: (span.side, span.start, span.end) for span in pem}, WIDENING)
    keep = [span for span in pem if texts.get(span.key)]
    tables = {
        "text": {span.key: texts[span.key] for span in keep},
        "segments": {span.key: f"{span.side} {wide[span.key][1]:.2f} {wide[span.key][2]:.2f}" for span in keep},
        "utt2spk": {span.key: span.side for span in keep},
        **sphere.side_tables(specs),
    }
    return restrict(tables, tables["text"])


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Write data/eval2000 and return 0, or 2 with the faults on stderr."""
    parser = Parser(prog="python -m legonn_corpora.eval2000", description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder that holds LDC2002S09/ and LDC2002T43/")
    parser.add_argument("--out", type=Path, default=Path("data/eval2000"))
    parser.add_argument("--expect", nargs="+", metavar="NAME=NUMBER", help="recordings, segments, swb, ch")
    parser.add_argument("--skip_bad", action="store_true", help="leave out segments with faults, count and list them")
    args = parser.parse_args(cmd)
    print("\n".join(prepare(args.corpus, args.out, args.expect, args.skip_bad)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
