"""Run a plan: trainings in a few worker processes that import ESPnet once, plugs as soon as their parts are there."""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import hashlib
import io
import json
import logging
import multiprocessing
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tqdm import tqdm

from espnet2_legonn.data.tables import atomic_text
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.files.scratch import alone, scratch
from espnet2_legonn.recipes.plan import Experiment, Plan, asked, folder
from espnet2_legonn.scoring.results import environment

if TYPE_CHECKING:
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.model.interface import SearchChoice
    from espnet2_legonn.search.options import BeamOptions

# What tells that an experiment has its weights, that it is decoded and scored, and (in its folder) that a search is.
MADE, DONE, SCORED = "made.json", "done.json", "scored.json"
CHOSEN_BY = 100  # validation utterances that choose between windows of checkpoints


def run_plan(plan: Plan, raw: Path, exp_dir: Path, workers: int = 2) -> dict[str, float]:
    """Do all that is not done yet; seconds spent by experiment.

    Raises:
        Exception: of the first experiment that failed; what runs beside it is finished, the rest is not begun.
    """
    waiting = plan.by_name
    done = {n for n, e in waiting.items() if is_done(plan, e, exp_dir)}
    seconds: dict[str, float] = {}
    if waiting.keys() - done:
        make_ngrams(plan, raw, exp_dir)
    context = multiprocessing.get_context("spawn")
    with (
        futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet) as pool,
        tqdm(total=len(waiting), initial=len(done), unit="exp", desc="plan", smoothing=0) as progress,
    ):
        for name in done:
            waiting.pop(name)
        running: dict[futures.Future, str] = {}
        while waiting or running:
            for name in [n for n, e in waiting.items() if e.needs <= done and len(running) < workers]:
                if len(running) < workers:
                    job = pool.submit(run_experiment, plan, waiting.pop(name), raw, exp_dir)
                    running[job] = name
            finished, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            for job in finished:
                name = running.pop(job)
                seconds[name], line = job.result()
                done.add(name)
                progress.update()
                progress.write(f"{name:24s} {seconds[name]:5.0f} s  {line}")
    return seconds


def _quiet() -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.simplefilter("ignore")


def is_done(plan: Plan, experiment: Experiment, exp_dir: Path) -> bool:
    """Was exactly this experiment finished before?"""
    path = folder(exp_dir, experiment.name) / DONE
    return path.is_file() and json.loads(path.read_text())["fingerprint"] == plan.fingerprint(experiment)


def is_scored(plan: Plan, experiment: Experiment, search: str, exp: Path) -> bool:
    """Was it decoded and scored by this search, as the plan describes both now?"""
    note, done = exp / search / SCORED, exp / DONE
    if note.is_file():
        return bool(json.loads(note.read_text(encoding="utf-8"))["digest"] == plan.scored(experiment, search))
    # before searches had a note of their own
    return done.is_file() and bool(json.loads(done.read_text())["fingerprint"] == plan.fingerprint(experiment))


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Everything that is logged or printed goes to this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s"))
    root = logging.getLogger()
    old, level = root.handlers[:], root.level
    root.handlers = [handler]
    root.setLevel(logging.INFO)  # which forgets what the level was answered with before
    try:
        with contextlib.redirect_stdout(io.StringIO()), open(path, "a") as f, contextlib.redirect_stderr(f):
            yield
    finally:
        root.handlers = old
        root.setLevel(level)
        handler.close()


def run_experiment(plan: Plan, experiment: Experiment, raw: Path, exp_dir: Path) -> tuple[float, str]:
    """Train (or put together), decode and score one experiment; seconds and a line of results.

    Raises:
        BusyError: another plan works on it.
    """
    exp = folder(exp_dir, experiment.name)
    with alone(exp_dir, exp.name):  # beside the folder, which may be made anew
        return _run_experiment(plan, experiment, raw, exp, exp_dir)


