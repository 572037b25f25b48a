"""Zips that lie, folders that are replaced, disks that are full: whole or not at all, and nothing beside it."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from espnet2_legonn import CheckpointError, ConfigError, LegoNN
from espnet2_legonn.files import archive
from espnet2_legonn.packs.check import check
from espnet2_legonn.packs.files import card_of, opened, replacing, verify, zip_pack
from tests.zoo.hostile import directory_of, patched, zipped
from tests.zoo.toys import build, pair

TOKENS = "src.tokens.txt"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return build(pair()).save(tmp_path / "pack")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are unpacked; must be empty after each test."""
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    return room


def refused(path: Path, room: Path) -> str:
    """The faults; nothing may be left anywhere."""
    around = sorted(room.parent.rglob("*"))
    with pytest.raises(CheckpointError) as error:
        LegoNN.from_pretrained(path)
    assert sorted(room.parent.rglob("*")) == around and not list(room.iterdir())
    assert all(str(path) in f and str(room) not in f for f in error.value.faults), error.value.faults
    return "\n".join(error.value.faults)


def with_entry(pack: Path, name: str | zipfile.ZipInfo, content: bytes = b"evil") -> Path:
    path = zipped(pack, pack.parent / "pack.zip")
    with zipfile.ZipFile(path, "a") as z:
        z.writestr(name, content)
    return path


# -- entries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/abs", "points out of the archive"),
        ("//host/abs", "points out of the archive"),
        ("../up", "points out of the archive"),
        ("a/../../up", "points out of the archive"),
        ("..", "points out of the archive"),
        ("..\\up", "points out of the archive"),
        ("C:up", "points out of the archive"),
        ("file:stream", "points out of the archive"),
        ("\\\\host\\x", "points out of the archive"),
        ("a\nb", "is no name for a file"),
        ("\x1b[2J", "is no name for a file"),
        ("x" * 300, "is no name for a file"),
        (".", "is no name for a file"),
        (TOKENS.upper(), "stands there twice"),
        (f"./{TOKENS}", "stands there twice"),
        (f"{TOKENS}/x", "is a file and a folder at once"),
        (f"{TOKENS}/", "stands there twice"),
    ],
)
def test_names_of_entries(pack: Path, room: Path, name: str, reason: str) -> None:
    assert reason in refused(with_entry(pack, name), room)


