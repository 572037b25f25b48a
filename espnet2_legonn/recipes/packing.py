"""Stage 14: packs of an experiment, one for the chain and one for each module."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from espnet2_legonn.errors import ConfigError, DataError, LegoNNError
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.files.schema import Reader, read_yaml
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.freeze import source_of
from espnet2_legonn.packs import store
from espnet2_legonn.packs.card import CARD, About, CardScore, Parent, Provenance, read_card
from espnet2_legonn.packs.files import zip_pack
from espnet2_legonn.recipes.origin import of_weights, weights_digest
from espnet2_legonn.scoring.results import ScoreRow, environment, summary
from espnet2_legonn.version import __version__

TRAIN_CONFIG = "train_config.yaml"
_ACCUM = re.compile(r"^accum_grad:\s*(\d+)\s*$", re.M)
_EPOCH = re.compile(r"(\d+)epoch results:.*?total_count=(\d+)")  # of training, which comes before validation


def pack_experiment(
    exp: Path, out: Path, about: Path | None = None, name: str | None = None, model_file: str | None = None
) -> list[Path]:
    """Write ``out/<name>`` and ``out/<name>_<module>``, each as a folder and a zip.

    Args:
        exp: experiment folder; its scores become the card's metrics.
        about: YAML with fields of About, usually the recipe's conf/card.yaml.
        name: of the pack; by default the experiment's, without ``legonn_``.

    Raises:
        ConfigError: faults of ``about``.
        FileExistsError: a folder holds something else than a pack.
    """
    told = read_about(about)
    chain = LegoNN.from_pretrained(exp, model_file)
    name = name or exp.resolve().name.removeprefix("legonn_")
    metrics = experiment_metrics(exp, store.find_weights(exp, model_file))
    provenance, parents = experiment_provenance(exp), experiment_parents(exp)
    extra = {TRAIN_CONFIG: exp / store.CONFIG} if (exp / "train.log").is_file() else {}
    wanted = [(name, chain, metrics)]
    if len(chain) > 1:
        for module in chain.names:
            own = [m for m in metrics if m.module == module]
            whole = [_of(m, name) for m in metrics if m.module is None]
            wanted.append((f"{name}_{module}", chain[module], [*own, *whole]))
    folders = []
    for title, part, figures in wanted:
        fields_ = {**told, "name": title, "metrics": figures, "provenance": provenance}
        folder = part.save(out / title, **fields_, module_parents=parents, extra=extra if part is chain else {})
        zip_pack(folder, out / f"{title}.zip")
        folders.append(folder)
    return folders


def _of(metric: CardScore, composition: str) -> CardScore:
    return CardScore(**{**vars(metric), "composition": composition})


def read_about(path: Path | None) -> dict[str, Any]:
    """Fields of About from YAML; empty without a file.

    Raises:
        ConfigError: unknown keys and wrong types, all of them.
    """
    if path is None:
        return {}
    reader = Reader()
    about = reader.build(About, read_yaml(path) or {}, str(path))
    if reader.faults:
        raise ConfigError(reader.faults)
    return {f.name: getattr(about, f.name) for f in fields(About) if getattr(about, f.name) is not None}


def experiment_metrics(exp: Path, weights: Path) -> list[CardScore]:
    """Scores of stage 13 with these weights; none if it has not run. Scores of others are left out with a warning."""
    try:
        rows: Sequence[ScoreRow] = summary([exp])
    except DataError:
        return []
    digest = weights_digest(weights)
    places = dict.fromkeys(exp / row.inference_tag / row.dataset for row in rows)
    own = {place for place in places if of_weights(place, weights, digest)}
    if left := [str(place.relative_to(exp)) for place in places if place not in own]:
        logging.warning(
            "%s: decoded with other weights than %s, left out of the card: %s; run stages 12 and 13 again for scores",
            exp,
            weights.name,
            ", ".join(left),
        )
    return [_metric(row) for row in rows if exp / row.inference_tag / row.dataset in own]


def _metric(row: ScoreRow) -> CardScore:
    low, high = row.data.get("ci_low"), row.data.get("ci_high")
    sentences = row.data.get("sentences")
    return CardScore(
        metric=row.metric,
        value=round(row.value, 2),
        dataset=row.label,
        module=row.module,
        sentences=int(str(sentences)) if sentences is not None else None,
        interval=None if low is None or high is None else [round(float(str(low)), 2), round(float(str(high)), 2)],
        signature=str(row.data["signature"]) if "signature" in row.data else None,
    )


def experiment_provenance(exp: Path) -> Provenance:
    """Seed and updates of the training, versions and commit of now; parents of a composition are kept."""
    if (exp / CARD).is_file():
        return read_card(exp).provenance
    text = (exp / store.CONFIG).read_text(encoding="utf-8")
    seed = re.search(r"^seed:\s*(\d+)\s*$", text, re.M)
    here = environment()
    commit = here["Git hash"]
    return Provenance(
        package=__version__,
        commit=commit if re.fullmatch(r"[0-9a-f]{40}", commit) else None,
        python=here["python version"],
        torch=str(torch.__version__),
        espnet=here["espnet version"],
        seed=int(seed[1]) if seed else None,
        updates=updates_of(exp),
        config_sha256=sha256_of(exp / store.CONFIG),
        parents=[Parent(*p) for p in _donors(exp)],
    )


def updates_of(exp: Path) -> int | None:
    """Updates of a training; None where nothing tells.

    ESPnet counts batches: ``accum_grad`` of them are an update, and those that are left at the end of an epoch are one.
    """
    counts = _batches(exp)
    config = exp / store.CONFIG
    given = _ACCUM.search(config.read_text(encoding="utf-8")) if config.is_file() else None
    accum = int(given[1]) if given else 1
    ends = [0, *(counts[epoch] for epoch in sorted(counts))]
    return sum(-(-(end - begin) // accum) for begin, end in zip(ends, ends[1:])) if counts else None


def _batches(exp: Path) -> dict[int, int]:
    """Batches up to the end of each epoch by the checkpoint, or by logs: ESPnet begins a new one at each start."""
    checkpoint = exp / store.CHECKPOINT
    if checkpoint.is_file():
        with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError, LegoNNError):
            epochs = store.read_figures(checkpoint)
            if found := {epoch: int(figures["train"]["total_count"]) for epoch, figures in epochs.items()}:
                return found
    said = "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in exp.glob("train*.log"))
    return {int(epoch): int(count) for epoch, count in _EPOCH.findall(said)}


def experiment_parents(exp: Path) -> dict[str, str]:
    """Where each module came from: ``init`` of the config, or the card of a composition."""
    if (exp / CARD).is_file():
        return {m.name: m.parent for m in read_card(exp).modules if m.parent}
    return {own: f"{Path(source).name.removesuffix('.zip')}#{part}" for own, source, part in _started(exp)}


def _started(exp: Path) -> Iterator[tuple[str, str, str]]:
    """Modules with ``init``: name, pack or experiment, and the donor's module."""
    for module in read_yaml(exp / store.CONFIG).get("modules", []):
        if module.get("init"):
            source, _, part = source_of(module["init"]).partition("#")
            yield module["name"], source, part or module["name"]


def _donors(exp: Path) -> list[tuple[str, str, list[str]]]:
    """Packs and experiments named by ``init``: name, digest, modules taken."""
    taken: dict[str, list[str]] = {}
    for _, source, part in _started(exp):
        taken.setdefault(source, []).append(part)
    donors = []
    for source, modules in taken.items():
        folder = Path(source)
        digest = ""
        if (folder / CARD).is_file():
            digest = read_card(folder).content_sha256
        elif folder.is_dir():
            digest = sha256_of(store.find_weights(folder, None))
        donors.append((folder.name.removesuffix(".zip"), digest, modules))
    return donors
