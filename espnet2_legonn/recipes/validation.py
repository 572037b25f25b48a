"""Decoded validation score of a set of weights, for checkpoint averaging."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import torch

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.inference.decode import decode_table, inputs_of, source_of
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.build import build_modules
from espnet2_legonn.packs import store
from espnet2_legonn.recipes.stages import chain_config
from espnet2_legonn.scoring import metrics, tables
from espnet2_legonn.search.beam import BeamOptions
from espnet2_legonn.training.averaging import choose


def read_references(metric: str, data: Path, vocab: Vocabulary, keys: Collection[str], source: Path) -> list[list[str]]:
    """References of a data directory for a metric, one list for each file, in the order of ``keys``.

    Args:
        vocab: of what is scored: words, or phonemes; source: the table that is decoded.

    Raises:
        DataError: no such metric, PER of words; or see ``scoring.tables.read_references``.
    """
    metrics.require_scored_by(metric, {"the last module": vocab.unit})
    files = metrics.reference_files(metric, data, "text_phn" if vocab.unit == "phn" else "text")
    return [[table[k] for k in keys] for table in tables.read_references(files, source, keys)]


def place(ngpu: int, num_threads: int) -> str:
    """The device to decode on: a GPU if one is asked for and there, else CPUs with so many threads (0: as it is)."""
    if ngpu > 0 and torch.cuda.is_available():
        return "cuda"
    if ngpu > 0:
        logging.warning("no GPU is available: decoding on CPUs")
    if num_threads > 0:
        torch.set_num_threads(num_threads)
    return "cpu"


def choose_window(
    exp: Path,
    data: Path,
    metric: str,
    window: int,
    candidates: int,
    stride: int,
    limit: int,
    beam_size: int,
    length_penalty: float | None = None,
    device: str = "cpu",
) -> tuple[Path, list[tuple[str, float]]]:
    """See ``train.averaging.choose``; decodes the validation set ``data`` with each averaged window.

    By the decoder alone, as the paper, whatever search decodes the test sets.

    Raises:
        DataError: no such metric, or a reference is missing; before anything is decoded.
    """
    better = 1.0 if metrics.known(metric).higher else -1.0
    chain = LegoNN(*build_modules(chain_config(exp / store.CONFIG), exp)).eval().to(device)
    inputs = inputs_of(chain, data, limit)
    vocab = next(m.ports[1].vocab for m in reversed(list(chain)) if m.ports[1].vocab is not None)
    assert vocab is not None
    refs = read_references(metric, data, vocab, inputs, source_of(chain, data))

    def score(state: dict[str, torch.Tensor]) -> float:
        store.fill(chain, {k.removeprefix("chain."): v for k, v in state.items()}, str(exp))
        texts = decode_table(chain, inputs, BeamOptions(beam_size, length_penalty, ctc_weight=0.0), 64).nbest[0].text
        return better * metrics.value(metric, refs, [texts[k] for k in inputs], vocab.language)

    return choose(exp, window, score, candidates, stride)
