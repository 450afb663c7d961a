"""Small models on the CPU: whole passes as compiled calls, forward and backward.

Builds on lanes and numba (the extra ``fast``), without which everything runs through PyTorch. From the
ground up: lanes (registers), loops (between the products of rows), forward (generating), model (weights and calls) and
gradient (of a group of rollouts; also how a reward model reads one). Larger models have steps alone (woven).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from tacit.model.decoder import Decoder
    from tacit.model.fused.model import Fused
    from tacit.model.fused.woven import Woven


@cache
def available() -> bool:
    """Whether numba is installed, works, and finds PyTorch's matrix product."""
    try:
        from tacit.model.fused.lanes import blas
    except ImportError:  # numba is missing, or does not go with the numpy that is there
        return False
    return blas() is not None


def passes(decoder: Decoder | None, width: int) -> Fused | None:
    """Whole passes of a small model of this width, forward and backward."""
    if not _may_be(decoder):
        return None
    from tacit.model.fused.model import Fused

    return Fused(decoder, width) if Fused.supports(decoder, width) else None


def steps(decoder: Decoder | None, width: int) -> Woven | None:
    """Steps of generation of a larger one."""
    if not _may_be(decoder):
        return None
    from tacit.model.fused.woven import Woven

    return Woven(decoder, width) if Woven.supports(decoder, width) else None


def _may_be(decoder: Decoder | None) -> TypeGuard[Decoder]:
    """Whether it is a float32 model on the CPU; for others numba is not imported."""
    if decoder is None or decoder.norm.device.type != "cpu" or decoder.norm.element_size() != 4:
        return False
    return available()
