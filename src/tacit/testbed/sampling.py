"""Samples solutions from a trained testbed model, in batches, for its own figures and for its reward model.

Builds on tokenizer, torch and transformers. It needs none of Tacit's engines, which stand in a room above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from tacit.testbed.tokenizer import prompt

ROWS = 192
MAX_TOKENS = 72


def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    n: int = 1,
    greedy: bool = False,
    seed: int = 0,
    openings: Sequence[str] | None = None,
) -> list[list[str]]:
    """``n`` solutions (one if greedy, T = 1 otherwise) for each problem text.

    ``openings`` are words to start each solution with; they are not part of what is returned.
    """
    prompts = [
        f"{prompt(text)} {opening}".strip() for text, opening in zip(texts, openings or [""] * len(texts), strict=True)
    ]
    n = 1 if greedy else n
    found: list[str] = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        size = max(1, ROWS // n)
        for first in range(0, len(prompts), size):
            rows = prompts[first : first + size]
            batch = tokenizer(rows, padding=True, padding_side="left", return_tensors="pt")
            ids = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                num_return_sequences=n,
                max_new_tokens=MAX_TOKENS,
                **({"do_sample": False} if greedy else {"do_sample": True, "top_k": 0}),
            )
            found += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [found[i : i + n] for i in range(0, len(found), n)]
