"""Plans: experiments that start from each other's modules, or from parts of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.description import parse
from espnet2_legonn.recipes.plan import Plan, load_plan
from tests.train.toys import DECODER, ENCODER, VOCABS, control

FIRST = {**ENCODER, "length_control": control(ratio="3/2")}
HYBRID = {**FIRST, "output": {"type": "states", "ctc": {"vocab": "tgt"}}}


def plan(tmp_path: Path, *experiments: dict[str, Any]) -> Plan:
    sets = {"train": "t", "valid": "v", "tests": ["x"]}
    donor = {"name": "donor", "modules": ["enc", "dec"], **sets}
    modules = {"enc": FIRST, "dec": DECODER, "hybrid": HYBRID, "states": {**DECODER, "input": {"type": "states"}}}
    data = {"vocabs": VOCABS, "modules": modules, "experiments": [donor, *({**sets, **e} for e in experiments)]}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return load_plan(tmp_path / "plan.yaml", tables="all")


def warm(init: Any) -> dict[str, Any]:
    return {"name": "warm", "modules": ["enc", "dec"], "init": init}


def test_init_short_and_with_parts(tmp_path: Path) -> None:
    init = {"encoder": {"from": "donor#encoder", "except": ["input"]}, "decoder": "donor"}
    found = plan(tmp_path, warm(init))
    experiment = found.by_name["warm"]
    assert experiment.needs == {"donor"}
    config = parse({k: found.chain(experiment, Path("exp"))[k] for k in ("vocabs", "modules")})
    encoder, decoder = (m.donor for m in config.modules)
    assert (encoder.source, encoder.left) == ("exp/legonn_donor#encoder", ["input"])
    assert decoder.source == "exp/legonn_donor" and config.modules[1].init == "exp/legonn_donor"
    other = plan(tmp_path, warm({**init, "encoder": "donor#encoder"}))
    assert other.fingerprint(other.by_name["warm"]) != found.fingerprint(experiment)


def test_all_faults_of_init_at_once(tmp_path: Path) -> None:
    init = {
        "encoder": {"form": "donor", "except": ["input"]},
        "decodr": "donor",
        "decoder": {"from": "d", "only": ["bdy"]},
    }
    with pytest.raises(ConfigError) as error:
        plan(tmp_path, warm(init))
    where = f"{tmp_path}/plan.yaml: experiment"
    assert error.value.faults == [
        f"{where} warm: encoder.init: unknown key 'form' (did you mean 'from'?); known: from, only, except",
        f"{where} warm: encoder.init: key 'from' is missing",
        f"{where} warm: init: no module 'decodr' (did you mean 'decoder'?)",
        f"{where} warm: decoder.init.only: no part 'bdy' (did you mean 'body'?); there are input, body, embed, output",
        f"{where} warm: no experiment 'd'",
    ]
    with pytest.raises(ConfigError, match=r"experiments\[1\].init: must be dict.*found \[1\]"):
        plan(tmp_path, warm([1]))


def test_the_vocabulary_of_an_auxiliary_ctc_comes_along(tmp_path: Path) -> None:
    found = plan(tmp_path, {"name": "base", "modules": ["hybrid", "states"]})
    assert set(found.chain(found.by_name["base"], Path())["vocabs"]) == {"src", "tgt"}
    alone = plan(tmp_path, {"name": "base", "modules": ["hybrid"]})
    assert set(alone.chain(alone.by_name["base"], Path())["vocabs"]) == {"src", "tgt"}
