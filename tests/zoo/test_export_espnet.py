"""``legonn export --format espnet``: ESPnet's own decoding writes the texts that we write."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.foreign import load
from espnet2_legonn.model.description import ModuleConfig
from espnet2_legonn.model.losses import Labels
from espnet2_legonn.training import stock_chain
from tests.modules import toys
from tests.says import Says

SEARCH = {"beam_size": 2, "maxlenratio": -8, "length_penalty": 0.0}
BASELINE = {"name": "enc", "input": toys.SPEECH, "body": toys.body(), "output": toys.HYBRID}
CHAINS: dict[str, list[dict[str, Any]]] = {
    "wemb": [toys.encoder("enc", toys.SPEECH, "bpe", "2/3"), toys.decoder(toys.wemb("bpe", receptive_field=3))],
    "beam_conv": [toys.encoder("enc", toys.SPEECH, "bpe", "2/3"), toys.decoder(toys.beam_conv("bpe"))],
    "collapsed": [toys.encoder("enc", toys.SPEECH, "bpe"), toys.decoder(toys.wemb("bpe", collapse=True))],
    "baseline": [BASELINE, toys.decoder({"type": "states"}, tie=False)],
    "two_interfaces": [
        toys.encoder("first", toys.SPEECH, "phn"),
        toys.encoder("second", toys.wemb("phn"), "bpe", "1/1.2"),
        toys.decoder(toys.wemb("bpe")),
    ],
    "other_tokens": [toys.encoder("enc", toys.SPEECH, "phn", "2/3"), toys.decoder(toys.wemb("phn"))],
}


LEARNED = 0.05  # nats a token
LABELS = {"bpe": [[2, 3, 4, 2], [5, 2, 3]], "phn": [[2, 3, 2], [4, 3]]}


def built(kind: str, folder: Path) -> LegoNN:
    """A pack that has learned two texts: random weights write to the limit, where ESPnet's <sos/eos> costs nothing.

    It has learned them well, on any CPU, so that what is best does not hang on the last digit.
    """
    modules = copy.deepcopy(CHAINS[kind])
    modules[-1]["output"]["bias"] = True
    made = toys.chain(modules, seed=3).train()
    labels = {name: targets(config) for name, config in zip(made.names, made.configs)}
    x, lengths = toys.padded([torch.from_numpy(wave) for wave in waves()], 0.0)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    for step in range(1000):
        losses = made.losses(x, lengths, labels)
        if step >= 80 and all(float(part.total.detach() / part.tokens) < LEARNED for part in losses.values()):
            break
        optimizer.zero_grad()
        torch.stack([part.total for part in losses.values()]).sum().backward()
        optimizer.step()
    else:
        pytest.fail(f"{kind}: not learned in {step} steps")
    chain = LegoNN(list(made), made.vocabs, made.names).eval()
    chain.save(folder)
    return chain


def targets(config: ModuleConfig) -> Labels:
    """What a module is taught."""
    said = [torch.tensor(ids) for ids in LABELS[str(config.target_vocab)]]
    sizes = torch.tensor([len(ids) for ids in said])
    return Labels(torch.nn.utils.rnn.pad_sequence(said, batch_first=True, padding_value=-1), sizes)


def waves() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (12000, 9000)]


def espnets(folder: Path, weight: float, beam_size: int = 2) -> Any:
    """ESPnet's own inference class on the folder."""
    return load("espnet2.bin.asr_inference").Speech2Text(
        folder / stock_chain.CONFIG,
        folder / stock_chain.WEIGHTS,
        ctc_weight=weight,
        maxlenratio=-8,
        beam_size=beam_size,
    )


