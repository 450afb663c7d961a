"""Search by the PostgreSQL server, with pgvector, for groups of keys too large to hold in memory.

Builds on schema, index (exact cosines) and SQLAlchemy. A group is what is comparable: one namespace, key kind and
dimension. Once it has more than ``exact_rows`` keys, somebody builds its index: from then on every new key goes into
``vectors`` in the transaction that stores its memory, as 16-bit floats; the older ones are filled in, and an HNSW index
over the group's rows alone is made, blocking nobody. Then the group is ``ready``. Until then searches are exact.

The index gives candidates. Those whose 16-bit cosine may be among the best k are computed again in float64 from the
stored keys. So what is returned has its exact cosine; one of the best k may now and then be missing. Where the index
finds fewer than asked for, states being rare, the server compares all keys of the group. pgvector indexes at most 4,000
dimensions: longer keys are turned (random signs, then a Fourier transform) and 4,000 fixed coordinates are kept; then
every candidate is computed again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import Any

import numpy as np
from sqlalchemy import Connection, exc, select, text

from tacit.bank import schema
from tacit.bank.base import Hit
from tacit.bank.search.index import Group, cosines_of
from tacit.memory import State

WIDEST = 4000
"""Most dimensions that pgvector indexes as halfvec."""

CANDIDATES = 1000
"""Rows that the index is asked for; also the most that its search keeps in view (hnsw.ef_search)."""

_HALF_ERROR = 1e-3  # of a cosine whose two sides are rounded to 11 bits, generously
_FILLED = 500
_M, _CONSTRUCTION = 32, 128
_m, _k = schema.memories.c, schema.keys.c

GROUPS = (
    "CREATE TABLE IF NOT EXISTS vector_groups (grp INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    " namespace TEXT NOT NULL, key_kind TEXT NOT NULL, dim INTEGER NOT NULL, ready BOOLEAN NOT NULL,"
    " UNIQUE (namespace, key_kind, dim))"
)
_VECTORS = (
    "CREATE TABLE IF NOT EXISTS vectors (position BIGINT PRIMARY KEY REFERENCES memories (position) ON DELETE CASCADE,"
    " grp INTEGER NOT NULL, key halfvec NOT NULL)",
    "ALTER TABLE vectors ALTER COLUMN key SET STORAGE PLAIN",
    "CREATE INDEX IF NOT EXISTS vectors_by_group ON vectors (grp, position)",
)
_HERE = "namespace = :namespace AND key_kind = :key_kind AND dim = :dim"
NOW = text(
    "SELECT (SELECT fingerprint FROM namespaces WHERE namespace = :namespace) AS fingerprint,"
    f" (SELECT grp FROM vector_groups WHERE ready AND {_HERE}) AS grp"
)
_SET = text(
    f"SELECT set_config('hnsw.ef_search', '{CANDIDATES}', true),"
    " set_config('hnsw.iterative_scan', 'relaxed_order', true),"
    " set_config('plan_cache_mode', 'force_custom_plan', true),"  # one for any query would not use the index
    " set_config('enable_seqscan', :other, true), set_config('enable_sort', :other, true),"
    " set_config('enable_hashjoin', :other, true), set_config('enable_mergejoin', :other, true),"
    " set_config('enable_bitmapscan', :other, true), set_config('max_parallel_workers_per_gather', '0', true)"
)
_FIND = text(f"SELECT grp FROM vector_groups WHERE {_HERE}")
_KEYS = select(_m.position, _m.id, _m.problem_id, _k.key).join_from(schema.memories, schema.keys).order_by(_m.position)


def available(connection: Connection) -> bool:
    """Whether pgvector is installed in the database, in a version that can go on scanning (0.8)."""
    found = connection.exec_driver_sql("SELECT extversion FROM pg_extension WHERE extname = 'vector'").scalar()
    return found is not None and tuple(int(part) for part in str(found).split(".")[:2]) >= (0, 8)


def named(group: Group) -> dict[str, Any]:
    """A group as parameters."""
    return dict(zip(("namespace", "key_kind", "dim"), group, strict=True))


def stored(connection: Connection, position: int, group: Group, key: bytes) -> None:
    """Keep a new memory's key for the index, where its group has one; in the transaction that stores the memory."""
    grp = connection.execute(_FIND, named(group)).scalar_one_or_none()
    if grp is not None:
        values = {"position": position, "grp": grp, "key": _text(narrow(np.frombuffer(key, dtype="<f4")[None])[0])}
        connection.execute(text("INSERT INTO vectors VALUES (:position, :grp, CAST(:key AS halfvec))"), values)


