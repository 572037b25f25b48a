"""Decode a list of utterances in batches and write what ESPnet's recipes expect."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from espnet2_legonn.data.tables import read_table, write_table
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.module import DecoderModule, produced
from espnet2_legonn.model.parts import Column, InputPart, Unfit
from espnet2_legonn.search.answers import Answer
from espnet2_legonn.search.chain_search import ScorerMaker
from espnet2_legonn.search.options import BeamOptions

# Tables of an output folder; ``scores``, which ESPnet has not, is the log-probability by scorer: decoder=-3.2 ctc=-4.1.
FILES = ("text", "token", "token_int", "score", "scores")


_WHITE = re.compile(r"\s")


def _code_point(match: re.Match[str]) -> str:
    return f"<U+{ord(match[0]):04X}>"


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
        # A table has one line for each answer, and only blanks part its words.
        self.text[uid] = " ".join(vocab.decode(ids).split())
        self.token[uid] = " ".join(_WHITE.sub(_code_point, vocab.tokens[i]) for i in ids)
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
    """n-best answers (index 0 is the best) and greedy answers of every interface, by module name.

    ``seconds``: that decoding took; ``audio``: seconds of what was decoded, 0 for texts.
    """

    nbest: list[Tables]
    interfaces: dict[str, Tables]
    seconds: float = 0.0
    audio: float = 0.0

    def write(self, folder: Path) -> None:
        """``<n>best_recog/`` and ``interfaces/<module>/`` below ``folder``."""
        for i, tables in enumerate(self.nbest, 1):
            tables.write(folder / f"{i}best_recog")
        for module, tables in self.interfaces.items():
            tables.write(folder / "interfaces" / module)


def read_inputs(path: Path, keys: Sequence[str] | None = None) -> dict[str, str]:
    """Utterance ids and what to decode: a line each of the table of the chain's input.

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


def column_of(chain: LegoNN) -> Column:
    """Where a data directory has what a chain reads.

    Raises:
        DataError: none has it.
    """
    column = chain.first.input.data
    if column is None:
        raise DataError(f"{chain.names[0]} reads {chain.input_kind}, which no data directory has")
    return column


def _lengths(part: InputPart, inputs: dict[str, str], bad: dict[str, str] | None = None) -> dict[str, float]:
    """Utterances with something to decode, and how long each is: inputs of similar length are decoded together.

    Args:
        bad: faults by utterance go there.

    Raises:
        DataError: inputs that cannot be read, all of them, before hours of decoding.
    """
    found, faults = {}, []
    for uid, value in inputs.items():
        try:
            length = part.measure(value)
            if length is not None:
                found[uid] = length
        except DataError as error:
            faults += [f"utterance {uid}: {fault}" for fault in error.faults]
            if bad is not None:
                bad[uid] = str(error)
    if faults and bad is None:
        raise DataError(faults)
    return found


@contextlib.contextmanager
def naming(uids: Sequence[str]) -> Iterator[None]:
    """Faults of inputs by number become those of utterances.

    Raises:
        DataError: these.
    """
    try:
        yield
    except DataError as error:

        def named(fault: str) -> str:
            place, _, rest = fault.partition(": ")
            known = place.startswith("input ") and place[6:].isdigit()
            return f"utterance {uids[int(place[6:])]}: {rest}" if known else fault

        raise DataError(map(named, error.faults)) from None


def _fetch(
    part: InputPart, inputs: dict[str, str], uids: Sequence[str], channel: str | None, bad: dict[str, str] | None
) -> dict[str, Any]:
    """Items of the utterances that can be read; faults of the others go to ``bad``.

    What does not fit the model (another rate, several channels without a choice) is a fault of the whole set.

    Raises:
        DataError: this, and without ``bad`` every fault.
    """
    items, faults = {}, []
    for uid in uids:
        try:
            items[uid] = part.fetch(inputs[uid], channel)
        except DataError as error:
            if bad is None or isinstance(error, Unfit):
                faults += [f"utterance {uid}: {fault}" for fault in error.faults]
            else:
                bad[uid] = str(error)
    if faults:
        raise DataError(faults)
    return items


