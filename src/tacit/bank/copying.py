"""Copying a bank into another one, of whichever database: whole, in order, verified, and resumable.

Builds on sql and schema. The source is read in one transaction. So the copy is of one moment, and the source may stay
in use. The target must be empty, or hold an unfinished copy of the same bank: a mark in a reserved namespace tells, set
by the first write and taken off by the last. Every batch is a transaction of its own, and looks for each memory before
it stores it. So a copy that was killed is continued by running it again, and nothing is there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, delete, func, insert, select, tuple_, update

from tacit.bank import schema
from tacit.bank.listing import COUNTERS
from tacit.bank.sql import WHOLE, SQLBank, memory_of
from tacit.errors import BankError, MemoryFormatError

Progress = Callable[[str, int, int], None]
"""Is told what is being done ("copying" or "verifying"), how many memories are done, and how many there are."""

_NAMESPACE, _NAME = "tacit:copy", "from"
_BATCH = 100
_SERVER = (schema.api_keys, schema.learned_days, schema.jobs)
_m, _h = schema.memories.c, schema.history.c
_CHANGING = ("state", "reason", *COUNTERS)
_FIXED = ("id", "namespace", "problem_id", "problem", "key_kind", "fingerprint", "sha256", "share", "margin",
          "created", "digest")  # fmt: skip


@dataclass(frozen=True)
class Copied:
    """What a copy did: memories there now, those that this call stored, and whether it had been complete before."""

    memories: int
    stored: int
    already: bool = False


@dataclass
class _Entry:
    """One memory as it is read: its row of everything, and the rows of its history."""

    row: RowMapping
    steps: list[dict[str, Any]]

    @property
    def name(self) -> tuple[str, str]:
        return self.row["namespace"], self.row["id"]

    @property
    def changing(self) -> tuple[Any, ...]:
        return (*(self.row[name] for name in _CHANGING), self.steps)

    @property
    def all(self) -> tuple[Any, ...]:
        return (*(self.row[name] for name in _FIXED), self.label, self.changing)

    @property
    def label(self) -> str | None:
        # Banks have not always kept NUL out of it, which PostgreSQL cannot keep.
        return None if self.row["label"] is None else self.row["label"].replace("\0", "")


class _Different(BankError):
    pass


def copy_between(source: SQLBank, target: SQLBank, progress: Progress | None = None) -> Copied:
    """Make ``target`` hold what ``source`` holds; see ``tacit.bank.copy_bank``."""
    told = progress or (lambda doing, done, of: None)
    with source._fresh_reading() as reading:
        epoch = str(reading.execute(select(schema.bank.c.epoch)).scalar_one())
        total = int(reading.execute(select(func.count()).select_from(schema.memories)).scalar_one())
        if not _begin(reading, source, target, epoch):
            try:
                _verify(reading, source, target, lambda done: told("verifying", done, total))
            except _Different:
                raise BankError(
                    f"{target._where} holds something else; give an empty bank to copy {source._where} to"
                ) from None
            return Copied(total, 0, already=True)
        _drop_gone(reading, target)
        stored = done = 0
        for entries in _batches(reading, source):
            stored += _store(target, entries)
            done += len(entries)
            told("copying", done, total)
        if done != total:
            raise BankError(f"{total - done} memories in {source._where} lack a part; see tacit doctor --bank")
        _copy_tables(reading, target)
        _verify(reading, source, target, lambda done: told("verifying", done, total))
        with target._writing() as connection:
            target._raise_revision(connection)
            connection.execute(delete(schema.marks).where(schema.marks.c.namespace == _NAMESPACE))
    return Copied(total, stored)


def _begin(reading: Connection, source: SQLBank, target: SQLBank, epoch: str) -> bool:
    """Mark an empty target and bind its namespaces; False where it holds something that is no unfinished copy.

    BankError where it holds an unfinished copy of another bank.
    """
    with target._writing() as connection:
        mark = target.marked(_NAMESPACE, _NAME)
        if mark is None:
            if any(_held(connection, table) for table in (schema.namespaces, schema.marks, *_SERVER)):
                return False
            target.mark(_NAMESPACE, _NAME, epoch)
        elif mark != epoch:
            raise BankError(
                f"{target._where} holds an unfinished copy of another bank than {source._where}; give an empty one"
            )
        target._raise_revision(connection)
        table = schema.namespaces
        there = set(connection.execute(select(table.c.namespace)).scalars())
        for row in reading.execute(select(table)).mappings():
            if row["namespace"] in there:
                connection.execute(update(table).where(table.c.namespace == row["namespace"]).values(**row))
            else:
                connection.execute(insert(table).values(**row))
    return True


def _held(connection: Connection, table: Table) -> bool:
    return connection.execute(select(*table.primary_key).limit(1)).first() is not None


def _drop_gone(reading: Connection, target: SQLBank) -> None:
    """Delete from an unfinished copy what has been deleted from the source since, or stored there anew."""
    names = select(_m.namespace, _m.id, schema.payloads.c.digest).join_from(schema.memories, schema.payloads)
    with target._writing() as connection:
        there = {tuple(row) for row in connection.execute(names)}
        if there:
            for namespace, id, _ in there - {tuple(row) for row in reading.execute(names)}:
                target.delete(id, namespace)


def _batches(connection: Connection, bank: SQLBank) -> Iterator[list[_Entry]]:
    """All memories in the order of storing, each of them found undamaged."""
    last = 0
    while True:
        rows = connection.execute(WHOLE.where(_m.position > last).order_by(_m.position).limit(_BATCH)).mappings().all()
        if not rows:
            return
        last = rows[-1]["position"]
        steps: dict[int, list[dict[str, Any]]] = {row["position"]: [] for row in rows}
        history = select(_h.position, _h.time, _h.old, _h.new, _h.reason).where(_h.position.in_(steps))
        for step in connection.execute(history.order_by(_h.step)).mappings():
            steps[step["position"]].append({name: step[name] for name in ("time", "old", "new", "reason")})
        for row in rows:
            try:
                memory_of(row)
            except MemoryFormatError as error:
                said = f"memory {row['id']!r} in {bank._where} is damaged ({error}); nothing more is copied"
                raise BankError(said) from error
        yield [_Entry(row, steps[row["position"]]) for row in rows]


def _store(target: SQLBank, entries: Sequence[_Entry]) -> int:
    """Store those that are missing, and bring the others' states, counters and histories up to date."""
    stored = 0
    with target._writing() as connection:
        wanted = tuple_(_m.namespace, _m.id).in_([entry.name for entry in entries])
        there = {(row["namespace"], row["id"]): row for row in connection.execute(WHOLE.where(wanted)).mappings()}
        revision = target._raise_revision(connection)
        for entry in entries:
            old = there.get(entry.name)
            if old is None:
                values = {name: entry.row[name] for name in _columns(schema.memories)}
                values.update(label=entry.label, revision=revision)
                position = connection.execute(insert(schema.memories).returning(_m.position), values).scalar_one()
                for table in (schema.keys, schema.payloads, schema.counters):
                    values = {name: entry.row[name] for name in _columns(table) if name != "dim"}
                    if table is schema.keys:
                        values["dim"] = len(entry.row["key"]) // 4
                    connection.execute(insert(table), {"position": position, **values})
                key = entry.row["key"]
                target._stored(
                    connection, position, (entry.row["namespace"], entry.row["key_kind"], len(key) // 4), key
                )
                stored += 1
            else:
                position = old["position"]
                if _Entry(old, _steps(connection, position)).changing == entry.changing:
                    continue
                values = {name: entry.row[name] for name in ("state", "reason")}
                connection.execute(
                    update(schema.memories).where(_m.position == position).values(**values, revision=revision)
                )
                counts = {name: entry.row[name] for name in COUNTERS}
                connection.execute(
                    update(schema.counters).where(schema.counters.c.position == position).values(**counts)
                )
                connection.execute(delete(schema.history).where(_h.position == position))
            if entry.steps:
                connection.execute(insert(schema.history), [{"position": position, **step} for step in entry.steps])
    return stored


def _columns(table: Table) -> list[str]:
    return [column.name for column in table.c if column.name != "position"]


def _steps(connection: Connection, position: int) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(_h.time, _h.old, _h.new, _h.reason).where(_h.position == position).order_by(_h.step)
    )
    return [dict(row) for row in rows.mappings()]


