"""A plan: experiments that build on each other, run over a few processes, and the tables they fill.

``conf/plan.yaml`` of a recipe names modules once, then experiments as lists of them (to train) or as plugs (nothing to
train). What is done is not done again; a changed description is.
"""

from __future__ import annotations

import dataclasses
import graphlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.files.schema import Reader, nearest
from espnet2_legonn.inference.language_model import PREFIX
from espnet2_legonn.model.description import VocabConfig, override, parse, read_module
from espnet2_legonn.model.freeze import InitConfig, check_parts, source_of
from espnet2_legonn.scoring.metrics import METRICS

PAPER = "decode"  # the search that every experiment is decoded with unless it says otherwise


@dataclass
class SearchPlan:
    """One way to decode, by name; its results lie in ``exp/legonn_<experiment>/<name>``.

    Args:
        tune: choose ctc_weight and length_penalty on the experiment's ``valid``, where they are not given.
        ngram: name of one of the plan's n-gram models.
        lm_file: weights of a language model of ESPnet's (stage 7).
        ngram_weight, lm_weight: of them; tuned where ``tune`` is true and they are not given.
        others: as in BeamOptions.
    """

    beam_size: int = 5
    length_penalty: float | None = None
    maxlenratio: float = 0.0
    ctc_weight: float | None = None
    temperature: float = 1.0
    dtype: str = "float32"
    tune: bool = False
    ngram: str | None = None
    ngram_weight: float | None = None
    lm_file: str | None = None
    lm_weight: float | None = None


_YOUNGER = {"dtype": "float32", "lm_file": None, "lm_weight": None}
# Searches that differ here from the usual are tuned otherwise since candidates are proposed with several weights of
# language models, and by the options of the search itself (recipes/tune.py).
_PROPOSED = {"ngram": None, "lm_file": None, "temperature": 1.0, "maxlenratio": 0.0, "dtype": "float32"}
PROPOSALS = 2  # one more whenever recipes/tune.py proposes otherwise


def asked(search: Any) -> dict[str, Any]:
    """What results depend on, of a SearchPlan or BeamOptions; younger options are left out at their default."""
    told = {name: value for name, value in asdict(search).items() if name not in _YOUNGER or value != _YOUNGER[name]}
    if told.get("tune") and any(told.get(name, usual) != usual for name, usual in _PROPOSED.items()):
        told["proposals"] = PROPOSALS
    return told


@dataclass
class NgramPlan:
    """An n-gram model of some data sets' ``text``, over the tokens of a vocabulary."""

    vocab: str
    sets: list[str]
    order: int = 4


@dataclass
class Teacher:
    """Whose answers to the training set are learned: an experiment, decoded by one of its searches."""

    exp: str
    search: str = PAPER


@dataclass
class Experiment:
    """One row of work.

    Args:
        name: folder ``exp/legonn_<name>``.
        modules: keys of the plan's ``modules``, in order; empty for a plug.
        plug: ``experiment#module`` parts of a chain that is only put together, the last may be ``hf:FOLDER``.
        init: module name to ``experiment#module`` it starts from, or to a mapping as in a training config.
        train, valid: data sets under dump/raw; a plug needs ``valid`` only to tune its search.
        tests: data sets decoded and scored.
        metrics: of the final output and of interfaces in words; the first one is tuned for.
        options: training options that differ from the plan's ``training``.
        change: changes of module descriptions, by module name.
        searches: names of the plan's ``searches``.
        teacher: its answers to ``train`` are the texts that are learned (sequence-level distillation, Kim & Rush 2016).
    """

    name: str
    modules: list[str] = field(default_factory=list)
    plug: list[str] = field(default_factory=list)
    init: dict[str, Any] = field(default_factory=dict)
    train: str = ""
    valid: str = ""
    tests: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=lambda: ["bleu"])
    options: dict[str, Any] = field(default_factory=dict)
    change: dict[str, Any] = field(default_factory=dict)
    searches: list[str] = field(default_factory=lambda: [PAPER])
    teacher: Teacher | None = None

    @property
    def needs(self) -> set[str]:
        """Experiments that must be done before."""
        taught = [] if self.teacher is None else [self.teacher.exp]
        parts = (
            *(part for part in self.plug if not part.startswith(PREFIX)),
            *map(source_of, self.init.values()),
            *taught,
        )
        return {part.partition("#")[0] for part in parts}


@dataclass
class Cell:
    """A score: of an experiment, decoded by one of its searches; or of one of its interfaces.

    ``more``: its experiment takes long, so it is run when all tables are asked for; until then the cell says so.
    """

    exp: str
    search: str = PAPER
    interface: str = ""
    more: bool = False


@dataclass
class ResultRow:
    """A row of a table: one cell for each column, null for none; ``baseline``: it must have learned."""

    label: str
    cells: list[Cell | None]
    baseline: bool = False


