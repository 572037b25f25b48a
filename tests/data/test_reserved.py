"""``<blank>`` and ``<sos/eos>`` are no text: never an id of their own, told where a text says them."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet2_legonn.data.vocab import measure
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.inputs import encode_text

WORDS = Vocabulary(("<blank>", "<unk>", "a", "b", "<sos/eos>"), "word")


def test_no_text_becomes_blank_or_the_end() -> None:
    assert WORDS.encode("a <blank> b <sos/eos> <unk>") == [2, 1, 3, 1, 1]
    assert WORDS.reserved("a <blank> b <sos/eos> <unk>") == ["<blank>", "<sos/eos>"]
    assert WORDS.reserved("a b c") == []
    characters = Vocabulary(("<blank>", "<unk>", *"<blank>", "<sos/eos>"), "char")
    assert characters.reserved("<blank>") == [], "seven characters"


def test_what_is_decoded_is_told() -> None:
    with pytest.warns(UserWarning, match="input 0: not in the vocabulary, read as <unk>: <blank>"):
        assert encode_text("a <blank>", WORDS, "input 0") == [2, 1]


@pytest.mark.parametrize("plain", [True, False])
def test_reports_refuse_such_a_text_with_all_its_lines(tmp_path: Path, plain: bool) -> None:
    """Stage 10 makes them before its jobs begin."""
    (tmp_path / "text").write_text("u1 a b\nu2 <blank>\nu3 b <sos/eos> a\n")
    with pytest.raises(DataError) as error:
        measure(WORDS, tmp_path / "text", plain=plain)
    places = ["text:2:", "text:3:"] if plain else ["text: 'u2'", "text: 'u3'"]
    said = ["<blank>", "<sos/eos>"]
    wanted = [f"{tmp_path}/{p} says {t}, which is reserved; rename it" for p, t in zip(places, said)]
    assert error.value.faults == wanted
