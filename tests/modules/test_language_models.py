"""Language models of transformers as decoders, with tiny random ones of the real classes, offline."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from espnet2_legonn import LegoNN
from espnet2_legonn.data.hf_vocab import of_model
from espnet2_legonn.errors import CheckpointError, ConfigError, DataError
from espnet2_legonn.model.bridge import can_cross
from espnet2_legonn.model.losses import Labels
from espnet2_legonn.model.module import LanguageModelDecoder
from espnet2_legonn.search.beam import joint_search
from espnet2_legonn.search.ctc import CTCScorer
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.search.scorers import DecoderScorer
from tests.modules import language, toys
from tests.search.listing import log, texts_of

pytestmark = pytest.mark.skipif(
    not language.THERE, reason="needs transformers: pip install 'espnet2_legonn[pretrained]'"
)
LORA = pytest.mark.skipif(not language.PEFT, reason="needs peft: pip install 'espnet2_legonn[lora]'")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    return {name: language.write(root / name, name) for name in language.KINDS}


def part(model: LegoNN) -> LanguageModelDecoder:
    assert isinstance(model.last, LanguageModelDecoder)
    return model.last


def texts(*items: list[int], extra: int = 0) -> Labels:
    """Labels, also where a text is empty."""
    return Labels(*toys.padded([torch.tensor(item, dtype=torch.long) for item in items], -1, extra))


def taught(model: LegoNN, x: torch.Tensor, lengths: torch.Tensor, labels: Labels) -> torch.Tensor:
    with torch.no_grad():
        return part(model)(x, lengths, *labels)[0].log_softmax(-1)


# -- what the model reads and writes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", language.KINDS)
def test_logits_are_those_of_the_model_over_expected_rows(name: str, hub: dict[str, Path], float64: None) -> None:
    """The rows in plain NumPy, from the model's own table; the rest by the model's own forward."""
    found = of_model(str(hub[name]))
    model = language.decoder(hub[name], name, {"temperature": 0.7, "prompt": "the dog"})
    cls = getattr(language.transformers, language.KINDS[name][1])
    source = cls.from_pretrained(hub[name], dtype=torch.float64).eval()
    x = language.marginals(found, 8)
    text = found.vocab.encode("two men are cooking rice")
    table, embed = source.get_input_embeddings().weight.detach().numpy(), source.get_input_embeddings()
    scale = language.WIDTH**0.5 if name in ("bart", "marian", "gemma") else 1.0
    rows = torch.from_numpy(language.expected_rows(found, x[0].numpy(), table, 0.7)) * scale
    ours = found.vocab.ids

    def words(tokens: list[int]) -> torch.Tensor:
        ids = torch.tensor([found.rows[i] for i in tokens], dtype=torch.long)
        return torch.nn.functional.embedding(ids, embed.weight) * scale

    before = words([*(ours[t] for t in found.before), *found.vocab.encode("the dog")])
    behind, written = words([ours[t] for t in found.behind]), words([ours[found.start], *text])
    read = torch.cat([before, rows, behind])[None]
    with torch.no_grad():
        if name in language.CAUSAL:
            wanted = source(inputs_embeds=torch.cat([read, written[None]], 1)).logits[:, read.shape[1] :]
        else:  # ids leave no doubt about how the model scales its rows
            ids = torch.tensor([[found.rows[i] for i in (ours[found.start], *text)]])
            wanted = source(inputs_embeds=read, decoder_input_ids=ids).logits
    places = [i for i, place in enumerate(found.rows) if place >= 0]
    wanted = wanted[..., [found.rows[i] for i in places]].log_softmax(-1)
    got = taught(model, x, torch.tensor([8]), texts(text))
    torch.testing.assert_close(got[..., places], wanted, rtol=0, atol=1e-9)
    assert got[..., 0].max() < -1000 and float(got[..., places].exp().sum(-1).min()) == pytest.approx(1)


def test_where_texts_begin_and_what_stands_around_them(hub: dict[str, Path]) -> None:
    found = {name: of_model(str(folder)) for name, folder in hub.items()}
    assert (found["gpt2"].start, found["gpt2"].before, found["gpt2"].rows[1]) == ("<sos/eos>", (), -1)
    assert (found["llama"].start, found["llama"].before, found["llama"].behind) == ("<s>", ("<s>",), ("<sos/eos>",))
    assert found["bart"].start == "<sos/eos>" and found["t5"].start == found["marian"].start == "<pad>"


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma", "t5", "marian"])
@pytest.mark.parametrize("source", [{"blank": "keep"}, {"blank": "drop", "prompt": "the dog"}, {"collapse": True}])
def test_item_alone_is_item_in_a_batch(name: str, source: dict[str, Any], hub: dict[str, Path], float64: None) -> None:
    found = of_model(str(hub[name]))
    model = language.decoder(hub[name], name, source)
    toys.scramble(model[-1].last.input)
    items = [language.marginals(found, slots, slots)[0] for slots in (7, 3, 12, 1)]
    said = [found.vocab.encode(text) for text in ("two men", "a dog runs over the grass", "", "rice")]
    for fill in (0.0, float("nan"), 3.0):
        x, lengths = toys.padded(items, fill, 2)
        together = taught(model, x, lengths, texts(*said, extra=3))
        for i, (item, text) in enumerate(zip(items, said)):
            alone = taught(model, item[None], torch.tensor([len(item)]), texts(text))[0]
            torch.testing.assert_close(together[i, : len(text) + 1], alone, rtol=0, atol=1e-9)


def test_an_item_of_blanks_alone_keeps_a_slot(hub: dict[str, Path]) -> None:
    found = of_model(str(hub["llama"]))
    part = language.decoder(hub["llama"], "llama").last.input
    x = torch.full((2, 4, len(found.vocab)), -9.0)
    x[..., 0] = 0.0
    h, lengths = part(x.log_softmax(-1), torch.tensor([4, 2]))
    ends = len(found.before) + len(found.behind)
    assert lengths.tolist() == [1 + ends, 1 + ends] and h.shape[1] == 1 + ends


@pytest.mark.parametrize("name", language.KINDS)
def test_steps_are_teacher_forcing(name: str, hub: dict[str, Path], float64: None) -> None:
    """Hypotheses change places, multiply and leave, as in a search."""
    found = of_model(str(hub[name]))
    decoder = part(language.decoder(hub[name], name, {"prompt": "a"}))
    x, lengths = toys.padded([language.marginals(found, n, n)[0] for n in (9, 4)], 0.0)
    beam, generator = 3, torch.Generator().manual_seed(3)
    with torch.inference_mode():
        state = decoder.start(x, lengths)
        history = torch.full((2 * beam, 1), decoder.sos_eos)
        utterance = torch.arange(2).repeat_interleave(beam)
        found_steps = decoder.step(history[:, -1], state)
        for step in range(6):
            said = [row[1:].tolist() for row in history]
            for row, text in enumerate(said):
                u = int(utterance[row])
                wanted = taught(_as_chain(decoder), x[u : u + 1], lengths[u : u + 1], texts(text))
                torch.testing.assert_close(found_steps[row], wanted[0, -1], rtol=0, atol=1e-9)
            rows = torch.cat(
                [torch.randint(0, beam, (beam,), generator=generator) + beam * b for b in range(len(utterance) // beam)]
            )
            going = None
            if step == 3:  # the first utterance is finished
                rows, going = rows[beam:], torch.tensor([1])
            tokens = torch.randint(2, decoder.sos_eos, (len(rows),), generator=generator)
            history, utterance = torch.cat([history[rows], tokens[:, None]], 1), utterance[rows]
            state.select(rows, going)
            found_steps = decoder.step(tokens, state)


def _as_chain(decoder: LanguageModelDecoder) -> LegoNN:
    return LegoNN([decoder], {"lm": decoder.ports[1].vocab})  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["gpt2", "marian"])
def test_joint_search_finds_the_best_of_all_texts(name: str, tmp_path: Path, float64: None) -> None:
    folder = language.write(tmp_path / "model", name, language.words_tokenizer("a b"))
    found = of_model(str(folder))
    decoder = part(language.decoder(folder, name))
    x = toys.random_log_probs(1, 4, len(found.vocab), 5, 1.0)
    lengths, most, weight = torch.tensor([4]), 3, 0.4
    ctc = texts_of(x[0])
    best, scores = (), {}
    for size in range(most + 1):
        for text in itertools.product(range(1, decoder.sos_eos), repeat=size):
            own = taught(_as_chain(decoder), x, lengths, texts(list(text)))[0]
            said = float(sum(own[i, token] for i, token in enumerate((*text, decoder.sos_eos))))
            scores[text] = ((1 - weight) * said + weight * log(ctc.get(text, 0.0))) / (size + 1)
    best = max(scores, key=lambda text: scores[text])
    options = BeamOptions(beam_size=400, maxlenratio=-most, length_penalty=1.0)
    with torch.inference_mode():
        scorers = [DecoderScorer(decoder, x, lengths, 400, 1 - weight), CTCScorer(x, lengths, 400, weight, 800)]
        answer = joint_search(scorers, lengths, options, decoder.sos_eos)[0][0]
    assert tuple(answer.ids) == best
    assert answer.score == pytest.approx(scores[best], abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_where_the_model_has_no_position_left_the_text_ends(name: str, hub: dict[str, Path]) -> None:
    model = language.decoder(hub[name], name)
    found = of_model(str(hub[name]))
    x, lengths = toys.padded([toys.random_log_probs(1, n, len(found.vocab), n)[0].float() for n in (30, 3)], 0.0)
    with torch.inference_mode():
        scorer = DecoderScorer(part(model), x, lengths, 2)
        answers = joint_search(
            [scorer], lengths, BeamOptions(beam_size=2, minlenratio=-60, maxlenratio=-70), scorer.decoder.sos_eos
        )
    room = 40 - (30 - 0 if name == "gpt2" else 0)
    assert len(answers[0][0].ids) <= room
    with pytest.raises(DataError, match=r"input 0: .* 4\d positions are read and written, the model has 40"):
        part(model).start(toys.random_log_probs(1, 42, len(found.vocab)).float(), torch.tensor([42]))


# -- training ------------------------------------------------------------------------------------------------------


def step(model: LegoNN) -> dict[str, torch.Tensor]:
    model.train()
    ids, lengths = toys.padded([[2, 3, 4], [5, 6]], -1)
    labels = texts([5, 6, 7], [8])
    losses = model.losses(ids, lengths, {"enc": labels, "decoder": labels})
    losses["decoder"].total.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_frozen_model_teaches_the_encoder(name: str, hub: dict[str, Path]) -> None:
    model = language.chain(hub[name], name, {"blank": "keep"})
    found = step(model)
    assert any(".enc." in n for n in found) and not part(model).body.lm.training
    assert {n for n in found if ".decoder." in n} == {"mods.decoder.input.embed.blank"}


def test_or_learns_with_it(hub: dict[str, Path]) -> None:
    found = step(language.chain(hub["bart"], "bart", {"freeze": False}, freeze=False))
    learned = {n.removeprefix("mods.decoder.") for n in found if ".decoder." in n}
    assert "input.embed.weight" in learned and len(learned) > 40


def test_a_table_of_its_own_begins_as_the_models(hub: dict[str, Path], float64: None) -> None:
    found = of_model(str(hub["llama"]))
    x, lengths, labels = language.marginals(found, 6), torch.tensor([6]), texts([5, 6])
    shared, own = (language.decoder(hub["llama"], "llama", {"freeze": freeze}) for freeze in (True, False))
    torch.testing.assert_close(taught(own, x, lengths, labels), taught(shared, x, lengths, labels))
    names = {n for n, p in own.named_parameters() if p.requires_grad}
    assert names == {"mods.decoder.input.embed.weight"}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_over_the_models_tokens(smoothing: float, hub: dict[str, Path], float64: None) -> None:
    """GPT-2 has no unknown: neither it nor blank takes mass, nor is it a target."""
    model = language.decoder(hub["gpt2"], "gpt2")
    part(model).label_smoothing = smoothing
    found = of_model(str(hub["gpt2"]))
    x, lengths = language.marginals(found, 6), torch.tensor([6])
    text = [5, 1, 9]
    loss = part(model).loss(x, lengths, texts(text))
    said = taught(model, x, lengths, texts(text))[0, :, 2:].numpy()
    wanted = 0.0
    for row, target in zip(said, [5, 1, 9, len(found.vocab) - 1]):
        if target != 1:
            wanted -= (1 - smoothing) * row[target - 2] + smoothing * row.mean()
    assert float(loss.total) == pytest.approx(wanted) and int(loss.tokens) == 3


def test_large_vocabularies_are_crossed_in_pieces(hub: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from espnet2_legonn.model import bridge

    model = language.chain(hub["llama"], "llama", {"blank": "keep"})
    whole = step(model)
    monkeypatch.setattr(bridge, "LARGE", 10)
    assert can_cross(model.first.interface, part(model).input, torch.zeros(2, 3, toys.D))  # type: ignore[union-attr]
    dropping = part(language.chain(hub["llama"], "llama")).input
    assert not can_cross(model.first.interface, dropping, torch.zeros(2, 3, toys.D))  # type: ignore[union-attr]
    model.zero_grad()
    for n, grad in step(model).items():
        torch.testing.assert_close(grad, whole[n])


# -- LoRA ----------------------------------------------------------------------------------------------------------


@LORA
@pytest.mark.parametrize("name", language.KINDS)
def test_lora_begins_as_the_model_and_learns_alone(name: str, hub: dict[str, Path], float64: None) -> None:
    plain, adapted = (language.chain(hub[name], name, lora=lora) for lora in (None, {"rank": 2, "dropout": 0.1}))
    x, lengths = toys.padded([language.marginals(of_model(str(hub[name])), 6)[0]], 0.0)
    labels = texts([5, 6])
    torch.testing.assert_close(taught(adapted, x, lengths, labels), taught(plain, x, lengths, labels))
    learned = {n for n in step(adapted) if ".decoder." in n}
    assert learned and all("lora_B" in n for n in learned), "A learns once B is not zero"
    free = {n for n, p in part(adapted).named_parameters() if p.requires_grad}
    assert free and all("lora_" in n for n in free)
    drops = [m for n, m in part(adapted).named_modules() if n.endswith("lora_dropout")]
    assert drops and all(m.training for m in drops) and not part(adapted).body.lm.model.training


@LORA
def test_lora_is_equation_3_of_its_paper(hub: dict[str, Path], float64: None) -> None:
    body = part(language.decoder(hub["llama"], "llama", lora={"rank": 2, "alpha": 6, "targets": ["o_proj"]})).body
    layer = next(m for n, m in body.lm.named_modules() if n.endswith("o_proj"))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(3, a.shape[1])
    wanted = x @ layer.base_layer.weight.T + 6 / 2 * (x @ a.T @ b.T)
    torch.testing.assert_close(layer(x), wanted)


@LORA
@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_lora_alone_is_kept(name: str, hub: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hub[name], folder)
    model = language.chain(folder, name, {"blank": "keep"}, lora={"rank": 2}, hold=False)
    for n, p in model.named_parameters():
        if ".adapters." in n or n.endswith("blank"):
            torch.nn.init.normal_(p, std=0.1)
    assert part(model).body.config.sha256 is not None
    model.save(tmp_path / "pack")
    stored = load_file(tmp_path / "pack/weights.safetensors")
    own = {n.removeprefix("mods.decoder.") for n in stored if ".decoder." in n}
    assert all(n.startswith(("body.adapters.", "input.seen.")) or n == "input.embed.blank" for n in own)
    assert sum("lora_" in n for n in own) >= 4
    loaded = LegoNN.from_pretrained(tmp_path / "pack")
    same(model, loaded)
    first = folder / "model.safetensors"
    weights = load_file(first)
    save_file(
        {n: w + (n.endswith("wte.weight") or n == "shared.weight") for n, w in weights.items()}, first, {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match="its weights have SHA-256 .*, not "):
        LegoNN.from_pretrained(tmp_path / "pack")


def same(model: LegoNN, other: LegoNN) -> None:
    vocab = part(model).ports[1].vocab
    assert vocab is not None
    x = toys.random_log_probs(2, 5, len(vocab)).float()
    given = (x, torch.tensor([5, 3]), texts([5, 6], [7]))
    torch.testing.assert_close(taught(other, *given), taught(model, *given), rtol=0, atol=1e-5)


# -- packs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", language.KINDS)
def test_a_pack_holds_the_weights(name: str, hub: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hub[name], folder)
    model = language.chain(folder, name, {"prompt": "two men"})
    model.save(tmp_path / "pack")
    shutil.rmtree(folder)
    loaded = LegoNN.from_pretrained(tmp_path / "pack")
    same(model, loaded)
    assert loaded(["s1 s2"]) == model(["s1 s2"])
    again = loaded[:-1] + loaded[-1:]
    assert [c.name for c in again.configs] == ["enc", "decoder"]


def test_a_writers_list_with_the_same_tokens_will_do(hub: dict[str, Path], tmp_path: Path) -> None:
    """A composition keeps the writer's vocabulary, which may split texts in another way."""
    found = of_model(str(hub["llama"]))
    tokens = {"lm": {"tokens": list(found.vocab.tokens), "unit": "bpe"}, "src": toys.VOCABS["src"]}
    encoder = LegoNN.from_config({"vocabs": tokens, "modules": [toys.encoder("enc", toys.TEXT, "lm", "2")]}).eval()
    both = encoder + language.decoder(hub["llama"], "llama")
    assert set(both.vocabs) == {"src", "lm"} and both.vocabs["lm"].tokenizer is None
    both.save(tmp_path / "pack")
    same(both, LegoNN.from_pretrained(tmp_path / "pack"))


