"""The mini recipe from data to tables, all experiments of its plan, with models too small to learn anything."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SIZES = "--de_en 80 --ro_en 40 --asr 24 --ted 24 --valid 8 --test 8"


def shrink(plan: dict) -> dict:
    """The same experiments and tables, one short epoch each."""
    for module in plan["modules"].values():
        module["body"].update(num_blocks=1, size=16, heads=2, linear_units=16)
        if module.get("length_control"):
            module["length_control"].update(num_blocks=1)
    short = {"max_epoch": 1, "batch_bins": 400}
    plan["training"].update(short)
    for experiment in plan["experiments"]:
        if "options" in experiment:
            on_speech = experiment["options"].get("batch_bins", 0) > 100000
            experiment["options"].update(short, batch_bins=600000 if on_speech else 400)
    for search in plan["searches"].values():
        search.update(beam_size=2, maxlenratio=-4)
    for table in plan["tables"]:
        table["unlearned"] = True
    return plan


@pytest.mark.xdist_group("espnet")
def test_all_stages(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="speech is made by espeakng-loader (extra demo)")
    recipe = tmp_path / "egs2" / "mini_legonn" / "legonn1"
    shutil.copytree(
        ROOT / "egs2", tmp_path / "egs2", ignore=shutil.ignore_patterns("data", "dump", "exp", "__pycache__")
    )
    plan = shrink(yaml.safe_load((recipe / "conf" / "plan.yaml").read_text()))
    (recipe / "conf" / "tiny.yaml").write_text(yaml.safe_dump(plan))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        ["./run.sh", "--data_opts", SIZES, "--plan", "conf/tiny.yaml", "--nj", "1", "--tables", "all"],
        cwd=recipe, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]

    names = [e["name"] for e in plan["experiments"]]
    assert len(names) == 31
    for name in names:
        finished = json.loads((recipe / "exp" / f"legonn_{name}" / "done.json").read_text())
        assert finished["results"], name
    report = (recipe / "exp" / "RESULTS.md").read_text()
    assert len(plan["tables"]) == 11 and "not run" not in report
    for table in plan["tables"]:
        assert table["title"] in report
        for row in table["rows"]:
            # every row has a number: nothing was left out
            assert re.search(rf"^\| *{re.escape(row['label'])} *\|+ *\d+\.\d \(", report, re.MULTILINE), row["label"]
    # the choice of a tuned search lies where the chain will find it, and its curve beside it
    plug = recipe / "exp" / "legonn_plug_ro_wemb"
    assert "search:" in (plug / "card.yaml").read_text() and "<- chosen" in (plug / "tune/joint/result.txt").read_text()
    assert (recipe / "exp" / "interface.png").stat().st_size > 1000
    assert re.search(r"next, .*legonn compose exp/legonn_ro_encoder exp/legonn_mt_de_en#decoder -o", done.stdout)
    assert re.fullmatch(r"\./run\.sh: done in \d+ min \d+ s", done.stdout.splitlines()[-1])
