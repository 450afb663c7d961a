"""How fast a bank finds the nearest memories, against plain numpy brute force in the same run.

    python benchmarks/recall.py --out runs/recall
    python benchmarks/recall.py --out runs/recall-million --sizes 1000000 --queries 200

For each size it stores that many memories with unit keys in a real SQLite bank, opens it anew, and times opening, the
first search (which loads the keys) and then single searches with k = 8. Where keys are compressed, all of it again with
a bank that is opened a second time, which finds its codes kept, and the first search in new processes, with the files
in the machine's memory and not. Half of the queries are random directions, the
hardest case; half are stored keys with noise, as recall meets them. Keys are random directions too, or (``--keys
clustered``) lie about a thousand centres. Each query is also answered by numpy alone (one matrix product over a
resident array, then the top k), the two taking turns. Up to ``--exact-rows`` memories a part of the answers is checked
to be exactly those of float64 brute force; above, recall@k of all answers is measured against it, for either kind of
query. Beyond 200,000 memories the tables of memories and keys are filled directly, by copies of one memory's row:
adding takes about a millisecond each. Takes 12 KB of memory and 8 KB of disk a record. Writes ``recall.json`` and
``recall.png``.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import machine, parser, pyplot, table, write

from tacit.bank import EXACT_ROWS, open_bank
from tacit.bank.search.compressed import available
from tacit.bank.search.matrices import default_threads
from tacit.memory import Memory, State

WHERE: dict[str, Any] = {"namespace": "benchmark", "fingerprint": "none", "key_kind": "random"}
CHECKED = 20
BULK = 200_000
CENTRES = 1000


def build(path: Path, keys: np.ndarray) -> float:
    """Store one active memory per row of ``keys`` at ``path``; milliseconds per memory, a thousand a transaction."""
    prompt = np.zeros((4, 16), dtype=np.float32)
    start = time.perf_counter()
    with open_bank(str(path)) as bank:
        for first in range(0, len(keys), 1000):
            with bank.transaction():
                for i, key in enumerate(keys[first : first + 1000], first):
                    bank.add(Memory(
                        id=f"m{i}", problem_id=f"p{i}", problem="?", prompt=prompt, key=key, state=State.ACTIVE,
                        reason="benchmark", provenance={}, created=0.0, **WHERE,
                    ))  # fmt: skip
    return (time.perf_counter() - start) / len(keys) * 1e3


def fill(path: Path, keys: np.ndarray) -> float:
    """Like ``build``, but writes memories and keys past the bank, and neither prompts, counters nor histories."""
    build(path, keys[:1])
    start = time.perf_counter()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(memories)")]
        model = dict(zip(names, connection.execute("SELECT * FROM memories").fetchone(), strict=True))
        statement = f"INSERT INTO memories ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        for first in range(1, len(keys), 20_000):
            rows = range(first, min(len(keys), first + 20_000))
            fresh = ({**model, "position": i + 1, "id": f"m{i}", "problem_id": f"p{i}"} for i in rows)
            connection.executemany(statement, (tuple(row.values()) for row in fresh))
            blobs = ((i + 1, keys.shape[1], keys[i].tobytes()) for i in rows)
            connection.executemany("INSERT INTO keys (position, dim, key) VALUES (?, ?, ?)", blobs)
            connection.commit()
    return (time.perf_counter() - start) / len(keys) * 1e3


def unit_keys(size: int, dim: int, clustered: bool, rng: np.random.Generator) -> np.ndarray:
    """float32 [size, dim] of norm 1, made in pieces."""
    keys = np.empty((size, dim), dtype=np.float32)
    centres = rng.standard_normal((CENTRES, dim), dtype=np.float32)
    for first in range(0, size, 20_000):
        part = keys[first : first + 20_000]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        if clustered:
            part *= np.float32(0.5)
            part += centres[rng.integers(CENTRES, size=len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return keys


def brute_force(keys: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k best by one product and one partial sort, what one would write without a bank."""
    scores = keys @ query
    best = np.argpartition(-scores, min(k, len(keys) - 1))[:k] if k < len(keys) else np.arange(len(keys))
    return best[np.argsort(-scores[best], kind="stable")]


