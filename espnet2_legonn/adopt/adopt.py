"""CTC models of others as packs: every CTC model writes distributions over a known vocabulary."""

from __future__ import annotations

from pathlib import Path

import torch

from espnet2_legonn.adopt import espnet, hugging_face
from espnet2_legonn.adopt.source import Adopted, AdoptOptions, measure
from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.packs.card import Provenance
from espnet2_legonn.version import __version__


def adopt(
    source: Path, out: Path, options: AdoptOptions, data: Path | None = None, license: str | None = None
) -> Adopted:
    """Write a pack of a source's encoder, and of its decoder if the options say so.

    Args:
        source: ASR experiment of ESPnet, packed zip of its zoo, or folder of a CTC model of transformers.
        out: folder of the pack.
        data: directory with ``wav.scp`` and ``text``, where slots per token are measured.
        license: of the source.

    Raises:
        ConfigError: every reason why it cannot be adopted.
        CheckpointError: there is no such source, or its weights are missing or damaged.
        DataError: the data cannot be used.
    """
    if not source.exists():
        raise CheckpointError(f"{source}: no such folder or zip")
    done = (hugging_face if hugging_face.is_one(source) else espnet).adopt(source, options)
    if data is not None:
        done.notes += measure(done.chain, data)
    provenance = Provenance(package=__version__, torch=str(torch.__version__), espnet=done.version, updates=0)
    what = "CTC encoder" if len(done.chain) == 1 else "CTC encoder and attention decoder"
    about = {"description": f"{what} adopted without an update: {done.origin}", "provenance": provenance}
    if license is not None:
        about["license"] = license
    if options.language is not None:
        about["language"] = [options.language]
    done.chain.save(out, **about, module_parents=dict.fromkeys(done.chain.names, source.name))
    return done
