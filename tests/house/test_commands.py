"""Every command ends alike on bad input: one format on stderr, exit status 2, no traceback."""

from __future__ import annotations

import ast
import importlib
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from espnet2_legonn.errors import BAD_INPUT, SHOWN, ConfigError, DataError, command

ROOT = Path(__file__).resolve().parents[2]
# Launchers keep the words and statuses of Kaldi's run.pl, the demo's data and what is exported need no package.
OWN = {"egs2/mini_legonn/legonn1/local/data.py", "espnet2_legonn/export/runner.py"}


def commands() -> list[str]:
    """Every Python file of the package and the recipes that is run by itself."""
    places = [*(ROOT / "espnet2_legonn").rglob("*.py"), *ROOT.glob("local/*/*.py"), *ROOT.glob("egs2/*/*/local/*.py")]
    mains = [p for p in places if "\nif __name__ ==" in p.read_text(encoding="utf-8")]
    return sorted(str(p.relative_to(ROOT)) for p in mains if not p.is_symlink())


@pytest.mark.parametrize("path", commands())
def test_every_main_is_a_command(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text.rstrip().endswith(("sys.exit(main())", "sys.exit(main(sys.argv[1:]))")), "its status is main's"
    if "\nmain = stock(" in text:  # ESPnet's own tasks: one main for all
        text = (ROOT / "espnet2_legonn/bin/stock.py").read_text(encoding="utf-8")
    main = next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef) and n.name == "main")
    names = {d.id for d in main.decorator_list if isinstance(d, ast.Name)}
    assert path in OWN or "command" in names, "errors.py::command is what prints faults"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("espnet2_legonn.bin.legonn", ["info", "nowhere.zip"]),
        ("espnet2_legonn.bin.legonn", ["pack", "nowhere"]),
        ("espnet2_legonn.bin.legonn_average", ["nowhere", "--data", "nowhere"]),
        ("espnet2_legonn.bin.legonn_inference", []),
        ("espnet2_legonn.bin.legonn_plan", ["nowhere.yaml"]),
        ("espnet2_legonn.bin.legonn_score", ["results", "nowhere"]),
        ("espnet2_legonn.bin.legonn_stage", ["score", "--exp", "nowhere", "--data", "nowhere", "--decoded", "nowhere"]),
        ("legonn_corpora.eval2000", ["--corpus", "nowhere"]),
        ("legonn_corpora.europarl_st", ["--corpus", "nowhere"]),
        ("legonn_corpora.sphere", ["nowhere", "1"]),
        ("legonn_corpora.swbd", ["--corpus", "nowhere"]),
        ("legonn_corpora.tedlium", ["--corpus", "nowhere"]),
        ("legonn_corpora.wmt14_en_de", ["nowhere"]),
        ("legonn_corpora.wmt16_ro_en", ["nowhere"]),
        ("legonn_corpora.wmt19_de_en", ["nowhere"]),
        ("espnet2_legonn.data.cli", ["validate", "nowhere"]),
        ("espnet2_legonn.recipes.mean_scores", ["out", "nowhere"]),
        ("espnet2_legonn.recipes.paper_tables", ["XIX"]),
        ("legonn_corpora.hub5", ["--stm", "nowhere", "--glm", "nowhere", "--hyp", "nowhere", "--outdir", "out"]),
    ],
)
def test_bad_input_has_one_format_and_one_status(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module(name).main(words) == BAD_INPUT == 2
    said = capsys.readouterr().err.splitlines()
    kinds = [n for n, line in enumerate(said) if line.endswith("Error:") and " " not in line]
    assert len(kinds) == 1 and len(said) > kinds[0] + 1, said


@pytest.mark.parametrize("name", ["legonn_train", "asr_train", "mt_train"])
def test_trainings_end_alike(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("a: cured by b")

    task = SimpleNamespace(LegoNNTask=SimpleNamespace(main=refuse), register_classes=refuse)
    for place in ("register", "task"):
        monkeypatch.setitem(sys.modules, f"espnet2_legonn.training.{place}", task)
    assert importlib.import_module(f"espnet2_legonn.bin.{name}").main([]) == 2
    assert capsys.readouterr().err == "ConfigError:\na: cured by b\n"


def test_a_command_prints_what_is_harmless_and_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    def ends(error: BaseException) -> int:
        @command
        def main() -> None:
            raise error

        return main()

    assert ends(DataError(f"a:{n}: bad \x1b[2J" for n in range(SHOWN + 2))) == 2
    said = capsys.readouterr().err
    assert said.startswith("DataError:\na:0: bad \ufffd[2J\n") and said.endswith("... and 2 more\n")
    assert ends(FileNotFoundError(2, "No such file or directory", "x")) == 2
    assert capsys.readouterr().err == "FileNotFoundError:\n[Errno 2] No such file or directory: 'x'\n"
    assert ends(KeyboardInterrupt()) == 130
    with pytest.raises(ZeroDivisionError):
        ends(ZeroDivisionError())  # a fault of ours keeps its traceback


def test_a_command_tells_a_warning_once() -> None:
    def read(tokens: int) -> None:
        with warnings.catch_warnings():  # forgets what was shown at a place
            warnings.warn(f"a test of repeated warnings: {tokens} unknown tokens", stacklevel=1)

    @command
    def main() -> None:
        for tokens in (3, 3, 4, 3):
            read(tokens)

    with warnings.catch_warnings(record=True) as told:
        warnings.resetwarnings()  # as for a user, where pytest shows all
        assert main() == 0
    assert [str(w.message)[-16:] for w in told] == ["3 unknown tokens", "4 unknown tokens"]
