"""A small study with made-up answers, its plan and a claim about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from espnet2_legonn.recipes.plan import Plan, ResultColumn, load_plan
from espnet2_legonn.scoring.metrics import score
from espnet2_legonn.studies.scores import Scores
from tests.recipes.test_plan import PLAN

COLUMN = ResultColumn("WER", "wer", "x")


def corrupt(text: str, share: float, rng: np.random.Generator) -> str:
    return " ".join(word if rng.random() > share else "wrong" for word in text.split())


def make_study(folder: Path) -> Scores:
    """Three seeds of ``poor`` (40 % wrong) and of ``plug``, decoded as ``decode`` (30 %) and ``joint`` (10 %)."""
    rng = np.random.default_rng(0)
    data = folder / "raw" / "x"
    data.mkdir(parents=True)
    refs = {f"u{i:03d}": " ".join(rng.choice(list("abcdefgh"), 8)) for i in range(80)}
    (data / "text").write_text("".join(f"{u} {t}\n" for u, t in refs.items()))
    write_plan(folder)
    for seed in (1, 2, 3):
        plan = load_plan(folder / "plan.yaml", tables="all", seed=seed)
        for exp, search, share in (("poor", "decode", 0.4), ("plug", "decode", 0.3), ("plug", "joint", 0.1)):
            place = folder / "exp" / f"seed{seed}" / f"legonn_{exp}"
            answers = place / search / "x"
            answers.mkdir(parents=True)
            texts = {u: corrupt(t, share + 0.01 * seed, rng) for u, t in refs.items()}
            (answers / "text").write_text("".join(f"{u} {t}\n" for u, t in texts.items()))
            score("wer", data, answers / "text").write(answers / "score_wer")
            told = {"seconds": 1800.0, "results": [], "notes": [], "fingerprint": plan.fingerprint(plan.by_name[exp])}
            (place / "done.json").write_text(json.dumps(told))
            about = {"vocabs": PLAN["vocabs"], "modules": [PLAN["modules"]["enc"]]}
            (place / "config.yaml").write_text(yaml.safe_dump(about))
        poor = folder / "exp" / f"seed{seed}" / "legonn_poor"
        (poor / "train.yaml").touch()
        with (poor / "config.yaml").open("a") as file:
            file.write("num_parameters: 123000\n")
        lines = [f"{e}epoch results: [train] loss=1, total_count={e * 50}, [valid] total_count=8" for e in (1, 2)]
        (poor / "train.log").write_text("\n".join(lines))
    return Scores(folder / "exp", folder / "raw", [1, 2, 3, 4])


def plan_data() -> dict[str, Any]:
    data = json.loads(json.dumps(PLAN))
    for experiment in data["experiments"]:
        experiment["metrics"] = ["wer"]
    for table in data["tables"]:
        table["study"] = True
        table.update({"columns": [{"title": "WER", "metric": "wer", "set": "x"}]})
    data["tables"][0]["rows"] += [{"label": "never", "cells": [{"exp": "donor"}]}, {"label": "empty", "cells": [None]}]
    data["tables"][1]["rows"] = [{"label": "d", "cells": [{"exp": "donor"}]}]
    del data["tables"][1]["metric"], data["tables"][1]["set"]
    return data


def write_plan(folder: Path) -> Plan:
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan_data(), sort_keys=False))
    return load_plan(folder / "plan.yaml", tables="all")


def claim(**about: Any) -> dict[str, Any]:
    pair = {"of": {"exp": "plug", "search": "joint"}, "over": {"exp": "poor"}, "set": "x", "metric": "wer"}
    return {"name": "H", "text": "more is better", "pairs": [pair], **about}
