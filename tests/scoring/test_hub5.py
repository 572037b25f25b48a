"""sclite's alignment, glm rules, hub5 scoring: against golden files of SCTK, and the tool itself where it is there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.sclite import align, network
from legonn_corpora import hub5
from legonn_corpora.glm import Glm, Rule, read_glm
from legonn_corpora.hub5 import TimedWord, find_hubscr, is_filler, read_stm, score_hub5, score_python, spread
from tests.corpora.fixtures_swbd import GLM
from tests.scoring.golden_sclite import CASES, FOLDER, ctm_rows, run_hubscr, run_sclite, stm_text

SCLITE = json.loads((FOLDER / "sclite.json").read_text())
HUBSCR = json.loads((FOLDER / "hubscr.json").read_text())
installed = pytest.mark.skipif(find_hubscr() is None, reason="SCTK is not installed (Debian package sctk)")


def numbers(counts) -> list[int]:
    return [counts.corr, counts.sub, counts.dele, counts.ins]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, list[TimedWord]]:
    """stm, glm and words of the golden calls."""
    (tmp_path / "ref.stm").write_text(stm_text())
    (tmp_path / "rules.glm").write_text(GLM)
    return tmp_path / "ref.stm", tmp_path / "rules.glm", [TimedWord(*row) for row in ctm_rows()]


# ---- golden files


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40 and list(SCLITE) == list(CASES)
    assert sum("{" in ref for ref, _ in CASES.values()) >= 10 and sum("(" in ref for ref, _ in CASES.values()) >= 5
    assert sum(not ref or not hyp for ref, hyp in CASES.values()) >= 3


@pytest.mark.parametrize("name", CASES)
def test_alignment_is_sclites(name: str) -> None:
    ref, hyp = CASES[name]
    counts = align(network(ref), network(hyp))
    assert numbers(counts) == SCLITE[name]
    assert counts.sentence_errors == int(sum(SCLITE[name][1:]) > 0)


def test_scoring_is_hubscrs(files: tuple[Path, Path, list[TimedWord]]) -> None:
    stm, glm, words = files
    found = score_python(read_stm(stm), words, glm)
    assert {key: numbers(counts) for key, counts in found.items()} == HUBSCR
    assert len(HUBSCR) == 14, "of 16 segments two are cut out"


@installed
def test_golden_files_are_the_tools() -> None:
    assert run_sclite(CASES) == SCLITE
    assert run_hubscr(GLM) == HUBSCR


# ---- texts as networks


@pytest.mark.parametrize("text", ["{ a / b", "a } b", "{ a / { b }"])
def test_braces_must_pair(text: str) -> None:
    with pytest.raises(DataError, match="braces do not pair"):
        network(text)


def test_braces_need_no_blanks() -> None:
    assert network("{a/b c} d") == network("{ a / b c } d")


# ---- rules


def rules(tmp_path: Path, *lines: str, kind: str = "stm", purpose: str = "ref", head: str = ";; x") -> Glm:
    path = tmp_path / "x.glm"
    path.write_text("\n".join([head, "* case_sensitive = 'F'", "* max_nrules = '9'", *lines]) + "\n")
    return read_glm(path, kind, purpose)


def test_the_first_rule_of_the_file_wins(tmp_path: Path) -> None:
    glm = rules(tmp_path, "A B => X / [ ] __ [ ]", "A => Y / [ ] __ [ ]", "A => Z")
    assert glm.filter("a b a c aa") == "X Y C ZZ"


def test_contexts_are_looked_up_in_the_text_as_it_was(tmp_path: Path) -> None:
    glm = rules(tmp_path, "NEW => NUEVO / __ [ MEXICO]", "MEXICO => USA / [NEW ] __", 'OLD => "" / [ ] __ [ ]')
    assert glm.filter("new mexico old new york") == "NUEVO USA NEW YORK"


def test_brackets_and_slashes(tmp_path: Path) -> None:
    glm = rules(tmp_path, "[IT'S] => [{IT'S / IT IS}] / [ ] __ [ ] ;; why", "[X Y] => [Z]")
    assert glm.filter("it's x y") == "{IT'S / IT IS} Z"
    assert glm.rules[0] == Rule("IT'S", "{IT'S / IT IS}", " ", " ") and glm.rules[1] == Rule("X Y", "Z")


def test_rules_of_one_kind_of_input(tmp_path: Path) -> None:
    ctm, ref = (f';; INPUT_DEPENDENT_APPLICATION = "{kind}"' for kind in ("ctm", "ref"))
    lines = ["A => X", ctm, "B => Y", ref, "C => Z"]
    assert rules(tmp_path, *lines).filter("a b c") == "X B Z"
    assert rules(tmp_path, *lines, kind="ctm", purpose="hyp").filter("a b c") == "X Y C"


@pytest.mark.parametrize(
    ("text", "filtered"),
    [
        ("well-known x-y-z", "WELL KNOWN X Y Z"),
        ("th- -ing (wh-) - a", "TH- -ING (WH-) - A"),
        ("(uh so) we", "(UH) (SO) WE"),
        ("(well-known thing)", "(WELL) (KNOWN) (THING)"),
        ("( a ) { b / @ }", "(A) { B / @ }"),
        ("  a \t b ", "A B"),
        ("", ""),
    ],
)
def test_the_filter_around_the_rules(tmp_path: Path, text: str, filtered: str) -> None:
    assert rules(tmp_path, "QQ => Q").filter(text) == filtered


@pytest.mark.parametrize("text", ["(a", "a)", "((a) b)"])
def test_parentheses_must_pair(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="parentheses do not pair in"):
        rules(tmp_path, "QQ => Q").filter(text)


def test_all_faults_of_a_glm(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        rules(tmp_path, "A -> B", "* format = NIST2", *["A => B"] * 10)
    said = str(caught.value)
    assert "x.glm:4: a rule needs an arrow" in said and "x.glm:5: a header line needs a value" in said
    assert "10 rules, but max_nrules is 9" in said
    with pytest.raises(DataError, match="format 'NIST2'; only NIST1 is known"):
        rules(tmp_path, "* format = 'NIST2'")


# ---- hypotheses and references


def test_words_are_spread_over_their_utterance() -> None:
    words = spread({"sw_1-B_000100-000400": "a b c", "en_9-A_000005-000015": "d e", "en_9-A_000020-000030": ""})
    assert [str(w) for w in words] == [
        "en_9 A 0.050 0.050 D", "en_9 A 0.100 0.050 E",
        "sw_1 B 1.000 1.000 A", "sw_1 B 2.000 1.000 B", "sw_1 B 3.000 1.000 C",
    ]  # fmt: skip


def test_ids_without_times() -> None:
    with pytest.raises(DataError, match="'utt1': hub5 scoring needs ids like en_4156-A_030185-030248"):
        spread({"utt1": "a", "en_9-A_000005-000015": "d"})


@pytest.mark.parametrize("word", ["[noise]", "[LAUGHTER]", "[vocalized-noise]", "<unk>", "uh", "HUH", "th-"])
def test_fillers(word: str) -> None:
    assert is_filler(word)


@pytest.mark.parametrize("word", ["laughter", "slaughter", "uh-huh", "umbrella", "-ing"])
def test_words_that_are_no_fillers(word: str) -> None:
    assert not is_filler(word)


def test_reading_an_stm(files: tuple[Path, Path, list[TimedWord]]) -> None:
    segments = read_stm(files[0])
    assert len(segments) == 16 and sum(s.ignored for s in segments) == 2
    first = segments[0]
    assert (first.file, first.channel, first.speaker, first.label) == ("en_9001", "A", "en_9001_A", "<O,en>")
    assert (first.start, first.end, first.line) == (0.5, 3.0, 5) and first.text.startswith("WE'RE GONNA (%HES")
    assert [s.text for s in segments].count("") == 2


def test_all_faults_of_an_stm(tmp_path: Path) -> None:
    path = tmp_path / "stm"
    path.write_text("a A s 0 1 <O> X\na A s 2 1 <O> X\na A\na A s 0 one X\na A t 0 1 <O> Y\n")
    with pytest.raises(DataError) as caught:
        read_stm(path)
    assert [fault.split(": ")[0] for fault in caught.value.faults] == [f"{path}:{n}" for n in (2, 3, 4, 5)]
    assert caught.value.faults[-1].endswith("repeats the segment of line 1")


def test_faults_of_references_are_named_by_line(files: tuple[Path, Path, list[TimedWord]]) -> None:
    stm, glm, words = files
    stm.write_text(stm.read_text().replace("(%HESITATION)", "(%HESITATION"))
    with pytest.raises(DataError) as caught:
        score_python(read_stm(stm), words, glm)
    assert [fault.split(":")[1] for fault in caught.value.faults] == ["5", "13"]


# ---- the whole


HYP = """en_9001-A_000050-000300 we are going to see [laughter] it has new mexico
en_9001-A_000425-000600 it is a well known fact uh
en_9001-B_000075-000250 yeah and then we moved
sw_9002-A_000700-000850 okay i will come every-
"""


def scored(files, tmp_path: Path, scorer: str) -> dict:
    (tmp_path / "text").write_text(HYP)
    return score_hub5(files[0], files[1], tmp_path / "text", tmp_path / "dec" / "eval2000", scorer)


def test_files_and_subsets(files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = scored(files, tmp_path, "python")
    assert list(reports) == ["hub5", "swb", "ch"]
    assert [r.total.sentences for r in reports.values()] == [14, 7, 7]
    whole, swb, ch = (r.total for r in reports.values())
    assert whole == swb + ch
    for variant, left_out in (("swb", "en_"), ("ch", "sw_")):
        folder = tmp_path / "dec" / "eval2000" / f"score_wer_{variant}"
        assert left_out not in (folder / "hyp.ctm").read_text()
        result = json.loads((folder / "result.json").read_text())
        assert result["scorer"] == "python" and result["metric"] == "wer" and result["ci_unit"] == "speaker"
        assert "| Sum/Avg   |" in (folder / "result.txt").read_text()
    words = ["--stm", str(files[0]), "--glm", str(files[1]), "--hyp", str(tmp_path / "text")]
    assert hub5.main([*words, "--outdir", str(tmp_path / "again"), "--scorer", "python"]) == 0
    assert f"swb: WER {reports['swb'].value:.1f} %" in capsys.readouterr().out
    assert hub5.main([*words[:-1], "nowhere", "--outdir", str(tmp_path / "again")]) == 2
    assert "nowhere: no such file" in capsys.readouterr().err


@installed
def test_both_scorers_agree(files, tmp_path: Path) -> None:
    python = {name: report.utterances for name, report in scored(files, tmp_path, "python").items()}
    sctk = scored(files, tmp_path, "sctk")
    assert {name: report.utterances for name, report in sctk.items()} == python
    result = json.loads((tmp_path / "dec" / "eval2000" / "score_wer_hub5" / "result.json").read_text())
    assert result["scorer"] == "SCTK hubscr"


def test_asking_for_a_tool_that_is_not_there(files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub5, "find_hubscr", lambda: None)
    with pytest.raises(DataError, match="apt-get install sctk"):
        scored(files, tmp_path, "sctk")
    assert scored(files, tmp_path, "auto")


@installed
def test_a_failing_hubscr_says_why(files, tmp_path: Path) -> None:
    files[0].write_text(files[0].read_text().replace("<O,en>", "<O,unknown>"))
    with pytest.raises(DataError, match="hubscr failed"):
        scored(files, tmp_path, "sctk")


@pytest.mark.skipif("HUB5_FIXTURE" not in os.environ, reason="HUB5_FIXTURE=DIR: ref.stm, hyp.ctm, a real glm")
def test_a_real_glm(tmp_path: Path) -> None:
    folder = Path(os.environ["HUB5_FIXTURE"])
    rows = [line.split() for line in (folder / "hyp.ctm").read_text().splitlines()]
    words = [TimedWord(f, c, float(s), float(d), w) for f, c, s, d, w in rows]
    counts = score_python(read_stm(folder / "ref.stm"), words, next(folder.glob("*.glm")))
    assert {key: numbers(c) for key, c in counts.items()} == {
        "en_9001_a-000": [8, 1, 0, 0], "en_9001_b-000": [4, 0, 0, 0],
        "sw_9002_a-000": [5, 0, 0, 0], "sw_9002_b-000": [6, 0, 1, 0],
    }  # fmt: skip
