"""``legonn adopt`` of CTC models of transformers, with tiny random ones of the real classes, offline."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.adopt.adopt import adopt
from espnet2_legonn.adopt.source import AdoptOptions
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.packs.card import read_card
from tests.modules import toys
from tests.says import Says
from tests.zoo import stock

THERE = importlib.util.find_spec("transformers") is not None
pytestmark = pytest.mark.skipif(not THERE, reason="needs transformers: pip install 'espnet2_legonn[pretrained]'")
transformers: Any = importlib.import_module("transformers") if THERE else None

TABLE = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, **{c: 5 + i for i, c in enumerate("ABCDE")}}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "conv_dim": [8, 8],
         "conv_kernel": [10, 4], "conv_stride": [5, 4], "vocab_size": len(TABLE), "pad_token_id": 0}  # fmt: skip
KINDS = {
    "wav2vec2": ("Wav2Vec2", {"feat_extract_norm": "group"}, True),
    "wav2vec2_large": ("Wav2Vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}, True),
    "hubert": ("Hubert", {"feat_extract_norm": "layer"}, False),
    "wavlm": ("WavLM", {"feat_extract_norm": "layer", "num_buckets": 8, "max_bucket_distance": 16}, True),
}


def write(folder: Path, kind: str, table: dict[str, int] | None = None, **told: Any) -> tuple[Path, Any]:
    """A CTC model in the layout of the Hub, and the model."""
    name, more, normalize = KINDS[kind]
    table = table or TABLE
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **more, "vocab_size": len(table)})
    torch.manual_seed(6)
    model = getattr(transformers, f"{name}ForCTC")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "tokenizer_config.json").write_text(json.dumps({"unk_token": "<unk>", "eos_token": "</s>", **told}))
    return folder, model


def marginals(folder: Path, model: Any, wave: torch.Tensor) -> torch.Tensor:
    """What transformers makes of one waveform, (T, V)."""
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    heard = torch.tensor(extractor(wave.numpy(), sampling_rate=16000).input_values[0])
    with torch.no_grad():
        return model(heard[None]).logits[0].softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_marginals_are_those_of_the_source(kind: str, tmp_path: Path, says: Says) -> None:
    folder, model = write(tmp_path / "model", kind)
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack"), "--language", "en"])
    for note in ("'<pad>' is <blank> here", "'</s>' is <sos/eos> here", "'|' is <space> here", "no letters: <s>"):
        assert note in told
    chain = LegoNN.from_pretrained(tmp_path / "pack")
    ours = chain.vocabs["tokens"].tokens
    assert ours == ("<blank>", "<unk>", "<s>", "<space>", *"ABCDE", "<sos/eos>")
    names = {"<pad>": "<blank>", "</s>": "<sos/eos>", "|": "<space>"}
    waves = [0.1 * torch.randn(n) + 0.2 for n in (4000, 1777, 901)]
    x, lengths = toys.padded(waves, 0.7)
    with torch.inference_mode():
        log_probs, steps = chain.last(x, lengths)
    for i, wave in enumerate(waves):
        theirs = marginals(folder, model, wave)
        assert int(steps[i]) == len(theirs)
        for token, row in TABLE.items():
            found = log_probs[i, : len(theirs), ours.index(names.get(token, token))].exp()
            torch.testing.assert_close(found, theirs[:, row], rtol=0, atol=1e-5)


def test_data_and_a_decoder_behind(tmp_path: Path, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "FS", 16000)
    folder, _ = write(tmp_path / "model", "hubert")
    data = stock.corpus(tmp_path / "data", 3)
    (data / "text").write_text((data / "text").read_text().upper().replace("U0", "u0"))
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack"), "--data", str(data)])
    assert "slots per token: " in told and "not measured" not in told and "<unk>: the model" not in told
    card = read_card(tmp_path / "pack")
    assert card.modules[0].writes.slots_per_token and card.modules[0].body == "none, 16 wide"
    assert card.modules[0].reads.part == "pretrained: model, layers last"
    encoder = LegoNN.from_pretrained(tmp_path / "pack")
    vocab = {"tokens": list(encoder.vocabs["tokens"].tokens), "unit": "char"}
    body = {"type": "transformer_decoder", "num_blocks": 1, "size": 16, "heads": 2, "linear_units": 32}
    module = {"name": "decoder", "input": {"type": "wemb", "vocab": "v", "num_blocks": 1}, "body": body,
              "output": {"vocab": "v"}}  # fmt: skip
    plugged = encoder + LegoNN.from_config({"vocabs": {"v": vocab}, "modules": [module]}).eval()
    assert isinstance(plugged(str(data / "u000.wav")), str)
    (data / "text").write_text((data / "text").read_text().lower())
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack"), "--data", str(data)])
    assert "its letters are capital ones, the text's are not" in told


def test_a_vocabulary_without_some_tokens(tmp_path: Path, says: Says) -> None:
    table = {"[PAD]": 0, "a": 1, "b": 2, "c": 3}
    folder, model = write(tmp_path / "model", "wavlm", table, unk_token="[UNK]", do_lower_case=True)
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack")])
    for note in ("added, never written: <unk> <sos/eos>", "no word delimiter", "the tokenizer lowers text"):
        assert note in told
    chain, wave = LegoNN.from_pretrained(tmp_path / "pack"), 0.1 * torch.randn(3000)
    with torch.inference_mode():
        found = chain.last(wave[None], torch.tensor([3000]))[0][0].exp()
    torch.testing.assert_close(found[:, [0, 2, 3, 4]], marginals(folder, model, wave), rtol=0, atol=1e-5)
    assert found[:, [1, 5]].eq(0).all()


def test_options_of_another_source(tmp_path: Path) -> None:
    folder, _ = write(tmp_path / "w", "wav2vec2")
    with pytest.raises(ConfigError) as error:
        adopt(folder, tmp_path / "pack", AdoptOptions("x.pth", Path("bpe.model")))
    assert len(error.value.faults) == 2 and "model: goes with an experiment of ESPnet" in error.value.faults[0]


def test_faults(tmp_path: Path, says: Says) -> None:
    out = ["-o", str(tmp_path / "pack")]
    folder, _ = write(tmp_path / "model", "hubert")

    def told(**changes: Any) -> str:
        config = json.loads((folder / "config.json").read_text())
        (tmp_path / "other").mkdir(exist_ok=True)
        for file in folder.iterdir():
            (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
        (tmp_path / "other/config.json").write_text(json.dumps({**config, **changes}))
        return says(main, ["adopt", str(tmp_path / "other"), *out], 2)

    assert "HubertModel is no CTC model (HubertForCTC is wanted)" in told(architectures=["HubertModel"])
    assert "a model of type 'bert' is not one of" in told(model_type="bert", architectures=["BertModel"])
    (folder / "vocab.json").write_text(json.dumps({"deu": {"a": 0}}))
    assert "tokens of several languages are not adopted" in says(main, ["adopt", str(folder), *out], 2)
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "a": 1}))
    assert "2 tokens, the model writes 10" in says(main, ["adopt", str(folder), *out], 2)
    (folder / "vocab.json").unlink()
    assert "a CTC model of characters has it" in says(main, ["adopt", str(folder), *out], 2)
