"""TED-LIUM 2 and 3: `python -m legonn_corpora.tedlium --corpus TEDLIUM_release2 --out data`.

The rules are those of Kaldi's and ESPnet's recipes, in their order (see `clean` and `read_talk`), so that the segments
are theirs. NIST SPHERE is read by soundfile at stage 3: no sph2pipe.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.data.audio import MAX_OVERSHOOT, seconds
from espnet2_legonn.data.text import normalize
from espnet2_legonn.errors import DataError, command
from legonn_corpora.download import Archive
from legonn_corpora.options import Parser
from legonn_corpora.speech import Tally, check_counts, get, parse_expected, parser, read_lines, run, settle, write_set

SPLITS = ("train", "dev", "test")
TREATMENTS = ("paper", "espnet")
# Silence around the segments of the training part, seconds: they are cut too closely, above all at the beginning.
BEFORE, AFTER = 0.15, 0.1

_LABELS = (("<F0_M>", "<o,f0,male>"), ("<F0_F>", "<o,f0,female>"))
_VARIANT = re.compile(r"\([0-9]\)")
_NAME = re.compile(r"\([^ ]*\)$")
_BRACES = str.maketrans("{}", "[]")
_IGNORED = "ignore_time_segment_in_scoring"
# No words, once braces are brackets: [NOISE], [COUGH] and so on. <unk> is speech that was not understood.
_TAG = re.compile(r"\[[^ \]]*\]")
_UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Release:
    """One release: where its parts are, and what is published about it (talks, and segments that recipes report)."""

    number: int
    part: str
    talks: Mapping[str, Sequence[int]]
    segments: Mapping[str, Sequence[int]]
    archive: Archive


RELEASES = {
    2: Release(
        2,
        ".",
        {"train": (1495,), "dev": (8,), "test": (11,)},
        {"train": (92973,), "dev": (507,), "test": (1155, 1157)},
        Archive(
            "https://www.openslr.org/resources/19/TEDLIUM_release2.tar.gz",
            35,
            "CC BY-NC-ND 3.0: not for commerce, no derivatives",
            "TEDLIUM_release2",
            "93281b5fcaaae5c88671c9d000b443cb3c7ea3499ad12010b3934ca41a7b9c58",  # as torchaudio has it
        ),
    ),
    3: Release(
        3,
        "legacy",
        {"train": (2351,), "dev": (8,), "test": (11,)},
        {"train": (268263,), "dev": (507,), "test": (1155, 1157)},
        Archive(
            "https://www.openslr.org/resources/51/TEDLIUM_release-3.tgz",
            54,
            "CC BY-NC-ND 3.0: not for commerce, no derivatives",
            "TEDLIUM_release-3",
            "ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb",
        ),
    ),
}


@dataclass(frozen=True)
class Segment:
    """A line of an stm file that is speech. `place` is file:line."""

    talk: str
    start: float
    end: float
    words: tuple[str, ...]
    place: str

    @property
    def utt(self) -> str:
        """Talk and times in hundredths, cut off and not rounded, as awk's %d does."""
        return f"{self.talk}-{int(100 * self.start):07d}-{int(100 * self.end):07d}"

    @property
    def times(self) -> tuple[float, float]:
        """Seconds as the id has them."""
        return int(100 * self.start) / 100, int(100 * self.end) / 100


def join_suffixes(words: Sequence[str]) -> list[str]:
    """Glue each word that begins with an apostrophe to the word before: `it 's` -> `it's`.

    In pairs from left to right: of `she 'd 've` the third stays alone. The label in front of a text is no word, so a
    text that begins with `'cause` keeps it (ESPnet's recipe, which joins whole lines, loses such a word).
    """
    joined: list[str] = []
    free = False  # may the last word still take a suffix?
    for word in words:
        free = not (free and word.startswith("'"))
        if free:
            joined.append(word)
        else:
            joined[-1] += word
    return joined


def clean(line: str) -> str:
    """The rules for whole stm lines: labels of release 2's dev, variants `(2)`, `<sil>`, a last field `(...)`."""
    for old, new in _LABELS:
        line = line.replace(old, new, 1)
    return _NAME.sub("", _VARIANT.sub("", line).replace("<sil>", ""))


def read_talk(path: Path, faults: list[str], tally: Tally) -> list[Segment]:
    """Segments of one stm file. Damaged lines go to `faults`."""
    segments: list[Segment] = []
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(read_lines(path, faults), start=1):
        place = f"{path}:{number}"
        if not line.strip() or line.startswith(";;"):
            continue
        tally.add("lines")
        fields = clean(line).split()
        if tuple(fields) in seen:  # anywhere in the talk: public scripts sort before they drop
            tally.add("dropped, the same line again")
            continue
        seen.add(tuple(fields))
        if _IGNORED in fields:  # whatever its times are
            tally.add("dropped, not to be scored")
            continue
        if fault := _fault(fields, path.stem):
            faults.append(f"{place}: {fault}")
            continue
        words = join_suffixes(fields[6:])
        start, end = float(fields[3]), float(fields[4])
        segments.append(Segment(fields[0], start, end, tuple(w.translate(_BRACES) for w in words), place))
    return segments


