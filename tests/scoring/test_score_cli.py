"""The command line of scoring."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import espnet2_legonn.errors
from espnet2_legonn.bin.legonn_score import main

ROOT = Path(espnet2_legonn.errors.__file__).parent


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "ref").write_text("a The cat (sat) on the mat .\nb hello\n")
    (tmp_path / "hyp").write_text("b hello\na the cat (sat) on the mat .\n")
    (tmp_path / "half").write_text("b hello\n")
    return tmp_path


def args(files: Path, *more: str, hyp: str = "hyp") -> list[str]:
    return [*more, "--ref", str(files / "ref"), "--hyp", str(files / hyp), "--outdir", str(files / "out")]


@pytest.mark.parametrize(
    ("metric", "value"), [("wer", 12.5), ("cer", 100 / 31), ("per", 12.5), ("bleu", None)]
)
def test_score(files: Path, metric: str, value: float | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args(files, "score", "--metric", metric)) == 0
    result = json.loads((files / "out" / "result.json").read_text())
    assert result["metric"] == metric
    assert result["value"] == pytest.approx(value) if value else 0 < result["value"] < 100
    assert capsys.readouterr().out.startswith(f"{metric.upper()} = {result['value']:.2f}, 95 % interval [")


@pytest.mark.parametrize("metric", ["wer", "bleu"])
def test_lowercase(files: Path, metric: str) -> None:
    assert main(args(files, "score", "--metric", metric, "--lowercase")) == 0
    value = json.loads((files / "out" / "result.json").read_text())["value"]
    assert value == pytest.approx(100 if metric == "bleu" else 0)


def test_faults_go_to_stderr_and_leave_no_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args(files, "score", "--metric", "wer", hyp="half")) == 2
    assert "no hypothesis for a" in capsys.readouterr().err
    assert not (files / "out").exists()
    assert main(args(files, "score", "--metric", "wer", "--missing", "empty", hyp="half")) == 0
    assert "warning: 1 utterance(s) absent from" in capsys.readouterr().err


def test_wer_takes_one_reference(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*args(files, "score", "--metric", "wer"), "--ref", "x", "y"])
    assert "--metric wer takes one --ref, got 2" in capsys.readouterr().err


def test_compare(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*args(files, "compare", "--metric", "wer"), "--hyp_b", str(files / "ref"), "--margin", "20"]
    assert main(command) == 0
    assert "B - A = -12.50" in capsys.readouterr().out
    assert json.loads((files / "out" / "result.json").read_text())["equivalent"] is True


def test_results(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exp = files / "exp" / "legonn_x"
    command = args(files, "score", "--metric", "wer")[:-1]
    assert main([*command, str(exp / "decode" / "test" / "score_wer")]) == 0
    capsys.readouterr()
    assert main(["results", str(exp)]) == 0
    assert capsys.readouterr().out.strip() == str(exp / "RESULTS.md")
    assert "|decode/test|2|8|87.5|12.5|" in (exp / "RESULTS.md").read_text()
    assert main(["results", str(exp), "--out", str(files / "README.md")]) == 0
    assert "## legonn_x" in (files / "README.md").read_text()
    assert main(["results", str(files / "nowhere")]) == 2


def test_needs_neither_torch_nor_espnet() -> None:
    # The package's own __init__ is left out: what it imports is not this command's doing.
    code = (
        "import sys, types; package = types.ModuleType('espnet2_legonn'); package.__path__ = [sys.argv[1]];"
        "sys.modules['espnet2_legonn'] = package; import espnet2_legonn.bin.legonn_score;"
        "bad = {'torch', 'espnet', 'espnet2', 'pandas', 'scipy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True, timeout=30)
