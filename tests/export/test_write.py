"""Folders of exports: whole or not at all, checked, refused with reasons; run.py alone; the commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from espnet2_legonn import LegoNN
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.export import backend, search
from espnet2_legonn.export import write as export
from espnet2_legonn.export.runner import MANIFEST, Runner, RunnerError
from espnet2_legonn.search.options import BeamOptions
from tests.export.chains import chain, inputs
from tests.says import Says
from tests.zoo import sounds

ROOT = Path(__file__).resolve().parents[2]
Exported = Callable[..., Path]
# What must not be imported by run.py.
ABSENT = "import sys\nfor name in ('torch', 'espnet2_legonn', 'torchaudio', 'onnx'): sys.modules[name] = None\n"


@pytest.fixture
def copy(exported: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported("wemb"), tmp_path / "copy"))


# -- the folder --------------------------------------------------------------------------------------------------------


def test_what_is_in_the_folder(exported: Exported) -> None:
    folder = exported("wemb")
    about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    names = {path.name for path in folder.iterdir()}
    assert names == {MANIFEST, *about["files"]} >= {"enc.onnx", "decoder.start.onnx", "decoder.step.onnx", "run.py"}
    assert about["dtype"] == "float32" and [m["name"] for m in about["modules"]] == ["enc", "decoder"]
    places = (str(ROOT).encode(), b"site-packages", b".py:")
    assert not [p for p in folder.glob("*.onnx") if any(place in p.read_bytes() for place in places)]


@pytest.mark.parametrize("name", ["enc.onnx", "decoder.step.onnx", "bpe.tokens.txt", "run.py"])
def test_a_damaged_file_is_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(RunnerError, match=rf"{name}: SHA-256 is [0-9a-f]{{64}}, export.json says"):
        Runner(copy)


def test_all_missing_files_are_named(copy: Path) -> None:
    for name in ("enc.onnx", "src.tokens.txt"):
        (copy / name).unlink()
    with pytest.raises(CheckpointError) as error:
        backend.Exported(copy, BeamOptions(), "tokens", "")
    assert [fault.split(":")[0] for fault in error.value.faults] == [f"{copy}/enc.onnx", f"{copy}/src.tokens.txt"]
    assert all("is missing, export.json says" in fault for fault in error.value.faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [(None, "cannot be read"), ("{", "cannot be read"), ("[]", "cannot be read"), ('{"format": 2}', "format 2, this")],
)
def test_a_list_of_files_that_is_none(copy: Path, text: str | None, fault: str) -> None:
    if text is None:
        (copy / MANIFEST).unlink()
    else:
        (copy / MANIFEST).write_text(text)
    with pytest.raises(RunnerError, match=fault):
        Runner(copy)


def test_only_exports_are_replaced(exported: Exported, copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is no export of legonn; choose another folder"):
        export.write(chain("encoder"), copy)
    (copy / "notes.txt").unlink()
    export.write(chain("encoder"), copy)
    assert sorted(path.name for path in copy.glob("*.onnx")) == ["enc.onnx"]


def test_a_failure_leaves_what_was_there(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    monkeypatch.setattr(export, "program", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.write(chain("encoder"), copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_the_chain_is_as_it_was(tmp_path: Path) -> None:
    model = chain("collapse").double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export.write(model, tmp_path / "out")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.first.body.after_norm.weight.dtype == torch.float64
    assert [module.input.collapse_slots for module in model] == [False, True]


# -- what cannot be exported -------------------------------------------------------------------------------------------


def refusal(model: LegoNN, folder: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        export.write(model, folder / "out", **options)
    assert not list(folder.iterdir())
    return str(error.value)


class Values(nn.Module):
    """A body whose result has a size that follows from values."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return x * float(x[0, 0, 0].item() > 0) + len(x)


