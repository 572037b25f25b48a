"""Switchboard-1 Release 2 (LDC97S62) with the Mississippi State transcripts: the 300 hours of the paper.

`train_dev` is the first 4,000 utterances, `train_nodup` is the rest, with at most about 300 utterances of one text,
chosen by the rule of Kaldi's remove_dup_utts (286 hours). A conversation side is a speaker.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.data.audio import MAX_OVERSHOOT
from espnet2_legonn.data.datadir import restrict
from espnet2_legonn.data.walk import files_below
from espnet2_legonn.errors import DataError, command, hand_over
from legonn_corpora import eval2000, sphere
from legonn_corpora.download import Archive, fetch
from legonn_corpora.options import Parser
from legonn_corpora.speech import Tally, check_counts, parse_expected, read_lines, settle, write_set
from legonn_corpora.swbd_text import clean, final, map_acronyms, read_acronyms

TRANSCRIPTS = Archive(
    "https://www.openslr.org/resources/5/switchboard_word_alignments.tar.gz",
    0.05,
    "Mississippi State University's transcripts, free; the audio LDC97S62 has to be bought from the LDC",
    "swb_ms98_transcriptions",
)
AUDIO_FILES = (2435, 2438)
# 264,333 before the audio is looked at, as Kaldi's issues tell it. Half a percent more or less is the same corpus.
WORDED = range(263012, 265655)
NODUP_HOURS = (286, 285, 287)
NAMES = ("audio", "segments_with_words", "nodup_hours", "train_dev", "train_nodup")
DEV, MAX_DUPLICATES = 4000, 300
_TRANSCRIPT = re.compile(r"sw(\d{4})([AB])-ms98-a-trans\.text")
_UTTERANCE = re.compile(r"sw(\d{4})([AB])-ms98-a-\S+")


@dataclass(frozen=True)
class Utterance:
    """A line of a transcript. Times in hundredths of a second, `place` is file:line."""

    side: str
    start: int
    end: int
    words: tuple[str, ...]
    place: str

    @property
    def key(self) -> str:
        """Utterance id, as Kaldi writes it."""
        return f"{self.side}_{self.start:06d}-{self.end:06d}"

    @property
    def segment(self) -> str:
        """Value in `segments`, by %g as awk prints it."""
        return f"{self.side} {self.start / 100:.6g} {self.end / 100:.6g}"


def limit_duplicates(texts: Mapping[str, str], most: int) -> set[str]:
    """Utterances to keep so that no text occurs much more often than `most` times.

    Of a text with n >= most utterances each is kept with the chance most / n, drawn from a sequence that is the same
    everywhere: k -> (k + 103349) mod 71147, from 0, only for these utterances, in the order of `texts`.
    """
    normal = {utt: " ".join(text.split()) for utt, text in texts.items()}
    counts = Counter(normal.values())
    keep, k = set(), 0
    for utt, text in normal.items():
        if counts[text] >= most:
            k = (k + 103349) % 71147
            if not k / 71147 < most / counts[text]:
                continue
        keep.add(utt)
    return keep


def read_transcripts(folder: Path, tally: Tally, bad: list[str] | None = None) -> list[Utterance]:
    """All segments with words, sorted by id.

    Args:
        bad: faults of lines go there, and the lines are left out.

    Raises:
        DataError: every fault of every file: not UTF-8, fields missing, times out of order, a name that does not agree
            with its file, ids that occur twice.
    """
    files = [p for p in files_below(folder) if _TRANSCRIPT.fullmatch(p.name)]
    if not files:
        raise DataError(f"{folder}: no swNNNNX-ms98-a-trans.text in this folder or below")
    faults: list[str] = []
    found: dict[str, Utterance] = {}
    for path in files:
        tally.add("sides")
        for number, line in enumerate(read_lines(path, faults), start=1):
            if not line.strip():
                continue
            tally.add("segments")
            utterance = _parse(line, path, number, faults)
            if utterance is None:
                continue
            if not utterance.words:
                tally.add("dropped, nothing but silence (or shorter than 0.01 s)")
            elif utterance.key in found:
                first = found[utterance.key].place
                faults.append(f"{path}:{number}: id {utterance.key} occurs twice, first at {first}")
            else:
                found[utterance.key] = utterance
    hand_over(faults, bad)
    return [found[key] for key in sorted(found)]


def _parse(line: str, path: Path, number: int, faults: list[str]) -> Utterance | None:
    place = f"{path}:{number}"
    fields = line.split(maxsplit=3)
    match = _UTTERANCE.fullmatch(fields[0])
    try:
        start, end = (int(100 * float(t) + 0.5) for t in fields[1:3])
    except ValueError:
        match = None
    if match is None or len(fields) < 3:
        faults.append(f"{place}: <sw2001A-ms98-a-0001> <start> <end> <text> expected")
    elif not path.name.startswith(f"sw{match[1]}{match[2]}-"):
        faults.append(f"{place}: {fields[0]} does not belong into this file")
    elif not 0 <= start <= end:
        faults.append(f"{place}: segment from {fields[1]} to {fields[2]} s; 0 <= start < end is needed")
    else:
        # What is shorter than a hundredth of a second has no samples to learn from.
        # A line that ends after its times says nothing: silence.
        words = clean(fields[3]) if start < end and len(fields) > 3 else []
        return Utterance(f"sw0{match[1]}-{match[2]}", start, end, tuple(words), place)
    return None


def make_tables(
    utterances: Iterable[Utterance],
    specs: Mapping[str, str],
    seconds: Mapping[str, float],
    acronyms: Mapping[str, str],
) -> tuple[dict[str, dict[str, str]], list[str], list[str]]:
    """Kaldi's tables, the text in Fisher's style.

    Returns:
        the tables, and what is not in them, by file and line: utterances without audio, utterances that end beyond it.
    """
    silent: list[str] = []
    beyond: list[str] = []
    tables: dict[str, dict[str, str]] = {name: {} for name in ("text", "segments", "utt2spk")}
    for utterance in utterances:
        side = utterance.side
        if side not in specs:
            silent.append(f"{utterance.place}: no audio file {side[:-2]}.sph for this side")
            continue
        if utterance.end / 100 > seconds[side] + MAX_OVERSHOOT:
            beyond.append(
                f"{utterance.place}: the segment ends at {utterance.end / 100:.2f} s, "
                f"{side[:-2]}.sph lasts {seconds[side]:.2f} s"
            )
            continue
        tables["text"][utterance.key] = map_acronyms(list(utterance.words), acronyms)
        tables["segments"][utterance.key] = utterance.segment
        tables["utt2spk"][utterance.key] = side
    return {**tables, **sphere.side_tables(specs)}, silent, beyond


def split(
    tables: Mapping[str, Mapping[str, str]], dev: int, most: int, tally: Tally
) -> dict[str, dict[str, dict[str, str]]]:
    """train_dev and train_nodup, with the final texts.

    Raises:
        DataError: no more utterances than `dev`.
    """
    keys = sorted(tables["text"])
    if len(keys) <= dev:
        raise DataError(f"{len(keys)} utterances, of which the first {dev} are train_dev: none is left for training")
    rest = {key: tables["text"][key] for key in keys[dev:]}
    keep = limit_duplicates(rest, most)
    tally.add("train_dev", dev)
    tally.add("train_nodev", len(rest))
    tally.add("dropped, text too frequent", len(rest) - len(keep))
    tally.add("train_nodup", len(keep))
    sets = {"train_dev": restrict(tables, keys[:dev]), "train_nodup": restrict(tables, keep)}
    for made in sets.values():
        made["text"] = {key: final(text) for key, text in made["text"].items()}
    return sets


def find_transcripts(corpus: Path, download: bool) -> Path:
    """The folder swb_ms98_transcriptions, in LDC97S62/transcriptions or the corpus's own folder.

    Raises:
        DataError: it is nowhere and not to be downloaded.
    """
    places = [corpus / "LDC97S62" / "transcriptions", corpus / "LDC97S62", corpus]
    for place in places:
        if (place / TRANSCRIPTS.folder).is_dir():
            return place / TRANSCRIPTS.folder
    if download:
        return fetch(TRANSCRIPTS, Path("downloads"))
    raise DataError(f"{places[0] / TRANSCRIPTS.folder}: no such folder; --download gets {TRANSCRIPTS}")


def prepare(args: argparse.Namespace) -> list[str]:
    """Read, check, split and write. Returns the lines of the report."""
    tally = Tally("swbd")
    expected = parse_expected(args.expect, (*NAMES, *eval2000.PUBLISHED) if args.eval2000 else NAMES)
    if not (args.corpus / "LDC97S62").is_dir():
        raise DataError(f"{args.corpus / 'LDC97S62'}: no such folder; SWBD=DIR must hold LDC97S62 as the LDC ships it")
    files = sphere.find(args.corpus / "LDC97S62")
    tally.add("audio files", len(files))
    agreed = check_counts({"audio": len(files)}, {"audio": AUDIO_FILES}, expected, "audio files")
    transcripts = args.transcripts or find_transcripts(args.corpus, args.download)
    acronyms = read_acronyms(transcripts / "sw-ms98-dict.text")
    bad: list[str] = []
    utterances = read_transcripts(transcripts, tally, bad)
    tally.add("utterances", len(utterances))
    agreed += check_counts(
        {"segments_with_words": len(utterances)}, {"segments_with_words": WORDED}, expected, "segments with words"
    )
    tally.add("acronyms known", len(acronyms))
    tables, silent, beyond = make_tables(utterances, *sphere.sides(files, bad), acronyms)
    # The LDC has shipped the corpus with 2,435 of 2,438 calls. Recipes drop the rest.
    bad += (silent if len(files) not in AUDIO_FILES else []) + beyond
    left = settle(bad, args.skip_bad, args.out / "left_out_swbd.txt")
    tally.add("dropped, no audio", len(silent))
    tally.add("dropped, beyond the audio", len(beyond))
    sets = split(tables, args.dev, args.max_duplicates, tally)
    hours = round(sum(_seconds(value) for value in sets["train_nodup"]["segments"].values()) / 3600)
    found = {"nodup_hours": hours, **{name: len(made["text"]) for name, made in sets.items()}}
    agreed += check_counts(found, {"nodup_hours": NODUP_HOURS}, expected, "(hours or utterances)")
    lines = [str(tally), *left, *agreed]
    return lines + [write_set(args.out / name, made) for name, made in sets.items()]


def _seconds(segment: str) -> float:
    _, start, end = segment.split()
    return float(end) - float(start)


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Write data/train_nodup and data/train_dev and return 0, or 2 with the faults on stderr."""
    parser = Parser(prog="python -m legonn_corpora.swbd", description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder that holds LDC97S62/")
    parser.add_argument("--transcripts", type=Path, help="swb_ms98_transcriptions, when it lies elsewhere")
    parser.add_argument("--download", action="store_true", help="get the transcripts from OpenSLR (50 MB) if missing")
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--dev", type=int, default=DEV, help=f"utterances of train_dev (default: {DEV})")
    parser.add_argument("--max_duplicates", type=int, default=MAX_DUPLICATES, help="utterances of one text, about")
    parser.add_argument(
        "--skip_bad", action="store_true", help="leave out damaged lines and audio, count and list them"
    )
    names = f"{', '.join(NAMES)}; with --eval2000 {', '.join(eval2000.PUBLISHED)} too"
    parser.add_argument("--expect", nargs="+", metavar="NAME=NUMBER", help=names)
    parser.add_argument("--eval2000", type=Path, metavar="DIR", help="write Hub5'00 there, too, with the same options")
    args = parser.parse_args(cmd)
    print("\n".join(prepare(args)))
    if args.eval2000:
        wanted = [item for item in args.expect or () if item.partition("=")[0] in eval2000.PUBLISHED]
        print("\n".join(eval2000.prepare(args.corpus, args.eval2000, wanted, args.skip_bad)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
