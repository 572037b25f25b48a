"""Memory does not grow with the number of lines, and streams say what dictionaries said."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from espnet2_legonn.data import tables, vocab
from espnet2_legonn.data.datadir import validate
from espnet2_legonn.data.dirops import combine, copy
from espnet2_legonn.data.filter import Limits, filter_dir
from espnet2_legonn.data.perturb import perturb
from espnet2_legonn.data.tables import Made, Row, Table, in_order, joined, ordered, read_rows, read_table, write_table
from espnet2_legonn.data.text import normalize_table
from espnet2_legonn.data.vocab_report import Lengths, Text, fit
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.files import lines
from espnet2_legonn.recipes.jobs import split_keys
from espnet2_legonn.scoring import bleu, bootstrap, wer
from espnet2_legonn.scoring.trn import write_trn

# Of a few more files: sorting opens some for each power of the number of lines. Held lines would be a megabyte.
BUFFERS = 1 << 16
WORDS = [f"w{i}" for i in range(50)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be held at once is little, so that a few thousand lines are many."""
    for place, name, value in [
        (tables, "IN_MEMORY", 32), (tables, "AT_ONCE", 4), (tables, "TOGETHER", 3), (lines, "BLOCK", 2048),
        (vocab, "WORDS", 32),
        (bootstrap.Units, "MOST", 64), (bootstrap, "_CELLS", 20_000), (bleu, "BATCH", 100), (wer, "BATCH", 100),
        (wer, "SPOOL", 1024),
    ]:  # fmt: skip
        monkeypatch.setattr(place, name, value)


def write(folder: Path, number: int, speech: bool = False, shuffled: bool = False) -> Path:
    """A directory of ``number`` utterances."""
    draw = random.Random(0)
    keys = [f"u{i:06d}" for i in range(number)]
    texts = {key: " ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for key in keys}
    files = {"text": texts, "utt2spk": {key: key[:-1] if speech else key for key in keys}}
    if speech:
        files["segments"] = {key: f"r{key[1:-1]} 0 1.5" for key in keys}
        files["wav.scp"] = {f"r{key[1:-1]}": "x.wav" for key in keys}
        files["reco2dur"] = {f"r{key[1:-1]}": "2" for key in keys}
    else:
        files["src_text"] = {key: " ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for key in keys}
    folder.mkdir()
    for name, rows in files.items():
        written = [f"{key} {value}\n" for key, value in rows.items()]
        if shuffled:
            draw.shuffle(written)
        (folder / name).write_text("".join(written))
    return folder


def vocabulary(folder: Path) -> Vocabulary:
    tokens = ["<blank>", "<unk>", *WORDS, "<sos/eos>"]
    (folder.parent / "tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
    return Vocabulary.from_files(folder.parent / "tokens.txt", "word")


STEPS: dict[str, Callable[[Path, Path], object]] = {
    "validate": lambda source, out: validate(source),
    "copy": lambda source, out: copy(source, out, utt_prefix="p-", spk_prefix="p-"),
    "filter": lambda source, out: filter_dir(source, out, Limits(max_tokens=8)),
    "combine": lambda source, out: combine([source], out),
    "normalize": lambda source, out: normalize_table(source / "text", out / "text", "lc"),
    "words": lambda source, out: vocab.make_word([source / "text"], out),
    "BPE": lambda source, out: vocab.make_bpe([source / "text"], 40, out, model_type="bpe"),
    "coverage": lambda source, out: vocab.measure(vocabulary(source), source / "text"),
    "keys": lambda source, out: split_keys(source / "text", 3, out),
    "WER": lambda source, out: wer.score_error_rate(source / "text", source / "text", utt2spk=source / "utt2spk").write(
        out
    ),
    "trn": lambda source, out: write_trn("wer", [source / "text"], source / "text", out, source / "utt2spk"),
}
TEXTS: dict[str, Callable[[Path, Path], object]] = {
    "fit": lambda source, out: fit(
        vocabulary(source), Text(source / "text", source / "src_text"), Lengths(2, 99, vocabulary(source))
    ),
    "BLEU": lambda source, out: bleu.score_bleu([source / "text"], source / "src_text", tokenize="none"),
}


def peak(step: Callable[[Path, Path], object], source: Path, out: Path) -> int:
    tracemalloc.start()
    try:
        step(source, out)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        *((step, "text") for step in [*STEPS, *TEXTS]),
        *((step, "speech") for step in ("validate", "copy", "filter")),
        *((step, "in another order") for step in ("copy", "filter", "keys", "WER")),
    ],
)
@pytest.mark.usefixtures("small")
def test_memory_does_not_grow_with_lines(tmp_path: Path, step: str, kind: str) -> None:
    """Within a fifth. Sorting whole directories opens more files for each power of the number of lines: less than twice
    the memory for four times as many lines."""
    work, sorting = (STEPS | TEXTS)[step], kind == "in another order" and step in ("copy", "filter")
    sizes = (20, 2000, 8000) if sorting else (20, 500, 2000)
    folders = [write(tmp_path / str(n), n, kind == "speech", kind == "in another order") for n in sizes]
    work(folders[0], tmp_path / "first")  # imports and caches
    little, much = (peak(work, folder, tmp_path / f"{folder.name}-out") for folder in folders[1:])
    assert much <= (2 if sorting else 1.2) * little + BUFFERS, (little, much)


@pytest.mark.usefixtures("small")
def test_any_order_gives_the_same(tmp_path: Path) -> None:
    for speech in (False, True):
        source, mixed = tmp_path / f"a{speech}", tmp_path / f"b{speech}"
        write(source, 300, speech), write(mixed, 300, speech, shuffled=True)
        for name, step in (("copy", STEPS["copy"]), ("filter", STEPS["filter"]), ("combine", STEPS["combine"])):
            outs = [tmp_path / f"{name}{folder.name}" for folder in (source, mixed)]
            for folder, out in zip((source, mixed), outs):
                step(folder, out)
                assert validate(out) == len(read_table(out / "text"))
            files = [{path.name: path.read_bytes() for path in out.iterdir()} for out in outs]
            assert files[0] == files[1], name
    perturb(tmp_path / "bTrue", tmp_path / "sp", ["0.9", "1.0"])
    assert validate(tmp_path / "sp") == 600
    with pytest.raises(DataError, match="'u000000' is also in an earlier source"):
        combine([tmp_path / "aTrue", tmp_path / "bTrue"], tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("number", [0, 1, 31, 32, 33, 1000])
def test_sorting_on_the_disk_is_sorting(number: int) -> None:
    draw = random.Random(number)
    rows = [Row(f"k{draw.randint(0, 300)}", i, "é\U0001f600") for i in range(number)]
    assert list(in_order(rows)) == sorted(rows) and all(type(row) is Row for row in in_order(rows))
    assert list(in_order(sorted(rows))) == sorted(rows)
    pairs = [(row.value, row.key) for row in rows]
    assert list(in_order(pairs)) == sorted(pairs)


def test_joining_is_what_dictionaries_do() -> None:
    draw = random.Random(1)
    for _ in range(200):
        found = [{draw.choice("abcdefgh"): Row("", 0, "") for _ in range(draw.randint(0, 8))} for _ in range(3)]
        found = [{key: Row(key, i, "") for key in table} for i, table in enumerate(found)]
        expected = [[table.get(key) for table in found] for key in sorted({key for table in found for key in table})]
        streams = [iter([table[key] for key in sorted(table)]) for table in found]
        assert list(joined(streams)) == expected


def test_faults_of_a_table_come_at_the_end_and_all(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"c 1\na 2\nc 3\nb/ 4\n\n")
    rows, seen = read_rows(path), []
    with pytest.raises(DataError) as caught:
        seen += [next(rows) for _ in range(4)]
        next(rows)
    assert len(seen) == 4 and len(caught.value.faults) == 3
    assert "t:3: 'c' occurs twice: it repeats line 1" in str(caught.value)
    table = Table(path)
    with pytest.raises(DataError, match="t:3: 'c' occurs twice"):
        ordered(lambda: list(table.rows()))


def test_reading_stops_after_many_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables.Faults, "MOST", 50)
    (tmp_path / "t").write_bytes(b"\n" * 1000)
    with pytest.raises(DataError, match="t:1: no key") as caught:
        read_table(tmp_path / "t")
    assert len(caught.value.faults) == 52 and caught.value.faults[-1].startswith("reading stopped after 50 faults")


@pytest.mark.parametrize("damage", [b"k\xff v\n", b"k v\r\n", b"\xef\xbb\xbfk v\n"])
def test_blocks_say_what_lines_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes) -> None:
    """A file read in blocks, one of which is damaged, has the lines and faults of the plain reader."""
    content = b"".join(b"a%d x\xc3\xa9\xe2\x80\xa8y\n" % i for i in range(50))
    for place in (0, 25, 50):
        cut = place * len(content) // 50
        (tmp_path / "t").write_bytes(content[:cut] + damage + content[cut:] + b"end")
        for size in (1, 64, 1 << 16):
            monkeypatch.setattr(lines, "BLOCK", size)
            with open(tmp_path / "t", "rb") as stream:
                assert list(lines.scan_file(tmp_path / "t")) == list(lines.scan(stream, tmp_path / "t"))


