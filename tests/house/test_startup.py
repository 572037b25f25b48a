"""Commands load what they use: counted by modules, since seconds depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "espnet2", "numpy", "sacrebleu", "rapidfuzz", "soundfile", "soxr", "sentencepiece", "tqdm", "gradio")
# Command, what it may load of HEAVY, and most modules.
COMMANDS = {
    "espnet2_legonn.bin.legonn --help": ((), 150),
    "espnet2_legonn.bin.legonn translate --help": ((), 200),
    "espnet2_legonn.bin.legonn translate x --model nowhere": ((), 350),
    "espnet2_legonn.bin.legonn transcribe x.wav --model exp/nowhere": ((), 350),
    "espnet2_legonn.bin.legonn translate --file nowhere --model nowhere": ((), 350),
    "espnet2_legonn.bin.legonn info nowhere": ((), 350),
    "espnet2_legonn.bin.legonn_stage --help": ((), 150),
    "espnet2_legonn.bin.legonn_stage stats --config nowhere --train a --valid b --out c": ((), 200),
    "espnet2_legonn.bin.legonn_stage train --config nowhere --train a --valid b --stats_dir d --out c": ((), 200),
    "espnet2_legonn.bin.legonn_stage decode --exp nowhere --data nowhere --out o": ((), 200),
    "espnet2_legonn.bin.legonn_stage tune --exp nowhere --data nowhere": ((), 200),
    "espnet2_legonn.bin.legonn_stage score --exp nowhere --data nowhere --decoded nowhere": ((), 200),
    "espnet2_legonn.bin.legonn_inference --help": ((), 200),
    "espnet2_legonn.bin.legonn_score --help": ((), 200),
    "espnet2_legonn.data.cli --help": ((), 250),
    "espnet2_legonn.data.cli validate nowhere": ((), 250),
    "espnet2_legonn.data.cli copy {data} {out}": ((), 250),
}
CODE = """
import importlib, json, sys
name, *words = json.loads(sys.argv[1])
sys.argv = [name, *words]
try:
    importlib.import_module(name).main(words)
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""


def loaded(words: list[str], folder: Path) -> set[str]:
    """Modules that a command has loaded at its end."""
    run = [sys.executable, "-c", CODE, json.dumps(words)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=folder, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_load_what_they_use(command: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("text", "src_text", "utt2spk"):
        (data / name).write_text("a x\n")
    found = loaded([word.format(data=data, out=tmp_path / "out") for word in command.split()], tmp_path)
    allowed, most = COMMANDS[command]
    assert set(HEAVY) & found <= set(allowed)
    assert len(found) <= most, len(found)


def test_what_is_tuned_is_not_tuned_again_and_needs_nothing(tmp_path: Path) -> None:
    """A stage with nothing to do: the mark names the files that it was about."""
    from espnet2_legonn.recipes.jobs import unchanged

    exp, data = tmp_path / "exp", tmp_path / "valid"
    out = exp / "tune" / "valid"
    out.mkdir(parents=True), data.mkdir()
    for path in (exp / "config.yaml", exp / "weights.safetensors", data / "text"):
        path.write_text("x")
    files = unchanged([(exp / "weights.safetensors").resolve(), data / "text"])
    (out / "of.json").write_text(json.dumps(["wer", 5, 0, files]))
    (out / "result.txt").write_text("the curve")
    words = ["espnet2_legonn.bin.legonn_stage", "tune", "--exp", str(exp), "--data", str(data)]
    assert not set(HEAVY) & loaded(words, tmp_path)
