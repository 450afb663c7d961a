"""The engine protocol: generation requests with *embeddings* in, rollouts out.

Builds on errors and torch's tensor type. The policy is (frozen backbone + soft prompt as input embeddings), so an
engine never needs a weight sync: a memory is only another prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from tacit.errors import EngineError

if TYPE_CHECKING:
    from tacit.model.backbone import Backbone


@dataclass(frozen=True)
class Request:
    """One prompt, sampled ``n`` times.

    Attributes:
        ids: token ids of the prompt, shape [T].
        soft_prompt: float32 [K, d] prepended to the embeddings of ``ids``, or None for the plain model.
        n: number of rollouts.
        temperature: 0 means greedy; log-probs are always of the distribution sampled from (greedy: T = 1).
        top_p: nucleus mass in (0, 1].
        max_tokens: most new tokens per rollout.
        seeds: one per rollout (ignored when greedy). A rollout's draws depend on its own seed alone, so whatever else
            shares the batch changes nothing.
        stop: strings that end a rollout; the text is cut before the first of them.
        top: most likely tokens to report beside each drawn one; 0 for none.
    """

    ids: torch.Tensor
    soft_prompt: torch.Tensor | None = None
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64
    seeds: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    top: int = 0


Alternatives = tuple[tuple[int, float], ...]
"""The most likely tokens at one position with their log-probs, best first."""


@dataclass(frozen=True)
class Rollout:
    """One sampled continuation.

    Attributes:
        token_ids: generated ids, the end token included where one was drawn.
        logprobs: natural-log probability of each token under the distribution it was drawn from.
        text: decoded continuation without special tokens.
        finish: "stop" (end token or stop string) or "length".
        alternatives: per token, where the request asked for them (``top``).
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: str
    alternatives: tuple[Alternatives, ...] = ()


@dataclass(frozen=True)
class Progress:
    """One token of one rollout, as it is drawn.

    Attributes:
        ticket: of the request.
        index: of the rollout within it, 0 .. n - 1.
        token_id, logprob, alternatives: as in ``Rollout``.
        rollout: the whole, with its last token.
        error: what ended the request, for engines that can fail at one; the rest then means nothing, and no more comes.
    """

    ticket: int
    index: int
    token_id: int
    logprob: float
    alternatives: Alternatives = ()
    rollout: Rollout | None = None
    error: EngineError | None = None


class Session(Protocol):
    """Continuous batching: requests come and go while others are being served. For one thread."""

    def submit(self, request: Request) -> int:
        """Queue a request; its ticket. EngineError if it is malformed, and then nothing is queued."""
        ...

    def cancel(self, ticket: int) -> None:
        """Drop a request with all its rollouts, started or not; one that is over or unknown is passed over."""
        ...

    def step(self) -> list[Progress]:
        """Start what there is room for and draw one token for every rollout in flight; nothing where none is."""
        ...

    @property
    def waiting(self) -> int:
        """Requests not started."""
        ...

    @property
    def running(self) -> int:
        """Rollouts in flight."""
        ...


class Engine(Protocol):
    """Anything that turns requests into rollouts, many at a time; all that the rest of Tacit asks of an engine. Those
    that come with Tacit name it as their base, so that the type checker says where one falls short.

    Attributes:
        backbone: the model, which is in this process too: for embeddings, keys and learning.
    """

    backbone: Backbone

    @property
    def context(self) -> int:
        """Most tokens of a sequence: soft prompt, prompt and answer. Whatever has to fit is measured by it."""
        ...

    @property
    def draws(self) -> str:
        """Whose random numbers rollouts are drawn with: "tacit" for those of ``draw.uniforms``, with which any two
        engines draw the same tokens for the same seeds; else a name of its own. A run goes on with its own kind."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """Serve all requests, batched as the engine sees fit; rollouts in the order of the requests and seeds.

        Adds the tokens to ``rules.METER``. EngineError if a request is malformed (``rules.check``).
        """
        ...

    def session(self) -> Session:
        """A batch of its own for requests that come and go."""
        ...

    def close(self) -> None:
        """Let go of what it holds; it is not used afterwards."""
        ...
