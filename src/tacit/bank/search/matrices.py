"""The key matrices of an open bank, kept up to date with the database, and searched.

Builds on schema (what to read), index (the exact search) and compressed (the search of large matrices). One matrix per
(namespace, key kind, dimension); a namespace has one backbone, so that is also one per fingerprint. A search costs one
small query when nothing has been written since the last one; otherwise the rows that changed are read, never the whole
again.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Unpack

import numpy as np
from sqlalchemy import Connection, bindparam, select

from tacit.bank import schema
from tacit.bank.base import Hit, Query
from tacit.bank.search.compressed import CompressedMatrix, CompressedView, available, nearly_nearest
from tacit.bank.search.index import DAMAGED, DELETED, Group, Helpers, KeyMatrix, View, nearest
from tacit.bank.search.kept import Kept
from tacit.errors import BankError, ConfigError, FingerprintError
from tacit.memory import UNIT_TOLERANCE, State

LOG = logging.getLogger("tacit.bank")

_CODES: dict[str, int] = {state.value: code for code, state in enumerate(State)}
_ROWS_PER_READ = 2048
_PART = 16  # codes are kept anew when one in so many rows is new or changed
_KEYS_PER_READ = 500

# Built once: composing a statement anew costs more than running it. The statement of every search comes first.
_NOW = select(schema.bank.c.epoch, schema.bank.c.revision)
_m, _k = schema.memories.c, schema.keys.c
_DIMENSION = (
    select(_k.dim)
    .join_from(schema.memories, schema.keys)
    .where(_m.namespace == bindparam("namespace"), _m.key_kind == bindparam("key_kind"))
    .limit(1)
)
_KEYS_AT = (
    select(_m.position, _m.id, _m.problem_id, _k.key)
    .join_from(schema.memories, schema.keys)
    .where(_m.position.in_(bindparam("positions", expanding=True)), _m.state.in_(bindparam("states", expanding=True)))
    .where(_m.namespace == bindparam("namespace"), _m.key_kind == bindparam("key_kind"))
)


@dataclass
class _Group:
    matrix: KeyMatrix
    revision: int = -1
    changed: int = 0  # rows that are new, or of another state, since its codes were kept
    view: View = field(init=False)

    def __post_init__(self) -> None:
        self.view = self.matrix.view()


def default_threads() -> int:
    """Threads that a scan uses unless told otherwise: two saturate the memory bandwidth of the machines measured."""
    return min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class _Unlike(Exception):
    """Codes that are not of what the database holds."""


class Matrices:
    """All matrices of one open bank. Thread-safe."""

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[Connection]],
        where: str,
        threads: int | None,
        exact_rows: int | None,
    ) -> None:
        """``reading`` yields a connection inside a read transaction, ``where`` names the bank in errors."""
        if threads is not None and threads < 1:
            raise ConfigError(f"a bank needs at least 1 search thread, not {threads}")
        if exact_rows is not None and exact_rows < 1:
            raise ConfigError(f"exact_rows must be at least 1, or None for always exact, not {exact_rows}")
        self._exact_rows = exact_rows
        self._reading = reading
        self._where = where
        self._threads = threads or default_threads()
        self._helpers: Helpers | None = None
        self._lock = threading.Lock()
        self._epoch = ""
        self._groups: dict[Group, _Group] = {}
        self._bound: dict[str, str] = {}
        self.kept: Kept | None = None
        self._keeper: threading.Thread | None = None

    def rows(self, namespace: str, key_kind: str, dim: int) -> int:
        """How many rows are held of that group."""
        with self._lock:
            group = self._groups.get((namespace, key_kind, dim))
            return 0 if group is None else group.matrix.rows

    def forget(self, namespace: str, key_kind: str, dim: int) -> None:
        """Let go of that group's rows; the next search loads them again."""
        with self._lock:
            self._groups.pop((namespace, key_kind, dim), None)

    def close(self) -> None:
        """Stop the threads, once what is being kept is, and forget the matrices."""
        with self._lock:
            if self._keeper is not None:
                self._keeper.join()
            if self._helpers is not None:
                self._helpers.stop()
                self._helpers = None
            self._groups.clear()

    def search(self, keys: np.ndarray, **query: Unpack[Query]) -> list[list[Hit]]:
        """See ``Bank.search_many``."""
        k, floor, states = query.get("k", 1), query.get("floor", -1.0), query.get("states", (State.ACTIVE,))
        queries = checked_queries(keys, k, floor)
        if not len(queries):
            return []
        name = (query["namespace"], query["key_kind"], queries.shape[1])
        wanted = [State(state).value for state in states]
        asked: dict[str, Any] = {"k": k, "floor": floor, "codes": [_CODES[state] for state in wanted]}
        while True:
            rows: dict[int, Any] = {}  # of the database, by position
            with ExitStack() as transaction:
                with self._lock:
                    connection = transaction.enter_context(self._reading())
                    view = self._current(connection, name, query["fingerprint"])
                if view is None or not view.rows:
                    return [[] for _ in queries]
                if not isinstance(view, CompressedView):
                    transaction.close()
                    found = nearest(view, queries, helpers=self._helpers, **asked)
                    return [[Hit(view.ids[row], view.problem_ids[row], near) for row, near in hits] for hits in found]
                # Keys are read in the transaction that the view is of, so that none can be gone.
                read = partial(self._read_keys, connection, name, wanted, rows)
                with suppress(_Unlike):
                    found = nearly_nearest(view, queries, helpers=self._helpers, read=read, **asked)
                    pairs = [[(rows[view.positions[row]], near) for row, near in hits] for hits in found]
                    return [[Hit(row.id, row.problem_id, near) for row, near in hits] for hits in pairs]
            LOG.warning("the codes of %s are not of the keys in %s; they are made anew", name, self._where)
            self.forget(*name)
            if self.kept is not None:
                with suppress(OSError):
                    self.kept.path(name).unlink(missing_ok=True)

    def _current(self, connection: Connection, name: Group, fingerprint: str) -> View | None:
        """The view as of ``connection``'s transaction, None where no key of the kind is stored; the caller holds the
        lock."""
        epoch, revision = connection.execute(_NOW).one()
        if epoch != self._epoch:
            self._groups.clear()
            self._bound.clear()
            self._epoch = epoch
        if not self._check_binding(connection, name[0], fingerprint):
            return None
        group = self._groups.get(name)
        if group is None:
            if not self._has_keys(connection, name):
                return None
            group = self._groups.setdefault(name, self._begun(connection, name))
        if self._helpers is None and self._threads > 1:
            self._helpers = Helpers(self._threads - 1)
        if group.revision != revision:
            try:
                self._catch_up(connection, group, name)
            except BaseException:
                # Half caught up is worse than not at all: the next search loads it anew.
                del self._groups[name]
                raise
            group.revision = revision
            group.view = group.matrix.view()
            self._keep(group, name)
        if not group.view.rows:
            del self._groups[name]
        return group.view

    def _begun(self, connection: Connection, name: Group) -> _Group:
        """A group as it is before it catches up: empty, or as it was kept."""
        if self.kept is not None and self._exact_rows is not None:
            found = self.kept.load(connection, name, self._epoch)
            if found is not None and found[0].rows > self._exact_rows and available():
                return _Group(*found)
        return _Group(KeyMatrix(name[2]))

    def _keep(self, group: _Group, name: Group) -> None:
        """Have its codes kept, in the background, if many rows are new: a start would take long over them."""
        view, busy = group.view, self._keeper is not None and self._keeper.is_alive()
        if self.kept is None or busy or not isinstance(view, CompressedView) or group.changed * _PART < view.rows:
            return
        group.changed = 0
        about = (name, self._epoch, group.revision, view)
        self._keeper = threading.Thread(target=self.kept.save, args=about, name="tacit-bank-index")
        self._keeper.start()

    def _check_binding(self, connection: Connection, namespace: str, fingerprint: str) -> bool:
        """False where the namespace has no backbone yet; FingerprintError where it has another one."""
        if namespace not in self._bound:
            table = schema.namespaces
            row = connection.execute(select(table.c.fingerprint).where(table.c.namespace == namespace)).one_or_none()
            if row is None:
                return False
            self._bound[namespace] = row.fingerprint
        refuse_other(namespace, self._bound[namespace], fingerprint, self._where)
        return True

    def _has_keys(self, connection: Connection, name: Group) -> bool:
        """Whether there are any; BankError where they have another dimension."""
        namespace, key_kind, dim = name
        stored = dimension(connection, namespace, key_kind)
        if stored is not None and stored != dim:
            raise BankError(
                f"the search key has {dim} dimensions, but keys of kind {key_kind!r} in namespace {namespace!r} of "
                f"{self._where} have {stored}; make the key the way the stored ones were made"
            )
        return stored is not None

    def _catch_up(self, connection: Connection, group: _Group, name: Group) -> None:
        matrix, (namespace, key_kind, dim) = group.matrix, name
        if matrix.last:
            changed = connection.execute(
                select(_m.position, _m.state).where(
                    _m.namespace == namespace, _m.revision > group.revision, _m.position <= matrix.last
                )
            ).all()
            gone = connection.execute(
                select(schema.deletions.c.position).where(
                    schema.deletions.c.namespace == namespace, schema.deletions.c.revision > group.revision
                )
            ).all()
            if changed or gone:
                codes = [(row.position, _code(row.state)) for row in changed]
                matrix.change(codes + [(row.position, DELETED) for row in gone])
                group.changed += len(changed) + len(gone)
            if matrix.mostly_deleted():
                matrix = group.matrix = KeyMatrix(dim)
        rows = connection.execute(
            select(_m.position, _m.id, _m.problem_id, _m.state, _k.key)
            .join_from(schema.memories, schema.keys)
            .where(_m.namespace == namespace, _m.key_kind == key_kind, _k.dim == dim, _m.position > matrix.last)
            .order_by(_m.position)
        )
        for part in rows.partitions(_ROWS_PER_READ):
            positions, ids, problem_ids, states, blobs = zip(*part, strict=True)
            keys, damaged = _read(blobs, dim)
            codes_read = [_code(state) for state in states]
            for row in damaged:  # stands in its place, and is never found
                codes_read[row] = DAMAGED
                LOG.warning("%s; it is left out of every search", self._damaged(ids[row], namespace))
            matrix.append(positions, ids, problem_ids, codes_read, keys)
            group.changed += len(part)
            large = self._exact_rows is not None and matrix.rows > self._exact_rows
            if large and not isinstance(matrix, CompressedMatrix) and available():
                matrix = group.matrix = CompressedMatrix(matrix)

    def _read_keys(
        self, connection: Connection, name: Group, states: list[str], rows: dict[int, Any], positions: np.ndarray
    ) -> np.ndarray:
        """Stored keys, float32 [n, D], at rising ``positions``; what they were read from goes to ``rows``.

        _Unlike unless all are there, undamaged, of the group, and in one of ``states``, as the codes said.
        """
        asked = {"namespace": name[0], "key_kind": name[1], "states": states}
        for start in range(0, len(positions), _KEYS_PER_READ):
            some = positions[start : start + _KEYS_PER_READ].tolist()
            rows |= {row.position: row for row in connection.execute(_KEYS_AT, {**asked, "positions": some})}
        keys, damaged = _read([getattr(rows.get(at), "key", b"") for at in positions.tolist()], name[2])
        if damaged:
            raise _Unlike
        return keys

    def _damaged(self, id: str, namespace: str) -> str:
        return (
            f"the key of memory {id!r} in namespace {namespace!r} of {self._where} is damaged; "
            "delete that memory or restore a snapshot"
        )


