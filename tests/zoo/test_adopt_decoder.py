"""``legonn adopt --decoder``: the transformer decoder of a stock ASR experiment writes what ESPnet's own writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.foreign import load
from espnet2_legonn.model.losses import Labels
from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.packs.card import read_card
from tests.says import Says
from tests.zoo import stock

SAMPLES = [6000, 4096, 5111]


def waves() -> list[torch.Tensor]:
    return [0.1 * torch.randn(n) + 0.05 * torch.sin(torch.arange(n) * 0.3) for n in SAMPLES]


def adopted(source: Path, out: Path, says: Says) -> LegoNN:
    says(main, ["adopt", str(source), "-o", str(out), "--decoder"])
    return LegoNN.from_pretrained(out)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    decoder = {"attention_heads": 2, "linear_units": 16, "num_blocks": 2}
    return stock.experiment(tmp_path_factory.mktemp("exp") / "asr", "transformer", decoder_conf=decoder)


def theirs(model: Any, wave: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """ESPnet's log-probabilities of each next token behind <sos/eos> and ids, (L + 1, V)."""
    with torch.no_grad():
        memory, lengths = model.encode(wave[None].clone(), torch.tensor([len(wave)]))
        tokens = torch.tensor([[model.sos, *ids]])
        return model.decoder(memory, lengths, tokens, torch.tensor([tokens.shape[1]]))[0][0].log_softmax(-1)


def test_the_decoder_writes_what_espnets_writes(source: tuple[Path, Any], tmp_path: Path, says: Says) -> None:
    folder, model = source
    chain = adopted(folder, tmp_path / "pack", says)
    decoder = chain.last
    assert isinstance(decoder, DecoderModule) and chain.names == ["encoder", "decoder"]
    waveforms = waves()
    lengths = torch.tensor([len(wave) for wave in waveforms])
    x = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    labels = torch.tensor([[3, 4, 2, 5, 6], [7, 3, -1, -1, -1], [5, 5, 4, -1, -1]])
    sizes = torch.tensor([5, 2, 3])
    with torch.inference_mode():
        marginals, states, slots = chain.encode(x, lengths)
        logits, _ = decoder(states, slots, labels, sizes)
    for i, wave in enumerate(waveforms):
        ids = labels[i, : sizes[i]].tolist()
        # ESPnet divides by sqrt(variance + 1e-12), PyTorch adds 1e-5
        ours = logits[i, : len(ids) + 1].log_softmax(-1)
        torch.testing.assert_close(ours, theirs(model, wave, ids), rtol=0, atol=1e-3)
        found = marginals["encoder"].log_probs[i, : int(marginals["encoder"].lengths[i])].exp()
        torch.testing.assert_close(found, stock.marginals(model, wave), rtol=0, atol=1e-5)


def test_it_is_a_baseline_in_every_other_way(source: tuple[Path, Any], tmp_path: Path, says: Says) -> None:
    """A card, texts, and a loss: it can be trained on."""
    folder, _ = source
    chain = adopted(folder, tmp_path / "pack", says)
    card = read_card(tmp_path / "pack")
    assert [module.parent for module in card.modules] == ["asr", "asr"]
    assert "CTC encoder and attention decoder" in str(card.about.description)
    assert all(isinstance(text, str) for text in chain([wave.numpy() for wave in waves()]))
    chain.train()
    wave = waves()[0][None]
    labels = Labels(torch.tensor([[3, 4]]), torch.tensor([2]))
    losses = chain.losses(wave, torch.tensor([wave.shape[1]]), {"encoder": labels, "decoder": labels})
    torch.stack([part.total for part in losses.values()]).sum().backward()
    decoder = chain.last
    assert isinstance(decoder, DecoderModule) and decoder.output.bias.grad is not None
    # the shares of ESPnet's hybrid loss: w CTC + (1 - w) cross-entropy
    chain.eval()
    with torch.no_grad():
        lengths = torch.tensor([wave.shape[1]])
        losses = chain.losses(wave, lengths, {"encoder": labels, "decoder": labels})
        marginals, states, slots = chain.encode(wave, lengths)
        ctc = torch.nn.functional.ctc_loss(marginals["encoder"].log_probs[0], labels.ids[0], slots, labels.lengths)
        logits, targets = decoder(states, slots, *labels)
        entropy = torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="sum")
    assert float(losses["encoder"].total) == pytest.approx(0.3 * 2 * float(ctc), rel=1e-4)
    assert float(losses["decoder"].total) == pytest.approx(0.7 * float(entropy), rel=1e-4)


