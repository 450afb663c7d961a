"""From candidate to active, and from active to quarantine, on evidence that needs no labels.

Builds on the agent, jobs and keys. Admission (learning.py) says that a soft prompt gives its own label on its own
problem. A memory learned from a wrong vote does so too. Here a candidate is tried on *other* problems of its namespace,
the ones that it would be recalled for: the nearest memories' problems. For each a fresh group of samples with the
candidate is compared with one without:

- by mean belief, where there is a verifier whose scores are probabilities;
- else by the share of samples that give the neighbour's own label, the vote of an earlier, separate group.

It becomes active if the mean benefit is large enough and no neighbour suffers (``Rule``). With too few neighbours, or
too few with room for it in the engine's context, it waits for more. A trial that the engine refuses is one without
benefit, and ends no other.

Poisoning. Whoever can have a problem learned chooses its text, and so may choose one whose vote is wrong; votes contain
nothing that tells such a misconception from knowledge (docs/log/). So without a calibrated verifier it matters whose
problems they are. Once a namespace has more than one key, only memories of keys with the right "trust" are tried: on
neighbours of *other* trusted keys (its own, where only one is trusted). What came from no key, when the server had none
yet, is its owner's and trusted.

What this guarantees, without a verifier: a key that is not trusted can make no memory active, vouch for none, and push
aside none that vouches; a trusted key cannot by its own problems make any memory active beside another trusted one.
What it does not: two trusted keys in one hand can vouch for each other. A misconception that problems of trusted keys
share looks like knowledge (on the testbed half of such memories were promoted). With a verifier, everything hangs on
its belief: then all keys and all neighbours count. A namespace with a single key is at its owner's mercy. Some of what
slips through is caught by use (``quarantine_hurtful``), on the evidence of live/evidence.py. Of drift a trusted key's
problems speak for everybody, others' of their own memories alone (``Sources.speaker``).

Every decision is a change of state with a reason that has the numbers; ``tacit memories activate`` and ``quarantine``
undo it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass

import numpy as np
import torch
from sqlalchemy import select

from tacit.agent import Agent
from tacit.bank import schema
from tacit.bank.base import Bank, MemoryInfo
from tacit.bank.damage import undamaged
from tacit.bank.harm import harmful
from tacit.engines.base import Request, Rollout
from tacit.errors import BankUnavailable, EngineLost, MemoryNotFound, TacitError
from tacit.judges.verifiers import Candidate
from tacit.memory import Memory, State
from tacit.problem import Problem
from tacit.server.keys import KeyStore
from tacit.server.learner.jobs import note

LOG = logging.getLogger("tacit.learner")

UNPROVEN = "learned from traffic, not yet proven"
"""How the reason of every candidate begins that may yet be promoted."""

UNTRUSTED = f"{UNPROVEN}; its key is not trusted and no verifier judges, so it waits to be activated by hand"
"""The reason of a candidate that is not even tried."""

NEIGHBOURS_IN = (State.ACTIVE, State.CANDIDATE, State.RETIRED)


@dataclass(frozen=True)
class Rule:
    """When a candidate becomes active. Measured in docs/log/.

    Attributes:
        neighbours: most problems that it is tried on.
        least: fewest; with fewer it waits.
        benefit: least mean benefit, in belief or share of samples.
        harm: a neighbour suffers if its benefit is below minus this; none may.
        tries: trials before it is refused for good; each later one waits for half as many more memories.
    """

    neighbours: int = 4
    least: int = 3
    benefit: float = 0.05
    harm: float = 0.25
    tries: int = 3


@dataclass(frozen=True)
class Trial:
    """What came of trying one candidate: ``decision`` is "promoted", "tried" (again later) or "refused".

    ``benefits`` are those for its neighbours; none where the trial could not be run.
    """

    memory_id: str
    decision: str
    reason: str
    benefits: tuple[float, ...]


@dataclass(frozen=True)
class Sources:
    """Whose memories are tried, and whose vouch for them, where no verifier judges; and who speaks of drift.

    Attributes:
        issued, trusted: ids of the namespace's keys: all ever made, and those with the right "trust" in use.
        origins: see ``key_ids``.
    """

    issued: frozenset[str]
    trusted: frozenset[str]
    origins: dict[str, str]

    @staticmethod
    def of(bank: Bank, namespace: str) -> Sources | None:
        """Those of a namespace; None where it has had one key at most, and nobody is to be guarded from another."""
        keys = [key for key in KeyStore(bank).all() if key.namespace == namespace]
        if len(keys) < 2:
            return None
        trusted = frozenset(key.id for key in keys if key.may("trust"))
        return Sources(frozenset(key.id for key in keys), trusted, key_ids(bank, namespace))

    def trusts(self, id: str) -> bool:
        """Whether this memory may become active."""
        key = self.origins.get(id)
        return key not in self.issued or key in self.trusted

    def vouches(self, id: str, other: str) -> bool:
        """Whether the problem of this memory may speak for another memory."""
        return self.trusts(id) and (self.origins.get(id) != self.origins.get(other) or len(self.trusted) < 2)

    def speaker(self, key: str) -> str:
        """Who speaks of drift by a problem of this key: everybody ("") where it is trusted, else the key alone."""
        return "" if key in self.trusted else key

    def owner(self, id: str) -> str:
        """Whose a memory is: everybody's (""), or of a key that is not trusted."""
        return "" if self.trusts(id) else self.origins[id]