def test_a_name_with_nul_and_an_empty_one(pack: Path, room: Path) -> None:
    """zipfile cuts a name at NUL, so two readers may see two names; both headers are changed here."""
    path = with_entry(pack, "abcd")
    for at, place in ((46, b"PK\1\2"), (30, b"PK\3\4")):
        patched(path, "abcd", at, b"a\0cd", place)
    assert "is no name for a file" in refused(path, room)
    path = with_entry(pack, "abcd")
    patched(path, "abcd", 28, struct.pack("<HH", 0, 4))  # no name, four bytes of extra field
    assert "pack.zip: " in refused(path, room)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices(pack: Path, room: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    told = refused(with_entry(pack, info, b"/etc/passwd"), room)
    assert "'link' is a link" in told or "'link' is a device or pipe" in told


def second_name(name: str, other: str, crc_of: str | None = None) -> zipfile.ZipInfo:
    """An entry with Info-ZIP's Unicode Path field, which Python 3.12 takes for its name and older ones do not."""
    info = zipfile.ZipInfo(name)
    data = struct.pack("<BL", 1, zlib.crc32((crc_of or name).encode())) + other.encode()
    info.extra = struct.pack("<HH", 0x7075, len(data)) + data
    return info


@pytest.mark.parametrize("other", ["/tmp/x", "../up", "a/../../up", "inner.txt", TOKENS, "notes.txt/", "", "x\0y"])
def test_an_entry_with_two_names(pack: Path, room: Path, other: str) -> None:
    """Whichever of them this Python takes: refused on all."""
    assert "has two names" in refused(with_entry(pack, second_name("notes.txt", other)), room)


def test_a_second_name_with_a_wrong_checksum(pack: Path, room: Path) -> None:
    """Python ignores it; another program may not."""
    assert "has two names" in refused(with_entry(pack, second_name("notes.txt", "../up", "other")), room)


def test_the_same_name_twice_over_is_harmless(pack: Path) -> None:
    """As Info-ZIP writes it."""
    with opened(with_entry(pack, second_name("notes.txt", "notes.txt"), b"x")) as folder:
        assert (folder / "notes.txt").read_bytes() == b"x"


def test_what_is_checked_is_what_is_written(pack: Path, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a version of Python makes of ``filename``: it is not used."""
    real = zipfile.ZipFile.infolist

    def renamed(self: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
        entries = real(self)
        for entry in entries:
            entry.filename = f"{room.parent}/outside/{entry.orig_filename}"
        return entries

    path = zip_pack(pack, pack.parent / "pack.zip")
    monkeypatch.setattr(zipfile.ZipFile, "infolist", renamed)
    assert LegoNN.from_pretrained(path) and not (room.parent / "outside").exists()


@pytest.mark.parametrize(("one", "two"), [("\u00e9.txt", "e\u0301.txt"), ("\u00df.txt", "SS.txt")])
def test_names_that_some_disks_take_for_one(pack: Path, room: Path, one: str, two: str) -> None:
    with_entry(pack, one)
    with zipfile.ZipFile(pack.parent / "pack.zip", "a") as z:
        z.writestr(two, b"evil")
    with pytest.raises(CheckpointError, match="stands there twice"):
        LegoNN.from_pretrained(pack.parent / "pack.zip")


def test_reading_a_card_unpacks_the_card_alone(pack: Path, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_entry(pack, "deep/card.yaml", bytes(1 << 20))
    path = with_entry(pack, "notes.txt", bytes(1 << 20))
    written: list[str] = []
    unpack = archive._unpack

    def watched(z: zipfile.ZipFile, member: archive.Member, *rest: Any) -> None:
        written.append(member.name)
        unpack(z, member, *rest)

    monkeypatch.setattr(archive, "_unpack", watched)
    assert card_of(path) and written == ["card.yaml"]
    written.clear()
    assert check([f"{path}#encoder", f"{path}#decoder"]).verdict == 0
    assert set(written) == {"card.yaml", TOKENS, "tgt.tokens.txt"}


def test_a_card_of_gigabytes_is_not_unpacked(pack: Path, room: Path) -> None:
    (pack / "card.yaml").write_bytes(os.urandom(2 << 20))
    path = zipped(pack, pack.parent / "pack.zip")
    with pytest.raises(CheckpointError, match="card.yaml: 2097152 bytes, at most 1048576 are read"):
        card_of(path)


def test_faults_of_a_card_inside_a_zip_name_the_zip(pack: Path, room: Path) -> None:
    (pack / "card.yaml").write_text("a: 1", encoding="utf-8")
    path = zipped(pack, pack.parent / "pack.zip")
    with pytest.raises(ConfigError) as error:
        check([str(path)])
    assert all(str(path) in fault and str(room) not in fault for fault in error.value.faults)


def test_encrypted_entries(pack: Path, room: Path) -> None:
    path = patched(zipped(pack, pack.parent / "pack.zip"), TOKENS, 8, b"\1\0")
    assert f"{TOKENS!r} is encrypted; zip it without a password" in refused(path, room)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_compression(pack: Path, room: Path, method: int) -> None:
    """LZMA's header may ask for gigabytes."""
    path = zipped(pack, pack.parent / "pack.zip", method=method)
    assert "is packed in a rare way; zip it with 'deflate'" in refused(path, room)


def test_a_wrong_checksum(pack: Path, room: Path) -> None:
    path = patched(zipped(pack, pack.parent / "pack.zip"), TOKENS, 16, b"abcd")
    assert f"damaged (Bad CRC-32 for file '{TOKENS}'); copy it again" in refused(path, room)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 2**32 - 2])
def test_sizes_that_lie(pack: Path, room: Path, size: int) -> None:
    path = patched(zipped(pack, pack.parent / "pack.zip"), TOKENS, 24, struct.pack("<L", size))
    assert "pack.zip: " in refused(path, room)


