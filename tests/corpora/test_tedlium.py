"""TED-LIUM: every rule of the stm by itself, the whole reader on an invented release, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from espnet2_legonn.data.datadir import DataDir, validate
from espnet2_legonn.errors import DataError
from legonn_corpora import tedlium
from legonn_corpora.speech import Tally, check_counts
from legonn_corpora.tedlium import clean, cut_speakers, join_suffixes, main, read_talk, widen
from tests.corpora import fixtures_tedlium
from tests.says import Says

# ---- rules, one by one; both sides from their description


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("t 1 t 0 1 <F0_M> a", "t 1 t 0 1 <o,f0,male> a"),
        ("t 1 t 0 1 <F0_F> a", "t 1 t 0 1 <o,f0,female> a"),
        ("t 1 t 0 1 <o,f0,male> the(2) plan(3)", "t 1 t 0 1 <o,f0,male> the plan"),
        ("t 1 t 0 1 <o,f0,male> plan(12)", "t 1 t 0 1 <o,f0,male> plan"),
        ("t 1 t 0 1 <o,f0,male> a <sil> b <sil>", "t 1 t 0 1 <o,f0,male> a  b "),
        ("t 1 t 0 1 <o,f0,male> a b (t-0.00-1.00-F0_M-S1)", "t 1 t 0 1 <o,f0,male> a b "),
        ("t 1 t 0 1 <o,f0,male> a (b) c", "t 1 t 0 1 <o,f0,male> a (b) c"),  # not at the end
        ("t 1 t 0 1 <o,f0,male> a(2) (t-0-1(2))", "t 1 t 0 1 <o,f0,male> a "),
        ("t 1 t 0 1 <o,f0,male> <unk> {NOISE}", "t 1 t 0 1 <o,f0,male> <unk> {NOISE}"),
    ],
)
def test_lines_are_cleaned(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        ("it 's fine", "it's fine"),
        ("we don 't , they 'll", "we don't , they'll"),
        ("she 'd 've gone", "she'd 've gone"),  # in pairs
        ("'cause it 's", "'cause it's"),  # nothing before it
        ("rock 'n' roll", "rock'n' roll"), ("a b", "a b"), ("the dogs ' bowl", "the dogs' bowl"), ("", ""),
    ],
)  # fmt: skip
def test_suffixes_are_joined(words: str, joined: str) -> None:
    assert join_suffixes(words.split()) == joined.split()


def talk(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "JaneDoe_2009.stm"
    path.write_text(text)
    return path


def test_a_talk_in_the_order_of_the_rules(tmp_path: Path) -> None:
    path = talk(
        tmp_path,
        ";; a comment\n"
        "JaneDoe_2009 1 JaneDoe_2009 17.82 24.11 <o,f0,female> last year i <sil> planted two(2) trees and it 's fine"
        " {NOISE} (JaneDoe_2009-17.82-24.11-F0_F-S1)\n"
        "JaneDoe_2009 1 inter_segment_gap 24.11 25.40 <o,f0,unknown> ignore_time_segment_in_scoring\n"
        "JaneDoe_2009 1 JaneDoe_2009 25.40 31.07 <F0_M> we don 't know <unk> yet\n"
        "JaneDoe_2009 1 JaneDoe_2009 25.40 31.07 <F0_M> we don 't know <unk> yet\n",
    )
    tally, faults = Tally("train"), []
    first, second = read_talk(path, faults, tally)
    assert not faults
    assert " ".join(first.words) == "last year i planted two trees and it's fine [NOISE]"
    assert " ".join(second.words) == "we don't know <unk> yet"
    assert (first.utt, second.utt) == ("JaneDoe_2009-0001782-0002411", "JaneDoe_2009-0002540-0003107")
    assert tally.counts == {"lines": 4, "dropped, not to be scored": 1, "dropped, the same line again": 1}
    assert tedlium.treat(first.words, "espnet", tally) == " ".join(first.words)
    assert tedlium.treat(first.words, "paper", tally) == "last year i planted two trees and it's fine"
    assert tedlium.treat(second.words, "paper", tally) == "we don't know yet"
    assert tally.counts["tags left out of texts"] == 1 and tally.counts["<unk> left out of texts"] == 1


@pytest.mark.parametrize(
    ("start", "end", "utt"), [(0.29, 4.1, "t-0000028-0000409"), (1.0, 20000.5, "t-0000100-2000050")]
)
def test_times_of_ids_are_cut_off_as_awk_does(start: float, end: float, utt: str) -> None:
    segment = tedlium.Segment("t", start, end, (), "")
    assert segment.utt == utt and f"t-{100 * segment.times[0]:07.0f}-{100 * segment.times[1]:07.0f}" == utt


def test_segments_are_widened_without_overlap() -> None:
    times = widen([("a", 0.1, 1.0), ("b", 1.1, 2.0), ("c", 3.0, 4.0)], 10.0)
    assert {utt: tuple(np.round(t, 6)) for utt, t in times.items()} == {
        "a": (0.0, 1.025),  # not before 0; 1.10 and 0.95 meet half way
        "b": (1.025, 2.1),
        "c": (2.85, 4.1),
    }
    assert widen([("a", 1.0, 2.0)], 2.05)["a"] == (0.85, 2.05)  # the recording ends
    touching = widen([("b", 2.0, 3.0), ("a", 1.0, 2.0)], 9)
    assert touching["a"][1] == touching["b"][0] == pytest.approx(1.975)


def test_speakers_are_cut_into_pieces_of_consecutive_utterances() -> None:
    utt2spk = {f"{spk}-{i:02d}": spk for spk, n in (("a", 3), ("b", 11)) for i in range(n)}
    durations = dict.fromkeys(utt2spk, 100.0) | {"b-00": 500.0}
    cut = cut_speakers(utt2spk, durations, 200.0)
    assert [cut[f"a-{i:02d}"] for i in range(3)] == ["a-1", "a-1", "a-2"]
    assert cut["b-00"] == "b-1" and cut["b-01"] == cut["b-02"] == "b-2" and cut["b-10"] == "b-6"
    many = cut_speakers({f"c-{i:02d}": "c" for i in range(10)}, {f"c-{i:02d}": 200.0 for i in range(10)}, 180.0)
    assert sorted(many.values()) == [f"c-{i:02d}" for i in range(1, 11)]  # numbers sort


# ---- a whole release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixtures_tedlium.write(tmp_path_factory.mktemp("ted"))


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    return shutil.copytree(release, tmp_path / "corpus" / release.name)


def test_a_release(release: Path, tmp_path: Path, says: Says) -> None:
    told = says(main, ["--corpus", str(release.parent), "--out", str(tmp_path), "--suffix", "_ted"])
    assert "train: lines: 36\ntrain: dropped, not to be scored: 18\ntrain: tags left out of texts: 6" in told
    assert f"{tmp_path}/train_ted: 18 utterances, 0.01 h, 3 speakers" in told
    for split, number in (("train", 18), ("dev", 6), ("test", 6)):
        folder = tmp_path / f"{split}_ted"
        assert validate(folder) == number
        assert f"{folder}/text: sha256 " in told
    train, test = DataDir(tmp_path / "train_ted"), DataDir(tmp_path / "test_ted")
    assert not any(c in text for text in train.table("text").values() for c in "<>{}[]()")
    assert train.table("segments")["AnnDoe_2009-0000250-0000409"] == "AnnDoe_2009 2.350 4.190"
    assert test.table("segments")["EdMoe_2009-0000250-0000409"] == "EdMoe_2009 2.500 4.090"  # as it was
    assert sf.info(test.table("wav.scp")["EdMoe_2009"]).format == "NIST"

    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert main(["--corpus", str(release), "--out", str(tmp_path), "--suffix", "_ted"]) == 0
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_as_espnet_has_it(release: Path, tmp_path: Path) -> None:
    options = ["--treatment", "espnet", "--seconds_per_speaker", "4"]
    assert main(["--corpus", str(release), "--out", str(tmp_path), *options]) == 0
    data = DataDir(tmp_path / "train")
    assert sum("[NOISE]" in text for text in data.table("text").values()) == 6
    assert sorted(set(data.table("utt2spk").values()))[:3] == [f"AnnDoe_2009-{i}" for i in (1, 2, 3)]
    assert validate(data.path) == 18


def test_release_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fixtures_tedlium.write(tmp_path, release=3, segments=2)
    # As it is unpacked: legacy/ leads into data/.
    (root / "data").mkdir()
    for side in ("sph", "stm"):
        (root / "legacy/train" / side).rename(root / "data" / side)
        (root / "legacy/train" / side).symlink_to(f"../../data/{side}")
    assert main(["--corpus", str(root), "--out", str(tmp_path / "data"), "--release", "3"]) == 0
    assert validate(tmp_path / "data/train") == 6
    assert main(["--corpus", str(root), "--out", str(tmp_path / "data"), "--release", "2"]) == 2
    assert "looks like release 3: --release 3" in capsys.readouterr().err


# ---- faults


def refused(corpus: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    out = corpus / "out"
    assert main(["--corpus", str(corpus), "--out", str(out), *options]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_releases_are_never_mixed(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = fixtures_tedlium.write(tmp_path, release=3)
    sph = copy / "train/sph/AnnDoe_2009.sph"
    sph.unlink()
    sph.symlink_to(other / "legacy/train/sph/AnnDoe_2009.sph")
    told = refused(copy, capsys)
    assert f"{sph}: is of release 3, {copy}/train/stm/AnnDoe_2009.stm of release 2; the releases cut" in told
    (copy / "legacy").symlink_to(other / "legacy")
    assert "holds legacy/, so it is release 3" in refused(copy, capsys)


def test_all_faults_at_once(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stm = copy / "train/stm/AnnDoe_2009.stm"
    lines = stm.read_bytes().splitlines(keepends=True)
    good = "AnnDoe_2009 1 AnnDoe_2009 {} {} <o,f0,female> we have\n"
    extra = [
        b"AnnDoe_2009 1 AnnDoe_2009 1.0\n",
        b"AnnDoe_2009 1 AnnDoe_2009 x 1.0 2.0 <o,f0,female> we\n",
        b"AnnDoe_2009 1 AnnDoe_2009 1.0 2.0 we have <o,f0,female>\n",
        b"AnnDoe_2009 1 AnnDoe_2009 5 4 <o,f0,female> we\n",
        b"BobRoe_2010 1 BobRoe_2010 1 2 <o,f0,female> we\n",
        good.format(100, 110).encode(),
        good.format("0.50", "2.10").encode(),
        b"AnnDoe_2009 1 AnnDoe_2009 1.0 2.0 <o,f0,female> caf\xe9\n",
    ]
    stm.write_bytes(b"".join([*lines, *extra]))
    (copy / "dev/stm/DeeLoe_2003.stm").unlink()
    (copy / "test/sph/EdMoe_2009.sph").write_bytes(b"NIST_1A\nno header")
    told = refused(copy, capsys)
    for number, fault in enumerate(
        (
            "4 fields; <talk> <channel>",
            "'x' and '1.0' are no times; a column too many or too few?",
            "'we' is no label such as <o,f0,male>",
            "segment 5 to 4 s; 0 <= start < end",
            "talk 'BobRoe_2010' in the file of 'AnnDoe_2009'",
            "100 to 110 s, ",
            "'AnnDoe_2009-0000050-0000210' again, as in ",
            "not UTF-8 (byte 52)",
        ),
        start=13,
    ):
        assert f"{stm}:{number}: {fault}" in told, fault
    assert f"DeeLoe_2003.sph: no {copy}/dev/stm/DeeLoe_2003.stm beside it" in told
    assert f"cannot decode '{copy}/test/sph/EdMoe_2009.sph'" in told


def test_counts_that_are_not_the_expected_ones(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], says: Says
) -> None:
    options = ["--corpus", str(release), "--out", str(tmp_path / "out"), "--expect"]
    assert main([*options, "train=18", "dev=7"]) == 2
    assert "dev: 6 segments, 7 expected; is the corpus complete? --expect dev=6" in capsys.readouterr().err
    assert "train: 18 segments, as expected" in says(main, [*options, "train=18", "dev=6"])
    assert "--expect train: write NAME=NUMBER" in says(main, [*options, "train"], 2)


def test_published_counts_bind_at_their_scale() -> None:
    published = {"test": (7, 8)}
    with pytest.raises(DataError, match="test: 6 segments, 7 or 8 published"):
        check_counts({"test": 6}, published, {}, "segments")
    assert check_counts({"test": 3}, published, {}, "segments") == []  # an excerpt
    assert check_counts({"test": 8}, published, {}, "segments") == ["test: 8 segments, as published"]
    assert tedlium.RELEASES[2].segments["train"] == (92973,) and tedlium.RELEASES[2].talks["train"] == (1495,)


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--corpus", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no TEDLIUM_release2/train of TED-LIUM release 2; is the corpus unpacked there?" in capsys.readouterr().err