def _code(state: str) -> int:
    """Of a stored state; what is no state is damage, and as good as deleted."""
    return _CODES.get(state, DELETED)


def _read(blobs: Sequence[bytes], dim: int) -> tuple[np.ndarray, list[int]]:
    """Stored keys as float32 [n, D], and the rows that are damaged; in their place is a key of norm 1."""
    damaged = [row for row, blob in enumerate(blobs) if not isinstance(blob, bytes) or len(blob) != 4 * dim]
    whole = list(blobs)
    for row in damaged:
        whole[row] = bytes(4 * dim)
    keys = np.frombuffer(b"".join(whole), dtype="<f4").reshape(len(blobs), dim)
    norms = np.sqrt(np.einsum("nd,nd->n", keys, keys))
    # float32 sums are good enough to tell a damaged key, hence the wider tolerance; NaN fails it too.
    wrong = np.flatnonzero(~(np.abs(norms - 1.0) <= 10 * UNIT_TOLERANCE + dim * 2.0**-24))
    if len(wrong):
        keys = keys.copy()
        keys[wrong] = 0.0
        keys[wrong, 0] = 1.0
    return keys, wrong.tolist()


def checked_queries(keys: np.ndarray, k: int, floor: float) -> np.ndarray:
    """Search keys [N, D] as float64 of norm 1; raises as ``Bank.search`` does for what makes no sense."""
    if k < 1 or math.isnan(floor):
        raise ConfigError(f"a search needs k >= 1 and a floor that is a number, not k={k} and floor={floor}")
    keys = np.asarray(keys)
    if keys.ndim != 2 or keys.dtype.kind != "f" or not keys.shape[1]:
        raise BankError(f"search keys must be floats of shape [N, D], not {keys.dtype} {list(keys.shape)}")
    if not len(keys):
        return np.empty((0, keys.shape[1]))
    queries = unit_queries(keys)
    if queries is None:
        raise BankError("a search key must be finite and not zero")
    return queries


