"""Hotwords in the search: gains by hand, all texts listed, rows that are mixed and leave."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from espnet2_legonn.data.hf_vocab import of_model
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.interface import Interface, Marginals
from espnet2_legonn.search.chain_search import search_ctc
from espnet2_legonn.search.hotwords import HotwordScorer, HotwordTree, tree_of
from espnet2_legonn.search.options import BeamOptions
from tests.modules import language
from tests.search.listing import log, texts_of

WORDS = Vocabulary(("<blank>", "<unk>", "new", "york", "city", "<sos/eos>"), "word")
PIECES = ("<blank>", "<unk>", "\u2581ca", "\u2581", "t", "s", "\u2581dog", "<sos/eos>")
CHARS = Vocabulary(("<blank>", "<unk>", "<space>", "a", "c", "t", "s", "<sos/eos>"), "char")


class Pieces(Vocabulary):
    """BPE whose texts are split as they are written here, without a model."""

    def split(self, text: str) -> list[str]:
        return {"cat": ["\u2581ca", "t"], "cat dog": ["\u2581ca", "t", "\u2581dog"]}[text]


def gained(tree: HotwordTree, tokens: list[int]) -> float:
    """Of a whole text, its end included."""
    node, total = torch.tensor([[tree.first]]), 0.0
    for token in [*tokens, tree.end]:
        node, gain = tree.step(node, torch.tensor([[token]]))
        total += float(gain)
    return total


def ids(vocab: Vocabulary, text: str) -> list[int]:
    return [vocab.ids[token] for token in text.split()]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("new york", 2), ("new city", 1), ("new", 0), ("city city", 2), ("new york city", 3), ("york", 0),
        ("new new york", 2), ("", 0), ("new york york", 2), ("york city new york", 3),
    ],
)  # fmt: skip
def test_whole_hotwords_gain_and_begun_ones_give_it_back(text: str, wanted: float) -> None:
    assert gained(HotwordTree(["new york", "city"], WORDS), ids(WORDS, text)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("new york", 2), ("new", 1), ("new york city", 3), ("new city", 1), ("new york new", 3), ("york city", 0)],
)
@pytest.mark.parametrize("phrases", [["new", "new york", "new york city"], ["new york city", "new york", "new"]])
def test_a_hotword_may_begin_another(phrases: list[str], text: str, wanted: float) -> None:
    assert gained(HotwordTree(phrases, WORDS), ids(WORDS, text)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\u2581ca t", 2), ("\u2581ca t s", 0), ("\u2581ca t \u2581dog", 3), ("\u2581ca t \u2581ca t", 4),
        ("\u2581ca t s \u2581ca t", 2), ("\u2581ca t \u2581dog s", 2), ("\u2581 \u2581ca t", 2),
    ],
)  # fmt: skip
def test_more_of_the_same_word_is_another_word(text: str, wanted: float) -> None:
    vocab = Pieces(PIECES, "bpe")
    assert gained(HotwordTree(["cat", "cat dog"], vocab), ids(vocab, text)) == wanted


def test_characters_know_words_by_what_is_before_them() -> None:
    tree = HotwordTree(["cat"], CHARS)
    nothing = gained(tree, [])  # the border before the first word is given back
    for text, wanted in (("cat", 4), ("cats", 0), ("a cat", 4), ("acat", 0), ("cat cat", 8), ("a cats", 0)):
        assert gained(tree, CHARS.encode(text)) - nothing == wanted, text


def test_merges_know_words_by_what_is_before_them() -> None:
    merges = b"#version: 0.2\nc a\nca t</w>\nd o\ndo g</w>\n"
    vocab = Vocabulary(("<blank>", "<unk>", "con@@", "cat", "do@@", "dog", "<sos/eos>"), "bpe", None, None, merges)
    tree = HotwordTree(["cat"], vocab)
    for text, wanted in (("cat", 1), ("con@@ cat", 0), ("dog cat", 1), ("cat dog", 1), ("do@@ con@@ cat cat", 1)):
        assert gained(tree, ids(vocab, text)) == wanted, text


def test_punctuation_ends_a_word() -> None:
    vocab = Pieces(("<blank>", "<unk>", "\u2581ca", "t", ",", "'", "<sos/eos>"), "bpe")
    tree = HotwordTree(["cat"], vocab)
    assert [gained(tree, ids(vocab, f"\u2581ca t{more}")) for more in ("", " ,", " ' t")] == [2, 2, 0]


@pytest.mark.skipif(not language.THERE, reason="needs transformers: pip install 'espnet2_legonn[pretrained]'")
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_words_of_a_language_models_tokenizer(name: str, tmp_path: Path) -> None:
    """Bytes with a blank before a word ("dog" alone is two tokens), and whole words without any."""
    vocab = of_model(str(language.write(tmp_path, name))).vocab
    tree, first, rest = HotwordTree(["dog"], vocab), len(vocab.encode("dog")), len(vocab.encode("a dog")) - 1
    for text, wanted in (("dog", first), ("a dog", rest), ("a dog runs", rest), ("dog dog", first + rest)):
        assert gained(tree, vocab.encode(text)) == wanted, text
    if name == "gpt2":
        assert vocab.split("adog") == ["a", "do", "g"] and gained(tree, vocab.encode("adog")) == 0
        assert gained(tree, vocab.encode("a dogs")) == 0 and gained(tree, vocab.encode("a dog, a")) == rest


def test_a_tree_is_made_once() -> None:
    assert tree_of(("new york",), WORDS, "cpu") is tree_of(("new york",), WORDS, "cpu")


def test_what_cannot_be_spelled_is_named() -> None:
    with pytest.raises(ConfigError) as error:
        HotwordTree(["new", "tokyo", " "], WORDS)
    assert len(error.value.faults) == 2 and "'tokyo' cannot be spelled" in error.value.faults[0]


def marginals() -> Marginals:
    torch.manual_seed(3)
    lengths = torch.tensor([4, 2, 4])
    return Marginals((2 * torch.randn(3, 4, len(WORDS))).log_softmax(-1), lengths, Interface(WORDS))


def test_the_search_finds_the_best_of_all_texts() -> None:
    """A beam that holds everything agrees with all texts listed by their alignments."""
    found = marginals()
    options = BeamOptions(beam_size=300, length_penalty=0.0, hotwords=("new york",), hotword_weight=1.3, nbest=3)
    tree = HotwordTree(["new york"], WORDS)
    for answers, item in zip(search_ctc(found, options), (found[i] for i in range(3))):
        texts = texts_of(item.log_probs[0])
        scores = {t: log(p) + 1.3 * gained(tree, list(t)) for t, p in texts.items() if WORDS.sos_eos_id not in t}
        best = sorted(scores.items(), key=lambda pair: -pair[1])[:3]
        assert [(tuple(a.ids), pytest.approx(a.log_prob, abs=1e-4)) for a in answers] == best
        for answer in answers:
            assert answer.parts["hotwords"] == gained(tree, answer.ids)


def test_answers_do_not_depend_on_the_batch() -> None:
    found, options = marginals(), BeamOptions(beam_size=3, hotwords=("new york", "city"), nbest=3)
    together = search_ctc(found, options)
    for i in range(3):
        alone = search_ctc(found[i], options)[0]
        assert [h.ids for h in alone] == [h.ids for h in together[i]]
        assert [h.log_prob for h in alone] == pytest.approx([h.log_prob for h in together[i]], abs=1e-5)


def test_without_weight_nothing_changes() -> None:
    found = marginals()
    plain = search_ctc(found, BeamOptions())
    assert search_ctc(found, BeamOptions(hotwords=("city",), hotword_weight=0.0)) == plain
    assert search_ctc(found, BeamOptions(hotwords=("city",), hotword_weight=9.0)) != plain


def test_a_begun_hotword_is_proposed_on() -> None:
    tree = HotwordTree(["new york", "new city", "york"], WORDS)
    scorer = HotwordScorer(tree, 1, 2, 1.0)
    assert scorer.propose(3).flatten().unique().tolist() == [0], "at the root all words may begin one"
    scorer.advance(torch.tensor([0, 1]), torch.tensor(ids(WORDS, "new york")), None)
    assert scorer.propose(3).tolist() == [[[3, 4, 0], [0, 0, 0]]]


def test_rows_are_mixed_and_leave() -> None:
    tree, generator = HotwordTree(["new york", "city new"], WORDS), torch.Generator().manual_seed(0)
    scorer = HotwordScorer(tree, 3, 2, 1.0)
    texts: list[list[int]] = [[] for _ in range(6)]
    for going in ([0, 1, 2], [0, 2], [1]):
        rows = torch.tensor([2 * b + int(i) for b in going for i in torch.randint(0, 2, (2,), generator=generator)])
        tokens = torch.randint(2, 5, (len(rows),), generator=generator)
        scorer.advance(rows, tokens, torch.tensor(going))
        texts = [[*texts[row], token] for row, token in zip(rows.tolist(), tokens.tolist())]
        every = torch.arange(1, 6).expand(len(going), 2, -1)
        found = scorer.score(every).view(len(texts), -1)
        for text, row in zip(texts, found.tolist()):
            one = HotwordScorer(tree, 1, 1, 1.0)
            for token in text:
                one.advance(torch.tensor([0]), torch.tensor([token]), None)
            assert row == one.score(every[:1, :1]).flatten().tolist()


@pytest.mark.parametrize("seed", range(3))
def test_gains_add_up_to_the_words_that_were_said(seed: int) -> None:
    """Single words: a text gains a token for each of its words that is a hotword, whatever the order."""
    tree = HotwordTree(["new", "city"], WORDS)
    for text in itertools.product(range(2, 5), repeat=seed + 1):
        assert gained(tree, list(text)) == sum(t != WORDS.ids["york"] for t in text)
