"""Make a reader read another, close vocabulary: its ingestor's rows are moved, nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import InterfaceMismatch
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.model.masks import valid_mask
from espnet2_legonn.model.module import Module, build_module

C = TypeVar("C", bound=Chain)
# Below this share of common tokens two vocabularies are not close, and a plug would be noise.
LEAST_SHARED = 0.5


@dataclass
class Remapping:
    """What a remapping did.

    Args:
        kept: tokens read as before, at their old or a new id.
        moved: those of them whose id changed.
        lost: tokens of the writer that the reader does not know; their mass is read as ``<unk>``.
        unused: tokens of the reader that the writer never writes.
    """

    kept: int
    moved: int
    lost: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def exact(self) -> bool:
        return not self.lost

    def __str__(self) -> str:
        known = f"{self.kept} tokens are read as before ({self.moved} at another id)"
        if self.exact:
            return f"{known}; the remapping is exact"
        examples = " ".join(self.lost[:5]) + (" ..." if len(self.lost) > 5 else "")
        return f"{known}; the mass of {len(self.lost)} is read as <unk>: {examples}"

    def lost_mass(self, marginals: Marginals) -> float:
        """Share of the mass that is not blank which falls on lost tokens, over all slots of ``marginals``."""
        vocab = marginals.interface.vocab
        lost = [vocab.ids[token] for token in self.lost]
        probs = marginals.probs() * valid_mask(marginals.lengths, marginals.log_probs.shape[1]).unsqueeze(-1)
        total = probs.sum() - probs[..., vocab.blank_id].sum()
        return float(probs[..., lost].sum() / total)


def remap(reader: C, vocab: Vocabulary, name: str) -> tuple[C, Remapping]:
    """The chain with its first module reading ``vocab``; the other modules are shared.

    Tokens of both vocabularies keep their embedding, so for a writer that only orders its tokens differently or has a
    part of them the result is exact; tokens unknown to the reader get the embedding of ``<unk>``.

    Args:
        reader: a chain whose first module is an ingestor of marginals.
        vocab: what will be written in front of it.
        name: of that vocabulary in descriptions.

    Raises:
        InterfaceMismatch: another unit, language or normalisation, too few tokens in common, or BeamConv keeps more
            tokens of a slot than ``vocab`` has. Every reason is listed.
    """
    configs, first, own = reader.configs, reader.first, reader.first.ports[0].vocab
    config = configs[0]
    if own is None or first.input.contract is None:
        raise InterfaceMismatch(f"{config.name}: reads {first.ports[0].kind}, only marginals can be remapped")
    report = _compare(own, vocab)
    kept = getattr(config.input, "k", 0)
    faults = _refusals(own, vocab, report)
    if kept > len(vocab):
        faults.append(f"BeamConv keeps {kept} tokens of a slot, {len(vocab)} are written")
    if faults:
        raise InterfaceMismatch(f"{config.name}: cannot be remapped: {fault}" for fault in faults)
    vocabs = {n: v for n, v in reader.vocabs.items() if n != name}
    vocabs[name] = vocab
    if config.target is not None and config.target.vocab == name and reader.vocabs[name] != vocab:
        config.target.vocab = f"{name}_out"
        vocabs[config.target.vocab] = reader.vocabs[name]
    config.input.vocab = name
    module = build_module(config, vocabs).train(first.training)
    module.load_state_dict(_moved(first, own, vocab))
    rest = {vocab_name for c in configs[1:] for vocab_name in c.vocabs}
    if name in rest and reader.vocabs[name] != vocab:
        raise InterfaceMismatch(f"{config.name}: another vocabulary of this chain is called {name!r}; rename it first")
    return type(reader)([module, *list(reader)[1:]], vocabs, reader.names), report


def _compare(own: Vocabulary, other: Vocabulary) -> Remapping:
    kept = [token for token in other.tokens if token in own.ids]
    moved = sum(own.ids[token] != other.ids[token] for token in kept)
    lost = tuple(token for token in other.tokens if token not in own.ids)
    return Remapping(len(kept), moved, lost, tuple(token for token in own.tokens if token not in other.ids))


def _refusals(own: Vocabulary, other: Vocabulary, report: Remapping) -> list[str]:
    faults = []
    for field in ("unit", "language", "normalization"):
        a, b = getattr(other, field), getattr(own, field)
        if a != b and (field == "unit" or None not in (a, b)):
            faults.append(f"{field}: {a} is written, {b} is read")
    if report.kept < LEAST_SHARED * len(other):
        faults.append(f"vocabulary: only {report.kept} of {len(other)} tokens are known; train a reader for it instead")
    return faults


def _moved(module: Module, own: Vocabulary, other: Vocabulary) -> dict[str, torch.Tensor]:
    """The module's state with the ingestor's table in the order of ``other``."""
    rows = torch.tensor([own.ids.get(token, own.unk_id) for token in other.tokens])
    return {**module.state_dict(), **{f"input.{name}": table for name, table in module.input.moved(rows).items()}}
