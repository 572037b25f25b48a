"""The page of one utterance: it shows what the chain says, needs no other file, and escapes what it is given."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.inference.plot import Picture
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.studies import inspect as inspection
from espnet2_legonn.studies.inspect import controllers, inspect, render, watched
from tests.says import Says
from tests.studies.test_swap import write
from tests.zoo.toys import build, pair


class Seen(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def chain() -> LegoNN:
    return build(pair())


def test_attention_weights_are_those_of_the_kernel(chain: LegoNN) -> None:
    """Weights times values through the output layer is what the fused kernel gave, padding and all."""
    (module,) = controllers(chain).values()
    kept: list[torch.Tensor] = []
    module.register_forward_hook(lambda _, args, out: kept.extend([*args[:2], out]))
    module.heads = 1  # of one head the mean is the weights themselves
    with watched(module) as seen:
        batch = chain.batch(["k l m n k", "k l"])
        chain.encode(*batch)
    _, source, out = kept
    with torch.inference_mode():
        again = module.linear_out(seen[0] @ module.linear_v(source))
    torch.testing.assert_close(again, out, atol=1e-5, rtol=1e-5)
    read = int(chain.first.input.steps(batch[1])[1])
    assert read < seen[0].shape[-1] and (seen[0][1, :, read:] == 0).all()
    torch.testing.assert_close(seen[0].sum(-1), torch.ones(seen[0].shape[:2]))
    chain.encode(*chain.batch(["k"]))
    assert len(seen) == 1, "no longer watched"


def test_the_page_shows_what_the_chain_says(chain: LegoNN) -> None:
    options = BeamOptions(3, 1.0, nbest=3, ctc_weight=0.4)
    found = inspect(chain, "k l m", options, reference="a b c")
    answer = chain.answer(["k l m"], options, judge_all=True)[0]
    page = Seen(render(found, "encoder -> decoder"))
    for text in (*answer.texts, answer.interfaces["encoder"].text, "a b c", "k l m"):
        assert text in page.text
    for hypothesis in answer.nbest:
        assert f"{hypothesis.score:.3f}" in page.text and f"{hypothesis.parts['ctc']:.2f}" in page.text
    assert page.tags.count("img") == 2, "the interface, and its length controller"
    assert all(link.startswith("data:image/png;base64,") for link in page.links) and "script" not in page.tags


def test_what_is_given_is_escaped(chain: LegoNN) -> None:
    found = inspect(chain, "<script>alert(1)</script> k", reference="<b>")
    page = render(found, "<i>")
    assert not {"script", "b", "i"} & set(Seen(page).tags)


def test_an_unknown_word_is_a_note_without_a_number(chain: LegoNN) -> None:
    assert inspect(chain, "k zebra").notes == ["not in the vocabulary, read as <unk>: zebra"]


def test_the_command(chain: LegoNN, tmp_path: Path, says: Says) -> None:
    data, pack, out = write(tmp_path / "data"), chain.save(tmp_path / "mt"), tmp_path / "page.html"
    assert main(["inspect", str(pack), "u2", "--data", str(data), "-o", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    text = dict(line.split(" ", 1) for line in (data / "text").read_text().splitlines())["u2"]
    source = dict(line.split(" ", 1) for line in (data / "src_text").read_text().splitlines())["u2"]
    assert text in Seen(page).text and source in Seen(page).text and not re.search(r"https?://", page)
    assert main(["inspect", str(pack), "k l", "-o", str(out)]) == 0
    for uid, fault in (("u99", "no line for u99"), ("u7", "u7 has no words; choose another utterance")):
        (data / "src_text").open("a").write("u7\n" if uid == "u7" else "")
        said = says(main, ["inspect", str(pack), uid, "--data", str(data), "-o", str(out)], 2)
        assert said == f"DataError:\n{data}/src_text: {fault}\n"


def test_a_chain_without_interfaces(tmp_path: Path) -> None:
    data = pair(type="states")
    data["modules"][0].update(output={"type": "states"})
    del data["modules"][1]["input"]["vocab"], data["modules"][1]["input"]["num_blocks"]
    found = inspect(build(data), "k l")
    page = Seen(render(found, "attention"))
    assert found.pictures == {} and set(found.attention) == {"encoder"} and page.tags.count("img") == 1


def test_on_a_phone_small_pictures_shrink_and_wide_ones_are_scrolled(chain: LegoNN) -> None:
    found = inspect(chain, "k l m")
    (picture,) = found.pictures.values()
    for inches, shrinks in ((4.0, True), (20.0, False)):
        found.pictures["encoder"] = picture._replace(inches=(inches, 2.0))
        found.attention.clear()
        page = render(found, "page")
        assert ('class="small"' in page) == shrinks
        assert '<meta name="viewport" content="width=device-width' in page


@pytest.mark.parametrize("collapse", [False, True])
def test_columns_of_a_length_controller_say_what_it_reads(monkeypatch: pytest.MonkeyPatch, collapse: bool) -> None:
    """The tokens of a text and its end; slots with their best tokens; tokens alone where slots are collapsed."""
    data = pair()
    first, decoder = data["modules"]
    second = {
        **first,
        "name": "second",
        "input": {"type": "wemb", "vocab": "tgt", "num_blocks": 1, "collapse": collapse},
    }
    data["modules"] = [first, second, decoder]
    drawn = dict[str, list[str]]()

    def draw(values: np.ndarray, rows: list[str], columns: list[str], names: object, words: str) -> Picture:
        assert values.shape == (len(rows), len(columns))
        drawn[words] = columns
        return heat_map(values, rows, columns, ("", ""), words)

    heat_map = inspection.heat_map
    monkeypatch.setattr(inspection, "heat_map", draw)
    path = inspect(build(data), "k l m").answer.interfaces["encoder"]
    of_first, of_second = drawn.values()
    assert of_first == ["k", "l", "m", "<sos/eos>"]
    tokens, best = path.marginals.interface.vocab.tokens, path.marginals.log_probs[0].argmax(-1).tolist()
    assert len(path.ids) not in (0, len(best)), "or the two would be alike"
    said = [tokens[i] for i in path.ids] if collapse else ["·" if i == 0 else tokens[i] for i in best]
    assert of_second == said
