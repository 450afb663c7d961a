"""``POST /v1/responses``: OpenAI's newer way to ask for a conversation's next turn, for text in and text out.

Builds on chat: a request is read as the chat that it is, and its answer is shown in the other form. Nothing is stored,
so a conversation comes whole each time.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from tacit.engines.base import Progress
from tacit.server.api.asking import Caller
from tacit.server.api.chat import Conversation
from tacit.server.api.errors import Refused
from tacit.server.api.fields import FromConversations, Nothing, Word, fault, only
from tacit.server.api.forms import FlatFormat, FlatJsonSchema
from tacit.server.api.schemas import (
    MOST_MESSAGES,
    ChatRequest,
    Content,
    Ignored,
    Likeliest,
    Probability,
    Seed,
    Share,
    Strict,
    TacitOptions,
    Temperature,
    Tokens,
    Top,
)
from tacit.server.api.streaming import bursts, written
from tacit.server.live.answering import listed
from tacit.server.live.service import Service

WHOLE = "nothing is stored here; send the whole conversation as input"
FIELDS = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text.format"}
"""What a chat's fields are called here, for refusals."""
LOGPROBS = "message.output_text.logprobs"


class Part(Strict):
    """A part of a message, or of an answer that is sent back."""

    type: Literal["input_text", "output_text", "text"]
    text: Content
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[Any] | None = None


class Item(Strict):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content | Annotated[list[Part], Field(min_length=1, max_length=256, fail_fast=True)]
    id: Word | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class Reasoning(Strict):
    """That the model does not think apart."""

    effort: Annotated[Literal["none"] | None, only("none")] = None
    summary: Nothing = None
    generate_summary: Nothing = None


class AsText(Strict):
    """In what form the answer is to be."""

    format: FlatFormat | None = None
    verbosity: Annotated[Literal["medium"] | None, only("medium")] = None


class Streaming(Strict):
    """How to stream."""

    include_obfuscation: bool | None = None


class ResponsesRequest(Strict, FromConversations):
    """Body of ``POST /v1/responses``."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    input: Content | Annotated[list[Item], Field(min_length=1, max_length=MOST_MESSAGES - 1, fail_fast=True)]
    instructions: Content | None = None
    max_output_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Likeliest | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    top_logprobs: Top | None = None
    include: Annotated[list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]], Field(max_length=8)] | None = None  # fmt: skip # noqa: E501
    stream: bool | None = None
    stream_options: Streaming | None = None
    text: AsText | None = None
    reasoning: Reasoning | None = None
    max_tool_calls: int | None = None
    truncation: Annotated[Literal["disabled"] | None, only("disabled")] = None
    background: Annotated[Literal[False] | None, only(False)] = None
    previous_response_id: Annotated[None, only(but=WHOLE)] = None
    conversation: Annotated[None, only(but=WHOLE)] = None
    prompt: Nothing = None
    user: Word | None = None
    store: bool | None = None
    metadata: Ignored | None = None
    tacit: TacitOptions = Field(default_factory=TacitOptions)

    @field_validator("input", mode="before")
    @classmethod
    def _messages_alone(cls, given: Any) -> Any:
        """Of the many kinds of items, and of parts, name the one that there is not."""
        if not given or not isinstance(given, str | list):
            raise fault("input is a text, or a list of messages, at least 1")
        for place, item in enumerate(given if isinstance(given, list) else ()):
            kind = item.get("type", "message") if isinstance(item, dict) else None
            if isinstance(kind, str) and kind != "message":
                raise fault(f"item {place} is of type {kind[:40]!a}; this server takes messages of text alone")
            content = item.get("content") if isinstance(item, dict) else None
            for part in content if isinstance(content, list) else ():
                kind = part.get("type") if isinstance(part, dict) else None
                if isinstance(kind, str) and kind not in ("input_text", "output_text", "text"):
                    raise fault(f"item {place} has a part of type {kind[:40]!a}; this model reads text alone")
        return given

    def as_chat(self) -> ChatRequest:
        """The same, as a chat."""
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else [*map(_turn, self.input)]
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        wanted = {"logprobs": True, "top_logprobs": self.top_logprobs or 0} if self.logprobs else {}
        same = ("model", "temperature", "top_p", "top_k", "min_p", "seed", "stream", "tacit")
        asked = {name: getattr(self, name) for name in same}
        form = self.text.format if self.text else None
        asked["response_format"] = form.as_chat() if isinstance(form, FlatJsonSchema) else form
        return ChatRequest.model_validate(
            {**asked, "messages": [*system, *items], "max_tokens": self.max_output_tokens, **wanted}
        )

    @property
    def logprobs(self) -> bool:
        """Whether they are wanted."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)