@dataclass
class ResultColumn:
    """What the scores below it are of."""

    title: str
    metric: str
    set: str


@dataclass
class ResultTable:
    """A table of the report.

    Args:
        unlearned: show the table although a baseline did not learn; it is marked.
        more: not among the first ones: made when all tables are asked for.
        study: of the rows that are repeated over seeds.
        seeds: only the first so many of the study's seeds (0: all).
    """

    title: str
    columns: list[ResultColumn]
    rows: list[ResultRow]
    unlearned: bool = False
    more: bool = False
    study: bool = False
    seeds: int = 0

    @property
    def needs(self) -> set[str]:
        """Experiments that must be done before it is shown."""
        return {cell.exp for _, _, cell in self.cells() if not cell.more}

    def cells(self) -> Iterator[tuple[ResultRow, ResultColumn, Cell]]:
        """All cells that hold a score."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells):
                if cell is not None:
                    yield row, column, cell


@dataclass
class Plan:
    """A whole plan; ``fingerprint`` of an experiment changes with anything it depends on.

    Args:
        average_window: checkpoints averaged (0: no averaging).
        average_candidates: windows decoded to choose one, the newest first (0: all of the epochs that were kept).
    """

    vocabs: dict[str, Any]
    modules: dict[str, Any]
    experiments: list[Experiment]
    training: dict[str, Any] = field(default_factory=dict)
    searches: dict[str, SearchPlan] = field(default_factory=lambda: {PAPER: SearchPlan(ctc_weight=0.0)})
    ngrams: dict[str, NgramPlan] = field(default_factory=dict)
    average_window: int = 0
    average_candidates: int = 1
    tables: list[ResultTable] = field(default_factory=list)

    @property
    def by_name(self) -> dict[str, Experiment]:
        return {experiment.name: experiment for experiment in self.experiments}

    @property
    def average(self) -> tuple[int, int]:
        """Checkpoints averaged, and windows that are decoded to choose one."""
        return self.average_window, self.average_candidates

    def chain(self, experiment: Experiment, exp_dir: Path) -> dict[str, Any]:
        """The training config of an experiment."""
        modules = []
        for key in experiment.modules:
            module = json.loads(json.dumps(self.modules[key]))
            init = experiment.init.get(module["name"])
            if init:
                donor, _, part = source_of(init).partition("#")
                source = f"{folder(exp_dir, donor)}#{part}" if part else str(folder(exp_dir, donor))
                module["init"] = {**init, "from": source} if isinstance(init, dict) else source
            modules.append(module)
        sides = [side for m in modules for side in (m["input"], m["output"], m["output"].get("ctc") or {})]
        used = {side.get("vocab") for side in sides}
        vocabs = {name: vocab for name, vocab in self.vocabs.items() if name in used}
        config = {"vocabs": vocabs, "modules": modules, **self.training, **experiment.options}
        return {**config, "modules_conf": experiment.change} if experiment.change else config

    def made(self, experiment: Experiment) -> str:
        """Digest of what an experiment's weights depend on: itself and all before it."""
        left = ("tests", "metrics", "searches", "teacher")
        own = {
            "experiment": {k: v for k, v in asdict(experiment).items() if k not in left},
            "chain": self.chain(experiment, Path()) if experiment.modules else {},
            "window": self.average_window if self.average_candidates == 1 else self.average,
            "before": sorted(self.made(self.by_name[n]) for n in experiment.needs),
        }
        return _digest(own if experiment.teacher is None else {**own, "texts": self.taught(experiment.teacher)})

    def taught(self, teacher: Teacher) -> str:
        """Digest of what a teacher's answers depend on."""
        return _digest([self.made(self.by_name[teacher.exp]), *self._searched(teacher.search)])

    def scored(self, experiment: Experiment, search: str) -> str:
        """Digest of what the scores of one of an experiment's searches depend on."""
        return _digest([self.made(experiment), experiment.tests, experiment.metrics, *self._searched(search)])

    def _searched(self, name: str) -> list[Any]:
        search = self.searches[name]
        return [asked(search), None if search.ngram is None else asdict(self.ngrams[search.ngram])]

    def fingerprint(self, experiment: Experiment) -> str:
        """Digest of the weights, and of how they are decoded and scored."""
        searches = {name: asked(self.searches[name]) for name in experiment.searches}
        ngrams = {name: asdict(model) for name, model in self.ngrams.items()}
        return _digest([self.made(experiment), experiment.tests, experiment.metrics, searches, ngrams])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def folder(exp_dir: Path, name: str) -> Path:
    """Where an experiment lives."""
    return exp_dir / f"legonn_{name}"


