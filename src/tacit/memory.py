"""The record of one latent memory: soft prompt, key, provenance, state.

A memory is what one problem leaves behind (Dorovatas, Kalaj, Aljundi, arXiv 2606.17803): a soft prompt trained on the
problem's own rollouts; a key under which later problems find it; an account of how it came to be.

Builds on checks, errors and numpy. Knows nothing of torch, of models or of where memories are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from tacit.checks.values import check_name, check_text, checked_provenance, checked_time
from tacit.errors import MemoryFormatError

UNIT_TOLERANCE = 1e-5
"""How far a key's norm may be from 1. float32 normalisation errs by about 1e-7; search's error bound counts on it."""

MAX_ROW_NORM = 1e4
"""Sanity limit on the norm of a soft-prompt vector. Embeddings of real models have norms of about 0.5 to 100."""


class State(StrEnum):
    """Where a memory is in its life. Only ACTIVE ones are recalled by default; every change can be undone."""

    CANDIDATE = "candidate"
    ACTIVE = "active"
    QUARANTINED = "quarantined"
    RETIRED = "retired"


@dataclass(frozen=True, eq=False)
class Memory:
    """One latent memory. Checked on construction: MemoryFormatError says what is wrong.

    Attributes:
        id: deterministic, given by the creator (see ``memory_id``); unique within its namespace.
        namespace: whose memory it is; nothing crosses namespaces.
        problem_id: id of the problem that it was learned on.
        problem: text of that problem.
        prompt: float32 [K, d], the soft prompt, one row per virtual token; or what else its ``carrier`` has.
        key: float32 [D], unit norm, contiguous.
        key_kind: how the key was made, e.g. "input", "hidden:2", "kv". Keys of different kinds never meet.
        fingerprint: of the backbone that the soft prompt belongs to.
        state: see ``State``.
        reason: why it is in that state, one sentence.
        provenance: JSON object: label, share, margin, why, per-step records, seed, configuration, trace, run ...
        created: unix time in seconds.
        uses: times it was recalled.
        agreed: times its answer agreed with the zero-shot one.
        helped: times it turned a worse answer into the one returned.
        hurt: times its answer was judged worse.
    """

    id: str
    namespace: str
    problem_id: str
    problem: str
    prompt: np.ndarray
    key: np.ndarray
    key_kind: str
    fingerprint: str
    state: State
    reason: str
    provenance: dict[str, Any]
    created: float
    uses: int = 0
    agreed: int = 0
    helped: int = 0
    hurt: int = 0

    def __post_init__(self) -> None:
        for name in ("id", "namespace", "problem_id", "key_kind", "fingerprint"):
            check_name(name, getattr(self, name))
        for name in ("problem", "reason"):
            check_text(name, getattr(self, name))
        # The arrays become read-only copies: a record shared by several threads must not change under one of them.
        object.__setattr__(self, "prompt", _checked_prompt(self.prompt))
        object.__setattr__(self, "key", _checked_key(self.key))
        try:
            object.__setattr__(self, "state", State(self.state))
        except ValueError:
            raise MemoryFormatError(
                f"memory {self.id!r} has the unknown state {self.state!r}; known: {', '.join(State)}"
            ) from None
        object.__setattr__(self, "provenance", checked_provenance(self.provenance))
        object.__setattr__(self, "created", checked_time(self.created))
        for name in ("uses", "agreed", "helped", "hurt"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
                raise MemoryFormatError(f"memory counter {name!r} must be a whole number of at least 0, not {value!r}")

    @property
    def carrier(self) -> str:
        """How its numbers enter the model (model/carriers.py); "prompt" where the record does not say."""
        return str(self.provenance.get("carrier", "prompt"))

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the soft prompt's float32 little-endian bytes in row order."""
        return hashlib.sha256(prompt_bytes(self.prompt)).hexdigest()


def memory_id(fingerprint: str, namespace: str, problem_id: str, seed: int, config_digest: str) -> str:
    """Deterministic id: the same problem learned the same way by the same backbone has the same id (24 hex digits)."""
    whole = json.dumps([fingerprint, namespace, problem_id, seed, config_digest], ensure_ascii=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:24]


def prompt_bytes(array: np.ndarray) -> bytes:
    """The float32 little-endian bytes of ``array`` in row order, whatever the machine's own byte order."""
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


def record(memory: Memory) -> dict[str, Any]:
    """Everything about ``memory`` but its tensors, as a JSON object: the names that files and banks have."""
    return {
        "id": memory.id,
        "namespace": memory.namespace,
        "problem_id": memory.problem_id,
        "problem": memory.problem,
        "key_kind": memory.key_kind,
        "fingerprint": memory.fingerprint,
        "state": memory.state,
        "reason": memory.reason,
        "provenance": memory.provenance,
        "created": memory.created,
        "uses": memory.uses,
        "agreed": memory.agreed,
        "helped": memory.helped,
        "hurt": memory.hurt,
    }


def from_record(values: Mapping[str, Any], prompt: np.ndarray, key: np.ndarray) -> Memory:
    """Build a memory from a ``record`` and its tensors; MemoryFormatError when a field is missing or unknown."""
    expected = {f.name for f in fields(Memory)} - {"prompt", "key"}
    if not isinstance(values, Mapping) or set(values) != expected:
        found = set(values) if isinstance(values, Mapping) else set()
        wrong = ", ".join(sorted(expected ^ found))
        raise MemoryFormatError(f"the memory's record has missing or unknown fields: {wrong}")
    return Memory(prompt=prompt, key=key, **values)


def _checked_prompt(prompt: object) -> np.ndarray:
    if not isinstance(prompt, np.ndarray) or prompt.dtype.newbyteorder("=") != np.float32 or prompt.ndim != 2:
        raise MemoryFormatError(f"a soft prompt must be a float32 array of shape [tokens, width], not {_kind(prompt)}")
    if 0 in prompt.shape:
        raise MemoryFormatError(f"a soft prompt must not be empty; its shape is {list(prompt.shape)}")
    if not np.isfinite(prompt).all():
        raise MemoryFormatError("the soft prompt holds values that are not finite")
    largest = float(np.linalg.norm(prompt.astype(np.float64), axis=1).max())
    if largest > MAX_ROW_NORM:
        raise MemoryFormatError(f"a soft-prompt vector has norm {largest:.3g}, above the limit of {MAX_ROW_NORM:g}")
    return _frozen(prompt)


def _checked_key(key: object) -> np.ndarray:
    if not isinstance(key, np.ndarray) or key.dtype.newbyteorder("=") != np.float32 or key.ndim != 1 or not key.size:
        raise MemoryFormatError(f"a key must be a float32 array of shape [D], not {_kind(key)}")
    if not np.isfinite(key).all():
        raise MemoryFormatError("the key holds values that are not finite")
    norm = float(np.linalg.norm(key.astype(np.float64)))
    if abs(norm - 1.0) > UNIT_TOLERANCE:
        raise MemoryFormatError(f"a key must have norm 1 within {UNIT_TOLERANCE:g}; this one has {norm:.6g}")
    return _frozen(key)


def _frozen(array: np.ndarray) -> np.ndarray:
    copy = np.array(array, dtype=np.float32, order="C")
    copy.setflags(write=False)
    return copy


def _kind(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
