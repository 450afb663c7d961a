"""What nearly every test imports, imported without looking for garbage in between, which would double the time.

Builds on what a run of tacit needs. conftest imports it before everything else, and so does the process that commands
are forked from (commands.py).
"""

from __future__ import annotations

import gc
import importlib.util
import os

NAMES = ("rich.live", "rich.table", "transformers.models.qwen2.modeling_qwen2")
NAMES += ("tacit.cli.main", "tacit.experiments.run", "tacit.server.run")
NAMES += ("pytest",)  # the main module of whoever starts a command, which is imported for it too
if importlib.util.find_spec("numba"):
    NAMES += ("tacit.model.fused.model",)

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores: more threads only fight each other
gc.disable()
for name in NAMES:
    importlib.import_module(name)


def done() -> None:
    """Look for garbage from now on, but not among what is there by now, which stays."""
    gc.freeze()
    gc.enable()
