"""Inventories: publishing, searching by port, hostile indexes, S3 with the real client, the commands."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.packs import inventory as room
from espnet2_legonn.packs import transfer
from espnet2_legonn.packs.fetch import resolve
from espnet2_legonn.packs.files import list_files, zip_pack
from espnet2_legonn.packs.inventory import INDEX, Inventory
from tests.zoo.places import ABOUT, Web, make_pack, mounts_work, serving

PUBLISH = "import sys; from espnet2_legonn.packs.inventory import Inventory as I; from pathlib import Path as P\n" + (
    "for p in sys.argv[2:]: I.open(sys.argv[1], new=True).publish(P(p))"
)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEGONN_INVENTORY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LEGONN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LEGONN_PACKS", str(tmp_path / "no packs"))


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return make_pack(tmp_path / "asr", size=5000)


@pytest.fixture
def place(tmp_path: Path, pack: Path) -> Path:
    Inventory.open(tmp_path / "inv", new=True).publish(pack)
    return tmp_path / "inv"


def names(place: str | Path) -> list[str]:
    return [entry.name for entry in Inventory.open(place).entries]


# -- publishing --------------------------------------------------------------------------------------------------------


def test_publish_and_read_again(place: Path, pack: Path) -> None:
    entry = Inventory.open(place).entries[0]
    assert sorted(p.name for p in place.iterdir()) == sorted([INDEX, entry.archive])
    assert (place / entry.archive).stat().st_size == entry.bytes
    assert (entry.about.license, entry.vocabs["bpe_de"].language) == ("CC-BY-4.0", "de")
    for same in (f"{place}/", f"{place}/{INDEX}", f"file://{place}"):
        assert Inventory.open(same).place == str(place) and names(same) == ["asr"]
    assert list_files(resolve("asr", place)) == list_files(pack)


def test_publishing_again_changes_nothing(place: Path, pack: Path) -> None:
    before = {p.name: p.read_bytes() for p in place.iterdir()}
    Inventory.open(place).publish(pack)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == before


def test_a_name_that_is_taken(place: Path, tmp_path: Path) -> None:
    other = make_pack(tmp_path / "x" / "asr", size=5000, seed=1)
    with pytest.raises(ConfigError, match="^asr: the inventory has another pack of this name; .*--replace"):
        Inventory.open(place).publish(other)
    old = resolve("asr", place)
    entry = Inventory.open(place).publish(other, replace=True)
    assert names(place) == ["asr"] and resolve("asr", place) != old
    assert len(list(place.glob("*.zip"))) == 2 and entry.archive in os.listdir(place), "readers of the old index"


def test_every_empty_field_is_named(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "mt", about={"domain": "talks"}, size=10)
    with pytest.raises(ConfigError) as error:
        Inventory.open(tmp_path / "inv", new=True).publish(pack)
    fields = ("description", "license", "training_data", "language")
    assert error.value.faults == [f"mt: card.yaml: about.{f} is empty; fill it before sharing" for f in fields]
    assert not (tmp_path / "inv").exists()


def test_packs_that_are_not_published(place: Path, tmp_path: Path) -> None:
    odd = make_pack(tmp_path / "a b", size=10)
    with pytest.raises(ConfigError, match="'a b': no name for an inventory"):
        Inventory.open(place).publish(odd)
    damaged = make_pack(tmp_path / "mt", size=10)
    (damaged / "weights.safetensors").write_bytes(b"0123456789")
    with pytest.raises(CheckpointError, match="weights.safetensors: SHA-256 is"):
        Inventory.open(place).publish(damaged)
    assert names(place) == ["asr"]


def test_dry_run_writes_nothing(tmp_path: Path, pack: Path) -> None:
    entry = Inventory.open(tmp_path / "inv", new=True).publish(pack, dry_run=True)
    assert entry.name == "asr" and entry.bytes > 5000 and not (tmp_path / "inv").exists()


def test_concurrent_publishers_lose_nothing(tmp_path: Path) -> None:
    packs = [str(make_pack(tmp_path / f"p{i}", size=10, seed=i)) for i in range(12)]
    command = [sys.executable, "-c", PUBLISH, str(tmp_path / "inv")]
    processes = [subprocess.Popen([*command, *packs[i::2]], stderr=subprocess.DEVNULL) for i in range(2)]
    assert [p.wait(timeout=60) for p in processes] == [0, 0]
    assert names(tmp_path / "inv") == sorted(f"p{i}" for i in range(12))
    assert not list((tmp_path / "inv").glob(".*"))


@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_the_old_index(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """While the zip is copied, or the index."""
    calls = []
    copy = shutil.copyfile

    def fail(source: Path, target: Path) -> None:
        calls.append(target)
        copy(source, target)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pack = make_pack(tmp_path / "mt", size=10)
    monkeypatch.setattr(room.shutil, "copyfile", fail)
    with pytest.raises(CheckpointError, match=f"^{place}: no space left for mt; nothing is published"):
        Inventory.open(place).publish(pack)
    assert names(place) == ["asr"] and not list(place.glob(".*"))


@pytest.mark.skipif(not mounts_work(), reason="this user may not mount a folder read-only")
def test_a_read_only_folder(place: Path, tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "mt", size=10)
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && "$2" -m espnet2_legonn.bin.legonn push "$3" \
        --inventory "$1"'
    command = ["unshare", "-m", "bash", "-c", script, "bash", place, sys.executable, pack]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        f"CheckpointError:\n{place}: cannot be written (Read-only file system)\n",
    )


# -- the index ---------------------------------------------------------------------------------------------------------


def test_no_inventory(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError, match=f"^{place}: no inventory.json, so this is no inventory; mistyped"):
            Inventory.open(place)


def damage(place: Path, **changes: Any) -> None:
    content = json.loads((place / INDEX).read_text(encoding="utf-8"))
    content["packs"][0] |= changes
    (place / INDEX).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": "../x"}, "no name for a pack"),
        ({"name": "a\x1b[2Jb"}, "no name for a pack"),
        ({"archive": "../x.zip"}, "archive '../x.zip' is no file beside the index"),
        ({"archive": "/etc/passwd"}, "archive '/etc/passwd' is no file beside the index"),
        ({"archive": "https://elsewhere/x.zip"}, "is no file beside the index"),
        ({"archive": "x.exe"}, "archive 'x.exe' is no file beside the index"),
        ({"name": "x" * 101}, "no name for a pack"),
        ({"archive": ".."}, "archive '..' is no file beside the index"),
        ({"sha256": "f" * 63}, "is no SHA-256"),
        ({"sha256": "../" + "f" * 61}, "is no SHA-256"),
        ({"bytes": 10**30}, "a pack has at most"),
        ({"bytes": -1}, "a pack has at most"),
        ({"bytes": "many"}, "packs.*.bytes: must be int, found 'many'"),
        ({"modules": []}, "no modules"),
        ({"vocabs": {}}, "a port of vocabulary 'bpe_de', which is not described"),
        ({"modulse": 1}, "unknown key 'modulse'.*did you mean 'modules'"),
        ({"modules": "x" * 10**6}, "must be list"),
    ],
)
def test_an_index_that_is_not_to_be_trusted(place: Path, changes: dict[str, Any], fault: str) -> None:
    damage(place, **changes)
    with pytest.raises(ConfigError, match=f"^{place}/{INDEX}.*{fault}") as error:
        Inventory.open(place)
    assert len(str(error.value)) < 10_000


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"1" * 10_000, "no JSON"),
        (b"[]", "must be a mapping"),
        (b'{"version": 2, "packs": []}', "version 2; this package reads 1, update it"),
        (b'{"version": 1}', "key 'packs' is missing"),
        (b" " * (room.MAX_INDEX_BYTES + 1), f"more than {room.MAX_INDEX_BYTES} bytes"),
    ],
)
def test_files_that_are_no_index(place: Path, text: bytes, fault: str) -> None:
    (place / INDEX).write_bytes(text)
    with pytest.raises((ConfigError, CheckpointError), match=f"^{place}/{INDEX}: .*{fault}"):
        Inventory.open(place)


def test_a_name_twice(place: Path) -> None:
    content = json.loads((place / INDEX).read_text(encoding="utf-8"))
    content["packs"] *= 2
    (place / INDEX).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match="'asr' stands there twice"):
        Inventory.open(place)


def test_an_index_without_its_zip(place: Path) -> None:
    for path in place.glob("*.zip"):
        path.unlink()
    with pytest.raises(CheckpointError, match="asr-.*zip: no such zip, though the index beside it lists it"):
        resolve("asr", place)


# -- searching ---------------------------------------------------------------------------------------------------------


def test_find_by_port(place: Path) -> None:
    inventory = Inventory.open(place)
    digest = inventory.entries[0].vocabs["bpe_de"].sha256

    def specs(**query: str) -> list[str]:
        return [hit.spec for hit in inventory.find(**query)]

    assert specs() == ["asr"]
    assert specs(reads="bpe_de") == specs(reads="bpe_de", writes="text") == ["asr#decoder"]
    assert specs(reads="speech") == specs(writes="marginals") == ["asr#encoder"]
    assert specs(reads="speech", writes="text") == ["asr"]
    assert specs(reads=digest[:8]) == specs(reads=f"marginals word de {digest.upper()}") == ["asr#decoder"]
    assert specs(writes="de") == ["asr#encoder", "asr#decoder"]
    assert specs(reads="speech en") == ["asr#encoder"], "speech has the languages of the pack"
    for query in ("bpe", "en marginals", digest[:5], f"{digest[:8]}0", "marginals speech"):
        assert specs(reads=query) == []
    assert specs(reads="text") == specs(reads="marginals", writes="marginals") == []


# -- web servers, stores -----------------------------------------------------------------------------------------------


def test_a_web_server(place: Path, pack: Path) -> None:
    with serving(Web()) as web:
        web.files = {f"/packs/{p.name}": p.read_bytes() for p in place.iterdir()}
        assert names(f"{web.url}/packs/") == ["asr"]
        assert list_files(resolve("asr", f"{web.url}/packs")) == list_files(pack)
        with pytest.raises(ConfigError, match="a web server is read, not written; publish into .* S3 .* or on the Hub"):
            Inventory.open(f"{web.url}/packs").publish(pack)
        with pytest.raises(CheckpointError, match=f"^inventory {web.url}/none/{INDEX}: the server says 404"):
            Inventory.open(f"{web.url}/none")
        web.files[f"/packs/{INDEX}"] = b" " * (room.MAX_INDEX_BYTES + 1)
        with pytest.raises(CheckpointError, match=f"more than {room.MAX_INDEX_BYTES} bytes"):
            Inventory.open(f"{web.url}/packs")
    with pytest.raises(CheckpointError, match=r"cannot be reached \("):
        Inventory.open(f"{web.url}/packs")


def test_a_store_without_conditions(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another publisher writes between our reading and our writing: ours is put in again, theirs stays."""
    pytest.importorskip("fsspec", reason="stores need espnet2_legonn[zoo]")
    place, other = "memory://inventory", make_pack(tmp_path / "mt", size=10)
    Inventory.open(place, new=True).publish(other)
    stale = room._put_if
    turns = []

    def put(fs: Any, path: str, data: bytes, before: str | None) -> None:
        stale(fs, path, data, before)
        turns.append(path)
        if len(turns) < 3:  # they had read the index before we wrote
            fs.pipe_file(path, room._dump([e for e in Inventory.open(place).entries if e.name != "asr"]))

    monkeypatch.setattr(room, "_put_if", put)
    Inventory.open(place).publish(pack)
    assert names(place) == ["asr", "mt"] and len(turns) == 3
    assert list_files(resolve("asr", place)) == list_files(pack)
    monkeypatch.setattr(room, "_put_if", stale)
    old = Inventory(place, [])  # read before the others published
    with pytest.raises(ConfigError, match="^mt: the inventory has another pack of this name"):
        old.publish(make_pack(tmp_path / "x" / "mt", size=10, seed=9))
    monkeypatch.setattr(room, "_put_if", lambda *args: None)
    monkeypatch.setattr(room.time, "sleep", lambda seconds: None)
    with pytest.raises(CheckpointError, match="memory://inventory: the index was changed by others 8 times"):
        Inventory.open(place).publish(make_pack(tmp_path / "third", size=10))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a real S3 server on this machine."""
    pytest.importorskip("s3fs", reason="S3 needs espnet2_legonn[zoo]")
    reason = "the S3 server of the tests needs espnet2_legonn[dev]"
    moto = pytest.importorskip("moto.server", reason=reason)
    import fsspec

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket/packs"
        server.stop()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_s3(s3: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=f"^{s3}: no {INDEX}, so this is no inventory"):
        Inventory.open(s3)
    big = make_pack(tmp_path / "big", size=3_000_000)
    for folder in (pack, big):
        entry = Inventory.open(s3, new=True).publish(folder)
        assert list_files(resolve(folder.name, s3)) == list_files(folder)
    assert names(s3) == ["asr", "big"]
    assert list_files(resolve(f"{s3}/{entry.archive}")) == list_files(big)
    with pytest.raises(CheckpointError, match=f"^{s3}/none.zip: no such file"):
        resolve(f"{s3}/none.zip")
    for mistyped in ("s3://no-bucket", "s3://no-bucket/packs"):
        with pytest.raises(CheckpointError, match=f"^{mistyped}: no such"):
            Inventory.open(mistyped, new=True).publish(pack)
    # What a killed process had got is not downloaded again.
    key = entry.sha256[:16]
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    zipped = zip_pack(big, tmp_path / "big.zip").read_bytes()
    part = tmp_path / "cache" / f".big-{key}.part"
    part.write_bytes(zipped[:2_000_000])
    begun, copy = [], transfer._copy

    def watch(stream: Any, *args: Any) -> None:
        begun.append(stream.begin)
        copy(stream, *args)

    monkeypatch.setattr(transfer, "_copy", watch)
    assert list_files(resolve("big", s3)) == list_files(big) and begun == [2_000_000]


def test_s3_writes_on_condition(s3: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody publishes between our reading and our writing: S3 refuses, and we read again."""
    place = f"{s3}2"
    other = make_pack(tmp_path / "mt", size=10)
    put, turns = room._put_if, []

    def slow(fs: Any, path: str, data: bytes, before: str | None) -> None:
        turns.append(before)
        if len(turns) in (1, 3):
            monkeypatch.setattr(room, "_put_if", put)
            folder = other if len(turns) == 1 else make_pack(tmp_path / "third", size=10)
            Inventory.open(place, new=True).publish(folder)
            monkeypatch.setattr(room, "_put_if", slow)
        put(fs, path, data, before)

    monkeypatch.setattr(room, "_put_if", slow)
    Inventory.open(place, new=True).publish(pack)  # refused as there is an index now, then done
    assert names(place) == ["asr", "mt"] and len(turns) == 2 and turns[0] is None
    Inventory.open(place).publish(make_pack(tmp_path / "fourth", size=10))
    assert names(place) == ["asr", "fourth", "mt", "third"] and len(turns) == 4


