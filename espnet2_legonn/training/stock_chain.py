"""A trained chain in the shape of ESPnet's ASR model: a folder that ESPnet's own decoding reads.

::

    waveforms -- encoder modules --> h --.-- ESPnet's CTC layer, with the weights of the last interface
    frontend     encoder                 '-- that interface, ingestor, decoder module --> text
    legonn_waves legonn_chain                decoder: legonn_chain

ESPnet knows one list of tokens. Where the last interface has another vocabulary than the text, its CTC can take no part
in ESPnet's search, and the folder has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.build import build_modules
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.description import ChainConfig, VocabConfig, parse, plain
from espnet2_legonn.model.module import DecoderModule, EncoderModule
from espnet2_legonn.model.transformer import CrossTransformer
from espnet2_legonn.packs.files import replacing
from espnet2_legonn.training.compat import load
from espnet2_legonn.training.stock import AbsDecoder, AbsEncoder, HypothesisScorer

AbsFrontend = load("espnet2.asr.frontend.abs_frontend").AbsFrontend

WAVES, CHAIN = "legonn_waves", "legonn_chain"
CONFIG, WEIGHTS, PIECES = "config.yaml", "valid.acc.ave.pth", "bpe.model"
UNITS = {"bpe": "bpe", "char": "char", "word": "word", "phn": "phn"}


class WaveFrontend(AbsFrontend):  # type: ignore[misc, valid-type]
    """``legonn_waves``: waveforms as they are; the chain makes its own features."""

    def output_size(self) -> int:
        """One value for each sample."""
        return 1

    def forward(self, input: torch.Tensor, input_lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, samples), (B,) -> (B, samples, 1), (B,)."""
        return input.unsqueeze(-1), input_lengths


