"""Swaps: the matrix, what follows from it, and chains that cannot be swapped."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.scoring.hierarchy import draw_trainings, student
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.studies.matrix import Matrix, jackknife, pseudo_values, read_swaps, shares_table, swap_text
from espnet2_legonn.studies.swap import labels, sides, swap
from tests.zoo.toys import build, pair


def matrix(values: list[list[float]], metric: str = "bleu", spread: float = 0.5) -> Matrix:
    found = np.array(values)
    draws = found[:, :, None] + np.random.default_rng(0).normal(0, spread, (*found.shape, 400))
    return Matrix(tuple("abcdef"[: len(found)]), metric, found, draws)


def test_own_and_swapped_pairs() -> None:
    found = matrix([[40.0, 39.0, 38.0], [36.0, 38.0, 37.0], [39.0, 40.0, 42.0]])
    assert found.own == 40 and found.swapped == pytest.approx((39 + 38 + 36 + 37 + 39 + 40) / 6)
    assert found.shares[0, 1] == pytest.approx(100 * 39 / 40)
    assert matrix([[10.0, 20.0], [20.0, 10.0]], "wer").shares[0, 1] == 50, "of error rates, twice as many is half"
    assert matrix([[0.0, 0.0], [0.0, 0.0]]).shares.tolist() == [[0, 0], [0, 0]]


def test_interaction_is_what_rows_and_columns_leave() -> None:
    rows, columns = np.array([30.0, 32.0, 35.0]), np.array([0.0, 1.0, 3.0])
    additive = (rows[:, None] + columns).tolist()
    assert matrix(additive).interaction == pytest.approx(0)
    code = (rows[:, None] + columns + 6 * np.eye(3)).tolist()  # own pairs share a private code
    # By hand: residuals are 4 on the diagonal and -2 elsewhere: (3 * 16 + 6 * 4) / 4 = 18.
    assert matrix(code).interaction == pytest.approx(18**0.5)


def test_difference_against_loops() -> None:
    found = matrix([[40.0, 39.0, 38.0], [36.0, 38.0, 37.0], [39.0, 40.0, 42.0]])
    by_hand = []
    for r, picks in enumerate(draw_trainings(3, 400).tolist()):
        own = np.mean([found.draws[i, i, r] for i in picks])
        others = [found.draws[i, j, r] for i, j in itertools.product(picks, picks) if i != j]
        if others:
            by_hand.append(np.mean(others) - own)
    assert len(by_hand) < 400, "a draw of one chain three times has no swapped pair"
    difference = found.difference()
    np.testing.assert_allclose(difference.ci, np.percentile(by_hand, [2.5, 97.5]))
    assert difference.value == pytest.approx(found.swapped - found.own)


@pytest.mark.parametrize(
    ("lost", "share", "words"), [(0.3, 99, "- equivalent within"), (3.2, 92, "NOT shown to be equivalent within")]
)
def test_equivalence(lost: float, share: int, words: str) -> None:
    found = matrix([[40.0 if i == j else 40 - lost for j in range(3)] for i in range(3)], spread=0.1)
    told = found.as_json(1.5)
    assert words in swap_text(told) and told["equivalent"] is (lost < 1)
    assert f"{40 - lost:.1f} ({share} %)" in swap_text(told)


SEEDS = [[28.97, 28.71, 27.53], [29.32, 28.76, 27.34], [28.02, 28.30, 27.62]]  # of the study, the decoder alone


def test_jackknife_against_loops() -> None:
    """Each chain is left out of rows and columns; Student's t of the pseudo-values, two degrees of freedom."""
    values = np.array(SEEDS)
    whole = np.mean([values[i, j] for i in range(3) for j in range(3) if i != j]) - np.mean(np.diag(values))
    by_hand = []
    for i, j in ((1, 2), (0, 2), (0, 1)):
        left = (values[i, j] + values[j, i]) / 2 - (values[i, i] + values[j, j]) / 2
        by_hand.append(3 * whole - 2 * left)
    assert pseudo_values(values) == pytest.approx(by_hand) and np.mean(by_hand) == pytest.approx(whole)
    told = jackknife(values)
    half = np.std(by_hand, ddof=1) / 3**0.5
    assert told["ci"] == pytest.approx([whole - 4.303 * half, whole + 4.303 * half])
    assert told["tost"] == pytest.approx([whole - 2.920 * half, whole + 2.920 * half])
    assert told["tost"] == pytest.approx([-1.43, 0.94], abs=0.02)


