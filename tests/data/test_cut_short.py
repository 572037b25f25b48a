"""A sound file that ends before its header says is a fault, whatever its format."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile as sf

from espnet2_legonn.data import audio
from espnet2_legonn.data.cut_short import missing
from espnet2_legonn.data.datadir import DataDir, validate
from espnet2_legonn.data.format_wav import Options, format_wav
from espnet2_legonn.errors import DataError

FORMATS = {
    "a.wav": {},
    "x.wav": {"format": "WAVEX"},
    "float.wav": {"subtype": "FLOAT"},
    "ulaw.wav": {"subtype": "ULAW"},
    "a.rf64": {"format": "RF64"},
    "a.w64": {},
    "a.aiff": {},
    "a.au": {},
    "a.caf": {},
    "a.sph": {"format": "NIST"},
    "a.flac": {},
    "a.ogg": {"format": "OGG", "subtype": "VORBIS"},
    "a.opus": {"format": "OGG", "subtype": "OPUS"},
    "a.mp3": {"format": "MP3"},
}


@pytest.mark.parametrize(("name", "options"), FORMATS.items(), ids=FORMATS)
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_every_format(tmp_path, name, options, part):
    wave = np.random.default_rng(0).normal(0, 0.1, 16000)
    sf.write(tmp_path / name, wave, 16000, **options)
    whole = (tmp_path / name).read_bytes()
    assert missing(io.BytesIO(whole)) == 0
    assert audio.seconds(str(tmp_path / name)) == pytest.approx(1.0, abs=0.1)
    assert abs(len(audio.read_audio(str(tmp_path / name))[0]) - 16000) < 1200
    (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
    for read in (audio.read_audio, audio.seconds):
        with pytest.raises(DataError, match=f"{name}' is cut short|cannot decode"):
            read(str(tmp_path / name))


def test_the_message_says_how_much_is_there(tmp_path, tone):
    path = tone("a.wav", 2.0)
    path.write_bytes(path.read_bytes()[:32044])
    with pytest.raises(DataError, match="is cut short: its header promises 2.00 s, 1.00 s can be read; get it again"):
        audio.read_audio(str(path))
    with pytest.raises(DataError, match="its header promises 2.00 s, 1.00 s"):
        audio.read_audio(f"cat {path} |")


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_size_that_nobody_knew_is_none(size):
    """Programs that write to a pipe put such numbers there."""
    head = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    assert missing(io.BytesIO(head + b"data" + struct.pack("<I", size) + bytes(200))) == 0
    assert missing(io.BytesIO(head + b"LIST\4\0\0\0abcddata" + struct.pack("<I", 400) + bytes(200))) == 0.5


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"NIST_1A\n   x\n", b"OggS", b"text", b"caff"])
def test_what_has_no_header_is_left_to_the_decoder(data):
    assert missing(io.BytesIO(data)) in (0.0, 1.0)


def test_validate_and_format_say_the_same(tmp_path, write, tone):
    path = tone("b.wav", 2.0)
    path.write_bytes(path.read_bytes()[:32044])
    folder = write("d", {"wav.scp": f"a {tone('a.wav')}\nb {path}\n", "text": "a x\nb y\n", "utt2spk": "a a\nb b\n"})
    with pytest.raises(DataError, match="d/wav.scp:2: 'b': .* is cut short"):
        validate(folder, durations=audio.seconds)
    with pytest.raises(DataError, match="d/wav.scp:2: utterance 'b' .* is cut short"):
        format_wav(folder, tmp_path / "out", Options())
    report = format_wav(folder, tmp_path / "out", Options(), skip_bad=True)
    assert len(report.bad) == 1 and list(DataDir(tmp_path / "out").table("text")) == ["a"]


def test_headerless_sound_is_no_traceback(tmp_path):
    (tmp_path / "x.raw").write_bytes(bytes(2000))
    for read in (audio.read_audio, audio.seconds):
        with pytest.raises(DataError, match="cannot decode .*x.raw.*ffmpeg"):
            read(str(tmp_path / "x.raw"))


def test_nothing_is_left_of_a_sample(tmp_path, write, tone):
    sf.write(tmp_path / "one.wav", np.zeros(1), 48000)
    folder = write("d", {"wav.scp": f"u1 {tmp_path / 'one.wav'}\nu2 {tone('b.wav')}\n", "utt2spk": "u1 u1\nu2 u2\n"})
    with pytest.raises(DataError, match="wav.scp:1: utterance 'u1' .*1 samples at 48000 Hz are too short: none is"):
        format_wav(folder, tmp_path / "out", Options(fs=16000))


def test_a_segment_is_cut_from_the_front_only(tone):
    for start, end in ((-0.5, 1.9), (0.5, -0.2), (0.5, 0.5), (float("nan"), 1)):
        with pytest.raises(DataError, match="0 <= start < end is needed"):
            audio.cut(np.zeros(100), 100, start, end)


def test_shortened_segments_are_counted(tmp_path, write, tone):
    files = {"wav.scp": f"r {tone('r.wav')}\n", "segments": "a r 0 1.004\nb r 0.5 1.4\n", "utt2spk": "a a\nb b\n"}
    told = str(format_wav(write("d", files), tmp_path / "out", Options()))
    assert "1 segments end up to 0.5 s beyond their recording, shortened" in told
    assert "1 segments end" in str(format_wav(tmp_path / "d", tmp_path / "out", Options()))  # what is kept counts, too
