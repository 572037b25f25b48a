"""Chains on disk: whole or an error by module; nobody's code runs; nothing half-written stays."""

from __future__ import annotations

import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from espnet2_legonn import CheckpointError, ConfigError, LegoNN
from espnet2_legonn.files import archive as archive_rules
from espnet2_legonn.model.chain import Labels
from espnet2_legonn.packs import store
from espnet2_legonn.packs.load import init_modules
from espnet2_legonn.search.beam import BeamOptions

TEXTS = ["a b c", "d", "c c a b d a"]


def answers(chain: LegoNN) -> list[list[tuple[list[int], float]]]:
    found = chain.eval().answer(TEXTS, BeamOptions(3, nbest=3))
    return [[(h.ids, h.score) for h in answer.nbest] for answer in found]


def zipped(folder: Path, archive: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
        for path in sorted(folder.iterdir()):
            z.write(path, inside + path.name)
    return archive


@pytest.fixture
def saved(chain: LegoNN, tmp_path: Path) -> Path:
    return chain.save(tmp_path / "pack")


@pytest.fixture
def without_card(saved: Path) -> Path:
    """As an experiment's folder: nothing says what its files should be."""
    (saved / "card.yaml").unlink()
    return saved


# -- round trips -------------------------------------------------------------------------------------------------------


def test_folder(chain: LegoNN, saved: Path) -> None:
    names = {p.name for p in saved.iterdir()}
    assert names == {
        "card.yaml",
        "meta.yaml",
        "config.yaml",
        "weights.safetensors",
        "src.tokens.txt",
        "mid.tokens.txt",
        "tgt.tokens.txt",
    }
    again = LegoNN.from_pretrained(saved)
    assert not any(m.training for m in again.modules())
    assert answers(again) == answers(chain)
    assert again.vocabs == chain.vocabs and again.configs == chain.configs
    assert answers(LegoNN.from_pretrained(str(saved / "config.yaml"))) == answers(chain)


@pytest.mark.parametrize("inside", ["", "some/folder/"])
def test_zip(chain: LegoNN, saved: Path, tmp_path: Path, inside: str) -> None:
    archive = zipped(saved, tmp_path / "pack.zip", inside)
    assert answers(LegoNN.from_pretrained(archive)) == answers(chain)


def test_load_fills_another_chain(
    chain: LegoNN, saved: Path, data: dict[str, Any], build: Callable[..., LegoNN]
) -> None:
    for source in (saved, saved / "weights.safetensors"):
        other = build(data, seed=9)
        assert answers(other) != answers(chain)
        assert other.load(source) is other
        assert answers(other) == answers(chain)


def test_saving_again_gives_the_same_bytes(chain: LegoNN, saved: Path, tmp_path: Path) -> None:
    again = LegoNN.from_pretrained(saved).save(tmp_path / "again", name="pack")
    for path in saved.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_slices_and_plugs_travel(
    chain: LegoNN, data: dict[str, Any], build: Callable[..., LegoNN], tmp_path: Path
) -> None:
    """Save the parts, load them, put them together: as if never parted."""
    other = build(data, seed=5)
    left = LegoNN.from_pretrained(chain[:1].save(tmp_path / "left"))
    right = LegoNN.from_pretrained(other[1:].save(tmp_path / "right"))
    plugged = left + right
    assert answers(plugged) == answers(chain[:1] + other[1:])
    assert answers(LegoNN.from_pretrained(plugged.save(tmp_path / "plugged"))) == answers(plugged)


def test_what_was_seen_travels(chain: LegoNN, tmp_path: Path) -> None:
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    chain.train().losses(*chain.batch(["a b c"]), dict.fromkeys(chain.names, labels))
    again = LegoNN.from_pretrained(chain.save(tmp_path / "pack"))
    contract = again.marginals("a", "first").interface
    assert (contract.slots_per_token, contract.longest) == (4.0, 8)
    assert list(again)[1].input.seen.slots_per_token == 4.0


def test_bpe_model_travels(data: dict[str, Any], parts: Any, tmp_path: Path) -> None:
    (tmp_path / "m.model").write_bytes(b"any bytes")
    data["vocabs"]["src"] |= {"bpemodel": str(tmp_path / "m.model"), "normalization": "lc.rm"}
    chain = parts.build(data)
    again = LegoNN.from_pretrained(chain.save(tmp_path / "pack"))
    assert again.vocabs["src"].bpemodel == b"any bytes"
    assert again.vocabs == chain.vocabs


def test_tied_weights_are_stored_once_and_tied_again(chain: LegoNN, saved: Path) -> None:
    """Decoder embedding, output and the WEmb table of its ingestor are one matrix."""
    table = chain.last.embed.weight
    assert chain.last.output.weight is table and chain.last.input.embed.weight is table
    shared = [k for k, v in load_file(saved / "weights.safetensors").items() if torch.equal(v, table)]
    assert len(shared) == 1
    last = LegoNN.from_pretrained(saved).last
    assert last.output.weight is last.embed.weight is last.input.embed.weight
    assert torch.equal(last.embed.weight, table)


def test_weights_that_are_not_tied_stay_apart(data: dict[str, Any], parts: Any, tmp_path: Path) -> None:
    chain = parts.build(parts.change(data, "modules.2.output.tie", False))
    again = LegoNN.from_pretrained(chain.save(tmp_path / "pack"))
    assert again.last.output.weight is not again.last.embed.weight
    assert answers(again) == answers(chain)


def test_tied_weights_do_not_fill_an_untied_model(saved: Path, data: dict[str, Any], parts: Any) -> None:
    untied = parts.build(parts.change(data, "modules.2.output.tie", False))
    with pytest.raises(CheckpointError, match="module decoder: 2 tensors missing: mods.decoder"):
        untied.load(saved)


def test_tied_names_that_hold_different_values_are_refused(chain: LegoNN, tmp_path: Path) -> None:
    """A checkpoint of an untied model in a tied one: loading one of the two in silence would lose the other."""
    tensors = {k: v.clone() for k, v in chain.state_dict().items()}
    tensors["mods.decoder.output.weight"] += 1.0
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="decoder"):
        chain.load(tmp_path / "w.safetensors")


