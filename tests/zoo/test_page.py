"""The page in a headless browser: a fitting pair answers, a misfit says why, and nothing leaves this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from espnet2_legonn.errors import LegoNNError
from tests.zoo.shipped import PACKS
from tests.zoo.toys import build, change, pair

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: the package chromium)"),
]
SECONDS = 60_000
NARROW = 390
# Where this process has connected to since the first page was made; the hook cannot be taken out again.
CALLED: set[str] = set()


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    """Note every internet address that Python connects to, and every name that it looks up."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        CALLED.add(str(arguments[1][0]))
    elif event == "socket.getaddrinfo" and arguments[0]:
        CALLED.add(arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0]))


def is_here(host: str) -> bool:
    """This machine, by name or address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(packs: Path) -> str:
    """The page over a folder of packs, in a thread of this process; its address."""
    pytest.importorskip("gradio", reason="extra page")
    from espnet2_legonn.page import app, shelf

    return app.serve(shelf.open_shelf([packs]), port=free_port(), wait=False)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page over two packs that fit (one has examples), one that does not, and one that hears."""
    sys.addaudithook(listen)
    packs = tmp_path_factory.mktemp("packs")
    (packs / "some.txt").write_text("l m\nn\n", encoding="utf-8")
    speech = {"type": "speech", "n_mels": 8, "channels": [2, 3]}
    hears = change(change(pair(), "modules.0.input", speech), "modules.0.length_control.ratio", 1)
    build(hears, 4).save(packs / "hears")
    build(pair(), 1).save(packs / "left", extra={"examples.txt": packs / "some.txt"})
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
def browser(address: str, width: int = 1180) -> Iterator[Visit]:
    """A visit that ends well: nothing left this machine, nothing went wrong on the page."""
    api = pytest.importorskip("playwright.sync_api", reason="extra dev-zoo")
    with api.sync_playwright() as browsers:
        opened = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        found = Visit(opened.new_page(viewport={"width": width, "height": 1260}))
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


def test_the_weight_of_ctc_is_a_number_on_the_page(visit: Visit) -> None:
    """Left empty it is the default; what was given is told with the answer."""
    visit.choose("encoder", "left#encoder")
    visit.choose("decoder", "right#decoder")
    visit.wait("verdict", "Fits")
    visit.page.locator("#text textarea").fill("k l m")
    visit.page.locator("#run").click()
    visit.wait("modules", "(weight of CTC 0.4)")
    visit.page.locator("#weight textarea, #weight input").fill("0")
    visit.page.locator("#run").click()
    visit.wait("modules", "(weight of CTC 0)")
    visit.page.locator("#weight textarea, #weight input").fill("much")
    visit.page.locator("#run").click()
    visit.wait("notes", "weight of CTC: 'much' is no number from 0 to 1")


def test_encoders_vote(visit: Visit) -> None:
    """A second one has its own text and weight; what each leads to alone stands beside the text of both."""
    visit.choose("encoder", "left#encoder")
    visit.choose("decoder", "right#decoder")
    visit.wait("verdict", "left#encoder → right#decoder")
    assert not visit.page.locator("#encoder_3").is_visible()
    visit.choose("encoder_2", "hears#encoder")
    visit.page.locator("#sound_2").wait_for(timeout=SECONDS)
    assert not visit.page.locator("#text_2").is_visible()
    visit.choose("encoder_2", "right#encoder")
    visit.page.locator("#text_2").wait_for(timeout=SECONDS)
    visit.page.locator("#text_2 textarea").fill("m n k")
    visit.page.locator("#encoder_3").wait_for(timeout=SECONDS)
    visit.page.locator("#run").click()
    visit.wait("notes", "left#encoder: nothing to read: type a sentence first")
    visit.page.locator("#text textarea").fill("k l m")
    visit.page.locator("#weight_2 textarea, #weight_2 input").fill("1.5")
    visit.page.locator("#run").click()
    visit.wait("sources", "right#encoder")
    rows = visit.page.locator("#sources tr").all_inner_texts()
    assert [(row.split("\t")[0], row.split("\t")[-1]) for row in rows[1:]] == [
        ("left#encoder", "0.4"), ("right#encoder", "1.5"),
    ]  # fmt: skip
    assert "ctc_2" in visit.page.locator("#modules").inner_text()
    assert visit.page.locator("#maps img").count() == 2
    visit.choose("decoder", "wrong#decoder")  # which none but its own encoder speaks to
    visit.page.locator("#text_2").wait_for(state="hidden", timeout=SECONDS)
    visit.choose("decoder", "left#decoder")
    visit.wait("verdict", "Fits")
    assert not visit.page.locator("#text_2").is_visible(), "an encoder that did not fit has left"


