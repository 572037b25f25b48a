"""One table of metrics: scoring, the choice of checkpoints, plans and reports agree on names and figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet2_legonn.bin import legonn_average, legonn_score
from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring import metrics
from espnet2_legonn.scoring.metrics import METRICS, known, reference_files, score, value

REFS = {"a": "the cat sat on the red mat", "b": "we saw a well-known dog", "c": "it rains again today ."}
HYPS = {"a": "the cat sat on a red mat", "b": "we saw a well-known dog", "c": "it rains again ."}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, rows in {"text": REFS, "text.raw": REFS, "text_phn": REFS, "hyp": HYPS}.items():
        (tmp_path / name).write_text("".join(f"{k} {v}\n" for k, v in rows.items()))
    return tmp_path


@pytest.mark.parametrize("name", METRICS)
def test_one_figure_whoever_asks(data: Path, name: str) -> None:
    """What chooses checkpoints is what stage 13 reports: every metric that is documented, with either."""
    report = score(name, data, data / "hyp", "en", table="text_phn" if name == "per" else "text")
    figure = value(name, [list(REFS.values())], list(HYPS.values()), "en")
    assert figure == pytest.approx(report.value) and 0 < figure < 100
    perfect = value(name, [list(REFS.values())], list(REFS.values()), "en")
    assert (perfect > figure) == known(name).higher
    assert known(name).direction == ("higher is better" if name.startswith("bleu") else "lower is better")


@pytest.mark.parametrize("name", METRICS)
def test_the_commands_take_every_metric(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for main, words in ((legonn_average.main, ["--help"]), (legonn_score.main, ["score", "--help"])):
        with pytest.raises(SystemExit):
            main(words)
        assert name in capsys.readouterr().out


def test_the_script_of_the_stages_names_them_all() -> None:
    script = Path(metrics.__file__).parents[2] / "egs2/TEMPLATE/legonn1/legonn.sh"
    line = next(line for line in script.read_text().splitlines() if line.startswith("metrics="))
    assert set(METRICS) - {"per"} <= set(line.partition("#")[2].split())


def test_further_references_are_read_for_bleu(data: Path) -> None:
    (data / "text.1").write_text((data / "text").read_text())
    assert [p.name for p in reference_files("bleu", data)] == ["text", "text.1"]
    assert [p.name for p in reference_files("bleu_detok", data)] == ["text.raw"]
    assert [p.name for p in reference_files("wer", data)] == ["text"]
    assert [p.name for p in reference_files("per", data, "text_phn")] == ["text_phn"]
    two = value("bleu", [list(REFS.values()), list(HYPS.values())], list(HYPS.values()))
    assert two == pytest.approx(100)


def test_no_such_metric(data: Path) -> None:
    for ask in (known, lambda name: score(name, data, data / "hyp"), lambda name: value(name, [["a"]], ["a"])):
        with pytest.raises(DataError, match="metric 'blue' is none of wer, .*bleu"):
            ask("blue")
    with pytest.raises(DataError, match="wer: no reference holds a single token"):
        value("wer", [[""]], ["a"])
