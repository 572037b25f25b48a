"""Modules judged one by one, against plain NumPy and against what training and decoding say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.decode import decode_table, inputs_of
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.scoring.metrics import score
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.studies import evaluate as module
from espnet2_legonn.studies.calibration import calibration_error, right_or_wrong, said_tokens
from espnet2_legonn.studies.evaluate import as_json, evaluate, render
from tests.studies.test_swap import changed, write
from tests.zoo.toys import build, pair


@pytest.fixture
def chain() -> LegoNN:
    return build(pair())


def test_tokens_of_a_best_path() -> None:
    probs = np.array(
        [[0.9, 0.05, 0.05], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.6, 0.4, 0], [0.3, 0.5, 0.2], [0.1, 0.2, 0.7]]
    )
    assert said_tokens(probs) == [(1, 0.8), (1, 0.5), (2, 0.7)]
    assert said_tokens(probs[:1]) == []


def test_right_and_wrong_by_alignment() -> None:
    said = [(5, 0.9), (6, 0.4), (7, 0.8)]
    assert right_or_wrong(said, [5, 7]) == [(0.9, True), (0.4, False), (0.8, True)]
    assert right_or_wrong(said, []) == [(0.9, False), (0.4, False), (0.8, False)] and right_or_wrong([], [5]) == []


def test_calibration_error_by_hand() -> None:
    judged = [(0.95, True), (0.95, True), (0.85, True), (0.85, False), (1.0, False)]
    # bin 0.9 to 1: three tokens, sure 0.9667, right 2/3; bin 0.8 to 0.9: sure 0.85, right 1/2
    assert calibration_error(judged) == pytest.approx((3 * abs(2.9 / 3 - 2 / 3) + 2 * 0.35) / 5)
    assert np.isnan(calibration_error([]))
    rng = np.random.default_rng(0)
    sure = rng.random(20000)
    assert calibration_error(list(zip(sure, rng.random(20000) < sure))) < 0.02, "calibrated by construction"


def test_figures_against_numpy(chain: LegoNN, tmp_path: Path) -> None:
    data = write(tmp_path / "data", 7)
    read = {n: dict(line.split(" ", 1) for line in (data / n).read_text().splitlines()) for n in ("src_text", "text")}
    encoder, decoder = evaluate(chain, data, "wer", BeamOptions(2, 1.0, ctc_weight=0.0), batch_size=3)
    blanks = slots = tokens = 0
    entropy, entropy_said = 0.0, []
    nats = 0.0
    for uid, source in read["src_text"].items():
        marginals = chain.marginals(source)
        p = marginals.probs()[0].double().numpy()
        ids = torch.tensor([chain.vocabs["tgt"].encode(read["text"][uid])])
        nats += float(torch.nn.functional.ctc_loss(
            marginals.log_probs.double().transpose(0, 1), ids, marginals.lengths, torch.tensor([ids.shape[1]]),
            reduction="sum", zero_infinity=True,
        ))  # fmt: skip
        each = -(p * np.log(p)).sum(1)
        entropy, slots, tokens = entropy + each.sum(), slots + len(p), tokens + ids.shape[1]
        blanks += (p.argmax(1) == 0).sum()
        entropy_said += each[p.argmax(1) != 0].tolist()
    assert encoder.blank == blanks / slots and encoder.slots_per_token == slots / tokens
    assert encoder.loss == pytest.approx(nats / tokens, rel=1e-5) and encoder.infeasible == 0
    assert encoder.entropy == pytest.approx(entropy / slots, rel=1e-5)
    assert encoder.entropy_said == pytest.approx(np.mean(entropy_said), rel=1e-5)
    said = {uid: chain.marginals(s).greedy_text() for uid, s in read["src_text"].items()}
    texts = {uid: chain(s, beam_size=2, length_penalty=1.0, ctc_weight=0.0) for uid, s in read["src_text"].items()}
    from espnet2_legonn.scoring.metrics import value

    for found, answers in ((encoder, said), (decoder, texts)):
        assert found.score == pytest.approx(value("wer", [list(read["text"].values())], list(answers.values())))
    assert decoder.blank is None and decoder.loss > 0 and decoder.low is not None


def test_the_batch_does_not_matter(chain: LegoNN, tmp_path: Path) -> None:
    data, options = write(tmp_path / "data", 9), BeamOptions(2, 1.0, ctc_weight=0.0)
    alone, together = (evaluate(chain, data, "wer", options, batch_size=size) for size in (1, 9))
    for one, other in zip(alone, together):
        assert one.score == other.score and one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.blank == other.blank
    assert alone[0].entropy is not None and alone[0].entropy == pytest.approx(together[0].entropy, rel=1e-5)


def test_labels_without_a_path_are_counted(chain: LegoNN, tmp_path: Path) -> None:
    """Two slots for one source token cannot hold five labels: counted, and not a loss of 0 in the mean."""
    data = write(tmp_path / "data", 4)
    plain = evaluate(chain, data, "wer")[0]
    for name, line in (("src_text", "u9 k"), ("text", "u9 a b c d a")):
        (data / name).write_text((data / name).read_text() + line + "\n")
    found = evaluate(chain, data, "wer")[0]
    assert found.infeasible == 1 / 5 and found.loss == pytest.approx(plain.loss, rel=1e-5)


def test_the_command(chain: LegoNN, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, pack = write(tmp_path / "data"), chain.save(tmp_path / "mt")
    words = ["evaluate", str(pack), "--data", str(data), "--limit", "4", "-o", str(tmp_path / "e.json")]
    assert main(words) == 0
    told = json.loads((tmp_path / "e.json").read_text())
    assert [t["module"] for t in told] == ["encoder", "decoder"] and told[0]["utterances"] == 4
    assert (told[0]["unit"], told[0]["units"], told[0]["speakers"]) == ("utterance", 4, None)
    assert "|encoder|% WER" in capsys.readouterr().out
    assert all(value is None or value == value for t in told for value in t.values()), "no NaN in JSON"


def test_intervals_draw_speakers_as_scores_do(chain: LegoNN, tmp_path: Path) -> None:
    data, options = write(tmp_path / "data", 9), BeamOptions(2, 1.0, ctc_weight=0.0)
    alone = evaluate(chain, data, "wer", options)
    assert render(alone).endswith("9 utterances were scored. 95 % intervals by bootstrap over 9 utterances.")
    (data / "utt2spk").write_text("".join(f"u{i} s{i % 2}\n" for i in range(9)))
    encoder, decoder = evaluate(chain, data, "wer", options)
    decode_table(chain, inputs_of(chain, data), options).nbest[0].write(tmp_path)
    for metric in ("wer", "bleu"):
        found = evaluate(chain, data, metric, options)[1]
        wanted = score(metric, data, tmp_path / "text", utt2spk=data / "utt2spk").interval
        assert (found.low, found.high, found.unit, found.units) == (wanted.low, wanted.high, "speaker", 2)
    assert (decoder.low, decoder.high) != (alone[1].low, alone[1].high)
    assert render([encoder, decoder]).endswith("95 % intervals by bootstrap over 2 speakers.")
    assert {(one["unit"], one["units"], one["speakers"]) for one in as_json([encoder, decoder])} == {("speaker", 2, 2)}
    (data / "utt2spk").write_text("".join(f"u{i} s\n" for i in range(9)))
    found = evaluate(chain, data, "wer", options)
    assert (found[1].low, found[1].high) == (alone[1].low, alone[1].high), "an interval over one speaker is none"
    assert render(found).endswith("by bootstrap over 9 utterances, since all are of one speaker.")
    (data / "utt2spk").write_text("".join(f"u{i} u{i}\n" for i in range(9)))
    assert render(evaluate(chain, data, "wer", options)) == render(alone), "a speaker each is none that is known"
    one = render(evaluate(chain, data, "wer", options, limit=1))
    assert one.endswith("No intervals: they take at least 2 utterances.")
    changed(data, "utt2spk", "u3", "")
    changed(data, "utt2spk", "u5", "u5 s t")
    with pytest.raises(DataError, match="utt2spk: u3, u5 need exactly one speaker each; a line is"):
        evaluate(chain, data, "wer", options)


def test_some_utterances_are_spread_over_the_set(chain: LegoNN, tmp_path: Path) -> None:
    """Data of speech are sorted by speaker: the first hundred were of one or two of them."""
    data = write(tmp_path / "data", 10)
    for limit, wanted in ((0, range(10)), (1, [0]), (3, [0, 3, 6]), (4, [0, 2, 5, 7]), (7, [0, 1, 2, 4, 5, 7, 8])):
        assert list(inputs_of(chain, data, limit)) == [f"u{i}" for i in wanted]
    assert list(inputs_of(chain, data, 12)) == list(inputs_of(chain, data, 10)) == list(inputs_of(chain, data))
    for name in ("src_text", "text"):
        kept = [(data / name).read_text().splitlines()[i] for i in (0, 3, 6)]
        (tmp_path / name).write_text("".join(f"{line}\n" for line in kept))
    assert as_json(evaluate(chain, data, "wer", limit=3)) == as_json(evaluate(chain, tmp_path, "wer"))


def test_what_cannot_be_judged(chain: LegoNN, tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    (data / "text").write_text("u0 a\n")
    with pytest.raises(DataError, match="no reference for u1, u2"):
        evaluate(chain, data, "wer")
    (data / "text").unlink()
    with pytest.raises(DataError, match="no references for any module"):
        evaluate(chain, data, "wer")
    with pytest.raises(DataError, match="metric 'blue'"):
        evaluate(chain, data, "blue")


def test_a_module_without_interface_is_left_out(tmp_path: Path) -> None:
    data = pair(type="states")
    data["modules"][0].update(output={"type": "states"})
    del data["modules"][1]["input"]["vocab"], data["modules"][1]["input"]["num_blocks"]
    figures = evaluate(build(data), write(tmp_path / "data"), "wer")
    assert [f.module for f in figures] == ["decoder"] and "|decoder|" in render(figures)


def test_losses_are_of_the_texts_that_training_reads(
    chain: LegoNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The references of bleu_detok are raw: neither tokenised nor cased as the targets are."""
    data = write(tmp_path / "data", 6)
    wanted = evaluate(chain, data, "bleu")
    raw = [f"{line.split(' ', 1)[0]} A RAW ONE.\n" for line in (data / "text").read_text().splitlines()]
    (data / "text.raw").write_text("".join(raw))
    original = module.score_texts
    monkeypatch.setattr(module, "score_texts", lambda _, *rest: original("bleu", *rest))  # ours has no language
    found = evaluate(chain, data, "bleu_detok")
    assert [f.loss for f in found] == [f.loss for f in wanted] and found[0].right == wanted[0].right
    assert found[0].slots_per_token == wanted[0].slots_per_token
