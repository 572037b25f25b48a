"""``legonn compose ENCODER hf:MODEL``: a plug where tokens are the model's, else what a bridge would learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.packs.files import verify
from tests.modules import language, toys
from tests.says import Says

pytestmark = pytest.mark.skipif(
    not language.THERE, reason="needs transformers: pip install 'espnet2_legonn[pretrained]'"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language.write(tmp_path_factory.mktemp("model"), "gpt2")


def adopted(place: Path, slots: int = 0) -> Path:
    """What ``legonn adopt`` makes of a wav2vec 2.0 with capital letters; measured, where it has slots."""
    from tests.zoo import test_adopt_hugging_face as source

    source.write(place / "source", "wav2vec2")
    assert main(["adopt", str(place / "source"), "-o", str(place / "asr")]) == 0
    if slots:
        chain = LegoNN.from_pretrained(place / "asr")
        chain.last.interface.seen.update(torch.tensor([slots]), torch.tensor([10]))  # type: ignore[union-attr]
        chain.save(place / "asr")
    return place / "asr"


def test_an_encoder_over_the_models_tokens_is_plugged(folder: Path, tmp_path: Path, says: Says) -> None:
    encoder = language.chain(folder, "gpt2")[:-1]
    encoder.save(tmp_path / "enc")
    printed = says(main, ["compose", str(tmp_path / "enc"), f"hf:{folder}", "-o", str(tmp_path / "both")])
    assert "enc -> decoder" in printed
    both, by_hand = LegoNN.from_pretrained(tmp_path / "both"), encoder + language.decoder(folder, "gpt2")
    assert both(["s1 s2", "s3"]) == by_hand(["s1 s2", "s3"])
    card = verify(tmp_path / "both")
    assert card.modules[1].body.startswith(f"hf_causal_lm {folder}, gpt2, 16 wide")
    assert card.provenance.parents[1].name == f"hf:{folder}".rpartition("/")[2] and card.provenance.parents[1].sha256


def test_what_a_bridge_from_letters_would_learn(folder: Path, tmp_path: Path, says: Says) -> None:
    pack = adopted(tmp_path, slots=25)
    for more in ([], ["--remap"]):
        told = says(main, ["compose", str(pack), f"hf:{folder}", "-o", str(tmp_path / "both"), *more], 2)
        for words in (
            "vocabulary size: 10 is produced",
            "of the 10 tokens (char) that are written are among the",
            "a module between (input: {type: wemb}, output: {vocab: lm}",
            "at 2.5 slots each: length_control: {ratio: 0.",
            "of the model's tokens cannot be written so",
            "what is written has capital letters alone",
            f"`legonn vocab DIR --from-hf {folder}`",
        ):
            assert words in told, words
    assert not (tmp_path / "both").exists()


def test_phonemes_spell_nothing(folder: Path, tmp_path: Path, says: Says) -> None:
    torch.manual_seed(0)
    data = {
        "vocabs": {n: toys.VOCABS[n] for n in ("src", "phn")},
        "modules": [toys.encoder("enc", toys.TEXT, "phn", "2")],
    }
    LegoNN.from_config(data).save(tmp_path / "enc")
    told = says(main, ["compose", str(tmp_path / "enc"), f"hf:{folder}", "-o", str(tmp_path / "both")], 2)
    assert "tokens of unit phn spell no text, so it would learn spelling, too" in told


def test_what_is_no_decoder(tmp_path: Path, says: Says) -> None:
    language.transformers.BertConfig().save_pretrained(tmp_path / "bert")
    told = says(main, ["compose", f"hf:{tmp_path / 'bert'}", "-o", str(tmp_path / "out")], 2)
    assert "a model of type 'bert' is no decoder here; there are bart, gemma, gpt2" in told