def test_jackknife_of_more_chains() -> None:
    values = np.random.default_rng(2).normal(30, 1, (5, 5))
    found = pseudo_values(values)
    assert len(found) == 5 and jackknife(values)["ci"] == list(student(found))
    assert np.mean(found) == pytest.approx(values[~np.eye(5, dtype=bool)].mean() - values.diagonal().mean())


@pytest.mark.parametrize(("margin", "equivalent"), [(1.5, True), (1.3, False), (0.5, False)])
def test_equivalence_takes_both_intervals(margin: float, equivalent: bool) -> None:
    """The bootstrap lies within 1.3, the jackknife does not, since one chain differs from the other two."""
    found = matrix(SEEDS, spread=0.1)
    assert found.difference().within(1.3) and not found.difference().within(0.5)
    told = found.as_json(margin)
    assert told["equivalent"] is equivalent
    text = swap_text(told)
    low, high = jackknife(found.values)["tost"]
    assert f"[{low:+.2f}, {high:+.2f}] (jackknife); both must lie within" in text
    assert ("NOT shown to be equivalent" in text) is not equivalent
    assert "(bootstrap over 3 chains and the utterances)" in text and "(jackknife over 3 chains)" in text


@pytest.mark.parametrize(("margin", "equivalent"), [(1.5, True), (1.3, False)])
def test_an_older_file_gets_its_jackknife_and_verdict(tmp_path: Path, margin: float, equivalent: bool) -> None:
    """Before there was a jackknife, the bootstrap alone decided."""
    new = json.loads(json.dumps(matrix(SEEDS, spread=0.1).as_json(margin)))
    old = {key: value for key, value in new.items() if key != "jackknife"} | {"equivalent": True}
    (tmp_path / "swap_old.json").write_text(json.dumps(old))
    read = read_swaps([f"Old={tmp_path / 'gone/swap_old'}"], tmp_path)["Old"]
    assert read["equivalent"] is equivalent and read["jackknife"] == new["jackknife"] and read == new
    refuted = {**old, "equivalent": False}
    (tmp_path / "swap_old.json").write_text(json.dumps(refuted))
    assert read_swaps([f"Old={tmp_path / 'gone/swap_old'}"], tmp_path)["Old"]["equivalent"] is False
    untested = json.loads(json.dumps(matrix([[40.0, 36.0], [38.0, 40.0]]).as_json(margin)))
    (tmp_path / "swap_old.json").write_text(json.dumps({k: v for k, v in untested.items() if k != "jackknife"}))
    assert read_swaps([f"Old={tmp_path / 'gone/swap_old'}"], tmp_path)["Old"] == untested


@pytest.mark.parametrize("alike", [True, False])
def test_two_chains_and_other_makes_are_no_population(alike: bool) -> None:
    """All draws of two chains that have a swapped pair are the same, so they say nothing of other chains."""
    n = 2 if alike else 3
    found = matrix([[30.0 + 6 * i + j for j in range(n)] for i in range(n)])
    found = Matrix(found.names, found.metric, found.values, found.draws, alike)
    apart = ~np.eye(n, dtype=bool)
    by_hand = found.draws[apart].mean(0) - found.draws[~apart].mean(0)
    difference, told = found.difference(), found.as_json(10.0)
    np.testing.assert_allclose(difference.ci, np.percentile(by_hand, [2.5, 97.5]))
    assert difference.trainings == 1 and difference.ci[0] < difference.ci[1]
    assert told["equivalent"] is None and told["jackknife"] is None
    assert "bootstrap over the utterances alone" in swap_text(told) and "no test of equivalence" in swap_text(told)


def write(folder: Path, lines: int = 6) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("src_text", "text"):
        words = [" ".join(rng.choice(list("klmn" if name == "src_text" else "abcd"), 4)) for _ in range(lines)]
        (folder / name).write_text("".join(f"u{i} {text}\n" for i, text in enumerate(words)))
    return folder


def changed(data: Path, name: str, uid: str, line: str) -> None:
    """Another line for an utterance in a table; without one it is taken out."""
    lines = (data / name).read_text().splitlines()
    kept = [line if old.startswith(f"{uid} ") else old for old in lines]
    (data / name).write_text("".join(f"{one}\n" for one in kept if one))


