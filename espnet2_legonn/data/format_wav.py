"""Stage 3: one mono 16-bit file per utterance, at one sampling rate.

A run that was stopped goes on where it was: an output is kept when the manifest says that it came from the
same source, cut, speed, rate and channel, and the file exists (it appears under its name only when complete).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from espnet2_legonn.data import audio
from espnet2_legonn.data.checks import ROUNDING
from espnet2_legonn.data.datadir import DataDir, restrict, write_datadir
from espnet2_legonn.data.tables import Table, atomic_path, atomic_text, split_fields, table_kind
from espnet2_legonn.errors import DataError

FORMATS = {"flac": "FLAC", "wav": "WAV"}
MANIFEST = "data/manifest.jsonl"
# They describe the source audio, not what is written.
_NOT_COPIED = ("segments", "utt2speed", "utt2dur", "utt2num_samples", "feats.scp", "wav.scp")


@dataclass(frozen=True)
class Options:
    """How every utterance is written. fs: Hz or None to keep the source's; mono: see audio.to_mono."""

    fs: int | None = None
    audio_format: str = "flac"
    mono: str | None = None


@dataclass(frozen=True)
class Cut:
    """One utterance of a recording.

    `end` -1: to the end; `digest` identifies source and options; `place` is the line of the table it comes from.
    """

    utt: str
    place: str
    start: float
    end: float
    speed: float
    out: str
    digest: str


@dataclass(frozen=True)
class Job:
    """All utterances of one recording, so that it is decoded once."""

    spec: str
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class Done:
    """A written utterance (a line of the manifest)."""

    utt: str
    digest: str
    samples: int
    source_rate: int
    rate: int
    clipped: int
    shortened: int = 0  # 1: the segment ends beyond the recording, within the tolerance


