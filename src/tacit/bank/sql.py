"""What a bank does, in SQL statements.

Builds on base (the promises), schema (the tables), transactions, matrices (search) and memory. ``SQLBank`` knows no
database in particular; a subclass opens one, says how its errors read, and how it is copied. See ``sqlite``.

Two rules carry the concurrency. Writers are serialised by the database (a write transaction locks from its first
statement), so positions and revisions rise in the order of commits. And every write raises the bank's one revision
number: a reader whose matrix is of that revision is up to date; any other asks for the rows that changed since.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import safetensors.numpy
from sqlalchemy import Column, Connection, Engine, RowMapping, bindparam, case, delete, insert, select, update

from tacit.bank import schema
from tacit.bank.base import MARKS_OF_MEMORIES, Hit, Query, StateChange
from tacit.bank.listing import COUNTERS, Listing, state_of
from tacit.bank.portable import read_tensors
from tacit.bank.rows import odd
from tacit.bank.search.matrices import Matrices, dimension, refuse_other
from tacit.checks.values import MAX_NAME, check_name, check_text, parse_json
from tacit.errors import BankError, DamagedMemory, MemoryFormatError, MemoryNotFound
from tacit.memory import Memory, State, from_record, prompt_bytes, record

_m = schema.memories.c

# The statements of every add are built once: composing one costs more than running it.
_NAMESPACE = select(schema.namespaces).where(schema.namespaces.c.namespace == bindparam("namespace"))
_POSITION = select(_m.position).where(_m.namespace == bindparam("namespace"), _m.id == bindparam("id"))
_RAISE = update(schema.bank).values(revision=schema.bank.c.revision + 1).returning(schema.bank.c.revision)
_ADD_MEMORY = insert(schema.memories).returning(_m.position)
_ADD_KEY, _ADD_PAYLOAD, _ADDCOUNTERS = insert(schema.keys), insert(schema.payloads), insert(schema.counters)
_ADD_STEP = insert(schema.history)
WHOLE = (  # everything about memories but their histories
    select(
        schema.memories,
        schema.keys.c.key,
        schema.payloads.c.digest,
        schema.payloads.c.provenance,
        schema.payloads.c.prompt,
        *(schema.counters.c[name] for name in COUNTERS),
    )
    .join_from(schema.memories, schema.keys)
    .join(schema.payloads, schema.payloads.c.position == _m.position)
    .join(schema.counters, schema.counters.c.position == _m.position)
)
_WRITTEN = WHOLE.where(_m.position == bindparam("position"))


class SQLBank(Listing):
    """A bank in an SQL database; implements the ``Bank`` protocol, which says what its methods promise."""

    def __init__(
        self,
        url: str,
        where: str,
        engine: Engine,
        lock_timeout: float,
        search_threads: int | None,
        exact_rows: int | None,
    ) -> None:
        """``where`` names the bank in errors; ``lock_timeout`` is in seconds."""
        super().__init__(engine, where, lock_timeout)
        self._url = url
        self._matrices = Matrices(self._fresh_reading, where, search_threads, exact_rows)

    @property
    def url(self) -> str:
        """The address that ``open_bank`` opens this bank by."""
        return self._url

    @abstractmethod
    def snapshot(self, path: str | Path) -> None:
        """See ``Bank.snapshot``."""

    @abstractmethod
    def _check_files(self) -> None:
        """The database's own integrity check; BankError when it finds damage."""

    def shrink(self) -> int:
        return 0

    def fault(self) -> str | None:
        """Why the whole bank cannot be used, as far as that can be told at once; None where it may be well."""
        return None

    @contextmanager
    def connection(self, *, write: bool = False) -> Iterator[Connection]:
        with self._writing() if write else self._reading() as connection:
            yield connection

    # Writes.

    def bind(self, namespace: str, fingerprint: str, model: str) -> None:
        check_name("namespace", namespace)
        check_name("fingerprint", fingerprint)
        with self._writing() as connection:
            self._bind(connection, namespace, fingerprint, model)

    def _bind(self, connection: Connection, namespace: str, fingerprint: str, model: str | None) -> None:
        table = schema.namespaces
        row = connection.execute(_NAMESPACE, {"namespace": namespace}).one_or_none()
        if row is None:
            self._raise_revision(connection)
            connection.execute(insert(table).values(namespace=namespace, fingerprint=fingerprint, model=model or ""))
            return
        refuse_other(namespace, row.fingerprint, fingerprint, self._where, row.model)
        if model is not None and model != row.model:
            self._raise_revision(connection)
            connection.execute(update(table).where(table.c.namespace == namespace).values(model=model))

    def add(self, memory: Memory) -> bool:
        with self._writing() as connection:
            self._bind(connection, memory.namespace, memory.fingerprint, None)
            if self._position(connection, memory.id, memory.namespace) is not None:
                return False
            stored = dimension(connection, memory.namespace, memory.key_kind)
            if stored is not None and stored != len(memory.key):
                raise BankError(
                    f"the key of memory {memory.id!r} has {len(memory.key)} dimensions, but keys of kind "
                    f"{memory.key_kind!r} in namespace {memory.namespace!r} of {self._where} have {stored}"
                )
            self._insert(connection, memory)
            return True

    def _insert(self, connection: Connection, memory: Memory) -> None:
        row = record(memory)
        count = {name: row.pop(name) for name in COUNTERS}
        provenance = row.pop("provenance")
        label, share, margin = (provenance.get(name) for name in ("label", "share", "margin"))
        text = json.dumps(provenance, ensure_ascii=False, allow_nan=False)
        row.update(sha256=memory.sha256, label=None if label is None else _shown(label))
        row.update(share=_real(share), margin=_real(margin), revision=self._raise_revision(connection))
        position = connection.execute(_ADD_MEMORY, row).scalar_one()
        key = prompt_bytes(memory.key)
        connection.execute(_ADD_KEY, {"position": position, "dim": len(memory.key), "key": key})
        prompt = safetensors.numpy.save({"prompt": np.ascontiguousarray(memory.prompt)})
        payload = {"position": position, "provenance": text, "prompt": prompt}
        payload["digest"] = _digest_of({**row, **payload, "key": key})
        connection.execute(_ADD_PAYLOAD, payload)
        connection.execute(_ADDCOUNTERS, {"position": position, **count})
        step = StateChange(memory.created, None, memory.state, memory.reason)
        self._remember(connection, position, step)
        self._check_written(connection, {**row, **count, **payload, "key": key})
        self._stored(connection, position, (memory.namespace, memory.key_kind, len(memory.key)), key)

    def _check_written(self, connection: Connection, written: dict[str, Any]) -> None:
        """MemoryFormatError, so that nothing is stored, unless the database returns what it was given, bit by bit."""
        found = connection.execute(_WRITTEN, {"position": written["position"]}).mappings().one()
        # The digest too: it tells apart what is equal, such as 0.0 and -0.0.
        if dict(found) != written or _digest_of(found) != written["digest"]:
            raise MemoryFormatError(f"memory {written['id']!r} does not come back from {self._where} as it was given")

    def _stored(self, connection: Connection, position: int, group: tuple[str, str, int], key: bytes) -> None:
        """Called in the transaction of every new memory: its namespace, key kind and dimension, its key as float32."""

    def set_state(self, id: str, namespace: str, state: State, reason: str, note: str = "") -> None:
        check_text("reason", f"{note}{reason}")
        state = State(state)
        with self._writing() as connection:
            position = self._found(connection, id, namespace)
            old = connection.execute(select(_m.state).where(_m.position == position)).scalar_one()
            revision = self._raise_revision(connection)
            connection.execute(
                update(schema.memories)
                .where(_m.position == position)
                .values(state=state.value, reason=reason, revision=revision)
            )
            self._remember(connection, position, StateChange(time.time(), state_of(old), state, f"{note}{reason}"))

    def count(self, id: str, namespace: str, *, uses: int = 0, agreed: int = 0, helped: int = 0, hurt: int = 0) -> None:
        steps = {"uses": uses, "agreed": agreed, "helped": helped, "hurt": hurt}
        if not all(0 <= step < 2**31 for step in steps.values()):
            raise BankError(f"counters only grow, by less than 2^31 at a time; cannot add {steps}")
        with self._writing() as connection:
            position = self._found(connection, id, namespace)
            table = schema.counters
            self._raise_revision(connection)
            connection.execute(
                update(table)
                .where(table.c.position == position)
                .values({name: _counted(table.c[name], step) for name, step in steps.items()})
            )

    def delete(self, id: str, namespace: str) -> None:
        with self._writing() as connection:
            position = self._found(connection, id, namespace)
            revision = self._raise_revision(connection)
            connection.execute(delete(schema.memories).where(_m.position == position))
            connection.execute(
                insert(schema.deletions).values(revision=revision, namespace=namespace, position=position)
            )
            names = [f"{kind}:{id}" for kind in MARKS_OF_MEMORIES]  # one that is learned again begins anew
            marks = schema.marks.c
            connection.execute(delete(schema.marks).where(marks.namespace == namespace, marks.name.in_(names)))

    def mark(self, namespace: str, name: str, value: str) -> None:
        check_name("namespace", namespace)
        check_name("mark", name, 2 * MAX_NAME)  # some are made of a memory's id
        check_text("value of a mark", value)
        table = schema.marks
        with self._writing() as connection:
            self._raise_revision(connection)
            here = (table.c.namespace == namespace) & (table.c.name == name)
            if not connection.execute(update(table).where(here).values(value=value)).rowcount:
                connection.execute(insert(table).values(namespace=namespace, name=name, value=value))

    def _raise_revision(self, connection: Connection) -> int:
        return int(connection.execute(_RAISE).scalar_one())

    def _remember(self, connection: Connection, position: int, step: StateChange) -> None:
        old = None if step.old is None else step.old.value
        values = {"position": position, "time": step.time, "old": old, "new": step.new.value, "reason": step.reason}
        connection.execute(_ADD_STEP, values)

    # Reads.

    def get(self, id: str, namespace: str) -> Memory:
        with self._reading() as connection:
            here = (_m.namespace == namespace) & (_m.id == id)
            row = connection.execute(WHOLE.where(here)).mappings().one_or_none()
            if row is None:
                self._found(connection, id, namespace)  # raises, unless a part of the memory is missing
                raise DamagedMemory(f"memory {id!r} in {self._where} lacks a part; restore a snapshot")
        try:
            return memory_of(row)
        except MemoryFormatError as error:
            raise DamagedMemory(f"memory {id!r} in {self._where} is damaged ({error}); restore a snapshot") from error

    def search(self, key: np.ndarray, **query: Unpack[Query]) -> list[Hit]:
        return self.search_many(np.asarray(key)[None], **query)[0]

    def search_many(self, keys: np.ndarray, **query: Unpack[Query]) -> list[list[Hit]]:
        self._check_usable()
        return self._matrices.search(keys, **query)

    def history(self, id: str, namespace: str) -> list[StateChange]:
        table = schema.history
        with self._reading() as connection:
            position = self._found(connection, id, namespace)
            rows = connection.execute(select(table).where(table.c.position == position).order_by(table.c.step)).all()
        return [
            StateChange(r.time, None if r.old is None else state_of(r.old), state_of(r.new), r.reason) for r in rows
        ]

    def marked(self, namespace: str, name: str) -> str | None:
        table = schema.marks
        statement = select(table.c.value).where(table.c.namespace == namespace, table.c.name == name)
        with self._reading() as connection:
            found: str | None = connection.execute(statement).scalar_one_or_none()
            return found

    def revision(self) -> int:
        with self._reading() as connection:
            return int(connection.execute(select(schema.bank.c.revision)).scalar_one())

    def check(self) -> None:
        self._check_files()
        damaged = [f"memory {id!r}: {why}" for id, why in self.damages().values()]
        with self._fresh_reading() as connection:
            if not damaged and connection.dialect.name == "sqlite":  # others keep nothing in a column but its kind
                damaged = [f"row {row} of table {name!r} is not as Tacit writes it" for name, row in odd(connection)]
        if damaged:
            more = f" (and {len(damaged) - 3} more)" if len(damaged) > 3 else ""
            raise BankError(f"{self._where} is damaged: {'; '.join(damaged[:3])}{more}; restore a snapshot")

    def damages(self) -> dict[int, tuple[str, str]]:
        """The id of every damaged memory, and what is wrong with it, by position."""
        damaged: dict[int, tuple[str, str]] = {}
        with self._fresh_reading() as connection:
            names = {row.position: row.id for row in connection.execute(select(_m.position, _m.id))}
            rows = connection.execution_options(yield_per=64).execute(WHOLE).mappings()
            for row in rows:
                del names[row["position"]]
                try:
                    memory_of(row)
                except MemoryFormatError as error:
                    damaged[row["position"]] = row["id"], str(error)
        return damaged | {position: (id, "a part of it is missing") for position, id in names.items()}

    def _position(self, connection: Connection, id: str, namespace: str) -> int | None:
        values = {"namespace": namespace, "id": id}
        found: int | None = connection.execute(_POSITION, values).scalar_one_or_none()
        return found

    def _found(self, connection: Connection, id: str, namespace: str) -> int:
        position = self._position(connection, id, namespace)
        if position is None:
            raise MemoryNotFound(f"namespace {namespace!r} has no memory {id!r}")
        return position

    def close(self) -> None:
        if not self._closed:
            self._matrices.close()
            self._dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def memory_of(row: RowMapping) -> Memory:
    """The memory in a row of everything; MemoryFormatError when what was stored is not what is there."""
    fields: dict[str, Any] = {name: row[name] for name in Memory.__dataclass_fields__ if name in row}
    fields["provenance"] = parse_json(row["provenance"], "its provenance")
    prompt = read_tensors(row["prompt"])[0].get("prompt")
    if prompt is None or not isinstance(row["key"], bytes) or len(row["key"]) % 4:
        raise MemoryFormatError("its tensors are not what was stored")
    memory = from_record(
        {k: v for k, v in fields.items() if k not in ("prompt", "key")}, prompt, np.frombuffer(row["key"], dtype="<f4")
    )
    if memory.sha256 != row["sha256"]:
        raise MemoryFormatError("its soft prompt does not have the SHA-256 that was recorded")
    if _digest_of(row) != row["digest"]:
        raise MemoryFormatError("its record or key does not have the SHA-256 that was recorded")
    return memory


def _digest_of(row: Mapping[Any, Any]) -> str:
    """SHA-256 over what never changes in a memory: identity, problem, provenance, key, and the prompt's own hash."""
    names = ("id", "namespace", "problem_id", "problem", "key_kind", "fingerprint")
    created, key = repr(float(row["created"])), row["key"].hex()
    whole = json.dumps([*(row[name] for name in names), created, row["provenance"], row["sha256"], key])
    return hashlib.sha256(whole.encode()).hexdigest()


def _counted(counter: Column[Any], step: int) -> Any:
    """A counter and a step; near its end it stays where it is, since what no database can hold would be damage."""
    return case((counter >= 2**62, counter), else_=counter + step)


def _shown(label: object) -> str:
    return str(label).replace("\0", "")  # provenance may hold what no database keeps as text


def _real(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # provenance from elsewhere may hold any whole number
        return None
