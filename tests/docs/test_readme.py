"""README: every Python block runs, every command exists, the table is what the demo wrote."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from espnet2_legonn.bin import legonn_stage
from espnet2_legonn.bin.legonn import COMMANDS, get_parser
from espnet2_legonn.recipes.espnet_options import ABSENT, ALIASES
from tests.docs.pages import ROOT, all_pages, blocks, read

TEMPLATE = ROOT / "egs2/TEMPLATE/legonn1/legonn.sh"
LEGONN = "espnet2_legonn.bin.legonn"
PLAIN = {".", "cat", "cd", "cp", "mkdir", "git", "export", "paste", "pip"}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sound that the snippets name; the packs are those of the repository."""
    import soundfile

    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).normal(scale=0.1, size=8000)
    soundfile.write(tmp_path / "speech.wav", noise.astype(np.float32), 16000)
    return tmp_path


@pytest.mark.parametrize(("page", "number"), [("README.md", 1), ("docs/python.md", 4)])
def test_python_blocks_run_in_order(
    page: str, number: int, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space: dict[str, Any] = {}
    snippets = blocks(read(page), "python")
    for i, snippet in enumerate(snippets):
        exec(compile(snippet, f"{page}, python block {i + 1}", "exec"), space)
    assert len(snippets) >= number
    assert isinstance(space["text"], str) and (workplace / "exp/plugged/weights.safetensors").is_file()
    printed = capsys.readouterr().out
    promised = re.findall(r"^\s*print\(\w+\)\s+# (.*)$", "\n".join(snippets), re.M)
    assert promised and not [line for line in promised if line not in printed], "comments promise what is printed"


# -- commands --------------------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, list[str]]]:
    """(document, words) of every command in bash blocks; comments and continued lines are taken care of."""
    found = []
    for page in all_pages():
        for block in blocks(page.read_text(encoding="utf-8"), "bash", "console", "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words:
                    found.append((str(page.relative_to(ROOT)), words))
    return found


def options(words: list[str]) -> list[str]:
    """Names of options; a quoted value with options of another command is left alone."""
    return [w.split("=")[0] for w in words if w.startswith("--") and " " not in w]


def module_file(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin, f"no module {name}"
    return Path(spec.origin)


def wrong(page: str, words: list[str]) -> list[str]:
    """What a command names that is not there."""
    if words[0] == "(cd":  # (cd FOLDER && COMMAND)
        page, words = f"{Path(page).parent}/{words[1]}/README.md", [*words[3:-1], words[-1].removesuffix(")")]
    while re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    name = words[0]
    if name in PLAIN:
        return []
    if name == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        return [f"make: no target {t}" for t in words[1:] if "=" not in t and t not in targets]
    if words[:3] in (["python", "-m", LEGONN], ["python3", "-m", LEGONN]):
        name, words = "legonn", words[2:]
    if name == "legonn":
        return _legonn(words)
    if name in ("python", "python3") and words[1] == "-m":
        if words[2] == "espnet2_legonn.bin.legonn_stage":
            return _subcommand(legonn_stage.get_parser(), words[3], options(words))
        source = module_file(words[2]).read_text(encoding="utf-8")
        if words[2] == "espnet2_legonn.bin.legonn_train":  # its own options are the task's
            source += module_file("espnet2_legonn.training.task").read_text(encoding="utf-8")
        if words[2] == "espnet2_legonn.bin.asr_inference":  # ESPnet's own
            source = module_file("espnet2.bin.asr_inference").read_text(encoding="utf-8")
        return [f"{words[2]}: no option {o}" for o in options(words) if f'"{o}"' not in source]
    if name in ("python", "python3"):
        files = [ROOT / words[1], (ROOT / page).parent / words[1]]
        script = next((f for f in files if f.is_file()), None)
        return [f"no script {words[1]}"] if script is None else _script(script, words)
    if name == "./run.sh":
        own = (ROOT / page).parent / "run.sh"
        return _run_sh(own if own.is_file() else ROOT / "egs2/TEMPLATE/legonn1/run.sh", words)
    if name.endswith("/setup.sh"):
        return [] if (ROOT / name).is_file() else [f"no script {name}"]
    if name.startswith("./run_"):
        own = (ROOT / page).parent / name
        return _run_sh(own, words) if own.is_file() else [f"no script {name}"]
    return [f"{name}: a command that this test does not know"]


def _legonn(words: list[str]) -> list[str]:
    if words[1] not in COMMANDS:
        return [f"legonn: no command {words[1]}"]
    return _subcommand(get_parser(words[1]), words[1], options(words))


def _subcommand(parser: argparse.ArgumentParser, name: str, given: list[str]) -> list[str]:
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    if name not in subparsers.choices:
        return [f"{parser.prog}: no command {name}"]
    known = subparsers.choices[name]._option_string_actions
    return [f"{parser.prog} {name}: no option {o}" for o in given if o not in known]


def _script(script: Path, words: list[str]) -> list[str]:
    source = script.read_text(encoding="utf-8")
    return [f"{script.name}: no option {o}" for o in options(words) if o not in source and f'"{o[2:]}"' not in source]


def _run_sh(run: Path, words: list[str]) -> list[str]:
    source = run.read_text(encoding="utf-8")
    if "parse_options.sh" not in source:  # its options are those of the stage script
        source += TEMPLATE.read_text(encoding="utf-8")
    known = set(re.findall(r"^(\w+)=", source, re.M)) | {*ALIASES, *ABSENT}
    return [f"{run}: no option {o}" for o in options(words) if o[2:].replace("-", "_") not in known]


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda v: v if isinstance(v, str) else " ".join(v)[:60])
def test_commands_exist(page: str, words: list[str]) -> None:
    assert wrong(page, words) == []


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("make tset", "no target tset"),
        ("python -m espnet2_legonn.bin.legonn compose a b --uot c", "no option --uot"),
        ("./run.sh --stgae 1", "no option --stgae"),
        ("python tools/nothing.py", "no script"),
        ("./run_nothing.sh", "no script"),
        ("(cd egs2/an4/legonn1 && AN4=x ./run.sh --stgae 1)", "no option --stgae"),
        ("legonn fly", "no command fly"),
        ("legonn check a --quickly", "no option --quickly"),
        ("espnet fly", "does not know"),
    ],
)
def test_a_wrong_command_is_found(command: str, fault: str) -> None:
    assert fault in "".join(wrong("README.md", shlex.split(command)))