def exact(keys: np.ndarray, query: np.ndarray, k: int) -> list[str]:
    """Ids of the k best by float64 cosine, ties in the order of storing."""
    scores = keys @ query
    # Products of float32 with 1,024 values err by less than 7e-5, so the best are among these.
    near = np.flatnonzero(scores >= np.sort(scores)[-min(k, len(keys))] - 2e-4)
    cosines = keys[near].astype(np.float64) @ query.astype(np.float64)
    return [f"m{row}" for row in near[np.argsort(-cosines.round(12), kind="stable")][:k]]


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    return {"median_ms": float(np.median(seconds)) * 1e3, "p99_ms": float(np.quantile(seconds, 0.99)) * 1e3}


def restarted(path: Path, query: np.ndarray, k: int, exact_rows: int, cold: bool) -> dict[str, float]:
    """Seconds and megabytes of the first search in this process, which must be a new one."""
    for file in path.parent.iterdir() if cold else ():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    with open_bank(str(path), create=False, exact_rows=exact_rows) as bank:
        bank.search(query, k=k, **WHERE)
        seconds = time.perf_counter() - start
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    names = {"peak_mb": "VmHWM", "anonymous_mb": "RssAnon", "of_files_mb": "RssFile"}
    return {"seconds": seconds, **{name: int(status[line].split()[0]) / 1e3 for name, line in names.items()}}


