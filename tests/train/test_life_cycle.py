"""ESPnet's life of a model: statistics, training, what it leaves behind, reading it back, plugging and fine-tuning."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import CheckpointError, ConfigError, DataError
from tests.train.toys import (
    DECODER,
    ENCODER,
    MODULES,
    RECOGNISER,
    Lab,
    call,
    collect_stats,
    config,
    control,
    gap,
    weights,
)

pytestmark = pytest.mark.xdist_group("espnet")
Donors = dict[str, tuple[Path, str]]


def lengths(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text().splitlines())
    return {uid: int(shape.split(",")[0]) for uid, shape in rows}


def words(path: Path) -> dict[str, int]:
    return {uid: len(rest) for uid, *rest in (line.split() for line in path.read_text().splitlines())}


# ---- statistics


def test_statistics_hold_the_lengths_of_inputs_and_targets(lab: Lab) -> None:
    for phase in ("train", "valid"):
        data, tokens, speech = lab.corpus.root / phase, lab.stats["tokens"] / phase, lab.stats["speech"] / phase
        assert lengths(tokens / "src_text_shape") == words(data / "src_text")
        assert lengths(tokens / "text_encoder_shape") == words(data / "text")
        assert lengths(speech / "text_phones_shape") == words(data / "text_phn")
        assert lengths(speech / "text_decoder_shape") == words(data / "text")
        assert lengths(speech / "speech_shape").keys() == words(data / "text").keys()
    assert (lab.stats["speech"] / "train" / "feats_stats.npz").is_file()


# ---- training


@pytest.mark.parametrize(
    ("kind", "inner"), [("tokens", ["encoder"]), ("speech", ["phones", "words"])], ids=["tokens", "speech"]
)
def test_log_has_the_figures_of_every_module(donors: Donors, kind: str, inner: list[str]) -> None:
    exp, log = donors[kind]
    last = [line for line in log.splitlines() if "2epoch results" in line]
    assert len(last) == 1
    for phase in ("train", "valid"):
        part = re.search(rf"\[{phase}\] (.*?)(\[|$)", last[0])
        assert part is not None
        found = dict(pair.split("=") for pair in part[1].split(", ") if "=" in pair)
        keys = ("ctc", "infeasible", "slots_per_token", "blank", "loss")
        wanted = [f"{key}_{name}" for name in inner for key in keys]
        missing = {*wanted, "ce_decoder", "loss_decoder", "acc", "loss"} - found.keys()
        assert not missing, f"{phase}: {missing}"
        assert float(found["infeasible_" + inner[0]]) == 0
        assert float(found["slots_per_token_" + inner[0]]) == pytest.approx(2, rel=0.2)
    for phase in ("train", "valid"):
        assert list((exp / "tensorboard" / phase).glob("events.out.tfevents.*"))


def test_tensorboard_has_the_figures_of_every_module(donors: Donors) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = donors["speech"][0] / "tensorboard" / "valid"
    reader = events.EventAccumulator(str(folder)).Reload()
    keys = ("ctc", "infeasible", "slots_per_token", "blank")
    wanted = {f"{key}_{name}" for key in keys for name in ("phones", "words")} | {"ce_decoder", "acc"}
    assert wanted <= set(reader.Tags()["scalars"])


def test_experiment_folder(donors: Donors) -> None:
    exp, _ = donors["tokens"]
    names = {p.name for p in exp.iterdir()}
    wanted = {"checkpoint.pth", "1epoch.pth", "2epoch.pth", "latest.pth", "config.yaml", "train.total_count.ave.pth"}
    assert wanted | {"valid.acc.best.pth", "valid.acc.ave.pth"} <= names
    assert not [n for n in names if n.startswith(".")], "temporary files are left"
    assert (exp / "latest.pth").resolve().name == "2epoch.pth"
    first, second = weights(exp, 1), weights(exp, 2)
    mean = {k: ((first[k].double() + v) / 2).to(v.dtype) if v.is_floating_point() else v for k, v in second.items()}
    for name in ("train.total_count", "valid.acc"):
        assert gap(torch.load(exp / f"{name}.ave.pth", weights_only=True), mean) == 0


def test_training_moves_every_module_and_fits(donors: Donors) -> None:
    exp, log = donors["speech"]
    losses = [float(x) for x in re.findall(r"epoch results: \[train\].*?, loss=([\d.]+)", log)]
    assert len(losses) == 2 and losses[1] < losses[0]
    first, second = weights(exp, 1), weights(exp, 2)
    still = [k for k in first if first[k].is_floating_point() and torch.equal(first[k], second[k])]
    constant = ("mel_scale.fb", "spectrogram.window", "normalization", "positions")
    assert not [k for k in still if not any(c in k for c in constant)], still


def test_global_statistics_reach_the_model(lab: Lab, donors: Donors) -> None:
    import numpy as np

    stats = np.load(lab.stats["speech"] / "train" / "feats_stats.npz")
    mean = next(v for k, v in weights(donors["speech"][0], 2).items() if k.endswith("normalization.mean"))
    np.testing.assert_allclose(mean, stats["sum"] / stats["count"], rtol=1e-5)


# ---- reading back


@pytest.mark.parametrize("kind", ["tokens", "speech"])
def test_config_reloads_from_another_working_directory(
    donors: Donors, lab: Lab, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espnet2_legonn.training.task import LegoNNTask

    copied = tmp_path / "elsewhere" / "exp"
    shutil.copytree(donors[kind][0], copied, symlinks=True)
    monkeypatch.chdir(tmp_path)
    chain = LegoNN.from_pretrained(Path("elsewhere/exp"), "2epoch.pth")
    model, args = LegoNNTask.build_model_from_file("elsewhere/exp/config.yaml", "elsewhere/exp/2epoch.pth")
    stored = {k.removeprefix("chain."): v for k, v in weights(copied, 2).items()}
    assert gap(chain.state_dict(), stored) == 0 and gap(model.chain.state_dict(), stored) == 0
    assert [m["name"] for m in args.modules] == chain.names and not chain.training
    control = args.modules[0]["length_control"]
    assert float(control["ratio"]) > 0, "the ratio of the data is written down"
    given = "s1 s2" if kind == "tokens" else str(lab.corpus.root / "valid" / "valid00.wav")
    assert isinstance(chain(given, beam_size=2), str)
    assert set(chain.marginals(given, 0).interface.vocab.tokens) >= {"<blank>", "<sos/eos>"}


def test_slots_per_token_seen_in_training_are_kept(donors: Donors) -> None:
    chain = LegoNN.from_pretrained(donors["tokens"][0])
    assert chain.last.input.seen.slots_per_token == pytest.approx(2, rel=0.2)


def test_truncated_checkpoint(donors: Donors, tmp_path: Path) -> None:
    shutil.copytree(donors["tokens"][0], tmp_path / "exp", symlinks=True)
    whole = (tmp_path / "exp" / "2epoch.pth").read_bytes()
    (tmp_path / "exp" / "2epoch.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"2epoch\.pth: damaged or truncated"):
        LegoNN.from_pretrained(tmp_path / "exp", "2epoch.pth")
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such weights"):
        LegoNN.from_pretrained(tmp_path / "exp", "nowhere.pth")


def test_weights_of_another_chain(donors: Donors) -> None:
    with pytest.raises(CheckpointError, match="module encoder: .* missing") as caught:
        LegoNN.from_pretrained(donors["tokens"][0], donors["speech"][0] / "2epoch.pth")
    assert "module words" in str(caught.value) and "unexpected" in str(caught.value)


# ---- other chains


def test_encoder_only(lab: Lab, tmp_path: Path) -> None:
    log = lab.train(tmp_path / "exp", "encoder", max_epoch=1)
    assert "ctc_encoder=" in log and "ce_" not in log and "acc=" not in log
    chain = LegoNN.from_pretrained(tmp_path / "exp")
    assert chain.names == ["encoder"] and isinstance(chain("s1"), str)
    assert (tmp_path / "exp" / "train.total_count.ave.pth").exists()


def test_a_body_of_espnets(lab: Lab, tmp_path: Path) -> None:
    """Trained, averaged (its batch norms count batches in whole numbers), read back, packed and warm-started."""
    body = {"type": "conformer", "output_size": 16, "attention_heads": 2, "linear_units": 32, "num_blocks": 1}
    modules = [{**RECOGNISER, "body": {**body, "cnn_module_kernel": 5}}]
    lab.train(tmp_path / "exp", "speech", modules=modules, max_epoch=2)
    state = torch.load(tmp_path / "exp/train.total_count.ave.pth", weights_only=True)
    counted = [value for name, value in state.items() if name.endswith("num_batches_tracked")]
    assert counted and all(not value.is_floating_point() for value in counted)
    chain = LegoNN.from_pretrained(tmp_path / "exp")
    chain.save(tmp_path / "pack")
    assert LegoNN.from_pretrained(tmp_path / "pack").configs[0].body.others == {"cnn_module_kernel": 5}
    log = lab.train(tmp_path / "warm", "speech", modules=[{**modules[0], "init": str(tmp_path / "pack")}], max_epoch=1)
    assert "init: " in log


def test_baseline(lab: Lab, tmp_path: Path) -> None:
    log = lab.train(tmp_path / "exp", "baseline", max_epoch=1)
    assert "ce_decoder=" in log and "ctc" not in log and "acc=" in log
    assert isinstance(LegoNN.from_pretrained(tmp_path / "exp")("s1 s2", beam_size=2), str)


def test_hybrid_baseline(lab: Lab, tmp_path: Path) -> None:
    """A loss each, labels for both, slots per token from the data; the greedy text of the encoder is read."""
    stats = collect_stats(lab.corpus, tmp_path / "stats", "tokens", MODULES["hybrid"])
    shapes = lab.corpus.shapes("tokens", stats)
    log = call(tmp_path / "exp", config(MODULES["hybrid"], max_epoch=1), *lab.corpus.data("tokens"), *shapes)
    found = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", log.split("1epoch results")[1])}
    assert found["loss_encoder"] == pytest.approx(0.3 * found["ctc_encoder"], rel=0.01)
    assert found["loss"] == pytest.approx(found["loss_encoder"] + found["loss_decoder"], rel=0.01)
    assert found["slots_per_token_encoder"] == pytest.approx(2, rel=0.2)
    chain = LegoNN.from_pretrained(tmp_path / "exp")
    assert isinstance(chain("s1 s2", beam_size=2), str)
    assert isinstance(chain.marginals("s1 s2").greedy_text(), str)


def test_labels_longer_than_slots_are_counted(lab: Lab, tmp_path: Path) -> None:
    encoder = {**ENCODER, "length_control": {"max_length": 2, "num_blocks": 1, "ratio": 1}}
    log = lab.train(tmp_path / "exp", "tokens", modules=[encoder, DECODER], max_epoch=1)
    counts = [float(n) for n in re.findall(r"infeasible_encoder=([\d.e+-]+)", log)]
    assert counts and max(counts) > 0


# ---- plugging and fine-tuning


def plug(donor: Path, **encoder: Any) -> list[dict[str, Any]]:
    """The donor's modules, the decoder frozen in evaluation mode."""
    first = {**ENCODER, "init": f"{donor}#encoder", **encoder}
    return [first, {**DECODER, "init": f"{donor}", "freeze": "eval"}]