def test_tokens_in_another_order(tmp_path: Path, says: Says) -> None:
    tokens = ["a", "<blank>", "b", "c", "d", "e", "<sos/eos>"]
    folder, model = stock.experiment(tmp_path / "exp", "transformer", tokens)
    chain = adopted(folder, tmp_path / "pack", says)
    ours = chain.vocabs["tokens"].tokens
    decoder, wave = chain.last, waves()[0]
    assert isinstance(decoder, DecoderModule) and ours[1] == "<unk>"
    words = ["b", "a", "e"]
    with torch.inference_mode():
        _, states, slots = chain.encode(wave[None], torch.tensor([len(wave)]))
        labels = torch.tensor([[ours.index(word) for word in words]])
        logits = decoder(states, slots, labels, torch.tensor([3]))[0][0].log_softmax(-1)
    wanted = theirs(model, wave, [tokens.index(word) for word in words])
    assert logits[:, 1].exp().eq(0).all()
    for token in tokens:
        torch.testing.assert_close(logits[:, ours.index(token)], wanted[:, tokens.index(token)], rtol=0, atol=1e-3)


def test_what_cannot_be_adopted_is_told_at_once(source: tuple[Path, Any], tmp_path: Path, says: Says) -> None:
    folder, _ = source
    config = yaml.safe_load((folder / "config.yaml").read_text())
    other = tmp_path / "other"
    other.mkdir()
    config |= {"decoder": "rnn", "decoder_conf": {"normalize_before": False, "concat_after": True, "qk_norm": True}}
    config["model_conf"] = {"ctc_weight": 1.0, "sym_sos": "<s>"}
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    told = says(main, ["adopt", str(other), "-o", str(tmp_path / "pack"), "--decoder"], 2)
    for words in (
        "decoder: 'rnn' is not adopted", "decoder_conf.normalize_before: False", "decoder_conf.concat_after: True",
        "decoder_conf.qk_norm: True", "ctc_weight: 1.0 trained no decoder", "must begin and end with <sos/eos>",
    ):  # fmt: skip
        assert words in told
    assert not (tmp_path / "pack").exists()


def searched(model: Any, wave: torch.Tensor, beam: int, weight: float) -> list[int]:
    """ESPnet's beam search, as its Speech2Text puts it together."""
    scorer = load("espnet.nets.scorers.ctc").CTCPrefixScorer(ctc=model.ctc, eos=model.eos)
    search = load("espnet.nets.batch_beam_search").BatchBeamSearch(
        beam_size=beam, vocab_size=len(stock.TOKENS), weights={"decoder": 1 - weight, "ctc": weight},
        scorers={"decoder": model.decoder, "ctc": scorer}, sos=model.sos, eos=model.eos,
        token_list=stock.TOKENS, pre_beam_score_key=None if weight == 1 else "full",
    )  # fmt: skip
    with torch.no_grad():
        memory, _ = model.encode(wave[None].clone(), torch.tensor([len(wave)]))
        return search(memory[0], maxlenratio=-12, minlenratio=0)[0].yseq[1:-1].tolist()


@pytest.mark.parametrize("beam, weight", [(1, 0.0), (4, 0.0)])
def test_our_search_finds_what_espnets_finds(
    source: tuple[Path, Any], tmp_path: Path, says: Says, beam: int, weight: float
) -> None:
    folder, model = source
    chain = adopted(folder, tmp_path / "pack", says)
    for wave in waves():
        ids = searched(model, wave, beam, weight)
        answer = chain.generate([wave.numpy()], beam_size=beam, ctc_weight=weight, length_penalty=0.0, maxlenratio=-12)
        assert list(answer[0][0].ids) == ids
