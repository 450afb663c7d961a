"""vLLM's side of ``generate.py``, run by the interpreter of vLLM's own environment.

    .venv-vllm/bin/python benchmarks/vllm_side.py FOLDER THREADS

Reads lines [prompts as token ids, new tokens of each, temperature] and answers each with a line of the token ids drawn.
"""

from __future__ import annotations

import json
import os
import shutil
import sys


def main() -> None:
    """Serve until there is nothing more to read."""
    folder, threads = sys.argv[1:]
    os.environ |= {
        "OMP_NUM_THREADS": threads, "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }  # fmt: skip
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what it prints goes elsewhere
    from vllm import LLM, SamplingParams

    eager = shutil.which("g++") is None  # by default vLLM compiles, for which it needs one
    model = LLM(folder, dtype="float32", enforce_eager=eager, max_model_len=1024, disable_log_stats=True)
    for line in sys.stdin:
        prompts, limits, temperature = json.loads(line)
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        how = [SamplingParams(temperature=temperature, max_tokens=limit, ignore_eos=True) for limit in limits]
        made = model.generate(asked, how, use_tqdm=False)
        answers.write(json.dumps([list(one.outputs[0].token_ids) for one in made]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
