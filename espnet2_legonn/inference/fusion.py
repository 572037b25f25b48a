"""Language models that are named by options: files to scorers of the search."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import torch

from espnet2_legonn import foreign
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.packs.store import read_checkpoint
from espnet2_legonn.search.chain_search import ScorerMaker
from espnet2_legonn.search.lm import LMScorer
from espnet2_legonn.search.ngram import NgramModel, NgramScorer
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.search.scorers import Scorer

# Of ESPnet's: those that are made of their own description alone.
KINDS = ("seq_rnn", "transformer")
_KENLM = b"mmap lm http"


def makers(options: BeamOptions, vocab: Vocabulary) -> list[ScorerMaker]:
    """Makers of the scorers that options name by files; each file is read once.

    Args:
        options: with weights filled in.
        vocab: tokens that are searched.

    Raises:
        ConfigError, CheckpointError, DataError: a model that is missing, damaged, or over other tokens.
    """
    found: list[ScorerMaker] = []
    if options.lm_file or options.lm_train_config:
        file = Path(options.lm_file or "")
        config = Path(options.lm_train_config or file.parent / "config.yaml")
        if not options.lm_file:
            raise ConfigError("lm_train_config: its weights are missing; give lm_file")

        def make_lm(utterances: int, beam: int, device: torch.device) -> Scorer:
            model = _lm(config, file, _version(file), vocab, str(device))
            return LMScorer(model, vocab.sos_eos_id, utterances, beam, options.lm_weight or 0.0, device)

        found.append(make_lm)
    if options.ngram_file:
        path = Path(options.ngram_file)

        def make_ngram(utterances: int, beam: int, device: torch.device) -> Scorer:
            model = _ngram(path, _version(path), vocab, str(device))
            return NgramScorer(model, utterances, beam, options.ngram_weight or 0.0)

        found.append(make_ngram)
    return found


def _version(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


@functools.lru_cache(maxsize=2)
def _ngram(path: Path, version: int, vocab: Vocabulary, device: str) -> NgramModel:
    if path.is_file() and path.open("rb").read(len(_KENLM)) == _KENLM:
        raise ConfigError(f"ngram_file: {path} is KenLM's binary; give the ARPA file that it was made of")
    return NgramModel.read(path, vocab, device)


@functools.lru_cache(maxsize=2)
def _lm(config: Path, file: Path, version: int, vocab: Vocabulary, device: str) -> Any:
    if not config.is_file():
        raise ConfigError(f"lm_train_config: {config}: no such file; it lies beside the weights of ESPnet's lm_train")
    about = read_config(config)
    if not isinstance(about, dict) or "lm" not in about or "token_list" not in about:
        raise ConfigError(f"{config}: describes no language model of ESPnet's (no lm, no token_list)")
    if about["lm"] not in KINDS:
        raise ConfigError(f"{config}: lm: {about['lm']} is not one of {', '.join(KINDS)}")
    if tuple(about["token_list"]) != vocab.tokens:
        raise ConfigError(
            f"{config}: the language model is over {len(about['token_list'])} other tokens than the {len(vocab)} that "
            "are searched; train it with the token list of the chain's last vocabulary (stages 6 and 7)"
        )
    task = foreign.load("espnet2.tasks.lm").LMTask
    model = task.build_model(argparse.Namespace(**{**about, "init": None}))
    try:
        model.load_state_dict(read_checkpoint(file))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: weights of another model than {config} ({reason})") from None
    return model.lm.to(device).eval()