@pytest.mark.parametrize("normalizer", ["identity", "nmt_nfkc"])
@pytest.mark.parametrize("coverage", [1.0, 0.98])
def test_bpe_of_counted_words_is_that_of_lines(tmp_path: Path, normalizer: str, coverage: float) -> None:
    import io

    import sentencepiece

    draw = random.Random(2)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyzäöß", k=draw.randint(1, 8))) for _ in range(200)]
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 15))) for _ in range(300)]
    texts[7] += " <noise> x<noise>y"
    (tmp_path / "t").write_text("".join(f"{text}\n" for text in texts))
    options = {"character_coverage": coverage, "user_defined_symbols": ["<noise>"]}
    kind = {"model_type": "bpe", "normalizer": normalizer}
    vocab.make_bpe([tmp_path / "t"], 150, tmp_path / "v", plain=True, **kind, **options)
    plain = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=plain, vocab_size=150, model_type="bpe", minloglevel=2,
        hard_vocab_limit=False, normalization_rule_name=normalizer, **options,
    )  # fmt: skip
    models = [
        sentencepiece.SentencePieceProcessor(model_proto=data)
        for data in (plain.getvalue(), (tmp_path / "v" / "bpe.model").read_bytes())
    ]
    pieces = [[(m.id_to_piece(i), m.get_score(i)) for i in range(m.get_piece_size())] for m in models]
    assert pieces[0] == pieces[1]


def test_a_table_is_written_over_what_it_is_made_of(tmp_path: Path) -> None:
    write_table(tmp_path / "t", {"a": "1", "b": "2"})
    table = Table(tmp_path / "t")
    assert write_table(tmp_path / "t", Made(lambda: ((key, value * 2) for key, value in table.items()))) == 2
    assert read_table(tmp_path / "t") == {"a": "11", "b": "22"}
