"""``legonn adopt`` of stock ASR experiments of ESPnet: the marginals are the source's, and what cannot be is said."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.adopt.vocabulary import NEVER, Order
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.data.vocab import make_bpe
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.packs.card import read_card
from tests.modules import toys
from tests.says import Says
from tests.zoo import stock

SAMPLES = [6000, 2111, 4096, 900]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    root = tmp_path_factory.mktemp("exp")
    return {kind: stock.experiment(root / f"asr_{kind}", kind) for kind in stock.KINDS}


def waves() -> list[torch.Tensor]:
    return [0.1 * torch.randn(n) + 0.05 * torch.sin(torch.arange(n) * 0.3) for n in SAMPLES]


def adopted(source: Path, out: Path, says: Says, *words: str) -> LegoNN:
    says(main, ["adopt", str(source), "-o", str(out), *words])
    return LegoNN.from_pretrained(out)


@pytest.mark.parametrize("kind", stock.KINDS)
def test_marginals_are_those_of_the_source(
    kind: str, sources: dict[str, tuple[Path, Any]], tmp_path: Path, says: Says
) -> None:
    folder, model = sources[kind]
    chain = adopted(folder, tmp_path / "pack", says)
    x, lengths = toys.padded(waves(), 0.7)  # all together, with something behind the short ones
    with torch.inference_mode():
        log_probs, steps = chain.last(x, lengths)
    for i, wave in enumerate(waves_of(x, lengths)):
        theirs = stock.marginals(model, wave) if len(wave) > 2000 else None
        if theirs is not None:
            assert int(steps[i]) == len(theirs)
            torch.testing.assert_close(log_probs[i, : len(theirs)].exp(), theirs, rtol=0, atol=1e-5)
    assert toys.gap(chain.last, waves(), 1e3) < 1e-5


def waves_of(x: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    return [row[:n] for row, n in zip(x, lengths.tolist())]


def test_the_card_says_where_it_is_from(sources: dict[str, tuple[Path, Any]], tmp_path: Path, says: Says) -> None:
    folder, _ = sources["conformer"]
    words = ["--data", str(stock.corpus(tmp_path / "data", 4)), "--language", "en", "--license", "MIT"]
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack"), *words])
    assert "note: left behind: decoder" in told and "0 updates  slots per token: " in told
    card = read_card(tmp_path / "pack")
    module = card.modules[0]
    assert module.parent == "asr_conformer" and card.provenance.espnet == "202511" and card.provenance.updates == 0
    assert module.writes.grounded and module.writes.vocab == "tokens" and module.reads.fs == 8000
    assert card.about.language == ["en"] and card.about.license == "MIT" and card.vocabs["tokens"].unit == "char"
    chain = LegoNN.from_pretrained(tmp_path / "pack")
    texts = [line.split(" ", 1)[1] for line in (tmp_path / "data/text").read_text().splitlines()]
    slots = sum(chain.marginals(str(path))[0].log_probs.shape[1] for path in sorted((tmp_path / "data").glob("*.wav")))
    assert module.writes.slots_per_token == pytest.approx(slots / sum(map(len, texts)), abs=1e-4)


def test_tokens_get_our_order(tmp_path: Path, says: Says) -> None:
    tokens = ["<sos/eos>", "a", "<blank>", "b", "c", "d", "e"]
    folder, model = stock.experiment(tmp_path / "exp", "transformer", tokens)
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack")])
    assert "ids differ from exp's" in told and "note: added, never written: <unk>" in told
    chain = LegoNN.from_pretrained(tmp_path / "pack")
    ours = chain.vocabs["tokens"].tokens
    assert ours == ("<blank>", "<unk>", "a", "b", "c", "d", "e", "<sos/eos>")
    wave = waves()[0]
    theirs = stock.marginals(model, wave)
    with torch.inference_mode():
        found = chain.last(wave[None], torch.tensor([len(wave)]))[0][0].exp()
    assert found[:, 1].eq(0).all()
    for token in tokens:
        torch.testing.assert_close(found[:, ours.index(token)], theirs[:, tokens.index(token)], rtol=0, atol=1e-5)


def test_an_order_by_itself() -> None:
    order = Order.of(["b", "<blank>", "a"])
    assert order.tokens == ["<blank>", "<unk>", "b", "a", "<sos/eos>"] and order.rows == [1, -1, 0, 2, -1]
    weight, bias = order.layer(torch.arange(6.0).view(3, 2), None)
    assert weight.tolist() == [[2, 3], [0, 0], [0, 1], [4, 5], [0, 0]] and bias.tolist() == [0, NEVER, 0, 0, NEVER]
    with pytest.raises(ConfigError, match="no token is CTC's blank"):
        Order.of(["a", "b"])
    with pytest.raises(ConfigError, match="several tokens would be called <blank>"):
        Order.of(["<pad>", "<blank>"], {"<pad>": "<blank>"})


def test_a_packed_zip(sources: dict[str, tuple[Path, Any]], tmp_path: Path, says: Says) -> None:
    """As espnet2.bin.pack writes one."""
    folder, model = sources["e_branchformer"]
    path = tmp_path / "zoo.zip"
    with zipfile.ZipFile(path, "w") as z:
        for name in ("config.yaml", "valid.acc.ave.pth"):
            z.write(folder / name, f"exp/asr/{name}")
        meta = {
            "files": {"asr_model_file": "exp/asr/valid.acc.ave.pth"},
            "yaml_files": {"asr_train_config": "exp/asr/config.yaml"},
        }
        z.writestr("meta.yaml", yaml.safe_dump(meta))
    chain = adopted(path, tmp_path / "pack", says)
    wave = waves()[0]
    with torch.inference_mode():
        found = chain.last(wave[None], torch.tensor([len(wave)]))[0][0].exp()
    torch.testing.assert_close(found, stock.marginals(model, wave), rtol=0, atol=1e-5)
    told = says(main, ["adopt", str(path), "-o", str(tmp_path / "other"), "--model", "latest.pth"], 2)
    assert "model: a packed archive names its weights itself" in told


def test_pieces_and_their_model(tmp_path: Path, says: Says) -> None:
    """A config names the model from the recipe's folder; a zip has it inside, and nothing outside is looked for."""
    (tmp_path / "text").write_text("".join(f"u{i} {w} abc cab bca ace\n" for i, w in enumerate(["abcd", "cabd"] * 20)))
    make_bpe([tmp_path / "text"], 14, tmp_path / "recipe/data/bpe")
    tokens = (tmp_path / "recipe/data/bpe/tokens.txt").read_text().split("\n")[:-1]
    more = {"token_type": "bpe", "bpemodel": "data/bpe/bpe.model"}
    folder, _ = stock.experiment(tmp_path / "recipe/exp/asr", "transformer", tokens, **more)
    chain = adopted(folder, tmp_path / "pack", says)
    assert list(chain.vocabs["tokens"].tokens) == tokens and chain.vocabs["tokens"].decode(
        chain.vocabs["tokens"].encode("abc cab")
    ) == "abc cab"  # fmt: skip
    path, model = tmp_path / "zoo.zip", tmp_path / "recipe/data/bpe/bpe.model"
    meta = {"files": {"asr_model_file": "w.pth"}, "yaml_files": {"asr_train_config": "config.yaml"}}

    def packed(**config: Any) -> Path:
        told = yaml.safe_load((folder / "config.yaml").read_text())
        with zipfile.ZipFile(path, "w") as z:
            z.write(folder / "valid.acc.ave.pth", "w.pth")
            z.write(model, "data/bpe/bpe.model")
            z.writestr("config.yaml", yaml.safe_dump({**told, **config}))
            z.writestr("meta.yaml", yaml.safe_dump(meta))
        return path

    assert adopted(packed(), tmp_path / "other", says).vocabs["tokens"].bpemodel == model.read_bytes()
    out = ["-o", str(tmp_path / "third")]
    for outside in (str(model), f"../{model.parent.name}/bpe.model", "nowhere.model"):
        assert "is not there; give --bpemodel" in says(main, ["adopt", str(packed(bpemodel=outside)), *out], 2)
    says(main, ["adopt", str(packed(bpemodel="nowhere.model")), *out, "--bpemodel", str(model)])


