"""No utterance is left out of a score in silence: what has no words, no line, no reference."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.decode import decode_table, inputs_of
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.inference.vote import Vote
from espnet2_legonn.model.inputs import UnknownTokens
from espnet2_legonn.recipes.tune import find_candidates
from espnet2_legonn.recipes.vote import judge
from espnet2_legonn.scoring.metrics import score
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.studies.advise import advise
from espnet2_legonn.studies.evaluate import evaluate
from espnet2_legonn.studies.evaluate import render as shown
from espnet2_legonn.studies.oracle import oracle, render
from tests.says import Says
from tests.studies.test_swap import changed, write
from tests.zoo.toys import build, pair, vocab

OPTIONS = BeamOptions(2, 1.0, ctc_weight=0.0)


@pytest.fixture
def chain() -> LegoNN:
    return build(pair())


def test_a_source_without_words_is_scored_as_an_empty_answer(
    chain: LegoNN, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write(tmp_path / "data", 7)
    changed(data, "src_text", "u3", "u3")
    decode_table(chain, inputs_of(chain, data), OPTIONS).nbest[0].write(tmp_path)
    wanted = score("wer", data, tmp_path / "text").value
    caplog.clear()
    encoder, decoder = evaluate(chain, data, "wer", OPTIONS, batch_size=3)
    assert decoder.score == pytest.approx(wanted) and (decoder.utterances, decoder.empty) == (7, 1)
    assert (encoder.utterances, encoder.empty, encoder.infeasible) == (7, 1, 0)
    assert caplog.record_tuples == [("root", logging.WARNING, "1 inputs have no words; their answer is empty: u3")]
    told = (
        "7 utterances were scored, 1 of them without words: their answer is empty. "
        "95 % intervals by bootstrap over 7 utterances."
    )
    assert shown([encoder, decoder]).endswith(f"|\n\n{told}")
    found = oracle(chain, data, "wer", OPTIONS, numbers=[1], batch_size=3)
    assert found[0].segments.value == pytest.approx(wanted) and {r.segments.count for r in found} == {7}
    assert render(found).endswith(f"|\n\n{told}")
    caplog.clear()
    assert find_candidates(chain, data, "wer", BeamOptions(2)).utterances == 7
    assert "1 inputs have no words; their answer is empty: u3" in caplog.text


def test_what_only_the_references_have_is_named(chain: LegoNN, tmp_path: Path) -> None:
    data = write(tmp_path / "data", 9)
    for uid in ("u2", "u4"):
        changed(data, "src_text", uid, "")
    wanted = rf"{data}/src_text: no line for u2, u4 of {data}/text; add them, or keep what .*data.cli fix {data}$"
    for limit in (0, 3):
        with pytest.raises(DataError, match=wanted):
            evaluate(chain, data, "wer", limit=limit)
        with pytest.raises(DataError, match=wanted):
            oracle(chain, data, "wer", limit=limit)
    with pytest.raises(DataError, match=wanted):
        find_candidates(chain, data, "wer", BeamOptions(2))
    changed(data, "text", "u0", "")
    with pytest.raises(DataError, match=rf"{data}/text: no reference for u0 of {data}/src_text; .*\n.*no line for u2"):
        evaluate(chain, data, "wer")


def test_nothing_to_decode_or_to_score_names_the_file(chain: LegoNN, tmp_path: Path) -> None:
    data = write(tmp_path / "data", 3)
    full = {name: (data / name).read_text() for name in ("src_text", "text")}
    bare = "u0\nu1\nu2\n"
    for name, content, wanted in (
        ("src_text", "", "src_text: the file is empty; nothing to decode"),
        ("src_text", bare, "src_text: none of the 3 inputs has words; "),
        ("text", bare, "text: the references of all 3 utterances are empty; no score is defined"),
    ):
        (data / name).write_text(content)
        for work in (evaluate, oracle):
            with pytest.raises(DataError, match=f"^{data}/{wanted}") as caught:
                work(chain, data, "wer")
            assert len(caught.value.faults) == 1
        with pytest.raises(DataError, match=f"^{data}/{wanted}"):
            find_candidates(chain, data, "wer", BeamOptions(2))
        (data / name).write_text(full[name])


@pytest.mark.parametrize("work", ["evaluate", "oracle", "advise", "decode", "tune", "vote"])
def test_texts_of_another_language_are_told_of_together(
    chain: LegoNN, tmp_path: Path, caplog: pytest.LogCaptureFixture, work: str
) -> None:
    """There was a warning for each of them, with its place in the batch for its id."""
    data = write(tmp_path / "data", 20)
    for uid in ("u13", "u4"):
        changed(data, "src_text", uid, f"{uid} zebra k quagga")
    works: dict[str, Callable[[], object]] = {
        "evaluate": lambda: evaluate(chain, data, "wer", OPTIONS, batch_size=3),
        "oracle": lambda: oracle(chain, data, "wer", OPTIONS, numbers=[1], batch_size=3),
        "advise": lambda: advise(chain, chain, data, "wer"),
        "decode": lambda: decode_table(chain, inputs_of(chain, data), OPTIONS, 3),
        "tune": lambda: find_candidates(chain, data, "wer", BeamOptions(2), batch_size=3),
        "vote": lambda: judge(Vote(chain, [chain[:1]]), [data, data], "wer", 2, slice(0, 20), batch_size=3),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownTokens)
        works[work]()
    wanted = (
        "2 of 20 utterances have tokens that encoder does not know, it reads <unk> there: u4, u13 "
        "(tokens: zebra quagga); is this the language and the writing that it reads?"
    )
    assert {record.getMessage() for record in caplog.records} == {wanted}
    assert len(caplog.records) == {"advise": 4, "vote": 2}.get(work, 1), "once for each reading of the set"


def test_words_are_not_scored_as_phonemes(chain: LegoNN, tmp_path: Path, says: Says) -> None:
    """The figures were those of WER under the name of PER."""
    data, pack = write(tmp_path / "data"), chain.save(tmp_path / "mt")
    said = says(main, ["evaluate", str(pack), "--data", str(data), "--metric", "per"], 2)
    assert "metric 'per' is of phonemes, and encoder says word, decoder says word; take wer, cer or bleu" in said
    said = says(main, ["oracle", str(pack), "--data", str(data), "--metric", "per"], 2)
    assert "metric 'per' is of phonemes, and decoder says word; take" in said
    with pytest.raises(DataError, match="'per' is of phonemes, and the last module says word"):
        find_candidates(chain, data, "per", BeamOptions(2))


def test_phonemes_are_scored_as_phonemes_and_words_beside_them_are_left_out(tmp_path: Path) -> None:
    described = pair()
    described["vocabs"]["phn"] = vocab("a b c d", unit="phn")
    described["modules"][0]["output"]["vocab"] = described["modules"][1]["input"]["vocab"] = "phn"
    data = write(tmp_path / "data")
    (data / "text_phn").write_text((data / "text").read_text())
    said = {metric: evaluate(build(described), data, metric, OPTIONS) for metric in ("per", "bleu")}
    assert [(f.module, f.metric) for f in said["per"]] == [("encoder", "per")]
    assert [(f.module, f.metric) for f in said["bleu"]] == [("encoder", "per"), ("decoder", "bleu")]
    assert said["per"][0].score == said["bleu"][0].score
