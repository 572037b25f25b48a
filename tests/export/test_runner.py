"""Exported chains against PyTorch: graph by graph, and from inputs to texts and scores."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from espnet2_legonn.export import graphs
from espnet2_legonn.export.runner import Result, Runner
from espnet2_legonn.export.search import RunnerError, SearchOptions, Steps
from espnet2_legonn.export.write import write
from espnet2_legonn.model.interface import Interface, Marginals, SearchChoice
from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.model.parts import INPUTS
from espnet2_legonn.model.parts.frames import FramesInput
from espnet2_legonn.search import answers
from espnet2_legonn.search.options import BeamOptions
from tests.export.chains import KINDS, chain, inputs
from tests.modules import toys
from tests.zoo import sounds
from tests.zoo.sounds import tone

Exported = Callable[..., Path]
# The others export what these do, in other places.
FAST = ("wemb", "beam_conv", "collapse", "encoder", "states", "speech", "marginals")
ALL = [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in KINDS]
WRITES_TEXT = [parameter for parameter, kind in zip(ALL, KINDS) if kind not in ("marginals", "rescored")]


@pytest.mark.parametrize("kind", ALL)
def test_graphs_are_the_modules(exported: Exported, kind: str) -> None:
    """Of the module itself, not of the copy that was traced; several batches and lengths."""
    runner = Runner(exported(kind), 1)
    for module, about in zip(chain(kind), runner.modules):
        for batch, time in ((1, 1), (2, 5), (3, 13)):
            x, lengths = graphs._example(module, batch, time)
            if module.input.collapse_slots:  # that is not in the graph
                module.input.collapse_slots = False
            if isinstance(module, DecoderModule):
                steps_agree(runner, about, module, x, lengths)
            else:
                encoders_agree(runner, about, module, x, lengths)


def encoders_agree(runner: Runner, about: dict[str, Any], module: Any, x: torch.Tensor, lengths: torch.Tensor) -> None:
    with torch.no_grad():
        if isinstance(module.input, FramesInput):  # the graph begins behind the filter bank
            module.input.forward = module.input.steps_of
        wanted, slots = module(x, lengths)
    names, session = ["output", "slots"], runner.sessions[about["graphs"][0]]
    found = dict(zip(names, session.run(names, {"x": x.numpy(), "lengths": lengths.numpy()})))
    assert found["slots"].tolist() == slots.tolist() and found["output"].shape[1] == slots.max()
    for row, other, n in zip(found["output"], wanted, slots):
        np.testing.assert_allclose(row[:n], other[:n].numpy(), atol=1e-4, rtol=1e-4)


def steps_agree(runner: Runner, about: dict[str, Any], module: Any, x: torch.Tensor, lengths: torch.Tensor) -> None:
    """Three tokens of four hypotheses, which change their order; the first input leaves."""
    steps = Steps(*(runner.sessions[file] for file in about["graphs"]), x.numpy(), lengths.numpy(), 4, module.sos_eos)
    batch = len(x)
    with torch.no_grad():
        state = module.start(x, lengths)
        wanted = module.step(torch.full((batch * 4,), module.sos_eos), state)
        for going in (list(range(batch)), list(range(batch)), list(range(batch))[-1:]):
            np.testing.assert_allclose(steps.log_probs.reshape(wanted.shape), wanted.numpy(), atol=1e-4, rtol=1e-4)
            rows, tokens = np.random.randint(4, size=(len(going), 4)), np.random.randint(1, 6, (len(going), 4))
            steps.advance(going, rows, tokens)
            flat = (np.array(going)[:, None] * 4 + rows).ravel()
            state.select(torch.from_numpy(flat), torch.tensor(going))
            wanted = module.step(torch.from_numpy(tokens.ravel()), state)
        np.testing.assert_allclose(steps.log_probs.reshape(wanted.shape), wanted.numpy(), atol=1e-4, rtol=1e-4)


def same(found: Result, wanted: answers.Answer) -> None:
    """The same texts, scores and opinions."""
    assert found.texts == wanted.texts and [h.ids for h in found.nbest] == [h.ids for h in wanted.nbest]
    for mine, theirs in zip(found.nbest, wanted.nbest):
        assert mine.score == pytest.approx(theirs.score, abs=2e-4)
        assert mine.parts == pytest.approx(theirs.parts, abs=1e-3)
    assert {n: said.text for n, said in found.interfaces.items()} == {n: p.text for n, p in wanted.interfaces.items()}
    for name, path in wanted.interfaces.items():
        assert found.interfaces[name].ids == path.ids
        assert found.interfaces[name].score == pytest.approx(path.score, abs=1e-3)


@pytest.mark.parametrize("kind", WRITES_TEXT)
def test_answers_are_the_packages(exported: Exported, kind: str) -> None:
    """All inputs in one batch and each alone."""
    given, runner = inputs(kind), Runner(exported(kind), 1)
    wanted = chain(kind).answer(given, BeamOptions(nbest=3))
    for found, other in zip(runner.answers(given, SearchOptions(nbest=3)), wanted):
        same(found, other)
    for item, other in zip(given, wanted):
        same(runner.answers([item], SearchOptions(nbest=3))[0], other)
    assert len({answer.text for answer in wanted}) > 1, "a test that any answer would pass"


@pytest.mark.parametrize(
    "options",
    [
        {"ctc_weight": 0.0}, {"ctc_weight": 1.0, "length_penalty": 0.0}, {"ctc_weight": 0.2, "nbest": 5},
        {"beam_size": 1}, {"beam_size": 9, "nbest": 9}, {"temperature": 2.0}, {"length_penalty": 0.5},
        {"maxlenratio": 0.4}, {"minlenratio": -5.0, "nbest": 2},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["wemb", "speech", "encoder"])
def test_options_of_the_search(exported: Exported, kind: str, options: dict[str, Any]) -> None:
    given, runner = inputs(kind), Runner(exported(kind), 1)
    wanted = chain(kind).answer(given, BeamOptions(**options))
    for found, other in zip(runner.answers(given, SearchOptions(**options)), wanted):
        same(found, other)


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_an_interface_over_other_tokens_judges_whole_texts(exported: Exported, weight: float) -> None:
    given, options = inputs("rescored"), {"ctc_weight": weight, "nbest": 5}
    wanted = chain("rescored").answer(given, BeamOptions(**options))
    assert any(np.isfinite(h.parts["ctc"]) for answer in wanted for h in answer.nbest)
    for found, other in zip(Runner(exported("rescored"), 1).answers(given, SearchOptions(**options)), wanted):
        same(found, other)


def test_a_decoder_alone_reads_distributions(exported: Exported) -> None:
    model, given = chain("marginals"), inputs("marginals")
    interface = Interface(model.first.ports[0].vocab)
    runner = Runner(exported("marginals"), 1)
    found = runner.answers([x.numpy() for x in given], SearchOptions(nbest=2))
    for mine, x in zip(found, given):
        marginals = Marginals(x[None], torch.tensor([len(x)]), interface)
        theirs = model.answer(marginals, BeamOptions(nbest=2))[0]
        same(mine, theirs)
        assert set(mine.best.parts) == {"decoder", "ctc"}


def test_tuned_weights_are_taken_along(tmp_path: Path, exported: Exported) -> None:
    model = chain("wemb")
    model.search = SearchChoice(0.1, 0.3)
    found = Runner(write(model, tmp_path / "out"), 1).answers(inputs("wemb"))
    for mine, theirs in zip(found, model.answer(inputs("wemb"))):
        same(mine, theirs)
    plain = Runner(exported("wemb"), 1).answers(inputs("wemb"))
    assert [a.best.score for a in plain] != pytest.approx([a.best.score for a in found])


def test_what_is_beyond_training_is_said(tmp_path: Path) -> None:
    model = chain("wemb")
    model[0].last.interface.seen.update(torch.tensor([5]), torch.tensor([2]))
    given = ["s1", "s1 s2 s3 s0 s1 s2 s3 s0 s1 s2 s3 s0"]
    found = Runner(write(model, tmp_path / "out"), 1).answers(given)
    with pytest.warns(UserWarning, match="reached the maximum"):
        wanted = model.answer(given)
    assert [answer.notes for answer in found] == [answer.notes for answer in wanted]
    assert found[1].notes and not found[0].notes


@pytest.mark.parametrize("kind", ["wemb", pytest.param("speech", marks=pytest.mark.slow)])
def test_int8_does_not_depend_on_the_batch(exported: Exported, kind: str) -> None:
    given, runner = inputs(kind), Runner(exported(kind, "int8"), 1)
    plain = Runner(exported(kind), 1).answers(given)
    for item, together, other in zip(given, runner.answers(given), plain):
        alone = runner.answers([item])[0]
        assert alone.text == together.text and alone.best.score == pytest.approx(together.best.score, abs=1e-4)
        assert together.best.score == pytest.approx(other.best.score, abs=0.2)
        assert together.best.score != other.best.score, "nothing was converted"


def test_bad_inputs_and_options(exported: Exported) -> None:
    runner = Runner(exported("wemb"), 1)
    for item in ("", [], "  "):
        with pytest.raises(RunnerError, match="nothing to read"):
            runner.answers([item])
    for options in (SearchOptions(beam_size=0), SearchOptions(nbest=6), SearchOptions(temperature=0.0)):
        with pytest.raises(RunnerError, match="beam_size and nbest begin at 1"):
            runner.answers(["s0"], options)
    with pytest.raises(RunnerError, match="ctc_weight: 1.5 is not between 0 and 1"):
        runner.answers(["s0"], SearchOptions(ctc_weight=1.5))
    with pytest.raises(RunnerError, match="this chain has no interface; give 0"):
        Runner(exported("states"), 1).answers(["s0"], SearchOptions(ctc_weight=0.3))
    with pytest.raises(RunnerError, match="no inputs"):
        runner.answers([])
    for item in ([2, 999], [-1], [[2, 3]]):
        with pytest.raises(RunnerError, match="no list of ids from 0 to"):
            runner.answers([item])
    assert runner("s0 s1") == chain("wemb")("s0 s1") == runner([2, 3])


def test_samples_are_read_as_the_package_reads_them(exported: Exported) -> None:
    runner, sound = Runner(exported("speech"), 1), tone(0.4, 1, 8000)
    whole = np.round(sound * 32767).astype(np.int16)
    np.testing.assert_allclose(runner.read(whole), runner.read(whole.astype(np.float32) / 32768), atol=1e-6)
    for samples, message in (
        (np.stack([sound, sound]), "one channel is needed"),
        (np.full(900, np.nan), "give finite floats"),
        ([1, 2, 3] * 300, "samples of type int64"),
    ):
        with pytest.raises(RunnerError, match=message):
            runner.answers([samples])


@pytest.mark.parametrize("soundfile", [True, False])
def test_sound_files(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soundfile: bool) -> None:
    """With soundfile, and with what Python has."""
    path = sounds.write(tmp_path / "a.wav", sounds.tone(0.4, 2, 8000) + 0.01 * np.random.randn(3200), 8000)
    wrong = sounds.write(tmp_path / "b.wav", sounds.tone(0.4, 2, 16000), 16000)
    (tmp_path / "c.wav").write_text("no sound")
    wanted, runner = chain("speech_encoder").answer([path])[0], Runner(exported("speech_encoder"), 1)
    if not soundfile:
        monkeypatch.setitem(sys.modules, "soundfile", None)
    same(runner.answers([path])[0], wanted)
    with pytest.raises(RunnerError, match="at 16000 Hz, this chain reads 8000 Hz; resample it first"):
        runner.answers([wrong])
    for bad in ("c.wav", "none.wav"):
        with pytest.raises(RunnerError, match="cannot be read as sound"):
            runner.answers([tmp_path / bad])


def test_kinds_cover_what_the_package_has() -> None:
    used = {module["input"]["type"] for modules in KINDS.values() for module in modules}
    assert used >= {"tokens", "speech", "features", "wemb", "beam_conv", "states"} and used <= set(INPUTS)
    assert toys.HYBRID in [module["output"] for modules in KINDS.values() for module in modules]
