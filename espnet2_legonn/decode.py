"""Decode a list of utterances in batches and write what ESPnet's recipes expect."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from espnet2_legonn.api import LegoNN
from espnet2_legonn.data.tables import read_table, write_table
from espnet2_legonn.errors import DataError
from espnet2_legonn.interface import Marginals, Vocabulary
from espnet2_legonn.search.chain_search import ScorerMaker
from espnet2_legonn.search.options import BeamOptions

# What a chain reads, by the kind of its first port: file of a data directory, ESPnet's name and type of it.
KINDS = {"speech": ("wav.scp", "speech", "sound"), "tokens": ("src_text", "src_text", "text")}
# Tables of an output folder; ``scores``, which ESPnet has not, is the log-probability by scorer: decoder=-3.2 ctc=-4.1.
FILES = ("text", "token", "token_int", "score", "scores")


@dataclass
class Tables:
    """Answers by utterance, one table for each file of ESPnet's output folders."""

    text: dict[str, str] = field(default_factory=dict)
    token: dict[str, str] = field(default_factory=dict)
    token_int: dict[str, str] = field(default_factory=dict)
    score: dict[str, str] = field(default_factory=dict)
    scores: dict[str, str] = field(default_factory=dict)

    def add(
        self, uid: str, ids: list[int], score: float, vocab: Vocabulary, parts: dict[str, float] | None = None
    ) -> None:
        """One answer; ``parts``: its log-probability by scorer."""
        self.text[uid] = vocab.decode(ids)
        self.token[uid] = " ".join(vocab.tokens[i] for i in ids)
        self.token_int[uid] = " ".join(map(str, ids))
        self.score[uid] = f"{score:.6f}"
        if parts is not None:
            self.scores[uid] = " ".join(f"{name}={value:.6f}" for name, value in parts.items())

    def write(self, folder: Path) -> None:
        """text, token, token_int, score, and scores if there are parts of them, sorted by utterance."""
        for name in FILES:
            if name != "scores" or self.scores:
                write_table(folder / name, getattr(self, name))


@dataclass
class Decoded:
    """n-best answers (index 0 is the best) and greedy answers of every interface, by module name."""

    nbest: list[Tables]
    interfaces: dict[str, Tables]
    seconds: float = 0.0

    def write(self, folder: Path) -> None:
        """``<n>best_recog/`` and ``interfaces/<module>/`` below ``folder``."""
        for i, tables in enumerate(self.nbest, 1):
            tables.write(folder / f"{i}best_recog")
        for module, tables in self.interfaces.items():
            tables.write(folder / "interfaces" / module)


def read_inputs(path: Path, keys: Sequence[str] | None = None) -> dict[str, str]:
    """Utterance ids and what to decode: audio files from ``wav.scp``, or source text.

    Raises:
        DataError: the file is missing, or has not all of ``keys``.
    """
    table = read_table(path)
    if keys is None:
        return table
    missing = [key for key in keys if key not in table]
    if missing:
        raise DataError(f"{path}: no line for {', '.join(missing[:5])}" + (" ..." if len(missing) > 5 else ""))
    return {key: table[key] for key in keys}


def _cost(chain: LegoNN) -> Callable[[str], float]:
    if chain.input_kind == "speech":
        import soundfile

        return lambda path: soundfile.info(path).frames if Path(path).is_file() else 0.0
    return len


def each_batch(
    chain: LegoNN, inputs: dict[str, str], batch_size: int, title: str
) -> Iterator[tuple[list[str], torch.Tensor, torch.Tensor]]:
    """Utterance ids, padded inputs and lengths, those of similar length together; shows progress.

    Raises:
        DataError: inputs that cannot be read, by utterance.
    """
    cost = _cost(chain)
    order = sorted(inputs, key=lambda uid: cost(inputs[uid]))
    with tqdm(total=len(order), unit="utt", desc=title, file=sys.stderr, mininterval=5.0) as progress:
        for begin in range(0, len(order), batch_size):
            uids = order[begin : begin + batch_size]
            try:
                x, lengths = chain.batch([inputs[uid] for uid in uids])
            except DataError as error:
                raise DataError([f"utterances {uids[0]} ... {uids[-1]}: {fault}" for fault in error.faults]) from None
            yield uids, x, lengths
            progress.update(len(uids))


def decode_table(
    chain: LegoNN,
    inputs: dict[str, str],
    options: BeamOptions,
    batch_size: int = 32,
    more: Sequence[ScorerMaker] = (),
) -> Decoded:
    """Decode all inputs, those of similar length together.

    Args:
        chain: in evaluation mode; without a decoder module CTC of the last interface searches.
        inputs: utterance id to audio file or source text.
        options: of the search.
        batch_size: utterances at once; it does not change the answers.
        more: other scorers, see ``search.chain_search``.

    Raises:
        DataError: inputs that cannot be read, by utterance.
    """
    vocab = chain.last.ports[1].vocab
    result = Decoded([Tables() for _ in range(options.nbest)], {})
    start = time.perf_counter()
    for uids, x, lengths in each_batch(chain, inputs, batch_size, "decode"):
        answers, found = chain.decode_batch(x, lengths, options, more)
        assert vocab is not None
        for uid, hypotheses in zip(uids, answers):
            for tables, hypothesis in zip(result.nbest, hypotheses):
                tables.add(uid, hypothesis.ids, hypothesis.score, vocab, hypothesis.parts)
        for module, marginals in found.items():
            _add_greedy(result.interfaces.setdefault(module, Tables()), uids, marginals)
    result.seconds = time.perf_counter() - start
    return result


def _add_greedy(tables: Tables, uids: Sequence[str], marginals: Marginals) -> None:
    best = marginals.log_probs.max(-1).values
    for i, (uid, ids) in enumerate(zip(uids, marginals.greedy_ids())):
        score = float(best[i, : int(marginals.lengths[i])].sum())
        tables.add(uid, ids, score, marginals.interface.vocab)