def test_what_may_not_be_changed_in_a_pack(hub: dict[str, Path], tmp_path: Path) -> None:
    language.chain(hub["gpt2"], "gpt2").save(tmp_path / "pack")
    path = tmp_path / "pack/lm.tokens.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("dog", "cat"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"lm\.tokens\.txt"):
        LegoNN.from_pretrained(tmp_path / "pack")


def test_training_writes_what_makes_it_again(hub: dict[str, Path], tmp_path: Path) -> None:
    from espnet2_legonn.data import hf_vocab
    from espnet2_legonn.training.task import LegoNNTask

    folder = tmp_path / "model"
    shutil.copytree(hub["llama"], folder)
    hf_vocab.write(of_model(str(folder)), tmp_path / "vocab")
    lm = {"tokens": str(tmp_path / "vocab/tokens.txt"), "bpemodel": str(tmp_path / "vocab/bpe.model")}
    modules = [toys.encoder("enc", toys.TEXT, "lm", "2"), language.module(folder, "llama")]
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump({"vocabs": {"lm": lm, "src": toys.VOCABS["src"]}, "modules": modules}))
    args = LegoNNTask.get_parser().parse_args(["--config", str(path), "--output_dir", str(tmp_path / "exp")])
    model = LegoNNTask.build_model(args)
    (tmp_path / "exp/config.yaml").write_text(yaml.safe_dump({"vocabs": args.vocabs, "modules": args.modules}))
    shutil.rmtree(folder)
    again = LegoNN.from_config(tmp_path / "exp/config.yaml")
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in model.chain.named_parameters()}


