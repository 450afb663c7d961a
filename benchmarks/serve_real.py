"""A server with real weights that gets better on its own traffic, or does not: fixed problems, asked now and again.

    python benchmarks/serve_real.py --out runs/serve-real --minutes 20

``tacit serve --model smollm2 --task number --instruction 'Answer briefly.'`` is asked fresh problems by one openai
client, at temperature ``WARMTH``, and learns from what it is asked. Before, between and after, fixed other problems
are asked of ``M`` and of ``M:tacit`` (``learn`` false), ``SAMPLES`` answers each. There are no labels; gold answers
are read by this scorer alone. Writes ``serve-real.json`` and ``serve-real.png``: the share of right answers and of
answers at all, over time, and the gain in points with its interval over the fixed problems. With an ``--out`` that
has a bank already, the server goes on with it.
"""

from __future__ import annotations

import json
import re
import time
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
from common import machine, parser, pyplot
from serve import serving

from tacit import registry
from tacit.experiments.report.figures import mean_interval
from tacit.experiments.scoring import Grader
from tacit.problem import Problem
from tacit.tasks.base import Task

KINDS = "sums@1,halves@1,multiply@1,percent@1"
SAMPLES, WARMTH = 4, 0.7


def drawn(seed: int, count: int) -> list[Problem]:
    """Problems of all kinds in turn."""
    source = registry.get("source", "families")
    return [read.problem for read in islice(source(KINDS, seed, None), count)]


def share(client: openai.OpenAI, model: str, asked: list[Problem], task: Task) -> dict[str, Any]:
    """Of the answers to the fixed problems, how many are right, how many are answers, and the first by problem."""
    right, given = [], 0
    for problem in asked:
        made = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": problem.text}], n=SAMPLES, temperature=WARMTH,
            seed=1, extra_body={"tacit": {"learn": False}},
        )  # fmt: skip
        answers = [task.extract(choice.message.content or "") for choice in made.choices]
        given += sum(answer is not None for answer in answers)
        right.append(sum(Grader(problem, task).rights(answers) or []) / SAMPLES)
    return {"right": sum(right) / len(asked), "answered": given / len(asked) / SAMPLES, "by_problem": right}


def main() -> None:
    """Measure, print, write."""
    made = parser(__doc__)
    made.add_argument("--model", default="smollm2")
    made.add_argument("--minutes", type=float, default=20)
    made.add_argument("--probes", type=int, default=24, help="fixed problems")
    made.add_argument("--times", type=int, default=5, help="how often they are asked, before and after included")
    given = made.parse_args()
    task = registry.get("task", "number")()
    probes, stream = drawn(given.seed + 1, given.probes), drawn(given.seed, 2_000)
    given.out.mkdir(parents=True, exist_ok=True)
    bank, asked = Path(given.out) / "bank.sqlite", 0
    found: list[dict[str, Any]] = []
    options = ["--model", given.model, "--task", "number", "--instruction", "Answer briefly."]
    with serving(bank, *options) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=300)
        plain, memory = sorted((one.id for one in client.models.list()), key=len)[:2]
        began = time.monotonic()
        for number in range(given.times):
            until = given.minutes * 60 * number / (given.times - 1)
            while time.monotonic() - began < until:
                text = stream[asked % len(stream)].text
                try:
                    client.chat.completions.create(
                        model=memory, messages=[{"role": "user", "content": text}], temperature=WARMTH
                    )
                    asked += 1
                except openai.RateLimitError:
                    time.sleep(5)
                time.sleep(1)
            row: dict[str, Any] = {"minutes": (time.monotonic() - began) / 60, "asked": asked}
            row |= {name: share(client, model, probes, task) for name, model in (("plain", plain), ("memory", memory))}
            gains = np.subtract(row["memory"]["by_problem"], row["plain"]["by_problem"])
            row["gain"] = mean_interval(100 * gains)
            metrics = httpx.get(f"{url}/metrics").text
            row["memories"] = dict(re.findall(r'tacit:memories\{state="(\w+)"\} ([\d.]+)', metrics))
            found.append(row)
            print(json.dumps(row), flush=True)
            content = {"benchmark": "serve-real", "machine": machine(), "rows": found}
            (given.out / "serve-real.json").write_text(json.dumps(content, indent=1) + "\n")
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, style in (("plain", "--"), ("memory", "-")):
        for what, colour in (("right", "#4477aa"), ("answered", "#aaaaaa")):
            axes.plot([r["minutes"] for r in found], [r[name][what] for r in found], style, color=colour,
                      label=f"{what}, {'with' if name == 'memory' else 'without'} memory")  # fmt: skip
    axes.set(
        xlabel="minutes", ylim=(0, 1), title=f"{given.model}: {given.probes} fixed problems, {SAMPLES} answers each"
    )
    axes.legend()
    figure.savefig(given.out / "serve-real.png", dpi=120)


if __name__ == "__main__":
    main()
