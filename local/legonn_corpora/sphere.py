"""NIST SPHERE files with the two sides of a telephone call, one channel each: finding, describing, reading a side.

In wav.scp a side is the command `python3 .../sphere.py FILE CHANNEL |`, which writes a wav file.
Shorten-compressed files need sph2pipe on PATH. Their command is sph2pipe's.
"""

from __future__ import annotations

import argparse
import io
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile as sf

from espnet2_legonn.data.walk import files_below
from espnet2_legonn.errors import DataError, command, hand_over

SIDES = ("A", "B")
_MAGIC = b"NIST_1A\n"
_LAWS = {"ulaw": "ULAW", "mu-law": "ULAW", "mulaw": "ULAW", "alaw": "ALAW", "pcm": "PCM_16"}


@dataclass(frozen=True)
class Header:
    """What a SPHERE header says. `size` in bytes, `coding` as libsndfile calls it."""

    size: int
    channels: int
    rate: int
    samples: int
    coding: str
    big_endian: bool
    compressed: bool

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples / self.rate


def read_header(path: Path | str) -> Header:
    """The header of a SPHERE file.

    Raises:
        DataError: not a SPHERE file, or a header without the fields needed.
    """
    with open(path, "rb") as stream:
        start = stream.read(16)
        if not start.startswith(_MAGIC) or not start[8:16].strip().isdigit():
            raise DataError(f"{path}: not a NIST SPHERE file (it does not begin with NIST_1A)")
        size = int(start[8:16])
        lines = (start + stream.read(size - 16)).decode("latin-1").split("\n")[2:]
    fields = {}
    for line in lines:
        parts = line.split(None, 2)
        if parts and parts[0] == "end_head":
            break
        if len(parts) == 3:
            fields[parts[0]] = parts[2].strip()
    coding, *more = fields.get("sample_coding", "pcm").lower().split(",")
    try:
        counts = [int(fields[name]) for name in ("channel_count", "sample_rate", "sample_count")]
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: SPHERE header without a number for {error}") from error
    if coding not in _LAWS:
        raise DataError(f"{path}: sample_coding '{coding}'; known are {', '.join(_LAWS)}")
    channels, rate, samples = counts
    return Header(size, channels, rate, samples, _LAWS[coding], fields.get("sample_byte_format") == "10", bool(more))


def find(folder: Path) -> dict[str, Path]:
    """SPHERE files anywhere below a folder, links entered, by their name without suffix, in lower case.

    Raises:
        DataError: no file at all, or two of one name.
    """
    found: dict[str, Path] = {}
    faults: list[str] = []
    for path in (p for p in files_below(folder) if p.suffix.lower() == ".sph"):
        name = path.stem.lower()
        if name in found and not path.samefile(found[name]):
            faults.append(f"{path}: a second {name}; the first is {found[name]}")
        found.setdefault(name, path)
    if not found:
        faults.append(f"{folder}: no .sph file in this folder or below")
    if faults:
        raise DataError(faults)
    return found


def sides(files: Mapping[str, Path], bad: list[str] | None = None) -> tuple[dict[str, str], dict[str, float]]:
    """wav.scp and duration of both sides (`<name>-A`, `<name>-B`) of every file.

    Args:
        bad: faults go there, and the files that have them are left out.

    Raises:
        DataError: files that are not SPHERE, have not two channels, or are compressed while sph2pipe is not installed.
    """
    specs: dict[str, str] = {}
    seconds: dict[str, float] = {}
    faults: list[str] = []
    for name, path in files.items():
        try:
            header = read_header(path)
        except DataError as error:
            faults += error.faults
            continue
        before = len(faults)
        if header.channels != len(SIDES):
            faults.append(f"{path}: {header.channels} channels, {len(SIDES)} expected (a side each)")
        if header.compressed and shutil.which("sph2pipe") is None:
            faults.append(f"{path}: shorten-compressed; install sph2pipe (LDC) and put it on PATH")
        if len(faults) > before:
            continue
        for channel, side in enumerate(SIDES, start=1):
            specs[f"{name}-{side}"] = _command(path, header, channel)
            seconds[f"{name}-{side}"] = header.seconds
    hand_over(faults, bad)
    return specs, seconds


def side_tables(specs: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """wav.scp and reco2file_and_channel of call sides `<file>-<A|B>`."""
    return {"wav.scp": dict(specs), "reco2file_and_channel": {s: f"{s[:-2]} {s[-1]}" for s in specs}}


def _command(path: Path, header: Header, channel: int) -> str:
    quoted = shlex.quote(str(path.resolve()))
    if header.compressed:
        return f"sph2pipe -f wav -p -c {channel} {quoted} |"
    return f"python3 {shlex.quote(__file__)} {quoted} {channel} |"


def read_side(path: Path | str, channel: int) -> tuple[bytes, int]:
    """One channel (from 1) as a 16-bit wav file, and its rate.

    Raises:
        DataError: not a readable SPHERE file, or no such channel.
    """
    header = read_header(path)
    if header.compressed:
        raise DataError(f"{path}: shorten-compressed; use sph2pipe")
    if not 1 <= channel <= header.channels:
        raise DataError(f"{path}: channel {channel} asked, there are 1 to {header.channels}")
    data = io.BytesIO(Path(path).read_bytes()[header.size :])
    samples, _ = sf.read(
        data,
        dtype="int16",
        always_2d=True,
        format="RAW",
        subtype=header.coding,
        channels=header.channels,
        samplerate=header.rate,
        endian="BIG" if header.big_endian else "LITTLE",
    )
    out = io.BytesIO()
    sf.write(out, samples[: header.samples, channel - 1], header.rate, format="WAV", subtype="PCM_16")
    return out.getvalue(), header.rate


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Write one side of a call as wav to standard output."""
    parser = argparse.ArgumentParser(prog="python -m legonn_corpora.sphere", description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("channel", type=int, help="1: side A, 2: side B")
    args = parser.parse_args(cmd)
    wav, _ = read_side(args.file, args.channel)
    sys.stdout.buffer.write(wav)
    return 0


if __name__ == "__main__":
    sys.exit(main())
