"""LegoNN in the class choices of ESPnet's own tasks, by their names on the command line.

===========  =============================  ===========================================
choice       names                          tasks
===========  =============================  ===========================================
--encoder    legonn                         asr, st: a CTC layer grounds the slots
--encoder    legonn_wemb, legonn_beam_conv  asr: only its model lends the encoder its CTC layer
--encoder    legonn_chain                   asr: modules that are trained already (``stock_chain.py``)
--decoder    legonn                         asr, st, mt
--decoder    legonn_chain                   asr: as the encoder
--frontend   legonn_waves                   asr: as the encoder
--scheduler  inverse_sqrt                   all
===========  =============================  ===========================================

Not in mt: its model has no CTC, nothing would ground the slots. Several vocabularies, chains, plugging and
frozen modules need the LegoNN task, which ESPnet-EZ and the Lightning trainer get to know as ``legonn``.
"""

from __future__ import annotations

import logging

from espnet2_legonn.training.compat import load
from espnet2_legonn.training.schedulers import add_schedulers
from espnet2_legonn.training.stock import BeamConvEncoder, LegoNNDecoder, LegoNNEncoder, WEmbEncoder
from espnet2_legonn.training.stock_chain import CHAIN, WAVES, ChainDecoder, ChainEncoder, WaveFrontend

ENCODERS = {
    "asr": {"legonn": LegoNNEncoder, "legonn_wemb": WEmbEncoder, "legonn_beam_conv": BeamConvEncoder},
    "st": {"legonn": LegoNNEncoder},
}
TASKS = ("asr", "st", "mt")
# Where a whole task can be named: module and dictionary.
TASK_TABLES = {"espnetez.task": "TASK_CLASSES", "espnet2.train.lightning_espnet_model": "task_choices"}


def register_classes(*tasks: str) -> None:
    """Add encoders, decoder and scheduler to these of the tasks ``asr``, ``st``, ``mt``."""
    add_schedulers()
    for task in tasks:
        module = load(f"espnet2.tasks.{task}")
        module.encoder_choices.classes.update(ENCODERS.get(task, {}))
        module.decoder_choices.classes["legonn"] = LegoNNDecoder
        if task == "asr":
            module.frontend_choices.classes[WAVES] = WaveFrontend
            module.encoder_choices.classes[CHAIN] = ChainEncoder
            module.decoder_choices.classes[CHAIN] = ChainDecoder


def register() -> None:
    """Add everything; to ESPnet-EZ and Lightning only if they can be imported. May be called again."""
    from espnet2_legonn.training.task import LegoNNTask

    register_classes(*TASKS)
    for name, table in TASK_TABLES.items():
        try:
            module = load(name)
        except ImportError as error:  # an extra of ESPnet's that is not installed
            logging.debug("task legonn is not known to %s: %s", name, error)
        else:
            getattr(module, table)["legonn"] = LegoNNTask
