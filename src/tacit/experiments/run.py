"""One online run: a stream of problems, answered, scored for the record, learned from, and reported.

Builds on agent, controls, scoring and the run folder. The agent and the baselines see blind problems only; gold
answers meet their answers here, in the Grader, after everything has been decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tacit import __version__
from tacit.agent import Agent, Answered, Remembered
from tacit.assembly import as_bound, assembled, check_engine, set_threads, task_of
from tacit.bank import bank_there, open_bank
from tacit.bank.tending.map import mapped
from tacit.bank.tending.plan import Rule
from tacit.bank.tending.work import tend
from tacit.config import RunConfig, filled
from tacit.errors import BankUnavailable, ConfigError
from tacit.experiments.report.run import write_report
from tacit.experiments.run_folder import Row, RunFolder, as_begun
from tacit.experiments.scoring import Grader, Watch, readable
from tacit.learning import Learned
from tacit.model.presets import known, said
from tacit.problem import Problem
from tacit.responses import Responses
from tacit.routing import Route
from tacit.tasks import sources

if TYPE_CHECKING:
    from tacit.methods.controls import Arm

BESIDE = ("icl", "random", "verified", "majority")
"""Baselines in the order of a row."""

Progress = Callable[[Row, int, int], None]
"""(row, problems done, problems in all), called with each problem's row; those of a window are done together."""


