"""One text to the tokens of every interface; runs in ESPnet's data loader workers."""

from __future__ import annotations

from typing import Any

import numpy as np

from espnet2_legonn.data.vocabulary import BLANK, SOS_EOS, Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.inputs import check_waveform


class Preprocessor:
    """Fans ``text`` out to ``text_<module>`` of every module with a vocabulary.

    A module takes, in this order, the data named ``text_<module>``, ``text_<vocabulary>``, ``text_<unit>``
    (for instance ``text_phn``, made once at stage 5) or ``text``.

    Args:
        source: vocabulary of ``src_text``, for token input.
        targets: vocabulary name and vocabulary by module name.
    """

    def __init__(self, source: Vocabulary | None, targets: dict[str, tuple[str, Vocabulary]]) -> None:
        self.source, self.targets = source, targets

    def __call__(self, uid: str, data: dict[str, Any]) -> dict[str, np.ndarray]:
        """Raw data of one utterance to arrays.

        Raises:
            DataError: empty text, text with ``<blank>`` or ``<sos/eos>``, ids that are no token's, audio that is not
                finite, or no text for a module; the utterance is named.
        """
        ready: dict[str, np.ndarray] = {}
        if "speech" in data:
            ready["speech"] = check_waveform(np.asarray(data["speech"]), f"utterance {uid}: speech")
        if "src_text" in data and self.source is not None:
            ready["src_text"] = self._ids(uid, "src_text", data["src_text"], self.source)
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
            ready[f"text_{module}"] = self._ids(uid, name, data[name], vocab)
        return ready

    @staticmethod
    def _ids(uid: str, name: str, value: Any, vocab: Vocabulary) -> np.ndarray:
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "iu":
                raise DataError(f"utterance {uid}: {name} holds {value.dtype}, but ids are integers")
            wrong = [int(i) for i in value.flat if not vocab.blank_id < i < vocab.sos_eos_id]
            if wrong:
                raise DataError(
                    f"utterance {uid}: {name} has the id {wrong[0]}; of {len(vocab)} tokens, a text has those between "
                    f"{vocab.blank_id} ({BLANK}) and {vocab.sos_eos_id} ({SOS_EOS})"
                )
        elif reserved := vocab.reserved(str(value)):
            raise DataError(
                f"utterance {uid}: {name} says {reserved[0]}, which is no word: CTC and the decoder need it for "
                "themselves; take it out of the text or rename it"
            )
        ids = np.asarray(value if isinstance(value, np.ndarray) else vocab.encode(str(value)), dtype=np.int64)
        if not ids.size:
            raise DataError(f"utterance {uid}: {name} is empty; stage 4 removes such utterances")
        return ids