class ChainEncoder(AbsEncoder):
    """``legonn_chain``: the encoder modules of a chain, up to the states below the last interface.

    Args:
        input_size: 1 (given by the task).
        description: of the chain, as plain data.
    """

    def __init__(self, input_size: int, description: dict[str, Any]) -> None:
        super().__init__()
        modules = build_modules(parse(description))[0]
        self.mods = torch.nn.ModuleList(module for module in modules if isinstance(module, EncoderModule))

    def output_size(self) -> int:
        """Width of the last encoder module."""
        last = self.mods[-1]
        assert isinstance(last, EncoderModule)
        return int(last.config.body.size)

    def forward(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor, prev_states: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """(B, samples, 1), (B,) -> states (B, K, D), slots (B,), None."""
        x, lengths = xs_pad.squeeze(-1), ilens
        for module in self.mods[:-1]:
            x, lengths = module(x, lengths)
        last = self.mods[-1]
        assert isinstance(last, EncoderModule)
        return *last.states(x, lengths), None


class ChainDecoder(AbsDecoder, HypothesisScorer):
    """``legonn_chain``: the last interface and the decoder module.

    Args:
        vocab_size: V (given by the task).
        encoder_output_size: width D of the states (given by the task).
        description: of the chain, as plain data.
    """

    def __init__(self, vocab_size: int, encoder_output_size: int, description: dict[str, Any]) -> None:
        super().__init__()
        encoder, decoder = build_modules(parse(description))[0][-2:]
        assert isinstance(encoder, EncoderModule) and isinstance(decoder, DecoderModule)
        self.interface, self.module = encoder.interface, decoder

    @property
    def body(self) -> CrossTransformer:  # type: ignore[override]
        """The decoder module's."""
        body = self.module.body
        assert isinstance(body, CrossTransformer)
        return body

    def embedded(self, ids: torch.Tensor, start: int = 0) -> torch.Tensor:
        """See HypothesisScorer."""
        return self.module._embed(ids, start)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """See HypothesisScorer."""
        return self.module.logits(states)

    def memory(self, x: torch.Tensor) -> torch.Tensor:
        """The states of one utterance (1, K, D), read as a distribution and ingested."""
        lengths = torch.tensor([x.shape[1]], device=x.device)
        memory, steps = self.module.ingest(self.interface(x), lengths)
        return memory[:, : int(steps)]

    def forward(
        self, hs_pad: torch.Tensor, hlens: torch.Tensor, ys_in_pad: torch.Tensor, ys_in_lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher forcing: states (B, K, D), (B,), ids (B, L) from <sos/eos> on, (B,) -> logits (B, L, V), (B,)."""
        memory, lengths = self.module.ingest(self.interface(hs_pad), hlens)
        return self.logits(self.body(self.embedded(ys_in_pad), memory, lengths)), ys_in_lens


def is_export(folder: Path) -> bool:
    """Whether a folder holds what ``write`` makes and nothing else."""
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= {CONFIG, WEIGHTS, PIECES}


def write(chain: Chain, folder: Path) -> list[str]:
    """Write a chain as an ASR experiment of ESPnet; the folder appears whole or not at all.

    Args:
        folder: is replaced if it holds such an experiment and nothing else.

    Returns:
        what a user of ESPnet must know of it.

    Raises:
        ConfigError: every reason why ESPnet's ASR model cannot be this chain.
        FileExistsError: the folder holds something else.
    """
    if faults := _faults(chain):
        raise ConfigError(faults)
    encoders, decoder = _parts(chain)
    vocab, heard = chain.last.ports[1].vocab, encoders[-1].ports[1].vocab
    assert vocab is not None
    judges, notes = heard is not None and heard.tokens == vocab.tokens, list[str]()
    if decoder is None:
        notes.append("it has no decoder: decode with ctc_weight 1")
    elif not judges:
        notes.append("its last interface has other tokens than its text: decode with ctc_weight 0, as the paper does")
    with replacing(folder, is_export, "ASR experiment of this command") as new:
        config = _config(chain, vocab, folder)
        config |= {"model_conf": {"ctc_weight": 1.0 if decoder is None else 0.5 if judges else 0.0}}
        config |= {"decoder": CHAIN if decoder else None, "decoder_conf": config["encoder_conf"] if decoder else {}}
        if vocab.unit == "bpe":
            (new / PIECES).write_bytes(vocab.bpemodel or b"")
            config["bpemodel"] = str(folder / PIECES)
        text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
        (new / CONFIG).write_text(text, encoding="utf-8")
        torch.save(_weights(chain, judges), new / WEIGHTS)
    return notes


def _parts(chain: Chain) -> tuple[list[EncoderModule], DecoderModule | None]:
    """The encoder modules, and the decoder module if there is one."""
    encoders = [module for module in chain if isinstance(module, EncoderModule)]
    return encoders, chain.last if isinstance(chain.last, DecoderModule) else None


def _faults(chain: Chain) -> list[str]:
    column, (encoders, decoder), found = chain.first.config.reads.data, _parts(chain), []
    if not encoders or column is None or column.type != "sound":
        found.append(f"{chain.names[0]}: reads {chain.input_kind}; ESPnet's ASR model reads waveforms")
    if decoder is None and chain.last.ports[1].kind != "marginals":
        found.append(f"{chain.names[-1]}: writes {chain.last.ports[1].kind}, and there is no decoder")
    if decoder is not None and not isinstance(decoder.body, CrossTransformer):
        found.append(f"{chain.names[-1]}.body: {decoder.config.body.type} is not searched by ESPnet")
    vocab = chain.last.ports[1].vocab
    if vocab is not None and vocab.unit not in UNITS:
        found.append(f"{chain.names[-1]}: tokens of unit {vocab.unit!r}; ESPnet's ASR model has {', '.join(UNITS)}")
    return found


def _config(chain: Chain, vocab: Vocabulary, folder: Path) -> dict[str, Any]:
    """ESPnet's own defaults with this chain in them."""
    from espnet2_legonn.training.register import register_classes

    register_classes("asr")
    parser = load("espnet2.tasks.asr").ASRTask.get_parser()
    vocabs = {name: VocabConfig(list(v.tokens), v.unit) for name, v in chain.vocabs.items()}
    about = {"description": plain(ChainConfig(vocabs, chain.configs))}
    chosen: dict[str, Any] = {"frontend": WAVES, "frontend_conf": {}, "specaug": None, "normalize": None}
    chosen |= {"normalize_conf": {}, "encoder": CHAIN, "encoder_conf": about, "token_list": list(vocab.tokens)}
    chosen |= {"ctc_conf": {}, "token_type": UNITS[vocab.unit], "num_att_plot": 0, "ngpu": 0}
    return {**vars(parser.parse_args(["--output_dir", str(folder)])), **chosen}


def _weights(chain: Chain, judges: bool) -> dict[str, torch.Tensor]:
    """By their names in ESPnet's model."""
    encoders, decoder = _parts(chain)
    interface, found = encoders[-1].interface, dict[str, torch.Tensor]()
    for i, module in enumerate(encoders):
        found |= {f"encoder.mods.{i}.{name}": tensor for name, tensor in module.state_dict().items()}
    if decoder is not None:
        found |= {f"decoder.interface.{name}": tensor for name, tensor in interface.state_dict().items()}
        found |= {f"decoder.module.{name}": tensor for name, tensor in decoder.state_dict().items()}
    if judges:
        layer = interface.get_submodule("ctc_lo")
        found |= {f"ctc.ctc_lo.{name}": tensor for name, tensor in layer.state_dict().items()}
    return found