def search(
    connection: Connection,
    group: Group,
    queries: np.ndarray,
    grp: int,
    *,
    k: int,
    floor: float,
    states: Collection[State],
) -> list[list[Hit]]:
    """``Bank.search_many`` by the server; ``queries`` float64 [N, D] of norm 1, inside a read transaction."""
    wanted = max(CANDIDATES, 4 * k)
    narrowed = narrow(queries.astype(np.float32))
    width = narrowed.shape[1]
    found: list[list[Hit]] = []
    for query, short in zip(queries, narrowed, strict=True):
        values = {"query": _text(short), "states": [state.value for state in states], "most": wanted}
        connection.execute(_SET, {"other": "off"})
        rows = connection.execute(_candidates(grp, width, indexed=True), values).all()
        if len(rows) < wanted:
            connection.execute(_SET, {"other": "on"})
            rows = connection.execute(_candidates(grp, width, indexed=False), values).all()
        near = sorted((row.distance, row.position) for row in rows)
        if group[2] <= WIDEST and len(near) > k:
            cut = near[k - 1][0] + 2 * _HALF_ERROR
            near = [pair for pair in near if pair[0] <= cut]
        found.append(_rescored(connection, [position for _, position in near], query, k, floor))
    return found


@cache
def _candidates(grp: int, width: int, *, indexed: bool) -> Any:
    # Adding 0 to the distance is what keeps the planner from the index.
    distance = f"(v.key::halfvec({width}) <=> CAST(:query AS halfvec({width})))" + ("" if indexed else " + 0")
    return text(
        f"SELECT v.position, {distance} AS distance FROM vectors v JOIN memories m ON m.position = v.position"
        f" WHERE v.grp = {grp} AND m.state = ANY(:states) ORDER BY {distance} LIMIT :most"
    )


def _rescored(connection: Connection, positions: list[int], query: np.ndarray, k: int, floor: float) -> list[Hit]:
    rows = connection.execute(_KEYS.where(_m.position.in_(positions))).all() if positions else []
    if not rows:
        return []
    keys = np.frombuffer(b"".join(row.key for row in rows), dtype="<f4").reshape(len(rows), -1)
    cosines = cosines_of(keys, query)
    order = np.lexsort((np.arange(len(rows)), -cosines))[:k]
    return [Hit(rows[i].id, rows[i].problem_id, float(cosines[i])) for i in order if cosines[i] >= floor]


def narrow(keys: np.ndarray) -> np.ndarray:
    """Keys (float32 [n, D]) as they are indexed: themselves up to ``WIDEST`` dimensions, else a fixed projection."""
    dim = keys.shape[1]
    if dim <= WIDEST:
        return keys
    signs, chosen = _projection(dim)
    turned = np.fft.rfft(keys * signs, axis=1)
    flat = np.concatenate([turned.real, turned.imag], axis=1)[:, chosen]
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    made: np.ndarray = (flat / np.where(norms > 0, norms, 1)).astype(np.float32)
    return made


