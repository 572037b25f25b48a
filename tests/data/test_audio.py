from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile as sf

from espnet2_legonn.data import audio
from espnet2_legonn.errors import DataError


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.flac", {}), ("a.wav", {}), ("a.ogg", {"format": "OGG", "subtype": "VORBIS"}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}), ("a.mp3", {"format": "MP3"}),
        ("a.sph", {"format": "NIST"}),
    ],
)  # fmt: skip
def test_formats(tmp_path, name, options):
    sf.write(tmp_path / name, 0.3 * np.sin(np.arange(16000) / 10), 16000, **options)
    samples, rate = audio.read_audio(str(tmp_path / name))
    assert rate == 16000 and samples.shape[1] == 1 and abs(len(samples) - 16000) < 1200
    assert samples.dtype == np.float32
    assert audio.seconds(str(tmp_path / name)) == pytest.approx(1.0, abs=0.1)


def test_a_trailing_pipe_is_a_command_and_nothing_else_is(tmp_path, tone):
    path = tone("a.wav")
    samples, _ = audio.read_audio(f"cat {path} | cat |")
    assert len(samples) == 16000
    assert audio.seconds(f"cat {path} |") is None
    with pytest.raises(DataError, match="no such file"):
        audio.read_audio(f"cat {path} > {tmp_path}/made")
    assert not (tmp_path / "made").exists()


def test_a_stream_of_unknown_length(tmp_path):
    pcm = np.arange(100, dtype="<i2")
    head = (
        b"RIFF\xff\xff\xff\xffWAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
        + b"data\xff\xff\xff\xff"
    )
    (tmp_path / "x").write_bytes(head + pcm.tobytes())
    samples, rate = audio.read_audio(f"cat {tmp_path}/x |")
    assert rate == 8000 and np.array_equal(samples[:, 0] * 32768, pcm)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{0}/none.wav", "no such file .paths in wav.scp are relative"),
        ("{0}/text.wav", "cannot decode .*text.wav.*ffmpeg"),
        ("{0}/empty.wav", "empty.wav' has no samples"), ("{0}/nan.wav", "has 2 NaN or infinite samples"),
        ("echo oops >&2; exit 3 |", "exit 3: oops"), ("true |", "command 'true' gave 0 bytes"),
    ],
)  # fmt: skip
def test_unusable_audio(tmp_path, spec, message):
    (tmp_path / "text.wav").write_text("not audio")
    sf.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    sf.write(tmp_path / "nan.wav", np.array([0, np.nan, np.inf]), 16000, subtype="FLOAT")
    with pytest.raises(DataError, match=message):
        audio.read_audio(spec.format(tmp_path))


def test_seconds_of_something_else(tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(DataError, match="cannot decode"):
        audio.seconds(str(tmp_path / "text.wav"))


def test_mono_is_a_choice():
    stereo = np.array([[1.0, 0.0], [0.5, 0.5]], dtype=np.float32)
    assert audio.to_mono(stereo, "mean").tolist() == [0.5, 0.5]
    assert audio.to_mono(stereo, "1").tolist() == [0.0, 0.5]
    assert audio.to_mono(stereo[:, :1], None).tolist() == [1.0, 0.5]
    with pytest.raises(DataError, match="has 2 channels, 1 expected; choose with --channel"):
        audio.to_mono(stereo, None)
    with pytest.raises(DataError, match="--channel 2 asked; use mean or 0..1"):
        audio.to_mono(stereo, "2")


def test_cut():
    samples = np.arange(100)
    assert audio.cut(samples, 100, 0.1, 0.3).tolist() == list(range(10, 30))
    assert len(audio.cut(samples, 100, 0.25, -1)) == 75
    assert len(audio.cut(samples, 100, 0.5, 1.4)) == 50  # Kaldi's tolerance
    with pytest.raises(DataError, match="segment 0-1.6 s is beyond the recording's 1.00 s"):
        audio.cut(samples, 100, 0, 1.6)
    with pytest.raises(DataError, match="segment 1-1.2 s is beyond"):
        audio.cut(samples, 100, 1.0, 1.2)
    with pytest.raises(DataError, match="segment 0.5-0.501 s has no samples at 100 Hz"):
        audio.cut(samples, 100, 0.5, 0.501)


def peak(samples, rate):
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * rate / len(samples)


def test_rate_and_speed():
    wave = np.sin(2 * np.pi * 500 * np.arange(8000) / 8000).astype(np.float32)
    up = audio.change_rate(wave, 8000, 16000)
    assert abs(len(up) - 16000) <= 1 and peak(up, 16000) == pytest.approx(500, abs=3)
    slow = audio.change_rate(wave, 8000, 8000, 0.9)
    assert abs(len(slow) - 8000 / 0.9) <= 1 and peak(slow, 8000) == pytest.approx(450, abs=3)
    assert audio.change_rate(wave, 8000, 8000) is wave


def test_sixteen_bits_survive_exactly(tmp_path):
    pcm = np.array([-32768, -32767, -20000, -1, 0, 1, 20001, 32766, 32767], dtype=np.int16)
    sf.write(tmp_path / "a.wav", pcm, 8000, subtype="PCM_16")
    back, clipped = audio.to_int16(audio.read_audio(str(tmp_path / "a.wav"))[0][:, 0])
    assert np.array_equal(back, pcm) and clipped == 0
    assert audio.to_int16(np.array([1.5, -1.5, 0.0]))[1] == 2


@pytest.mark.parametrize(("text", "fs"), [("16000", 16000), ("16k", 16000), ("44.1k", 44100)])
def test_sampling_rates(text, fs):
    assert audio.parse_fs(text) == fs


@pytest.mark.parametrize("text", ["16", "fast", "", "k", "nan"])
def test_faulty_sampling_rates(text):
    with pytest.raises(DataError, match="write Hz or kHz"):
        audio.parse_fs(text)