@pytest.mark.parametrize("kind", CHAINS)
def test_espnet_writes_what_we_write(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = built(kind, tmp_path / "pack")
    assert main(["export", str(tmp_path / "pack"), "-o", str(tmp_path / "asr"), "--format", "espnet"]) == 0
    told, notes = capsys.readouterr()
    assert "python -m espnet2_legonn.bin.asr_inference" in told
    assert ("decode with ctc_weight 0" in notes) == (kind == "other_tokens")
    lengths: list[int] = []
    for weight in (0.0, 0.4) if kind != "other_tokens" else (0.0,):
        # A beam of one: wider ones end by other rules, ours when as many texts have ended, however unlikely (fairseq).
        decode, search = espnets(tmp_path / "asr", weight, 1), espnets(tmp_path / "asr", weight)
        for wave in waves():
            text, tokens, _, found = decode(wave)[0]
            ours = chain.generate([wave], ctc_weight=weight, **{**SEARCH, "beam_size": 1})[0][0]
            vocab = chain.vocabs["bpe"]
            assert tokens == [vocab.tokens[i] for i in ours.ids]
            assert text == vocab.decode(ours.ids)
            assert float(found.score) == pytest.approx(ours.log_prob, abs=1e-3)
            lengths.append(len(ours.ids))
            wide = chain.generate([wave], ctc_weight=weight, **SEARCH)[0][0]
            assert float(search(wave)[0][3].score) >= wide.log_prob - 1e-3
    assert min(lengths) > 1, "there is something to compare"


def test_an_encoder_alone_is_a_ctc_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = built("wemb", tmp_path / "pack")
    out = tmp_path / "asr"
    assert main(["export", f"{tmp_path / 'pack'}#enc", "-o", str(out), "--format", "espnet"]) == 0
    assert "it has no decoder: decode with ctc_weight 1" in capsys.readouterr().err
    decode = espnets(out, 1.0)
    for wave in waves():
        assert decode(wave)[0][1] == [
            chain.vocabs["bpe"].tokens[i] for i in chain["enc"].generate([wave], **SEARCH)[0][0].ids
        ]


def test_espnets_command_decodes_it(tmp_path: Path, says: Says) -> None:
    from espnet2_legonn.bin import asr_inference

    chain = built("wemb", tmp_path / "pack")
    out = tmp_path / "asr"
    says(main, ["export", str(tmp_path / "pack"), "-o", str(out), "--format", "espnet"])
    says(main, ["export", str(tmp_path / "pack"), "-o", str(out), "--format", "espnet"])  # again, over itself
    scp = ""
    for i, wave in enumerate(waves()):
        soundfile.write(tmp_path / f"{i}.wav", wave, 16000, subtype="FLOAT")
        scp += f"u{i} {tmp_path / f'{i}.wav'}\n"
    (tmp_path / "wav.scp").write_text(scp)
    words = ["--asr_train_config", str(out / "config.yaml"), "--asr_model_file", str(out / "valid.acc.ave.pth")]
    words += ["--data_path_and_name_and_type", f"{tmp_path}/wav.scp,speech,sound", "--output_dir", str(tmp_path / "d")]
    asr_inference.main([*words, "--ctc_weight", "0", "--beam_size", "2", "--maxlenratio", "-8", "--num_workers", "0"])
    found = dict(line.split(" ", 1) for line in (tmp_path / "d/1best_recog/text").read_text().splitlines())
    for i, wave in enumerate(waves()):
        ours = chain.generate([wave], ctc_weight=0.0, **SEARCH)[0][0]
        assert found[f"u{i}"].strip() == chain.vocabs["bpe"].decode(ours.ids)


def test_what_espnet_cannot_be_is_told_at_once(tmp_path: Path, says: Says) -> None:
    made = toys.chain(toys.two(toys.wemb("bpe")))
    LegoNN(list(made), made.vocabs, made.names).eval().save(tmp_path / "text")
    out = tmp_path / "asr"
    told = says(main, ["export", str(tmp_path / "text"), "-o", str(out), "--format", "espnet"], 2)
    assert "enc: reads tokens; ESPnet's ASR model reads waveforms" in told and not out.exists()
    told = says(main, ["export", str(tmp_path / "text"), "-o", str(out), "--format", "espnet", "--dtype", "int8"], 2)
    assert "dtype: goes with --format onnx" in told
    built("wemb", tmp_path / "pack")
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    told = says(main, ["export", str(tmp_path / "pack"), "-o", str(out), "--format", "espnet"], 2)
    assert "is no ASR experiment of this command" in told and (out / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("kind", ["wemb", "collapsed"])
def test_its_loss_is_the_chains(kind: str, tmp_path: Path) -> None:
    """Teacher forcing of a padded batch."""
    chain = built(kind, tmp_path / "pack")
    stock_chain.write(chain, tmp_path / "asr")
    task = load("espnet2.tasks.asr").ASRTask
    model, _ = task.build_model_from_file(tmp_path / "asr/config.yaml", tmp_path / "asr/valid.acc.ave.pth")
    x, lengths = toys.padded([torch.from_numpy(wave) for wave in waves()], 0.7)
    labels, sizes = torch.tensor([[2, 3, 4], [5, 2, -1]]), torch.tensor([3, 2])
    with torch.no_grad():
        states, slots, _ = model.encoder(x.unsqueeze(-1), lengths)
        tokens = torch.nn.functional.pad(labels.clamp(min=0), (1, 0), value=model.sos)
        theirs, _ = model.decoder(states, slots, tokens, sizes + 1)
        _, memory, steps = chain.encode(x, lengths)
        ours, _ = chain.last(memory, steps, labels, sizes)
    for i, size in enumerate(sizes.tolist()):
        torch.testing.assert_close(theirs[i, : size + 1], ours[i, : size + 1], rtol=0, atol=1e-5)
