"""Packs in the hands of ESPnet's own archive tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet2_legonn.bin.legonn_inference import Speech2Text, Text2Text
from espnet2_legonn.packs.files import verify, zip_pack
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