def each_batch(
    chain: LegoNN,
    inputs: dict[str, str],
    batch_size: int,
    title: str,
    channel: str | None = None,
    bad: dict[str, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Items by utterance, those of similar length together; shows progress.

    Texts without words are left out: there is nothing to decode.

    Args:
        channel: of audio with several, `mean` or a number from 0.
        bad: what is wrong with inputs that cannot be read goes there, by utterance, and it is left out.

    Raises:
        DataError: inputs that cannot be read, by utterance.
    """
    part = chain.first.input
    lengths = _lengths(part, inputs, bad)
    order = sorted(lengths, key=lengths.__getitem__)
    with tqdm(total=len(order), unit="utt", desc=title, file=sys.stderr, mininterval=5.0) as progress:
        for begin in range(0, len(order), batch_size):
            uids = order[begin : begin + batch_size]
            progress.update(len(uids))
            if items := _fetch(part, inputs, uids, channel, bad):
                yield items


def decode_table(
    chain: LegoNN,
    inputs: dict[str, str],
    options: BeamOptions,
    batch_size: int = 32,
    more: Sequence[ScorerMaker] = (),
    channel: str | None = None,
) -> Decoded:
    """Decode all inputs, those of similar length together.

    Args:
        chain: in evaluation mode; without a decoder module CTC of the last interface searches.
        inputs: utterance id to what the table has; the answer to a text without words is empty, and said to be.
        options: of the search.
        batch_size: utterances at once; it does not change the answers.
        more: other scorers, see ``search.chain_search``.
        channel: of audio with several, `mean` or a number from 0.

    The answer to what cannot be read is empty, too, and each is named: one file never loses a set.

    Raises:
        DataError: none of the inputs can be read, or they do not fit the model (sound of another rate, of several
            channels).
    """
    bad: dict[str, str] = {}
    part = chain.first.input
    interfaces = {n: Tables() for n, m in zip(chain.names, chain) if not isinstance(m, DecoderModule) and produced(m)}
    result = Decoded([Tables() for _ in range(options.nbest)], interfaces)
    start, done = time.perf_counter(), set[str]()
    for items in each_batch(chain, inputs, batch_size, "decode", channel, bad):
        with naming(list(items)):
            answers = chain.answer(list(items.values()), options, more)
        for uid, answer in zip(items, answers):
            _add(result, uid, answer)
        done.update(items)
        result.audio += part.seconds(torch.tensor([len(item) for item in items.values()]))
    if bad and len(bad) == len(inputs):
        raise DataError(f"utterance {uid}: {fault}" for uid, fault in bad.items())
    for uid, fault in bad.items():
        logging.warning("utterance %s: %s", uid, fault)
    _add_empty(result, list(bad), "cannot be read")
    _add_empty(result, [uid for uid in inputs if uid not in done and uid not in bad], "have no words")
    result.seconds = time.perf_counter() - start
    return result


def _add(result: Decoded, uid: str, answer: Answer) -> None:
    for tables, hypothesis in zip(result.nbest, answer.nbest):
        tables.add(uid, hypothesis.ids, hypothesis.score, answer.vocab, hypothesis.parts)
    for module, path in answer.interfaces.items():
        result.interfaces[module].add(uid, path.ids, path.score, path.marginals.interface.vocab)


def _add_empty(result: Decoded, uids: Sequence[str], why: str) -> None:
    if not uids:
        return
    more = " ..." if len(uids) > 5 else ""
    logging.warning("%d inputs %s; their answer is empty: %s%s", len(uids), why, " ".join(uids[:5]), more)
    for tables in (*result.nbest, *result.interfaces.values()):
        for uid in uids:
            tables.text[uid] = tables.token[uid] = tables.token_int[uid] = ""
            tables.score[uid] = f"{0.0:.6f}"
