"""Speech2Text and Text2Text: ESPnet's names, calls and return values over a chain."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import espnet2_legonn
from espnet2_legonn import ConfigError, DataError, LegoNN
from espnet2_legonn.bin.legonn_inference import Speech2Text, Text2Text
from espnet2_legonn.foreign import load
from espnet2_legonn.inference.espnet import IGNORED, REFUSED, TRANSLATED, Hypothesis
from espnet2_legonn.model.inputs import encode_text
from espnet2_legonn.packs.files import zip_pack
from espnet2_legonn.search.options import BeamOptions
from tests.zoo.sounds import FS, speech_pair, tone, write
from tests.zoo.toys import build, change, pair

# Untrained decoders like to end at once; so short a text would prove nothing.
LONG = {"minlenratio": 0.5, "beam_size": 4}
ROOT = Path(espnet2_legonn.__file__).parents[1]


@pytest.fixture
def asr() -> LegoNN:
    return build(speech_pair(), 2)


@pytest.fixture
def mt() -> LegoNN:
    return build(pair())


@pytest.fixture
def asr_pack(asr: LegoNN, tmp_path: Path) -> Path:
    return asr.save(tmp_path / "asr")


@pytest.fixture
def mt_pack(mt: LegoNN, tmp_path: Path) -> Path:
    return mt.save(tmp_path / "mt")


# -- scripts written for ESPnet ----------------------------------------------------------------------------------------

# As users write them, after ESPnet's README, its notebooks and the model pages of its hub.
HUB = """
import soundfile
from espnet2.bin.asr_inference import Speech2Text

speech2text = Speech2Text.from_pretrained({pack!r})
speech, rate = soundfile.read({wav!r})
text, *_ = speech2text(speech)[0]
print(text)
"""
DOWNLOADER = """
import soundfile
import torch
from espnet_model_zoo.downloader import ModelDownloader
from espnet2.bin.asr_inference import Speech2Text

d = ModelDownloader()
speech2text = Speech2Text(
    **d.download_and_unpack({pack!r}),
    device="cpu",
    minlenratio=0.0,
    maxlenratio=0.0,
    ctc_weight=0.3,
    beam_size=10,
    batch_size=0,
    nbest=1,
)
audio, rate = soundfile.read({wav!r}, dtype="int16")
with torch.no_grad():
    nbests = speech2text(audio)
text, *_ = nbests[0]
print(text.upper())
"""
EXPERIMENT = """
import soundfile
from espnet2.bin.asr_inference import Speech2Text

speech2text = Speech2Text(
    asr_train_config={pack!r} + "/config.yaml",
    asr_model_file={pack!r} + "/weights.safetensors",
    lm_train_config=None,
    lm_file=None,
    token_type=None,
    bpemodel=None,
    maxlenratio=0.0,
    minlenratio=0.5,
    beam_size=5,
    ctc_weight=0.0,
    lm_weight=0.0,
    penalty=0.0,
    nbest=3,
    normalize_length=True,
    streaming=False,
)
speech, rate = soundfile.read({wav!r})
for n, (text, token, token_int, hyp) in enumerate(speech2text(speech), 1):
    assert token_int == hyp.yseq[1:-1].tolist()
    assert isinstance(text, str) and all(isinstance(t, str) for t in token)
    print(n, text, " ".join(token), round(hyp.score.item(), 4), f"{{float(hyp.scores['decoder']):.2f}}")
print(sum(p.numel() for p in speech2text.asr_model.parameters()) > 0)
"""
TRANSLATION = """
import numpy as np
from espnet2.bin.mt_inference import Text2Text

