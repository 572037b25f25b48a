"""Modules of packs and experiments put together without an update, with their history."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet2_legonn.errors import ConfigError, InterfaceMismatch, LegoNNError
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.files.scratch import whole
from espnet2_legonn.inference.language_model import PREFIX, decoder_of, explain
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model import hf_models
from espnet2_legonn.model.description import plain
from espnet2_legonn.model.interface import compare
from espnet2_legonn.model.module import LanguageModelDecoder, consumed, produced
from espnet2_legonn.packs import store
from espnet2_legonn.packs.card import CARD, Card, Parent, Provenance, read_card
from espnet2_legonn.packs.fetch import resolve
from espnet2_legonn.packs.files import opened
from espnet2_legonn.packs.remap import remap
from espnet2_legonn.version import __version__

# What ESPnet's tools read beside config.yaml.
CHECKPOINT = "model.pth"


@dataclass
class TakenModules:
    """Modules taken from somewhere: the chain, and the card of its pack if it has one."""

    chain: LegoNN
    source: str
    card: Card | None = None
    digest: str = ""


def pick(spec: str, trust: bool = False) -> TakenModules:
    """``PACK_OR_EXPERIMENT[#module[,module...]]``, or ``hf:MODEL[@REVISION]``, to a chain and its card.

    Args:
        trust: archives without a card, too; see ``packs.load.load``.

    Raises:
        LegoNNError: no such module, or modules that do not follow each other.
    """
    source, _, names = spec.partition("#")
    if spec.startswith(PREFIX) and not spec.startswith("hf://"):
        chain = decoder_of(source.removeprefix(PREFIX))
        return TakenModules(chain, source, digest=hf_models.digest(chain.first.body))
    path = resolve(source)
    chain, card, digest = LegoNN.from_pretrained(source, trust=trust), None, ""
    with opened(path.parent if path.name == store.CONFIG else path) as folder:
        if (folder / CARD).is_file():
            card = read_card(folder)
            digest = card.content_sha256
        else:
            digest = sha256_of(store.find_weights(folder, None))
    if names:
        chain = _slice(chain, names.split(","), spec)
    return TakenModules(chain, source, card, digest)


def _slice(chain: LegoNN, wanted: list[str], spec: str) -> LegoNN:
    if missing := [n for n in wanted if n not in chain.mods]:
        raise LegoNNError(f"{spec}: no module {', '.join(missing)}; it has {', '.join(chain.names)}")
    places = [chain.names.index(n) for n in wanted]
    if places != list(range(places[0], places[0] + len(places))):
        raise LegoNNError(f"{spec}: modules must follow each other in the chain ({', '.join(chain.names)})")
    return chain[places[0] : places[-1] + 1]


def join(
    parts: Sequence[TakenModules], allow_remap: bool = False, sample: Sequence[str] = ()
) -> tuple[LegoNN, list[str]]:
    """Plug all parts in order.

    Args:
        allow_remap: where only the token lists differ, let the reader read the writer's.
        sample: inputs of the first part, to measure what a remapping loses.

    Returns:
        the chain, and what its joints had to say.

    Raises:
        InterfaceMismatch: parts that do not fit, with every reason, and whether a remapping would help.
    """
    notes: list[str] = []
    chain = parts[0].chain
    for part in parts[1:]:
        right = part.chain
        where = f"{chain.names[-1]} -> {right.names[0]}"
        if allow_remap and _vocabularies_differ(chain, right) and not isinstance(right.first, LanguageModelDecoder):
            vocab = chain.last.ports[1].vocab
            assert vocab is not None
            right, report = remap(right, vocab, str(chain.configs[-1].target_vocab))
            notes.append(f"{where}: remapped: {report}")
            if sample and not report.exact:
                share = report.lost_mass(chain.marginals(list(sample)))
                notes.append(f"{where}: {100 * share:.2f} % of the mass without blank is lost ({len(sample)} inputs)")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                chain = chain + right
            except InterfaceMismatch as error:
                if not _vocabularies_differ(chain, right):
                    raise
                if isinstance(right.first, LanguageModelDecoder):
                    raise InterfaceMismatch([*error.faults, *_explained(chain, right, where)]) from None
                if allow_remap:
                    raise
                hint = f"{where}: if the vocabularies are close, `legonn compose --remap` lets {right.names[0]} read it"
                raise InterfaceMismatch([*error.faults, hint]) from None
        notes += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return chain, notes


def _vocabularies_differ(left: LegoNN, right: LegoNN) -> bool:
    source, sink = produced(left.last), consumed(right.first)
    if source is None or sink is None or source.vocab.sha256 == sink.vocab.sha256:
        return False
    return any(f.fatal for f in compare(source, sink))


def _explained(left: LegoNN, right: LegoNN, where: str) -> list[str]:
    source, reader = produced(left.last), right.first.ports[1].vocab
    assert source is not None and reader is not None
    return explain(source, reader, right.first.config.body.model, where)


def compose(
    specs: Sequence[str], out: Path, allow_remap: bool = False, sample: Sequence[str] = (), trust: bool = False
) -> tuple[LegoNN, list[str]]:
    """Check every joint (see ``join``) and write a folder that is a pack and an ESPnet experiment at once.

    Raises:
        InterfaceMismatch: parts that do not fit, with every reason.
        FileExistsError: ``out`` holds something else than a pack.
    """
    parts = [pick(spec, trust) for spec in specs]
    chain, notes = join(parts, allow_remap, sample)
    chain.save(out, **history(parts, chain, out.name))
    # config.yaml is ESPnet's too; tensors under the names of LegoNNModel.
    with whole(out / CHECKPOINT) as checkpoint:
        torch.save({f"chain.{k}": v for k, v in chain.state_dict().items()}, checkpoint)
    return chain, notes


def history(parts: Sequence[TakenModules], chain: LegoNN, name: str) -> dict[str, Any]:
    """Fields of the composition's card that follow from its parts."""
    parents, origin, places = [], {}, iter(chain.names)
    for part in parts:
        title = part.card.name if part.card else Path(part.source).name
        parents.append(Parent(title, part.digest, part.chain.names))
        origin.update({next(places): f"{title}#{module}" for module in part.chain.names})
    cards = [part.card.about for part in parts if part.card]
    domains = {about.domain for about in cards}
    licenses = list(dict.fromkeys(a.license for a in cards if a.license))
    data = list(dict.fromkeys(d for a in cards for d in a.training_data or []))
    return {
        "name": name,
        "description": "composed without an update: " + ", ".join(f"{m} from {o}" for m, o in origin.items()),
        "license": " AND ".join(licenses) if len(cards) == len(parts) and licenses else None,
        "training_data": data or None,
        "domain": domains.pop() if len(domains) == 1 else None,
        "citation": next((a.citation for a in cards if a.citation), None),
        "module_parents": origin,
        "provenance": Provenance(package=__version__, torch=str(torch.__version__), parents=parents),
    }


def finetune_config(chain: LegoNN, folder: Path, options: Path) -> Path:
    """Write ``train.yaml`` into a composition: its modules, initialised from it, and the training options given.

    Args:
        options: training options; ``modules_conf`` in it changes modules, for instance ``freeze`` and ``lr_scale``.

    Raises:
        ConfigError: the options describe modules themselves.
    """
    given = read_config(options)
    if not isinstance(given, dict) or {"modules", "vocabs"} & given.keys():
        raise ConfigError(f"{options}: give training options only; modules and vocabs are those of the composition")
    described = store.description(chain, f"{folder}/")
    modules = [{**plain(c), "init": f"{folder}#{c.name}"} for c in chain.configs]
    text = yaml.safe_dump({"vocabs": described["vocabs"], "modules": modules, **given}, sort_keys=False, width=120)
    target = folder / "train.yaml"
    target.write_text(text, encoding="utf-8")
    return target
