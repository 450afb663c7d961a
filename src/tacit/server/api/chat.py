"""``POST /v1/chat/completions``.

Builds on asking, answering and text: a body becomes one plan, its tokens become deltas or whole messages.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from tacit.server.api import asking, prompts
from tacit.server.api.asking import Caller
from tacit.server.api.errors import invalid
from tacit.server.api.schemas import ChatRequest
from tacit.server.api.streaming import DONE, event, sent, unless_gone
from tacit.server.api.text import Detokeniser, whole
from tacit.server.live.answering import Answering
from tacit.server.live.service import Service

LEAST_LOGPROB = -9999.0
"""For a probability of 0, whose logarithm JSON cannot hold; OpenAI's clients know the number."""


async def chat(service: Service, caller: Caller, body: ChatRequest, request: Request) -> Response:
    """Answer a conversation, streamed or whole."""
    conversation = _Conversation(service, caller, body)
    await conversation.prepare()
    if body.stream:
        return await sent(conversation.events())
    return JSONResponse(await unless_gone(request, conversation.whole))


class _Conversation:
    def __init__(self, service: Service, caller: Caller, body: ChatRequest) -> None:
        self.service, self.caller, self.body = service, caller, body
        self.memory = asking.remembers(service, body.model)
        asking.refuse_many(1, body.n)
        if body.top_logprobs and not body.logprobs:
            raise invalid("top_logprobs needs logprobs to be true", "top_logprobs")
        if body.stream_options and not body.stream:
            raise invalid("stream_options needs stream to be true", "stream_options")
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
        self.answering: Answering

    async def prepare(self) -> None:
        body, service = self.body, self.service
        ids = await service.computing(lambda: prompts.chat_ids(service.backbone, body.messages))
        problem = await asking.problem_of(service, body.tacit.problem, prompts.problem_of(body.messages))
        wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        self.answering = asking.plan(
            service, self.caller, body, ids, problem,
            top=body.top_logprobs or 0, wanted=wanted, memory=self.memory,
        )  # fmt: skip
        await self.answering.recall()

    async def whole(self) -> dict[str, Any]:
        choices = {}
        async for one in self.answering.tokens(whole=True):
            assert one.rollout is not None
            tokens = list(zip(one.rollout.token_ids, one.rollout.logprobs, strict=True))
            tops = one.rollout.alternatives or ((),) * len(tokens)
            choices[one.index] = {
                "index": one.index,
                "message": {
                    "role": "assistant",
                    "content": whole(self.service.backbone.tokenizer, one.rollout.token_ids, self.body.stops),
                    "refusal": None,
                },
                "logprobs": self._logprobs([(i, p, top) for (i, p), top in zip(tokens, tops, strict=True)]),
                "finish_reason": one.rollout.finish,
            }
        report = await self.settle()
        return {
            **self.head,
            "object": "chat.completion",
            "choices": [choices[index] for index in sorted(choices)],
            "usage": asking.usage([self.answering]),
            "tacit": report,
        }

    async def events(self) -> AsyncIterator[str]:
        texts = [Detokeniser(self.service.backbone.tokenizer, self.body.stops) for _ in range(self.body.n or 1)]
        begun: set[int] = set()
        left = len(texts)
        async for one in self.answering.tokens():
            text = texts[one.index]
            shown = text.push(one.token_id) + (text.end() if one.rollout is not None else "")
            if one.index not in begun:
                begun.add(one.index)
                yield event(self._chunk(one.index, {"role": "assistant", "content": ""}))
            listed = self._logprobs([(one.token_id, one.logprob, one.alternatives)])
            if shown or (listed and listed["content"]):
                yield event(self._chunk(one.index, {"content": shown}, listed))
            if one.rollout is not None:
                left -= 1
                extra = {} if left else {"tacit": await self.settle()}
                yield event({**self._chunk(one.index, {}, finish=one.rollout.finish), **extra})
        if self._wants_usage:
            yield event(
                {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": asking.usage([self.answering])}
            )
        yield DONE

    async def settle(self) -> dict[str, Any]:
        learn, why_not = self.learnable()
        return await asking.settle(
            self.service, self.caller, self.body.model, [self.answering], learn=learn, why_not=why_not
        )

    def learnable(self) -> tuple[bool, str]:
        if not self.memory:
            return False, "the plain model does not learn"
        if self.body.tacit.learn is False:
            return False, "the request forbids it"
        if self.body.tacit.problem is None and not prompts.is_one_question(self.body.messages):
            return False, "the last message does not say it all; name the problem under tacit.problem"
        return True, ""

    @property
    def _wants_usage(self) -> bool:
        return self.body.stream_options is not None and self.body.stream_options.include_usage

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        usage = {"usage": None} if self._wants_usage else {}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice], **usage}

    def _logprobs(self, tokens: Sequence[tuple[int, float, Any]]) -> dict[str, Any] | None:
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
        text = str(self.service.backbone.tokenizer.decode([token_id]))
        return {"token": text, "logprob": finite(logprob), "bytes": list(text.encode())}


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return logprob if math.isfinite(logprob) else LEAST_LOGPROB
