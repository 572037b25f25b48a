"""Kaldi-style data directories of the demo's sets, and the pronunciation lexicon."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from mini.corpus import Triple
from mini.speech import RATE, SNR_DB, Utterance, render_all

STAMP = ".done"


def read_lexicon(path: Path) -> dict[str, str]:
    """Read `word  P H O N E S` lines.

    Raises:
        ValueError: lines without phonemes, words given twice. All are listed with their lines.
    """
    words: dict[str, str] = {}
    faults = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        word, _, phones = line.strip().partition(" ")
        if not phones.strip():
            faults.append(f"{path.name}:{number}: no phonemes: {line!r}: write WORD PHONE PHONE ...")
        elif word in words:
            faults.append(f"{path.name}:{number}: {word!r} is given a second time: remove one line")
        words[word] = " ".join(phones.split())
    if faults:
        raise ValueError("\n".join(faults))
    return words


def pronounce(text: str, lexicon: Mapping[str, str]) -> str:
    """The phonemes of a text, by blanks.

    Raises:
        ValueError: words that the lexicon lacks.
    """
    missing = [w for w in text.split() if w not in lexicon]
    if missing:
        raise ValueError(f"local/lexicon.txt has no pronunciation of {missing} (in {text!r}): add them")
    return " ".join(lexicon[w] for w in text.split())


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a text file under a temporary name, then rename it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.replace(temporary, path)


def write_table(folder: Path, name: str, rows: Mapping[str, object]) -> None:
    """Write `key value` lines sorted by key."""
    write_lines(folder / name, [f"{key} {rows[key]}" for key in sorted(rows)])


def write_speakers(folder: Path, speaker: Mapping[str, str]) -> None:
    """Write utt2spk and spk2utt."""
    utterances: dict[str, list[str]] = {}
    for utt in sorted(speaker):
        utterances.setdefault(speaker[utt], []).append(utt)
    write_table(folder, "utt2spk", speaker)
    write_table(folder, "spk2utt", {spk: " ".join(utts) for spk, utts in utterances.items()})


def write_translations(folder: Path, triples: Sequence[Triple], source: str) -> None:
    """Write src_text, text, utt2spk and spk2utt of a translation set. Every pair is its own speaker."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"{folder.name}-{number:06d}" for number in range(len(triples))]
    write_table(folder, "src_text", {utt: getattr(t, source) for utt, t in zip(ids, triples, strict=True)})
    write_table(folder, "text", {utt: t.en for utt, t in zip(ids, triples, strict=True)})
    write_speakers(folder, {utt: utt for utt in ids})


def write_speech(folder: Path, utterances: Sequence[Utterance], lexicon: Mapping[str, str], nj: int) -> bool:
    """Speak a set into `<folder>/flac` and write wav.scp, text, text_phn, utt2spk, spk2utt, utt2num_samples.

    Returns False if the directory already holds exactly these utterances: nothing is done then.
    """
    phones = {u.id: pronounce(u.text, lexicon) for u in utterances}
    plan = repr([(astuple(u), phones[u.id]) for u in utterances]) + f"{RATE} {SNR_DB}"
    stamp = hashlib.sha256(plan.encode()).hexdigest()
    wavs = {u.id: folder / "flac" / f"{u.id}.flac" for u in utterances}
    done = folder / STAMP
    if done.is_file() and done.read_text().strip() == stamp and all(w.is_file() for w in wavs.values()):
        return False
    done.unlink(missing_ok=True)
    for stale in folder.glob("flac/*.flac*"):
        stale.unlink()
    counts = render_all(utterances, folder / "flac", nj)
    write_table(folder, "wav.scp", wavs)
    write_table(folder, "text", {u.id: u.text for u in utterances})
    write_table(folder, "text_phn", phones)
    write_table(folder, "utt2num_samples", {u.id: n for u, n in zip(utterances, counts, strict=True)})
    write_speakers(folder, {u.id: u.speaker for u in utterances})
    write_lines(done, [stamp])
    return True
