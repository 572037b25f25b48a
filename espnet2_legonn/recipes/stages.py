"""Stages 10-13: statistics, training, decoding, scoring.

Every function writes a ``run.sh`` that repeats it into the folder it fills, as ESPnet's recipes do (legonn.sh passes
it), and leaves finished results alone only where ESPnet does.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet2_legonn.data.tables import Made, Table, atomic_text, is_text, joined, ordered, target_table, write_table
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.files.configs import files_of, read_config, sources
from espnet2_legonn.files.scratch import LAUNCHING, TRAINING, alone
from espnet2_legonn.packs import names
from espnet2_legonn.recipes.jobs import call, count_keys, module, once, run, split_keys, unchanged, working
from espnet2_legonn.recipes.origin import keep_origin, origin, read_origin, set_aside
from espnet2_legonn.recipes.speed import gather_speed
from espnet2_legonn.scoring import metrics as metric_of
from espnet2_legonn.scoring.tables import write_atomic

if TYPE_CHECKING:
    from espnet2_legonn.model.description import ChainConfig

TRAIN = "espnet2_legonn.bin.legonn_train"


def chain_config(path: Path) -> ChainConfig:
    """The chain of a training config or of an experiment.

    Raises:
        ConfigError: it has none.
    """
    data = read_config(path)  # before what reads it is loaded, which takes seconds
    from espnet2_legonn.model.description import parse

    if not isinstance(data, dict) or "modules" not in data:
        raise ConfigError(f"{path}: describes no chain (no 'modules')")
    return parse({"vocabs": data.get("vocabs"), "modules": data["modules"]})


def data_triples(config: ChainConfig, data: Path, targets: bool = True) -> list[str]:
    """``file,name,type`` of a data directory for this chain.

    Raises:
        DataError: a file that the chain needs is missing.
    """
    wanted = [tuple(config.column)]
    if targets:
        used = {m.target.vocab for m in config.modules if m.target is not None}
        tables = {target_table(data, name, config.vocabs[name].unit) for name in used}
        wanted += [(table, table, "text") for table in sorted(tables)]
    missing = [str(data / name) for name, _, _ in wanted if not (data / name).is_file()]
    if missing:
        raise DataError(f"{m}: this chain needs it; run the stages that make it" for m in missing)
    return [f"{data / file},{name},{type_}" for file, name, type_ in wanted]


def shape_names(config: ChainConfig) -> list[str]:
    """Shape files that batches are cut by: the input and the last target."""
    return [f"{config.column.name}_shape", f"text_{_last_target(config)}_shape"]


def shape_options(config: ChainConfig, stats_dir: Path) -> list[str]:
    """Shape file options of training, for both phases."""
    options = []
    for phase in ("train", "valid"):
        for name in shape_names(config):
            options += [f"--{phase}_shape_file", str(stats_dir / phase / name)]
    return options


def vocabs_said(config: ChainConfig) -> dict[str, str]:
    """The name of the vocabulary of each module's text, in order: the last one is that of the chain."""
    return {m.name: m.target.vocab for m in config.modules if m.target is not None}


def _last_target(config: ChainConfig) -> str:
    return list(vocabs_said(config))[-1]


def data_options(config: ChainConfig, train: Path, valid: Path) -> list[str]:
    """Data options of training, for both phases."""
    options = []
    for phase, data in (("train", train), ("valid", valid)):
        for triple in data_triples(config, data):
            options += [f"--{phase}_data_path_and_name_and_type", triple]
    return options


def stats(
    config_file: Path, train: Path, valid: Path, out: Path, cmd: str, nj: int, extra: Sequence[str] = ()
) -> list[str]:
    """Stage 10: lengths of everything and statistics of features.

    Returns:
        what is worth knowing of the vocabularies; it also stands in ``out/vocabulary.txt``.

    Raises:
        DataError: every fault of the data directories, before any job begins.
    """
    config = chain_config(config_file)
    from espnet2_legonn.recipes.ready import coverages, report, require_valid

    data_options(config, train, valid)  # names files that are missing, and the stage that makes them
    require_valid(config, (train, valid))
    said = report(coverages(config, config_file, (train, valid)))
    logs = out / "logdir"
    command = module(TRAIN, "--collect_stats", "true", "--config", config_file, *data_options(config, train, valid))
    command += ["--train_shape_file", f"{logs}/train/keys.JOB.scp", "--valid_shape_file", f"{logs}/valid/keys.JOB.scp"]
    command += ["--output_dir", f"{logs}/stats.JOB", "--ngpu", "0", *extra]
    tables = [data / config.column.table for data in (train, valid)]
    jobs = min(max(1, nj), *map(count_keys, tables))
    read = [Path(triple.split(",")[0]) for data in (train, valid) for triple in data_triples(config, data)]
    with working(logs, [*command, str(jobs)], [*sources(config_file), *read]):
        for phase, table in zip(("train", "valid"), tables):
            split_keys(table, jobs, logs / phase)
        run(cmd, logs / "stats.JOB.log", once(command, logs / "stats.JOB"), jobs)
        folders = [o for i in range(jobs) for o in ("--input_dir", f"{logs}/stats.{i + 1}")]
        skip = [] if config.modules[0].reads.has_statistics() else ["--skip_sum_stats"]
        aggregate = module("espnet2.bin.aggregate_stats_dirs", *skip, *folders, "--output_dir", out)
        run(cmd, logs / "aggregate.log", aggregate)
        with atomic_text(out / "vocabulary.txt") as stream:
            stream.writelines(f"{line}\n" for line in said)
    return said


