"""Europarl-ST: pairs united, splits disjoint, m4a decoded once, texts, and what the reader refuses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

pytest.importorskip("av", reason="m4a is written and read with PyAV (extra corpora)")

from espnet2_legonn.data.datadir import DataDir, validate
from espnet2_legonn.data.text import normalize
from espnet2_legonn.errors import DataError
from legonn_corpora import m4a
from legonn_corpora.europarl_st import Options, Part, Segment, main, read_corpus, unite
from legonn_corpora.speech import Tally
from tests.corpora import fixtures_europarl_st
from tests.corpora.fixtures_europarl_st import LENGTH, ONLY_FRENCH
from tests.says import Says


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixtures_europarl_st.write(tmp_path_factory.mktemp("europarl"))


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    return shutil.copytree(corpus, tmp_path / "corpus" / "v1.1")


def test_one_pair(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], says: Says) -> None:
    told = says(main, ["--corpus", str(corpus), "--out", str(tmp_path)])
    assert "audio: 4 speeches decoded, 0 kept from before" in told and "pairs: en to de" in told
    assert f"{tmp_path}/train: 12 utterances, 0.01 h, 2 speakers" in told
    for split, number in (("train", 12), ("dev", 6), ("test", 6)):
        assert validate(tmp_path / split) == number
        assert f"{tmp_path}/{split}/text: sha256 " in told
    train = DataDir(tmp_path / "train")
    utt = "4711-en.20090101.31.3-243_00001537-00003074"
    assert train.table("segments")[utt] == "en.20090101.31.3-243 1.537 3.074"
    assert train.table("utt2spk")[utt] == "4711"  # what is behind the last _ of MEP_4711
    raw = (corpus / "en/de/train/segments.en").read_text().splitlines()
    assert train.table("text")[utt] == normalize(raw[1], "lc.rm") != raw[1]
    info = sf.info(train.table("wav.scp")["en.20090101.31.3-243"])
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    assert info.duration == pytest.approx(6 * LENGTH, abs=0.2)

    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert main(["--corpus", str(corpus), "--out", str(tmp_path)]) == 0
    assert "audio: 0 speeches decoded, 4 kept from before" in capsys.readouterr().out
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_all_pairs(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], says: Says) -> None:
    told = says(main, ["--corpus", str(corpus.parent), "--out", str(tmp_path), "--pairs", "all", "--suffix", "_ep"])
    assert (
        "train: segments: 33\ntrain: dropped, overlaps an earlier pair: 4\ntrain: dropped, in an earlier pair: 10"
        in told
    )
    table = DataDir(tmp_path / "train_ep").table("segments")
    assert len(table) == 12 + 7 and sum(ONLY_FRENCH in utt for utt in table) == 7
    assert main(["--corpus", str(corpus), "--out", str(tmp_path), "--pairs", "xx"]) == 2
    assert "no pair with xx; there are de, fr" in capsys.readouterr().err
    assert main(["--corpus", str(corpus), "--out", str(tmp_path / "tc"), "--treatment", "tc"]) == 0
    first = next(iter(DataDir(tmp_path / "tc/train").table("text").values()))
    assert first == (corpus / "en/de/train/segments.en").read_text().splitlines()[0]


def test_union_prefers_the_earlier_pair() -> None:
    def part(*times: tuple[float, float]) -> Part:
        return Part({"s": "1"}, [Segment("s", a, b, f"{a}-{b}", "") for a, b in times])

    tally, faults = Tally("train"), []
    joined = unite(
        [part((0, 2), (4, 6)), part((0, 2), (1.95, 4), (5, 7), (8, 9)), part((8, 9), (2, 4.05))], tally, faults
    )
    assert [s.text for s in joined.segments] == ["0-2", "1.95-4", "4-6", "8-9"]
    assert tally.counts == {"dropped, in an earlier pair": 2, "dropped, overlaps an earlier pair": 2}
    other = Part({"s": "2"}, [])
    unite([part((0, 1)), other], tally, faults)
    assert faults == ["speech 's': speaker '1' in one pair, '2' in another"]


@pytest.mark.parametrize("share", ["speaker", "speech"])
def test_splits_are_disjoint(
    copy: Path, tmp_path: Path, share: str, capsys: pytest.CaptureFixture[str], says: Says
) -> None:
    train, test = copy / "en/de/train", copy / "en/de/test"
    if share == "speaker":
        (test / "speakers.lst").write_text("MEP_4711\n")
        wanted = "speaker '4711' of speech 'en.20090101.31.3-243' is in train and in test"
    else:
        for name in ("speeches.lst", "speakers.lst", "segments.lst", "segments.en", "segments.de"):
            number = 1 if name.startswith("spe") else 6
            lines = (train / name).read_text().splitlines(keepends=True)[:number]
            (test / name).write_text("".join(lines))
        wanted = "speech 'en.20090101.31.3-243' is in train and in test"
    out = tmp_path / "out"
    told = says(main, ["--corpus", str(copy), "--out", str(out)], 2)
    assert wanted in told and "--on_overlap drop takes them out of train" in told and not out.exists()
    assert main(["--corpus", str(copy), "--out", str(out), "--on_overlap", "drop"]) == 0
    assert "train: dropped, speech or speaker of another split: 6" in capsys.readouterr().out
    assert validate(out / "train") == 6 and validate(out / "test") == 6


# ---- audio


def test_ends_beyond_the_audio(copy: Path, tmp_path: Path, says: Says) -> None:
    path = copy / "en/de/test/segments.lst"
    lines = path.read_text().splitlines()
    last = lines[-1].split()
    path.write_text("\n".join([*lines[:-1], f"{last[0]} {last[1]} {float(last[2]) + 0.4}"]) + "\n")
    assert "test: ends clipped to the audio: 1" in says(main, ["--corpus", str(copy), "--out", str(tmp_path / "out")])
    data = DataDir(tmp_path / "out/test")
    end = float(list(data.table("segments").values())[-1].split()[2])
    assert end <= sf.info(data.table("wav.scp")[last[0]]).duration < end + 0.001
    path.write_text("\n".join([*lines[:-1], f"{last[0]} {last[1]} {float(last[2]) + 2}", f"{last[0]} 90 91"]) + "\n")
    for lang in ("en", "de"):
        with (copy / f"en/de/test/segments.{lang}").open("a") as stream:
            stream.write("more\n")
    told = says(main, ["--corpus", str(copy), "--out", str(tmp_path / "bad")], 2)
    assert f"{path}:6: {last[1]} to " in told and f"{path}:7: 90 to 91 s, " in told
    assert not (tmp_path / "bad/train").exists()


def test_audio_is_converted_again_when_its_source_is_newer(corpus: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(next((corpus / "en/audios").glob("*.m4a")), tmp_path / "a.m4a"))
    dest = tmp_path / "out/a.flac"
    assert m4a.convert_all({source: dest}, 16000) == 1
    assert m4a.convert_all({source: dest}, 16000) == 0
    os.utime(source, (dest.stat().st_mtime + 10,) * 2)
    assert m4a.convert_all({source: dest}, 16000) == 1
    assert [p.name for p in dest.parent.iterdir()] == ["a.flac"]


def test_what_is_no_audio(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.m4a").write_bytes(b"no audio at all")
    files = {tmp_path / f"{n}.m4a": tmp_path / f"{n}.flac" for n in "ab"}
    with pytest.raises(DataError) as error:
        m4a.convert_all(files, 16000)
    assert len(error.value.faults) == 2 and "a.m4a: cannot be decoded" in error.value.faults[0]
    assert not list(tmp_path.glob("*.flac")) and not list(tmp_path.glob(".*"))


def test_decoders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, corpus: Path) -> None:
    assert m4a.choose_decoder("auto") == "av"
    monkeypatch.setattr(m4a.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match=r"decoder ffmpeg: not installed; pip install 'espnet2_legonn\[corpora\]'"):
        m4a.choose_decoder("ffmpeg")
    monkeypatch.setattr(m4a.shutil, "which", lambda name: "/usr/bin/ffmpeg")
    monkeypatch.setattr(m4a.importlib.util, "find_spec", lambda name: None)
    assert m4a.choose_decoder("auto") == "ffmpeg"


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_ffmpeg_decodes_the_same(corpus: Path, tmp_path: Path) -> None:
    source = next((corpus / "en/audios").glob("*.m4a"))
    sounds = []
    for decoder in ("av", "ffmpeg"):
        m4a.convert(source, tmp_path / f"{decoder}.flac", 16000, decoder)
        sounds.append(sf.read(tmp_path / f"{decoder}.flac")[0])
    size = min(map(len, sounds))
    assert abs(len(sounds[0]) - len(sounds[1])) <= 2048
    assert np.abs(sounds[0][:size] - sounds[1][:size]).max() < 0.02


# ---- text


SENTENCES = (
    "Madam President, I should like to thank the rapporteur for this work.",
    "It's 5% – don\u2019t you think so? (Applause)",
    "The well-known Members' \u201cold\u201d proposals: EUR 50 000, e.g. 3.5 million...",
    "They'll say they've done what we'd asked; that isn't true!",
)


@pytest.mark.parametrize("text", SENTENCES)
def test_tokenising_before_changes_no_word(text: str) -> None:
    """The paper tokenises, then strips punctuation; with suffixes joined again that is lc.rm."""
    sacremoses = pytest.importorskip("sacremoses")
    from legonn_corpora.tedlium import join_suffixes

    tokens = sacremoses.MosesTokenizer("en").tokenize(text.replace("\u2019", "'"), escape=False)
    assert normalize(" ".join(join_suffixes(tokens)), "lc.rm") == normalize(text, "lc.rm")


def test_golden_texts() -> None:
    assert [normalize(text, "lc.rm") for text in SENTENCES] == [
        "madam president i should like to thank the rapporteur for this work",
        "it's 5 don't you think so applause",
        "the well known members old proposals eur 50 000 e g 3 5 million",
        "they'll say they've done what we'd asked that isn't true",
    ]


# ---- faults


def append(name: str, line: bytes) -> Callable[[Path], None]:
    def change(part: Path) -> None:
        with (part / name).open("ab") as stream:
            stream.write(line)

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda part: (part / "segments.de").unlink(), "train/segments.de: no such file"),
        (lambda part: (part / "speakers.lst").unlink(), "train/speakers.lst: no such file"),
        (
            append("segments.en", b"One more.\n"),
            "differ in length: segments.lst 12, segments.en 13, segments.de 12; look",
        ),
        (append("segments.lst", b"en.20090101.31.3-243 1 2 3\n"), "segments.lst:13: 4 fields; <speech> <start> <end>"),
        (append("segments.lst", b"en.20090101.31.3-243  1 2\n"), "segments.lst:13: 4 fields; <speech> <start> <end>"),
        (append("segments.lst", b"en.20090101.31.3-243 1 x\n"), "segments.lst:13: '1' and 'x' are no times"),
        (append("segments.lst", b"en.20090101.31.3-243 2 1\n"), "segments.lst:13: segment 2 to 1 s"),
        (append("segments.lst", b"en.99 1 2\n"), "segments.lst:13: speech 'en.99' is not in speeches.lst"),
        (
            append("segments.lst", b"en.20090101.31.3-243 0 1.537\n"),
            "segments.lst:13: 'en.20090101.31.3-243 0 1.537' repeats",
        ),
        (append("segments.en", b"caf\xe9\n"), "segments.en:13: not UTF-8 (byte 4)"),
        (append("speeches.lst", b"en.20090101.31.3-243\n"), "differ in length: speeches.lst 3, speakers.lst 2"),
    ],
)
def test_damaged_files(copy: Path, change: Callable[[Path], None], fault: str) -> None:
    change(copy / "en/de/train")
    with pytest.raises(DataError) as error:
        read_corpus(copy, Options())
    assert any(fault in f for f in error.value.faults), error.value.faults


def test_all_faults_at_once(copy: Path, capsys: pytest.CaptureFixture[str], says: Says, tmp_path: Path) -> None:
    append("segments.lst", b"en.99 1 2\n")(copy / "en/de/train")
    (copy / "en/audios/en.20110405.17-101.m4a").unlink()
    (copy / "en/de/dev/speakers.lst").write_text("MEP_\n")
    told = says(main, ["--corpus", str(copy), "--out", str(tmp_path / "out")], 2)
    assert "train/segments.lst:13: " in told and "en.20110405.17-101.m4a: no such file; test has" in told
    assert "dev/speakers.lst:1: 'MEP_' has no speaker id" in told and not (tmp_path / "out").exists()
    assert main(["--corpus", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no v1.1/en/audios; is Europarl-ST v1.1 unpacked there?" in capsys.readouterr().err
