"""--feats_type extracted: a recipe goes on from the features that another one left in dump/extracted."""

from __future__ import annotations

import json
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import yaml

from espnet2_legonn.inference.legonn import LegoNN
from tests.corpora.text_recipes import new_recipe, run

DIM = 5
SIZES = {"size": 16, "heads": 2, "linear_units": 32, "dropout": 0.0}
ENCODER = {
    "name": "encoder",
    "input": {"type": "features", "dim": DIM, "normalize": "global", "channels": [4, 8]},
    "body": {"num_blocks": 1, **SIZES},
    "output": {"vocab": "char"},
}
DECODER = {
    "name": "decoder",
    "input": {"type": "wemb", "vocab": "char", "num_blocks": 1},
    "body": {"type": "transformer_decoder", "num_blocks": 1, **SIZES},
    "output": {"vocab": "char"},
}
CONFIG = {
    "vocabs": {"char": {"tokens": "data/en_token_list/char/tokens.txt", "unit": "char"}},
    "modules": [ENCODER, DECODER],
    "max_epoch": 8,
    "optim_conf": {"lr": 1.0e-2},
    "batch_type": "sorted",
    "batch_size": 8,
}


def write(folder: Path, number: int, seed: int) -> None:
    """Letters a to e as 12 frames each, the letter's own feature high."""
    rng, folder = np.random.default_rng(seed), folder.resolve()
    folder.mkdir(parents=True)
    texts, features = {}, {}
    for i in range(number):
        said = rng.integers(0, DIM, rng.integers(2, 5))
        texts[f"u{i:03d}"] = "".join("abcde"[j] for j in said)
        frames = np.eye(DIM)[said].repeat(12, 0)
        features[f"u{i:03d}"] = (frames + 0.1 * rng.normal(size=frames.shape)).astype(np.float32)
    kaldiio.save_ark(str(folder / "feats.ark"), features, scp=str(folder / "feats.scp"))
    for name, rows in (("text", texts), ("utt2spk", {u: u for u in texts})):
        (folder / name).write_text("".join(f"{u} {row}\n" for u, row in rows.items()))


@pytest.mark.slow
@pytest.mark.xdist_group("espnet")
def test_from_features_to_scores(tmp_path: Path) -> None:
    recipe = new_recipe(tmp_path)
    for seed, (name, number) in enumerate((("train", 60), ("valid", 10), ("test", 10))):
        write(recipe / "dump/extracted" / name, number, seed)
    (recipe / "conf/train.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    sets = "--train_set train --valid_set valid --test_sets test --token_type char --lang en --metrics wer"
    command = f'. ./path.sh; legonn.sh {sets} "$@"'
    told = run(
        recipe, "bash", "-c", command, "run.sh", "--feats_type", "extracted", "--skip_stages", "1", "--nj", "1",
        "--inference_nj", "1", "--ngpu", "0", "--legonn_config", "conf/train.yaml", "--stop_stage", "13",
    )  # fmt: skip
    assert "Stage 2" not in told and "Stage 3" not in told and "Stage 4" not in told
    exp = recipe / "exp/legonn_train"
    assert json.loads((exp / "decode/test/score_wer/result.json").read_text())["value"] < 60, "it learned something"
    model = LegoNN.from_pretrained(exp)
    assert model.first.input.normalization.mean.abs().max() > 0, "stage 10 counted features"
    place = dict(line.split(None, 1) for line in (recipe / "dump/extracted/test/feats.scp").read_text().splitlines())
    texts = dict(line.split(None, 1) for line in (exp / "decode/test/text").read_text().splitlines())
    assert model(place["u000"]) == texts["u000"]
