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
tokenizers: Any = importlib.import_module("tokenizers") if THERE else None

TABLE = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, **{c: 5 + i for i, c in enumerate("ABCDE")}}
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "conv_dim": [8, 8],
         "conv_kernel": [10, 4], "conv_stride": [5, 4], "vocab_size": len(TABLE), "pad_token_id": 0}  # fmt: skip
LAYER = {"feat_extract_norm": "layer"}
ADAPTER = {"add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 12}
KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "wav2vec2": ("Wav2Vec2", {"feat_extract_norm": "group"}, True),
    "wav2vec2_large": ("Wav2Vec2", {**LAYER, "do_stable_layer_norm": True}, True),
    "wav2vec2_adapter": ("Wav2Vec2", {**LAYER, **ADAPTER}, True),
    "hubert": ("Hubert", LAYER, False),
    "wavlm": ("WavLM", {**LAYER, "num_buckets": 8, "max_bucket_distance": 16}, True),
    "unispeech": ("UniSpeech", LAYER, True),
    "unispeech-sat": ("UniSpeechSat", LAYER, True),
    "wav2vec2-conformer": ("Wav2Vec2Conformer", LAYER, True),
    "data2vec-audio": ("Data2VecAudio", {"conv_pos_kernel_size": 5}, True),
    "sew": ("SEW", LAYER, True),
    "sew-d": ("SEWD", {**LAYER, "position_buckets": 8, "max_position_embeddings": 16}, True),
    "wav2vec2-bert": ("Wav2Vec2Bert", {"feature_projection_input_dim": 16}, False),
    "wav2vec2-bert_adapter": ("Wav2Vec2Bert", {"feature_projection_input_dim": 16, **ADAPTER}, False),
}
# Their tokens are pieces, and their description has the encoder's inside.
PIECES = {"parakeet": "Parakeet", "lasr": "Lasr"}
MAKERS = {"Wav2Vec2Bert": "SeamlessM4T", "Parakeet": "Parakeet", "Lasr": "Lasr"}


def save(folder: Path, name: str, config: Any, normalize: bool = False) -> Any:
    """A CTC model with random weights, its preprocessor beside it."""
    torch.manual_seed(6)
    model = getattr(transformers, f"{name}ForCTC")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if name in MAKERS:
        getattr(transformers, f"{MAKERS[name]}FeatureExtractor")(feature_size=8, num_mel_bins=8).save_pretrained(folder)
    else:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return model


def write(folder: Path, kind: str, table: dict[str, int] | None = None, **told: Any) -> tuple[Path, Any]:
    """A CTC model of characters in the layout of the Hub, and the model."""
    name, more, normalize = KINDS[kind]
    table = table or TABLE
    model = save(folder, name, getattr(transformers, f"{name}Config")(**{**SIZES, **more, "vocab_size": len(table)}),
                 normalize)  # fmt: skip
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "tokenizer_config.json").write_text(json.dumps({"unk_token": "<unk>", "eos_token": "</s>", **told}))
    return folder, model


def write_pieces(folder: Path, name: str) -> tuple[Path, Any, list[str]]:
    """A CTC model of pieces, the blank behind them."""
    tokens = ["<unk>", "\u2581a", "ab", "\u2581", "a", "b", "|"]
    own = tokenizers.Tokenizer(tokenizers.models.Unigram([(token, -float(i)) for i, token in enumerate(tokens)], 0))
    own.pre_tokenizer, own.decoder = tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
    own.add_special_tokens(["<pad>"])
    encoder = {key: value for key, value in SIZES.items() if not key.startswith(("conv", "num_conv", "vocab", "pad"))}
    encoder |= {"num_mel_bins": 8, "subsampling_conv_channels": 4}
    config = getattr(transformers, f"{name}CTCConfig")(vocab_size=8, pad_token_id=7, encoder_config=encoder)
    model = save(folder, name, config)
    own.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    return folder, model, [*tokens, "<pad>"]