text2text = Text2Text(mt_train_config={pack!r} + "/config.yaml", device="cpu", ctc_weight=0.0, beam_size=10)
ids = np.array([2, 3, 4])
text, token, token_int, hyp = text2text(ids)[0]
print(text)
print(text2text(src_text=ids)[0][0])
"""


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (HUB, lambda asr, wav: [asr(wav, beam_size=20)]),
        (DOWNLOADER, lambda asr, wav: [asr(wav, beam_size=10, ctc_weight=0.3).upper()]),
        (
            EXPERIMENT,
            lambda asr, wav: [
                *(
                    f"{n} {asr.text(h.ids)} {asr.text(h.ids)} {h.score:.4f}".rstrip("0") + f" {h.log_prob:.2f}"
                    for n, h in enumerate(asr.generate(wav, beam_size=5, nbest=3, minlenratio=0.5, ctc_weight=0)[0], 1)
                ),
                "True",
            ],
        ),
    ],
    ids=["hub", "downloader", "experiment"],
)
def test_a_recognition_script_needs_another_import_line_only(
    script: str,
    printed: Callable[..., list[str]],
    asr: LegoNN,
    asr_pack: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wav = write(tmp_path / "speech.wav", tone())
    run(script, capsys, monkeypatch, pack=str(asr_pack), wav=str(wav))
    lines = capsys.readouterr().out.splitlines()
    assert lines == printed(asr, wav) and lines[0].strip()


def test_a_translation_script_needs_another_import_line_only(
    mt: LegoNN, mt_pack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(TRANSLATION, capsys, monkeypatch, pack=str(mt_pack))
    assert capsys.readouterr().out.splitlines() == [mt("k l m", beam_size=10, ctc_weight=0)] * 2


def run(script: str, capsys: Any, monkeypatch: pytest.MonkeyPatch, **places: str) -> None:
    """The script as it is but for its import of ESPnet's class."""

    class ModelDownloader:
        """Unpacking is ESPnet's affair; what it hands on are these names."""

        def download_and_unpack(self, tag: str) -> dict[str, str]:
            return {"asr_train_config": f"{tag}/config.yaml", "asr_model_file": f"{tag}/weights.safetensors"}

    module = types.ModuleType("espnet_model_zoo.downloader")
    module.ModelDownloader = ModelDownloader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "espnet_model_zoo", types.ModuleType("espnet_model_zoo"))
    monkeypatch.setitem(sys.modules, "espnet_model_zoo.downloader", module)
    code = script.format(**places)
    for home in ("asr", "mt"):
        code = code.replace(
            f"from espnet2.bin.{home}_inference import", "from espnet2_legonn.bin.legonn_inference import"
        )
    assert "espnet2." not in code
    exec(compile(code, "script", "exec"), {})


@pytest.mark.slow
def test_names_and_fields_are_those_of_espnet() -> None:
    """The installed ESPnet is asked, so that a new release of it shows here."""
    asr, mt, beam = map(load, ("espnet2.bin.asr_inference", "espnet2.bin.mt_inference", "espnet.nets.beam_search"))
    search = {field.name for field in dataclasses.fields(BeamOptions)}
    assert Hypothesis._fields == beam.Hypothesis._fields
    for ours, theirs in ((Speech2Text, asr.Speech2Text), (Text2Text, mt.Text2Text)):
        names = set(inspect.signature(theirs.__init__).parameters) - {"self"}
        own = set(inspect.signature(ours).parameters) | search | set(IGNORED) | set(REFUSED) | set(TRANSLATED)
        configs = {f"{task}_{name}" for task in ours.tasks for name in ("train_config", "model_file")}
        assert names <= own | configs, names - own - configs
        call = list(inspect.signature(theirs.__call__).parameters)
        assert list(inspect.signature(ours.__call__).parameters) == call
    hypothesis = Hypothesis(torch.tensor([6, 2, 6]), torch.tensor(-0.5), {"decoder": torch.tensor(-1.0)}, {}, [])
    theirs = beam.Hypothesis(*hypothesis)
    assert json.loads(json.dumps(hypothesis.asdict())) == json.loads(json.dumps(theirs.asdict()))


