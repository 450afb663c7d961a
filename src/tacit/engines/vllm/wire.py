"""What goes to a vLLM server and what comes back: requests as JSON, choices as tokens, and log-probs made right.

Builds on backbone, batches and the engine protocol. Prompts with a soft prompt travel as embeddings, others as
token ids. Where a rollout ends, and what its text is, is decided here and not by the server: it is told which tokens
end a rollout, and nothing of stop strings.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tacit.engines.base import Alternatives, Request, Rollout, ended
from tacit.engines.batches import scores
from tacit.errors import EngineError
from tacit.model.backbone import Backbone, prefill, prompt_embeddings

ARGUMENTS = "tacit"
"""What the random numbers travel under in ``vllm_xargs``; read by draw.py."""

MOST_ALTERNATIVES = 20
"""Of a vLLM server that was not told otherwise (``--max-logprobs``)."""

NEVER = -9999.0
"""What vLLM writes for a probability of 0."""


@dataclass(frozen=True)
class Piece:
    """One token as a server reports it; ``logprob`` under the distribution that the server reports."""

    token_id: int
    logprob: float
    alternatives: Alternatives


@torch.inference_mode()
def prompt(backbone: Backbone, request: Request) -> dict[str, Any]:
    """The part of a body that is the prompt. Computes embeddings: not for the thread that serves the network."""
    if request.soft_prompt is None:
        return {"prompt": request.ids.tolist()}
    embeds = prompt_embeddings(backbone, request.ids, request.soft_prompt).cpu().contiguous()
    buffer = io.BytesIO()
    torch.save(embeds.clone(), buffer)
    return {"prompt_embeds": base64.b64encode(buffer.getvalue()).decode()}


def body(
    backbone: Backbone, request: Request, head: Mapping[str, Any], index: int, *, draws: bool, stream: bool
) -> dict[str, Any]:
    """The body of the HTTP request for one rollout; the model's name, which differs between servers, comes later.

    Args:
        backbone: whose tokens end a rollout.
        request: what was asked.
        head: its ``prompt``.
        index: of the rollout, for its seed.
        draws: whether the server draws with Tacit's random numbers.
        stream: whether tokens are wanted as they come.
    """
    asked: dict[str, Any] = {
        **head,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p if request.temperature else 1.0,
        "stream": stream,
        "logprobs": min(request.top, MOST_ALTERNATIVES),
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "ignore_eos": True,  # stop_token_ids has all of them
        "stop_token_ids": sorted(backbone.end_ids),
        # Or the server takes them from the model's generation_config.json.
        "top_k": request.top_k if request.temperature else 0,
        "min_p": request.min_p if request.temperature else 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    if forced(request, draws):
        numbers = {"seed": str(request.seeds[index]), "temperature": request.temperature, "top_p": request.top_p}
        asked |= {"temperature": 0.0, "top_p": 1.0, "vllm_xargs": {ARGUMENTS: json.dumps(numbers)}}
    elif request.temperature:
        asked["seed"] = request.seeds[index]
    return asked


def forced(request: Request, draws: bool) -> bool:
    """Whether a server draws this request with Tacit's random numbers. It does not know of top_k and min_p: with them
    it draws with its own, from the same seed."""
    return draws and request.temperature > 0 and not request.top_k and not request.min_p


def pieces(choice: Mapping[str, Any], top: int) -> list[Piece]:
    """The tokens of a choice, whole or a part of a stream.

    Raises:
        EngineError: there is no token ids or log-probs in it, so that it is not vLLM's, or the rollout was dropped.
    """
    try:
        ids: list[int] = choice["token_ids"] or []
        found = choice["logprobs"] if ids else {"token_logprobs": [], "top_logprobs": []}
        logprobs = found["token_logprobs"]
        tops = found["top_logprobs"] if top else [None] * len(ids)
        if choice.get("finish_reason") not in (None, "stop", "length"):
            raise EngineError(f"the vLLM server dropped a request ({choice['finish_reason']}); see its log")
        made = [
            Piece(token, float(logprob), _alternatives(listed or {}, top))
            for token, logprob, listed in zip(ids, logprobs, tops, strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"the server's answer is not a vLLM completion with token ids and log-probs ({error!r}); --engine takes "
            "the address of a vLLM server of version 0.12 or later"
        ) from None
    return made


def _alternatives(listed: Mapping[str, float], top: int) -> Alternatives:
    best = [(int(name.removeprefix("token_id:")), logprob) for name, logprob in listed.items() if logprob > NEVER]
    return tuple(sorted(best, key=lambda one: (-one[1], one[0]))[:top])


@dataclass(eq=False)
class Growing:
    """A rollout as its tokens come in; ``rollout`` once it is over."""

    backbone: Backbone
    spec: Request
    held: list[Piece] = field(default_factory=list)
    rollout: Rollout | None = None

    def add(self, piece: Piece) -> None:
        """One token more."""
        self.held.append(piece)
        over = ended(self.backbone, self.spec, [one.token_id for one in self.held])
        if over is not None:
            self.rollout = _rollout(self.spec, self.held, over)


def whole(backbone: Backbone, request: Request, choices: Sequence[Mapping[str, Any]]) -> Rollout:
    """The rollout of an answer that was not streamed, to a request without stop strings."""
    found = pieces(choices[0], request.top) if len(choices) == 1 else []
    over = ended(backbone, request, [one.token_id for one in found]) if found else None
    if over is None:
        raise EngineError(
            f"the vLLM server ended a rollout after {len(found)} of {request.max_tokens} tokens without an end token; "
            "see its log"
        )
    return _rollout(request, found, over)


def _rollout(request: Request, held: Sequence[Piece], over: tuple[str, str]) -> Rollout:
    likely = tuple(one.alternatives for one in held) if request.top else ()
    return Rollout(tuple(one.token_id for one in held), tuple(one.logprob for one in held), *over, likely)


@torch.inference_mode()
def rescored(backbone: Backbone, request: Request, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with the log-probs, and the alternatives where asked for, of the distribution that ``request`` draws
    from; the prompt is computed once.

    A server reports log-probs of some distribution, by default of temperature 1 and of every token; where a rollout was
    drawn from another one, what it reports is not what a rollout's log-probs are (engines/base.py).
    """
    prompts = [prompt_embeddings(backbone, request.ids[:-1], request.soft_prompt)]
    prefix = prefill(backbone, prompts, [request.soft_prompt])
    start, first = len(prompts[0]), torch.zeros(1, dtype=torch.int64, device=backbone.device)
    made = []
    for rollout in rollouts:
        drawn = torch.tensor(rollout.token_ids)
        fed = torch.cat([request.ids[-1:].cpu(), drawn[:-1]])
        found = scores(backbone, prefix.take(first), start, backbone.embed(fed), drawn, request)
        likely = tuple(best for _, best in found) if request.top else ()
        made.append(replace(rollout, logprobs=tuple(logprob for logprob, _ in found), alternatives=likely))
    return made
