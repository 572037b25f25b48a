"""docs/your_corpus.md: its words are executed; the template's parts; AN4's steps stop where they are told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from espnet2_legonn.data import manifest
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import DataError
from tests.corpora.text_recipes import ROOT, copy_recipes, run
from tests.docs.pages import blocks, read
from tests.recipes.own_corpus import SIZES, write_speech, write_text
from tests.says import Says

TEMPLATE = ROOT / "egs2/TEMPLATE/legonn1"
COMMANDS = "".join(blocks(read("docs/your_corpus.md"), "bash"))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a clone has of egs2: the template."""
    shutil.copytree(ROOT / "egs2/TEMPLATE", tmp_path / "clone/egs2/TEMPLATE", symlinks=True)
    return tmp_path / "clone"


def execute(clone: Path, commands: str, corpus: Path, fails: bool = False) -> str:
    """Commands of the page from the root of a clone; the corpus alone lies elsewhere than it says."""
    script = "set -euo pipefail\n" + commands.replace("/data/mine", str(corpus))
    return run(clone, "bash", "-c", script, fails=fails)


def until(stage: str) -> str:
    """The page's commands before the one that names this stage."""
    before, found, _ = COMMANDS.partition(f"./run.sh --input speech --stage {stage}")
    assert found
    return before


# ---- as the page has it


@pytest.mark.parametrize("kind", ["speech", "text"])
def test_the_words_up_to_stage_5(clone: Path, tmp_path: Path, kind: str) -> None:
    corpus = {"speech": write_speech, "text": write_text}[kind](tmp_path / "corpus")
    words = until("10")
    if kind == "text":
        words = words.replace("--input speech", "--input text").replace(" --audio", "")
    said = execute(clone, words, corpus)
    recipe = clone / "egs2/mine/legonn1"
    assert not (recipe / "exp").exists() and "Stage 5" in said and "dump/raw/train: valid, 50 utterances" in said
    for name, number in SIZES.items():
        table = "wav.scp" if kind == "speech" else "src_text"
        assert len(read_table(recipe / "dump/raw" / name / table)) == number
    config = recipe / ("conf/train_small.yaml" if kind == "speech" else "conf/train_small_text.yaml")
    for vocab in yaml.safe_load(config.read_text())["vocabs"].values():
        assert (recipe / vocab["tokens"]).is_file() and (recipe / vocab["bpemodel"]).is_file()


@pytest.mark.slow
def test_all_of_the_words(clone: Path, tmp_path: Path) -> None:
    """From nothing to a plug that is scored."""
    execute(clone, COMMANDS, write_speech(tmp_path / "corpus"))
    exp = clone / "egs2/mine/legonn1/exp"
    wer = {}
    for name in ("small", "deeper", "plugged"):
        assert (exp / f"legonn_{name}/RESULTS.md").is_file()
        score = exp / f"legonn_{name}/decode/test/score_wer"
        wer[name] = json.loads((score / "result.json").read_text())["value"]
        assert {p.name for p in score.iterdir()} >= {"ref.trn", "hyp.trn", "hyp.trn.pra", "result.txt"}
        assert "real-time factor" in (score.parent / "logdir/calculate_rtf.log").read_text()
    print(wer)
    assert wer["small"] < 50, "it learned something"


@pytest.mark.slow
def test_text_from_nothing_to_packs(clone: Path, tmp_path: Path) -> None:
    words = until("10").replace("--input speech", "--input text").replace(" --audio", "")
    execute(clone, words + "./run.sh --input text --stage 10\n", write_text(tmp_path / "corpus"))
    exp = clone / "egs2/mine/legonn1/exp/legonn_small_text"
    value = json.loads((exp / "decode/test/score_bleu/result.json").read_text())["value"]
    print(value)
    assert value > 30 and (exp / "packs/small_text.zip").is_file(), "an empty card is no hindrance to a pack"


# ---- the template


def test_set_up_copies_and_links(clone: Path, tmp_path: Path) -> None:
    def setup(target: object, fails: bool = False) -> str:
        return execute(clone, f"egs2/TEMPLATE/legonn1/setup.sh {target}", tmp_path, fails)

    setup("egs2/mine/legonn1")
    mine = clone / "egs2/mine/legonn1"
    assert {p.name for p in mine.iterdir()} == {"run.sh", "conf", "local", "path.sh", "cmd.sh", "db.sh"}
    assert all((mine / name).is_symlink() and (mine / name).is_file() for name in ("path.sh", "cmd.sh", "db.sh"))
    assert not (mine / "run.sh").is_symlink() and os.access(mine / "local/data.sh", os.X_OK)
    (mine / "run.sh").write_text("mine\n")
    assert "egs2/mine/legonn1/run.sh is there already" in setup("egs2/mine/legonn1")
    assert (mine / "run.sh").read_text() == "mine\n"
    assert "must be egs2/<corpus>/legonn1 of this repository" in setup(tmp_path / "elsewhere", fails=True)
    assert "Usage" in setup("", fails=True)


