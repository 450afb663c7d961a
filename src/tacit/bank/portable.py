"""The portable file of a memory: safetensors (two tensors and JSON), never pickle, because memories travel.

Builds on memory and safetensors.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from tacit.checks.values import parse_json
from tacit.errors import MemoryFormatError
from tacit.memory import Memory, State, from_record, record

FORMAT = "tacit-memory-1"
"""Name of the portable format; a file that says anything else is refused."""


def to_safetensors(memory: Memory) -> bytes:
    """The portable file: tensors "prompt" [K, d] and "key" [D], float32; the record as JSON in the metadata.

    The same memory gives the same bytes.
    """
    whole = {"format": FORMAT, "record": record(memory)}
    text = json.dumps(whole, ensure_ascii=False, allow_nan=False, sort_keys=True)
    tensors = {"prompt": np.ascontiguousarray(memory.prompt), "key": np.ascontiguousarray(memory.key)}
    return safetensors.numpy.save(tensors, metadata={"tacit": text})  # one entry: their order is not fixed


def from_safetensors(data: bytes, *, trusted: bool = False, namespace: str | None = None) -> Memory:
    """Read a portable memory file and check everything in it.

    A file from elsewhere is treated like untrusted code: the memory becomes a candidate with empty counters, so that
    it has to prove itself here. ``trusted=True`` keeps state, reason and counters as recorded (an exact round trip).
    ``namespace`` replaces the recorded one.

    Raises:
        MemoryFormatError: not safetensors, not this format, tensors of wrong shape, dtype or norm, or not finite.
    """
    tensors, metadata = read_tensors(data)
    if "tacit" not in metadata or set(tensors) != {"prompt", "key"}:
        raise MemoryFormatError("this is a safetensors file, but not a memory")
    whole = parse_json(metadata["tacit"], "the memory's record")
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise MemoryFormatError(f"this is not a memory of the format {FORMAT}")
    memory = from_record(whole.get("record", {}), tensors["prompt"], tensors["key"])
    if namespace is not None:
        memory = replace(memory, namespace=namespace)
    return memory if trusted else as_candidate(memory)


def read_file(path: Path) -> bytes:
    """What a file holds; MemoryFormatError where there is none, or a pipe or a device, which might never end."""
    try:
        if path.exists() and not path.is_file():
            raise MemoryFormatError(f"{path} is no file, and so no part of a memory; give the path of one")
        return path.read_bytes()
    except OSError as error:
        raise MemoryFormatError(f"{path} cannot be read ({error.strerror})") from error


def as_candidate(memory: Memory) -> Memory:
    """``memory`` as it enters from elsewhere: a candidate with empty counters whose reason says what it was."""
    reason = f"imported; it was {memory.state.value} where it came from"
    return replace(memory, state=State.CANDIDATE, reason=reason, uses=0, agreed=0, helped=0, hurt=0)


def read_tensors(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of safetensors bytes; MemoryFormatError when they are not safetensors."""
    try:
        tensors = safetensors.numpy.load(data)
        # The library has validated the header by now; its numpy API just does not hand the metadata out.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return tensors, header.get("__metadata__") or {}
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MemoryFormatError(f"these {len(data)} bytes are not a safetensors file: {error}") from None