@cache
def _projection(dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(dim)
    signs = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=dim)
    return signs, np.sort(rng.choice(2 * (dim // 2 + 1), size=WIDEST, replace=False))


def _text(key: np.ndarray) -> str:
    return "[" + ",".join(map(str, key.tolist())) + "]"


def build(
    connection: Connection,
    writing: Callable[[], AbstractContextManager[Connection]],
    group: Group,
    told: Callable[[int], None],
) -> bool:
    """Make a group ready; False when another process is at it. Killed, it goes on when called again.

    Args:
        connection: commits every statement, is used for nothing else, and is to be closed afterwards.
        writing: a write transaction.
        group: which.
        told: called with the number of keys filled in.
    """
    # Of this database and schema alone, held by the connection: it ends with the process.
    if not connection.exec_driver_sql("SELECT pg_try_advisory_lock('vector_groups'::regclass::oid::bigint)").scalar():
        return False
    connection.exec_driver_sql("SET lock_timeout = 0")  # an index waits for every older transaction to end
    with writing() as write:
        for statement in _VECTORS:
            write.exec_driver_sql(statement)
        grp = write.execute(_FIND, named(group)).scalar_one_or_none()
        if grp is None:
            make = text(
                "INSERT INTO vector_groups (namespace, key_kind, dim, ready)"
                " VALUES (:namespace, :key_kind, :dim, false) RETURNING grp"
            )
            grp = write.execute(make, named(group)).scalar_one()
    rows = _fill(connection, group, int(grp), told)
    width = min(group[2], WIDEST)
    name = f"vectors_{grp}"
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
    if connection.exec_driver_sql(valid, (name,)).scalar() is False:  # somebody was killed over it
        connection.exec_driver_sql(f"DROP INDEX {name}")
    memory = min(2_000_000, 64_000 + rows * (2 * width + 12 * _M + 300) * 13 // 10_000)
    connection.exec_driver_sql(f"SET maintenance_work_mem = '{memory}kB'")
    index = (
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON vectors USING hnsw ((key::halfvec({width}))"
        f" halfvec_cosine_ops) WITH (m = {_M}, ef_construction = {_CONSTRUCTION}) WHERE grp = {grp}"
    )
    try:
        connection.exec_driver_sql(index)
    except exc.SQLAlchemyError:  # in parallel it needs shared memory, of which containers have little
        with suppress(exc.SQLAlchemyError):
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS {name}")
        connection.exec_driver_sql("SET max_parallel_maintenance_workers = 0")
        connection.exec_driver_sql(index)
    connection.exec_driver_sql("ANALYZE vectors")
    connection.execute(text("UPDATE vector_groups SET ready = true WHERE grp = :grp"), {"grp": grp})
    return True


def _fill(connection: Connection, group: Group, grp: int, told: Callable[[int], None]) -> int:
    """Bring the group's older keys into ``vectors``, in order; returns how many there are now."""
    rows = text(
        "SELECT m.position, k.key FROM memories m JOIN keys k ON k.position = m.position WHERE m.namespace = :namespace"
        " AND m.key_kind = :key_kind AND k.dim = :dim AND m.position > :last AND NOT EXISTS"
        " (SELECT 1 FROM vectors v WHERE v.position = m.position)"
        f" ORDER BY m.position LIMIT {_FILLED} FOR KEY SHARE OF m"
    )
    last = done = 0
    while True:
        connection.exec_driver_sql("BEGIN")
        try:
            part = connection.execute(rows, {**named(group), "last": last}).all()
            if part:
                keys = np.frombuffer(b"".join(row.key for row in part), dtype="<f4").reshape(len(part), group[2])
                _copy_in(connection, [row.position for row in part], grp, narrow(keys))
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            with suppress(exc.SQLAlchemyError):
                connection.exec_driver_sql("ROLLBACK")
            raise
        if not part:
            break
        last = part[-1].position
        done += len(part)
        told(done)
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM vectors WHERE grp = {grp}").scalar_one())


def _copy_in(connection: Connection, positions: list[int], grp: int, keys: np.ndarray) -> None:
    """COPY in PostgreSQL's binary format, since a key as text takes ten times as long."""
    dim = keys.shape[1]
    halves = keys.astype(">f2")
    raw: Any = connection.connection.dbapi_connection
    with raw.cursor() as cursor, cursor.copy("COPY vectors (position, grp, key) FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0))
        for position, half in zip(positions, halves, strict=True):
            head = struct.pack(">hiqiiihh", 3, 8, position, 4, grp, 4 + 2 * dim, dim, 0)
            copy.write(head + half.tobytes())
        copy.write(struct.pack(">h", -1))
