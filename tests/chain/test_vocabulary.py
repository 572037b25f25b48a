"""Vocabularies: the four units, files, digests, pickling, and lists that are none."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest

from espnet2_legonn import DataError, Vocabulary
from espnet2_legonn.data.pieces import read_model
from espnet2_legonn.model.interface import Interface, compare

TEXT = ["the cat sat on the mat", "a dog and a cat", "the dog sat", "mats and cats and dogs"] * 5


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sentencepiece model of 24 pieces trained here, and its token list."""
    import sentencepiece

    folder, model = tmp_path_factory.mktemp("bpe"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=24, model_type="bpe", minloglevel=2
    )
    (folder / "bpe.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(i) for i in range(3, processor.get_piece_size())]
    (folder / "tokens.txt").write_text("\n".join(["<blank>", "<unk>", *pieces, "<sos/eos>"]) + "\n", encoding="utf-8")
    return folder / "tokens.txt", folder / "bpe.model"


def test_bpe_from_files(bpe: tuple[Path, Path]) -> None:
    vocab = Vocabulary.from_files(*bpe[:1], "bpe", bpe[1], "en", "lc")
    assert (len(vocab), vocab.blank_id, vocab.unk_id, vocab.sos_eos_id) == (24, 0, 1, 23)
    for text in TEXT[:4]:
        ids = vocab.encode(text)
        assert all(1 < i < 23 for i in ids)
        assert vocab.decode(ids) == text
        assert vocab.decode([0, *ids, 0, 23]) == text
    assert 1 in vocab.encode("the zebra"), "z was never seen"


def test_bpe_survives_pickling_after_use(bpe: tuple[Path, Path]) -> None:
    """Data loader workers get a copy: the sentencepiece object itself cannot be pickled."""
    vocab = Vocabulary.from_files(bpe[0], "bpe", bpe[1])
    ids, digest = vocab.encode("the cat"), vocab.sha256
    twin = pickle.loads(pickle.dumps(vocab))
    assert twin == vocab and hash(twin) == hash(vocab)
    assert twin.encode("the cat") == ids and twin.sha256 == digest


def test_bpe_without_a_model_joins_but_does_not_split(bpe: tuple[Path, Path]) -> None:
    vocab = Vocabulary.from_files(bpe[0])
    assert vocab.decode([2, 3]) == "".join(vocab.tokens[2:4]).replace("\u2581", " ").strip()
    with pytest.raises(DataError, match="unit bpe needs a sentencepiece model to split text; give bpemodel"):
        vocab.encode("the")


@pytest.mark.parametrize(
    ("unit", "tokens", "text", "split"),
    [
        ("char", ["a", "b", "<space>"], "ab  b ", ["a", "b", "<space>", "b"]),
        ("word", ["ab", "b"], " ab  b", ["ab", "b"]),
        ("phn", ["AH0", "B"], "B AH0", ["B", "AH0"]),
    ],
)
def test_units(unit: str, tokens: list[str], text: str, split: list[str]) -> None:
    vocab = Vocabulary(("<blank>", "<unk>", *tokens, "<sos/eos>"), unit)
    assert vocab.split(text) == split
    assert vocab.encode(text) == [vocab.tokens.index(t) for t in split]
    assert vocab.decode(vocab.encode(text)) == " ".join(text.split())
    assert pickle.loads(pickle.dumps(vocab)).encode(text) == vocab.encode(text)


def test_unknown_tokens_become_unk() -> None:
    vocab = Vocabulary(("<blank>", "<unk>", "a", "<sos/eos>"), "word")
    assert vocab.encode("a q a") == [2, 1, 2]
    assert vocab.encode("") == []


def test_the_digest_is_of_the_ordered_tokens() -> None:
    def digest(*tokens: str, unit: str = "word") -> str:
        return Vocabulary(("<blank>", "<unk>", *tokens, "<sos/eos>"), unit).sha256

    assert digest("a", "b") == digest("a", "b", unit="phn")
    assert len({digest("a", "b"), digest("b", "a"), digest("a"), digest("ab")}) == 4


def test_a_token_may_be_another_unicode_separator(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text("<blank>\n<unk>\n\u2028\n\u00a0\n<sos/eos>\n", encoding="utf-8")
    assert Vocabulary.from_files(path, "char").tokens == ("<blank>", "<unk>", "\u2028", "\u00a0", "<sos/eos>")


@pytest.mark.parametrize(
    ("tokens", "unit", "message"),
    [
        (
            ["<blank>", "<unk>", "<sos/eos>"],
            "word",
            "3 tokens; need <blank>, <unk>, <sos/eos> and at least one more",
        ),
        (
            ["<unk>", "<blank>", "a", "<sos/eos>"],
            "word",
            "token 0 is '<unk>', ESPnet's order puts '<blank>' there",
        ),
        (["<blank>", "a", "<unk>", "<sos/eos>"], "word", "token 1 is 'a', ESPnet's order puts '<unk>' there"),
        (
            ["<blank>", "<unk>", "<sos/eos>", "a"],
            "word",
            "token 3 is 'a', ESPnet's order puts '<sos/eos>' there",
        ),
        (["<blank>", "<unk>", "a", "b", "a", "<sos/eos>"], "word", "tokens that occur twice: a"),
        (
            ["<blank>", "<unk>", "a", "<sos/eos>"],
            "syllable",
            "unit 'syllable' is not one of bpe, phn, char, word",
        ),
    ],
)
def test_lists_that_are_no_vocabulary(tokens: list[str], unit: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary(tuple(tokens), unit)
    path = tmp_path / "tokens.txt"
    path.write_text("\n".join(tokens), encoding="utf-8")
    with pytest.raises(DataError, match=f"tokens.txt: vocabulary: .*{message}"):
        Vocabulary.from_files(path, unit)


def test_all_faults_of_a_list_at_once() -> None:
    with pytest.raises(DataError) as error:
        Vocabulary(("a", "a", "<unk>", "b"), "x")
    assert len(error.value.faults) == 5


def test_missing_files_are_named(tmp_path: Path, bpe: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="none.txt: no such token list; stage 5 of the recipe makes it"):
        Vocabulary.from_files(tmp_path / "none.txt")
    with pytest.raises(DataError, match="none.model: no such sentencepiece model; stage 5"):
        Vocabulary.from_files(bpe[0], "bpe", tmp_path / "none.model")


def trained(lines: list[str], **options: object) -> tuple[bytes, list[str]]:
    """A sentencepiece model and its pieces."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, minloglevel=2, **options
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return model.getvalue(), [processor.id_to_piece(i) for i in range(3, processor.get_piece_size())]


def listed(pieces: list[str]) -> tuple[str, ...]:
    return ("<blank>", "<unk>", *pieces, "<sos/eos>")


def test_a_model_of_another_list_is_refused(bpe: tuple[Path, Path], tmp_path: Path) -> None:
    other, pieces = trained([line[::-1] for line in TEXT], vocab_size=24, model_type="bpe")
    (tmp_path / "other.model").write_bytes(other)
    with pytest.raises(DataError, match=r"tokens.txt: .*belongs to another token list: \d+ tokens are no pieces of it"):
        Vocabulary.from_files(bpe[0], "bpe", tmp_path / "other.model")
    Vocabulary(listed(pieces), "bpe", bpemodel=other)


def test_a_larger_model_of_the_same_text_is_refused(bpe: tuple[Path, Path]) -> None:
    """All tokens are pieces of it, but it splits text into many that are no tokens."""
    larger, pieces = trained(TEXT, vocab_size=30, model_type="bpe")
    tokens = bpe[0].read_text(encoding="utf-8").split()
    assert set(tokens[2:-1]) < set(pieces)
    with pytest.raises(DataError, match=r"0 tokens are no pieces of it \(\), 6 of its 27 pieces are no tokens"):
        Vocabulary(tuple(tokens), "bpe", bpemodel=larger)


def test_tokens_that_stand_apart_and_rare_pieces_are_forgiven() -> None:
    model, pieces = trained(TEXT, vocab_size=30, model_type="bpe")
    kept = listed(["<en>", *pieces[:-1], "madeupword0000"])
    assert Vocabulary(kept, "bpe", bpemodel=model).split("the cat")


def test_the_normaliser_is_part_of_the_contract() -> None:
    lines = ["ＡＢ ab", "ab ＡＢ"] * 5
    vocabs = []
    for rule in ("identity", "nmt_nfkc"):
        model, pieces = trained(lines, vocab_size=12, normalization_rule_name=rule, hard_vocab_limit=False)
        vocabs.append(Vocabulary(listed(pieces), "bpe", bpemodel=model))
    assert [v.normalizer for v in vocabs] == ["identity", "nmt_nfkc"]
    assert vocabs[0].decode(vocabs[0].encode("ＡＢ ab")) == "ＡＢ ab"
    assert "ab" in vocabs[1].decode(vocabs[1].encode("ＡＢ ab")).casefold()
    told = [str(f.message) for f in compare(Interface(vocabs[0]), Interface(vocabs[1]))]
    assert any("sentencepiece normaliser: identity is produced, nmt_nfkc is expected" in line for line in told)
    assert Vocabulary(("<blank>", "<unk>", "a", "<sos/eos>"), "word").normalizer is None
    assert Vocabulary(("<blank>", "<unk>", "a", "<sos/eos>"), "bpe", bpemodel=b"any bytes").normalizer is None


def test_bytes_are_joined_to_characters() -> None:
    model, pieces = trained(TEXT, vocab_size=290, byte_fallback=True, hard_vocab_limit=False)
    vocab = Vocabulary(listed(pieces), "bpe", bpemodel=model)
    for text in ("the cat", "the Ω cat", "€", "日本 a\u00e9", "<0x41>"):
        assert "<0x" not in vocab.decode(vocab.encode(text)) or text.startswith("<")
        assert vocab.decode(vocab.encode(text)) == text
    ids = [vocab.ids[t] for t in ("<0xE2>", "<0x82>", "<0x0A>", "<0xAC>")]
    assert vocab.decode(ids) == "\ufffd \ufffd", "half a character, and a text is one line"
    assert pickle.loads(pickle.dumps(vocab)).decode(vocab.encode("€")) == "€"


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\x05\x0a\x03", b"\xff" * 20, b"\x0b", b"\x80" * 12])
def test_what_is_no_model_is_left_to_sentencepiece(data: bytes) -> None:
    assert read_model(data) is None


def test_a_list_with_other_line_ends_or_a_mark_is_refused(tmp_path: Path) -> None:
    for content, message in (
        (b"\xef\xbb\xbf<blank>\n<unk>\na\n<sos/eos>\n", "tokens.txt:1: starts with a byte-order mark"),
        (b"<blank>\r\n<unk>\r\na\r\n<sos/eos>\r\n", "tokens.txt:1: Windows line end"),
        (b"<blank>\n<unk>\n\na\n<sos/eos>\n", "tokens.txt:3: an empty line is no token"),
    ):
        (tmp_path / "tokens.txt").write_bytes(content)
        with pytest.raises(DataError, match=message):
            Vocabulary.from_files(tmp_path / "tokens.txt", "word")
