"""An interrupted training equals one that was not; half-written checkpoints never replace whole ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.files.scratch import scratch
from espnet2_legonn.training.averaging import average
from espnet2_legonn.training.compat import atomic_save, load
from tests.train.toys import DECODER, ENCODER, Lab, figures, gap, weights

pytestmark = pytest.mark.xdist_group("espnet")
# 15 utterances in batches of about 3: five batches an epoch, which is no multiple of three.
SCHEDULE: dict[str, Any] = {"scheduler_conf": {"warmup_steps": 6}, "batch_size": 3}


def interrupted(lab: Lab, root: Path, accum_grad: int) -> tuple[Path, Path]:
    """Experiments of four epochs in one go, and of two epochs and then two more."""
    options = {**SCHEDULE, "accum_grad": accum_grad}
    lab.train(root / "whole", "tokens", max_epoch=4, **options)
    lab.train(root / "halves", "tokens", max_epoch=2, **options)
    log = lab.train(root / "halves", "tokens", "--resume", "true", max_epoch=4, **options)
    assert "The training was resumed using" in log and "3/4epoch started" in log
    return root / "whole", root / "halves"


@pytest.mark.parametrize("accum_grad", [1, 3])
def test_resume_is_exact(lab: Lab, tmp_path: Path, accum_grad: int) -> None:
    whole, halves = interrupted(lab, tmp_path, accum_grad)
    left, right = weights(whole, 4), weights(halves, 4)
    assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
    states = [torch.load(exp / "checkpoint.pth", weights_only=False) for exp in (whole, halves)]
    assert states[0]["schedulers"] == states[1]["schedulers"]
    moments = [s["optimizers"][0]["state"] for s in states]
    assert all(torch.equal(moments[0][i][k], moments[1][i][k]) for i in moments[0] for k in moments[0][i])
    for phase in ("train", "valid"):
        assert figures(whole, 4, phase) == figures(halves, 4, phase)
    assert gap(weights(whole, 3), left) > 0, "the fourth epoch learned something"


def test_leftover_batches_make_an_update(lab: Lab, tmp_path: Path) -> None:
    lab.train(tmp_path, "tokens", max_epoch=1, accum_grad=3, **SCHEDULE)
    state = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert {int(s["step"]) for s in state["optimizers"][0]["state"].values()} == {2}, "5 batches by 3: 1 + 1 updates"
    assert state["schedulers"][0]["last_epoch"] == 2


@pytest.mark.slow
def test_stock_trainer_is_not_exact(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there is a trainer of our own; if this fails, ESPnet was mended."""
    from espnet2_legonn.training.task import LegoNNTask

    monkeypatch.setattr(LegoNNTask, "trainer", load("espnet2.train.trainer").Trainer)
    whole, halves = interrupted(lab, tmp_path, 3)
    assert gap(weights(whole, 4), weights(halves, 4)) > 0


def test_resume_from_a_finished_training(lab: Lab, tmp_path: Path) -> None:
    lab.train(tmp_path, "tokens", max_epoch=1, **SCHEDULE)
    before = weights(tmp_path, 1)
    log = lab.train(tmp_path, "tokens", "--resume", "true", max_epoch=1, **SCHEDULE)
    assert "already reached at max_epoch" in log and gap(before, weights(tmp_path, 1)) == 0


