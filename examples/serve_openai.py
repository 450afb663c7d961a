"""A server that learns from its traffic, asked by the openai package: python examples/serve_openai.py

It starts tacit serve --bank served.sqlite --port 8765 by itself. Needed before: pip install -e '.[serve]' openai
"""

import subprocess
import sys
import time
from typing import Any

import openai

PORT = sys.argv[1] if len(sys.argv) > 1 else "8765"
SERVE = [sys.executable, "-m", "tacit", "serve", "--bank", "served.sqlite", "--port", PORT]
PROBLEMS = [f"compute {number} * {factor}" for number, factor in ((99, 4), (86, 3), (57, 6), (48, 7), (92, 3), (65, 4))]


def ask(client: openai.OpenAI, model: str, problem: str) -> str:
    """Ask as any program does, and give the answer with what Tacit says of it."""
    said = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": problem}], temperature=0, max_tokens=64
    )
    tacit = (said.model_extra or {}).get("tacit") or {}
    return f"{said.choices[0].message.content}  ({tacit.get('route')}: {tacit.get('why')})"


def wait_for_learning(client: openai.OpenAI, seconds: float = 120) -> Any:
    """Until all is learned and a memory has helped on other problems, so that it may answer; or for so long."""
    deadline = time.monotonic() + seconds
    while True:
        status: Any = client.get("/tacit/v1/status", cast_to=object)
        waiting = status["jobs"]["queued"] + status["jobs"]["learning"]
        if (not waiting and status["memories"]["active"]) or time.monotonic() > deadline:
            return status
        time.sleep(0.5)


def main() -> None:
    """Ask, let it learn, and ask for something alike."""
    server = f"http://127.0.0.1:{PORT}"
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=30)  # it starts for some seconds
    for problem in PROBLEMS:
        print(f"{problem}: {ask(client, 'testbed:tacit', problem)}")  # `testbed` alone is the plain model
    status = wait_for_learning(client.with_options(base_url=server))
    print("jobs:", status["jobs"], "memories:", status["memories"])
    for model in ("testbed", "testbed:tacit"):
        print(f"{model}: {ask(client, model, 'compute 73 * 5')}")


if __name__ == "__main__":
    with subprocess.Popen(SERVE) as process:
        try:
            main()
        finally:
            process.terminate()