def test_joint_vocabulary_of_two_languages_survives_plug_and_save(
    data: dict[str, Any], parts: Any, tmp_path: Path
) -> None:
    """The decoder's two sides have the same tokens in two languages, so they are not tied; saving must keep that."""
    vocabs = {
        "src": data["vocabs"]["src"],
        "en": parts.vocab("x y", language="en"),
        "de": parts.vocab("x y", language="de"),
    }
    left = parts.build({"vocabs": vocabs, "modules": [parts.encoder("encoder", "src", "en")]})
    right = parts.build({"vocabs": vocabs, "modules": [parts.decoder("decoder", "en", "de")]}, 3)
    plugged = (left + right).eval()
    again = LegoNN.from_pretrained(plugged.save(tmp_path / "pack"))
    assert answers(again) == answers(plugged)


def test_a_module_used_twice_survives_saving(data: dict[str, Any], parts: Any, tmp_path: Path) -> None:
    denoiser = {
        "vocabs": data["vocabs"],
        "modules": [parts.encoder("denoiser", "mid", "mid", type="wemb", num_blocks=1)],
    }
    one, first = parts.build(denoiser), parts.build(data)[:1]
    twice = (first + one + one).eval()
    again = LegoNN.from_pretrained(twice.save(tmp_path / "pack"))
    torch.testing.assert_close(again.marginals(TEXTS).log_probs, twice.eval().marginals(TEXTS).log_probs)


# -- ESPnet checkpoints ------------------------------------------------------------------------------------------------


def test_espnet_experiment_folder(chain: LegoNN, without_card: Path) -> None:
    """``chain.`` before every name, and the best checkpoint first."""
    (without_card / "weights.safetensors").unlink()
    state = {f"chain.{k}": v for k, v in chain.state_dict().items()}
    torch.save({k: torch.zeros_like(v) for k, v in state.items()}, without_card / "latest.pth")
    torch.save(state, without_card / "valid.decoded.ave.pth")
    assert answers(LegoNN.from_pretrained(without_card)) == answers(chain)
    blank = LegoNN.from_pretrained(without_card, model_file="latest.pth")
    assert not any(p.any() for p in blank.parameters())
    assert not any(p.any() for p in LegoNN.from_pretrained(without_card, without_card / "latest.pth").parameters())