def load_plan(path: Path, only: list[str] | None = None, tables: str = "first", seed: int | None = None) -> Plan:
    """Read and check a plan.

    Args:
        only: run these experiments and what they need.
        tables: ``first`` (those not marked ``more``), ``all``, or ``study``; with the experiments that they need.
        seed: in place of the plan's.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    reader = Reader()
    data = read_config(path)
    data = _with_short_forms(data) if isinstance(data, dict) else data
    plan = reader.build(Plan, data, str(path))
    _read_parts(reader, data, str(path))
    if reader.faults:
        raise ConfigError(reader.faults)
    faults = [f"{path}: {fault}" for fault in _faults(plan)]
    if faults:
        raise ConfigError(faults)
    if tables != "all":
        kept = [table for table in plan.tables if (table.study if tables == "study" else not table.more)]
        if tables == "study" and not kept:
            raise ConfigError(f"{path}: tables: none says study: true, so there is no study to run")
        plan = dataclasses.replace(plan, tables=kept)
        only = only or [exp for table in kept for exp in table.needs]
    if only:
        wanted = _with_needs(only, plan.by_name, path)
        plan = dataclasses.replace(plan, experiments=[e for e in plan.experiments if e.name in wanted])
    if seed is not None:
        plan.training["seed"] = seed
        if fixed := [e.name for e in plan.experiments if "seed" in e.options]:
            reason = "options: seed would make all seeds of a study the same training; leave it out"
            raise ConfigError(f"{path}: experiment {name}: {reason}" for name in fixed)
    return plan


def _read_parts(reader: Reader, data: Any, path: str) -> None:
    """Faults of vocabularies and modules, by the schema of training configs: before hours of work, not within."""
    vocabs, modules = (data.get(key) if isinstance(data, dict) else None for key in ("vocabs", "modules"))
    for name, vocab in vocabs.items() if isinstance(vocabs, dict) else ():
        reader.build(VocabConfig, vocab, f"{path}.vocabs.{name}")
    for key, module in modules.items() if isinstance(modules, dict) else ():
        inner = Reader()
        read_module(inner, module, "")
        reader.faults += [f"{path}.modules.{key}: {fault.removeprefix(': ')}" for fault in inner.faults]


def _with_short_forms(data: dict[str, Any]) -> dict[str, Any]:
    """``search`` of older plans, and tables with one column whose rows are cells themselves."""
    data = dict(data)
    given, named = data.get("search"), data.get("searches") or {}
    if isinstance(given, dict) and isinstance(named, dict):
        data["searches"] = {PAPER: {"ctc_weight": 0.0, **data.pop("search")}, **named}
    tables = data.get("tables") or []
    data["tables"] = [_long_table(table) for table in tables] if isinstance(tables, list) else tables
    return data


def _long_table(table: Any) -> Any:
    if not isinstance(table, dict) or "columns" in table or not {"metric", "set"} <= table.keys():
        return table
    metric = str(table["metric"])
    unit = (
        f"{metric.upper()} (higher is better)" if metric.startswith("bleu") else f"% {metric.upper()} (lower is better)"
    )
    rows, given = [], table.get("rows") or []
    for row in given if isinstance(given, list) else [given]:
        if isinstance(row, dict) and "cells" not in row:
            cell = {key: row[key] for key in ("exp", "search", "interface", "more") if key in row}
            row = {**{k: v for k, v in row.items() if k not in cell}, "cells": [cell]}
        rows.append(row)
    kept = {k: v for k, v in table.items() if k not in ("metric", "set")}
    return {**kept, "columns": [{"title": unit, "metric": metric, "set": table["set"]}], "rows": rows}


def _faults(plan: Plan) -> list[str]:
    faults: list[str] = []
    names = plan.by_name
    if len(names) < len(plan.experiments):
        faults.append("experiments: two have the same name")
    for experiment in plan.experiments:
        where = f"experiment {experiment.name}"
        if bool(experiment.modules) == bool(experiment.plug):
            faults.append(f"{where}: give modules (to train) or plug (to put together)")
        if experiment.modules and not (experiment.train and experiment.valid):
            faults.append(f"{where}: training needs train and valid")
        faults += _teacher_faults(where, experiment, names)
        for name in experiment.metrics:
            if name not in METRICS:
                faults.append(f"{where}: no metric {name!r}{nearest(name, METRICS)}")
        for key in experiment.modules:
            if key not in plan.modules:
                faults.append(f"{where}: no module {key!r}{nearest(key, plan.modules)}")
        for key in experiment.searches:
            if key not in plan.searches:
                faults.append(f"{where}: no search {key!r}{nearest(key, plan.searches)}")
            elif plan.searches[key].tune and not experiment.valid:
                faults.append(f"{where}: search {key} is tuned, so it needs valid")
        inits = _init_faults(where, experiment, plan.modules)
        faults += inits
        if not inits and experiment.modules and set(experiment.modules) <= set(plan.modules):
            faults += _chain_faults(where, plan, experiment)
        for need in experiment.needs - set(names) - {""}:
            faults.append(f"{where}: no experiment {need!r}{nearest(need, names)}")
        if any(not part.partition("#")[0] for part in experiment.plug):
            faults.append(f"{where}: plug: each part is EXPERIMENT or EXPERIMENT#MODULE, found {experiment.plug}")
    try:
        graphlib.TopologicalSorter({name: e.needs for name, e in names.items()}).prepare()
    except graphlib.CycleError as error:
        faults.append(f"experiments: {' -> '.join(error.args[1])}: each waits for the one before it, so none can begin")
    for name, search in plan.searches.items():
        if search.ngram is not None and search.lm_file is not None:
            faults.append(f"searches.{name}: ngram and lm_file; give one of them")
        if search.ngram is not None and search.ngram not in plan.ngrams:
            faults.append(f"searches.{name}: no n-gram model {search.ngram!r}{nearest(search.ngram, plan.ngrams)}")
    for name, ngram in plan.ngrams.items():
        if ngram.vocab not in plan.vocabs:
            faults.append(f"ngrams.{name}: no vocabulary {ngram.vocab!r}{nearest(ngram.vocab, plan.vocabs)}")
    for table in plan.tables:
        faults += _table_faults(table, names)
    return faults


def _teacher_faults(where: str, experiment: Experiment, names: dict[str, Experiment]) -> list[str]:
    teacher = experiment.teacher
    if teacher is None or teacher.exp not in names:  # said where needs are looked at
        return []
    if experiment.plug:
        return [f"{where}: teacher: a plug is not trained"]
    if teacher.search not in names[teacher.exp].searches:
        return [f"{where}: teacher: experiment {teacher.exp} is not decoded by search {teacher.search!r}"]
    return []


def _chain_faults(where: str, plan: Plan, experiment: Experiment) -> list[str]:
    """What training would say of the chain: modules that do not follow each other, vocabularies that are not there."""
    chain = plan.chain(experiment, Path())
    try:
        parse(override({key: chain[key] for key in ("vocabs", "modules")}, experiment.change))
    except ConfigError as error:
        return [f"{where}: {fault}" for fault in error.faults]
    return []


def cell_fault(cell: Cell, metric: str, dataset: str, experiments: dict[str, Experiment]) -> str | None:
    """Why a cell has no score by a metric on a test set; None if it will have one."""
    if cell.exp not in experiments:
        return f"no experiment {cell.exp!r}{nearest(cell.exp, experiments)}"
    if cell.search not in experiments[cell.exp].searches:
        return f"experiment {cell.exp} is not decoded by search {cell.search!r}"
    if dataset not in experiments[cell.exp].tests:
        return f"experiment {cell.exp} is not tested on {dataset}"
    metrics = experiments[cell.exp].metrics  # phonemes are scored by PER alone; mistyped names are faults of their own
    if metric not in (*metrics, "per") and METRICS.keys() >= {metric, *metrics}:
        return f"experiment {cell.exp} is not scored by {metric}; its metrics are {metrics}"
    return None


def _table_faults(table: ResultTable, names: dict[str, Experiment]) -> list[str]:
    where, faults = f"table {table.title!r}", []
    for row in table.rows:
        if len(row.cells) != len(table.columns):
            faults.append(f"{where}: row {row.label!r} has {len(row.cells)} cells for {len(table.columns)} columns")
    for column in table.columns:
        if column.metric not in METRICS:
            faults.append(f"{where}: no metric {column.metric!r}{nearest(column.metric, METRICS)}")
    for _, column, cell in table.cells():
        if fault := cell_fault(cell, column.metric, column.set, names):
            faults.append(f"{where}: {fault}")
    return faults


def _init_faults(where: str, experiment: Experiment, modules: dict[str, Any]) -> list[str]:
    faults: list[str] = []
    chosen = {modules[key]["name"]: modules[key] for key in experiment.modules if key in modules}
    for name, init in experiment.init.items():
        if name not in chosen:
            faults.append(f"{where}: init: no module {name!r}{nearest(name, chosen)}")
            continue
        reader = Reader()
        read = reader.coerce(str | InitConfig, init, f"{name}.init")
        if not reader.faults:
            decodes = chosen[name]["body"].get("type") == "transformer_decoder"
            reader.faults += check_parts(name, decodes, read, False)
        faults += [f"{where}: {fault}" for fault in reader.faults]
    return faults


def _with_needs(names: list[str], experiments: dict[str, Experiment], path: Path) -> set[str]:
    wanted: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in experiments:
            raise ConfigError(f"{path}: no experiment {name!r}{nearest(name, experiments)}")
        if name not in wanted:
            wanted.add(name)
            queue += experiments[name].needs
    return wanted
