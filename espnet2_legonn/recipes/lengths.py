"""Lengths of a training set: measured by stage 10, or what a recipe assumes of its corpus until then."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet2_legonn.data.tables import read_rows
from espnet2_legonn.data.vocabulary import read_tokens
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.files.schema import nearest, read_yaml
from espnet2_legonn.model.description import ChainConfig, VocabConfig

ASSUMED = "lengths.yaml"  # in a recipe's conf/, or beside a configuration
PHONEMES = 42  # ARPAbet without stress, <blank>, <unk>, <sos/eos>


@dataclass(frozen=True)
class MeanLengths:
    """Means over the items of a training set.

    Args:
        items: utterances or pairs, at all speeds.
        input: samples, or ids of the source text.
        tokens: of the target in each vocabulary, by the names of the configuration.
        bins: what an item takes of ``batch_bins``: its lengths, padding, and what stays empty where a batch is cut.
        measured: by stage 10.
    """

    items: int
    input: float
    tokens: Mapping[str, float]
    bins: float
    measured: bool = False

    def of(self, vocab: str) -> float:
        """Tokens of a target in a vocabulary.

        Raises:
            ConfigError: nobody said.
        """
        if vocab not in self.tokens:
            raise ConfigError(f"tokens of {vocab!r} are not known{nearest(vocab, self.tokens)}; give --stats DIR")
        return self.tokens[vocab]

    def items_per_batch(self, options: Mapping[str, Any]) -> float:
        """Items of a batch of all cards together.

        Raises:
            ConfigError: batches are not cut by ``batch_bins`` or ``batch_size``.
        """
        kind = options.get("batch_type", "folded")
        if kind == "numel":
            return float(options.get("batch_bins", 1000000)) / self.bins
        if kind in ("unsorted", "sorted", "folded"):
            return float(options.get("batch_size", 20))
        raise ConfigError(f"batch_type: {kind!r} is not counted; numel and batch sizes are")


def cut(inputs: Iterable[int], outputs: Iterable[int], batch_bins: int) -> list[int]:
    """Sizes of the batches that ESPnet's ``numel`` sampler cuts, from both lengths of each item, padding included."""
    sizes, held = [], 0
    for a, b in sorted(zip(inputs, outputs), key=lambda pair: pair[0]):
        held += 1
        if held * (a + b) > batch_bins:
            sizes.append(held)
            held = 0
    return [*sizes, held] if held else sizes


def measured(stats: Path, config: ChainConfig, options: Mapping[str, Any]) -> MeanLengths:
    """From the folder of stage 10 (``exp/legonn_stats_...``), with the batches that training will cut.

    Raises:
        DataError: shape files are missing.
    """
    first = config.column.name
    targets = {m.target_vocab: f"text_{m.name}" for m in config.modules if m.target_vocab is not None}
    names = [first, *targets.values()]
    if lost := [stats / "train" / f"{n}_shape" for n in names if not (stats / "train" / f"{n}_shape").is_file()]:
        raise DataError(f"{path}: no such file; stage 10 makes it" for path in lost)
    shapes = {n: [int(v.split(",")[0]) for _, v in read_rows(stats / "train" / f"{n}_shape")] for n in names}
    items = len(shapes[first])
    means = {vocab: sum(shapes[name]) / items for vocab, name in targets.items()}
    bins = int(options.get("batch_bins", 1000000))
    batches = cut(shapes[first], shapes[list(targets.values())[-1]], bins)
    return MeanLengths(items, sum(shapes[first]) / items, means, bins * len(batches) / items, True)


def assumed(conf: Path, file: Path | None = None) -> MeanLengths:
    """What the recipe of a configuration says of its corpus: the longest entry whose name is in that of ``conf``.

    Raises:
        ConfigError: there is no such file, or it is no description of lengths.
    """
    places = [file] if file else [folder / ASSUMED for folder in list(conf.resolve().parents)[:2]]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ConfigError(f"{conf}: no {ASSUMED} beside it says how long the data are; give --stats DIR of stage 10")
    entries = read_yaml(found)
    fits = [name for name in entries if name != "default" and name in conf.stem]
    entry = entries.get(max(fits, key=len, default="default"))
    keys = {"items", "input", "tokens", "bins"}
    if not isinstance(entry, dict) or set(entry) != keys or not isinstance(entry["tokens"], dict):
        raise ConfigError(f"{found}: an entry has {', '.join(sorted(keys))}; see egs2/swbd/legonn1/conf/{ASSUMED}")
    return MeanLengths(int(entry["items"]), float(entry["input"]), entry["tokens"], float(entry["bins"]))


def vocab_size(name: str, vocab: VocabConfig, base: Path) -> int:
    """Tokens of a vocabulary: its list, its file, or what the name of its folder says (``bpe_unigram2000``).

    Raises:
        ConfigError: none of them tells.
    """
    if isinstance(vocab.tokens, list):
        return len(vocab.tokens)
    for place in (Path(vocab.tokens), base / vocab.tokens):
        if place.is_file():
            return len(read_tokens(place))
    number = re.search(r"(\d+)$", Path(vocab.tokens).parent.name)
    if number:
        return int(number[1])
    if vocab.unit == "phn":
        return PHONEMES
    raise ConfigError(f"vocabs.{name}: {vocab.tokens} does not exist yet; say --vocab {name}=SIZE")


def vocab_sizes(config: ChainConfig, base: Path, given: Mapping[str, int]) -> dict[str, int]:
    """Sizes of all vocabularies; ``given`` ones win.

    Raises:
        ConfigError: sizes that nobody knows, or names that the configuration does not have; all of them.
    """
    faults = [f"--vocab {n}: no such vocabulary{nearest(n, config.vocabs)}" for n in given if n not in config.vocabs]
    sizes = {}
    for name, vocab in config.vocabs.items():
        try:
            sizes[name] = given[name] if name in given else vocab_size(name, vocab, base)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return sizes
