"""Caches that are not what an index says now, servers without end, inventories with several publishers."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.packs import transfer
from espnet2_legonn.packs.fetch import resolve
from espnet2_legonn.packs.files import list_files
from espnet2_legonn.packs.inventory import INDEX, Inventory
from tests.zoo.hostile import edit
from tests.zoo.places import make_pack, own_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_cache(tmp_path, monkeypatch)


# -- what a reference means --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["exp", "data", "dump", "packs", "conf"])
def test_an_experiment_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first: str
) -> None:
    """Whether its folder is there or not, nobody is asked for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **options: pytest.fail("reached for the network"))
    assert main(["info", f"{first}/nope"]) == 2
    assert f"{first}/nope: no such folder or zip in {first}/; for the Hugging Face Hub: hf" in capsys.readouterr().err


# -- caches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["gone", "cut", "card", "other", "no card"])
def test_a_cached_pack_that_is_not_whole_is_fetched_again(tmp_path: Path, damage: str) -> None:
    pack = make_pack(tmp_path / "asr", size=5000)
    Inventory.open(tmp_path / "inv", new=True).publish(pack)
    cached = resolve("asr", tmp_path / "inv")
    if damage == "gone":
        (cached / "weights.safetensors").unlink()
    elif damage == "cut":
        (cached / "weights.safetensors").write_bytes(b"x")
    elif damage == "card":
        (cached / "card.yaml").write_text("a: 1", encoding="utf-8")
    elif damage == "no card":
        (cached / "card.yaml").unlink()
    else:  # whole, but another pack
        shutil.rmtree(cached)
        shutil.copytree(make_pack(tmp_path / "x" / "asr", size=5000, seed=1), cached)
    assert resolve("asr", tmp_path / "inv") == cached and list_files(cached) == list_files(pack)


@pytest.mark.parametrize("key", ["modules", "content_sha256", "vocabs"])
def test_an_index_that_says_something_else_than_the_card(tmp_path: Path, cache: Path, key: str) -> None:
    """``legonn list`` shows what it says: before the pack is there and after."""
    place = tmp_path / "inv"
    Inventory.open(place, new=True).publish(make_pack(tmp_path / "asr", size=10))
    honest = (place / INDEX).read_text(encoding="utf-8")
    content = json.loads(honest)
    entry = content["packs"][0]
    if key == "modules":
        entry["modules"][0]["reads"]["fs"] = 8000
    elif key == "vocabs":
        entry["vocabs"]["bpe_de"]["language"] = "fr"
    else:
        entry["content_sha256"] = "0" * 64
    for there in (False, True):
        (place / INDEX).write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(CheckpointError, match=f"asr-.*zip: its card has another {key} than the index"):
            resolve("asr", place)
        assert not there or len(list(cache.iterdir())) == 1, "what an honest index brought stays"
        (place / INDEX).write_text(honest, encoding="utf-8")
        assert resolve("asr", place).is_dir()


def test_an_index_that_lists_what_is_no_pack(tmp_path: Path) -> None:
    import hashlib
    import zipfile

    place = tmp_path / "inv"
    entry = Inventory.open(place, new=True).publish(make_pack(tmp_path / "asr", size=10))
    with zipfile.ZipFile(place / entry.archive, "w") as z:
        z.writestr("config.yaml", "modules: []\n")
    content = (place / entry.archive).read_bytes()
    index = json.loads((place / INDEX).read_text(encoding="utf-8"))
    index["packs"][0] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (place / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match="no card.yaml inside, though the index lists it as a pack"):
        resolve("asr", place)


# -- servers without end -----------------------------------------------------------------------------------------------


class Drip:
    """Says something, and then a byte now and then, for ever."""

    def __init__(self, first: bytes) -> None:
        self.first, self.over = first, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        with line:
            try:
                line.recv(10_000)
                line.sendall(self.first)
                while not self.over.wait(0.02):
                    line.sendall(b"x")
            except OSError:
                return


@pytest.fixture
def drip() -> Iterator[Callable[[bytes], Drip]]:
    made: list[Drip] = []

    def make(first: bytes) -> Drip:
        made.append(Drip(first))
        return made[-1]

    yield make
    for one in made:
        one.over.set()
        one.listener.close()


