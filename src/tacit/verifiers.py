"""Verifiers: which of two responses to trust when the answer with memory and the one without differ.

Builds on backbone and errors. None of them reads a gold answer. A process reward model is what the paper uses
(method.md, "Response routing"); vote share and log-probability need no second model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError

from tacit.backbone import DTYPES, parse_device, resolve_model
from tacit.engines.base import Rollout
from tacit.errors import ModelError


@dataclass(frozen=True)
class Candidate:
    """A response that may be returned.

    Attributes:
        rollout: the response.
        answer: extracted from it.
        share: share of its own group of samples that gives an equivalent answer.
    """

    rollout: Rollout
    answer: str | None
    share: float


class Verifier(Protocol):
    """Scores responses to one problem.

    Attributes:
        name: for reasons and reports.
        calibrated: whether scores are probabilities of being right; otherwise only comparisons between them count.
    """

    name: str
    calibrated: bool

    def score(self, problem: str, candidates: Sequence[Candidate]) -> list[float]:
        """One number per candidate, higher is better."""
        ...


class VoteShare:
    """Trusts the answer that is more common in its own group."""

    name = "vote share"
    calibrated = False

    def score(self, problem: str, candidates: Sequence[Candidate]) -> list[float]:
        """The candidates' shares."""
        return [candidate.share for candidate in candidates]


class LogProb:
    """Trusts the response that its own policy found likelier: mean log-probability per token."""

    name = "mean log-prob"
    calibrated = False

    def score(self, problem: str, candidates: Sequence[Candidate]) -> list[float]:
        """Mean natural-log probability of the tokens."""
        return [sum(c.rollout.logprobs) / max(1, len(c.rollout.logprobs)) for c in candidates]


class RewardModel:
    """A process reward model in the format of TRL's PRMTrainer: a token classifier with two labels, read at the
    separator that follows every step.

    Args:
        directory: Hugging Face model folder or Hub id. ``step_separator`` in its config.json names the separator
            (default: a blank line); responses are split into steps at it.
        reduce: "last" (probability that the last step, and so all before it, is right) or "min" over the steps.
        device, dtype: as for the backbone.
        batch: responses per forward pass.

    Raises:
        ModelError: no token classifier with two labels is there.
    """

    name = "reward model"
    calibrated = True

    def __init__(
        self,
        directory: str | Path,
        *,
        reduce: str = "last",
        device: str = "auto",
        dtype: str = "float32",
        batch: int = 128,
    ) -> None:
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        path = resolve_model(str(directory), None)
        try:
            self.model: Any = (
                AutoModelForTokenClassification.from_pretrained(path, dtype=DTYPES[dtype], use_safetensors=True)
                .to(parse_device(device))
                .eval()
                .requires_grad_(False)
            )
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{directory} is no process reward model that can be loaded: {reason}") from error
        if self.model.config.num_labels != 2:
            raise ModelError(f"{directory} has {self.model.config.num_labels} labels; a process reward model has 2")
        self.separator: str = getattr(self.model.config, "step_separator", "\n\n")
        self.reduce, self.batch = reduce, batch
        self.separator_ids: list[int] = self.tokenizer(self.separator, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def score(self, problem: str, candidates: Sequence[Candidate]) -> list[float]:
        """Probability that the response is right so far, in 0..1; 0 for an empty response."""
        rows = [self._encode(problem, candidate.rollout.text) for candidate in candidates]
        scores: list[float] = []
        for start in range(0, len(rows), self.batch):
            scores += self._score(rows[start : start + self.batch])
        return scores

    def _encode(self, problem: str, response: str) -> tuple[list[int], list[int]]:
        """Token ids and the positions of the last separator token of every step."""
        if getattr(self.tokenizer, "chat_template", None):
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": problem}], add_generation_prompt=True, tokenize=False
            )
        else:
            text = problem
        ids: list[int] = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        ends = []
        for step in filter(None, (part.strip() for part in response.split(self.separator))):
            ids += [*self.tokenizer(step, add_special_tokens=False)["input_ids"], *self.separator_ids]
            ends.append(len(ids) - 1)
        return ids, ends

    def _score(self, rows: list[tuple[list[int], list[int]]]) -> list[float]:
        device = self.model.device
        width = -(-max(len(ids) for ids, _ in rows) // 32) * 32
        tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows], device=device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows], device=device)
        good = self.model(input_ids=tokens, attention_mask=mask).logits.float().softmax(-1)[:, :, 1].cpu()
        scores = []
        for row, (_, ends) in enumerate(rows):
            steps = [float(good[row, end]) for end in ends] or [0.0]
            scores.append(steps[-1] if self.reduce == "last" else min(steps))
        return scores
