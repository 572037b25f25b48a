"""Composing: the hand-wired chain, its history, and a folder that is pack and experiment at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import InterfaceMismatch
from espnet2_legonn.model.interface import SearchChoice
from espnet2_legonn.packs.card import CARD, read_card
from espnet2_legonn.packs.check import Verdict, check
from espnet2_legonn.packs.files import verify
from espnet2_legonn.packs.pack import keep_search
from tests.zoo.toys import BODY, build, change, pair

TEXTS = ["k l", "m n k", "n"]


@pytest.fixture
def packs(tmp_path: Path) -> tuple[Path, Path]:
    """Two pairs; the second is wider and deeper."""
    wide = change(pair(), "modules.1.body", {**BODY, "type": "transformer_decoder", "size": 12, "num_blocks": 2})
    about = {"license": "MIT", "training_data": ["toys"], "domain": "toys"}
    left = build(pair(), 1).save(tmp_path / "left", **about)
    return left, build(wide, 2).save(tmp_path / "right", **{**about, "license": "Apache-2.0"})


def compose(*words: str | Path) -> int:
    return main(["compose", *map(str, words)])


def test_composed_is_hand_wired_and_the_history_is_kept(
    packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left, right = packs
    assert compose(f"{left}#encoder", f"{right}#decoder", "-o", tmp_path / "both") == 0
    assert "encoder -> decoder" in capsys.readouterr().out
    by_hand = LegoNN.from_pretrained(left)[:1] + LegoNN.from_pretrained(right)[1:]
    both = LegoNN.from_pretrained(tmp_path / "both")
    assert all(torch.equal(v, both.state_dict()[k]) for k, v in by_hand.state_dict().items())
    assert both(TEXTS) == by_hand(TEXTS)
    card = verify(tmp_path / "both")
    assert [m.parent for m in card.modules] == ["left#encoder", "right#decoder"]
    digests = [read_card(p).content_sha256 for p in packs]
    assert [(p.name, p.sha256, p.modules) for p in card.provenance.parents] == [
        ("left", digests[0], ["encoder"]),
        ("right", digests[1], ["decoder"]),
    ]
    assert card.about.license == "MIT AND Apache-2.0" and card.about.domain == "toys"


def test_a_checkpoint_for_espnet_lies_beside(packs: tuple[Path, Path], tmp_path: Path) -> None:
    left, right = packs
    compose(f"{left}#encoder", f"{right}#decoder", "-o", tmp_path / "both")
    state = torch.load(tmp_path / "both" / "model.pth", weights_only=True)
    own = LegoNN.from_pretrained(tmp_path / "both").state_dict()
    assert state.keys() == {f"chain.{k}" for k in own}
    compose(f"{left}#encoder", f"{right}#decoder", "-o", tmp_path / "both")  # a composition may be made again


def test_notes_of_what_differs_from_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = build(pair()), build(pair())
    left.mods["encoder"].interface.seen.update(torch.tensor([28]), torch.tensor([10]))
    right.mods["decoder"].input.seen.update(torch.tensor([20]), torch.tensor([10]))
    left.save(tmp_path / "left"), right.save(tmp_path / "right")
    assert compose(f"{tmp_path}/left#encoder", f"{tmp_path}/right#decoder", "-o", tmp_path / "both") == 0
    assert "note: encoder -> decoder: slots per token: 2.80 are produced, 2.00 were seen" in capsys.readouterr().err


def test_vocabularies_that_fit_without_being_equal(tmp_path: Path) -> None:
    """One names its language, the other does not (or its sentencepiece model was made in another way)."""
    build(pair(), 1).save(tmp_path / "left")
    build(change(pair(), "vocabs.tgt.language", "en"), 2).save(tmp_path / "right")
    assert compose(f"{tmp_path}/left#encoder", f"{tmp_path}/right#decoder", "-o", tmp_path / "both") == 0
    card = verify(tmp_path / "both")
    assert [m.reads.vocab for m in card.modules] == ["src", "tgt"] and card.modules[1].writes.vocab == "tgt"
    by_hand = LegoNN.from_pretrained(tmp_path / "left")[:1] + LegoNN.from_pretrained(tmp_path / "right")[1:]
    assert LegoNN.from_pretrained(tmp_path / "both")(TEXTS) == by_hand(TEXTS)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("#encoder", "#decodr"), "no module decodr; it has encoder, decoder"),
        (("#decoder,encoder", "#decoder"), "modules must follow each other in the chain (encoder, decoder)"),
        (("#encoder", "#encoder"), "encoder -> encoder: encoder writes marginals, encoder reads tokens"),
        (("#decoder", "#encoder"), "decoder -> encoder: decoder writes text"),
    ],
)
def test_faults(
    packs: tuple[Path, Path], tmp_path: Path, parts: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compose(f"{packs[0]}{parts[0]}", f"{packs[1]}{parts[1]}", "-o", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_taken(packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    assert compose(f"{packs[0]}#encoder", f"{packs[1]}#decoder", "-o", tmp_path / "taken") == 2
    assert "taken exists and is no pack; choose another folder" in capsys.readouterr().err
    assert (tmp_path / "taken" / "thesis.tex").exists()


def test_again_behind_a_recipes_decodings(
    packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe decodes into the composition; the same command again keeps that, another may not replace it."""
    out = tmp_path / "out"
    words = (f"{packs[0]}#encoder", f"{packs[1]}#decoder", "-o", out)
    assert compose(*words) == 0
    keep_search(out, SearchChoice(ctc_weight=0.3, length_penalty=0.5))
    (out / "decode").mkdir()
    (out / "decode" / "text").write_text("u1 a b\n")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != CARD}
    assert compose(*words) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != CARD} == before
    assert (out / "decode" / "text").exists() and read_card(out).search == SearchChoice(0.3, 0.5)
    capsys.readouterr()
    assert compose(f"{packs[1]}#encoder", f"{packs[1]}#decoder", "-o", out) == 2
    assert "holds another pack, and decode beside it; remove it or choose another" in capsys.readouterr().err
    assert (out / "decode" / "text").exists()