def _run_experiment(plan: Plan, experiment: Experiment, raw: Path, exp: Path, exp_dir: Path) -> tuple[float, str]:
    start = time.perf_counter()
    made = exp / MADE
    if not made.is_file() or json.loads(made.read_text())["made"] != plan.made(experiment):
        _make(plan, experiment, raw, exp, exp_dir)
    with log_to(exp / "decode.log"):
        results = _decode_and_score(plan, experiment, raw, exp, exp_dir)
    told = json.loads(made.read_text())
    seconds = time.perf_counter() - start
    payload = {**told, "fingerprint": plan.fingerprint(experiment), "results": results}
    with atomic_text(exp / DONE) as f:
        json.dump(payload, f, indent=1)
    shown = (f"{r['set']} {r['module'] or r['search']} {r['metric']} {r['value']:.1f}" for r in results)
    return seconds, "  ".join(shown)


def _make(plan: Plan, experiment: Experiment, raw: Path, exp: Path, exp_dir: Path) -> None:
    """Train or put together; a training that was broken off goes on if its description is still the same."""
    start, digest, notes, where = time.perf_counter(), plan.made(experiment), list[str](), environment()
    for note in exp.glob(f"*/{SCORED}"):  # of other weights
        note.unlink()
    stamp = exp / "fingerprint"
    if not stamp.is_file() or stamp.read_text() != digest:
        shutil.rmtree(exp, ignore_errors=True)
        exp.mkdir(parents=True)
        stamp.write_text(digest)
    with log_to(exp / "train.log"):
        if experiment.plug:
            notes = _plug(experiment, exp, exp_dir)
        else:
            _train(plan, experiment, raw, exp, exp_dir)
    with atomic_text(exp / MADE) as f:
        seconds = round(time.perf_counter() - start, 1)
        json.dump({"made": digest, "seconds": seconds, "notes": notes, "environment": where}, f)
    if plan.average_window:  # not before: who is killed here averages the same epochs again
        for path in exp.glob("*epoch.pth"):
            path.unlink()


def _plug(experiment: Experiment, exp: Path, exp_dir: Path) -> list[str]:
    from espnet2_legonn.inference.compose import compose
    from espnet2_legonn.inference.language_model import PREFIX

    def part(spec: str) -> str:
        if spec.startswith(PREFIX):
            return spec
        name, _, modules = spec.partition("#")
        return f"{folder(exp_dir, name)}#{modules}" if modules else str(folder(exp_dir, name))

    shutil.rmtree(exp / "chain", ignore_errors=True)  # of a run that was killed
    _, notes = compose([part(spec) for spec in experiment.plug], exp / "chain")
    for file in (exp / "chain").iterdir():
        os.replace(file, exp / file.name)
    (exp / "chain").rmdir()
    return notes


def _train(plan: Plan, experiment: Experiment, raw: Path, exp: Path, exp_dir: Path) -> None:
    from espnet2_legonn.recipes.ready import coverages, report, require_valid
    from espnet2_legonn.recipes.stages import chain_config, data_options, shape_options
    from espnet2_legonn.recipes.validation import choose_window
    from espnet2_legonn.training.task import LegoNNTask

    config_file = exp / "train.yaml"
    config_file.write_text(yaml.safe_dump(plan.chain(experiment, exp_dir), sort_keys=False, allow_unicode=True))
    config = chain_config(config_file)
    folders = (_train_set(plan, experiment, raw, exp_dir), raw / experiment.valid)
    data = data_options(config, *folders)
    require_valid(config, folders)
    for line in report(coverages(config, config_file, folders)):
        logging.log(logging.WARNING if line.startswith("warning") else logging.INFO, line)
    stats = _stats(config_file, data, config, experiment.train, folders, exp_dir)
    shapes = shape_options(config, stats)
    LegoNNTask.main(cmd=["--config", str(config_file), *data, *shapes, "--resume", "true", "--output_dir", str(exp)])
    if plan.average_window:
        choose_window(exp, raw / experiment.valid, experiment.metrics[0], *plan.average, 1, CHOSEN_BY, 1)


