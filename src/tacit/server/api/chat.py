"""``POST /v1/chat/completions``: how a conversation is read, and its answer shown.

Builds on asking and answering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from tacit.engines.base import Alternatives, Progress, Rollout
from tacit.server.api import prompts
from tacit.server.api.asking import Caller, Exchange, finite
from tacit.server.api.errors import invalid
from tacit.server.api.forms import grammar_of
from tacit.server.api.schemas import ChatRequest
from tacit.server.live.answering import listed
from tacit.server.live.service import Service


class Conversation(Exchange):
    """Answers a conversation; see ``Exchange``."""

    kind, object, piece = "chatcmpl", "chat.completion", "chat.completion.chunk"
    body: ChatRequest

    def __init__(self, service: Service, caller: Caller, body: ChatRequest) -> None:
        super().__init__(service, caller, body)
        if body.top_logprobs and not body.logprobs:
            raise invalid("top_logprobs needs logprobs to be true", "top_logprobs")
        self.beside = {"usage": None} if self.wants_usage else {}
        self._begun: set[int] = set()
        self.said = prompts.begun(body)

    async def prepare(self) -> None:
        body, service = self.body, self.service
        goes_on = self.said is not None
        ids = await service.computing(
            lambda: prompts.chat_ids(service.backbone, body.messages, service.context, continued=goes_on)
        )
        grammar = await service.computing(lambda: grammar_of(service.backbone, body.response_format))
        if grammar and goes_on:
            raise invalid("response_format is of a whole answer; leave out the last message, which begins one",
                          "response_format")  # fmt: skip
        wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        await self.plan(
            ids, prompts.problem_of(body.messages),
            context=service.context, top=body.top_logprobs or 0, wanted=wanted, memory=self.memory,
            begun=self.said or "", grammar=grammar,
        )  # fmt: skip
        await self.answerings[0].recall()

    @property
    def stops(self) -> tuple[str, ...]:
        """Also where a model without a chat template would go on with a problem of its own making."""
        return (*self.body.stops, *self.service.backbone.stop)

    async def choices(self) -> list[Callable[[], dict[str, Any]]]:
        found = await self.rollouts()
        return [partial(self._choice, index, found[index]) for index in sorted(found)]

    def _choice(self, index: int, rollout: Rollout) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": self.text().whole(rollout.token_ids), "refusal": None},
            "logprobs": self._logprobs(listed(rollout)),
            "finish_reason": rollout.finish,
        }

    def pieces(self, index: int, one: Progress, shown: str) -> Iterator[dict[str, Any]]:
        empty = {"index": index, "delta": {}, "logprobs": None, "finish_reason": None}
        if index not in self._begun:
            self._begun.add(index)
            yield {**empty, "delta": {"role": "assistant", "content": ""}}
        logprobs = self._logprobs([(one.token_id, one.logprob, one.alternatives)])
        if shown or (logprobs and logprobs["content"]):
            yield {**empty, "delta": {"content": shown}, "logprobs": logprobs}
        if one.rollout is not None:
            yield {**empty, "finish_reason": one.rollout.finish}

    def not_learnable(self) -> str | None:
        if self.body.tacit.problem is None and not prompts.is_one_question(self.body.messages):
            return "the last message does not say it all; name the problem under tacit.problem"
        return None

    def _logprobs(self, tokens: Sequence[tuple[int, float, Alternatives]]) -> dict[str, Any] | None:
        """OpenAI's list of tokens; the one that ends the turn is not part of the message."""
        if not self.body.logprobs:
            return None
        ends = self.service.backbone.end_ids
        content = [
            {**self._token(i, p), "top_logprobs": [self._token(*other) for other in top]}
            for i, p, top in tokens
            if i not in ends
        ]
        return {"content": content, "refusal": None}

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        words = self.service.vocabulary
        return {"token": words.text(token_id), "logprob": finite(logprob), "bytes": words.bytes(token_id)}