def train(
    config_file: Path,
    train_dir: Path,
    valid: Path,
    stats_dir: Path,
    exp: Path,
    cmd: str,
    ngpu: int = 0,
    num_nodes: int = 1,
    extra: Sequence[str] = (),
    num_splits: int = 1,
) -> None:
    """Stage 11: training, resumed where it stopped.

    Args:
        num_splits: the training set is read in so many parts.

    Raises:
        DataError: every fault of the data directories.
        BusyError: a training runs in ``exp``.
    """
    config = chain_config(config_file)
    from espnet2_legonn.recipes.ready import require_valid
    from espnet2_legonn.recipes.train_options import in_parts

    data_options(config, train_dir, valid)
    require_valid(config, (train_dir, valid))
    command = module("espnet2.bin.launch", "--cmd", f"{cmd} --name {exp}/train.log", "--log", f"{exp}/train.log")
    command += ["--ngpu", str(ngpu), "--num_nodes", str(num_nodes), "--init_file_prefix", f"{exp}/.dist_init_"]
    command += ["--multiprocessing_distributed", "true", "--"]
    inputs = [*data_options(config, train_dir, valid), *shape_options(config, stats_dir)]
    command += module(TRAIN, "--config", config_file, *in_parts(inputs, stats_dir, num_splits))
    command += ["--resume", "true", "--output_dir", str(exp), *extra]
    with alone(exp, TRAINING):  # one that outlived its launcher: leave its log alone
        pass
    with alone(exp, LAUNCHING):
        if call(command):
            raise ConfigError(f"training failed; its log is {exp}/train.log")


def decode(
    exp: Path, model: str | None, data: Path, out: Path, cmd: str, nj: int, ngpu: int = 0, extra: Sequence[str] = ()
) -> None:
    """Stage 12: decode a data directory and every interface on the way.

    ``out`` says what made it (``recipes/origin.py``); answers of other weights, data or another search are set aside.

    Raises:
        DataError: every fault of the data directory.
    """
    config = chain_config(exp / names.CONFIG)
    from espnet2_legonn.recipes.ready import require_valid

    file = data / config.column.table
    jobs = max(1, min(nj, count_keys(file)))
    triple = data_triples(config, data, targets=False)[0]
    require_valid(config, [data], targets=False)
    logs = out / "logdir"
    weights = ["--legonn_model_file", model] if model else []
    command = module("espnet2_legonn.bin.legonn_inference", "--legonn_train_config", exp / names.CONFIG, *weights)
    command += ["--data_path_and_name_and_type", triple]
    command += ["--key_file", f"{logs}/keys.JOB.scp", "--output_dir", f"{logs}/output.JOB", "--ngpu", str(ngpu), *extra]
    options = [file for word in extra for file in files_of(word)]  # the search's configuration among them
    model_files = [exp / names.CONFIG, exp / names.WEIGHTS, *sorted(exp.glob("*.pth"))]
    record = origin(exp, model, file, extra)
    with working(logs, [*command, str(jobs)], [file, *model_files, *options]):
        set_aside(out, record)
        split_keys(file, jobs, logs)
        run(cmd, logs / "legonn_inference.JOB.log", once(command, logs / "output.JOB"), jobs, ngpu)
        parts = [logs / f"output.{i + 1}" for i in range(jobs)]
        _gather(out, parts, Table(file))
        if said := gather_speed(parts, logs):
            print(said)
        keep_origin(out, record)


def _gather(out: Path, parts: Sequence[Path], inputs: Table) -> None:
    """The tables of all jobs as those of one.

    Raises:
        DataError: an input has no answer.
    """
    from espnet2_legonn.inference.decode import FILES

    for folder in sorted(
        p.relative_to(parts[0]) for p in [*parts[0].glob("*best_recog"), *parts[0].glob("interfaces/*")]
    ):
        target = out if folder.name == "1best_recog" else out / folder
        for name in FILES:
            tables = [Table(part / folder / name) for part in parts]
            if name == "scores":  # not of every input, and none of interfaces
                tables = [table for table in tables if table.path.is_file()]
            if tables:
                wanted = None if name == "scores" else inputs
                rows = Made(partial(_merged, tables, wanted, target / name))
                ordered(partial(write_table, target / name, rows))


def _merged(tables: Sequence[Table], inputs: Table | None, target: Path) -> Iterator[tuple[str, str]]:
    rows = heapq.merge(*(table.rows() for table in tables), key=itemgetter(0))
    if inputs is None:
        yield from ((row.key, row.value) for row in rows)
        return
    lost, first = 0, ""
    for wanted, row in joined([inputs.rows(), rows]):
        if row is not None:
            yield row.key, row.value
        elif wanted is not None:
            first, lost = first or wanted.key, lost + 1
    if lost:
        raise DataError(f"{target}: no answer for {lost} inputs ({first}, ...); decode again")