def test_espnet_is_not_imported() -> None:
    code = (
        "import sys; from espnet2_legonn.bin.legonn_inference import Speech2Text, Text2Text\n"
        "import espnet2_legonn; assert espnet2_legonn.Speech2Text is Speech2Text\n"
        "print([m for m in ('espnet', 'espnet2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'Speech3Text'"):
        espnet2_legonn.bin.legonn_inference.Speech3Text  # noqa: B018


# -- what goes in and what comes out -----------------------------------------------------------------------------------


def test_one_waveform_in_any_shape(asr: LegoNN, tmp_path: Path) -> None:
    model = Speech2Text(asr, **LONG)
    assert model.fs == FS and model.asr_model is asr
    (result,) = model(tone())
    text, tokens, ids, hypothesis = result
    best = asr.generate(tone(), **LONG)[0][0]
    assert (text, ids) == (asr.text(best.ids), best.ids) and text
    assert tokens == text.split() == [asr.vocabs["tgt"].tokens[i] for i in ids]
    assert hypothesis.yseq.tolist() == [6, *ids, 6]
    assert float(hypothesis.score) == pytest.approx(best.score)
    parts = {name: float(value) for name, value in hypothesis.scores.items()}
    assert parts == pytest.approx(best.parts) and set(parts) == {"decoder", "ctc"}
    assert 0.6 * parts["decoder"] + 0.4 * parts["ctc"] == pytest.approx(best.log_prob, abs=1e-4)
    wav = write(tmp_path / "a.flac", tone())
    for same in (torch.from_numpy(tone()), tone().astype(np.float64), (tone() * 32768).astype(np.int16), wav, str(wav)):
        assert [r[:3] for r in model(same)] == [result[:3]]
    assert [r[0] for r in model(speech=tone())] == [text]


@pytest.mark.usefixtures("float64")
def test_a_list_gives_a_list_in_its_order(asr: LegoNN, mt: LegoNN) -> None:
    waves = [tone(0.2 + 0.1 * i, i) for i in range(5)]
    model = Speech2Text(asr, batch_size=2, nbest=2, **LONG)
    assert [[r[:3] for r in item] for item in model(waves)] == [[r[:3] for r in model(w)] for w in waves]
    assert all(len(item) == 2 for item in model(waves)) and len({m[0][0] for m in model(waves)}) > 1
    assert model([waves[0]])[0][0][:3] == model(waves[0])[0][:3] and model([]) == []
    text2text = Text2Text(mt, **LONG)
    assert [item[0][0] for item in text2text(["k l", [2, 3, 4], "n"])] == mt(["k l", "k l m", "n"], **LONG)


def test_text_or_ids(mt: LegoNN) -> None:
    model = Text2Text(mt, **LONG)
    assert model.mt_model is mt
    text = mt("k l m", **LONG)
    for same in ("k l m", [2, 3, 4], np.array([2, 3, 4]), torch.tensor([2, 3, 4])):
        assert model(same)[0][0] == text


