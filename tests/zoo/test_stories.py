"""What people come for, as the shell lines they would type, on the packs that ship with the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.zoo.shipped import PACKS, ROOT, pairs_of, speak

pytestmark = pytest.mark.skipif(not (PACKS / "inventory.json").is_file(), reason="no packs/: `make demo packs`")
GERMAN = "die frau arbeitet"


def shell(lines: str, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run lines as a user would; ``legonn`` is this checkout's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LEGONN_CACHE": str(cwd / "cache")}
    start = f'legonn() {{ "{sys.executable}" -m espnet2_legonn.bin.legonn "$@"; }}\n'
    done = subprocess.run(["bash", "-euc", start + lines], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def test_b_will_these_two_fit(tmp_path: Path) -> None:
    fits = shell("legonn check ro_encoder mt_de_en#decoder", tmp_path)
    assert "verdict: fits" in fits.stdout and "the same vocabulary: 300 bpe tokens" in fits.stdout
    misfit = shell("legonn check mt_de_en#encoder asr_encoder", tmp_path, status=2)
    assert "encoder writes marginals, phoneme_recognizer reads speech" in misfit.stdout


def test_c_which_module_is_to_blame(tmp_path: Path) -> None:
    """The text of every module, beside the final one."""
    done = shell(f'legonn translate --model mt_de_en --format json "{GERMAN}"', tmp_path)
    row = json.loads(done.stdout)
    assert row["text"] and row["interfaces"]["encoder"]


def test_e_prepare_a_fine_tuning(tmp_path: Path) -> None:
    """Training itself goes on in tests/train/test_composition.py."""
    (tmp_path / "tune.yaml").write_text("max_epoch: 1\nmodules_conf: {decoder: {freeze: true}}\n")
    done = shell("legonn compose ro_encoder mt_de_en#decoder -o st --finetune tune.yaml", tmp_path)
    assert "next: ./run.sh --stage 10 --legonn_config st/train.yaml" in done.stdout
    assert (tmp_path / "st" / "model.pth").is_file()


@pytest.mark.slow
def test_g_three_modules_from_three_packs(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    speak(tmp_path / "speech", 2)
    parts = "asr_encoder#phoneme_recognizer asr_encoder#pronunciation mt_de_en_collapsed#decoder"
    shell(f"legonn compose {parts} -o three", tmp_path)
    files = " ".join(line.split()[1] for line in (tmp_path / "speech" / "wav.scp").read_text().splitlines())
    done = shell(f"legonn transcribe {files} --model three --format json", tmp_path)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2 and all({"phoneme_recognizer", "pronunciation"} <= row["interfaces"].keys() for row in rows)


def test_i_a_new_language_without_an_update(tmp_path: Path) -> None:
    """Romanian into English with a decoder that met only German: better than the encoder by itself."""
    import sacrebleu

    pairs = pairs_of("ro")[:100]
    (tmp_path / "ro.txt").write_text("".join(f"{source}\n" for source, _ in pairs), encoding="utf-8")
    lines = "legonn translate --model ro_encoder -f ro.txt -o alone.txt\n"
    lines += "legonn translate --model ro_encoder --model mt_de_en#decoder -f ro.txt -o plugged.txt"
    shell(lines, tmp_path)
    score = {}
    for name in ("alone", "plugged"):
        answers = (tmp_path / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        score[name] = sacrebleu.corpus_bleu(answers, [[english for _, english in pairs]]).score
    assert score["plugged"] > score["alone"] + 3, score


def test_j_the_page_explains_a_misfit() -> None:
    """The browser's view of the same is tests/zoo/test_page.py."""
    from espnet2_legonn.packs.check import Verdict, check

    report = check(["mt_de_en#decoder", "mt_de_en#decoder"])
    assert report.verdict == Verdict.MISFIT and "decoder writes text, decoder reads marginals" in str(report)


def test_find_take_and_publish(tmp_path: Path) -> None:
    """What decoders take bpe_en? Get one, put it into an inventory of my own, use it from there."""
    found = shell('legonn list --reads "marginals bpe_en" --writes text', tmp_path).stdout
    assert all(name in found for name in ("mt_de_en#decoder", "mt_de_en_collapsed#decoder"))
    lines = "legonn pull mt_de_en -o mine\nlegonn push mine --inventory shelf\nlegonn info mine\n"
    lines += f'legonn pull mt_de_en --inventory shelf -o again\nlegonn translate --model again "{GERMAN}"'
    assert shell(lines, tmp_path).stdout.strip().splitlines()[-1]
