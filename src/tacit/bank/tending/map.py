"""A map of a bank: its active memories in the plane, near where their keys are near, with their kinds and benefits.

Builds on plan and stats; changes nothing. The plane is that of the two directions in which the keys differ most
(principal components). Kinds are found as ``stats`` finds them, from the memories that are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tacit.bank.base import Bank, MemoryInfo
from tacit.bank.tending.plan import doubled, keys_at, near_by
from tacit.bank.tending.stats import KIND
from tacit.memory import State

MOST, EXCERPT = 500, 200
"""Memories that are shown, those that are used most; characters of their problems."""


@dataclass(frozen=True)
class Place:
    """A memory on the map.

    Attributes:
        id, problem: of the memory.
        x, y: from -100 to 100, either stretched to that.
        kind: number of its kind, that with most memories first.
        benefit: "helped" or "hurt", whichever it did more often; "level"; or "not recalled" so far.
    """

    id: str
    problem: str
    x: int
    y: int
    kind: int
    benefit: str


@dataclass(frozen=True)
class Map:
    """Places, the best memory first; how many active memories the namespace has; the share of the differences between
    keys that the plane shows."""

    places: list[Place]
    active: int
    shown: float


def mapped(bank: Bank, namespace: str) -> Map:
    """The map of a namespace. Of keys of several kinds, which cannot be compared, those of the commonest are shown."""
    active, infos = bank.page(namespace, states=[State.ACTIVE], sort="uses", limit=MOST)
    keys = keys_at(bank, [one.position for one in infos])
    kinds = {one.position: (one.key_kind, len(keys[one.position])) for one in infos if one.position in keys}
    if not kinds:
        return Map([], active, 0.0)
    [(kind, _)] = Counter(kinds.values()).most_common(1)
    held = [one for one in infos if kinds.get(one.position) == kind]
    held.sort(key=lambda one: (one.hurt - one.helped, -one.uses, one.position))
    matrix = np.stack([keys[one.position] for one in held])
    similar = matrix @ matrix.T
    plane, shown = _plane(similar)
    rows = zip(held, plane, _kinds(bank, held), strict=True)
    places = [Place(one.id, one.problem[:EXCERPT], x, y, kind, _benefit(one)) for one, (x, y), kind in rows]
    return Map(places, active, shown)


def _plane(similar: np.ndarray) -> tuple[list[list[int]], float]:
    """Places of keys with these products, and the share of their variance that lies in the plane."""
    means = similar.mean(0)
    values, vectors = np.linalg.eigh(similar - means - means[:, None] + means.mean())
    values = np.maximum(values[::-1], 0)
    two = np.zeros((len(similar), 2))
    two[:, : len(similar)] = (vectors[:, ::-1] * np.sqrt(values))[:, :2]
    # A direction has no sign of its own: its farthest memory lies on the positive side.
    two *= np.where(two[np.abs(two).argmax(0), [0, 1]] < 0, -1, 1)
    low, high = two.min(0), two.max(0)
    two = 200 * (two - (low + high) / 2) / np.maximum(1e-6, high - low)
    return np.rint(two).astype(int).tolist(), float(values[:2].sum() / max(1e-9, values.sum()))


def _kinds(bank: Bank, best: Sequence[MemoryInfo]) -> list[int]:
    """The kind of each memory, best first, as ``stats.kinds`` finds them; that with most memories is 0."""
    near = near_by(bank, sorted(one.position for one in best), KIND)
    first = {one.id: one.id for one in best} | {one.id: better.id for one, better, _ in doubled(bank, best, near)}
    order = [id for id, _ in Counter(first.values()).most_common()]
    return [order.index(id) for id in first.values()]


def _benefit(one: MemoryInfo) -> str:
    if not one.uses:
        return "not recalled"
    return "level" if one.helped == one.hurt else "helped" if one.helped > one.hurt else "hurt"
