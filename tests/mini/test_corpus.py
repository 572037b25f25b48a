"""The sets: counts, determinism, disjointness; the speech files and the command."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mini import corpus, dirs, speech

LOCAL = Path(dirs.__file__).parents[1]
SIZES = {"de_en": 1500, "ro_en": 200, "asr": 150, "ted": 150, "valid": 60, "test": 90}
SMALL = ["--de_en", "9", "--ro_en", "6", "--asr", "4", "--ted", "3", "--valid", "2", "--test", "3"]
TASKS = ("de_en", "ro_en", "asr", "ted")
NAMES = {f"{part}_{task}" for part in ("train", "valid", "test") for task in TASKS} - {"test_ted"}
WHEELS = ("espeakng_loader", "soundfile", "soxr")
MISSING = [wheel for wheel in WHEELS if importlib.util.find_spec(wheel) is None]
speaks = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}; {speech.INSTALL}")


@pytest.fixture(scope="module")
def sets() -> dict[str, list[corpus.Triple]]:
    return corpus.write_sets(SIZES, seed=0)


def test_sets_and_counts(sets: dict[str, list[corpus.Triple]]) -> None:
    assert set(sets) == NAMES
    for name, triples in sets.items():
        part, task = name.split("_", 1)
        assert len(triples) == len({t.en for t in triples}) == SIZES[task if part == "train" else part]
        assert all(4 <= len(t.en.split()) <= 12 and t.de and t.ro for t in triples)


def test_held_out_sentences_are_unseen_in_every_language(sets: dict[str, list[corpus.Triple]]) -> None:
    seen: dict[str, str] = {}
    for name, triples in sets.items():
        for triple in triples:
            for key in triple.keys():
                if not (name.startswith("train") and seen.get(key, "train").startswith("train")):
                    assert seen.get(key, name) == name, key
                seen[key] = name


def test_the_second_domain_talks_about_other_things(sets: dict[str, list[corpus.Triple]]) -> None:
    def share(name: str, words: set[str]) -> float:
        return float(np.mean([bool(words & set(t.en.split())) for t in sets[name]]))

    animals = {"dog", "dogs", "cat", "cats", "horse", "horses", "bird", "birds", "mouse", "mice", "sheep"}
    office = {
        "engineer",
        "engineers",
        "doctor",
        "doctors",
        "artist",
        "artists",
        "teacher",
        "teachers",
        "idea",
    }
    assert share("train_ted", office) > 1.3 * share("train_asr", office)
    assert share("train_ted", animals) < share("train_asr", animals)


def test_the_seed_decides_everything() -> None:
    sizes = SIZES | {"de_en": 50}
    assert corpus.write_sets(sizes, seed=3) == corpus.write_sets(sizes, seed=3)
    assert corpus.write_sets(sizes, seed=3) != corpus.write_sets(sizes, seed=4)


def test_sentences_stay_the_same_between_machines(sets: dict[str, list[corpus.Triple]]) -> None:
    """A changed hash means a changed corpus: every committed result of the demo is then out of date."""
    text = "\n".join("|".join(t.keys()) for name in sorted(sets) for t in sets[name][:50])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "6b32be48621dad12"


def test_an_exhausted_grammar_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LONGEST", 3)
    with pytest.raises(ValueError, match="test_de_en: only 0 of 90 different sentences found: ask for fewer"):
        corpus.write_sets(SIZES, seed=0)


def test_lexicon_faults_are_listed_together(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("dog  D AO G\ncat\ndog  D AA G\n", encoding="utf-8")
    both = r"lexicon.txt:2: no phonemes: 'cat'(.|\n)*lexicon.txt:3: 'dog' is given a second time"
    with pytest.raises(ValueError, match=both):
        dirs.read_lexicon(path)
    with pytest.raises(ValueError, match=r"no pronunciation of \['bat'\] \(in 'bat dog'\): add them"):
        dirs.pronounce("bat dog", {"dog": "D AO G"})


def test_voices_of_the_test_set_are_heard_nowhere_else() -> None:
    test = {v.lower() for v in speech.VOICES["test_asr"]}
    others = {v.lower() for name, voices in speech.VOICES.items() if name != "test_asr" for v in voices}
    assert not test & others
    assert len(speech.VOICES["train_asr"]) == len(set(speech.VOICES["train_asr"])) == 16


def test_noise_has_its_level_and_its_seed() -> None:
    clean = np.sin(np.arange(16000) / 10)
    noise = speech.add_noise(clean, 20.0, seed=5) - clean
    assert 10 * np.log10(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(20.0, abs=0.2)
    assert np.array_equal(noise, speech.add_noise(clean, 20.0, seed=5) - clean)


def test_a_missing_synthesiser_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(speech.SynthesiserMissing, match="espeakng_loader.*pip install espeakng-loader"):
        speech.Espeak()


def command(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(LOCAL / "data.py"), "--out", str(out), *SMALL, *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def files(out: Path) -> dict[str, bytes]:
    root = str(out).encode()
    found = sorted(p for p in out.rglob("*") if p.is_file())
    return {str(p.relative_to(out)): p.read_bytes().replace(root, b"") for p in found}


@speaks
def test_command_writes_the_same_bytes_again_and_in_parallel(tmp_path: Path) -> None:
    for out, nj in (("one", "1"), ("two", "2")):
        done = command(tmp_path / out, "--nj", nj)
        assert done.returncode == 0, done.stderr
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert one == two
    assert {name.split("/")[0] for name in one} == NAMES
    assert not [name for name in one if name.endswith(".tmp")]
    again = command(tmp_path / "one")
    assert "train_asr: 4 utterances (already there)" in again.stdout
    assert files(tmp_path / "one") == one


@speaks
def test_speech_directory(tmp_path: Path) -> None:
    import soundfile

    texts = ["the dog sleeps in the garden", "we have already eaten eight apples"]
    utterances = speech.plan("test_asr", texts, seed=0)
    lexicon = dirs.read_lexicon(LOCAL / "lexicon.txt")
    folder = tmp_path / "test_asr"
    assert dirs.write_speech(folder, utterances, lexicon, nj=1)
    names = ("wav.scp", "text", "text_phn")
    table = {f: dict(x.split(" ", 1) for x in (folder / f).read_text().splitlines()) for f in names}
    samples = dict(x.split() for x in (folder / "utt2num_samples").read_text().splitlines())
    assert sorted(table["text"].values()) == sorted(texts)
    for utt, path in table["wav.scp"].items():
        audio, rate = soundfile.read(path)
        assert rate == 16000 and audio.ndim == 1 and len(audio) == int(samples[utt])
        assert 1.0 < len(audio) / rate < 6.0 and 0.02 < np.sqrt(np.mean(audio**2)) < 0.5
        assert table["text_phn"][utt] == dirs.pronounce(table["text"][utt], lexicon)
        assert utt.startswith((folder / "utt2spk").read_text().split(utt + " ")[1].split()[0])
    Path(table["wav.scp"][utterances[0].id]).unlink()
    assert dirs.write_speech(folder, utterances, lexicon, nj=1), "a lost file must be spoken again"
    assert not dirs.write_speech(folder, utterances, lexicon, nj=1)


def test_bad_options_are_refused(tmp_path: Path) -> None:
    done = command(tmp_path, "--asr", "0")
    assert done.returncode == 2 and "'0' is not a whole number above 0" in done.stderr