# -- close vocabularies ------------------------------------------------------------------------------------------------


def test_a_remapping_is_offered_done_and_told(
    packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = build(pair("d a c b e f"), 3).save(tmp_path / "more")
    specs = (f"{more}#encoder", f"{packs[1]}#decoder")
    assert compose(*specs, "-o", tmp_path / "both") == 2
    assert "`legonn compose --remap` lets decoder read it" in capsys.readouterr().err
    assert compose(*specs, "-o", tmp_path / "both", "--remap", "--sample", "k l m", "n n") == 0
    said = capsys.readouterr().err
    assert "remapped: 7 tokens are read as before (4 at another id); the mass of 2 is read as <unk>: e f" in said
    assert "% of the mass without blank is lost (2 inputs)" in said
    both = LegoNN.from_pretrained(tmp_path / "both")
    assert both.mods["decoder"].ports[0].vocab == both.mods["encoder"].ports[1].vocab
    assert isinstance(both("k l"), str)


def test_without_need_nothing_is_remapped(packs: tuple[Path, Path], tmp_path: Path) -> None:
    compose(f"{packs[0]}#encoder", f"{packs[1]}#decoder", "-o", tmp_path / "plain")
    compose(f"{packs[0]}#encoder", f"{packs[1]}#decoder", "-o", tmp_path / "asked", "--remap")
    plain, asked = (LegoNN.from_pretrained(tmp_path / n) for n in ("plain", "asked"))
    assert plain(TEXTS) == asked(TEXTS)


# -- if check says yes, compose never fails on shapes ------------------------------------------------------------------


@pytest.mark.parametrize("left", [{}, {"size": 12}, {"num_blocks": 2}])
@pytest.mark.parametrize(
    "right", [{}, {"collapse": True}, {"receptive_field": 3}, {"type": "beam_conv", "k": 7, "embed_size": 4}]
)
@pytest.mark.parametrize("target", ["a b c d", "a b c"])
def test_check_and_compose_agree(
    tmp_path: Path, left: dict[str, int], right: dict[str, object], target: str
) -> None:
    a = change(pair(target), "modules.0.body", {**BODY, **left})
    if target != "a b c d":  # only the encoder is taken from it
        a["modules"] = a["modules"][:1]
    first, second = build(a).save(tmp_path / "a"), build(pair(**right)).save(tmp_path / "b")
    specs = [f"{first}#encoder", f"{second}#decoder"]
    status = compose(*specs, "-o", tmp_path / "both")
    assert (check(specs).verdict < Verdict.MISFIT) == (status == 0)
    if status == 0:
        assert isinstance(LegoNN.from_pretrained(tmp_path / "both")("k l"), str)


# -- fine-tuning -------------------------------------------------------------------------------------------------------


def test_finetune_config(packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = tmp_path / "tune.yaml"
    options.write_text("max_epoch: 3\nmodules_conf: {decoder: {freeze: true}}\n")
    out = tmp_path / "both"
    assert compose(f"{packs[0]}#encoder", f"{packs[1]}#decoder", "-o", out, "--finetune", options) == 0
    assert f"./run.sh --stage 10 --legonn_config {out}/train.yaml" in capsys.readouterr().out
    data = yaml.safe_load((out / "train.yaml").read_text())
    assert [m["init"] for m in data["modules"]] == [f"{out}#encoder", f"{out}#decoder"]
    assert data["max_epoch"] == 3 and Path(data["vocabs"]["tgt"]["tokens"]).is_file()
    options.write_text("modules: []\n")
    assert compose(f"{packs[0]}#encoder", f"{packs[1]}#decoder", "-o", out, "--finetune", options) == 2
    assert "give training options only" in capsys.readouterr().err


def test_mismatch_is_an_interface_mismatch(packs: tuple[Path, Path]) -> None:
    from espnet2_legonn.inference.compose import join, pick

    with pytest.raises(InterfaceMismatch):
        join([pick(f"{packs[0]}#decoder"), pick(f"{packs[1]}#decoder")])
