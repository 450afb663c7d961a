"""What people write with client libraries, in the environment of `make clients`: a conversation, a stream, an error
of each library, told as JSON.

    .venv-clients/bin/python tests/clients/programs.py NAME http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FIRST, SECOND = "compute 34 + 58", "compute 1 + 2"
MODEL = "testbed:tacit"
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
Told = dict[str, Any]


def langchain(url: str) -> Told:
    """ChatOpenAI, of langchain-openai."""
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI
    from openai import BadRequestError

    settings: Any = {"model": MODEL, "base_url": url, "api_key": "none", "temperature": 0, "max_retries": 0}
    chat = ChatOpenAI(**settings)
    first = chat.invoke(FIRST)
    second = chat.invoke([HumanMessage(FIRST), first, HumanMessage(SECOND)])
    call = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 34}, "id": "call_1"}])
    after_tool = chat.invoke([HumanMessage(FIRST), call, ToolMessage("92", tool_call_id="call_1")])
    responses = ChatOpenAI(**settings, use_responses_api=True)
    newer = responses.invoke(FIRST)
    again = responses.invoke([HumanMessage(FIRST), newer, HumanMessage(SECOND)])
    try:
        chat.bind_tools([TOOL]).invoke(FIRST)
    except BadRequestError as error:
        told = str(error)
    return {
        "first": first.content, "second": second.content, "stream": [piece.content for piece in chat.stream(FIRST)],
        "error": told, "usage": first.usage_metadata, "after tool": after_tool.content,
        "first by responses": newer.text, "second by responses": again.text,
        "stream by responses": [piece.text for piece in responses.stream(FIRST)],
    }  # fmt: skip


def litellm(url: str) -> Told:
    """The function ``completion`` of litellm."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks a server for prices
    import litellm

    settings: Any = {"model": f"openai/{MODEL}", "api_base": url, "api_key": "none", "temperature": 0, "max_retries": 0}
    user, more = ({"role": "user", "content": text} for text in (FIRST, SECOND))
    first = litellm.completion(messages=[user], **settings)
    message = first.choices[0].message
    second = litellm.completion(messages=[user, message, more], **settings)
    dumped = litellm.completion(messages=[user, message.model_dump(), more], **settings)
    pieces = litellm.completion(messages=[user], stream=True, stream_options={"include_usage": True}, **settings)
    try:
        litellm.completion(messages=[user], tools=[TOOL], **settings)
    except litellm.BadRequestError as error:
        told = str(error)
    return {
        "first": message.content, "second": second.choices[0].message.content,
        "second from a table": dumped.choices[0].message.content,
        "stream": [one.choices[0].delta.content or "" for one in pieces if one.choices], "error": told,
        "usage": first.usage.model_dump(),
    }  # fmt: skip


def instructor(url: str) -> Told:
    """instructor without tools or formats of the server: the answer's form stands in the prompt (MD_JSON)."""
    import instructor
    import openai
    from pydantic import BaseModel

    class Answer(BaseModel):
        """What is asked for."""

        answer: int

    client = instructor.from_openai(
        openai.OpenAI(base_url=url, api_key="none", max_retries=0), mode=instructor.Mode.MD_JSON
    )
    settings: Any = {"model": MODEL, "temperature": 0}
    user, more = ({"role": "user", "content": text} for text in (FIRST, SECOND))
    first = client.chat.completions.create(response_model=None, messages=[user], **settings)
    message = first.choices[0].message
    back = [user, message.model_dump(), more]
    second = client.chat.completions.create(response_model=None, messages=back, **settings)
    pieces = client.chat.completions.create(response_model=None, messages=[user], stream=True, **settings)
    stream = [one.choices[0].delta.content or "" for one in pieces if one.choices]
    try:  # this model writes no JSON; instructor asks again with the answer and what is wrong with it, and gives up
        client.chat.completions.create(response_model=Answer, messages=[user], max_retries=1, **settings)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    return {"first": message.content, "second": second.choices[0].message.content, "stream": stream, "error": told}


def llm(url: str) -> Told:
    """The command ``llm`` with its logs, which it goes on with a conversation from."""
    with tempfile.TemporaryDirectory() as folder:
        models = f'- model_id: mine\n  model_name: "{MODEL}"\n  api_base: "{url}"\n'
        Path(folder, "extra-openai-models.yaml").write_text(models, encoding="utf-8")

        def run(*words: str, code: int = 0) -> str:
            command = [sys.executable, "-m", "llm", *words]
            env = {**os.environ, "LLM_USER_PATH": folder}
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
            assert done.returncode == code, done.stderr
            return (done.stderr if code else done.stdout).strip()

        key = ("--key", "none", "-o", "temperature", "0")
        stream = run("-m", "mine", FIRST, *key)
        first = run("-m", "mine", FIRST, "--no-stream", *key)
        second = run("-c", SECOND, "--no-stream", *key)
        logged = json.loads(run("logs", "--json", "-n", "0"))
        error = run("-m", "mine", FIRST, "-o", "presence_penalty", "1", "--key", "none", code=1)
    return {
        "first": first, "second": second, "stream": [stream], "error": error,
        "logs": [(one["prompt"], one["response"]) for one in logged],
        "usage": [(one["input_tokens"], one["output_tokens"]) for one in logged],
    }  # fmt: skip


if __name__ == "__main__":
    name, where = sys.argv[1:]
    programs = {"langchain": langchain, "litellm": litellm, "instructor": instructor, "llm": llm}
    print(json.dumps(programs[name](where)))
