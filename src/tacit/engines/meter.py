"""How many tokens this process has generated, whoever asked: no method can forget to report what it spent.

Builds on nothing. ``LocalEngine`` adds to it; the comparison reads it before and after.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Meter:
    """A count that only grows.

    Attributes:
        tokens: generated so far in this process.
    """

    tokens: int = 0


METER = Meter()
