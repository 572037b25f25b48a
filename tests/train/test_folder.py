"""What a training finds in its folder: it goes on with what it began with, and is alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn.errors import BusyError, CheckpointError, ConfigError
from espnet2_legonn.files.scratch import TRAINING, alone
from espnet2_legonn.recipes import stages
from tests.train.test_resume import SCHEDULE
from tests.train.toys import DECODER, ENCODER, VOCABS, Corpus, Lab, collect_stats, config, control, gap, weights

pytestmark = pytest.mark.xdist_group("espnet")
RESUME = ("--resume", "true")


def ratios(exp: Path) -> list[Any]:
    modules = yaml.safe_load((exp / "config.yaml").read_text())["modules"]
    return [(m["length_control"] or {}).get("ratio") for m in modules if "length_control" in m]


def longer(corpus: Corpus, root: Path) -> Path:
    """Statistics as stage 10 makes them of other data: twice the tokens for the same inputs."""
    stats = collect_stats(corpus, root, "tokens")
    for phase in ("train", "valid"):
        path = stats / phase / "text_encoder_shape"
        lines = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(f"{key} {2 * int(shape.split(',')[0])}\n" for key, shape in lines))
    return stats


@pytest.mark.parametrize("lost", ["", "ratios.yaml", "config.yaml"])
def test_slots_per_token_stay_what_they_were(lab: Lab, tmp_path: Path, lost: str) -> None:
    """Stage 10 was run anew: a resumed training would go on with twice the slots. One of both files is enough."""
    exp = tmp_path / "exp"
    lab.train(tmp_path / "whole", "tokens", max_epoch=2, **SCHEDULE)
    lab.train(exp, "tokens", max_epoch=1, **SCHEDULE)
    before = ratios(exp)
    if lost:
        (exp / lost).write_text("") if lost == "config.yaml" else (exp / lost).unlink()
    again = Lab(lab.corpus, {"tokens": longer(lab.corpus, tmp_path / "stats")})
    again.train(exp, "tokens", *RESUME, max_epoch=2, **SCHEDULE)
    assert ratios(exp) == before
    assert gap(weights(tmp_path / "whole", 2), weights(exp, 2)) == 0
    again.train(tmp_path / "new", "tokens", max_epoch=1, **SCHEDULE)
    assert float(ratios(tmp_path / "new")[0]) == pytest.approx(2 * float(before[0]), abs=2e-4), "derived anew"


@pytest.fixture(scope="module")
def broken_off(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Resume a training of one epoch with other options."""
    exp = tmp_path_factory.mktemp("going") / "exp"
    lab.train(exp, "tokens", max_epoch=1, **SCHEDULE)

    def resume(*options: str, **changes: Any) -> str:
        return lab.train(exp, "tokens", *RESUME, *options, **{"max_epoch": 1, **SCHEDULE, **changes})

    return resume


