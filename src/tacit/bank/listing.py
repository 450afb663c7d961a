"""Light rows of memories, counted, filtered and sorted by the database.

Builds on schema, transactions and base. A page of fifty costs fifty rows, not the whole bank.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, func, select

from tacit.bank import schema
from tacit.bank.base import SORTS, MemoryInfo
from tacit.bank.transactions import Transactions
from tacit.errors import ConfigError, MemoryNotFound
from tacit.memory import State

COUNTERS = ("uses", "agreed", "helped", "hurt")
_m, _c = schema.memories.c, schema.counters.c
_INFO = select(
    *(_m[name] for name in MemoryInfo.__dataclass_fields__ if name not in COUNTERS), *(_c[name] for name in COUNTERS)
).join_from(schema.memories, schema.counters)


class Listing(Transactions):
    """The part of a bank that lists memories, as ``Bank`` promises."""

    def find(
        self, namespace: str, *, states: Collection[State] | None = None, problem_id: str | None = None
    ) -> list[MemoryInfo]:
        statement = _within(namespace, states).order_by(_m.position)
        if problem_id is not None:
            statement = statement.where(_m.problem_id == problem_id)
        with self._reading() as connection:
            return _infos(connection.execute(statement).mappings())

    def info(self, id: str, namespace: str) -> MemoryInfo:
        with self._reading() as connection:
            found = _infos(connection.execute(_within(namespace, None).where(_m.id == id)).mappings())
        if not found:
            raise MemoryNotFound(f"namespace {namespace!r} has no memory {id!r}")
        return found[0]

    def counts(self, namespace: str) -> dict[State, int]:
        statement = select(_m.state, func.count()).where(_m.namespace == namespace).group_by(_m.state)
        with self._reading() as connection:
            held = Counter[State]()
            for state, count in connection.execute(statement):
                held[state_of(state)] += count
        return {state: held[state] for state in State}

    def page(
        self,
        namespace: str,
        *,
        states: Collection[State] | None = None,
        containing: str = "",
        sort: str = "created",
        falling: bool = True,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[int, list[MemoryInfo]]:
        if sort not in SORTS or limit < 1 or offset < 0:
            raise ConfigError(
                f"memories are sorted by one of {', '.join(SORTS)}, 1 or more from 0 on; not {limit} from {offset} on "
                f"by {sort!r}"
            )
        statement = _within(namespace, states)
        if containing:
            part = re.sub("[A-Z]", lambda letter: letter[0].lower(), containing)
            statement = statement.where(self._lower(_m.problem).contains(part, autoescape=True))
        by = _c[sort] if sort in COUNTERS else _m[sort]
        order = [by.desc().nulls_last(), _m.position.desc()] if falling else [by.asc().nulls_last(), _m.position]
        with self._reading() as connection:
            total = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
            rows = connection.execute(statement.order_by(*order).limit(limit).offset(offset)).mappings()
            return int(total), _infos(rows)

    def _lower(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """``text`` with its ASCII letters in lower case, and no other changed."""
        return func.lower(text)


def _within(namespace: str, states: Collection[State] | None) -> Select[Any]:
    statement = _INFO.where(_m.namespace == namespace)
    if states is None:
        return statement
    return statement.where(_m.state.in_([State(state).value for state in states]))


def _infos(rows: Iterable[RowMapping]) -> list[MemoryInfo]:
    return [MemoryInfo(**{**row, "state": state_of(row["state"])}) for row in rows]


def state_of(stored: str) -> State:
    """A stored state; what is none is damage, and such a memory is out of use."""
    return State(stored) if stored in set(State) else State.QUARANTINED
