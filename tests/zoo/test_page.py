"""The page in a headless browser: a fitting pair answers, a misfit says why, and nothing leaves this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.shipped import PACKS
from tests.zoo.toys import build, pair

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: the package chromium)"),
]
SECONDS = 60_000


def serve(packs: Path) -> str:
    """The page over a folder of packs, in a thread of this process; its address."""
    pytest.importorskip("gradio", reason="extra page")
    from espnet2_legonn.page import app, shelf

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return app.serve(shelf.open_shelf([packs]), port=port, wait=False)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page over two packs that fit and one that does not."""
    packs = tmp_path_factory.mktemp("packs")
    build(pair(), 1).save(packs / "left")
    build(pair(), 2).save(packs / "right")
    build(pair("d c b a"), 3).save(packs / "wrong")
    return serve(packs)


class Visit:
    """A browser's view, and what went over the wire."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.hosts: set[str | None] = set()
        self.errors: list[str] = []
        page.on("request", lambda r: self.hosts.add(urllib.parse.urlparse(r.url).hostname))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))

    def choose(self, place: str, part: str) -> None:
        """Pick the option that begins like this."""
        self.page.locator(f"#{place} input").click()
        self.page.locator(f"#{place} [role=option]", has_text=part).first.click()

    def wait(self, place: str, text: str) -> None:
        """Until some text stands there."""
        self.page.locator(f"#{place}", has_text=text).wait_for(timeout=SECONDS)


@contextlib.contextmanager
def browser(address: str) -> Iterator[Visit]:
    """A visit that ends well: nothing left this machine, nothing went wrong on the page."""
    api = pytest.importorskip("playwright.sync_api", reason="extra dev-zoo")
    with api.sync_playwright() as browsers:
        opened = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        found = Visit(opened.new_page(viewport={"width": 1180, "height": 1260}))
        found.page.goto(address, timeout=SECONDS)
        found.page.locator("#run").wait_for(timeout=SECONDS)
        yield found
        assert found.hosts <= {"127.0.0.1", None}, "no request leaves this machine"
        assert found.errors == []
        opened.close()


@pytest.fixture
def visit(address: str) -> Iterator[Visit]:
    with browser(address) as found:
        yield found


def test_a_fitting_pair_answers(visit: Visit) -> None:
    visit.choose("encoder", "left#encoder")
    visit.choose("decoder", "right#decoder")
    visit.wait("verdict", "Fits")
    visit.page.locator("#text textarea").fill("k l m")
    visit.page.locator("#run").click()
    visit.wait("modules", "says by itself")
    assert visit.page.locator("#modules").inner_text().count("ms") >= 2
    picture = visit.page.locator("#maps img")
    picture.wait_for(timeout=SECONDS)
    assert picture.evaluate("img => img.complete && img.naturalWidth > 100")


def test_a_misfit_says_why(visit: Visit) -> None:
    visit.choose("encoder", "left#encoder")
    visit.choose("decoder", "wrong#decoder")
    visit.wait("verdict", "Will not fit")
    visit.wait("verdict", "the same tokens in another order; id 2 is 'a' there and 'd' here")
    assert visit.page.locator("#run").is_disabled()


def test_an_empty_text_is_a_message(visit: Visit) -> None:
    visit.page.locator("#run").click()
    visit.wait("notes", "nothing to read: type a sentence first")


@pytest.mark.skipif("LEGONN_SCREENSHOT" not in os.environ, reason="LEGONN_SCREENSHOT=FILE makes the README's picture")
def test_picture_for_the_readme() -> None:
    with browser(serve(PACKS)) as found:
        found.choose("encoder", "ro_encoder")
        found.choose("decoder", "mt_de_en#decoder")
        found.page.locator("#text textarea").fill("fiul nu a deschis ușa roșie")
        found.page.locator("#run").click()
        found.page.locator("#maps img").wait_for(timeout=SECONDS)
        found.page.screenshot(path=os.environ["LEGONN_SCREENSHOT"])
