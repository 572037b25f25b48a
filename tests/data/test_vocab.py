from __future__ import annotations

import json

import pytest

from espnet2_legonn.data.cli import main
from espnet2_legonn.data.vocab import make_bpe, make_char, make_phn, make_word, measure
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError

LINES = ["the cat sat on the mat", "a dog ate my home work", "the dog sat", "my cat ate the mat"]


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").write_text("".join(f"u{i} {line}\n" for i, line in enumerate(LINES)))
    return tmp_path / "text"


@pytest.fixture
def other(tmp_path):
    (tmp_path / "other").write_text("v1 the zebra\nv2 sat\n")
    return tmp_path / "other"


def tokens_of(folder):
    return (folder / "tokens.txt").read_text().splitlines()


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_bpe_is_in_espnets_layout_and_deterministic(tmp_path, text, model_type):
    report = make_bpe([text], 22, tmp_path / "one", model_type=model_type)
    make_bpe([text], 22, tmp_path / "two", model_type=model_type)
    tokens = tokens_of(tmp_path / "one")
    assert tokens[:2] == ["<blank>", "<unk>"] and tokens[-1] == "<sos/eos>" and len(tokens) == report.size == 22
    assert not {"<s>", "</s>"} & set(tokens)
    assert tokens == tokens_of(tmp_path / "two")
    vocab = Vocabulary.from_files(tmp_path / "one" / "tokens.txt", "bpe", tmp_path / "one" / "bpe.model")
    assert [vocab.decode(vocab.encode(line)) for line in LINES] == LINES
    assert report.sha256 == vocab.sha256


def test_coverage_of_another_corpus(tmp_path, text, other):
    report = make_bpe([text], 22, tmp_path / "v", extra=[other])
    own, foreign = report.coverage
    assert own.unknown_tokens == 0 and own.words == sum(len(line.split()) for line in LINES) and own.lines == 4
    assert foreign.unknown_words == 1 and foreign.unknown_tokens >= 1 and foreign.words == 3
    vocab = Vocabulary.from_files(tmp_path / "v" / "tokens.txt", "bpe", tmp_path / "v" / "bpe.model")
    ids = [i for line in ("the zebra", "sat") for i in vocab.encode(line)]
    assert (foreign.tokens, foreign.unknown_tokens) == (len(ids), ids.count(1))  # as the model will see it
    saved = json.loads((tmp_path / "v" / "report.json").read_text())
    assert saved["coverage"][1]["oov_rate"] == pytest.approx(foreign.unknown_tokens / foreign.tokens)
    assert "OOV" in str(report) and "per word" in str(report)


def test_several_files_make_a_joint_vocabulary(tmp_path, text, other):
    make_bpe([text, other], 26, tmp_path / "joint")
    vocab = Vocabulary.from_files(tmp_path / "joint" / "tokens.txt", "bpe", tmp_path / "joint" / "bpe.model")
    assert measure(vocab, other).unknown_tokens == 0


def test_too_large_a_size_gives_less_and_says_so(tmp_path, text):
    report = make_bpe([text], 2000, tmp_path / "v")
    assert report.size == len(tokens_of(tmp_path / "v")) < 100
    assert f"warning: vocab_size 2000 is too high, these texts support {report.size}" in str(report)


def test_too_small_a_size_and_other_faults(tmp_path, text):
    with pytest.raises(DataError, match=r"cannot make 5 unigram units .*too many different characters; ask for \d+ or"):
        make_bpe([text], 5, tmp_path / "v")
    with pytest.raises(DataError, match="model type 'wordpiece': choose unigram or bpe"):
        make_bpe([text], 22, tmp_path / "v", model_type="wordpiece")
    with pytest.raises(DataError, match="none: no such file"):
        make_char([tmp_path / "none"], tmp_path / "v")
    (tmp_path / "empty").write_text("a\nb\n")
    with pytest.raises(DataError, match="no text in .*empty"):
        make_word([tmp_path / "empty"], tmp_path / "v")
    with pytest.raises(DataError, match="at least one text file"):
        make_phn([], tmp_path / "v")
    assert not (tmp_path / "v" / "tokens.txt").exists() and not (tmp_path / "v" / "bpe.model").exists()


def test_long_lines_are_not_left_out(tmp_path):
    (tmp_path / "long").write_text("u " + "ab " * 3000 + "q\n")
    make_bpe([tmp_path / "long"], 9, tmp_path / "v")
    assert any("q" in token for token in tokens_of(tmp_path / "v"))


def test_user_defined_symbols_are_single_tokens(tmp_path):
    (tmp_path / "t").write_text("".join(f"u{i} {line} [noise]\n" for i, line in enumerate(LINES)))
    make_bpe([tmp_path / "t"], 25, tmp_path / "v", user_defined_symbols=["[noise]"])
    assert "[noise]" in tokens_of(tmp_path / "v")


@pytest.mark.parametrize("unit", ["bpe", "char", "word"])
def test_tags_of_languages_and_tasks_are_single_tokens(tmp_path, unit):
    """Wherever they stand in a text, and one that is in no text of the training."""
    (tmp_path / "t").write_text("".join(f"u{i} <{'de' if i % 2 else 'en'}> {line}\n" for i, line in enumerate(LINES)))
    tags = ["<en>", "<de>", "<fr>"]
    size = ["--vocab_size", "25"] if unit == "bpe" else []
    words = ["vocab", str(tmp_path / "v"), str(tmp_path / "t"), "--unit", unit, *size, "--user_defined_symbols", *tags]
    assert main(words) == 0
    model = tmp_path / "v" / "bpe.model" if unit == "bpe" else None
    vocab = Vocabulary.from_files(tmp_path / "v" / "tokens.txt", unit, model)
    for text in ("<en> the cat", "the <de> cat", "<fr> the <en> cat <de>"):
        ids = vocab.encode(text)
        said = [vocab.tokens[i] for i in ids]
        assert [token for token in said if token in tags] == [word for word in text.split() if word in tags]
        assert "".join(said).count("<") == sum(token in (*tags, "<space>") for token in said), "no tag is spelled"
        assert vocab.decode(ids) == text and vocab.unk_id not in ids


