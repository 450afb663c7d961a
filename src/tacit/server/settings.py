"""Settings of a server, each with its default and unit.

Builds on config and learner. One ``ServeConfig`` describes the serving process and its learner, which
gets its part of it (``worker``).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from tacit.config import LearnConfig, RecallConfig, Sampling, require
from tacit.server.learner.process import WorkerSettings


@dataclass(frozen=True)
class Limits:
    """What one client may take of the server.

    Attributes:
        body_bytes: largest request body.
        head_seconds, body_seconds: time in which a request's head, and then its body, has to arrive.
        waiting: requests that may wait for a place in the batch; further ones get a 429.
        in_flight: requests being worked on in any way; further ones get a 429.
        rows: most rollouts decoded at once.
        drain_seconds: how long answers in flight are waited for at the end.
    """

    body_bytes: int = 4 * 2**20
    head_seconds: float = 30.0
    body_seconds: float = 30.0
    waiting: int = 256
    in_flight: int = 512
    rows: int = 256
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("body_bytes", "waiting", "in_flight", "rows"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("head_seconds", "body_seconds"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be above 0")
        require(self.drain_seconds >= 0, f"drain_seconds is {self.drain_seconds}; it must be 0 or more")


@dataclass(frozen=True)
class ServeConfig:
    """A server.

    Attributes:
        model: "testbed", a folder, or a Hub id.
        name: what clients call the model; by default the last part of ``model``.
        bank: bank URL or path.
        host, port: where to listen; without an API key only a loopback address is allowed.
        seed: of learning.
        instruction: appended to the last user message of every request; "" for none. It belongs to the fingerprint, so
            that a bank made by ``tacit run`` needs the same one here.
        verifier, reward_model: see ``RunConfig``.
        votes: samples that the verifier "vote" draws for each side of a request that asks for fewer.
        learner: whether a learner process runs beside the server.
        learner_threads, threads: of the learner and of the engine; None for the engine means one for the testbed and
            torch's choice for others.
        device, dtype: where and how the model runs.
        engine: addresses of vLLM servers that sample, for answers and for learning; none for this process.
        sampling: how the learner samples; its ``max_tokens`` is also the default of requests that name none.
    """

    model: str = "testbed"
    name: str | None = None
    bank: str = "tacit.sqlite"
    host: str = "127.0.0.1"
    port: int = 8000
    seed: int = 0
    instruction: str = ""
    verifier: str | None = None
    reward_model: str | None = None
    votes: int = 4
    learner: bool = True
    learner_threads: int = 1
    threads: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    engine: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    learn: LearnConfig = field(default_factory=LearnConfig)
    recall: RecallConfig = field(default_factory=RecallConfig)

    def __post_init__(self) -> None:
        require(0 <= self.port < 65536, f"port is {self.port}; it must be between 0 (any free one) and 65535")
        require(self.votes >= 2, f"votes is {self.votes}; a vote needs at least 2 samples")
        require(self.learner_threads >= 1, f"learner_threads is {self.learner_threads}; it must be at least 1")
        require(self.threads is None or self.threads >= 1, f"threads is {self.threads}; it must be at least 1")
        require(":" not in (self.name or ""), f"name is {self.name!r}; a colon is what separates :tacit from it")
        require(self.name is None or bool(self.name.strip()), "name is empty; leave it out for the model's own")

    @property
    def served_name(self) -> str:
        """What clients call the plain model; with ``:tacit`` after it, the one with memory."""
        return self.name or Path(self.model).name.replace(":", "-") or "model"

    @property
    def loopback(self) -> bool:
        """Whether nobody outside this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def worker(self) -> WorkerSettings:
        """The same, as the learner's process needs it."""
        return WorkerSettings(
            bank=self.bank,
            model=self.model,
            seed=self.seed,
            verifier=self.verifier,
            reward_model=self.reward_model,
            instruction=self.instruction,
            device=self.device,
            dtype=self.dtype,
            engine=self.engine,
            threads=self.learner_threads,
            sampling=self.sampling,
            learn=self.learn,
            recall=self.recall,
        )
