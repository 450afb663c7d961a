"""What runs in a Ray actor: a model of its own that generates, and one that learns as well.

Builds on assembly, engines and learning. Plain classes: nothing here knows of Ray. All that they return is a function
of what they are asked. It does not matter which one is asked, or how often. They write nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tacit import __version__, registry
from tacit.assembly import load_backbone, set_threads, task_of
from tacit.config import LearnConfig, Sampling, Settings
from tacit.engines.base import Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.learning import Learned, Learner, Target


@dataclass(frozen=True)
class Facts:
    """What an actor is: the fingerprint of its model, its versions, and where it runs."""

    fingerprint: str
    tacit: str
    torch: str
    host: str
    pid: int


@dataclass(frozen=True)
class Work:
    """A problem to learn from, and how: the settings and the seed of the learner that asks."""

    target: Target
    config: LearnConfig
    sampling: Sampling
    seed: int


class EngineActor:
    """Generates. It does nothing before ``prepare``, whose errors then reach whoever started it.

    Args:
        settings: the driver's, with the instruction of its model; the actor loads the model itself.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def prepare(self) -> Facts:
        """Load plug-ins and the model; TacitError if that cannot be done here."""
        registry.load(self.settings.plugins)
        set_threads(self.settings, products=True)
        self.backbone = load_backbone(self.settings)
        self.engine = LocalEngine(self.backbone)
        return Facts(self.backbone.fingerprint, __version__, torch.__version__, socket.gethostname(), os.getpid())

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        return self.engine.generate(requests)


class LearnerActor(EngineActor):
    """Learns, with rollouts of its own; between learning it generates as an engine does."""

    def learn(self, works: Sequence[Work]) -> list[Learned]:
        """See ``Learner.learn``; the works are of one learner."""
        one, task = works[0], task_of(self.settings)
        learner = Learner(self.backbone, self.engine, one.config, one.sampling, seed=one.seed, task=task)
        return learner.learn([work.target for work in works])
