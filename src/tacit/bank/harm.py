"""Harm: active memories whose answers were judged worse clearly more often than better, by the counts of their uses.

Builds on base and schema. The rule of quarantine in serving and of tending, which is why it stands below both.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from sqlalchemy import select

from tacit.bank import schema
from tacit.bank.base import Bank
from tacit.memory import State

HURT_LEAD, HURT_SHARE = 3, 0.25
"""A memory is harmful if its answers were worse so many times more than better: of its uses this share, or more.
Measured in docs/log/."""

DRIFTED = "drifted with "
"""How the reason of a memory begins that stopped working and may return (methods/drift.py); then comes its group."""


@dataclass(frozen=True)
class Harm:
    """What a harmful memory did since it was last taken out of use; ``ledger`` is what it has done in all."""

    id: str
    namespace: str
    uses: int
    helped: int
    hurt: int
    ledger: str

    @property
    def said(self) -> str:
        """In words, with the interval of the share of its decided uses that were for the worse."""
        low, high = interval(self.hurt, self.hurt + self.helped)
        return (
            f"in {self.uses} uses it hurt {self.hurt} and helped {self.helped} times (worse where they differ: "
            f"{low:.2f} to {high:.2f}, 95 %)"
        )

    def begin_anew(self, bank: Bank) -> None:
        """What was counted until now does not count again: who activates the memory gives it a fresh start."""
        bank.mark(self.namespace, f"quarantine:{self.id}", self.ledger)


def harmful(bank: Bank, namespace: str | None = None) -> list[Harm]:
    """The active memories that are harmful, of one namespace or of all, in the order of storing."""
    m, c = schema.memories.c, schema.counters.c
    suspects = (
        select(m.id, m.namespace, c.uses, c.helped, c.hurt)
        .join_from(schema.memories, schema.counters)
        .where(m.state == State.ACTIVE, c.hurt - c.helped >= HURT_LEAD)
        .order_by(m.position)
    )
    if namespace is not None:
        suspects = suspects.where(m.namespace == namespace)
    with bank.connection() as connection:
        rows = connection.execute(suspects).all()
    found = []
    for row in rows:
        now = {name: int(getattr(row, name)) for name in ("uses", "helped", "hurt")}
        before = json.loads(bank.marked(row.namespace, f"quarantine:{row.id}") or "{}")
        uses, helped, hurt = (count - before.get(name, 0) for name, count in now.items())
        if hurt - helped >= HURT_LEAD and hurt >= HURT_SHARE * max(1, uses):
            found.append(Harm(row.id, row.namespace, uses, helped, hurt, json.dumps(now)))
    return found


def interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not of:
        return 0.0, 1.0
    z, share = 1.96, count / of
    centre, half = share + z**2 / (2 * of), z * math.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    return max(0.0, (centre - half) / (1 + z**2 / of)), min(1.0, (centre + half) / (1 + z**2 / of))