def _train_set(plan: Plan, experiment: Experiment, raw: Path, exp_dir: Path) -> Path:
    """The training set; where there is a teacher, made once, with its answers as texts."""
    source, teacher = raw / experiment.train, experiment.teacher
    if teacher is None:
        return source
    made = exp_dir / f"legonn_data_{experiment.train}_{plan.taught(teacher)[:8]}"
    if not made.is_dir():
        from espnet2_legonn.data.dirops import relabel
        from espnet2_legonn.inference.decode import column_of, decode_table, read_inputs
        from espnet2_legonn.inference.legonn import LegoNN

        exp, about = folder(exp_dir, teacher.exp), plan.by_name[teacher.exp]
        chain = LegoNN.from_pretrained(exp)
        search, _ = _search(plan, teacher.search, about, chain, raw, exp, exp_dir, tuned=True)
        inputs = read_inputs(source / column_of(chain).table)
        with scratch(exp_dir, made.name) as partial:
            decode_table(chain, inputs, search, 64).nbest[0].write(partial / "answers")
            relabel(source, partial / "data", partial / "answers" / "text")
            with contextlib.suppress(OSError):  # another worker was faster
                (partial / "data").rename(made)
    return made


def _stats(
    config_file: Path, data: list[str], config: Any, name: str, folders: tuple[Path, Path], exp_dir: Path
) -> Path:
    """Statistics, shared by the experiments with the same data, module names and vocabularies."""
    targets = [(m.name, m.target.vocab if m.target else "") for m in config.modules]
    digest = hashlib.sha256(json.dumps([data, targets]).encode()).hexdigest()[:8]
    stats = exp_dir / f"legonn_stats_{name}_{digest}"
    if not (stats / "train" / "batch_keys").is_file():
        from espnet2_legonn.training.task import LegoNNTask

        partial = stats.with_name(f".{stats.name}.{os.getpid()}")
        keys = []
        for phase, place in zip(("train", "valid"), folders):
            keys += [f"--{phase}_shape_file", str(place / "text")]
        LegoNNTask.main(
            cmd=["--collect_stats", "true", "--config", str(config_file), *data, *keys, "--output_dir", str(partial)]
        )
        with contextlib.suppress(OSError):  # another worker was faster
            partial.rename(stats)
        shutil.rmtree(partial, ignore_errors=True)
    return stats


def _decode_and_score(plan: Plan, experiment: Experiment, raw: Path, exp: Path, exp_dir: Path) -> list[dict[str, Any]]:
    """Scores of all searches; those that were scored before as they are asked for are not searched again."""
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.model.interface import SearchChoice
    from espnet2_legonn.packs.pack import keep_search

    chain = LegoNN.from_pretrained(exp)
    chain.search = None  # an earlier run may have tuned another of the plan's searches
    results, choice, data = [], None, _data(chain, experiment, raw)
    for search in experiment.searches:
        note = exp / search / SCORED
        now = {"digest": plan.scored(experiment, search), "data": data}
        told = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        whole = all((exp / search / name / "text").is_file() for name in experiment.tests)
        if not whole or any(told.get(name) != value for name, value in now.items()):
            note.unlink(missing_ok=True)  # answers are about to be replaced
            options, tuned = _search(plan, search, experiment, chain, raw, exp, exp_dir)
            found = _score(plan, experiment, search, chain, options, raw, exp)
            told = {**now, "choice": tuned and asdict(tuned), "results": found}
            with atomic_text(note) as f:
                json.dump(told, f, indent=1)
        results += told["results"]
        choice = told["choice"] or choice
    if choice is not None:
        keep_search(exp, SearchChoice(**choice))
    return results


def _data(chain: LegoNN, experiment: Experiment, raw: Path) -> dict[str, str]:
    """Digests of what is decoded, and of what it is scored by."""
    from espnet2_legonn.inference.decode import column_of
    from espnet2_legonn.scoring.metrics import reference_files

    files = []
    for name in experiment.tests:
        files += [raw / name / column_of(chain).table]
        files += [file for metric in experiment.metrics for file in reference_files(metric, raw / name)]
    return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in files if file.is_file()}


