#!/usr/bin/env python3
"""Stage 1 of the demo: write data/<set>/ for translation (De-En, Ro-En) and English speech, offline.

python local/data.py --out data --nj 2
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from mini import corpus, dirs, speech  # noqa: E402  (the package lies beside this file)

DEFAULTS = {"de_en": 12000, "ro_en": 1500, "asr": 1000, "ted": 1000, "valid": 200, "test": 300}


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--out", type=Path, default=Path("data"), help="folder of the data directories (default: data)"
    )
    p.add_argument("--seed", type=int, default=0, help="another seed, another corpus (default: 0)")
    p.add_argument("--nj", type=_positive, default=2, help="processes that speak (default: 2)")
    for name, size in DEFAULTS.items():
        what = "utterances or pairs in each set" if name in ("valid", "test") else "size of the training set"
        p.add_argument(f"--{name}", type=_positive, default=size, help=f"{what} (default: {size})")
    return p


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Write all sets and return 0, or 2 with the reason on stderr."""
    args = parser().parse_args(argv)
    sizes = {name: getattr(args, name) for name in DEFAULTS}
    try:
        lexicon = dirs.read_lexicon(HERE / "lexicon.txt")
        sets = corpus.write_sets(sizes, args.seed)
        for spec in corpus.specs(sizes):
            start, folder = time.perf_counter(), args.out / spec.name
            triples, what = sets[spec.name], "sentence pairs"
            if spec.source:
                dirs.write_translations(folder, triples, spec.source)
            else:
                utterances = speech.plan(spec.name, [t.en for t in triples], args.seed)
                spoken = dirs.write_speech(folder, utterances, lexicon, args.nj)
                what = "utterances" if spoken else "utterances (already there)"
            print(f"{folder}: {len(triples)} {what}, {time.perf_counter() - start:.1f} s", flush=True)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"{type(error).__name__}:\n{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
