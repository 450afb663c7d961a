"""Models on the CPU: compiled passes, forward and backward.

Builds on lanes and numba (the extra ``fast``), without which everything runs through PyTorch. From the
ground up: lanes (registers), loops (between the products of rows), forward (generating), model (weights and calls) and
gradient (of a group of rollouts; also how a reward model reads one). A small model's pass is one call; of a larger one
there are loops between PyTorch's products (woven).
"""

from __future__ import annotations

from functools import cache


@cache
def available() -> bool:
    """Whether numba is installed, works, and finds PyTorch's matrix product."""
    try:
        from tacit.model.fused.lanes import blas
    except ImportError:  # numba is missing, or does not go with the numpy that is there
        return False
    return blas() is not None
