"""Tokenizers of language models: what is kept of them, how they split and join, what is refused."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.data import hf_vocab
from espnet2_legonn.data.filter import pieces
from espnet2_legonn.data.hf_vocab import of_model
from espnet2_legonn.data.tokenizer_json import TokenizerJson, canonical, shown_name
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from tests.modules import language
from tests.says import Says

pytestmark = pytest.mark.skipif(
    not language.THERE, reason="needs transformers: pip install 'espnet2_legonn[pretrained]'"
)


def data(tokenizer: Any) -> bytes:
    return bytes(tokenizer.backend_tokenizer.to_str().encode("utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language.write(tmp_path_factory.mktemp("model"), "gpt2")


def changed(**more: Any) -> bytes:
    return json.dumps({**json.loads(data(language.bytes_tokenizer())), **more}).encode()


def faults(given: bytes) -> str:
    with pytest.raises(DataError) as caught:
        TokenizerJson(given)
    return str(caught.value)


@pytest.mark.parametrize(
    "text", ["a dog runs over the grass", "two men", "Ünïcode \u4e2d\u6587 \U0001f600", " two  blanks "]
)
def test_bytes_are_split_as_by_transformers_and_come_back(text: str) -> None:
    source = language.bytes_tokenizer()
    tokenizer = TokenizerJson(data(source))
    assert tokenizer.split(text) == source.tokenize(text)
    assert tokenizer.join(tokenizer.split(text)) == text.strip(" ")


def test_words_lose_what_is_put_around_them() -> None:
    source = language.words_tokenizer()
    tokenizer = TokenizerJson(data(source))
    assert source("a cat runs").input_ids[0] == 3 and tokenizer.split("a cat runs") == ["a", "<unk>", "runs"]
    assert tokenizer.unknown == "<unk>" and tokenizer.join(["<s>", "a", "dog", "<pad>"]) == "a dog"


def test_the_order_is_ours(folder: Path) -> None:
    found = of_model(str(folder), language="en")
    tokens = found.vocab.tokens
    assert tokens[:2] == ("<blank>", "<unk>") and tokens[-1] == "<sos/eos>" and found.vocab.language == "en"
    theirs = TokenizerJson(found.vocab.bpemodel or b"").tokens
    assert found.rows[:2] == (-1, -1) and theirs[found.rows[-1]] == "<|endoftext|>"
    assert [theirs[i] for i in found.rows[2:-1]] == list(tokens[2:-1])
    assert sorted(found.rows[2:]) == list(range(len(theirs)))


def test_a_vocabulary_survives_files_and_processes(folder: Path, tmp_path: Path) -> None:
    found = of_model(str(folder))
    hf_vocab.write(found, tmp_path)
    read = Vocabulary.from_files(tmp_path / "tokens.txt", "bpe", tmp_path / "bpe.model")
    assert read == found.vocab and read.sha256 == found.vocab.sha256
    for vocab in (read, pickle.loads(pickle.dumps(read))):
        assert vocab.decode(vocab.encode("the dog, in 2016")) == "the dog, in 2016"
    assert pieces(tmp_path / "bpe.model")("the dog") == len(read.encode("the dog"))


def test_what_ends_a_text_is_no_target(folder: Path) -> None:
    vocab = of_model(str(folder)).vocab
    assert vocab.encode("a<|endoftext|>") == [vocab.ids["a"], vocab.unk_id]


def test_tokens_that_end_lines_have_names() -> None:
    from tokenizers import Tokenizer, models

    made = Tokenizer(models.WordLevel({"<unk>": 0, "\n": 1, "\u2028x": 2, "a": 3, "</s>": 4}, unk_token="<unk>"))
    tokenizer = TokenizerJson(made.to_str().encode())
    assert tokenizer.tokens == ["<unk>", "<U+000A>", "<U+2028>x", "a", "</s>"]
    assert tokenizer.split("\n") == ["<U+000A>"] and tokenizer.join(["a", "<U+000A>", "a"]) == "a   a"
    assert shown_name("") == "<U+>"


def test_the_command_writes_it_and_says_its_digest(folder: Path, tmp_path: Path, says: Says) -> None:
    printed = says(main, ["vocab", str(tmp_path / "lm"), "--from-hf", str(folder), "--json"])
    vocab = of_model(str(folder)).vocab
    assert json.loads(printed)["sha256"] == vocab.sha256 and json.loads(printed)["size"] == len(vocab)
    assert (tmp_path / "lm/tokens.txt").read_text(encoding="utf-8").splitlines()[0] == "<blank>"
    assert "are of unit bpe" in says(main, ["vocab", str(tmp_path), "--from-hf", str(folder), "--unit", "char"], 2)


def test_another_list_is_refused(folder: Path) -> None:
    vocab = of_model(str(folder)).vocab
    with pytest.raises(DataError, match="the tokenizer belongs to another token list: 1 tokens are none of its"):
        Vocabulary((*vocab.tokens[:-1], "more", "<sos/eos>"), "bpe", bpemodel=vocab.bpemodel)
    with pytest.raises(DataError, match="3 of its"):
        Vocabulary((*vocab.tokens[:9], *vocab.tokens[11:]), "bpe", bpemodel=vocab.bpemodel)


def test_nothing_random_and_nothing_that_cuts_is_kept() -> None:
    given = json.loads(
        changed(truncation={"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"})
    )
    given["model"]["dropout"] = 0.9
    kept = json.loads(canonical(json.dumps(given).encode()))
    assert kept["truncation"] is None and kept["model"]["dropout"] is None and kept["post_processor"] is None
    assert len(TokenizerJson(json.dumps(given).encode()).split("a dog runs over the grass")) > 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"normalizer": {"type": "Custom"}}, "normalizer 'Custom' is not one of"),
        ({"pre_tokenizer": "x"}, "pre_tokenizer 'x' is not one of"),
        ({"model": {"type": "Wasm"}}, "a model of type 'Wasm' is not one of"),
        ({"model": 3}, "damaged tokenizer.json"),
        ({"model": {"type": "BPE", "vocab": 3}}, "damaged tokenizer.json"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}},
         "a pattern that may take for ever"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a" * 2000}}}, "a pattern that may take for ever"),
        ({"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 20}] * 2}}, "makes texts explode"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\0" * 40).decode()}},
         "normaliser without a table"),
    ],
)  # fmt: skip
def test_strangers_tokenizers(more: dict[str, Any], words: str) -> None:
    assert words in faults(changed(**more))


def test_patterns_of_published_models_are_taken() -> None:
    llama = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    deepseek = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    for pattern in (llama, deepseek):
        step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        steps = {"type": "Sequence", "pretokenizers": [step]}
        assert json.loads(canonical(changed(pre_tokenizer=steps)))["pre_tokenizer"] == steps


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model with a tokenizer"):
        of_model(str(tmp_path))
