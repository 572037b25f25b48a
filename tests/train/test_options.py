"""ESPnet's options work here, or are refused with the cure; none is accepted and ignored."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from espnet2_legonn.errors import BAD_INPUT, ConfigError
from espnet2_legonn.training.options import USELESS, freeze_params, settle
from espnet2_legonn.training.task import LegoNNTask
from espnet2_legonn.training.trainer import _leftover_step
from tests.train.toys import Lab, weights

# Options of ESPnet 202511 that were tried or read: they work, or say so when they cannot. A new one wants a look.
READ = """
accum_grad adapter adapter_conf allow_multi_rates allow_variable_data_keys amp_dtype batch_bins batch_size
batch_type best_model_criterion category_sample_size category_upsampling_factor chunk_default_fs
chunk_discard_short_samples chunk_excluded_key_prefixes chunk_length chunk_max_abs_length chunk_shift_ratio
collect_stats config cudnn_benchmark cudnn_deterministic cudnn_enabled dataset_scaling_factor
dataset_upsampling_factor ddp_comm_hook deepspeed_config detect_anomaly dist_backend dist_init_method
dist_launcher dist_master_addr dist_master_port dist_rank dist_world_size drop_last_iter dry_run
early_stopping_criterion exclude_weight_decay fold_length freeze_param grad_clip grad_clip_type grad_noise
gradient_as_bucket_view help ignore_init_mismatch init_param iterator_type keep_nbest_models local_rank
log_interval log_level max_batch_size max_cache_fd max_cache_size max_epoch min_batch_size modules
modules_conf multi_task_dataset multiple_iterator multiprocessing_distributed nbest_averaging_interval ngpu
no_forward_run num_cache_chunks num_iters_per_epoch num_workers optim optim_conf output_dir patience plugin
print_config resume scheduler scheduler_conf seed shuffle_within_batch sort_batch sort_in_batch
train_data_path_and_name_and_type train_dtype train_shape_file unused_parameters upsampling_factor use_amp
use_matplotlib use_tensorboard use_tf32 use_wandb val_scheduler_criterion valid_batch_bins valid_batch_size
valid_batch_type valid_data_path_and_name_and_type valid_iterator_type valid_max_cache_size valid_shape_file
vocabs wandb_entity wandb_id wandb_model_log_interval wandb_name wandb_project write_collected_feats
""".split()


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return LegoNNTask.get_parser()


def test_every_option_of_espnet_was_looked_at(parser: argparse.ArgumentParser) -> None:
    assert {action.dest for action in parser._actions} == {*READ, *USELESS}
    settle(parser.parse_args([]))  # none of the defaults is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_att_plot", "3"], "num_att_plot: 3 would have no effect: attention weights are not kept; set 0"),
        (["--create_graph_in_tensorboard", "true"], "TensorBoard draws no model"),
        (["--exclude_weight_decay_conf", "bias_weight_decay=true"], "leaves out all biases and norms; leave it empty"),
        (["--use_adapter", "true"], "use init and freeze"),
        (["--save_strategy", "required_grad_only"], "checkpoints hold all weights"),
        (["--use_deepspeed", "true"], "takes ESPnet's own trainer only"),
        (["--sharded_ddp", "true"], "fairscale"),
        (["--pretrain_path", "x.pth"], "or --init_param"),
        (["--ngpu", "2"], "--multiprocessing_distributed true"),
        (["--optim_conf", "learning_rate=1"], "optim_conf: adamw has no 'learning_rate'"),
        (["--scheduler", "inverse_sqrt", "--scheduler_conf", "warmup_step=3"], "(did you mean 'warmup_steps'?)"),
        (["--init_param", "nowhere.pth"], "init_param: nowhere.pth: no such file"),
    ],
)  # fmt: skip
def test_what_would_be_ignored_is_refused(parser: argparse.ArgumentParser, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settle(parser.parse_args(words))
    assert message in str(caught.value)


def test_a_schedule_may_be_switched_off(parser: argparse.ArgumentParser, caplog: pytest.LogCaptureFixture) -> None:
    settle(parser.parse_args(["--scheduler_conf", "warmup_steps=3"]))
    assert "scheduler_conf has no effect without scheduler: one of" in caplog.text


def test_all_faults_at_once(parser: argparse.ArgumentParser) -> None:
    with pytest.raises(ConfigError) as caught:
        settle(parser.parse_args(["--num_att_plot", "3", "--use_deepspeed", "true", "--optim_conf", "a=1"]))
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        ([], "none"),
        (["--use_amp", "true"], "bf16"),
        (["--use_amp", "true", "--amp_dtype", "fp16"], "fp16"),
        (["--amp_dtype", "bf16"], "bf16"),
    ],
)
def test_use_amp_chooses_a_precision(parser: argparse.ArgumentParser, words: list[str], dtype: str) -> None:
    args = parser.parse_args(words)
    settle(args)
    assert args.amp_dtype == dtype and args.use_amp is False, "no loss is scaled on a CPU"


@pytest.mark.parametrize(("bf16", "dtype"), [(True, "bf16"), (False, "fp16")])
def test_use_amp_on_a_gpu(
    parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch, bf16: bool, dtype: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    args = parser.parse_args(["--use_amp", "true", "--ngpu", "1"])
    settle(args)
    assert args.amp_dtype == dtype and args.use_amp is not bf16, "fp16 needs scaled losses, bf16 none"


@pytest.mark.parametrize("bad", [False, True])
def test_the_leftover_update_of_scaled_losses(bad: bool) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(model(torch.full((1, 1), float("inf") if bad else 0.5)).sum()).backward()
    options = argparse.Namespace(grad_clip=5.0, grad_clip_type=2.0)
    assert _leftover_step(model, [optimizer], [None], options, scaler) is not bad
    assert model.weight.item() == (1.0 if bad else 0.5) and model.weight.grad is None


def test_numbers_that_yaml_reads_as_texts(parser: argparse.ArgumentParser, tmp_path: Path) -> None:
    config = "optim_conf: {lr: 1e-3, betas: [0.9, 98e-2]}\nscheduler: inverse_sqrt\nscheduler_conf: {init_lr: 1e-6}\n"
    (tmp_path / "x.yaml").write_text(config)
    args = parser.parse_args(["--config", str(tmp_path / "x.yaml"), "--optim_conf", "weight_decay=1e-2"])
    settle(args)
    assert args.optim_conf == {"lr": 0.001, "betas": [0.9, 0.98], "weight_decay": 0.01}
    assert args.scheduler_conf == {"init_lr": 1e-6}


def test_choices_in_a_config_are_checked_as_on_the_command_line(
    parser: argparse.ArgumentParser, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text("optim: adamv\namp_dtype: bf32\nlog_level: info\nscheduler: null\n")
    with pytest.raises(ConfigError) as caught:
        parser.parse_args(["--config", str(tmp_path / "x.yaml")])
    assert len(caught.value.faults) == 2 and "optim: 'adamv' is not one of" in str(caught.value)
    assert "amp_dtype: 'bf32' is not one of none, bf16, fp16" in str(caught.value)


def test_init_param_that_takes_nothing(parser: argparse.ArgumentParser, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    torch.save({"chain.mods.encoder.body.w": torch.zeros(1)}, file)
    settle(parser.parse_args(["--init_param", f"{file}:chain.mods.encoder:chain.mods.encoder"]))
    with pytest.raises(ConfigError) as caught:
        settle(parser.parse_args(["--init_param", f"{file}:chain.mods.encodr::chain.mods.decoder,chain.mods.encoder"]))
    assert len(caught.value.faults) == 2 and "takes 'chain.mods.encodr', but no tensor" in str(caught.value)


def test_freeze_param_by_names_of_modules() -> None:
    model: Any = nn.Module()
    model.chain = nn.Module()
    model.chain.mods = nn.ModuleDict({"encoder": nn.ModuleDict({"body": nn.Linear(1, 1)}), "decoder": nn.Linear(1, 1)})
    args = argparse.Namespace(freeze_param=["encoder.body", "chain.mods.decoder", "chain"])
    freeze_params(args, model)
    assert args.freeze_param == ["chain.mods.encoder.body", "chain.mods.decoder", "chain"]
    with pytest.raises(ConfigError, match=r"no module or part is called 'encodr' \(did you mean 'encoder'\?\)"):
        freeze_params(argparse.Namespace(freeze_param=["encodr"]), model)


def test_print_config_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["--print_config", "--max_epoch", "7"]
    monkeypatch.setattr("sys.argv", ["legonn_train", *words])  # ESPnet reads it again
    with pytest.raises(SystemExit):
        LegoNNTask.main(cmd=words)
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["max_epoch"] == 7 and printed["amp_dtype"] == "none" and "lr" in printed["optim_conf"]


def test_frozen_and_in_bf16(lab: Lab, tmp_path: Path) -> None:
    lab.train(tmp_path / "exp", "tokens", "--freeze_param", "encoder", "--use_amp", "true")
    config = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    assert config["amp_dtype"] == "bf16" and config["freeze_param"] == ["chain.mods.encoder"]
    first, last = weights(tmp_path / "exp", 1), weights(tmp_path / "exp", 2)
    moved = {k.split(".")[2] for k in first if first[k].is_floating_point() and not torch.equal(first[k], last[k])}
    assert "decoder" in moved and not any(k.split(".")[2] == "encoder" and k.endswith("weight")
                                          and not torch.equal(first[k], last[k]) for k in first)  # fmt: skip


def test_a_process_for_each_gpu_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    words = ["--ngpu", "2", "--multiprocessing_distributed", "true", "--use_adapter", "true", "--output_dir", "exp"]
    more = ["--train_data_path_and_name_and_type", "none,text,text", "--dist_init_method", f"file://{tmp_path}/meet"]
    python = [sys.executable, "-m", "espnet2_legonn.bin.legonn_train"]
    ended = subprocess.run([*python, *words, *more], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == BAD_INPUT
    assert "ConfigError:\nuse_adapter: True would have no effect" in ended.stderr and "Traceback" not in ended.stderr