def _fault(fields: Sequence[str], talk: str) -> str | None:
    if len(fields) < 6:
        return f"{len(fields)} fields; <talk> <channel> <speaker> <start> <end> <label> <text> expected"
    if fields[0] != talk:
        return f"talk '{fields[0]}' in the file of '{talk}'"
    try:
        start, end = float(fields[3]), float(fields[4])
    except ValueError:
        return f"'{fields[3]}' and '{fields[4]}' are no times; a column too many or too few?"
    if not 0 <= start < end:
        return f"segment {fields[3]} to {fields[4]} s; 0 <= start < end is needed"
    if not (fields[5].startswith("<") and fields[5].endswith(">")):
        return f"'{fields[5]}' is no label such as <o,f0,male>; a column too many or too few?"
    return None


def release_of(path: Path) -> int | None:
    """The release that a file belongs to, by the folders it really lies in. None if they do not tell."""
    parents = path.resolve().parents
    if any((parent / "legacy").is_dir() for parent in parents):
        return 3
    return 2 if any((parent / "train" / "stm").is_dir() for parent in parents) else None


def find_root(corpus: Path, release: Release) -> Path:
    """The release's folder: `corpus` itself or one in it.

    Raises:
        DataError: it is not there, or `corpus` is another release.
    """
    for root in (corpus, corpus / release.archive.folder):
        if (root / release.part / "train").is_dir():
            if release.number == 2 and (root / "legacy").is_dir():
                raise DataError(f"{root}: holds legacy/, so it is release 3; --release 3, or a folder for each release")
            return root
    other = next((r.number for r in RELEASES.values() if (corpus / r.part / "train").is_dir()), None)
    hint = f"this looks like release {other}: --release {other}" if other else "is the corpus unpacked there?"
    wanted = Path(release.archive.folder) / release.part / "train"
    raise DataError(f"{corpus}: no {wanted} of TED-LIUM release {release.number}; {hint}")


def is_there(corpus: Path, release: Release) -> bool:
    """Is the release in `corpus`?"""
    try:
        find_root(corpus, release)
    except DataError:
        return False
    return True


def pair_files(folder: Path, faults: list[str]) -> list[tuple[Path, Path]]:
    """sph and stm of each talk of one part. Talks without the other side, or of two releases, go to `faults`."""
    sides = {side: {p.stem: p for p in sorted((folder / side).glob(f"*.{side}"))} for side in ("sph", "stm")}
    for side, other in (("sph", "stm"), ("stm", "sph")):
        for talk in sorted(sides[side].keys() - sides[other].keys()):
            faults.append(f"{sides[side][talk]}: no {folder / other / f'{talk}.{other}'} beside it")
    if not sides["stm"]:
        faults.append(f"{folder}: no talks (sph/*.sph with stm/*.stm)")
    pairs = []
    for talk in sorted(sides["sph"].keys() & sides["stm"].keys()):
        sph, stm = sides["sph"][talk], sides["stm"][talk]
        kinds = release_of(sph), release_of(stm)
        if None not in kinds and kinds[0] != kinds[1]:
            faults.append(
                f"{sph}: is of release {kinds[0]}, {stm} of release {kinds[1]}; the releases cut the same talks "
                "differently, take both from one"
            )
        else:
            pairs.append((sph, stm))
    return pairs


def widen(
    segments: Sequence[tuple[str, float, float]], limit: float, before: float = BEFORE, after: float = AFTER
) -> dict[str, tuple[float, float]]:
    """Times of one recording's segments with silence around them. Where two would meet, they end half way between.

    Args:
        segments: id, start, end.
        limit: length of the recording, which no segment exceeds.
        before, after: seconds added. The last end grows by 0.1 s at most.
    """
    order = sorted(segments, key=lambda s: 0.5 * (s[1] + s[2]))
    last = min(limit, max(end for _, _, end in order) + 0.1)
    times = [[max(0.0, start - before), min(last, end + after)] for _, start, end in order]
    for this, following in zip(times, times[1:]):
        if this[1] > following[0]:
            this[1] = following[0] = 0.5 * (this[1] + following[0])
    return {utt: (start, end) for (utt, _, _), (start, end) in zip(order, times)}


def cut_speakers(utt2spk: Mapping[str, str], durations: Mapping[str, float], most: float) -> dict[str, str]:
    """Speakers cut into pieces of at most `most` seconds of consecutive utterances: `talk-01`, `talk-02`, ..."""
    pieces: dict[str, list[list[str]]] = {}
    spent: dict[str, float] = {}
    for utt in sorted(utt2spk):
        speaker = utt2spk[utt]
        own = pieces.setdefault(speaker, [])
        if not own or spent[speaker] + durations[utt] > most:
            own.append([])
            spent[speaker] = 0.0
        own[-1].append(utt)
        spent[speaker] += durations[utt]
    return {
        utt: f"{speaker}-{number:0{len(str(len(own)))}d}"
        for speaker, own in pieces.items()
        for number, piece in enumerate(own, start=1)
        for utt in piece
    }


