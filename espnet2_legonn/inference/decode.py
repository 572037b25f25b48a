"""Decode a list of utterances in batches and write what ESPnet's recipes expect."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from espnet2_legonn.data.tables import Faults, Made, Table, few, joined, ordered, read_table, write_table
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError, harmless
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.inputs import UnknownTokens
from espnet2_legonn.model.module import DecoderModule, produced
from espnet2_legonn.model.parts import Column, InputPart, Unfit
from espnet2_legonn.search.answers import Answer
from espnet2_legonn.search.chain_search import ScorerMaker
from espnet2_legonn.search.options import BeamOptions

# Batches whose inputs are sorted by length together, and written together.
WINDOW = 32
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

    def places(self) -> Iterator[tuple[str, Tables]]:
        """Folders of ESPnet's layout, ``<n>best_recog``, and ``interfaces/<module>``, with what is in them."""
        yield from ((f"{n}best_recog", tables) for n, tables in enumerate(self.nbest, 1))
        yield from ((f"interfaces/{module}", tables) for module, tables in self.interfaces.items())

    def update(self, more: Decoded) -> None:
        """Take in the answers to other inputs."""
        for (_, tables), (_, others) in zip(self.places(), more.places()):
            for name in FILES:
                getattr(tables, name).update(getattr(others, name))
        self.seconds += more.seconds
        self.audio += more.audio


def chosen(path: Path, keys: Path | None = None) -> Made:
    """Ids and what to decode in order of the ids, read anew each time: all of a table, or those in a list of keys.

    Raises:
        DataError: a file is missing or faulty, or the table has not all of the keys.
    """
    table, wanted = Table(path), None if keys is None else Table(keys)

    def rows() -> Iterator[tuple[str, str]]:
        if wanted is None:
            yield from table.items()
            return
        faults = Faults()
        for key, row in joined([wanted.rows(), table.rows()]):
            if key is not None and row is not None:
                yield row.key, row.value
            elif key is not None:
                faults.add(f"{path}: no line for {key.key}")
        if faults:
            raise DataError(faults)

    def check() -> None:
        for _ in rows():
            pass

    ordered(check)
    return Made(rows)


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
        raise DataError(f"{path}: no line for {few(missing)}")
    return {key: table[key] for key in keys}


def inputs_of(chain: LegoNN, data: Path, limit: int = 0) -> dict[str, str]:
    """Utterance ids and what a chain reads of a data directory, in its order.

    Args:
        limit: so many utterances, spread evenly over the set (0: all). The first ones of sorted speech are of one or
            two speakers.

    Raises:
        ConfigError: limit is less than 0. DataError: there are none; or see ``source_of`` and ``read_inputs``.
    """
    if limit < 0:
        raise ConfigError(f"limit: {limit} is less than 0")
    source = source_of(chain, data)
    rows = list(read_inputs(source).items())
    if not rows:
        raise DataError(f"{source}: the file is empty; nothing to decode")
    if 0 < limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    return dict(rows)


def source_of(chain: LegoNN, data: Path) -> Path:
    """The table of a data directory that a chain reads.

    Raises:
        DataError: see ``column_of``.
    """
    return data / column_of(chain).table


def without_words(source: Path, inputs: Collection[str], done: Collection[str]) -> list[str]:
    """Utterances that ``each_batch`` left out; their answer is empty, and they are named and counted.

    Args:
        source: where all of them stand; done: those that it gave.

    Raises:
        DataError: all were left out.
    """
    left = [uid for uid in inputs if uid not in done]
    if len(left) == len(inputs):
        raise DataError(f"{source}: none of the {len(left)} inputs has words; there must be a text behind each id")
    _warn_empty(left, "have no words")
    return left


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


