"""The demo's grammar lies beside its recipe, not in the package: put its folder on the path."""

from __future__ import annotations

import sys
from pathlib import Path

LOCAL = Path(__file__).resolve().parents[2] / "egs2" / "mini_legonn" / "legonn1" / "local"
sys.path.insert(0, str(LOCAL))
