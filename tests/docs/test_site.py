"""The site: every key of the reference has a meaning, links are turned rightly, and the whole builds strictly."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.docs.pages import ROOT
from tools import reference_docs

BUILDS = all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings"))
SCHEMA = [(page, cls) for page in reference_docs.SCHEMAS for cls in reference_docs.classes(page)]


@pytest.mark.parametrize(("page", "cls"), SCHEMA, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_every_key_has_a_meaning(page: str, cls: type) -> None:
    known = reference_docs.meanings(cls)
    assert {reference_docs.key_of(f) for f in dataclasses.fields(cls)} <= set(known)
    assert all(len(text) > 3 for text in known.values())


def test_a_key_without_a_meaning_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_docs, "notes", dict)
    with pytest.raises(reference_docs.Undocumented, match=r"NgramPlan\.order.*notes\.yaml"):
        reference_docs.schema_page("plan")


def test_no_note_is_left_over() -> None:
    """A note is there because neither the class nor conf/reference.yaml says the same."""
    classes = {cls.__name__: cls for _, cls in SCHEMA}
    written = reference_docs.comments()
    for name, added in reference_docs.notes().items():
        assert name in classes, f"tools/docs/notes.yaml: no class {name}"
        keys = {reference_docs.key_of(f): f.name for f in dataclasses.fields(classes[name])}
        said = reference_docs.arguments(classes[name])
        for key in set(added) - {"same_as"}:
            assert key in keys, f"tools/docs/notes.yaml: {name} has no {key}"
            assert (name, key) not in written and keys[key] not in said, f"{name}.{key} is explained already"


def test_pages_say_what_the_code_says() -> None:
    chain, search = reference_docs.schema_page("chain"), reference_docs.schema_page("search")
    assert "| `fs` | int | `16000` | Hz. Audio of another rate is refused, not resampled |" in chain
    assert "| `beam_size` | int | `5` | hypotheses kept of each utterance. |" in search
    assert "`--min_wav_duration` | `0.1` | seconds, stage 4 |" in reference_docs.recipe_page()
    assert "[`LegoNN`][espnet2_legonn.inference.legonn.LegoNN]" in reference_docs.api_pages()["api/index.md"]


def test_help_of_a_command_is_what_it_prints() -> None:
    said = reference_docs.help_of("bin.legonn", "check")
    assert said.startswith("usage: legonn check") and "exit status" in said


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """tools/docs/hooks.py as a module; it imports MkDocs."""
    if not BUILDS:
        pytest.skip("MkDocs is not installed: `make setup` installs the extra docs")
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "tools/docs/hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("path", "here", "link", "wanted"),
    [
        ("docs/index.md", "index.md", "tutorial.md", "tutorial.md"),
        ("docs/index.md", "index.md", "../CONTRIBUTING.md", "CONTRIBUTING.md"),
        ("docs/index.md", "index.md", "../README.md", "index.md"),
        ("docs/results.md", "results.md", "../egs2/an4/legonn1", "egs2/an4/legonn1/README.md"),
        ("egs2/README.md", "egs2/README.md", "../docs/recipes.md#stages", "../recipes.md#stages"),
        ("docs/index.md", "index.md", "https://arxiv.org/abs/2206.03318", "https://arxiv.org/abs/2206.03318"),
        ("docs/index.md", "index.md", "nowhere.md", "nowhere.md"),
    ],
)
def test_links_are_turned(hooks: ModuleType, path: str, here: str, link: str, wanted: str) -> None:
    text = f"[a]({link})\n\n```\n[b](../README.md)\n```\n"
    assert hooks.rewritten(text, path, here) == f"[a]({wanted})\n\n```\n[b](../README.md)\n```\n"


def test_the_navigation_names_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": ([\w./]+\.md)$", text, re.M))
    assert {p.name for p in (ROOT / "docs").glob("*.md")} <= named
    made = {f"reference/{p}.md" for p in ("config", "training", "recipe", "commands", *reference_docs.SCHEMAS)}
    assert made | set(reference_docs.api_pages()) <= named
    assert yaml.safe_load(text)["theme"]["font"] is False


@pytest.mark.slow
@pytest.mark.skipif(not BUILDS, reason="MkDocs is not installed: `make setup` installs the extra docs")
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {p: p.read_text(encoding="utf-8") for p in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 40
    away = r"=\"?(?:https?:)?//"
    loaded = re.compile(rf"<(?:script|img|iframe)[^>]*\ssrc{away}|<link[^>]*stylesheet[^>]*href{away}")
    assert not [page for page, text in pages.items() if loaded.search(text)]
    dead = [f"{page.name}: {link}" for page, text in pages.items() for link in _dead(page, text)]
    assert not dead, "\n".join(dead[:20])


def _dead(page: Path, text: str) -> list[str]:
    """Relative links and pictures of a page that lead to no file of the site."""
    links = re.findall(r"(?:href|src)=\"([^\"#?]+)[#?\"]", text)
    relative = [link for link in links if not re.match(r"\w+:|/", link)]
    return [link for link in relative if not (page.parent / link).exists()] if page.name != "404.html" else []
