"""legonn check: reasons from cards alone, with weights and exit statuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import ConfigError, InterfaceMismatch
from espnet2_legonn.packs.check import Verdict, check
from tests.zoo.toys import change, pair

Pack = Callable[..., Path]


def seen(chain: LegoNN, module: str, slots: int, tokens: int) -> None:
    """Pretend that a port met this in training."""
    part = chain.mods[module]
    port = part.interface.seen if module == "encoder" else part.input.seen
    port.update(torch.tensor([slots]), torch.tensor([tokens]))


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    def write(name: str, data: dict[str, Any] | None = None, **about: Any) -> Path:
        chain = LegoNN.from_config(data or pair())
        for module, (slots, tokens) in about.pop("saw", {}).items():
            seen(chain, module, slots, tokens)
        return chain.save(tmp_path / name, **about)

    return write


def messages(report: Any, verdict: Verdict) -> list[str]:
    return [r.message for joint in report.joints for r in joint.reasons if r.verdict == verdict]


def test_a_fitting_pair(pack: Pack) -> None:
    a, b = pack("a", saw={"encoder": (20, 10)}), pack("b", saw={"decoder": (21, 10)})
    report = check([f"{a}#encoder", f"{b}#decoder"])
    assert report.verdict == Verdict.FITS
    assert messages(report, Verdict.FITS) == [
        "the same vocabulary: 7 word tokens in the same order, blank id 0",
        "slots per token: 2.00 are written, 2.10 were seen in training",
    ]
    assert str(report).splitlines()[0] == "tokens (src: 7 word) -> a#encoder -> b#decoder -> text (tgt: 7 word)"
    assert str(report).splitlines()[-1] == "verdict: fits"


def test_what_only_differs_from_training(pack: Pack) -> None:
    """Slots per token by how much and the cure, lengths, domain; still no misfit."""
    a = pack("a", saw={"encoder": (300, 100)}, domain="talks")
    b = pack("b", saw={"decoder": (200, 100)}, domain="parliament")
    report = check([f"{a}#encoder", f"{b}#decoder"])
    assert report.verdict == Verdict.DIFFERS
    slots, longest, domain = messages(report, Verdict.DIFFERS)
    assert "3.00 are produced, 2.00 were seen in training (1.50 times)" in slots and "collapse: true" in slots
    assert longest.startswith("length: up to 300 slots are written, the reader saw at most 200 in training")
    assert domain == "domain: talks there, parliament here"


def test_a_collapsing_reader_takes_any_number_of_slots(pack: Pack) -> None:
    a = pack("a", saw={"encoder": (30, 10)})
    b = pack("b", change(pair(), "modules.1.input.collapse", True), saw={"decoder": (20, 10)})
    report = check([f"{a}#encoder", f"{b}#decoder"])
    assert "slots per token: 3.00 are written; the reader collapses, any will do" in messages(report, Verdict.FITS)
    assert not any("slots per token" in m for m in messages(report, Verdict.DIFFERS))


def test_every_reason_against(pack: Pack) -> None:
    other = change(pair(), "vocabs.tgt.tokens", ["<blank>", "<unk>", "c", "b", "a", "d", "<sos/eos>"])
    other = change(change(other, "vocabs.tgt.language", "de"), "vocabs.tgt.normalization", "tc")
    mine = change(change(pair(), "vocabs.tgt.language", "en"), "vocabs.tgt.normalization", "lc.rm")
    report = check([f"{pack('a', mine)}#encoder", f"{pack('b', other)}#decoder"])
    assert report.verdict == Verdict.MISFIT
    order, language, normalization = messages(report, Verdict.MISFIT)
    assert "the same tokens in another order; id 2 is 'a' there and 'c' here" in order
    assert language == "language: en is produced, de is expected"
    assert normalization == "normalization: lc.rm is produced, tc is expected"


@pytest.mark.parametrize(
    ("left", "right", "reason"),
    [
        ("#encoder", "#encoder", "encoder writes marginals, encoder reads tokens"),
        ("#decoder", "#decoder", "decoder writes text, decoder reads marginals"),
    ],
)
def test_ports_of_another_kind(pack: Pack, left: str, right: str, reason: str) -> None:
    path = pack("a")
    assert messages(check([f"{path}{left}", f"{path}{right}"]), Verdict.MISFIT) == [reason]


def test_three_parts_and_zips(pack: Pack, tmp_path: Path) -> None:
    from espnet2_legonn.packs.files import zip_pack

    a = zip_pack(pack("a"), tmp_path / "a.zip")
    report = check([f"{a}#encoder", f"{a}#decoder"])
    assert [j.verdict for j in report.joints] == [Verdict.FITS]


@pytest.mark.parametrize("swap", ["vocabulary", "kind"])
def test_check_and_plus_agree(pack: Pack, swap: str) -> None:
    """If check says yes, `+` says yes; if it says no, `+` raises."""
    a = pack("a")
    tokens = ["<blank>", "<unk>", "c", "b", "a", "d", "<sos/eos>"]
    b = pack("b", change(pair(), "vocabs.tgt.tokens", tokens)) if swap == "vocabulary" else a
    right = "#decoder" if swap == "vocabulary" else "#encoder"
    assert check([f"{a}#encoder", f"{b}{right}"]).verdict == Verdict.MISFIT
    with pytest.raises(InterfaceMismatch):
        LegoNN.from_pretrained(a)[:1] + LegoNN.from_pretrained(b)[right[1:]]


def test_all_faults_of_all_packs(pack: Pack, tmp_path: Path) -> None:
    path = pack("a")
    with pytest.raises(ConfigError) as error:
        check([f"{path}#encodr", str(tmp_path / "none")])
    assert len(error.value.faults) == 2
    assert "no module encodr; it has encoder, decoder" in error.value.faults[0]


def test_command_line_status(pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    path = pack("a")
    assert main(["check", f"{path}#encoder", f"{path}#decoder"]) == 0
    assert "verdict: fits" in capsys.readouterr().out
    assert main(["check", f"{path}#decoder", f"{path}#decoder"]) == 2
    assert main(["check", f"{path}/none"]) == 2
    assert "no such folder or zip" in capsys.readouterr().err


def test_neither_torch_nor_weights_are_read(pack: Pack) -> None:
    """Checking costs a fraction of a second: no torch, and no weights on disk."""
    path = pack("a")
    (path / "weights.safetensors").unlink()
    code = (
        "import sys; from espnet2_legonn.bin.legonn import main\n"
        f"status = main(['check', {str(path) + '#encoder'!r}, {str(path) + '#decoder'!r}])\n"
        "assert status == 0 and 'torch' not in sys.modules and 'espnet2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
