"""What goes wrong in ESPnet's translation path and must not here: one test for each, named by what a user sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sacrebleu
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.bin.legonn import main as legonn
from espnet2_legonn.bin.legonn_inference import Text2Text
from espnet2_legonn.data.given_vocab import adopt
from espnet2_legonn.data.tables import write_table
from espnet2_legonn.errors import DataError
from espnet2_legonn.recipes import stages
from espnet2_legonn.scoring.bleu import score_bleu
from espnet2_legonn.scoring.results import render_results
from espnet2_legonn.scoring.translation import detokenize, score_translation
from tests.corpora.text_recipes import ROOT, copy_recipes, run
from tests.zoo.toys import build, pair

TEXTS = {"u1": "k l", "u2": "m n k", "u3": "n"}
BRACKETS = {
    "u1": 'He ( the president ) said "yes" (see annex)',
    "u2": "(applause) We [all] agreed (at last)",
    "u3": "[1] It's the city's plan , isn't it ?",
}


def described() -> dict[str, object]:
    """A tiny translation chain whose target has a language."""
    data = pair()
    data["vocabs"]["tgt"]["language"] = "de"
    return data


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """A translation experiment, as training leaves it."""
    return build(described()).save(tmp_path / "elsewhere" / "exp" / "legonn_mt")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A test set for it."""
    for name, rows in (("src_text", TEXTS), ("text", BRACKETS), ("utt2spk", {k: k for k in TEXTS})):
        write_table(tmp_path / "data" / name, rows)
    return tmp_path / "data"


def decoded(folder: Path, texts: dict[str, str]) -> Path:
    """What stage 12 leaves."""
    write_table(folder / "text", texts)
    return folder


def test_a_translation_model_can_be_packed(exp: Path, tmp_path: Path) -> None:
    """a: espnet2.bin.pack knows no mt."""
    assert legonn(["pack", str(exp), "--out", str(tmp_path / "packs")]) == 0
    texts = list(TEXTS.values())
    assert LegoNN.from_pretrained(tmp_path / "packs" / "mt.zip")(texts) == LegoNN.from_pretrained(exp)(texts)


def test_the_python_class_works_with_its_defaults(exp: Path) -> None:
    """b: Text2Text touches a CTC that ESPnet's translation model has not."""
    assert len(Text2Text(exp / "config.yaml")("k l")[0]) == 4


def test_the_python_class_reads_raw_text(exp: Path) -> None:
    """c: Text2Text takes ids only."""
    text2text = Text2Text(exp / "config.yaml")
    text, tokens, ids, _ = text2text("k l m")[0]
    assert isinstance(text, str) and len(tokens) == len(ids)


def test_batches_are_decoded_and_change_nothing(exp: Path) -> None:
    """d: batch_size > 1 is not implemented."""
    texts = [*TEXTS.values(), "k k k k", "l"]
    answers = [[r[0][0] for r in Text2Text(exp / "config.yaml", batch_size=size)(texts)] for size in (1, 4)]
    assert answers[0] == answers[1]


def test_parentheses_and_brackets_are_scored(data: Path, tmp_path: Path) -> None:
    """e: every (...) of references and hypotheses was deleted before scoring."""
    whole = score_translation("bleu", data, decoded(tmp_path / "hyp", BRACKETS) / "text")
    bare = {k: t.replace("( the president ) ", "").replace(" (see annex)", "") for k, t in BRACKETS.items()}
    assert whole.value == pytest.approx(100)
    assert score_translation("bleu", data, decoded(tmp_path / "bare", bare) / "text").value < 95


def test_a_sentence_may_begin_with_a_bracket(data: Path, tmp_path: Path) -> None:
    """f: the first word of the target was taken for the speaker."""
    report = score_translation("bleu", data, decoded(tmp_path / "hyp", BRACKETS) / "text", utt2spk=data / "utt2spk")
    assert report.segments.count == 3 and report.value == pytest.approx(100)


def test_text_is_detokenised_in_the_target_language(exp: Path, data: Path, tmp_path: Path) -> None:
    """g: the detokeniser was always English."""
    assert detokenize("l&apos; ami d&apos; or", "fr") == "l'ami d'or" != detokenize("l&apos; ami d&apos; or", "en")
    write_table(data / "text.raw", BRACKETS)
    folder = decoded(tmp_path / "hyp", BRACKETS)
    ((_, metric, _),) = stages.score(exp, data, folder, ["bleu_detok"])
    signature = json.loads((folder / "score_bleu_detok" / "result.json").read_text())["signature"]
    assert metric == "bleu_detok" and signature.endswith("|detok:moses-de"), "of the YAML's target vocabulary"


def test_scoring_again_overwrites(exp: Path, data: Path, tmp_path: Path) -> None:
    """h: results were appended, and others read them by line numbers."""
    folder = decoded(tmp_path / "hyp", BRACKETS)
    stages.score(exp, data, folder, ["bleu_tok"])
    first = {p.name: p.read_text() for p in (folder / "score_bleu_tok").iterdir()}
    stages.score(exp, data, folder, ["bleu_tok"])
    assert {p.name: p.read_text() for p in (folder / "score_bleu_tok").iterdir()} == first
    assert json.loads(first["result.json"])["value"] == pytest.approx(100)


