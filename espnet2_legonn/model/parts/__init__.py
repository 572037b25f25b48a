"""What modules begin and end with: one file a part, its description and its class together."""

from __future__ import annotations

from espnet2_legonn.model.parts.base import INPUTS, OUTPUTS, Column, InputPart, OutputPart, Unfit, beginnings
from espnet2_legonn.model.parts.beam_conv import BeamConvConfig, BeamConvInput
from espnet2_legonn.model.parts.ctc import CTCInterface, IntermediateConfig, OutputConfig
from espnet2_legonn.model.parts.espnet_frontend import EspnetFrontendConfig, EspnetFrontendInput
from espnet2_legonn.model.parts.features import FeaturesConfig, FeaturesInput
from espnet2_legonn.model.parts.hf_embedding import HFEmbeddingConfig, HFEmbeddingInput
from espnet2_legonn.model.parts.pretrained import PretrainedConfig, PretrainedInput
from espnet2_legonn.model.parts.speech import SpeechConfig, SpeechInput
from espnet2_legonn.model.parts.states import AuxiliaryCTCConfig, StatesConfig, StatesInput, StatesOutputConfig
from espnet2_legonn.model.parts.tokens import TokenInput, TokensConfig
from espnet2_legonn.model.parts.wemb import WEmbConfig, WEmbInput
from espnet2_legonn.model.registry import load_plugins

__all__ = [
    "INPUTS", "OUTPUTS", "AuxiliaryCTCConfig", "BeamConvConfig", "BeamConvInput", "CTCInterface", "Column",
    "EspnetFrontendConfig", "EspnetFrontendInput", "FeaturesConfig", "FeaturesInput", "HFEmbeddingConfig",
    "HFEmbeddingInput", "InputPart", "IntermediateConfig", "OutputConfig", "OutputPart", "PretrainedConfig",
    "PretrainedInput", "SpeechConfig", "SpeechInput", "StatesConfig", "StatesInput", "StatesOutputConfig",
    "TokenInput", "TokensConfig", "Unfit", "WEmbConfig", "WEmbInput", "beginnings",
]  # fmt: skip

load_plugins()  # those of LEGONN_PLUGINS, in every process that knows parts