def _score(
    plan: Plan, experiment: Experiment, search: str, chain: Any, options: BeamOptions, raw: Path, exp: Path
) -> list[dict[str, Any]]:
    """Decode and score all test sets with one search."""
    from espnet2_legonn.inference.decode import column_of, decode_table, read_inputs
    from espnet2_legonn.recipes.origin import keep_origin, origin
    from espnet2_legonn.recipes.stages import score

    results, words = [], ", ".join(f"{name}={value!r}" for name, value in asked(options).items())
    for name in experiment.tests:
        out = exp / search / name
        table = raw / name / column_of(chain).table
        decoded = decode_table(chain, read_inputs(table), options, 64)
        decoded.nbest[0].write(out)
        for module, tables in decoded.interfaces.items():
            tables.write(out / "interfaces" / module)
        keep_origin(out, origin(exp, None, table, [f"BeamOptions({words})", repr(asked(plan.searches[search]))]))
        for module, metric, value in score(exp, raw / name, out, experiment.metrics):
            results.append({"set": name, "search": search, "module": module, "metric": metric, "value": value})
    return results


def _search(
    plan: Plan,
    name: str,
    experiment: Experiment,
    chain: LegoNN,
    raw: Path,
    exp: Path,
    exp_dir: Path,
    tuned: bool = False,
) -> tuple[BeamOptions, SearchChoice | None]:
    """Options of a search by name, tuned on the experiment's validation set if it says so.

    Args:
        tuned: it was tuned before; the weights lie beside the curve.

    Returns:
        the options, and what was chosen now for the chain itself, without language models.
    """
    from espnet2_legonn.inference.fusion import makers
    from espnet2_legonn.recipes.tune import tune
    from espnet2_legonn.search.options import BeamOptions

    about = plan.searches[name]
    given = {k: v for k, v in asdict(about).items() if k not in ("tune", "ngram")}
    options = BeamOptions(**given, ngram_file=str(ngram_file(exp_dir, about.ngram)) if about.ngram else None)
    if not about.tune:
        return options, None
    out, metric = exp / "tune" / name, experiment.metrics[0]
    own: SearchChoice | None = None
    if not tuned:
        valid, models = raw / experiment.valid, makers(options.filled(None, True), chain.require_text())
        choice, _, _ = tune(chain, valid, metric, options, models, out=out)
        own = None if models else choice
    found = json.loads((out / "result.json").read_text())
    chosen = {"ctc_weight": found["ctc_weight"], "length_penalty": found["length_penalty"]}
    for kind in ("ngram", "lm"):
        if getattr(options, f"{kind}_file"):
            chosen[f"{kind}_weight"] = found["ngram_weight"]
    return replace(options, **chosen), own


def ngram_file(exp_dir: Path, name: str) -> Path:
    """Where an n-gram model of the plan lies."""
    return exp_dir / f"ngram_{name}.arpa.gz"


def make_ngrams(plan: Plan, raw: Path, exp_dir: Path) -> None:
    """Estimate the n-gram models that searches of the plan use and that are not there yet."""
    from espnet2_legonn.data.arpa import write_arpa
    from espnet2_legonn.data.ngram import estimate
    from espnet2_legonn.data.tables import read_rows
    from espnet2_legonn.model.build import load_vocab
    from espnet2_legonn.model.description import VocabConfig

    used = {plan.searches[name].ngram for experiment in plan.experiments for name in experiment.searches}
    for name in used - {None}:
        assert name is not None
        path, about = ngram_file(exp_dir, name), plan.ngrams[name]
        mark = path.with_suffix(".json")
        told = json.dumps([asdict(about), plan.vocabs[about.vocab]], sort_keys=True)
        if path.is_file() and mark.is_file() and mark.read_text() == told:
            continue
        vocab = load_vocab(VocabConfig(**plan.vocabs[about.vocab]))
        texts = (text for one in about.sets for _, text in read_rows(raw / one / "text"))
        exp_dir.mkdir(parents=True, exist_ok=True)
        write_arpa(path, estimate(map(vocab.encode, texts), len(vocab), about.order), vocab)
        mark.write_text(told)