def treat(words: Sequence[str], treatment: str, tally: Tally) -> str:
    """`espnet`: the words as they are, tags and <unk> too. `paper`: words alone, `lc.rm`."""
    if treatment == "espnet":
        return " ".join(words)
    kept = [w for w in words if not _TAG.fullmatch(w)]
    tally.add("tags left out of texts", len(words) - len(kept))
    tally.add("<unk> left out of texts", kept.count(_UNKNOWN))
    return normalize(" ".join(w for w in kept if w != _UNKNOWN), "lc.rm")


@dataclass(frozen=True)
class Options:
    """What a user chooses: the text treatment and the longest piece of a speaker (None: speakers stay whole)."""

    treatment: str = "paper"
    seconds_per_speaker: float | None = None
    skip_bad: bool = False


def read_split(folder: Path, split: str, options: Options, faults: list[str]) -> tuple[dict, Tally, dict[str, int]]:
    """Tables of one part, its counts, and numbers of talks and segments as recipes report them.

    What has faults is in none of them.
    """
    tally = Tally(split)
    tables: dict[str, dict[str, str]] = {"wav.scp": {}, "segments": {}, "text": {}, "utt2spk": {}}
    found = {"talks": 0, "segments": 0}
    durations: dict[str, float] = {}
    for sph, stm in pair_files(folder, faults):
        found["talks"] += 1
        tally.add("talks")
        try:
            length = seconds(str(sph)) or 0.0
        except DataError as error:
            faults += error.faults
            continue
        kept: dict[str, Segment] = {}
        for segment in read_talk(stm, faults, tally):
            if segment.end > length + MAX_OVERSHOOT or segment.start >= length:
                faults.append(f"{segment.place}: {segment.start:g} to {segment.end:g} s, {sph} lasts {length:.2f} s")
            elif segment.utt in kept:
                faults.append(f"{segment.place}: '{segment.utt}' again, as in {kept[segment.utt].place}")
            else:
                kept[segment.utt] = segment
        found["segments"] += len(kept)
        raw = [(utt, *s.times) for utt, s in kept.items()]
        if raw and split == "train":
            times = widen(raw, length)
        else:
            times = {utt: (start, min(end, length)) for utt, start, end in raw}
        for utt, segment in kept.items():
            text = treat(segment.words, options.treatment, tally)
            if not text:
                tally.add("dropped, no words")
                continue
            start, end = times[utt]
            tables["wav.scp"][sph.stem] = str(sph.absolute())
            tables["segments"][utt] = f"{sph.stem} {start:.3f} {end:.3f}"
            tables["text"][utt] = text
            tables["utt2spk"][utt] = sph.stem
            durations[utt] = end - start
    if options.seconds_per_speaker:
        tables["utt2spk"] = cut_speakers(tables["utt2spk"], durations, options.seconds_per_speaker)
    tally.add("utterances", len(tables["text"]))
    return tables, tally, found


def prepare(corpus: Path, release: Release, out: Path, suffix: str, options: Options, expect: Sequence[str]) -> str:
    """Write data/{train,dev,test} and return the report.

    Raises:
        DataError: every fault of the corpus. Then nothing is written.
    """
    root = find_root(corpus, release)
    wanted = parse_expected(expect, SPLITS)
    faults: list[str] = []
    sets = {split: read_split(root / release.part / split, split, options, faults) for split in SPLITS}
    left = settle(faults, options.skip_bad, out / f"left_out_tedlium{suffix}.txt")
    lines = [*(str(tally) for _, tally, _ in sets.values()), *left]
    lines += check_counts({s: f["talks"] for s, (_, _, f) in sets.items()}, release.talks, {}, "talks")
    found = {s: f["segments"] for s, (_, _, f) in sets.items()}
    lines += check_counts(found, release.segments, wanted, "segments")
    for split, (tables, _, _) in sets.items():
        lines.append(write_set(out / f"{split}{suffix}", tables))
    return "\n".join(lines)


def get_parser() -> Parser:
    """Options."""
    made = parser(
        __doc__, "the unpacked release", TREATMENTS, "paper: lc.rm words; espnet: as there", "faulty lines and talks"
    )
    made.add_argument("--release", type=int, choices=sorted(RELEASES), default=2)
    made.add_argument(
        "--seconds_per_speaker", type=float, metavar="S", help="cut speakers into pieces (ESPnet: 180; default: whole)"
    )
    return made


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a release and return 0 when it succeeded."""
    args = get_parser().parse_args(argv)
    release, options = RELEASES[args.release], Options(args.treatment, args.seconds_per_speaker, args.skip_bad)

    def work() -> str:
        if args.download and not is_there(args.corpus, release):
            get(release.archive, args.corpus)
        return prepare(args.corpus, release, args.out, args.suffix, options, args.expect)

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
