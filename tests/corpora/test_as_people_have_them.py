"""Corpora as public scripts leave them on people's disks: links, conversions, repeated and late lines, other counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import soundfile as sf

from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import DataError
from legonn_corpora import europarl_st, eval2000, sphere, swbd, tedlium, wmt19_de_en
from legonn_corpora.download import Archive, fetch
from legonn_corpora.parallel import catalogue
from legonn_corpora.prepare import expected
from legonn_corpora.speech import Tally, check_counts, parse_expected, settle
from legonn_corpora.swbd_text import read_acronyms
from legonn_corpora.treatment import Treatment
from tests.corpora import fixtures_europarl_st, fixtures_tedlium
from tests.corpora.fixtures_swbd import write_corpus, write_eval2000
from tests.says import Says


def test_published_counts_of_hub5_are_both_right() -> None:
    for total, part in ((4459, 2628), (4458, 2627)):
        found = {"recordings": 80, "segments": total, "swb": 1831, "ch": part}
        assert len(check_counts(found, eval2000.PUBLISHED, {}, "of eval2000")) == 4
    with pytest.raises(DataError, match="4400 of eval2000, 4459 or 4458 published"):
        check_counts({"segments": 4400}, eval2000.PUBLISHED, {}, "of eval2000")
    assert check_counts({"segments_with_words": 264_333}, {"segments_with_words": swbd.WORDED}, {}, "segments")
    with pytest.raises(DataError, match="263012 to 265654 published"):
        check_counts({"segments_with_words": 259_890}, {"segments_with_words": swbd.WORDED}, {}, "segments")
    assert tedlium.RELEASES[3].segments["train"] == (268_263,)


def test_swbd_and_hub5_by_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], says: Says) -> None:
    root = write_corpus(tmp_path / "SWBD")
    discs = tmp_path / "discs"
    shutil.move(root / "LDC97S62" / "swb1_d1", discs / "swb1_d1")
    (root / "LDC97S62" / "swb1_d1").symlink_to(discs / "swb1_d1")
    trans = next((root / "LDC97S62").rglob("sw2001A-ms98-a-trans.text"))
    lines = trans.read_text().splitlines()
    silent = " ".join(lines[0].split()[:3])
    trans.write_text("\n".join([silent, *lines[1:], "damaged"]) + "\n")
    dictionary = next((root / "LDC97S62").rglob("sw-ms98-dict.text"))
    dictionary.write_bytes(dictionary.read_bytes() + b"caf\xe9 k ae f ey\n")
    command = ["--corpus", str(root), "--out", str(tmp_path / "data"), "--dev", "4"]
    command += ["--eval2000", str(tmp_path / "data" / "eval2000")]
    assert "expected" in says(swbd.main, command, 2)
    command += ["--skip_bad"]
    assert "--expect swb=" in says(swbd.main, [*command, "--expect", "swb=1"], 2)
    assert swbd.main(command) == 0, capsys.readouterr().err
    assert "left out as faulty: 1" in capsys.readouterr().out
    assert "damaged" not in (tmp_path / "data" / "train_nodup" / "text").read_text()
    assert (tmp_path / "data" / "eval2000" / "stm").is_file()
    assert len((tmp_path / "data" / "left_out_swbd.txt").read_text().splitlines()) == 1
    assert "did you mean 'train_dev'" in says(swbd.main, [*command, "--expect", "train_dve=4"], 2)
    with pytest.raises(SystemExit):
        swbd.main([*command, "--skip_bda"])
    assert "did you mean '--skip_bad'" in capsys.readouterr().err


def test_linked_discs_and_text(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "SWBD")
    (tmp_path / "linked").symlink_to(root)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "one").symlink_to(root / "LDC97S62")
    (tmp_path / "again" / "two").symlink_to(root / "LDC97S62")
    assert sphere.find(tmp_path / "again").keys() == sphere.find(root / "LDC97S62").keys()
    transcripts = root / "LDC97S62" / "transcriptions"
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "link").symlink_to(transcripts)
    assert len(swbd.read_transcripts(tmp_path / "text", Tally("x"))) == len(
        swbd.read_transcripts(transcripts, Tally("x"))
    )
    assert "sw-ms98-dict.text" in catalogue(tmp_path / "text")


def test_a_latin_byte_in_the_dictionary(tmp_path: Path) -> None:
    (tmp_path / "dict").write_bytes(b"title\ncaf\xe9 k ae f ey\nIBM ay b iy eh m\n")
    assert read_acronyms(tmp_path / "dict")["IBM"] == "i._b._m."


def test_hub5_in_another_layout_with_equal_and_empty_segments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], says: Says
) -> None:
    root = tmp_path / "SWBD"
    write_eval2000(root)
    english = root / "LDC2002S09" / "hub5e_00" / "english"
    shutil.move(english, root / "LDC2002S09" / "english")
    english = root / "LDC2002S09" / "english"
    pem = english / "hub5e_00.pem"
    pem.write_text(pem.read_text() + "en_9001 A unknown_speaker 0.503 2.753\nen_9001 A unknown_speaker 9.00 9.00\n")
    stm = next(root.rglob("*.stm"))
    first = next(line for line in stm.read_text().splitlines() if line.startswith("en_9001 A"))
    fields = first.split(maxsplit=5)
    fields[3], fields[4] = f"{float(fields[3]) + 0.003:.3f}", f"{float(fields[4]) + 0.002:.3f}"
    stm.write_text(stm.read_text() + " ".join(fields) + "\nen_9001 A en_9001_A 9.00 9.00 <O,en,F,en-F> X\n")
    command = ["--corpus", str(root), "--out", str(tmp_path / "eval2000")]
    assert eval2000.main(command) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "stm: merged, the id again: 1" in told and "stm: dropped, no length: 1" in told
    assert "pem: dropped, no length: 1" in told
    stm.write_text(stm.read_text() + "en_9001 A en_9001_A 90.00 91.00 <O,en,F,en-F> X\n")
    assert eval2000.main(command) == 2
    assert "left out as faulty: 1" in says(eval2000.main, [*command, "--skip_bad"])


@pytest.mark.parametrize(("place", "suffix"), [("audios", "wav"), ("audios/wav", "wav"), ("audios_wav", "wav")])
def test_europarl_st_converted_once(tmp_path: Path, place: str, suffix: str) -> None:
    fixtures_europarl_st.write(tmp_path, per_speech=2)
    folder = tmp_path / "v1.1" / "en"
    (folder / place).mkdir(exist_ok=True)
    shipped = sorted((folder / "audios").glob("*.m4a"))
    assert shipped
    for path in shipped:
        sf.write(folder / place / f"{path.stem}.{suffix}", [[0.1, 0.2]] * (8000 * 60), 8000)
        path.unlink()
    out = tmp_path / "data"
    assert europarl_st.main(["--corpus", str(tmp_path / "v1.1"), "--out", str(out), "--decoder", "auto"]) == 0
    made = sf.info(next(iter(read_table(out / "train" / "wav.scp").values())))
    assert (made.samplerate, made.channels) == (16000, 1)


def test_europarl_st_late_and_repeated_segments(tmp_path: Path, says: Says) -> None:
    fixtures_europarl_st.write(tmp_path, per_speech=2)
    part = tmp_path / "v1.1" / "en" / "de" / "train"
    lines = {name: (part / f"segments.{name}").read_text().splitlines() for name in ("lst", "en", "de")}
    speech = lines["lst"][0].split()[0]
    lines["lst"] += [lines["lst"][0], f"{speech} 9000.0 9001.0"]
    for name in ("en", "de"):
        lines[name] += [lines[name][0], "late words"]
    for name, content in lines.items():
        (part / f"segments.{name}").write_text("\n".join(content) + "\n")
    command = ["--corpus", str(tmp_path / "v1.1"), "--out", str(tmp_path / "data")]
    assert "9000 to 9001 s" in says(europarl_st.main, command, 2)
    told = says(europarl_st.main, [*command, "--skip_bad"])
    assert "train: dropped, the same line again: 1" in told and "left out as faulty: 1" in told


def test_tedlium_late_and_repeated_lines(tmp_path: Path, says: Says) -> None:
    fixtures_tedlium.write(tmp_path)
    root = tmp_path / "TEDLIUM_release2"
    stm = sorted((root / "train" / "stm").glob("*.stm"))[0]
    lines = stm.read_text().splitlines()
    spoken = next(line for line in lines if not line.startswith(";;") and "ignore" not in line)
    late = spoken.split()
    late[3:5] = ["9000.0", "9001.0"]
    stm.write_text("\n".join([*lines, spoken, " ".join(late)]) + "\n")
    command = ["--corpus", str(root), "--out", str(tmp_path / "data")]
    assert "--skip_bad leaves out" in says(tedlium.main, command, 2)
    assert "left out as faulty: 1" in says(tedlium.main, [*command, "--skip_bad"])
    assert "9000" in (tmp_path / "data" / "left_out_tedlium.txt").read_text()


def test_entities_are_undone_in_both_treatments() -> None:
    assert Treatment("lc.rm", "en")("It&apos;s A &amp; B&#91;1&#93; &quot;ok&quot;") == Treatment("lc.rm", "en")(
        'It\'s A & B[1] "ok"'
    )
    assert "apos" not in Treatment("lc.rm", "en")("it&apos;s")


def test_digests_that_are_published(tmp_path: Path) -> None:
    known = {a.name: a.md5 for a in wmt19_de_en.SOURCES if a.md5}
    assert known == {"dev.tgz": "f2ec7af5947c19e0cacb3882eb208002", "test.tgz": "84de7162d158e28403103b01aeefc39a"}
    assert all(release.archive.sha256 for release in tedlium.RELEASES.values())
    (tmp_path / "x.tgz").write_bytes(b"other")
    with pytest.raises(DataError, match="md5 should be abc"):
        fetch(Archive("http://127.0.0.1:1/x.tgz", 0.0, "free", "x", md5="abc"), tmp_path)


def test_names_that_are_not_counted() -> None:
    with pytest.raises(DataError, match="did you mean 'train'"):
        parse_expected(["trian=3"], ("train", "dev"))
    with pytest.raises(DataError, match="did you mean 'newstest2018'"):
        expected(["newstest_2018=3"], wmt19_de_en.PUBLISHED, wmt19_de_en.CORPORA)
    assert expected(["europarl-v9=3"], {}, wmt19_de_en.CORPORA)["europarl-v9"].count == 3


def test_a_list_of_an_earlier_run_goes(tmp_path: Path) -> None:
    assert settle(["x:1: wrong"], True, tmp_path / "left")[0].startswith("left out as faulty: 1")
    assert settle([], True, tmp_path / "left") == [] and not (tmp_path / "left").exists()
