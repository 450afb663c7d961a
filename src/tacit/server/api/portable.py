"""Memories from elsewhere: what a file has to be before a server takes it in.

Builds on memory (the format) and the service. A file is treated like untrusted code. It is safetensors and never
pickle; it has to fit the model that is served. A soft prompt of another width, or with rows far longer than any
embedding, would break every answer; and it enters as a candidate, which is not recalled.
"""

from __future__ import annotations

import re

import numpy as np

from tacit.bank.portable import from_safetensors
from tacit.errors import FingerprintError
from tacit.memory import Memory
from tacit.problem import LONGEST
from tacit.server.api.errors import Refused, invalid
from tacit.server.api.rights import changing
from tacit.server.keys import ApiKey
from tacit.server.live.service import Service

MEDIA_TYPE = "application/octet-stream"

NORM_SLACK = 1e-3
"""How far above the cap a row's norm may be: rows that learning has capped lie on it, up to float32 rounding."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
_TAKEN = ("auto", "off")  # what requests say in place of an id
_PROBE = "1 + 1"


async def take_in(service: Service, data: bytes, key: ApiKey) -> Memory:
    """Check a portable file and store it as a candidate of the key's namespace, whatever namespace it names.

    Raises:
        MemoryFormatError: these bytes are no memory.
        Refused: 400 where it does not fit this server's model, 409 where the namespace has a memory of its id.
        BankError: the bank cannot be written.
    """
    namespace = key.namespace
    memory = await service.storing(lambda: from_safetensors(data, namespace=namespace))
    await service.storing(lambda: _check(service, memory))
    # The first key of a kind fixes the dimension for its namespace: a wrong one would shut out all that is learned.
    dimension = await service.computing(lambda: service.recall(namespace).keys([_PROBE]).shape[1])
    if len(memory.key) != dimension:
        raise invalid(
            f"the memory's key has {len(memory.key)} dimensions; keys of kind {memory.key_kind!r} of this model have "
            f"{dimension}",
            code="wrong_key",
        )
    try:
        stored = await changing(service, key, lambda: service.bank.add(memory))
    except FingerprintError as error:
        raise invalid(str(error), code="wrong_fingerprint") from None
    if not stored:
        raise Refused(
            409,
            f"namespace {namespace!r} has a memory {memory.id!r} already; delete it first to replace it",
            code="memory_exists",
        )
    return memory


def _check(service: Service, memory: Memory) -> None:
    """Refused unless the memory fits the model that is served."""
    backbone, config = service.backbone, service.config
    if not _ID.fullmatch(memory.id) or memory.id in _TAKEN:
        raise invalid(
            f"the memory's id {memory.id[:60]!r} cannot be a part of an address; ids are 1 to 200 letters, digits, "
            "'.', '_', ':' and '-'",
            code="wrong_id",
        )
    if len(memory.problem) > LONGEST:
        said = f"the memory's problem has {len(memory.problem):,} characters; at most {LONGEST:,} are taken in"
        raise invalid(said, code="problem_too_long")
    if memory.fingerprint != backbone.fingerprint:
        raise invalid(
            f"the memory was learned with another model (fingerprint {memory.fingerprint[:60]!r}) than this server's "
            f"({backbone.fingerprint!r}); it would mean nothing here",
            code="wrong_fingerprint",
        )
    if memory.key_kind != config.recall.key:
        raise invalid(
            f"the memory's key is of kind {memory.key_kind[:60]!r}, but this server finds memories by "
            f"{config.recall.key!r}",
            code="wrong_key",
        )
    tokens, width = memory.prompt.shape
    if width != backbone.hidden_size:
        raise invalid(f"the soft prompt has width {width}; this model's is {backbone.hidden_size}", code="wrong_shape")
    if (rows := backbone.carrier.rows) not in (None, tokens):
        raise invalid(f"the memory has {tokens} vectors; this model's have {rows}", code="wrong_shape")
    if backbone.carrier.columns(memory.prompt) >= service.context:
        raise invalid(
            f"the soft prompt has {tokens} tokens; this model's context is {service.context}", code="wrong_shape"
        )
    norm = float(np.linalg.norm(memory.prompt.astype(np.float64), axis=1).max())
    largest = config.learn.norm_cap * backbone.carrier.norm
    if norm > largest * (1 + NORM_SLACK):
        raise invalid(
            f"a row of the soft prompt has norm {norm:.4g}; rows of memories of this model have at most {largest:.4g} "
            f"({config.learn.norm_cap:g} times the mean norm of its embeddings)",
            code="wrong_norm",
        )
