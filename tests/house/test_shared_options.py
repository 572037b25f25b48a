"""Options that several commands have: what no command can use is refused before anything is loaded."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.bin.options import require_options
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.output import output_faults
from espnet2_legonn.inference.legonn import LegoNN, device_faults
from tests.says import Says

NOWHERE = ["nowhere.zip", "--data", "nowhere"]  # what would be said first if anything were loaded


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", *NOWHERE, "--batch_size", "0"], ["batch_size: 0 is less than 1"]),
        (["evaluate", *NOWHERE, "--limit", "0"], ["limit: 0 is less than 1"]),
        (["oracle", *NOWHERE, "--batch_size", "-1", "--limit", "-3"], ["batch_size: -1 is", "limit: -3 is less than"]),
        (["advise", "nowhere.zip", *NOWHERE, "--limit", "-1"], ["limit: -1 is less than 1"]),
        (["translate", "k", "--model", "nowhere.zip", "--batch_size", "0"], ["batch_size: 0 is less than 1"]),
        (["evaluate", *NOWHERE, "--device", "gpu", "-o", "."], ["device: 'gpu' is not known", ".: is a folder"]),
        (["swap", *NOWHERE, "--device", "gpu", "-o", "file"], ["device: 'gpu' is not known", "file: is a file"]),
        (["oracle", *NOWHERE, "-o", "file/x.json"], ["file/x.json: cannot be made, since file is a file; choose"]),
        (["inspect", "nowhere.zip", "k", "-o", "."], [".: is a folder; name the file to write, such as NAME"]),
        (["compose", "nowhere.zip", "-o", "file/x"], ["file/x: cannot be made, since file is a file; choose"]),
    ],
)
def test_refused_before_anything_is_loaded(
    words: list[str], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Says
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    told = says(main, words, 2).splitlines()
    assert told[0] == "ConfigError:" and len(told) == len(said) + 1
    for line, begin in zip(told[1:], said):
        assert line.startswith(begin)
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing was made"


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(ConfigError, match="device: no CUDA on this machine; use cpu"):
            LegoNN.from_pretrained("nowhere.zip", device=device)
        with pytest.raises(ConfigError, match="no CUDA"):
            require_options(Namespace(device=device))
    require_options(Namespace(device="cuda", backend="onnx"))  # it says itself that exports run on CPUs
    assert device_faults("xpu:99") == ["device: 'xpu:99' is not on this machine; use cpu, cuda or cuda:N"]
    assert device_faults("cpu") == []


def test_places_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "new", "a/b/new"):
        assert output_faults(tmp_path / name) == []
    for path in (tmp_path, tmp_path / "a" / "b"):
        assert output_faults(path, folder=True) == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing was made"


def test_places_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    path = tmp_path / "a" / "x.json"
    assert output_faults(path) == [f"{path}: cannot be written (Permission denied); choose another place"]
