"""``legonn adopt``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """The pack's marginals are the source's own softmax over its tokens, in our order. No weight changes.
--data measures how many slots a token takes there, which is half of the contract; without it nothing is known of it.

example: legonn adopt exp/asr_train_asr_e_branchformer_raw_en_bpe500 -o packs/asr --data dump/raw/dev
         legonn adopt models/wav2vec2-base-960h -o packs/wav2vec2 --data dump/raw/dev --language en"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    option = parser.add_argument
    option("source", type=Path, help="ASR experiment of ESPnet, packed zip of its zoo, or folder of a *ForCTC model")
    option("-o", "--out", type=Path, required=True, metavar="PACK", help="folder of the pack")
    option("--decoder", action="store_true", help="the decoder of an ESPnet experiment, too: a baseline")
    option("--data", type=Path, metavar="DIR", help="wav.scp and text: slots per token are measured there")
    option("--model", metavar="FILE", help="weights in an experiment (default: valid.acc.ave.pth or another average)")
    option("--bpemodel", type=Path, metavar="FILE", help="sentencepiece model, where the config's is not there")
    option("--language", help="of the text, ISO code")
    option("--normalization", help="how the text was treated, as `data.cli normalize` calls it (lc.rm)")
    option("--license", help="of the source, for the card")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Adopt, measure, write; say what differs from the source."""
    from espnet2_legonn.adopt.adopt import adopt
    from espnet2_legonn.adopt.source import AdoptOptions
    from espnet2_legonn.model.module import produced

    options = AdoptOptions(args.model, args.bpemodel, args.language, args.normalization, args.decoder)
    done = adopt(args.source, args.out, options, args.data, args.license)
    for note in done.notes:
        print(f"note: {note}")
    seen = produced(done.chain.first)
    ratio = None if seen is None else seen.slots_per_token
    known = "not measured (--data DIR)" if ratio is None else f"{ratio:.2f}"
    parameters = sum(p.numel() for p in done.chain.parameters())
    print(f"{args.out}  {done.origin}  {parameters:,} parameters, 0 updates  slots per token: {known}")
    then = f"transcribe --model {args.out} SOUND" if args.decoder else f"check {args.out} DECODER"
    print(f"next: legonn {then}")
    return 0
