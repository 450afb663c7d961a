"""Process reward models: how far each step of a response can be trusted, read from a second model.

Builds on backbone (where models lie, devices, dtypes), decoder and transformers; a small model of a common architecture
is read by compiled passes (model/fused) on a CPU. Two formats, told apart by ``architectures`` in
config.json:

- ``Qwen2ForProcessRewardModel``, as Qwen2.5-Math-PRM-7B (arXiv 2501.07301): a Qwen2 backbone with a head of two linear
  layers, read at the token ``<extra_0>`` after every step. The Hub ships it as code to be run on loading; the same
  network is built here from its configuration and weights instead, and no code of theirs is run.
- anything else: a token classifier with two labels as TRL's PRMTrainer makes them, read at the separator of the steps.

In both the score of a step is the probability of label 1, "right".
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from itertools import accumulate, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, AutoTokenizer, Qwen2Config, Qwen2Model, Qwen2PreTrainedModel

from tacit.config import Settings
from tacit.errors import ConfigError, ModelError
from tacit.judges.verifiers import Candidate, Verifier
from tacit.model import decoder
from tacit.model.backbone import DTYPES
from tacit.model.decoder import Decoder
from tacit.model.loading import parse_device, quiet_loading, resolve_model
from tacit.model.prompts import BOXED
from tacit.registry import register

if TYPE_CHECKING:
    from tacit.model.fused.model import Fused
    from tacit.model.fused.woven import Woven

QWEN = "Qwen2ForProcessRewardModel"
STEP = "<extra_0>"
"""The token that Qwen's process reward models are read at."""
REDUCTIONS = ("last", "min", "product")


