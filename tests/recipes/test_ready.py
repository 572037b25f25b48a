"""Stages 10 to 12 look at their data before they begin, and stage 10 says how the vocabularies fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import yaml

from espnet2_legonn.bin import legonn_inference
from espnet2_legonn.data.vocab import Coverage
from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.decode import decode_table
from espnet2_legonn.model.description import parse
from espnet2_legonn.recipes import stages
from espnet2_legonn.recipes.ready import coverages, report, require_valid
from espnet2_legonn.search.beam import BeamOptions
from tests.recipes.test_stages import DECODER, FIRST, build
from tests.train.toys import FS, MODULES, VOCABS, Corpus, config, control

SPEECH = [{**MODULES["speech"][0], "length_control": control(ratio="1/2")}]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Corpus(tmp_path_factory.mktemp("corpus") / "data").write().root


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    shutil.copytree(corpus, tmp_path / "data")
    return tmp_path / "data"


def description(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(config(MODULES[kind]), sort_keys=False))
    return path


def faults_of(kind: str, folder: Path, tmp_path: Path, targets: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        require_valid(stages.chain_config(description(kind, tmp_path)), [folder], targets)
    return "\n".join(caught.value.faults)


@pytest.mark.parametrize("kind", ["tokens", "speech"])
def test_good_data_are_ready(data: Path, tmp_path: Path, kind: str) -> None:
    chain = stages.chain_config(description(kind, tmp_path))
    require_valid(chain, [data / "train", data / "valid"])


@pytest.mark.parametrize("stage", ["stats", "train", "decode"])
def test_a_stage_does_not_begin(data: Path, tmp_path: Path, stage: str) -> None:
    """A table with fewer rows: ESPnet would train on fewer, and decoding would score fewer."""
    lines = (data / "train" / "text").read_text().splitlines(keepends=True)
    (data / "train" / "text").write_text("".join(lines[:-1]))
    file = description("tokens", tmp_path)
    shutil.copy(file, tmp_path / "config.yaml")
    sets, out = (data / "train", data / "valid"), tmp_path / "out"
    with pytest.raises(DataError, match="utt2spk:15: 'train14' is not in text"):
        if stage == "stats":
            stages.stats(file, *sets, out, "false", 1)
        elif stage == "train":
            stages.train(file, *sets, tmp_path, out, "false")
        else:
            stages.decode(tmp_path, None, data / "train", out, "false", 1)
    assert not out.exists()


def test_sound_at_another_rate_and_what_else_a_model_cannot_take(data: Path, tmp_path: Path) -> None:
    folder = data / "train"
    paths = dict(line.split() for line in (folder / "wav.scp").read_text().splitlines())
    wave, _ = sf.read(paths["train00"])
    sf.write(paths["train00"], wave, 2 * FS)
    sf.write(paths["train01"], np.stack([wave, wave], 1), FS)
    Path(paths["train02"]).write_bytes(Path(paths["train02"]).read_bytes()[:-1000])
    Path(paths["train03"]).unlink()
    scp = (folder / "wav.scp").read_text()
    (folder / "wav.scp").write_text(scp.replace(paths["train04"], f"cat {paths['train04']} |"))
    told = faults_of("speech", folder, tmp_path)
    for line, message in enumerate(
        [
            f"is sampled at {2 * FS} Hz, {FS} Hz expected; format it with --fs {FS}",
            "has 2 channels, 1 expected",
            "is cut short",
            "no such file",
            "is a command; stage 3 (`format`) makes a file of its output",
        ],
        start=1,
    ):
        assert any(f"wav.scp:{line}: " in fault and message in fault for fault in told.split("\n")), message
    require_valid(stages.chain_config(description("speech", tmp_path)), [folder], targets=False)  # the decoder looks


def test_texts_to_learn_are_not_empty_but_others_may_be(data: Path, tmp_path: Path) -> None:
    folder = data / "train"
    phones = (folder / "text_phn").read_text().splitlines()
    (folder / "text_phn").write_text("\n".join([phones[0].split()[0], *phones[1:]]) + "\n")
    assert "text_phn:1: 'train00' has empty text" in faults_of("speech", folder, tmp_path)
    require_valid(stages.chain_config(description("tokens", tmp_path)), [folder])  # it does not read phonemes


def test_the_rate_of_unknown_tokens(data: Path, tmp_path: Path) -> None:
    file = description("tokens", tmp_path)
    found = coverages(stages.chain_config(file), file, [data / "train"])
    assert [Path(c.corpus).name for c in found] == ["src_text", "text"] and not any(c.oov_rate for c in found)
    assert report(found) == [f"{c.corpus}: {c.tokens} tokens, 0.00 % of them <unk>" for c in found]
    text = (data / "train" / "text").read_text()
    (data / "train" / "text").write_text(text.replace(" t0", " T0"))
    told = report(coverages(stages.chain_config(file), file, [data / "train"]))
    assert any(line.startswith("warning: ") and "of the tokens are <unk>, more than 5 %" in line for line in told)
    at_limit = Coverage("x", 1, 100, 100, 5, 5)
    assert not at_limit.warnings() and Coverage("x", 1, 100, 100, 6, 6).warnings()


def test_vocabularies_beside_the_config(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a pack's config lie beside it, wherever the stage is started."""
    (tmp_path / "tgt.txt").write_text("".join(f"{t}\n" for t in VOCABS["tgt"]["tokens"]))
    monkeypatch.chdir(data)
    chain = parse({"vocabs": {**VOCABS, "tgt": {**VOCABS["tgt"], "tokens": "tgt.txt"}}, "modules": MODULES["tokens"]})
    assert coverages(chain, tmp_path / "config.yaml", [data / "train"])[1].unknown_tokens == 0


