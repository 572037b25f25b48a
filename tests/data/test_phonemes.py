from __future__ import annotations

import builtins
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from espnet2_legonn.data import phonemes
from espnet2_legonn.data.phonemes import Auto, Lexicon, PhonemeReport, Phonemizer, make_backend, phonemize_table
from espnet2_legonn.errors import DataError

NLTK = os.environ.get("NLTK_DATA", "")
needs_nltk = pytest.mark.skipif(not NLTK, reason="set NLTK_DATA=DIR with cmudict and averaged_perceptron_tagger_eng")


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon"
    path.write_text(";;; comment\n# comment\nTHE\tDH AH0\nTHE(2)  DH IY1 # usual\ncat K AE1 T\nit's IH1 T S\n")
    return path


def test_lexicon_uses_the_first_pronunciation(lexicon):
    phonemize = Phonemizer(Lexicon(lexicon))
    report = PhonemeReport()
    assert phonemize("The CAT, it\u2019s zzz!", report) == "DH AH0 K AE1 T IH1 T S <unk>".split()
    assert (report.words, report.phonemes, dict(report.oov)) == (4, 9, {"zzz": 1})


def test_stress_and_word_boundaries(lexicon):
    phonemize = Phonemizer(Lexicon(lexicon), strip_stress=True, word_boundary="<wb>")
    assert phonemize("the cat", PhonemeReport()) == "DH AH <wb> K AE T".split()


def test_table(tmp_path, lexicon):
    (tmp_path / "text").write_text("b cat\na the dog\nc ...\n")
    report = phonemize_table(tmp_path / "text", tmp_path / "text_phn", Phonemizer(Lexicon(lexicon)))
    assert (tmp_path / "text_phn").read_text() == "a DH AH0 <unk>\nb K AE1 T\nc\n"
    assert "OOV as <unk>: 1 words (33.333 %), 1 forms: dog (1)" in str(report)
    assert "1 utterances without phonemes (see `filter`): c" in str(report)


def test_faults(tmp_path, lexicon):
    (tmp_path / "bad").write_text("cat K\ndog\nrat\n")
    with pytest.raises(DataError, match="bad:2: 'dog' has no phonemes\n.*bad:3: 'rat' has no phonemes"):
        Lexicon(tmp_path / "bad")
    (tmp_path / "empty").write_text(";;; nothing\n")
    with pytest.raises(DataError, match="the lexicon is empty"):
        Lexicon(tmp_path / "empty")
    with pytest.raises(DataError, match="none: no such file"):
        Lexicon(tmp_path / "none")
    with pytest.raises(DataError, match="phoneme backend 'espeak': choose one of lexicon, g2p_en, auto"):
        make_backend("espeak")
    with pytest.raises(DataError, match="give the file with --lexicon"):
        make_backend("lexicon")
    with pytest.raises(DataError, match="use --backend auto for lexicon, then g2p_en"):
        make_backend("g2p_en", lexicon)
    (tmp_path / "text").write_text("a der hund\n")
    with pytest.raises(DataError, match="none of 2 words has a pronunciation"):
        phonemize_table(tmp_path / "text", tmp_path / "text_phn", Phonemizer(Lexicon(lexicon)))


def test_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without_nltk(name, *args, **kwargs):
        if name == "nltk":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_nltk)
    with pytest.raises(DataError, match="install the packages g2p_en and nltk, or use --backend lexicon"):
        make_backend("g2p_en")


def test_auto_asks_the_fallback_only_for_what_is_missing(lexicon):
    class Fallback:
        def words(self, text):
            return text.split()

        def pronounce(self, words):
            return [("Q",) if word == "new" else None for word in words]

    report = PhonemeReport()
    assert Phonemizer(Auto(Lexicon(lexicon), Fallback()))("the new thing", report) == ["DH", "AH0", "Q", "<unk>"]
    assert dict(report.oov) == {"thing": 1}


class FakeG2p:
    """What G2pEn uses of g2p_en."""

    def __init__(self, cmu):
        self.cmu = cmu
        self.homograph2features = {"refuse": (["VERB"], ["NOUN"], "V")}
        self.asked = []

    def predict(self, word):
        self.asked.append(word)
        return ["<unk>", *word.upper()]


