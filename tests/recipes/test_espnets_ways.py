"""Options of asr.sh that stages do: cleaners, weights to begin with, a training set in parts, symbols, speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn.bin import legonn_stage
from espnet2_legonn.data.audio import seconds as seconds_of
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.model.description import parse
from espnet2_legonn.recipes import clean, speed, stages, train_options
from tests.train.toys import DECODER, ENCODER, MODULES, PRONUNCIATION, Corpus, Lab, collect_stats, config


def chain(modules: list[dict[str, Any]]) -> Any:
    return parse({"vocabs": config(modules)["vocabs"], "modules": modules})


# ---- cleaners


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("lc.rm", "hello world dr jones"), ("lc", "hello, world! dr. jones"), ("tacotron", "HELLO, WORLD! DOCTOR JONES")],
)
def test_cleaners(tmp_path: Path, name: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("a Hello,  World! Dr. Jones\nb\n")
    (tmp_path / "src_text").write_text("a Hello,  World! Dr. Jones\nb\n")
    (tmp_path / "text_phn").write_text("a HH AH\nb\n")
    legonn_stage.main(["clean", "--data", str(tmp_path), "--cleaner", name])
    assert read_table(tmp_path / "text") == read_table(tmp_path / "src_text") == {"a": wanted, "b": ""}
    assert read_table(tmp_path / "text_phn")["a"] == "HH AH"
    assert f"text: 1 lines changed by {name}" in capsys.readouterr().out


def test_cleaners_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cleaner: 'tacotrom' is none of tc, .*did you mean 'tacotron'"):
        clean.cleaner("tacotrom")
    with pytest.raises(DataError, match="no text to clean"):
        clean.clean_dir(tmp_path, "lc")


# ---- weights to begin with


def test_weights_to_begin_with(tmp_path: Path) -> None:
    from tests.recipes.test_stages import build

    exp = build([{**ENCODER, "length_control": None}, DECODER]).save(tmp_path / "old")
    ours = chain(MODULES["tokens"])
    assert train_options.pretrained(ours, str(exp)) == [
        "--modules_conf", f"encoder.init={exp}#encoder", "--modules_conf", f"decoder.init={exp}#decoder",
    ]  # fmt: skip
    assert train_options.pretrained(chain([PRONUNCIATION, DECODER]), str(exp))[1:] == [f"decoder.init={exp}#decoder"]
    with pytest.raises(ConfigError, match="has the modules encoder, decoder, the chain has words; name them"):
        train_options.pretrained(chain([PRONUNCIATION]), str(exp))
    (tmp_path / "3epoch.pth").write_bytes(b"")
    model = f"{tmp_path}/3epoch.pth:chain.encoder:chain.encoder"
    assert train_options.pretrained(ours, model, True) == ["--init_param", model, "--ignore_init_mismatch", "true"]
    with pytest.raises(ConfigError, match="4epoch.pth: no such file"):
        train_options.pretrained(ours, f"{tmp_path}/4epoch.pth")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    corpus = Corpus(tmp_path_factory.mktemp("corpus") / "data").write()
    return Lab(corpus, {"tokens": collect_stats(corpus, tmp_path_factory.mktemp("stats") / "s", "tokens")})


@pytest.mark.slow
def test_training_begins_with_them(lab: Lab, tmp_path: Path) -> None:
    """From an experiment by module, and from its checkpoint as ESPnet does."""
    lab.train(tmp_path / "old", "tokens", max_epoch=1)
    ours = chain(MODULES["tokens"])
    log = lab.train(tmp_path / "new", "tokens", *train_options.pretrained(ours, str(tmp_path / "old")))
    assert log.count("init: ") >= 2 and (tmp_path / "new/2epoch.pth").is_file()
    file = str(tmp_path / "old/1epoch.pth")
    log = lab.train(tmp_path / "again", "tokens", *train_options.pretrained(ours, file))
    assert f"Loading pretrained params from {file}" in log


# ---- a training set in parts


@pytest.mark.slow
def test_a_training_set_in_parts(lab: Lab, tmp_path: Path) -> None:
    ours, root, shapes = chain(MODULES["tokens"]), lab.corpus.root, lab.stats["tokens"]
    inputs = [*stages.data_options(ours, root / "train", root / "valid"), *stages.shape_options(ours, shapes)]
    assert train_options.in_parts(inputs, lab.stats["tokens"], 1) == inputs
    split = train_options.in_parts(inputs, lab.stats["tokens"], 3)
    folder = lab.stats["tokens"] / "train"
    parts = [read_table(folder / f"src_text.split3/split.{n}") for n in range(3)]
    assert sorted(key for part in parts for key in part) == sorted(read_table(root / "train/src_text"))
    from tests.train.toys import call

    log = call(tmp_path / "exp", config(MODULES["tokens"]), *split)
    assert (tmp_path / "exp/2epoch.pth").is_file() and "2epoch results" in log
    data = yaml.safe_load((tmp_path / "exp/config.yaml").read_text())
    assert data["multiple_iterator"] and data["modules"][0]["length_control"]["ratio"], "lengths are found as before"


# ---- scoring and speed


def test_symbols_do_not_count(tmp_path: Path) -> None:
    from tests.recipes.test_stages import build

    exp = build([{**ENCODER, "length_control": None}, DECODER]).save(tmp_path / "exp")
    (tmp_path / "data").mkdir()
    decoded = exp / "decode/data"
    decoded.mkdir(parents=True)
    (tmp_path / "data/text").write_text("u1 t1 <noise> t2\nu2 t3\n")
    (decoded / "text").write_text("u1 t1 t2\nu2 t3 <um>\n")
    (tmp_path / "symbols").write_text("<noise>\n\n <um> \n")
    assert [f[2] for f in stages.score(exp, tmp_path / "data", decoded, ["wer"])] == [50.0]
    words = ["score", "--exp", str(exp), "--data", str(tmp_path / "data"), "--decoded", str(decoded)]
    legonn_stage.main([*words, "--nlsyms", str(tmp_path / "symbols"), "--metrics", "wer", "cer", "bleu"])
    found = {m: json.loads((decoded / f"score_{m}/result.json").read_text())["value"] for m in ("wer", "cer", "bleu")}
    assert found["wer"] == found["cer"] == 0 and found["bleu"] < 100, "BLEU sees texts as they are"
    assert (decoded / "score_wer/ref.trn").read_text() == "t1 t2 (u1-u1)\nt3 (u2-u2)\n"
    legonn_stage.main([*words, "--nlsyms", "none", "--score_opts=", "--metrics", "wer"])
    assert json.loads((decoded / "score_wer/result.json").read_text())["value"] == 50


def test_speed(tmp_path: Path) -> None:
    sounds = list(read_table(Corpus(tmp_path / "c").write().root / "valid/wav.scp").values())
    said = speed.write_speed(tmp_path / "1", len(sounds), 2.0, sum(seconds_of(sound) or 0 for sound in sounds))
    assert said.startswith("5 utterances in 2.0 s (2.5 a second and job), ") and "real-time factor" in said
    speed.write_speed(tmp_path / "2", 2, 1.0, 0.0)
    seconds = json.loads((tmp_path / "1/speed.json").read_text())["audio"]
    assert 1 < seconds < 10
    together = speed.gather_speed([tmp_path / "1", tmp_path / "2", tmp_path / "3"], tmp_path / "logs")
    assert f"7 utterances in 3.0 s (2.3 a second and job), {seconds:.1f} s of audio" in together
    assert f"real-time factor {3 / seconds:.3f}, latency 429 ms an utterance" in together
    assert (tmp_path / "logs/calculate_rtf.log").read_text() == together + "\n"
    assert speed.gather_speed([tmp_path / "3"], tmp_path / "none") == "" and not (tmp_path / "none").exists()


def test_nothing_to_score_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stage 13 of a set that was not decoded, or has no references, ended well without a word."""
    from tests.recipes.test_stages import build

    exp = build([{**ENCODER, "length_control": None}, DECODER]).save(tmp_path / "exp")
    (tmp_path / "data").mkdir()
    (exp / "decode/data").mkdir(parents=True)
    words = ["score", "--exp", str(exp), "--data", str(tmp_path / "data"), "--decoded", str(exp / "decode/data")]
    assert legonn_stage.main(words) == 2 and "decode it (stage 12)" in capsys.readouterr().err
    (exp / "decode/data/text").write_text("u1 t1\n")
    assert legonn_stage.main(words) == 2 and f"{tmp_path / 'data' / 'text'}: no such file" in capsys.readouterr().err
    (tmp_path / "data/text").write_text("u1 t1\n")
    assert legonn_stage.main([*words, "--metrics", "wer", "per"]) == 2, "words have no phonemes to score"
    said = capsys.readouterr().err
    assert "metric 'per' is of phonemes, and encoder says word, decoder says word; take wer, cer or bleu" in said
    assert not list(exp.rglob("score_*"))
