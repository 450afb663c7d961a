"""lm-eval, unchanged, against the server: generation and multiple choice, with local tasks and a local tokenizer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import stream
from server import Served, serving
from tacit.testbed import model_path

pytestmark = pytest.mark.slow
if "CI" not in os.environ:
    pytest.importorskip("lm_eval", reason="needs the extra eval: `make test-slow` installs it")

COUNT = 6
GENERATE = """
task: tacit_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{problem}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 48, temperature: 0.0, do_sample: false}}
filter_list:
  - name: last
    filter: [{{function: regex, regex_pattern: "Answer: (.+)"}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
CHOOSE = """
task: tacit_choose
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Problem: {{{{problem}}}} Solution: Answer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "problems.jsonl"
    rows = [
        {"problem": problem.text, "answer": str(problem.gold), "choices": [str(problem.gold), "0 0 0"]}
        for problem in stream(COUNT, seed=21)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "generate.yaml").write_text(GENERATE.format(data=data))
    (folder / "choose.yaml").write_text(CHOOSE.format(data=data))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served") / "bank.sqlite", "--no-learn") as running:
        yield running


def evaluate(served: Served, tasks: Path, out: Path, kind: str, path: str, task: str, model: str) -> dict[str, Any]:
    settings = f"model={model},base_url={served.url}{path},num_concurrent=2,max_retries=1,tokenized_requests=" + (
        f"True,tokenizer_backend=huggingface,tokenizer={model_path()}" if kind == "local-completions" else "False"
    )
    command = [sys.executable, "-m", "lm_eval", "run", "--model", kind, "--model_args", settings, "--tasks", task]
    command += ["--include_path", str(tasks), "--output_path", str(out), "--log_samples"]
    if kind == "local-chat-completions":
        command.append("--apply_chat_template")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, Any] = json.loads(next(out.rglob("results_*.json")).read_text())["results"][task]
    [samples] = out.rglob("samples_*.jsonl")
    return {**results, "samples": [json.loads(line) for line in samples.read_text().splitlines()]}


@pytest.mark.parametrize("model", ["testbed", "testbed:tacit"])
def test_chat_generation(served: Served, tasks: Path, tmp_path: Path, model: str) -> None:
    found = evaluate(served, tasks, tmp_path, "local-chat-completions", "/v1/chat/completions", "tacit_generate", model)
    assert len(found["samples"]) == COUNT
    assert all("Answer:" in sample["resps"][0][0] for sample in found["samples"])


def test_raw_generation(served: Served, tasks: Path, tmp_path: Path) -> None:
    found = evaluate(served, tasks, tmp_path, "local-completions", "/v1/completions", "tacit_generate", "testbed")
    assert len(found["samples"]) == COUNT and all(sample["resps"][0][0] for sample in found["samples"])


def test_multiple_choice(served: Served, tasks: Path, tmp_path: Path) -> None:
    found = evaluate(served, tasks, tmp_path, "local-completions", "/v1/completions", "tacit_choose", "testbed")
    assert found["acc,none"] == 1.0  # an answer of the right form is likelier than nonsense
    assert all(float(pair[0][0]) < 0 for sample in found["samples"] for pair in sample["resps"])
