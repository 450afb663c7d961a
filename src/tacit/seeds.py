"""Seeds derived from what a draw is for: no draw depends on what happened before or beside it.

Builds on nothing. Every random number in Tacit comes from ``derive(seed, problem, purpose, step, rollout, ...)``: a
problem draws the same numbers alone, in a batch of 32, or after a restart.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(*parts: int | str) -> int:
    """A 63-bit seed from any sequence of ints and strings (stable across processes and platforms)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A counter-based generator (Philox) seeded by ``derive(*parts)``."""
    return np.random.Generator(np.random.Philox(key=derive(*parts)))
