"""What made a result: which weights, which data, which search. It lies beside the result and goes where it goes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.files.configs import files_of
from espnet2_legonn.packs import names
from espnet2_legonn.packs.card import CARD, read_card
from espnet2_legonn.scoring.tables import write_atomic
from espnet2_legonn.version import __version__

ORIGIN = "made_by.json"
# Of a folder of answers: these belong to whoever fills it next.
_STAYS = ("run.sh", "logdir")


def origin(exp: Path, model: str | Path | None, inputs: Path, search: Sequence[object]) -> dict[str, Any]:
    """Record of a decoding.

    Args:
        exp: experiment or pack; model: weights in it (None: the best it has).
        inputs: the table that is decoded.
        search: options of the search; what is a file counts with its content.
    """
    weights = names.find_weights(exp, model)
    tuned = exp / names.SEARCH
    choice = tuned.read_text(encoding="utf-8") if tuned.is_file() else None
    if (exp / CARD).is_file():
        choice = repr(read_card(exp).search)
    words = [_content(w) if isinstance(w, (str, Path)) and _is_file(w) else str(w) for w in search]
    return {
        "weights": weights.resolve().name,
        "weights_sha256": weights_digest(weights),
        "config_sha256": sha256_of(exp / names.CONFIG),
        "data": f"{inputs.parent.name}/{inputs.name}",
        "data_sha256": sha256_of(inputs),
        "search": [str(w) for w in search],
        "search_sha256": hashlib.sha256(json.dumps([words, choice]).encode()).hexdigest(),
        "package": __version__,
    }


def weights_digest(weights: Path) -> str:
    """SHA-256 of weights, kept beside them (``.<name>.sha256``) until their size or time of change is another.

    Every job of every test set asks for it. A pack's folder holds what its card lists, and gets no such file.
    """
    stat = weights.stat()
    now, kept = f"{stat.st_size} {stat.st_mtime_ns}", weights.with_name(f".{weights.name}.sha256")
    with contextlib.suppress(OSError, ValueError):
        digest, of = kept.read_text(encoding="utf-8").strip().split(" ", 1)
        if of == now:
            return digest
    digest = sha256_of(weights)
    if not (weights.parent / CARD).is_file():
        with contextlib.suppress(OSError):  # a folder that only others may write
            write_atomic(kept, f"{digest} {now}\n")
    return digest


def _is_file(word: str | Path) -> bool:
    return os.path.isfile(word)


def _content(file: str | Path) -> str:
    """Digest of a file, with those that a configuration inherits from."""
    return " ".join(map(sha256_of, files_of(file)))


def read_origin(out: Path) -> dict[str, Any] | None:
    """The record of a folder of answers; None for those made before there were records."""
    path = out / ORIGIN
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def keep_origin(out: Path, record: dict[str, Any]) -> None:
    """Write the record; the answers are there already."""
    write_atomic(out / ORIGIN, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def same(a: dict[str, Any] | None, b: dict[str, Any]) -> bool:
    """Whether weights, configuration, data and search are the same."""
    keys = [key for key in b if key.endswith("_sha256")]
    return a is not None and all(a.get(key) == b[key] for key in keys)


def set_aside(out: Path, record: dict[str, Any]) -> Path | None:
    """Answers and scores of something else are kept as ``<set>@<weights>``, so that nothing of two is mixed or lost.

    Returns:
        where they are now, if there were any.
    """
    before = read_origin(out)
    if not (out / "text").is_file() or same(before, record):
        return None
    name = f"{out.name}@{before['weights_sha256'][:8]}" if before else f"{out.name}@earlier"
    aside, number = out.with_name(name), 2
    while aside.exists():
        aside, number = out.with_name(f"{name}.{number}"), number + 1
    aside.mkdir(parents=True)
    for path in sorted(out.iterdir()):
        if path.name not in _STAYS and not path.name.endswith(".lock"):
            path.rename(aside / path.name)
    logging.warning("%s was decoded with other weights, data or search; that is now %s", out, aside)
    return aside


def of_weights(decoded: Path, weights: Path, digest: str) -> bool:
    """Whether answers came of these weights; without a record, whether they are at least not older."""
    record = read_origin(decoded)
    if record is not None:
        return record["weights_sha256"] == digest
    text = decoded / "text"
    return not text.is_file() or text.stat().st_mtime >= weights.stat().st_mtime
