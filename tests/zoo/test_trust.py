"""A pack may come from anybody: nothing in it runs, nothing it says is believed, nothing it asks for is too much."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from espnet2_legonn import CheckpointError, ConfigError, DataError, LegoNN
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import LegoNNError
from espnet2_legonn.files.schema import MAX_VALUES, read_yaml
from espnet2_legonn.model.build import least_values
from espnet2_legonn.model.description import parse, parse_ratio
from espnet2_legonn.packs import store
from espnet2_legonn.packs.card import CARD, read_card
from espnet2_legonn.packs.card import parse as parse_card
from espnet2_legonn.packs.files import verify
from tests.zoo.hostile import ODD, Touch, digest, edit, places, put, reseal
from tests.zoo.toys import build, change, pair

WEIGHTS, CONFIG = "weights.safetensors", "config.yaml"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return build(pair()).save(tmp_path / "pack")


def faults(what: Callable[[], Any], kind: type[LegoNNError] = LegoNNError) -> str:
    with pytest.raises(kind) as error:
        what()
    return "\n".join(error.value.faults)


# -- nothing runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pickle", "torch", "legacy"])
@pytest.mark.parametrize("name", [WEIGHTS, "latest.pth"])
def test_a_pickle_in_place_of_weights(pack: Path, tmp_path: Path, name: str, how: str) -> None:
    """Even if the card lists it: it is not unpickled."""
    proof = tmp_path / "proof"
    if how == "pickle":
        (pack / name).write_bytes(pickle.dumps({"a": Touch(proof)}))
    else:
        torch.save({"a": Touch(proof)}, pack / name, _use_new_zipfile_serialization=how == "torch")
    reseal(pack)
    told = faults(lambda: LegoNN.from_pretrained(pack, None if name == WEIGHTS else name), CheckpointError)
    assert name in told and not proof.exists()


def test_other_weights_beside_the_card_are_not_used(pack: Path) -> None:
    """With the listed ones gone, an experiment's checkpoint does not take their place, whatever the card lists."""
    torch.save(build(pair(), 7).state_dict(), pack / "latest.pth")
    assert LegoNN.from_pretrained(pack)  # ignored
    (pack / WEIGHTS).unlink()
    assert f"{WEIGHTS} is missing; get the pack again" in faults(lambda: LegoNN.from_pretrained(pack))
    reseal(pack)
    assert f"files: {WEIGHTS} is not listed" in faults(lambda: LegoNN.from_pretrained(pack), ConfigError)


def test_a_card_that_leaves_files_out(pack: Path) -> None:
    listed = {p.name for p in pack.iterdir()} - {CARD}
    reseal(pack, listed - {CONFIG})
    assert f"files: {CONFIG} is not listed" in faults(lambda: read_card(pack))
    reseal(pack, listed - {"src.tokens.txt"})
    assert "src.tokens.txt is not among the pack's files" in faults(lambda: read_card(pack))


@pytest.mark.parametrize("tokens", ["other.txt", "../other.txt", "sub/../src.tokens.txt", "/etc/passwd"])
def test_a_config_that_reads_unlisted_files(pack: Path, tokens: str) -> None:
    shutil.copy(pack / "src.tokens.txt", pack / "other.txt")
    shutil.copy(pack / "src.tokens.txt", pack.parent / "other.txt")
    listed = {p.name for p in pack.iterdir()} - {CARD, "other.txt"}
    edit(pack / CONFIG, lambda data: data["vocabs"]["src"].update(tokens=tokens))
    reseal(pack, listed)
    told = faults(lambda: LegoNN.from_pretrained(pack), CheckpointError)
    assert f"{tokens} is not among the files of its card" in told


def test_a_card_that_is_not_a_file_is_still_a_card(pack: Path) -> None:
    """Hiding the card behind a dangling link must not turn its checks off."""
    (pack / CARD).unlink()
    (pack / CARD).symlink_to("nowhere")
    assert f"no {CARD}" in faults(lambda: LegoNN.from_pretrained(pack))


def test_an_experiment_without_a_card_loads(pack: Path) -> None:
    chain = LegoNN.from_pretrained(pack)
    (pack / CARD).unlink()
    (pack / WEIGHTS).unlink()
    torch.save({f"chain.{k}": v for k, v in chain.state_dict().items()}, pack / "latest.pth")
    again = LegoNN.from_pretrained(pack)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in chain.state_dict().items())


