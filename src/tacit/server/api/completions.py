"""``POST /v1/completions``: raw prompts, as text or token ids, one or many; ``echo`` and log-probabilities.

Builds on asking, prompts and answering. With ``echo`` and ``logprobs`` the prompt's own tokens are scored,
which is how multiple-choice evaluations measure likelihoods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from tacit.engines.base import Alternatives, Progress, Rollout
from tacit.server.api.asking import Caller, Exchange, finite
from tacit.server.api.errors import invalid
from tacit.server.api.prompts import prompt_ids
from tacit.server.api.schemas import CompletionRequest
from tacit.server.live.answering import Answering, listed
from tacit.server.live.service import Service
from tacit.server.live.vocabulary import UNFINISHED

DEFAULT_TOKENS = 16
"""Where a request names no ``max_tokens``, as at OpenAI."""

Scored = Sequence[tuple[int, float | None, Alternatives]]
"""Token ids with their log-probabilities (None for a token with nothing before it) and the most likely others."""


class Completion(Exchange):
    """Continues prompts; see ``Exchange``."""

    kind, object, piece = "cmpl", "text_completion", "text_completion"
    body: CompletionRequest

    def __init__(self, service: Service, caller: Caller, body: CompletionRequest) -> None:
        super().__init__(service, caller, body, len(body.prompts))
        self.silent = body.max_tokens == 0
        if self.silent and not body.echo:
            raise invalid("max_tokens is 0, which only makes sense with echo", "max_tokens")
        if body.echo and body.stream:
            raise invalid("echo is not streamed; leave out one of echo and stream", "echo")
        if body.tacit.problem is not None and len(body.prompts) > 1:
            raise invalid("tacit.problem names one problem, but there are several prompts", "tacit.problem")
        self.prompts: list[str] = []
        self._offsets: dict[int, int] = {}

    async def prepare(self) -> None:
        body, service = self.body, self.service
        wanted = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        # What is scored is the plain model, unless a memory is named: a recalled one would blur a benchmark.
        remember = self.memory and not (body.echo and body.tacit.memory == "auto")
        # It is scored here, whatever samples: see ``_echo``.
        context = service.local.context if self.silent else service.context
        for prompt in body.prompts:
            ids = await service.computing(lambda prompt=prompt: prompt_ids(service.backbone, prompt, context))  # type: ignore[misc]
            text = (
                prompt if isinstance(prompt, str) else await service.computing(partial(service.backbone.decode, prompt))
            )
            self.prompts.append(text)
            await self.plan(
                ids, text, context=context, top=body.logprobs or 0, wanted=wanted, memory=remember,
                echoed=bool(body.echo),
            )  # fmt: skip
        for one in self.answerings:
            await one.recall()

    async def choices(self) -> list[Callable[[], dict[str, Any]]]:
        found = {} if self.silent else await self.rollouts()
        choices: list[Callable[[], dict[str, Any]]] = []
        for prompt, answering in enumerate(self.answerings):
            echoed = await self._echo(answering) if self.body.echo else []
            text = self.prompts[prompt] if self.body.echo else ""
            numbers = range(prompt * self.n, (prompt + 1) * self.n)
            choices += [partial(self._choice, index, text, echoed, found.get(index)) for index in numbers]
        return choices

    def pieces(self, index: int, one: Progress, shown: str) -> Iterator[dict[str, Any]]:
        offset = self._offsets.get(index, 0)
        logprobs = self._logprobs([(one.token_id, one.logprob, one.alternatives)], offset)
        if logprobs:
            self._offsets[index] = offset + len(self.service.vocabulary.text(one.token_id))
        if shown or one.rollout is not None or logprobs is not None:
            finish = None if one.rollout is None else one.rollout.finish
            yield {"index": index, "text": shown, "logprobs": logprobs, "finish_reason": finish}

    def not_learnable(self) -> str | None:
        options = self.body.tacit
        if self.body.echo or (options.learn is None and options.problem is None):
            return "a raw prompt is learned from only on request: tacit.learn or tacit.problem"
        return None

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
        finish, tokens = "length", echoed
        if rollout is not None:
            text += self.text().whole(rollout.token_ids)
            finish, tokens = rollout.finish, [*echoed, *listed(rollout)]
        return {"index": index, "text": text, "logprobs": self._logprobs(tokens, 0), "finish_reason": finish}

    def _logprobs(self, tokens: Scored, offset: int) -> dict[str, Any] | None:
        """OpenAI's parallel lists; ``top_logprobs`` maps a token's text to its log-probability."""
        if self.body.logprobs is None:
            return None
        texts = [self.service.vocabulary.text(token) for token, *_ in tokens]
        return {
            "tokens": [self._name(token) for token, *_ in tokens],
            "token_logprobs": [None if p is None else finite(p) for _, p, _ in tokens],
            "top_logprobs": [self._top(p, top) for _, p, top in tokens],
            "text_offset": list(accumulate(map(len, texts), initial=offset))[:-1],
        }

    def _top(self, logprob: float | None, top: Alternatives) -> dict[str, float] | None:
        if logprob is None:
            return None
        found: dict[str, float] = {}
        for token, likely in top:  # best first: of two tokens with the same text the likelier counts
            found.setdefault(self._name(token), finite(likely))
        return found

    def _name(self, token_id: int) -> str:
        """What a token is called in the lists; a part of a character by its bytes, as at OpenAI."""
        text = self.service.vocabulary.text(token_id)
        if UNFINISHED not in text:
            return text
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.service.vocabulary.bytes(token_id))
