"""``/v1/responses`` through the ``openai`` package: the same answers as of a chat, whole and as typed events."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.responses import Response
from starlette.testclient import TestClient

PATH = "/v1/responses"
USER = {"role": "user", "content": "2 3 +"}


def chat(client: openai.OpenAI, messages: list[Any], **settings: Any) -> str:
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, **settings)
    return str(answer.choices[0].message.content)


def test_a_response_is_the_chats_answer(client: openai.OpenAI) -> None:
    expected = chat(client, [USER], temperature=0)
    parts = {**USER, "type": "message", "content": [{"type": "input_text", "text": "2 3 +"}]}
    forms: list[Any] = ["2 3 +", [USER], [parts]]
    for asked in forms:
        answer = client.responses.create(model="tiny", input=asked, temperature=0, max_output_tokens=12)
        assert answer.output_text == expected and answer.status == "incomplete"
        assert answer.incomplete_details is not None and answer.incomplete_details.reason == "max_output_tokens"
        assert answer.usage is not None and answer.usage.output_tokens == 12
        Response.model_validate(answer.model_dump(), strict=False)  # every field is of its type
    told = client.responses.create(
        model="tiny:tacit", input="2 3 +", instructions="Be brief.", max_output_tokens=12, extra_body={"seed": 4}
    )
    assert told.output_text == chat(client, [{"role": "system", "content": "Be brief."}, USER], seed=4)
    assert told.model_dump()["tacit"]["route"] == "no_memory"


def test_its_own_output_can_be_sent_back(client: openai.OpenAI) -> None:
    first = client.responses.create(model="tiny", input="2 3 +", temperature=0, max_output_tokens=12)
    assistant = {"role": "assistant", "content": first.output_text}
    expected = chat(client, [USER, assistant, USER], temperature=0)
    for back in ([one.model_dump() for one in first.output], [one.to_dict() for one in first.output], first.output):
        conversation: Any = [USER, *back, USER]
        again = client.responses.create(model="tiny", input=conversation, temperature=0, max_output_tokens=12)
        assert again.output_text == expected


def test_a_stream_is_of_typed_events_that_make_up_the_response(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "input": "2 3 +", "temperature": 0, "max_output_tokens": 12}
    asked |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]  # fmt: skip # noqa: E501
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.incomplete"]  # fmt: skip # noqa: E501
    assert set(kinds[4:-4]) == {"response.output_text.delta"} and len(kinds) > 12
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type == "response.incomplete" and last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage and last.response.model_dump()["tacit"]["route"] == "off"
    message: Any = whole.output[0]
    tokens = message.content[0].logprobs
    assert tokens and all(len(token.top_logprobs) == 2 and token.bytes for token in tokens)


def test_the_sdks_helper_gathers_a_stream(client: openai.OpenAI) -> None:
    expected = client.responses.create(model="tiny", input="2 3 +", temperature=0, max_output_tokens=12)
    with client.responses.stream(model="tiny", input="2 3 +", temperature=0, max_output_tokens=12) as stream:
        shown = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
    assert shown[-1] == expected.output_text


NOTHING: list[dict[str, Any]] = [
    {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
    {"store": True, "metadata": {"a": "b"}, "user": "someone", "safety_identifier": "a", "prompt_cache_key": "b"},
    {"previous_response_id": None, "conversation": None, "background": False, "truncation": "disabled"},
    {"text": {"format": {"type": "text"}, "verbosity": "medium"}, "reasoning": {"effort": None, "summary": None}},
    {"include": ["reasoning.encrypted_content"], "service_tier": "auto", "stream_options": None},
]


@pytest.mark.parametrize("fields", NOTHING, ids=str)
def test_fields_that_ask_for_nothing_change_nothing(raw: TestClient, fields: dict[str, Any]) -> None:
    asked = {"model": "tiny", "input": "2 3 +", "temperature": 0, "max_output_tokens": 4}
    plain, more = raw.post(PATH, json=asked), raw.post(PATH, json={**asked, **fields})
    assert more.status_code == 200, more.text
    assert [o["content"] for o in more.json()["output"]] == [o["content"] for o in plain.json()["output"]]


SOMETHING: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [{"type": "web_search"}]}, "tools", "calls no tools"),
    ({"previous_response_id": "resp_1"}, "previous_response_id", "whole conversation"),
    ({"conversation": "conv_1"}, "conversation", "whole conversation"),
    ({"background": True}, "background", "leave it out"),
    ({"truncation": "auto"}, "truncation", "leave it out"),
    ({"reasoning": {"effort": "high"}}, "reasoning.effort", "leave it out"),
    ({"input": [{"type": "function_call_output", "call_id": "a", "output": "5"}]}, "input", "function_call_output"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": ""}]}]}, "input", "input_image"),
    ({"input": [{"role": "system", "content": "a"}]}, "input", "user"),
    ({"input": []}, "input", "at least 1"),
    ({"max_output_tokens": 10**6}, "input", "do not fit"),
    ({"model": "gpt"}, "model", "no model"),
    ({"messages": [USER]}, "messages", "does not know"),
]


@pytest.mark.parametrize("fields, param, said", SOMETHING, ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_cannot_be_had_is_refused_by_its_name_here(
    raw: TestClient, fields: dict[str, Any], param: str, said: str, stream: bool
) -> None:
    response = raw.post(PATH, json={"model": "tiny", "input": "2 3 +", "stream": stream, **fields})
    error = response.json()["error"]
    assert response.status_code in (400, 404) and error["param"] == param and said in error["message"], error


def test_as_many_messages_as_there_may_be(raw: TestClient) -> None:
    for count in (1023, 1024):
        response = raw.post(PATH, json={"model": "tiny", "input": [USER] * count, "instructions": "a"})
        assert response.status_code == 400, count  # too long, or too many: a refusal either way
