"""Every body that the package brings, by ``type``."""

from __future__ import annotations

from espnet2_legonn.model.espnet_body import EspnetBody, EspnetBodyConfig
from espnet2_legonn.model.transformer import BODIES, BodyConfig, CrossTransformer, TransformerEncoder

__all__ = ["BODIES", "BodyConfig", "CrossTransformer", "EspnetBody", "EspnetBodyConfig", "TransformerEncoder"]
