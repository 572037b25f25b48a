"""New data directories from old ones: combine, subset, copy, relabel."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from espnet2_legonn.data.datadir import DataDir, keep_marks, select, write_datadir
from espnet2_legonn.data.tables import Faults, Made, Rows, Table, is_text, sorted_items, split_fields, table_kind
from espnet2_legonn.errors import DataError
from espnet2_legonn.files.lines import read

Tables = dict[str, Rows]

# Tables that a directory may lack because every utterance has the neutral value.
_NEUTRAL: dict[str, Callable[[str], str]] = {"utt2uniq": lambda utt: utt, "utt2speed": lambda utt: "1.0"}


def combine(sources: Sequence[Path | str], dest: Path | str) -> list[str]:
    """Merge data directories with disjoint utterances into `dest`.

    Only tables that all sources have are kept. When some have segments and some have not, whole recordings
    become segments `0 -1` (-1: to the end, as in Kaldi).

    Returns:
        one line per thing left out or made, and the number of utterances.

    Raises:
        DataError: an utterance occurs in two sources, or one recording or speaker attribute has two values.
    """
    if not sources:
        raise DataError("combine: name at least one source directory")
    loaded = _load(sources)
    notes = _make_uniform(loaded)
    merged, left_out = merge_tables(loaded, [str(source) for source in sources])
    notes += [f"left out {name}: not in every source" for name in left_out]
    return [*notes, f"{write_datadir(dest, merged)} utterances in {dest}"]


def _load(sources: Sequence[Path | str]) -> list[Tables]:
    loaded: list[Tables] = []
    faults: list[str] = []
    for source in sources:
        try:
            loaded.append({**DataDir(source).tables()})
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)
    return loaded


def _make_uniform(loaded: Sequence[Tables]) -> list[str]:
    notes: list[str] = []
    if any("segments" in tables for tables in loaded):
        for tables in loaded:
            if "segments" not in tables and "wav.scp" in tables:
                wavs = tables["wav.scp"]
                tables["segments"] = mapped(wavs, lambda utt, _: (utt, f"{utt} 0 -1"))
                notes.append(f"made segments for {sum(1 for _ in wavs.items())} whole recordings")
    for name, neutral in _NEUTRAL.items():
        if any(name in tables for tables in loaded):
            for tables in loaded:
                tables.setdefault(name, mapped(tables["utt2spk"], partial(_neutral_row, neutral)))
    return notes


def _neutral_row(neutral: Callable[[str], str], utt: str, _: str) -> tuple[str, str]:
    return utt, neutral(utt)


def merge_tables(loaded: Sequence[Tables], labels: Sequence[str]) -> tuple[Tables, list[str]]:
    """Union of the tables that all sources have, and the names of those that were left out.

    Reading a table of the union raises DataError where two sources contradict each other.
    """
    common = set.intersection(*(set(tables) for tables in loaded)) - {"spk2utt"}
    left_out = sorted(set.union(*(set(tables) for tables in loaded)) - common - {"spk2utt"})
    merged: Tables = {n: Made(partial(_union, n, [tables[n] for tables in loaded], labels)) for n in sorted(common)}
    return merged, left_out


def _placed(table: Rows, place: int) -> Iterator[tuple[str, int, str]]:
    return ((key, place, value) for key, value in table.items())


def _union(name: str, tables: Sequence[Rows], labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    faults, last = Faults(), ("", "")
    streams = [_placed(table, place) for place, table in enumerate(tables)]
    for key, place, value in heapq.merge(*streams):
        if key != last[0]:
            yield key, value
        elif table_kind(name) == "utt" or value != last[1]:
            faults.add(f"{labels[place]}/{name}: '{key}' is also in an earlier source; copy one with a prefix first")
        last = key, value
    if faults:
        raise DataError(faults)


How = Literal["first", "last", "speakers", "utt_list", "spk_list"]


def subset(source: Path | str, dest: Path | str, how: How, value: int | Path) -> int:
    """Copy selected utterances; returns their number.

    Args:
        how: `first`/`last`: `value` utterances in sorted order; `speakers`: whole speakers, in an order
            fixed by a hash of their names, until there are at least `value` utterances;
            `utt_list`/`spk_list`: `value` is a file whose lines begin with an id.

    Raises:
        DataError: the directory has faults, more utterances are asked than there are, or a listed id does not exist.
    """
    tables = DataDir(source).tables()
    utt2spk = dict(tables["utt2spk"].items())
    keep = set(_count(utt2spk, how, value, source) if isinstance(value, int) else _list(utt2spk, how, value, source))
    select(tables, dest, lambda utt, _: utt in keep)
    return len(keep)


def _count(utt2spk: Mapping[str, str], how: How, number: int, source: Path | str) -> list[str]:
    utts = sorted(utt2spk)
    if not 0 < number <= len(utts):
        raise DataError(f"{source}: {number} utterances asked, there are {len(utts)}")
    if how == "speakers":
        return _whole_speakers(utt2spk, number)
    return utts[:number] if how == "first" else utts[-number:]


def _list(utt2spk: Mapping[str, str], how: How, path: Path, source: Path | str) -> list[str]:
    of_utt = {utt: utt for utt in utt2spk} if how == "utt_list" else utt2spk
    known = set(of_utt.values())
    wanted: dict[str, int] = {}
    for number, line in enumerate(read(path), start=1):
        if fields := split_fields(line.strip(" \t")):
            wanted.setdefault(fields[0], number)
    faults = [f"{path}:{n}: '{key}' is not in {source}" for key, n in wanted.items() if key not in known]
    if faults:
        raise DataError(faults)
    return [utt for utt in utt2spk if of_utt[utt] in wanted]


def _whole_speakers(utt2spk: Mapping[str, str], number: int) -> list[str]:
    # Sorted order would take speakers of one part of the corpus; a hash spreads them and is the same
    # everywhere.
    order = sorted(set(utt2spk.values()), key=lambda spk: hashlib.sha256(spk.encode()).digest())
    members: dict[str, list[str]] = {}
    for utt, speaker in utt2spk.items():
        members.setdefault(speaker, []).append(utt)
    kept: list[str] = []
    for speaker in order:
        if len(kept) >= number:
            break
        kept += members[speaker]
    return kept


def copy(
    source: Path | str,
    dest: Path | str,
    *,
    utt_prefix: str = "",
    spk_prefix: str = "",
    pair: Sequence[str] | None = None,
) -> int:
    """Copy a data directory, renaming ids in all tables; returns its number of utterances.

    Args:
        pair: texts as ESPnet's translation recipes name them (`text.tc.de`, `text.tc.en`): they become src_text, text.

    Raises:
        DataError: the directory has faults or not both texts, or a prefix makes what is no id.
    """
    found: Tables = {**DataDir(source).tables(*(pair or ()))}
    if pair:
        both = found.pop(pair[0]), found.pop(pair[1])
        found["src_text"], found["text"] = both
    tables = rename(found, utt_prefix, spk_prefix)
    if utt_prefix and "utt2uniq" not in tables:
        tables["utt2uniq"] = mapped(found["utt2spk"], lambda utt, _: (utt_prefix + utt, utt))
    return write_datadir(dest, tables)


def relabel(source: Path | str, dest: Path | str, text: Path | str) -> int:
    """Copy a data directory with another `text`, such as what a teacher answered; returns its number of utterances.

    Utterances whose new text has no words are left out. Other tables of the old text (text_phn, text.lc.en) are not
    copied, since they no longer go with it.

    Args:
        text: a table with a text for each utterance; what it has of others is not read.

    Raises:
        DataError: the directory has faults, an utterance has no new text, or no text has words.
    """
    data = DataDir(source)
    tables = data.tables("utt2spk", without=[name for name in data.texts() if name != "src_text"])
    tables["text"] = Table(Path(text), sorted=False)
    kept = 0

    def keep(utt: str, values: Mapping[str, str]) -> bool:
        nonlocal kept
        if "utt2spk" in values and "text" not in values:
            raise DataError(f"{text}: no text for utterance {utt} of {source}; decode all of it")
        wanted = "utt2spk" in values and bool(values["text"].strip())
        kept += wanted
        return wanted

    select(tables, dest, keep)
    keep_marks(data, dest)
    return kept


def mapped(table: Rows, change: Callable[[str, str], tuple[str, str]]) -> Made:
    """A table with each row changed, in a way that keeps the order of keys."""
    return Made(lambda: itertools.starmap(change, sorted_items(table)))


def rename(tables: Mapping[str, Rows], utt_prefix: str, spk_prefix: str) -> Tables:
    """Tables with prefixed ids; recordings take the prefix of utterances, so that copies can be combined."""
    prefix = {"utt": utt_prefix, "reco": utt_prefix, "spk": spk_prefix}
    renamed: Tables = {}
    for name, table in tables.items():
        kind = table_kind(name)
        if kind is None or name == "spk2utt":
            continue
        value = spk_prefix if name == "utt2spk" else utt_prefix if name == "segments" else ""
        both = prefix[kind], value
        renamed[name] = mapped(table, partial(_prefixed, *both)) if any(both) else table
    return renamed


def _prefixed(before_key: str, before_value: str, key: str, value: str) -> tuple[str, str]:
    return before_key + key, before_value + value


def text_names(data: DataDir, names: Sequence[str] | None) -> list[str]:
    """The text tables named, or all of the directory; DataError lists those that are missing."""
    if not names:
        return data.texts()
    faults = [f"{data.path / name}: no such file" for name in names if not data.has(name)]
    faults += [
        f"{name}: not the name of a text table (text, text_phn, src_text, text.<case>.<lang>)"
        for name in names
        if not is_text(name)
    ]
    if faults:
        raise DataError(faults)
    return list(names)
