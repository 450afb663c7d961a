"""Tokens per second on requests of mixed lengths, against transformers' ``generate``.

    python benchmarks/generate.py --out runs/bench

64 requests of 16 to 256 new tokens each (float32, random weights, sampled at temperature 1, ragged prompts), every one
with its own limit. transformers' ``generate`` has one limit for a batch, so a user has two ways: all 64 in one batch up
to the longest limit, or requests of similar limits together, in batches of 16, which presumes that one knows the
lengths beforehand. Both are measured. Only tokens asked for count. Writes ``generate.json`` and ``generate.png``.
"""

from __future__ import annotations

import random

from common import Round, contest_parser, versus
from models import load, saved, stream

REQUESTS, SHORTEST, LONGEST = 64, 16, 256


def limits(count: int, longest: int, seed: int) -> list[int]:
    """New tokens of every request."""
    rng = random.Random(seed)
    return [rng.randint(SHORTEST, longest) for _ in range(count)]


def ours(model: str, asked: list[int], seed: int) -> Round:
    """A round serves all requests."""
    from tacit.engines.base import Request
    from tacit.engines.local import LocalEngine
    from tacit.model.backbone import Backbone

    backbone = Backbone.load(saved(model), device="cpu")
    engine = LocalEngine(backbone)
    prompts = [backbone.encode(problem.text) for problem in stream(len(asked), seed)]

    def work() -> float:
        groups = engine.generate(
            [
                Request(ids, max_tokens=limit, seeds=(number,))
                for number, (ids, limit) in enumerate(zip(prompts, asked, strict=True))
            ]
        )
        assert [len(group[0].token_ids) for group in groups] == asked
        return sum(asked)

    return work


def peer(model: str, asked: list[int], seed: int, batch: int) -> Round:
    """A round serves all requests, ``batch`` at a time in the order of their limits."""
    import torch

    from tacit.testbed.tokenizer import prompt

    network, tokenizer = load(model)
    texts = [prompt(problem.text) for problem in stream(len(asked), seed)]
    order = sorted(range(len(asked)), key=lambda number: asked[number])

    def work() -> float:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = tokenizer(
                [texts[number] for number in chosen], return_tensors="pt", padding=True, padding_side="left"
            )
            longest = max(asked[number] for number in chosen)
            with torch.inference_mode():
                made = network.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    do_sample=True,
                    top_k=0,
                    temperature=1.0,
                    max_new_tokens=longest,
                )
            assert made.shape[1] - inputs["input_ids"].shape[1] == longest
        return sum(asked)

    return work


def main() -> None:
    """Measure, print a table, write ``generate.json`` and ``generate.png``."""
    arguments = contest_parser(__doc__).parse_args()
    asked = limits(8 if arguments.quick else REQUESTS, 32 if arguments.quick else LONGEST, arguments.seed)
    common = {"model": "random-7m", "asked": asked, "seed": arguments.seed}
    versus(
        arguments,
        "generate",
        [
            ("random-7m, one batch", common, {**common, "batch": len(asked)}),
            ("random-7m, batches of like lengths", common, {**common, "batch": len(asked) // 4}),
        ],
        ours,
        peer,
        rounds=5,
        unit="tokens/s",
        title="generation, tokens per second against transformers' generate",
        work={"requests": len(asked), "new tokens": asked},
    )


if __name__ == "__main__":
    main()
