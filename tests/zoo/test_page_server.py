"""The page's server without a browser: whom it answers, what it tells, what it takes."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.zoo.toys import build, pair

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret place")
    build(pair(), 1).save(folder / "left")
    build(pair(), 2).save(folder / "right")
    (folder / "broken.zip").write_bytes(b"PK")
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> str:
    pytest.importorskip("gradio", reason="extra page")
    from espnet2_legonn.page import app, shelf

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return app.serve(shelf.open_shelf([place]), port=port, wait=False, seconds=300)


def get(url: str, host: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("path", ["", "config", "gradio_api/info"])
def test_other_names_are_refused(address: str, path: str) -> None:
    """Another site cannot make its name stand for this machine."""
    assert get(address + path, "evil.example.org")[0] == 400
    assert get(address + path, "localhost")[0] == 200


def test_the_browser_is_told_no_paths(address: str, place: Path) -> None:
    for path in ("", "config", "gradio_api/info"):
        _, told = get(address + path)
        assert str(place) not in told and place.name not in told
    assert "broken.zip" in get(f"{address}config")[1]


def test_runs_and_what_is_refused(address: str, place: Path) -> None:
    client_room = pytest.importorskip("gradio_client")
    client = client_room.Client(address, verbose=False)

    nobody = ["", None, None, None, None]

    def run(encoder: str, text: str, *second: str | None) -> str:
        boxes = [*(second or nobody), *nobody]
        found = client.predict(encoder, "", "right#decoder", text, None, None, None, *boxes, api_name="/run")
        return json.dumps(found)

    assert "says by itself" in run("left#encoder", "k l m") and "data:image/png" in run("left#encoder", "k l m")
    assert "with the decoder" not in run("left#encoder", "k l m")
    voted = run("left#encoder", "k l m", "right#encoder", "k", None, None, "0.5")
    assert "with the decoder" in voted and "ctc_2" in voted
    assert "is no number<" in run("left#encoder", "k", "right#encoder", "k", None, None, "x")
    assert "2001 characters, at most 2000 are read" in run("left#encoder", "k" * 2001)
    with pytest.raises(Exception, match="not in the list of choices|Value"):
        run(f"{place}/left#encoder", "k")