def test_fewer_bits(hub: dict[str, Path]) -> None:
    model = language.chain(hub["llama"], "llama")
    assert model.answer(["s1 s2"], BeamOptions(beam_size=2, dtype="bfloat16"))
    with pytest.raises(ConfigError, match="int8 is not for language models"):
        model.answer(["s1 s2"], BeamOptions(beam_size=2, dtype="int8"))


# -- what is refused -----------------------------------------------------------------------------------------------


def fault(folder: Path, name: str, source: dict[str, Any] | None = None, **body: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        language.decoder(folder, name, source, **body)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "body", "words"),
    [
        ({"blank": "merge"}, {}, "blank: 'merge' is not drop or keep"),
        ({"temperature": 0.0}, {}, "temperature: 0.0 is not above 0"),
        ({"blank": "keep", "collapse": True}, {}, "it goes with blank: drop"),
        ({}, {"hold": False, "freeze": False}, "what is learned must be kept"),
        ({}, {"freeze": False, "lora": {"rank": 2}}, "goes with freeze: true"),
        ({}, {"lora": {"rank": 0}}, "rank: 0 is not between"),
        ({}, {"lora": {"dropout": 1.0}}, "dropout: 1.0 is not"),
        ({}, {"start": "<begin>"}, "'<begin>' (start, before, behind) is no token"),
        ({}, {"type": "hf_seq2seq"}, "a model of type 'llama' is not one of t5, mt5, bart, marian"),
        ({}, {"architecture": {"model_type": "llama", "auto_map": {"AutoModel": "x--y.Z"}}, "absent": 1},
         "auto_map: no key of"),
        ({}, {"architecture": {"model_type": "llama", "vocab_size": 5}, "absent": 1}, "vocab_size: no key of"),
        ({}, {"architecture": {"model_type": "llama", "hidden_size": 10**9}, "absent": 1}, "is more than 200000"),
        ({}, {"architecture": {"model_type": "qwen2", "use_sliding_window": True}, "absent": 1}, "are not read"),
        ({}, {"architecture": {"model_type": "llama"}}, "absent: None is not 1 or 2"),
        ({"type": "wemb"}, {}, "reads and writes one vocabulary, its own"),
    ],
)  # fmt: skip
def test_descriptions_that_do_not_go(
    source: dict[str, Any], body: dict[str, Any], words: str, hub: dict[str, Path]
) -> None:
    assert words in fault(hub["llama"], "llama", source, **body)


