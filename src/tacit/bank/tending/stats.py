"""What a bank holds, kind by kind, and what tending did to it and would do: for people who look, changes nothing.

Builds on plan and work. Kinds are found as tending finds near-duplicates, at a wider distance: from the best memory to
the worst, active ones first, each joins the kind of the nearest better one that is near, or begins one.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from tacit.bank import schema
from tacit.bank.base import Bank, MemoryInfo
from tacit.bank.harm import interval
from tacit.bank.tending.plan import Rule, doubled, near_by, rows_of
from tacit.bank.tending.work import ledger_of, planned_now
from tacit.memory import Memory, State

KIND = 0.3
"""Memories are of one kind within this share of the distance that a quarter of all pairs are within (see plan)."""


@dataclass(frozen=True)
class Kind:
    """Memories that are alike.

    Attributes:
        members: best first; the first one is what the kind is known by.
        ages: of those in use or waiting, in problems that came since.
        went: how many members tending took out of use, by cause; ``goes``: how many it would.
    """

    members: tuple[MemoryInfo, ...]
    ages: tuple[int, ...]
    went: dict[str, int]
    goes: dict[str, int]

    def facts(self) -> dict[str, Any]:
        """As JSON has it: ``gain`` is by how many of a hundred uses it helped more than it hurt."""
        counts = {
            name: sum(getattr(one, name) for one in self.members) for name in ("uses", "agreed", "helped", "hurt")
        }
        states = Counter(str(one.state) for one in self.members)
        head, uses = self.members[0], counts["uses"]
        return {
            "head": head.id,
            "problem": head.problem,
            "memories": len(self.members),
            "states": dict(states),
            "age": [min(self.ages), max(self.ages)] if self.ages else None,
            **counts,
            "gain": (counts["helped"] - counts["hurt"]) / uses if uses else None,
            "tended": self.went,
            "would_go": self.goes,
        }


def kinds(bank: Bank, namespace: str, share: float = KIND) -> list[Kind]:
    """The kinds of a namespace, those with the most active memories first."""
    every, ledger = bank.find(namespace), ledger_of(bank, namespace)
    seen = [(one["position"], one["problems"]) for one in ledger["entries"]]
    held = rows_of(bank, namespace, every, seen, ledger["past"], tuple(State))
    best = sorted(held, key=lambda row: (row.info.state is not State.ACTIVE, row.rank))
    goes = {one.id: one.cause for one in planned_now(bank, namespace, Rule()).gone}
    found = []
    for key_kind in sorted({row.info.key_kind for row in best}):
        own = [row for row in best if row.info.key_kind == key_kind]
        near = near_by(bank, [row.info.position for row in sorted(own, key=lambda row: row.info.position)], share)
        groups = {row.info.id: [row] for row in own}
        for row, better, _ in doubled(bank, own, near):
            groups[better.info.id] += groups.pop(row.info.id)
        for group in groups.values():
            infos = tuple(row.info for row in group)
            ages = tuple(row.age for row in group if row.info.state in (State.ACTIVE, State.CANDIDATE))
            went = Counter(one.reason.split(": ")[1] for one in infos if re.match("tended .+: .+: ", one.reason))
            found.append(Kind(infos, ages, dict(went), dict(Counter(goes[one.id] for one in infos if one.id in goes))))
    return sorted(found, key=lambda kind: -sum(one.state is State.ACTIVE for one in kind.members))


def explained(bank: Bank, id: str, namespace: str) -> dict[str, list[str]]:
    """A memory in words, by heading: why it is there, who it came from, what it did, what was made of it since."""
    memory, steps = bank.get(id, namespace), bank.history(id, namespace)
    told = memory.provenance
    why = [
        f"{memory.problem_id}: {memory.problem}",
        f"label {told.get('label')!r}, {told.get('why', 'nobody says why')}",
    ]
    if isinstance(share := told.get("share"), float):
        why.append(f"the vote without memory: share {share:.2f}, margin {told.get('margin', 0.0):.2f}")
    if isinstance(belief := told.get("belief"), float):
        why.append(f"the verifier believes the label to {belief:.2f}")
    why.append(f"{'admitted' if steps[0].new is State.ACTIVE else 'came in'} as {steps[0].new}: {steps[0].reason}")
    return {
        "why it is there": why,
        "who it came from": _origin(bank, memory),
        "what it did": _deeds(bank, memory),
        "what was made of it": [
            f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(one.time))} {one.old or 'new'} -> {one.new}: {one.reason}"
            for one in steps
        ],
    }


def _origin(bank: Bank, memory: Memory) -> list[str]:
    told, jobs, keys = memory.provenance, schema.jobs.c, schema.api_keys.c
    named = {name: told[name] for name in ("run", "source", "job", "model", "seed") if name in told}
    with bank.connection() as connection:
        asked = select(jobs.key_id).where(jobs.namespace == memory.namespace, jobs.memory_id == memory.id)
        key = told.get("key") or connection.execute(asked).scalar()
        owner = connection.execute(select(keys.name).where(keys.id == str(key))).scalar()
    lines = [", ".join(f"{name} {value}" for name, value in named.items()) or "nothing is said"]
    if key:
        lines.append(f"API key {key}, " + ("no longer known" if owner is None else f"named {owner!r}"))
    return lines


def _deeds(bank: Bank, memory: Memory) -> list[str]:
    low, high = interval(memory.helped, memory.helped + memory.hurt)
    lines = [
        f"recalled {memory.uses} times: agreed {memory.agreed}, helped {memory.helped}, hurt {memory.hurt}",
        f"better where the answers differed: {low:.2f} to {high:.2f} (95 %)",
    ]
    goes = [one.why for one in planned_now(bank, memory.namespace, Rule()).gone if one.id == memory.id]
    return lines + [f"tending would take it out of use: {why}" for why in goes]