@dataclass
class FormatReport:
    """Counts of a run; `bad` holds one message per utterance that could not be written."""

    written: int = 0
    kept: int = 0
    hours: float = 0.0
    clipped: int = 0
    shortened: int = 0
    upsampled: int = 0
    source_rates: dict[int, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rates = ", ".join(f"{count} at {rate} Hz" for rate, count in sorted(self.source_rates.items()))
        lines = [f"wrote {self.written}, kept {self.kept} from before, {self.hours:.2f} h; source audio: {rates}"]
        if self.upsampled:
            lines.append(f"{self.upsampled} utterances were sampled at a lower rate than they are written at")
        if self.clipped:
            lines.append(f"{self.clipped} utterances had samples beyond full scale, clipped")
        if self.shortened:
            lines.append(
                f"{self.shortened} segments end up to {audio.MAX_OVERSHOOT} s beyond their recording, shortened"
            )
        if self.bad:
            lines.append(f"dropped {len(self.bad)} (--skip_bad), listed in dropped.txt: {self.bad[0]}")
        return "\n".join(lines)


def format_wav(
    source: Path | str, dest: Path | str, options: Options, *, nj: int = 1, skip_bad: bool = False
) -> FormatReport:
    """Write audio, wav.scp, utt2num_samples and the other tables of `source` to `dest`.

    Args:
        nj: processes.
        skip_bad: leave out utterances whose audio is faulty (listed in `dest/dropped.txt`) instead of
            failing at the end.

    Raises:
        DataError: every fault of the tables, or every faulty utterance by name; what could be written is kept for the
            next run.
    """
    from tqdm import tqdm

    dest = Path(dest)
    if options.audio_format not in FORMATS:
        raise DataError(f"audio format '{options.audio_format}': choose one of {', '.join(FORMATS)}")
    data = DataDir(source)
    found = data.tables("wav.scp")
    tables = {name: dict(table.items()) for name, table in found.items()}
    jobs = _plan(found, dest, tables, options)
    cuts = {cut.utt: cut for job in jobs for cut in job.cuts}
    done = _previous(dest, cuts)
    report = FormatReport(kept=len(done))
    todo = [Job(j.spec, rest) for j in jobs if (rest := tuple(c for c in j.cuts if c.utt not in done))]
    with _manifest(dest, done) as stream, tqdm(total=len(cuts) - len(done), unit="utt", disable=None) as bar:
        for finished, faults in _run_all(todo, options, nj):
            for item in finished:
                done[item.utt] = item
                stream.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
            stream.flush()
            report.written += len(finished)
            report.bad += faults
            bar.update(len(finished) + len(faults))
    _same_rate(done, report)
    if not done or (report.bad and not skip_bad):
        raise DataError(report.bad)
    _finish(dest, tables, cuts, done, report, options)
    return report


def _plan(files: dict[str, Table], dest: Path, tables: dict[str, dict[str, str]], options: Options) -> list[Job]:
    """Jobs by recording."""
    wavs = tables["wav.scp"]
    name = "segments" if "segments" in tables else "wav.scp"
    segments = tables.get("segments") or {utt: f"{utt} 0 -1" for utt in wavs}
    speeds = tables.get("utt2speed", {})
    groups: dict[str, list[Cut]] = {}
    stamps: dict[str, str] = {}
    lines = {row.key: row.line for row in files[name].rows()}
    for utt, value in segments.items():
        fields = split_fields(value)
        spec = wavs[fields[0]]
        stamp = stamps.setdefault(spec, _stamp(spec))
        start, end, speed = float(fields[1]), float(fields[2]), float(speeds.get(utt, "1"))
        parts = (stamp, start, end, speed, options.fs, options.audio_format, options.mono)
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        # 256 folders: one folder with a million files is slow on network file systems.
        folder = hashlib.sha256(utt.encode()).hexdigest()[:2]
        out = str(dest / "data" / folder / f"{utt}.{options.audio_format}")
        groups.setdefault(spec, []).append(Cut(utt, f"{files[name].path}:{lines[utt]}", start, end, speed, out, digest))
    return [Job(spec, tuple(cuts)) for spec, cuts in groups.items()]


def _stamp(spec: str) -> str:
    """A source's identity: its name and, for a file, size and time of change."""
    path = audio.archive_of(spec) or Path(spec)
    if audio.is_pipe(spec) or not path.is_file():
        return spec
    stat = path.stat()
    return f"{spec} {stat.st_size} {stat.st_mtime_ns}"


def _previous(dest: Path, cuts: dict[str, Cut]) -> dict[str, Done]:
    """Outputs of an earlier run that are complete and still wanted as they are."""
    for half in (dest / "data").glob("*/.*.tmp"):  # left by a run that was killed
        half.unlink()
    done: dict[str, Done] = {}
    if not (dest / MANIFEST).is_file():
        return done
    for line in (dest / MANIFEST).read_text(encoding="utf-8").split("\n"):
        try:
            item = Done(**json.loads(line))
        except (ValueError, TypeError):
            continue  # a line cut short when the run was stopped: its utterance is made again
        cut = cuts.get(item.utt)
        if cut is not None and cut.digest == item.digest and Path(cut.out).is_file():
            done[item.utt] = item
    return done


@contextmanager
def _manifest(dest: Path, done: dict[str, Done]) -> Iterator:
    """The manifest, rewritten with what holds, open for more lines."""
    with atomic_text(dest / MANIFEST) as stream:
        stream.writelines(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in done.values())
    with open(dest / MANIFEST, "a", encoding="utf-8") as stream:
        yield stream


def _run_all(jobs: list[Job], options: Options, nj: int) -> Iterator[tuple[list[Done], list[str]]]:
    if nj <= 1 or len(jobs) <= 1:
        yield from (_run_job(job, options) for job in jobs)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Forking this process could hang if it has threads (torch, BLAS); a clean server forks the workers.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(min(nj, len(jobs)), mp_context=context, initializer=_end_with_parent) as pool:
        chunk = max(1, min(32, len(jobs) // (4 * nj)))
        yield from pool.map(_run_job, jobs, [options] * len(jobs), chunksize=chunk)


def _end_with_parent() -> None:
    """In a worker: stop when the process that asked for the work is gone; it would wait for ever."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_job(job: Job, options: Options) -> tuple[list[Done], list[str]]:
    import soundfile as sf

    try:
        samples, rate = audio.read_audio(job.spec)
        mono = audio.to_mono(samples, options.mono)
    except DataError as error:
        return [], [_fault(job, cut, error) for cut in job.cuts]
    finished: list[Done] = []
    faults: list[str] = []
    for cut in job.cuts:
        try:
            fs = options.fs or rate
            piece = audio.change_rate(audio.cut(mono, rate, cut.start, cut.end), rate, fs, cut.speed)
        except DataError as error:
            faults.append(_fault(job, cut, error))
            continue
        pcm, clipped = audio.to_int16(piece)
        shortened = int(cut.end > len(mono) / rate + ROUNDING)
        with atomic_path(cut.out) as temporary:
            sf.write(temporary, pcm, fs, format=FORMATS[options.audio_format], subtype="PCM_16")
        finished.append(Done(cut.utt, cut.digest, len(pcm), rate, fs, clipped, shortened))
    return finished, faults


def _fault(job: Job, cut: Cut, error: DataError) -> str:
    return f"{cut.place}: utterance '{cut.utt}' ({job.spec}): {error}"


def _same_rate(done: dict[str, Done], report: FormatReport) -> None:
    """Utterances at another rate than most are faults; there are some only when no fs was asked."""
    rates = Counter(item.rate for item in done.values())
    if len(rates) <= 1:
        return
    expected = max(rates, key=lambda rate: (rates[rate], rate))
    for utt in sorted(utt for utt, item in done.items() if item.rate != expected):
        report.bad.append(
            f"utterance '{utt}': sampling rate {done[utt].rate} Hz found, {expected} Hz expected (as most); "
            f"give --fs {expected} to resample"
        )
        del done[utt]


def _finish(
    dest: Path,
    tables: dict[str, dict[str, str]],
    cuts: dict[str, Cut],
    done: dict[str, Done],
    report: FormatReport,
    options: Options,
) -> None:
    kept = restrict(tables, done)
    final = {name: t for name, t in kept.items() if name not in _NOT_COPIED and table_kind(name) != "reco"}
    final["wav.scp"] = {utt: cuts[utt].out for utt in done}
    final["utt2num_samples"] = {utt: str(item.samples) for utt, item in done.items()}
    write_datadir(dest, final)
    for name, value in (("feats_type", "raw"), ("audio_format", options.audio_format)):
        with atomic_text(dest / name) as stream:
            stream.write(value + "\n")
    (dest / "dropped.txt").unlink(missing_ok=True)
    if report.bad:
        with atomic_text(dest / "dropped.txt") as stream:
            stream.writelines(fault.replace("\n", " ") + "\n" for fault in report.bad)
    report.hours = sum(item.samples / item.rate for item in done.values()) / 3600
    report.shortened = sum(item.shortened for item in done.values())
    report.upsampled = sum(item.source_rate < item.rate for item in done.values())
    report.clipped = sum(item.clipped > 0 for item in done.values())
    report.source_rates = dict(Counter(item.source_rate for item in done.values()))
