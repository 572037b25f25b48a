"""Time and memory of data preparation and scoring over the size of a corpus, each step in a process of its own.

    make bench-scale                              100,000 to a million lines
    python -m benchmarks.scale --lines 10000000   another size

Prints a table, and writes the figures (scale.json) to benchmarks/scale and their curves to docs/images/scale.svg.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import pages, process

DATA, SCORE = "-m espnet2_legonn.data.cli", "-m espnet2_legonn.bin.legonn_score score"
SPLIT = """import sys, pathlib
from espnet2_legonn.recipes.jobs import split_keys
split_keys(pathlib.Path(sys.argv[1]), 4, pathlib.Path(sys.argv[2]))"""
OTHERS = """import sys
texts = [[line.rstrip("\\n").partition(" ")[2] for line in open(path)] for path in sys.argv[2:]]
if sys.argv[1] == "jiwer":
    import jiwer
    print(jiwer.wer(*texts))
else:
    import sacrebleu
    print(sacrebleu.corpus_bleu(texts[1], texts[:1]))"""
# Words after `python`; {} is the folder.
STEPS = {
    "validate": f"{DATA} validate {{}}/in".split(),
    "copy": f"{DATA} copy {{}}/in {{}}/copy".split(),
    "filter": f"{DATA} filter {{}}/in {{}}/filter --max_tokens 18 --max_ratio 1.5".split(),
    "vocabulary, words": f"{DATA} vocab {{}}/words {{}}/in/text --unit word".split(),
    "vocabulary, BPE": f"{DATA} vocab {{}}/bpe {{}}/in/text --unit bpe --model_type bpe --vocab_size 1000".split(),
    "statistics, keys": ["-c", SPLIT, "{}/in/text", "{}/keys"],
    "WER": f"{SCORE} --metric wer --ref {{}}/in/text --hyp {{}}/in/src_text --outdir {{}}/wer".split(),
    "BLEU, chrF": f"{SCORE} --metric bleu --ref {{}}/in/text --hyp {{}}/in/src_text --outdir {{}}/bleu".split(),
    "(jiwer's WER)": ["-c", OTHERS, "jiwer", "{}/in/text", "{}/in/src_text"],
    "(sacreBLEU's BLEU)": ["-c", OTHERS, "sacrebleu", "{}/in/text", "{}/in/src_text"],
}


def write_corpus(folder: Path, lines: int) -> None:
    """Pairs of 5 to 20 words of 5,000, every tenth word another on the other side; each line its own speaker."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    folder.mkdir(parents=True)
    names = ("src_text", "text", "utt2spk", "spk2utt")
    files = [(folder / name).open("w", encoding="utf-8") for name in names]
    for number in range(lines):
        key = f"line-{number:010d}"
        said = draw.choices(words, k=draw.randint(5, 20))
        other = [word if draw.random() > 0.1 else draw.choice(words) for word in said]
        for file, value in zip(files, (" ".join(said), " ".join(other), key, key)):
            file.write(f"{key} {value}\n")
    for file in files:
        file.close()


def measure(lines: int, steps: list[str], folder: Path) -> Iterator[dict[str, object]]:
    """One row for each step, over a corpus of so many lines."""
    write_corpus(folder / "in", lines)
    for name in steps:
        used = process.run([word.replace("{}", str(folder)) for word in STEPS[name]], folder)
        yield {"step": name, "lines": lines, "seconds": round(used.seconds, 2), "mb": round(used.mb)}


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Memory over lines, a curve for each step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for step in dict.fromkeys(row["step"] for row in rows):
        points = sorted((row["lines"], row["mb"]) for row in rows if row["step"] == step)
        axes.plot(*zip(*points), marker="o", label=step)
    axes.set(xscale="log", xlabel="lines", ylabel="greatest resident memory (MB)", ylim=(0, None))
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--out", type=Path, default=pages.SCALE.parent)
    args = parser.parse_args()
    rows = []
    for lines in args.lines:
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(lines, args.steps, Path(folder)):
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scale.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    plot(rows, pages.DOCS / "images" / "scale.svg")
    print(pages.scale(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
