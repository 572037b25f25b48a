"""Hub5'00: pem, stm and glm to a data directory; segments, texts, faults."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import DataError
from legonn_corpora import eval2000
from legonn_corpora.eval2000 import extend_segments, plain_text, read_pem, repair_stm
from legonn_corpora.hub5 import read_stm
from tests.corpora.fixtures_swbd import write_eval2000
from tests.says import Says


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub5")
    write_eval2000(root)
    return root


@pytest.fixture
def corpus(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "SWBD"))


def files(corpus: Path) -> tuple[Path, Path, Path]:
    reference = corpus / "LDC2002T43" / "2000_hub5_eng_eval_tr" / "reference"
    speech = corpus / "LDC2002S09" / "hub5e_00" / "english"
    return speech / "hub5e_00.pem", reference / "hub5e00.english.000405.stm", reference / "en20000405_hub5.glm"


# ---- rules


@pytest.mark.parametrize(
    ("segments", "by", "wide"),
    [
        ([(2.0, 5.5), (7.5, 9.0)], 0.5, [(1.5, 6.0), (7.0, 9.5)]),  # a gap wider than twice the widening
        ([(2.0, 5.5), (6.1, 9.0)], 0.5, [(1.5, 5.8), (5.8, 9.5)]),  # a smaller gap is shared
        ([(4.0, 7.0), (6.5, 9.0)], 0.5, [(3.5, 7.0), (6.5, 9.5)]),  # an overlap stays
        ([(9.0, 9.5), (2.0, 3.0), (3.4, 8.0)], 0.5, [(8.5, 10.0), (1.5, 3.2), (3.2, 8.5)]),  # in any order
        ([(0.05, 1)], 0.1, [(0, 1.1)]),  # not before the beginning
        ([(1, 2), (2, 3)], 0.1, [(0.9, 2), (2, 3.1)]),  # no gap
    ],
)
def test_segments_are_widened_without_overlap(
    segments: list[tuple[float, float]], by: float, wide: list[tuple[float, float]]
) -> None:
    found = extend_segments({f"u{i}": ("r", *times) for i, times in enumerate(segments)}, by)
    assert [v[0] for v in found.values()] == ["r"] * len(segments)
    assert [v[1:] for v in found.values()] == [pytest.approx(times) for times in wide]


def test_recordings_are_widened_by_themselves() -> None:
    found = extend_segments({"a": ("r", 1, 2), "b": ("s", 2, 3)}, 0.1)
    assert found["a"] == ("r", 0.9, 2.1) and found["b"] == ("s", 1.9, 3.1)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("WE ARE (%HESITATION) HERE (WE-) NOW", "we are here we- now"), ("(%HESITATION) SO", "so"),
        ("(%HESITATION)", ""), ("SO (%BCACK) WE (%HESITATION)", "so we"), ("A <B_ASIDE> B <E_ASIDE>", "a b"),
        ("(TH- THE) THING", "th- the thing"),
    ],
)  # fmt: skip
def test_plain_text(text: str, plain: str) -> None:
    assert plain_text(text) == plain


def test_known_slips_of_the_stm() -> None:
    lines = [";; ((comment <B_ASIDE>", "en_1 A s 0 1 <O,en> ((UH) <B_ASIDE>HEY<E_ASIDE> ((TH-) X"]
    assert repair_stm(lines) == [lines[0], "en_1 A s 0 1 <O,en> (UH) HEY (TH-) X"]


def test_ids_cut_hundredths_off(tmp_path: Path) -> None:
    """As awk does: 0.29 is 28 hundredths, since 100 times it is below 29."""
    (tmp_path / "pem").write_text(";; x\nen_1 A unknown_speaker 0.29 1.00\nen_1 A unknown_speaker 0.29 1.00\n")
    assert [span.key for span in read_pem(tmp_path / "pem")] == ["en_1-A_000028-000100"]


# ---- the whole


@pytest.mark.parametrize("middle", [True, False])
def test_tables(tmp_path: Path, says: Says, middle: bool) -> None:
    write_eval2000(tmp_path, middle)
    out = tmp_path / "data" / "eval2000"
    said = says(eval2000.main, ["--corpus", str(tmp_path), "--out", str(out)])
    for line in (
        "segments in pem: 40", "segments ignored: 8", "recordings: 8", "segments: 32", "swb: 16", "ch: 16",
        "dropped from decoding, nothing but optional words: 8",
    ):  # fmt: skip
        assert f"eval2000: {line}\n" in said
    assert all(f"eval2000/{name}: sha256" in said for name in ("text", "segments", "stm", "glm"))
    text, segments = read_table(out / "text"), read_table(out / "segments")
    assert len(text) == 24 and len(read_table(out / "wav.scp")) == 8
    first = "en_9001-A_000050-000275"
    assert text[first] == "we are starting the new plan on monday" and segments[first] == "en_9001-A 0.40 2.85"
    assert "it's { a / @ } good idea th- i think" in text.values()
    assert read_table(out / "utt2spk")[first] == "en_9001-A"
    stm = (out / "stm").read_text()
    assert "((" not in stm and "ASIDE" not in stm and ';; LABEL "sw"' in stm
    assert [s.start for s in read_stm(out / "stm")][:2] == [0.5, 3.25], "the segments that are scored are not widened"


def damage(corpus: Path, what: str) -> None:
    pem, stm, glm = files(corpus)
    path = stm if what.startswith("stm") else pem
    lines = path.read_bytes().split(b"\n")
    if what == "pem fields":
        lines[3] += b" extra"
    elif what == "pem line missing":
        del lines[1]
    elif what == "stm not utf-8":
        lines[20] += b"\xff"
    elif what == "stm twice":
        lines[16] = lines[15]
    elif what == "stm times":
        lines[15] = lines[15].replace(b"3.75", b"now", 1)
    elif what == "beyond":
        for file in (pem, stm):
            data = file.read_bytes()
            file.write_bytes(re.sub(rb"^(en_9001 A \S+ 8.25) 10.00", rb"\1 99.25", data, flags=re.MULTILINE))
        return
    elif what == "no audio":
        (pem.parent / "sw_9004.sph").unlink()
    elif what == "no glm":
        glm.unlink()
    elif what == "glm":
        glm.write_text(glm.read_text() + "A B\n")
    path.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("pem fields", "hub5e_00.pem:4: <file> <channel> <speaker> <start> <end> expected"),
        ("pem line missing", "000405.stm:14: en_9001-A_000050-000275 is not in hub5e_00.pem"),
        ("stm not utf-8", "000405.stm:21: not UTF-8"),
        ("stm twice", "hub5e_00.pem:5: en_9001-A_000475-000775 is not in hub5e00"),
        ("stm times", "000405.stm:16: <file> <channel> <speaker> <start> <end>"),
        ("beyond", "the segment ends at 99.25 s, en_9001.sph lasts"),
        ("no audio", "hub5e_00.pem:32: no audio file sw_9004.sph"),
        ("no glm", "en20000405_hub5.glm: no such file; SWBD=DIR must hold LDC2002S09 and LDC2002T43"),
        ("glm", "en20000405_hub5.glm:19: a rule needs an arrow"),
    ],
)
def test_faults(corpus: Path, tmp_path: Path, says: Says, what: str, message: str) -> None:
    damage(corpus, what)
    said = says(eval2000.main, ["--corpus", str(corpus), "--out", str(tmp_path / "data")], 2)
    assert said.startswith("DataError:\n") and message in said
    assert not (tmp_path / "data").exists()


def test_published_numbers_bind_at_their_scale(monkeypatch: pytest.MonkeyPatch, pristine: Path, tmp_path: Path) -> None:
    words = ["--corpus", str(pristine), "--out", str(tmp_path / "data")]
    assert eval2000.PUBLISHED == {"recordings": (80,), "segments": (4459, 4458), "swb": (1831,), "ch": (2628, 2627)}
    monkeypatch.setattr(eval2000, "PUBLISHED", {"segments": (33,)})
    assert eval2000.main(words) == 2
    assert eval2000.main([*words, "--expect", "segments=32"]) == 0


def test_a_file_that_is_no_pem(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file"):
        read_pem(tmp_path / "nowhere")
    (tmp_path / "pem").write_text("en_1 C x 0 1\nen_1 A x 2 1\n")
    with pytest.raises(DataError) as caught:
        read_pem(tmp_path / "pem")
    assert len(caught.value.faults) == 2
