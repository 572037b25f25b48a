"""Language models, length bonus and internal language model in the search: all texts listed, alone as in a batch."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from espnet2_legonn import CheckpointError, ConfigError, LegoNN
from espnet2_legonn.data.arpa import write_arpa
from espnet2_legonn.data.ngram import estimate
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.inference.espnet import Text2Text
from espnet2_legonn.inference.fusion import makers
from espnet2_legonn.model.interface import Interface, Marginals, SearchChoice
from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.search.chain_search import search_ctc, search_decoder
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.search.scorers import InternalScorer
from tests.modules import language
from tests.search.conftest import VOCAB, make_decoder
from tests.search.listing import log, texts_of
from tests.zoo.toys import build, pair

TOKENS = ("<blank>", "<unk>", "w0", "w1", "<sos/eos>")
WORDS = Vocabulary(TOKENS, "word")
END = VOCAB - 1
CONF = {
    "seq_rnn": {"unit": 6, "nlayers": 1},
    "transformer": {"pos_enc": None, "embed_unit": 6, "att_unit": 8, "head": 2, "unit": 12, "layer": 1},
}


def espnet_lm(folder: Path, kind: str, tokens: tuple[str, ...] = TOKENS) -> Path:
    """A language model of ESPnet's with random weights, as ``lm_train`` leaves it: config.yaml and weights."""
    task = pytest.importorskip("espnet2.tasks.lm").LMTask
    torch.manual_seed(5)
    about = {
        "lm": kind,
        "lm_conf": CONF[kind],
        "token_list": list(tokens),
        "model": "lm",
        "model_conf": {},
        "init": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(about))
    model = task.build_model(argparse.Namespace(**about))
    for parameter in model.parameters():
        parameter.data.mul_(2.5)
    torch.save(model.state_dict(), folder / "valid.loss.ave.pth")
    return folder / "valid.loss.ave.pth"


@pytest.fixture(params=["seq_rnn", "transformer"])
def lm_file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(espnet_lm(tmp_path / "lm", request.param))


@pytest.fixture
def ngram_file(tmp_path: Path) -> str:
    rng = np.random.default_rng(3)
    text = [(1 + rng.integers(0, 3, size=rng.integers(1, 5))).tolist() for _ in range(60)]
    with pytest.warns(UserWarning, match="n-gram"):
        tree = estimate(text, VOCAB, 3)
    write_arpa(tmp_path / "3gram.arpa.gz", tree, WORDS)
    return str(tmp_path / "3gram.arpa.gz")


def interface() -> Marginals:
    torch.manual_seed(7)
    lengths = torch.tensor([4, 2, 3])
    return Marginals((2 * torch.randn(3, 4, VOCAB)).log_softmax(-1), lengths, Interface(WORDS))


def lm_of(file: str, text: tuple[int, ...]) -> float:
    """log P of a text by ESPnet's own forward pass over the whole of it."""
    task = pytest.importorskip("espnet2.tasks.lm").LMTask
    model, _ = task.build_model_from_file(None, file)
    ids = torch.tensor([text], dtype=torch.long).reshape(1, -1)
    with torch.no_grad():
        nll, lengths = model.eval().nll(ids, torch.tensor([len(text)]))
    return -float(nll.sum())


def all_texts(item: Marginals) -> dict[tuple[int, ...], float]:
    return {t: log(p) for t, p in texts_of(item.log_probs[0]).items() if END not in t and p > 0}


def test_the_best_of_all_texts_by_ctc_and_a_language_model(lm_file: str) -> None:
    found = interface()
    options = BeamOptions(200, 0.0, nbest=4, lm_file=lm_file, lm_weight=0.7, penalty=0.4)
    answers = search_ctc(found, options, more=makers(options, WORDS))
    for nbest, item in zip(answers, (found[i] for i in range(3))):
        scores = {t: p + 0.7 * lm_of(lm_file, t) + 0.4 * (len(t) + 1) for t, p in all_texts(item).items()}
        best = sorted(scores.items(), key=lambda pair: -pair[1])[:4]
        assert [(tuple(h.ids), h.log_prob) for h in nbest] == [(t, pytest.approx(s, abs=1e-4)) for t, s in best]
        for hypothesis in nbest:
            assert hypothesis.parts["lm"] == pytest.approx(lm_of(lm_file, tuple(hypothesis.ids)), abs=1e-4)
            assert hypothesis.parts["length_bonus"] == len(hypothesis.ids) + 1


def test_a_batch_answers_as_each_alone(lm_file: str, ngram_file: str) -> None:
    found = interface()
    options = BeamOptions(3, nbest=3, lm_file=lm_file, lm_weight=0.5, ngram_file=ngram_file, ngram_weight=0.3)
    together = search_ctc(found, options, more=makers(options, WORDS))
    for i in range(3):
        alone = search_ctc(found[i], options, more=makers(options, WORDS))[0]
        assert [h.ids for h in alone] == [h.ids for h in together[i]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[i]], abs=1e-5)
        assert set(alone[0].parts) == {"ctc", "lm", "ngram"}


def teacher_forced(decoder: DecoderModule, x: torch.Tensor, text: tuple[int, ...]) -> float:
    labels = torch.tensor([text], dtype=torch.long).reshape(1, -1)
    with torch.no_grad():
        logits, targets = decoder(x, torch.tensor([x.shape[1]]), labels, torch.tensor([len(text)]))
    return float(logits.log_softmax(-1).gather(2, targets.unsqueeze(-1)).sum())


