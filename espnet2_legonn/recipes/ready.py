"""Before a stage begins: are its data directories valid, is the audio what the model takes, do vocabularies fit?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path

from espnet2_legonn.data.checks import Wanted
from espnet2_legonn.data.datadir import DataDir
from espnet2_legonn.data.tables import read_rows, target_table
from espnet2_legonn.data.vocab import Coverage, measure
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.build import load_vocab
from espnet2_legonn.model.description import ChainConfig

RECORDINGS = "wav.scp"


def target_files(config: ChainConfig, folder: Path) -> dict[str, str]:
    """Text table of each vocabulary that the chain is trained to say, see ``target_table``."""
    vocabs = {m.target.vocab for m in config.modules if m.writes.kind == "marginals"}
    return {name: target_table(folder, name, config.vocabs[name].unit) for name in vocabs}


def require_valid(config: ChainConfig, folders: Iterable[Path], targets: bool = True) -> None:
    """Check data directories as `validate` does, and what a chain asks of them beside it.

    Args:
        targets: texts are learned from, so none is empty, and each sound file is looked at: it is at the rate of the
            model, has one channel and is not cut short. Without (decoding), the decoder looks at them itself.

    Raises:
        DataError: every fault of all directories.
    """
    first = config.modules[0]
    probe = first.reads.probe(first.input) if targets else None
    faults: list[str] = []
    for folder in dict.fromkeys(folders):
        files = (config.column.table, *(sorted(set(target_files(config, folder).values())) if targets else ()))
        wanted = Wanted(
            text=False, wav=False, files=files, spk_sort=False, allow_empty_text=True, durations=probe,
            filled=files if targets else (),
        )  # fmt: skip
        try:
            DataDir(folder).check(wanted).tables()
            if probe is not None and config.column.table != RECORDINGS:
                faults += _unreadable(folder / config.column.table, probe)
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)


def _unreadable(table: Path, probe: Callable[[str], float | None]) -> Iterator[str]:
    """Faults of the values of a table that is no list of recordings (`DataDir.check` looks at those)."""
    for uid, value in read_rows(table):
        try:
            probe(value)
        except DataError as error:
            yield from (f"{table}: utterance {uid}: {fault}" for fault in error.faults)


def coverages(config: ChainConfig, config_file: Path, folders: Iterable[Path]) -> list[Coverage]:
    """How the vocabularies of a chain cover the texts that it reads and learns to say.

    Raises:
        DataError: a vocabulary or a text is missing or damaged.
    """
    source, pairs = config.modules[0].source_vocab, list[tuple[str, Path]]()
    for folder in dict.fromkeys(folders):
        read = [] if source is None else [(source, config.column.table)]
        pairs += [(name, folder / file) for name, file in (*target_files(config, folder).items(), *read)]
    found = []
    for name, file in sorted(pairs, key=itemgetter(0)):
        description = config.vocabs[name]
        here = not isinstance(description.tokens, str) or Path(description.tokens).is_file()
        found.append(measure(load_vocab(description, None if here else config_file.parent), file))
    return found


def report(found: Iterable[Coverage]) -> list[str]:
    """Lines about `<unk>` and text that does not come back; some begin with `warning:`."""
    lines = []
    for coverage in found:
        lines.append(f"{coverage.corpus}: {coverage.tokens} tokens, {100 * coverage.oov_rate:.2f} % of them <unk>")
        lines += coverage.warnings()
    return lines
