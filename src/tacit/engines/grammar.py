"""Rollouts that follow a JSON schema: which tokens may come next, by llguidance.

Builds on llguidance (MIT, 3 MB, no GPU; the extra ``grammar``) and errors. A grammar is llguidance's own text; what it
allows depends on the tokens before and on nothing else, so that batching changes no result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tacit.errors import EngineError, TacitError, needed

if TYPE_CHECKING:
    from tacit.model.backbone import Backbone

MOST_CHARACTERS = 50_000
MOST_JOINED = 10  # the time to join patterns doubles with each
SPACES = r"[ \n]?"
"""White space between the parts of JSON; without a bound a small model may write nothing else."""


class GrammarError(EngineError):
    """A schema that cannot be followed."""


def of_schema(schema: Mapping[str, Any]) -> str:
    """The grammar of JSON that follows a schema.

    Raises:
        GrammarError: the schema is too large, or llguidance does not know a part of it; it is named.
        ConfigError: llguidance is missing.
    """
    guidance = needed("grammar", "response_format", "llguidance")
    text = json.dumps(schema)
    tables = _tables(schema)
    if len(text) > MOST_CHARACTERS or tables is None:
        raise GrammarError(f"the schema has more than {MOST_CHARACTERS} characters, or is too deep; make it smaller")
    joins = any("allOf" in one or ("$ref" in one and len(one) > 1) for one in tables)
    if joins and sum("pattern" in one or "format" in one for one in tables) > MOST_JOINED:
        raise GrammarError(f"the schema joins more than {MOST_JOINED} patterns by allOf or $ref; join fewer")
    spaces = {"whitespace_flexible": True, "whitespace_pattern": SPACES}
    return str(guidance.LLMatcher.grammar_from_json_schema(text, overrides=spaces))


def check(backbone: Backbone, grammar: str) -> None:
    """GrammarError unless this model can begin a text of the grammar."""
    try:
        follower = Follower(backbone, grammar)
    except TacitError:
        raise
    except Exception as error:  # a tokenizer that llguidance cannot read
        raise GrammarError(f"the tokens of {backbone.name} cannot be held to a form; ask for it in words") from error
    wrong = follower.error
    if wrong:
        raise GrammarError(f"the schema cannot be followed: {wrong}")
    if not follower.possible:
        raise GrammarError(f"{backbone.name} has no token that the form could begin with; ask for it in words")


class Follower:
    """One rollout's place in a grammar."""

    def __init__(self, backbone: Backbone, grammar: str) -> None:
        self._matcher = _matcher(backbone.tokenizer, backbone.vocab_size, grammar).deep_copy()
        self._ends = sorted(backbone.end_ids)
        self._size = backbone.vocab_size

    @property
    def error(self) -> str:
        """What is wrong with the grammar; "" for nothing."""
        return " ".join(str(self._matcher.get_error() or "").split())[:300]

    @property
    def possible(self) -> bool:
        """Whether any token but an end may come next."""
        return bool(self._allowed().any())

    def narrow(self, logits: Tensor) -> Tensor:
        """Logits [V] with minus infinity for what may not come next; at the end of the form an end token alone may."""
        allowed = self._allowed()
        if self._matcher.is_accepting() or not bool(allowed.any()):
            allowed[self._ends] = True
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def take(self, token_id: int) -> None:
        """The token that came."""
        if token_id not in self._ends:
            self._matcher.consume_token(token_id)

    def _allowed(self) -> Tensor:
        """Which tokens may come next [V], ends left out."""
        if self._matcher.is_stopped() or self._matcher.is_error():
            return torch.zeros(self._size, dtype=torch.bool)
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = torch.from_numpy(np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_))
        allowed[self._ends] = False
        return allowed


@lru_cache(maxsize=16)
def _matcher(tokenizer: Any, size: int, grammar: str) -> Any:
    """The beginning of a grammar, to be copied: reading it may take as long as drawing many tokens."""
    return needed("grammar", "response_format", "llguidance").LLMatcher(_vocabulary(tokenizer, size), grammar)


@lru_cache(maxsize=4)
def _vocabulary(tokenizer: Any, size: int) -> Any:
    """The tokenizer as llguidance reads it: seconds for a large vocabulary, so once."""
    hf = needed("grammar", "response_format", "llguidance.hf")
    return hf.from_tokenizer(tokenizer, n_vocab=max(size, len(tokenizer)))


def _tables(value: Any, most: int = 40) -> list[dict[str, Any]] | None:
    """All objects in a schema; None if it is too deep."""
    level, found = [value], []
    for _ in range(most):
        found += [one for one in level if isinstance(one, dict)]
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return None if level else found
