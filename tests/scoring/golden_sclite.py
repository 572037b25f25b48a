"""Cases scored by real SCTK; its answers lie in golden/*.json, which `python -m tests.scoring.golden_sclite` writes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from legonn_corpora.hub5 import find_hubscr, score_sctk

FOLDER = Path(__file__).resolve().parent / "golden"
# name -> (reference, hypothesis), scored with sclite's -F -D
CASES: dict[str, tuple[str, str]] = {
    "equal": ("we moved out west", "we moved out west"),
    "case does not matter": ("We MOVED out", "we moved OUT"),
    "substitution": ("we moved out west", "we moved out east"),
    "deletion": ("we moved out west", "we out west"),
    "insertion": ("we moved out", "we have moved out"),
    "all at once": ("a b c d e f", "a x c e f g"),
    "costs, not fewest errors": ("a b c d", "b c d e a"),
    "empty reference": ("", "so what"),
    "empty hypothesis": ("so what", ""),
    "both empty": ("", ""),
    "optional, left out": ("we (uh) moved", "we moved"),
    "optional, said": ("we (uh) moved", "we uh moved"),
    "optional, something else said": ("we (uh) moved", "we er moved"),
    "only optional words, empty hypothesis": ("(uh) (um)", ""),
    "only optional words, another said": ("(uh) (um)", "so"),
    "optional in the hypothesis": ("we moved", "we (uh) moved"),
    "alternation, first": ("that is { a / one } good idea", "that is a good idea"),
    "alternation, second": ("that is { a / one } good idea", "that is one good idea"),
    "alternation, neither": ("that is { a / one } good idea", "that is the good idea"),
    "alternation, left out": ("that is { a / one } good idea", "that is good idea"),
    "no word as alternative, left out": ("that is { a / @ } good idea", "that is good idea"),
    "no word as alternative, said": ("that is { a / @ } good idea", "that is a good idea"),
    "no word as alternative, other said": ("that is { a / @ } good idea", "that is the good idea"),
    "longer alternative": ("{ do not / don't } go", "do not go"),
    "shorter alternative": ("{ do not / don't } go", "don't go"),
    "three alternatives": ("{ he's / he is / he has } gone", "he has gone"),
    "alternation in an alternation": ("{ a { b / c } / d } e", "a c e"),
    "alternation at both ends": ("{ a / b } x { c / d }", "b x c"),
    "alternation alone": ("{ a / b }", ""),
    "alternation in the hypothesis": ("he is gone", "{ he's / he is / he has } gone"),
    "alternations on both sides": ("{ a / b c } d", "{ b c / e } d"),
    "optional in an alternation": ("{ (uh) / so } we", "we"),
    "fragment in the reference": ("th- the thing", "this the thing"),
    "fragment that does not fit": ("th- the thing", "so the thing"),
    "fragment in the hypothesis": ("the thing", "the th-"),
    "end of a word": ("-ing thing", "going thing"),
    "optional fragment": ("(wh-) what", "what"),
    "optional fragment, said whole": ("(wh-) what", "when what"),
    "ties: substitution and gap": ("a b", "b a"),
    "ties: long": ("a b c a b c", "c a b b a c"),
}
SPEAKERS = ("en_9001", "sw_9002")
# (start, end, text of the reference, words of the hypothesis as (start, duration, word)); a side for each channel
SIDE_A = (
    (0.5, 3.0, "WE'RE GONNA (%HESITATION) SEE IT'S NEW MEXICO",
     "0.6 .2 we're 0.9 .2 gonna 1.4 .1 see 1.9 .3 it's 2.2 .2 new 2.5 .3 mexico"),
    (3.0, 4.0, "IGNORE_TIME_SEGMENT_IN_SCORING", "3.1 .2 whatever 3.5 .4 ignored"),
    (4.25, 6.0, "IT IS { A / @ } WELL-KNOWN FACT", "4.3 .2 it's 4.6 .2 well-known 5.1 .3 fact"),
    (6.0, 7.0, "(UH-HUH)", "6.2 .2 mm-hm"),
    (7.0, 8.5, "OKAY I'LL COME EVERY ONE", "7.1 .2 ok 7.4 .2 i'll 7.7 .2 come 8.0 .3 everyone"),
)  # fmt: skip
SIDE_B = (
    (0.75, 2.5, "UH-HUH AND THEN (WE-) WE MOVED", "0.9 .2 and 1.2 .2 then 1.5 .1 we 2.4 .2 moved"),
    (2.5, 3.5, "", "2.75 .2 so"),
    (3.5, 5.0, "IT'S GOT TO BE THE UM NEW ONE",
     "3.6 .2 it 3.8 .1 has 4.0 .2 got 4.3 .1 to 4.5 .1 be 4.7 .2 the 5.2 .2 one"),
)  # fmt: skip


def stm_text() -> str:
    """Both sides of both calls, with labels and one segment that is cut out."""
    lines = [';; CATEGORY "0" "" ""', ';; LABEL "O" "Overall" "Overall"']
    lines += [f';; LABEL "{name[:2]}" "{name[:2]}" "corpus"' for name in SPEAKERS]
    for name in SPEAKERS:
        for channel, side in (("A", SIDE_A), ("B", SIDE_B)):
            for start, end, text, _ in side:
                lines.append(f"{name} {channel} {name}_{channel} {start:.2f} {end:.2f} <O,{name[:2]}> {text}".rstrip())
    return "\n".join(lines) + "\n"


def ctm_rows() -> list[tuple[str, str, float, float, str]]:
    """Words of the hypothesis; the second call says nothing on its side B."""
    rows = []
    for name in SPEAKERS:
        for channel, side in (("A", SIDE_A), ("B", SIDE_B)):
            if (name, channel) == ("sw_9002", "B"):
                continue
            for _, _, _, words in side:
                parts = words.split()
                timed = zip(parts[::3], parts[1::3], parts[2::3])
                rows += [(name, channel, float(start), float(duration), word) for start, duration, word in timed]
    return rows


def run_sclite(cases: dict[str, tuple[str, str]]) -> dict[str, list[int]]:
    """Correct, substituted, deleted and inserted words by case, from the tool itself."""
    sclite = find_hubscr().with_name("sclite")  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as folder:
        for side, name in ((0, "ref.trn"), (1, "hyp.trn")):
            lines = [f"{pair[side]} (s-{i:03d})\n" for i, pair in enumerate(cases.values())]
            (Path(folder) / name).write_text("".join(lines))
        command = f"{sclite} -r ref.trn trn -h hyp.trn trn -i rm -F -D -o pra -f 0"
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
        text = (Path(folder) / "hyp.trn.pra").read_text()
    found = re.findall(r"id: \(s-(\d+)\)\s+Scores: \(#C #S #D #I\) ([\d ]+)", text)
    counts = {int(number): [int(c) for c in scores.split()] for number, scores in found}
    return {name: counts[i] for i, name in enumerate(cases)}


def run_hubscr(glm: str) -> dict[str, list[int]]:
    """The same of the calls above, by sclite's utterance id."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ref.stm").write_text(stm_text())
        (folder / "hyp.ctm").write_text("".join(f"{f} {c} {s} {d} {w}\n" for f, c, s, d, w in ctm_rows()))
        (folder / "rules.glm").write_text(glm)
        counts = score_sctk(find_hubscr(), folder / "ref.stm", folder / "hyp.ctm", folder / "rules.glm")  # type: ignore[arg-type]
    return {key: [c.corr, c.sub, c.dele, c.ins] for key, c in counts.items()}


def main() -> None:
    """Score all cases with the installed SCTK and write golden/*.json."""
    from tests.corpora.fixtures_swbd import GLM

    assert find_hubscr() is not None and shutil.which("perl"), "apt-get install sctk"
    FOLDER.mkdir(exist_ok=True)
    for name, found in (("sclite", run_sclite(CASES)), ("hubscr", run_hubscr(GLM))):
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
