"""Europarl-ST v1.1 as speech recognition: `python -m legonn_corpora.europarl_st --corpus v1.1 --out data`.

The corpus has a list of segments for each pair of languages and none for recognition alone: `--pairs` says whose source
side is taken. m4a (or the wav or flac that it was converted to) is decoded once, into `<out>/local/europarl_st_<src>`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.data.audio import MAX_OVERSHOOT, seconds
from espnet2_legonn.data.text import normalize
from espnet2_legonn.errors import DataError, command
from legonn_corpora.download import Archive
from legonn_corpora.m4a import DECODERS, convert_all
from legonn_corpora.options import Parser
from legonn_corpora.speech import Tally, check_counts, get, parse_expected, parser, read_lines, run, settle, write_set

SPLITS = ("train", "dev", "test")
AUDIO = ("audios", "audios/wav", "audios/flac", "audios_wav", "audios_flac", "wav", "flac")
SUFFIXES = (".m4a", ".wav", ".flac")
TREATMENTS = ("lc.rm", "tc")
FS = 16000
# A segment of another pair is the same speech again when they share more than this, in seconds.
SHARED = 0.1
ARCHIVE = Archive(
    "https://www.mllp.upv.es/europarl-st/v1.1.tar.gz", 20, "CC BY-NC 4.0: name the authors, not for commerce", "v1.1"
)


@dataclass(frozen=True)
class Segment:
    """A line of segments.lst with its text. `place` is file:line."""

    speech: str
    start: float
    end: float
    text: str
    place: str


@dataclass
class Part:
    """One split: speeches with their speakers, and segments in the order of their speeches and times."""

    speakers: dict[str, str]
    segments: list[Segment]


def read_part(folder: Path, src: str, tgt: str, faults: list[str], bad: list[str], tally: Tally) -> Part:
    """One split of one pair. Faults of its files go to `faults`, those of single segments to `bad`."""
    speeches = read_lines(folder / "speeches.lst", faults)
    names = read_lines(folder / "speakers.lst", faults)
    times = read_lines(folder / "segments.lst", faults)
    texts = {lang: read_lines(folder / f"segments.{lang}", faults) for lang in (src, tgt)}
    _same_length(folder, {"speeches.lst": speeches, "speakers.lst": names}, faults)
    _same_length(folder, {"segments.lst": times, **{f"segments.{k}": v for k, v in texts.items()}}, faults)
    speakers: dict[str, str] = {}
    for number, (speech, name) in enumerate(zip(speeches, names), start=1):
        speaker = name.rpartition("_")[2]
        if not speech or len(speech.split()) != 1 or speech in speakers:
            faults.append(f"{folder / 'speeches.lst'}:{number}: '{speech}' is empty, has blanks, or is there twice")
        if not speaker or len(speaker.split()) != 1:
            faults.append(f"{folder / 'speakers.lst'}:{number}: '{name}' has no speaker id behind its last '_'")
        speakers[speech] = speaker
    segments: list[Segment] = []
    seen: dict[tuple[str, float, float], int] = {}
    for number, line in enumerate(times, start=1):
        place, fields = f"{folder / 'segments.lst'}:{number}", line.split(" ")
        if fault := _segment_fault(fields, speakers):
            bad.append(f"{place}: {fault}")
            continue
        key = fields[0], float(fields[1]), float(fields[2])
        text = texts[src][number - 1] if number <= len(texts[src]) else ""
        if key in seen:
            first = seen[key]
            if text == texts[src][first - 1]:
                tally.add("dropped, the same line again")
            else:
                bad.append(f"{place}: '{line}' repeats line {first} with another text")
            continue
        seen[key] = number
        segments.append(Segment(*key, text, place))
    return Part(speakers, segments)


def _same_length(folder: Path, files: Mapping[str, Sequence[str]], faults: list[str]) -> None:
    present = {name: len(lines) for name, lines in files.items() if (folder / name).is_file()}
    if len(set(present.values())) > 1:
        counts = ", ".join(f"{name} {number}" for name, number in present.items())
        least = min(present.values())
        faults.append(f"{folder}: files that go line by line differ in length: {counts}; look from line {least + 1} on")


def _segment_fault(fields: Sequence[str], speakers: Mapping[str, str]) -> str | None:
    if len(fields) != 3:
        return f"{len(fields)} fields; <speech> <start> <end> with one blank between is expected"
    try:
        start, end = float(fields[1]), float(fields[2])
    except ValueError:
        return f"'{fields[1]}' and '{fields[2]}' are no times"
    if not (0 <= start < end and math.isfinite(end)):
        return f"segment {fields[1]} to {fields[2]} s; 0 <= start < end is needed"
    if fields[0] not in speakers:
        return f"speech '{fields[0]}' is not in speeches.lst"
    return None


def unite(parts: Iterable[Part], tally: Tally, faults: list[str]) -> Part:
    """The segments of several pairs: of speech that is in more than one, those of the pair that comes first.

    Segments are the same speech when their times agree, or overlap by more than SHARED: pairs cut differently.
    """
    speakers: dict[str, str] = {}
    taken: dict[str, list[Segment]] = {}
    for part in parts:
        for speech, speaker in part.speakers.items():
            if speakers.setdefault(speech, speaker) != speaker:
                faults.append(f"speech '{speech}': speaker '{speakers[speech]}' in one pair, '{speaker}' in another")
        new: dict[str, list[Segment]] = {}
        for segment in part.segments:
            others = taken.get(segment.speech, ())
            if any((o.start, o.end) == (segment.start, segment.end) for o in others):
                tally.add("dropped, in an earlier pair")
            elif any(min(o.end, segment.end) - max(o.start, segment.start) > SHARED for o in others):
                tally.add("dropped, overlaps an earlier pair")
            else:
                new.setdefault(segment.speech, []).append(segment)
        for speech, segments in new.items():
            taken.setdefault(speech, []).extend(segments)
    ordered = [s for speech in sorted(taken) for s in sorted(taken[speech], key=lambda s: (s.start, s.end))]
    return Part(speakers, ordered)


def check_disjoint(parts: dict[str, Part], on_overlap: str, tallies: Mapping[str, Tally]) -> None:
    """No speech and no speaker of one split in another.

    Args:
        on_overlap: `error`, or `drop`: take them out of the split that comes first (train, then dev).

    Raises:
        DataError: all that are shared.
    """
    faults = []
    for i, name in enumerate(SPLITS):
        part = parts[name]
        others = [(other, parts[other]) for other in SPLITS[i + 1 :]]
        lost = set()
        for other, there in others:
            used = {s.speech for s in there.segments}
            speakers = {there.speakers[speech] for speech in used}
            for speech in sorted({s.speech for s in part.segments}):
                if speech in used:
                    faults.append(f"speech '{speech}' is in {name} and in {other}")
                    lost.add(speech)
                elif part.speakers[speech] in speakers:
                    faults.append(f"speaker '{part.speakers[speech]}' of speech '{speech}' is in {name} and in {other}")
                    lost.add(speech)
        if on_overlap == "drop":
            kept = [s for s in part.segments if s.speech not in lost]
            tallies[name].add("dropped, speech or speaker of another split", len(part.segments) - len(kept))
            parts[name] = Part(part.speakers, kept)
    if faults and on_overlap == "error":
        raise DataError([*faults, "--on_overlap drop takes them out of train (or dev)"])


def tables_of(
    part: Part, audio: Mapping[str, Path], treatment: str, tally: Tally, bad: list[str]
) -> dict[str, dict[str, str]]:
    """Tables of one split. Segments beyond their audio go to `bad`, those of speeches without audio are left out."""
    tables: dict[str, dict[str, str]] = {"wav.scp": {}, "segments": {}, "text": {}, "utt2spk": {}}
    lengths: dict[str, float] = {}
    for segment in part.segments:
        path = audio.get(segment.speech)
        if path is None:
            tally.add("left out, no audio")
            continue
        if segment.speech not in lengths:
            lengths[segment.speech] = seconds(str(path)) or 0.0
        length = lengths[segment.speech]
        if segment.end > length + MAX_OVERSHOOT or segment.start >= length:
            bad.append(f"{segment.place}: {segment.start:g} to {segment.end:g} s, {path} lasts {length:.3f} s")
            continue
        tally.add("ends clipped to the audio", segment.end > length)
        text = normalize(segment.text, treatment)
        if not text:
            tally.add("dropped, no words")
            continue
        speaker = part.speakers[segment.speech]
        utt = f"{speaker}-{segment.speech}_{round(1000 * segment.start):08d}-{round(1000 * segment.end):08d}"
        if utt in tables["text"]:
            bad.append(f"{segment.place}: '{utt}' again, times differ by less than a millisecond")
            continue
        end = min(segment.end, math.floor(1000 * length) / 1000)
        tables["wav.scp"][segment.speech] = str(path.absolute())
        tables["segments"][utt] = f"{segment.speech} {segment.start:.3f} {end:.3f}"
        tables["text"][utt] = text
        tables["utt2spk"][utt] = speaker
    tally.add("utterances", len(tables["text"]))
    return tables


@dataclass(frozen=True)
class Options:
    """What a user chooses. See the command line."""

    src: str = "en"
    pairs: str = "de"
    treatment: str = "lc.rm"
    on_overlap: str = "error"
    decoder: str = "auto"
    nj: int = 1
    skip_bad: bool = False


def audio_of(folder: Path, speech: str) -> Path | None:
    """The audio of a speech below `folder` (`v1.1/en`): as shipped, or where people leave what they convert once."""
    ways = (folder / place / f"{speech}{suffix}" for suffix in SUFFIXES for place in AUDIO)
    return next((path for path in ways if path.is_file()), None)


def find_root(corpus: Path, src: str) -> Path:
    """The folder v1.1 with `src` in it: `corpus` or below it. DataError when there is none."""
    for root in (corpus, corpus / ARCHIVE.folder):
        if any((root / src / place).is_dir() for place in AUDIO):
            return root
    raise DataError(f"{corpus}: no {ARCHIVE.folder}/{src}/audios; is Europarl-ST v1.1 unpacked there?")


def targets(root: Path, options: Options) -> list[str]:
    """Target languages of the pairs, the most used one (German) first.

    Raises:
        DataError: one is not in the corpus.
    """
    there = sorted(p.parent.name for p in (root / options.src).glob("*/train") if p.is_dir())
    if options.pairs == "all":
        return sorted(there, key=lambda lang: (lang != "de", lang))
    wanted = options.pairs.split(",")
    if missing := [lang for lang in wanted if lang not in there]:
        raise DataError(f"{root / options.src}: no pair with {', '.join(missing)}; there are {', '.join(there)}")
    return wanted


def read_corpus(root: Path, options: Options, bad: list[str] | None = None) -> tuple[dict[str, Part], dict[str, Tally]]:
    """All splits over the chosen pairs, disjoint. Faults of single segments go to `bad`.

    Raises:
        DataError: every fault of every file. Those in `bad`, too, unless they are to be skipped.
    """
    faults: list[str] = []
    bad = [] if bad is None else bad
    parts: dict[str, Part] = {}
    tallies = {split: Tally(split) for split in SPLITS}
    for split in SPLITS:
        read = [
            read_part(root / options.src / tgt / split, options.src, tgt, faults, bad, tallies[split])
            for tgt in targets(root, options)
        ]
        tallies[split].add("segments", sum(len(part.segments) for part in read))
        parts[split] = unite(read, tallies[split], faults)
        for speech in sorted({s.speech for s in parts[split].segments}):
            if audio_of(root / options.src, speech) is None:
                path = root / options.src / "audios" / f"{speech}.m4a"
                bad.append(f"{path}: no such file; {split} has segments of it (.wav or .flac would do, too)")
    if faults or (bad and not options.skip_bad):
        raise DataError(faults + bad)
    check_disjoint(parts, options.on_overlap, tallies)
    return parts, tallies


def prepare(corpus: Path, out: Path, suffix: str, options: Options, expect: Sequence[str] = ()) -> str:
    """Write data/{train,dev,test} and return the report.

    Raises:
        DataError: every fault of the corpus. Then no data directory is written.
    """
    root = find_root(corpus, options.src)
    wanted = parse_expected(expect, SPLITS)
    bad: list[str] = []
    parts, tallies = read_corpus(root, options, bad)
    speeches = sorted({s.speech for part in parts.values() for s in part.segments})
    folder = out / "local" / f"europarl_st_{options.src}"
    audio = {speech: folder / f"{speech}.flac" for speech in speeches}
    found = {speech: audio_of(root / options.src, speech) for speech in speeches}
    sources = {path: audio[speech] for speech, path in found.items() if path is not None}
    made = convert_all(sources, FS, options.decoder, options.nj, bad)
    audio = {speech: path for speech, path in audio.items() if found[speech] is not None and path.is_file()}
    lines = [f"audio: {made} speeches decoded, {len(audio) - made} kept from before, {folder}"]
    sets = {split: tables_of(part, audio, options.treatment, tallies[split], bad) for split, part in parts.items()}
    lines += settle(bad, options.skip_bad, out / f"left_out_europarl_st{suffix}.txt")
    lines += [f"pairs: {options.src} to {', '.join(targets(root, options))}", *map(str, tallies.values())]
    counts = {split: len(part.segments) for split, part in parts.items()}
    lines += check_counts(counts, {}, wanted, "segments")
    lines += [write_set(out / f"{split}{suffix}", tables) for split, tables in sets.items()]
    return "\n".join(lines)


def get_parser() -> Parser:
    """Options."""
    made = parser(__doc__, "v1.1", TREATMENTS, "tc: as written", "what is faulty")
    add = made.add_argument
    add("--src", default="en", help="language of the speech")
    add("--pairs", default="de", metavar="all|LANG[,LANG...]", help="target languages (default: de)")
    add("--on_overlap", choices=("error", "drop"), default="error", help="a speaker in two splits")
    add("--decoder", choices=DECODERS, default="auto", help="of m4a")
    add("--nj", type=int, default=1, help="processes that decode")
    return made


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the corpus and return 0 when it succeeded."""
    args = get_parser().parse_args(argv)
    options = Options(args.src, args.pairs, args.treatment, args.on_overlap, args.decoder, args.nj, args.skip_bad)

    def work() -> str:
        if args.download and not any((r / args.src).is_dir() for r in (args.corpus, args.corpus / ARCHIVE.folder)):
            get(ARCHIVE, args.corpus)
        return prepare(args.corpus, args.out, args.suffix, options, args.expect)

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
