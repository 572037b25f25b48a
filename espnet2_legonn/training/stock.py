"""LegoNN's parts in the shape of ESPnet's own encoders and decoders, for its own tasks (``register()``).

What a stock ASR model makes of ``legonn_wemb`` and ``legonn_beam_conv``::

    features -> conv -> transformer -> length control -> h -- intermediate CTC loss
                                                         '--> softmax(ctc(h)) -> ingestor -> decoder

ESPnet's model gives its CTC layer to encoders that ask for self-conditioning; these ask for it, and their
ingestor reads the distributions that the layer makes. Equation 9, as far as ESPnet's options express it::

    encoder: legonn_wemb
    decoder: legonn
    # 0.5 CE + 0.5 (0.999 CTC(h) + 0.001 CTC(encoder output)); ESPnet refuses an interctc_weight of 1
    model_conf:
      ctc_weight: 0.5
      interctc_weight: 0.999

Decode with ``ctc_weight: 0``: ESPnet's search takes CTC scores from the encoder output, not the interface.
The text of the interface is written beside the results, in ``encoder_interctc_layer<num_blocks>.txt``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.description import parse_ratio
from espnet2_legonn.model.dropout import Dropout
from espnet2_legonn.model.length_control import LengthController
from espnet2_legonn.model.masks import zero_padding
from espnet2_legonn.model.parts.beam_conv import BeamConvolution
from espnet2_legonn.model.parts.frames import ConvSubsampling
from espnet2_legonn.model.parts.ingestor import Ingestor
from espnet2_legonn.model.parts.wemb import WeightedEmbedding
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.stepping import CrossMemory, Projection
from espnet2_legonn.model.transformer import BodyConfig, CrossTransformer, TransformerEncoder
from espnet2_legonn.training.compat import load

AbsEncoder = load("espnet2.asr.encoder.abs_encoder").AbsEncoder
AbsDecoder = load("espnet2.asr.decoder.abs_decoder").AbsDecoder
BatchScorerInterface = load("espnet.nets.scorer_interface").BatchScorerInterface


def _ratio(value: str | float) -> tuple[int, int]:
    try:
        ratio = parse_ratio(value)
    except ValueError:
        raise ConfigError(
            f"encoder_conf.length_ratio: {value!r} is not a positive number or a quotient such as 1/3"
        ) from None
    return ratio.numerator, ratio.denominator


def _check_width(where: str, size: int, heads: int) -> None:
    if size % heads or size % 2:
        raise ConfigError(f"{where}: {size} must be even and a multiple of attention_heads ({heads})")


class LegoNNEncoder(AbsEncoder):  # type: ignore[misc, valid-type]
    """Convolutions, transformer and output length controller; the stock CTC grounds its output.

    An item does not depend on its padding.

    Args:
        input_size: features of a frame (given by the task).
        output_size: width D.
        attention_heads, linear_units, num_blocks: of the transformer.
        dropout_rate: everywhere.
        length_ratio: slots per 4 frames (one step after the convolutions), a number or a quotient.
        max_length: most slots.
        length_blocks: blocks of the length controller.

    Raises:
        ConfigError: sizes that do not fit, or no ratio.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int = 256,
        attention_heads: int = 4,
        linear_units: int = 1024,
        num_blocks: int = 6,
        dropout_rate: float = 0.1,
        length_ratio: str | float = "1/2",
        max_length: int = 400,
        length_blocks: int = 6,
    ) -> None:
        super().__init__()
        _check_width("encoder_conf.output_size", output_size, attention_heads)
        self.sizes = BodyConfig(num_blocks, output_size, attention_heads, linear_units, dropout_rate)
        self.conv = ConvSubsampling(input_size, output_size)
        self.positions = SinusoidalPositions(output_size)
        self.dropout = Dropout(dropout_rate)
        self.body = TransformerEncoder(self.sizes)
        self.length_control = LengthController(self.sizes.blocks(length_blocks), _ratio(length_ratio), max_length)

    def output_size(self) -> int:
        """Width D."""
        return self.sizes.size

    def _states(self, xs_pad: torch.Tensor, ilens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # ESPnet wants no output longer than its longest item, so the features must not be either.
        x, lengths = self.conv(zero_padding(xs_pad[:, : int(ilens.max())], ilens), ilens)
        x = self.dropout(self.positions(x, self.conv.out.weight.dtype))
        return self.length_control(self.body(x, lengths), lengths)

    def forward(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor, prev_states: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """(B, frames, input_size), (B,) -> states (B, K, D), slots (B,), None."""
        return *self._states(xs_pad, ilens), None


class InterfaceEncoder(LegoNNEncoder):
    """LegoNNEncoder, its CTC interface and the ingestor that reads it (ESPnet's ASR model alone).

    Args:
        ingestor_blocks: transformer blocks of the ingestor.
        sizes: what LegoNNEncoder takes, in its order.
    """

    interctc_use_conditioning = True
    ingestor: Ingestor | None

    def __init__(self, ingestor_blocks: int, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.ingestor = None
        self.ingestor_blocks = ingestor_blocks

    def embedding(self, vocab_size: int) -> WeightedEmbedding | BeamConvolution:
        """How distributions over ``vocab_size`` tokens are embedded."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        """ESPnet's model assigns ``conditioning_layer``, a Linear from the vocabulary to D.

        It is the only word that an encoder gets about the vocabulary; the ingestor takes the layer's place.
        """
        if name == "conditioning_layer":
            embedding = self.embedding(value.in_features)
            name, value = "ingestor", Ingestor(embedding, self.sizes.blocks(self.ingestor_blocks))
        super().__setattr__(name, value)

    def forward(  # type: ignore[override]
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: torch.Tensor | None = None,
        ctc: Any = None,
    ) -> tuple[tuple[torch.Tensor, list[tuple[int, torch.Tensor]]], torch.Tensor, None]:
        """Features to what the decoder reads, and to what the CTC loss is taken of.

        Args:
            xs_pad: (B, frames, input_size).
            ilens: (B,).
            prev_states: not used.
            ctc: ESPnet's CTC layer. Only its forward applies its ``dropout_rate``, in evaluation too.

        Returns:
            ((ingested (B, K, D), [(num_blocks, h (B, K, D))]), slots (B,), None)

        Raises:
            ConfigError: there is no CTC layer.
        """
        if ctc is None or self.ingestor is None:
            raise ConfigError(
                "encoder legonn_wemb or legonn_beam_conv reads the model's CTC layer, and there is none: set "
                "model_conf.ctc_weight above 0 (0.5, with interctc_weight: 0.999) in the ASR task's own model"
            )
        h, slots = self._states(xs_pad, ilens)
        ingested, _ = self.ingestor(ctc.log_softmax(h), slots)
        return (zero_padding(ingested, slots), [(self.sizes.num_blocks, h)]), slots, None


class WEmbEncoder(InterfaceEncoder):
    """``legonn_wemb``: expected embeddings (equations 17, 18); the decoder's gradient flows through.

    Args:
        input_size, ..., length_blocks: see LegoNNEncoder.
        ingestor_blocks: transformer blocks of the ingestor.
        receptive_field: odd number of slots embedded at once.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int = 256,
        attention_heads: int = 4,
        linear_units: int = 1024,
        num_blocks: int = 6,
        dropout_rate: float = 0.1,
        length_ratio: str | float = "1/2",
        max_length: int = 400,
        length_blocks: int = 6,
        ingestor_blocks: int = 3,
        receptive_field: int = 1,
    ) -> None:
        if receptive_field < 1 or receptive_field % 2 == 0:
            raise ConfigError(f"encoder_conf.receptive_field: {receptive_field} must be odd and at least 1")
        super().__init__(
            ingestor_blocks, input_size, output_size, attention_heads, linear_units, num_blocks, dropout_rate,
            length_ratio, max_length, length_blocks,
        )  # fmt: skip
        self.receptive_field = receptive_field

    def embedding(self, vocab_size: int) -> WeightedEmbedding:
        """See InterfaceEncoder."""
        return WeightedEmbedding(vocab_size, self.sizes.size, self.receptive_field)


class BeamConvEncoder(InterfaceEncoder):
    """``legonn_beam_conv``: the ingestor reads the k best tokens (equations 19-21); no gradient passes.

    Args:
        input_size, ..., length_blocks: see LegoNNEncoder.
        ingestor_blocks: transformer blocks of the ingestor.
        k: tokens kept of each slot, at most the vocabulary.
        embed_size: width of their embedding.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int = 256,
        attention_heads: int = 4,
        linear_units: int = 1024,
        num_blocks: int = 6,
        dropout_rate: float = 0.1,
        length_ratio: str | float = "1/2",
        max_length: int = 400,
        length_blocks: int = 6,
        ingestor_blocks: int = 3,
        k: int = 10,
        embed_size: int = 100,
    ) -> None:
        super().__init__(
            ingestor_blocks, input_size, output_size, attention_heads, linear_units, num_blocks, dropout_rate,
            length_ratio, max_length, length_blocks,
        )  # fmt: skip
        self.k, self.embed_size = k, embed_size

    def embedding(self, vocab_size: int) -> BeamConvolution:
        """See InterfaceEncoder.

        Raises:
            ConfigError: k exceeds the vocabulary.
        """
        if not 0 < self.k <= vocab_size:
            raise ConfigError(f"encoder_conf.k: {self.k} must lie between 1 and {vocab_size}, the vocabulary")
        return BeamConvolution(vocab_size, self.sizes.size, 1, self.k, self.embed_size)


class _Hypothesis(NamedTuple):
    """What one hypothesis has written, (positions, width), or None; what all of an utterance read, and joint layers."""

    past: torch.Tensor | None
    sources: list[CrossMemory]
    projections: list[Projection]


def _one_batch(sources: list[list[CrossMemory]]) -> list[CrossMemory]:
    """Those of an utterance that all rows share as they are, else one utterance a row."""
    if all(source is sources[0] for source in sources):
        return sources[0]
    blocks = zip(*sources)
    return [CrossMemory(torch.cat([s.keys for s in b]), torch.cat([s.values for s in b])) for b in blocks]


class HypothesisScorer(BatchScorerInterface):  # type: ignore[misc, valid-type]
    """Next tokens with key/value caches, one state a hypothesis, for ESPnet's beam search.

    Attributes:
        body: cross-attention over what is read.
    """

    body: CrossTransformer

    def embedded(self, ids: torch.Tensor, start: int) -> torch.Tensor:
        """Tokens (N, L), the first at position ``start`` -> (N, L, D)."""
        raise NotImplementedError

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., V)."""
        raise NotImplementedError

    def memory(self, x: torch.Tensor) -> torch.Tensor:
        """What the body reads of one encoded utterance: (1, S, E) -> (1, S', D)."""
        return x

    def init_state(self, x: torch.Tensor) -> _Hypothesis:
        """Keys and values of an encoded utterance (S, E)."""
        return _Hypothesis(None, self.body.sources(self.memory(x.unsqueeze(0))), self.body.projections())

    def score(self, y: torch.Tensor, state: _Hypothesis | None, x: torch.Tensor) -> tuple[torch.Tensor, _Hypothesis]:
        """Prefix (L,), its state, (S, D) -> log-probabilities of the next token (V,) and the new state."""
        log_probs, states = self.batch_score(y.unsqueeze(0), [state], x.unsqueeze(0))
        return log_probs[0], states[0]

    def batch_score(
        self, ys: torch.Tensor, states: list[_Hypothesis | None], xs: torch.Tensor
    ) -> tuple[torch.Tensor, list[_Hypothesis]]:
        """Prefixes (N, L), their states, (N, S, D) -> log-probabilities (N, V) and the new states."""
        known = [self.init_state(x) if state is None else state for state, x in zip(states, xs)]
        sources = _one_batch([state.sources for state in known])
        utterances, _, steps, _ = sources[0].keys.shape
        mask = torch.ones(utterances, 1, 1, steps, dtype=torch.bool, device=xs.device)
        written = [state.past for state in known if state.past is not None]
        past = torch.stack(written, 1) if written else None
        stepper = self.body.start(sources, mask, known[0].projections, past)
        for i in range(stepper.past.length, ys.shape[1]):  # one turn, or more at the start with a given prefix
            y = stepper.step(self.embedded(ys[:, i : i + 1], i).squeeze(1))
        logits = self.logits(y)
        log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        rows = stepper.past.rows.unbind(1)
        return log_probs, [state._replace(past=row) for row, state in zip(rows, known)]


class LegoNNDecoder(AbsDecoder, HypothesisScorer):  # type: ignore[misc, valid-type]
    """Transformer decoder with key/value caches, for ESPnet's losses and ESPnet's beam search.

    Args:
        vocab_size: V; the last id is ``<sos/eos>`` (given by the task).
        encoder_output_size: width D, this decoder's too (given by the task).
        attention_heads, linear_units, num_blocks: of the transformer.
        dropout_rate: on embedded tokens, block outputs and inside feed-forward layers.
        attention_dropout_rate: on attention weights.
        tie: input embedding and output are one matrix.

    Raises:
        ConfigError: D does not fit the heads.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        attention_heads: int = 4,
        linear_units: int = 2048,
        num_blocks: int = 6,
        dropout_rate: float = 0.1,
        attention_dropout_rate: float = 0.1,
        tie: bool = True,
    ) -> None:
        super().__init__()
        size, dropouts = encoder_output_size, (dropout_rate, attention_dropout_rate, dropout_rate)
        _check_width("decoder_conf: the encoder's output_size", size, attention_heads)
        # ESPnet's MT model ties ``embed[0]`` and ``output_layer`` by these names.
        table = nn.Embedding(vocab_size, size)
        self.embed = nn.Sequential(table)
        self.output_layer = nn.Linear(size, vocab_size, bias=False)
        nn.init.normal_(table.weight, std=size**-0.5)
        if tie:
            self.output_layer.weight = table.weight
        else:
            nn.init.normal_(self.output_layer.weight, std=size**-0.5)
        self.positions = SinusoidalPositions(size)
        self.dropout, self.scale = Dropout(dropout_rate), size**0.5
        sizes = BodyConfig(num_blocks, size, attention_heads, linear_units, *dropouts)
        self.body = CrossTransformer(sizes)

    def embedded(self, ids: torch.Tensor, start: int = 0) -> torch.Tensor:
        """See HypothesisScorer."""
        y = self.embed(ids) * self.scale
        return self.dropout(self.positions(y, y.dtype, start))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """See HypothesisScorer."""
        return self.output_layer(states)

    def forward(
        self, hs_pad: torch.Tensor, hlens: torch.Tensor, ys_in_pad: torch.Tensor, ys_in_lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher forcing: (B, S, D), (B,), ids (B, L) from <sos/eos> on, (B,) -> logits (B, L, V), (B,)."""
        return self.logits(self.body(self.embedded(ys_in_pad), hs_pad, hlens)), ys_in_lens
