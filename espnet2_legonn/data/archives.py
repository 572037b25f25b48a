"""Matrices in Kaldi's archives, ``file.ark:offset``, by kaldiio."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from espnet2_legonn.errors import DataError

_PLACE = re.compile(r"(.+\.ark):(\d+)(\[.*\])?")  # Kaldi's ranges of rows, ark:offset[0:99], too


def read_matrix(spec: str) -> np.ndarray:
    """A matrix of numbers (rows, columns), or a vector.

    kaldiio would also unpickle what it meets: only Kaldi's binary matrices, compressed or not, are handed to it.

    Args:
        spec: a value of ``feats.scp``. No command is run.

    Raises:
        DataError: no such place, something else is stored there, or it is cut short.
    """
    match = _PLACE.fullmatch(spec)
    if match is None:
        raise DataError(f"'{spec}': features are in archives, file.ark:offset (or .npy files)")
    path = Path(match[1])
    if not path.is_file():
        raise DataError(f"'{spec}': there is no file {path}")
    with path.open("rb") as stream:
        stream.seek(int(match[2]))
        head = stream.read(5)
    if head[:2] != b"\0B":
        sound = head == b"AUDIO" or head[:4] in (b"RIFF", b"fLaC")
        what = "sound, which wav.scp should have" if sound else f"{head!r}" if head else "nothing"
        raise DataError(f"'{spec}': no matrix of Kaldi's is stored there, but {what}")
    import kaldiio

    try:
        return np.asarray(kaldiio.load_mat(spec))
    except Exception as error:  # whatever kaldiio meets in a damaged file
        raise DataError(f"'{spec}': cannot be read ({error or type(error).__name__}); is the archive whole?") from None