def part(state: dict[str, torch.Tensor], module: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state.items() if k.startswith(f"chain.mods.{module}.")}


def test_fine_tuning_of_a_plug(lab: Lab, donors: Donors, tmp_path: Path) -> None:
    donor, _ = donors["tokens"]
    log = lab.train(tmp_path / "exp", "tokens", modules=plug(donor, lr_scale=0.1), max_epoch=1)
    assert re.search(rf"init: encoder: \d+ values from {donor}#encoder", log)
    assert re.search(r"init: decoder: \d+ values from", log)
    rates = [float(r) for r in re.findall(r"optim0_lr0=([\d.e+-]+)", log)]
    assert rates and max(rates) <= 1.0e-3 * 1.001, "lr 1e-2 times lr_scale 0.1"
    assert "optim0_lr1" not in log, "the frozen module has no group"
    start = torch.load(donor / "train.total_count.ave.pth", weights_only=True)
    end = weights(tmp_path / "exp", 1)
    assert gap(part(start, "decoder"), part(end, "decoder")) == 0
    assert gap(part(start, "encoder"), part(end, "encoder")) > 0
    # The config of the experiment must load although the donor may be gone.
    data = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    data["modules"][0]["init"] = "gone#encoder"
    (tmp_path / "exp" / "config.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    LegoNN.from_pretrained(tmp_path / "exp", "1epoch.pth")


def test_decoder_learns_behind_a_frozen_encoder(lab: Lab, donors: Donors, tmp_path: Path) -> None:
    donor, _ = donors["tokens"]
    modules = [{**ENCODER, "init": str(donor), "freeze": True}, {**DECODER, "init": f"{donor}#decoder"}]
    lab.train(tmp_path / "exp", "tokens", modules=modules, max_epoch=1)
    start = torch.load(donor / "train.total_count.ave.pth", weights_only=True)
    end = weights(tmp_path / "exp", 1)
    assert gap(part(start, "encoder"), part(end, "encoder")) == 0
    assert gap(part(start, "decoder"), part(end, "decoder")) > 0


@pytest.mark.parametrize(("mode", "drops"), [(True, True), ("eval", False)])
def test_freeze_eval_turns_dropout_off(donors: Donors, mode: Any, drops: bool) -> None:
    donor, _ = donors["tokens"]
    data = yaml.safe_load((donor / "config.yaml").read_text())
    data["modules"][0]["freeze"] = mode
    chain = LegoNN.from_config({"vocabs": data["vocabs"], "modules": data["modules"]}).train()
    assert chain["encoder"].first.training is drops and chain["decoder"].first.training


def test_init_from_a_module_that_is_not_there(lab: Lab, donors: Donors, tmp_path: Path) -> None:
    modules = [{**ENCODER, "init": f"{donors['tokens'][0]}#encodr"}, DECODER]
    with pytest.raises(CheckpointError, match=r"encoder\.init: .* has no module 'encodr', only encoder, decoder"):
        lab.train(tmp_path / "exp", "tokens", modules=modules)


def test_init_from_another_architecture(lab: Lab, donors: Donors, tmp_path: Path) -> None:
    encoder = copy.deepcopy(ENCODER)
    encoder["body"]["linear_units"] = 64
    modules = [{**encoder, "init": str(donors["tokens"][0])}, DECODER]
    with pytest.raises(CheckpointError, match="module encoder: .* of another shape"):
        lab.train(tmp_path / "exp", "tokens", modules=modules)


def test_a_warm_encoder_for_another_language(lab: Lab, donors: Donors, tmp_path: Path) -> None:
    """All but the input from the donor, the body frozen: what is taken, left and frozen is said and done."""
    donor, _ = donors["tokens"]
    init = {"from": f"{donor}#encoder", "except": ["input"]}
    modules = [{**ENCODER, "init": init, "freeze": ["body"]}, {**DECODER, "init": str(donor), "freeze": True}]
    log = lab.train(tmp_path / "exp", "tokens", modules=modules, max_epoch=1)
    assert re.search(
        rf"init: encoder: \d+ values from {donor}#encoder: body, length_control, interface; left as made: input\n", log
    )
    assert re.search(r"freeze: encoder: body: \d+ of \d+ values stay\n", log)
    start = torch.load(donor / "train.total_count.ave.pth", weights_only=True)
    end = weights(tmp_path / "exp", 1)
    changed = {k.split(".")[3] for k in part(start, "encoder") if not torch.equal(start[k], end[k])}
    assert changed == {"input", "length_control", "interface"}
    assert gap(part(start, "decoder"), part(end, "decoder")) == 0
    data = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    assert data["modules"][0]["init"] == init, "config.yaml says where it came from"


def test_a_part_of_a_module_on_the_command_line(lab: Lab, donors: Donors, tmp_path: Path) -> None:
    donor, _ = donors["tokens"]
    modules = [{**ENCODER, "init": str(donor)}, DECODER]
    options = ["--modules_conf", "encoder.init.except=[input.embed]", "--modules_conf", "encoder.freeze=[body]"]
    log = lab.train(tmp_path / "exp", "tokens", *options, modules=modules, max_epoch=1)
    assert "left as made: input" in log and "freeze: encoder: body" in log


@pytest.mark.parametrize(("left", "read"), [([], False), (["input"], True), (["input.normalization"], True)])
def test_statistics_of_features_come_with_the_part(
    lab: Lab, donors: Donors, tmp_path: Path, left: list[str], read: bool
) -> None:
    """The donor's, or those of the new data where the part is left out."""
    donor, _ = donors["speech"]
    recogniser = {**RECOGNISER, "init": {"from": str(donor), "except": left}}
    data = config([recogniser], max_epoch=1)
    stats = tmp_path / "stats"
    shutil.copytree(lab.stats["speech"], stats)
    feats = dict(np.load(stats / "train" / "feats_stats.npz"))
    np.savez(stats / "train" / "feats_stats.npz", **{**feats, "sum": feats["sum"] + 7 * feats["count"]})
    from espnet2_legonn.training.task import LegoNNTask

    (tmp_path / "train.yaml").write_text(yaml.safe_dump(data))
    options = ["--config", str(tmp_path / "train.yaml"), "--output_dir", str(tmp_path / "exp")]
    args = LegoNNTask.get_parser().parse_args([*options, *lab.corpus.shapes("speech", stats)])
    mean = LegoNNTask.build_model(args).chain.first.input.normalization.mean
    theirs = LegoNN.from_pretrained(donor).first.input.normalization.mean
    torch.testing.assert_close(mean, theirs + (7 if read else 0))


# ---- ESPnet's own way


def test_init_param_of_espnet_takes_and_excludes_parts(lab: Lab, donors: Donors, tmp_path: Path) -> None:
    """``file.pth:src_key:dst_key:exclude_keys``."""
    donor, _ = donors["tokens"]
    encoder = {**ENCODER, "name": "reader", "length_control": control(ratio="3/2")}
    file = donor / "train.total_count.ave.pth"
    source = f"{file}:chain.mods.encoder:chain.mods.reader:chain.mods.encoder.input"
    still = {"optim_conf": {"lr": 0.0, "weight_decay": 0.0}, "scheduler": None, "scheduler_conf": {}, "max_epoch": 1}
    lab.train(tmp_path / "exp", "tokens", "--init_param", source, modules=[encoder, DECODER], **still)
    theirs, mine = torch.load(file, weights_only=True), weights(tmp_path / "exp", 1)
    same = {k.removeprefix("chain.mods.reader.").split(".")[0] for k, v in mine.items()
            if k.startswith("chain.mods.reader") and "seen" not in k and v.dim() > 1
            and torch.equal(v, theirs[k.replace("reader", "encoder")])}  # fmt: skip
    assert same == {"body", "length_control", "interface"}


# ---- what users get wrong


def test_wrong_key_of_a_module(lab: Lab, tmp_path: Path) -> None:
    encoder = copy.deepcopy(ENCODER)
    encoder["body"]["num_block"] = encoder["body"].pop("num_blocks")
    with pytest.raises(ConfigError, match=r"encoder\.body: unknown key 'num_block' \(did you mean 'num_blocks'\?\)"):
        lab.train(tmp_path / "exp", "tokens", modules=[encoder, DECODER])


def test_wrong_key_of_the_config(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((ConfigError, SystemExit)) as caught:
        lab.train(tmp_path / "exp", "tokens", max_epochs=3)
    said = f"{caught.value} {capsys.readouterr().err}"
    assert "max_epochs" in said and "did you mean 'max_epoch'?" in said


def test_modules_conf_of_an_unknown_module(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no module is called 'decode' \(did you mean 'decoder'\?\)"):
        lab.train(tmp_path / "exp", "tokens", "--modules_conf", "decode.body.num_blocks=2")


def test_modules_conf_on_the_command_line(lab: Lab, tmp_path: Path) -> None:
    lab.train(tmp_path / "exp", "tokens", "--modules_conf", "decoder.body.num_blocks=2", max_epoch=1)
    data = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    assert data["modules"][1]["body"]["num_blocks"] == 2 and data["modules_conf"] == {}
    assert len(LegoNN.from_pretrained(tmp_path / "exp").configs) == 2


def test_data_that_no_chain_reads(lab: Lab, tmp_path: Path) -> None:
    texts = [w.replace("src_text,text", "sorce,text") for w in lab.corpus.data("tokens")]
    shapes = lab.corpus.shapes("tokens", lab.stats["tokens"])
    with pytest.raises(ConfigError, match="neither speech nor feats nor src_text among text, sorce") as caught:
        call(tmp_path / "exp", config(MODULES["tokens"]), *texts, *shapes)
    assert "'sorce' is not speech, feats, src_text, text or text_..." in str(caught.value)


def test_ratio_before_statistics(lab: Lab, tmp_path: Path) -> None:
    shapes = [w for p in ("train", "valid") for w in (f"--{p}_shape_file", str(lab.corpus.root / p / "src_text"))]
    with pytest.raises(DataError, match="_shape: no such shape file; stage 10 makes it"):
        call(tmp_path / "exp", config(MODULES["tokens"]), *lab.corpus.data("tokens"), *shapes)


def test_phonemes_missing(lab: Lab, tmp_path: Path) -> None:
    data = lab.corpus.data("speech")
    gone = [i for i, w in enumerate(data) if "text_phn" in w]
    data = [w for i, w in enumerate(data) if i not in gone and i + 1 not in gone]
    shapes = lab.corpus.shapes("speech", lab.stats["speech"])
    with pytest.raises(DataError, match="module phones wants phonemes, but only words are given"):
        call(tmp_path / "exp", config(MODULES["speech"]), *data, *shapes)


# ---- bf16


def test_bf16_on_cpu_is_close_to_full_precision(lab: Lab, tmp_path: Path) -> None:
    losses = {}
    for dtype in ("none", "bf16"):
        log = lab.train(tmp_path / dtype, "speech", "--amp_dtype", dtype, max_epoch=1)
        losses[dtype] = [float(x) for x in re.findall(r"\[(?:train|valid)\].*?, loss=([\d.]+)", log)]
    assert losses["bf16"] and losses["bf16"] == pytest.approx(losses["none"], rel=0.03)
    assert losses["bf16"] != losses["none"], "autocast was on"
    assert all(v.dtype != torch.bfloat16 for v in weights(tmp_path / "bf16", 1).values())


def test_global_normalisation_without_statistics(tmp_path: Path) -> None:
    import argparse

    from espnet2_legonn.training.task import LegoNNTask

    modules = [{**RECOGNISER, "length_control": {"max_length": 9, "ratio": 1}}]
    given = config(modules)
    args = argparse.Namespace(output_dir=str(tmp_path), **given)
    with pytest.raises(ConfigError, match=r"phones\.input\.normalize: global needs --train_shape_file of stage 10"):
        LegoNNTask.build_model(args)


@pytest.mark.slow
def test_statistics_do_not_depend_on_a_later_encoder(lab: Lab, tmp_path: Path) -> None:
    again = collect_stats(lab.corpus, tmp_path / "stats", "tokens", [ENCODER])
    for name in ("src_text_shape", "text_encoder_shape"):
        assert (again / "train" / name).read_text() == (lab.stats["tokens"] / "train" / name).read_text()
