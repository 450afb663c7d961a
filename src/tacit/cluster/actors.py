"""What runs in a Ray actor: a model of its own that generates, and one that learns as well.

Builds on backbone, engines and learning. Plain classes: nothing here knows of Ray, and everything that they return is a
function of what they are asked, so that it does not matter which actor is asked, or how often. They write nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from tacit import __version__
from tacit.config import LearnConfig, Sampling
from tacit.engines.base import Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.learning import Learned, Learner, Task
from tacit.model.backbone import Backbone


@dataclass(frozen=True)
class ActorSettings:
    """What an actor has to know to do as the process that started it would.

    Attributes:
        model, dtype, device: as in RunConfig; the actor loads the model itself.
        threads: that torch may use; None leaves them as they are.
        seed, learn, sampling: of the learner.
    """

    model: str
    dtype: str = "float32"
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    learn: LearnConfig = field(default_factory=LearnConfig)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Facts:
    """What an actor is: the fingerprint of its model, its versions, and where it runs."""

    fingerprint: str
    tacit: str
    torch: str
    host: str
    pid: int


class EngineActor:
    """Generates. It does nothing before ``prepare``, whose errors then reach whoever started it."""

    def __init__(self, settings: ActorSettings) -> None:
        self.settings = settings

    def prepare(self) -> Facts:
        """Load the model; TacitError if that cannot be done here."""
        settings = self.settings
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.backbone = Backbone.load(settings.model, dtype=settings.dtype, device=settings.device)
        self.engine = LocalEngine(self.backbone)
        return Facts(self.backbone.fingerprint, __version__, torch.__version__, socket.gethostname(), os.getpid())

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """See ``Engine.generate``."""
        return self.engine.generate(requests)


class LearnerActor(EngineActor):
    """Learns, with rollouts of its own; between learning it generates as an engine does."""

    def prepare(self) -> Facts:
        """See ``EngineActor.prepare``."""
        facts = super().prepare()
        settings = self.settings
        self.learner = Learner(self.backbone, self.engine, settings.learn, settings.sampling, seed=settings.seed)
        return facts

    def learn(self, tasks: Sequence[Task]) -> list[Learned]:
        """See ``Learner.learn``."""
        return self.learner.learn(tasks)
