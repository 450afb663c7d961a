"""Where a model has signal: families that it solves now and then, and that a vote over its samples solves more often.

Builds on trials (agent, scoring) and on the families of tasks. A memory learns from a vote, so it can be learned where
the vote knows more than one sample does: pass@1 between ``low`` and ``high``, and the vote at least ``lead`` above it.
Nothing is learned here. Each cell (a family at a level, or any other source) is a line of ``signal.jsonl``, written as
it is done; the same command goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tacit.agent import Agent
from tacit.assembly import set_threads
from tacit.config import RunConfig
from tacit.errors import ConfigError, DataError
from tacit.experiments.report.figures import Figures, mean_interval
from tacit.experiments.report.study_tables import publish_study
from tacit.experiments.run_folder import write_json
from tacit.experiments.scoring import Grader, number_of, readable
from tacit.experiments.studies.trials import Tell, scratch_agent
from tacit.problem import Problem
from tacit.tasks import sources
from tacit.tasks.families import source as families
from tacit.tasks.families.kind import LEVELS

ROWS, SETTINGS = "signal.jsonl", "signal.settings.json"


@dataclass(frozen=True)
class SignalConfig:
    """One search for signal.

    Attributes:
        run: model, task (each source's own where it names none), sampling and seed.
        data: sources; a family without a level stands for all of its levels, "families" for all whose answer is a
            number.
        problems: asked of each cell.
        low, high: bounds of pass@1 for a cell with signal.
        lead: least lead of the vote over pass@1.
        every: measure what is harder than a level that is too hard, too.
    """

    run: RunConfig = field(default_factory=RunConfig)
    data: tuple[str, ...] = ("families",)
    problems: int = 12
    low: float = 0.2
    high: float = 0.5
    lead: float = 0.1
    every: bool = False


def study(config: SignalConfig, out: str | Path, tell: Tell = lambda line: None) -> dict[str, Any]:
    """Measure every cell that is not in the folder yet; writes ``signal.json`` and ``signal.md`` there, and returns the
    former.

    Args:
        config: see SignalConfig.
        out: folder, made if missing.
        tell: called with a line as each cell is done.

    Raises:
        ConfigError: the folder holds a search with other settings, or of other problems.
        TacitError: anything else a user can mend.
    """
    out, asked = Path(out), _by_task(config)
    found = {row["data"]: row for row in _begun(out, config)}
    for address in (one for several in asked.values() for ladder in several for one in ladder if one in found):
        if found[address].get("of", now := number_of(_problems(config, address))) != now:
            raise ConfigError(f"{out} has figures of other problems than {address} has now; give another --out")
    set_threads(config.run)
    with (out / ROWS).open("a", encoding="utf-8") as file:
        for row in _measured(config, asked, found):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            tell(_line(row, len(found)))
    result = {
        "settings": _settings(config),
        "cells": [{**row, "signal": signal(row, config)} for row in found.values()],
        "streams": streams(found.values(), config),
    }
    publish_study(out, "signal", "Signal", result)
    return result


def signal(row: Figures, config: SignalConfig) -> bool:
    """Whether a cell has signal: by its means."""
    rate, lead = row["pass"]["mean"], row["lead"]["mean"]
    return rate is not None and config.low <= rate <= config.high and lead >= config.lead - 1e-9


def streams(rows: Iterable[Figures], config: SignalConfig) -> dict[str, str]:
    """By task, the source of a stream of all families with signal, each where the vote leads most; other sources with
    signal stand for themselves."""
    best: dict[tuple[str, str], Figures] = {}
    for row in rows:
        name = row["data"].partition("@")[0]
        if signal(row, config) and row["lead"]["mean"] > best.get((row["task"], name), _NOTHING)["lead"]["mean"]:
            best[row["task"], name] = row
    prefix, named = f"{families.NAME}:", dict[str, str]()
    for task in dict.fromkeys(task for task, _ in best):
        addresses = [row["data"] for (of, _), row in best.items() if of == task]
        made = ",".join(one.removeprefix(prefix) for one in addresses if one.startswith(prefix))
        named[task] = " ".join([*filter(None, [made and prefix + made]), *(o for o in addresses if prefix not in o)])
    return named


_NOTHING: Figures = {"lead": {"mean": -1.0}}


def ladders(data: Sequence[str]) -> list[list[str]]:
    """Sources in the order of their difficulty: of a family without a level all of its levels, others alone."""
    found = []
    for address in data:
        name, _, rest = address.partition(":")
        if name != families.NAME:
            found.append([address])
            continue
        for kind, level in families.cells(rest):
            found.append([f"{name}:{kind.name}@{one}" for one in (LEVELS if level is None else (level,))])
    return found


def _by_task(config: SignalConfig) -> dict[str, list[list[str]]]:
    run, asked = config.run, dict[str, list[list[str]]]()
    for ladder in ladders(config.data):
        task = run.task or sources.load(ladder[0], seed=run.seed, limit=1, fields=run.fields, model=run.model).task
        asked.setdefault(task, []).append(ladder)
    return asked


def _measured(config: SignalConfig, asked: dict[str, list[list[str]]], found: dict[str, Figures]) -> Iterator[Figures]:
    """Rows of the cells that are not among those found, which they join: the easiest of all ladders first."""
    for task, several in asked.items():
        if all(address in found for ladder in several for address in ladder):
            continue
        with scratch_agent(replace(config.run, task=task)) as agent:
            for step in range(max(map(len, several))):
                for ladder in several:
                    if step >= len(ladder) or ladder[step] in found or _too_hard(ladder[:step], found, config):
                        continue
                    found[ladder[step]] = _cell(agent, config, ladder[step], task)
                    yield found[ladder[step]]


def _too_hard(easier: Sequence[str], found: dict[str, Figures], config: SignalConfig) -> bool:
    """Whether an easier cell is surely below what is looked for, or was left out for that."""
    if config.every or not easier:
        return False
    high = found[easier[-1]]["pass"]["high"] if easier[-1] in found else None
    return high is None or high < config.low


def _cell(agent: Agent, config: SignalConfig, address: str, task: str) -> Figures:
    found = _problems(config, address)
    asked: list[Problem] = [one for one in readable(found, agent.task, address) if agent.too_long(one) is None]
    marks = []
    for problem, said in zip(asked, agent.responder.ask([one.blind() for one in asked]), strict=True):
        arm = Grader(problem, agent.task).arm(said.answers, said.greedy_answer, tokens=said.tokens)
        marks.append(
            {
                "id": problem.id,
                "pass": arm["correct"],
                "answered": sum(answer is not None for answer in said.answers) / len(said.answers),
                "vote": arm["majority_correct"],
                "greedy": arm["greedy_correct"],
                "share": said.vote.share,
                "text": said.greedy.text,
                "tokens": said.tokens,
            }
        )

    def column(name: str) -> Any:
        return np.array([np.nan if mark[name] is None else float(mark[name]) for mark in marks])

    figures = {name: mean_interval(column(name)) for name in ("pass", "answered", "vote", "greedy")}
    lead = mean_interval(column("vote") - column("pass"))
    asked_with = {name: getattr(agent.sampling, name) for name in ("samples", "temperature", "max_tokens")}
    of = {"data": address, "of": number_of(found), "task": task, "n": len(marks)}
    return {**of, **figures, "lead": lead, **asked_with, "marks": marks}


def _problems(config: SignalConfig, address: str) -> sources.Problems:
    run = config.run
    return sources.load(address, seed=run.seed, limit=config.problems, fields=run.fields, model=run.model)


def _line(row: Figures, number: int) -> str:
    if row["pass"]["mean"] is None:
        return f"{number}: {row['data']}: no problem with a reference answer that can be asked"
    said = ", ".join(f"{name} {row[name]['mean']:.2f}" for name in ("pass", "vote", "greedy", "answered"))
    return f"{number}: {row['data']}: {said} of {row['n']} problems"


def _settings(config: SignalConfig) -> dict[str, Any]:
    return {**vars(config), "data": list(config.data), "run": config.run.settings()}


def _begun(out: Path, config: SignalConfig) -> list[Figures]:
    """The rows that are there, after the folder was made or found to be of the same search."""
    run = config.run.settings()
    asked = {name: run[name] for name in ("model", "task", "instruction", "system", "stop", "seed", "sampling")}
    mine = json.loads(json.dumps({**asked, "problems": config.problems}))
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / SETTINGS).exists():
            write_json(out / SETTINGS, mine)
        theirs = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        lines = (out / ROWS).read_text(encoding="utf-8").split("\n") if (out / ROWS).exists() else []
        if lines and lines[-1]:  # a line that was cut is measured again
            (out / ROWS).write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
        rows = [json.loads(line) for line in lines[:-1]]
    except OSError as error:
        raise ConfigError(f"{out} cannot be used as a folder: {error.strerror}; give another --out") from None
    except ValueError:
        raise DataError(f"{out} is damaged; delete it, or give another --out") from None
    if mine != theirs:
        other = ", ".join(name for name in mine if mine[name] != theirs.get(name))
        raise ConfigError(f"{out} holds a search with other settings ({other}); give another --out")
    return rows
