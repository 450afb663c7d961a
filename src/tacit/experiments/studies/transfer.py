"""Where memories carry over: from one family of problems to another, and from one data set to another.

Builds on the agent, responses, controls, scoring (which alone sees gold answers) and metrics. Two measurements:

- **matrix**: some admitted memories of every family answer held-out problems of every family, whatever the similarity
  and without routing; the gain over zero-shot per (source, target) family. Families only arrange the experiment: the
  agent learns from blind problems.
- **sets**: a bank learned on one data set answers fresh problems of another one (and of its own, to compare) as in use:
  recall, then routing; with the similarity floor of the settings, and without one, since another data set's memories
  may all lie below it. Beside it the verifier alone, choosing between two answers without memory: what routing gains
  no more than that is the verifier's doing, not the memories'.

The paper reports the second for AIME24 and AMC23 (arXiv 2606.17803, ablations).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tacit.agent import Agent, Answered
from tacit.assembly import assembled, set_threads
from tacit.bank import open_bank
from tacit.config import RunConfig
from tacit.errors import DataError
from tacit.experiments.report.bootstrap import mean_interval
from tacit.experiments.report.run import write_atomically
from tacit.experiments.scoring import Grader
from tacit.memory import Memory, State
from tacit.methods import controls
from tacit.problem import Problem
from tacit.responses import Responses
from tacit.tasks import sources

Floats = npt.NDArray[np.float64]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class TransferConfig:
    """One transfer study.

    Attributes:
        run: model, data, seed, verifier, sampling, learning and recall; its limit and window are not used.
        memories: admitted memories per source family.
        tries: problems learned from per family to get them.
        targets: held-out problems per target family.
        sets: data sources to carry banks between.
        learned, answered: problems learned from per set, and fresh ones answered.
        window: problems of a set that are learned together.
    """

    run: RunConfig = field(default_factory=RunConfig)
    memories: int = 3
    tries: int = 6
    targets: int = 4
    sets: tuple[str, ...] = ("testbed:A", "testbed:B")
    learned: int = 60
    answered: int = 60
    window: int = 12


def study(config: TransferConfig, out: str | Path, tell: Tell = lambda line: None) -> dict[str, Any]:
    """Measure both; writes ``transfer.json`` and ``transfer.md`` in ``out`` and returns the former.

    Args:
        config: see TransferConfig.
        out: folder, made if missing.
        tell: called with a line as each part is done.

    Returns:
        ``{"families": [name], "gain", "greedy_gain", "n": [[source][target]], "low", "high", "memories": [per source],
        "sets": [{"source", "target", "floor", "memories", "problems", "recalled", "zero_shot", "memory", "routed",
        ...}]}``. Gains are shares of right answers, None for a family without an admitted memory; n counts (memory,
        problem) pairs.

    Raises:
        TacitError: anything a user can mend, such as data without families or golds.
    """
    set_threads(config.run)
    matrix = family_matrix(config)
    tell(f"matrix: {sum(matrix['memories'])} memories of {len(matrix['families'])} families")
    rows = []
    for source in config.sets:
        rows += carried(config, source)
        tell(f"bank of {source}: answered {', '.join(config.sets)}")
    result = {"settings": _settings(config), **matrix, "sets": rows}
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "transfer.json", text.encode())
    write_atomically(folder / "transfer.md", markdown(result).encode())
    return result


def _settings(config: TransferConfig) -> dict[str, Any]:
    names = ("memories", "tries", "targets", "sets", "learned", "answered", "window")
    return {"run": config.run.settings(), **{name: getattr(config, name) for name in names}}


# -- family x family --------------------------------------------------------------------------------------------


def family_matrix(config: TransferConfig) -> dict[str, Any]:
    """Gain under memories of each family on held-out problems of each family, unrouted and without a floor."""
    sources_, targets = _by_family(config)
    families = list(targets)
    with (
        tempfile.TemporaryDirectory() as scratch,
        closing(open_bank(str(Path(scratch) / "bank.sqlite"))) as bank,
        assembled(config.run, bank) as agent,
    ):
        memories = _admitted(agent, sources_, config.memories)
        asked = [problem for family in families for problem in targets[family]]
        zero = {one.problem.id: one.zero_shot for one in agent.answer(asked, use_memory=False)}
        pairs = [(memory, problem) for family in families for memory in memories[family] for problem in asked]
        responses = _under(agent, pairs)
    graders = {problem.id: Grader(problem) for problem in asked}
    cells: dict[tuple[str, str], list[tuple[float, float]]] = {}
    owner = {memory.id: family for family in families for memory in memories[family]}
    home = {problem.id: family for family in families for problem in targets[family]}
    for (memory, problem), answer in zip(pairs, responses, strict=True):
        gain = _gain(graders[problem.id], answer, zero[problem.id])
        cells.setdefault((owner[memory.id], home[problem.id]), []).append(gain)
    sampled = [[_cell(cells.get((source, target), []), 0) for target in families] for source in families]
    greedy = [[_cell(cells.get((source, target), []), 1) for target in families] for source in families]
    return {
        "families": families,
        "gain": [[cell["mean"] for cell in row] for row in sampled],
        "low": [[cell["low"] for cell in row] for row in sampled],
        "high": [[cell["high"] for cell in row] for row in sampled],
        "greedy_gain": [[cell["mean"] for cell in row] for row in greedy],
        "n": [[cell["n"] for cell in row] for row in sampled],
        "memories": [len(memories[family]) for family in families],
        "own": _cell([gain for (source, target), found in cells.items() if source == target for gain in found], 0),
        "other": _cell([gain for (source, target), found in cells.items() if source != target for gain in found], 0),
    }


def _by_family(config: TransferConfig) -> tuple[dict[str, list[Problem]], dict[str, list[Problem]]]:
    """Per family, in order of its name: problems to learn from, and other ones to answer."""
    data, wanted = config.run.data, config.tries + config.targets
    limit = None
    if data.partition(":")[0] == "testbed":
        limit = 12 * wanted * 4  # twelve families at most, drawn at random: four times the mean is ample
    found: dict[str, list[Problem]] = {}
    for problem in sources.load(data, seed=config.run.seed, limit=limit):
        if problem.family is not None:
            found.setdefault(problem.family, []).append(problem)
    if not found:
        raise DataError(f'{data} names no families; give every problem a field "family" for the transfer matrix')
    short = sorted(name for name, several in found.items() if len(several) < wanted)
    if short:
        raise DataError(
            f"{data} has fewer than {wanted} problems of {', '.join(short)}; "
            f"the matrix learns from {config.tries} and answers {config.targets} of every family"
        )
    names = sorted(found)
    return (
        {name: found[name][: config.tries] for name in names},
        {name: found[name][config.tries : wanted] for name in names},
    )


def _admitted(agent: Agent, problems: dict[str, list[Problem]], count: int) -> dict[str, list[Memory]]:
    """The first ``count`` admitted memories of each family; learned in one go, each from its own problem alone."""
    flat = [(name, problem) for name, several in problems.items() for problem in several]
    remembered = agent.learn(agent.answer([problem for _, problem in flat], use_memory=False))
    found: dict[str, list[Memory]] = {name: [] for name in problems}
    for (name, _), result in zip(flat, remembered, strict=True):
        if result.memory is not None and result.memory.state is State.ACTIVE:
            found[name].append(result.memory)
    return {name: list(islice(several, count)) for name, several in found.items()}


def _under(agent: Agent, pairs: Sequence[tuple[Memory, Problem]]) -> list[Responses]:
    """Responses under each memory to each problem, in one batch."""
    requests = []
    for memory, problem in pairs:
        ids = agent.backbone.encode(problem.text)
        requests += agent.responder.requests(problem, ids, f"study/{memory.problem_id}", memory.prompt)
    return agent.responder.generate(requests)


def _gain(grader: Grader, answer: Responses, zero: Responses) -> tuple[float, float]:
    """Sampled and greedy accuracy over zero-shot's; NaN without a gold answer."""
    marks = [grader.rights(responses.answers) for responses in (answer, zero)]
    greedy = [grader.right(responses.greedy_answer) for responses in (answer, zero)]
    sampled = [np.nan if mark is None else float(np.mean(mark)) for mark in marks]
    single = [np.nan if mark is None else float(mark) for mark in greedy]
    return sampled[0] - sampled[1], single[0] - single[1]


