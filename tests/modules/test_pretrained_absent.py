"""Without transformers: what to install is said."""

from __future__ import annotations

from typing import Any

import pytest

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model import hf_models
from espnet2_legonn.model.chain import Chain
from tests.modules import toys


def test_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise ImportError("transformers is not installed: pip install 'espnet2_legonn[pretrained]'")

    monkeypatch.setattr(hf_models, "transformers", absent)
    source = {"type": "pretrained", "model": "somebody/model"}
    with pytest.raises(ConfigError, match=r"input type pretrained: .* pip install 'espnet2_legonn\[pretrained\]'"):
        Chain.from_config({"vocabs": {"bpe": toys.VOCABS["bpe"]}, "modules": [toys.encoder("enc", source, "bpe")]})