@pytest.fixture
def chains() -> list[LegoNN]:
    return [build(pair(), seed) for seed in range(2)]


def test_pairs_are_those_of_the_parts(chains: list[LegoNN], tmp_path: Path) -> None:
    """Each cell is the chain of its two sides; the diagonal is the chain itself."""
    data, options = write(tmp_path / "data"), BeamOptions(2, 1.0, ctc_weight=0.0)
    found = swap(chains, ["one", "two"], data, "wer", tmp_path / "out", options)
    source = dict(line.split(" ", 1) for line in (data / "src_text").read_text().splitlines())
    for i, j in itertools.product(range(2), range(2)):
        chain = chains[i] if i == j else chains[i][:-1] + chains[j][-1:]
        texts = [answer.text for answer in chain.answer(list(source.values()), options)]
        lines = (tmp_path / "out" / f"{('one', 'two')[i]}+{('one', 'two')[j]}" / "text").read_text().splitlines()
        assert [line.partition(" ")[2] for line in lines] == texts
    assert found.values.shape == (2, 2) and found.draws.shape[:2] == (2, 2)


def test_a_search_tuned_for_a_chain_is_not_its_own_pairs_advantage(chains: list[LegoNN], tmp_path: Path) -> None:
    from espnet2_legonn.model.interface import SearchChoice

    data = write(tmp_path / "data")
    plain = swap(chains, ["a", "b"], data, "wer", tmp_path / "plain")
    chains[0].search = SearchChoice(1.0, 0.0, "valid", "wer", 1.0, 2)
    assert (swap(chains, ["a", "b"], data, "wer", tmp_path / "tuned").values == plain.values).all()


def test_the_command(chains: list[LegoNN], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "data")
    packs = [str(chain.save(tmp_path / f"seed{i}" / "mt")) for i, chain in enumerate(chains)]
    assert main(["swap", *packs, "--data", str(data), "--metric", "wer", "-o", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "swap.json").read_text())
    assert told["chains"] == ["seed0", "seed1"] and np.shape(told["values"]) == (2, 2) and told["margin"] == 1.5
    assert "|seed0|" in capsys.readouterr().out and (tmp_path / "out" / "swap.md").is_file()


def test_chains_that_cannot_be_swapped(chains: list[LegoNN]) -> None:
    with pytest.raises(ConfigError, match="at least two chains"):
        sides(chains[:1], None)
    with pytest.raises(ConfigError) as caught:
        sides([chains[0], chains[1][:1]], None)
    assert "chain 2 (encoder): nothing is left" in str(caught.value)
    with pytest.raises(ConfigError, match="no module 'middle'; it has encoder, decoder"):
        sides(chains, "middle")


