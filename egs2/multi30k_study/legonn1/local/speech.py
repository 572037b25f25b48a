"""Captions of the study as speech: espeak-ng by the demo's voices, test speakers heard nowhere else.

example: python3 local/speech.py dump/raw/train_fr_4500 data/train_speech_4500 --voices train_asr
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import DataError, command

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "mini_legonn" / "legonn1" / "local"))


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Write wav.scp, text, utt2spk, spk2utt; what is there already is not said again.

    Of source texts that are read aloud, ``text_translation`` has the translations.
    """
    from mini.dirs import write_speakers, write_table
    from mini.speech import LANGUAGE, VOICES, SynthesiserMissing, plan, render_all

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a data directory whose text is read aloud")
    parser.add_argument("--read", default="text", metavar="TABLE", help="read this table of it (default: text)")
    parser.add_argument("--language", default=LANGUAGE, help=f"of the synthesiser (default: {LANGUAGE})")
    parser.add_argument("out", type=Path)
    parser.add_argument("--voices", required=True, choices=sorted(VOICES), help="whose speakers of the demo")
    parser.add_argument("--first", type=int, help="the first N sentences only")
    args = parser.parse_args(cmd)
    texts = list(read_table(args.source / args.read).values())[: args.first]
    said = plan(args.voices, texts, 0)
    utterances = [dataclasses.replace(u, voice=u.voice.replace(LANGUAGE, args.language)) for u in said]
    wavs = {u.id: args.out / "flac" / f"{u.id}.flac" for u in utterances}
    try:
        render_all([u for u in utterances if not wavs[u.id].is_file()], args.out / "flac", 1)
    except SynthesiserMissing as error:
        raise DataError(str(error)) from None
    write_table(args.out, "wav.scp", wavs)
    write_table(args.out, "text", {u.id: u.text for u in utterances})
    if args.read != "text":
        texts = list(read_table(args.source / "text").values())
        numbers = {u.id: int(u.id.rpartition("-")[2]) for u in utterances}
        write_table(args.out, "text_translation", {uid: texts[number] for uid, number in numbers.items()})
    write_speakers(args.out, {u.id: u.speaker for u in utterances})
    print(f"{args.out}: {len(utterances)} utterances of {len({u.speaker for u in utterances})} speakers")


if __name__ == "__main__":
    sys.exit(main())