def test_raw_text_is_normalised_as_the_vocabulary_says() -> None:
    data = change(pair(), "vocabs.src.normalization", "lc.rm")
    chain = build(data)
    model = Text2Text(chain, **LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing unknown is left
        assert model("K,  L: m!")[0][0] == chain("k l m", **LONG)
    phonemes = build(change(change(data, "vocabs.src.unit", "phn"), "vocabs.src.tokens.2", "AA1"))
    vocab = phonemes.first.ports[0].vocab
    assert encode_text("AA1  l", vocab, "") == [2, 3], "phonemes are no raw text"


def test_an_encoder_alone_searches_over_prefixes(asr: LegoNN) -> None:
    found = Speech2Text(asr[:1], nbest=3, beam_size=6)(tone())
    wanted = asr[:1].generate(tone(), nbest=3, beam_size=6)[0]
    assert [(r[2], float(r[3].scores["ctc"])) for r in found] == [(h.ids, pytest.approx(h.log_prob)) for h in wanted]
    assert len(found) == 3 and wanted[0].score == wanted[0].log_prob, "CTC needs no length penalty"


def test_an_encoder_alone_without_a_search_gives_its_greedy_text(asr: LegoNN, mt: LegoNN) -> None:
    off = {"ctc_weight": 0.0}
    for model, x in ((Speech2Text(asr[:1], nbest=3, **off), tone()), (Text2Text(mt[:1], **off), "k l m")):
        ((text, tokens, ids, hypothesis),) = model(x)
        marginals = model.chain.marginals(x)
        assert text == marginals.greedy_text() and ids == marginals.greedy_ids()[0] and tokens == text.split()
        best_path = float(marginals.log_probs.max(-1).values.sum())
        assert float(hypothesis.score) == pytest.approx(best_path) == float(hypothesis.scores["ctc"])
        assert hypothesis.yseq[1:-1].tolist() == ids


@pytest.mark.usefixtures("float64")
def test_interfaces_and_marginals_on_request(asr: LegoNN, mt: LegoNN) -> None:
    model, waves = Speech2Text(asr, batch_size=2), [tone(0.2), tone(0.4, 1), tone(0.3, 2)]
    alone = [{"recognizer": asr.marginals(w).greedy_text()} for w in waves]
    assert model.interfaces(waves) == alone and model.interfaces(waves[1]) == alone[1]
    torch.testing.assert_close(model.marginals(waves[0]).log_probs, asr.marginals(waves[0]).log_probs)
    assert len(model.marginals(waves, "recognizer")) == 3
    assert Text2Text(mt).marginals([2, 3]).log_probs.shape[:2] == (1, 6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_less_precision_keeps_distributions_in_float32(asr: LegoNN, dtype: str) -> None:
    model = Speech2Text(asr, dtype=dtype, **LONG)
    found, exact = model.marginals(tone()).log_probs, asr.marginals(tone()).log_probs
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.1, rtol=0.1)
    assert isinstance(model(tone())[0][0], str)


def test_length_penalty_in_both_spellings(mt: LegoNN) -> None:
    def score(**options: Any) -> float:
        return float(Text2Text(mt, **LONG, **options)("k l m")[0][3].score)

    best = {p: mt.generate("k l m", length_penalty=p, **LONG)[0][0].score for p in (0.0, 0.6, 1.0)}
    assert score() == score(normalize_length=True) == score(length_penalty=1.0) == pytest.approx(best[1.0])
    assert score(normalize_length=False) == pytest.approx(best[0.0])
    assert score(length_penalty=0.6) == pytest.approx(best[0.6])


def test_it_reads_in_evaluation_mode(mt: LegoNN) -> None:
    text = mt("k l m", **LONG)
    assert {Text2Text(mt.train(), **LONG)("k l m")[0][0] for _ in range(3)} == {text}


# -- where chains come from --------------------------------------------------------------------------------------------


def test_a_folder_a_zip_a_config_or_a_chain(asr: LegoNN, asr_pack: Path, tmp_path: Path) -> None:
    text = asr(tone(), **LONG)
    archive = zip_pack(asr_pack, tmp_path / "asr.zip")
    for place in (asr_pack, str(asr_pack), archive, asr_pack / "config.yaml", asr):
        assert Speech2Text(place, **LONG)(tone())[0][0] == text
        assert Speech2Text.from_pretrained(place, **LONG)(tone())[0][0] == text
    config = str(asr_pack / "config.yaml")
    for task in ("legonn", "asr", "st"):
        assert Speech2Text.from_pretrained(**{f"{task}_train_config": config}, **LONG)(tone())[0][0] == text


def test_the_model_file_is_the_one_named(mt: LegoNN, mt_pack: Path, tmp_path: Path) -> None:
    other = build(pair(), 7)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    model = Text2Text(mt_train_config=mt_pack / "config.yaml", mt_model_file=tmp_path / "other.pth", **LONG)
    assert model("k l m")[0][0] == other("k l m", **LONG) != mt("k l m", **LONG)


# -- what makes no sense -----------------------------------------------------------------------------------------------


def test_all_faults_of_the_options_at_once(asr: LegoNN) -> None:
    with pytest.raises(ConfigError) as error:
        Speech2Text(
            asr, "weights.pth", asr_train_config="x", quantize_lm=True, streaming=True, beamsize=3, dtype="float64",
            device="gpu", nbest=30, length_penalty=0.6, normalize_length=False, ctc_weight=0.3,
        )  # fmt: skip
    assert error.value.faults == [
        "legonn_train_config and asr_train_config name the same thing: give one of them",
        "Speech2Text: 'beamsize' is no option (did you mean 'beam_size'?)",
        "quantize_lm: a LegoNN chain has no such mode; leave it out",
        "streaming: a LegoNN chain has no such mode; leave it out",
        "length_penalty and normalize_length say the same thing: give one of them",
        "a chain in memory has its weights: leave out the model file, or use chain.load(...)",
        "device: 'gpu' is not known; use cpu, cuda or cuda:N",
        "nbest: 30 is not between 1 and beam_size (20)",
        "dtype: 'float64' is not one of float32, bfloat16, float16, int8",
    ]


def test_no_chain_and_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError) as error:
        Text2Text(device="cuda:1")
    assert error.value.faults == [
        "no chain: give legonn_train_config, or use from_pretrained",
        "device: no CUDA on this machine; use cpu",
    ]


