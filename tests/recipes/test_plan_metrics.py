"""A plan with a metric that nobody knows is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.recipes.plan import load_plan

PLAN = Path(__file__).resolve().parents[2] / "egs2/mini_legonn/legonn1/conf/plan.yaml"


def test_metrics_of_experiments_and_tables(tmp_path: Path) -> None:
    data = yaml.safe_load(PLAN.read_text())
    data["experiments"][0]["metrics"] = ["cer", "blue"]
    data["tables"][0]["columns"][0]["metric"] = "wre"
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError) as caught:
        load_plan(tmp_path / "plan.yaml")
    first, second = caught.value.faults
    assert f"experiment {data['experiments'][0]['name']}: no metric 'blue'" in first and "bleu" in first
    assert "no metric 'wre'" in second and "wer" in second
