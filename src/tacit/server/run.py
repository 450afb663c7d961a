"""A server process: load, listen, answer, drain, end; and beside it the learner's process.

Builds on uvicorn, app and learner. On SIGTERM or Ctrl-C it first says so (``/health/ready`` is 503, new work gets 503)
while it goes on listening. It waits for the answers in flight, and then ends. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from types import FrameType

import uvicorn

from tacit import assembly
from tacit.bank import bank_there, open_bank, shown_address
from tacit.errors import BankError, ConfigError
from tacit.model import presets
from tacit.server.api.heads import connection
from tacit.server.app import create_app
from tacit.server.keys import KeyStore, served
from tacit.server.learner.process import LearnerProcess
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig

LOOK_SECONDS = 0.05
LAST_SECONDS = 2
"""What is still in flight after draining has to go."""
SWITCH_SECONDS = 0.001
"""After how long a thread that computes lets another one have the interpreter: the event loop is one of many."""
BACKLOG = 2048
"""Connections that may wait to be accepted; uvicorn's default."""


class DrainingServer(uvicorn.Server):
    """uvicorn, which waits for what is in flight before it stops listening."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second one ends."""
        if self._service.draining:
            super().handle_exit(sig, frame)
            return
        self._service.draining = True

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's heartbeat, ten times a second."""
        if self._service.draining and self._drain is None:
            self._drain = asyncio.create_task(self._wait())
            if self._service.learner is not None:  # meanwhile it gives back what it has not finished
                asyncio.get_running_loop().run_in_executor(None, self._service.learner.stop)
        return await super().on_tick(counter)

    async def _wait(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._service.config.limits.drain_seconds
        while self._service.in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        self.should_exit = True


def bound(config: ServeConfig) -> socket.socket:
    """A socket that listens at the address asked for.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"{config.host}:{config.port} cannot be listened at ({error.strerror or error}); choose another --port "
            "(0 for any free one) or --host"
        ) from error
    return listener


def web(service: Service) -> uvicorn.Config:
    """How uvicorn serves it."""
    limits = service.config.limits
    return uvicorn.Config(
        create_app(service),
        http=connection(limits.head_seconds, limits.write_seconds),
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=LAST_SECONDS,  # what was in flight has been waited for
        h11_max_incomplete_event_size=64 * 1024,
    )


def serve(config: ServeConfig, say: Callable[[str], None]) -> None:
    """Run a server until it is told to end.

    Args:
        config: see ``ServeConfig``.
        say: gets a line at a time for the operator.

    Raises:
        ConfigError: the address is taken, or reachable from outside while the bank has no API key.
        TacitError: model or bank cannot be loaded.
    """
    listener = bound(config)
    try:
        is_open = _is_open(config)
        service = Service(config)
    except BaseException:
        listener.close()
        raise
    try:
        sys.setswitchinterval(SWITCH_SECONDS)
        service.warm()  # before the learner, which then finds loops that are compiled
        if config.learner:
            service.learner = LearnerProcess(service.config.worker())
            service.learner.start()
        listener.listen(BACKLOG)  # before it is announced: whoever waits for that line may connect at once
        host, port = listener.getsockname()[:2]
        if presets.known(config) != service.config:
            say(presets.said(service.backbone, service.config.sampling, service.config.learn))
        say(f"Tacit serves {config.served_name} and {config.served_name}:tacit at http://{host}:{port}/v1")
        if is_open:
            say("No API key: open to this machine alone. Make a key with `tacit keys create` to close it.")
        DrainingServer(web(service), service).run(sockets=[listener])
    finally:
        if service.learner is not None:
            service.learner.stop()
        service.close()
        listener.close()


def _is_open(config: ServeConfig) -> bool:
    """Whether the bank has never had a key; found before the model is loaded, and a new bank is made."""
    bank = bank_there(config.bank)
    with bank or nullcontext():
        is_open = bank is None or not KeyStore(bank).ever()
    if is_open and not config.loopback:
        raise ConfigError(
            f"{config.host} can be reached from other machines, but {shown_address(config.bank)} has no API key; "
            "make one with `tacit keys create`, or listen at 127.0.0.1"
        )
    return is_open


def as_bound(config: ServeConfig) -> ServeConfig:
    """Settings whose defaults are those of the bank, if there is one already; see ``assembly.as_bound``."""
    try:
        with closing(open_bank(config.bank, create=False)) as bank:
            return assembly.as_bound(config, bank, served(bank))
    except BankError:
        return config  # there is none yet, or opening it will say what is wrong
