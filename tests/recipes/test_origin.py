"""A result says which weights, data and search made it; two are not mixed; a card has no score of other weights."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from espnet2_legonn.bin import legonn_inference
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.packs.card import CARD, read_card
from espnet2_legonn.recipes import origin, stages
from espnet2_legonn.recipes.origin import read_origin
from espnet2_legonn.recipes.packing import experiment_provenance, pack_experiment
from tests.recipes.test_stages import FIRST, build, subset, tables
from tests.train.toys import DECODER, Corpus


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = Corpus(tmp_path_factory.mktemp("corpus") / "data").write().root
    return subset(corpus / "valid", corpus / "test", 3)


def in_this_process(cmd: str, log: Path, command: Sequence[str], jobs: int, gpus: int) -> None:
    words = [word.replace("JOB", "1") for word in command]
    legonn_inference.main(words[words.index("espnet2_legonn.bin.legonn_inference") + 1 : words.index("&&")])


@pytest.fixture
def exp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment as stage 11 leaves it, with two sets of weights."""
    monkeypatch.setattr(stages, "run", in_this_process)
    folder = build([FIRST, DECODER]).save(tmp_path / "legonn_x")
    (folder / CARD).unlink()
    (folder / "weights.safetensors").unlink()
    for name, seed in (("valid.decoded.ave.pth", 0), ("2epoch.pth", 1)):
        state = build([FIRST, DECODER], seed).state_dict()
        torch.save({f"chain.{k}": v for k, v in state.items()}, folder / name)
    return folder


def decode(exp: Path, data: Path, *options: str, model: str | None = None) -> Path:
    out = exp / "decode" / "test"
    stages.decode(exp, model, data, out, "run.pl", 1, extra=["--beam_size", "2", *options])
    stages.score(exp, data, out, ["wer"])
    return out


def test_answers_and_scores_name_what_made_them(exp: Path, data: Path) -> None:
    out = decode(exp, data)
    record = read_origin(out)
    assert record is not None
    assert record["weights"] == "valid.decoded.ave.pth"
    assert record["weights_sha256"] == sha256_of(exp / "valid.decoded.ave.pth")
    assert record["data_sha256"] == sha256_of(data / "src_text") and record["data"] == "test/src_text"
    assert record["search"] == ["--beam_size", "2"]
    for place in ("score_wer", "interfaces/encoder/score_wer"):
        assert json.loads((out / place / "result.json").read_text())["made_by"] == record


def test_answers_of_other_weights_are_kept_apart(exp: Path, data: Path) -> None:
    out = decode(exp, data)
    (out / "run.sh").write_text("again")
    first = {k: v for k, v in tables(out).items() if "logdir" not in k and k != "run.sh"}
    assert decode(exp, data) == out and [p.name for p in out.parent.iterdir()] == ["test"], "the same: in place"
    decode(exp, data, model="2epoch.pth")
    aside = out.with_name(f"test@{sha256_of(exp / 'valid.decoded.ave.pth')[:8]}")
    assert tables(aside) == first
    assert (out / "run.sh").is_file() and tables(out)["text"] != first["text"]
    record = read_origin(out)
    assert record is not None and record["weights"] == "2epoch.pth"
    decode(exp, data, "--length_penalty", "0.5", model="2epoch.pth")
    assert len(list(out.parent.iterdir())) == 3, "another search is another result, too"


def test_weights_are_hashed_once(exp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by every job of every test set; other weights are noticed, and a pack's folder stays as its card lists it."""
    hashed: list[str] = []
    monkeypatch.setattr(origin, "sha256_of", lambda path: hashed.append(path.name) or sha256_of(path))
    weights = exp / "valid.decoded.ave.pth"
    first = origin.weights_digest(weights)
    assert origin.weights_digest(weights) == first == sha256_of(weights) and hashed == [weights.name]
    (exp / f".{weights.name}.sha256").write_text("damaged")
    assert origin.weights_digest(weights) == first and len(hashed) == 2
    os.replace(exp / "2epoch.pth", weights)
    assert origin.weights_digest(weights) == sha256_of(weights) != first and len(hashed) == 3
    (exp / f".{weights.name}.sha256").unlink()
    (exp / CARD).touch()
    assert origin.weights_digest(weights) == sha256_of(weights)
    assert not (exp / f".{weights.name}.sha256").exists()


def test_answers_without_a_record_are_kept_apart(exp: Path, data: Path) -> None:
    out = decode(exp, data)
    (out / "made_by.json").unlink()
    decode(exp, data)
    assert (out.with_name("test@earlier") / "text").is_file()


def test_a_card_has_no_score_of_other_weights(exp: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    decode(exp, data)
    card = read_card(pack_experiment(exp, exp / "packs")[0])
    assert {m.dataset for m in card.metrics} == {"decode/test"} and not caplog.records
    state = build([FIRST, DECODER], 2).state_dict()
    torch.save({f"chain.{k}": v for k, v in state.items()}, exp / "valid.decoded.ave.pth")
    with caplog.at_level(logging.WARNING):
        assert read_card(pack_experiment(exp, exp / "packs")[0]).metrics == []
    assert "decoded with other weights than valid.decoded.ave.pth, left out of the card: decode/test" in caplog.text
    decode(exp, data)
    assert {m.dataset for m in read_card(pack_experiment(exp, exp / "packs")[0]).metrics} == {"decode/test"}


def test_scores_without_a_record_are_judged_by_their_time(exp: Path, data: Path) -> None:
    out = decode(exp, data)
    (out / "made_by.json").unlink()
    assert read_card(pack_experiment(exp, exp / "packs")[0]).metrics
    later = (out / "text").stat().st_mtime + 10
    os.utime(exp / "valid.decoded.ave.pth", (later, later))
    assert read_card(pack_experiment(exp, exp / "packs")[0]).metrics == []


def test_updates_outlive_a_rerun_of_stage_11(exp: Path) -> None:
    """ESPnet's launcher begins a new train.log at each start."""
    (exp / "train.log").write_text("The training has already reached at max_epoch: 3")
    (exp / "train.1.log").write_text("1epoch results: total_count=12\n2epoch results: total_count=24\n")
    assert experiment_provenance(exp).updates == 24
    stats = {1: {"train": {"total_count": 12}}, 2: {"train": {"total_count": 30}}}
    torch.save({"model": {}, "reporter": {"stats": stats, "epoch": 2}}, exp / "checkpoint.pth")
    assert experiment_provenance(exp).updates == 30


def test_updates_are_not_batches(exp: Path) -> None:
    """ESPnet counts batches, of training and of validation alike: the card named four times the updates."""
    with (exp / "config.yaml").open("a") as config:
        config.write("accum_grad: 4\n")
    lines = [f"{e}epoch results: [train] loss=1, total_count={10 * e}, [valid] total_count={90 * e}" for e in (1, 2)]
    (exp / "train.log").write_text("\n".join(lines))
    assert experiment_provenance(exp).updates == 6, "4 + 4 + 2 batches of each epoch"
    stats = {1: {"train": {"total_count": 8}}, 2: {"train": {"total_count": 16}}}
    torch.save({"model": {}, "reporter": {"stats": stats, "epoch": 2}}, exp / "checkpoint.pth")
    assert experiment_provenance(exp).updates == 4
