"""The LegoNN task: one ESPnet task for chains of any number of modules, from speech or from text."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import multiprocessing
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from espnet2_legonn.errors import ConfigError, command
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.files.schema import nearest
from espnet2_legonn.files.scratch import TRAINING, alone
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.build import build_modules, load_vocabs
from espnet2_legonn.model.parts import beginnings
from espnet2_legonn.packs import store
from espnet2_legonn.packs.card import CARD
from espnet2_legonn.packs.load import init_modules
from espnet2_legonn.packs.warm import freeze_lines
from espnet2_legonn.training.collate import collate
from espnet2_legonn.training.compat import load, safe_checkpoints
from espnet2_legonn.training.description import resolve, stats_folder
from espnet2_legonn.training.model import LegoNNModel
from espnet2_legonn.training.optimizers import parameter_groups
from espnet2_legonn.training.options import AMP, freeze_params, settle
from espnet2_legonn.training.preprocessor import Preprocessor
from espnet2_legonn.training.resume import goes_on, prepare
from espnet2_legonn.training.schedulers import add_schedulers
from espnet2_legonn.training.texts import mapped_texts
from espnet2_legonn.training.trainer import LegoNNTrainer

_abs_task = load("espnet2.tasks.abs_task")
_distributed = load("espnet2.train.distributed_utils")


class _Parser(load("espnet2.utils.config_argparse").ArgumentParser):  # type: ignore[misc]
    """ESPnet's parser reports unknown keys of a YAML file one at a time and without a hint."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        """As ESPnet's.

        Raises:
            ConfigError: all unknown keys of the file given as --config.
        """
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--config")
        path = first.parse_known_args(args)[0].config
        if path is not None:
            keys = read_config(path)
            if not isinstance(keys, dict):
                raise ConfigError(f"{path}: must be a mapping of options")
            known = {action.dest for action in self._actions}
            faults = [f"{path}: unknown key {k!r}{nearest(k, known)}" for k in keys if k not in known]
            faults += [f"{path}: {fault}" for fault in self._choice_faults(keys)]
            if faults:
                raise ConfigError(faults)
            self.set_defaults(**keys)  # ESPnet's parser would read the file alone, without what it inherits
        return argparse.ArgumentParser.parse_known_args(self, args, namespace)

    def _choice_faults(self, keys: dict[str, Any]) -> list[str]:
        """Values that argparse would refuse on the command line, which alone it looks at."""
        faults = []
        for action in self._actions:
            value, choices = keys.get(action.dest), action.choices
            if isinstance(value, str) and choices is not None:
                value = action.type(value) if callable(action.type) else value
                if value not in choices:
                    listed = ", ".join(map(str, choices))
                    faults.append(f"{action.dest}: {value!r} is not one of {listed}{nearest(value, choices)}")
        return faults


class LegoNNTask(_abs_task.AbsTask):  # type: ignore[name-defined]
    """``vocabs`` and ``modules`` of the training config make the chain; all else is ESPnet's."""

    num_optimizers = 1
    class_choices_list: list = []
    trainer = LegoNNTrainer

    @classmethod
    def get_parser(cls) -> argparse.ArgumentParser:
        """ESPnet's parser with this task's options; a mistyped key of the config is met with the nearest name."""
        add_schedulers()
        parser = super().get_parser()
        parser.__class__ = _Parser
        return parser

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """As ESPnet's, which spawns it with parsed options: there get_parser was not called.

        Checkpoints are written beside their names and renamed, so a killed job can always resume; nothing in one runs.
        One training at a time is in a folder: the process of rank 0 holds it. A process for one GPU of several ends on
        bad input as every command does.

        Raises:
            ConfigError: another training is in the folder, or a resumed one has other options.
            CheckpointError: the folder holds epochs of a training that cannot be gone on with.
        """
        if not (args.multiprocessing_distributed and multiprocessing.parent_process()):
            cls._train(args)
        elif status := command(cls._train)(args):
            sys.exit(status)

    @classmethod
    def _train(cls, args: argparse.Namespace) -> None:
        add_schedulers()
        settle(args)
        with contextlib.ExitStack() as stack:
            if not (args.collect_stats or args.dry_run):
                rank = _distributed.get_rank(args.dist_rank, args.dist_launcher) if args.distributed else 0
                if not rank:
                    stack.enter_context(alone(Path(args.output_dir), TRAINING))
                prepare(args)
            stack.enter_context(safe_checkpoints())
            stack.enter_context(mapped_texts())
            super().main_worker(args)

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Options of this task, and defaults that suit it."""
        nested = load("espnet2.utils.nested_dict_action").NestedDictAction
        group = parser.add_argument_group("LegoNN")
        group.add_argument(
            "--plugin", action="append", default=[], help="Python module with parts of your own; may be given again"
        )
        group.add_argument("--vocabs", type=yaml.safe_load, default=None, help="vocabularies by name (in the config)")
        group.add_argument("--modules", type=yaml.safe_load, default=None, help="list of modules (in the config)")
        group.add_argument(
            "--modules_conf",
            action=nested,
            default={},
            help="changes by module name: --modules_conf decoder.body.num_blocks=3",
        )
        group.add_argument(
            "--amp_dtype",
            choices=list(AMP),
            default="none",
            help="autocast on CPU and GPU; bf16 is about 1.4 times faster",
        )
        parser.set_defaults(
            num_att_plot=0,
            use_matplotlib=importlib.util.find_spec("matplotlib") is not None,
            use_tensorboard=importlib.util.find_spec("tensorboard") is not None,
            # The last N epochs stay, for moving-window averaging; the best by accuracy is linked.
            best_model_criterion=[("train", "total_count", "max"), ("valid", "acc", "max")],
            optim="adamw",
            grad_clip=5.0,
        )

    @classmethod
    def check_required_command_args(cls, args: argparse.Namespace) -> None:
        """ESPnet-EZ asks every task for a token list; here vocabularies are part of the chain."""
        args.required = [name for name in args.required if hasattr(args, name) and name != "token_list"]
        super().check_required_command_args(args)

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[
        [Collection[tuple[str, dict[str, np.ndarray]]]],
        tuple[list[str], dict[str, torch.Tensor]],
    ]:
        """Pad waveforms with 0 and ids with -1."""
        return collate

    @classmethod
    def build_preprocess_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[str, dict[str, np.array]], dict[str, np.ndarray]] | None:  # type: ignore[valid-type]
        """Tokenisation for every interface."""
        config, base = resolve(args)
        vocabs = load_vocabs(config, base)
        first = config.modules[0]
        named = {module.name: module.target_vocab for module in config.modules}
        targets = {module: (vocab, vocabs[vocab]) for module, vocab in named.items() if vocab is not None}
        return Preprocessor(first.reads, vocabs[first.source_vocab] if first.source_vocab else None, targets)

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Checked in check_task_requirements: the names depend on the chain."""
        return ()

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Inputs and the plain text; ``text_...`` of any kind is allowed besides."""
        return (*input_names(), "text")

    @classmethod
    def check_task_requirements(
        cls, dataset: object, allow_variable_data_keys: bool, train: bool, inference: bool = False
    ) -> None:
        """Are the data what some chain could use?

        Raises:
            ConfigError: an input or text is missing, or a name means nothing here.
        """
        names = tuple(dataset.names())  # type: ignore[attr-defined]
        faults = []
        if not set(input_names()) & set(names):
            faults.append(f"data: neither {' nor '.join(input_names())} among {', '.join(names)}")
        if train and not any(n.startswith("text") for n in names):
            faults.append(f"data: no text (or text_<module>) among {', '.join(names)}")
        for name in names:
            known = name in cls.optional_data_names() or name.startswith("text_")
            if not known and not allow_variable_data_keys:
                faults.append(
                    f"data: {name!r} is not {', '.join(cls.optional_data_names())} or text_...; "
                    "or --allow_variable_data_keys true"
                )
        if faults:
            raise ConfigError(faults)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> LegoNNModel:
        """The chain of ``args``, for training: with ``init`` and statistics of the features."""
        config, base = resolve(args)
        chain = LegoNN(*build_modules(config, base))
        for described, module in zip(args.modules, chain):
            described["input"].update(module.input.settled)
            described["body"].update(getattr(module.config.body, "settled", {}))
        if chain.first.input.data is None:
            kinds = " or ".join(beginnings())
            raise ConfigError(f"{chain.names[0]}: a chain is trained from {kinds}, not from {chain.input_kind}")
        if not getattr(args, "collect_stats", False):
            if args.output_dir is not None and (Path(args.output_dir) / CARD).is_file():
                raise ConfigError(f"{args.output_dir}: is a pack; training would change it, give another --output_dir")
            _load_feature_stats(chain, stats_folder(args))
            for line in _warm_start(chain, args):
                logging.info("init: %s", line)
            for line in freeze_lines(chain):
                logging.info("freeze: %s", line)
        args.num_parameters = sum(p.numel() for p in chain.parameters())  # for RESULTS.md, by way of config.yaml
        model = LegoNNModel(chain, AMP[getattr(args, "amp_dtype", "none")])
        freeze_params(args, model)
        return model

    @classmethod
    def build_optimizers(cls, args: argparse.Namespace, model: torch.nn.Module) -> list[torch.optim.Optimizer]:
        """One optimizer; each module's rate is scaled by its ``lr_scale``, frozen modules are left out."""
        optimizer = _abs_task.optim_classes.get(args.optim)
        if optimizer is None:
            raise ConfigError(f"optim: {args.optim!r} is not one of {', '.join(_abs_task.optim_classes)}")
        conf = dict(args.optim_conf)
        assert isinstance(model, LegoNNModel)
        groups = parameter_groups(model.chain, conf, args.exclude_weight_decay)
        try:
            return [optimizer(groups, **conf)]
        except (TypeError, ValueError) as error:
            raise ConfigError(f"optim_conf: {error}") from None

    @classmethod
    def build_model_from_file(
        cls,
        config_file: Path | str | None = None,
        model_file: Path | str | None = None,
        device: str = "cpu",
    ) -> tuple[LegoNNModel, argparse.Namespace]:
        """A trained chain; strict, without pickled objects.

        Raises:
            CheckpointError: tensors are missing or left over, by module.
        """
        if config_file is None and model_file is None:
            raise ConfigError("give config_file, model_file or both")
        folder = Path(config_file if config_file is not None else model_file).parent  # type: ignore[arg-type]
        chain = LegoNN.from_pretrained(folder, model_file)
        with (folder / store.CONFIG).open(encoding="utf-8") as f:
            args = argparse.Namespace(**yaml.safe_load(f))
        return LegoNNModel(chain).to(device), args


def input_names() -> list[str]:
    """ESPnet's names of the data that chains can begin with."""
    return list(dict.fromkeys(column.name for column in beginnings().values()))


def _warm_start(chain: LegoNN, args: argparse.Namespace) -> list[str]:
    """Fill modules from their donors; a resumed training has all weights in its checkpoint and needs none."""
    if not goes_on(args):
        return init_modules(chain)
    checkpoint = Path(args.output_dir or ".") / store.CHECKPOINT
    donors = [config.donor.source for config in chain.configs if config.donor is not None]
    return [f"skipped, {checkpoint} has all weights: {', '.join(donors)} not needed any more"] if donors else []


def _load_feature_stats(chain: LegoNN, folder: Path | None) -> None:
    part, donor = chain.first.input.statistics_part, chain.first.config.donor
    if part is None or (donor is not None and donor.takes(f"input.{part}")):
        return
    if folder is None:
        raise ConfigError(f"{chain.names[0]}.input.normalize: global needs --train_shape_file of stage 10")
    chain.first.input.get_submodule(part).load_stats(folder / "feats_stats.npz")  # type: ignore[operator]