def warn_of_unknown(chain: LegoNN, inputs: Mapping[str, str]) -> None:
    """One warning for all texts with tokens that a chain does not know."""
    part = chain.first.input
    found = {uid: unknown for uid, value in inputs.items() if (unknown := part.unknown(value))}
    if not found:
        return
    most = dict.fromkeys(itertools.chain.from_iterable(found.values()))
    language = part.vocab.language if part.vocab else None
    logging.warning(
        "%d of %d utterances have tokens that %s does not know, it reads <unk> there: %s (tokens: %s); "
        "is this the language and the writing that it reads%s?",
        len(found), len(inputs), chain.names[0], few(list(found)), harmless(" ".join(list(most)[:10])),
        f" ({language})" if language else "",
    )  # fmt: skip


@contextlib.contextmanager
def naming(uids: Sequence[str]) -> Iterator[None]:
    """Faults of inputs by number become those of utterances; ``warn_of_unknown`` has told of unknown tokens.

    Raises:
        DataError: these.
    """
    try:
        with _told():
            yield
    except DataError as error:
        faults = map(_placed, error.faults)
        raise DataError(f if n is None else f"utterance {uids[n]}: {f}" for n, f in faults) from None


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """No warning for each text with unknown tokens: ``warn_of_unknown`` has told of all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownTokens)
        yield


def _placed(fault: str) -> tuple[int | None, str]:
    """Which input a fault is of, and the fault; None for what is not of one input."""
    match = re.fullmatch(r"input (\d+): (.*)", fault, re.DOTALL)
    return (int(match[1]), match[2]) if match else (None, fault)


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
    channel: str | None = None,
    bad: dict[str, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Items by utterance, those of similar length together.

    Texts without words are left out: there is nothing to decode. Those with unknown tokens are named together.

    Args:
        channel: of audio with several, `mean` or a number from 0.
        bad: what is wrong with inputs that cannot be read goes there, by utterance, and it is left out.

    Raises:
        ConfigError: batch_size is less than 1. DataError: inputs that cannot be read, by utterance.
    """
    _require_size(batch_size)
    part = chain.first.input
    lengths = _lengths(part, inputs, bad)
    warn_of_unknown(chain, {uid: inputs[uid] for uid in lengths})
    order = sorted(lengths, key=lengths.__getitem__)
    for begin in range(0, len(order), batch_size):
        if items := _fetch(part, inputs, order[begin : begin + batch_size], channel, bad):
            yield items


def _require_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size} is less than 1")


def decode_windows(
    chain: LegoNN,
    inputs: Iterable[tuple[str, str]],
    options: BeamOptions,
    batch_size: int = 32,
    more: Sequence[ScorerMaker] = (),
    channel: str | None = None,
    done: int = 0,
    total: int | None = None,
) -> Iterator[Decoded]:
    """Decode inputs, ``WINDOW`` batches at a time: in each window those of similar length together.

    Args:
        chain: in evaluation mode; without a decoder module CTC of the last interface searches.
        inputs: utterance id and what the table has; the answer to a text without words is empty, and said to be.
        options: of the search.
        batch_size: utterances at once; it does not change the answers. What does not fit in memory is split.
        more: other scorers, see ``search.chain_search``.
        channel: of audio with several, `mean` or a number from 0.
        done: inputs that are left out, since an earlier run decoded them; total: all of them, to show progress.

    The answer to what cannot be read is empty, too, and each is named: one file never loses a set.

    Raises:
        ConfigError: batch_size is less than 1.
        DataError: none of the inputs can be read, or they do not fit the model (sound of another rate, of several
            channels).
    """
    _require_size(batch_size)
    faults, answered = Faults(), done > 0
    rest = itertools.islice(inputs, done, None)
    with tqdm(total=total, initial=done, unit="utt", desc="decode", file=sys.stderr, mininterval=5.0) as progress:
        while window := dict(itertools.islice(rest, WINDOW * batch_size)):
            bad: dict[str, str] = {}
            result = _decode(chain, window, options, batch_size, more, channel, bad, progress.update)
            answered = answered or len(bad) < len(window)
            if not answered:
                faults.add(*(f"utterance {uid}: {fault}" for uid, fault in bad.items()))
            yield result
    if not answered and faults:
        raise DataError(faults)


