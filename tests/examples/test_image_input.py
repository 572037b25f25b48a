"""An input of one's own, from one file outside the package: it trains, decodes, packs, checks, and is on the page."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.decode import decode_table
from espnet2_legonn.model.chain import Labels
from espnet2_legonn.model.description import parse
from espnet2_legonn.model.parts import INPUTS, InputPart
from espnet2_legonn.model.registry import PLUGINS, Registry, load_plugins, use_plugins
from espnet2_legonn.packs.card import read_card
from espnet2_legonn.packs.check import check
from espnet2_legonn.page import model
from espnet2_legonn.page.shelf import ENCODER, open_shelf
from espnet2_legonn.recipes.cost import input_layers
from espnet2_legonn.recipes.ready import require_valid
from espnet2_legonn.recipes.stages import data_triples, shape_names
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.training.description import resolve
from espnet2_legonn.training.preprocessor import Preprocessor

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "image_input"
BODY = {"num_blocks": 1, "size": 8, "heads": 2, "linear_units": 16, "dropout": 0.0}
WORDS = {"tokens": ["<blank>", "<unk>", "a", "b", "c", "<sos/eos>"], "unit": "word", "language": "en"}


@pytest.fixture
def glyphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's part, known while a test runs."""
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("glyphs", None)
    load_plugins(["glyphs"])
    yield sys.modules["glyphs"]
    INPUTS.known.pop("glyphs")


@pytest.fixture
def draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_for_test", FOLDER / "draw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def description(height: int = 8) -> dict[str, Any]:
    reader = {"name": "reader", "input": {"type": "glyphs", "height": height, "channels": 4}, "body": BODY}
    reader["output"] = {"vocab": "words"}
    decoder = {"name": "decoder", "input": {"type": "wemb", "vocab": "words", "num_blocks": 1}}
    decoder |= {"body": {**BODY, "type": "transformer_decoder"}, "output": {"vocab": "words"}}
    return {"vocabs": {"words": WORDS}, "modules": [reader, decoder]}


def build() -> LegoNN:
    torch.manual_seed(0)
    return LegoNN.from_config(description()).eval()


def images(*widths: int) -> list[np.ndarray]:
    return [np.random.default_rng(w).random((w, 8), np.float32) for w in widths]


def test_an_item_does_not_depend_on_its_batch(glyphs: ModuleType) -> None:
    chain, given = build().double(), images(30, 7, 22)
    together = chain.encode(chain.batch(given)[0].double(), chain.batch(given)[1])
    for i, image in enumerate(given):
        alone = chain.encode(chain.batch([image])[0].double(), chain.batch([image])[1])
        torch.testing.assert_close(together[0]["reader"][i].log_probs, alone[0]["reader"].log_probs)
    assert together[2].tolist() == [8, 2, 6]


