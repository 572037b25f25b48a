"""Decode a list of utterances in batches and write what ESPnet's recipes expect."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from espnet2_legonn.data import audio
from espnet2_legonn.data.tables import read_table, write_table
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.inputs import Batch, normalized
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.model.module import DecoderModule, produced
from espnet2_legonn.model.parts.speech import SpeechInput
from espnet2_legonn.search.chain_search import ScorerMaker
from espnet2_legonn.search.options import BeamOptions

# What a chain reads, by the kind of its first port: file of a data directory, ESPnet's name and type of it.
KINDS = {"speech": ("wav.scp", "speech", "sound"), "tokens": ("src_text", "src_text", "text")}
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


def _lengths(chain: LegoNN, inputs: dict[str, str], bad: dict[str, str] | None = None) -> dict[str, float]:
    """Utterances with something to decode, and how long each is: inputs of similar length are decoded together.

    Args:
        bad: faults by utterance go there.

    Raises:
        DataError: audio that is missing, no audio or cut short; all of it, before hours of decoding.
    """
    if chain.input_kind != "speech":
        vocab = chain.first.ports[0].vocab
        assert vocab is not None
        return {uid: len(text) for uid, text in inputs.items() if normalized(text, vocab).strip()}
    found, faults = {}, []
    for uid, spec in inputs.items():
        try:
            found[uid] = audio.seconds(spec) or 0.0
        except DataError as error:
            faults += [f"utterance {uid}: {fault}" for fault in error.faults]
            if bad is not None:
                bad[uid] = str(error)
    if faults and bad is None:
        raise DataError(faults)
    return found


def _batch(chain: LegoNN, inputs: Mapping[str, str | np.ndarray], uids: Sequence[str]) -> Batch:
    try:
        return chain.batch([inputs[uid] for uid in uids])
    except DataError as error:

        def named(fault: str) -> str:
            place, _, rest = fault.partition(": ")
            known = place.startswith("input ") and place[6:].isdigit()
            return f"utterance {uids[int(place[6:])]}: {rest}" if known else fault

        raise DataError(map(named, error.faults)) from None


def _waves(
    chain: LegoNN, inputs: dict[str, str], uids: Sequence[str], channel: str | None, bad: dict[str, str] | None
) -> dict[str, np.ndarray]:
    """Sound of the utterances that can be read, as the chain needs it; faults of the others go to `bad`.

    Another rate, or several channels without a choice, are no fault of one file but of the set.

    Raises:
        DataError: these, and without `bad` every fault.
    """
    assert isinstance(chain.first.input, SpeechInput)
    fs = chain.first.input.fs
    waves, faults = {}, []
    for uid in uids:
        try:
            samples, rate = audio.read_audio(inputs[uid])
        except DataError as error:
            faults += [f"utterance {uid}: {fault}" for fault in error.faults] if bad is None else []
            if bad is not None:
                bad[uid] = str(error)
            continue
        try:
            waves[uid] = audio.to_mono(samples, channel)
        except DataError as error:
            faults.append(f"utterance {uid}: '{inputs[uid]}' {error}")
        if rate != fs:
            faults.append(
                f"utterance {uid}: '{inputs[uid]}' is sampled at {rate} Hz, this model was trained at {fs} Hz; "
                "resample it first (stage 3, `format --fs`)"
            )
    if faults:
        raise DataError(faults)
    return waves


def each_batch(
    chain: LegoNN,
    inputs: dict[str, str],
    batch_size: int,
    title: str,
    channel: str | None = None,
    bad: dict[str, str] | None = None,
) -> Iterator[tuple[list[str], torch.Tensor, torch.Tensor]]:
    """Utterance ids, padded inputs and lengths, those of similar length together; shows progress.

    Texts without words are left out: there is nothing to decode.

    Args:
        channel: of audio with several, `mean` or a number from 0.
        bad: what is wrong with audio that cannot be read goes there, by utterance, and it is left out.

    Raises:
        DataError: inputs that cannot be read, by utterance.
    """
    lengths = _lengths(chain, inputs, bad)
    order = sorted(lengths, key=lengths.__getitem__)
    with tqdm(total=len(order), unit="utt", desc=title, file=sys.stderr, mininterval=5.0) as progress:
        for begin in range(0, len(order), batch_size):
            uids = order[begin : begin + batch_size]
            progress.update(len(uids))
            if chain.input_kind == "speech":
                waves = _waves(chain, inputs, uids, channel, bad)
                if waves:
                    yield list(waves), *_batch(chain, waves, list(waves))
            else:
                yield uids, *_batch(chain, inputs, uids)


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
        inputs: utterance id to audio file or source text; the answer to a text without words is empty, and said to be.
        options: of the search.
        batch_size: utterances at once; it does not change the answers.
        more: other scorers, see ``search.chain_search``.
        channel: of audio with several, `mean` or a number from 0.

    The answer to audio that cannot be read is empty, too, and each is named: one file never loses a set.

    Raises:
        DataError: none of the audio can be read, it has another rate than the chain's, or several channels.
    """
    bad: dict[str, str] = {}
    vocab = chain.last.ports[1].vocab
    interfaces = {n: Tables() for n, m in zip(chain.names, chain) if not isinstance(m, DecoderModule) and produced(m)}
    result = Decoded([Tables() for _ in range(options.nbest)], interfaces)
    start, done = time.perf_counter(), set[str]()
    for uids, x, lengths in each_batch(chain, inputs, batch_size, "decode", channel, bad):
        answers, found = chain.decode_batch(x, lengths, options, more)
        assert vocab is not None
        for uid, hypotheses in zip(uids, answers):
            for tables, hypothesis in zip(result.nbest, hypotheses):
                tables.add(uid, hypothesis.ids, hypothesis.score, vocab, hypothesis.parts)
        for module, marginals in found.items():
            _add_greedy(result.interfaces[module], uids, marginals)
        done.update(uids)
        if isinstance(chain.first.input, SpeechInput):
            result.audio += float(lengths.sum()) / chain.first.input.fs
    if bad and len(bad) == len(inputs):
        raise DataError(f"utterance {uid}: {fault}" for uid, fault in bad.items())
    for uid, fault in bad.items():
        logging.warning("utterance %s: %s", uid, fault)
    _add_empty(result, list(bad), "cannot be read")
    _add_empty(result, [uid for uid in inputs if uid not in done and uid not in bad], "have no words")
    result.seconds = time.perf_counter() - start
    return result


def _add_empty(result: Decoded, uids: Sequence[str], why: str) -> None:
    if not uids:
        return
    more = " ..." if len(uids) > 5 else ""
    logging.warning("%d inputs %s; their answer is empty: %s%s", len(uids), why, " ".join(uids[:5]), more)
    for tables in (*result.nbest, *result.interfaces.values()):
        for uid in uids:
            tables.text[uid] = tables.token[uid] = tables.token_int[uid] = ""
            tables.score[uid] = f"{0.0:.6f}"


def _add_greedy(tables: Tables, uids: Sequence[str], marginals: Marginals) -> None:
    best = marginals.log_probs.max(-1).values
    for i, (uid, ids) in enumerate(zip(uids, marginals.greedy_ids())):
        score = float(best[i, : int(marginals.lengths[i])].sum())
        tables.add(uid, ids, score, marginals.interface.vocab)
