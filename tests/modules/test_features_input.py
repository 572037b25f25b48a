"""Features that somebody made before: Kaldi's archives, matrices that fit, and nothing unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.data.archives import read_matrix
from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.decode import decode_table
from espnet2_legonn.model.parts import FeaturesConfig, FeaturesInput, Unfit
from espnet2_legonn.search.options import BeamOptions
from tests.modules import toys

DIM = 7
FEATURES = {"type": "features", "dim": DIM, "channels": [2, 3]}


def matrices(number: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"utt{i}": rng.normal(size=(20 + 9 * i, DIM)).astype(np.float32) for i in range(number)}


def table(folder: Path, items: dict[str, np.ndarray], **how: object) -> dict[str, str]:
    kaldiio.save_ark(str(folder / "feats.ark"), items, scp=str(folder / "feats.scp"), **how)
    return dict(line.split(None, 1) for line in (folder / "feats.scp").read_text().splitlines())


def chain() -> LegoNN:
    torch.manual_seed(0)
    modules = [toys.encoder("asr", FEATURES, "bpe"), toys.decoder(toys.wemb("bpe"))]
    return LegoNN.from_config({"vocabs": toys.VOCABS, "modules": modules}).eval()


def test_matrices_of_an_archive(tmp_path: Path) -> None:
    items = matrices()
    for uid, value in table(tmp_path, items).items():
        assert np.array_equal(read_matrix(value), items[uid])
    for uid, value in table(tmp_path, items, compression_method=2).items():
        np.testing.assert_allclose(read_matrix(value), items[uid], atol=0.05)
    value = table(tmp_path, items)["utt1"]
    assert np.array_equal(read_matrix(f"{value}[2:4]"), items["utt1"][2:5]), "Kaldi's ranges end with their last"


def test_a_set_is_decoded_and_a_bad_item_loses_nobody_elses_answer(tmp_path: Path) -> None:
    model, items = chain(), matrices()
    values = table(tmp_path, items) | {"utt9": f"{tmp_path}/none.ark:5"}
    found = decode_table(model, values, BeamOptions(maxlenratio=-4), batch_size=2).nbest[0]
    for uid, features in items.items():
        assert found.text[uid] == model(features, maxlenratio=-4)
        assert found.text[uid] == model(values[uid], maxlenratio=-4), "a place in an archive is an input, too"
    assert found.text["utt9"] == ""


def test_faults_name_the_place(tmp_path: Path) -> None:
    value = table(tmp_path, matrices())["utt0"]
    whole = Path(value.rpartition(":")[0]).read_bytes()
    cases = {
        "nowhere": "features are in archives, file.ark:offset",
        f"cat {value} |": "features are in archives",
        f"{tmp_path}/none.ark:5": "there is no file",
    }
    contents = {
        "evil": pickle.dumps({"a": 1}),
        "sound": b"AUDIO\x04rest",
        "cut": whole[int(value.rpartition(":")[2]) :][:40],
        "empty": b"",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.ark").write_bytes(content)
    cases |= {
        f"{tmp_path}/evil.ark:0": "no matrix of Kaldi's is stored there",
        f"{tmp_path}/sound.ark:0": "sound, which wav.scp should have",
        f"{tmp_path}/cut.ark:0": "cannot be read",
        f"{tmp_path}/empty.ark:0": "but nothing",
    }
    for place, message in cases.items():
        with pytest.raises(DataError, match=message) as error:
            read_matrix(place)
        assert place.split(" ")[0] in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((0, DIM)), "features are .frames"),
        (np.zeros(DIM), r"shape \(7,\)"),
        (np.full((3, DIM), np.nan), "NaN or infinite"),
        (np.array([["a"] * DIM]), "are no numbers"),
    ],
)
def test_what_is_no_features(value: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FeaturesInput.prepare(value, None, "utterance a: feats")
    with pytest.raises(DataError, match=message):
        chain()(value)


def test_another_front_end_is_unfit_for_a_whole_set(tmp_path: Path) -> None:
    part = FeaturesInput(FeaturesConfig(dim=DIM, channels=[2, 3]), toys.D)
    value = table(tmp_path, {"a": np.ones((4, DIM + 1), np.float32)})["a"]
    with pytest.raises(Unfit, match="8 numbers in a frame, this model reads 7"):
        part.fetch(value)
    with pytest.raises(DataError, match="8 numbers in a frame"):
        FeaturesInput.probe(FeaturesConfig(dim=DIM))(value)
    assert part.measure(value) == 4


def test_steps_are_those_of_the_forward_pass() -> None:
    part = FeaturesInput(FeaturesConfig(dim=DIM, channels=[2, 3]), toys.D).eval()
    for frames in (1, 4, 5, 18):
        x, steps = part(torch.randn(1, frames, DIM), torch.tensor([frames]))
        assert part.steps(torch.tensor([frames])) == steps == x.shape[1]
    assert FeaturesInput.total_steps(part.Config(), 400.0, 3) == 100.0
