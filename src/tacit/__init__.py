"""Tacit: a frozen language model that learns from its own experience.

Experiential latent memories (arXiv 2606.17803): each problem leaves a soft prompt of about twenty vectors, trained with
no labels. It is stored apart from all others, and found again for the next similar problem. Start at ``tacit.agent``.
What a program needs first is to be had from here, and is imported when it is asked for: ``import tacit`` is quick.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tacit.agent import Agent
    from tacit.bank import open_bank
    from tacit.model.backbone import Backbone
    from tacit.problem import Problem
    from tacit.registry import register
    from tacit.tasks.base import Task

__all__ = ["Agent", "Backbone", "Problem", "Task", "__version__", "open_bank", "register"]
__version__ = "0.1.0"

# A memory learned alone and one learned among others have the same bits only if a matrix product rounds a row the same
# way whatever rows are beside it. On some processors Intel's library (torch's on x86) promises that in its strict mode
# alone, and reads this at its first product. It costs nothing measurable (docs/log/).
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

_HOMES = {
    "Agent": "tacit.agent",
    "Backbone": "tacit.model.backbone",
    "Problem": "tacit.problem",
    "Task": "tacit.tasks.base",
    "open_bank": "tacit.bank",
    "register": "tacit.registry",
}

if not TYPE_CHECKING:  # to a type checker a name that is not there is to stay an error

    def __getattr__(name):
        """A public name, from where it lives."""
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module 'tacit' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__():
        return sorted({*globals(), *__all__})