def _turn(item: Item) -> dict[str, Any]:
    content = item.content if isinstance(item.content, str) else "\n".join(part.text for part in item.content)
    return {"role": item.role, "content": content}


class Answered(Conversation):
    """Answers such a request; see ``Exchange``."""

    def __init__(self, service: Service, caller: Caller, asked: ResponsesRequest) -> None:
        super().__init__(service, caller, asked.as_chat())
        self.asked = asked
        self._id = f"resp_{uuid.uuid4().hex}"
        self._item = f"msg_{uuid.uuid4().hex}"

    async def _whole(self) -> bytes:
        rollout = (await self.rollouts())[0]

        def made() -> dict[str, Any]:
            text = self.text().whole(rollout.token_ids)
            return self._message(text, self._told(listed(rollout)), rollout.finish)

        writing = self.service.writing
        done = {**self._response(rollout.finish, await writing(made)), "tacit": await self._settle()}
        return await writing(lambda: written(done))

    async def _events(self) -> AsyncIterator[str]:
        told = _Events(self)
        async for burst in bursts([answering.tokens() for answering in self.answerings]):
            drawn = [one for _, one in burst]
            # Not before there is a token: until then the request can still be refused.
            yield await self.service.writing(lambda drawn=drawn: told.of(drawn))  # type: ignore[misc]
        report = await self._settle()
        yield await self.service.writing(lambda: told.end(report))

    def _told(self, tokens: Any) -> list[dict[str, Any]]:
        listed = self._logprobs(tokens)
        return [] if listed is None else list(listed["content"])

    @staticmethod
    def _part(text: str, tokens: list[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": tokens}

    def _message(self, text: str, tokens: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        content = [] if finish is None else [self._part(text, tokens)]
        return {
            "type": "message", "id": self._item, "status": _status(finish), "role": "assistant", "content": content
        }  # fmt: skip

    def _response(self, finish: str | None, *output: dict[str, Any]) -> dict[str, Any]:
        """The answer as far as it is there; ``finish`` is None while it is not."""
        asked, used = self.asked, self._usage()
        form = asked.text.format if asked.text else None
        usage = {
            "input_tokens": used["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": used["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used["total_tokens"],
        }
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._head["created"],
            "status": _status(finish),
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if finish == "length" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "model": asked.model,
            "output": list(output),
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": form.model_dump(by_alias=True) if form else {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": None if finish is None else usage,
            "user": asked.user,
            "metadata": asked.metadata or {},
        }


class _Events:
    """The events of one answer, in order."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._numbers = count()
        self._detokeniser, self._text, self._finish = answered.text(), "", ""
        self._tokens: list[dict[str, Any]] = []
        self._begun = False

    def of(self, drawn: Sequence[Progress]) -> str:
        """What tells of some tokens."""
        made, by = [], self._answered
        if not self._begun:
            self._begun = True
            made = [self._event(f"response.{kind}", response=by._response(None)) for kind in ("created", "in_progress")]
            made.append(self._event("response.output_item.added", output_index=0, item=by._message("", [], None)))
            made.append(self._event("response.content_part.added", True, part=by._part("", [])))
        for one in drawn:
            shown = self._detokeniser.push(one.token_id, last=one.rollout is not None)
            tokens = by._told([(one.token_id, one.logprob, one.alternatives)])
            self._text += shown
            self._tokens += tokens
            if shown or tokens:
                made.append(self._event("response.output_text.delta", True, delta=shown, logprobs=tokens))
            if one.rollout is not None:
                self._finish = one.rollout.finish
        return "".join(made)

    def end(self, report: dict[str, Any]) -> str:
        """What tells of the whole."""
        by, text, tokens = self._answered, self._text, self._tokens
        message = by._message(text, tokens, self._finish)
        done = {**by._response(self._finish, message), "tacit": report}
        return "".join((
            self._event("response.output_text.done", True, text=text, logprobs=tokens),
            self._event("response.content_part.done", True, part=by._part(text, tokens)),
            self._event("response.output_item.done", output_index=0, item=message),
            self._event(f"response.{done['status']}", response=done),
        ))  # fmt: skip

    def _event(self, kind: str, in_part: bool = False, **more: Any) -> str:
        place = {"item_id": self._answered._item, "output_index": 0, "content_index": 0} if in_part else {}
        told = {"type": kind, "sequence_number": next(self._numbers), **place, **more}
        return f"event: {kind}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n"


def _status(finish: str | None) -> str:
    return {None: "in_progress", "length": "incomplete"}.get(finish, "completed")


def renamed(refused: Refused) -> Refused:
    """A refusal of the chat, by the names that the fields have here."""
    refused.param = FIELDS.get(refused.param or "", refused.param)
    return refused