def marginals(folder: Path, model: Any, wave: torch.Tensor) -> torch.Tensor:
    """What transformers makes of one waveform, (T, V)."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        return model(**extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt")).logits[0].softmax(-1)


def compare(
    chain: LegoNN, folder: Path, model: Any, tokens: list[str], names: dict[str, str], more: int = 0, least: int = 901
) -> None:
    """In a padded batch each token has the probability that it has in the source, for an item alone.

    Args:
        more: steps that the source makes of padding, at most.
        least: samples of the shortest item.
    """
    waves = [0.1 * torch.randn(n) + 0.2 for n in (4000, 1777 + least // 2, least)]
    x, lengths = toys.padded(waves, 0.7)
    with torch.inference_mode():
        log_probs, steps = chain.last(x, lengths)
    ours = chain.vocabs["tokens"].tokens
    for i, wave in enumerate(waves):
        theirs = marginals(folder, model, wave)
        assert 0 <= len(theirs) - int(steps[i]) <= more
        for row, token in enumerate(tokens):
            found = log_probs[i, : steps[i], ours.index(names.get(token, token))].exp()
            torch.testing.assert_close(found, theirs[: steps[i], row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_marginals_are_those_of_the_source(kind: str, tmp_path: Path, says: Says) -> None:
    folder, model = write(tmp_path / "model", kind)
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack"), "--language", "en"])
    for note in ("'<pad>' is <blank> here", "'</s>' is <sos/eos> here", "'|' is <space> here", "no letters: <s>"):
        assert note in told
    chain = LegoNN.from_pretrained(tmp_path / "pack")
    assert chain.vocabs["tokens"].tokens == ("<blank>", "<unk>", "<s>", "<space>", *"ABCDE", "<sos/eos>")
    names = {"<pad>": "<blank>", "</s>": "<sos/eos>", "|": "<space>"}
    compare(chain, folder, model, list(TABLE), names, more="bert" in kind)


@pytest.mark.parametrize("name", PIECES.values())
def test_pieces(name: str, tmp_path: Path, says: Says) -> None:
    """LASR reads 145 ms at least: of less transformers makes nothing, we pad."""
    folder, model, tokens = write_pieces(tmp_path / "model", name)
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack")])
    assert "'<pad>' is <blank> here" in told and "added, never written: <sos/eos>" in told
    assert "no letters" not in told and "is <space>" not in told
    chain = LegoNN.from_pretrained(tmp_path / "pack")
    vocab = chain.vocabs["tokens"]
    assert vocab.tokens == ("<blank>", *tokens[:-1], "<sos/eos>") and vocab.unit == "bpe"
    assert vocab.split("ab a") == ["\u2581", "ab", "\u2581a"] and vocab.decode(vocab.encode("ab a")) == "ab a"
    compare(chain, folder, model, tokens, {"<pad>": "<blank>"}, more=1, least=2401)
    renamed = (folder / "tokenizer.json").read_text().replace("<unk>", "[UNK]").replace('"|"', '"</s>"')
    (folder / "tokenizer.json").write_text(renamed)
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack")])
    assert "'[UNK]' is <unk> here" in told and "'</s>' is <sos/eos> here" in told and "added" not in told
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: vocabulary: damaged" in says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack")], 2)


def test_tokens_that_were_added_to_a_tokenizer(tmp_path: Path, says: Says) -> None:
    """Its own class writes them apart; one has no row in the model."""
    folder, model = write(tmp_path / "model", "hubert")
    (folder / "vocab.json").write_text(
        json.dumps({"[PAD]": 0, "[UNK]": 1, "|": 2, **{c: 3 + i for i, c in enumerate("abcde")}})
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **names)
    tokenizer.add_tokens(["<nobody>"])
    tokenizer.save_pretrained(folder)
    assert len(tokenizer) == 11
    says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack")])
    chain = LegoNN.from_pretrained(tmp_path / "pack")
    assert chain.vocabs["tokens"].tokens == ("<blank>", "<unk>", "<space>", *"abcde", "<s>", "<sos/eos>")
    own = ["[PAD]", "[UNK]", "|", *"abcde", "<s>", "</s>"]
    compare(chain, folder, model, own, {"[PAD]": "<blank>", "[UNK]": "<unk>", "|": "<space>", "</s>": "<sos/eos>"})


def test_phonemes_have_blanks_between_them(tmp_path: Path, says: Says) -> None:
    table = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "a\u02d0": 4, "t\u0283": 5}
    folder, _ = write(tmp_path / "model", "hubert", table, tokenizer_class="Wav2Vec2PhonemeCTCTokenizer")
    assert "no word delimiter" not in says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack")])
    vocab = LegoNN.from_pretrained(tmp_path / "pack").vocabs["tokens"]
    assert vocab.unit == "phn" and vocab.decode(vocab.encode("t\u0283 a\u02d0")) == "t\u0283 a\u02d0"


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
    assert "pad_token_id 10 is CTC's blank, but the model writes 10 tokens" in told(pad_token_id=10)
    (folder / "vocab.json").write_text(json.dumps({"deu": {"a": 0}}))
    assert "tokens of several languages are not adopted" in says(main, ["adopt", str(folder), *out], 2)
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "a": 1}))
    assert "2 tokens, the model writes 10" in says(main, ["adopt", str(folder), *out], 2)
    (folder / "vocab.json").unlink()
    assert "a CTC model of characters has it" in says(main, ["adopt", str(folder), *out], 2)