class Promoter:
    """Tries the candidates of one agent's namespace."""

    def __init__(self, agent: Agent, rule: Rule | None = None) -> None:
        self.agent, self.rule = agent, rule or Rule()
        # Whose belief decides; without one, labels by vote do.
        self._judge = agent.verifier if agent.verifier is not None and agent.verifier.calibrated else None
        self._plain: dict[str, float] = {}  # how the samples without any memory do on a neighbour
        self._seen = -1
        self._waiting: dict[str, int] = {}  # how many memories there were when a candidate had too few neighbours

    def step(self, limit: int, computing: Callable[[], AbstractContextManager[None]] = nullcontext) -> list[Trial]:
        """Try up to ``limit`` candidates, oldest first, together, and write what came of it. Empty: nothing to try.

        What can be thrown away is done within ``computing()``.
        """
        bank, namespace = self.agent.bank, self.agent.namespace
        revision = bank.revision()
        if revision == self._seen:
            return []
        infos = {info.id: info for info in bank.find(namespace, states=NEIGHBOURS_IN)}
        sources = None if self._judge is not None else Sources.of(bank, namespace)
        due: list[tuple[Memory, list[MemoryInfo]]] = []
        for info in infos.values():
            if len(due) == limit:
                break
            if info.state is State.CANDIDATE and info.reason.startswith(UNPROVEN) and self._due(info.id, len(infos)):
                memory = undamaged(bank, info.id, namespace)
                near = [] if memory is None else self._vouching(memory, infos, sources)
                due += [(memory, near)] if memory is not None and near else []
        if not due:
            self._seen = revision  # until something changes
            return []
        with computing():
            outcomes = self._try(due)
        return [self._write(memory, outcome, len(infos)) for (memory, _), outcome in zip(due, outcomes, strict=True)]

    def _tries(self, id: str) -> tuple[int, int]:
        """Trials so far, and how many memories the namespace had at the latest."""
        held = self.agent.bank.marked(self.agent.namespace, f"promotion:{id}")
        values = json.loads(held) if held else {}
        return int(values.get("tries", 0)), int(values.get("memories", 0))

    def _due(self, id: str, memories: int) -> bool:
        if memories <= self._waiting.get(id, -1) * 9 // 8:
            return False  # to look again at every new memory would be quadratic
        tries, before = self._tries(id)
        return tries == 0 or memories >= 1.5 * before

    def _vouching(self, memory: Memory, infos: dict[str, MemoryInfo], sources: Sources | None) -> list[MemoryInfo]:
        """The neighbours that a candidate is to be tried on; none, and it is told why, where it cannot be yet."""
        rule, context = self.rule, self.agent.engine.context
        if not memory.provenance.get("admitted") or memory.fingerprint != self.agent.backbone.fingerprint:
            return []
        if sources is not None and not sources.trusts(memory.id):
            self._tell(memory, UNTRUSTED)
            return []
        near = self._neighbours(memory, infos, sources)
        if len(near) >= rule.least:
            return near
        self._waiting[memory.id] = len(infos)
        if len(self._neighbours(memory, infos, sources, fitting=False)) >= rule.least:
            few = f"too few similar problems leave room for it and an answer in a context of {context}"
            self._tell(memory, f"{UNPROVEN}; {few}, so it waits")
        return []

    def _neighbours(
        self, memory: Memory, infos: dict[str, MemoryInfo], sources: Sources | None, *, fitting: bool = True
    ) -> list[MemoryInfo]:
        """The nearest memories whose problems may vouch for this one, and leave room for it."""
        k = 8 * self.rule.neighbours
        while True:
            hits = self.agent.bank.search(
                memory.key,
                namespace=memory.namespace,
                fingerprint=memory.fingerprint,
                key_kind=memory.key_kind,
                k=k,
                floor=self.agent.recalling.floor,
                states=NEIGHBOURS_IN,
            )
            near = [infos[hit.memory_id] for hit in hits if hit.memory_id in infos]
            near = [info for info in near if info.problem_id != memory.problem_id and info.label is not None]
            if sources is not None:
                near = [info for info in near if sources.vouches(info.id, memory.id)]
            if fitting:
                near = [info for info in near if self._room(info) >= self.agent.backbone.carrier.columns(memory.prompt)]
            if len(near) >= self.rule.neighbours or len(hits) < k:
                return near[: self.rule.neighbours]
            k *= 4

    def _room(self, info: MemoryInfo) -> int:
        return self.agent.responder.room(len(self.agent.backbone.encode(info.problem)))

    def _tell(self, memory: Memory, reason: str) -> None:
        """Give a candidate that is not tried this reason, unless it has it."""
        if memory.reason != reason:
            self._move(memory, State.CANDIDATE, reason)

    def _move(self, memory: Memory, state: State, reason: str) -> None:
        """Give a memory another state and reason, unless it was deleted or somebody has decided meanwhile."""
        bank = self.agent.bank
        with bank.transaction(), suppress(MemoryNotFound):
            now = bank.info(memory.id, memory.namespace)
            if (now.state, now.reason) == (memory.state, memory.reason):
                bank.set_state(memory.id, memory.namespace, state, reason)

    def _try(self, due: Sequence[tuple[Memory, list[MemoryInfo]]]) -> list[tuple[float, ...] | str]:
        """The benefits of each candidate, or why it could not be tried: if not all together, then each by itself."""
        try:
            return [*self._benefits(due)]
        except (EngineLost, BankUnavailable):
            raise  # no fault of theirs
        except Exception as error:
            if len(due) > 1:
                return [outcome for one in due for outcome in self._try([one])]
            if not isinstance(error, TacitError):
                LOG.exception("candidate %s cannot be tried", due[0][0].id)
            return [note(str(error) or type(error).__name__)]

    def _benefits(self, due: Sequence[tuple[Memory, list[MemoryInfo]]]) -> list[tuple[float, ...]]:
        """The benefit of each candidate for each of its neighbours; all samples are drawn in one batch."""
        missing = {info.id: info for _, near in due for info in near if info.id not in self._plain}
        asked = [(info, None) for info in missing.values()]
        pairs = [(info, memory) for memory, near in due for info in near]
        groups = self.agent.engine.generate([self._request(info, memory) for info, memory in [*asked, *pairs]])
        for info, group in zip(missing.values(), groups, strict=False):
            self._plain[info.id] = self._worth(info, group)
        scores = iter(
            self._worth(info, group) - self._plain[info.id]
            for (info, _), group in zip(pairs, groups[len(asked) :], strict=True)
        )
        return [tuple(next(scores) for _ in near) for _, near in due]

    def _request(self, info: MemoryInfo, memory: Memory | None) -> Request:
        agent = self.agent
        return agent.responder.sampled(
            Problem(info.problem_id, info.problem),
            agent.backbone.encode(info.problem),
            "promotion",  # other random numbers than those that the neighbour's label came from
            range(agent.sampling.samples),
            None if memory is None else torch.tensor(memory.prompt),
        )

    def _worth(self, info: MemoryInfo, group: Sequence[Rollout]) -> float:
        """How good samples of a neighbour's problem look, in 0..1."""
        task = self.agent.task.on(info.problem)
        answers = [task.extract(rollout.text) for rollout in group]
        if self._judge is not None:
            candidates = [Candidate(rollout, answer, 0.0) for rollout, answer in zip(group, answers, strict=True)]
            return float(np.mean(self._judge.score(info.problem, candidates)))
        label = info.label
        assert label is not None
        return float(np.mean(task.giving(answers, label)))

    def _write(self, memory: Memory, outcome: tuple[float, ...] | str, memories: int) -> Trial:
        rule, bank = self.rule, self.agent.bank
        benefits = () if isinstance(outcome, str) else outcome
        if benefits:
            mean, suffering = float(np.mean(benefits)), sum(value < -rule.harm for value in benefits)
            by = "labels by vote" if self._judge is None else self._judge.name
            said = f"mean benefit {mean:+.2f} on {len(benefits)} other problems, {suffering} suffered ({by})"
            passed = mean >= rule.benefit and not suffering
        else:
            said, passed = f"it could not be tried: {outcome}", False
        with bank.transaction():
            tries = self._tries(memory.id)[0] + 1
            if passed:
                decision, state, reason = "promoted", State.ACTIVE, f"promoted: {said}"
            elif tries >= rule.tries:
                decision, state, reason = "refused", State.CANDIDATE, f"not promoted after {tries} trials: {said}"
            else:
                decision, state, reason = "tried", State.CANDIDATE, f"{UNPROVEN}; trial {tries}: {said}"
            bank.mark(memory.namespace, f"promotion:{memory.id}", json.dumps({"tries": tries, "memories": memories}))
            self._move(memory, state, reason)
        return Trial(memory.id, decision, reason, benefits)


