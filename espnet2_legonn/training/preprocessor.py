"""One text to the tokens of every interface; runs in ESPnet's data loader workers."""

from __future__ import annotations

from typing import Any

import numpy as np

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.inputs import checked_ids
from espnet2_legonn.model.parts import InputPart


class Preprocessor:
    """Fans ``text`` out to ``text_<module>`` of every module with a vocabulary.

    A module takes, in this order, the data named ``text_<module>``, ``text_<vocabulary>``, ``text_<unit>``
    (for instance ``text_phn``, made once at stage 5) or ``text``.

    Args:
        part: class of the chain's input.
        source: the vocabulary that it reads, if it reads one.
        targets: vocabulary name and vocabulary by module name.
    """

    def __init__(
        self, part: type[InputPart], source: Vocabulary | None, targets: dict[str, tuple[str, Vocabulary]]
    ) -> None:
        self.part, self.source, self.targets = part, source, targets

    def __call__(self, uid: str, data: dict[str, Any]) -> dict[str, np.ndarray]:
        """Raw data of one utterance to arrays.

        Raises:
            DataError: empty text, text with ``<blank>`` or ``<sos/eos>``, ids that are no token's, audio that is not
                finite, or no text for a module; the utterance is named.
        """
        ready: dict[str, np.ndarray] = {}
        column = self.part.data
        if column is not None and column.name in data:
            ready[column.name] = self.part.prepare(data[column.name], self.source, f"utterance {uid}: {column.name}")
        for module, (vocab_name, vocab) in self.targets.items():
            names = (f"text_{module}", f"text_{vocab_name}", f"text_{vocab.unit}", "text")
            name = next((n for n in names if n in data), None)
            if name is None:
                if any(n.startswith("text") for n in data):
                    raise DataError(f"utterance {uid}: no text for module {module}; give one of {', '.join(names)}")
                continue  # decoding: no targets at all
            if vocab.unit == "phn" and name == "text":
                raise DataError(
                    f"utterance {uid}: module {module} wants phonemes, but only words are given; "
                    f"make them once (stage 5, `python -m espnet2_legonn.data.cli phonemes`) and pass them as text_phn"
                )
            ready[f"text_{module}"] = checked_ids(data[name], vocab, f"utterance {uid}: {name}")
        return ready
