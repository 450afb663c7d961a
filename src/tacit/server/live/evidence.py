"""Which answers say something of a memory, and how much one key may say by them.

Builds on the bank, keys and recall. A memory's counts decide whether it stays in use (promotion.py), so whoever can
make them to order decides over everybody's memories. An answer is evidence only

- if the server found the memory itself and asked as it would ask by itself: the problem alone; its own stops; room for
  a whole answer of any form; a temperature no higher than its own; tokens drawn from all that it would draw from, by
  random numbers that nobody chose (``asked_own_way``);
- if one side at least gave an answer;
- once for a problem: who asks again draws again;
- if its key may judge: one with the right "trust" or "admin", the namespace's only one, or the one that the memory came
  from. Any other key says nothing where votes judge, whose texts it chooses; with a calibrated verifier it is heard
  once for each memory, which alone moves nothing (``bank.harm.HURT_LEAD``).

The same holds for what helped as for what hurt: praise would keep a harmful memory in use.
"""

from __future__ import annotations

import json
from contextlib import suppress

from torch import Tensor, equal

from tacit.bank.base import Bank
from tacit.checks.values import MAX_NAME
from tacit.config import Sampling
from tacit.engines.base import Request
from tacit.errors import MemoryNotFound
from tacit.routing import Route
from tacit.server.keys import ApiKey, KeyStore
from tacit.server.learner.jobs import problem_digest

DEFAULT_TEMPERATURE = DEFAULT_TOP_P = 1.0
"""Of a request that names none."""

PER_KEY = 1
"""Most that a key without trust says of one memory."""

KEPT_PROBLEMS = 256
"""Latest problems that are remembered of a memory, so that none counts twice."""


def asked_own_way(
    asked: Request, own: Tensor, stops: tuple[str, ...], most_tokens: int, sampling: Sampling, *, seeded: bool
) -> bool:
    """Whether a request is what the server itself would ask.

    Args:
        asked: the request.
        own: token ids that the server makes of the problem.
        stops: the server's own.
        most_tokens: that the server would allow an answer.
        sampling: the server's own.
        seeded: the client chose the seed, and so may choose among answers.
    """
    narrowed = asked.top_k > 0 or asked.min_p > 0 or asked.top_p not in (DEFAULT_TOP_P, sampling.top_p)
    return (
        equal(asked.ids, own)
        and set(asked.stop) == set(stops)
        and asked.max_tokens >= most_tokens
        and asked.temperature <= max(DEFAULT_TEMPERATURE, sampling.temperature)
        and not asked.grammar
        and not (asked.temperature > 0 and (seeded or narrowed))
    )


def count(
    bank: Bank, key: ApiKey, memory_id: str, origin: object, problem: str, route: Route, *, calibrated: bool
) -> bool:
    """Count at a memory what an answer says of it, within a transaction; False where it says nothing.

    Args:
        bank, key: whose answer, with the rights that the key has now.
        memory_id, origin: the memory, and the id of the key that it came from, if any.
        problem: that was asked.
        route: what routing decided.
        calibrated: whether a verifier decided whose scores are probabilities.
    """
    name = f"evidence:{memory_id}"[:MAX_NAME]
    held = json.loads(bank.marked(key.namespace, name) or "{}")
    problems, keys = held.get("problems", []), held.get("keys", {})
    digest = problem_digest(key.namespace, problem)[:16]
    if digest in problems:
        return False
    said = keys.get(key.id, 0)
    if not _judges(bank, key, origin) and (not calibrated or said >= PER_KEY):
        return False
    with suppress(MemoryNotFound), bank.transaction():  # deleted meanwhile
        bank.count(memory_id, key.namespace, uses=1, **route.counts)
        told = {"problems": [*problems, digest][-KEPT_PROBLEMS:], "keys": {**keys, key.id: said + 1}}
        bank.mark(key.namespace, name, json.dumps(told))
        return True
    return False


def _judges(bank: Bank, key: ApiKey, origin: object) -> bool:
    if key.may("trust") or key.may("admin") or origin == key.id:
        return True
    return sum(other.namespace == key.namespace for other in KeyStore(bank).all()) < 2
