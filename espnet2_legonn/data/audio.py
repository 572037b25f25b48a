"""Reading audio named by wav.scp, checking it, choosing a channel, changing rate and speed."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from espnet2_legonn.data.cut_short import missing
from espnet2_legonn.errors import DataError

if TYPE_CHECKING:  # commands that only look at names load none of them
    import numpy as np
    import soundfile as sf

INT16 = 32768
# Kaldi's extract-segments forgives segment ends this far beyond the recording (seconds).
MAX_OVERSHOOT = 0.5
# Decoders differ by a frame in what they take for the silence that an mp3 encoder adds.
MP3_SLACK = 1152
_ARK = re.compile(r"(.+):(\d+)")
_REMEDY = "for a format libsndfile lacks, let wav.scp run a decoder: `ffmpeg -v error -i FILE -f wav - |`"


def is_pipe(spec: str) -> bool:
    """True when a value of wav.scp is a command, which is the case only when it ends in `|`."""
    return spec.rstrip().endswith("|")


def archive_of(spec: str) -> Path | None:
    """The file of `file.ark:offset`; None for other values of wav.scp, and for a file that is called like that."""
    match = _ARK.fullmatch(spec)
    return None if match is None or Path(spec).is_file() or not Path(match[1]).is_file() else Path(match[1])


def read_audio(spec: str) -> tuple[np.ndarray, int]:
    """Decode a whole recording: wav, flac, ogg, opus, mp3, sph (PCM), ..., `file.ark:offset`, or a command's output.

    Args:
        spec: a value of wav.scp. A trailing `|` makes it a shell command, as in Kaldi: run only wav.scp
            files you trust.

    Returns:
        samples: float32, (samples, channels), full scale 1.0. rate: Hz.

    Raises:
        DataError: unreadable, cut short, a failing command, no samples, NaN or infinite samples. Does not name the
            utterance.
    """
    import numpy as np

    with _opened(spec) as file:
        samples, rate, promised, format = file.read(dtype="float32", always_2d=True), *_facts(file)
    if not len(samples):
        raise DataError(f"'{spec}' has no samples")
    if promised - len(samples) > (MP3_SLACK if format == "MP3" else 0):
        raise DataError(_cut_short(spec, promised / rate, len(samples) / rate))
    if not np.isfinite(samples).all():
        raise DataError(f"'{spec}' has {int((~np.isfinite(samples)).sum())} NaN or infinite samples")
    return samples, rate


def seconds(spec: str, fs: int | None = None) -> float | None:
    """Duration from the header, None for a command, which is not run.

    Args:
        fs: the file is to be used as it is, by a model for this rate in Hz: no command, one channel.

    Raises:
        DataError: the file is missing, not audio, cut short, or not fit to be used as it is.
    """
    if is_pipe(spec):
        if fs is not None:
            raise DataError(f"'{spec}' is a command; stage 3 (`format`) makes a file of its output")
        return None
    with _opened(spec) as file:
        rate, frames, _ = _facts(file)
        if not frames:
            raise DataError(f"'{spec}' has no samples")
        file.seek(frames - 1)
        if not len(file.read(1)):
            raise DataError(_cut_short(spec, frames / rate, None))
        channels = file.channels
    if fs is not None and rate != fs:
        raise DataError(f"'{spec}' is sampled at {rate} Hz, {fs} Hz expected; format it with --fs {fs}")
    if fs is not None and channels != 1:
        raise DataError(f"'{spec}' has {channels} channels, 1 expected; format it with --channel")
    return frames / rate


@contextlib.contextmanager
def _opened(spec: str) -> Iterator[sf.SoundFile]:
    """A sound file that is as long as its header says, as far as that can be known without decoding.

    Raises:
        DataError: it is not, or libsndfile cannot open or (inside the block) decode it.
    """
    import soundfile as sf

    with contextlib.closing(io.BytesIO(_run(spec)) if is_pipe(spec) else _stored(spec) or _file(spec)) as stream:
        lost = missing(stream)
        stream.seek(0)
        try:
            # Without the name, libsndfile goes by the content: x.raw with a header is read, without one refused.
            with sf.SoundFile(stream) as file:
                if lost and file.samplerate:
                    there = file.frames / file.samplerate
                    raise DataError(_cut_short(spec, there / (1 - lost) if lost < 1 else None, there))
                yield file
        except (sf.SoundFileError, TypeError) as error:
            raise DataError(f"cannot decode '{spec}': {getattr(error, 'error_string', error)}; {_REMEDY}") from error


def _facts(file: sf.SoundFile) -> tuple[int, int, str]:
    """Rate in Hz, samples of each channel as the header says, format."""
    return file.samplerate, file.frames, file.format


def _cut_short(spec: str, promised: float | None, there: float | None) -> str:
    told = "more" if promised is None else f"{promised:.2f} s"
    have = "less" if there is None else f"{there:.2f} s"
    return f"'{spec}' is cut short: its header promises {told}, {have} can be read; get it again"


def _stored(spec: str) -> BinaryIO | None:
    """One recording of a kaldiio archive, `file.ark:offset`; None if the value is no such place.

    ESPnet's `flac.ark` and `wav.ark` hold whole sound files: behind the word AUDIO and their length, or as they are.
    kaldiio itself would also unpickle what it meets there, so the bytes are handed to libsndfile here.

    Raises:
        DataError: something else is stored there.
    """
    archive = archive_of(spec)
    if archive is None:
        return None
    with _file(str(archive)) as stream:
        stream.seek(int(spec.rpartition(":")[2]))
        kind = stream.read(5)
        if kind == b"AUDIO":
            size = stream.read(1)
            length = int.from_bytes(stream.read(size[0] if size else 0), "little")
            data = stream.read(length)
            if len(data) < length:
                raise DataError(f"'{spec}' is cut short: {len(data)} of {length} bytes are there; get it again")
            return io.BytesIO(data)
        if kind[:4] == b"RIFF":
            return io.BytesIO(kind + (rest := stream.read(3)) + stream.read(int.from_bytes(kind[4:] + rest, "little")))
        if kind[:4] == b"fLaC":
            return io.BytesIO(kind + stream.read())
    what = "a matrix: features or alignments" if kind[:2] == b"\0B" else f"{kind!r}"
    raise DataError(
        f"'{spec}': no sound is stored there, but {what}; modules read sound, give wav.scp of feats_type raw"
    )


def _file(spec: str) -> BinaryIO:
    try:
        return open(_existing(spec), "rb")
    except OSError as error:
        raise DataError(f"'{spec}': cannot be read ({error.strerror})") from error


def _existing(spec: str) -> str:
    if not Path(spec).is_file():
        raise DataError(f"'{spec}': no such file (paths in wav.scp are relative to the directory you run from)")
    return spec


def _run(spec: str) -> bytes:
    command = spec.rstrip()[:-1]
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        complaint = done.stderr.decode(errors="replace").strip()[-300:]
        raise DataError(
            f"command '{command.strip()}' gave {len(done.stdout)} bytes, exit {done.returncode}: {complaint}"
        )
    return done.stdout


def to_mono(samples: np.ndarray, mono: str | None) -> np.ndarray:
    """(samples, channels) to (samples,).

    Args:
        mono: None: only one channel is accepted; `mean`: average of the channels; `0`, `1`, ...: that
            channel.

    Raises:
        DataError: several channels and no choice, or a channel that does not exist.
    """
    channels = samples.shape[1]
    if channels == 1:
        return samples[:, 0]
    if mono is None:
        raise DataError(f"has {channels} channels, 1 expected; choose with --channel mean or --channel 0")
    if mono == "mean":
        return samples.mean(axis=1)
    if not mono.isdecimal() or int(mono) >= channels:
        raise DataError(f"has {channels} channels, --channel {mono} asked; use mean or 0..{channels - 1}")
    return samples[:, int(mono)]


def cut(samples: np.ndarray, rate: int, start: float, end: float) -> np.ndarray:
    """Samples from `start` to `end` seconds; end -1 means to the end, as does an end up to 0.5 s beyond it.

    Raises:
        DataError: the segment is none, begins after the end, or ends more than 0.5 s beyond it.
    """
    total = len(samples) / rate
    if not (start >= 0 and (end > start or end == -1)):  # a negative index would count from the end
        raise DataError(f"segment {start:g}-{end:g} s: 0 <= start < end is needed (end -1: to the end)")
    if start >= total or end > total + MAX_OVERSHOOT:
        raise DataError(f"segment {start:g}-{end:g} s is beyond the recording's {total:.2f} s")
    piece = samples[round(start * rate) : len(samples) if end == -1 else round(end * rate)]
    if not len(piece):
        raise DataError(f"segment {start:g}-{end:g} s has no samples at {rate} Hz")
    return piece


def change_rate(samples: np.ndarray, rate: int, fs: int, speed: float = 1.0) -> np.ndarray:
    """Resample to `fs` Hz and play `speed` times as fast (tempo and pitch, as `sox speed`), in one pass.

    The result has about len(samples) * fs / (rate * speed) samples.

    Raises:
        DataError: that is none.
    """
    if rate == fs and speed == 1:
        return samples
    import soxr

    changed = soxr.resample(samples, rate * speed, fs)
    if not len(changed):
        raise DataError(f"{len(samples)} samples at {rate} Hz are too short: none is left at {fs} Hz")
    return changed


def to_int16(samples: np.ndarray) -> tuple[np.ndarray, int]:
    """16-bit samples and how many were clipped; the exact inverse of reading 16-bit audio as float32."""
    import numpy as np

    # libsndfile scales by 32767 on writing but 32768 on reading, which would alter loud samples.
    scaled = np.rint(samples * INT16)
    clipped = int(((scaled > INT16 - 1) | (scaled < -INT16)).sum())
    return np.clip(scaled, -INT16, INT16 - 1).astype(np.int16), clipped


def parse_fs(text: str) -> int:
    """`16000`, `16k`, `44.1k` -> Hz. DataError for anything else."""
    try:
        fs = float(text[:-1]) * 1000 if text.lower().endswith("k") else float(text)
    except ValueError:
        fs = 0.0
    if not 1000 <= fs <= 384000 or fs != round(fs):
        raise DataError(f"sampling rate '{text}': write Hz or kHz, e.g. 16000 or 16k")
    return round(fs)