class Sorting(nn.Module):
    """A body that uses what has no ONNX form."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(x).S.unsqueeze(-1) + x


@pytest.mark.usefixtures("exported")
def test_a_part_that_follows_values_is_refused(tmp_path: Path) -> None:
    model = chain("encoder")
    model.first.body = Values()
    fault = refusal(model, tmp_path)
    assert "module enc with body transformer of your own: output of" in fault
    assert "decode this chain with PyTorch" in fault


@pytest.mark.usefixtures("exported")
def test_a_part_without_an_onnx_form_is_refused(tmp_path: Path) -> None:
    model = chain("encoder")
    model.first.body = Sorting()
    fault = refusal(model, tmp_path)
    assert "module enc with body transformer of your own: cannot be written as an ONNX graph (" in fault


@pytest.mark.usefixtures("exported")
def test_inputs_and_decoders_of_your_own_are_refused_together(tmp_path: Path) -> None:
    model = chain("wemb")
    model.first.input = nn.Identity()
    model.last.body = Values()
    faults = refusal(model, tmp_path).splitlines()
    assert faults[0].startswith("enc.input: tokens: the runner reads texts, speech, features and distributions")
    assert faults[1].startswith("decoder.body: transformer_decoder: of decoders, only transformer_decoder has a graph")


@pytest.mark.usefixtures("exported")
def test_states_are_no_text_and_dtypes_have_names(tmp_path: Path) -> None:
    assert "enc writes hidden states, no text; add the module" in refusal(chain("states")[:1], tmp_path)
    assert "dtype: 'int4' is not one of float32, int8" in refusal(chain("wemb"), tmp_path, dtype="int4")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_NEEDED", ("numpy", "onnx_that_nobody_has"))
    fault = refusal(chain("wemb"), tmp_path)
    assert "onnx_that_nobody_has: needed to export; pip install 'espnet2_legonn[onnx]'" in fault


# -- int8 --------------------------------------------------------------------------------------------------------------


def test_blocks_of_a_column_have_their_scales() -> None:
    weight = np.random.default_rng(0).standard_normal((45, 6)).astype(np.float32)
    values, scales = export.in_blocks(weight)
    assert values.shape == (6, 2, 32) and values.dtype == np.uint8 and scales.shape == (12,)
    back = ((values.astype(np.float32) - 128) * scales.reshape(6, 2, 1)).reshape(6, 64).T
    assert np.abs(back[:45] - weight).max() <= scales.max() / 2 + 1e-7 and not back[45:].any()


# -- run.py ------------------------------------------------------------------------------------------------------------


def run(folder: Path, *words: str, code: str = "", given: str | None = None) -> subprocess.CompletedProcess[str]:
    """run.py where PyTorch and this package cannot be imported."""
    start = f"{ABSENT}import runpy\nsys.argv[0] = {str(folder / 'run.py')!r}\n"
    code = code or "runpy.run_path(sys.argv[0], run_name='__main__')"
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", start + code, *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, env=env, cwd=folder.parent)


def test_run_needs_neither_pytorch_nor_this_package(exported: Exported) -> None:
    wanted = chain("wemb").answer(inputs("wemb"), BeamOptions(nbest=2))
    done = run(exported("wemb"), "--json", "--nbest", "2", *inputs("wemb"))
    assert done.returncode == 0, done.stderr
    for line, answer in zip(done.stdout.splitlines(), wanted):
        found = json.loads(line)
        assert found["text"] == answer.text and found["interfaces"] == {"enc": answer.interfaces["enc"].text}
        assert [h["score"] for h in found["nbest"]] == pytest.approx([h.score for h in answer.nbest], abs=1e-4)
    done = run(exported("wemb"), given="".join(f"{text}\n" for text in inputs("wemb")))
    assert done.stdout.splitlines() == [answer.text for answer in wanted]


def test_run_as_a_module_and_with_bad_input(exported: Exported) -> None:
    done = run(exported("wemb"), code="import run; print(run.Runner()('s0 s1', beam_size=2))")
    assert done.stdout.strip() == chain("wemb")("s0 s1", beam_size=2), done.stderr
    done = run(exported("wemb"), "s0", "", "--beam_size", "2")
    assert done.returncode == 2 and "RunnerError:\n'': there is nothing to read in it" in done.stderr


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("exported")
def test_export_and_translate(says: Says, tmp_path: Path) -> None:
    pack, folder = chain("wemb").save(tmp_path / "pack"), tmp_path / "out"
    said = says(main, ["export", str(pack), "-o", str(folder)])
    assert said.startswith(f"{folder}: enc -> decoder, float32, ") and f"next: python {folder / 'run.py'}" in said
    for words in (["--format", "json", "--nbest", "2"], ["--nbest", "3"], [], ["--ctc_weight", "0"]):
        wanted, found = (
            says(main, ["translate", "s0 s1", "", "s4 s3", "--model", str(model), *words, *more])
            for model, more in ((pack, []), (folder, ["--backend", "onnx"]))
        )
        assert without_digits(found) == without_digits(wanted) and wanted.count("\n") >= 3


@pytest.mark.usefixtures("exported")
def test_parts_are_plugged_and_transcribed(says: Says, tmp_path: Path) -> None:
    model = chain("speech")
    packs = [str(model[:1].save(tmp_path / "a")), str(model[1:].save(tmp_path / "b"))]
    says(main, ["export", *packs, "-o", str(tmp_path / "out"), "--dtype", "int8"])
    path = str(sounds.write(tmp_path / "a.wav", inputs("speech")[0], 8000))
    found = says(main, ["transcribe", path, "--model", str(tmp_path / "out"), "--backend", "onnx", "--format", "srt"])
    assert found.startswith("1\n00:00:00,000 --> 00:00:00,300\n")


def without_digits(text: str) -> list[str]:
    """Scores to four places: the two ways round in another order."""
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.3f}", text).splitlines()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--device", "cuda"], "device: cuda: backend onnx runs on CPUs"),
        (["--model", "b"], "backend onnx runs one export; plug parts when you export"),
        (["--dtype", "int8"], "dtype: int8: an export has the dtype of legonn export --dtype"),
        (["--ctc_weight", "7"], "ctc_weight: 7.0 is not between 0 and 1"),
    ],
)
def test_options_of_another_backend(says: Says, exported: Exported, words: list[str], fault: str) -> None:
    begin = ["translate", "s0", "--backend", "onnx", "--model", str(exported("wemb"))]
    assert fault in says(main, [*begin, *words], 2)


def test_the_wrong_command_and_no_export(says: Says, exported: Exported, tmp_path: Path) -> None:
    begin = ["transcribe", "a.wav", "--backend", "onnx", "--model"]
    assert "take Text2Text (legonn translate) for texts" in says(main, [*begin, str(exported("wemb"))], 2)
    assert f"{tmp_path / MANIFEST}: cannot be read" in says(main, [*begin, str(tmp_path)], 2)


# -- packs that ship ---------------------------------------------------------------------------------------------------

SENTENCES = ["ein mann isst", "die frau liest ein buch", "der hund schläft", "ich möchte nach münchen", "er läuft"]


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize(
    "pack",
    ["mt_de_en", *(pytest.param(f"mt_de_en_{kind}", marks=pytest.mark.slow) for kind in ("beam_conv", "collapsed"))],
)
def test_shipped_packs_translate_alike(tmp_path: Path, pack: str) -> None:
    model = LegoNN.from_pretrained(pack)
    wanted = model(SENTENCES)
    assert len(set(wanted)) == len(SENTENCES)
    assert [a.text for a in Runner(export.write(model, tmp_path / "a"), 1).answers(SENTENCES)] == wanted
    eight = Runner(export.write(model, tmp_path / "b", "int8"), 1)
    assert sum(eight(text) == other for text, other in zip(SENTENCES, wanted)) >= 4
    assert (tmp_path / "b" / "encoder.onnx").stat().st_size < 0.6 * (tmp_path / "a" / "encoder.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.usefixtures("exported")
def test_the_shipped_recogniser_hears_alike(tmp_path: Path) -> None:
    from tests.zoo.shipped import speak

    model = LegoNN.from_pretrained("asr_encoder") + LegoNN.from_pretrained("mt_de_en")[-1:]
    files, _ = speak(tmp_path / "speech", 6)
    runner = Runner(export.write(model, tmp_path / "out"), 1)
    assert [answer.text for answer in runner.answers(files)] == [answer.text for answer in model.answer(files)]


def test_the_search_is_one_file() -> None:
    """What run.py holds of the package comes from two files, and imports nothing of ours."""
    text = export.program()
    assert "espnet2_legonn" not in text.replace("python", "") and "import torch" not in text
    assert text.count("from __future__") == 1 and f"class {search.Beam.__name__}:" in text