def test_it_learns(glyphs: ModuleType) -> None:
    chain = build().train()
    x, lengths = chain.batch(images(40, 30))
    labels = Labels(torch.tensor([[2, 3, 4], [4, 2, -1]]), torch.tensor([3, 2]))
    optimizer, losses = torch.optim.Adam(chain.parameters(), 1e-2), []
    for _ in range(30):
        parts = chain.losses(x, lengths, {"reader": labels, "decoder": labels})
        total = sum(part.total for part in parts.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.5 * losses[0]


def test_recipes_find_its_data(glyphs: ModuleType, draw: ModuleType, tmp_path: Path) -> None:
    draw.write({"u1": "a b", "u2": "c"}, tmp_path, 0)
    config = parse(description())
    triples = data_triples(config, tmp_path)
    assert triples[0] == f"{tmp_path}/img.scp,image,npy" and shape_names(config)[0] == "image_shape"
    require_valid(config, [tmp_path])
    prepared = Preprocessor(config.modules[0].reads, None, {})("u1", {"image": np.zeros((4, 8))})
    assert prepared["image"].dtype == np.float32
    layer = input_layers(config.modules[0].input, config.modules[0], {}, 1.0, None)[0]
    assert layer.parameters == 5 * 4 * (8 + 8)


def test_it_decodes_and_names_what_cannot_be_read(glyphs: ModuleType, draw: ModuleType, tmp_path: Path) -> None:
    draw.write({"u1": "a b", "u2": "c"}, tmp_path, 0)
    table = dict(line.split() for line in (tmp_path / "img.scp").read_text().splitlines())
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    chain = build()
    decoded = decode_table(chain, {**table, "u3": str(tmp_path / "bad.npy")}, BeamOptions(2))
    assert set(decoded.nbest[0].text) == {"u1", "u2", "u3"} and decoded.nbest[0].text["u3"] == ""
    assert decoded.nbest[0].text["u1"] == chain(table["u1"], beam_size=2)
    with pytest.raises(DataError, match="7 rows of pixels, this model reads 8"):
        chain(np.zeros((4, 7)))


def test_its_pack_says_what_it_reads(glyphs: ModuleType, tmp_path: Path) -> None:
    build().save(tmp_path / "packs" / "ocr")
    card = read_card(tmp_path / "packs" / "ocr")
    assert card.modules[0].reads.part == "glyphs: lines of text, 8 rows of pixels"
    report = check([f"{tmp_path}/packs/ocr#reader", f"{tmp_path}/packs/ocr#decoder"])
    assert report.reads == "glyphs: lines of text, 8 rows of pixels"
    again = LegoNN.from_pretrained(tmp_path / "packs" / "ocr")
    assert again(images(20)[0]) == build()(images(20)[0])
    shelf = open_shelf([tmp_path / "packs"])
    choice = next(c for c in shelf.of(ENCODER) if c.modules == ["reader"])
    assert choice.reads == "image" and "8 rows of pixels" in choice.label
    np.save(tmp_path / "a.npy", images(20)[0])
    answer = model.run(shelf.find([choice.spec, shelf.of("decoder")[0].spec]), tmp_path / "a.npy")
    assert [said.module for said in answer.said] == ["reader", "decoder"]


def test_a_stranger_s_pack_imports_nothing(glyphs: ModuleType, tmp_path: Path) -> None:
    """It names a type; whoever has no such part is told, and nothing runs."""
    build().save(tmp_path / "ocr")
    INPUTS.known.pop("glyphs")
    try:
        with pytest.raises(ConfigError, match=f"'glyphs' is not one of .*; a type of your own is known once {PLUGINS}"):
            LegoNN.from_pretrained(tmp_path / "ocr")
    finally:
        INPUTS.known["glyphs"] = glyphs.GlyphsInput


def test_a_part_that_says_little_of_itself(glyphs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the methods that must be written alone; other packs of the page stay."""
    monkeypatch.setattr(glyphs.GlyphsInput, "card", InputPart.card)
    monkeypatch.setattr(glyphs.GlyphsInput, "read", InputPart.read)
    chain = build()
    chain.save(tmp_path / "packs" / "ocr")
    assert "image → " in next(c.label for c in open_shelf([tmp_path / "packs"]).of(ENCODER))
    assert chain(images(20)[0]) == build()(images(20)[0])


def test_one_image_of_another_height_loses_no_set(glyphs: ModuleType, tmp_path: Path) -> None:
    for name, rows in (("a", 8), ("b", 9)):
        np.save(tmp_path / f"{name}.npy", np.ones((20, rows), np.float32))
    decoded = decode_table(build(), {name: str(tmp_path / f"{name}.npy") for name in "ab"}, BeamOptions(2))
    assert decoded.nbest[0].text["b"] == "" and set(decoded.nbest[0].score) == {"a", "b"}


def test_a_pack_s_config_names_no_module(glyphs: ModuleType, tmp_path: Path) -> None:
    """Not even to be trained further."""
    build().save(tmp_path / "ocr")
    config = tmp_path / "ocr" / "config.yaml"
    config.write_text(config.read_text() + "plugin: [no_such_module]\n")
    args = argparse.Namespace(plugin=["no_such_module"], config=str(config))
    with pytest.raises(ConfigError, match="a pack's config may not name Python modules"):
        resolve(args)
    for odd in (5, [5], "no_such_module"):
        with pytest.raises(ConfigError, match="is no list of Python modules|plugin no_such_module: cannot be imported"):
            resolve(argparse.Namespace(plugin=odd, config=None))


def test_faults_of_plugins(monkeypatch: pytest.MonkeyPatch, glyphs: ModuleType) -> None:
    with pytest.raises(ConfigError, match="plugin no_such_module: cannot be imported"):
        load_plugins(["no_such_module"])
    monkeypatch.setenv(PLUGINS, "no_such_module")
    with pytest.raises(ConfigError, match="no_such_module"):
        load_plugins()
    with pytest.raises(ConfigError, match="plugin .x: cannot be imported"):
        load_plugins([".x"])
    monkeypatch.setenv(PLUGINS, "")
    use_plugins(["glyphs"])
    assert os.environ[PLUGINS] == "glyphs", "processes that are started know it, too"
    registry: Registry[InputPart] = Registry("input")
    registry.add("x")(glyphs.GlyphsInput)
    with pytest.raises(ConfigError, match="input 'x': .* and glyphs both bring one"):
        registry.add("x")(type("Other", (InputPart,), {}))
    with pytest.raises(ConfigError, match="reader.input.height: 0 is not at least 1"):
        parse(description(height=0))
