"""Other people's clients, unchanged, against a real server: each has a conversation, a stream and an error.

LangChain, LiteLLM, llm and instructor run in the environment of ``make clients``; Open WebUI's requests are sent as it
sends them; lm-eval has a file of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from server import Served, serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
PROGRAMS = ROOT / "tests" / "clients" / "programs.py"
FIRST, SECOND = "compute 34 + 58", "compute 1 + 2"
MODEL = "testbed:tacit"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("clients") / "bank.sqlite", "--no-learn") as running:
        yield running


@pytest.fixture(scope="module")
def expected(served: Served) -> tuple[str, str]:
    """The two answers of the conversation, by the openai package."""
    client, said = served.client(), []
    messages: list[Any] = []
    for asked in (FIRST, SECOND):
        messages.append({"role": "user", "content": asked})
        answer = client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
        messages.append(answer.choices[0].message)
        said.append(str(answer.choices[0].message.content))
    return said[0], said[1]


def told(name: str, served: Served) -> dict[str, Any]:
    """What a program saw."""
    if not PYTHON.exists() and "CI" not in os.environ:
        pytest.skip("needs other people's clients: `make clients` installs them")
    command = [str(PYTHON), str(PROGRAMS), name, f"{served.url}/v1"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name, error", [
    ("langchain", "calls no tools"),
    ("litellm", "calls no tools"),
    ("instructor", "Invalid JSON"),
    ("llm", "presence_penalty"),
])  # fmt: skip
def test_a_library_has_a_conversation_a_stream_and_an_error(
    served: Served, expected: tuple[str, str], name: str, error: str
) -> None:
    found = told(name, served)
    assert (found["first"], found["second"]) == expected
    assert "".join(found["stream"]) == expected[0] and (len(found["stream"]) > 3 or name == "llm")
    assert error in found["error"]
    if name == "langchain":
        assert found["first by responses"] == "".join(found["stream by responses"]) == expected[0]
        assert found["second by responses"] == expected[1] and found["after tool"]
        assert found["usage"]["output_tokens"] > 0
    if name == "litellm":
        assert found["second from a table"] == expected[1] and found["usage"]["completion_tokens"] > 0
    if name == "llm":
        assert [FIRST, expected[0]] in found["logs"] and [SECOND, expected[1]] in found["logs"]
        assert all(read > 0 and made > 0 for read, made in found["usage"])


# -- Open WebUI -------------------------------------------------------------------------------------------------------

HEADERS = {
    "Authorization": "Bearer none", "Content-Type": "application/json", "X-OpenWebUI-User-Name": "Ann%20Other",
    "X-OpenWebUI-User-Id": "5c6b4c67", "X-OpenWebUI-User-Email": "ann@example.org", "X-OpenWebUI-User-Role": "admin",
}  # fmt: skip
TITLE = """### Task:
Generate a concise, 3-5 word title with an emoji summarizing the chat history.
### Output:
JSON format: { "title": "your concise title here" }
### Chat History:
<chat_history>
USER: compute 34 + 58
ASSISTANT: 92
</chat_history>"""


def test_open_webui(served: Served, expected: tuple[str, str]) -> None:
    """The bodies that its backend sends: the list of models, a streamed conversation, and the tasks beside it."""
    url = f"{served.url}/v1"
    with httpx.Client(headers=HEADERS, timeout=120) as client:
        listed = client.get(f"{url}/models").json()
        assert MODEL in [one["id"] for one in listed["data"]]

        def streamed(messages: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
            body = {
                "stream": True, "model": MODEL, "messages": messages, "stream_options": {"include_usage": True},
                "temperature": 0,
            }  # fmt: skip
            with client.stream("POST", f"{url}/chat/completions", json=body) as response:
                assert response.status_code == 200
                assert response.headers["content-type"].startswith("text/event-stream")  # or it reads it as a whole
                lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
            assert lines.pop() == "[DONE]"
            chunks = [json.loads(line) for line in lines]
            text = "".join(one["delta"].get("content") or "" for chunk in chunks for one in chunk["choices"])
            return text, chunks[-1]["usage"]

        user = {"role": "user", "content": FIRST}
        first, usage = streamed([user])
        assert first == expected[0] and usage["total_tokens"] > usage["completion_tokens"] > 0
        second, _ = streamed([user, {"role": "assistant", "content": first}, {"role": "user", "content": SECOND}])
        assert second == expected[1]
        for most in ({"max_completion_tokens": 60}, {"max_tokens": 60}):  # a title, tags, follow-ups
            task = {"model": MODEL, "messages": [{"role": "user", "content": TITLE}], "stream": False, **most}
            answer = client.post(f"{url}/chat/completions", json=task)
            assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"]
        image = [{"type": "text", "text": FIRST}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
        wrong = client.post(
            f"{url}/chat/completions",
            json={"stream": True, "model": MODEL, "messages": [{"role": "user", "content": image}]},
        )
        assert wrong.status_code == 400 and "text alone" in wrong.json()["error"]["message"]  # which is shown to Ann


def test_the_openai_package(served: Served, expected: tuple[str, str]) -> None:
    """The responses of the openai package, streamed by its own helper, and their error."""
    client = served.client()
    with client.responses.stream(model=MODEL, input=FIRST, temperature=0) as stream:
        shown = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        first = stream.get_final_response()
    conversation: list[Any] = [{"role": "user", "content": FIRST}, *first.output, {"role": "user", "content": SECOND}]
    second = client.responses.create(model=MODEL, input=conversation, temperature=0)
    assert (shown, first.output_text, second.output_text) == (expected[0], *expected)
    with pytest.raises(openai.BadRequestError, match="calls no tools"):
        client.responses.create(model=MODEL, input=FIRST, tools=[{"type": "web_search"}])