def test_no_weights(without_card: Path) -> None:
    (without_card / "weights.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match="pack: no weights.safetensors and none of valid.decoded.ave.pth, .*model_file"
    ):
        LegoNN.from_pretrained(without_card)
    with pytest.raises(CheckpointError, match="best.pth: no such weights"):
        LegoNN.from_pretrained(without_card, model_file="best.pth")


# -- wrong weights -----------------------------------------------------------------------------------------------------


def test_missing_unexpected_and_misshapen_by_module(chain: LegoNN, saved: Path, tmp_path: Path) -> None:
    tensors = load_file(saved / "weights.safetensors")
    del tensors["mods.first.body.after_norm.weight"], tensors["mods.first.body.after_norm.bias"]
    tensors["mods.middle.extra.weight"] = torch.zeros(1)
    tensors["mods.middle.interface.ctc_lo.bias"] = torch.zeros(9)
    tensors |= {"mods.third.weight": torch.zeros(1), "optimizer": torch.zeros(1)}
    save_file(tensors, tmp_path / "w.safetensors")
    before = answers(chain)
    with pytest.raises(CheckpointError) as error:
        chain.load(tmp_path / "w.safetensors")
    path = tmp_path / "w.safetensors"
    assert error.value.faults == [
        f"{path}: module (no module): 1 tensors unexpected: optimizer",
        f"{path}: module first: 2 tensors missing: mods.first.body.after_norm.bias, mods.first.body.after_norm.weight",
        f"{path}: module middle: 1 tensors of another shape: mods.middle.interface.ctc_lo.bias is (9,), should be (6,)",
        f"{path}: module middle: 1 tensors unexpected: mods.middle.extra.weight",
        f"{path}: module third: 1 tensors unexpected: mods.third.weight",
    ]
    assert answers(chain) == before, "an error leaves the chain as it was"


