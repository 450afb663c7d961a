"""Light rows of memories, counted, filtered and sorted by the database.

Builds on schema and base. ``SQLBank`` answers its questions about many memories with these statements, so that a page
of fifty costs fifty rows and not the whole bank.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, select

from tacit.bank import schema
from tacit.bank.base import SORTS, MemoryInfo
from tacit.errors import ConfigError
from tacit.memory import State

COUNTERS = ("uses", "agreed", "helped", "hurt")
_m, _c = schema.memories.c, schema.counters.c
_INFO = select(
    *(_m[name] for name in MemoryInfo.__dataclass_fields__ if name not in COUNTERS), *(_c[name] for name in COUNTERS)
).join_from(schema.memories, schema.counters)


def one(connection: Connection, id: str, namespace: str) -> MemoryInfo | None:
    """A memory's light row; None where the namespace has none of that id."""
    row = connection.execute(_INFO.where(_m.namespace == namespace, _m.id == id)).mappings().one_or_none()
    return None if row is None else _info(row)


def found(
    connection: Connection, namespace: str, states: Collection[State] | None, problem_id: str | None
) -> list[MemoryInfo]:
    """See ``Bank.find``."""
    statement = _within(_INFO, namespace, states).order_by(_m.position)
    if problem_id is not None:
        statement = statement.where(_m.problem_id == problem_id)
    return _infos(connection.execute(statement).mappings())


def counts(connection: Connection, namespace: str) -> dict[State, int]:
    """See ``Bank.counts``."""
    statement = select(_m.state, func.count()).where(_m.namespace == namespace).group_by(_m.state)
    held = {State(state): count for state, count in connection.execute(statement)}
    return {state: held.get(state, 0) for state in State}


def page(
    connection: Connection,
    namespace: str,
    states: Collection[State] | None,
    containing: str,
    sort: str,
    falling: bool,
    limit: int,
    offset: int,
) -> tuple[int, list[MemoryInfo]]:
    """See ``Bank.page``."""
    if sort not in SORTS or limit < 1 or offset < 0:
        raise ConfigError(
            f"memories are sorted by one of {', '.join(SORTS)}, 1 or more from 0 on; not {limit} from {offset} on by "
            f"{sort!r}"
        )
    statement = _within(_INFO, namespace, states)
    if containing:
        statement = statement.where(_m.problem.icontains(containing, autoescape=True))
    total = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
    by = _c[sort] if sort in COUNTERS else _m[sort]
    order = [by.desc().nulls_last(), _m.position.desc()] if falling else [by.asc().nulls_last(), _m.position]
    rows = connection.execute(statement.order_by(*order).limit(limit).offset(offset)).mappings()
    return int(total), _infos(rows)


def _within(statement: Select[Any], namespace: str, states: Collection[State] | None) -> Select[Any]:
    statement = statement.where(_m.namespace == namespace)
    if states is None:
        return statement
    return statement.where(_m.state.in_([State(state).value for state in states]))


def _infos(rows: Iterable[RowMapping]) -> list[MemoryInfo]:
    return [_info(row) for row in rows]


def _info(row: RowMapping) -> MemoryInfo:
    return MemoryInfo(**{**row, "state": State(row["state"])})
