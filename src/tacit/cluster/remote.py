"""The engine and the learner of an agent whose work is done by actors: same interfaces, same results.

Builds on crew, engines and learning. What needs no model (gates, checks) is decided here, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.cluster.crew import Crew
from tacit.config import LearnConfig, Sampling
from tacit.engines.base import Engine, Request, Rollout, Session
from tacit.engines.local import LocalEngine
from tacit.engines.rules import METER
from tacit.learning import Learned, Learner, Task
from tacit.model.backbone import Backbone

GOOD_ROLLOUTS = 64
"""Rollouts in a batch from which a further split costs little."""

GOOD_TASKS = 4
"""The same for memories learned together; measured on the testbed (docs/log/)."""

ANY = 1 << 30


class RayEngine(Engine):
    """Generates on a crew. For one thread.

    Args:
        crew: of actors with ``generate``.
        backbone: the same model in this process, which checks requests before they are sent.
    """

    draws = "tacit"
    """See ``Engine.draws``."""

    def __init__(self, crew: Crew, backbone: Backbone) -> None:
        self._crew = crew
        self._local = LocalEngine(backbone)

    @property
    def context(self) -> int:
        """See ``Engine.context``."""
        return self._local.context

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """See ``Engine.generate``.

        Raises:
            EngineError: a request is malformed, or the crew has given up (crew.py).
        """
        self._local.check(requests)
        weights = [request.n for request in requests]
        rollouts: list[list[Rollout]] = self._crew.run("generate", requests, weights, good=GOOD_ROLLOUTS, most=ANY)
        METER.add(sum(len(rollout.token_ids) for group in rollouts for rollout in group))
        return rollouts

    def session(self) -> Session:
        """See ``Engine.session``; with the model in this process, since actors take whole batches."""
        return self._local.session()

    def close(self) -> None:
        """Nothing to do: the crew is the cluster's."""


class RayLearner(Learner):
    """Learns on a crew of actors with ``learn``, of the same model, settings and seed. See ``Learner``."""

    def __init__(
        self, crew: Crew, backbone: Backbone, engine: Engine, config: LearnConfig, sampling: Sampling, *, seed: int
    ) -> None:
        super().__init__(backbone, engine, config, sampling, seed=seed)
        self._crew = crew

    def _learn(self, tasks: Sequence[Task]) -> list[Learned]:
        learned: list[Learned] = self._crew.run(
            "learn", tasks, [1] * len(tasks), good=GOOD_TASKS, most=self.config.batch
        )
        METER.add(sum(result.tokens for result in learned))
        return learned
