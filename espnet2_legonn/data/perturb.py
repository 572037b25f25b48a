"""Speed perturbation of a data directory (stage 2).

`utt2speed` says how fast an utterance is to be played; format_wav.py resamples accordingly after cutting.
Nothing is written into wav.scp, and segments keep the times of the recording on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.data.checks import SPEEDS, number
from espnet2_legonn.data.datadir import DataDir, write_datadir
from espnet2_legonn.data.dirops import Tables, mapped, merge_tables, rename
from espnet2_legonn.errors import DataError

# Facts about the unperturbed signal: they would be false for the copies, and formatting makes them anew.
_STALE = ("utt2dur", "utt2num_samples", "feats.scp")


def perturb(source: Path | str, dest: Path | str, factors: Sequence[str]) -> int:
    """Write `dest` with one copy of `source` per factor; returns its number of utterances.

    Args:
        factors: as written in ids, e.g. `0.9 1.0 1.1`; ids of a copy begin with `sp0.9-`, factor 1.0 keeps
            the originals.

    Raises:
        DataError: a factor is not in [0.5, 2], factors repeat, `source` has faults or no audio, or is already
            perturbed.
    """
    faults = [f"speed factor '{f}' must be a number from 0.5 to 2" for f in factors if not _valid(f)]
    if not factors:
        faults.append("no speed factor given; usual ones are 0.9 1.0 1.1")
    if not faults and len({float(f) for f in factors}) != len(factors):
        faults.append(f"speed factors repeat: {' '.join(factors)}")
    tables: Tables = {**DataDir(source).tables()}
    if "wav.scp" not in tables:
        faults.append(f"{Path(source) / 'wav.scp'}: needed for speed perturbation")
    if "utt2speed" in tables and any(float(speed) != 1 for _, speed in tables["utt2speed"].items()):
        faults.append(f"{Path(source) / 'utt2speed'}: this directory is already perturbed; start from the original")
    if faults:
        raise DataError(faults)
    for name in _STALE:
        tables.pop(name, None)
    copies = [_copy(tables, factor) for factor in factors]
    merged, _ = merge_tables(copies, [f"{source} x{factor}" for factor in factors])
    return write_datadir(dest, merged)


def _valid(factor: str) -> bool:
    return SPEEDS[0] <= number(factor) <= SPEEDS[1]


def _copy(tables: Tables, factor: str) -> Tables:
    prefix = "" if float(factor) == 1 else f"sp{factor}-"
    copied = rename(tables, prefix, prefix)
    copied.setdefault("utt2uniq", mapped(tables["utt2spk"], lambda utt, _: (prefix + utt, utt)))
    copied["utt2speed"] = mapped(tables["utt2spk"], lambda utt, _: (prefix + utt, factor))
    return copied