def fake(monkeypatch, cmu, tag):
    g2p = FakeG2p(cmu)
    monkeypatch.setattr(phonemes, "_load_g2p_en", lambda: (g2p, lambda text: text.replace("2", "two")))
    monkeypatch.setattr(phonemes, "_tagger", lambda: tag)
    return g2p


def test_g2p_dictionary_homographs_and_cache(monkeypatch, caplog):
    g2p = fake(
        monkeypatch, {"i": [["AY1"], ["no"]]}, lambda words: [(w, "VB" if i else "NN") for i, w in enumerate(words)]
    )
    phonemize = Phonemizer(make_backend("auto"))
    report = PhonemeReport()
    assert phonemize("I refuse, na\u00efve 2!", report) == ["AY1", "VERB", *"NAIVE", *"TWO"]
    assert phonemize("refuse two \u043c\u0438\u0440", report) == ["NOUN", *"TWO", "<unk>"]
    assert g2p.asked == ["naive", "two"]  # each word once
    assert dict(report.oov) == {"\u043c\u0438\u0440": 1} and not caplog.records


def test_g2p_without_data_warns_once_and_goes_on(monkeypatch, caplog, tmp_path):
    fake(monkeypatch, {}, None)
    tmp_path.chmod(0o775)
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    phonemize = Phonemizer(make_backend("g2p_en"))
    assert phonemize("i refuse", PhonemeReport()) == ["I", "NOUN"]
    (record,) = caplog.records
    assert "NLTK's cmudict and part-of-speech tagger cannot be used" in record.message
    assert "nltk.downloader" in record.message
    assert f"writable by group or others now: {tmp_path}" in record.message


# g2p_en reads NLTK's folders at import: each state of the folders needs its own interpreter.
SCRIPT = """
import logging, socket, sys
logging.basicConfig(level=logging.WARNING)
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from espnet2_legonn.data.phonemes import PhonemeReport, Phonemizer, make_backend
report = PhonemeReport()
print(" ".join(Phonemizer(make_backend("auto"))(sys.argv[1], report)), dict(report.oov))
"""


def run_g2p(folder: Path, text: str) -> tuple[str, str]:
    # HOME: NLTK also looks there.
    env = os.environ | {"NLTK_DATA": str(folder), "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, text], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


@pytest.mark.slow
def test_without_nltk_data_the_neural_model_works_offline(tmp_path):
    pytest.importorskip("g2p_en")
    out, warnings = run_g2p(tmp_path, "Parliament refuse \u043c\u0438\u0440 21")
    assert out.startswith("P AA1 R L AH0 M AH0 N T ") and out.endswith("{'\u043c\u0438\u0440': 1}")
    assert "<unk> T W EH1 N" in out
    assert warnings.count("NLTK's cmudict and part-of-speech tagger cannot be used") == 1
    assert "python -m nltk.downloader" in warnings


@pytest.mark.slow
@needs_nltk
def test_with_nltk_data_it_is_what_g2p_en_gives():
    text = "I refuse to collect the refuse, it's $5 of na\u00efve zzyzxly"
    out, warnings = run_g2p(Path(NLTK), text)
    assert "NLTK" not in warnings
    from g2p_en import G2p

    theirs = [p for p in G2p()(text) if p not in (" ", ",")]
    assert out.rsplit(" {", 1)[0].split() == theirs
    assert "R IH0 F Y UW1 Z" in out and "R EH1 F Y UW2 Z" in out  # the verb and the noun


@pytest.mark.slow
@needs_nltk
def test_folders_that_nltk_refuses_are_named(tmp_path):
    for kind in ("corpora", "taggers"):
        (tmp_path / kind).mkdir()
        for source in (Path(NLTK) / kind).iterdir():
            (tmp_path / kind / source.name).write_bytes(source.read_bytes())
    tmp_path.chmod(tmp_path.stat().st_mode | stat.S_IWGRP)
    archive = tmp_path / "corpora" / "cmudict.zip"
    archive.chmod(archive.stat().st_mode | stat.S_IWGRP)
    _, warnings = run_g2p(tmp_path, "cat")
    assert f"writable by group or others now: {tmp_path}" in warnings and "cmudict.zip" in warnings
