"""What fewer bits, and fewer tokens of each slot, cost a chain's score.

    python -m benchmarks.accuracy EXP DATA --metric bleu --dtypes int8 --top_k 1 2 4 8 16 32

EXP is an experiment or a pack, DATA a directory of a test set, such as dump/raw/test. The figures go to
benchmarks/accuracy/<name>.json, from which `python -m benchmarks --docs` prints them.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import jiwer
import sacrebleu
import torch

from benchmarks import pages
from espnet2_legonn import LegoNN
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.inference.decode import column_of, decode_table, read_inputs
from espnet2_legonn.model.parts.wemb import WeightedEmbedding
from espnet2_legonn.search.options import BeamOptions


def score(metric: str, references: list[str], texts: list[str]) -> float:
    """BLEU, or words wrong in percent."""
    if metric == "bleu":
        return float(sacrebleu.corpus_bleu(texts, [references]).score)
    return float(100 * jiwer.wer(references, texts))


def main() -> None:
    """Decode in every way, write, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chain", type=Path, metavar="EXP")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--name", required=True, help="of the row")
    parser.add_argument("--metric", default="bleu", choices=["bleu", "wer"])
    parser.add_argument("--dtypes", nargs="*", default=["int8"])
    parser.add_argument("--top_k", nargs="*", type=int, default=[])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    chain = LegoNN.from_pretrained(args.chain)
    inputs, texts = read_inputs(args.data / column_of(chain).table), read_table(args.data / "text")
    tables = [m for m in chain.modules() if isinstance(m, WeightedEmbedding)]
    ways = [("float32", None), *((dtype, None) for dtype in args.dtypes), *(("float32", k) for k in args.top_k)]
    found: list[dict[str, object]] = []
    first: dict[str, str] = {}
    for dtype, top_k in ways:
        for table in tables:
            table.top_k = top_k
        start = time.process_time()
        answers = decode_table(chain, inputs, BeamOptions(dtype=dtype), 64).nbest[0].text
        took = time.process_time() - start
        first = first or answers
        found.append(
            {
                "dtype": dtype,
                "top_k": top_k,
                "score": round(score(args.metric, [texts[uid] for uid in inputs], [answers[uid] for uid in inputs]), 2),
                "same": round(sum(answers[uid] == first[uid] for uid in inputs) / len(inputs), 4),
                "seconds": round(took, 1),
            }
        )
        print(found[-1], flush=True)
    pages.ACCURACY.mkdir(exist_ok=True)
    path = pages.ACCURACY / f"{args.name.replace(' ', '_').replace(',', '')}.json"
    about = {"name": args.name, "metric": args.metric, "inputs": len(inputs), "ways": found}
    path.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
