"""Decoded validation score of a set of weights, for checkpoint averaging."""

from __future__ import annotations

from pathlib import Path

import torch

from espnet2_legonn import store
from espnet2_legonn.api import LegoNN
from espnet2_legonn.build import build_modules
from espnet2_legonn.config import parse
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.decode import KINDS, decode_table, read_inputs
from espnet2_legonn.interface import Vocabulary
from espnet2_legonn.schema import read_yaml
from espnet2_legonn.scoring.translation import change_of
from espnet2_legonn.search.beam import BeamOptions
from espnet2_legonn.train.averaging import choose


def reference_file(vocab: Vocabulary, data: Path) -> Path:
    """What a module with this vocabulary should say: phonemes or words."""
    return data / ("text_phn" if vocab.unit == "phn" else "text")


def corpus_score(refs: list[str], hyps: list[str], metric: str) -> float:
    """BLEU, or minus the error rate in percent: higher is better."""
    if metric.startswith("bleu"):
        import sacrebleu

        change = change_of(metric, None)
        if change is None:
            return float(sacrebleu.corpus_bleu(hyps, [refs]).score)
        hyps, refs = list(map(change.hyp, hyps)), list(map(change.ref, refs))
        return float(sacrebleu.corpus_bleu(hyps, [refs], tokenize=change.tokenize, force=True).score)
    import jiwer

    return -100.0 * float(jiwer.wer(refs, hyps))


def choose_window(
    exp: Path, data: Path, metric: str, window: int, candidates: int, stride: int, limit: int, beam_size: int
) -> tuple[Path, list[tuple[str, float]]]:
    """See ``train.averaging.choose``; decodes the validation set ``data`` with each averaged window.

    By the paper's search, whatever search decodes the test sets: windows compare as in the paper, and at its cost.
    """
    config_data = read_yaml(exp / store.CONFIG)
    config = parse({"vocabs": config_data["vocabs"], "modules": config_data["modules"]})
    modules, vocabs = build_modules(config, exp)
    chain = LegoNN(modules, config.modules, vocabs).eval()
    inputs = read_inputs(data / KINDS[chain.input_kind][0])
    if limit:
        inputs = dict(list(inputs.items())[:limit])
    vocab = next(m.ports[1].vocab for m in reversed(list(chain)) if m.ports[1].vocab is not None)
    refs = read_table(reference_file(vocab, data))

    def score(state: dict[str, torch.Tensor]) -> float:
        store.fill(chain, {k.removeprefix("chain."): v for k, v in state.items()}, str(exp))
        texts = decode_table(chain, inputs, BeamOptions(beam_size, ctc_weight=0.0), 64).nbest[0].text
        return corpus_score([refs[k] for k in inputs], [texts[k] for k in inputs], metric)

    return choose(exp, window, score, candidates, stride)