def test_what_tunes_another_search_is_left_out_with_a_warning(mt: LegoNN) -> None:
    with pytest.warns(UserWarning) as caught:
        model = Text2Text(mt, ngram_scorer="part", quantize_dtype="qint8", token_type="bpe", **LONG)
    (message,) = [str(w.message) for w in caught]
    assert message.startswith("Text2Text: left out: ngram_scorer (")
    assert all(f"; {word} (" in message for word in ("quantize_dtype", "token_type"))
    assert "the n-gram model scores every candidate" in message
    assert model("k l")[0][0] == mt("k l", **LONG)


@pytest.mark.parametrize("options", [{"ctc_weight": 0.0}, {"ctc_weight": 0.7}, {"temperature": 3.0}, {}])
def test_options_of_the_search_are_honoured_in_silence(mt: LegoNN, options: dict[str, float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((_, _, ids, hypothesis),) = Text2Text(mt, **LONG, **options)("k l m")
    wanted = mt.generate("k l m", **LONG, **options)[0][0]
    assert (ids, float(hypothesis.score)) == (wanted.ids, pytest.approx(wanted.score))
    assert len({mt.generate("k l m", **LONG, **o)[0][0].score for o in (options, {"ctc_weight": 1.0})}) == 2


def test_beam_conv_behind_speech_without_ctc_says_so_once() -> None:
    chain = build(speech_pair(type="beam_conv", k=3, embed_size=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Speech2Text(chain, **LONG)([tone(), tone()])
        build(pair(type="beam_conv", k=3, embed_size=4))("k l", ctc_weight=0)
        build(speech_pair())(tone(), ctc_weight=0)
    with pytest.warns(UserWarning, match=r"BeamConv decoder behind speech can lose much without CTC") as caught:
        Speech2Text(chain, ctc_weight=0.0, batch_size=1, **LONG)([tone(), tone()])
    assert len(caught) == 1


@pytest.mark.parametrize("name", sorted({*IGNORED, *REFUSED}))
def test_what_is_switched_off_says_nothing(mt: LegoNN, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for off in (None, 0.0, False, ""):
            Text2Text(mt, **{name: off})


def test_the_other_class_is_named(asr: LegoNN, mt: LegoNN) -> None:
    with pytest.raises(
        DataError, match="encoder reads tokens, not speech; take Text2Text .legonn translate. for texts"
    ):
        Speech2Text(mt)
    with pytest.raises(DataError, match="recognizer reads speech, not tokens; take Speech2Text"):
        Text2Text(asr)
    with pytest.raises(DataError, match="decoder reads marginals, not tokens"):
        Text2Text(mt[1:])


def test_a_chain_that_ends_in_states_has_no_text() -> None:
    data = change(pair(), "modules.0.output", {"type": "states"})
    data["modules"][1]["input"] = {"type": "states"}
    with pytest.raises(DataError, match="encoder writes hidden states, no text; add the module that reads them"):
        Text2Text(build(data)[:1])
    assert Text2Text(build(data), **LONG)("k l")[0][0]


def test_bad_inputs_are_named_together(asr: LegoNN, mt: LegoNN) -> None:
    with pytest.raises(DataError, match=r"input 0: shape \(4800, 2\), one channel is needed"):
        Speech2Text(asr)(np.stack([tone(), tone()], 1))  # a stereo array is no batch of 4800
    with pytest.raises(DataError) as error:
        Speech2Text(asr)([tone(), np.zeros(0), "gone.wav", tone() * np.nan])
    assert [f.split(":")[0] for f in error.value.faults] == ["input 1", "gone.wav", "input 3"]
    assert "(no such file); give wav, flac, mp3 or ogg" in error.value.faults[1]
    with pytest.raises(DataError, match="id 99 is outside the vocabulary"):
        Text2Text(mt)(torch.tensor([2, 99]))
    with pytest.raises(DataError, match="is no list of ids"):
        Text2Text(mt)(torch.tensor([[2, 3], [4, 5]]))


# -- longer than in training -------------------------------------------------------------------------------------------


def seen(port: Any, slots: int) -> None:
    port.seen.update(torch.tensor([slots]), torch.tensor([slots]))


def test_longer_than_in_training_is_said_by_how_much(mt: LegoNN) -> None:
    """Two slots a step: two tokens and the end of the source are six slots, five tokens and the end are twelve."""
    seen(mt.mods["encoder"].interface, 6)
    seen(mt.mods["decoder"].input, 8)
    model = Text2Text(mt)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model("k l")
    with pytest.warns(UserWarning) as caught:
        model(["k l", "k l m k l"])
    (message,) = [str(w.message) for w in caught]
    assert message == (
        "input 1: 12 slots behind encoder, at most 6 were seen in training (2.0 times); the text is not to be trusted, "
        "split the input"
    )


def test_what_the_length_controller_cuts_counts_in_full(asr: LegoNN) -> None:
    """3.36 s are 84 steps of 40 ms, for 42 slots; it can make 40, and 21 were seen."""
    seen(asr.mods["decoder"].input, 21)
    with pytest.warns(UserWarning) as caught:
        Speech2Text(asr, beam_size=1, maxlenratio=-1)(tone(3.36))
    messages = [str(w.message) for w in caught]
    assert any("1 of 1 inputs reached the maximum of 40 slots" in m for m in messages)
    assert any("42 slots behind recognizer, at most 21 were seen in training (2.0 times)" in m for m in messages)


def test_a_collapsing_reader_in_the_middle(mt: LegoNN) -> None:
    """How many slots it makes is in the data, not in the length of the input."""
    data = pair()
    middle = change(data, "modules.0.input", {"type": "wemb", "vocab": "tgt", "num_blocks": 1, "collapse": True})
    data["modules"].insert(1, {**middle["modules"][0], "name": "middle"})
    chain = build(data)
    seen(chain.mods["middle"].interface, 1)
    slots = int(chain.marginals("k l m", "middle").lengths[0])
    with pytest.warns(
        UserWarning, match=rf"{slots} slots behind middle, at most 1 were seen in training .{slots}.0 times"
    ):
        Text2Text(chain, **LONG)("k l m")