def test_the_card_is_empty() -> None:
    """Nobody's licence is copied."""
    assert yaml.safe_load((TEMPLATE / "conf/card.yaml").read_text()) is None
    text = (TEMPLATE / "conf/card.yaml").read_text()
    fields = re.findall(r"^# (\w+): *(\S*)", text, re.M)
    assert {"description", "license", "training_data", "language"} <= {name for name, _ in fields}
    assert {value for _, value in fields} <= {'""', "[]"}


def test_what_run_sh_says_of_a_wrong_start(clone: Path, tmp_path: Path) -> None:
    setup = "egs2/TEMPLATE/legonn1/setup.sh egs2/mine/legonn1; cd egs2/mine/legonn1; "
    said = execute(clone, setup + "./run.sh --input sound", tmp_path, True)
    assert "--input sound is neither speech nor text" in said
    assert "set CORPUS=DIR" in execute(clone, "cd egs2/mine/legonn1; ./run.sh --stop_stage 1", tmp_path, True)
    said = execute(clone, "cd egs2/mine/legonn1; CORPUS=/data/mine ./run.sh --stop_stage 1", tmp_path, True)
    assert "train.tsv: no such file; its lines are: id, audio file, text[, speaker]" in said


# ---- tables


def test_a_table_becomes_a_data_directory(tmp_path: Path) -> None:
    (tmp_path / "a b.wav").write_bytes(b"")
    (tmp_path / "train.tsv").write_text("u2\ta b.wav\tTwo  dogs\tann\nann-u1\ta b.wav\tone\tann\n\nx\ta b.wav\tthree\n")
    tables = manifest.read_manifest(tmp_path / "train.tsv", "speech")
    assert tables["text"] == {"ann-u2": "Two dogs", "ann-u1": "one", "x": "three"}
    assert tables["utt2spk"] == {"ann-u2": "ann", "ann-u1": "ann", "x": "x"}
    assert set(tables["wav.scp"].values()) == {str((tmp_path / "a b.wav").resolve())}
    assert manifest.main([str(tmp_path / "train.tsv"), str(tmp_path / "data")]) == 0
    assert list(read_table(tmp_path / "data/text")) == ["ann-u1", "ann-u2", "x"]
    assert (tmp_path / "data/spk2utt").read_text().startswith("ann ann-u1 ann-u2\n")


def test_faults_of_a_table(tmp_path: Path, says: Says) -> None:
    table = tmp_path / "train.tsv"
    table.write_text("a\tno.wav\tx\nb b\tx.wav\tx\nc\tx.wav\n" + "d\t\tx\n")
    with pytest.raises(DataError) as caught:
        manifest.read_manifest(table, "speech")
    assert [re.sub(r"^.*train\.tsv:", "", fault)[:12] for fault in caught.value.faults] == [
        "1: a: no aud", "2: " + caught.value.faults[1].split(":2: ")[1][:9], "3: 2 columns", "4: an empty ",
    ]  # fmt: skip
    table.write_text("a\tein hund\ta dog\na\tx\ty\n")
    with pytest.raises(DataError, match=r"train.tsv:2: a was there before"):
        manifest.read_manifest(table, "text")
    table.write_text("\n")
    assert "train.tsv: no lines" in says(manifest.main, [str(table), str(tmp_path / "data"), "--input", "text"], 2)


# ---- AN4's three steps


@pytest.mark.parametrize(
    ("words", "last", "plugs"),
    [
        (["--stage", "1", "--stop_stage", "5"], "--stage 1 --stop_stage 5", False),
        (["--stage", "10"], "--stage 10 --legonn_exp exp/legonn_plugged --stage 12", True),
        (["--stage", "13", "--ngpu", "1"], "--stage 13 --ngpu 1 --legonn_exp exp/legonn_plugged --stage 13", False),
        (["--help"], "--help", False),
    ],
)
def test_an4_stops_where_it_is_told(tmp_path: Path, words: list[str], last: str, plugs: bool) -> None:
    recipe = copy_recipes(tmp_path, "an4")
    fake = tmp_path / "egs2/TEMPLATE/legonn1/legonn.sh"
    fake.write_text('#!/bin/sh\necho "legonn.sh $*" >> notes\n')
    (recipe / "local/path.sh").write_text("python3() { echo \"python3 $*\" >> notes; }\n")
    done = subprocess.run(["bash", "./run.sh", *words], cwd=recipe, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (recipe / "notes").read_text().splitlines()
    assert lines[-1].endswith(last), lines
    assert any(" compose " in line for line in lines) == plugs
    assert len(lines) == (1 if words == ["--help"] else 2 + plugs + ("plugged" in last))