@LORA
def test_layers_that_a_model_does_not_have(hub: dict[str, Path]) -> None:
    assert "body.lora: " in fault(hub["llama"], "llama", lora={"rank": 2, "targets": ["c_attn"]})


def test_the_input_goes_with_language_models_alone(hub: dict[str, Path]) -> None:
    found = of_model(str(hub["llama"]))
    data = {
        "vocabs": {"lm": {"tokens": list(found.vocab.tokens), "unit": "word"}},
        "modules": [{**toys.decoder({"type": "hf_embedding", "vocab": "lm"}), "output": {"vocab": "lm"}}],
    }
    with pytest.raises(ConfigError, match="goes with body type hf_causal_lm"):
        LegoNN.from_config(data)


def test_a_vocabulary_of_others(hub: dict[str, Path], tmp_path: Path) -> None:
    from espnet2_legonn.model.description import parse
    from espnet2_legonn.model.module import build_module

    vocab = of_model(str(hub["t5"])).vocab
    described = {"vocabs": {"lm": {"tokens": list(vocab.tokens)}}, "modules": [language.module(hub["gpt2"], "gpt2")]}
    with pytest.raises(ConfigError, match="its tokenizer has .* make it by `legonn vocab DIR --from-hf"):
        build_module(parse(described).modules[0], {"lm": vocab})


def test_weights_are_safetensors(hub: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hub["gpt2"], folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in fault(folder, "gpt2") or "safetensors" in fault(folder, "gpt2")


def test_without_peft_it_is_said_what_to_install(hub: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from espnet2_legonn.model import language_model

    def absent() -> Any:
        raise ImportError("peft is not installed: pip install 'espnet2_legonn[lora]'")

    monkeypatch.setattr(language_model, "peft", absent)
    assert "pip install 'espnet2_legonn[lora]'" in fault(hub["llama"], "llama", lora={"rank": 2})
