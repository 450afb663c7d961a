"""lm-eval asks the plain model and the one with memories the same questions: python examples/lm_eval_before_after.py

The memories are of 48 other problems of the same kinds. Needed before: pip install -e '.[serve,eval]'
"""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
PORT = sys.argv[1] if len(sys.argv) > 1 else "8766"
TACIT = [sys.executable, "-m", "tacit"]
OUT, COUNT = "runs/lm-eval", 24
TASK = """task: tacit_problems
dataset_path: json
dataset_kwargs: {data_files: {test: runs/lm-eval/problems.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{problem}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 64, do_sample: false, temperature: 0.0}
filter_list: [{name: last, filter: [{function: regex, regex_pattern: "Answer: (.+)"}, {function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def evaluate(model: str) -> dict[str, float]:
    """What lm-eval makes of a model of the server: the share of exact matches, and its standard error."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args=f"model={model},base_url=http://127.0.0.1:{PORT}/v1/chat/completions,max_retries=30",
        tasks=["tacit_problems"],
        task_manager=TaskManager(include_path=OUT),
        apply_chat_template=True,
    )
    figures = found["results"]["tacit_problems"]
    return {"exact match": figures["exact_match,last"], "standard error": figures["exact_match_stderr,last"]}


if __name__ == "__main__":
    subprocess.run([*TACIT, "run", "--limit", "48", "--window", "12", "--baselines", "none", "--out", OUT], check=True)
    seen = {json.loads(line)["problem"] for line in Path(OUT, "results.jsonl").read_text().splitlines()}
    made = subprocess.check_output([*TACIT, "testbed", "problems", "--limit", str(2 * COUNT), "--seed", "9"], text=True)
    fresh = [line for line in made.splitlines() if json.loads(line)["problem"] not in seen]
    Path(OUT, "problems.yaml").write_text(TASK)
    Path(OUT, "problems.jsonl").write_text("\n".join(fresh[:COUNT]))
    serve = [*TACIT, "serve", "--bank", f"{OUT}/bank.sqlite", "--no-learn", "--port", PORT]
    with subprocess.Popen(serve) as server:
        try:
            results = {model: evaluate(model) for model in ("testbed", "testbed:tacit")}
        finally:
            server.terminate()
    print(json.dumps(results, indent=1))