def test_resume_needs_no_donor(lab: Lab, donors: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    """The checkpoint has all; a training that begins anew still needs its donor."""
    donor = tmp_path / "donor"
    shutil.copytree(donors["tokens"][0], donor)
    modules = [{**ENCODER, "init": {"from": f"{donor}#encoder", "except": ["input"]}}, {**DECODER, "init": str(donor)}]
    lab.train(tmp_path / "whole", "tokens", modules=modules, max_epoch=2, **SCHEDULE)
    lab.train(tmp_path / "exp", "tokens", modules=modules, max_epoch=1, **SCHEDULE)
    shutil.rmtree(donor)
    log = lab.train(tmp_path / "exp", "tokens", "--resume", "true", modules=modules, max_epoch=2, **SCHEDULE)
    said = f"init: skipped, {tmp_path}/exp/checkpoint.pth has all weights: {donor}#encoder, {donor} not needed any more"
    assert said in log and "values from" not in log
    assert gap(weights(tmp_path / "whole", 2), weights(tmp_path / "exp", 2)) == 0
    for exp, resume in (("new", "false"), ("newer", "true")):
        with pytest.raises(CheckpointError, match="donor: no such folder or zip"):
            lab.train(tmp_path / exp, "tokens", "--resume", resume, modules=modules, max_epoch=1, **SCHEDULE)


def test_killed_while_saving(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up during epoch 2: what epoch 1 left is whole, and training goes on from there."""
    lab.train(tmp_path / "whole", "tokens", max_epoch=2, **SCHEDULE)
    real, calls = torch.save, []

    def failing(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        calls.append(f)
        if len(calls) == 3:  # checkpoint.pth and 1epoch.pth are there
            Path(f).write_bytes(b"half")
            raise OSError("no space left on device")
        real(obj, f, *args, **kwargs)

    exp = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", failing)
        with pytest.raises(CheckpointError, match="pth: cannot be written .no space left.*is the disk full"):
            lab.train(exp, "tokens", max_epoch=2, **SCHEDULE)
    assert torch.save is real, "the trainer puts torch.save back"
    assert not list(exp.glob(".checkpoint*")), "no temporary file is left"
    lab.train(exp, "tokens", "--resume", "true", max_epoch=2, **SCHEDULE)
    assert gap(weights(tmp_path / "whole", 2), weights(exp, 2)) == 0


def test_truncated_checkpoint_is_named(lab: Lab, tmp_path: Path) -> None:
    lab.train(tmp_path, "tokens", max_epoch=1, **SCHEDULE)
    whole = (tmp_path / "checkpoint.pth").read_bytes()
    (tmp_path / "checkpoint.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth"):
        lab.train(tmp_path, "tokens", "--resume", "true", max_epoch=2, **SCHEDULE)


# ---- the tool underneath


def test_atomic_save_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save = atomic_save(torch.save)
    save({"x": torch.ones(1)}, path)

    def dies(obj: Any, f: Any) -> None:
        Path(f).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_save(dies)({}, path)
    assert torch.load(path, weights_only=True)["x"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]
    assert path.stat().st_mode & 0o777 == 0o644, "readable by others, unlike a temporary file"


def test_atomic_save_replaces_a_link_not_its_target(tmp_path: Path) -> None:
    save = atomic_save(torch.save)
    save({"x": 1}, tmp_path / "target.pth")
    (tmp_path / "link.pth").symlink_to("target.pth")
    save({"x": 2}, tmp_path / "link.pth")
    assert torch.load(tmp_path / "target.pth", weights_only=True) == {"x": 1}
    assert torch.load(tmp_path / "link.pth", weights_only=True) == {"x": 2}


def test_atomic_save_into_a_buffer_or_a_missing_folder(tmp_path: Path) -> None:
    import io

    buffer = io.BytesIO()
    atomic_save(torch.save)({"x": 3}, buffer)
    assert buffer.getvalue()
    with pytest.raises(FileNotFoundError):
        atomic_save(torch.save)({}, tmp_path / "nowhere" / "a.pth")
    shutil.rmtree(tmp_path / "nowhere", ignore_errors=True)


class Runs:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.path),)


def resumed(checkpoint: Path) -> str:
    """What resuming from this says."""
    from espnet2_legonn.training.trainer import LegoNNTrainer

    model = torch.nn.Linear(1, 1)
    with pytest.raises(CheckpointError) as error:
        LegoNNTrainer.resume(checkpoint, model=model, reporter=None, optimizers=[], schedulers=[], scaler=None, ngpu=0)
    return str(error.value)


def test_a_checkpoint_of_somebody_else_runs_nothing(tmp_path: Path) -> None:
    torch.save({"model": Runs(tmp_path / "proof")}, tmp_path / "checkpoint.pth")
    assert "checkpoint.pth: not plain weights" in resumed(tmp_path / "checkpoint.pth")
    assert not (tmp_path / "proof").exists()


def test_weights_to_begin_with_run_nothing(lab: Lab, tmp_path: Path) -> None:
    """ESPnet's --init_param unpickles, too."""
    torch.save({"a": Runs(tmp_path / "proof")}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="a.pth: not plain weights"):
        lab.train(tmp_path / "exp", "tokens", "--init_param", str(tmp_path / "a.pth"), max_epoch=1, **SCHEDULE)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("how", ["zeros", "half", "empty", "text", "list", "other"])
def test_damaged_checkpoints_are_named(tmp_path: Path, how: str) -> None:
    """As a machine that crashed leaves them, or of something else."""
    path, good = tmp_path / "x.pth", tmp_path / "good.pth"
    torch.save({"a": torch.ones(3000)}, good)
    content = good.read_bytes()
    torch.save([1, 2] if how == "list" else {"b": torch.ones(1)}, path)
    if how in ("zeros", "half", "empty", "text"):
        damaged = {"zeros": bytes(len(content)), "half": content[: len(content) // 2], "empty": b"", "text": b"hello"}
        path.write_bytes(damaged[how])
    assert "x.pth: " in resumed(path) and "remove it to begin anew" in resumed(path)
    with pytest.raises(CheckpointError, match="x.pth: "):
        average([good, path])


def test_atomic_save_sweeps_what_killed_commands_left(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from espnet2_legonn.files.scratch import whole\n" + (
        "with whole(Path(sys.argv[1])) as new: new.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.pth")])
    assert done.returncode == -9 and len(list(tmp_path.iterdir())) == 1
    atomic_save(torch.save)({"x": 1}, tmp_path / "b.pth")
    assert [p.name for p in tmp_path.iterdir()] == ["b.pth"]


def test_living_commands_keep_theirs(tmp_path: Path) -> None:
    with scratch(tmp_path, "a") as folder:
        atomic_save(torch.save)({"x": 1}, tmp_path / "b.pth")
        assert folder.is_dir()


def test_checkpoints_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (steps.append(os.readlink(f"/proc/self/fd/{d}")), sync(d))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("rename"), replace(a, b))[1])
    atomic_save(torch.save)({"x": 1}, tmp_path / "a.pth")
    assert steps[0].endswith("/a.pth") and steps[1:] == ["rename", str(tmp_path)]
