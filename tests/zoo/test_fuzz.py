"""Mutated packs: read, or refused with a documented error; nothing else, nothing left behind, in bounded time."""

from __future__ import annotations

import collections
import copy
import json
import random
import resource
import shutil
import struct
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import LegoNNError
from espnet2_legonn.packs.card import CARD
from tests.zoo.hostile import ODD, digest, places, put, reseal, zipped
from tests.zoo.toys import build, pair

CONFIG, WEIGHTS, CHECKPOINT = "config.yaml", "weights.safetensors", "latest.pth"
SECONDS = 20  # processor time of one case; honest ones take 0.03
Mutate = Callable[[random.Random, Path], None]
EDGES = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]


def broken_bytes(rng: random.Random, content: bytes, within: tuple[int, int] | None = None) -> bytes:
    """One to four blows: flips, cuts, copies, insertions, edge numbers; ``within``: where most of them fall."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        low, high = within if within and rng.random() < 0.8 else (0, len(out))
        at = min(rng.randint(low, max(low, high - 1)), max(0, len(out) - 1))
        how = rng.choice([0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 5, 6])
        if how == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif how == 1 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del out[at : at + rng.choice([1, 4, 100, len(out)])]
        elif how == 3:
            start = rng.randrange(len(out) + 1)
            out[at:at] = out[start : start + rng.randint(1, 200)]
        elif how == 4:
            out[at:at] = rng.randbytes(rng.randint(1, 20))
        elif how == 5:
            size = rng.choice([1, 2, 4, 8])
            out[at : at + size] = (rng.choice(EDGES) % 256**size).to_bytes(size, "little")
        else:
            start, size = rng.randrange(len(out) + 1), rng.randint(1, 60)
            out[at : at + size] = out[start : start + size]
    return bytes(out)


def odd_data(rng: random.Random, data: Any) -> Any:
    """One to three values replaced, removed, renamed or copied from elsewhere."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice([1, 1, 1, 3])):
        everywhere = places(data)
        if not everywhere:
            return data
        *path, last = rng.choice(everywhere)
        inner = data
        for key in path:
            inner = inner[key]
        how = rng.randrange(4)
        if how == 0:
            del inner[last]
        elif how == 1 and isinstance(inner, dict):
            inner[rng.choice(["x", "type", 1, None, "a" * 500])] = inner.pop(last)
        elif how == 2:
            other = data
            for key in rng.choice(everywhere):
                other = other[key]
            put(data, (*path, last), copy.deepcopy(other))
        else:
            number = rng.choice([0, -1, 2, 3, 7, 2**31, 2**63, 10**20, 0.5, -0.5, 1e300])
            put(data, (*path, last), rng.choice([*ODD, number, number]))
    return data