def _decode(
    chain: LegoNN,
    inputs: dict[str, str],
    options: BeamOptions,
    batch_size: int,
    more: Sequence[ScorerMaker],
    channel: str | None,
    bad: dict[str, str],
    told: Callable[[int], object],
) -> Decoded:
    part, result = chain.first.input, _nothing(chain, options)
    start, done = time.perf_counter(), set[str]()
    for items in each_batch(chain, inputs, batch_size, channel, bad):
        for uid, answer in _answers(chain, items, options, more, bad):
            _add(result, uid, answer)
            done.add(uid)
        result.audio += part.seconds(torch.tensor([len(item) for item in items.values()]))
        told(len(items))
    for uid, fault in bad.items():
        logging.warning("utterance %s: %s", uid, fault)
    _add_empty(result, list(bad), "cannot be read")
    _add_empty(result, [uid for uid in inputs if uid not in done and uid not in bad], "have no words")
    result.seconds = time.perf_counter() - start
    return result


def _answers(
    chain: LegoNN,
    items: dict[str, Any],
    options: BeamOptions,
    more: Sequence[ScorerMaker],
    bad: dict[str, str],
) -> Iterator[tuple[str, Answer]]:
    """Answers of a batch without what cannot be used; of its halves, where the whole does not fit in memory."""
    try:
        with _told():
            found = chain.answer(list(items.values()), options, more)
    except DataError as error:
        uids, lost = list(items), dict(map(_placed, error.faults))
        if None in lost:  # a fault of the model or of the search
            raise
        bad |= {uids[number]: fault for number, fault in lost.items() if number is not None}
        rest = {uid: item for uid, item in items.items() if uid not in bad}
        yield from _answers(chain, rest, options, more, bad) if rest else ()
        return
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        found = None  # outside of this block the traceback, and all that it holds, is gone
    if found is not None:
        yield from zip(items, found)
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(items) == 1:
        bad[next(iter(items))] = "does not fit in memory by itself; split it, or lower beam_size"
        return
    logging.warning("%d inputs do not fit in memory together; they are split", len(items))
    rows = iter(items.items())
    for half in (dict(itertools.islice(rows, len(items) // 2)), dict(rows)):
        yield from _answers(chain, half, options, more, bad)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was too small: on GPUs PyTorch has a class for it, on CPUs only words."""
    words = ("not enough memory", "can't allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def decode_table(
    chain: LegoNN,
    inputs: dict[str, str],
    options: BeamOptions,
    batch_size: int = 32,
    more: Sequence[ScorerMaker] = (),
    channel: str | None = None,
) -> Decoded:
    """Answers to all inputs in memory; see ``decode_windows``."""
    windows = decode_windows(chain, inputs.items(), options, batch_size, more, channel, total=len(inputs))
    result = _nothing(chain, options)
    for window in windows:
        result.update(window)
    return result


def _nothing(chain: LegoNN, options: BeamOptions) -> Decoded:
    interfaces = {n: Tables() for n, m in zip(chain.names, chain) if not isinstance(m, DecoderModule) and produced(m)}
    return Decoded([Tables() for _ in range(options.nbest)], interfaces)


def _add(result: Decoded, uid: str, answer: Answer) -> None:
    for tables, hypothesis in zip(result.nbest, answer.nbest):
        tables.add(uid, hypothesis.ids, hypothesis.score, answer.vocab, hypothesis.parts)
    for module, path in answer.interfaces.items():
        result.interfaces[module].add(uid, path.ids, path.score, path.marginals.interface.vocab)


def _warn_empty(uids: Sequence[str], why: str) -> None:
    if uids:
        logging.warning("%d inputs %s; their answer is empty: %s", len(uids), why, few(uids))


def _add_empty(result: Decoded, uids: Sequence[str], why: str) -> None:
    _warn_empty(uids, why)
    for tables in (*result.nbest, *result.interfaces.values()):
        for uid in uids:
            tables.text[uid] = tables.token[uid] = tables.token_int[uid] = ""
            tables.score[uid] = f"{0.0:.6f}"