def tune_search(
    exp: Path,
    model: str | None,
    data: Path,
    metric: str,
    beam_size: int,
    limit: int = 0,
    models: Mapping[str, str | None] | None = None,
) -> str:
    """Before stage 12: weights of the search by a validation set, kept for all who load this experiment.

    What was tuned for these weights and this data is not tuned again.

    Args:
        models: files of language models that search, too, by option (``lm_file``, ``ngram_file``); all of them get one
            weight.

    Returns:
        the curve as a table, and where the choice is kept.
    """
    named: dict[str, Any] = {name: file for name, file in (models or {}).items() if file}
    about = [metric, beam_size, limit, *([named] if named else [])]
    out = exp / "tune" / data.name
    weights, done = names.find_weights(exp, model).resolve(), out / "of.json"
    own = [weights, *map(Path, named.values())]
    if done.is_file():
        *then, seen = json.loads(done.read_text(encoding="utf-8"))
        files = dict.fromkeys([*own, *(Path(file[0]) for file in seen)])
        if then == about and seen == unchanged(files):
            return (out / "result.txt").read_text(encoding="utf-8")
    from espnet2_legonn.inference.decode import column_of
    from espnet2_legonn.inference.fusion import makers
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.packs.pack import keep_search
    from espnet2_legonn.recipes.tune import tune
    from espnet2_legonn.search.options import BeamOptions

    chain = LegoNN.from_pretrained(exp, model)
    vocab = chain.require_text()
    references = metric_of.reference_files(metric, data, "text_phn" if vocab.unit == "phn" else "text")
    read = unchanged([*own, data / column_of(chain).table, *references])
    more = makers(BeamOptions(**named).filled(None, True), vocab) if named else []
    choice, weight, curve = tune(chain, data, metric, BeamOptions(beam_size), more, limit=limit, out=out)
    weighed: dict[str, Any] = {name.replace("_file", "_weight"): weight for name in named}
    choice = replace(choice, **weighed)
    kept = keep_search(exp, choice, model)
    # With the choice itself: one that was made on another set since is not this one.
    write_atomic(done, json.dumps([*about, [*read, *unchanged([kept])]]))
    return f"{curve}\nkept in {kept}\n"


def score(
    exp: Path, data: Path, decoded: Path, metrics: Sequence[str], symbols: Sequence[str] = (), score_opts: str = ""
) -> list[tuple[str, str, float]]:
    """Stage 13: score the final output and every interface (Table IX); ref.trn and hyp.trn stand beside each score.

    Args:
        symbols: non-linguistic ones: words that error rates do not see, in references and in hypotheses.
        score_opts: options of sclite, where SCTK is installed.

    Returns:
        (module, metric, value) of each; module is empty for the final output.

    Raises:
        DataError: no such metric, or PER where no module says phonemes; or see ``scoring.metrics.score``.
    """
    from espnet2_legonn.scoring.trn import run_sclite, write_trn

    config = chain_config(exp / names.CONFIG)
    vocabs = vocabs_said(config)
    units = {name: config.vocabs[said].unit for name, said in vocabs.items()}
    for metric in metrics:
        metric_of.known(metric)
        metric_of.require_scored_by(metric, units)
    speakers = metric_of.speakers_of(data)
    made_by = read_origin(decoded)
    found = []
    for name, folder in [("", decoded)] + [(m, decoded / "interfaces" / m) for m in vocabs]:
        if not (folder / "text").is_file():
            continue
        called = vocabs[name or _last_target(config)]
        vocab = config.vocabs[called]
        table = target_table(data, called, vocab.unit)
        if vocab.unit == "phn" and not (data / table).is_file():
            continue  # a donor's phonemes need not be known for this data
        for metric in filter(None, dict.fromkeys(metric_of.scored_by(metric, vocab.unit) for metric in metrics)):
            with seen_by(metric, data, folder / "text", symbols) as (references, text):
                result = metric_of.score(metric, references, text, vocab.language, speakers, table)
                out = folder / f"score_{metric}"
                result.write(out, made_by)
                write_trn(metric, metric_of.reference_files(metric, references, table), text, out, speakers)
            if not metric_of.known(metric).higher:
                run_sclite(out, score_opts)
            found.append((name, metric, result.value))
    return found


@contextlib.contextmanager
def seen_by(metric: str, data: Path, hyp: Path, symbols: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Folder of references and hypotheses as a metric sees them: error rates without these symbols."""
    if not symbols or metric_of.known(metric).higher:
        yield data, hyp
        return
    from espnet2_legonn.scoring.trn import without_symbols

    with tempfile.TemporaryDirectory() as folder:
        for path in data.iterdir():
            if is_text(path.name):
                without_symbols(path, Path(folder) / path.name, symbols)
        yield Path(folder), without_symbols(hyp, Path(folder) / "hyp", symbols)
