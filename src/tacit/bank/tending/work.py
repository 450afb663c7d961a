"""Tending done, undone, and accounted for.

Builds on plan and base. Everything happens by changes of state in batches, one transaction each, and each memory is
looked at again within it: a kill at any moment leaves a whole bank with a part of the work done. The rest is done the
next time. Who tends holds a claim on the namespace for that long, so that of two processes one does it. What is taken
out of use is retired with a reason that begins with the tending's name; ``undo`` brings it back as it was, until a
later tending deletes it, whole. Then its problem may be learned again.

The ledger of a namespace is a mark: of each tending its time, what it did, and the clock in problems that ages are told
by (see plan).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import func, select

from tacit.bank import schema
from tacit.bank.base import Bank, MemoryInfo
from tacit.bank.harm import DRIFTED, harmful
from tacit.bank.tending.plan import Plan, Rule, planned
from tacit.errors import BankUnavailable, ConfigError, MemoryNotFound
from tacit.memory import State

LEASE = 120.0
"""Seconds of a claim; each batch makes it anew. That of a process of this machine that is gone counts no longer."""

BATCH, KEPT = 20, 100
"""Memories of a transaction, for which others that write wait; tendings that the ledger keeps."""

_CLAIM, _LEDGER = "tending", "tendings"
_DAY = 86_400.0
T = TypeVar("T")
_m, _c, _h = schema.memories.c, schema.counters.c, schema.history.c


@dataclass(frozen=True)
class Tended:
    """What a tending did, or would do.

    Attributes:
        name: what ``undo`` knows it by.
        plan: what went.
        freed: memories of earlier tendings that were deleted; they can no longer be brought back.
        shrunk: bytes that the bank's file gave back.
    """

    name: str
    plan: Plan
    freed: int = 0
    shrunk: int = 0


def tend(
    bank: Bank, namespace: str, rule: Rule | None = None, *, dry_run: bool = False, name: str | None = None
) -> Tended:
    """Take out of use what ``plan`` says, and delete what was taken out of use longer than ``undo_days`` ago.

    Args:
        rule: what is kept.
        dry_run: change nothing, say what would be done.
        name: of this tending; default: the time, or that of the latest, if it was cut off. Nothing is done if one of
            that name has ended.

    Raises:
        BankUnavailable: another process is tending the namespace.
    """
    rule = rule or Rule()
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}.{secrets.token_hex(2)}"
    if dry_run:
        return Tended(name or stamp, planned_now(bank, namespace, rule), len(_old(bank, namespace, rule)))
    with _claimed(bank, namespace) as hold:
        entries = ledger_of(bank, namespace)["entries"]
        if name is not None and any(one["name"] == name and "open" not in one for one in entries):
            return Tended(name, Plan((), (0, 0), (0, 0), 1.0))
        if name is None:  # one that was cut off is gone on with, so that one undoing takes all of it back
            name = entries[-1]["name"] if entries and "open" in entries[-1] else stamp
        freed = _free(bank, namespace, _old(bank, namespace, rule), hold)
        plan = planned_now(bank, namespace, rule)
        anew = {harm.id: harm for harm in harmful(bank, namespace)}
        for batch in _batches(plan.gone):
            with bank.transaction():
                hold()
                done = []
                for one in batch:
                    if _is(bank, namespace, one.id, one.state):
                        if one.cause == "harmful" and one.id in anew:
                            anew[one.id].begin_anew(bank)
                        bank.set_state(one.id, namespace, State.RETIRED, f"tended {name}: {one.why}")
                        done.append(one.cause)
                _enter(bank, namespace, name, done)
        with bank.transaction():
            hold()
            _enter(bank, namespace, name, freed=freed)
    shrunk = 0
    with suppress(BankUnavailable):  # in use, or no room: the next time
        shrunk = bank.shrink() if freed else 0
    return Tended(name, plan, freed, shrunk)


def undo(bank: Bank, namespace: str, name: str = "last") -> tuple[str, int]:
    """Bring back what a tending took out of use, in the state and with the reason of before; its name, and how many.

    ``due`` says no until the next ``tend``, so that nothing undoes the undoing by itself.

    Raises:
        ConfigError: no such tending, or none that took something out of use; or it is too late.
        BankUnavailable: another process is tending the namespace.
    """
    with _claimed(bank, namespace) as hold:
        entries = ledger_of(bank, namespace)["entries"]
        open_ = [one for one in entries if one["retired"] and "undone" not in one]
        if name == "last" and open_:
            name = open_[-1]["name"]
        begins = {State.RETIRED: f"tended {name}: ", State.QUARANTINED: f"{DRIFTED}{name}: "}
        there = [one for one in bank.find(namespace, states=begins) if one.reason.startswith(begins[one.state])]
        if not there:
            known = ", ".join(one["name"] for one in open_[-5:]) or "none"
            raise ConfigError(
                f"namespace {namespace!r} has nothing that tending {name!r} took out of use (it was undone, or deleted "
                f"for good, or never was); the latest that may still be undone: {known}"
            )
        back = 0
        for batch in _batches(there):
            with bank.transaction():
                hold()
                for one in batch:
                    if _is(bank, namespace, one.id, one.state):
                        _bring_back(bank, one, name)
                back += len(batch)
                if back == len(there):
                    ledger = ledger_of(bank, namespace)
                    for entry in ledger["entries"]:
                        if entry["name"] == name:
                            entry["undone"] = time.time()
                            entry.pop("open", None)
                    bank.mark(namespace, _LEDGER, json.dumps(ledger))
    return name, len(there)


def due(bank: Bank, namespace: str, every: int) -> bool:
    """Whether ``every`` problems, as far as they are known, have come since the last tending, which was not undone."""
    ledger = ledger_of(bank, namespace)
    last = ledger["entries"][-1] if ledger["entries"] else {"position": 0, "problems": 0}
    stored = select(func.count()).where(_m.namespace == namespace, _m.position > last["position"])
    with bank.connection() as connection:
        came = int(connection.execute(stored).scalar_one())
    come = max(came, _recalls(bank, namespace) + ledger["past"] - last["problems"])
    return "open" in last or ("undone" not in last and come >= every)


def planned_now(bank: Bank, namespace: str, rule: Rule) -> Plan:
    ledger = ledger_of(bank, namespace)
    seen = [(one["position"], one["problems"]) for one in ledger["entries"]]
    return planned(bank, namespace, rule, seen, ledger["past"])


def _is(bank: Bank, namespace: str, id: str, state: State) -> bool:
    """Whether the memory is there, and in this state; asked in a transaction, it stays so until its end."""
    try:
        return bank.info(id, namespace).state is state
    except MemoryNotFound:
        return False


def _bring_back(bank: Bank, one: MemoryInfo, name: str) -> None:
    steps = bank.history(one.id, one.namespace)
    reason = re.sub(r"^tending \S+ undone; ", "", steps[-2].reason)
    bank.set_state(one.id, one.namespace, steps[-2].new, reason, note=f"tending {name} undone; ")


def _old(bank: Bank, namespace: str, rule: Rule) -> list[str]:
    """What earlier tendings took out of use longer ago than may be undone."""
    when = func.max(_h.time)
    statement = (
        select(_m.id)
        .join_from(schema.memories, schema.history)
        .where(_m.namespace == namespace, _m.state == State.RETIRED.value, _m.reason.startswith("tended "))
        .group_by(_m.position, _m.id)
        .having(when <= time.time() - rule.undo_days * _DAY)
        .order_by(_m.position)
    )
    with bank.connection() as connection:
        return list(connection.execute(statement).scalars())


def _free(bank: Bank, namespace: str, ids: Sequence[str], hold: Any) -> int:
    freed = 0
    for batch in _batches(ids):
        with bank.transaction():
            hold()
            ledger = ledger_of(bank, namespace)
            for id in batch:
                if _is(bank, namespace, id, State.RETIRED):
                    ledger["past"] += bank.info(id, namespace).uses
                    bank.delete(id, namespace)
                    freed += 1
            bank.mark(namespace, _LEDGER, json.dumps(ledger))
    return freed


def _batches(every: Sequence[T]) -> Iterator[Sequence[T]]:
    return (every[start : start + BATCH] for start in range(0, len(every), BATCH))


def ledger_of(bank: Bank, namespace: str) -> dict[str, Any]:
    """``entries``: the latest tendings; ``past``: recalls of memories that tending has deleted."""
    found: dict[str, Any] = json.loads(bank.marked(namespace, _LEDGER) or '{"entries": [], "past": 0}')
    return found


def _enter(bank: Bank, namespace: str, name: str, causes: Sequence[str] = (), freed: int | None = None) -> None:
    """Add to the entry of a tending what it did; it is open until ``freed`` is said, at its end."""
    ledger = ledger_of(bank, namespace)
    entries = [one for one in ledger["entries"] if one["name"] != name]
    entry: dict[str, Any] = next((one for one in ledger["entries"] if one["name"] == name), {"name": name})
    entry["retired"] = dict(Counter(entry.get("retired", {})) + Counter(causes))
    with bank.connection() as connection:
        last = connection.execute(select(func.max(_m.position)).where(_m.namespace == namespace)).scalar_one()
    entry |= {"position": int(last or 0), "problems": ledger["past"] + _recalls(bank, namespace)}
    entry |= {"time": time.time(), "open": True}
    if freed is not None:
        del entry["open"]
        entry["freed"] = freed
    ledger["entries"] = [*entries, entry][-KEPT:]
    bank.mark(namespace, _LEDGER, json.dumps(ledger))


def _recalls(bank: Bank, namespace: str) -> int:
    statement = (
        select(func.coalesce(func.sum(_c.uses), 0))
        .join_from(schema.memories, schema.counters)
        .where(_m.namespace == namespace)
    )
    with bank.connection() as connection:
        return int(connection.execute(statement).scalar_one())


@contextmanager
def _claimed(bank: Bank, namespace: str) -> Iterator[Any]:
    """The namespace is this caller's to tend; yields what renews the claim, within a transaction."""
    own = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"

    def write(until: float) -> None:
        bank.mark(namespace, _CLAIM, json.dumps({"by": own, "until": until}))

    def held() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(bank.marked(namespace, _CLAIM) or '{"by": "", "until": 0}')
        return found

    def hold() -> None:
        if held()["by"] != own:
            raise BankUnavailable(f"another process has begun to tend namespace {namespace!r}; nothing is done twice")
        write(time.time() + LEASE)

    with bank.transaction():
        other, now = held(), time.time()
        if now < other["until"] <= now + LEASE and not _is_gone(other["by"]):
            raise BankUnavailable(
                f"another process is tending namespace {namespace!r} ({other['by']}); wait until it is done"
            )
        write(now + LEASE)
    try:
        yield hold
    finally:
        with suppress(BankUnavailable), bank.transaction():
            if held()["by"] == own:
                write(0.0)


def _is_gone(owner: str) -> bool:
    """Whether the process that holds a claim was one of this machine, and has ended."""
    host, pid, _ = owner.split()
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
