"""Switchboard-1, its transcripts and Hub5'00 as the LDC and OpenSLR lay them out; all content is invented."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

FS = 8000
WORDS = (
    "so we moved out west and the garden was full of apples when my brother came home from work that evening"
).split()
# Every kind of markup of the transcripts, and acronyms.
MARKED = (
    "[noise] so um do you [laughter-usually] go to the th[eater]- movies",
    "<b_aside> just a minute <e_aside> i work for IBM [vocalized-noise]",
    "[it'n/isn't] that -[an]y good on the TV's [laughter]",
    "{yuppiedom} is what ammu[n]it- ab[solute]- them_1 said",
    "the BBCs and I B M are A T and T",
)
FREQUENT = "uh-huh"
DICTIONARY = """# invented title line
# a comment
A ey
I ay
IBM ay b iy eh m
BBCs b iy b iy s iy z
TV's t iy v iy z
AM ae m
is ih z
garden g aa r d en
[laughter-usually] y uw zh ax l iy
them_1 dh eh m
"""
GLM = """;; invented mapping rules
* name "invented.glm"
* desc "a few rules of each kind"
* format = 'NIST1'
* max_nrules = '100'
* copy_no_hit = 'T'
* case_sensitive = 'F'
UH-HUH   => %BCACK        / [ ] __ [ ] ;; yes
MM-HM    => %BCACK        / [ ] __ [ ]
UH       => %HESITATION   / [ ] __ [ ]
UM       => %HESITATION   / [ ] __ [ ]
GONNA    => GOING TO      ;; anywhere
[I'LL]   => [I WILL]      / [ ] __ [ ]
OKAY     => OK            / [ ] __ [ ]
EVERY ONE => EVERYONE     / [ ] __ [ ]
NEW      => NUEVO         / __ [ MEXICO]
;; INPUT_DEPENDENT_APPLICATION = "ctm"
[IT'S]   => [{IT'S / IT IS / IT HAS}] / [ ] __ [ ]
"""
LABELS = """;; CATEGORY "0" "" ""
;; LABEL "O" "Overall" "Overall"
;; CATEGORY "1" "Corpus" ""
;; LABEL "en" "CALLHOME" "CALLHOME"
;; LABEL "sw" "SWBD" "SWBD"
;; CATEGORY "2" "Sex" ""
;; LABEL "F" "Female" "Female"
;; LABEL "M" "Male" "Male"
;; CATEGORY "3" "Corpus by sex" ""
;; LABEL "en-F" "CH F" "CALLHOME Female"
;; LABEL "en-M" "CH M" "CALLHOME Male"
;; LABEL "sw-F" "SW F" "SWBD Female"
;; LABEL "sw-M" "SW M" "SWBD Male"
"""
IGNORE = "IGNORE_TIME_SEGMENT_IN_SCORING"
# Text of a call side of eval2000: (start, end, text); starts and ends are whole hundredths also in binary.
SIDE_TEXTS = (
    "WE ARE STARTING THE NEW (%HESITATION) PLAN ON MONDAY",
    IGNORE,
    "(%HESITATION)",
    "IT'S { A / @ } GOOD ((IDEA) <B_ASIDE> (TH-) I THINK",
    "UH-HUH AND THEN WE MOVED OUT WEST",
)


@dataclass(frozen=True)
class Call:
    """A call of Switchboard: number, and the texts of both sides (each text is a segment)."""

    number: int
    sides: tuple[tuple[str, ...], tuple[str, ...]]


def calls(count: int = 6, segments: int = 10, seed: int = 0) -> list[Call]:
    """Calls from number 2001 on: silence between texts, marked texts, a frequent text on every side."""
    rng = np.random.default_rng(seed)

    def side(shift: int) -> tuple[str, ...]:
        texts = []
        for i in range(segments):
            drawn = " ".join(str(w) for w in rng.choice(WORDS, rng.integers(2, 7)))
            special = {0: "[silence]", 2: MARKED[(i + shift) % len(MARKED)], 4: FREQUENT, 6: FREQUENT}
            texts.append(special.get(i, drawn))
        return tuple(texts)

    return [Call(2001 + c, (side(c), side(c + 1))) for c in range(count)]


def tones(texts: Sequence[tuple[float, float, str]], seconds: float, seed: int) -> np.ndarray:
    """A tone for each word, so that there is something to hear."""
    rng = np.random.default_rng(seed)
    samples = 0.01 * rng.standard_normal(round(seconds * FS))
    for start, end, text in texts:
        words = [w for w in text.split() if w != "[silence]"]
        step = int((end - start) * FS) // max(1, len(words))
        for i, word in enumerate(words):
            first = int(start * FS) + i * step
            hz = 200 + zlib.crc32(word.lower().encode()) % 2000
            samples[first : first + step] += 0.3 * np.sin(2 * np.pi * hz * np.arange(step) / FS) * np.hanning(step)
    return samples


def write_sphere(path: Path, sides: Sequence[np.ndarray]) -> Path:
    """Two channels, 8 kHz, mu-law, NIST SPHERE."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.stack(sides, axis=1), FS, format="NIST", subtype="ULAW")
    return path