def changed(source: Path, folder: Path, **more: Any) -> Path:
    """The experiment with another config."""
    shutil.copytree(source, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in more.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and config.get(key) else value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_every_reason_against_it_is_told(sources: dict[str, tuple[Path, Any]], tmp_path: Path, says: Says) -> None:
    more: dict[str, Any] = {
        "frontend": "s3prl", "preencoder": "linear", "postencoder": "length_adaptor", "encoder": "whisper",
        "encoder_conf": {"input_layer": "embed", "interctc_use_conditioning": True}, "normalize": "mine",
        "token_type": "hugging_face", "frontend_conf": {"fs": "fast"},
    }  # fmt: skip
    folder = changed(sources["conformer"][0], tmp_path / "exp", **more)
    told = says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack")], 2)
    for words in (
        "frontend: 's3prl' is not adopted", "preencoder: 'linear'", "postencoder: 'length_adaptor'",
        "encoder: 'whisper' is not one of transformer, conformer", "input_layer: 'embed' is not one of conv2d",
        "reads its own CTC inside", "normalize: 'mine'", "token_type: 'hugging_face'", "fs: 'fast' is no rate",
    ):  # fmt: skip
        assert words in told
    assert not (tmp_path / "pack").exists()


def test_weights_are_tensors_and_nothing_else(
    sources: dict[str, tuple[Path, Any]], tmp_path: Path, says: Says
) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harm",))

    folder = changed(sources["conformer"][0], tmp_path / "exp")
    torch.save({"ctc.ctc_lo.weight": Harm()}, folder / "valid.acc.ave.pth")
    assert "not plain weights" in says(main, ["adopt", str(folder), "-o", str(tmp_path / "pack")], 2)
    assert not (tmp_path / "harm").exists()


def test_other_faults(sources: dict[str, tuple[Path, Any]], tmp_path: Path, says: Says) -> None:
    source, _ = sources["conformer"]
    out = ["-o", str(tmp_path / "pack")]
    assert "no such folder or zip" in says(main, ["adopt", str(tmp_path / "none"), *out], 2)
    assert "bpemodel: its tokens are of type" in says(main, ["adopt", str(source), *out, "--bpemodel", "x"], 2)
    bpe = changed(source, tmp_path / "bpe", token_type="bpe", bpemodel="data/bpe.model")
    told = says(main, ["adopt", str(bpe), *out], 2)
    assert "sentencepiece model data/bpe.model is not there; give --bpemodel" in told
    wider = changed(source, tmp_path / "wider", encoder_conf={"output_size": 32})
    assert "module encoder: " in says(main, ["adopt", str(wider), *out], 2)
    typo = changed(source, tmp_path / "typo", encoder_conf={"cnn_module_kernal": 5})
    assert "did you mean 'cnn_module_kernel'" in says(main, ["adopt", str(typo), *out], 2)
    empty = changed(source, tmp_path / "empty")
    (empty / "valid.acc.ave.pth").unlink()
    assert "name the weights with --model" in says(main, ["adopt", str(empty), *out], 2)
    no_ctc = changed(source, tmp_path / "no_ctc", model_conf={"ctc_weight": 0.0})
    assert "nothing trained this CTC layer" in says(main, ["adopt", str(no_ctc), *out])
    (tmp_path / "odd.yaml").mkdir()
    assert "config.yaml" in says(main, ["adopt", str(tmp_path / "odd.yaml"), *out], 2)


def test_a_text_in_another_case_is_noticed(sources: dict[str, tuple[Path, Any]], tmp_path: Path, says: Says) -> None:
    data = stock.corpus(tmp_path / "data", 3)
    (data / "text").write_text((data / "text").read_text().upper().replace("U0", "u0"))
    told = says(main, ["adopt", str(sources["conformer"][0]), "-o", str(tmp_path / "pack"), "--data", str(data)])
    assert "of the tokens of" in told and "are <unk>: the model writes in another way" in told


# -- the whole way -------------------------------------------------------------------------------------------------


def trained(root: Path) -> Path:
    """ESPnet's own commands: statistics and a training on tiny speech."""
    for name, number in (("train", 24), ("valid", 6)):
        stock.corpus(root / name, number, number)
    conf = {
        "encoder": "e_branchformer", "encoder_conf": {**stock.E_BRANCHFORMER, "dropout_rate": 0.0},
        "decoder": "transformer", "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
        "frontend_conf": stock.FRONTEND, "model_conf": {"ctc_weight": 0.9}, "token_list": stock.TOKENS,
        "token_type": "char", "optim": "adam", "optim_conf": {"lr": 0.01}, "max_epoch": 30, "batch_type": "sorted",
        "batch_size": 8, "num_att_plot": 0, "best_model_criterion": [["valid", "loss", "min"]],
        "keep_nbest_models": 1, "use_matplotlib": False, "use_tensorboard": False, "num_workers": 0, "ngpu": 0,
    }  # fmt: skip
    (root / "train.yaml").write_text(yaml.safe_dump(copy.deepcopy(conf)))
    data = [w for s in ("train", "valid") for n, kind, f in (("speech", "sound", "wav.scp"), ("text", "text", "text"))
            for w in (f"--{s}_data_path_and_name_and_type", f"{root / s / f},{n},{kind}")]  # fmt: skip
    shapes = [w for s in ("train", "valid") for w in (f"--{s}_shape_file", str(root / s / "wav.scp"))]
    command = [sys.executable, "-m", "espnet2.bin.asr_train", "--config", str(root / "train.yaml"), *data]
    stats = root / "stats"
    subprocess.run([*command, "--collect_stats", "true", "--output_dir", str(stats), *shapes], check=True)
    shapes = [w for s in ("train", "valid") for n in ("speech", "text")
              for w in (f"--{s}_shape_file", str(stats / s / f"{n}_shape"))]  # fmt: skip
    mvn = ["--normalize", "global_mvn", "--normalize_conf", f"stats_file={stats / 'train/feats_stats.npz'}"]
    exp = root / "exp/asr_tiny"
    subprocess.run([*command, "--output_dir", str(exp), *shapes, *mvn], check=True)
    return exp


@pytest.mark.slow
def test_an_experiment_is_trained_adopted_plugged_and_decoded(tmp_path: Path, says: Says) -> None:
    exp = trained(tmp_path)
    pack = tmp_path / "asr"
    told = says(main, ["adopt", str(exp), "-o", str(pack), "--data", str(tmp_path / "valid"), "--language", "en"])
    assert "0 updates" in told
    encoder = LegoNN.from_pretrained(pack)
    files = [line.split()[1] for line in (tmp_path / "train/wav.scp").read_text().splitlines()]
    texts = [line.split(" ", 1)[1] for line in (tmp_path / "train/text").read_text().splitlines()]
    heard = [m.greedy_text() for f in files for m in encoder.marginals(f)]
    right = sum(a == b for a, b in zip(heard, texts))
    assert right >= len(texts) // 2, f"the source learned its training set: {list(zip(heard, texts))[:4]}"
    vocab = {"tokens": list(encoder.vocabs["tokens"].tokens), "unit": "char", "language": "en"}
    reader = {"type": "wemb", "vocab": "letters", "num_blocks": 1}
    body = {"type": "transformer_decoder", "num_blocks": 1, "size": 16, "heads": 2, "linear_units": 32}
    module = {"name": "decoder", "input": reader, "body": body, "output": {"vocab": "letters"}}
    decoder = LegoNN.from_config({"vocabs": {"letters": vocab}, "modules": [module]}).eval()
    decoder.save(tmp_path / "decoder")
    assert main(["check", str(pack), str(tmp_path / "decoder")]) in (0, 1)
    plugged = encoder + decoder
    assert isinstance(plugged(files[0]), str)
    assert main(["compose", str(pack), str(tmp_path / "decoder"), "-o", str(tmp_path / "both")]) == 0
    assert isinstance(LegoNN.from_pretrained(tmp_path / "both")(files[0]), str)