def test_several_references_are_scored_cased_and_with_punctuation(data: Path, tmp_path: Path) -> None:
    """i: case-sensitive BLEU with several references was computed on lower-cased text without punctuation."""
    second = {k: t.replace("We", "we").replace("?", "!") for k, t in BRACKETS.items()}
    write_table(data / "text.1", second)
    hyp = {**BRACKETS, "u2": "(applause) WE [all] agreed (at last)"}
    report = score_translation("bleu", data, decoded(tmp_path / "hyp", hyp) / "text")
    expected = sacrebleu.corpus_bleu(list(hyp.values()), [list(BRACKETS.values()), list(second.values())])
    assert report.value == pytest.approx(expected.score) and report.value < 99.9
    assert "case:mixed" in report.signature and "nrefs:2" in report.signature


def test_hypotheses_are_joined_by_id(data: Path, tmp_path: Path) -> None:
    """j: a line that was not decoded shifted all others."""
    path = tmp_path / "hyp"
    path.write_text("".join(f"{k} {BRACKETS[k]}\n" for k in ("u3", "u1", "u2")))
    assert score_translation("bleu", data, path).value == pytest.approx(100)
    path.write_text(f"u3 {BRACKETS['u3']}\nu1 {BRACKETS['u1']}\n")
    with pytest.raises(DataError, match="no hypothesis for u2"):
        score_translation("bleu", data, path)
    report = score_bleu([data / "text"], path, missing="empty")
    assert report.absent == ("u2",) and report.segments.count == 3


@pytest.mark.parametrize("stage", [4, 10, 11, 12, 13, 14, 15])
def test_every_stage_can_be_started_alone(stage: int, tmp_path: Path) -> None:
    """k: variables that only another stage had set. With no data the stage fails, but it says what it misses."""
    recipe = copy_recipes(tmp_path, "wmt16_ro_en")
    options = ["--stage", str(stage), "--stop_stage", str(stage), "--skip_upload", "false", "--hf_repo", "x/y"]
    said = run(recipe, "bash", "-c", f"./run.sh {' '.join(options)} || true")
    assert "unbound variable" not in said and "command not found" not in said and "Traceback" not in said


def test_results_show_tokenised_and_split_bleu_with_signatures(exp: Path, data: Path) -> None:
    """l: one BLEU without its signature; and nobody has to train a language model first."""
    folder = decoded(exp / "decode" / "newstest2014", BRACKETS)
    stages.score(exp, data, folder, ["bleu", "bleu_tok", "bleu_split"])
    results = render_results([exp])
    for name, signature in (("", "tok:13a"), (" (tok)", "tok:none"), (" (split)", "compounds:split")):
        (row,) = [line for line in results.splitlines() if line.startswith(f"|decode/newstest2014{name}|100.0")]
        assert signature in row and "version:" in row
    assert "\nuse_lm=false " in (ROOT / "egs2" / "TEMPLATE" / "legonn1" / "legonn.sh").read_text()


def test_a_pack_of_files_elsewhere_works_on_another_machine(exp: Path, tmp_path: Path) -> None:
    """m: absolute paths in packs of files outside the working directory."""
    here = tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-m", "espnet2_legonn.bin.legonn", "pack", str(exp), "--out", str(tmp_path / "packs")]
    subprocess.run(command, cwd=here, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    texts = list(TEXTS.values())
    wanted = LegoNN.from_pretrained(exp)(texts)
    with zipfile.ZipFile(tmp_path / "packs" / "mt.zip") as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    assert not any(str(tmp_path).encode() in content for content in inside.values())
    (tmp_path / "elsewhere").rename(tmp_path / "gone")
    assert LegoNN.from_pretrained(tmp_path / "packs" / "mt.zip")(texts) == wanted


def test_a_given_bpe_can_be_used(tmp_path: Path) -> None:
    """n: only sentencepiece models of the recipe's own could be used."""
    (tmp_path / "codes").write_text("#version: 0.2\na b\nab c</w>\n")
    (tmp_path / "list").write_text("abc\na@@\nb@@\nc\n")
    adopt(tmp_path / "list", tmp_path / "v", "bpe", tmp_path / "codes")
    data = pair()
    files = {"tokens": str(tmp_path / "v" / "tokens.txt"), "unit": "bpe", "bpemodel": str(tmp_path / "v" / "bpe.model")}
    chain = build({**data, "vocabs": {"src": dict(files), "tgt": dict(files)}})
    answers = chain(["abc c", "c"])
    chain.save(tmp_path / "pack")
    assert (tmp_path / "pack" / "tgt.bpe.model").read_text().startswith("#version")
    assert LegoNN.from_pretrained(tmp_path / "pack")(["abc c", "c"]) == answers
    assert "bpemodel" in yaml.safe_load((tmp_path / "pack" / "config.yaml").read_text())["vocabs"]["tgt"]
    assert not any("@@ " in answer for answer in answers)
