"""Folders, archives, vocabularies of strangers: they read no other file, speak to no terminal, end no process."""

from __future__ import annotations

import shutil
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn import CheckpointError, ConfigError, DataError, LegoNN
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.data import spm
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import LegoNNError, harmless
from espnet2_legonn.files.schema import nearest
from espnet2_legonn.model.description import MAX_PARTS, parse
from espnet2_legonn.packs.card import CARD, read_card
from espnet2_legonn.packs.inventory import Inventory
from tests.zoo.hostile import edit, zipped
from tests.zoo.places import make_pack
from tests.zoo.toys import build, pair

CONFIG, TOKENS = "config.yaml", "src.tokens.txt"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return build(pair()).save(tmp_path / "pack")


@pytest.fixture
def bare(pack: Path) -> Path:
    """The same without a card."""
    (pack / CARD).unlink()
    return pack


def faults(error: pytest.ExceptionInfo[LegoNNError]) -> str:
    return "\n".join(error.value.faults)


# -- without a card ----------------------------------------------------------------------------------------------------


def test_an_archive_without_a_card_needs_trust(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive, out = zipped(bare, tmp_path / "x.zip"), tmp_path / "out"
    for command in (["translate", "k l", "--model"], ["compose", "-o", str(out)], ["pull", "-o", str(out)]):
        assert main([*command, str(archive)]) == 2
        told = capsys.readouterr().err
        assert "no card.yaml, so nothing says what it should hold" in told and "--trust" in told, command
        assert not out.exists()
    assert main(["translate", "k l", "--trust", "--model", str(archive)]) == 0
    assert main(["pull", "-o", str(out), "--trust", str(archive)]) == 0 and (out / CONFIG).is_file()
    assert main(["compose", "-o", str(tmp_path / "composed"), "--trust", str(archive)]) == 0


@pytest.mark.parametrize("key", ["bpemodel", "tokens"])
@pytest.mark.parametrize("how", ["absolute", "up", "link", "linked folder", "process"])
def test_a_config_without_a_card_reads_nothing_else(bare: Path, tmp_path: Path, key: str, how: str) -> None:
    """Neither from a folder nor, with trust, from an archive: a pack made of it would carry the file away."""
    secret = tmp_path / "secret" / "key"
    secret.parent.mkdir()
    shutil.copy(bare / TOKENS, secret)
    names = {"absolute": str(secret), "up": "../secret/key", "link": "key", "linked folder": "sub/key"}
    if how == "link":
        (bare / "key").symlink_to(secret)
    if how == "linked folder":
        (bare / "sub").symlink_to(secret.parent)
    name = names.get(how, "/proc/self/environ")
    edit(bare / CONFIG, lambda data: data["vocabs"]["src"].update({key: name}))
    with pytest.raises(CheckpointError, match="is not in this folder; such a config may read any file"):
        LegoNN.from_pretrained(bare)
    if how in ("absolute", "up", "process"):
        with pytest.raises(CheckpointError, match="is not in this folder; such a config may read any file"):
            LegoNN.from_pretrained(zipped(bare, tmp_path / "x.zip"), trust=True)


def test_a_subfolder_is_inside(bare: Path) -> None:
    """As ``config.yaml`` of an experiment has it."""
    (bare / "vocabs").mkdir()
    (bare / TOKENS).rename(bare / "vocabs" / TOKENS)
    edit(bare / CONFIG, lambda data: data["vocabs"]["src"].update(tokens=f"vocabs/{TOKENS}"))
    assert LegoNN.from_pretrained(bare)


def test_links_within_the_hubs_cache(bare: Path, tmp_path: Path) -> None:
    """Its snapshots are links to blobs beside them; a link further away is none of its."""
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    bare.rename(snapshot)
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    (snapshot / TOKENS).rename(blobs / "1")
    (snapshot / TOKENS).symlink_to("../../blobs/1")
    assert LegoNN.from_pretrained(snapshot)
    shutil.move(blobs / "1", tmp_path / "1")
    (snapshot / TOKENS).unlink()
    (snapshot / TOKENS).symlink_to(tmp_path / "1")
    with pytest.raises(CheckpointError, match=f"{TOKENS} is not in this folder"):
        LegoNN.from_pretrained(snapshot)


# -- what goes away ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "weights.safetensors", CARD, "sub/notes.txt"])
def test_links_are_not_published(tmp_path: Path, name: str) -> None:
    """What a link leads to may be any file of this machine."""
    pack = make_pack(tmp_path / "asr", size=10)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "notes.txt").write_text("mine", encoding="utf-8")
    if name == "sub/notes.txt":
        (pack / "sub").symlink_to(tmp_path / "elsewhere")
        edit(pack / CARD, lambda card: card["files"].update({name: _entry(tmp_path / "elsewhere" / "notes.txt")}))
        edit(pack / CARD, _redigest)
    else:
        target = tmp_path / "elsewhere" / "there"
        (pack / name).rename(target) if (pack / name).exists() else target.write_text("mine")
        (pack / name).symlink_to(target)
    from espnet2_legonn.packs import hub

    with pytest.raises(CheckpointError, match=f"{name}: is a link; put a copy of the file in its place"):
        Inventory.open(tmp_path / "inv", new=True).publish(pack)
    assert not (tmp_path / "inv").exists()
    if name != "README.md":  # the Hub's is made anew
        with pytest.raises(CheckpointError, match=f"{name}: is a link"):
            hub.push(pack, "org/asr", dry_run=True)


