"""An export in the place of a chain: ``--backend onnx`` of commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import CheckpointError, ConfigError, DataError
from espnet2_legonn.export import runner
from espnet2_legonn.search.options import BeamOptions

# Options that the search in numpy does not know.
ELSEWHERE = ("hotwords", "penalty", "lm_file", "lm_train_config", "ngram_file", "ilm_weight")


class Exported:
    """The runner of an export, with what commands ask of ``Speech2Text`` and ``Text2Text``.

    The folder's own ``run.py`` is not used: a folder of somebody else's runs nothing.

    Args:
        folder: of ``legonn export``.
        kind: of its input, ``speech`` or ``tokens``; elsewhere: what to do if it reads something else.

    Raises:
        CheckpointError: every file that is missing or damaged.
        ConfigError: onnxruntime is missing, or options of another backend.
        DataError: it reads something else.
    """

    def __init__(self, folder: str | Path, options: BeamOptions, kind: str, elsewhere: str) -> None:
        if options.dtype != "float32":
            raise ConfigError(f"dtype: {options.dtype}: an export has the dtype of legonn export --dtype; leave it out")
        if asked := [name for name in ELSEWHERE if getattr(options, name)]:
            raise ConfigError(f"{n}: the search of an export has no such scorer; take --backend torch" for n in asked)
        try:
            self.runner, self.options = runner.Runner(folder), options
        except runner.RunnerError as error:
            raise CheckpointError(str(error).splitlines()) from None
        except ImportError:
            raise ConfigError("backend onnx needs onnxruntime: pip install 'espnet2_legonn[onnx]'") from None
        if self.runner.kind != kind:
            raise DataError(f"{folder} reads {self.runner.kind}, not {kind}; {elsewhere}")

    @property
    def fs(self) -> int:
        """Sampling rate in Hz."""
        return int(self.runner.fs)

    @property
    def source(self) -> Vocabulary:
        """Of its texts."""
        first, folder = self.runner.modules[0], self.runner.folder
        about = self.runner.about["vocabs"][first["vocab"]]
        model = folder / about["bpemodel"] if about["bpemodel"] else None
        return Vocabulary.from_files(
            folder / about["tokens"], about["unit"], model, about["language"], about["normalization"]
        )

    def answers(self, inputs: Sequence[Any]) -> list[runner.Result]:
        """All that the chain says of each input; they are decoded as one batch.

        Raises:
            DataError: an input or option that cannot be used.
        """
        try:
            return self.runner.answers(inputs, self.options)
        except runner.RunnerError as error:
            raise DataError(str(error).splitlines()) from None
