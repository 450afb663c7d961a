"""The engine and the learner whose work is done by actors: same interfaces, same results.

Builds on connection, crew, engines and learning. What needs no model (gates, checks) is decided here, before anything
is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from tacit import registry
from tacit.cluster.actors import Work
from tacit.cluster.connection import Cluster, reachable
from tacit.cluster.crew import Crew
from tacit.config import LearnConfig, Sampling, Settings
from tacit.engines.base import METER, Engine, Request, Rollout, Session
from tacit.engines.local import LocalEngine
from tacit.learning import Learned, Learner, Target
from tacit.model.backbone import Backbone
from tacit.registry import register
from tacit.tasks.base import Task

GOOD_ROLLOUTS = 64
"""Rollouts in a batch from which a further split costs little."""

GOOD_TARGETS = 4
"""The same for memories learned together; measured on the testbed (docs/log/)."""

ANY = 1 << 30


class RayEngine(Engine):
    """Generates on a crew. For one thread; close it after use.

    Args:
        engines: a crew of actors that generate.
        backbone: the same model in this process, which checks requests before they are sent.
        learners: a crew of actors that learn; None if none is needed.
        cluster: what the crews are on, left at the end.
    """

    draws = "tacit"
    """See ``Engine.draws``."""

    def __init__(
        self, engines: Crew, backbone: Backbone, learners: Crew | None = None, cluster: Cluster | None = None
    ) -> None:
        self.backbone = backbone
        self._engines, self._learners, self._cluster = engines, learners, cluster
        self._local = LocalEngine(backbone)

    @property
    def context(self) -> int:
        return self._local.context

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """See ``Engine.generate``.

        Raises:
            EngineError: a request is malformed, or the crew has given up (crew.py).
        """
        self._local.check(requests)
        weights = [request.n for request in requests]
        rollouts: list[list[Rollout]] = self._engines.run("generate", requests, weights, good=GOOD_ROLLOUTS, most=ANY)
        METER.add(sum(len(rollout.token_ids) for group in rollouts for rollout in group))
        return rollouts

    def learner(self, config: LearnConfig, sampling: Sampling, *, seed: int, task: Task) -> Learner:
        """A learner that learns in the actors. See ``learning.learner_of``."""
        assert self._learners is not None
        return RayLearner(self._learners, self.backbone, self, config, sampling, seed=seed, task=task)

    def session(self) -> Session:
        """See ``Engine.session``; with the model in this process, since actors take whole batches."""
        return self._local.session()

    def close(self) -> None:
        """Leave Ray."""
        if self._cluster is not None:
            self._cluster.close()


class RayLearner(Learner):
    """Learns on a crew of actors with ``learn``, of the same model. See ``Learner``."""

    def __init__(
        self,
        crew: Crew,
        backbone: Backbone,
        engine: Engine,
        config: LearnConfig,
        sampling: Sampling,
        *,
        seed: int,
        task: Task,
    ) -> None:
        super().__init__(backbone, engine, config, sampling, seed=seed, task=task)
        self._crew = crew

    def _learn(self, targets: Sequence[Target]) -> list[Learned]:
        works = [Work(target, self.config, self.sampling, self.seed) for target in targets]
        learned: list[Learned] = self._crew.run(
            "learn", works, [1] * len(works), good=GOOD_TARGETS, most=self.config.batch
        )
        METER.add(sum(result.tokens for result in learned))
        return learned


@register("engine", "ray")
def open_ray(backbone: Backbone, settings: Settings) -> RayEngine:
    """An engine on Ray, found or started as the settings say.

    Raises:
        ConfigError: Ray is not installed, not reachable or of another version.
    """
    assert settings.ray is not None
    threads = torch.get_num_threads()
    cluster = Cluster(settings.ray, learners=settings.learners, engines=settings.engines, threads=threads)
    try:
        asked, plugins = backbone.template, registry.files()
        told = replace(
            settings,
            instruction=asked.instruction,
            system=asked.system,
            carrier=backbone.carrier.name,
            threads=threads,
            plugins=plugins,
        )
        learners, engines = cluster.crews(told, backbone)
    except BaseException:
        cluster.close()
        raise
    return RayEngine(engines, backbone, learners, cluster)


open_ray.check = lambda settings: reachable(settings.ray or "local")  # type: ignore[attr-defined]