def test_a_copy_makes_no_file_of_a_link(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It could be published then."""
    (tmp_path / "secret").write_text("hush", encoding="utf-8")
    (pack / "README.md").symlink_to(tmp_path / "secret")
    for card in (True, False):
        assert main(["pull", str(pack), "-o", str(tmp_path / "copy")]) == 2
        assert "README.md: is a link" in capsys.readouterr().err and not (tmp_path / "copy").exists()
        (pack / CARD).unlink(missing_ok=not card)


def _entry(path: Path) -> dict[str, Any]:
    from espnet2_legonn.files.archive import sha256_of

    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def _redigest(card: Any) -> None:
    from tests.zoo.hostile import digest

    card["content_sha256"] = digest(card["files"])


# -- what is said ------------------------------------------------------------------------------------------------------

SPEAKING = ["\x1b[2J", "\x9b31m", "a\rb", "\x07", "\u202eabc", "\u2067x", "a\x7f", "two\nlines"]


@pytest.mark.parametrize("token", SPEAKING)
def test_tokens_do_not_speak_to_the_terminal(token: str) -> None:
    with pytest.raises(DataError) as error:
        Vocabulary(("<blank>", "<unk>", "a", token, "<sos/eos>"), "word")
    assert "control characters or overrides of direction in 1 tokens" in faults(error)
    assert harmless(faults(error)) == faults(error)


def test_tokens_of_all_scripts_are_read() -> None:
    tokens = ("\u0646\u200c\u0647", "\u0bb5", "\U0001f600\u200d\U0001f4bb", "\u3000", "\u2028", "\u200f", "\t")
    assert len(Vocabulary(("<blank>", "<unk>", *tokens, "<sos/eos>"), "word")) == len(tokens) + 3


def test_every_error_is_harmless() -> None:
    """Many quote names that a stranger wrote: of tensors, keys, files."""
    assert LegoNNError("a\x1b[2Jb\tc\nd\u202e").faults == ["a\ufffd[2Jb\tc\nd\ufffd"]
    chain = build(pair())
    with pytest.raises(CheckpointError) as error:
        from espnet2_legonn.packs import store

        store.fill(chain, {**chain.state_dict(), "mods.\x1b]0;x\x07": torch.zeros(1)}, "x")
    assert "\x1b" not in str(error.value) and "unexpected" in str(error.value)


def test_answers_and_file_names_are_harmless(
    pack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces may be joined to anything."""
    monkeypatch.setattr(Vocabulary, "decode", lambda self, ids: "a\x1b[2Jb\x9b")
    for format in ("text", "json"):
        assert main(["translate", "k l", "--model", str(pack), "--format", format]) == 0
        told = "".join(capsys.readouterr())
        assert "a\ufffd[2Jb\ufffd" in told and harmless(told) == told
    assert main(["transcribe", "\x1b[2J.wav", "--model", str(pack)]) in (1, 2)
    assert "\x1b" not in "".join(capsys.readouterr())


def test_pieces_of_a_strangers_model_are_harmless(tmp_path: Path) -> None:
    from espnet2_legonn.model.inputs import encode_text

    rules = tmp_path / "rules.tsv"
    rules.write_text("61\t1B\n", encoding="utf-8")  # a -> ESC
    model = trained(tmp_path, "identity", normalization_rule_tsv=str(rules))
    vocab = over(model)
    with pytest.warns(UserWarning, match="read as <unk>") as said:
        encode_text("abc", vocab, "text 1")
    assert harmless(str(said[0].message)) == str(said[0].message) and "\ufffd" in str(said[0].message)


def test_json_of_an_index_is_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON itself lets some control characters pass."""
    place = tmp_path / "inv"
    Inventory.open(place, new=True).publish(make_pack(tmp_path / "asr", size=10))
    index = place / "inventory.json"
    index.write_text(index.read_text(encoding="utf-8").replace("A toy.", "\x9b2J\u202e"), encoding="utf-8")
    for command in (["info", "asr"], ["list"]):
        assert main([*command, "--inventory", str(place), "--json"]) == 0
        told = capsys.readouterr().out
        assert harmless(told) == told and "\ufffd2J\ufffd" in told


# -- names without end -------------------------------------------------------------------------------------------------


def quick(what: Any, seconds: float = 5) -> None:
    started = time.process_time()
    what()
    assert time.process_time() - started < seconds


def test_mistyped_names_cost_nothing() -> None:
    known = [f"{'a' * 190}{i:06d}" for i in range(100_000)]
    quick(lambda: nearest("a" * 196, known), 10)
    assert nearest("encodr", ["encoder", "decoder"]) == " (did you mean 'encoder'?)"


def test_more_modules_than_anybody_has(pack: Path) -> None:
    data = pair()
    many = {**data, "modules": [{**data["modules"][0], "name": f"m{i}"} for i in range(MAX_PARTS + 1)]}
    with pytest.raises(ConfigError, match="2 vocabs and 101 modules; at most 100 of each are read"):
        parse(many)
    vocabs = {f"v{i}": data["vocabs"]["src"] for i in range(MAX_PARTS + 1)}
    with pytest.raises(ConfigError, match="101 vocabs and 2 modules; at most 100"):
        parse({**data, "vocabs": vocabs})
    edit(pack / CARD, lambda card: card.update(modules=card["modules"] * 51))
    with pytest.raises(ConfigError, match="modules: 102, at most 100 are read"):
        read_card(pack)


def test_more_files_than_anybody_has(pack: Path) -> None:
    def lie(card: Any) -> None:
        card["files"] |= {f"f{i}": card["files"][CONFIG] for i in range(1001)}

    edit(pack / CARD, lie)
    with pytest.raises(ConfigError, match="files: 1006, at most 1000 are read"):
        read_card(pack)


def test_an_index_of_many_names(tmp_path: Path) -> None:
    import json

    place = tmp_path / "inv"
    Inventory.open(place, new=True).publish(make_pack(tmp_path / "asr", size=10))
    content = json.loads((place / "inventory.json").read_text(encoding="utf-8"))
    entry = content["packs"][0] | {"about": {}}
    content["packs"] = [entry | {"name": f"p{i}"} for i in range(8000)]
    (place / "inventory.json").write_text(json.dumps(content), encoding="utf-8")
    quick(lambda: Inventory.open(place).find(reads="speech"), 20)
    content["packs"] = [entry | {"modules": entry["modules"] * 51}]
    (place / "inventory.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match="modules: 102, at most 100 are read"):
        Inventory.open(place)


# -- sentencepiece models ----------------------------------------------------------------------------------------------


def trained(folder: Path, rule: str, **options: Any) -> bytes:
    import sentencepiece

    text = folder / "text"
    text.write_text("".join(f"hello world {i} abc\n" for i in range(100)), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "m"), vocab_size=40, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name=rule, **options,
    )  # fmt: skip
    return (folder / "m.model").read_bytes()


def over(model: bytes) -> Vocabulary:
    """A vocabulary of the model's own pieces, those left out that no vocabulary may have."""
    from espnet2_legonn.data.pieces import read_model

    found = read_model(model)
    assert found is not None
    return Vocabulary(("<blank>", "<unk>", *(p for p in found.pieces if harmless(p) == p), "<sos/eos>"), bpemodel=model)


def changed(model: bytes, charsmap: bytes) -> bytes:
    """The model with another table of its normaliser."""
    out = bytearray()
    for field, kind, value in spm.fields(model):
        if field == 3:
            value = b"\x12" + spm._varint(len(charsmap)) + charsmap
        spm._put(out, field, kind, value)
    return bytes(out)


def charsmap_of(model: bytes) -> bytes:
    spec = next(value for field, _, value in spm.fields(model) if field == 3)
    return next(value for field, _, value in spm.fields(spec) if field == 2)


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"])
def test_honest_models_split_as_ever(tmp_path: Path, rule: str) -> None:
    import sentencepiece

    model = trained(tmp_path, rule)
    text = "\uff28\uff45llo WORLD \u2460 \ufdfa e\u0301 ab\u200bc\u00a0d"
    plain = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert spm.load(model).encode(text, out_type=str) == plain.encode(text, out_type=str)
    assert over(model).split(text)


def test_a_normaliser_of_ones_own_is_kept(tmp_path: Path) -> None:
    rules = tmp_path / "rules.tsv"
    rules.write_text("61\t78 78\n62 63\t79\n", encoding="utf-8")  # a -> xx, bc -> y
    model = trained(tmp_path, "identity", normalization_rule_tsv=str(rules))
    assert "".join(spm.load(model).encode("abc", out_type=str)) == "\u2581xxy"


def unit(value: int, count: int) -> bytes:
    return struct.pack("<I", value) * count


def table(trie: bytes, texts: bytes) -> bytes:
    return struct.pack("<I", len(trie)) + trie + texts


CHARSMAPS = {
    "outside": table(unit(0x7FFFFE00 | 0x100, 64), b"a\0"),
    "one unit": table(unit(0x7FFFFE00 | 0x100, 1), b"a\0"),
    "ones": table(unit(0xFFFFFFFF, 256), b"\xff" * 8),
    "no end": table(unit(0, 256), b"abc"),
    "no texts": table(unit(0, 256), b""),
    "half a unit": table(b"abc", b"a\0"),
    "no trie": table(b"", b"a\0"),
    "size that lies": struct.pack("<I", 1 << 31) + b"a\0",
    "too short": b"ab",
    "not whole blocks": table(unit(0, 100), b"a\0"),
    "huge": table(unit(0, 256), b"a\0" * (3 << 20)),
}


@pytest.mark.parametrize("kind", CHARSMAPS)
def test_normalisers_that_read_outside(tmp_path: Path, kind: str) -> None:
    """sentencepiece itself loads most of them, and the process ends when text is split."""
    model = changed(trained(tmp_path, "nfkc"), CHARSMAPS[kind])
    vocab = over(model)
    with pytest.raises(DataError, match=r"damaged sentencepiece model \(.*\); get it again"):
        vocab.encode("hello")


def test_a_normaliser_that_explodes(tmp_path: Path) -> None:
    """Each letter would become a long text."""
    model = trained(tmp_path, "nfkc")
    blob = charsmap_of(model)
    size = struct.unpack("<I", blob[:4])[0]
    texts = bytes(ord("x") if c == 0 else c for c in blob[4 + size : -1]) + b"\0"
    with pytest.raises(DataError, match="makes texts explode"):
        spm.load(changed(model, blob[: 4 + size] + texts))


def test_one_wrong_offset_anywhere(tmp_path: Path) -> None:
    """Each is found or harmless: no text of all bytes ends the process."""
    model = trained(tmp_path, "nfkc")
    blob = bytearray(charsmap_of(model))
    found = 0
    for at in range(4, 4 + 4 * 200, 4):
        one = bytearray(blob)
        one[at : at + 4] = struct.pack("<I", 0x7FFFFE00 | one[at])
        try:
            spm.check_charsmap(bytes(one))
        except ValueError:
            found += 1
    assert found > 5


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        (b"", "a piece of 0 bytes"),
        (b"\x0a\x00", "a piece of 0 bytes"),
        (b"\x0a\x03a\0b", "a piece of 3 bytes"),
        (b"\x0a\xff\xff\x01" + b"x" * 0x7FFF, "a piece of 32767 bytes"),
        (b"\x0a\x02zz\x15" + struct.pack("<f", float("nan")), "scores that are no numbers"),
        (b"\x0a\x02zz\x15" + struct.pack("<f", float("-inf")), "scores that are no numbers"),
        (b"\x0a\x7fzz", "ends too early"),
    ],
)
def test_pieces_that_end_the_process(tmp_path: Path, piece: bytes, reason: str) -> None:
    out = bytearray(trained(tmp_path, "identity"))
    spm._put(out, 1, 2, piece)
    with pytest.raises(DataError, match=reason):
        spm.load(bytes(out))


def test_only_what_splitting_needs_is_loaded(tmp_path: Path) -> None:
    """Texts to test itself with, and tables to undo the normalisation, are left out."""
    out = bytearray(trained(tmp_path, "identity"))
    spm._put(out, 4, 2, b"\x0a\x04\x0a\x01a\x12")
    spm._put(out, 5, 2, b"\x12\x02ab")
    assert spm.load(bytes(out)).encode("hello", out_type=str)
    assert {field for field, _, _ in spm.fields(spm.rebuilt(bytes(out)))} == {1, 2, 3}