def _cell(gains: Sequence[tuple[float, float]], which: int) -> dict[str, float | int | None]:
    return mean_interval(np.array([gain[which] for gain in gains]), seed=0, resamples=2000)


# -- data set to data set ---------------------------------------------------------------------------------------


def carried(config: TransferConfig, source: str) -> list[dict[str, Any]]:
    """A bank of ``source`` answering fresh problems of every set by recall and routing; a row per target and floor.

    The bank does not change while it answers. Problems without a gold answer are left out of the figures.
    """
    learned, rows = _deal(config, source)[0], []
    with tempfile.TemporaryDirectory() as scratch:
        run = replace(config.run, data=source)
        with closing(open_bank(str(Path(scratch) / "bank.sqlite"))) as bank, assembled(run, bank) as agent:
            for start in range(0, len(learned), config.window):
                answered = agent.answer(learned[start : start + config.window])
                agent.remember(answered, agent.learn(answered))
            memories = sum(info.state == "active" for info in bank.find(agent.namespace))
            for floor in dict.fromkeys((config.run.recall.floor, -1.0)):
                asking = replace(agent, recalling=replace(agent.recalling, floor=floor))
                for target in config.sets:
                    fresh = _deal(config, target)[1]
                    answered = asking.answer(fresh)
                    row = _scored(fresh, answered, controls.verified(asking, answered))
                    rows.append({"source": source, "target": target, "floor": floor, "memories": memories, **row})
    return rows