def test_bombs(pack: Path, room: Path) -> None:
    """Told as such, or lying about it: no more is written than was said."""
    path = with_entry(pack, zipfile.ZipInfo("zeros"), b"")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("zeros", bytes(50 << 20))
    assert "times its size; no weights shrink like that" in refused(path, room)
    with pytest.raises(CheckpointError, match="pack.zip: "):
        archive.extract(patched(path, "zeros", 24, struct.pack("<L", 1000)), room)
    assert sum(p.stat().st_size for p in room.iterdir()) <= 1000


def test_entries_that_share_their_bytes(pack: Path, room: Path) -> None:
    """A quoted-overlap bomb: many names, one stream; Python 3.11.7 itself would unpack it."""
    path = zipped(pack, pack.parent / "pack.zip", method=zipfile.ZIP_STORED)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as z:
        places = {e.filename: e.header_offset for e in z.infolist()}
    other = "tgt.tokens.txt"
    path.write_bytes(content)
    patched(path, other, 42, struct.pack("<L", places[TOKENS]))
    assert "share their bytes" in refused(path, room)


def test_a_directory_of_millions(tmp_path: Path, room: Path) -> None:
    """Refused before zipfile makes an object of each (40 times the memory)."""
    path = tmp_path / "pack.zip"
    path.write_bytes(directory_of(200_000))
    assert "a list of files of many MB" in refused(path, room)
    path.write_bytes(directory_of(1001))
    assert "1001 entries, at most 1000 are read" in refused(path, room)


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + bytes(18), b"PK\5\6", b"PK\3\4" + bytes(100), b"nothing" * 100])
def test_empty_and_no_zips(tmp_path: Path, room: Path, content: bytes) -> None:
    (tmp_path / "pack.zip").write_bytes(content)
    refused(tmp_path / "pack.zip", room)


def test_prefix_comment_and_inner_folder_are_harmless(pack: Path, room: Path) -> None:
    path = zipped(pack, pack.parent / "pack.zip", "some/inner/folder/")
    with zipfile.ZipFile(path, "a") as z:
        z.comment = b"a pack" * 1000
        z.writestr("./", "")
    path.write_bytes(b"#!/bin/sh\n" * 100 + path.read_bytes())
    assert LegoNN.from_pretrained(path) and not list(room.iterdir())


def test_zip64(pack: Path, room: Path) -> None:
    """Packs of over 4 GiB are written so; sizes that do not fit their fields are errors."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        for path in sorted(pack.iterdir()):
            with z.open(path.name, "w", force_zip64=True) as f:
                f.write(path.read_bytes())
    path = pack.parent / "pack.zip"
    path.write_bytes(buffer.getvalue())
    assert LegoNN.from_pretrained(path)
    patched(path, TOKENS, 24, b"\xff" * 4)
    refused(path, room)
    path.write_bytes(buffer.getvalue())
    content = bytearray(buffer.getvalue())
    content[-22:-22] = b"PK\6\7" + struct.pack("<LQL", 0, 2**63 - 1, 1)
    path.write_bytes(bytes(content))
    refused(path, room)


def test_truncated_everywhere(pack: Path, room: Path) -> None:
    path = zipped(pack, pack.parent / "pack.zip")
    content = path.read_bytes()
    for keep in [*range(0, len(content), len(content) // 40), len(content) - 1]:
        path.write_bytes(content[:keep])
        refused(path, room)


# -- folders and what goes wrong with them -----------------------------------------------------------------------------


def test_an_unreadable_zip(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_pack(pack, pack.parent / "pack.zip")

    def denied(self: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(CheckpointError, match="pack.zip: Permission denied"):
        LegoNN.from_pretrained(path)


@pytest.mark.parametrize("command", [LegoNN.from_pretrained, lambda path: check([str(path)])])
def test_no_room_to_unpack(pack: Path, room: Path, monkeypatch: pytest.MonkeyPatch, command: Any) -> None:
    path = zip_pack(pack, pack.parent / "pack.zip")
    real = Path.open

    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return Full() if mode == "xb" else real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_)
    with pytest.raises(ValueError, match="no space left to unpack .*pack.zip; free some, nothing is kept"):
        command(path)
    assert not list(room.iterdir())


def test_no_temporary_folder(pack: Path, room: Path) -> None:
    path = zip_pack(pack, pack.parent / "pack.zip")
    room.rmdir()
    with pytest.raises(CheckpointError, match="No such file or directory; is TMPDIR right"):
        LegoNN.from_pretrained(path)
    room.mkdir()


def test_faults_inside_a_zip_name_the_zip(pack: Path, room: Path) -> None:
    (pack / TOKENS).write_bytes(b"\xff")
    assert f"{TOKENS}: 1 bytes, the card says 32" in refused(zipped(pack, pack.parent / "pack.zip"), room)
    (pack / TOKENS).unlink()
    assert f"{TOKENS} is missing" in refused(zipped(pack, pack.parent / "pack.zip"), room)


def test_an_unpacked_pack_is_private(pack: Path, room: Path) -> None:
    """Nobody else may replace files between comparing and reading."""
    with opened(zip_pack(pack, pack.parent / "pack.zip")) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and verify(folder)
    assert not folder.exists()


DYING = """
import os, shutil, signal
from pathlib import Path
from espnet2_legonn.zoo import files
real_rename, real_rmtree = Path.rename, shutil.rmtree
steps = int({steps})
def count(real):
    def step(*args, **kwargs):
        global steps
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        steps -= 1
        return real(*args, **kwargs)
    return step
