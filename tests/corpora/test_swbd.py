"""Switchboard-1: text rules, duplicates, ids, faults; and the side of a call out of a SPHERE file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from espnet2_legonn.data.audio import read_audio
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import DataError
from legonn_corpora import sphere, swbd
from legonn_corpora.speech import Tally
from legonn_corpora.swbd import limit_duplicates, read_transcripts
from legonn_corpora.swbd_text import clean, final, letters, map_acronyms, map_word, read_acronyms
from tests.corpora.fixtures_swbd import DICTIONARY, FREQUENT, calls, write_corpus, write_sphere, write_swbd1
from tests.says import Says

SMALL = ["--dev", "8", "--max_duplicates", "3"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("swbd"), count=4)


@pytest.fixture
def corpus(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "SWBD"))


def trans(corpus: Path, side: str = "2001A") -> Path:
    folder = corpus / "LDC97S62" / "transcriptions" / "swb_ms98_transcriptions" / "20" / side[:4]
    return folder / f"sw{side}-ms98-a-trans.text"


# ---- text rules


@pytest.mark.parametrize(
    ("word", "mapped"),
    [
        ("[laughter-story]", "story"), ("[LAUGHTER-Story]-", "Story-"), ("[it'n/isn't]", "it'n"),
        ("[lem[guini]-/linguini]", "lem-"), ("-[an]y", "-y"), ("[an]y", "-y"), ("ab[solute]-", "ab-"),
        ("ab[solute]", "ab-"), ("-[a]b[out]-", "-b-"), ("ex[specially]-/especially]", "ex"),
        ("{yuppiedom}", "yuppiedom"), ("ammu[n]it-", "ammu-it-"), ("them_1", "them"), ("them_1's", "them's"),
        ("[laughter-ab[solute]-]", "ab-"), ("[noise]", "[noise]"), ("[laughter]", "[laughter]"),
        ("[vocalized-noise]", "[vocalized-noise]"), ("uh-huh", "uh-huh"), ("plain", "plain"),
    ],
)  # fmt: skip
def test_words(word: str, mapped: str) -> None:
    assert map_word(word) == mapped


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[silence]", []), ("[SILENCE] so [silence]", ["so"]), ("<b_aside> hey <E_ASIDE> you", ["hey", "you"]),
        ("<b_aside> <e_aside> [silence]", []), ("[noise] th[eater]- [laughter-go]", ["[noise]", "th-", "go"]),
    ],
)  # fmt: skip
def test_texts(text: str, words: list[str]) -> None:
    assert clean(text) == words


@pytest.mark.parametrize(
    ("word", "spelled"), [("IBM", "i._b._m."), ("BBCs", "b._b._c.s"), ("TV's", "t._v.'s"), ("A", "a.")]
)
def test_letters_of_an_acronym(word: str, spelled: str) -> None:
    assert letters(word) == spelled


@pytest.fixture
def acronyms(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "dict").write_text(DICTIONARY)
    return read_acronyms(tmp_path / "dict")


def test_acronyms_of_the_dictionary(acronyms: dict[str, str]) -> None:
    assert len(acronyms) == 26 + 3, "IBM, BBCs, TV's and the letters"
    assert acronyms["IBM"] == "i._b._m." and acronyms["BBCs"] == "b._b._c.s" and acronyms["TV's"] == "t._v.'s"
    assert not {"AM", "is", "garden"} & set(acronyms)


@pytest.mark.parametrize(
    ("text", "fisher", "plain"),
    [
        ("i work for IBM", "i work for i._b._m.", "i work for i b m"),
        ("the BBCs and TV's", "the b._b._c.s and t._v.'s", "the b b cs and t v's"),
        ("I B M", "i. b. m.", "i b m"),
        ("A T and T", "a. t. and t.", "a t and t"),
        ("I think A I is AM", "i think a. i. is am", "i think a i is am"),
        ("AM [noise] ab-", "am [noise] ab-", "am [noise] ab-"),
    ],
)
def test_acronyms_in_texts(acronyms: dict[str, str], text: str, fisher: str, plain: str) -> None:
    assert map_acronyms(text.split(), acronyms) == fisher
    assert final(fisher) == plain


# ---- duplicates


def reference_rule(texts: list[str], most: int) -> list[int]:
    """The rule once more, word by word from its description."""
    state, kept = 0, []
    for i, text in enumerate(texts):
        n = texts.count(text)
        if n < most:
            kept.append(i)
            continue
        state = (state + 103349) % 71147
        if state / 71147 < most / n:
            kept.append(i)
    return kept


@pytest.mark.parametrize("most", [2, 3, 5, 100])
def test_duplicates_are_kaldis(most: int) -> None:
    rng = np.random.default_rng(most)
    texts = [str(w) for w in rng.choice(["uh-huh", "yeah", "right", "so what", *map(str, range(40))], 400)]
    found = limit_duplicates({f"u{i:03d}": text for i, text in enumerate(texts)}, most)
    assert found == {f"u{i:03d}" for i in reference_rule(texts, most)}


def test_duplicates_by_hand() -> None:
    """k is 32202, 64404, 25459, 57661, 18716 of 71147: .453 .905 .358 .810 .263; each is compared with 3 / 5."""
    texts = {f"u{i}": "yeah" for i in range(5)} | {"v0": "once", "v1": " once "}
    assert limit_duplicates(texts, 3) == {"u0", "u2", "u4", "v0", "v1"}


def test_as_many_as_allowed_are_all_kept_but_use_up_random_numbers() -> None:
    texts = {f"a{i}": "yeah" for i in range(3)} | {f"b{i}": "so" for i in range(6)}
    # With n = most the chance is 1, and the sequence goes on: b begins with the fourth number; half of them stay.
    half = {f"b{i}" for i in range(6) if (i + 4) * 32202 % 71147 < 71147 / 2}
    assert half and limit_duplicates(texts, 3) == {"a0", "a1", "a2"} | half


# ---- transcripts and tables


def test_tables_of_the_fixture(pristine: Path, tmp_path: Path, says: Says) -> None:
    said = says(swbd.main, ["--corpus", str(pristine), "--out", str(tmp_path), *SMALL])
    for line in (
        "audio files: 4", "sides: 8", "segments: 80", "dropped, nothing but silence (or shorter than 0.01 s): 8",
        "utterances: 72", "acronyms known: 29", "train_dev: 8", "train_nodev: 64", "dropped, text too frequent: 12",
        "train_nodup: 52",
    ):  # fmt: skip
        assert f"swbd: {line}\n" in said
    assert said.count("sha256") == 2 * 5
    names = ("text", "segments", "utt2spk", "wav.scp", "reco2file_and_channel")
    dev, train = ({name: read_table(tmp_path / s / name) for name in names} for s in ("train_dev", "train_nodup"))
    assert len(dev["text"]) == 8 and max(dev["text"]) < min(train["text"])
    assert list(dev["wav.scp"]) == ["sw02001-A"] and len(train["wav.scp"]) == 8
    assert train["reco2file_and_channel"]["sw02002-B"] == "sw02002 B"
    first = min(dev["text"])
    (line,) = [x for x in trans(pristine).read_text().splitlines() if "-0002 " in x]
    _, start, end, text = line.split(maxsplit=3)
    hundredths = [int(100 * float(t) + 0.5) for t in (start, end)]
    assert first == f"sw02001-A_{hundredths[0]:06d}-{hundredths[1]:06d}" and dev["text"][first] == text
    assert [float(t) * 100 for t in dev["segments"][first].split()[1:]] == pytest.approx(hundredths)
    assert set(dev["utt2spk"].values()) == {"sw02001-A"}
    texts = [*dev["text"].values(), *train["text"].values()]
    assert "[noise] so um do you usually go to the th- movies" in texts
    assert "just a minute i work for i b m [vocalized-noise]" in texts
    assert "the b b cs and i b m are a t and t" in texts
    assert not [t for t in texts if "." in t or "_" in t or t != t.lower()]
    # both of train_dev; of 14 draws the seventh and the ninth (.168, .074) are below 3 / 14
    assert texts.count(FREQUENT) == 2 + 2


def test_a_rerun_gives_the_same_files(pristine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert swbd.main(["--corpus", str(pristine), "--out", str(tmp_path), *SMALL]) == 0
    said = capsys.readouterr().out
    half = len(said) // 2
    assert said[:half] == said[half:]


def test_shipped_with_three_calls_less(monkeypatch: pytest.MonkeyPatch, corpus: Path, tmp_path: Path) -> None:
    """2,435 of 2,438 audio files are a known release: utterances of the others are dropped, not a fault."""
    next((corpus / "LDC97S62").rglob("sw02002.sph")).unlink()
    words = ["--corpus", str(corpus), "--out", str(tmp_path / "data"), *SMALL]
    assert swbd.main(words) == 2
    monkeypatch.setattr(swbd, "AUDIO_FILES", (3, 4))
    assert swbd.main(words) == 0
    assert set(read_table(tmp_path / "data" / "train_nodup" / "utt2spk").values()) == {
        f"sw0{n}-{side}" for n in (2001, 2003, 2004) for side in "AB"
    }


def damage(corpus: Path, what: str) -> None:
    path = trans(corpus)
    lines = path.read_bytes().split(b"\n")
    if what == "missing side":
        next((corpus / "LDC97S62").rglob("sw02002.sph")).unlink()
    elif what == "fields":
        lines[1] = b"sw2001A-ms98-a-0002 0.5"
    elif what == "times":
        lines[1] = b"sw2001A-ms98-a-0002 2.5 1.5 so"
    elif what == "not utf-8":
        lines[3] += b" caf\xe9"
    elif what == "duplicate":
        lines[4] = lines[3]
    elif what == "other side":
        lines[2] = lines[2].replace(b"2001A", b"2001B")
    elif what == "beyond":
        lines[9] = b"sw2001A-ms98-a-0010 100.000000 200.000000 so far"
    elif what == "no dictionary":
        (path.parents[2] / "sw-ms98-dict.text").unlink()
    elif what == "no transcripts":
        shutil.rmtree(path.parents[2])
    elif what == "no sphere":
        next((corpus / "LDC97S62").rglob("sw02002.sph")).write_bytes(b"RIFF and so on" * 9)
    if path.is_file():
        path.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing side", "sw2002A-ms98-a-trans.text:2: no audio file sw02002.sph for this side"),
        ("fields", "sw2001A-ms98-a-trans.text:2: <sw2001A-ms98-a-0001> <start> <end> <text> expected"),
        ("times", "sw2001A-ms98-a-trans.text:2: segment from 2.5 to 1.5 s"),
        ("not utf-8", "sw2001A-ms98-a-trans.text:4: not UTF-8"),
        ("duplicate", "sw2001A-ms98-a-trans.text:5: id sw02001-A_"),
        ("other side", "sw2001A-ms98-a-trans.text:3: sw2001B-ms98-a-0003 does not belong into this file"),
        ("beyond", "sw2001A-ms98-a-trans.text:10: the segment ends at 200.00 s, sw02001.sph lasts"),
        ("no dictionary", "sw-ms98-dict.text: no such file"),
        ("no transcripts", "no such folder; --download gets https://www.openslr.org/resources/5/"),
        ("no sphere", "sw02002.sph: not a NIST SPHERE file"),
    ],
)
def test_faults(corpus: Path, tmp_path: Path, says: Says, what: str, message: str) -> None:
    damage(corpus, what)
    said = says(swbd.main, ["--corpus", str(corpus), "--out", str(tmp_path / "data"), *SMALL], 2)
    assert said.startswith("DataError:\n") and message in said
    assert not (tmp_path / "data").exists()


def test_all_faults_at_once(corpus: Path) -> None:
    for what in ("fields", "not utf-8", "other side"):
        damage(corpus, what)
    with pytest.raises(DataError) as caught:
        read_transcripts(corpus / "LDC97S62", Tally("x"))
    assert [fault.split(":")[1] for fault in caught.value.faults] == ["4", "2", "3"]


def test_faulty_utterances_can_be_left_out(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(corpus, "beyond")
    assert swbd.main(["--corpus", str(corpus), "--out", str(tmp_path / "data"), *SMALL, "--skip_bad"]) == 0
    assert "dropped, beyond the audio: 1\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dev", "72"], "72 utterances, of which the first 72 are train_dev: none is left for training"),
        (["--expect", "audio=3"], "audio: 4 audio files, 3 expected"),
        ([*SMALL, "--expect", "nodup_hours=286"], "nodup_hours: 0 "),
    ],
)
def test_counts_that_are_not_expected(
    pristine: Path, tmp_path: Path, says: Says, options: list[str], message: str
) -> None:
    assert message in says(swbd.main, ["--corpus", str(pristine), "--out", str(tmp_path), *options], 2)


def test_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swbd.main(["--corpus", str(tmp_path), "--out", str(tmp_path / "data")]) == 2
    assert "LDC97S62: no such folder; SWBD=DIR must hold LDC97S62 as the LDC ships it" in capsys.readouterr().err


# ---- audio


def test_a_side_of_a_call(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sides = [0.5 * rng.standard_normal(800).clip(-1, 1) for _ in range(2)]
    path = write_sphere(tmp_path / "a b" / "sw02001.sph", sides)
    header = sphere.read_header(path)
    assert (header.channels, header.rate, header.samples, header.coding) == (2, 8000, 800, "ULAW")
    whole, _ = sf.read(path, dtype="int16")
    specs, seconds = sphere.sides(sphere.find(tmp_path))
    assert list(specs) == ["sw02001-A", "sw02001-B"] and seconds["sw02001-B"] == 0.1
    for channel, spec in enumerate(specs.values()):
        samples, rate = read_audio(spec.replace("python3", sys.executable, 1))
        assert rate == 8000 and samples.shape == (800, 1)
        np.testing.assert_array_equal((samples[:, 0] * 32768).astype(np.int16), whole[:, channel])


def sphere_header(samples: int, coding: str) -> bytes:
    fields = f"channel_count -i 2\nsample_rate -i 8000\nsample_count -i {samples}\nsample_coding -s9 {coding}\n"
    return f"NIST_1A\n   1024\n{fields}end_head\n".encode().ljust(1024)


@pytest.mark.parametrize("order", ["01", "10"])
def test_linear_samples_in_either_order(tmp_path: Path, order: str) -> None:
    samples = np.array([[1, -2], [300, -400]], dtype=np.int16)
    head = sphere_header(2, f"pcm\nsample_byte_format -s2 {order}")
    (tmp_path / "x.sph").write_bytes(head + samples.astype("<i2" if order == "01" else ">i2").tobytes())
    data, _ = sphere.read_side(tmp_path / "x.sph", 2)
    (tmp_path / "x.wav").write_bytes(data)
    assert sf.read(tmp_path / "x.wav", dtype="int16")[0].tolist() == [-2, -400]


def test_compressed_files_need_sph2pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.sph").write_bytes(sphere_header(80, "ulaw,embedded-shorten-v2.00").ljust(2048))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="x.sph: shorten-compressed; install sph2pipe"):
        sphere.sides(sphere.find(tmp_path))
    (tmp_path / "sph2pipe").write_text("#!/bin/sh\n")
    (tmp_path / "sph2pipe").chmod(0o755)
    specs, _ = sphere.sides(sphere.find(tmp_path))
    assert specs["x-B"].startswith("sph2pipe -f wav -p -c 2 ")
    with pytest.raises(DataError, match="use sph2pipe"):
        sphere.read_side(tmp_path / "x.sph", 1)


def test_faults_of_audio(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no .sph file in this folder or below"):
        sphere.find(tmp_path)
    one = write_sphere(tmp_path / "d1" / "sw02001.sph", [np.zeros(80)] * 2)
    write_sphere(tmp_path / "d2" / "SW02001.SPH".lower(), [np.zeros(80)] * 2)
    with pytest.raises(DataError, match="a second sw02001; the first is"):
        sphere.find(tmp_path)
    with pytest.raises(DataError, match="channel 3 asked, there are 1 to 2"):
        sphere.read_side(one, 3)
    sf.write(tmp_path / "mono.sph", np.zeros(80), 8000, format="NIST", subtype="ULAW")
    (tmp_path / "odd.sph").write_bytes(b"NIST_1A\n   1024\nsample_coding -s4 mp3x\nend_head\n".ljust(1024))
    with pytest.raises(DataError) as caught:
        sphere.sides({"mono": tmp_path / "mono.sph", "odd": tmp_path / "odd.sph"})
    said = str(caught.value)
    assert "1 channels, 2 expected" in said and "odd.sph: SPHERE header without a number" in said
    done = subprocess.run([sys.executable, sphere.__file__, str(tmp_path / "odd.sph"), "1"], capture_output=True)
    assert done.returncode == 2 and b"odd.sph" in done.stderr and not done.stdout


def test_layout_of_the_fixture(tmp_path: Path) -> None:
    transcripts = write_swbd1(tmp_path, calls(count=5))
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.sph"))
    assert files[0] == "LDC97S62/swb1_d1/data/sw02001.sph" and files[-1] == "LDC97S62/swb1_d4/data/sw02004.sph"
    assert transcripts == tmp_path / "LDC97S62/transcriptions/swb_ms98_transcriptions"
    lines = (transcripts / "20/2003/sw2003B-ms98-a-trans.text").read_text().splitlines()
    assert lines[0].startswith("sw2003B-ms98-a-0001 0.000000 ") and lines[0].endswith(" [silence]")
    ends = [line.split()[2] for line in lines]
    assert [line.split()[1] for line in lines[1:]] == ends[:-1], "without holes"
    assert (transcripts / "20/2003/sw2003B-ms98-a-word.text").is_file()
