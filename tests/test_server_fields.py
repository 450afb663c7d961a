"""What client libraries send as they are: messages that come back, fields that ask for nothing, turns begun, tools."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel
from starlette.testclient import TestClient

from server import InProcess
from tacit.engines.base import Request
from tacit.engines.grammar import of_schema
from tacit.engines.local import LocalEngine
from tacit.model.backbone import Backbone
from tacit.seeds import derive
from tacit.server.api.schemas import Message
from tacit.server.api.turns import turns_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "2 3 +"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
TOOLED = [
    USER,
    {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "5"},
]


def asked(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [USER], "temperature": 0, "max_tokens": 4, **changes}


def answered(raw: TestClient, path: str = CHAT, **changes: Any) -> Any:
    response = raw.post(path, json=asked(**changes))
    assert response.status_code == 200, response.text
    return response.json()


def refused(raw: TestClient, path: str = CHAT, **changes: Any) -> tuple[str, str]:
    """The field at fault, and what is said of it."""
    response = raw.post(path, json=asked(**changes))
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    return error["param"], error["message"]


# -- a message of ours comes back -------------------------------------------------------------------------------------


def test_our_own_message_can_be_sent_back_as_the_sdk_does_it(client: openai.OpenAI, raw: TestClient) -> None:
    first = client.chat.completions.create(**asked())
    message = first.choices[0].message
    again = client.chat.completions.create(**asked(messages=[USER, message, USER]))
    plain = client.chat.completions.create(
        **asked(messages=[USER, {"role": "assistant", "content": message.content}, USER])
    )
    assert again.choices[0].message.content == plain.choices[0].message.content
    assert message.model_dump()["tool_calls"] is None  # the SDK's class has fields that we never sent
    for back in (message.model_dump(), message.to_dict(), first.model_dump()["choices"][0]["message"]):
        body = answered(raw, messages=[USER, back, USER])
        assert body["choices"][0]["message"]["content"] == plain.choices[0].message.content


@pytest.mark.parametrize("wrong, said", [
    ({"refusal": "I cannot"}, "refusal"),
    ({"audio": {"id": "a"}}, "audio"),
    ({"annotations": [{"type": "url_citation"}]}, "annotations"),
    ({"function_call": {"name": "f", "arguments": ""}}, "function_call"),
    ({"reasoning_content": "because"}, "reasoning_content"),
])  # fmt: skip
def test_what_a_message_may_not_bring_is_named(raw: TestClient, wrong: dict[str, Any], said: str) -> None:
    param, _ = refused(raw, messages=[USER, {"role": "assistant", "content": "5", **wrong}, USER])
    assert param == f"messages.1.{said}"


# -- fields that ask for nothing, and for something ------------------------------------------------------------------

NOTHING: list[dict[str, Any]] = [
    {"tools": []},
    {"tools": None},
    {"functions": []},
    {"tool_choice": "none"},
    {"tool_choice": "auto"},
    {"function_call": "none"},
    {"parallel_tool_calls": False},
    {"service_tier": "auto"},
    {"modalities": ["text"]},
    {"audio": None},
    {"prediction": None},
    {"reasoning_effort": None},
    {"verbosity": "medium"},
    {"stream_options": None},
    {"safety_identifier": "someone", "prompt_cache_key": "key", "user": "someone"},
    {"min_p": 0, "top_k": -1, "repetition_penalty": 1, "presence_penalty": 0, "min_tokens": 0, "ignore_eos": False},
    {"min_p": 0.0, "top_k": 0, "repetition_penalty": 1.0, "skip_special_tokens": True},
    {"messages": [{**USER, "type": "message", "id": "msg_1"}]},
    {"messages": [{**USER, "cache_control": {"type": "ephemeral"}}]},
    {"messages": [{**USER, "content": [{"type": "text", "text": "2 3 +", "cache_control": {"type": "ephemeral"}}]}]},
    {"response_format": {"type": "text"}},
    {"chat_template_kwargs": {}},
]  # fmt: skip


@pytest.mark.parametrize("fields", NOTHING, ids=str)
def test_fields_that_ask_for_nothing_change_nothing(raw: TestClient, fields: dict[str, Any]) -> None:
    assert answered(raw, **fields)["choices"] == answered(raw)["choices"]


def test_stream_options_that_ask_for_nothing(raw: TestClient) -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    response = raw.post(CHAT, json=asked(stream=True, stream_options=options))
    assert response.status_code == 200 and response.text.endswith("data: [DONE]\n\n")
    error = raw.post(CHAT, json=asked(stream=True, stream_options={"continuous_usage_stats": True})).json()["error"]
    assert error["param"] == "stream_options.continuous_usage_stats"


SOMETHING: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "add"}}]}, "calls no tools"),
    ({"functions": [{"name": "add"}]}, "calls no tools"),
    ({"tool_choice": "required"}, "calls no tools"),
    ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, "calls no tools"),
    ({"service_tier": "priority"}, "leave it out"),
    ({"modalities": ["text", "audio"]}, "text alone"),
    ({"audio": {"voice": "a", "format": "wav"}}, "leave it out"),
    ({"prediction": {"type": "content", "content": "5"}}, "leave it out"),
    ({"web_search_options": {}}, "leave it out"),
    ({"reasoning_effort": "high"}, "leave it out"),
    ({"repetition_penalty": 1.1}, "leave it out"),
    ({"min_tokens": 3}, "leave it out"),
    ({"ignore_eos": True}, "leave it out"),
    ({"chat_template": "{{ messages }}"}, "leave it out"),
    ({"mirostat": 2}, "does not know"),
]


@pytest.mark.parametrize("fields, said", SOMETHING, ids=str)
def test_fields_that_ask_for_something_are_refused_by_name(raw: TestClient, fields: dict[str, Any], said: str) -> None:
    param, message = refused(raw, **fields)
    assert param == next(iter(fields)) and said in message


# -- the assistant's turn, begun by the client ------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["off", "auto"])
def test_the_assistants_turn_is_continued(server: InProcess, raw: TestClient, memory: str) -> None:
    said = answered(raw, max_tokens=12)["choices"][0]["message"]["content"]
    backbone = server.service.backbone
    ids = backbone.tokenizer("<|user|>2 3 +<|bot|>" + "Answer: ", add_special_tokens=False, return_tensors="pt")
    expected = greedy(backbone, ids["input_ids"][0])
    for more in ({}, {"continue_final_message": True}, {"add_generation_prompt": False}):
        begun = [USER, {"role": "assistant", "content": "Answer: "}]
        body = answered(raw, model="tiny:tacit", messages=begun, max_tokens=12, tacit={"memory": memory}, **more)
        assert body["choices"][0]["message"]["content"] == expected != said
        assert body["tacit"]["job"] is None and "say it all" in body["tacit"]["learning"]
    assert (
        answered(raw, messages=[USER, {"role": "assistant", "content": ""}], max_tokens=12)["choices"]
        == (answered(raw, max_tokens=12)["choices"])
    )


def greedy(backbone: Backbone, ids: Any, tokens: int = 12) -> str:
    [[one]] = LocalEngine(backbone).generate([Request(ids, temperature=0.0, max_tokens=tokens)])
    return str(backbone.tokenizer.decode(one.token_ids, skip_special_tokens=True))


def test_a_turn_after_the_assistants_is_begun_on_request(server: InProcess, raw: TestClient) -> None:
    body = answered(
        raw, messages=[USER, {"role": "assistant", "content": "a"}], add_generation_prompt=True, max_tokens=12
    )
    tokenizer = server.service.backbone.tokenizer
    ids = tokenizer("<|user|>2 3 +<|bot|>a<|end|><|bot|>", add_special_tokens=False, return_tensors="pt")["input_ids"]
    assert body["choices"][0]["message"]["content"] == greedy(server.service.backbone, ids[0])


@pytest.mark.parametrize("last, flags, param", [
    ("user", {"continue_final_message": True}, "continue_final_message"),
    ("user", {"add_generation_prompt": False}, "add_generation_prompt"),
    ("assistant", {"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    ("assistant", {"continue_final_message": False, "add_generation_prompt": False}, "add_generation_prompt"),
    ("system", {}, "messages"),
])  # fmt: skip
def test_contradictions_about_the_last_turn_are_refused(
    raw: TestClient, last: str, flags: dict[str, bool], param: str
) -> None:
    assert refused(raw, messages=[USER, {"role": last, "content": "a"}], **flags)[0] == param


# -- conversations in which tools were called -------------------------------------------------------------------------


def test_a_conversation_with_a_tool_is_read_on_from(client: openai.OpenAI, raw: TestClient) -> None:
    answer = client.chat.completions.create(**asked(messages=TOOLED))
    same = [
        USER,
        {"role": "assistant", "content": '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'},
        {"role": "user", "content": "<tool_response>\n5\n</tool_response>"},
    ]
    assert answer.choices[0].message.content == answered(raw, messages=same)["choices"][0]["message"]["content"]
    body = answered(raw, model="tiny:tacit", messages=TOOLED)
    assert body["tacit"]["job"] is None  # and the problem is the user's, not the tool's
    assert refused(raw, messages=TOOLED[:2])[0] == "messages"  # the call is not answered yet
    assert refused(raw, messages=TOOLED[2:])[0] == "messages"
    assert refused(raw, messages=[{**USER, "tool_calls": [CALL]}])[0] == "messages.0.tool_calls"


def test_a_template_that_knows_tools_gets_them_as_they_are() -> None:
    messages = [Message.model_validate(one) for one in TOOLED]
    [_, assistant, tool] = turns_of(messages, "{% for call in message.tool_calls %}")
    assert assistant["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 2, "b": 3}}
    assert tool == {"role": "tool", "content": "5", "tool_call_id": "call_1"}
    two = [*messages, messages[-1]]
    assert [turn["role"] for turn in turns_of(two, "")] == ["user", "assistant", "user"]


# -- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"top_k": 3}, {"min_p": 0.5}, {"top_k": 8, "min_p": 0.2, "top_p": 0.8}], ids=str)
def test_with_memory_off_unlikely_tokens_are_left_out_as_by_the_plain_engine(
    server: InProcess, raw: TestClient, how: dict[str, Any]
) -> None:
    settings = {"temperature": 1.0, "seed": 3, "n": 3, "max_tokens": 12, "logprobs": True, "top_logprobs": 8}
    told = answered(raw, model="tiny:tacit", tacit={"memory": "off"}, **settings, **how)["choices"]
    assert told == answered(raw, **settings, **how)["choices"] != answered(raw, **settings)["choices"]
    backbone = server.service.backbone
    request = Request(backbone.encode("2 3 +"), n=3, max_tokens=12, top=8, **how)
    request = replace(request, seeds=tuple(derive(3, "serve", index) for index in range(3)))
    [expected] = LocalEngine(backbone).generate([request])
    for choice, rollout in zip(told, expected, strict=True):
        content = choice["logprobs"]["content"]
        assert [one["logprob"] for one in content] == list(rollout.logprobs[: len(content)])
        assert all(len(one["top_logprobs"]) <= how.get("top_k", 8) for one in content)
    raw_text = {"prompt": "2 3 +", "temperature": 1.0, "seed": 3, "max_tokens": 12, **how}
    response = raw.post(COMPLETIONS, json={"model": "tiny", **raw_text})
    assert response.status_code == 200


# -- parts of characters ----------------------------------------------------------------------------------------------


def test_a_token_that_is_part_of_a_character_is_told_by_its_bytes(server: InProcess, raw: TestClient) -> None:
    tokenizer = server.service.backbone.tokenizer
    ids = tokenizer("é数", add_special_tokens=False)["input_ids"]
    asked = {"model": "tiny", "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 20}
    listed = raw.post(COMPLETIONS, json=asked).json()["choices"][0]["logprobs"]
    assert listed["tokens"] == [f"bytes:\\x{byte:02x}" for byte in "é数".encode()]
    assert all(len(top) == 20 for top in listed["top_logprobs"][1:])  # none hides another
    hot = {"temperature": 2, "seed": 4, "max_tokens": 24, "logprobs": True, "top_logprobs": 20}
    choice = answered(raw, **hot)["choices"][0]
    content = choice["logprobs"]["content"]
    assert "\N{REPLACEMENT CHARACTER}" in "".join(token["token"] for token in content)
    for token in (one for listed in content for one in (listed, *listed["top_logprobs"])):
        if token["token"] == "\N{REPLACEMENT CHARACTER}":
            assert len(token["bytes"]) == 1 and token["bytes"][0] >= 128


# -- answers of a form ------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["answer", "sure"],
    "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 99}, "sure": {"enum": ["yes", "no"]}},
}  # fmt: skip
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


def follows(text: str) -> bool:
    found = json.loads(text)
    return set(found) == {"answer", "sure"} and 0 <= found["answer"] <= 99 and found["sure"] in ("yes", "no")


def test_an_answer_follows_a_schema_whatever_the_model_would_say(server: InProcess, raw: TestClient) -> None:
    how = {"response_format": FORM, "max_tokens": 200, "temperature": 1.5, "n": 8, "seed": 1}
    choices = answered(raw, model="tiny:tacit", **how)["choices"]
    assert all(one["finish_reason"] == "stop" and follows(one["message"]["content"]) for one in choices)
    assert len({one["message"]["content"] for one in choices}) > 2
    assert answered(raw, **how)["choices"] == choices
    alone = answered(raw, **{**how, "n": 1})["choices"][0]  # whoever shares the batch
    assert alone["message"] == choices[0]["message"]
    request = Request(
        server.service.backbone.encode("2 3 +"), temperature=0.0, max_tokens=200, grammar=of_schema(SCHEMA)
    )
    [[greedy_one]] = LocalEngine(server.service.backbone).generate([request])
    told = answered(raw, response_format=FORM, max_tokens=200, logprobs=True)["choices"][0]
    assert json.loads(told["message"]["content"]) == json.loads(greedy_one.text)
    content = told["logprobs"]["content"]
    assert [one["logprob"] for one in content] == list(greedy_one.logprobs[: len(content)])
    assert answered(raw)["choices"] == answered(raw, response_format={"type": "text"})["choices"]


def test_an_answer_of_a_form_is_streamed_and_parsed_by_the_sdk(client: openai.OpenAI) -> None:
    class Answer(BaseModel):
        """What the SDK makes a schema of."""

        answer: int
        sure: Literal["yes", "no"]

    how: Any = {"model": "tiny", "temperature": 1, "seed": 2}
    parsed = (
        client.chat.completions.parse(
            messages=[USER],
            response_format=Answer,
            max_tokens=200,
            **how,  # type: ignore[list-item]
        )
        .choices[0]
        .message.parsed
    )
    assert isinstance(parsed, Answer)
    pieces = client.chat.completions.create(messages=[USER], response_format=FORM, max_tokens=200, stream=True, **how)
    assert follows("".join(piece.choices[0].delta.content or "" for piece in pieces))
    form = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}
    answer = client.responses.create(
        model="tiny",
        input="2 3 +",
        text=form,
        max_output_tokens=200,
        temperature=0,  # type: ignore[call-overload]
    )
    assert follows(answer.output_text) and answer.text.format.type == "json_schema"


def test_any_object(raw: TestClient) -> None:
    choices = answered(raw, response_format={"type": "json_object"}, temperature=1, n=8, seed=1, max_tokens=300)[
        "choices"
    ]
    whole = [one["message"]["content"] for one in choices if one["finish_reason"] == "stop"]
    assert whole and all(isinstance(json.loads(text), dict) for text in whole)
    assert all(one["message"]["content"].startswith("{") for one in choices)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def joined(patterns: int) -> dict[str, Any]:
    return {"type": "string", "allOf": [{"pattern": f".*{chr(97 + number)}.*"} for number in range(patterns)]}


@pytest.mark.parametrize("schema, said", [
    ({"type": "weird"}, "weird"),
    ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
    ({"$ref": "https://example.org/schema"}, "example.org"),
    (deep(100), "smaller"),
    ({"enum": ["x" * 60_000]}, "smaller"),
    (joined(24), "join fewer"),  # which would take minutes, and all others would wait
    ({"type": "object", "properties": {"a": {"$ref": "#/$defs/0"}}, "$defs": {
        str(number): {"pattern": f".*{number}.*", "$ref": f"#/$defs/{number + 1}"} for number in range(24)
    }}, "join fewer"),
], ids=["type", "keyword", "ref", "deep", "large", "joined", "joined by references"])  # fmt: skip
def test_a_schema_that_cannot_be_followed_is_refused(raw: TestClient, schema: dict[str, Any], said: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    param, message = refused(raw, response_format=form)
    assert param == "response_format" and said in message
    refusal = raw.post("/v1/responses", json={
        "model": "tiny", "input": "2", "text": {"format": {"type": "json_schema", "name": "a", "schema": schema}}
    })  # fmt: skip
    assert refusal.status_code == 400 and refusal.json()["error"]["param"] == "text.format"


def test_forms_that_there_are_not_are_refused(raw: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(raw, response_format={"type": "grammar"})[0] == "response_format"
    assert refused(raw, response_format={"type": "json_schema"})[0].startswith("response_format")
    begun = [USER, {"role": "assistant", "content": "{"}]
    assert refused(raw, response_format=FORM, messages=begun)[0] == "response_format"
    monkeypatch.setitem(sys.modules, "llguidance", None)  # as if it were not installed
    param, message = refused(raw, response_format=FORM)
    assert param == "response_format" and "grammar" in message and "install" in message


def test_a_model_whose_tokens_cannot_be_held_to_a_form_says_so(tmp_path: Path) -> None:
    server = InProcess(tmp_path / "bank.db")  # the testbed's tokens are words
    try:
        response = server.anyone().post(CHAT, json={**asked(response_format=FORM), "model": "testbed"})
        error = response.json()["error"]
        assert response.status_code == 400 and error["param"] == "response_format" and "in words" in error["message"]
    finally:
        server.service.close()
