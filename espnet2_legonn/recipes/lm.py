"""Stages 6-8: a language model by ESPnet's own commands, over the tokens that a chain writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.scratch import LAUNCHING, alone
from espnet2_legonn.recipes.jobs import call, module, once, run, working

LM_TRAIN = "espnet2.bin.lm_train"


def _texts(vocab: Path, unit: str, train: Path, valid: Path) -> list[str]:
    """Options that say what is read and how it is split.

    Raises:
        ConfigError: files that are missing, all of them.
    """
    model = [vocab / "bpe.model"] if unit == "bpe" else []
    missing = [path for path in (vocab / "tokens.txt", *model, train, valid) if not path.is_file()]
    if missing:
        raise ConfigError(f"{path}: no such file; run the stages that make it (1 to 5)" for path in missing)
    options = ["--use_preprocessor", "true", "--token_type", unit, "--token_list", f"{vocab}/tokens.txt"]
    options += [word for path in model for word in ("--bpemodel", str(path))]
    options += ["--non_linguistic_symbols", "none", "--cleaner", "none", "--g2p", "none"]
    options += ["--train_data_path_and_name_and_type", f"{train},text,text"]
    return [*options, "--valid_data_path_and_name_and_type", f"{valid},text,text"]


def _shapes(folder: Path | str, unit: str) -> list[str]:
    return [w for phase in ("train", "valid") for w in (f"--{phase}_shape_file", f"{folder}/{phase}/text_shape.{unit}")]


def lm_stats(
    config: Path, vocab: Path, unit: str, train: Path, valid: Path, out: Path, cmd: str, extra: Sequence[str] = ()
) -> None:
    """Stage 6: how long the texts are, in tokens.

    Args:
        vocab: folder with tokens.txt and, for ``unit`` bpe, bpe.model; train, valid: tables of texts.

    Raises:
        ConfigError: files that are missing.
    """
    logs, texts = out / "logdir", _texts(vocab, unit, train, valid)
    command = module(LM_TRAIN, "--collect_stats", "true", *texts)
    command += ["--train_shape_file", str(train), "--valid_shape_file", str(valid)]
    command += ["--output_dir", f"{logs}/stats.1", "--config", str(config), *extra]
    read = [config, train, valid, vocab / "tokens.txt", vocab / "bpe.model"]
    with working(logs, command, read):
        run(cmd, logs / "stats.1.log", once(command, logs / "stats.1"))
        merge = module("espnet2.bin.aggregate_stats_dirs", "--input_dir", f"{logs}/stats.1", "--output_dir", out)
        run(cmd, logs / "aggregate.log", [*merge, "--skip_sum_stats"])
    for phase in ("train", "valid"):  # ESPnet's recipes append the size of the vocabulary here, too
        size = len((vocab / "tokens.txt").read_text(encoding="utf-8").splitlines())
        lines = (out / phase / "text_shape").read_text(encoding="utf-8").splitlines()
        (out / phase / f"text_shape.{unit}").write_text("".join(f"{x},{size}\n" for x in lines), encoding="utf-8")


def lm_train(
    config: Path,
    vocab: Path,
    unit: str,
    train: Path,
    valid: Path,
    stats_dir: Path,
    exp: Path,
    cmd: str,
    ngpu: int = 0,
    extra: Sequence[str] = (),
) -> None:
    """Stage 7: training, resumed where it stopped; see ``lm_stats``.

    Raises:
        ConfigError: files that are missing, or the training failed.
        BusyError: it is trained there already.
    """
    texts = _texts(vocab, unit, train, valid)
    command = module("espnet2.bin.launch", "--cmd", f"{cmd} --name {exp}/train.log", "--log", f"{exp}/train.log")
    command += ["--ngpu", str(ngpu), "--num_nodes", "1", "--init_file_prefix", f"{exp}/.dist_init_"]
    command += ["--multiprocessing_distributed", "true", "--", *module(LM_TRAIN, "--ngpu", str(ngpu), *texts)]
    command += [*_shapes(stats_dir, unit), "--resume", "true", "--fold_length", "150"]
    with alone(exp, LAUNCHING):
        if call([*command, "--output_dir", str(exp), "--config", str(config), *extra]):
            raise ConfigError(f"training of the language model failed; its log is {exp}/train.log")


def lm_perplexity(exp: Path, weights: str, text: Path, out: Path, cmd: str, ngpu: int = 0) -> float:
    """Stage 8: perplexity of a text by token, which is returned; ``out/ppl`` holds it."""
    command = module("espnet2.bin.lm_calc_perplexity", "--ngpu", str(ngpu), "--train_config", exp / "config.yaml")
    command += ["--data_path_and_name_and_type", f"{text},text,text", "--model_file", str(exp / weights)]
    run(cmd, out / "lm_calc_perplexity.log", [*command, "--output_dir", str(out)], gpus=ngpu)
    return float((out / "ppl").read_text(encoding="utf-8"))
