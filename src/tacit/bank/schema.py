"""The bank's tables, and the numbered migrations that make them.

Builds on SQLAlchemy Core alone, so that every SQL database can use the same statements. The ``Table`` objects are
the latest schema, for building queries; the migrations are plain statements, frozen once released, and the only thing
that ever creates or alters a table. A new step goes to the end of ``MIGRATIONS``; none is ever changed.

What is read often and small (``memories``) is apart from what is large (``keys``, ``payloads``) and from what is
written often (``counters``), so that counting a use does not rewrite a soft prompt, and listing does not read one.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

bank = Table(
    "bank",
    metadata,
    Column("one", Integer, primary_key=True),  # always 1: the table has one row
    Column("epoch", Text, nullable=False),  # changes when the content is replaced as a whole, by restore
    Column("revision", BigInteger, nullable=False),  # raised by every write
)

namespaces = Table(
    "namespaces",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("model", Text, nullable=False),
)

memories = Table(
    "memories",
    metadata,
    Column("position", BigInteger, primary_key=True),  # grows with every stored memory, never used twice
    Column("id", Text, nullable=False),
    Column("namespace", Text, ForeignKey("namespaces.namespace"), nullable=False),
    Column("problem_id", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("key_kind", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("label", Text),
    Column("share", Double),
    Column("margin", Double),
    Column("created", Double, nullable=False),
    Column("revision", BigInteger, nullable=False),  # of the last change to this row
)

keys = Table(
    "keys",
    metadata,
    Column("position", BigInteger, ForeignKey("memories.position", ondelete="CASCADE"), primary_key=True),
    Column("dim", Integer, nullable=False),
    Column("key", LargeBinary, nullable=False),  # float32 little-endian
)

payloads = Table(
    "payloads",
    metadata,
    Column("position", BigInteger, ForeignKey("memories.position", ondelete="CASCADE"), primary_key=True),
    Column("digest", Text, nullable=False),  # SHA-256 over everything about the memory that never changes
    Column("provenance", Text, nullable=False),  # JSON
    Column("prompt", LargeBinary, nullable=False),  # safetensors with one tensor, "prompt"
)

counters = Table(
    "counters",
    metadata,
    Column("position", BigInteger, ForeignKey("memories.position", ondelete="CASCADE"), primary_key=True),
    Column("uses", BigInteger, nullable=False),
    Column("agreed", BigInteger, nullable=False),
    Column("helped", BigInteger, nullable=False),
    Column("hurt", BigInteger, nullable=False),
)

deletions = Table(
    "deletions",
    metadata,
    Column("revision", BigInteger, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
)

history = Table(
    "history",
    metadata,
    Column("step", BigInteger, primary_key=True),
    Column("position", BigInteger, ForeignKey("memories.position", ondelete="CASCADE"), nullable=False),
    Column("time", Double, nullable=False),
    Column("old", Text),
    Column("new", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

marks = Table(
    "marks",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),  # hex SHA-256 of the secret, which itself is kept nowhere
    Column("namespace", Text, nullable=False),
    Column("rights", Text, nullable=False),  # comma-separated
    Column("learn_per_day", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
    Column("revoked", Double),
)

learned_days = Table(
    "learned_days",
    metadata,
    Column("key_id", Text, primary_key=True),  # a server that asks for no keys has one that is not in api_keys
    Column("day", Text, primary_key=True),  # UTC, 2026-01-31
    Column("n", BigInteger, nullable=False),  # problems that the key has queued on that day
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", BigInteger, primary_key=True),  # order of submission, never used twice
    Column("id", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("problem_id", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("digest", Text, nullable=False),  # of namespace and normalised problem: a problem is queued once
    Column("key_id", Text, nullable=False),
    Column("state", Text, nullable=False),  # queued, learning, done, failed
    Column("attempts", Integer, nullable=False),
    Column("lease_until", Double),
    Column("worker", Text),
    Column("error", Text),
    Column("memory_id", Text),
    Column("outcome", Text),
    Column("progress", Text),  # JSON
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("finished", Double),
)


@dataclass(frozen=True)
class Migration:
    """One numbered step; its number is its place in ``MIGRATIONS``, counted from 1.

    ``{serial}`` stands for a primary key that the database counts up and never reuses, ``{blob}`` for its type of
    bytes, ``{real}`` for its float64, ``{random}`` for an expression that yields a random text.
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