def unit_queries(keys: np.ndarray) -> np.ndarray | None:
    """Queries [N, D] as float64 of norm 1, or None if one is zero or not finite."""
    queries = np.array(keys, dtype=np.float64)
    if not np.isfinite(queries).all():
        return None
    # Scaling by the largest value first keeps the squares of tiny or huge queries within range.
    largest = np.abs(queries).max(axis=1, keepdims=True)
    if not largest.all():
        return None
    queries /= largest
    queries /= np.sqrt((queries * queries).sum(axis=1, keepdims=True))
    return queries


def dimension(connection: Connection, namespace: str, key_kind: str) -> int | None:
    """Dimension of the keys of that kind in that namespace, None where there are none."""
    values = {"namespace": namespace, "key_kind": key_kind}
    found: int | None = connection.execute(_DIMENSION, values).scalar_one_or_none()
    return found


def refuse_other(namespace: str, bound: str, fingerprint: str, where: str, model: str = "") -> None:
    """FingerprintError unless the backbone ``fingerprint`` is the one that ``namespace`` is bound to, and ``model`` its
    model's name."""
    if bound != fingerprint:
        named = f"{bound} (model {model})" if model else bound
        raise FingerprintError(
            f"namespace {namespace!r} of {where} belongs to the backbone {named}, not to {fingerprint}; "
            "use the model it was learned with, or another namespace or bank for this one"
        )
