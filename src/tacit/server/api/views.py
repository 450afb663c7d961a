"""What the memory API answers, typed, so that it is in the OpenAPI description.

Builds on pydantic, the bank, jobs and the feed. It shows their own records where all fields are for the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tacit.bank.base import MemoryInfo, StateChange
from tacit.memory import State
from tacit.server.learner.jobs import JobRow
from tacit.server.live.feed import Answer, Minute


class MemoryPage(BaseModel):
    """Some memories of all that were asked for."""

    total: int
    memories: list[MemoryInfo]


class Neighbour(BaseModel):
    """A similar memory of whatever state; ``similarity`` is the cosine of the keys."""

    id: str
    problem: str
    state: State
    similarity: float


class SoftPrompt(BaseModel):
    """The soft prompt in figures: norms of its rows, and the mean of the model's own embeddings to compare."""

    tokens: int
    width: int
    norm_low: float
    norm_mean: float
    norm_high: float
    embedding_norm: float


@dataclass(frozen=True)
class MemoryDetail(MemoryInfo):
    """One memory with where it came from. ``steps`` are the provenance's records of learning, one per step."""

    provenance: dict[str, Any]
    steps: list[Any]
    why: str | None
    history: list[StateChange]
    neighbours: list[Neighbour]
    prompt: SoftPrompt


class Deleted(BaseModel):
    """What a deletion answers."""

    id: str
    deleted: bool = True


class JobPage(BaseModel):
    """The latest jobs, newest first."""

    jobs: list[JobRow]


class LearnerState(BaseModel):
    """The learner's process; ``runs`` is False on a server without one.

    ``failing``: it dies, or cannot be started, again and again; ``reason`` is that of the latest.
    """

    runs: bool
    alive: bool
    restarts: int
    failing: bool = False
    reason: str | None = None


class ServerStatus(BaseModel):
    """The state of the server as one namespace sees it."""

    model: str
    backbone: str
    fingerprint: str
    namespace: str
    memories: dict[str, int]
    jobs: dict[str, int]
    learner: LearnerState
    draining: bool


class FeedPage(BaseModel):
    """What was answered since the number that was asked for; ``last`` is the number to ask with next."""

    last: int
    answers: list[Answer]
    minutes: list[Minute]
