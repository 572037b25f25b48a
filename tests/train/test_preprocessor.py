"""One text to the tokens of every interface."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.parts import SpeechInput, TokenInput
from espnet2_legonn.training.preprocessor import Preprocessor


def vocabulary(*words: str, unit: str = "word") -> Vocabulary:
    return Vocabulary(("<blank>", "<unk>", *words, "<sos/eos>"), unit)


SRC, PHN, TGT = vocabulary("x", "y"), vocabulary("p", "q", unit="phn"), vocabulary("a", "b", "c")
TARGETS = {"first": ("phones", PHN), "second": ("words", TGT), "decoder": ("words", TGT)}
CHAIN, SPEECH = Preprocessor(TokenInput, SRC, TARGETS), Preprocessor(SpeechInput, None, TARGETS)


def run(preprocess: Preprocessor | None = None, **data: Any) -> dict[str, list[int]]:
    """Of a chain that begins with what is given: speech or text."""
    preprocess = preprocess or (SPEECH if "speech" in data else CHAIN)
    return {k: v.tolist() for k, v in preprocess("u1", data).items()}


def test_one_text_for_every_interface() -> None:
    found = run(src_text="y x", text="b a z", text_phn="q p")
    assert found == {"src_text": [3, 2], "text_first": [3, 2], "text_second": [3, 2, 1], "text_decoder": [3, 2, 1]}


def test_arrays_are_int64_and_speech_float32() -> None:
    found = SPEECH("u1", {"speech": np.zeros(4), "text": "a", "text_phn": "p"})
    assert found["speech"].dtype == np.float32 and {found[k].dtype for k in found if "text" in k} == {np.dtype("int64")}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"text": "a", "text_word": "b", "text_words": "c", "text_second": "a b c"}, [2, 3, 4]),
        ({"text": "a", "text_word": "b", "text_words": "c"}, [4]),
        ({"text": "a", "text_word": "b"}, [3]),
        ({"text": "a"}, [2]),
    ],
    ids=["module", "vocabulary", "unit", "text"],
)
def test_the_most_special_text_wins(given: dict[str, str], expected: list[int]) -> None:
    assert run(text_phn="p", **given)["text_second"] == expected


def test_ids_are_taken_as_they_are() -> None:
    assert run(text=np.array([3, 3]), text_phn="p")["text_second"] == [3, 3]


@pytest.mark.parametrize("special", ["<blank>", "<sos/eos>"])
@pytest.mark.parametrize("name", ["text", "text_phn", "src_text"])
def test_no_text_says_what_ctc_and_the_decoder_need(name: str, special: str) -> None:
    """As a target, <blank> gave a finite loss of something else."""
    given = {"src_text": "x", "text": "a b", "text_phn": "p", name: f"a {special} b"}
    with pytest.raises(DataError, match=f"utterance u1: {name} says {special}, which is no word.*rename it"):
        run(**given)


def test_unknown_words_may_be_written_as_such() -> None:
    assert run(text="a <unk> b", text_phn="<unk>")["text_first"] == [1]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([2, 0], r"text has the id 0; of 6 tokens, a text has those between 0 \(<blank>\) and 5 \(<sos/eos>\)"),
        ([5], "text has the id 5"),
        ([-1], "text has the id -1"),
        ([9, 2], "text has the id 9"),
        ([2.0, 3.5], "text holds float64, but ids are integers"),
    ],
)
def test_ids_that_are_no_tokens(ids: list[float], message: str) -> None:
    with pytest.raises(DataError, match=f"utterance u1: {message}"):
        run(text=np.array(ids), text_phn="p")


def test_no_targets_while_decoding() -> None:
    assert run(src_text="x") == {"src_text": [2]}


def test_source_of_a_chain_that_has_none_is_left_out() -> None:
    assert "src_text" not in run(Preprocessor(SpeechInput, None, {"m": ("words", TGT)}), src_text="x", text="a")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"text": "a"}, "utterance u1: module first wants phonemes, but only words are given; .*stage 5.*text_phn"),
        ({"text_phn": "p"}, "u1: no text for module second; give one of text_second, text_words, text_word, text"),
        ({"text": "", "text_phn": "p"}, "utterance u1: text is empty; stage 4 removes such utterances"),
        ({"text": "a", "text_phn": "  "}, "utterance u1: text_phn is empty"),
        ({"src_text": " ", "text": "a", "text_phn": "p"}, "utterance u1: src_text is empty"),
        ({"speech": np.array([0.0, np.nan, np.inf])}, "utterance u1: speech: 2 of 3 samples are NaN or infinite"),
        ({"speech": np.zeros(0)}, "utterance u1: speech: no samples"),
        ({"speech": np.zeros((5, 2))}, r"utterance u1: speech: shape \(5, 2\), one channel is needed"),
    ],
)
def test_faults_name_the_utterance(data: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(**data)


def test_travels_to_data_loader_workers() -> None:
    CHAIN("u1", {"text": "a", "text_phn": "p"})  # fills caches
    copy = pickle.loads(pickle.dumps(CHAIN))
    assert run(copy, text="c", text_phn="q") == run(text="c", text_phn="q")