# -- YAML --------------------------------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))
HOSTILE_YAML = {
    "object": ("a: !!python/object/apply:os.getpid []", "tag tag:yaml.org,2002:python/object/apply:os.getpid is not"),
    "own tag": ("a: !boom x", "tag !boom is not plain data"),
    "binary": ("a: !!binary aGVsbG8=", "is not plain data"),
    "laughs": (LAUGHS, f"more than {MAX_VALUES} values, aliases counted"),
    "merged laughs": (MERGES, f"more than {MAX_VALUES} values, aliases counted"),
    "in itself": ("a: &a [1, *a]", r"\*a stands inside itself"),
    "unknown alias": ("a: *b", "not YAML: .*undefined alias"),
    "twice": ("a: 1\nb: 2\na: 3", "line 3: key 'a' stands there twice"),
    "flow deep": ("[" * 200_000, "nested more than 50 deep"),
    "flow mixed": ("[{" * 200_000, "nested more than 50 deep"),
    "block deep": ("- " * 200_000, "nested more than 50 deep"),
    "keys deep": ("? " * 200_000, "nested more than 50 deep"),
    "many": ("[" + "a," * 600_000 + "]", f"more than {MAX_VALUES} values"),
    "sixties": ("a: 1" + ":1" * 1_000_000, "a number of 2000001 characters"),
    "long int": ("a: " + "9" * 5000, "a number of 5000 characters"),
    "told int": ("a: !!int '1" + ":1" * 1_000_000 + "'", "a number of 2000001 characters"),
    "no int": ("a: !!int x", "a value is not what its form says"),
    "no bool": ("a: !!bool x", "a value is not what its form says"),
    "no int at all": ("a: !!int ''", "a value is not what its form says"),
    "no date": ("a: 2001-99-99", "a value is not what its form says"),
    "list as key": ("? [a]\n: b", "not YAML: .*unhashable key"),
    "not UTF-8": (b"a: \xff\xfe", "not UTF-8 at byte 3"),
    "NUL": (b"a: \0", "not YAML"),
    "two": ("a: 1\n---\nb: 2", "not YAML: .*single document"),
    "huge": (b"#" * (17 << 20), "more than 16777216 bytes"),
}


@pytest.mark.parametrize("kind", HOSTILE_YAML)
def test_hostile_yaml(tmp_path: Path, kind: str) -> None:
    """Refused with file and reason, at once: neither a crash nor hours nor gigabytes (most crash plain PyYAML)."""
    content, reason = HOSTILE_YAML[kind]
    path = tmp_path / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(ConfigError, match=f"x.yaml: .*{reason}") as error:
        read_yaml(path)
    assert time.process_time() - start < 5 and len(str(error.value)) < 1000


def test_honest_yaml(tmp_path: Path) -> None:
    """Anchors, merges, dates and a very large token list are read as ever."""
    path = tmp_path / "x.yaml"
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\nd: 2001-01-01\ne: 1e-3\nf: ''\ng: !!str 1\n"
    path.write_text(f"{text}h: !!str {'9' * 500}\n", encoding="utf-8")
    assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))
    tokens, digits, digest = [f"t{i}" for i in range(50_000)], "9" * 50, "1a" * 64
    path.write_text("".join(f"- {t}\n" for t in (*tokens, digits, f"'{digits * 3}'", digest)), encoding="utf-8")
    assert read_yaml(path) == [*tokens, int(digits), digits * 3, digest]


def test_cards_are_small(pack: Path) -> None:
    with (pack / CARD).open("a") as f:
        f.write("#" * (1 << 20))
    assert "card.yaml: more than 1048576 bytes" in faults(lambda: read_card(pack))


@pytest.mark.parametrize("name", [CARD, CONFIG])
def test_any_value_anywhere(pack: Path, name: str) -> None:
    """Every value of card and config replaced by every odd one: read, or refused in a few words."""
    text = (pack / name).read_text(encoding="utf-8")
    original, tried, refused = yaml.safe_load(text), 0, 0
    for place in places(original):
        for odd in ODD:
            data = copy.deepcopy(original)
            put(data, place, odd)
            tried += 1
            try:
                parse_card(data, "card") if name == CARD else parse(data)
            except LegoNNError as error:
                refused += 1
                assert error.faults and len(str(error)) < 20 * 2001, place
    assert tried > 800 and refused > 0.8 * tried


