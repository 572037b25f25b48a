"""References to packs: what they mean, downloads that go wrong, two processes, disks that are full or read-only."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.files import archive
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.packs import cache as cache_room
from espnet2_legonn.packs import transfer
from espnet2_legonn.packs.fetch import inventories, kind, resolve
from espnet2_legonn.packs.files import list_files, zip_pack
from espnet2_legonn.packs.inventory import Inventory
from tests.zoo.places import Web, make_pack, mounts_work, own_cache, serving
from tests.zoo.toys import build, pair

PULL = "import sys; from espnet2_legonn.packs.fetch import resolve; print(resolve(*sys.argv[1:]))"
# As above, with an error as one line on standard output.
TELL = """import sys
from espnet2_legonn.packs.fetch import resolve
from espnet2_legonn.errors import LegoNNError
try: print(resolve(*sys.argv[1:]))
except LegoNNError as e: print(type(e).__name__, e)"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_cache(tmp_path, monkeypatch)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return make_pack(tmp_path / "asr")


@pytest.fixture
def zipped(pack: Path, tmp_path: Path) -> bytes:
    return zip_pack(pack, tmp_path / "asr.zip").read_bytes()


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def web(request: pytest.FixtureRequest, zipped: bytes) -> Iterator[Web]:
    with serving(Web(request.param)) as server:
        server.files["/asr.zip"] = zipped
        yield server


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def whole(folder: Path, pack: Path) -> bool:
    return list_files(folder) == list_files(pack) and (folder / "card.yaml").is_file()


# -- what a reference means --------------------------------------------------------------------------------------------