def test_the_internal_language_model_is_the_decoder_before_an_even_interface() -> None:
    decoder, found = make_decoder(1), interface()
    options = BeamOptions(120, 0.0, nbest=3, ctc_weight=0.3, ilm_weight=0.6, maxlenratio=-3)
    answers = search_decoder(decoder, found.log_probs, found.lengths, found, options)
    for nbest, item in zip(answers, (found[i] for i in range(3))):
        even = torch.full_like(item.log_probs, -float(np.log(VOCAB)))
        ctc, scores = all_texts(item), {}
        for text in (t for n in range(4) for t in itertools.product(range(1, END), repeat=n)):
            if text in ctc:
                own, habit = (teacher_forced(decoder, x, text) for x in (item.log_probs, even))
                scores[text] = 0.7 * own + 0.3 * ctc[text] - 0.6 * habit
        best = sorted(scores.items(), key=lambda pair: -pair[1])[:3]
        assert [(tuple(h.ids), h.log_prob) for h in nbest] == [(t, pytest.approx(s, abs=1e-4)) for t, s in best]


def test_only_a_reader_of_distributions_has_an_internal_language_model() -> None:
    with pytest.raises(ConfigError, match=r"only a decoder that reads distributions \(wemb\)"):
        InternalScorer(make_decoder(1, "beam_conv"), interface().log_probs, interface().lengths, 2, 0.5)
    with pytest.raises(ConfigError, match="this chain has no decoder whose habits"):
        search_ctc(interface(), BeamOptions(ilm_weight=0.5))


@pytest.mark.skipif(not language.THERE, reason="needs transformers: pip install 'espnet2_legonn[pretrained]'")
@pytest.mark.parametrize("hold", [True, False])
def test_a_borrowed_language_model_has_an_internal_one_too(hold: bool, tmp_path: Path) -> None:
    """Also where none of its weights is held, so that the chain has none."""
    chain = language.decoder(language.write(tmp_path / "lm", "gpt2"), "gpt2", hold=hold)
    vocab = chain.vocabs["lm"]
    torch.manual_seed(0)
    found = Marginals((3 * torch.randn(2, 9, len(vocab))).log_softmax(-1), torch.tensor([9, 5]), Interface(vocab))
    for hypotheses in chain.generate(found, ilm_weight=0.2, ctc_weight=0.3, length_penalty=0.0):
        parts = hypotheses[0].parts
        wanted = 0.7 * parts["decoder"] + 0.3 * parts["ctc"] - 0.2 * parts["internal_lm"]
        assert parts["internal_lm"] < 0 and hypotheses[0].log_prob == pytest.approx(wanted, abs=1e-3)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def chain() -> LegoNN:
    return build(pair())


def own_lm(folder: Path, chain: LegoNN) -> str:
    return str(espnet_lm(folder, "seq_rnn", chain.require_text().tokens))


def test_options_of_espnet_reach_the_search(chain: LegoNN, tmp_path: Path) -> None:
    """The names are ESPnet's, in ``generate`` and in ``Text2Text``."""
    file = own_lm(tmp_path, chain)
    config = str(tmp_path / "config.yaml")
    wanted = chain.generate("k l m", lm_file=file, lm_weight=0.4, penalty=0.3, beam_size=4)[0][0]
    plain = chain.generate("k l m", beam_size=4)[0][0]
    assert {"lm", "length_bonus"} <= set(wanted.parts) and "lm" not in plain.parts
    given: dict[str, Any] = {"lm_train_config": config, "lm_file": file, "lm_weight": 0.4, "penalty": 0.3}
    told = Text2Text(chain, beam_size=4, **given)("k l m")[0][3]
    assert float(told.score) == pytest.approx(wanted.score, abs=1e-5) and set(told.scores) == set(wanted.parts)
    assert chain.generate("k l m", lm_file=file, lm_weight=0.0, beam_size=4)[0][0].ids == plain.ids


def test_a_tuned_weight_is_the_default(chain: LegoNN, tmp_path: Path) -> None:
    file = own_lm(tmp_path, chain)

    def weights(**options: Any) -> tuple[float | None, float | None]:
        used = chain.answer("k l", BeamOptions(lm_file=file, **options))[0].options
        return used.lm_weight, used.ngram_weight

    assert weights() == (0.3, 0.3)
    chain.search = SearchChoice(0.4, 1.0, lm_weight=0.8)
    assert weights() == (0.8, 0.3) and weights(lm_weight=0.1) == (0.1, 0.3)


def test_wrong_models_are_named(chain: LegoNN, tmp_path: Path) -> None:
    other = str(espnet_lm(tmp_path / "other", "seq_rnn"))
    with pytest.raises(ConfigError, match="is over 5 other tokens than the 7 that are searched"):
        chain.generate("k", lm_file=other)
    file = own_lm(tmp_path / "own", chain)
    with pytest.raises(ConfigError, match="lm_train_config: its weights are missing; give lm_file"):
        chain.generate("k", lm_train_config=str(tmp_path / "own" / "config.yaml"))
    with pytest.raises(ConfigError, match="no such file; it lies beside the weights"):
        chain.generate("k", lm_file=str(tmp_path / "x.pth"))
    with pytest.raises(CheckpointError, match="no such weights"):
        chain.generate("k", lm_file=str(tmp_path / "own" / "x.pth"))
    torch.save({"wrong": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match="weights of another model than"):
        chain.generate("k", lm_file=file)
    config = tmp_path / "own" / "config.yaml"
    config.write_text(config.read_text().replace("seq_rnn", "transformer_opt"))
    with pytest.raises(ConfigError, match="lm: transformer_opt is not one of seq_rnn, transformer"):
        chain.generate("k", lm_file=str(tmp_path / "own" / "y.pth"))
    binary = tmp_path / "3gram.bin"
    binary.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(ConfigError, match="is KenLM's binary; give the ARPA file"):
        chain.generate("k", ngram_file=str(binary))