def test_readers_are_not_seeds(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    chains, other = [build(pair(), seed) for seed in range(2)], pair(collapse=True)
    assert swap(chains, ["a", "b"], data, "wer", tmp_path / "seeds").alike
    assert not swap([*chains, build(other, 2)], ["a", "b", "c"], data, "wer", tmp_path / "readers").alike


def test_chains_of_another_source(chains: list[LegoNN], tmp_path: Path) -> None:
    other = pair()
    other["vocabs"]["src"] = other["vocabs"]["tgt"]
    with pytest.raises(ConfigError, match="romanian reads another vocabulary than german") as caught:
        swap([chains[0], build(other, 1)], ["german", "romanian"], tmp_path, "wer", tmp_path / "out")
    assert "swap chains that were trained on the same source" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: (data / "text").unlink(), "text"),
        (lambda data: changed(data, "text", "u2", ""), "text: no reference for u2 of .*src_text"),
        (
            lambda data: [(data / n).write_text(f"u0 {t}\n") for n, t in (("src_text", "k l"), ("text", "a b"))],
            r"data: 1 utterance\(s\): an interval takes two",
        ),
        (lambda data: (data / "utt2spk").write_text("".join(f"u{i} me\n" for i in range(6))), "utt2spk: one speaker"),
    ],
)
def test_data_is_judged_before_anything_is_decoded(
    chains: list[LegoNN], tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    data, out = write(tmp_path / "data"), tmp_path / "out"
    change(data)
    out.mkdir()
    (out / "swap.json").write_text("{}")
    with pytest.raises(DataError, match=message):
        swap(chains, ["a", "b"], data, "wer", out)
    assert [path.name for path in out.iterdir()] == ["swap.json"], "what was there before stays"


def test_an_interrupted_run_leaves_no_older_verdict(
    chains: list[LegoNN], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write(tmp_path / "data"), tmp_path / "out"
    out.mkdir()
    (out / "swap.json").write_text("{}")
    monkeypatch.setattr("espnet2_legonn.studies.swap.decode_table", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        swap(chains, ["a", "b"], data, "wer", out)
    assert not list(out.rglob("swap.json"))


def test_a_file_is_no_folder(chains: list[LegoNN], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("")
    assert main(["swap", "a", "b", "--data", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert str(tmp_path / "out") in capsys.readouterr().err


def test_labels() -> None:
    assert labels(["exp/seed1/legonn_mt", "exp/seed2/legonn_mt/"]) == ("seed1", "seed2")
    assert labels(["a/wemb.zip", "exp/packs/beam"]) == ("a_wemb.zip", "packs_beam")
    assert labels(["a/exp/x", "b/c/exp/x"]) == ("1_exp_x", "2_exp_x"), "their answers lie in folders of these names"
    with pytest.raises(ConfigError, match="given twice"):
        labels(["exp/a", "exp/a/"])


def test_swaps_are_kept_beside_the_tables(tmp_path: Path) -> None:
    """A page has the swaps that were made, and those that are on record when their models are gone."""
    found = matrix([[40.0, 36.0], [38.0, 40.0]])
    made, kept = tmp_path / "exp" / "swap_seeds", tmp_path / "results"
    made.mkdir(parents=True)
    (made / "swap.json").write_text(json.dumps(found.as_json(1.5)))
    places = [f"Seeds, ctc_weight=0={made}", f"Readers={tmp_path / 'exp/swap_readers'}"]
    first = read_swaps(places, kept)
    assert list(first) == ["Seeds, ctc_weight=0"]
    (made / "swap.json").unlink()
    assert read_swaps(places, kept) == first == {"Seeds, ctc_weight=0": json.loads(json.dumps(found.as_json(1.5)))}
    assert [p.name for p in kept.iterdir()] == ["swap_seeds.json"]


def test_all_faults_of_swaps(tmp_path: Path) -> None:
    good, kept = matrix([[40.0, 36.0], [38.0, 40.0]]).as_json(1.5), tmp_path / "results"
    files = {
        "first": good,
        "empty": {},
        "list": [1],
        "short": {**good, "shares": [[100.0]]},
        "jackknife": {**good, "equivalent": True, "jackknife": {"ci": [0.0]}},
        "nan": {**good, "values": [[40.0, float("nan")], [38.0, 40.0]]},
        "good": good,
    }
    for name, told in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "swap.json").write_text(json.dumps(told))
    places = [f"{name}={tmp_path / name}" for name in files]
    with pytest.raises(DataError) as caught:
        read_swaps([*places, str(tmp_path / "bare"), f"good={tmp_path / 'other'}", f"x={tmp_path / 'b/good'}"], kept)
    told = str(caught.value)
    assert all(
        f"{name}/swap.json: is not a file of `legonn swap`" in told
        for name in ("empty", "list", "short", "jackknife", "nan")
    )
    assert "shares: not 2 times 2 numbers" in told and "good/swap.json" not in told
    assert f"--swaps {tmp_path / 'bare'}: must be TITLE=DIR" in told
    assert "the title 'good' stands twice" in told and "the folder's name 'good' stands twice" in told
    assert not kept.exists(), "nothing is kept of a call that failed"


def test_own_pairs_that_say_nothing_right_have_no_share() -> None:
    assert shares_table({"x": matrix([[0.0, 0.0], [0.0, 0.0]]).as_json(1.5)})["rows"][0]["cells"] == [None]


@pytest.mark.parametrize(("metric", "share"), [("bleu", 92.5), ("wer", 100 * 40 / 37)])
def test_shares_of_own_pairs(metric: str, share: float) -> None:
    found = matrix([[40.0, 36.0], [38.0, 40.0]], metric)
    table = shares_table({"Seeds": found.as_json(1.5)})
    cell = table["rows"][0]["cells"][0]
    low, high = cell["mean"].ci
    assert cell["mean"].value == pytest.approx(share) and low < share < high
    assert list(cell["seeds"].values()) == [found.shares[0, 1], found.shares[1, 0]]
