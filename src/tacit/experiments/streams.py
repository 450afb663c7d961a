"""The problems of a comparison's cells: in which order they come, what else is asked, and what is trained on.

Builds on compare_config, scoring and the sources.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tacit.errors import ConfigError
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.report.cells import Cell
from tacit.experiments.scoring import identity
from tacit.problem import Problem
from tacit.seeds import derive, generator
from tacit.tasks import sources


def load(config: CompareConfig, data: str, seed: int, limit: int | None) -> sources.Problems:
    """Problems of a source; see ``sources.load``."""
    return sources.load(data, seed=seed, limit=limit, fields=config.fields, model=config.model)


def ordered(problems: Sequence[Problem], order: str, data: str) -> list[Problem]:
    """The stream in an order; "blocked" keeps families together, in order of first appearance."""
    if order == "reversed":
        return list(reversed(problems))
    if order == "blocked":
        families = list(dict.fromkeys(problem.family for problem in problems))
        if len(families) < 2:
            raise ConfigError(f"{data} does not name two families or more, so there is no blocked order; use shuffled")
        return sorted(problems, key=lambda problem: families.index(problem.family))
    return list(problems)


def fresh(data: str, stream: Sequence[Problem], seed: int, count: int, purpose: str) -> list[Problem]:
    """Problems of a source that are not in the stream; none for a file, which has no others."""
    if not data.startswith("testbed"):
        return []
    texts = {problem.text for problem in stream}
    other = derive(seed, data, purpose) % (1 << 31) + 1_000_000
    drawn = sources.load(data, seed=other, limit=2 * count)
    return [problem for problem in drawn if problem.text not in texts][:count]


def labelled(config: CompareConfig, cell: Cell, stream: Sequence[Problem]) -> list[Problem]:
    """As many problems as the stream has, none of it, for methods that train on labelled ones: drawn from the source
    named for that, else fresh ones of the same source."""
    source = config.training.get(cell.data)
    if source is None:
        return fresh(cell.data, stream, cell.seed, len(stream), "training")
    texts = {problem.text for problem in stream}
    limit = 2 * len(stream) if sources.endless(source) else None
    found = [one for one in load(config, source, cell.seed, limit) if one.text not in texts]
    order = generator(cell.seed, cell.data, "training").permutation(len(found))[: len(stream)]
    # An id may also be that of a problem of the stream, and the oracle goes by ids.
    return [replace(found[place], id=f"{source}/{found[place].id}") for place in order]


def same(stream: Sequence[Problem], folder: Path) -> bool:
    """Whether a cell's rows are of these problems, with these reference answers."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8", errors="surrogatepass").split("\n")[:-1]
    return [(row["id"], row["problem"], row["gold"]) for row in map(json.loads, lines)] == identity(stream)
