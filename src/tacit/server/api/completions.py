"""``POST /v1/completions``: raw prompts, as text or token ids, one or many; ``echo`` and log-probabilities.

Builds on asking, answering, streaming and text. With ``echo`` and ``logprobs`` the prompt's own tokens are scored,
which is how multiple-choice evaluations measure likelihoods.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from tacit.engines.base import Alternatives, Rollout
from tacit.server.api import asking, prompts
from tacit.server.api.asking import Caller
from tacit.server.api.chat import finite
from tacit.server.api.errors import invalid
from tacit.server.api.schemas import CompletionRequest
from tacit.server.api.streaming import DONE, event, merged, sent, unless_gone
from tacit.server.api.text import Detokeniser, whole
from tacit.server.live.answering import Answering
from tacit.server.live.service import Service

DEFAULT_TOKENS = 16
"""Where a request names no ``max_tokens``, as at OpenAI."""

Scored = list[tuple[int, float | None, Alternatives]]
"""Token ids with their log-probabilities (None for a token with nothing before it) and the most likely others."""


async def complete(service: Service, caller: Caller, body: CompletionRequest, request: Request) -> Response:
    """Continue prompts, streamed or whole."""
    completion = _Completion(service, caller, body)
    await completion.prepare()
    if body.stream:
        return await sent(completion.events())
    return JSONResponse(await unless_gone(request, completion.whole))


class _Completion:
    def __init__(self, service: Service, caller: Caller, body: CompletionRequest) -> None:
        self.service, self.caller, self.body = service, caller, body
        self.memory = asking.remembers(service, body.model)
        asking.refuse_many(len(body.prompts), body.n)
        self.silent = body.max_tokens == 0
        if self.silent and not body.echo:
            raise invalid("max_tokens is 0, which only makes sense with echo", "max_tokens")
        if body.echo and body.stream:
            raise invalid("echo is not streamed; leave out one of echo and stream", "echo")
        if body.stream_options and not body.stream:
            raise invalid("stream_options needs stream to be true", "stream_options")
        if body.tacit.problem is not None and len(body.prompts) > 1:
            raise invalid("tacit.problem names one problem, but there are several prompts", "tacit.problem")
        self.head = {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
        self.head["object"] = "text_completion"
        self.answerings: list[Answering] = []
        self.prompts: list[str] = []

    async def prepare(self) -> None:
        body, service = self.body, self.service
        for prompt in body.prompts:
            ids = await service.computing(lambda prompt=prompt: prompts.prompt_ids(service.backbone, prompt))  # type: ignore[misc]
            text = prompt if isinstance(prompt, str) else service.backbone.decode(prompt)
            self.prompts.append(text)
            wanted = DEFAULT_TOKENS if body.max_tokens is None else max(1, body.max_tokens)
            # What is scored is the plain model, unless a memory is named: a recalled one would blur a benchmark.
            remember = self.memory and not (body.echo and body.tacit.memory == "auto")
            if self.silent:
                prompts.fitting(service.backbone, ids, 0, 0, 0)
                wanted = min(1, service.backbone.context - len(ids))
            problem = await asking.problem_of(service, body.tacit.problem, text)
            one = asking.plan(
                service, self.caller, body, ids, problem,
                top=body.logprobs or 0, wanted=wanted, memory=remember,
            )  # fmt: skip
            self.answerings.append(one)
        for one in self.answerings:
            await one.recall()

    async def whole(self) -> dict[str, Any]:
        n, found = self.body.n or 1, {}
        if not self.silent:
            async for prompt, one in merged([answering.tokens(whole=True) for answering in self.answerings]):
                assert one.rollout is not None
                found[prompt * n + one.index] = one.rollout
        choices = []
        for prompt, answering in enumerate(self.answerings):
            echoed = await self._echo(answering) if self.body.echo else []
            text = self.prompts[prompt] if self.body.echo else ""
            choices += [self._choice(prompt * n + i, text, echoed, found.get(prompt * n + i)) for i in range(n)]
        return {
            **self.head,
            "choices": choices,
            "usage": asking.usage(self.answerings),
            "tacit": await self.settle(),
        }

    async def events(self) -> AsyncIterator[str]:
        n = self.body.n or 1
        tokenizer, stops = self.service.backbone.tokenizer, self.body.stops
        texts = [Detokeniser(tokenizer, stops) for _ in range(n * len(self.answerings))]
        offsets = [0] * len(texts)
        left = len(texts)
        async for prompt, one in merged([answering.tokens() for answering in self.answerings]):
            index = prompt * n + one.index
            shown = texts[index].push(one.token_id) + (texts[index].end() if one.rollout is not None else "")
            listed = self._logprobs([(one.token_id, one.logprob, one.alternatives)], offsets[index])
            if listed:
                offsets[index] += len(listed["tokens"][0])
            extra: dict[str, Any] = {}
            if one.rollout is not None:
                left -= 1
                extra = {} if left else {"tacit": await self.settle()}
            if not shown and one.rollout is None and listed is None:
                continue
            finish = None if one.rollout is None else one.rollout.finish
            choice = {"index": index, "text": shown, "logprobs": listed, "finish_reason": finish}
            yield event({**self.head, "choices": [choice], **extra})
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield event({**self.head, "choices": [], "usage": asking.usage(self.answerings)})
        yield DONE

    async def settle(self) -> dict[str, Any]:
        options = self.body.tacit
        learn, why_not = True, ""
        if not self.memory:
            learn, why_not = False, "the plain model does not learn"
        elif options.learn is False:
            learn, why_not = False, "the request forbids it"
        elif self.body.echo or (options.learn is None and options.problem is None):
            learn, why_not = False, "a raw prompt is learned from only on request: tacit.learn or tacit.problem"
        return await asking.settle(
            self.service, self.caller, self.body.model, self.answerings, learn=learn, why_not=why_not
        )

    async def _echo(self, answering: Answering) -> Scored:
        ids = answering.plan.asked.ids
        tokens = ids.tolist()
        if self.body.logprobs is None:
            return [(token, None, ()) for token in tokens]
        scores = await self.service.computing(
            lambda: self.service.local.score(ids, answering.soft_prompt, self.body.logprobs or 0)
        )
        return [(token, *(one or (None, ()))) for token, one in zip(tokens, scores, strict=True)]

    def _choice(self, index: int, text: str, echoed: Scored, rollout: Rollout | None) -> dict[str, Any]:
        finish, listed = "length", list(echoed)
        if rollout is not None:
            text += whole(self.service.backbone.tokenizer, rollout.token_ids, self.body.stops)
            tops = rollout.alternatives or ((),) * len(rollout.token_ids)
            listed += zip(rollout.token_ids, rollout.logprobs, tops, strict=True)
            finish = rollout.finish
        return {"index": index, "text": text, "logprobs": self._logprobs(listed, 0), "finish_reason": finish}

    def _logprobs(self, tokens: Scored, offset: int) -> dict[str, Any] | None:
        """OpenAI's parallel lists; ``top_logprobs`` maps a token's text to its log-probability."""
        if self.body.logprobs is None:
            return None
        texts = [self._token(token) for token, *_ in tokens]
        offsets = []
        for text in texts:
            offsets.append(offset)
            offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [None if p is None else finite(p) for _, p, _ in tokens],
            "top_logprobs": [self._top(p, top) for _, p, top in tokens],
            "text_offset": offsets,
        }

    def _top(self, logprob: float | None, top: Alternatives) -> dict[str, float] | None:
        if logprob is None:
            return None
        found: dict[str, float] = {}
        for token, likely in top:  # best first: of two tokens with the same text the likelier counts
            found.setdefault(self._token(token), finite(likely))
        return found

    def _token(self, token_id: int) -> str:
        return str(self.service.backbone.tokenizer.decode([token_id]))
