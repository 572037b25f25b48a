"""A text corpus for AN4's vocabulary: phonemes of invented sentences, with errors, and their words.

Of 844 training transcripts a decoder learns names by heart. Of many invented ones it learns to copy. Words follow each
other as in the training transcripts (bigrams) or, now and then, at random. No audio and no test sentence is used.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.data.datadir import validate
from espnet2_legonn.data.phonemes import Lexicon
from espnet2_legonn.data.tables import read_table, write_table
from espnet2_legonn.errors import command

END = ""


class Bigrams:
    """Random sentences whose word pairs are those of given texts.

    Args:
        texts: sentences.
        words: the vocabulary of random words.
        random_share: chance that a word is any word (between letters, any letter).
        repeat_share: chance that a word is said twice, as letters of names and digits of numbers are.
    """

    def __init__(self, texts: Sequence[str], words: Sequence[str], random_share: float, repeat_share: float) -> None:
        self._next: dict[str, list[str]] = defaultdict(list)
        for text in texts:
            sentence = [END, *text.split(), END]
            for word, after in zip(sentence, sentence[1:], strict=False):
                self._next[word].append(after)
        self._words = list(words)
        self._letters = [word for word in words if len(word) == 1]
        self._share, self._repeat = random_share, repeat_share

    def sample(self, draw: random.Random, longest: int = 20) -> list[str]:
        """One sentence of at least one word."""
        sentence: list[str] = []
        last = END
        while len(sentence) < longest:
            word = draw.choice(self._next.get(last) or self._words)
            if word == END and sentence:
                break
            if draw.random() < self._share:
                word = draw.choice(self._letters if len(last) == 1 and len(word) == 1 else self._words)
            if word != END:
                sentence += [word] * (1 + (draw.random() < self._repeat))
                last = word
        return sentence


def misheard(phonemes: Sequence[str], inventory: Sequence[str], rate: float, draw: random.Random) -> list[str]:
    """Phonemes with substitutions, insertions and deletions, each at a third of `rate`, and never empty."""
    heard: list[str] = []
    for phoneme in phonemes:
        chance = draw.random() / rate
        if chance < 1 / 3:
            heard.append(draw.choice(inventory))
        elif chance < 2 / 3:
            heard += [phoneme, draw.choice(inventory)]
        elif chance >= 1:
            heard.append(phoneme)
    return heard or list(phonemes)


@command
def main() -> None:
    """Write a data directory with src_text (phonemes) and text (words)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/train"), help="data directory of the transcripts")
    parser.add_argument("--lexicon", type=Path, default=Path("data/local/lexicon.txt"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=20000)
    parser.add_argument("--random_share", type=float, default=0.3)
    parser.add_argument("--repeat_share", type=float, default=0.15)
    parser.add_argument("--error_rate", type=float, default=0.1, help="of phonemes")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    lexicon = Lexicon(args.lexicon).entries
    texts = list(read_table(args.data / "text").values())
    bigrams = Bigrams(texts, sorted(lexicon), args.random_share, args.repeat_share)
    inventory = sorted({phoneme for phonemes in lexicon.values() for phoneme in phonemes})
    draw = random.Random(args.seed)
    text, heard = {}, {}
    for index in range(args.sentences):
        words = bigrams.sample(draw)
        phonemes = [phoneme for word in words for phoneme in lexicon[word]]
        key = f"{args.out.name}-{index:06d}"
        text[key] = " ".join(words)
        heard[key] = " ".join(misheard(phonemes, inventory, args.error_rate, draw))
    write_table(args.out / "text", text)
    write_table(args.out / "src_text", heard)
    write_table(args.out / "utt2spk", {key: key for key in text})
    write_table(args.out / "spk2utt", {key: key for key in text})
    print(f"{args.out}: {validate(args.out)} sentences")


if __name__ == "__main__":
    sys.exit(main())