def _headers(content: bytes) -> list[int]:
    return [i for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6") for i in range(len(content)) if content.startswith(mark, i)]


def zip_bytes(rng: random.Random, path: Path) -> None:
    content = path.read_bytes()
    start = rng.choice(_headers(content))
    path.write_bytes(broken_bytes(rng, content, rng.choice([None, (start, start + 50), (start, start + 50)])))


def card_bytes(rng: random.Random, folder: Path) -> None:
    (folder / CARD).write_bytes(broken_bytes(rng, (folder / CARD).read_bytes()))


def card_data(rng: random.Random, folder: Path) -> None:
    data = odd_data(rng, yaml.safe_load((folder / CARD).read_text(encoding="utf-8")))
    if rng.random() < 0.5:  # a card that agrees with itself
        try:
            data["content_sha256"] = digest(data["files"])
        except Exception:
            pass
    (folder / CARD).write_text(yaml.safe_dump(data), encoding="utf-8")


def config_bytes(rng: random.Random, folder: Path) -> None:
    (folder / CONFIG).write_bytes(broken_bytes(rng, (folder / CONFIG).read_bytes()))
    reseal(folder)


def config_data(rng: random.Random, folder: Path) -> None:
    data = odd_data(rng, yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")))
    (folder / CONFIG).write_text(yaml.safe_dump(data), encoding="utf-8")
    reseal(folder)


def weights_bytes(rng: random.Random, folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(broken_bytes(rng, content, (0, 8 + struct.unpack("<Q", content[:8])[0])))
    reseal(folder)


def weights_header(rng: random.Random, folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    if rng.random() < 0.3:  # two tensors change places: well-formed, and of another shape or not
        a, b = rng.sample([k for k in header if k != "__metadata__"], 2)
        header[a], header[b] = header[b], header[a]
    else:
        header = odd_data(rng, header)
    for entry in header.values():
        if isinstance(entry, dict) and rng.random() < 0.05:
            entry["dtype"] = rng.choice(["F16", "BF16", "F64", "I64", "BOOL", "U8", "F8_E4M3", "C64", "X"])
    text = json.dumps({str(k): v for k, v in header.items()}).encode()
    told = len(text) if rng.random() < 0.9 else rng.choice(EDGES)
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", told) + text + content[8 + size :])
    reseal(folder)


def token_bytes(rng: random.Random, folder: Path) -> None:
    path = rng.choice(sorted(folder.glob("*.tokens.txt")))
    path.write_bytes(broken_bytes(rng, path.read_bytes()))
    reseal(folder)


def checkpoint_bytes(rng: random.Random, folder: Path) -> None:
    """An experiment without a card, its weights a broken checkpoint."""
    (folder / CARD).unlink()
    (folder / WEIGHTS).unlink()
    content = (folder / CHECKPOINT).read_bytes()
    pickled = content.index(b"data.pkl")
    (folder / CHECKPOINT).write_bytes(broken_bytes(rng, content, rng.choice([None, (pickled, pickled + 3000)])))


FOLDERS: list[Mutate] = [card_bytes, card_data, config_bytes, config_data, weights_bytes, weights_header, token_bytes]
KINDS = {mutate.__name__: mutate for mutate in [zip_bytes, *FOLDERS, checkpoint_bytes]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An honest pack as folder and zips, and a temporary folder to watch."""
    chain = build(pair())
    pack = chain.save(tmp_path / "pack")
    zipped(pack, tmp_path / "0.zip")
    zipped(pack, tmp_path / "1.zip", "inner/", method=0)
    torch.save(chain.state_dict(), pack / CHECKPOINT)
    for name in ("room", "case"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "room"))
    return tmp_path


def one_case(kind: str, seed: int, place: Path, honest: dict[str, torch.Tensor]) -> str:
    """Mutate and read; the outcome in a word, or an AssertionError that names the case."""
    rng, name = random.Random(f"{kind} {seed}"), f"{kind} {seed}"
    case = place / "case"
    if kind == "zip_bytes":
        target = Path(shutil.copy(place / f"{seed % 2}.zip", case / "pack.zip"))
    else:
        target = shutil.copytree(place / "pack", case / "pack")
    KINDS[kind](rng, target)
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*") if p != place / "room"}
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chain = LegoNN.from_pretrained(target)
    except LegoNNError as error:
        assert type(error) is not LegoNNError and error.faults and len(str(error)) < 50_000, name
        outcome = type(error).__name__
    except BaseException as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {str(error)[:300]}") from error
    else:
        outcome = "loaded"
        if kind in ("zip_bytes", "card_bytes", "card_data"):  # digests: whatever loads is the original
            assert all(torch.equal(v, honest[k]) for k, v in chain.state_dict().items()), name
    assert time.process_time() - start < SECONDS, name
    after = {p: p.stat().st_mtime_ns for p in place.rglob("*") if p != place / "room"}
    assert after == before, f"{name}: something was written or left behind"
    shutil.rmtree(case)
    case.mkdir()
    return outcome


def fuzz(place: Path, cases: int, record: Callable[[str, object], None]) -> None:
    """Cases of every kind; counts of outcomes are printed and recorded."""
    honest = LegoNN.from_pretrained(place / "pack").state_dict()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failures = []
    for kind in KINDS:
        counts: collections.Counter[str] = collections.Counter()
        for seed in range(cases):
            try:
                counts[one_case(kind, seed, place, honest)] += 1
            except AssertionError as error:
                failures.append(str(error).splitlines()[0])
                shutil.rmtree(place / "case")
                (place / "case").mkdir()
        record(kind, dict(counts))
        print(f"{kind:18} {dict(counts.most_common())}")
        assert len(counts) > 1 or failures or cases < 100, f"{kind} {counts}: always the same fate tests nothing"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) >> 10
    print(f"{cases * len(KINDS)} cases, {len(failures)} failures, peak memory grew by {grown} MB")
    assert not failures, "\n".join(failures[:30])
    assert grown < 1000


def test_a_few_mutated_packs(place: Path, record_property: Callable[[str, object], None]) -> None:
    fuzz(place, 12, record_property)


@pytest.mark.slow
def test_thousands_of_mutated_packs(place: Path, record_property: Callable[[str, object], None]) -> None:
    fuzz(place, 700, record_property)
