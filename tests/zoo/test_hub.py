"""The Hugging Face Hub: its own client against a server on this machine that speaks the same endpoints."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.bin.legonn_inference import Text2Text
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.packs import hub as room
from espnet2_legonn.packs.card import CARD
from espnet2_legonn.packs.fetch import hub_tag
from espnet2_legonn.packs.files import README, list_files, verify
from espnet2_legonn.packs.model_card import model_card
from tests.zoo.hub_server import TOKEN, Hub
from tests.zoo.places import make_pack, serving
from tests.zoo.toys import build, pair

# Each argument resolved, or what is said; then what the server is asked is the client's own doing.
RESOLVE = """import sys
from espnet2_legonn.packs.fetch import resolve
from espnet2_legonn.errors import LegoNNError
for tag in sys.argv[1:]:
    try: print(resolve(tag))
    except LegoNNError as e: print(type(e).__name__, " | ".join(e.faults))"""
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return make_pack(tmp_path / "asr", size=20_000)


@pytest.fixture
def hub() -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="the Hub needs espnet2_legonn[zoo]")
    with serving(Hub()) as server:
        yield server


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """A command in a process of its own: the client reads the environment when it is imported."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and "proxy" not in k.lower()}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}

    def call(*command: object, **changes: str) -> subprocess.CompletedProcess:
        words = [sys.executable, *map(str, command)]
        return subprocess.run(words, env=env | changes, capture_output=True, text=True, timeout=120, cwd=tmp_path)

    return call


LEGONN = ("-m", "espnet2_legonn.bin.legonn")
ZOO = """import json, sys
from espnet_model_zoo.downloader import ModelDownloader
print(json.dumps(ModelDownloader(sys.argv[1]).download_and_unpack(sys.argv[2])))"""


def test_push_and_pull(hub: Hub, run: Run, pack: Path, tmp_path: Path) -> None:
    done = run(*LEGONN, "push", pack, "--hub", "org/asr", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["commit"] == hub.repos["org/asr"]["main"]
    there = {n: d for n, d in hub.commits[told["commit"]].items() if n != ".gitattributes"}
    assert told["files"] == {n: len(d) for n, d in there.items()}
    assert there.pop(README).decode() == told["readme"]
    assert there == {p.name: p.read_bytes() for p in pack.iterdir()}
    assert len(hub.large) == 1, "weights go the way of large files, without a git-lfs program"
    # Only what the card names is downloaded.
    hub.commit("org/asr", "main", {"huge.bin": b"x" * 1000})
    pulled = run(*LEGONN, "pull", "org/asr", "-o", "copy")
    assert (pulled.returncode, pulled.stdout) == (0, "copy\n"), pulled.stderr
    assert list_files(tmp_path / "copy") == list_files(pack)
    assert not any(p.is_symlink() for p in (tmp_path / "copy").iterdir()) and (tmp_path / "copy" / README).exists()
    assert not any("huge.bin" in line for line in hub.asked)
    # Once it is in the cache, neither the Hub nor a network is needed.
    offline = run("-c", RESOLVE, "org/asr", "hf://org/asr@main", HF_HUB_OFFLINE="1").stdout.splitlines()
    gone = run("-c", RESOLVE, "org/asr", HF_ENDPOINT="http://127.0.0.1:9").stdout.splitlines()
    assert offline == [offline[0]] * 2 and gone == offline[:1] and list_files(Path(gone[0])) == list_files(pack)


@pytest.mark.slow
def test_espnets_model_zoo_pulls(hub: Hub, run: Run, tmp_path: Path) -> None:
    """Its downloader changes nothing in the pack: meta.yaml calls no file YAML."""
    pytest.importorskip(
        "espnet_model_zoo.downloader", exc_type=ImportError, reason="pip install --no-deps espnet_model_zoo"
    )
    chain = build(pair())
    folder = chain.save(tmp_path / "mt")
    hub.commit("org/mt", "main", {p.name: p.read_bytes() for p in folder.iterdir()})
    done = run("-c", ZOO, "cache", "org/mt@main")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"mt_train_config", "mt_model_file"}
    assert Text2Text(**found)("k l m")[0][0] == chain("k l m", beam_size=10)
    verify(Path(found["mt_model_file"]).parent)


def test_revisions(hub: Hub, run: Run, pack: Path, tmp_path: Path) -> None:
    first = run(*LEGONN, "push", pack, "--hub", "org/asr", "--json")
    other = make_pack(tmp_path / "x" / "asr", size=10)
    second = run(*LEGONN, "push", other, "--hub", "org/asr@v2")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    commit = json.loads(first.stdout)["commit"]
    found = run("-c", RESOLVE, "org/asr", "org/asr@v2", f"org/asr@{commit}").stdout.splitlines()
    assert [list_files(Path(f)) for f in found] == [list_files(p) for p in (pack, other, pack)]
    hub.asked.clear()
    info = run(*LEGONN, "info", "org/asr@v2", HF_HOME=str(tmp_path / "empty"))
    assert info.stdout.startswith("asr: A toy."), info.stderr
    assert not any("weights" in line for line in hub.asked), "info downloads the card alone"