@pytest.mark.parametrize(
    "name",
    ["../up", "/abs", "a/../../b", "..\\up", "C:\\x", "C:x", "\\\\host\\x", "nul\0", "a\nb", "", ".", "x" * 300, CARD],
)
def test_files_of_a_card_that_point_out(pack: Path, name: str) -> None:
    def lie(card: Any) -> None:
        card["files"][name] = card["files"][CONFIG]
        card["content_sha256"] = digest(card["files"])

    edit(pack / CARD, lie)
    told = faults(lambda: read_card(pack), ConfigError)
    assert "is no file inside the pack with a SHA-256 of 64 digits" in told


def test_a_vocabulary_listed_outside(pack: Path) -> None:
    edit(pack / CARD, lambda card: card["vocabs"]["src"].update(tokens="../src.tokens.txt"))
    assert "vocabs.src: ../src.tokens.txt is not among the pack's files" in faults(lambda: read_card(pack))


def test_a_card_does_not_speak_to_the_terminal(pack: Path) -> None:
    for text in ("\x1b[2J", "\x9b31m", "a\rb", "\u202eabc"):
        edit(pack / CARD, lambda card, t=text: card["about"].update(description=t))
        assert "control characters in" in faults(lambda: read_card(pack))
    edit(pack / CARD, lambda card: card["about"].update(description="two\nlines, \u4e2d\u6587"))
    assert read_card(pack)


# -- weights and what is asked of them ---------------------------------------------------------------------------------

MOON = {
    "modules.0.body.size": 10**9,
    "modules.0.body.linear_units": 10**15,
    "modules.1.body.linear_units": 10**90,
    "modules.0.body.num_blocks": 999,
    "modules.0.length_control.max_length": 10**12,
    "modules.0.length_control.num_blocks": 999,
    "modules.1.input.num_blocks": 999,
    "modules.1.input.receptive_field": 10**11 + 1,
    "modules.1.input": {"type": "beam_conv", "vocab": "tgt", "k": 3, "embed_size": 10**10},
    "modules.0.input": {"type": "speech", "fs": 10**12, "n_mels": 80},
}


