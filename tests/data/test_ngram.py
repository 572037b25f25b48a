"""N-gram models: the numbers of KenLM's lmplz, ARPA there and back, what is wrong with a damaged file, the command."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.data import ngram
from espnet2_legonn.data.arpa import read_arpa, write_arpa
from espnet2_legonn.data.ngram import NgramTree, estimate
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.legonn import LegoNN

GOLDEN = Path(__file__).parent / "golden"


def sentences() -> list[list[str]]:
    """The text that the golden files were made of (`lmplz -o 3`, and `--prune 0 0 1`): Zipf's law, more or less."""
    seed, found = 1, []
    for _ in range(250):
        sentence: list[str] = []
        while len(sentence) < 9:
            seed = seed * 48271 % 2147483647
            word = int(90 * (seed / 2147483647) ** 4)
            sentence.append(f"w{word}")
            if word < 2 and len(sentence) > 1:
                break
        found.append(sentence)
    return found


def vocabulary(words: list[str] | None = None) -> Vocabulary:
    words = words or sorted({word for sentence in sentences() for word in sentence})
    return Vocabulary(("<blank>", "<unk>", *words, "<sos/eos>"), "word")


def estimated(vocab: Vocabulary, order: int = 3, prune: tuple[int, ...] = ()) -> NgramTree:
    return estimate([vocab.encode(" ".join(s)) for s in sentences()], len(vocab), order, prune)


def assert_same(a: NgramTree, b: NgramTree, tolerance: float) -> None:
    assert a.sizes == b.sizes and np.array_equal(a.keys, b.keys)
    np.testing.assert_allclose(a.log_probs, b.log_probs, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.backoffs, b.backoffs, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "prune"), [("lmplz", ()), ("lmplz_pruned", (0, 0, 1))])
def test_estimates_are_those_of_lmplz(name: str, prune: tuple[int, ...]) -> None:
    vocab = vocabulary()
    golden = read_arpa(GOLDEN / f"{name}.arpa.gz", vocab)
    assert golden.sizes == (92, 519, 75 if prune else 651)
    assert_same(estimated(vocab, prune=prune), golden, 1e-6)


@pytest.mark.filterwarnings("ignore:n-gram")
def test_counting_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = estimated(vocabulary(), 4)
    monkeypatch.setattr(ngram, "CHUNK", 50)
    assert_same(estimated(vocabulary(), 4), whole, 0)


@pytest.mark.filterwarnings("ignore:n-gram")
def test_pruning_holds_for_the_orders_that_follow() -> None:
    vocab = vocabulary()
    assert_same(estimated(vocab, 4, (0, 1)), estimated(vocab, 4, (0, 1, 1, 1)), 0)


@pytest.mark.filterwarnings("ignore:n-gram.*of order 2")
def test_a_text_like_no_language_gets_fixed_discounts() -> None:
    with pytest.warns(
        UserWarning, match="too few or too regular.*1-grams that occur once, twice, three and four times: 1, 1, 0, 0"
    ):
        tree = estimate([[2, 2, 2]], 4, 2)
    # One context <s>, with one bigram of count 1, of which 0.5 is taken: half the weight goes to the unigrams.
    assert tree.backoffs[tree.vocab_size] == pytest.approx(np.log10(0.5))


