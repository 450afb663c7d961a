"""The wheel as a user gets it: in an empty environment, away from the checkout, first without an extra.

    python tools/wheel_check.py dist/tacit_memory-0.1.0-py3-none-any.whl

Builds on the standard library. pip installs what the wheel's metadata asks for, at the versions of constraints.txt.
Then the library, the README's lines, the commands, the short demonstration, a question to its bank and what Tacit says
of an extra that is missing are tried; last, with the extra ``serve``, a server is asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
README = re.findall(
    r"^```python\n(.+?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
QUESTION = "compute 30 + 4 * 5"

LIBRARY = """
import sys, tacit
assert "torch" not in sys.modules
from tacit import Agent, Backbone, Problem, open_bank
from tacit.engines.local import LocalEngine
backbone = Backbone.load("testbed")
agent = Agent(backbone, LocalEngine(backbone), open_bank("bank.sqlite"))
answered = agent.answer([Problem("1", "compute 34 + 58")])
print(tacit.__file__, answered[0].greedy_answer)
"""


class Environment:
    """An empty environment, and a folder beside it in which commands are run."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv")
        self.programs = folder / "venv" / "bin"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL"))}

    def run(self, program: str, *arguments: str, code: int = 0) -> str:
        """What a program of the environment prints; SystemExit if it exits with another code."""
        return self._run(str(self.programs / program), *arguments, code=code)

    def pip(self, *arguments: str) -> str:
        """What this environment's pip, at work in that one, prints."""
        return self._run(sys.executable, "-m", "pip", "--python", str(self.programs / "python"), *arguments)

    def served(self) -> str:
        """What a server of the demonstration's bank answers."""
        command = [str(self.programs / "tacit"), "serve", "--bank", "demo/bank.sqlite", "--port", "0"]
        began, log = time.monotonic(), self.elsewhere / "serve.log"
        with log.open("w") as out:
            server = subprocess.Popen(command, cwd=self.elsewhere, env=self.variables, stdout=out, stderr=out)
        try:
            while not (found := re.search(r"http://[\d.]+:\d+", log.read_text())):
                if server.poll() is not None or time.monotonic() - began > 300:
                    raise SystemExit(f"{log.read_text()}\nthe server has not started")
                time.sleep(0.2)
            body = {"model": "testbed:tacit", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
            asked = urllib.request.Request(
                f"{found[0]}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=120) as response:
                answer = str(json.load(response)["choices"][0]["message"]["content"])
        finally:
            server.terminate()
            server.wait()
        print(f"{time.monotonic() - began:6.1f} s  tacit serve: {answer}", flush=True)
        return answer

    def _run(self, *command: str, code: int = 0) -> str:
        began = time.monotonic()
        done = subprocess.run(
            command,
            cwd=self.elsewhere,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        shown = " ".join(Path(word).name for word in command).splitlines()[0]
        print(f"{time.monotonic() - began:6.1f} s  {shown}", flush=True)
        if done.returncode != code:
            raise SystemExit(f"{done.stdout}\n{shown} has exited with {done.returncode}, not {code}")
        return done.stdout


def check(wheel: Path, folder: Path) -> None:
    """SystemExit unless the wheel works."""
    environment = Environment(folder)
    environment.pip("install", "--quiet", "--no-compile", "-c", str(CONSTRAINTS), str(wheel))
    environment.pip("check")
    found = environment.run("python", "-c", LIBRARY)
    _expect(str(folder.resolve()) in found, found)
    _expect("demo" in environment.run("tacit", "--help"), "tacit --help names no demonstration")
    environment.run("tacit", "doctor")
    said = environment.run("tacit", "demo", "--limit", "24", "--out", "demo")
    _expect(
        bool(re.search(r"[1-9]\d* memor", said)) and (environment.elsewhere / "demo" / "report.html").is_file(),
        said,
    )
    said = environment.run("tacit", "ask", "--bank", "demo/bank.sqlite", QUESTION)
    _expect(bool(re.search(r"^memory +[0-9a-f]{24}, similarity", said, re.MULTILINE)), said)
    for block in README:
        found = environment.run("python", "-c", block)
        _expect("of 8 say 258" in found, found)
    said = environment.run("tacit", "serve", code=2)
    hint = re.search(r"pip install '(\S+)\[serve\]'", said)
    _expect(hint is not None and wheel.name.startswith(hint[1].replace("-", "_")), said)
    environment.pip("install", "--quiet", "--no-compile", "-c", str(CONSTRAINTS), f"{wheel}[serve]")
    _expect(environment.served() != "", "the server has answered nothing")


def _expect(what: bool, said: str) -> None:
    if not what:
        raise SystemExit(f"{said}\nis not what was expected of the wheel")


def main() -> None:
    """Check the wheel that is named."""
    memory = Path("/dev/shm")  # a gigabyte in small files: a disk can take a minute to write and remove them
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as folder:
        check(Path(sys.argv[1]).resolve(), Path(folder))
    print("the wheel works")


if __name__ == "__main__":
    main()