class RewardModel:
    """Scores responses with a process reward model, on whatever device it is on.

    Args:
        directory: Hugging Face model folder or Hub id. For a token classifier ``step_separator`` in its config.json
            names the separator (default: a blank line).
        reduce: the score of a response: that of its "last" step, the "min"imum over its steps or their "product".
            None: "last" for token classifiers, whose label says that a step and all before it are right; "min" for
            Qwen's, which judges each step for itself (a product would punish length).
        device, dtype: as for the backbone.
        batch: responses per forward pass, at most.
        row_tokens: tokens (padding included) per forward pass, at most; one response is never split.

    Attributes:
        context: most tokens the model was trained to read. A response that does not fit, with its problem, scores 0:
            cut short, it would be judged by steps that do not hold its answer. Such models rate what lies beyond their
            context at random. Routing then prefers any response that was read, and labels fall back on the vote.
        unread: how many responses did not fit.

    Raises:
        ModelError: no process reward model is there.
    """

    name = "reward model"
    calibrated = True

    def __init__(
        self,
        directory: str | Path,
        *,
        reduce: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch: int = 128,
        row_tokens: int = 32768,
    ) -> None:
        if reduce is not None and reduce not in REDUCTIONS:
            raise ConfigError(f"reduce is {reduce!r}; use one of {', '.join(REDUCTIONS)}")
        path = resolve_model(str(directory), None)
        form = _Qwen if QWEN in _architectures(path) else _Classifier
        try:
            with quiet_loading():
                tokenizer = AutoTokenizer.from_pretrained(path)
                model, report = form.load(path, DTYPES[dtype])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{directory} is no process reward model that can be loaded: {reason}") from error
        missing = sorted({*report["missing_keys"], *(str(name) for name in report["mismatched_keys"])})
        if missing:  # transformers would go on with random numbers in their place
            raise ModelError(f"{directory} is no process reward model: its weights lack {', '.join(missing[:3])}")
        if model.config.num_labels != 2:
            raise ModelError(f"{directory} has {model.config.num_labels} labels; a process reward model has 2")
        self.model: Any = model.to(parse_device(device)).eval().requires_grad_(False)
        self.tokenizer: Any = tokenizer
        self.reduce = reduce or form.reduce
        self.batch, self.row_tokens = batch, row_tokens
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 1 << 31)
        self.unread = 0
        self._form: _Form = form(model.config, tokenizer, str(directory))
        self._fused: Fused | Woven | None = None
        if self.model.device.type == "cpu" and Decoder.supports(self.model):
            lean, width = Decoder(self.model), int(model.config.hidden_size)
            self._fused = decoder.passes(lean, width) or decoder.steps(lean, width)

    @torch.no_grad()
    def score(self, problem: str, candidates: Sequence[Candidate]) -> list[float]:
        """Probability that the response is right, in 0..1; 0 for one that is empty or too long to be read."""
        rows = [self._form.encode(problem, candidate.rollout.text) for candidate in candidates]
        scores = [0.0] * len(rows)
        readable = [place for place, (ids, ends) in enumerate(rows) if ends and len(ids) <= self.context]
        self._count([len(ids) for ids, ends in rows if ends and len(ids) > self.context])
        while readable:
            count = self._fitting([len(rows[place][0]) for place in readable])
            chosen, readable = readable[:count], readable[count:]
            for place, steps in zip(chosen, self._steps([rows[place] for place in chosen]), strict=True):
                scores[place] = _reduced(steps, self.reduce)
        return scores

    def steps(self, problem: str, response: str) -> list[float]:
        """The probability of being right of each step of one response that fits."""
        row = self._form.encode(problem, response)
        with torch.no_grad():
            return self._steps([row])[0]

    def _count(self, lengths: list[int]) -> None:
        if lengths and not self.unread:
            warnings.warn(
                f"a response of {lengths[0]} tokens, problem included, does not fit the reward model's context of "
                f"{self.context}; such responses score 0 (lower max_tokens to have them read)",
                stacklevel=3,
            )
        self.unread += len(lengths)

    def _fitting(self, lengths: list[int]) -> int:
        """How many of the first rows go into one pass; at least one."""
        widest = 0
        for count, length in enumerate(lengths[: self.batch]):
            widest = max(widest, _width(length))
            if count and widest * (count + 1) > self.row_tokens:
                return count
        return min(len(lengths), self.batch)

    def _steps(self, rows: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        found = self._read(self._fused, rows) if self._fused is not None else None
        if found is not None:
            return found
        device = self.model.device
        width = _width(max(len(ids) for ids, _ in rows))
        tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows], device=device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows], device=device)
        logits = self._form.logits(self.model, tokens, mask)
        good = logits.float().softmax(-1)[:, :, 1].cpu()
        return [[float(good[row, end]) for end in ends] for row, (_, ends) in enumerate(rows)]

    def _read(self, fused: Fused | Woven, rows: list[tuple[list[int], list[int]]]) -> list[list[float]] | None:
        """``_steps`` in one compiled pass, where what the rows have in common is read once; None where there is nothing
        in common, or the pass would take too much memory."""
        prefix = _common([ids for ids, ends in rows], min(end for _, ends in rows for end in ends))
        one = fused.group(prefix, [len(ids) - prefix for ids, _ in rows])
        if not prefix or not one.fits:
            return None
        tokens = [*rows[0][0][:prefix], *(token for ids, _ in rows for token in ids[prefix:])]
        embeds = self.model.get_input_embeddings()(torch.tensor(tokens))
        starts = accumulate((len(ids) - prefix for ids, _ in rows), initial=0)
        wanted = [start + end - prefix for start, (_, ends) in zip(starts, rows, strict=False) for end in ends]
        good = iter(self.model.score(one.states(embeds)[wanted]).softmax(-1)[:, 1].tolist())
        return [list(islice(good, len(ends))) for _, ends in rows]


def _common(rows: Sequence[list[int]], most: int) -> int:
    """Tokens that all rows begin with, at most ``most``."""
    shortest, longest = min(rows), max(rows)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(shortest, longest, strict=False))
    return min(most, sum(1 for _ in same))


def _architectures(path: Path) -> list[str]:
    try:
        value = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return list(value.get("architectures") or [])
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return []  # loading says what is wrong with it


