"""Products with frozen weights, as fast as the processor has them, and with the same bits for every row.

Builds on PyTorch. A step of decoding multiplies a few rows by every weight of a model. PyTorch's own product
arranges the weights for the processor's caches anew each time. oneDNN, which comes with PyTorch, arranges them once.
From two rows on, a row's sums there do not depend on how many rows are beside it. The price is a second copy of the
weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

ARRANGED_AT_MOST = 1 << 30
"""Weights of a model that are held twice, 4 GB; of larger ones the second copy may not fit."""
LEAST_ROWS = 16
"""Rows of a product through PyTorch at least: for fewer, matrix libraries take other paths, whose sums differ in the
last bit."""
LEAST_ARRANGED_ROWS = 2
"""The same where weights are arranged: one row has a path of its own."""


def arranged(model: Any) -> bool:
    """Whether the weights of this model are to be arranged: float32 on a CPU, not too many."""
    weights = [weight for weight in model.parameters() if weight.dim() == 2]
    kinds = {(weight.device.type, weight.dtype) for weight in weights}
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and kinds == {("cpu", torch.float32)} and sum(map(Tensor.numel, weights)) <= ARRANGED_AT_MOST


class Product:
    """x @ weight.T + bias; gradients reach x alone.

    Args:
        weight: [out, in], frozen.
        bias: [out] or None.
        arrange: whether to hold the weights a second time, from the first product on.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, arrange: bool) -> None:
        self.weight, self.bias, self._arrange = weight, bias, arrange
        self._arranged: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[N, out] of [N, in]."""
        if not self._arrange:
            return linear(x, self.weight, self.bias)
        if torch.is_grad_enabled() and x.requires_grad:
            made: Tensor = _WithGradient.apply(x, self)  # type: ignore[no-untyped-call]
            return made
        return self._made(x)

    def _made(self, x: Tensor) -> Tensor:
        if self._arranged is None:
            with torch.no_grad():
                self._arranged = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), LEAST_ROWS)
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._arranged, self.bias, "none", [], "")
        return made


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product) -> Tensor:
        ctx.weight = product.weight
        return product._made(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.weight, None
