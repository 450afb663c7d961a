"""``POST /v1/chat/completions``.

Builds on asking, answering and text: a body becomes one plan, its tokens become deltas or whole messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from tacit.engines.base import Alternatives
from tacit.server.api import prompts
from tacit.server.api.asking import Caller, Exchange, finite
from tacit.server.api.errors import invalid
from tacit.server.api.schemas import ChatRequest
from tacit.server.api.streaming import DONE, event
from tacit.server.api.text import Detokeniser, whole
from tacit.server.live.answering import listed
from tacit.server.live.service import Service


class Conversation(Exchange):
    """Answers a conversation."""

    body: ChatRequest

    def __init__(self, service: Service, caller: Caller, body: ChatRequest) -> None:
        super().__init__(service, caller, body, "chatcmpl")
        if body.top_logprobs and not body.logprobs:
            raise invalid("top_logprobs needs logprobs to be true", "top_logprobs")

    async def prepare(self) -> None:
        """See ``Exchange.prepare``."""
        body, service = self.body, self.service
        ids = await service.computing(lambda: prompts.chat_ids(service.backbone, body.messages, service.context))
        wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        await self.plan(
            ids, prompts.problem_of(body.messages),
            context=service.context, top=body.top_logprobs or 0, wanted=wanted, memory=self.memory,
        )  # fmt: skip
        await self.answerings[0].recall()

    async def whole(self) -> dict[str, Any]:
        """See ``Exchange.whole``."""
        choices = {}
        async for one in self.answerings[0].tokens(whole=True):
            assert one.rollout is not None
            content = whole(self.service.backbone.tokenizer, one.rollout.token_ids, self.body.stops)
            choices[one.index] = {
                "index": one.index,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": self._logprobs(listed(one.rollout)),
                "finish_reason": one.rollout.finish,
            }
        report = await self.settle()
        return {
            **self.head,
            "object": "chat.completion",
            "choices": [choices[index] for index in sorted(choices)],
            "usage": self.usage(),
            "tacit": report,
        }

    async def events(self) -> AsyncIterator[str]:
        """See ``Exchange.events``."""
        texts = [Detokeniser(self.service.backbone.tokenizer, self.body.stops) for _ in range(self.body.n or 1)]
        begun: set[int] = set()
        left = len(texts)
        async for one in self.answerings[0].tokens():
            shown = texts[one.index].push(one.token_id, last=one.rollout is not None)
            if one.index not in begun:
                begun.add(one.index)
                yield event(self._chunk(one.index, {"role": "assistant", "content": ""}))
            logprobs = self._logprobs([(one.token_id, one.logprob, one.alternatives)])
            if shown or (logprobs and logprobs["content"]):
                yield event(self._chunk(one.index, {"content": shown}, logprobs))
            if one.rollout is not None:
                left -= 1
                extra = {} if left else {"tacit": await self.settle()}
                yield event({**self._chunk(one.index, {}, finish=one.rollout.finish), **extra})
        if self.wants_usage:
            yield event({**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage()})
        yield DONE

    def not_learnable(self) -> str | None:
        """See ``Exchange.not_learnable``."""
        if self.body.tacit.problem is None and not prompts.is_one_question(self.body.messages):
            return "the last message does not say it all; name the problem under tacit.problem"
        return None

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        usage = {"usage": None} if self.wants_usage else {}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice], **usage}

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
        text = self.text_of(token_id)
        return {"token": text, "logprob": finite(logprob), "bytes": list(text.encode())}
