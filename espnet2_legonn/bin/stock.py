"""Commands of ESPnet's own tasks that know our encoders, decoders and schedulers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from espnet2_legonn.errors import command


def stock(task: str, module: str, name: str | None = None) -> Callable[..., int]:
    """The ``main`` of a module of ESPnet's, or of a class in it, with our classes registered before.

    Args:
        task: asr or mt.
    """

    @command
    def main(cmd: Sequence[str] | None = None) -> None:
        from espnet2_legonn.training.compat import load
        from espnet2_legonn.training.register import register_classes

        register_classes(task)
        home = load(module)
        (home if name is None else getattr(home, name)).main(cmd=cmd)

    return main
