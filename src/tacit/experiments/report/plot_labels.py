"""Labels in pictures that never lie on one another: beside dots, and in a column beside the ends of lines.

Builds on numpy alone; works in pixels and knows nothing of matplotlib, so that it can be tested.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tacit.experiments.report.figures import Floats

PAD = 2.0
"""Pixels kept free around a label."""


def spread(wanted: Sequence[float], height: float, low: float, high: float) -> list[float]:
    """Centres of labels of one height in a column: as near as may be to those wanted, in their order, not touching.

    Args:
        wanted: centres.
        height: of a label with the space around it.
        low, high: ends of the column; where it is too short for all labels, it is overrun at the top.

    Returns:
        Centres in the order given.
    """
    order = sorted(range(len(wanted)), key=lambda at: (wanted[at], at))
    # Labels that would touch form a block, which lies where its members want to be on the mean.
    blocks: list[tuple[float, int]] = []
    for at in order:
        centre, size = wanted[at], 1
        while blocks and blocks[-1][0] + blocks[-1][1] * height / 2 > centre - size * height / 2:
            before, members = blocks.pop()
            centre = (before * members + centre * size) / (members + size)
            size += members
        blocks.append((centre, size))
    places = [centre + (member - (size - 1) / 2) * height for centre, size in blocks for member in range(size)]
    for at in range(len(places) - 1, -1, -1):  # down from the upper end ...
        limit = high - height / 2 if at == len(places) - 1 else places[at + 1] - height
        places[at] = min(places[at], limit)
    for at in range(len(places)):  # ... and up from the lower one, which holds
        limit = low + height / 2 if at == 0 else places[at - 1] + height
        places[at] = max(places[at], limit)
    found = [0.0] * len(wanted)
    for at, place in zip(order, places, strict=True):
        found[at] = place
    return found


def beside(dots: Floats, sizes: Floats, area: tuple[float, float], radius: float) -> Floats:
    """Lower left corners of labels, each as near to its dot as others leave room.

    Args:
        dots: float64 [n, 2], centres.
        sizes: float64 [n, 2], widths and heights of the labels.
        area: width and height; labels stay within, from (0, 0).
        radius: of a dot; no label covers one.

    Returns:
        float64 [n, 2].
    """
    found = np.zeros((len(dots), 2))
    taken = np.concatenate([dots - radius, dots + radius], axis=1).reshape(-1, 4)
    for at, (dot, size) in enumerate(zip(dots, sizes, strict=True)):
        corners = _candidates(dot, size, area, radius)
        found[at] = corners[_first_free(corners, size, taken, len(dots))]
        taken = np.vstack([taken, [*(found[at] - PAD), *(found[at] + size + PAD)]])
    return found


def _candidates(dot: Floats, size: Floats, area: tuple[float, float], radius: float) -> Floats:
    """Corners around the dot, right first, then the whole area, from near to far."""
    width, height = size
    gap = radius + PAD
    x, y = dot
    near = [
        (x + gap, y - height / 2),
        (x - gap - width, y - height / 2),
        (x - width / 2, y + gap),
        (x - width / 2, y - gap - height),
        (x + gap, y + gap / 2),
        (x + gap, y - gap / 2 - height),
        (x - gap - width, y + gap / 2),
        (x - gap - width, y - gap / 2 - height),
    ]
    across = np.arange(0, max(1.0, area[0] - width), max(4.0, width / 8))
    up = np.arange(0, max(1.0, area[1] - height), max(2.0, height / 3))
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    away = np.maximum(0, np.maximum(grid - dot, dot - (grid + size)))
    # A label far to the side is easier to trace back than one far above.
    far = grid[np.argsort(np.hypot(away[:, 0], 1.5 * away[:, 1]), kind="stable")]
    inside = [corner for corner in near if 0 <= corner[0] <= area[0] - width and 0 <= corner[1] <= area[1] - height]
    return np.array([*inside, *far]).reshape(-1, 2)


def _first_free(corners: Floats, size: Floats, taken: Floats, dots: int) -> int:
    """The first corner whose label touches nothing; if there is none, no label; if there is none, the first."""
    low, high = corners[:, None], (corners + size)[:, None]
    touches = np.all((low < taken[None, :, 2:]) & (high > taken[None, :, :2]), axis=2)
    for blocked in (np.any(touches, axis=1), np.any(touches[:, dots:], axis=1)):
        if not blocked.all():
            return int(np.argmin(blocked))
    return 0