ENCODER_3 = {**ENCODER, "length_control": control(slots_per_token=3)}


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ([], {"optim": "adam"}, "optim is adam, it was adamw; checkpoint.pth has its state, so this would be ignored"),
        ([], {"optim_conf": {"lr": 1.0e-3}}, r"optim_conf is {'lr': 0.001}, it was {'lr': 0.01}"),
        (["--optim_conf", "weight_decay=0.1"], {}, "optim_conf is .*'weight_decay': 0.1.*, it was {'lr': 0.01}"),
        ([], {"scheduler_conf": {"warmup_steps": 9}}, "scheduler_conf is {'warmup_steps': 9}, it was"),
        (["--modules_conf", "decoder.lr_scale=0.1"], {}, "decoder.lr_scale is 0.1, it was 1.0"),
        ([], {"modules": [ENCODER_3, DECODER]}, "encoder.length_control.slots_per_token is 3, it was 2"),
        (["--modules_conf", "encoder.length_control.ratio=1/2"], {}, "encoder.length_control.ratio is 1/2, it was"),
        ([], {"vocabs": {**VOCABS, "tgt": {**VOCABS["tgt"], "tokens": VOCABS["tgt"]["tokens"][:2] + ["t1", "t0"]
              + VOCABS["tgt"]["tokens"][4:]}}}, "vocabs.tgt.tokens: other tokens than this training began with"),
    ],
)  # fmt: skip
def test_what_a_resumed_training_would_ignore_is_refused(
    broken_off: Callable[..., str], options: list[str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"exp: {message}.*put it back, or train in another --output_dir"):
        broken_off(*options, **changes)


def test_all_that_would_be_ignored_is_told_at_once(broken_off: Callable[..., str]) -> None:
    with pytest.raises(ConfigError) as error:
        broken_off(optim="sgd", optim_conf={"lr": 1.0}, scheduler=None)
    assert [fault.split()[1] for fault in error.value.faults] == ["optim", "optim_conf", "scheduler"]


def test_what_takes_effect_is_told(broken_off: Callable[..., str]) -> None:
    log = broken_off("--seed", "7", batch_size=5, max_epoch=1)
    assert "resumed with another batch_size: 5, it was 3" in log and "resumed with another seed: 7, it was 0" in log
    assert "resumed with another" not in broken_off("--seed", "7", "--num_workers", "0", batch_size=5, max_epoch=1)


def test_epochs_without_a_checkpoint_are_not_written_over(lab: Lab, tmp_path: Path) -> None:
    lab.train(tmp_path, "tokens", max_epoch=2, **SCHEDULE)
    kept = weights(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"holds a training \(1epoch.pth, 2epoch.pth\); --resume true goes on"):
        lab.train(tmp_path, "tokens", max_epoch=2, **SCHEDULE)
    (tmp_path / "checkpoint.pth").unlink()
    with pytest.raises(CheckpointError, match=r"holds 1epoch.pth, 2epoch.pth, but no checkpoint.pth .* put it back"):
        lab.train(tmp_path, "tokens", *RESUME, max_epoch=2, **SCHEDULE)
    assert gap(kept, weights(tmp_path, 1)) == 0
    for epoch in (1, 2):
        (tmp_path / f"{epoch}epoch.pth").unlink()
    lab.train(tmp_path, "tokens", *RESUME, max_epoch=1, **SCHEDULE)


# ---- alone

HOLD = """
import os, sys, time
from pathlib import Path
from espnet2_legonn.files.scratch import TRAINING, alone
with alone(Path(sys.argv[1]), TRAINING):
    if os.fork() == 0:  # as a worker of a data loader
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Another process that trains in ``tmp_path``; its group is ended afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_one_training_in_a_folder(lab: Lab, tmp_path: Path, holder: Any) -> None:
    said = rf"in use, training goes on there \(process {holder.pid} on .*\); wait for its end or stop it"
    with pytest.raises(BusyError, match=said):
        lab.train(tmp_path, "tokens", max_epoch=1, **SCHEDULE)
    assert not (tmp_path / "config.yaml").exists()
    holder.kill()
    holder.wait()
    lab.train(tmp_path, "tokens", max_epoch=1, **SCHEDULE)  # at once, though a worker of the killed one lives
    assert not list(tmp_path.glob(".*.lock"))


def test_the_launcher_leaves_the_log_of_a_running_training_alone(lab: Lab, tmp_path: Path, holder: Any) -> None:
    """Killed run.sh, living training: ESPnet's launcher would move its log away before anything else."""
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config([ENCODER, DECODER])))
    (tmp_path / "train.log").write_text("epoch 3")
    data = lab.corpus.root
    with pytest.raises(BusyError, match="in use, training goes on there"):
        stages.train(
            tmp_path / "train.yaml", data / "train", data / "valid", lab.stats["tokens"], tmp_path, "no-such-launcher"
        )
    assert (tmp_path / "train.log").read_text() == "epoch 3"


def test_a_lock_is_free_after_its_end(tmp_path: Path) -> None:
    for _ in range(2):
        with alone(tmp_path, TRAINING):
            with pytest.raises(BusyError), alone(tmp_path, TRAINING):
                pass
            with alone(tmp_path, "jobs"), alone(tmp_path / "other", TRAINING):
                pass
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_statistics_are_no_training(lab: Lab, tmp_path: Path) -> None:
    with alone(tmp_path, TRAINING):
        collect_stats(lab.corpus, tmp_path, "tokens")
