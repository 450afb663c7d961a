"""The inputs that a model sees: their deviation, norm and mean, which soft prompts start at and are held to.

Builds on torch. Most models read rows of their embedding matrix as they are; some (Gemma) multiply them on the way in,
by the root of the width. Which kind a model is of is measured: by asking its embedding for rows and comparing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

PROBED = 64
"""Rows that are compared."""

ROWS = 8192
"""Rows of a changed embedding that are held at once."""


class Inputs:
    """What an embedding gives for all its tokens.

    Args:
        embedding: the model's; module of token ids, with a ``weight`` [V, d].

    Attributes:
        std: scalar standard deviation.
        norm: mean norm of a row.
        changed: whether rows are not those of the matrix.
    """

    def __init__(self, embedding: Any) -> None:
        self._embedding = embedding
        matrix = embedding.weight
        probe = torch.linspace(0, len(matrix) - 1, PROBED, device=matrix.device).long()
        with torch.no_grad():
            self.changed = not torch.equal(embedding(probe), matrix[probe])
        if not self.changed:
            self.std = float(matrix.float().std())
            self.norm = float(matrix.float().norm(dim=1).mean())
            return
        total, squares, norms = 0.0, 0.0, 0.0
        for rows in self._rows():
            total += float(rows.sum(dtype=torch.float64))
            squares += float(rows.square().sum(dtype=torch.float64))
            norms += float(rows.norm(dim=1).sum(dtype=torch.float64))
        count = matrix.numel()
        self.std = max(0.0, (squares - total**2 / count) / (count - 1)) ** 0.5
        self.norm = norms / len(matrix)

    def mean(self) -> Tensor:
        """Mean row [d], float32."""
        matrix = self._embedding.weight
        if not self.changed:
            mean: Tensor = matrix.float().mean(0)
            return mean
        sums = torch.zeros(matrix.shape[1], dtype=torch.float64, device=matrix.device)
        for rows in self._rows():
            sums += rows.sum(0, dtype=torch.float64)
        return (sums / len(matrix)).float()

    def _rows(self) -> Iterator[Tensor]:
        for ids in torch.arange(len(self._embedding.weight), device=self._embedding.weight.device).split(ROWS):
            with torch.no_grad():
                yield self._embedding(ids).float()
