"""What a bank holds, kind by kind, and what tending did to it and would do: for people who look, changes nothing.

Builds on plan and work. Kinds are found as tending finds near-duplicates, at a wider distance: from the best to the
worst, active ones first, each joins the nearest better one's kind, or begins one.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from sqlalchemy import select

from tacit.bank import schema
from tacit.bank.base import Bank
from tacit.bank.harm import interval
from tacit.bank.tending.plan import Rule, doubled, near_by, rows_of
from tacit.bank.tending.work import ledger_of, planned_now
from tacit.memory import Memory, State

KIND = 0.3
"""Memories are of one kind within this share of the distance that a quarter of all pairs are within (see plan)."""


def kinds(bank: Bank, namespace: str, share: float = KIND) -> list[dict[str, Any]]:
    """The kinds of a namespace, those with the most active memories first.

    Each with its ``memories``, best first; the ``problem`` of the best; how many are in which of the ``states``; the
    least and the greatest ``age``, in problems, of those in use or waiting; sums of their counts; the ``gain``, the
    share of uses that they helped in less that in which they hurt; and how many tending took out of use and would.
    """
    every, ledger = bank.find(namespace), ledger_of(bank, namespace)
    seen = [(one["position"], one["problems"]) for one in ledger["entries"]]
    held = rows_of(bank, namespace, every, seen, ledger["past"], tuple(State))
    best = sorted(held, key=lambda row: (row.info.state is not State.ACTIVE, row.rank))
    goes = {one.id for one in planned_now(bank, namespace, Rule()).gone}
    found = []
    for key_kind in sorted({row.info.key_kind for row in best}):
        own = [row for row in best if row.info.key_kind == key_kind]
        near = near_by(bank, sorted(row.info.position for row in own), share)
        groups = {row.info.id: [row] for row in own}
        for one, better, _ in doubled(bank, [row.info for row in own], near):
            groups[better.id] += groups.pop(one.id)
        for group in groups.values():
            infos = [row.info for row in group]
            ages = [row.age for row in group if row.info.state in (State.ACTIVE, State.CANDIDATE)]
            counts = {name: sum(getattr(one, name) for one in infos) for name in ("uses", "agreed", "helped", "hurt")}
            found.append(
                {
                    "memories": [one.id for one in infos],
                    "problem": infos[0].problem,
                    "states": dict(Counter(str(one.state) for one in infos)),
                    "age": [min(ages), max(ages)] if ages else None,
                    **counts,
                    "gain": (counts["helped"] - counts["hurt"]) / counts["uses"] if counts["uses"] else None,
                    "tended": sum(one.state is State.RETIRED and one.reason.startswith("tended ") for one in infos),
                    "would_go": sum(one.id in goes for one in infos),
                }
            )
    return sorted(found, key=lambda kind: -kind["states"].get(State.ACTIVE, 0))


def explained(bank: Bank, id: str, namespace: str) -> dict[str, list[str]]:
    """A memory in words, by heading: why it is there, who it came from, what it did, what was made of it since."""
    memory, steps = bank.get(id, namespace), bank.history(id, namespace)
    told = memory.provenance
    why = [
        f"{memory.problem_id}: {memory.problem}",
        f"label {told.get('label')!r}, {told.get('why', 'nobody says why')}",
    ]
    if isinstance(share := told.get("share"), float):
        why.append(f"the vote without memory: share {share:.2f}, margin {told.get('margin')}")
    if isinstance(belief := told.get("belief"), float):
        why.append(f"the verifier believes the label to {belief:.2f}")
    why.append(f"{'admitted' if steps[0].new is State.ACTIVE else 'came in'} as {steps[0].new}: {steps[0].reason}")
    return {
        "why it is there": why,
        "who it came from": _origin(bank, memory),
        "what it did": _deeds(bank, memory),
        "what was made of it": [
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(min(one.time, 2**55)))  # a memory may name any time
            + f" {one.old or 'new'} -> {one.new}: {one.reason}"
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