def measure(
    size: int, *, dim: int, queries: int, k: int, seed: int, clustered: bool, exact_rows: int
) -> dict[str, Any]:
    """All figures of one size."""
    rng = np.random.default_rng(seed)
    keys = unit_keys(size, dim, clustered, rng)
    compressed = size > exact_rows and available()
    asked = rng.standard_normal((queries, dim), dtype=np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    asked[::2] = keys[rng.integers(size, size=len(asked[::2]))] + asked[::2] * np.float32(0.7)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.db"
        add_ms = (fill if size > BULK else build)(path, keys)
        brute_force(keys, asked[0], k)
        first = searched(path, keys, asked, k, exact_rows)
        again: dict[str, Any] = {}
        if compressed:
            again = {"again": searched(path, keys, asked, k, exact_rows)}
            for name in ("cold", "warm"):
                with multiprocessing.get_context("spawn").Pool(1) as process:
                    again[name] = process.apply(restarted, (path, asked[0], k, exact_rows, name == "cold"))
            again["kept_mb"] = sum(file.stat().st_size for file in path.parent.glob("*.index-*")) / 1e6
        return {
            "size": size, "dim": dim, "k": k, "queries": queries, "clustered": clustered, "compressed": compressed,
            "add_ms": add_ms, "bank_mb": path.stat().st_size / 1e6, **first, **again,
        }  # fmt: skip


def searched(path: Path, keys: np.ndarray, asked: np.ndarray, k: int, exact_rows: int) -> dict[str, Any]:
    """The figures of a bank from opening it on."""
    gc.collect()
    resident = psutil.Process().memory_info().rss
    compressed = len(keys) > exact_rows and available()
    start = time.perf_counter()
    with open_bank(str(path), create=False, exact_rows=exact_rows) as bank:
        opened = time.perf_counter()
        bank.search(asked[0], k=k, **WHERE)
        loaded = time.perf_counter()
        gc.collect()
        resident = psutil.Process().memory_info().rss - resident
        right: dict[str, list[float]] = {"stored key with noise": [], "random direction": []}
        ours: list[float] = []
        plain: list[float] = []
        for i, query in enumerate(asked):
            one = time.perf_counter()
            hits = bank.search(query, k=k, **WHERE)
            two = time.perf_counter()
            brute_force(keys, query, k)
            plain.append(time.perf_counter() - two)
            ours.append(two - one)
            if compressed:
                common = {hit.memory_id for hit in hits} & set(exact(keys, query, k))
                right[list(right)[i % 2]].append(len(common) / k)
            elif i < CHECKED and [hit.memory_id for hit in hits] != exact(keys, query, k):
                raise SystemExit(f"search differs from brute force at size {len(keys)}, query {i}")
        start_many = time.perf_counter()
        bank.search_many(asked[:32], k=k, **WHERE)
        many_ms = (time.perf_counter() - start_many) / min(32, len(asked)) * 1e3
        done = time.perf_counter()
    return {
        "checked": len(asked) if compressed else min(CHECKED, len(asked)), "bytes_in_memory": resident / len(keys),
        "recall": {kind: float(np.mean(shares)) if compressed else 1.0 for kind, shares in right.items()},
        "open_ms": (opened - start) * 1e3, "first_search_ms": (loaded - opened) * 1e3,
        "close_ms": (time.perf_counter() - done) * 1e3, "bank": spread(ours), "numpy": spread(plain),
        "batch_of_32_ms_per_query": many_ms, "ratio": float(np.median(ours) / np.median(plain)),
    }  # fmt: skip


def main() -> None:
    """Measure, print tables, write ``recall.json`` and ``recall.png``."""
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    made.add_argument("--dim", type=int, default=1024)
    made.add_argument("--queries", type=int, default=300)
    made.add_argument("-k", type=int, default=8)
    made.add_argument("--keys", choices=["random", "clustered"], default="random")
    made.add_argument("--exact-rows", type=int, default=EXACT_ROWS)
    arguments = made.parse_args()
    started = machine()
    threads = {name: os.environ.get(name, "default") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    if arguments.quick:
        arguments.sizes, arguments.queries = [200, 1_000], 30
    found = [
        measure(
            size, dim=arguments.dim, queries=arguments.queries, k=arguments.k, seed=arguments.seed,
            clustered=arguments.keys == "clustered", exact_rows=arguments.exact_rows,
        )
        for size in arguments.sizes
    ]  # fmt: skip
    rows = [row for one in found for row in (one, *([{**one, **one["again"]}] if "again" in one else []))]
    ratios = [
        {
            "name": f"{row['size']:,} memories",
            "ratio": 1 / row["ratio"],
            "ours": 1e3 / row["bank"]["median_ms"],
            "peer": 1e3 / row["numpy"]["median_ms"],
            "unit": "searches/s",
            "threads": default_threads(),
        }
        for row in rows
    ]
    write(arguments.out, "recall", ratios, started, blas_threads=threads, results=found)
    table(
        f"recall, {arguments.dim} dimensions, k = {arguments.k}, milliseconds",
        (
            "memories",
            "search median",
            "p99",
            "numpy median",
            "p99",
            "open",
            "first search",
            "add",
            "recall, noisy",
            "random",
            "bytes in memory",
        ),
        [
            (
                f"{row['size']:,}",
                *(f"{row[side][part]:.2f}" for side in ("bank", "numpy") for part in ("median_ms", "p99_ms")),
                *(f"{row[name]:.2f}" for name in ("open_ms", "first_search_ms", "add_ms")),
                *(f"{share:.4f}" for share in row["recall"].values()),
                f"{row['bytes_in_memory']:,.0f}",
            )
            for row in rows
        ],
    )
    for one in found:
        for name in ("cold", "warm"):
            if name in one:
                print(f"{one['size']:,} memories, a new process, files {name}:", one[name])
    plot(arguments.out / "recall.png", found)


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Median milliseconds of a search against the size of the bank, ours and numpy's."""
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for side, name in (("bank", "bank"), ("numpy", "numpy brute force")):
        axes.loglog([row["size"] for row in rows], [row[side]["median_ms"] for row in rows], marker="o", label=name)
    axes.set(xlabel="memories", ylabel="median ms", title="recall")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
