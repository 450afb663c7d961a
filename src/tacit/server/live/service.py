"""What a serving process holds: model, engine, bank, keys, queue, and one ``Recall`` per namespace.

Builds on backbone, the shared engine, recall, the bank, keys and jobs. The event loop never computes and never waits
for a disk: model work outside the engine's thread (keys, scores, routes) has one thread, the database a few; reading
answers and writing responses two.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from tacit.assembly import bind, build_verifier, load_backbone, open_engine, set_threads, task_of
from tacit.bank import bank_there, open_bank
from tacit.bank.sql import SQLBank
from tacit.engines.base import Request
from tacit.engines.local import LocalEngine
from tacit.engines.shared import SharedEngine
from tacit.judges.verifiers import Verifier
from tacit.model import presets
from tacit.recall import Recall
from tacit.server.keys import OPEN_KEY, OPEN_NAMESPACE, ApiKey, KeyStore, served
from tacit.server.learner.jobs import JobQueue
from tacit.server.learner.process import PATIENCE, LearnerProcess
from tacit.server.live.feed import Feed
from tacit.server.live.metrics import Metrics
from tacit.server.live.places import Places
from tacit.server.live.vocabulary import Vocabulary
from tacit.server.settings import ServeConfig

T = TypeVar("T")
BESIDE = 32  # requests at a time that do not ask the model: each may hold a body, and a thread that looks keys up


class Service:
    """A loaded server. Close it after use.

    Args:
        config: see ``ServeConfig``.

    Raises:
        TacitError: the model or the bank cannot be loaded, or the bank's namespace belongs to another backbone.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.threads = set_threads(config, products=True)
        bank = bank_there(config.bank, busy_timeout=PATIENCE)
        self.backbone = load_backbone(config, bank, served(bank) if bank else (), unsaid="")
        self.config = config = presets.fit(config, self.backbone)
        self.task = task_of(config)
        self.verifier: Verifier | None = build_verifier(config)
        self.local = LocalEngine(self.backbone, max_rows=config.limits.rows)
        self._sampling = open_engine(config, self.backbone) if config.engine else self.local
        # A new bank is made last: no mistake that is found before leaves an empty one behind.
        self.bank: SQLBank = bank or open_bank(config.bank, busy_timeout=PATIENCE)
        self.keys, self.jobs = KeyStore(self.bank), JobQueue(self.bank)
        self.engine = SharedEngine(self._sampling.session(), max_waiting=config.limits.waiting, threads=self.threads)
        self.metrics = Metrics()
        self.feed = Feed()
        self.learner: LearnerProcess | None = None
        self.draining = False
        self.unstored = False  # whether the latest answer could not be counted or queued
        self.places = Places(config.limits.in_flight)
        self.beside = Places(BESIDE)
        self.prompts = Places(config.limits.waiting + config.limits.rows)
        self.vocabulary = Vocabulary(self.backbone.tokenizer)
        self._recalls: dict[str, Recall] = {}
        self._lock = threading.Lock()
        self._model = ThreadPoolExecutor(1, "tacit-model", initializer=torch.set_num_threads, initargs=(self.threads,))
        self._disk = ThreadPoolExecutor(4, "tacit-disk")
        self._text = ThreadPoolExecutor(2, "tacit-text")

    @property
    def in_flight(self) -> int:
        """Requests being worked on in any way."""
        return self.places.taken

    @property
    def context(self) -> int:
        """Most tokens of a sequence that can be sampled: those of the model, or of the vLLM servers that sample."""
        return self._sampling.context

    def recall(self, namespace: str) -> Recall:
        """The recall of a namespace; binds it to this backbone at first.

        Raises:
            FingerprintError: its memories were made with another backbone.
        """
        with self._lock:
            if namespace not in self._recalls:
                bind(self.bank, namespace, self.backbone, self.config)
                self._recalls[namespace] = Recall(self.backbone, self.bank, self.config.recall, namespace)
            return self._recalls[namespace]

    async def computing(self, work: Callable[[], T]) -> T:
        """Run model work outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._model, work)

    async def storing(self, work: Callable[[], T]) -> T:
        """Run database work outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    async def writing(self, work: Callable[[], T]) -> T:
        """Read answers and write responses outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._text, work)

    def warm(self) -> None:
        """Draw a token with the model that lies here, so that no caller waits for what a process does once."""
        if self._sampling is self.local:
            self.local.generate([Request(self.backbone.encode("1"), max_tokens=1, seeds=(0,))])

    def close(self) -> None:
        """End the threads and close the bank."""
        self.engine.close()
        self._sampling.close()
        self._model.shutdown(cancel_futures=True)
        self._text.shutdown(cancel_futures=True)
        self._disk.shutdown()
        self.bank.close()


def open_key() -> ApiKey:
    """What a server without keys takes every caller for: it listens on loopback only, and its user owns all of it."""
    return ApiKey(OPEN_KEY, "open", OPEN_NAMESPACE, frozenset({"ask", "learn", "admin"}), 2**31 - 1, 0.0, None)
