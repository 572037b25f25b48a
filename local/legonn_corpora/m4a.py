"""AAC and whatever else libsndfile cannot read, once, to FLAC: with PyAV (`av`) or, without it, with ffmpeg.

wav and flac need neither.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import multiprocessing
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import soundfile as sf
from tqdm import tqdm

from espnet2_legonn.data.audio import change_rate, read_audio, to_int16
from espnet2_legonn.data.tables import atomic_path
from espnet2_legonn.errors import DataError, hand_over

DECODERS = ("auto", "av", "ffmpeg")
NATIVE = (".wav", ".flac")  # libsndfile reads them


def choose_decoder(name: str) -> str:
    """`auto`: PyAV if it is installed, else ffmpeg.

    Raises:
        DataError: what is asked for is not installed.
    """
    there = {"av": importlib.util.find_spec("av") is not None, "ffmpeg": shutil.which("ffmpeg") is not None}
    found = [decoder for decoder in ("av", "ffmpeg") if there[decoder] and name in ("auto", decoder)]
    if not found:
        raise DataError(
            f"decoder {name}: not installed; pip install 'espnet2_legonn[corpora]' (PyAV), or install ffmpeg"
        )
    return found[0]


def convert(source: Path, dest: Path, fs: int, decoder: str) -> None:
    """One file to FLAC, mono, 16 bit, `fs` Hz.

    Raises:
        DataError: it cannot be decoded, or has no sound.
    """
    with atomic_path(dest) as temporary:
        if source.suffix.lower() in NATIVE:
            _with_soundfile(source, temporary, fs)
        elif decoder == "av":
            _with_av(source, temporary, fs)
        else:
            _with_ffmpeg(source, temporary, fs)
        if not sf.info(str(temporary)).frames:
            raise DataError(f"{source}: no sound in it")


def _with_soundfile(source: Path, dest: Path, fs: int) -> None:
    samples, rate = read_audio(str(source))
    pcm, _ = to_int16(change_rate(samples.mean(axis=1), rate, fs))
    sf.write(dest, pcm, fs, format="FLAC", subtype="PCM_16")


def _with_av(source: Path, dest: Path, fs: int) -> None:
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=fs)
    try:
        with av.open(str(source)) as container, sf.SoundFile(dest, "w", fs, 1, "PCM_16", format="FLAC") as sink:
            if not container.streams.audio:
                raise DataError(f"{source}: no audio stream")
            for frame in container.decode(container.streams.audio[0]):
                for piece in resampler.resample(frame):
                    sink.write(piece.to_ndarray().reshape(-1))
            for piece in resampler.resample(None):  # what it held back
                sink.write(piece.to_ndarray().reshape(-1))
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{source}: cannot be decoded ({error})") from error


def _with_ffmpeg(source: Path, dest: Path, fs: int) -> None:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", str(source), "-ac", "1", "-ar", str(fs)]
    done = subprocess.run(
        [*command, "-sample_fmt", "s16", "-f", "flac", str(dest)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DataError(f"{source}: cannot be decoded ({done.stderr.strip()[-300:]})")


def _one(source: Path, dest: Path, fs: int, decoder: str) -> str | None:
    try:
        convert(source, dest, fs, decoder)
    except DataError as error:
        return str(error)
    return None


def _each(files: Mapping[Path, Path], fs: int, decoder: str, nj: int) -> Iterator[str | None]:
    if nj == 1:
        yield from (_one(source, dest, fs, decoder) for source, dest in files.items())
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(nj, mp_context=context) as pool:
        jobs = [pool.submit(_one, source, dest, fs, decoder) for source, dest in files.items()]
        yield from (job.result() for job in concurrent.futures.as_completed(jobs))


def convert_all(
    files: Mapping[Path, Path], fs: int, decoder: str = "auto", nj: int = 1, bad: list[str] | None = None
) -> int:
    """Convert each file that has no result newer than itself, and return how many that were.

    Args:
        bad: faults go there. What could not be converted has no result.

    Raises:
        DataError: all that could not be converted. The others are kept for the next run.
    """
    todo = {s: d for s, d in files.items() if not d.is_file() or d.stat().st_mtime < s.stat().st_mtime}
    if not todo:
        return 0
    if any(source.suffix.lower() not in NATIVE for source in todo):
        decoder = choose_decoder(decoder)
    with tqdm(total=len(todo), desc="decode", unit="file", delay=1) as bar:
        faults = []
        for fault in _each(todo, fs, decoder, nj):
            faults += [fault] if fault else []
            bar.update()
    hand_over(sorted(faults), bad)
    return len(todo) - len(faults)