def _width(length: int) -> int:
    return -(-length // 32) * 32


def _reduced(steps: Sequence[float], how: str) -> float:
    if how == "last":
        return steps[-1]
    return min(steps) if how == "min" else math.prod(steps)


# ---------------------------------------------------------------- formats


class _Form(Protocol):
    """How one kind of model is loaded, fed and read."""

    reduce: str

    def __init__(self, config: Any, tokenizer: Any, name: str) -> None: ...

    @staticmethod
    def load(path: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
        """The model, and transformers' report of what was loaded."""
        ...

    def encode(self, problem: str, response: str) -> tuple[list[int], list[int]]:
        """Token ids, and the positions at which the steps are read."""
        ...

    def logits(self, model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
        """[R, T, 2]."""
        ...


class _Classifier:
    """A token classifier; every step is followed by the separator, and read at the separator's last token."""

    reduce = "last"

    def __init__(self, config: Any, tokenizer: Any, name: str) -> None:
        self.tokenizer = tokenizer
        self.separator: str = getattr(config, "step_separator", "\n\n")
        self.separator_ids: list[int] = tokenizer(self.separator, add_special_tokens=False)["input_ids"]

    @staticmethod
    def load(path: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
        loaded: tuple[Any, dict[str, Any]] = AutoModelForTokenClassification.from_pretrained(
            path, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        return loaded

    def encode(self, problem: str, response: str) -> tuple[list[int], list[int]]:
        text = problem
        if getattr(self.tokenizer, "chat_template", None):
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": problem}], add_generation_prompt=True, tokenize=False
            )
        ids: list[int] = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        ends = []
        for step in _parts(response, self.separator):
            ids += [*self.tokenizer(step, add_special_tokens=False)["input_ids"], *self.separator_ids]
            ends.append(len(ids) - 1)
        return ids, ends

    def logits(self, model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=tokens, attention_mask=mask).logits
        return logits


class _Qwen:
    """System message, problem and response as a conversation; steps are what blank lines part, each followed by
    ``<extra_0>``, as the model card has it."""

    reduce = "min"

    def __init__(self, config: Any, tokenizer: Any, name: str) -> None:
        self.tokenizer = tokenizer
        ids = tokenizer(STEP, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ModelError(f"the tokenizer of {name} has no token {STEP}, at which such a reward model is read")
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(f"the tokenizer of {name} has no chat template; take it from Qwen's own repository")
        self.step_id: int = ids[0]

    @staticmethod
    def load(path: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
        config = Qwen2Config.from_pretrained(path, num_labels=2)
        loaded: Any = QwenProcessRewardModel.from_pretrained(
            path, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        return loaded[0], loaded[1]

    def encode(self, problem: str, response: str) -> tuple[list[int], list[int]]:
        steps = _parts(response.replace(STEP, " "), "\n\n")
        messages = [
            {"role": "system", "content": BOXED},
            {"role": "user", "content": problem.replace(STEP, " ")},
            {"role": "assistant", "content": "".join(step + STEP for step in steps)},
        ]
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=False, tokenize=False)
        ids: list[int] = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return ids, [place for place, token in enumerate(ids) if token == self.step_id]

    def logits(self, model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = model(tokens, mask)
        return logits


class QwenProcessRewardModel(Qwen2PreTrainedModel):
    """The network of Qwen2.5-Math-PRM: a Qwen2 backbone (``model.*``) and a head (``score.0``, ``score.2``)."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.score = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size), nn.ReLU(), nn.Linear(config.hidden_size, 2)
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits [R, T, 2] of "wrong" and "right" at every token."""
        hidden = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        logits: Tensor = self.score(hidden)
        return logits


@register("verifier", "reward-model")
def reward_model(settings: Settings) -> Verifier:
    """The reward model that the settings name, a folder or a Hub id; the testbed has its own.

    Raises:
        ConfigError: none is named.
        ModelError: it cannot be loaded.
    """
    name = settings.reward_model or ("testbed" if settings.model == "testbed" else None)
    if name is None:
        raise ConfigError("the verifier reward-model needs a model; name one with --reward-model")
    if name == "testbed":
        from tacit.testbed import reward_model_path

        name = str(reward_model_path())
    return RewardModel(name, device=settings.device, dtype=settings.dtype)


def _parts(response: str, separator: str) -> list[str]:
    return [part for part in (part.strip() for part in response.split(separator)) if part]