def quarantine_hurtful(bank: Bank) -> list[str]:
    """Take every active memory out of use that has hurt clearly more than helped in serving; returns their ids.

    What was counted before an earlier quarantine does not count again: who activates one gives it a fresh start.
    """
    taken = []
    for harm in harmful(bank):
        reason = f"quarantined: in {harm.uses} uses it hurt {harm.hurt} and helped {harm.helped} times"
        with suppress(MemoryNotFound), bank.transaction():  # deleted meanwhile
            harm.begin_anew(bank)
            bank.set_state(harm.id, harm.namespace, State.QUARANTINED, reason)
            taken.append(harm.id)
    return taken


def namespaces(bank: Bank, fingerprint: str) -> list[str]:
    """The namespaces whose memories belong to a backbone."""
    table = schema.namespaces.c
    statement = select(table.namespace).where(table.fingerprint == fingerprint).order_by(table.namespace)
    with bank.connection() as connection:
        return list(connection.execute(statement).scalars())


def key_ids(bank: Bank, namespace: str) -> dict[str, str]:
    """The API key that each memory came from, by memory id; those that came from none are not there."""
    jobs = schema.jobs.c
    statement = select(jobs.memory_id, jobs.key_id).where(jobs.namespace == namespace, jobs.memory_id.is_not(None))
    with bank.connection() as connection:
        return {row.memory_id: row.key_id for row in connection.execute(statement)}
