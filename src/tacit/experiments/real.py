"""The demonstration on real weights: SmolLM2-135M-Instruct, and kinds of problems that it has signal in.

Builds on config and, for the weights, on testbed.real. The kinds and their levels are those where ``tacit study
signal`` found the vote ahead of a single sample; everything was chosen on other seeds than those reported (docs/log/).
"""

from __future__ import annotations

from tacit.config import LearnConfig, RunConfig, Sampling
from tacit.testbed.real import smollm2

DATA = "families:capitals@3,opposites@2,past@1,plurals@2"
"""Kinds in which a vote of the model's samples is ahead of a sample."""


def demonstration(model: str | None = None) -> RunConfig:
    """Settings of the demonstration; without a ``model`` its weights are fetched.

    Raises:
        ModelError: the weights are not here, and cannot be downloaded.
    """
    return RunConfig(
        model=model or str(smollm2()),
        task="text",
        instruction="Answer briefly.",
        data=DATA,
        out="runs/demo-real",
        limit=48,
        window=4,
        verifier="vote",
        sampling=Sampling(max_tokens=20),
        learn=LearnConfig(label="all"),  # the rest is what fits the model
        baselines=("icl", "random", "vote"),
    )
