"""Parameter groups: a learning rate for each module, and what weight decay leaves alone."""

from __future__ import annotations

from typing import Any

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.chain import Chain


def parameter_groups(chain: Chain, conf: dict[str, Any], exclude_weight_decay: bool = False) -> list[dict[str, Any]]:
    """Groups of trainable parameters by module.

    Args:
        chain: the modules; ``lr_scale`` of their descriptions scales ``conf["lr"]``.
        conf: options of the optimizer; must hold ``lr`` where a module scales it.
        exclude_weight_decay: biases and norms (vectors) are not decayed.

    Raises:
        ConfigError: everything is frozen, or ``lr`` is missing.
    """
    scaled = [c.name for c in chain.configs if c.lr_scale != 1.0]
    if scaled and "lr" not in conf:
        raise ConfigError(f"{name}.lr_scale: scales optim_conf's lr, which is not given" for name in scaled)
    groups: list[dict[str, Any]] = []
    for config, module in zip(chain.configs, chain):
        trained = [p for p in module.parameters() if p.requires_grad]
        parts: list[tuple[list[Any], dict[str, float]]] = [(trained, {})]
        if exclude_weight_decay:
            parts = [
                ([p for p in trained if p.dim() > 1], {}),
                ([p for p in trained if p.dim() < 2], {"weight_decay": 0.0}),
            ]
        for parameters, extra in parts:
            if parameters:
                rate = {"lr": conf["lr"] * config.lr_scale} if config.lr_scale != 1.0 else {}
                groups.append({"params": parameters, **extra, **rate})
    if not groups:
        raise ConfigError("nothing to train: freeze is set for every module")
    return groups
