"""Decode with a trained chain: ``python -m espnet2_legonn.bin.legonn_inference --help`` (ESPnet's option names)."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet2_legonn.errors import ConfigError, command

if TYPE_CHECKING:
    from espnet2_legonn.inference.espnet import Speech2Text, Text2Text

__all__ = ["Speech2Text", "Text2Text", "get_parser", "inference", "main", "parse_args"]

EXAMPLE = """example:
  python -m espnet2_legonn.bin.legonn_inference --config conf/decode.yaml \\
    --legonn_train_config exp/legonn_x/config.yaml --legonn_model_file exp/legonn_x/valid.decoded.ave.pth \\
    --data_path_and_name_and_type dump/raw/test/wav.scp,speech,sound --output_dir exp/legonn_x/decode/test"""


def __getattr__(name: str) -> Any:
    """ESPnet's classes where ESPnet has them; loaded when asked for, since --help needs no torch."""
    if name in ("Speech2Text", "Text2Text"):
        from espnet2_legonn import inference as home

        return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_parser() -> argparse.ArgumentParser:
    """Options; those of the search may also stand in the YAML file given as --config."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", type=Path, help="YAML with options of this command")
    add("--legonn_train_config", type=Path, help="config.yaml of an experiment or of a saved chain")
    add("--legonn_model_file", type=Path, help="weights; by default the best that the folder has")
    add("--data_path_and_name_and_type", action="append", default=[], help="FILE,speech,sound or FILE,src_text,text")
    add("--key_file", type=Path, help="decode these utterances (first column)")
    add("--channel", help="of audio with several: mean, or a number from 0 (default: one channel is needed)")
    add("--output_dir", type=Path)
    add("--ngpu", type=int, default=0)
    add("--batch_size", type=int, default=32, help="utterances decoded together; the answers do not depend on it")
    add("--beam_size", type=int, default=5)
    add(
        "--ctc_weight", type=float,
        help="w in (1 - w) * decoder + w * CTC; 0 is the paper's search; by default what was tuned for the chain, else "
        "0.4 where the last interface has the decoder's tokens, else 0",
    )  # fmt: skip
    add(
        "--length_penalty", type=float,
        help="score = log-probability / length ** length_penalty; by default what was tuned for the chain, else 1.0, "
        "without a decoder 0",
    )  # fmt: skip
    add("--temperature", type=float, default=1.0, help="above 1 the decoder reads flatter distributions")
    add("--penalty", type=float, default=0.0, help="bonus for each token, as ESPnet's")
    add("--lm_train_config", help="config.yaml of ESPnet's lm_train; by default the one beside --lm_file")
    add("--lm_file", help="weights of a language model of ESPnet's over the tokens searched")
    add("--lm_weight", type=float, help="of the language model; by default what was tuned, else 0.3")
    add("--ngram_file", help="an n-gram model as ARPA over the tokens searched (legonn ngram, lmplz)")
    add("--ngram_weight", type=float, help="of the n-gram model; by default what was tuned, else 0.3")
    add("--ilm_weight", type=float, default=0.0, help="of what the decoder writes whatever it reads: taken away")
    add("--hotwords", nargs="+", default=[], help="words and phrases that are expected")
    add("--hotword_weight", type=float, default=1.0, help="what each token of a hotword gains, in nats")
    add("--dtype", default="float32", help="of products: float32, bfloat16, float16, or int8, which is for CPUs")
    add("--maxlenratio", type=float, default=0.0, help="> 0 times the slots, < 0 that many tokens, 0 automatic")
    add("--minlenratio", type=float, default=0.0)
    add("--nbest", type=int, default=1)
    add("--log_level", default="INFO")
    return parser


def parse_args(cmd: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line over YAML over defaults.

    Raises:
        ConfigError: a key of the YAML file is no option, or a required option is missing.
    """
    from espnet2_legonn.files.configs import read_config
    from espnet2_legonn.files.schema import nearest

    parser = get_parser()
    args = parser.parse_args(cmd)
    if args.config is not None:
        options = read_config(args.config) or {}
        if not isinstance(options, dict):
            raise ConfigError(f"{args.config}: must be a mapping of options")
        unknown = [k for k in options if k not in vars(args)]
        if unknown:
            raise ConfigError(f"{args.config}: {k!r} is no option{nearest(k, vars(args))}" for k in unknown)
        parser.set_defaults(**options)
        args = parser.parse_args(cmd)
    missing = [n for n in ("legonn_train_config", "output_dir") if getattr(args, n) is None]
    missing += [] if args.data_path_and_name_and_type else ["data_path_and_name_and_type"]
    if missing:
        raise ConfigError(f"required: {', '.join('--' + n for n in missing)}")
    return args


def inference(args: argparse.Namespace) -> Path:
    """Decode and write ``<n>best_recog/`` and ``interfaces/<module>/`` into the output folder.

    An interrupted decoding of the same goes on where it stopped.
    """
    from espnet2_legonn.files.archive import sha256_of
    from espnet2_legonn.inference.decode import chosen, column_of, decode_windows
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.inference.progress import Progress
    from espnet2_legonn.packs.names import CONFIG
    from espnet2_legonn.recipes.origin import keep_origin, origin
    from espnet2_legonn.recipes.speed import write_speed
    from espnet2_legonn.search.beam import BeamOptions

    if args.legonn_train_config.name != CONFIG:  # its folder is loaded, whatever the file is called
        remedy = f"give the {CONFIG} of an experiment or pack"
        raise ConfigError(f"--legonn_train_config {args.legonn_train_config}: {remedy}")
    device = "cuda" if args.ngpu > 0 else "cpu"
    chain = LegoNN.from_pretrained(args.legonn_train_config.parent, args.legonn_model_file, device)
    options = BeamOptions(**{f.name: getattr(args, f.name) for f in dataclasses.fields(BeamOptions)})
    wanted = column_of(chain).name
    triples = [entry.split(",") for entry in args.data_path_and_name_and_type]
    wrong = [",".join(t) for t in triples if len(t) != 3]
    if wrong:
        raise ConfigError(f"--data_path_and_name_and_type {t}: must be FILE,NAME,TYPE" for t in wrong)
    paths = {name: path for path, name, _ in triples}
    if wanted not in paths:
        raise ConfigError(f"{chain.names[0]} reads {wanted}, but the data are {', '.join(paths)}")
    path = Path(paths[wanted])
    inputs = chosen(path, args.key_file)
    total = sum(1 for _ in inputs.items())
    models = filter(None, (options.lm_file, options.lm_train_config, options.ngram_file))
    record = origin(args.legonn_train_config.parent, args.legonn_model_file, path, [repr(options), *models])
    keys = [] if args.key_file is None else [sha256_of(args.key_file)]
    progress = Progress(args.output_dir, {**record, "more": [args.batch_size, args.channel, args.ngpu, *keys]})
    rest = (progress.inputs, total)
    for window in decode_windows(chain, inputs.items(), options, args.batch_size, (), args.channel, *rest):
        progress.add(window)
    progress.finish()
    keep_origin(args.output_dir, record)
    logging.info("%s", write_speed(args.output_dir, total, progress.seconds, progress.audio))
    return args.output_dir


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Parse, decode; faults of the user are printed without a traceback."""
    args = parse_args(cmd)
    logging.basicConfig(level=args.log_level, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    inference(args)


if __name__ == "__main__":
    sys.exit(main())
