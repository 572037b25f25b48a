"""Each extra of setup.py by itself: an environment with the core, what the extra asks for, and nothing else."""

from __future__ import annotations

import os
import subprocess
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.setup import SKIPPED

ROOT = Path(__file__).resolve().parents[2]
MT = str(next((ROOT / "packs").glob("mt_de_en-*.zip")))
LEGONN = ["-m", "espnet2_legonn.bin.legonn"]
WORKS = {
    "": [*LEGONN, "translate", "--model", MT, "der hund"],
    "train": ["-m", "espnet2_legonn.bin.legonn_train", "--print_config"],
    "score": ["-m", "espnet2_legonn.bin.legonn_score", "--help"],
    "g2p": ["-c", "import g2p_en, nltk"],
    "corpora": ["-c", "import av, sacremoses, subword_nmt.apply_bpe; import legonn_corpora.wmt14_en_de"],
    "demo": ["-c", "import espeakng_loader, matplotlib; print(espeakng_loader.get_library_path())"],
    "zoo": ["-c", "import huggingface_hub, s3fs, fsspec; fsspec.filesystem('s3', anon=True)"],
    "pretrained": ["-c", "import transformers; transformers.Wav2Vec2Model, transformers.WhisperModel"],
    "lora": ["-c", "import peft, transformers; peft.LoraConfig, transformers.LlamaForCausalLM"],
    "page": [*LEGONN, "demo", "--help"],
    "vad": ["-c", "import silero_vad; silero_vad.load_silero_vad()"],
    "onnx": [*LEGONN, "export", MT, "-o", "export"],
    "docs": ["-c", "import mkdocs, material, mkdocstrings, nbclient, ipykernel, matplotlib"],
    "dev": ["-m", "pytest", "--version", "-n", "1", "--hypothesis-show-statistics"],
    "dev-zoo": ["-c", "import moto.server, flask_cors, playwright.sync_api; from moto import mock_aws; mock_aws()"],
}


def wanted(extra: str) -> dict[str, metadata.Distribution]:
    """Installed distributions that the core and an extra ask for, and what those ask for."""
    found: dict[str, metadata.Distribution] = {}
    asked = [Requirement(f"espnet2_legonn[{extra}]" if extra else "espnet2_legonn")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while asked:
        need = asked.pop()
        name, extras = canonicalize_name(need.name), frozenset(need.extras)
        if (name, extras) in seen or name in SKIPPED:
            continue
        seen.add((name, extras))
        found[name] = metadata.distribution(name)
        for line in found[name].requires or []:
            more = Requirement(line)
            if more.marker is None or any(more.marker.evaluate({"extra": e}) for e in extras | {""}):
                asked.append(more)
    return found


def environment(folder: Path, extra: str) -> Path:
    """A virtual environment with links to those distributions; returns its Python."""
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "espnet2_legonn").symlink_to(ROOT / "espnet2_legonn")
    (site / "legonn_corpora").symlink_to(ROOT / "local" / "legonn_corpora")
    for name, distribution in wanted(extra).items():
        for file in distribution.files or [] if name != "espnet2-legonn" else []:
            link, target = site / file.parts[0], Path(str(distribution.locate_file(file.parts[0])))
            if file.parts[0] not in ("..", "__pycache__") and not link.exists() and target.exists():
                link.symlink_to(target)
    return folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("extra", WORKS)
def test_an_extra_alone_is_enough_for_what_it_is_for(extra: str, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", extra)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([python, *WORKS[extra]], capture_output=True, text=True, cwd=tmp_path, env=clean)
    assert done.returncode == 0, done.stderr[-2000:]
    rest = "import importlib.util as u; print(*[n for n in ('gradio', 'espnet2', 'moto') if u.find_spec(n)])"
    there = subprocess.run([python, "-c", rest], capture_output=True, text=True, cwd=tmp_path, env=clean, check=True)
    belong = {"page": "gradio", "train": "espnet2", "dev-zoo": "moto"}
    assert there.stdout.split() == ([belong[extra]] if extra in belong else []), "the environment holds too much"


def test_every_extra_is_tried() -> None:
    provided = set(metadata.metadata("espnet2_legonn").get_all("Provides-Extra") or [])
    assert provided == {e for e in WORKS if e} | {"all"}
