"""Fields that clients send though they ask for nothing here, and what is said where they ask for something.

Builds on pydantic. Client libraries send every field they know, and send an assistant's message back with all that it
came with. Such fields are taken with the values that change nothing; with another value they are refused by name, since
a setting that is silently ignored is worse than an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

NO_TOOLS = "this server calls no tools; leave it out, or send an empty list"
NO_CHOICE = "this server calls no tools; leave it out, or send 'none'"
TEXT_ALONE = "this model reads and writes text alone; leave it out, or ask for ['text']"
NOT_DONE = "this server cannot do that; leave it out"

MOST_CALLS = 128


def fault(why: str) -> PydanticCustomError:
    """A fault in a field, in a sentence that is told as it is."""
    return PydanticCustomError("not_done", "{why}", {"why": why})


def only(*values: Any, but: str = NOT_DONE) -> BeforeValidator:
    """Takes None and ``values``, and refuses all else with ``but``."""

    def known(value: Any) -> Any:
        if value is not None and not any(type(value) is type(one) and value == one for one in values):
            raise fault(but)
        return value

    return BeforeValidator(known)


def number(value: float) -> BeforeValidator:
    """Takes None and one number, whole or not."""
    return only(float(value), int(value), but=f"this server can do no other than {value:g}; leave it out")


Nothing = Annotated[None, only()]
Empty = Annotated[list[Any], Field(max_length=0)]
NoTools = Annotated[Empty | None, only([], but=NO_TOOLS)]
NoChoice = Annotated[Literal["none", "auto"] | None, only("none", "auto", but=NO_CHOICE)]
NoTable = Annotated[dict[str, Any], Field(max_length=0)]
NoText = Annotated[str, StringConstraints(max_length=0)]
Word = Annotated[str, StringConstraints(max_length=512)]
Zero = Annotated[float, Field(ge=0, le=0, allow_inf_nan=False)]


class CacheControl(BaseModel):
    """Where a client would have a prompt cached; that is done here without asking."""

    type: Literal["ephemeral"]
    ttl: Word | None = None


class FromEverywhere(BaseModel):
    """Of both kinds of requests: what vLLM's clients send."""

    repetition_penalty: Annotated[Annotated[float, Field(ge=1, le=1)] | None, number(1)] = None
    min_tokens: Annotated[Annotated[int, Field(ge=0, le=0)] | None, only(0)] = None
    ignore_eos: Annotated[Literal[False] | None, only(False)] = None
    skip_special_tokens: Annotated[Literal[True] | None, only(True)] = None


class FromConversations(BaseModel):
    """Of a conversation, in either of OpenAI's forms."""

    tools: NoTools = None
    tool_choice: NoChoice = None
    parallel_tool_calls: bool | None = None
    service_tier: Annotated[Literal["auto", "default"] | None, only("auto", "default")] = None
    safety_identifier: Word | None = None
    prompt_cache_key: Word | None = None
    prompt_cache_retention: Word | None = None


class FromChats(FromConversations):
    """Of a chat."""

    functions: NoTools = None
    function_call: NoChoice = None
    modalities: Annotated[
        Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None, only(["text"], but=TEXT_ALONE)
    ] = None
    audio: Nothing = None
    prediction: Nothing = None
    web_search_options: Nothing = None
    reasoning_effort: Annotated[Literal["none"] | None, only("none")] = None
    verbosity: Annotated[Literal["medium"] | None, only("medium")] = None
    chat_template: Nothing = None
    chat_template_kwargs: Annotated[NoTable | None, only({})] = None


class FromStreams(BaseModel):
    """Of ``stream_options``; obfuscation would only be padding."""

    include_obfuscation: bool | None = None
    continuous_usage_stats: Annotated[Literal[False] | None, only(False)] = None


class FromMessages(BaseModel):
    """Of a message: what a response's has, and what the libraries' own classes add."""

    refusal: Nothing = None
    annotations: Annotated[Empty | None, only([])] = None
    audio: Nothing = None
    function_call: Nothing = None
    reasoning: Annotated[NoText | None, only("")] = None
    reasoning_content: Annotated[NoText | None, only("")] = None
    provider_specific_fields: Annotated[NoTable | None, only({})] = None
    id: Word | None = None
    type: Literal["message"] | None = None
    status: Literal["completed", "incomplete"] | None = None
    cache_control: CacheControl | None = None