def limited(imports: str, code: str, megabytes: int) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter whose memory may grow by this much after its imports."""
    head = (
        f"import resource, {imports}\nfrom espnet2_legonn.errors import LegoNNError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + ({megabytes} << 20),) * 2)\n"
    )
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, timeout=300)


def test_descriptions_that_ask_for_the_moon(pack: Path, tmp_path: Path) -> None:
    """Refused before memory is taken: 300 MB are enough to say no to all of them."""
    for i, (place, value) in enumerate(MOON.items()):
        moon = shutil.copytree(pack, tmp_path / f"moon{i}")
        edit(moon / CONFIG, lambda data, p=place, v=value: change(data, p, v))
        reseal(moon)
    code = (
        f"for i in range({len(MOON)}):\n"
        f"    try:\n        espnet2_legonn.LegoNN.from_pretrained(f'{tmp_path}/moon{{i}}')\n        print('built')\n"
        "    except LegoNNError as error:\n        print(error.faults[0])\n"
    )
    done = limited("torchaudio.transforms, espnet2_legonn.inference.legonn", code, 300)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(MOON), done.stderr
    assert all("they do not belong together" in line for line in lines), lines


def test_far_too_many_blocks(pack: Path) -> None:
    edit(pack / CONFIG, lambda data: change(data, "modules.0.body.num_blocks", 10**9))
    told = faults(lambda: LegoNN.from_pretrained(reseal(pack)), ConfigError)
    assert "encoder.body.num_blocks: 1000000000 is not at least 0 and less than 1000" in told


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("modules.0.body.num_blocks", 0),
        ("modules.1.input.receptive_field", 3),
        ("modules.1.input", {"type": "beam_conv", "vocab": "tgt", "k": 3, "embed_size": 4, "num_blocks": 2}),
        ("modules.0.input", {"type": "speech", "n_mels": 9, "channels": [2, 3]}),
        ("modules.1.output.tie", False),
        ("modules.0.body.linear_units", 500),
    ],
)
def test_the_least_is_never_more_than_there_is(place: str, value: Any, tmp_path: Path) -> None:
    """The bound holds for every kind of module, and is near enough to the truth to bound memory."""
    data = change(pair(), place, value)
    chain = LegoNN.from_config(data)
    stored = sum(t.numel() for t in load_file(chain.save(tmp_path / "pack") / WEIGHTS).values())
    assert stored / 4 < least_values(parse(data), chain.vocabs) <= stored


@pytest.mark.parametrize("ratio", ["1e999999999", "1e-999999999", "1/1e999999999", "nan", "inf", "-1", "1/0", "1/2/3"])
def test_ratios_are_numbers_of_a_size(ratio: str) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        parse_ratio(ratio)


ODD_TENSORS = {
    "meta": torch.empty(8, device="meta"),
    "sparse": torch.zeros(8).to_sparse(),
    "complex": torch.zeros(8, dtype=torch.complex64),
    "many": torch.zeros(1).expand(10**6, 10**6),
    "nested": [torch.zeros(1)],
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_odd_tensors_in_a_checkpoint(pack: Path, kind: str) -> None:
    key = "mods.encoder.body.after_norm.bias"
    torch.save({**LegoNN.from_pretrained(pack).state_dict(), key: ODD_TENSORS[kind]}, pack / "x.pth")
    assert "x.pth" in faults(lambda: LegoNN.from_pretrained(pack, pack / "x.pth"), CheckpointError)


def test_a_checkpoint_that_is_a_bomb(pack: Path) -> None:
    """torch itself would unpack it."""
    torch.save({"a": torch.zeros(1 << 20)}, pack / "a.pth")
    with zipfile.ZipFile(pack / "a.pth") as z, zipfile.ZipFile(pack / "b.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in z.namelist():
            bomb.writestr(name, z.read(name))
    assert (pack / "b.pth").stat().st_size < 10_000 and torch.load(pack / "b.pth", weights_only=True)["a"].numel() > 1e6
    assert "b.pth: compressed inside" in faults(lambda: LegoNN.from_pretrained(pack, pack / "b.pth"), CheckpointError)


def test_tied_names_of_several_types(pack: Path) -> None:
    tensors = load_file(pack / WEIGHTS)
    shared = next(k for k in tensors if "decoder" in k and k.endswith("embed.weight"))
    save_file({**tensors, "mods.decoder.output.weight": tensors[shared].half()}, pack / WEIGHTS)
    assert "tied here but different there" in faults(lambda: LegoNN.from_pretrained(reseal(pack)), CheckpointError)


# -- vocabularies ------------------------------------------------------------------------------------------------------


def test_a_token_list_that_is_not_utf8(pack: Path) -> None:
    (pack / "src.tokens.txt").write_bytes(b"<blank>\n<unk>\n\xff\n<sos/eos>\n")
    told = faults(lambda: LegoNN.from_pretrained(reseal(pack)), DataError)
    assert "src.tokens.txt:3: not UTF-8 (byte 1); convert the file with iconv" in told


def test_a_token_list_without_end(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espnet2_legonn.data.vocabulary.MAX_VOCAB_BYTES", 10)
    told = faults(lambda: LegoNN.from_pretrained(pack), DataError)
    assert "src.tokens.txt: 32 bytes; a vocabulary has at most 10" in told


def test_repeated_tokens_are_found_in_no_time() -> None:
    start = time.process_time()
    told = faults(lambda: Vocabulary(("<blank>", "<unk>", *["a", "b"] * 100_000, "<sos/eos>"), "word"), DataError)
    assert "tokens that occur twice: a b" in told and time.process_time() - start < 2


@pytest.mark.parametrize("model", [b"", b"any bytes", bytes(range(256)) * 40])
def test_a_sentencepiece_model_of_garbage(model: bytes) -> None:
    vocab = Vocabulary(("<blank>", "<unk>", "a", "<sos/eos>"), "bpe", bpemodel=model)
    told = faults(lambda: vocab.encode("a"), DataError)
    assert ("damaged sentencepiece model" in told) == bool(model)


# -- every file is what the card says ----------------------------------------------------------------------------------


def test_every_difference_is_told_at_once(pack: Path) -> None:
    card = read_card(pack)
    (pack / "src.tokens.txt").unlink()
    content = bytearray((pack / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (pack / WEIGHTS).write_bytes(content)
    with (pack / CONFIG).open("a") as f:
        f.write("\n")
    told = faults(lambda: verify(pack), CheckpointError)
    expected = card.files[WEIGHTS].sha256
    assert f"{pack}: src.tokens.txt is missing; get the pack again" in told
    assert f"{WEIGHTS}: SHA-256 is " in told and f"the card says {expected}; get the pack again" in told
    assert f"{CONFIG}: {card.files[CONFIG].bytes + 1} bytes, the card says {card.files[CONFIG].bytes}" in told


def test_links_are_followed_but_not_believed(pack: Path, tmp_path: Path) -> None:
    """The Hub's cache is made of links; what they lead to is compared all the same."""
    shutil.move(pack / WEIGHTS, tmp_path / "blob")
    (pack / WEIGHTS).symlink_to(tmp_path / "blob")
    assert LegoNN.from_pretrained(pack)
    for target in ("/dev/zero", str(tmp_path), "nowhere", WEIGHTS):
        (pack / WEIGHTS).unlink()
        (pack / WEIGHTS).symlink_to(target)
        assert WEIGHTS in faults(lambda: LegoNN.from_pretrained(pack), CheckpointError)