def run(
    config: RunConfig, progress: Progress | None = None, tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Run, or continue, an online stream; returns the summary that is also in ``out/summary.json``.

    Args:
        config: all settings.
        progress: called once per problem, for problems of an earlier, interrupted part too.
        tell: called with a line: what was chosen for the model because nobody said it; and once, after the window from
            which on most responses have no answer, with what a model wrote.

    Raises:
        TacitError: anything a user can mend; what was finished before stays.
    """
    set_threads(config)
    problems = _load(config)
    check_engine(config)
    config = as_begun(config)
    if config.bank is not None and (opened := bank_there(config.bank)) is not None:
        with opened:
            bound = as_bound(config, opened, [config.namespace])
        recall = filled(config.recall, {"key": bound.recall.key})
        config = replace(config, task=config.task or bound.task, recall=recall)
    config = replace(config, task=config.task or problems.task)
    readable(problems, task_of(config), config.data)
    config = known(config)
    folder = RunFolder(config.out, {**config.settings(), "version": __version__})
    with closing(folder), ExitStack() as open_ones:
        url = config.bank or str(Path(config.out) / "bank.sqlite")
        if (bank := bank_there(url)) is not None:
            open_ones.enter_context(bank)
        # A new bank is made last: no mistake that is found before leaves an empty one behind.
        with assembled(config, bank or (lambda: open_ones.enter_context(open_bank(url)))) as agent:
            folder.settle("draws", agent.engine.draws)
            parts: dict[str, Any] = {"sampling": agent.sampling, "learn": agent.learning, "recall": agent.recalling}
            if config != (config := replace(config, **parts)):
                folder.fit(config.settings())
                if tell:
                    tell(said(agent.backbone, agent.sampling, agent.learning))
            watch = Watch(tell or (lambda line: None), agent.task.name)
            stream = _Stream(config, agent, folder, problems, watch)
            stream.run(progress or (lambda row, done, total: None))
        return write_report(Path(config.out), lambda: asdict(mapped(agent.bank, config.namespace)))


def _load(config: RunConfig) -> sources.Problems:
    """The problems of the run, without those to leave out."""
    limit = config.limit and config.limit + len(config.skip)
    found = sources.load(config.data, seed=config.seed, limit=limit, fields=config.fields, model=config.model)
    found[:] = [one for one in found if one.id not in config.skip][: config.limit]
    if not found:
        raise ConfigError(f"all problems of {config.data} are to be left out (skip); give more data")
    return found


@dataclass(frozen=True)
class _Outcome:
    """What came of a problem: Tacit's answer and memory, and what the baselines said that had something to go on."""

    answered: Answered
    remembered: Remembered
    beside: Mapping[str, Arm] = field(default_factory=dict)


class _Stream:
    """The windows of one run."""

    def __init__(
        self, config: RunConfig, agent: Agent, folder: RunFolder, problems: Sequence[Problem], watch: Watch
    ) -> None:
        self.config, self.agent, self.folder, self.problems, self.watch = config, agent, folder, problems, watch
        self.beside, self.drift = None, None
        if config.tend:
            from tacit.methods.drift import Drift

            self.drift = Drift(agent)
        if config.baselines:
            from tacit.methods.controls import Beside

            self.beside = Beside(agent, config.baselines)

    def run(self, progress: Progress) -> None:
        """Do what is not done yet.

        Raises:
            ConfigError: not one problem fits the model's context.
        """
        total = len(self.problems)
        reasons = map(self.agent.too_long, self.problems)
        if (why := next(reasons, None)) and all(reasons):
            raise ConfigError(f"no problem of {self.config.data} can be asked: the first is {why}; lower --max-tokens")
        done = self.folder.resume(self.agent.bank, self.config.namespace)
        for row, problem in zip(done, self.problems, strict=False):
            if row.get("problem", problem.text) != problem.text:
                raise ConfigError(
                    f"{self.folder.path} has answered another problem at position {row['position']} than "
                    f"{self.config.data} has there now; give the data as they were, or choose another --out"
                )
        if self.beside:
            self.beside.resume(done)
        self.watch.rows(done)
        self._tend(0, len(done))  # where a kill came between
        for row in done:
            progress(row, row["position"] + 1, total)
        start = len(done)
        while ahead := self.problems[start : start + self.config.window]:
            rows = self._window(start, ahead[: self._strangers(ahead) if self.config.strict else None])
            self._tend(start, start := start + len(rows))
            for row in rows:
                progress(row, start, total)

    def _strangers(self, ahead: Sequence[Problem]) -> int:
        """How many of these, from the first, are answered together; one that is not asked is nobody's neighbour."""
        if len(ahead) == 1:
            return 1  # without a search
        places = [place for place, problem in enumerate(ahead) if self.agent.too_long(problem) is None]
        if not (asked := [ahead[place] for place in places]):
            return len(ahead)
        count = min(each.strangers(asked) for each in (self.agent, self.beside) if each)
        return [*places, len(ahead)][count]

    def _tend(self, before: int, done: int) -> None:
        """Tend the bank, if that is asked for and came due meanwhile; once, however often this is called."""
        every = self.config.tend
        if every and done // every > before // every:
            with suppress(BankUnavailable):  # another run on this bank is at it
                rule, name = Rule(keep=self.config.keep), f"{self.folder.run_id}:{done - done % every}"
                tend(self.agent.bank, self.config.namespace, rule, name=name)

    def _window(self, start: int, problems: Sequence[Problem]) -> list[Row]:
        began = time.perf_counter()
        reasons = [self.agent.too_long(problem) for problem in problems]
        asked = [problem for problem, why in zip(problems, reasons, strict=True) if why is None]
        tried = self._tried(asked) if asked else []
        seconds = (time.perf_counter() - began) / len(problems)
        outcomes = iter(tried)
        rows = [
            _row(
                start + number,
                Grader(problem, self.agent.task),
                next(outcomes) if why is None else self._not_asked(problem, why),
                seconds,
            )
            for number, (problem, why) in enumerate(zip(problems, reasons, strict=True))
        ]
        answered, remembered = [one.answered for one in tried], [one.remembered for one in tried]
        told = self.drift.told(answered) if self.drift else []
        with self.folder.commit(self.agent.bank, self.config.namespace, rows):
            if self.drift:
                for said in told:
                    self.drift.note(said)  # of what was there to answer
            self.agent.remember(answered, remembered)
        if self.beside:
            self.beside.learn(answered)
        self.watch.rows(rows, [one.zero_shot for one in answered])
        return rows

    def _tried(self, problems: Sequence[Problem]) -> list[_Outcome]:
        """Answer and learn a window, and everything beside that was asked for."""
        answered = self.agent.answer(problems)
        remembered = self.agent.learn(answered, {"run": self.folder.run_id})
        beside = self.beside.answer(answered, remembered) if self.beside else [{} for _ in problems]
        return [_Outcome(*part) for part in zip(answered, remembered, beside, strict=True)]

    def _not_asked(self, problem: Problem, why: str) -> _Outcome:
        """That of a problem which the model has no room for: it counts as wrong, and nothing comes of it."""
        samples = self.config.sampling.samples
        route = Route("no_memory", why)
        answered = Answered(
            problem, np.empty(0), Responses.none(samples), routes=(route,) * samples, greedy_route=route
        )
        return _Outcome(answered, Remembered(Learned(problem, None, False, why, None), None))


def _row(position: int, grader: Grader, outcome: _Outcome, seconds: float) -> Row:
    one, result = outcome.answered, outcome.remembered

    def arm(responses: Responses, **extra: Any) -> Row:
        return grader.arm(responses.answers, responses.greedy_answer, tokens=responses.tokens, **extra)

    def beside(name: str) -> Row | None:
        said = outcome.beside.get(name)
        if said is None:
            return None
        if name in ("majority", "vote"):
            return grader.majority(said.answers, tokens=said.tokens)
        return grader.arm(said.answers, said.greedy_answer, tokens=said.tokens, **said.notes)

    names = [decided.name for decided in one.routes]
    routed = grader.arm(
        one.answers,
        one.greedy_answer,
        tokens=one.tokens,
        route=names[0] if len(set(names)) == 1 else "mixed",
        routes=names,
        greedy_route=one.greedy_route.name,
        why=one.greedy_route.why,
    )
    learned = result.learned
    return {
        **grader.head(position),
        "zero_shot": arm(one.zero_shot),
        "memory": None
        if one.hit is None or one.memory is None
        else arm(one.memory, memory_id=one.hit.memory_id, similarity=one.hit.similarity, source=one.hit.problem_id),
        "routed": routed,
        **{name: beside(name) for name in (*BESIDE, *({"vote"} & outcome.beside.keys()))},
        "learned": None
        if result.memory is None
        else {
            "memory_id": result.memory.id,
            "state": str(result.memory.state),
            "reason": result.memory.reason,
            "label": learned.label,
            "share": result.memory.provenance.get("share"),
            "margin": result.memory.provenance.get("margin"),
            "label_correct": grader.right(learned.label),
            "rewards": [step["reward"] for step in learned.steps],
            "steps": len(learned.steps),
            "tokens": learned.tokens,
        },
        "not_learned": learned.reason if result.memory is None else None,
        "trace": one.zero_shot.trace and one.zero_shot.trace.text,
        "tokens": one.tokens + learned.tokens,
        "seconds": seconds,
    }
