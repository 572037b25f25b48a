"""Old names of modules keep working for one version, and say the new one."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import espnet2_legonn
from espnet2_legonn._renamed import MODULES, ROOMS, new_name

OLD = [*MODULES, *ROOMS, "zoo.card", "recipe.paper_tables", "train.model"]


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_is_the_new_module(old: str) -> None:
    new = new_name(f"espnet2_legonn.{old}")
    # The folder above must be known too: a checkout that was pulled may still have it, a new clone does not.
    for above in old.split(".")[:-1]:
        assert above in ROOMS or Path(espnet2_legonn.__path__[0], above, "__init__.py").exists()
    assert new is not None and importlib.util.find_spec(new) is not None
    if "training" in new or new.endswith("plot"):
        return  # they load ESPnet or matplotlib
    module = importlib.import_module(new)
    kept = module.__spec__
    with pytest.warns(FutureWarning, match=f"espnet2_legonn.{old} is {new} now"):
        sys.modules.pop(f"espnet2_legonn.{old}", None)
        assert importlib.import_module(f"espnet2_legonn.{old}") is module
    assert module.__spec__ is kept and module.__name__ == new


def test_a_new_name_says_nothing_and_an_unknown_one_is_unknown() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.import_module("espnet2_legonn.packs.card")
    assert new_name("espnet2_legonn.packs.card") is None and new_name("zoo.card") is None
    for unknown in ("espnet2_legonn.zoo.nowhere", "espnet2_legonn.nowhere"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(unknown)


def test_a_program_runs_by_its_old_name() -> None:
    command = [sys.executable, "-m", "espnet2_legonn.recipe.paper_tables", "IV"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "LegoNN encoder only" in done.stdout and "recipes.paper_tables now" in done.stderr


def test_what_the_old_inference_module_had_is_in_its_room() -> None:
    from espnet2_legonn import inference
    from espnet2_legonn.inference import espnet
    from espnet2_legonn.search import answers

    for name in ("Answer", "ChainInference", "Hypothesis", "Result", "Speech2Text", "Text2Text"):
        assert getattr(inference, name) is getattr(espnet, name)
    assert inference.Answer is answers.Answer and inference.beyond_training is answers.beyond_training