@pytest.mark.parametrize(
    ("prune", "order", "fault"),
    [((1,), 2, "begin with 0"), ((0, 2, 1), 3, "never fall"), ((), 0, "order 0 is less than 1")],
)
def test_impossible_orders_and_limits(prune: tuple[int, ...], order: int, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        estimate([[2]], 5, order, prune)


@pytest.mark.parametrize(
    ("text", "fault"), [([[], []], "no sentence"), ([[4]], "outside the vocabulary's 1 to 3"), ([[0]], "outside")]
)
def test_texts_without_an_estimate(text: list[list[int]], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        estimate(text, 5)


@pytest.mark.filterwarnings("ignore:n-gram")
@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_arpa_there_and_back(tmp_path: Path, order: int, name: str) -> None:
    vocab = vocabulary()
    tree = estimated(vocab, order)
    write_arpa(tmp_path / name, tree, vocab)
    assert_same(read_arpa(tmp_path / name, vocab), tree, 0)
    write_arpa(tmp_path / f"again_{name}", tree, vocab)
    assert (tmp_path / f"again_{name}").read_bytes() == (tmp_path / name).read_bytes()
    assert ((tmp_path / name).read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")


@pytest.mark.filterwarnings("ignore:n-gram")
def test_a_token_with_a_blank_cannot_be_written(tmp_path: Path) -> None:
    vocab = vocabulary(["a b", "c", "</s>"])
    with pytest.raises(DataError, match=r"token 2 \('a b'\) cannot be written[^$]*token 4"):
        write_arpa(tmp_path / "lm.arpa", estimate([[3, 3]], len(vocab), 1), vocab)
    assert not list(tmp_path.iterdir())


# A model over <unk>, a, b: lines 1 to 17.
ARPA = """
\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t-0.3
-0.5\t</s>
-1.5\t<unk>
-0.6\ta\t-0.2
-0.7\tb

\\2-grams:
-0.1\t<s> a
-0.4\ta b

\\end\\
"""


def test_what_the_vocabulary_and_the_file_do_not_share(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    tree = read_arpa(path, vocabulary(["a", "c"]))  # c has the probability of <unk>, b is left out
    np.testing.assert_allclose(tree.log_probs[2:6], [-1.5, -0.6, -1.5, -0.5], atol=1e-6)
    assert tree.sizes == (5, 1) and tree.backoffs[5] == np.float32(-0.3)
    path.write_text(ARPA.replace("-1.5\t<unk>\n", "").replace("1=5", "1=4"))
    assert read_arpa(path, vocabulary(["a", "c"])).log_probs[4] == -100
    with pytest.warns(UserWarning, match="knows 1 of the vocabulary's 3 tokens"):
        read_arpa(path, vocabulary(["a", "c", "d"]))
    with pytest.raises(DataError, match="knows no token of the vocabulary"):
        read_arpa(path, vocabulary(["c", "d"]))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("\\data\\", "data", ":17: no line \\data\\"),
        ("ngram 1=5\nngram 2=2\n", "", ":4: no 'ngram 1=...'"),
        ("ngram 2=2", "ngram 3=2", ":4: 'ngram 2=...' is expected here, this line is 'ngram 3=2'"),
        ("\\2-grams:", "\\3-grams:", ":13: \\2-grams: is expected here, this line is '\\\\3-grams:'"),
        ("ngram 2=2", "ngram 2=3", ":17: 2 2-grams; the head of the file promises 3"),
        ("-0.4\ta b", "-0.4\ta", ":15: 2 fields; a 2-gram has"),
        ("-0.4\ta b", "-0.4\ta b\t-1\t-1", ":15: 5 fields"),
        ("-0.4\ta b", "-O.4\ta b", ":15: no number: '-O.4'"),
        ("-0.4\ta b", "0.4\ta b", ":15: log10 probability 0.4, back-off weight 0: impossible"),
        ("-0.4\ta b", "nan\ta b", ":15: log10 probability nan"),
        ("-0.6\ta\t-0.2", "-0.6\ta\tinf", ":10: log10 probability -0.6, back-off weight inf"),
        ("-0.4\ta b", "-0.1\t<s> a", ":15: this 2-gram stands in the file twice"),
        ("-0.7\tb", "-0.7\ta", ":11: this unigram stands in the file twice"),
        ("-0.5\t</s>", "-0.5\tc", ": no unigram </s>"),
        ("\\end\\\n", "", ":16: the file ends without \\end\\"),
        ("\\end\\", "\\3-grams:", ":17: \\end\\ is expected here"),
        ("\n\\1-grams:", "", ":6: 'ngram 3=...' is expected here"),
    ],
)
def test_damaged_files(tmp_path: Path, old: str, new: str, fault: str) -> None:
    path = tmp_path / "lm.arpa"
    assert ARPA.count(old) == 1
    path.write_text(ARPA.replace(old, new))
    with pytest.raises(DataError) as caught:
        read_arpa(path, vocabulary(["a", "b"]))
    assert str(caught.value).startswith(str(path)) and fault in str(caught.value), caught.value


def test_a_context_that_is_no_ngram(tmp_path: Path) -> None:
    text = ARPA.replace("ngram 2=2\n", "ngram 2=2\nngram 3=1\n")
    (tmp_path / "lm.arpa").write_text(text.replace("\\end\\", "\\3-grams:\n-0.1 b a b\n\n\\end\\"))
    with pytest.raises(DataError, match=r"lm.arpa:19: the first 2 tokens of this 3-gram are no 2-gram"):
        read_arpa(tmp_path / "lm.arpa", vocabulary(["a", "b"]))


def test_files_that_are_no_arpa(tmp_path: Path) -> None:
    vocab, path = vocabulary(["a", "b"]), tmp_path / "lm"
    with pytest.raises(DataError, match="lm: no such n-gram model; `legonn ngram` makes one"):
        read_arpa(path, vocab)
    path.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0\0")
    with pytest.raises(DataError, match="lm:1: a binary file of KenLM; give the ARPA file"):
        read_arpa(path, vocab)
    whole = gzip.compress(ARPA.encode())
    for data in (whole[:-12], whole[:40] + b"\xff" + whole[41:]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"lm:\d+: damaged or truncated"):
            read_arpa(path, vocab)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocab = vocabulary()
    (tmp_path / "tokens.txt").write_text("".join(f"{token}\n" for token in vocab.tokens))
    lines = [" ".join(sentence) + "\n" for sentence in sentences()]
    (tmp_path / "plain").write_text("".join(lines))
    for name, part in (("one", lines[:99]), ("two", lines[99:])):
        (tmp_path / name).write_text("".join(f"u{i:03} {line}" for i, line in enumerate(part)))
    base = ["--vocab", str(tmp_path), "--unit", "word", "--order", "3", "--prune", "0", "0", "1"]
    out = tmp_path / "lm.arpa.gz"
    assert main(["ngram", str(tmp_path / "one"), str(tmp_path / "two"), *base, "-o", str(out)]) == 0
    assert f"{out}: 92 1-grams, 519 2-grams, 75 3-grams, 0.0 MB" in capsys.readouterr().out
    assert_same(read_arpa(out, vocab), read_arpa(GOLDEN / "lmplz_pruned.arpa.gz", vocab), 1e-6)
    again = tmp_path / "again.arpa.gz"
    assert main(["ngram", str(tmp_path / "plain"), "--plain", *base, "-o", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()
    assert main(["ngram", str(tmp_path / "plain"), "--plain", *base[:4], "--order", "0", "-o", str(out)]) == 2
    assert "order 0 is less than 1" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:n-gram")
def test_the_vocabulary_of_a_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"num_blocks": 1, "size": 8, "heads": 2, "linear_units": 8}
    body, vocab = {"type": "transformer", **sizes}, vocabulary(["b", "a"])
    first = {"name": "reader", "input": {"type": "tokens", "vocab": "v"}, "body": body}
    for kind, output in (("marginals", {"vocab": "v"}), ("states", {"type": "states"})):
        spec = {"v": {"tokens": list(vocab.tokens), "unit": "word"}}
        LegoNN.from_config({"vocabs": spec, "modules": [{**first, "output": output}]}).save(tmp_path / kind)
    (tmp_path / "text").write_text("u a b a\n")
    out = tmp_path / "lm.arpa"
    base = ["ngram", str(tmp_path / "text"), "-o", str(out), "--order", "2", "--vocab"]
    assert main([*base, str(tmp_path / "marginals")]) == 0
    assert_same(read_arpa(out, vocab), estimate([[3, 2, 3]], len(vocab), 2), 0)
    assert main([*base, str(tmp_path / "states")]) == 2
    assert "reader, its last module, writes no tokens; name a folder with tokens.txt" in capsys.readouterr().err
