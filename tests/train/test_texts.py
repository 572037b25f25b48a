"""Texts of training are read where they lie, and say what ESPnet's dictionary says."""

from __future__ import annotations

import pickle
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from espnet2.fileio.read_text import read_2columns_text
from espnet2.train.dataset import DATA_TYPES, ESPnetDataset

from espnet2_legonn.training.texts import MappedTable, mapped_texts, text_table


def table(path: Path, number: int, end: str = "\n") -> Path:
    draw = random.Random(0)
    keys = sorted({f"{draw.choice('aBé漢')}{draw.randint(0, 10**6)}" for _ in range(number)})
    rows = [f"{key} {'x' * draw.randint(0, 40)} \u2028é  y{' ' if i % 3 else ''}" for i, key in enumerate(keys)]
    rows[1] = keys[1]  # nothing behind the key
    path.write_text("\n".join(rows) + end, encoding="utf-8", newline="\n")
    return path


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("number", [2, 3, 500])
def test_it_is_espnets_dictionary(tmp_path: Path, number: int, end: str) -> None:
    path = table(tmp_path / "text", number, end)
    ours, theirs = text_table(path), read_2columns_text(path)
    assert isinstance(ours, MappedTable) and dict(ours) == theirs
    assert list(ours) == list(theirs) and len(ours) == len(theirs)
    for key in ("", "A", "a", "zzz", "\U0001f600", next(iter(theirs))[:-1]):
        assert (key in ours) == (key in theirs)
    assert dict(pickle.loads(pickle.dumps(ours))) == theirs, "as it gets into a data loader's process"


def test_other_tables_are_espnets(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("b x\na y\n")
    assert text_table(tmp_path / "text") == {"b": "x", "a": "y"} == text_table(tmp_path / "text", None)
    assert text_table(tmp_path / "text", {"a"}) == {"a": "y"}
    (tmp_path / "empty").write_text("")
    assert text_table(tmp_path / "empty") == {}
    (tmp_path / "twice").write_text("a x\na y\n")
    with pytest.raises(RuntimeError, match="a is duplicated"):
        text_table(tmp_path / "twice")


def coded(_: str, data: dict[str, str]) -> dict[str, np.ndarray]:
    return {"text": np.frombuffer(data["text"].encode(), np.uint8).astype(np.int64)}


def test_data_sets_use_it_and_hold_nothing(tmp_path: Path) -> None:
    path = table(tmp_path / "text", 3000)
    wanted = read_2columns_text(path)

    def held() -> int:
        tracemalloc.start()
        dataset = ESPnetDataset([(str(path), "text", "text")], preprocess=coded)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        for key in list(wanted)[::500]:
            assert bytes(dataset[key][1]["text"].tolist()).decode() == wanted[key]
        return size

    plain = held()
    with mapped_texts():
        assert held() < plain / 20
    assert DATA_TYPES["text"]["func"] is read_2columns_text
