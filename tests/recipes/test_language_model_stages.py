"""Stages 6 to 8 and 12 with a language model: ESPnet's commands over a chain's tokens, and the search with it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn import ConfigError, LegoNN
from espnet2_legonn.bin.legonn_stage import main
from espnet2_legonn.errors import BusyError
from espnet2_legonn.files.scratch import LAUNCHING, alone
from espnet2_legonn.recipes import lm, stages
from tests.zoo.toys import build, pair

RUN = "perl " + str(Path(__file__).resolve().parents[2] / "egs2" / "TEMPLATE" / "legonn1" / "run.pl")
CONFIG = {
    "lm": "seq_rnn", "lm_conf": {"unit": 8, "nlayers": 1}, "batch_type": "numel", "batch_bins": 400, "max_epoch": 2,
    "optim": "adam", "optim_conf": {"lr": 0.05}, "best_model_criterion": [["valid", "loss", "min"]],
    "use_tensorboard": False, "use_matplotlib": False, "num_workers": 0,
}  # fmt: skip


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A set in which b follows a."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "text").write_text("".join(f"u{i:02d} {'a b ' * (1 + i % 3)}c\n" for i in range(30)))
    (folder / "src_text").write_text("".join(f"u{i:02d} {'k l ' * (1 + i % 3)}m\n" for i in range(30)))
    return folder


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    folder = tmp_path / "tokens"
    folder.mkdir()
    tokens = build(pair()).require_text().tokens
    (folder / "tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
    return folder


def test_missing_files_are_named(tmp_path: Path, vocab: Path, texts: Path) -> None:
    with pytest.raises(ConfigError) as error:
        lm.lm_stats(tmp_path / "c.yaml", vocab, "bpe", tmp_path / "t", texts / "text", tmp_path / "o", RUN)
    assert [fault.split(":")[0] for fault in error.value.faults] == [str(vocab / "bpe.model"), str(tmp_path / "t")]


def test_the_command_reads_files_of_texts(
    tmp_path: Path, vocab: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stage 6 as legonn.sh calls it: --train and --valid of a language model are no data directories."""
    called: list[Any] = []
    monkeypatch.setattr(lm, "lm_stats", lambda *given: called.append(given))
    config, text = tmp_path / "train_lm.yaml", texts / "text"
    config.write_text(yaml.safe_dump(CONFIG))
    words = ["lm", "--step", "stats", "--config", str(config), "--vocab", str(vocab), "--unit", "word", "--valid"]
    words += [str(text), "--stats_dir", str(tmp_path / "stats"), "--out", str(tmp_path / "lm"), "--cmd", RUN, "--train"]
    assert main([*words, str(text)]) == 0 and called[0][3:5] == (text, text)
    assert main([*words, str(tmp_path / "none")]) == 2 and len(called) == 1
    assert f"{tmp_path / 'none'}: no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_language_model_is_trained_and_searched_with(tmp_path: Path, vocab: Path, texts: Path) -> None:
    pytest.importorskip("espnet2.bin.lm_train")
    config, stats, exp = tmp_path / "train_lm.yaml", tmp_path / "stats", tmp_path / "lm"
    config.write_text(yaml.safe_dump(CONFIG))
    text = texts / "text"
    lm.lm_stats(config, vocab, "word", text, text, stats, RUN)
    shapes = dict(line.split() for line in (stats / "train" / "text_shape.word").read_text().splitlines())
    assert len(shapes) == 30 and shapes["u00"] == "3,7"
    lm.lm_train(config, vocab, "word", text, text, stats, exp, RUN)
    perplexity = lm.lm_perplexity(exp, "valid.loss.ave.pth", text, exp / "perplexity", RUN)
    assert 1 < perplexity < 7, "better than nothing known of the tokens"
    pack = build(pair()).save(tmp_path / "exp")
    chain = LegoNN.from_pretrained(pack)
    file = str(exp / "valid.loss.ave.pth")
    best = chain.generate("k l m", lm_file=file, lm_weight=50.0, ctc_weight=0.0, beam_size=5)[0][0]
    plain = chain.generate("k l m", ctc_weight=0.0, beam_size=5)[0][0]
    assert best.parts["lm"] / (len(best.ids) + 1) > math.log(1 / 4) and set(plain.parts) == {"decoder"}
    said = stages.tune_search(pack, None, texts, "wer", 3, 6, {"lm_file": file})
    kept = LegoNN.from_pretrained(pack).search
    assert kept is not None and kept.lm_weight is not None and kept.ngram_weight is None and "ngram_weight" in said
    grid = json.loads((pack / "tune" / "set" / "result.json").read_text())["grid"]
    assert {row[1] for row in grid} > {0.0, 1.0}, "the weight of the model was tried"
    shutil.rmtree(exp)
    assert stages.tune_search(pack, None, texts, "wer", 3, 6) != ""


def test_one_training_at_a_time(tmp_path: Path, vocab: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings of one language model wrote each other's checkpoints."""
    monkeypatch.setattr(lm, "call", lambda _: 0)
    train = (tmp_path / "c.yaml", vocab, "word", texts / "text", texts / "text", tmp_path / "stats", tmp_path / "lm")
    lm.lm_train(*train, RUN)
    with alone(tmp_path / "lm", LAUNCHING), pytest.raises(BusyError, match="in use"):
        lm.lm_train(*train, RUN)