HEADS = {
    "head": b"HTTP/1.1 200 OK\r\nX-A: ",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n",
    "no length": b"HTTP/1.0 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS)
def test_a_server_that_drips(
    drip: Callable[[bytes], Drip], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: str
) -> None:
    """Every byte comes within the socket's time; the whole has its own."""
    for name, value in (("DEADLINE", 0.3), ("GRACE", 0.3), ("SLOWEST", 100_000.0)):
        monkeypatch.setattr(transfer, name, value)
    url = drip(HEADS[head]).url
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"no answer in 0 s|bytes in 0 s; too slow"):
        Inventory.open(url)
    with pytest.raises(CheckpointError, match=r"no answer in 0 s|too slow, \d+ bytes in 0 s"):
        resolve(f"{url}/asr.zip")
    assert time.monotonic() - started < 20


def test_a_server_that_gives_a_byte_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drip: Callable[[bytes], Drip]
) -> None:
    """Each attempt brings something new, so that attempts alone never end."""
    from tests.zoo.places import Web, serving

    monkeypatch.setattr(transfer, "GRACE", 0.3)
    with serving(Web()) as web:
        web.files["/asr.zip"] = b"x" * 100_000
        web.faults = [1] * 100_000
        with pytest.raises(CheckpointError, match=r"too slow, \d+ bytes in 0 s; what arrived is kept"):
            resolve(f"{web.url}/asr.zip")


def test_an_index_that_is_cut_is_not_read(tmp_path: Path) -> None:
    from tests.zoo.places import Web, serving

    with serving(Web()) as web:
        web.files[f"/{INDEX}"] = b'{"version": 1, "packs": []}' + b" " * 1000
        web.faults = [30]
        with pytest.raises(CheckpointError, match="the connection ended after 30 of 1027 bytes"):
            Inventory.open(web.url)


# -- several publishers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_folders_by_any_name_are_locked(tmp_path: Path, scheme: str) -> None:
    place = f"{scheme}{tmp_path}/inv"
    assert Inventory.open(place, new=True).shared
    code = (
        "import sys; from espnet2_legonn.packs.inventory import Inventory as I; from pathlib import Path as P\n"
        "for p in sys.argv[2:]: I.open(sys.argv[1], new=True).publish(P(p))"
    )
    packs = [str(make_pack(tmp_path / f"p{i}", size=10, seed=i)) for i in range(12)]
    running = [
        subprocess.Popen([sys.executable, "-c", code, place, *packs[i::3]], stderr=subprocess.DEVNULL) for i in range(3)
    ]
    assert [p.wait(timeout=300) for p in running] == [0] * 3
    assert sorted(e.name for e in Inventory.open(place).entries) == sorted(f"p{i}" for i in range(12))
    assert not list((tmp_path / "inv").glob(".*"))


def test_who_cannot_be_locked_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fsspec", reason="stores need espnet2_legonn[zoo]")
    pack = make_pack(tmp_path / "asr", size=10)
    for place, shared in (("memory://alone", False), (str(tmp_path / "inv"), True)):
        assert main(["push", str(pack), "--inventory", place]) == 0
        told = capsys.readouterr().err
        assert ("so only one may publish at a time" in told) != shared
    assert Inventory("s3://bucket/packs", []).shared and not Inventory("gs://bucket/packs", []).shared


def test_leftovers_of_a_killed_publisher_are_swept(tmp_path: Path) -> None:
    code = (
        "import os, sys, shutil; from espnet2_legonn.zoo import inventory; from pathlib import Path as P\n"
        "shutil.copyfile = lambda *a: os.kill(os.getpid(), 9)\n"
        "inventory.Inventory.open(sys.argv[1], new=True).publish(P(sys.argv[2]))"
    )
    pack, place = make_pack(tmp_path / "asr", size=10), tmp_path / "inv"
    assert subprocess.run([sys.executable, "-c", code, str(place), str(pack)]).returncode == -9
    assert any(p.is_dir() for p in place.glob(".*"))
    entry = Inventory.open(place, new=True).publish(pack)
    assert sorted(p.name for p in place.iterdir()) == sorted([INDEX, entry.archive])


def test_a_card_changed_by_hand_is_no_other_pack(tmp_path: Path) -> None:
    """The name in the card counts, not the folder's."""
    pack = make_pack(tmp_path / "asr", size=10)
    edit(pack / "card.yaml", lambda card: card.update(name="other"))
    Inventory.open(tmp_path / "inv", new=True).publish(pack)
    assert list_files(resolve("other", tmp_path / "inv")) == list_files(pack)
