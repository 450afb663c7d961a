"""The bank's tables, and the numbered migrations that make them.

Builds on SQLAlchemy Core alone, so that every SQL database can use the same statements. The ``Table`` objects are
the latest schema, for building queries; the migrations are plain statements, frozen once released, and the only thing
that ever creates or alters a table. A new step goes to the end of ``MIGRATIONS``; none is ever changed.

What is read often and small (``memories``) is apart from what is large (``keys``, ``payloads``) and from what is
written often (``counters``). So counting a use does not rewrite a soft prompt, and listing does not read one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()


def _table(name: str, *columns: Column[Any]) -> Table:
    return Table(name, metadata, *columns)


def _filled(kind: type[Any], *names: str) -> Iterator[Column[Any]]:
    """Columns that every row has a value of."""
    return (Column(name, kind, nullable=False) for name in names)


def _open(kind: type[Any], *names: str) -> Iterator[Column[Any]]:
    """Columns that may be null."""
    return (Column(name, kind) for name in names)


def _key(kind: type[Any], *names: str) -> Iterator[Column[Any]]:
    """Columns of the primary key."""
    return (Column(name, kind, primary_key=True) for name in names)


def _of_a_memory(*, alone: bool = True) -> Column[Any]:
    """The column that says whose row it is; the row goes when its memory does. ``alone``: the only one of it."""
    return Column(
        "position", BigInteger, ForeignKey("memories.position", ondelete="CASCADE"), primary_key=alone, nullable=False
    )


bank = _table(
    "bank",
    *_key(Integer, "one"),  # always 1: the table has one row
    *_filled(Text, "epoch"),  # changes when the content is replaced as a whole, by restore
    *_filled(BigInteger, "revision"),  # raised by every write
)

namespaces = _table("namespaces", *_key(Text, "namespace"), *_filled(Text, "fingerprint", "model"))

memories = _table(
    "memories",
    *_key(BigInteger, "position"),  # grows with every stored memory, never used twice
    *_filled(Text, "id"),
    Column("namespace", Text, ForeignKey("namespaces.namespace"), nullable=False),
    *_filled(Text, "problem_id", "problem", "key_kind", "fingerprint", "state", "reason", "sha256"),
    *_open(Text, "label"),
    *_open(Double, "share", "margin"),
    *_filled(Double, "created"),
    *_filled(BigInteger, "revision"),  # of the last change to this row
)

keys = _table(
    "keys",
    _of_a_memory(),
    *_filled(Integer, "dim"),
    *_filled(LargeBinary, "key"),  # float32 little-endian
)

payloads = _table(
    "payloads",
    _of_a_memory(),
    *_filled(Text, "digest"),  # SHA-256 over everything about the memory that never changes
    *_filled(Text, "provenance"),  # JSON
    *_filled(LargeBinary, "prompt"),  # safetensors with one tensor, "prompt"
)

counters = _table("counters", _of_a_memory(), *_filled(BigInteger, "uses", "agreed", "helped", "hurt"))

deletions = _table(
    "deletions", *_key(BigInteger, "revision"), *_filled(Text, "namespace"), *_filled(BigInteger, "position")
)

history = _table(
    "history",
    *_key(BigInteger, "step"),
    _of_a_memory(alone=False),
    *_filled(Double, "time"),
    *_open(Text, "old"),
    *_filled(Text, "new", "reason"),
)

marks = _table("marks", *_key(Text, "namespace", "name"), *_filled(Text, "value"))

api_keys = _table(
    "api_keys",
    *_key(Text, "id"),
    *_filled(Text, "name"),
    *_filled(Text, "digest"),  # hex SHA-256 of the secret, which itself is kept nowhere
    *_filled(Text, "namespace"),
    *_filled(Text, "rights"),  # comma-separated
    *_filled(BigInteger, "learn_per_day"),
    *_filled(Double, "created"),
    *_open(Double, "revoked"),
)

learned_days = _table(
    "learned_days",
    *_key(Text, "key_id"),  # a server that asks for no keys has one that is not in api_keys
    *_key(Text, "day"),  # UTC, 2026-01-31
    *_filled(BigInteger, "n"),  # problems that the key has queued on that day
)

jobs = _table(
    "jobs",
    *_key(BigInteger, "number"),  # order of submission, never used twice
    *_filled(Text, "id", "namespace", "problem_id", "problem"),
    *_filled(Text, "digest"),  # of namespace and normalised problem: a problem is queued once
    *_filled(Text, "key_id"),
    *_filled(Text, "state"),  # queued, learning, done, failed
    *_filled(Integer, "attempts"),
    *_open(Double, "lease_until"),
    *_open(Text, "worker", "error", "memory_id", "outcome"),
    *_open(Text, "progress"),  # JSON
    *_filled(Double, "created"),
    *_open(Double, "started", "finished"),
)


@dataclass(frozen=True)
class Migration:
    """One numbered step; its number is its place in ``MIGRATIONS``, counted from 1.

    ``{serial}`` stands for a primary key that the database counts up and never reuses; ``{blob}`` for its type of
    bytes; ``{real}`` for its float64; ``{random}`` for an expression that yields a random text.
    """

    name: str
    statements: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "memories",
        (
            """CREATE TABLE bank (
                one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL, revision BIGINT NOT NULL)""",
            "INSERT INTO bank (one, epoch, revision) VALUES (1, {random}, 0)",
            "CREATE TABLE namespaces (namespace TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, model TEXT NOT NULL)",
            """CREATE TABLE memories (
                position {serial}, id TEXT NOT NULL, namespace TEXT NOT NULL REFERENCES namespaces (namespace),
                problem_id TEXT NOT NULL, problem TEXT NOT NULL, key_kind TEXT NOT NULL, fingerprint TEXT NOT NULL,
                state TEXT NOT NULL, reason TEXT NOT NULL, sha256 TEXT NOT NULL, label TEXT, share {real},
                margin {real}, created {real} NOT NULL, revision BIGINT NOT NULL, UNIQUE (namespace, id))""",
            "CREATE INDEX memories_by_revision ON memories (namespace, revision)",
            "CREATE INDEX memories_by_problem ON memories (namespace, problem_id)",
            "CREATE INDEX memories_by_kind ON memories (namespace, key_kind, position)",
            """CREATE TABLE keys (
                position BIGINT PRIMARY KEY REFERENCES memories (position) ON DELETE CASCADE,
                dim INTEGER NOT NULL, key {blob} NOT NULL)""",
            """CREATE TABLE payloads (
                position BIGINT PRIMARY KEY REFERENCES memories (position) ON DELETE CASCADE,
                digest TEXT NOT NULL, provenance TEXT NOT NULL, prompt {blob} NOT NULL)""",
            """CREATE TABLE counters (
                position BIGINT PRIMARY KEY REFERENCES memories (position) ON DELETE CASCADE,
                uses BIGINT NOT NULL, agreed BIGINT NOT NULL, helped BIGINT NOT NULL, hurt BIGINT NOT NULL)""",
            "CREATE TABLE deletions (revision BIGINT PRIMARY KEY, namespace TEXT NOT NULL, position BIGINT NOT NULL)",
        ),
    ),
    Migration(
        "history of states",
        (
            """CREATE TABLE history (
                step {serial}, position BIGINT NOT NULL REFERENCES memories (position) ON DELETE CASCADE,
                time {real} NOT NULL, old TEXT, new TEXT NOT NULL, reason TEXT NOT NULL)""",
            "CREATE INDEX history_by_memory ON history (position, step)",
            # What came before is unknown; each memory's history starts with the state that it is found in.
            """INSERT INTO history (position, time, old, new, reason)
                SELECT position, created, NULL, state, reason FROM memories ORDER BY position""",
        ),
    ),
    Migration(
        "ledger",
        (
            """CREATE TABLE marks (
                namespace TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (namespace, name))""",
        ),
    ),
    Migration(
        "server",
        (
            """CREATE TABLE api_keys (
                id TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL,
                rights TEXT NOT NULL, learn_per_day BIGINT NOT NULL, created {real} NOT NULL, revoked {real})""",
            """CREATE TABLE learned_days (
                key_id TEXT NOT NULL, day TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (key_id, day))""",
            """CREATE TABLE jobs (
                number {serial}, id TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL, problem_id TEXT NOT NULL,
                problem TEXT NOT NULL, digest TEXT NOT NULL, key_id TEXT NOT NULL, state TEXT NOT NULL,
                attempts INTEGER NOT NULL, lease_until {real}, worker TEXT, error TEXT, memory_id TEXT, outcome TEXT,
                progress TEXT, created {real} NOT NULL, started {real}, finished {real}, UNIQUE (namespace, digest))""",
            "CREATE INDEX jobs_by_state ON jobs (state, number)",
            "CREATE INDEX jobs_by_namespace ON jobs (namespace, state, number)",
        ),
    ),
)