def test_a_pipe_in_place_of_a_file(pack: Path) -> None:
    """Opening it would wait for ever."""
    (pack / WEIGHTS).unlink()
    os.mkfifo(pack / WEIGHTS)
    assert f"{WEIGHTS} is missing" in faults(lambda: LegoNN.from_pretrained(pack), CheckpointError)


@pytest.mark.parametrize("name", [WEIGHTS, "tgt.tokens.txt"])
def test_files_replaced_after_they_were_compared(pack: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(folder: Path, model_file: Any) -> Path:
        content, seen = (pack / name).read_bytes(), (pack / name).stat()
        (pack / name).write_bytes(content)
        os.utime(pack / name, ns=(seen.st_atime_ns, seen.st_mtime_ns))  # covers its traces
        return folder / WEIGHTS

    monkeypatch.setattr(store, "find_weights", replaced)
    told = faults(lambda: LegoNN.from_pretrained(pack), CheckpointError)
    assert told == f"{pack / name}: changed while it was read; try again"


def test_unreadable_files(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if permission were denied (tests may run as root, who may read everything)."""
    real = Path.open

    def denied(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name in (WEIGHTS, CONFIG):
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)
    told = faults(lambda: LegoNN.from_pretrained(pack), CheckpointError).splitlines()
    assert sorted(told) == [f"{pack / n}: cannot be read (Permission denied)" for n in (CONFIG, WEIGHTS)]


def test_the_worst_yaml_within_the_limits(tmp_path: Path) -> None:
    """As many values as may be, in 300 MB."""
    (tmp_path / "x.yaml").write_text("[" + "a," * (MAX_VALUES - 2) + "]", encoding="utf-8")
    code = f"print(len(espnet2_legonn.files.schema.read_yaml({str(tmp_path / 'x.yaml')!r})))"
    done = limited("espnet2_legonn.files.schema", code, 300)
    assert done.stdout.strip() == str(MAX_VALUES - 2), done.stderr[-500:]


@pytest.mark.parametrize("place", ["collapse", "slots_per_token", "kind", "name"])
def test_a_card_that_lies_about_its_modules(tmp_path: Path, place: str) -> None:
    """check reads the card alone: what it says must be what is loaded."""
    from tests.zoo.toys import build, pair

    folder = build(pair()).save(tmp_path / "pack")
    data = yaml.safe_load((folder / "card.yaml").read_text())
    decoder = data["modules"][1]
    changes = {"collapse": True, "slots_per_token": 2.0, "kind": "states"}
    if place == "name":
        decoder["name"] = "other"
    else:
        decoder["reads"][place] = changes[place]
    (folder / "card.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    with pytest.raises(CheckpointError, match="card.yaml: .*get the pack again"):
        LegoNN.from_pretrained(folder)
