"""What CTC cannot learn from is counted exactly, told, and stops a training of nothing else; no loss, no training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.model.description import parse, require_taught
from espnet2_legonn.training import trainer
from espnet2_legonn.training.tally import Tally
from tests.train.test_parallel import needs_fork, two_processes
from tests.train.toys import DECODER, ENCODER, MODULES, VOCABS, Lab, config, control

pytestmark = pytest.mark.xdist_group("espnet")
NARROW = {**ENCODER, "length_control": control(ratio=1) | {"max_length": 2}}
NOWHERE = {**ENCODER, "length_control": control(ratio=1) | {"max_length": 1}}


def lost(lab: Lab, phase: str, slots: int) -> tuple[int, int]:
    """By hand: utterances whose words and repeats need more slots, and all of them."""
    lines = (lab.corpus.root / phase / "text").read_text().splitlines()
    texts = [line.split()[1:] for line in lines]
    return sum(len(t) + sum(a == b for a, b in zip(t, t[1:])) > slots for t in texts), len(texts)


def test_the_log_counts_exactly(lab: Lab, tmp_path: Path) -> None:
    """Each epoch and phase by itself, whatever the batches; ESPnet's own figures are means over batches."""
    log = lab.train(tmp_path / "exp", "tokens", modules=[NARROW, DECODER], max_epoch=2, batch_size=4)
    for phase, said in (("train", "training"), ("valid", "validation")):
        number, all_ = lost(lab, phase, 2)
        assert 0 < number < all_
        told = f"encoder: {number} of {all_} utterances ({100 * number / all_:.2f} %) have no CTC path ({said})"
        assert log.count(f"{told}: CTC learns nothing of them; give encoder.length_control more slots") == 2


