"""ESPnet-EZ's own Trainer trains a chain: the program of the docs, and data sets in place of dump directories."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from espnet2_legonn import LegoNN
from tests.docs.pages import ROOT, blocks, read
from tests.train.toys import MODULES, Corpus, config

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("espnet")]
DATA_SETS = """
import numpy as np


class Pairs:
    def __init__(self, number):
        self.items = [[3 + (i + k) % 4 for k in range(3)] for i in range(number)]

    def names(self):
        return ("src_text", "text_encoder", "text_decoder")

    def __len__(self):
        return len(self.items)

    def __getitem__(self, uid):
        ids = np.array(self.items[int(uid)], dtype=np.int64)
        return str(uid), {name: ids for name in self.names()}
"""


def program() -> str:
    """What the docs say, as one script."""
    (text,) = (block for block in blocks(read("docs/coming_from_espnet.md"), "python") if "espnetez" in block)
    return text


def run(script: str, folder: Path) -> str:
    """In a process of its own: what registers tasks does so for a whole process."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True)
    if "No module named 'espnetez'" in done.stderr:
        pytest.skip("this ESPnet has no espnetez")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def prepare(folder: Path, kind: str) -> None:
    Corpus(folder / "dump" / "raw").write()
    (folder / "conf").mkdir()
    more = {"use_matplotlib": False, "use_tensorboard": False, "num_workers": 0, "batch_type": "unsorted"}
    described = config(MODULES[kind], max_epoch=1, **more)
    (folder / "conf" / "train.yaml").write_text(yaml.safe_dump(described))


def check(exp: Path, stats: Path, given: object) -> None:
    """An experiment as legonn_train leaves it, of one epoch."""
    assert (exp / "1epoch.pth").is_file() and (exp / "config.yaml").is_file()
    assert (stats / "train" / "text_decoder_shape").is_file()
    described = yaml.safe_load((exp / "config.yaml").read_text())
    assert "ratio" in described["modules"][0]["length_control"], "the statistics were used"
    assert isinstance(LegoNN.from_pretrained(exp)(given), str)


def test_the_program_of_the_docs(tmp_path: Path) -> None:
    prepare(tmp_path, "tokens")
    run(program(), tmp_path)
    check(tmp_path / "exp" / "ez", tmp_path / "exp" / "stats", "s1 s2")


def test_a_chain_that_hears(tmp_path: Path) -> None:
    """Three modules, whose first is normalised with the statistics of the same trainer."""
    prepare(tmp_path, "speech")
    named = '{"speech": ["wav.scp", "sound"], "text_phn": ["text_phn", "text"], "text": ["text", "text"]}'
    head, _, rest = program().partition("data = ")
    run(f"{head}data = {named}\n{rest.partition('}')[2]}", tmp_path)
    check(tmp_path / "exp" / "ez", tmp_path / "exp" / "stats", tmp_path / "dump/raw/valid/valid00.wav")


def test_data_sets_give_ids(tmp_path: Path) -> None:
    """EZ leaves their preparation to them: an array of ids for the source and for every module that is taught."""
    prepare(tmp_path, "tokens")
    head, _, rest = program().partition("data = ")
    rest = rest.partition("}")[2].replace("data_info=data,", "train_dataset=Pairs(8), valid_dataset=Pairs(4),")
    rest = rest.replace('train_dump_dir="dump/raw/train", valid_dump_dir="dump/raw/valid",', "")
    assert "dump" not in rest
    run(DATA_SETS + head + rest, tmp_path)
    check(tmp_path / "exp" / "ez", tmp_path / "exp" / "stats", "s1 s2")
