"""Settings of a server, each with its default and unit.

Builds on config and the learner's process. One ``ServeConfig`` describes the serving process and its learner, which
gets its part of it (``worker``).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from tacit.config import Settings, check_tending, require
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
        tokens: most new tokens of one request, all its rollouts together.
        listed: most tokens with a log-probability in one response, alternatives and echoed prompts among them.
        write_seconds: how long a client may leave ``heads.LEAST`` bytes of an answer unread.
        drain_seconds: how long answers in flight are waited for at the end.
    """

    body_bytes: int = 4 * 2**20
    head_seconds: float = 30.0
    body_seconds: float = 30.0
    waiting: int = 256
    in_flight: int = 512
    rows: int = 256
    tokens: int = 2**18
    listed: int = 200_000
    write_seconds: float = 30.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("body_bytes", "waiting", "in_flight", "rows", "tokens", "listed"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("head_seconds", "body_seconds", "write_seconds"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be above 0")
        require(self.drain_seconds >= 0, f"drain_seconds is {self.drain_seconds}; it must be 0 or more")


@dataclass(frozen=True)
class ServeConfig(Settings):
    """A server.

    Attributes:
        name: What clients call the model; NAME:tacit remembers. Default: the last part of the model.
        bank: Memory bank, its file or address.
        host: Where to listen. Without an API key only a loopback address is allowed.
        port: Port; 0 for any free one.
        allow_origin: Origins whose pages may call the server from a browser, as in https://chat.example.
        seed: Of all learning.
        votes: Samples that the verifier "vote" draws for each side of a request that asks for fewer.
        learner: Whether a learner process runs beside the server.
        learner_threads: Threads of the learner.
        tend: The learner tends each namespace after so many problems, in a hundredth of its time; 0 for never.
        keep: Most active memories of a namespace that tending keeps. Default: any number.
        limits: what one client may take.
        sampling: how the learner samples; its ``max_tokens`` is also the default of requests that name none.

    Without an instruction, that of the bank holds; a new bank has none, so that chats are what clients send.
    """

    name: str | None = None
    bank: str = "tacit.sqlite"
    host: str = "127.0.0.1"
    port: int = 8000
    allow_origin: tuple[str, ...] = ()
    seed: int = 0
    votes: int = 4
    learner: bool = True
    learner_threads: int = 1
    tend: int = 0
    keep: int | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tending(self.tend, self.keep)
        require(self.ray is None, "a server samples here or on vLLM servers (--engine); Ray is for runs")
        require(0 <= self.port < 65536, f"port is {self.port}; it must be between 0 (any free one) and 65535")
        for origin in self.allow_origin:
            good = re.fullmatch(r"https?://[^/\s*@?#]+", origin) is not None and origin == origin.lower()
            require(good, f"allow_origin is {origin!r}; name an origin as browsers do, as in https://chat.example:8443")
        require(self.votes >= 2, f"votes is {self.votes}; a vote needs at least 2 samples")
        require(self.learner_threads >= 1, f"learner_threads is {self.learner_threads}; it must be at least 1")
        require(":" not in (self.name or ""), f"name is {self.name!r}; a colon is what separates :tacit from it")
        require(self.name is None or bool(self.name.strip()), "name is empty; leave it out for the model's own")

    @property
    def served_name(self) -> str:
        """What clients call the plain model; with ``:tacit`` after it, the one with memory."""
        own = Path(self.model).name.removesuffix(".gguf").replace(":", "-")
        own = re.sub(r"^(sha256-[0-9a-f]{12})[0-9a-f]{52}$", r"\1", own)  # one of Ollama's files
        return self.name or own or "model"

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
        common = {part.name: getattr(self, part.name) for part in fields(Settings)}
        common |= {name: getattr(self, name) for name in ("bank", "seed", "tend", "keep")}
        return WorkerSettings(**{**common, "threads": self.learner_threads})