@needs_fork
def test_the_log_counts_all_processes(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two processes reads half of a batch; what both hold is the whole."""
    kept = tmp_path / "two" / "counts"
    monkeypatch.setattr(
        Tally, "tell", lambda self, phase: kept.with_name(f"{phase}.{torch.distributed.get_rank()}").write_text(
            str(self._counts()["encoder"])
        )
    )  # fmt: skip
    two_processes(lab, tmp_path / "two" / "exp", "tokens", modules=[NARROW, DECODER], max_epoch=1, batch_size=8)
    for rank in (0, 1):
        assert kept.with_name(f"training.{rank}").read_text() == str(lost(lab, "train", 2))
    # ESPnet leaves out of a validation batch what the processes cannot share equally.
    assert kept.with_name("validation.0").read_text() == kept.with_name("validation.1").read_text()


@pytest.mark.parametrize("modules", [[NOWHERE, DECODER], [NOWHERE]], ids=["pair", "encoder alone"])
def test_a_training_of_nothing_stops(lab: Lab, tmp_path: Path, modules: list[dict[str, Any]]) -> None:
    """It used to end well, with a loss of 0, or NaN for an encoder alone."""
    with pytest.raises(DataError, match=r"encoder: none of 15 utterances has a CTC path \(training\).*max_length"):
        lab.train(tmp_path / "exp", "tokens", modules=modules)
    assert not (tmp_path / "exp" / "1epoch.pth").exists()


def test_it_stops_long_before_the_end_of_an_epoch(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "ENOUGH", 2)
    with pytest.raises(DataError, match="none of [45] utterances has a CTC path"):
        lab.train(tmp_path / "exp", "tokens", modules=[NOWHERE, DECODER], batch_size=2)


def test_what_ctc_does_not_train_may_be_infeasible(lab: Lab, tmp_path: Path) -> None:
    """Table X: the pair is trained end to end. A frozen module learns nothing anyway."""
    for name, how in (("Table X", {"output": {"vocab": "tgt", "ctc_weight": 0.0}}), ("frozen", {"freeze": True})):
        log = lab.train(tmp_path / name, "tokens", modules=[{**NOWHERE, **how}, DECODER], max_epoch=1)
        assert "encoder: 15 of 15 utterances (100.00 %) have no CTC path (training)" in log


def test_collapsed_slots_grow_with_training(caplog: pytest.LogCaptureFixture) -> None:
    """What a recogniser says at first collapses to next to nothing; the module behind it has to wait, not to stop."""
    speller = {**ENCODER, "name": "speller", "input": {"type": "wemb", "vocab": "tgt", "collapse": True}}
    made = Tally(LegoNN.from_config({"vocabs": VOCABS, "modules": [NOWHERE, {**speller, "length_control": None}]}))
    made.add("speller", torch.tensor([7.0, 7.0]))
    with caplog.at_level(logging.INFO):
        made.tell("validation")
    assert "speller: 7 of 7 utterances (100.00 %) have no CTC path (validation), so far: they are coll" in caplog.text
    made.add("encoder", torch.tensor([7.0, 7.0]))
    with pytest.raises(DataError, match="^encoder: none of 7 utterances has a CTC path"):
        made.tell("training")


def tally(lost: int, number: int) -> Tally:
    data = config([ENCODER])
    made = Tally(LegoNN.from_config({"vocabs": data["vocabs"], "modules": [{**ENCODER, "length_control": None}]}))
    for part in (lost, 0):
        made.add("encoder", torch.tensor([part, number / 2], dtype=torch.float64))
    return made


@pytest.mark.parametrize(("number", "level"), [(0, None), (10, "INFO"), (11, "WARNING")])
def test_above_one_percent_is_a_warning(number: int, level: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tally(number, 1000).tell("training")
    assert [r.levelname for r in caplog.records] == ([level] if level else [])
    assert all(f"{number} of 1000 utterances" in r.message for r in caplog.records)


# ---- no gradient


MUTE = {"vocab": "tgt", "ctc_weight": 0.0}
BEAM = {"type": "beam_conv", "vocab": "tgt", "k": 2, "embed_size": 4, "num_blocks": 1}


def taught(*modules: dict[str, Any]) -> None:
    require_taught(parse({"vocabs": VOCABS, "modules": [dict(m) for m in modules]}))


def test_a_module_without_any_gradient_is_refused(lab: Lab, tmp_path: Path) -> None:
    mute, ranks = {**ENCODER, "output": MUTE}, {**DECODER, "input": BEAM}
    said = r"encoder: no loss would train it: its ctc_weight is 0, and decoder reads ranks .beam_conv."
    for stage in ("true", "false"):  # stage 10 already
        with pytest.raises(ConfigError, match=f"{said}.*give it a ctc_weight above 0, put a wemb ingestor"):
            lab.train(tmp_path / "exp", "tokens", "--collect_stats", stage, modules=[mute, ranks])
    assert not (tmp_path / "exp" / "config.yaml").exists()
    with pytest.raises(ConfigError, match="encoder: no loss would train it.*nothing stands behind it"):
        taught(mute)
    middle = {**MODULES["speech"][1], "name": "middle", "input": {**DECODER["input"]}, "output": MUTE}
    with pytest.raises(ConfigError) as error:
        taught(mute, middle, ranks)
    assert [f.split(":")[0] for f in error.value.faults] == ["middle", "encoder"]


def test_modules_that_a_loss_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    mute, ranks = {**ENCODER, "output": MUTE}, {**DECODER, "input": BEAM}
    taught(mute, DECODER)
    taught(ENCODER, ranks)
    taught({**mute, "freeze": True}, ranks)
    for kind in ("tokens", "speech", "encoder", "baseline", "hybrid"):
        taught(*MODULES[kind])


def test_a_chain_of_that_kind_still_loads(tmp_path: Path) -> None:
    """Packs made before stay packs."""
    data = config([ENCODER])
    first = {**ENCODER, "output": MUTE, "length_control": control(ratio=1)}
    chain = LegoNN.from_config({"vocabs": data["vocabs"], "modules": [first, {**DECODER, "input": BEAM}]})
    assert isinstance(LegoNN.from_pretrained(chain.save(tmp_path / "old"))("s1 s2"), str)
