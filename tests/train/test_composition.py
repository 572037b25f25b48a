"""A composition is an ESPnet experiment too: its tools read it, and training goes on from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.inference.compose import compose, finetune_config
from tests.train.toys import QUIET, Lab, logged, weights

pytestmark = pytest.mark.xdist_group("espnet")
NO_UPDATE = ["--max_epoch", "1", "--optim_conf", "lr=0.0", "--optim_conf", "weight_decay=0.0", "--seed", "3"]


@pytest.fixture(scope="module")
def composed(donors: dict[str, tuple[Path, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoder and decoder of the text donor, put together again."""
    exp, _ = donors["tokens"]
    out = tmp_path_factory.mktemp("composed") / "both"
    compose([f"{exp}#encoder", f"{exp}#decoder"], out)
    return out


def train(lab: Lab, exp: Path, *options: str) -> str:
    from espnet2_legonn.training.task import LegoNNTask

    exp.mkdir(parents=True)
    data = [*lab.corpus.data("tokens"), *lab.corpus.shapes("tokens", lab.stats["tokens"])]
    batches = ["--batch_type", "sorted", "--batch_size", "4"]
    with logged() as log:
        LegoNNTask.main(cmd=["--output_dir", str(exp), *QUIET, *data, *batches, *options])
    return log.getvalue()


def same(exp: Path, chain: LegoNN) -> bool:
    """Equal parameters; what ports saw goes on counting."""
    state = weights(exp, 1)
    return all(torch.equal(state[f"chain.{k}"], p) for k, p in chain.named_parameters())


def test_espnet_builds_the_model_from_the_two_files(composed: Path) -> None:
    from espnet2_legonn.training.task import LegoNNTask

    model, _ = LegoNNTask.build_model_from_file(composed / "config.yaml", composed / "model.pth")
    own = LegoNN.from_pretrained(composed).state_dict()
    assert all(torch.equal(v, own[k]) for k, v in model.chain.state_dict().items())


def test_training_goes_on_from_config_and_checkpoint(lab: Lab, composed: Path, tmp_path: Path) -> None:
    """Files named in config.yaml lie beside it, wherever training is started."""
    options = ["--config", str(composed / "config.yaml"), "--init_param", str(composed / "model.pth")]
    train(lab, tmp_path / "exp", *options, *NO_UPDATE)
    assert same(tmp_path / "exp", LegoNN.from_pretrained(composed))


def test_fine_tuning_config(lab: Lab, composed: Path, tmp_path: Path) -> None:
    tune = tmp_path / "tune.yaml"
    tune.write_text(yaml.safe_dump({"modules_conf": {"decoder": {"freeze": True}}}))
    config = finetune_config(LegoNN.from_pretrained(composed), composed, tune)
    log = train(lab, tmp_path / "same", "--config", str(config), *NO_UPDATE)
    assert "values from" in log and same(tmp_path / "same", LegoNN.from_pretrained(composed))
    train(lab, tmp_path / "tuned", "--config", str(config), "--max_epoch", "1", "--optim_conf", "lr=0.01")
    before, after = weights(tmp_path / "same", 1), weights(tmp_path / "tuned", 1)
    moved = {k for k in before if "seen" not in k and not torch.equal(before[k], after[k])}
    assert moved and all(k.startswith("chain.mods.encoder") for k in moved)


def test_fine_tuning_leaves_parts_out(lab: Lab, composed: Path, tmp_path: Path) -> None:
    """``modules_conf`` adds to the short ``init`` that the composition wrote."""
    tune = tmp_path / "tune.yaml"
    changes = {"encoder": {"init": {"except": ["length_control"]}}, "decoder": {"freeze": ["body"]}}
    tune.write_text(yaml.safe_dump({"modules_conf": changes}))
    config = finetune_config(LegoNN.from_pretrained(composed), composed, tune)
    log = train(lab, tmp_path / "exp", "--config", str(config), *NO_UPDATE)
    assert f"values from {composed}#encoder: input, body, interface; left as made: length_control" in log
    assert "freeze: decoder: body: " in log


def test_init_takes_packs(lab: Lab, composed: Path, tmp_path: Path) -> None:
    from espnet2_legonn.packs.files import zip_pack

    archive = zip_pack(composed, tmp_path / "both.zip")
    data = yaml.safe_load((composed / "config.yaml").read_text())
    for module in data["modules"]:
        module["init"] = str(archive)
    for vocab in data["vocabs"].values():
        vocab["tokens"] = str(composed / vocab["tokens"])
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(data, sort_keys=False))
    train(lab, tmp_path / "exp", "--config", str(config), *NO_UPDATE)
    assert same(tmp_path / "exp", LegoNN.from_pretrained(composed))
