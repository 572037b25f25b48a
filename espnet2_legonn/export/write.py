"""A chain in a folder for those who run it without PyTorch: graphs, vocabularies, ``run.py``, ``export.json``."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_legonn.data.spm import rebuilt
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.export import graphs, runner, search
from espnet2_legonn.export.graphs import Graph
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.description import ModuleConfig
from espnet2_legonn.model.module import DecoderModule, Module, consumed, produced
from espnet2_legonn.model.parts.features import FeaturesInput
from espnet2_legonn.model.parts.ingestor import Ingestor
from espnet2_legonn.model.parts.speech import SpeechInput
from espnet2_legonn.model.parts.tokens import TokenInput
from espnet2_legonn.model.transformer import CrossTransformer
from espnet2_legonn.packs.files import replacing
from espnet2_legonn.version import __version__

PROGRAM, DTYPES = "run.py", ("float32", "int8")
# Values of a row that share a scale in int8.
BLOCK = 32
_NEEDED = ("onnx", "onnxruntime")
_READ = (TokenInput, SpeechInput, FeaturesInput, Ingestor)


def write(chain: Chain, folder: str | Path, dtype: str = "float32") -> Path:
    """Write a chain for the runner; the folder appears whole or not at all.

    Args:
        folder: is replaced if it holds an export and nothing else.
        dtype: of products: ``float32``, or ``int8`` (see ``quantized``).

    Raises:
        ConfigError: parts that cannot be exported, each with its module; a package is missing.
        FileExistsError: the folder holds something else.
    """
    folder = Path(folder)
    require_exportable(chain)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    with replacing(folder, is_export, "export of legonn") as new:
        _write_vocabs(chain, new)
        readers = [*list(chain)[1:], None]
        modules = [
            _write_module(config, module, reader, new, dtype)
            for config, module, reader in zip(chain.configs, chain, readers)
        ]
        (new / PROGRAM).write_text(program(), encoding="utf-8")
        (new / PROGRAM).chmod(0o755)
        vocabs = {
            name: {
                "tokens": f"{name}.tokens.txt",
                "bpemodel": f"{name}.bpe.model" if vocab.bpemodel else None,
                "unit": vocab.unit,
                "language": vocab.language,
                "normalization": vocab.normalization,
                "sha256": vocab.sha256,
            }
            for name, vocab in chain.vocabs.items()
        }
        choice = None if chain.search is None else dataclasses.asdict(chain.search)
        files = {path.name: sha256_of(path) for path in sorted(new.iterdir())}
        about = {"format": runner.FORMAT, "package": __version__, "dtype": dtype, "modules": modules}
        about |= {"vocabs": vocabs, "search": choice, "files": files}
        text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
        (new / runner.MANIFEST).write_text(text, encoding="utf-8")
    return folder


def is_export(folder: Path) -> bool:
    """Whether there is nothing but an export, or nothing at all."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir() if path.name != "__pycache__"}
    try:
        listed = json.loads((folder / runner.MANIFEST).read_text(encoding="utf-8"))["files"]
        return names <= {runner.MANIFEST, *listed}
    except (OSError, ValueError, LookupError, TypeError):
        return not names


def require_exportable(chain: Chain) -> None:
    """Whether there is a way to export all parts, as far as that is known before it is tried.

    Raises:
        ConfigError: every part that cannot be exported; packages that are missing.
    """
    faults = []
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        faults.append(f"{', '.join(missing)}: needed to export; pip install 'espnet2_legonn[onnx]'")
    first, last = chain.first, chain.last
    if not isinstance(first.input, _READ):
        faults.append(
            f"{chain.names[0]}.input: {first.config.input.type}: the runner reads texts, speech, features and "
            "distributions; decode this chain with PyTorch, or export the modules behind it"
        )
    if isinstance(last, DecoderModule) and type(last.body) is not CrossTransformer:
        faults.append(
            f"{chain.names[-1]}.body: {last.config.body.type}: of decoders, only transformer_decoder has a graph for a "
            "step; decode this chain with PyTorch, or export the modules before it"
        )
    for name, vocab in chain.vocabs.items():
        if vocab.tokenizer is not None:
            faults.append(f"vocabs.{name}: the runner splits no texts with a tokenizer.json; decode with PyTorch")
    if last.ports[1].vocab is None:
        faults.append(f"{chain.names[-1]} writes hidden states, no text; add the module that reads them")
    if faults:
        raise ConfigError(faults)


def program() -> str:
    """The runner and its search as one file that needs no other of ours."""
    head, *parts = (Path(str(module.__file__)).read_text(encoding="utf-8") for module in (runner, search))
    lines = head.splitlines(keepends=True)
    own = next(node for node in ast.parse(head).body if isinstance(node, ast.ImportFrom) and _is_ours(node))
    middle = [_without_head(part) for part in parts]
    return "".join([*lines[: own.lineno - 1], *middle, *lines[own.end_lineno :]])


def _is_ours(node: ast.ImportFrom) -> bool:
    return (node.module or "").startswith("espnet2_legonn")


