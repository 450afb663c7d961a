"""Ray, found or started: the crews on it, and the engine and learner that an agent gets.

Builds on crew, actors, and on Ray, which is imported only here and only when asked for. A Ray of our own
(``local``) has its files in a temporary folder and goes with this process, whatever ends it; one at an address stays.
A Ray cluster does what whoever reaches it says: its ports belong into a closed network.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit

from tacit import __version__
from tacit.cluster.actors import EngineActor, Facts, LearnerActor
from tacit.cluster.crew import PATIENCE, Crew
from tacit.config import Settings
from tacit.errors import ConfigError, FingerprintError, needed
from tacit.model.backbone import Backbone

REACH = 10.0
"""Seconds in which a machine has to take a connection."""

ANSWER = 45.0
"""Seconds in which Ray has to answer there; by itself it would try for minutes."""

STORE = 100 * 2**20
"""Bytes of a local Ray's object store; what travels is kilobytes, and goes past it."""


class Cluster:
    """A connection to Ray, as a context manager; at its end all actors are gone.

    Args:
        address: "local" (started here), "auto" (running on this machine), "HOST:PORT" (of a cluster that this machine
            belongs to), or "ray://HOST:PORT".
        learners: actors that learn; they generate as well, unless there are engines.
        engines: actors that only generate.
        threads: processors that an actor may use.
        patience: seconds to wait while not one actor is ready.

    Raises:
        ConfigError: Ray is not installed, not reachable or of another version, or the numbers make no sense.
    """

    def __init__(
        self, address: str, *, learners: int = 2, engines: int = 0, threads: int = 1, patience: float = PATIENCE
    ) -> None:
        if learners < 1 or engines < 0:
            raise ConfigError(f"learners is {learners} and engines {engines}; give at least 1 and 0")
        self.address, self.learners, self.engines = address, learners, engines
        self._threads, self._patience = threads, patience
        self._folder: str | None = None
        self._ray = _ray()
        try:
            if address == "local":
                self._start()
            else:
                self._connect()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave Ray; a local one ends."""
        self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def crews(self, settings: Settings, backbone: Backbone) -> tuple[Crew, Crew]:
        """The learners, and those who generate: the engines, or the learners again where there are none.

        Args:
            settings: of every actor.
            backbone: the same model in this process; an actor that has another one is refused.
        """
        check = partial(_check, backbone=backbone)
        gpus = self._gpus(settings.device)
        options = {"num_cpus": self._threads, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}

        def crew(what: str, kind: type[EngineActor], count: int) -> Crew:
            actor = self._ray.remote(kind).options(**options, scheduling_strategy="SPREAD")
            return Crew(self._ray, what, count, lambda: actor.remote(settings), check, patience=self._patience)

        learners = crew("learner", LearnerActor, self.learners)
        return learners, crew("engine", EngineActor, self.engines) if self.engines else learners

    def _gpus(self, device: str) -> float:
        """GPUs of one actor: a whole one each where there are enough, else all share what there is."""
        there = float(self._ray.cluster_resources().get("GPU", 0))
        if device == "cpu" or (device == "auto" and not there):
            return 0.0
        if not there:
            raise ConfigError(f"device is {device}, but Ray at {self.address} has no GPU; use --device cpu")
        # Ray takes fractions in ten-thousandths; rounded down, so that all find room.
        return 1.0 if there >= 1 * self._actors else int(1e4 * there / self._actors) / 1e4

    @property
    def _actors(self) -> int:
        return self.learners + self.engines

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="tacit-ray-")
        try:
            self._ray.init(
                address="local",
                num_cpus=self._actors * self._threads,
                include_dashboard=False,
                object_store_memory=STORE,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=self._folder,
            )
        except Exception as error:
            raise ConfigError(f"Ray cannot be started here: {_first_line(error)}") from None

    def _connect(self) -> None:
        address = self.address
        reachable(address)
        try:
            if "://" not in address:
                _probe(address)
            enter = partial(self._ray.init, address=address, log_to_driver=False, logging_level="ERROR")
            try:
                enter()
            except ConnectionAbortedError:  # on a busy machine the process that serves a client may not come up in time
                enter()
        except Exception as error:
            raise ConfigError(f"Ray at {address} cannot be used: {_first_line(error)}") from None


def _ray() -> Any:
    """The module, told to be quiet and to leave CUDA_VISIBLE_DEVICES alone where an actor has no GPU."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    return needed("ray", "--ray", "ray", "ray.exceptions")


def reachable(address: str) -> None:
    """ConfigError unless this is an address and something listens there."""
    if address in ("auto", "local"):
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("", "ray"):
        raise ConfigError(f"{address!r} is no address of Ray; give local, auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, port), REACH).close()
    except OSError as error:
        raise ConfigError(
            f"nothing answers at {host}:{port}, where Ray should be ({error.strerror or error}); start it there with "
            "`ray start --head`, or use --ray local"
        ) from None


def _probe(address: str) -> None:
    """Connect once in another process: Ray tries for minutes, deaf to signals, where something else listens."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import ray; ray.init({address!r}, log_to_driver=False, logging_level='ERROR')"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConnectionError(f"it has not answered within {ANSWER:.0f} s") from None
    if done.returncode != 0:
        if "AuthToken" in done.stderr or "Unauthenticated" in done.stderr:
            raise ConnectionError(
                "it wants its token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            )
        raise ConnectionError((done.stderr.strip().splitlines() or ["it has ended the connection"])[-1])


def _check(facts: Facts, backbone: Backbone) -> None:
    where = f"the actor on {facts.host}"
    if facts.tacit != __version__:
        raise ConfigError(f"{where} runs Tacit {facts.tacit}, this is {__version__}; install the same version")
    if facts.fingerprint != backbone.fingerprint:
        raise FingerprintError(
            f"{where} has another model under the name {backbone.name} (fingerprint {facts.fingerprint[:12]}, here "
            f"{backbone.fingerprint[:12]}); put the same files on every machine"
        )


def _first_line(error: BaseException) -> str:
    """With the last one, where the first only announces it (a traceback of the server)."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(dict.fromkeys([lines[0], lines[-1]] if lines[0].endswith(":") else lines[:1])).rstrip(".")