def test_long_lists_are_cut(chain: LegoNN, saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"module first: \d\d tensors missing: (\S+, ){2}\S+ \.\.\."):
        store.fill(chain, {}, "nothing")


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.99])
def test_truncated_safetensors(without_card: Path, keep: float) -> None:
    path = without_card / "weights.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(
        CheckpointError, match=r"weights.safetensors: damaged or truncated \(.*\); copy it again"
    ):
        LegoNN.from_pretrained(without_card)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated_pth(chain: LegoNN, tmp_path: Path, keep: float) -> None:
    path = tmp_path / "w.pth"
    torch.save(chain.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(CheckpointError, match="w.pth: (damaged or truncated|not plain weights)"):
        chain.load(path)


@pytest.mark.parametrize("state", [torch.ones(2), [1], {"mods.first.body.after_norm.bias": 3}])
def test_pth_that_holds_no_tensors_by_name(chain: LegoNN, tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="w.pth"):
        chain.load(tmp_path / "w.pth")


class Touch:
    """Unpickling this creates a file: what a hostile checkpoint does."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (self.path,)


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
def test_pickled_objects_are_refused_unrun(chain: LegoNN, tmp_path: Path, how: str) -> None:
    path, proof = tmp_path / "w.pth", tmp_path / "proof"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"weights": Touch(proof)}))
    else:
        torch.save({"weights": Touch(proof)}, path, _use_new_zipfile_serialization=how == "torch")
    with (
        warnings.catch_warnings(),
        pytest.raises(CheckpointError, match="w.pth: (not plain weights|damaged)"),
    ):
        warnings.simplefilter("ignore")
        chain.load(path)
    assert not proof.exists()
    # The trap is real: plain pickle springs it.
    if how == "pickle":
        pickle.loads(path.read_bytes())
        assert proof.exists()


# -- hostile and broken packs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/abs.txt", "../up.txt", "in/../../up.txt", "..\\up.txt", "C:\\abs.txt", "\\abs.txt"]
)
def test_zip_entries_that_point_outside(saved: Path, tmp_path: Path, name: str) -> None:
    archive = zipped(saved, tmp_path / "pack.zip")
    with zipfile.ZipFile(archive, "a") as z:
        z.writestr(name, "evil")
    before = set(tmp_path.iterdir())
    with pytest.raises(CheckpointError) as error:
        LegoNN.from_pretrained(archive)
    assert error.value.faults == [
        f"{archive}: entry {zipfile.ZipFile(archive).namelist()[-1]!r} points out of the archive"
    ]
    assert set(tmp_path.iterdir()) == before


def test_zip_with_a_link_and_all_faults_at_once(saved: Path, tmp_path: Path) -> None:
    archive = zipped(saved, tmp_path / "pack.zip")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as z:
        z.writestr(link, "/etc/passwd")
        z.writestr("../up", "evil")
    with pytest.raises(CheckpointError) as error:
        LegoNN.from_pretrained(archive)
    assert [f.split("entry ")[1] for f in error.value.faults] == [
        "'link' is a link",
        "'../up' points out of the archive",
    ]


def test_zip_of_too_many_or_too_large_files(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(saved, tmp_path / "pack.zip")
    monkeypatch.setattr(archive_rules, "MAX_FILES", 3)
    with pytest.raises(CheckpointError, match="pack.zip: 7 entries, at most 3 are read"):
        LegoNN.from_pretrained(archive)
    monkeypatch.undo()
    monkeypatch.setattr(archive_rules, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="pack.zip: unpacks to more than 0 GiB"):
        LegoNN.from_pretrained(archive)


def test_zip_with_an_entry_for_its_own_folder(chain: LegoNN, saved: Path, tmp_path: Path) -> None:
    """Some tools write an entry ``./``: harmless."""
    archive = zipped(saved, tmp_path / "pack.zip")
    with zipfile.ZipFile(archive, "a") as z:
        z.writestr("./", "")
    assert answers(LegoNN.from_pretrained(archive)) == answers(chain)


def test_damaged_zip(saved: Path, tmp_path: Path) -> None:
    """Whichever byte of the weights is wrong, the zip is named."""
    archive = zipped(saved, tmp_path / "pack.zip")
    content = archive.read_bytes()
    start = content.index(b"weights.safetensors")
    for place in range(start + 19, start + 400, 40):
        broken = bytearray(content)
        broken[place : place + 8] = b"\xff" * 8
        archive.write_bytes(bytes(broken))
        with pytest.raises(CheckpointError, match="pack.zip: "):
            LegoNN.from_pretrained(archive)


def test_truncated_zip(saved: Path, tmp_path: Path) -> None:
    archive = zipped(saved, tmp_path / "pack.zip")
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="pack.zip: (damaged|truncated|not a)"):
        LegoNN.from_pretrained(archive)


def test_places_that_hold_no_chain(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none: no such folder or zip"):
        LegoNN.from_pretrained(tmp_path / "none")
    with pytest.raises(
        CheckpointError, match="no config.yaml; is this the folder of a saved chain or of an experiment"
    ):
        LegoNN.from_pretrained(tmp_path)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as z:
        z.writestr("readme", "nothing")
    with pytest.raises(CheckpointError, match="empty.zip: neither card.yaml nor config.yaml inside"):
        LegoNN.from_pretrained(tmp_path / "empty.zip")
    (tmp_path / "config.yaml").write_text("optim: adam\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config.yaml: describes no chain \(no 'modules'\)"):
        LegoNN.from_pretrained(tmp_path)


# -- writing -----------------------------------------------------------------------------------------------------------


def fail(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_failure_leaves_nothing(chain: LegoNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "save_file", fail)
    with pytest.raises(CheckpointError, match="No space left.*is the disk full"):
        chain.save(tmp_path / "pack")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_pack(chain: LegoNN, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = answers(chain)
    with torch.no_grad():
        chain.last.embed.weight.add_(1.0)
    with monkeypatch.context() as patch:
        patch.setattr(store, "save_file", fail)
        with pytest.raises(CheckpointError, match="No space left.*is the disk full"):
            chain.save(saved)
    assert [p.name for p in saved.parent.iterdir()] == ["pack"]
    assert answers(LegoNN.from_pretrained(saved)) == before
    chain.save(saved)
    assert answers(LegoNN.from_pretrained(saved)) == answers(chain)
    assert [p.name for p in saved.parent.iterdir()] == ["pack"]


def test_other_peoples_folders_are_not_overwritten(chain: LegoNN, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(
        FileExistsError, match="exists and is no pack; choose another folder or remove it"
    ):
        chain.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"
    with pytest.raises(FileExistsError, match="notes.txt"):
        chain.save(tmp_path / "notes.txt")


def test_files_beside_a_saved_chain_are_not_deleted(chain: LegoNN, saved: Path) -> None:
    """An experiment's folder with logs and checkpoints may hold weights.safetensors too."""
    (saved / "train.log").write_text("hours of work", encoding="utf-8")
    try:
        chain.save(saved)
    except FileExistsError:
        pass
    assert (saved / "train.log").read_text(encoding="utf-8") == "hours of work"


def test_parents_are_made_and_the_folder_may_be_read_by_others(chain: LegoNN, tmp_path: Path) -> None:
    folder = chain.save(tmp_path / "a" / "b" / "pack")
    assert folder.stat().st_mode & 0o777 == 0o755


# -- donors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_init_from_a_donor(
    chain: LegoNN, saved: Path, data: dict[str, Any], build: Callable[..., LegoNN], tmp_path: Path, form: str
) -> None:
    source = saved if form == "folder" else zipped(saved, tmp_path / "pack.zip")
    data["modules"][0]["init"] = str(source)
    data["modules"][2] |= {"name": "writer", "init": f"{source}#decoder", "freeze": True}
    own = build(data, seed=9)
    lines = init_modules(own)
    assert [line.split(":")[0] for line in lines] == ["first", "writer"]
    assert all(f"values from {source}" in line for line in lines)
    for mine, theirs in ((own.first, chain.first), (own.last, chain.last)):
        for (name, a), b in zip(mine.state_dict().items(), theirs.state_dict().values()):
            assert torch.equal(a, b), name
    assert not torch.equal(list(own)[1].interface.ctc_lo.weight, list(chain)[1].interface.ctc_lo.weight)
    assert own.last.output.weight is own.last.embed.weight
    assert not any(p.requires_grad for p in own.last.parameters())