def _deal(config: TransferConfig, data: str) -> tuple[list[Problem], list[Problem]]:
    """Problems to learn from and fresh ones, the same for every bank."""
    found = sources.load(data, seed=config.run.seed, limit=config.learned + config.answered)
    if len(found) <= config.learned:
        raise DataError(f"{data} has {len(found)} problems; learning from {config.learned} leaves none to answer")
    return found[: config.learned], found[config.learned :]


def _scored(
    problems: Sequence[Problem],
    answered: Sequence[Answered],
    verified: Sequence[tuple[Sequence[str | None], str | None]],
) -> dict[str, Any]:
    """Accuracy without memory, and gains of the memory's, the routed and the verifier's own answers, paired."""
    rows: list[list[float]] = []
    for problem, one, (alone, alone_greedy) in zip(problems, answered, verified, strict=True):
        grader = Grader(problem)
        memory = one.memory or one.zero_shot
        arms = (one.zero_shot.answers, memory.answers, one.answers, alone)
        greedy = (one.zero_shot.greedy_answer, memory.greedy_answer, one.greedy_answer, alone_greedy)
        marks, singles = [grader.rights(answers) for answers in arms], [grader.right(answer) for answer in greedy]
        if any(mark is None for mark in [*marks, *singles]):
            continue
        rows.append([float(np.mean(mark or [False])) for mark in marks] + [float(mark or False) for mark in singles])
    table = np.array(rows, dtype=np.float64).reshape(-1, 8)

    def interval(values: Floats) -> dict[str, float | int | None]:
        return mean_interval(values, seed=0, resamples=2000)

    return {
        "problems": len(table),
        "recalled": sum(one.memory is not None for one in answered),
        "zero_shot": interval(table[:, 0]),
        "memory": interval(table[:, 1] - table[:, 0]),
        "routed": interval(table[:, 2] - table[:, 0]),
        "verifier": interval(table[:, 3] - table[:, 0]),
        "routed_over_verifier": interval(table[:, 2] - table[:, 3]),
        "zero_shot_greedy": interval(table[:, 4]),
        "memory_greedy": interval(table[:, 5] - table[:, 4]),
        "routed_greedy": interval(table[:, 6] - table[:, 4]),
        "verifier_greedy": interval(table[:, 7] - table[:, 4]),
    }


# -- the tables -------------------------------------------------------------------------------------------------


def markdown(result: dict[str, Any]) -> str:
    """Both measurements as Markdown; gains in points, sampled."""
    families = result["families"]
    lines = [
        "# Transfer",
        "",
        "Gain over zero-shot in points, sampled, unrouted: memories of the family on the left answering problems of "
        f"the family above. Own family {_points(result['own'])}, another one {_points(result['other'])}.",
        "",
        f"| from \\ to | {' | '.join(families)} |",
        "|---|" + "---|" * len(families),
    ]
    for name, row, count in zip(families, result["gain"], result["memories"], strict=True):
        cells = ["-" if value is None else f"{100 * value:+.0f}" for value in row]
        lines.append(f"| {name} ({count}) | {' | '.join(cells)} |")
    lines += [
        "",
        "| bank of | answers | floor | memories | recalled | zero-shot | memory | routed | verifier alone "
        "| routed, greedy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["sets"]:
        zero = row["zero_shot"]["mean"]
        lines.append(
            f"| {row['source']} | {row['target']} | {row['floor']:g} | {row['memories']} | "
            f"{row['recalled']}/{row['problems']} | "
            f"{'-' if zero is None else format(100 * zero, '.1f')} | {_points(row['memory'])} | "
            f"{_points(row['routed'])} | {_points(row['verifier'])} | {_points(row['routed_greedy'])} |"
        )
    return "\n".join(lines) + "\n"


def _points(value: dict[str, Any]) -> str:
    if value["mean"] is None:
        return "-"
    return f"{100 * value['mean']:+.1f} [{100 * value['low']:+.1f}, {100 * value['high']:+.1f}]"
