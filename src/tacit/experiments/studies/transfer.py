"""Where memories carry over: from one family of problems to another, and from one data set to another.

Builds on the agent, responses, controls, scoring (which alone sees gold answers) and figures. Two measurements:

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

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tacit.agent import Agent, Answered
from tacit.assembly import set_threads
from tacit.config import RunConfig
from tacit.errors import DataError
from tacit.experiments.report.figures import Figures, mean_interval
from tacit.experiments.report.study_tables import publish_study
from tacit.experiments.scoring import Grader
from tacit.experiments.studies.trials import Gain, Tell, accuracies, gain, scratch_agent, under
from tacit.memory import Memory, State
from tacit.methods import controls
from tacit.problem import Problem
from tacit.tasks import sources


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
        window: most problems of a set that are learned together.
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
    result = {"settings": {**vars(config), "run": config.run.settings()}, **matrix, "sets": rows}
    publish_study(Path(out), "transfer", "Transfer", result)
    return result


def family_matrix(config: TransferConfig) -> dict[str, Any]:
    """Gain under memories of each family on held-out problems of each family, unrouted and without a floor."""
    sources_, targets = _by_family(config)
    families = list(targets)
    with scratch_agent(config.run) as agent:
        memories = _admitted(agent, sources_, config.memories)
        asked = [problem for family in families for problem in targets[family]]
        zero = {one.problem.id: one.zero_shot for one in agent.answer(asked, use_memory=False)}
        pairs = [(memory, problem) for family in families for memory in memories[family] for problem in asked]
        responses = under(agent, pairs)
    graders = {problem.id: Grader(problem, agent.task) for problem in asked}
    cells: dict[tuple[str, str], list[Gain]] = {}
    owner = {memory.id: family for family in families for memory in memories[family]}
    home = {problem.id: family for family in families for problem in targets[family]}
    for (memory, problem), answer in zip(pairs, responses, strict=True):
        gained = gain(graders[problem.id], answer, zero[problem.id])
        cells.setdefault((owner[memory.id], home[problem.id]), []).append(gained)
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
    run = config.run
    for problem in sources.load(data, seed=run.seed, limit=limit, fields=run.fields, model=run.model):
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
    return {name: several[:count] for name, several in found.items()}


def _cell(gains: Sequence[Gain], which: int) -> Figures:
    return mean_interval(np.array([one[which] for one in gains]))


def carried(config: TransferConfig, source: str) -> list[dict[str, Any]]:
    """A bank of ``source`` answering fresh problems of every set by recall and routing; a row per target and floor.

    The bank does not change while it answers. Problems without a gold answer are left out of the figures.
    """
    learned, rows = _deal(config, source)[0], []
    with scratch_agent(replace(config.run, data=source)) as agent:
        start = 0
        while ahead := learned[start : start + config.window]:
            answered = agent.answer(ahead[: agent.strangers(ahead)])
            agent.remember(answered, agent.learn(answered))
            start += len(answered)
        memories = sum(info.state == "active" for info in agent.bank.find(agent.namespace))
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
    wanted, run = config.learned + config.answered, config.run
    found = sources.load(data, seed=run.seed, limit=wanted, fields=run.fields, model=run.model)
    if len(found) <= config.learned:
        raise DataError(f"{data} has {len(found)} problems; learning from {config.learned} leaves none to answer")
    return found[: config.learned], found[config.learned :]


def _scored(
    problems: Sequence[Problem],
    answered: Sequence[Answered],
    verified: Sequence[tuple[Sequence[str | None], str | None]],
) -> dict[str, Any]:
    """Accuracy without memory, and gains of the memory's, the routed and the verifier's own answers, paired."""
    rows = []
    for problem, one, alone in zip(problems, answered, verified, strict=True):
        grader, plain, memory = Grader(problem, one.zero_shot.task), one.zero_shot, one.memory or one.zero_shot
        arms = (
            (plain.answers, plain.greedy_answer),
            (memory.answers, memory.greedy_answer),
            (one.answers, one.greedy_answer),
            alone,
        )
        rows.append(np.array([accuracies(grader, *arm) for arm in arms]))
    table = np.array([row for row in rows if not np.isnan(row).any()]).reshape(-1, 4, 2)
    zero, memories, routed, verifier = (table[:, arm, 0] for arm in range(4))
    greedy = table[:, :, 1]
    return {
        "problems": len(table),
        "recalled": sum(one.memory is not None for one in answered),
        "zero_shot": mean_interval(zero),
        "memory": mean_interval(memories - zero),
        "routed": mean_interval(routed - zero),
        "verifier": mean_interval(verifier - zero),
        "routed_over_verifier": mean_interval(routed - verifier),
        "zero_shot_greedy": mean_interval(greedy[:, 0]),
        "memory_greedy": mean_interval(greedy[:, 1] - greedy[:, 0]),
        "routed_greedy": mean_interval(greedy[:, 2] - greedy[:, 0]),
        "verifier_greedy": mean_interval(greedy[:, 3] - greedy[:, 0]),
    }
