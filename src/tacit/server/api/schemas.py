"""What clients may send, as pydantic models: OpenAI's fields with their bounds, and Tacit's own under ``tacit``.

Builds on pydantic and fields. Unknown fields are refused: a setting that is silently ignored is worse than an error.
Fields that OpenAI's clients send without effect here are accepted where their value asks for nothing (fields.py). The
first fault of a list, of a table and of unknown fields ends their checking: a body of megabytes can hold hundreds of
thousands of faults. Telling all of them would keep everyone else waiting for seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tacit.server.api.fields import (
    MOST_CALLS,
    CacheControl,
    FromChats,
    FromEverywhere,
    FromMessages,
    FromStreams,
    Word,
    Zero,
    fault,
)
from tacit.server.api.forms import Format

MOST_CHOICES = 128
"""Rollouts of one request: prompts times ``n``."""
MOST_TOP = 20
"""Alternatives beside a token."""
MOST_PROMPTS = 128
MOST_MESSAGES = 1024
MOST_PARTS = 4096
"""Parts of contents and calls of tools, of all messages together: reading each takes everyone's time."""
MOST_LABELS = 16
"""Pairs of ``metadata``, as at OpenAI."""


def _at_most(most: int) -> BeforeValidator:
    """Refuses a larger table before its entries are looked at."""

    def small(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > most:
            raise PydanticCustomError("too_long", f"Dictionary should have at most {most} items, not {len(value)}")
        return value

    return BeforeValidator(small)


def _few_parts(messages: Any) -> Any:
    held = messages[:MOST_MESSAGES] if isinstance(messages, list) else []
    lists = [one.get(name) for one in held if isinstance(one, dict) for name in ("content", "tool_calls")]
    parts = sum(len(one) for one in lists if isinstance(one, list))
    if parts > MOST_PARTS:
        said = f"the messages have {parts} parts; at most {MOST_PARTS} are read, so send texts instead"
        raise PydanticCustomError("too_long", "{said}", {"said": said})
    return messages


# A bound of any kind makes pydantic look into a text; then it refuses half surrogate pairs, which no tokenizer takes.
Content = Annotated[str, StringConstraints(min_length=0)]
Text = Annotated[str, StringConstraints(min_length=1)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Likeliest = Annotated[int, Field(ge=-1, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Top = Annotated[int, Field(ge=0, le=MOST_TOP)]
Count = Annotated[int, Field(ge=1, le=MOST_CHOICES)]
Tokens = Annotated[int, Field(ge=1, lt=2**31)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Ignored = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=MOST_LABELS),
    _at_most(MOST_LABELS),
]


class Strict(BaseModel):
    """Unknown fields are errors; numbers are numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _one_unknown(cls, data: Any) -> Any:
        """Of unknown fields only the first is left to be refused."""
        if not isinstance(data, dict) or len(data) <= len(cls.model_fields):
            return data
        unknown = next(name for name in data if name not in cls.model_fields)
        return {name: value for name, value in data.items() if name in cls.model_fields or name == unknown}


class TacitOptions(Strict):
    """Tacit's own settings of a request, sent as ``extra_body={"tacit": {...}}``.

    Attributes:
        memory: "auto" recalls the most similar memory, "off" answers as the plain model; else a memory's id.
        learn: False forbids learning from this request; True or None leave it to the key's rights.
        problem: what the memory is found by and learned on; by default the last user message, or the prompt.
        route: "verify" asks with and without memory and returns the better answer; "memory" asks with it alone.
    """

    memory: Annotated[str, StringConstraints(min_length=1, max_length=256)] = "auto"
    learn: bool | None = None
    problem: Annotated[str, StringConstraints(min_length=1, max_length=100_000)] | None = None
    route: Literal["verify", "memory"] = "verify"


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: Content
    cache_control: CacheControl | None = None


class CalledFunction(Strict):
    """What a call of a tool named; ``arguments`` is JSON, as the model wrote it."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    arguments: Content


class ToolCall(Strict):
    """A call that another model, or this one by way of another server, made in an earlier turn."""

    id: Word | None = None
    type: Literal["function"] = "function"
    index: int | None = None
    function: CalledFunction


def _with_content(schema: dict[str, Any]) -> None:
    """Describe ``content`` as what it is but for calls of tools: a text that has to be there."""
    content = schema["properties"]["content"]
    content["anyOf"] = [kind for kind in content["anyOf"] if kind.get("type") != "null"]
    del content["default"]
    schema["required"].append("content")


class Message(Strict, FromMessages):
    """One turn of a conversation; text only. A tool's turn, and the calls before it, are there to be read on from; only
    beside ``tool_calls`` may ``content`` be null."""

    model_config = ConfigDict(json_schema_extra=_with_content)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    name: Annotated[str, StringConstraints(max_length=64)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MOST_CALLS, fail_fast=True)] | None = None
    tool_call_id: Word | None = None
    content: Content | Annotated[list[TextPart], Field(min_length=1, max_length=256, fail_fast=True)] | None = Field(
        default=None, validate_default=True
    )

    @field_validator("tool_calls")
    @classmethod
    def _of_the_assistant(cls, calls: list[ToolCall] | None, info: ValidationInfo) -> list[ToolCall] | None:
        if calls and info.data.get("role") != "assistant":
            raise fault("only a message of role 'assistant' has tool_calls")
        return calls

    @field_validator("content", mode="before")
    @classmethod
    def _text_alone(cls, content: Any, info: ValidationInfo) -> Any:
        """What is wrong with a content, in place of one fault for each thing that it might have been."""
        if content is None and not info.data.get("tool_calls"):
            raise fault("the message has no content; give a text")
        if isinstance(content, list):
            for place, part in enumerate(content):
                kind = part.get("type") if isinstance(part, dict) else None
                if isinstance(kind, str) and kind != "text":
                    raise fault(
                        f"part {place} is of type {kind[:40]!a}, but this model reads text alone; send parts as "
                        '{"type": "text", "text": ...}'
                    )
        elif content is not None and not isinstance(content, str):
            raise fault('content is a text, or a list of parts {"type": "text", "text": ...}')
        return content

    @property
    def text(self) -> str:
        """The content as one text."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content)


class StreamOptions(Strict, FromStreams):
    """How to stream."""

    include_usage: bool = False


class _Asked(Strict, FromEverywhere):
    """What both kinds of requests share."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    n: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Likeliest | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0), _at_most(0)] | None = None
    user: Word | None = None
    tacit: TacitOptions = Field(default_factory=TacitOptions)

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatRequest(_Asked, FromChats):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[
        list[Message], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True), BeforeValidator(_few_parts)
    ]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    response_format: Format | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    store: bool | None = None
    metadata: Ignored | None = None


Ids = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


class CompletionRequest(_Asked):
    """Body of ``POST /v1/completions``."""

    prompt: (
        Text
        | Ids
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
    )
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    logprobs: Top | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: Annotated[str, StringConstraints(max_length=0)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """One entry per prompt, text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [list(map(int, self.prompt))]
        return list(self.prompt)
