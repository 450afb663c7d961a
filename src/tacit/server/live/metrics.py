"""Counts and times for Prometheus, a registry for each namespace: no key sees another namespace's traffic.

Builds on prometheus-client. Labels are the model, the route, a status: never a user or a problem.
"""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


class Meters:
    """The meters of one namespace."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        model = ("model_name",)
        self.requests = Counter(
            "tacit:requests", "Answered and refused requests.", (*model, "status"), registry=registry
        )
        self.running = Gauge("tacit:requests_running", "Requests being answered.", model, registry=registry)
        self.prompt_tokens = Counter("tacit:prompt_tokens", "Prompt tokens read.", model, registry=registry)
        self.tokens = Counter("tacit:generation_tokens", "Tokens of all rollouts.", model, registry=registry)
        self.seconds = Histogram(
            "tacit:request_seconds", "From the request to its last token.", model, buckets=SECONDS, registry=registry
        )
        self.routes = Counter("tacit:routes", "What was returned.", (*model, "route"), registry=registry)
        self.jobs = Counter(
            "tacit:learning_requests", "What became of the wish to learn.", ("outcome",), registry=registry
        )
        self.memories = Gauge("tacit:memories", "Memories by state.", ("state",), registry=registry)
        self.learner = Gauge("tacit:learner", "Whether alive, failing; and restarts.", ("what",), registry=registry)
        self.queue = Gauge("tacit:learning_jobs", "Learning jobs by state.", ("state",), registry=registry)


class Metrics:
    """All meters of a server. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, Meters] = {}

    def of(self, namespace: str) -> Meters:
        """The meters of a namespace."""
        with self._lock:
            return self._of.setdefault(namespace, Meters())

    def text(self, namespace: str) -> bytes:
        """A namespace's meters in Prometheus' text format."""
        return generate_latest(self.of(namespace).registry)
