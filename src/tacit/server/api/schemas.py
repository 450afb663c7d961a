"""What clients may send, as pydantic models: OpenAI's fields with their bounds, and Tacit's own under ``tacit``.

Builds on pydantic. Unknown fields are refused: a setting that is silently ignored is worse than an error. Fields that
OpenAI's clients send without effect here are accepted where their value asks for nothing (``presence_penalty = 0``).
The first fault of a list, of a table and of unknown fields ends their checking: a body of megabytes can hold hundreds
of thousands of faults, and telling all of them would keep everyone else waiting for seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

MOST_CHOICES = 128
"""Rollouts of one request: prompts times ``n``."""
MOST_TOP = 20
"""Alternatives beside a token."""
MOST_PROMPTS = 128
MOST_MESSAGES = 1024
MOST_LABELS = 16
"""Pairs of ``metadata``, as at OpenAI."""


def _at_most(most: int) -> BeforeValidator:
    """Refuses a larger table before its entries are looked at."""

    def small(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > most:
            raise PydanticCustomError("too_long", f"Dictionary should have at most {most} items, not {len(value)}")
        return value

    return BeforeValidator(small)


# A bound of any kind makes pydantic look into a text; then it refuses half surrogate pairs, which no tokenizer takes.
Content = Annotated[str, StringConstraints(min_length=0)]
Text = Annotated[str, StringConstraints(min_length=1)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=1, le=MOST_CHOICES)]
Tokens = Annotated[int, Field(ge=1, lt=2**31)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Zero = Annotated[float, Field(ge=0, le=0, allow_inf_nan=False)]
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


class Message(Strict):
    """One turn of a conversation; text only."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content | Annotated[list[TextPart], Field(min_length=1, max_length=256, fail_fast=True)]
    name: Annotated[str, StringConstraints(max_length=64)] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(Strict):
    """How to stream."""

    include_usage: bool = False


class TextFormat(Strict):
    """The one response format there is."""

    type: Literal["text"]


class _Asked(Strict):
    """What both kinds of requests share."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    n: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0), _at_most(0)] | None = None
    user: Annotated[str, StringConstraints(max_length=512)] | None = None
    tacit: TacitOptions = Field(default_factory=TacitOptions)

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatRequest(_Asked):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    response_format: TextFormat | None = None
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
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
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