def _without_head(source: str) -> str:
    """Without docstring and future statement, which only stand at the beginning of a file."""
    body = ast.parse(source).body
    future = next(node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__")
    return "".join(source.splitlines(keepends=True)[future.end_lineno :]).lstrip("\n")


def _write_vocabs(chain: Chain, folder: Path) -> None:
    for name, vocab in chain.vocabs.items():
        (folder / f"{name}.tokens.txt").write_text("".join(f"{t}\n" for t in vocab.tokens), encoding="utf-8")
        if vocab.bpemodel:
            model = vocab.bpemodel if vocab.merges else rebuilt(vocab.bpemodel)
            (folder / f"{name}.bpe.model").write_bytes(model)


def _write_module(config: ModuleConfig, module: Module, reader: Module | None, folder: Path, dtype: str) -> dict:
    """Graphs of a module, and its entry of export.json."""
    copied, name, part = graphs.twin(module), config.name, module.input
    made: dict[str, Graph] = {}
    if isinstance(copied, DecoderModule):
        made[f"{name}.start.onnx"], made[f"{name}.step.onnx"] = graphs.decoder_graphs(copied)
    else:
        made[f"{name}.onnx"] = graphs.encoder_graph(copied)
    for file, graph in made.items():
        _write_graph(graph, folder / file, f"module {name}{_strangers(module)}", dtype)
    ports = [produced(module), None if reader is None else consumed(reader)]
    entry: dict[str, Any] = {
        "name": name,
        "reads": module.ports[0].kind,
        "writes": module.ports[1].kind,
        "vocab": config.source_vocab,
        "target": config.target_vocab,
        "collapse": part.collapse_slots,
        "grounded": getattr(ports[0], "grounded", None),
        "longest": min((port.longest for port in ports if port and port.longest), default=None),
        "graphs": list(made),
        "fs": None,
    }
    if isinstance(part, SpeechInput):
        mel = part.features.mel
        arrays = {"window": mel.spectrogram.window, "filters": mel.mel_scale.fb}
        entry |= {"fs": part.fs, "hop": part.features.hop, "filters": f"{name}.filters.npz"}
        np.savez(folder / entry["filters"], **{key: x.cpu().double().numpy() for key, x in arrays.items()})
    return entry


def _strangers(module: Module) -> str:
    """Parts that this package does not bring, for messages."""
    found = [
        f"{name} {getattr(module.config, name, None) and getattr(module.config, name).type}"
        for name in ("input", "body", "interface")
        if (part := getattr(module, name, None)) is not None and not type(part).__module__.startswith("espnet2_legonn.")
    ]
    return f" with {', '.join(found)} of your own" if found else ""


def _write_graph(graph: Graph, path: Path, where: str, dtype: str) -> None:
    """Trace, fold what is constant, compare with PyTorch, and convert.

    Raises:
        ConfigError: it cannot be traced, or the trace does not hold for other sizes.
    """
    graphs.write(graph, path, where)
    if faults := graphs.differences(graph, _folded(path)):
        raise ConfigError(
            f"{where}: {fault}; a graph cannot hold sizes or branches that follow from values: decode this chain with "
            "PyTorch"
            for fault in faults
        )
    _strip(path)
    if dtype == "int8":
        quantize(path)


def _folded(path: Path) -> Any:
    """A session of the graph, which takes its place with everything constant computed."""
    import onnxruntime

    options, folded = onnxruntime.SessionOptions(), path.with_suffix(".folded")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    folded.replace(path)
    return session


def _strip(path: Path) -> None:
    """Leave out where in which file each node comes from: paths of the machine that exported."""
    import onnx

    model = onnx.load(path)
    for node in (model, model.graph, *_nodes(model.graph)):
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.save(model, path)


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    yield from (*graph.input, *graph.output, *graph.value_info)


def quantize(path: Path) -> None:
    """Products with weights: weights in 8 bits and a scale for each block of a column, inputs likewise for rows.

    ``MatMulInteger`` of onnxruntime's dynamic quantisation has one scale for the inputs of a whole batch, so that an
    answer would depend on its neighbours; ``MatMulNBits`` has one for each block of a row.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        tensor = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if tensor is None or len(tensor.dims) != 2:
            continue
        values, scales = in_blocks(numpy_helper.to_array(tensor))
        names = [f"{tensor.name}.int8", f"{tensor.name}.scales"]
        if not any(kept.name == names[0] for kept in model.graph.initializer):
            pair = (numpy_helper.from_array(array, name) for array, name in zip((values, scales), names))
            model.graph.initializer.extend(pair)
        given, made, name = node.input[0], list(node.output), node.name
        sizes = dict(zip("KN", tensor.dims))
        new = helper.make_node(
            "MatMulNBits", [given, *names], made, name, domain="com.microsoft", bits=8, block_size=BLOCK,
            accuracy_level=4, **sizes,
        )  # fmt: skip
        node.CopyFrom(new)
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    if not any(opset.domain == "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)


def in_blocks(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, N) to 8 bits around 128 (N, blocks, BLOCK) and their scales (N * blocks,)."""
    columns = np.pad(weight.T, ((0, 0), (0, -len(weight) % BLOCK))).reshape(weight.shape[1], -1, BLOCK)
    scales = np.maximum(np.abs(columns).max(-1) / 127, np.finfo(np.float32).tiny)
    values = np.rint(columns / scales[..., None]) + 128
    return values.astype(np.uint8), scales.astype(np.float32).ravel()