def test_a_misfit_says_why(visit: Visit) -> None:
    visit.choose("encoder", "left#encoder")
    visit.choose("decoder", "wrong#decoder")
    visit.wait("verdict", "Will not fit")
    visit.wait("verdict", "the same tokens in another order; id 2 is 'a' there and 'd' here")
    assert visit.page.locator("#run").is_disabled()


def test_examples_fill_the_box(visit: Visit) -> None:
    visit.choose("encoder", "left#encoder")
    visit.page.locator("#examples").get_by_text("l m", exact=True).click()
    visit.page.wait_for_function("document.querySelector('#text textarea').value === 'l m'", timeout=SECONDS)


def test_a_recording_is_heard(visit: Visit, tmp_path: Path) -> None:
    """The box for text gives way to the recorder; an upload of another rate is noted and answered."""
    wave = 0.1 * np.random.default_rng(0).standard_normal((8000, 2))
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    visit.choose("encoder", "hears#encoder")
    visit.page.locator("#sound").wait_for(timeout=SECONDS)
    assert not visit.page.locator("#text").is_visible()
    visit.choose("decoder", "right#decoder")
    visit.wait("verdict", "speech at 16 kHz")
    visit.page.locator("#run").click()
    visit.wait("notes", "no recording yet")
    visit.page.locator("#sound [aria-label='Upload file']").click()
    visit.page.locator("#sound input[type=file]").set_input_files(tmp_path / "a.wav")
    visit.page.locator("#sound [data-testid='waveform-Your recording']").wait_for(timeout=SECONDS)
    visit.page.locator("#run").click()
    visit.wait("notes", "resampled from 8 kHz")
    visit.wait("modules", "says by itself")


def test_a_narrow_screen_shows_everything(address: str) -> None:
    """Pictures scroll within the page; the page itself does not scroll sideways."""
    with browser(address, NARROW) as visit:
        visit.choose("encoder", "left#encoder")
        visit.wait("verdict", "left#encoder →")
        visit.choose("encoder_2", "right#encoder")
        visit.page.locator("#text_2").wait_for(timeout=SECONDS)
        visit.page.locator("#text textarea").fill("k l m n " * 5)
        visit.page.locator("#text_2 textarea").fill("k l m n " * 5)
        visit.page.locator("#run").click()
        visit.page.locator("#maps img").first.wait_for(timeout=SECONDS)
        assert visit.page.locator("#maps img").first.bounding_box()["width"] > NARROW
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= NARROW
        visit.choose("decoder", "wrong#decoder")
        visit.wait("verdict", "Will not fit")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= NARROW


def test_the_server_calls_nobody(visit: Visit) -> None:
    """Neither at the start nor while it is used."""
    visit.page.locator("#run").click()
    visit.page.locator("#notes .panel").wait_for(timeout=SECONDS)
    assert CALLED and all(map(is_here, CALLED)), CALLED


def test_a_port_that_is_taken(address: str) -> None:
    from espnet2_legonn.page import app, shelf

    taken = urllib.parse.urlparse(address).port
    with pytest.raises(LegoNNError, match=f"{taken} cannot be used .*; choose another with --port"):
        app.serve(shelf.open_shelf([PACKS]), port=taken or 0, wait=False)


def test_an_empty_text_is_a_message(visit: Visit) -> None:
    visit.choose("encoder", "left#encoder")
    visit.page.locator("#text").wait_for(timeout=SECONDS)
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
        found.page.wait_for_timeout(3000)  # the answer fades in
        found.page.screenshot(path=os.environ["LEGONN_SCREENSHOT"])
