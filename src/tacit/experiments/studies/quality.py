"""What predicts a good memory: signals known when a memory is made, against what it does for later problems.

Builds on the agent (which learns), responses, scoring (which alone sees gold answers) and quality_rules (statistics and
admission rules). For every seed, the first problems of a data set are learned from, all of them: weak votes too, and
whatever admission would reject. The problems after them are held out. A memory's *benefit* is measured where recall
would serve it,

    benefit = mean over its P most similar held-out problems of (accuracy under the memory - zero-shot accuracy),

with accuracy the share of right answers among samples at temperature T; no routing, so harm shows. Signals use no gold
answer and no held-out problem: the vote, the learning curve, rollouts under the finished memory on its own problem, and
on the other learned problems nearest to it (the *neighbours*, which a running system has already seen).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tacit.agent import Agent, Answered, Remembered
from tacit.assembly import set_threads
from tacit.config import LearnConfig, RunConfig
from tacit.errors import DataError
from tacit.experiments.report.study_tables import publish_study
from tacit.experiments.scoring import Grader
from tacit.experiments.studies import quality_rules
from tacit.experiments.studies.trials import Gain, Tell, gain, scratch_agent, under
from tacit.problem import Problem
from tacit.responses import Responses
from tacit.seeds import generator
from tacit.tasks import sources

EVERYTHING: dict[str, Any] = {"min_votes": 0, "min_lead": 0, "admit": 0.0}
"""Learning settings that refuse nothing, so that the rules themselves can be compared."""

Pair = tuple[int, str]


@dataclass(frozen=True)
class QualityConfig:
    """One quality study.

    Attributes:
        run: model, data, verifier, sampling, learning and recall; its seed, limit and window are not used. The vote
            gate and the admission threshold of ``run.learn`` are measured as a rule, not applied.
        choose, confirm: seeds on which the rules are chosen and on which they are confirmed.
        limit: problems learned from, per seed.
        held_out: further problems, per seed, on which benefit is measured.
        nearest: P, held-out problems per memory; those below the recall floor do not count.
        neighbours: learned problems, other than its own, on which a memory is tried for its signals.
        served: nearest memories tried per held-out problem, to see what is served once a rule has dropped some.
    """

    run: RunConfig = field(default_factory=lambda: RunConfig(learn=LearnConfig(label="zero-shot", batch=16)))
    choose: tuple[int, ...] = (201, 202)
    confirm: tuple[int, ...] = (203, 204)
    limit: int = 60
    held_out: int = 120
    nearest: int = 6
    neighbours: int = 4
    served: int = 4


def study(config: QualityConfig, out: str | Path, tell: Tell = lambda line: None) -> dict[str, Any]:
    """Measure, choose and confirm; writes ``quality.json`` and ``quality.md`` in ``out`` and returns the former.

    Args:
        config: see QualityConfig.
        out: folder, made if missing.
        tell: called with a line as each seed is done.

    Raises:
        TacitError: anything a user can mend, such as too few problems.
    """
    set_threads(config.run)
    memories: list[dict[str, Any]] = []
    tries: list[dict[str, Any]] = []
    for part, seeds in (("choose", config.choose), ("confirm", config.confirm)):
        for seed in seeds:
            one, served = measure(config, seed)
            memories += [{**memory, "part": part} for memory in one]
            tries += [{**row, "part": part} for row in served]
            told = [memory["benefit"] for memory in one if memory["benefit"] is not None]
            tell(f"seed {seed} ({part}): {len(told)} memories, mean benefit {np.mean(told) if told else 0:+.3f}")
    settings = {**vars(config), "run": config.run.settings()}
    result = {
        "settings": {"run": settings.pop("run"), "learned": EVERYTHING, **settings},
        "signals": quality_rules.signal_table(memories),
        "memories": memories,
        "rules": quality_rules.rule_table(memories, tries, config.run.learn),
        "tries": tries,
    }
    publish_study(Path(out), "quality", "What predicts a good memory", result)
    return result


def measure(config: QualityConfig, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Learn and try all memories of one seed.

    Returns:
        The memories with benefit and signals; and, per held-out problem, the memories nearest to it, nearest first,
        with the gain of each: ``{"problem_id", "nearest": [{"id", "gain", "greedy_gain"}, ...]}``.
    """
    learned_from, held_out = _problems(config, seed)
    learning = replace(config.run.learn, **EVERYTHING)
    with scratch_agent(replace(config.run, seed=seed, learn=learning)) as agent:
        answered = agent.answer(learned_from, use_memory=False)
        remembered = agent.learn(answered)
        later = agent.answer(held_out, use_memory=False)
        return _Trial(config, seed, agent, answered, remembered, held_out, later).result(learned_from)