def test_a_trainable_module_forgets_what_its_donor_saw(
    chain: LegoNN, data: dict[str, Any], build: Callable[..., LegoNN], tmp_path: Path
) -> None:
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    chain.train().losses(*chain.batch(["a b c"]), dict.fromkeys(chain.names, labels))
    donor = chain.save(tmp_path / "donor")
    data["modules"][1] |= {"init": str(donor)}
    data["modules"][2] |= {"init": str(donor), "freeze": "eval"}
    own = build(data)
    init_modules(own)
    assert list(own)[1].input.seen.slots_per_token is None
    assert own.last.input.seen.slots_per_token == chain.last.input.seen.slots_per_token is not None


def test_donors_that_do_not_fit(saved: Path, data: dict[str, Any], parts: Any) -> None:
    with pytest.raises(
        CheckpointError, match="first.init: .*pack has no module 'encoder', only first, middle, decoder"
    ):
        init_modules(parts.build(parts.change(data, "modules.0.init", f"{saved}#encoder")))
    with pytest.raises(CheckpointError, match="none: no such folder or zip"):
        init_modules(parts.build(parts.change(data, "modules.0.init", f"{saved}/none")))
    wide = parts.change(parts.change(data, "modules.0.body.linear_units", 20), "modules.0.init", str(saved))
    with pytest.raises(
        CheckpointError, match=r"pack: module first: .*of another shape: .* is \(16,\), should be \(20,\)"
    ):
        init_modules(parts.build(wide))


def test_a_donor_of_another_vocabulary_is_refused(saved: Path, data: dict[str, Any], parts: Any) -> None:
    """Same shapes, other tokens: every row of the embedding would stand for another word."""
    data = parts.change(data, "vocabs.tgt.tokens", ["<blank>", "<unk>", "z", "y", "x", "<sos/eos>"])
    with pytest.raises(ValueError, match="order|vocabulary"):
        init_modules(parts.build(parts.change(data, "modules.2.init", str(saved))))