Path.rename = count(real_rename)
os.unlink = count(os.unlink)
with files.replacing(Path({pack!r})) as folder:
    for path in Path({pack!r}).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
"""


@pytest.mark.parametrize("steps", range(4))
def test_a_process_that_dies_while_replacing(pack: Path, steps: int) -> None:
    """Killed at any step, the name stands for a whole pack or for nothing, and writing again heals it."""
    code = DYING.format(steps=steps, pack=str(pack))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if pack.exists():
        verify(pack)
    hidden = [p for p in pack.parent.iterdir() if p != pack]
    assert len(hidden) == 1 and hidden[0].name.startswith(".pack.")
    build(pair()).save(pack)
    assert LegoNN.from_pretrained(pack) and os.listdir(pack.parent) == ["pack"], "what was left is swept"


@pytest.mark.parametrize("how", ["weights", "card"])
def test_no_room_to_save(pack: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """safetensors has an error of its own for it."""
    from safetensors import SafetensorError

    def full(*args: Any, **options: Any) -> None:
        raise SafetensorError("No space left") if how == "weights" else OSError(errno.ENOSPC, "No space left")

    if how == "weights":
        monkeypatch.setattr("espnet2_legonn.packs.store.save_file", full)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CheckpointError, match=f"^{pack}: cannot be written .*No space left.*is the disk full"):
        build(pair(), 1).save(pack)
    monkeypatch.undo()
    assert verify(pack) and os.listdir(pack.parent) == ["pack"]


def test_another_process_replaces_it_in_between(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one wins; nobody gets an error or a mixture."""
    real, others = Path.rename, iter([True])

    def rename(self: Path, target: Path) -> Path:
        if Path(target) == pack and next(others, False):
            chain.save(pack)
        return real(self, target)

    chain, mine = build(pair(), 1), build(pair(), 2)
    monkeypatch.setattr(Path, "rename", rename)
    mine.save(pack)
    again = LegoNN.from_pretrained(pack)
    assert all((a == b).all() for a, b in zip(again.state_dict().values(), mine.state_dict().values()))
    assert os.listdir(pack.parent) == ["pack"]


def test_a_failure_at_the_last_step_brings_the_old_back(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output error"):
        build(pair(), 1).save(pack)
    assert verify(pack) and os.listdir(pack.parent) == ["pack"]


def test_a_folder_that_became_somebody_elses(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="exists and is no pack"), replacing(tmp_path / "x"):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "thesis.tex").write_text("mine")
    assert [p.name for p in tmp_path.rglob("*")] == ["x", "thesis.tex"]