# ---- decoding


def test_a_text_without_words_has_an_empty_answer(caplog: pytest.LogCaptureFixture) -> None:
    chain = build([FIRST, DECODER])
    inputs = {"u1": "s1 s2", "u2": "", "u3": "s3"}
    decoded = decode_table(chain, inputs, BeamOptions(2, nbest=2))
    for tables in (*decoded.nbest, decoded.interfaces["encoder"]):
        assert tables.text.keys() == tables.score.keys() == inputs.keys() and tables.text["u2"] == ""
    assert decoded.nbest[0].text["u1"] == decode_table(chain, {"u1": "s1 s2"}, BeamOptions(2)).nbest[0].text["u1"]
    assert "1 inputs have no words; their answer is empty: u2" in caplog.text
    nothing = decode_table(chain, {"u": " "}, BeamOptions(2))
    assert nothing.nbest[0].text == nothing.interfaces["encoder"].text == {"u": ""}


def test_one_unreadable_file_never_loses_a_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its answer is empty, it is counted and named; all of them, another rate and channels are still errors."""
    sf.write(tmp_path / "good.wav", np.zeros(FS), FS)
    sf.write(tmp_path / "fast.wav", np.zeros(FS), 2 * FS)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    chain = build(SPEECH)
    inputs = {f"u{i}": str(tmp_path / f"{name}.wav") for i, name in enumerate(("good", "bad", "none"))}
    inputs |= {"u3": "exit 3 |", "u4": f"cat {tmp_path / 'good.wav'} |"}
    decoded = decode_table(chain, inputs, BeamOptions())
    for tables in (*decoded.nbest, *decoded.interfaces.values()):
        assert tables.text.keys() == tables.score.keys() == inputs.keys()
        assert tables.text["u1"] == tables.text["u2"] == tables.text["u3"] == ""
    assert decoded.nbest[0].text["u4"] == decoded.nbest[0].text["u0"]  # a command is run when its turn has come
    assert "3 inputs cannot be read; their answer is empty: u1, u2, u3" in caplog.text
    assert "utterance u1: cannot decode" in caplog.text and "no such file" in caplog.text
    with pytest.raises(DataError) as caught:
        decode_table(chain, {"u1": inputs["u1"], "u2": inputs["u2"]}, BeamOptions())
    assert len(caught.value.faults) == 2
    with pytest.raises(DataError, match=rf"^utterance b: .*fast.wav' is sampled at {2 * FS} Hz"):
        decode_table(chain, {"a": inputs["u0"], "b": str(tmp_path / "fast.wav")}, BeamOptions())


def test_the_command_goes_on_behind_an_unreadable_file(tmp_path: Path) -> None:
    """Nor does its report of speed look at the files again; seconds are those that were decoded."""
    exp = build(SPEECH).save(tmp_path / "exp")
    sf.write(tmp_path / "good.wav", np.zeros(FS), FS)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    (tmp_path / "wav.scp").write_text(f"u1 {good}\nu2 {bad}\nu3 cat {good} |\n")
    words = ["--legonn_train_config", f"{exp}/config.yaml", "--output_dir", f"{tmp_path}/out"]
    assert legonn_inference.main([*words, "--data_path_and_name_and_type", f"{tmp_path}/wav.scp,speech,sound"]) == 0
    assert json.loads((tmp_path / "out/speed.json").read_text())["audio"] == 2.0


def test_channel_and_archive_in_decoding(tmp_path: Path) -> None:
    kaldiio = pytest.importorskip("kaldiio")
    rng = np.random.default_rng(0)
    two = (3000 * rng.standard_normal((FS, 2))).astype(np.int16)
    sf.write(tmp_path / "two.wav", two, FS)
    kaldiio.save_ark(
        str(tmp_path / "a.ark"), {"u": (FS, two[:, 1])}, scp=str(tmp_path / "a.scp"), write_function="soundfile",
        write_kwargs={"format": "flac"},
    )  # fmt: skip
    chain = build(SPEECH)
    stored = (tmp_path / "a.scp").read_text().split()[1]
    one = decode_table(chain, {"u": stored}, BeamOptions()).nbest[0].score
    assert decode_table(chain, {"u": str(tmp_path / "two.wav")}, BeamOptions(), channel="1").nbest[0].score == one
    with pytest.raises(DataError, match="has 2 channels, 1 expected; choose with --channel"):
        decode_table(chain, {"u": str(tmp_path / "two.wav")}, BeamOptions())
    with pytest.raises(DataError, match="--channel 7 asked"):
        decode_table(chain, {"u": str(tmp_path / "two.wav")}, BeamOptions(), channel="7")


def test_answers_are_one_line_whatever_a_token_holds(tmp_path: Path) -> None:
    from espnet2_legonn.data.tables import read_table
    from espnet2_legonn.data.vocabulary import Vocabulary
    from espnet2_legonn.inference.decode import Tables

    vocab = Vocabulary(("<blank>", "<unk>", "a\u2028", "\u00a0", "b", "<sos/eos>"), "char")
    tables = Tables()
    tables.add("u", [3, 2, 4, 3], -1.0, vocab)
    tables.write(tmp_path)
    assert read_table(tmp_path / "text") == {"u": "a b"}
    assert read_table(tmp_path / "token") == {"u": "<U+00A0> a<U+2028> b <U+00A0>"}