def _problems(config: QualityConfig, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Problems to learn from and held-out ones, of a fresh stream or of a finite data set dealt out by the seed."""
    wanted = config.limit + config.held_out
    data = config.run.data
    found: list[Problem]
    if data.partition(":")[0] == "testbed":
        found = sources.load(data, seed=seed, limit=wanted, model=config.run.model)
    else:
        found = sources.load(data, fields=config.run.fields)
        found = [found[i] for i in generator(seed, data, "quality").permutation(len(found))[:wanted]]
    if len(found) < wanted:
        raise DataError(
            f"{data} has {len(found)} problems, but the study wants {wanted} per seed "
            f"({config.limit} to learn from and {config.held_out} held out); lower --limit or --held-out"
        )
    return found[: config.limit], found[config.limit :]


class _Trial:
    """The memories of one seed, each tried on its own problem, on neighbours and on held-out problems."""

    def __init__(
        self,
        config: QualityConfig,
        seed: int,
        agent: Agent,
        answered: Sequence[Answered],
        remembered: Sequence[Remembered],
        held_out: Sequence[Problem],
        later: Sequence[Answered],
    ) -> None:
        self.config, self.seed, self.agent = config, seed, agent
        self.answered, self.later, self.verifier = answered, later, agent.verifier
        self.graders = {problem.id: Grader(problem, agent.task) for problem in held_out}
        self.made = [
            (one, result.learned, result.memory)
            for one, result in zip(answered, remembered, strict=True)
            if result.memory is not None  # a prompt that never saw a reward leaves none, whatever the rule
        ]
        self.zero = {one.problem.id: one for one in [*answered, *later]}
        self._scores: dict[int, float] = {}

    def result(self, learned_from: Sequence[Problem]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        if not self.made:
            return [], []
        own = np.stack([one.key for one, _, _ in self.made])
        own_ids = [one.problem.id for one, _, _ in self.made]
        tried_on = _nearest(own, self.answered, self.config.neighbours, skip=own_ids)
        floor = self.agent.recalling.floor
        targets = _nearest(own, self.later, self.config.nearest, floor=floor)
        nearby = self._nearest_memories(own, floor)
        pairs: list[Pair] = list(enumerate(own_ids))
        for number in range(len(self.made)):
            pairs += [(number, name) for name in [*tried_on[number], *targets[number]]]
        pairs += [(number, name) for name, numbers in nearby.items() for number in numbers]
        pairs = list(dict.fromkeys(pairs))
        asked = [(self.made[number][2], self.zero[name].problem) for number, name in pairs]
        responses = dict(zip(pairs, under(self.agent, asked), strict=True))
        self._judge(responses, tried_on)
        gains = {
            (number, name): gain(self.graders[name], given, self.zero[name].zero_shot)
            for (number, name), given in responses.items()
            if name in self.graders
        }
        truth = {problem.id: Grader(problem, self.agent.task) for problem in learned_from}
        families = {problem.id: problem.family for problem in learned_from}
        memories = []
        for number, (one, learned, memory) in enumerate(self.made):
            known = [g for g in (gains[number, name] for name in targets[number]) if not np.isnan(g).any()]
            memories.append(
                {
                    "id": f"{self.seed}/{memory.id}",
                    "seed": self.seed,
                    "problem_id": one.problem.id,
                    "benefit": float(np.mean([g[0] for g in known])) if known else None,
                    "greedy_benefit": float(np.mean([g[1] for g in known])) if known else None,
                    "held_out": len(known),
                    "label_right": truth[one.problem.id].right(learned.label),
                    "trusted": bool(memory.provenance.get("trusted")),
                    "family": families[one.problem.id],
                    "signals": self._signals(number, responses, tried_on[number]),
                }
            )
        return memories, self._tries(nearby, gains, [str(memory["id"]) for memory in memories])

    def _nearest_memories(self, own: np.ndarray, floor: float) -> dict[str, list[int]]:
        nearby = {}
        for one in self.later:
            similarity = own.astype(np.float64) @ one.key.astype(np.float64)
            order = np.argsort(-similarity, kind="stable")[: self.config.served]
            nearby[one.problem.id] = [int(i) for i in order if similarity[i] >= floor]
        return nearby

    def _tries(self, nearby: dict[str, list[int]], gains: dict[Pair, Gain], ids: Sequence[str]) -> list[dict[str, Any]]:
        rows = []
        for name, numbers in nearby.items():
            found = [(ids[number], gains[number, name]) for number in numbers]
            cells = [{"id": id, "gain": g[0], "greedy_gain": g[1]} for id, g in found if not np.isnan(g).any()]
            rows.append({"seed": self.seed, "problem_id": name, "nearest": cells})
        return rows

    # -- signals ------------------------------------------------------------------------------------------------

    def _judge(self, responses: dict[Pair, Responses], tried_on: Sequence[list[str]]) -> None:
        """Score with the verifier every sample that a signal needs, problem by problem."""
        if self.verifier is None:
            return
        wanted: dict[str, list[Responses]] = {}
        for number, (one, _, _) in enumerate(self.made):
            for name in [one.problem.id, *tried_on[number]]:
                wanted.setdefault(name, [self.zero[name].zero_shot]).append(responses[number, name])
        for name, several in wanted.items():
            candidates = [c for response in several for c in response.candidates()[:-1]]
            scores = self.verifier.score(self.zero[name].problem.text, candidates)
            self._scores |= {id(c.rollout): s for c, s in zip(candidates, scores, strict=True)}

    def _score(self, responses: Responses, chosen: Sequence[bool] | None = None) -> float | None:
        """Mean verifier score of the samples (those chosen); None without a verifier or without any."""
        marks = chosen if chosen is not None else [True] * len(responses.samples)
        scores = [self._scores.get(id(r)) for r, mark in zip(responses.samples, marks, strict=True) if mark]
        return _mean([score for score in scores if score is not None])

    def _signals(
        self, number: int, responses: dict[Pair, Responses], neighbours: Sequence[str]
    ) -> dict[str, float | None]:
        one, learned, _ = self.made[number]
        steps, label = learned.steps, learned.label
        rewards = [float(step["reward"]) for step in steps]
        updated = [float(step["grad_norm"]) for step in steps if step["updated"]]
        own, zero = responses[number, one.problem.id], one.zero_shot
        tried = [(self.zero[name].zero_shot, responses[number, name]) for name in neighbours]
        last = self.config.run.learn.admit_steps
        signals: dict[str, float | None] = {
            "vote_share": zero.vote.share,
            "vote_margin": zero.vote.margin,
            "first_reward": rewards[0],
            "last_reward": float(np.mean(rewards[-last:])),
            "reward_slope": float(np.polyfit(range(len(rewards)), rewards, 1)[0]) if len(rewards) > 1 else 0.0,
            "final_reward": float(np.mean(_same(own, label))),
            "updates": float(len(updated)),
            "grad_norm": float(np.mean(updated)) if updated else 0.0,
            "prompt_norm": float(steps[-1]["norm"]),
            "logprob": _logprob(own),
            "logprob_gain": _logprob(own) - _logprob(zero),
            "neighbour_agreement": _mean([float(np.mean(_same(w, z.vote.answer))) for z, w in tried]),
            "neighbour_share": _mean([w.vote.share for _, w in tried]),
            "neighbour_share_gain": _mean([w.vote.share - z.vote.share for z, w in tried]),
            "neighbour_logprob_gain": _mean([_logprob(w) - _logprob(z) for z, w in tried]),
        }
        if self.verifier is not None:
            before, after = self._score(zero, _same(zero, label)), self._score(own, _same(own, label))
            pairs = [(self._score(z), self._score(w)) for z, w in tried]
            signals |= {
                "verifier_label": before if before is not None else 0.0,
                "verifier_memory": after if after is not None else 0.0,
                "verifier_neighbours": _mean([w for _, w in pairs if w is not None]),
                "verifier_gain": _mean([w - z for z, w in pairs if z is not None and w is not None]),
            }
        return signals


def _nearest(
    keys: np.ndarray, among: Sequence[Answered], count: int, *, floor: float = -1.0, skip: Sequence[str] = ()
) -> list[list[str]]:
    """For each key [N, D] the ids of the ``count`` most similar problems at or above the floor, nearest first."""
    if not among:
        return [[] for _ in keys]
    similarity = keys.astype(np.float64) @ np.stack([one.key for one in among]).astype(np.float64).T
    found = []
    for number, row in enumerate(similarity):
        own = skip[number] if skip else None
        order = [int(i) for i in np.argsort(-row, kind="stable") if among[i].problem.id != own and row[i] >= floor]
        found.append([among[i].problem.id for i in order[:count]])
    return found


def _same(responses: Responses, label: str | None) -> list[bool]:
    answers = responses.answers
    return [False] * len(answers) if label is None else responses.task.giving(answers, label)


def _logprob(responses: Responses) -> float:
    """Mean log-probability per sampled token: an estimate of minus the entropy per token."""
    return float(np.mean([p for rollout in responses.samples for p in rollout.logprobs]))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