# -- the table -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def update() -> ModuleType:
    """tools/update_readme.py as a module."""
    spec = importlib.util.spec_from_file_location("update_readme", ROOT / "tools/update_readme.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_readme_shows_the_tables_of_its_pages(update: ModuleType) -> None:
    pages = {name: path.read_text(encoding="utf-8") for name, path in update.PAGES.items()}
    assert list(pages) == ["demo", "real"]
    assert read("README.md") == update.render(read("README.md"), pages), "run python tools/update_readme.py"


def test_the_first_tables_are_copied_and_nothing_else(update: ModuleType) -> None:
    page = (
        "# RESULTS\n\n## Environments\n\n- date: `x`\n\n### Table III: Ro-En\n\n||BLEU|\n|---|---|\n|AR|34.0|\n\n"
        "### Table IV: speech\n\n||WER|\n|---|---|\n|AR|18.4|\n\n### Warnings of the plugs\n\n- plug: fine\n"
    )
    (begin, end), (other, other_end) = update.markers("demo"), update.markers("real")
    readme = f"head\n{begin}\nold\n{end}\ntail\n{other}\n{other_end}\n"
    found = update.render(readme, {"demo": page, "real": page.replace("34.0", "35.0")})
    table = "**Table III: Ro-En**\n\n||BLEU|\n|---|---|\n|AR|34.0|"
    assert found == (f"head\n{begin}\n{table}\n{end}\ntail\n{other}\n{table.replace('34.0', '35.0')}\n{other_end}\n")
    assert update.render(found, {"demo": page}) == found


def test_update_writes_once_and_checks(
    update: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(update, "README", tmp_path / "README.md")
    results = tmp_path / "RESULTS.md"
    monkeypatch.setattr(update, "PAGES", {"demo": results})
    update.README.write_text("{}\n{}\n".format(*update.markers("demo")))
    results.write_text("### T\n\n|a|b|\n|---|---|\n|x|1|\n")
    assert update.main(["--check"]) == 1
    assert "run python tools/update_readme.py" in capsys.readouterr().err
    assert update.main([]) == 0 and "|x|1|" in update.README.read_text()
    assert update.main(["--check"]) == 0
    results.write_text("# RESULTS\n")
    assert update.main([]) == 1 and "holds no table" in capsys.readouterr().err
    monkeypatch.setattr(update, "PAGES", {"demo": results, "real": results})
    update.README.write_text("{}\n{}\n".format(*update.markers("demo")))
    assert update.main([]) == 1
    told = capsys.readouterr().err
    assert "holds no table" in told and "put them back" in told, "both at once"
    monkeypatch.setattr(update, "PAGES", {"demo": tmp_path / "a.md", "real": tmp_path / "b.md"})
    assert update.main([]) == 1
    assert f"{tmp_path / 'a.md'}, {tmp_path / 'b.md'}: no such page" in capsys.readouterr().err
    assert update.main(["--chekc"]) == 2 and "Usage" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []
