"""Banks for tests: every implementation of the protocol, and memories to put into them.

To hold another implementation to the same promises add its factory to ``FACTORIES``: a class made with a temporary
folder whose ``open()`` opens one and the same bank each time (each time as another process would), and add it to
``KINDS``, which are what tests take as parameters: those that need a server are marked ``scale``.
"""

from pathlib import Path

import numpy as np
import pytest

from postgres import shared
from tacit.bank import Bank, open_bank
from tacit.memory import Memory, State, record

DIM = 8


class SQLiteFactory:
    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'bank.db'}"

    def open(self) -> Bank:
        return open_bank(self.url)


class PostgresFactory:
    def __init__(self, folder: Path) -> None:
        self.url = shared().database()

    def open(self) -> Bank:
        return open_bank(self.url)


FACTORIES = {"sqlite": SQLiteFactory, "postgres": PostgresFactory}
KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.scale)]


def make(name="m1", namespace="home", seed=None, dim=DIM, **changes):
    """A memory whose tensors follow from ``seed`` (or its name)."""
    rng = np.random.default_rng(sum(name.encode()) if seed is None else seed)
    key = rng.standard_normal(dim)
    values = {
        "id": name, "namespace": namespace, "problem_id": f"p-{name}", "problem": f"Problem {name}?",
        "prompt": rng.standard_normal((3, 4)).astype(np.float32), "key": (key / np.linalg.norm(key)).astype(np.float32),
        "key_kind": "input", "fingerprint": "fp-1", "state": State.ACTIVE, "reason": "admitted",
        "provenance": {"label": "42", "share": 0.75, "margin": 0.5, "steps": [1, 2.5, None]}, "created": 1000.5,
    }  # fmt: skip
    return Memory(**{**values, **changes})


def same(a, b):
    return record(a) == record(b) and a.prompt.tobytes() == b.prompt.tobytes() and a.key.tobytes() == b.key.tobytes()


def search(bank, memory, k=100, namespace=None, **changes):
    """Ids found for ``memory``'s own key."""
    values = {"namespace": namespace or memory.namespace, "fingerprint": "fp-1", "key_kind": "input", "k": k}
    return [hit.memory_id for hit in bank.search(memory.key, **{**values, **changes})]


# Storing and reading.