def test_a_wrong_key(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's own errors become one line with the place."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(CheckpointError, match=f"^{s3}: EndpointConnectionError: .*127.0.0.1:9"):
        Inventory.open(s3)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


# -- commands ----------------------------------------------------------------------------------------------------------


def test_push_list_info_pull(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "inv")
    assert main(["push", str(pack), "--inventory", place, "--dry_run"]) == 0
    assert "nothing was sent" in capsys.readouterr().out and not Path(place).exists()
    assert main(["push", str(pack), "--inventory", place]) == 0
    assert f"published: asr in {place}" in capsys.readouterr().out
    assert main(["list", "--inventory", place, "--reads", "bpe_de", "--writes", "text"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["PACK", "READS", "WRITES", "SIZE", "LICENCE", "INVENTORY"], "no empty columns"
    assert out[1].startswith("asr#decoder  marginals bpe_de ") and len(out) == 2
    assert main(["list", "--inventory", place, "--reads", "bpe_fr"]) == 1
    assert capsys.readouterr() == ("", f"nothing found in {place}\n")
    assert main(["info", "asr", "--inventory", place]) == 0
    told = capsys.readouterr().out
    assert told.startswith("asr: A toy.\n") and "toys 1.0 (CC0)" in told and "speech 16 kHz" in told
    assert not (tmp_path / "cache").exists(), "info of an inventory downloads no pack"
    assert main(["info", str(pack)]) == 0
    assert "files      3, 0.0 MB" in capsys.readouterr().out
    assert main(["pull", "asr", "--inventory", place, "-o", str(tmp_path / "copy")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/copy\n"
    assert list_files(tmp_path / "copy") == list_files(pack)
    assert main(["pull", str(tmp_path / "inv" / Inventory.open(place).entries[0].archive), "-o", f"{tmp_path}/2"]) == 0
    assert list_files(tmp_path / "2") == list_files(pack)


def test_commands_for_programs(
    place: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEGONN_INVENTORY", str(place))
    answers = []
    for command in (["list", "--writes", "text"], ["info", "asr"], ["info", str(pack)], ["pull", "asr"]):
        assert main([*command, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    listed, entry, card, pulled = answers
    assert [hit["spec"] for hit in listed] == ["asr#decoder"] and listed[0]["inventory"] == str(place)
    assert listed[0]["pack"] == entry and entry["about"] == ABOUT == card["about"]
    assert card["files"].keys() == list_files(pack).keys() and Path(pulled["path"]).is_dir()
    other = make_pack(tmp_path / "mt", size=10)
    assert main(["push", str(other), "--inventory", str(place), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mt" and names(place) == ["asr", "mt"]


def test_faults_of_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], pack: Path) -> None:
    assert main(["list"]) == 2
    assert "no inventory: give --inventory PLACE or set LEGONN_INVENTORY" in capsys.readouterr().err
    assert main(["info", "asr_none.zip"]) == 2
    assert "asr_none.zip: no such folder or zip" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    assert main(["pull", str(pack), "-o", str(tmp_path / "mine")]) == 2
    assert "exists and is no pack" in capsys.readouterr().err and (tmp_path / "mine" / "notes.txt").exists()
    with pytest.raises(SystemExit):
        main(["push", str(pack)])


def test_no_control_characters_reach_the_terminal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(place, about=ABOUT | {"description": "a\x1b[2Jb", "license": "x\ty"})
    for command in (["list"], ["info", "asr"]):
        main([*command, "--inventory", str(place)])
        told = "".join(capsys.readouterr())
        assert "asr" in told and "\x1b" not in told and "\t" not in told