def test_characters_words_phonemes(tmp_path, text, other):
    make_char([text], tmp_path / "c")
    assert tokens_of(tmp_path / "c")[2] == "<space>" and "z" not in tokens_of(tmp_path / "c")
    chars = Vocabulary.from_files(tmp_path / "c" / "tokens.txt", "char")
    coverage = measure(chars, other)
    assert (coverage.tokens, coverage.unknown_tokens) == (
        len("the zebra") + len("sat"),
        sum(c in "zbr" for c in "zebra") - 1,
    )
    report = make_word([text], tmp_path / "w", vocab_size=7)
    assert tokens_of(tmp_path / "w") == ["<blank>", "<unk>", "the", "ate", "cat", "dog", "<sos/eos>"]
    assert report.coverage[0].oov_rate == pytest.approx(report.coverage[0].unknown_words / report.coverage[0].words)
    (tmp_path / "text_phn").write_text("a DH AH <wb> K AH\nb <unk> AH\n")
    make_phn([tmp_path / "text_phn"], tmp_path / "p")
    assert tokens_of(tmp_path / "p") == ["<blank>", "<unk>", "AH", "<wb>", "DH", "K", "<sos/eos>"]


def test_reserved_tokens_and_useless_sizes(tmp_path, text):
    (tmp_path / "t").write_text("a x <blank> y\n")
    with pytest.raises(DataError, match="token '<blank>' occurs in the texts; it is reserved"):
        make_word([tmp_path / "t"], tmp_path / "v")
    with pytest.raises(DataError, match="vocab_size 3: 3 tokens are special; ask for more"):
        make_word([text], tmp_path / "v", vocab_size=3)


def test_plain_text(tmp_path):
    (tmp_path / "plain").write_text("".join(line + "\n" for line in LINES))
    make_word([tmp_path / "plain"], tmp_path / "v", plain=True)
    assert "a" in tokens_of(tmp_path / "v")  # the first word is no id


def test_the_normaliser_is_identity_unless_asked(tmp_path):
    """Full-width letters and accents of their own come back as they were; sentencepiece's default rewrites them."""
    lines = ["ＡＢＣ，我们", "cafe\u0301 de\u0301ja\u0300"]
    (tmp_path / "t").write_text("".join(f"u{i} {line}\n" for i, line in enumerate(lines)), encoding="utf-8")
    report = make_bpe([tmp_path / "t"], 40, tmp_path / "v")
    assert report.normalizer == "identity" and report.coverage[0].changed_lines == 0 and "come back" not in str(report)
    assert "sentencepiece normaliser identity" in str(report)
    asked = make_bpe([tmp_path / "t"], 40, tmp_path / "n", normalizer="nmt_nfkc")
    assert asked.coverage[0].changed_lines == 2
    assert f"{tmp_path / 't'}: 'u0' ＡＢＣ，我们 -> ABC,我们" in asked.coverage[0].changed
    assert "warning: " in str(asked) and "2 of 2 lines do not come back from their tokens as they were" in str(asked)
    saved = json.loads((tmp_path / "n" / "report.json").read_text())
    assert saved["normalizer"] == "nmt_nfkc" and len(saved["coverage"][0]["changed"]) == 2
    with pytest.raises(DataError, match="normaliser 'nfd': choose one of identity, nfkc"):
        make_bpe([tmp_path / "t"], 40, tmp_path / "x", normalizer="nfd")


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_plain_ascii_and_german_make_the_same_vocabulary_as_before(tmp_path, model_type):
    lines = [*LINES, "das mädchen grüßt peter", "ein großes schönes häuschen", "câine și pisică"]
    (tmp_path / "t").write_text("".join(f"u{i} {line}\n" for i, line in enumerate(lines)), encoding="utf-8")
    made = [
        make_bpe([tmp_path / "t"], 45, tmp_path / rule, model_type=model_type, normalizer=rule)
        for rule in ("identity", "nmt_nfkc")
    ]
    assert made[0].sha256 == made[1].sha256
    assert tokens_of(tmp_path / "identity") == tokens_of(tmp_path / "nmt_nfkc")


def test_texts_with_unseen_characters_are_no_vocabulary(tmp_path):
    (tmp_path / "t").write_text("u1 a b\nu2 c\u00a0d\nu3 e\u200bf\n", encoding="utf-8")
    for make in (make_char, make_word):
        with pytest.raises(DataError, match=r"t: 'u2' has unprintable .*U\+00A0[^\n]*\n.*t: 'u3' .*U\+200B"):
            make([tmp_path / "t"], tmp_path / "v")
    (tmp_path / "p").write_text("a b\nc\u3000d\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"p:2: has unprintable or unusual white space U\+3000"):
        make_word([tmp_path / "p"], tmp_path / "v", plain=True)
    assert not (tmp_path / "v").exists()


def test_many_unknown_tokens_are_a_warning(tmp_path, text):
    (tmp_path / "upper").write_text("v1 THE CAT\n")
    told = str(make_bpe([text], 22, tmp_path / "v", extra=[tmp_path / "upper"]))
    assert "% of the tokens are <unk>, more than 5 %" in told