def test_what_the_hub_says(hub: Hub, run: Run, pack: Path) -> None:
    files = {p.name: p.read_bytes() for p in pack.iterdir()}
    for repo in ("org/asr", "org/gated"):
        hub.commit(repo, "main", files)
    hub.gated.add("org/gated")
    hub.commit("org/other", "main", {"README.md": b"a model of another kind"})
    hub.commit("org/evil", "main", files | {CARD: files[CARD].replace(b"weights.saf", b"../eights.saf")})
    hub.commit("org/espnet", "main", {"exp/mt/config.yaml": b"modules: []\n", "exp/mt/x.pth": b"x"})
    tags = ["org/none", "org/asr@v9", "org/gated", "org/other", "org/evil", "org/espnet"]
    none, revision, gated, other, evil, espnet = run("-c", RESOLVE, *tags).stdout.splitlines()
    assert none.startswith("CheckpointError org/none: no such repository on the Hub, or a private one and no token")
    assert revision == "CheckpointError org/asr@v9: the repository has no such revision"
    assert gated.startswith("CheckpointError org/gated: asks for consent on its page, and for a token (HF_TOKEN")
    assert other == "CheckpointError org/other: neither card.yaml nor config.yaml inside"
    assert evil.startswith("ConfigError ") and "'../eights.safetensors' is no file inside the pack" in evil
    assert Path(espnet).name == "mt" and {p.name for p in Path(espnet).iterdir()} == {"config.yaml", "x.pth"}
    gone = run("-c", RESOLVE, "org/new", HF_ENDPOINT="http://127.0.0.1:9").stdout
    assert gone == "CheckpointError org/new: the Hub cannot be reached, and the pack is not in its cache\n"


@pytest.mark.parametrize("call", ["hf_hub_download", "snapshot_download"])
def test_a_full_disk(pack: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    client = pytest.importorskip("huggingface_hub", reason="the Hub needs espnet2_legonn[zoo]")

    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(client, "hf_hub_download", lambda *args, **options: str(pack / CARD))
    monkeypatch.setattr(client, call, fail)
    with pytest.raises(CheckpointError, match="^org/asr@v1: no space left in the Hub's cache; .* HF_HOME"):
        room.snapshot("org/asr", "v1")


def test_a_wrong_token(hub: Hub, run: Run, pack: Path) -> None:
    done = run(*LEGONN, "push", pack, "--hub", "org/asr", HF_TOKEN="hf_wrong")
    assert done.returncode == 2 and done.stderr.startswith("CheckpointError:\norg/asr: "), done.stderr
    assert "token" in done.stderr or "401" in done.stderr
    assert "Traceback" not in done.stderr and hub.repos == {}


def test_dry_run_sends_nothing(pack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the package is needed: exactly what would go up is shown."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    upload = room.push(pack, "org/asr", dry_run=True)
    expected = {p.name: p.stat().st_size for p in pack.iterdir()}
    assert upload.files == expected | {README: len(upload.readme.encode())} and upload.commit is None
    assert main(["push", str(pack), "--hub", "org/asr", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert upload.readme in out and "nothing was sent" in out
    assert all(f"{size:,}" in out for size in upload.files.values()) and f"total: {sum(upload.files.values()):,}" in out


def test_a_readme_in_the_pack_gives_way(pack: Path) -> None:
    (pack / README).write_text("old", encoding="utf-8")
    upload = room.push(pack, "org/asr", dry_run=True)
    assert upload.readme == model_card(room.read_card(pack), "org/asr")


def test_nothing_unfinished_goes_up(tmp_path: Path, pack: Path) -> None:
    pack_without = make_pack(tmp_path / "mt", about={}, size=10)
    with pytest.raises(ConfigError) as error:
        room.push(pack_without, "org/mt")
    assert len(error.value.faults) == 4
    (pack / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="weights.safetensors: 0 bytes, the card says 20000"):
        room.push(pack, "org/asr")


@pytest.mark.parametrize("tag", ["asr", "org/asr/x", "org/", "/asr", "org/asr@", "o rg/asr", "-x/asr", ""])
def test_tags(tag: str) -> None:
    with pytest.raises(ConfigError, match="no tag of the Hugging Face Hub; write ORG/NAME"):
        hub_tag(tag)
    assert hub_tag("hf://org/a.b-c@refs/pr/1") == ("org/a.b-c", "refs/pr/1")