def test_paths(pack: Path, zipped: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert resolve(pack) == resolve(str(pack)) == resolve(f"file://{pack}") == pack
    assert resolve("~/asr.zip") == tmp_path / "asr.zip"
    assert resolve("asr") == Path("asr") and resolve("asr/config.yaml") == Path("asr/config.yaml")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "reference",
    ["none.zip", "exp/none.zip", "./none", "../none", "~/none", "/none", "a/b/none", "a b", "", " ", "a\\b",
     "none.yaml", "file:///none", "asr/encoder", "x" * 5000, "a/b c", "none/", "/", Path("none"), Path("org/none")],
)  # fmt: skip
def test_a_mistyped_path_is_no_network_request(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if reference == "/":
        assert resolve(reference) == Path("/")
        return
    with pytest.raises(CheckpointError) as error:
        resolve(reference)
    assert error.value.faults[0].startswith(f"{reference}: no such folder or zip")
    if reference == "asr/encoder":
        assert error.value.faults[0].endswith("zip in asr/; for the Hugging Face Hub: hf://asr/encoder")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("source", ["asr", "./asr", "asr.zip", "exp/none"])
def test_modules_where_a_whole_chain_is_needed(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = f"{source}#a,b: #a,b names modules, a whole chain is needed here; give {source}, or make a chain of"
    with pytest.raises(CheckpointError) as error:
        resolve(f"{source}#a,b")
    assert error.value.faults[0].startswith(wanted) and "legonn compose PACK#MODULE,... -o DIR" in error.value.faults[0]
    (tmp_path / "a#b").mkdir()
    assert resolve("a#b") == Path("a#b"), "a folder may be called so"


def test_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = [
        "s3://b/x.zip",
        "https://x.org/a",
        "hf://a/b",
        "org/name",
        "org/name@v1.0",
        "org/name@refs/pr/1",
        "asr_1.2",
    ]
    assert [kind(k) for k in kinds] == ["url", "url", "hub", "hub", "hub", "hub", "name"]


@pytest.mark.usefixtures("no_network")
def test_names_come_from_inventories_in_order(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    with pytest.raises(CheckpointError, match="^asr_x: no such folder or zip, and no inventory .*LEGONN_INVENTORY$"):
        resolve("asr_x")
    other = make_pack(tmp_path / "other" / "asr", seed=5)
    for place, folder in (("one", pack), ("two", other), ("shipped", make_pack(tmp_path / "x" / "mt"))):
        Inventory.open(tmp_path / place, new=True).publish(folder)
    monkeypatch.setenv("LEGONN_PACKS", str(tmp_path / "shipped"))
    monkeypatch.setenv("LEGONN_INVENTORY", f"{tmp_path}/one file://{tmp_path}/two")
    assert len(inventories()) == 3
    assert whole(resolve("asr"), pack) and whole(resolve("mt"), tmp_path / "x" / "mt")
    assert whole(resolve("asr", tmp_path / "two"), other)
    monkeypatch.setenv("LEGONN_INVENTORY", str(tmp_path / "two"))
    assert whole(resolve("asr"), other), "the cache keeps packs of one name apart"
    with pytest.raises(CheckpointError, match="^ast: no such folder or zip, and no pack of this name in .*'asr'"):
        resolve("ast")
    monkeypatch.chdir(tmp_path)
    assert resolve("asr") == Path("asr"), "what is here comes first"
    assert whole(resolve("asr", tmp_path / "two"), other), "unless an inventory is named"
    monkeypatch.setenv("LEGONN_INVENTORY", f"{tmp_path}/gone {tmp_path}/two")
    with pytest.raises(CheckpointError, match="gone: no inventory.json, so this is no inventory"):
        resolve("mt")


def test_a_chain_from_a_url_answers_as_from_its_folder(tmp_path: Path) -> None:
    chain = build(pair())
    zip_pack(chain.save(tmp_path / "mt"), tmp_path / "mt.zip")
    with serving(Web()) as web:
        web.files["/record/7/files/mt.zip"] = (tmp_path / "mt.zip").read_bytes()
        url = f"{web.url}/record/7/files/mt.zip?download=1"
        assert LegoNN.from_pretrained(url)(["k l m", "n"]) == chain(["k l m", "n"])
        assert len(web.asked) == 1
    assert LegoNN.from_pretrained(url)("k l") == chain("k l"), "from the cache, the server is gone"


def test_memory_is_a_place_too(zipped: bytes, pack: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="URLs other than the web's need espnet2_legonn[zoo]")
    fsspec.filesystem("memory").pipe_file("/somewhere/asr.zip", zipped)
    assert whole(resolve("memory://somewhere/asr.zip"), pack)
    with pytest.raises(CheckpointError, match="^memory://somewhere/none.zip: no such file; mistyped"):
        resolve("memory://somewhere/none.zip")
    with pytest.raises(CheckpointError, match="^nonsense://x/y.zip: Protocol not known: nonsense"):
        resolve("nonsense://x/y.zip")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    for reference in ("s3://bucket/x.zip", "org/name"):
        with pytest.raises(CheckpointError, match=rf"^{reference}: .*pip install 'espnet2_legonn\[zoo\]'$"):
            resolve(reference)


def test_looking_at_local_packs_loads_nothing_heavy(pack: Path) -> None:
    code = (
        "import sys; from espnet2_legonn.packs.fetch import resolve; import espnet2_legonn.bin.commands.inventory;"
        "resolve(sys.argv[1]); print({'torch', 'fsspec', 'huggingface_hub', 'espnet', 'requests'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code, pack], text=True) == "set()\n"


# -- downloads ---------------------------------------------------------------------------------------------------------


def test_a_download_happens_once(web: Web, pack: Path, cache: Path) -> None:
    first = resolve(f"{web.url}/asr.zip")
    assert whole(first, pack) and resolve(f"{web.url}/asr.zip") == first
    assert web.asked == [("/asr.zip", None)]
    assert [p.name for p in cache.iterdir()] == [first.name] and first.name.startswith("asr-")


def test_a_cut_connection(web: Web, pack: Path, zipped: bytes, cache: Path) -> None:
    """Cut twice: goes on where the server knows ranges, starts again where it does not."""
    web.faults = [100_000, 50_000]
    assert whole(resolve(f"{web.url}/asr.zip"), pack)
    assert [r for _, r in web.asked] == [None, "bytes=100000-", f"bytes={150000 if web.ranges else 50000}-"]
    assert len(list(cache.iterdir())) == 1


def test_a_server_that_always_cuts(web: Web, pack: Path, cache: Path) -> None:
    """Given up after some attempts that bring nothing; what arrived is used by the next call."""
    web.faults = [120_000, *[0] * 2, *[500] * 9]
    with pytest.raises(CheckpointError) as error:
        resolve(f"{web.url}/asr.zip")
    fault = error.value.faults[0]
    assert fault.startswith(f"{web.url}/asr.zip: ") and "3 attempts brought no more" in fault
    names = [p.name for p in cache.iterdir()]
    assert all(n.endswith(".part") for n in names), "nothing under a final name"
    web.faults, web.asked = [], []
    assert whole(resolve(f"{web.url}/asr.zip"), pack)
    if web.ranges:
        assert "what arrived is kept" in fault and web.asked == [("/asr.zip", "bytes=120000-")]


def test_all_had_arrived_before_the_process_died(web: Web, pack: Path, zipped: bytes, cache: Path) -> None:
    final = resolve(f"{web.url}/asr.zip")
    final.rename(cache / f".{final.name}.new")
    (cache / f".{final.name}.part").write_bytes(zipped)
    web.asked = []
    assert whole(resolve(f"{web.url}/asr.zip"), pack)
    assert web.asked == [("/asr.zip", f"bytes={len(zipped)}-")]
    assert list(cache.iterdir()) == [final]


def test_the_beginning_of_another_version_is_noticed(web: Web, pack: Path, cache: Path) -> None:
    final = resolve(f"{web.url}/asr.zip")
    final.rename(cache / "elsewhere")
    for beginning in (b"x" * 1000, b"x" * 10_000_000):
        (cache / f".{final.name}.part").write_bytes(beginning)
        assert whole(resolve(f"{web.url}/asr.zip"), pack)
        final.rename(cache / f"elsewhere{len(beginning)}")
    assert not list(cache.glob(".*"))


@pytest.mark.parametrize(("status", "asks"), [(404, 1), (403, 1), (503, 3)])
def test_what_the_server_says(web: Web, cache: Path, status: int, asks: int) -> None:
    web.faults = [status] * 5
    path = "/none.zip" if status == 404 else "/asr.zip"
    with pytest.raises(CheckpointError, match=f"{path}: the server says {status} "):
        resolve(f"{web.url}{path}")
    assert len(web.asked) == asks and list(cache.iterdir()) == []


def test_what_is_no_url(cache: Path) -> None:
    for url in ("http://a b/c.zip", "http://127.0.0.1:x/c.zip", "http:///c.zip"):
        with pytest.raises(CheckpointError, match=f"^{url}: "):
            resolve(url)
    assert list(cache.iterdir()) == []


def test_nobody_there(cache: Path) -> None:
    with serving(Web()) as web:
        pass
    with pytest.raises(CheckpointError, match=r"^http://.*/asr.zip: cannot be reached \(.*refused.*3 attempts"):
        resolve(f"{web.url}/asr.zip")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("wrong", ["page", "flipped", "truncated", "card", "empty", "no pack"])
def test_wrong_bytes(web: Web, zipped: bytes, pack: Path, tmp_path: Path, cache: Path, wrong: str) -> None:
    if wrong in ("card", "no pack"):
        if wrong == "card":
            (pack / "weights.safetensors").write_bytes(b"other")
        archive.write_zip(pack, ["weights.safetensors", *(["card.yaml"] if wrong == "card" else [])], tmp_path / "z")
        web.files["/asr.zip"] = (tmp_path / "z").read_bytes()
    else:
        half = len(zipped) // 2
        flipped = zipped[:half] + bytes([zipped[half] ^ 255]) + zipped[half + 1 :]
        bodies = {"page": b"<html>Log in</html>", "flipped": flipped, "truncated": zipped[:half], "empty": b""}
        web.files["/asr.zip"] = bodies[wrong]
    with pytest.raises(CheckpointError) as error:
        resolve(f"{web.url}/asr.zip")
    assert all(fault.startswith(f"{web.url}/asr.zip: ") for fault in error.value.faults)
    if wrong == "card":
        assert "weights.safetensors: 5 bytes, the card says 300000" in str(error.value)
        assert "config.yaml is missing" in str(error.value)
    assert list(cache.iterdir()) == []


def test_what_the_index_says_is_compared(pack: Path, tmp_path: Path, cache: Path) -> None:
    """Whoever changes the zip on the server is found out, and a longer one is not even written."""
    entry = Inventory.open(tmp_path / "inv", new=True).publish(pack)
    good = (tmp_path / "inv" / entry.archive).read_bytes()
    evil = zip_pack(make_pack(tmp_path / "x" / "asr", seed=1), tmp_path / "evil.zip").read_bytes()
    with serving(Web()) as web:
        web.files["/inventory.json"] = (tmp_path / "inv" / "inventory.json").read_bytes()
        for body, fault in (
            (evil[: len(good)].ljust(len(good), b"\0"), f"SHA-256 is .*, the index says {entry.sha256}"),
            (good + b"\0" * 9, f"{len(good) + 9} bytes, should be at most {len(good)}; not downloaded"),
            (good[:-9], f"{len(good) - 9} bytes, the index says {len(good)}"),
        ):
            web.files[f"/{entry.archive}"] = body
            with pytest.raises(CheckpointError, match=f"^{web.url}/{entry.archive}: {fault}"):
                resolve("asr", web.url)
            assert list(cache.iterdir()) == []
        web.files[f"/{entry.archive}"] = good
        assert whole(resolve("asr", web.url), pack)


def test_an_endless_answer_is_cut(zipped: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 200_000)
    with serving(Web()) as web:
        web.files["/asr.zip"] = zipped
        with pytest.raises(CheckpointError, match="should be at most 200000; not downloaded"):
            resolve(f"{web.url}/asr.zip")
        web.says_length = False
        with pytest.raises(CheckpointError, match="more than 200000 bytes arrive"):
            resolve(f"{web.url}/asr.zip")
    assert list(cache.iterdir()) == []


def test_an_archive_without_a_card(tmp_path: Path, cache: Path) -> None:
    """As ESPnet packs a trained model: the description lies somewhere inside."""
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as z:
        z.writestr("exp/mt/config.yaml", "modules: []\n")
    with serving(Web()) as web:
        web.files["/old.zip"] = (tmp_path / "old.zip").read_bytes()
        found = resolve(f"{web.url}/old.zip")
    assert found.parts[-2:] == ("exp", "mt") and found.is_relative_to(cache)


def test_progress_of_a_long_download(web: Web, capsys: pytest.CaptureFixture[str]) -> None:
    web.before = lambda: time.sleep(0.01)
    resolve(f"{web.url}/asr.zip")
    assert capsys.readouterr().err == "", "none for a short one"
    web.files["/slow.zip"] = web.files["/asr.zip"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "CHUNK", 20_000)
        patch.setattr(transfer, "DELAY", 0.0)
        resolve(f"{web.url}/slow.zip")
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert last.startswith("slow: 100%") and "B/s" in last


# -- several processes, bad disks --------------------------------------------------------------------------------------


def test_two_processes_at_once(zipped: bytes, pack: Path, cache: Path) -> None:
    """Both get it, one download, and the second says what it waits for."""
    with serving(Web()) as web:
        web.files["/asr.zip"] = zipped
        _pull_twice(web, pack, cache)


def _pull_twice(web: Web, pack: Path, cache: Path) -> None:
    web.before = lambda: time.sleep(1.0)
    command = [sys.executable, "-c", PULL, f"{web.url}/asr.zip"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    told = [p.communicate(timeout=60) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], told
    assert len({out for out, _ in told}) == 1 and whole(Path(told[0][0].strip()), pack)
    assert len(web.asked) == 1 and len(list(cache.iterdir())) == 1
    assert sorted(err for _, err in told) == ["", "asr: waiting for another process\n"]


def test_a_killed_process_leaves_no_half_pack(web: Web, pack: Path, cache: Path) -> None:
    gone_on = []
    web.faults = [150_000]
    web.before = lambda: gone_on.append(1) or (len(gone_on) > 1 and time.sleep(3.0))
    process = subprocess.Popen([sys.executable, "-c", PULL, f"{web.url}/asr.zip"])
    until = time.monotonic() + 30
    while len(gone_on) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert all(p.name.startswith(".") for p in cache.iterdir())
    assert any(p.name.endswith(".part") and p.stat().st_size == 150_000 for p in cache.iterdir())
    web.before, web.asked, web.faults = (lambda: None), [], []
    final = resolve(f"{web.url}/asr.zip")
    assert whole(final, pack) and list(cache.iterdir()) == [final]
    assert web.asked == [("/asr.zip", "bytes=150000-")]


@pytest.mark.parametrize("where", ["sink", "unpacking"])
def test_a_full_disk_by_error_number(zipped: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "sink":
        monkeypatch.setattr(transfer, "_copy", fail)
    else:
        monkeypatch.setattr(archive, "_unpack", fail)
    with serving(Web()) as web:
        web.files["/asr.zip"] = zipped
        with pytest.raises(CheckpointError, match=f"^{cache}: no space left .*{web.url}/asr.zip.*free some.*nothing"):
            resolve(f"{web.url}/asr.zip")
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(not mounts_work(), reason="this user may not mount a small disk")
@pytest.mark.parametrize("size", ["100k", "400k"], ids=["no room for the zip", "no room to unpack"])
def test_a_full_disk(zipped: bytes, tmp_path: Path, size: str) -> None:
    place = tmp_path / "small"
    place.mkdir()
    script = f'mount -t tmpfs -o size={size} none "$1" && "$2" -c "$3" "$4" && ls -A "$1"'
    env = os.environ | {"LEGONN_CACHE": str(place)}
    with serving(Web()) as web:
        web.files["/asr.zip"] = zipped
        command = ["unshare", "-m", "bash", "-c", script, "bash", place, sys.executable, TELL, f"{web.url}/asr.zip"]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"CheckpointError {place}: no space left")
    assert done.stdout.count("\n") == 1, f"left behind: {done.stdout}"


@pytest.mark.skipif(not mounts_work(), reason="this user may not mount a folder read-only")
def test_a_read_only_cache(zipped: bytes, cache: Path) -> None:
    """Serves what it has; for what it has not, the way out is named."""
    with serving(Web()) as web:
        web.files["/asr.zip"] = zipped
        final = resolve(f"{web.url}/asr.zip")
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && for u in "$4" "$5"; do "$2" -c "$3" "$u"; done'
    urls = [f"{web.url}/asr.zip", f"{web.url}/other.zip"]
    command = ["unshare", "-m", "bash", "-c", script, "bash", cache, sys.executable, TELL, *urls]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, fault = done.stdout.splitlines()
    assert Path(found) == final
    assert fault == (
        f"CheckpointError {cache}: cannot be used (Read-only file system); set LEGONN_CACHE to a folder of your own"
    )


def test_a_cache_that_is_a_file(zipped: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEGONN_CACHE", str(tmp_path / "asr.zip"))
    with pytest.raises(CheckpointError, match=r"asr.zip: cannot be used \(.*\); set LEGONN_CACHE"):
        resolve("http://127.0.0.1:9/x.zip")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LEGONN_CACHE")
    assert cache_room.cache_folder() == tmp_path / ".cache" / "espnet2_legonn"
    monkeypatch.setenv("LEGONN_CACHE", "~/elsewhere")
    assert cache_room.cache_folder() == tmp_path / "elsewhere"


def test_a_lock_whose_file_was_removed_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with transfer.locked(path, "x"):
        path.unlink()
        with transfer.locked(path, "x"):
            assert path.exists()
    with contextlib.suppress(ZeroDivisionError), transfer.locked(path, "x"):
        raise ZeroDivisionError
    assert not path.exists()


def test_digests_are_of_the_zip(zipped: bytes, tmp_path: Path) -> None:
    """Publishing the same pack twice gives the same zip, so caches agree."""
    assert sha256_of(zip_pack(tmp_path / "asr", tmp_path / "again.zip")) == sha256_of(tmp_path / "asr.zip")
