"""Tables as users of Kaldi and ESPnet have them: sound in archives, several channels, lines in another order."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from espnet2_legonn.data import audio
from espnet2_legonn.data.cli import main
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.data.walk import files_below
from espnet2_legonn.errors import DataError
from tests.data.conftest import Write

kaldiio = pytest.importorskip("kaldiio")
FS = 16000


def waves() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"a-{i}": (3000 * rng.standard_normal(4000 + i)).astype(np.int16) for i in range(2)}


def write_archive(folder: Path, kind: str) -> dict[str, str]:
    """wav.scp as ESPnet's format_wav_scp.py writes it."""
    ark, scp = folder / f"data.{kind}.ark", folder / f"{kind}.scp"
    options = {} if kind == "wav" else {"write_function": "soundfile", "write_kwargs": {"format": kind}}
    kaldiio.save_ark(str(ark), {k: (FS, v) for k, v in waves().items()}, scp=str(scp), **options)
    return read_table(scp)


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_sound_in_an_archive(tmp_path: Path, kind: str) -> None:
    for utt, spec in write_archive(tmp_path, kind).items():
        samples, rate = audio.read_audio(spec)
        assert rate == FS and np.array_equal(audio.to_int16(samples[:, 0])[0], waves()[utt])
        assert audio.seconds(spec, FS) == len(waves()[utt]) / FS


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_format_reads_archives(tmp_path: Path, kind: str, write: Write) -> None:
    specs = write_archive(tmp_path, kind)
    rows = {"wav.scp": specs, "text": dict.fromkeys(specs, "x"), "utt2spk": dict.fromkeys(specs, "a")}
    data = write("data", {name: "".join(f"{k} {v}\n" for k, v in table.items()) for name, table in rows.items()})
    assert main(["format", str(data), str(tmp_path / "out"), "--fs", "16k"]) == 0
    assert read_table(tmp_path / "out" / "utt2num_samples") == {k: str(len(v)) for k, v in waves().items()}


def test_what_is_no_sound_in_an_archive(tmp_path: Path) -> None:
    kaldiio.save_ark(str(tmp_path / "f.ark"), {"a": np.zeros((3, 2), np.float32)}, scp=str(tmp_path / "f.scp"))
    spec = read_table(tmp_path / "f.scp")["a"]
    with pytest.raises(DataError, match="no sound is stored there, but a matrix: features"):
        audio.read_audio(spec)
    (tmp_path / "p.ark").write_bytes(b"a PKL\x80\x04.")  # kaldiio would unpickle it
    with pytest.raises(DataError, match="no sound is stored there"):
        audio.read_audio(f"{tmp_path}/p.ark:2")
    whole = write_archive(tmp_path, "flac")["a-1"]
    ark = audio.archive_of(whole)
    assert ark is not None
    ark.write_bytes(ark.read_bytes()[:-50])
    with pytest.raises(DataError, match="cut short"):
        audio.read_audio(whole)


def test_channel_of_format(tmp_path: Path, write: Write) -> None:
    two = np.stack([np.full(4000, 0.25), np.full(4000, 0.5)], axis=1)
    sf.write(tmp_path / "two.wav", two, FS)
    data = write("data", {"wav.scp": f"a-1 {tmp_path}/two.wav\n", "text": "a-1 x\n", "utt2spk": "a-1 a\n"})
    for channel, level in (("0", 0.25), ("1", 0.5), ("mean", 0.375)):
        assert main(["format", str(data), str(tmp_path / channel), "--fs", "16k", "--channel", channel]) == 0
        samples, _ = audio.read_audio(read_table(tmp_path / channel / "wav.scp")["a-1"])
        assert samples[0, 0] == pytest.approx(level, abs=1e-4)
    assert main(["format", str(data), str(tmp_path / "none"), "--fs", "16k"]) == 2


def test_unsorted_tables_are_sorted_and_it_is_said_once(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    data = write("data", {"src_text": "a-2 x\na-1 x\n", "text": "a-2 y\na-1 y\n", "utt2spk": "a-2 a\na-1 a\n"})
    with caplog.at_level(logging.WARNING):
        assert main(["subset", str(data), str(tmp_path / "out"), "--first", "1"]) == 0
    assert list(read_table(tmp_path / "out" / "text")) == ["a-1"]
    assert len([r for r in caplog.records if "not in byte order" in r.message]) == 1


def test_linked_folders_are_entered_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "disc").mkdir()
    (tmp_path / "disc" / "x.sph").write_text("")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "d1").symlink_to(tmp_path / "disc")
    (tmp_path / "disc" / "loop").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "nowhere").symlink_to(tmp_path / "gone")
    assert files_below(tmp_path / "corpus") == [tmp_path / "corpus" / "d1" / "x.sph"]


def test_pairs_of_texts_as_espnet_names_them(tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {"text.tc.de": "Ja .", "text.tc.en": "Yes .", "text.lc.rm.en": "yes", "utt2spk": "a"}
    data = write("data", {name: f"a-1 {value}\n" for name, value in texts.items()})
    assert main(["copy", str(data), str(tmp_path / "out"), "--pair", "text.tc.de", "text.tc.en"]) == 0
    assert read_table(tmp_path / "out" / "src_text") == {"a-1": "Ja ."}
    assert read_table(tmp_path / "out" / "text") == {"a-1": "Yes ."}
    assert not (tmp_path / "out" / "text.tc.de").exists()
    assert main(["copy", str(data), str(tmp_path / "none"), "--pair", "text.tc.fr", "text.tc.en"]) == 2
    assert "text.tc.fr: no such file" in capsys.readouterr().err
