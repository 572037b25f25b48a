"""A plan: experiments that build on each other, run over a few processes, and the tables they fill.

``conf/plan.yaml`` of a recipe names modules once, then experiments as lists of them (to train) or as plugs (nothing to
train). What is done is not done again; a changed description is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.schema import nearest, read_yaml
from espnet2_legonn.scoring.metrics import METRICS


@dataclass(frozen=True)
class Experiment:
    """One row of work.

    Args:
        name: folder ``exp/legonn_<name>``.
        modules: keys of the plan's ``modules``, in order; empty for a plug.
        plug: ``experiment#module`` parts of a chain that is only put together.
        init: module name to ``experiment#module`` it starts from.
        train, valid: data sets under dump/raw.
        tests: data sets decoded and scored.
        metrics: of the final output and of interfaces in words.
        options: training options that differ from the plan's ``training``.
        change: changes of module descriptions, by module name.
        search: options of the search that differ from the plan's ``search``.
    """

    name: str
    modules: tuple[str, ...] = ()
    plug: tuple[str, ...] = ()
    init: dict[str, str] = field(default_factory=dict)
    train: str = ""
    valid: str = ""
    tests: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("bleu",)
    options: dict[str, Any] = field(default_factory=dict)
    change: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> set[str]:
        """Experiments that must be done before."""
        return {part.partition("#")[0] for part in (*self.plug, *self.init.values())}


@dataclass(frozen=True)
class Table:
    """A table of the report: rows of (label, experiment, interface or "")."""

    title: str
    metric: str
    set: str
    rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Plan:
    """A whole plan; ``fingerprint`` of an experiment changes with anything it depends on."""

    vocabs: dict[str, Any]
    modules: dict[str, Any]
    training: dict[str, Any]
    search: dict[str, Any]
    average_window: int
    experiments: dict[str, Experiment]
    tables: tuple[Table, ...]

    def chain(self, experiment: Experiment, exp_dir: Path) -> dict[str, Any]:
        """The training config of an experiment."""
        modules = []
        for key in experiment.modules:
            module = json.loads(json.dumps(self.modules[key]))
            source = experiment.init.get(module["name"])
            if source:
                donor, _, part = source.partition("#")
                module["init"] = f"{folder(exp_dir, donor)}#{part}" if part else str(folder(exp_dir, donor))
            modules.append(module)
        used = {m[side].get("vocab") for m in modules for side in ("input", "output")}
        vocabs = {name: vocab for name, vocab in self.vocabs.items() if name in used}
        config = {"vocabs": vocabs, "modules": modules, **self.training, **experiment.options}
        return {**config, "modules_conf": experiment.change} if experiment.change else config

    def fingerprint(self, experiment: Experiment) -> str:
        """Digest of the experiment and of all before it."""
        own = {
            "experiment": asdict(experiment),
            "chain": self.chain(experiment, Path()) if experiment.modules else {},
            "search": self.search,
            "window": self.average_window,
            "before": sorted(self.fingerprint(self.experiments[n]) for n in experiment.needs),
        }
        return hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()


def folder(exp_dir: Path, name: str) -> Path:
    """Where an experiment lives."""
    return exp_dir / f"legonn_{name}"


def load_plan(path: Path, only: list[str] | None = None) -> Plan:
    """Read and check a plan.

    Args:
        only: run these experiments and what they need.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    data = read_yaml(path)
    faults: list[str] = []
    experiments: dict[str, Experiment] = {}
    known = set(Experiment.__dataclass_fields__)
    for entry in data.get("experiments", []):
        name = str(entry.get("name", "?"))
        for key in set(entry) - known:
            faults.append(f"{path}: experiment {name}: unknown key {key!r}{nearest(key, known)}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items() if k in known}
        experiments[name] = Experiment(**values)
    for experiment in experiments.values():
        where = f"{path}: experiment {experiment.name}"
        if bool(experiment.modules) == bool(experiment.plug):
            faults.append(f"{where}: give modules (to train) or plug (to put together)")
        if experiment.modules and not (experiment.train and experiment.valid):
            faults.append(f"{where}: training needs train and valid")
        for name in experiment.metrics:
            if name not in METRICS:
                faults.append(f"{where}: no metric {name!r}{nearest(name, METRICS)}")
        for key in experiment.modules:
            if key not in data["modules"]:
                faults.append(f"{where}: no module {key!r}{nearest(key, data['modules'])}")
        for need in experiment.needs - set(experiments):
            faults.append(f"{where}: no experiment {need!r}{nearest(need, experiments)}")
    tables = []
    for entry in data.get("tables", []):
        rows = tuple((str(r["label"]), str(r["exp"]), str(r.get("interface", ""))) for r in entry["rows"])
        for _, name, _ in rows:
            if name not in experiments:
                faults.append(f"{path}: table {entry['title']!r}: no experiment {name!r}{nearest(name, experiments)}")
        if entry["metric"] not in METRICS:
            near = nearest(entry["metric"], METRICS)
            faults.append(f"{path}: table {entry['title']!r}: no metric {entry['metric']!r}{near}")
        tables.append(Table(entry["title"], entry["metric"], entry["set"], rows))
    if faults:
        raise ConfigError(faults)
    if only:
        experiments = {n: e for n, e in experiments.items() if n in _with_needs(only, experiments, path)}
    return Plan(
        data["vocabs"],
        data["modules"],
        data.get("training", {}),
        data.get("search", {}),
        int(data.get("average_window", 0)),
        experiments,
        tuple(tables),
    )


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
