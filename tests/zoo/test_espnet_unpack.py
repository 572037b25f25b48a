"""Packs in the hands of ESPnet's own archive tool and of its model zoo."""

from __future__ import annotations

import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from espnet2_legonn.bin.legonn_inference import Speech2Text, Text2Text
from espnet2_legonn.packs.files import verify, zip_pack
from tests.zoo.places import serving
from tests.zoo.sounds import speech_pair, tone
from tests.zoo.toys import build, pair


def test_espnets_own_unpack_gives_what_the_classes_are_called_with(
    tmp_path: Path,
) -> None:
    """What ESPnet's downloader calls. The pack is still what its card says afterwards."""
    espnets = pytest.importorskip("espnet2.main_funcs.pack_funcs", exc_type=ImportError)
    chains = {"asr": build(speech_pair(), 2), "mt": build(pair())}
    for (task, chain), made, item in zip(chains.items(), (Speech2Text, Text2Text), (tone(), "k l m")):
        zipped = zip_pack(chain.save(tmp_path / f"{task}_pack"), tmp_path / f"{task}.zip")
        found = espnets.unpack(zipped, tmp_path / task)
        assert set(found) == {f"{task}_train_config", f"{task}_model_file"}
        assert made(**found, device="cpu")(item)[0][0] == chain(item, beam_size=20 if task == "asr" else 10)
        verify(tmp_path / task)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["file", "url"])
def test_the_model_zoo_unpacks(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own downloader, twice. tests/zoo/test_hub.py has the Hub."""
    zoo = pytest.importorskip(
        "espnet_model_zoo.downloader", exc_type=ImportError, reason="pip install --no-deps espnet_model_zoo"
    )
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    chain = build(speech_pair(), 2)
    zipped = zip_pack(chain.save(tmp_path / "packed"), tmp_path / "asr.zip")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with serving(SimpleNamespace(server=ThreadingHTTPServer(("127.0.0.1", 0), handler))) as web:
        name = str(zipped) if place == "file" else f"http://127.0.0.1:{web.server.server_port}/asr.zip"
        found = zoo.ModelDownloader(tmp_path / "cache").download_and_unpack(name)
        # It asks again for the name of what it has: ESPnet looks for the unpacked files in another folder.
        assert zoo.ModelDownloader(tmp_path / "cache").download_and_unpack(name) == found
    assert set(found) == {"asr_train_config", "asr_model_file"}
    assert Speech2Text(**found)(tone())[0][0] == chain(tone(), beam_size=20)
    verify(Path(found["asr_model_file"]).parent)