def write_swbd1(root: Path, made: Sequence[Call]) -> Path:
    """LDC97S62 with transcriptions inside; returns the folder of the transcripts."""
    base = root / "LDC97S62"
    transcripts = base / "transcriptions" / "swb_ms98_transcriptions"
    for index, call in enumerate(made):
        timed = [_timed(texts, index) for texts in call.sides]
        seconds = max(side[-1][1] for side in timed) + 0.25
        disc = base / f"swb1_d{1 + index % 4}" / "data"
        write_sphere(disc / f"sw0{call.number}.sph", [tones(side, seconds, index) for side in timed])
        folder = transcripts / f"{call.number}"[:2] / f"{call.number}"
        folder.mkdir(parents=True)
        for letter, side in zip("AB", timed):
            name = f"sw{call.number}{letter}-ms98-a"
            trans = [f"{name}-{i:04d} {s:.6f} {e:.6f} {t}\n" for i, (s, e, t) in enumerate(side, 1)]
            (folder / f"{name}-trans.text").write_text("".join(trans))
            words = []
            for i, (start, end, text) in enumerate(side, 1):
                step = (end - start) / len(text.split())
                for j, word in enumerate(text.split()):
                    words.append(f"{name}-{i:04d} {start + j * step:.6f} {start + (j + 1) * step:.6f} {word}\n")
            (folder / f"{name}-word.text").write_text("".join(words))
    (transcripts / "sw-ms98-dict.text").write_text(DICTIONARY)
    (base / "docs").mkdir()
    discs = [f"swb1_d{1 + i % 4} sw0{call.number}.sph\n" for i, call in enumerate(made)]
    (base / "docs" / "swb1_all.dvd.tbl").write_text("".join(discs))
    return transcripts


def _timed(texts: Sequence[str], seed: int) -> list[tuple[float, float, str]]:
    """Segments one behind the other without holes, about 0.3 s a word, times in steps of an eighth of a millisecond."""
    rng = np.random.default_rng(seed)
    timed, start = [], 0.0
    for text in texts:
        end = start + round((0.3 * len(text.split()) + rng.uniform(0.2, 0.5)) * FS) / FS
        timed.append((start, end, text))
        start = end
    return timed


def write_eval2000(root: Path, middle: bool = True) -> None:
    """LDC2002S09 and LDC2002T43 with two calls of each kind; `middle`: the folder 2000_hub5_eng_eval_tr is there."""
    speech = root / "LDC2002S09" / "hub5e_00" / "english"
    base = root / "LDC2002T43"
    reference = (base / "2000_hub5_eng_eval_tr" if middle else base) / "reference"
    (reference / "english").mkdir(parents=True)
    pem = [";; partitioned evaluation map\n"]
    stm = [LABELS]
    for index, name in enumerate(("en_9001", "en_9002", "sw_9003", "sw_9004")):
        timed = []
        for channel, sex in zip("AB", "FM"):
            side, start = [], 0.5 if channel == "A" else 0.75
            for text in SIDE_TEXTS:
                end = start + 0.25 * max(2, len(text.split()))
                side.append((start, end, text))
                pem.append(f"{name} {channel} unknown_speaker {start:.2f} {end:.2f}\n")
                label = f"<O,{name[:2]},{sex},{name[:2]}-{sex}>"
                stm.append(f"{name} {channel} {name}_{channel} {start:.2f} {end:.2f} {label}  {text}\n")
                start = end + (0.0 if text == IGNORE else 0.5)
            timed.append(side)
        write_sphere(speech / f"{name}.sph", [tones(side, timed[1][-1][1] + 0.5, index) for side in timed])
        (reference / "english" / f"{name}.txt").write_text(f"# {name}, invented\n")
    (speech / "hub5e_00.pem").write_text("".join(pem))
    (reference / "hub5e00.english.000405.stm").write_text("".join(stm))
    (reference / "en20000405_hub5.glm").write_text(GLM)


def write_corpus(root: Path, count: int = 6, segments: int = 10) -> Path:
    """All of SWBD=DIR."""
    write_swbd1(root, calls(count, segments))
    write_eval2000(root)
    return root
