"""What a warm start saves: learning from the recalled memory against learning from noise, at several numbers of steps.

    python benchmarks/warm_start.py --out runs/warm-start

Runs the testbed stream as ``tacit run`` does for each start ("gaussian", "nearest"), number of steps and seed, and
compares what is served: the routed accuracy of one sampled answer, problem by problem, with the start from noise at the
most steps. Also the mean reward step by step, over the problems that both starts learned from and that had a memory to
start from. A run that is there is not run again. Writes ``warm-start.json`` and ``warm-start.png``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, parser, pyplot, table

from tacit.config import LearnConfig, RunConfig
from tacit.experiments.report.figures import mean_interval
from tacit.experiments.report.run import read_rows
from tacit.experiments.run import run

STARTS = ("gaussian", "nearest")

Rows = list[dict[str, Any]]


def stream(out: Path, init: str, steps: int, seed: int, problems: int, window: int) -> Rows:
    """The rows of one run, done now or before."""
    folder = out / f"{init}-{steps}-{seed}"
    learn = LearnConfig(init=init, distil=0, steps=steps)
    run(RunConfig(out=str(folder), seed=seed, limit=problems, window=window, baselines=(), learn=learn, threads=1))
    return read_rows(folder / "results.jsonl")


def served(rows: Rows, key: str = "correct") -> np.ndarray:
    """Marks of the routed answers, float64 [problems]."""
    return np.array([row["routed"][key] for row in rows], dtype=np.float64)


def cell(rows: Rows, reference: Rows) -> dict[str, Any]:
    """What one start and number of steps served and spent, beside the reference on the same problems."""
    zero = np.array([row["zero_shot"]["correct"] for row in rows], dtype=np.float64)
    learned = [row["learned"] for row in rows if row["learned"] is not None]
    return {
        "served": float(served(rows).mean()), "served greedy": float(served(rows, "greedy_correct").mean()),
        "gain": mean_interval(served(rows) - zero, resamples=10_000),
        "against the reference": mean_interval(served(rows) - served(reference), resamples=10_000),
        "against the reference, greedy": mean_interval(
            served(rows, "greedy_correct") - served(reference, "greedy_correct"), resamples=10_000
        ),
        "active": sum(one["state"] == "active" for one in learned) / len(rows),
        "learning tokens": sum(one["tokens"] for one in learned) / len(rows),
    }  # fmt: skip


def rewards(cold: Rows, warm: Rows) -> dict[str, list[float]]:
    """Mean reward at each step, over the problems that both learned from and that the warm start had a memory for."""
    pairs = [
        (a["learned"]["rewards"], b["learned"]["rewards"])
        for a, b in zip(cold, warm, strict=True)
        if a["learned"] and b["learned"] and b["memory"]
    ]
    means = np.mean(np.array(pairs), axis=0)
    return {"gaussian": means[0].tolist(), "nearest": means[1].tolist(), "problems": [len(pairs)]}


def main() -> None:
    """Run what is missing, print the table, write the JSON and the plot."""
    made = parser(__doc__)
    made.add_argument("--steps", type=int, nargs="+", default=[2, 5, 10])
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--problems", type=int, default=200)
    made.add_argument("--window", type=int, default=4)
    arguments = made.parse_args()
    if arguments.quick:
        arguments.steps, arguments.seeds, arguments.problems = [1, 2], [0], 16
    started, out, most = machine(), arguments.out, max(arguments.steps)
    runs: dict[tuple[str, int], Rows] = {(init, steps): [] for init in STARTS for steps in arguments.steps}
    for seed in arguments.seeds:
        for init, steps in runs:
            runs[init, steps] += stream(out, init, steps, seed, arguments.problems, arguments.window)
    cells = {f"{init}, {steps} steps": cell(rows, runs["gaussian", most]) for (init, steps), rows in runs.items()}
    curve = rewards(runs["gaussian", most], runs["nearest", most])
    content = {
        "benchmark": "warm start", "machine": started, "seeds": arguments.seeds, "problems": arguments.problems,
        "window": arguments.window, "reference": f"gaussian, {most} steps", "cells": cells, "rewards": curve,
    }  # fmt: skip
    (out / "warm-start.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    table(
        f"served, against gaussian at {most} steps",
        ("start", "served", "greedy", "difference", "greedy", "active", "learning tokens"),
        [
            (
                name, f"{one['served']:.3f}", f"{one['served greedy']:.3f}", interval(one["against the reference"]),
                interval(one["against the reference, greedy"]), f"{one['active']:.2f}", f"{one['learning tokens']:.0f}",
            )
            for name, one in cells.items()
        ],
    )  # fmt: skip
    plot(out / "warm-start.png", curve)


def interval(one: dict[str, Any]) -> str:
    """A mean with its 95 % interval, in points."""
    return f"{one['mean'] * 100:+.1f} [{one['low'] * 100:.1f}, {one['high'] * 100:.1f}]"


def plot(path: Path, curve: dict[str, list[float]]) -> None:
    """Mean reward of the rollouts at each step, from noise and from the recalled memory."""
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for init in STARTS:
        axes.plot(range(1, len(curve[init]) + 1), curve[init], marker="o", label=init)
    axes.set(xlabel="step", ylabel="mean reward", title=f"learning, {curve['problems'][0]} problems")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
