"""Settings found for a model and its problems, within a budget and without labels: what ``tacit tune`` does.

Builds on the agent, learning, the sources and trials. First, how answers are sampled: a few problems are answered at
each temperature, with twice the tokens of the preset. They are read as if cut earlier. What counts is how much there is
to learn from: 4 p (1 - p) of a confident vote's share p, if cutting changes no answer. Then how memories are learned:
every learning rate with every start learns from such votes. The better half goes on to further problems, and so on
until one is left (successive halving). What counts is the reward on the nearest other problem, above the share that its
vote has without a memory: on its own problem a memory that was told the answer would win. A preset is left only for
what is clearly better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tacit.agent import Agent
from tacit.assembly import set_threads
from tacit.config import RunConfig
from tacit.engines.base import Rollout
from tacit.errors import ConfigError, DataError
from tacit.experiments.run_folder import toml_value
from tacit.experiments.scoring import number_of
from tacit.experiments.studies.trials import scratch_agent
from tacit.experiments.trials import Budget, Trials, trials_file
from tacit.learning import Learner, Target
from tacit.problem import Problem
from tacit.responses import Responder
from tacit.seeds import derive, generator
from tacit.tasks import sources
from tacit.tasks.base import Vote

LEAST, MOST = 4, 16
"""Problems that are sampled: at least so many, and at most."""
TEMPERATURES = (0.7, 1.0)
LENGTHS = (0.5, 1.0, 2.0)
"""Tokens of an answer, in those of the preset."""
RATES = (1.0, 0.3, 3.0)
"""Learning rates, in that of the preset."""
STARTS = ("vocabulary", "gaussian", "trace")
TOGETHER = 2
"""Problems of a round."""
EARLY = 0.4
"""Share of the budget after which no further problem is sampled."""
FINAL = 0.9
"""Share of answers that more tokens may not change."""
CLEARLY = 0.05
"""What has to be gained over the preset for another setting to be taken."""

Arm = tuple[float, str]


@dataclass(frozen=True)
class Tuned:
    """What came out.

    Attributes:
        temperature, max_tokens, lr, init: the settings.
        ways: per temperature and length: shares of answered responses, final answers, confident votes; the signal.
        arms: per learning rate and start: how many problems, first and last rewards, the reward on other problems
            without the memory and with it, gained there; the best first.
        problems: ids of all that were looked at, which no figure should be reported on; none where they are of an
            endless source, which has others for every run.
        asked: how problems were asked: task, instruction, system message.
        spent: tokens and seconds.
    """

    temperature: float
    max_tokens: int
    lr: float
    init: str
    ways: list[dict[str, Any]]
    arms: list[dict[str, Any]]
    problems: list[str]
    asked: dict[str, str]
    spent: tuple[int, float]


def tune(config: RunConfig, budget: Budget, out: Path, tell: Callable[[str], None]) -> Tuned:
    """Search, or go on searching; what ``config`` says is not searched for.

    Args:
        config: model, task, data; where it has no task, the data's holds.
        budget: within which every trial begins; one that has begun is finished.
        out: the file of the result, beside which trials are kept; it is not written here.
        tell: called with a line for each finding.

    Raises:
        TacitError: nothing can be found out, and why.
    """
    set_threads(config)
    found = _problems(config)
    config = replace(config, task=config.task or found.task)
    with scratch_agent(config) as agent:
        return _Search(config, agent, [one.blind() for one in found], budget, out, tell).run()


def _problems(config: RunConfig) -> sources.Problems:
    """Problems in an order of their own, so that not all are of the head of a file."""
    endless = sources.endless(config.data)
    # Other problems of an endless source than any run of this seed has.
    seed = derive(config.seed, config.data, "tune") % (1 << 31) + 1_000_000 if endless else config.seed
    limit = 2 * MOST if endless else None
    found = sources.load(config.data, seed=seed, limit=limit, fields=config.fields, model=config.model)
    order = generator(config.seed, config.data, "tune").permutation(len(found))
    found[:] = [found[place] for place in order]
    return found


class _Search:
    """One search."""

    def __init__(
        self,
        config: RunConfig,
        agent: Agent,
        problems: Sequence[Problem],
        budget: Budget,
        out: Path,
        tell: Callable[[str], None],
    ) -> None:
        self.agent, self.budget, self.tell = agent, budget, tell
        self.endless = sources.endless(config.data)
        usual, learning = agent.sampling, agent.learning
        said = config.sampling.temperature is not None, config.sampling.max_tokens is not None
        self.temperatures = [usual.temperature, *(() if said[0] else TEMPERATURES)]
        self.lengths = [max(1, int(usual.max_tokens * share)) for share in ((1.0,) if said[1] else LENGTHS)]
        rates = [
            learning.lr,
            *(() if config.learn.lr is not None else (float(f"{learning.lr * r:.2g}") for r in RATES)),
        ]
        # A carrier with rows of its own begins with zeros, whatever the start.
        one = config.learn.init is not None or agent.backbone.carrier.rows is not None
        starts = [learning.init, *(() if one else STARTS)]
        # The preset first, so that it wins where others are as good.
        self.arms: list[Arm] = [(rate, start) for rate in dict.fromkeys(rates) for start in dict.fromkeys(starts)]
        self.temperatures = list(dict.fromkeys(self.temperatures))
        longest, soft, room = max(self.lengths), learning.tokens, agent.engine.context
        fits = [one for one in problems if len(agent.backbone.encode(one.text)) + soft + longest <= room]
        if len(fits) < LEAST:
            raise DataError(
                f"{config.data} has {len(fits)} problems that fit the model with {longest} tokens of answer, and "
                f"{LEAST} are needed to tune on; give more data, or fewer --max-tokens"
            )
        self.problems = fits[:MOST]
        head = {"model": agent.backbone.fingerprint, "data": config.data, "seed": config.seed, "settings": "2"}
        head |= {"samples": usual.samples, "top_p": usual.top_p, "longest": longest}
        head |= {name: value for name, value in learning.payload().items() if name not in ("lr", "init")}
        head["content"] = number_of(problems)
        self.trials = Trials(trials_file(out), head)

    def run(self) -> Tuned:
        tried = self._sampled()
        ways = [self._way(tried, heat, length) for heat in self.temperatures for length in self.lengths]
        way = self._best_way(ways)
        for one in ways:
            chosen = "  <- chosen" if one is way else ""
            self.tell(
                f"temperature {one['temperature']:g}, {one['max_tokens']} tokens: {one['answered']:.0%} of responses "
                f"with an answer, {one['final']:.0%} of answers final, {one['confident']:.0%} of votes confident, "
                f"{one['signal']:.2f} to learn from{chosen}"
            )
        votes = [(problem, self._vote(problem, way)) for problem in tried]
        targets = [
            Target(problem, vote, trace=self._trace(problem, vote, way))
            for problem, vote in votes
            if vote.share < 1 and self.agent.learner.gate(vote) is None
        ]
        if len(targets) < 2:
            few = f"of {len(tried)} votes {len(targets)} are confident without being unanimous, and 2 are needed"
            if len(tried) < len(self.problems):
                raise ConfigError(f"{few}; the budget of {self.budget} has room for no more: give a larger --budget")
            raise DataError(
                f"{few}; try easier or harder problems, another --instruction, or another task (tacit tasks try)"
            )
        arms = self._halved(way, targets)
        best = arms[0]
        mine = next((arm for arm in arms if (arm["lr"], arm["init"]) == self.arms[0]), best)
        if best["gained"] < mine["gained"] + CLEARLY:
            best = mine
        template = self.agent.backbone.template
        return Tuned(
            way["temperature"],
            way["max_tokens"],
            best["lr"],
            best["init"],
            ways,
            arms,
            [] if self.endless else [one.id for one in tried],
            {"task": self.agent.task.name, "instruction": template.instruction, "system": template.system},
            (self.trials.tokens, self.trials.seconds),
        )

    # -- how answers are sampled --------------------------------------------------------------------------------------

    def _sampled(self) -> list[Problem]:
        """The problems that were answered at every temperature."""
        for number, problem in enumerate(self.problems):
            if number >= LEAST and self.trials.spent(self.budget) >= EARLY:
                return self.problems[:number]
            for heat in self.temperatures:
                if ("sample", problem.id, heat) not in self.trials.rows:
                    self._sample(problem, heat)
        return self.problems

    def _sample(self, problem: Problem, heat: float) -> None:
        began, agent = time.perf_counter(), self.agent
        sampling = replace(agent.sampling, temperature=heat, max_tokens=max(self.lengths))
        responder = Responder(agent.engine, sampling, agent.seed, agent.task)
        [responses] = responder.ask([problem], "tune")
        readers = [agent.task.on(agent.task.shown(problem.text, number)) for number in range(sampling.samples)]
        answers: dict[str, list[str | None]] = {}
        for length in self.lengths:
            cut = [
                one.text if len(one.token_ids) <= length else agent.backbone.decode(one.token_ids[:length])
                for one in responses.samples
            ]
            answers[str(length)] = [reader.extract(text) for reader, text in zip(readers, cut, strict=True)]
        seconds, texts = time.perf_counter() - began, [one.text for one in responses.samples]
        self.trials.add(("sample", problem.id, heat), responses.tokens, seconds, answers=answers, texts=texts)

    def _vote(self, problem: Problem, way: dict[str, Any]) -> Vote:
        row = self.trials.rows["sample", problem.id, way["temperature"]]
        return self.agent.task.on(problem.text).vote(row["answers"][str(way["max_tokens"])])

    def _trace(self, problem: Problem, vote: Vote, way: dict[str, Any]) -> tuple[str, Rollout]:
        """The problem as it was shown, and the first response that gives the vote's answer."""
        number = vote.agrees.index(True)
        text: str = self.trials.rows["sample", problem.id, way["temperature"]]["texts"][number]
        backbone = self.agent.backbone
        ids = [*backbone.tokenizer.encode(text, add_special_tokens=False), min(backbone.end_ids)]
        return self.agent.task.shown(problem.text, number), Rollout(tuple(ids), (), text, "stop")

    def _way(self, tried: Sequence[Problem], heat: float, length: int) -> dict[str, Any]:
        way: dict[str, Any] = {"temperature": heat, "max_tokens": length}
        votes = [self._vote(problem, way) for problem in tried]
        rows = [self.trials.rows["sample", problem.id, heat]["answers"] for problem in tried]
        answers = [one for row in rows for one in row[str(length)]]
        whole = [one for row in rows for one in row[str(max(self.lengths))]]
        confident = [vote for vote in votes if self.agent.learner.gate(vote) is None]
        return way | {
            "answered": sum(answer is not None for answer in answers) / len(answers),
            "final": sum(one == other for one, other in zip(answers, whole, strict=True)) / len(answers),
            "confident": len(confident) / len(votes),
            "signal": sum(4 * vote.share * (1 - vote.share) for vote in confident) / len(votes),
        }

    def _best_way(self, ways: list[dict[str, Any]]) -> dict[str, Any]:
        """The way with most to learn from whose answers are final; of those about as good one at the preset's
        temperature, then with the fewest tokens."""
        final, usual = [way for way in ways if way["final"] >= FINAL], self.temperatures[0]
        best = max(way["signal"] for way in final)
        good = [way for way in final if way["signal"] > best - CLEARLY]
        return min(good, key=lambda way: (way["temperature"] != usual, way["max_tokens"]))

    # -- how memories are learned -------------------------------------------------------------------------------------

    def _halved(self, way: dict[str, Any], targets: Sequence[Target]) -> list[dict[str, Any]]:
        """Figures of every arm that was tried on all problems of a round, the best first."""
        alive, done, seen = list(self.arms), 0, dict[Arm, dict[str, Any]]()
        keys = self.agent.recall.keys([target.problem.text for target in targets])
        alike = keys @ keys.T
        np.fill_diagonal(alike, -2.0)
        others = {one.problem.id: targets[int(at)] for one, at in zip(targets, alike.argmax(1), strict=True)}
        while done < len(targets) and (len(alive) > 1 or not seen):
            part = targets[done : done + TOGETHER]
            for arm in alive:
                if self.trials.spent(self.budget) >= 1 and not self._known(way, arm, part):
                    if not seen:
                        raise ConfigError(
                            f"the budget of {self.budget} ended before every learning rate and start was tried; "
                            "the same command with a larger --budget goes on from here"
                        )
                    self.tell(f"the budget of {self.budget} is used up")
                    return _ranked(seen)
                self._learn(way, arm, part, others)
            done += len(part)
            for arm in alive:
                seen[arm] = self._figures(way, arm, targets[:done], others)
                self.tell(_arm_line(seen[arm]))
            best = sorted(alive, key=lambda arm: -seen[arm]["gained"])
            alive = best[: (len(best) + 1) // 2]
        return _ranked(seen)

    def _key(self, way: dict[str, Any], arm: Arm, target: Target) -> tuple[Any, ...]:
        return ("learn", *arm, way["temperature"], way["max_tokens"], target.problem.id)

    def _known(self, way: dict[str, Any], arm: Arm, targets: Sequence[Target]) -> bool:
        return all(self._key(way, arm, target) in self.trials.rows for target in targets)

    def _learn(self, way: dict[str, Any], arm: Arm, targets: Sequence[Target], others: Mapping[str, Target]) -> None:
        began, agent = time.perf_counter(), self.agent
        new = [target for target in targets if self._key(way, arm, target) not in self.trials.rows]
        if not new:
            return
        learning = replace(agent.learning, lr=arm[0], init=arm[1])
        sampling = replace(agent.sampling, temperature=way["temperature"], max_tokens=way["max_tokens"])
        learner = Learner(agent.backbone, agent.engine, learning, sampling, seed=agent.seed, task=agent.task)
        learned = learner.learn(new)
        asked = [others[target.problem.id] for target in new]
        responder = Responder(agent.engine, sampling, agent.seed, agent.task)
        requests = [
            request
            for other, one in zip(asked, learned, strict=True)
            for request in responder.requests(
                other.problem, agent.backbone.encode(other.problem.text), "tune", one.prompt
            )
        ]
        found = responder.generate(requests, [other.problem for other in asked])
        seconds = (time.perf_counter() - began) / len(new)
        for target, one, other, responses in zip(new, learned, asked, found, strict=True):
            rewards = [step["reward"] for step in one.steps]
            assert other.vote.answer is not None
            right = sum(responses.task.giving(responses.answers, other.vote.answer)) / len(responses.answers)
            tokens = one.tokens + responses.tokens
            self.trials.add(self._key(way, arm, target), tokens, seconds, rewards=rewards, other=right)

    def _figures(
        self, way: dict[str, Any], arm: Arm, targets: Sequence[Target], others: Mapping[str, Target]
    ) -> dict[str, Any]:
        rows = [self.trials.rows[self._key(way, arm, target)] for target in targets]
        tail, count = self.agent.learning.admit_steps, len(rows)
        last = [row["rewards"][-tail:] for row in rows]
        figures = {
            "problems": count,
            "first": sum(row["rewards"][0] for row in rows) / count,
            "last": sum(sum(rewards) / len(rewards) for rewards in last) / count,
            "without": sum(others[target.problem.id].vote.share for target in targets) / count,
            "with": sum(row["other"] for row in rows) / count,
        }
        return {"lr": arm[0], "init": arm[1], **figures, "gained": figures["with"] - figures["without"]}


def _ranked(seen: dict[Arm, dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the arms that got as far, the one that gained most; those that went out earlier come after."""
    return sorted(seen.values(), key=lambda figures: (-figures["problems"], -figures["gained"]))


def _arm_line(figures: dict[str, Any]) -> str:
    return (
        f"lr {figures['lr']:g} from {figures['init']}, {figures['problems']} problems: reward {figures['first']:.2f} "
        f"at first, {figures['last']:.2f} at last; on the nearest other problem {figures['without']:.2f} without it, "
        f"{figures['with']:.2f} with it: {figures['gained']:+.2f}"
    )


def as_toml(config: RunConfig, tuned: Tuned, budget: Budget) -> str:
    """The settings found, as a file for ``tacit run --config``; problems that were looked at are left out there."""
    whole: dict[str, Any] = {"model": config.model, "data": config.data, "fields": list(config.fields), **tuned.asked}
    whole |= {"stop": list(config.stop), "dtype": config.dtype, "skip": tuned.problems}
    whole |= {} if config.carrier is None else {"carrier": config.carrier}  # which the learning rate belongs to
    tables: dict[str, dict[str, Any]] = {
        "sampling": {"temperature": tuned.temperature, "max_tokens": tuned.max_tokens},
        "learn": {"lr": tuned.lr, "init": tuned.init},
    }
    best = next(arm for arm in tuned.arms if (arm["lr"], arm["init"]) == (tuned.lr, tuned.init))
    lines = [
        f"# Found by `tacit tune` without labels, within {budget}.",
        f"# {_arm_line(best)}.",
        *(f"{name} = {toml_value(value)}" for name, value in whole.items() if value != []),
    ]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{name} = {toml_value(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"
