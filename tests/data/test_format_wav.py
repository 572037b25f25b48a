from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile as sf

from espnet2_legonn.data.datadir import DataDir, validate
from espnet2_legonn.data.format_wav import MANIFEST, Options, format_wav
from espnet2_legonn.data.perturb import perturb
from espnet2_legonn.errors import DataError


@pytest.fixture
def source(write, tone, good):
    good["wav.scp"] = f"r1 {tone('r1.wav', 1.0)}\nr2 cat {tone('r2.wav', 0.5)} |\n"
    return write("d", good)


def samples_of(folder):
    return {utt: sf.info(path).frames for utt, path in DataDir(folder).table("wav.scp").items()}


@pytest.mark.parametrize("nj", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_segments_are_cut_and_counted(tmp_path, source, nj):
    report = format_wav(source, tmp_path / "out", Options(fs=8000), nj=nj)
    assert validate(tmp_path / "out") == 3
    data = DataDir(tmp_path / "out")
    assert samples_of(data.path) == {"a-1": 3200, "a-2": 4800, "b-1": 4000}
    assert {u: int(n) for u, n in data.table("utt2num_samples").items()} == samples_of(data.path)
    info = sf.info(data.table("wav.scp")["a-1"])
    assert (info.format, info.subtype, info.samplerate) == ("FLAC", "PCM_16", 8000)
    assert not data.has("segments") and data.has("text") and data.has("spk2gender")
    assert (data.path / "feats_type").read_text() == "raw\n" and (data.path / "audio_format").read_text() == "flac\n"
    assert report.written == 3 and "wrote 3, kept 0 from before" in str(report) and "3 at 16000 Hz" in str(report)


def test_untouched_audio_is_bit_exact(tmp_path, write):
    pcm = np.random.default_rng(0).integers(-32768, 32768, 4000).astype(np.int16)
    sf.write(tmp_path / "x.wav", pcm, 16000, subtype="PCM_16")
    folder = write("d", {"wav.scp": f"u {tmp_path}/x.wav\n", "utt2spk": "u u\n"})
    format_wav(folder, tmp_path / "out", Options(audio_format="wav"))
    back, _ = sf.read(DataDir(tmp_path / "out").table("wav.scp")["u"], dtype="int16")
    assert np.array_equal(back, pcm)


def test_speed_is_applied_here(tmp_path, source):
    perturb(source, tmp_path / "sp", ["0.9", "1.0"])
    format_wav(tmp_path / "sp", tmp_path / "out", Options())
    counts = samples_of(tmp_path / "out")
    assert counts["a-1"] == 6400 and counts["sp0.9-a-1"] == pytest.approx(6400 / 0.9, abs=1)
    assert not DataDir(tmp_path / "out").has("utt2speed") and DataDir(tmp_path / "out").has("utt2uniq")


def test_a_second_run_does_only_what_is_missing(tmp_path, source):
    out = tmp_path / "out"
    format_wav(source, out, Options())
    paths = DataDir(out).table("wav.scp")
    stamps = {utt: (tmp_path / path).stat().st_mtime_ns for utt, path in paths.items()}
    (tmp_path / paths["a-2"]).unlink()
    with open(out / MANIFEST, "a") as stream:
        stream.write('{"utt": "b-1", "dig')  # a run that was killed while writing
    half = (tmp_path / paths["a-2"]).with_name(".a-2.flac.xyz.tmp")
    half.touch()
    report = format_wav(source, out, Options())
    assert (report.written, report.kept) == (1, 2) and not half.exists()
    assert (tmp_path / paths["a-1"]).stat().st_mtime_ns == stamps["a-1"]
    assert format_wav(source, out, Options()).written == 0
    assert format_wav(source, out, Options(fs=8000)).written == 3  # another rate: all anew
    assert all(json.loads(line) for line in (out / MANIFEST).read_text().splitlines())


def test_changed_source_is_formatted_again(tmp_path, source, tone):
    format_wav(source, tmp_path / "out", Options())
    tone("r1.wav", 1.2)
    assert format_wav(source, tmp_path / "out", Options()).written == 2


def test_every_faulty_utterance_is_named_and_good_ones_are_kept(tmp_path, write, tone):
    stereo, short = tone("s.wav", channels=2), tone("t.wav", 0.2)
    files = {
        "wav.scp": f"a {tone('a.wav')}\nb {tmp_path}/none.wav\nc {stereo}\nd {short}\n",
        "segments": "a a 0 1\nb b 0 1\nc c 0 1\nd d 0 9\n",
        "utt2spk": "a a\nb b\nc c\nd d\n",
    }
    folder = write("d", files)
    with pytest.raises(DataError) as caught:
        format_wav(folder, tmp_path / "out", Options())
    text = str(caught.value)
    assert "utterance 'b'" in text and "no such file" in text
    assert "utterance 'c'" in text and "2 channels" in text
    assert "utterance 'd'" in text and "segment 0-9 s is beyond" in text
    assert not (tmp_path / "out" / "wav.scp").exists()
    report = format_wav(folder, tmp_path / "out", Options(), skip_bad=True)
    assert (report.kept, len(report.bad)) == (1, 3) and "dropped 3 (--skip_bad)" in str(report)
    assert len((tmp_path / "out" / "dropped.txt").read_text().splitlines()) == 3
    assert list(DataDir(tmp_path / "out").table("utt2spk")) == ["a"]


def test_mixed_rates_need_a_decision(tmp_path, write, tone):
    wavs = f"a {tone('a.wav')}\nb {tone('b.wav')}\nc {tone('c.wav', fs=8000)}\n"
    folder = write("d", {"wav.scp": wavs, "utt2spk": "a a\nb b\nc c\n"})
    with pytest.raises(DataError, match="'c': sampling rate 8000 Hz found, 16000 Hz expected .*--fs 16000"):
        format_wav(folder, tmp_path / "out", Options())
    format_wav(folder, tmp_path / "out", Options(fs=16000))
    assert set(samples_of(tmp_path / "out").values()) == {16000}


def test_clipping_is_counted(tmp_path, write):
    sf.write(tmp_path / "x.wav", np.array([0.0, 1.5, 0.2]), 8000, subtype="FLOAT")
    folder = write("d", {"wav.scp": f"u {tmp_path}/x.wav\n", "utt2spk": "u u\n"})
    assert "1 utterances had samples beyond full scale" in str(format_wav(folder, tmp_path / "out", Options()))


def test_faulty_requests(tmp_path, write):
    with pytest.raises(DataError, match="audio format 'mp3': choose one of flac, wav"):
        format_wav(tmp_path, tmp_path / "out", Options(audio_format="mp3"))
    with pytest.raises(DataError, match="a/wav.scp: no such file; it is needed here"):
        format_wav(write("a", {"utt2spk": "a a\n"}), tmp_path / "out", Options())
    with pytest.raises(DataError, match="wav.scp:1: 'x/y': an id names files, so it holds no /"):
        format_wav(write("b", {"wav.scp": "x/y f\n"}), tmp_path / "out", Options())
