"""How fast a bank finds the nearest memories, against plain numpy brute force in the same run.

    python benchmarks/recall.py --out runs/recall

For each size it stores that many memories with random unit keys in a real SQLite bank, opens it anew, and times
opening, the first search (which loads the keys) and then single searches with k = 8. Half of the queries are random
directions, the hardest case for an exact search; half are stored keys with noise, as recall meets them. Each query is
also answered by numpy alone (one matrix product over a resident array, then the top k), the two taking turns, and a
part of the answers is checked against float64 brute force. Writes ``recall.json`` and ``recall.png``.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, parser, pyplot, table, write

from tacit.bank import open_bank
from tacit.bank.matrices import default_threads
from tacit.memory import Memory, State

WHERE = {"namespace": "benchmark", "fingerprint": "none", "key_kind": "random"}
CHECKED = 20


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


def brute_force(keys: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k best by one product and one partial sort, what one would write without a bank."""
    scores = keys @ query
    best = np.argpartition(-scores, min(k, len(keys) - 1))[:k] if k < len(keys) else np.arange(len(keys))
    return best[np.argsort(-scores[best], kind="stable")]


def exact(keys: np.ndarray, query: np.ndarray, k: int) -> list[str]:
    """Ids of the k best by float64 cosine, ties in the order of storing."""
    wide = query.astype(np.float64)
    scores = np.concatenate([part.astype(np.float64) @ wide for part in np.array_split(keys, 1 + len(keys) // 10_000)])
    near = np.flatnonzero(scores >= np.sort(scores)[-min(k, len(keys))] - 1e-9)
    return [f"m{row}" for row in near[np.argsort(-scores[near].round(12), kind="stable")][:k]]


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    return {"median_ms": float(np.median(seconds)) * 1e3, "p99_ms": float(np.quantile(seconds, 0.99)) * 1e3}


def measure(size: int, dim: int, queries: int, k: int, seed: int) -> dict[str, Any]:
    """All figures of one size."""
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((size, dim), dtype=np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    asked = rng.standard_normal((queries, dim), dtype=np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    asked[::2] = keys[rng.integers(size, size=len(asked[::2]))] + asked[::2] * np.float32(0.7)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.db"
        add_ms = build(path, keys)
        start = time.perf_counter()
        with open_bank(str(path), create=False) as bank:
            opened = time.perf_counter()
            bank.search(asked[0], k=k, **WHERE)
            loaded = time.perf_counter()
            ours: list[float] = []
            plain: list[float] = []
            brute_force(keys, asked[0], k)
            for i, query in enumerate(asked):
                one = time.perf_counter()
                hits = bank.search(query, k=k, **WHERE)
                two = time.perf_counter()
                brute_force(keys, query, k)
                plain.append(time.perf_counter() - two)
                ours.append(two - one)
                if i < CHECKED and [hit.memory_id for hit in hits] != exact(keys, query, k):
                    raise SystemExit(f"search differs from brute force at size {size}, query {i}")
            start_many = time.perf_counter()
            bank.search_many(asked[:32], k=k, **WHERE)
            many_ms = (time.perf_counter() - start_many) / min(32, queries) * 1e3
        result: dict[str, Any] = {
            "size": size, "dim": dim, "k": k, "queries": queries, "checked": min(CHECKED, queries),
            "add_ms": add_ms, "open_ms": (opened - start) * 1e3, "first_search_ms": (loaded - opened) * 1e3,
            "bank": spread(ours), "numpy": spread(plain), "batch_of_32_ms_per_query": many_ms,
            "ratio": float(np.median(ours) / np.median(plain)), "bank_mb": path.stat().st_size / 1e6,
        }  # fmt: skip
    return result


def main() -> None:
    """Measure, print tables, write ``recall.json`` and ``recall.png``."""
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    made.add_argument("--dim", type=int, default=1024)
    made.add_argument("--queries", type=int, default=300)
    made.add_argument("-k", type=int, default=8)
    arguments = made.parse_args()
    started = machine()
    threads = {name: os.environ.get(name, "default") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    if arguments.quick:
        arguments.sizes, arguments.queries = [200, 1_000], 30
    rows = [measure(size, arguments.dim, arguments.queries, arguments.k, arguments.seed) for size in arguments.sizes]
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
    write(arguments.out, "recall", ratios, started, blas_threads=threads, results=rows)
    table(
        f"recall, {arguments.dim} dimensions, k = {arguments.k}, milliseconds",
        ("memories", "search median", "p99", "numpy median", "p99", "open", "first search", "add"),
        [
            (
                f"{row['size']:,}",
                *(f"{row[side][part]:.2f}" for side in ("bank", "numpy") for part in ("median_ms", "p99_ms")),
                *(f"{row[name]:.2f}" for name in ("open_ms", "first_search_ms", "add_ms")),
            )
            for row in rows
        ],
    )
    plot(arguments.out / "recall.png", rows)


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