def _copy_tables(reading: Connection, target: SQLBank) -> None:
    """Marks and the server's tables, all at once: they are small, and may have changed since an earlier try."""
    with target._writing() as connection:
        target._raise_revision(connection)
        for table in (schema.marks, *_SERVER):
            ours = (table.c.namespace != _NAMESPACE) if table is schema.marks else None
            statement = delete(table) if ours is None else delete(table).where(ours)
            connection.execute(statement)
            rows = _rows(reading, table)
            if rows:
                connection.execute(insert(table), rows)


def _rows(connection: Connection, table: Table) -> list[dict[str, Any]]:
    """All rows of a small table, in an order that hangs on no database, without what counts itself up."""
    statement = select(table)
    if table is schema.marks:
        statement = statement.where(table.c.namespace != _NAMESPACE)
    names = [column.name for column in table.primary_key]
    rows = sorted(
        (dict(row) for row in connection.execute(statement).mappings()), key=lambda row: [row[n] for n in names]
    )
    for row in rows:
        row.pop("number", None)
    return rows


def _verify(reading: Connection, source: SQLBank, target: SQLBank, told: Callable[[int], None]) -> None:
    """Compare everything, memory by memory; BankError where the copy is not what the source holds."""
    done = 0
    with target._fresh_reading() as copy:
        theirs = _batches(copy, target)
        for ours in _batches(reading, source):
            found = next(theirs, [])
            pairs = zip_longest(ours, found)
            wrong = next((a or b for a, b in pairs if a is None or b is None or a.all != b.all), None)
            if wrong is not None:
                raise _different(source, target, f"memory {wrong.row['id']!r}")
            done += len(ours)
            told(done)
        if next(theirs, None) is not None:
            raise _different(source, target, "it has more memories")
        for table in (schema.namespaces, schema.marks, *_SERVER):
            if _rows(reading, table) != _rows(copy, table):
                raise _different(source, target, f"table {table.name!r}")


def _different(source: SQLBank, target: SQLBank, what: str) -> _Different:
    return _Different(
        f"{target._where} is not the same as {source._where} ({what}); if nothing else writes there, run the copy "
        "again, or copy into an empty bank"
    )
