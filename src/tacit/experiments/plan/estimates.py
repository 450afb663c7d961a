"""What a model needs: bytes and seconds, from its configuration and a GPU's data sheet alone.

Builds on planning and transformers (models are laid out on the "meta" device: shapes without numbers). The formulas
describe this project's own engine and gradient pass (engines/local.py, gradients.py), so they hold for nothing else.
Counts of bytes were checked against what PyTorch keeps (tests/test_dry_run.py); seconds are a sketch, with its
assumptions in ``ASSUMED``, and were not measured on any of these GPUs.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tacit.config import LearnConfig
from tacit.errors import ConfigError, ModelError
from tacit.methods.planning import Plan, Work
from tacit.model import adapter, gguf_file
from tacit.model.cache import round_up
from tacit.model.decoder import FLOATS_AT_ONCE
from tacit.model.loading import local_model
from tacit.testbed import reward_model_path, shipped

MAX_ROWS = 256
"""Rollouts that ``LocalEngine`` decodes at once."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

ASSUMED = {"bandwidth": 0.7, "decode": 0.3, "pass": 0.4, "layer_seconds": 0.8e-3}
"""Share of peak bandwidth that decoding reaches; shares of peak FLOPs of decoding and of whole sequences (plain PyTorch
uses 0.3 to 0.5, arXiv 2205.05198); seconds that eager transformers takes to launch a layer."""


@dataclass(frozen=True)
class Gpu:
    """From its maker's data sheet: dense FLOP/s, bytes/s, bytes."""

    name: str
    bf16: float
    fp32: float
    bandwidth: float
    memory: float

    def flops(self, dtype: str) -> float:
        """Peak FLOP/s in a dtype."""
        return self.fp32 if dtype == "float32" else self.bf16


_SHEETS = tomllib.loads(Path(__file__).with_name("gpus.toml").read_text(encoding="utf-8"))
GPUS = {name: Gpu(**sheet) for name, sheet in _SHEETS.items()}


def gpu(name: str) -> Gpu:
    """The GPU of that name.

    Raises:
        ConfigError: there is none in the table.
    """
    if name not in GPUS:
        raise ConfigError(f"there is no GPU {name!r} in the table; there are: {', '.join(GPUS)}")
    return GPUS[name]


# ---------------------------------------------------------------- models

_NAMED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def _shape(kind: str, sizes: tuple[int, ...], vocabulary: int, context: int) -> dict[str, Any]:
    more = {"vocab_size": vocabulary, "max_position_embeddings": context, "tie_word_embeddings": False}
    return {"model_type": kind, **dict(zip(_NAMED, sizes, strict=True)), **more}


SHIPPED = {
    "Qwen/Qwen2.5-Math-7B": _shape("qwen2", (3584, 18944, 28, 28, 4), 152064, 4096),
    "meta-llama/Llama-3.1-8B-Instruct": _shape("llama", (4096, 14336, 32, 32, 8), 128256, 131072),
}
SHIPPED["Qwen/Qwen2.5-Math-PRM-7B"] = SHIPPED["Qwen/Qwen2.5-Math-7B"] | {
    "architectures": ["Qwen2ForProcessRewardModel"]
}
"""Dimensions of the paper's models, so that a plan needs no network."""


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a model that decide what it costs.

    Attributes:
        parameters: in all.
        embedding: of these, in the input embedding, of which decoding reads a row a token.
        layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary, context: as in its configuration.
        linear: (inputs, outputs) of every linear layer but the output layer: where LoRA adapters go.
        qk_norm: whether queries and keys are normalised.
        source: where this was read.
    """

    parameters: int
    embedding: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    linear: tuple[tuple[int, int], ...] = ()
    qk_norm: bool = False
    source: str = ""

    def weights(self, dtype: str) -> int:
        """Bytes of the weights: parameters x bytes of the dtype."""
        return self.parameters * DTYPE_BYTES[dtype]

    def cache_token(self, dtype: str) -> int:
        """Bytes of one token in the key/value cache: 2 x layers x key/value heads x head size (Pope et al., arXiv
        2211.05102)."""
        return 2 * self.layers * self.kv_heads * self.head_dim * DTYPE_BYTES[dtype]

    def trainable(self, plan: Plan, tokens: int) -> int:
        """Numbers trained at once: K x d for a soft prompt, rank x (inputs + outputs) a linear layer for LoRA (arXiv
        2106.09685), or all."""
        if plan.policy == "full":
            return self.parameters
        if plan.policy == "lora":
            return sum(plan.rank * (inputs + outputs) for inputs, outputs in self.linear)
        return 0 if plan.policy == "none" else tokens * self.hidden


@lru_cache(maxsize=8)
def dimensions(name: str, *, reward: bool = False) -> Dimensions:
    """The dimensions of a model, by its name, from its config.json or the table of this module.

    Args:
        reward: it is a reward model.

    Raises:
        ModelError: no configuration can be read.
    """
    from transformers import AutoConfig

    if name in SHIPPED and not Path(name).is_dir():
        values = dict(SHIPPED[name])
        architectures = values.pop("architectures", [])
        config = AutoConfig.for_model(**values)
        return _measure(config, "QwenProcessRewardModel" if architectures else "", "table shipped with Tacit", reward)
    found = reward_model_path() if reward and name == "testbed" else shipped(name) or local_model(name)
    if found is not None and found.is_file():
        return _measure(gguf_file.configured(found, name), "", "the GGUF file", reward)
    if found is not None and not (found / "config.json").is_file():
        return dimensions(adapter.base_of(found, adapter.settings(found, name)), reward=reward)
    path = str(found or name)
    try:
        from transformers import PreTrainedConfig

        from tacit.judges.reward_models import QWEN

        values, _ = PreTrainedConfig.get_config_dict(path)
        is_qwen = QWEN in (values.get("architectures") or [])
        for key in ("auto_map", "architectures"):
            values.pop(key, None)
        config = AutoConfig.for_model(**values)
        return _measure(config, "QwenProcessRewardModel" if is_qwen else "", "config.json", reward)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"no configuration of {name} can be read: {reason}; give its folder") from error


def _measure(config: Any, special: str, source: str, reward: bool) -> Dimensions:
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    from tacit.judges.reward_models import QwenProcessRewardModel

    with torch.device("meta"):
        if special:
            model: Any = QwenProcessRewardModel(config)
        else:
            auto: Any = AutoModelForTokenClassification if reward else AutoModelForCausalLM
            model = auto.from_config(config)
    output = model.get_output_embeddings() if not (special or reward) else None
    linear = [one for one in model.modules() if isinstance(one, nn.Linear) and one is not output]
    heads = int(config.num_attention_heads)
    return Dimensions(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        embedding=model.get_input_embeddings().weight.numel(),
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocabulary=int(config.vocab_size),
        context=int(getattr(config, "max_position_embeddings", None) or 1 << 31),
        linear=tuple((one.in_features, one.out_features) for one in linear),
        qk_norm=any(name.endswith("q_norm") for name, _ in model.named_modules()),
        source=source,
    )


# ---------------------------------------------------------------- memory


@dataclass(frozen=True)
class Lengths:
    """Tokens: of a prompt (soft prompt included), of an answer on average, and of one at most."""

    prompt: int
    answer: float
    most: int

    def longest(self, rows: float) -> float:
        """The longest of ``rows`` answers, taking lengths as exponential around their mean and cut at the most allowed:
        mean x (1 + 1/2 + ... + 1/rows)."""
        harmonic = math.log(max(rows, 1)) + 0.5772 + 1 / (2 * max(rows, 1)) if rows > 1 else 1.0
        return min(self.most, self.answer * harmonic)


def cache_bytes(dims: Dimensions, dtype: str, rows: int, lengths: Lengths) -> int:
    """The key/value cache of ``rows`` rollouts, at most MAX_ROWS: rows x columns x bytes of a token. Columns are
    reserved for the longest answer from the start. Rows are dropped by copying, so it is there twice."""
    columns = round_up(lengths.prompt + lengths.most)
    return 2 * min(rows, MAX_ROWS) * columns * dims.cache_token(dtype)


def pass_bytes(
    dims: Dimensions,
    dtype: str,
    rows: int,
    prompt: int,
    answer: int,
    policy: str = "memory",
    rank: int = 0,
    groups: int = 1,
) -> int:
    """What a forward and backward pass over ``rows`` rollouts of some groups holds at its peak.

    Per token and layer, with e the bytes of the dtype: three intermediate-sized results of the MLP (e each), the inputs
    of two norms (4 bytes each), queries and attention's output (e), its log-sums (4 a head), the mask (e a column).
    Keys and values are repeated for all heads, but not under a frozen model: 2 e a column of every row. Frozen weights
    need no inputs kept; trained ones, and adapters, do. (Counted as in Korthikanti et al., arXiv 2205.05198, for this
    network.) The logits are there three times in float32: of all tokens where weights are trained, else of a part at a
    time. One row of the model's width is kept of each token (logprobs.py).
    """
    e, d, ff = DTYPE_BYTES[dtype], dims.hidden, dims.intermediate
    attention = dims.heads * dims.head_dim
    token = 3 * ff * e + 2 * d * 4 + 2 * attention * e + 4 * dims.heads
    normed = (dims.heads + dims.kv_heads) * dims.head_dim if dims.qk_norm else 0
    token += 4 * normed
    if policy == "memory" and normed and e == 4:  # the values lie beside the queries and keys that are normed
        token += e * dims.kv_heads * dims.head_dim
    if policy == "full":
        token += e * (4 * d + attention + ff + normed)
    elif policy == "lora":  # float32 adapters: in half precision each casts its own copy of its input
        token += 4 * ((5 if e < 4 else 2) * d + attention + ff + 7 * rank)

    def body(sequences: int, length: int, columns: int) -> int:
        columns = round_up(columns)
        tokens = sequences * length
        if policy == "memory":  # the lean decoder (decoder.py): keys and values unrepeated, one mask for all layers
            held = 2 * dims.kv_heads * dims.head_dim
            return dims.layers * (tokens * token + sequences * columns * held * e) + tokens * columns * e
        return dims.layers * (tokens * token + sequences * columns * 2 * attention * e + tokens * columns * e)

    logits = 3 * 4 * rows * answer * dims.vocabulary
    if policy == "memory":
        logits = min(logits, 3 * 4 * FLOATS_AT_ONCE) + e * rows * answer * d
    return body(rows, answer, prompt + answer) + body(groups, prompt, prompt) + logits


def memory(
    plan: Plan, dims: Dimensions, reward: Dimensions | None, dtype: str, lengths: Lengths, learn: LearnConfig
) -> dict[str, int]:
    """Bytes of each part, and their peak: what stays, and the largest of generating, a gradient pass and an update.

    A pass holds as many answers as ``learn.row_tokens`` allows, and one at least; each as long as the longest may be.
    Methods that train weights keep a copy of them and its start; "full" in half precision also a float32 twin, and
    gradients in both. Adam (arXiv 1412.6980) keeps two float32 moments of every number trained.
    """
    trained = dims.trainable(plan, learn.tokens)
    full = plan.policy == "full"
    own = DTYPE_BYTES[dtype] if full else 4
    twin = 4 if own < 4 else 0
    held = trained * (MEMORIES if plan.policy == "memory" else 1)
    parts = {"weights": dims.weights(dtype), "reward_model": reward.weights(dtype) if reward else 0}
    parts["policy"] = held * own * 2 + (dims.weights(dtype) if plan.policy == "lora" else 0)
    parts["optimizer"] = held * (8 + twin)
    rows = max((-(-one.rollouts // one.calls) for one in plan.work if one.calls), default=0)
    parts["cache"] = cache_bytes(dims, dtype, rows, lengths)
    parts["pass"] = 0
    if plan.steps:
        per_call = max(-(-one.trained // one.calls) for one in plan.work if one.calls)
        fitting = max(1, min(per_call, learn.row_tokens // lengths.most))
        parts["pass"] = held * own + pass_bytes(
            dims, dtype, fitting, lengths.prompt, lengths.most, plan.policy, plan.rank, -(-fitting // learn.rollouts)
        )
    stays = sum(parts[name] for name in ("weights", "reward_model", "policy", "optimizer"))
    parts["peak"] = stays + max(parts["cache"], parts["pass"], held * (own + twin))
    return parts


MEMORIES = 32
"""Soft prompts that learn at once, as ``LearnConfig.batch`` has it by default."""


# ---------------------------------------------------------------- seconds


def decode_seconds(dims: Dimensions, dtype: str, device: Gpu, rows: float, columns: int) -> float:
    """One token for each of ``rows`` rollouts: the slowest of three (roofline, as arXiv 2211.05102): reading the
    weights and the cache once; 2 FLOPs a parameter and row (Kaplan et al., arXiv 2001.08361); launching the layers."""
    read = (dims.parameters - dims.embedding) * DTYPE_BYTES[dtype] + rows * columns * dims.cache_token(dtype)
    flops = 2 * dims.parameters * rows + 4 * dims.layers * dims.heads * dims.head_dim * columns * rows
    return max(
        read / (device.bandwidth * ASSUMED["bandwidth"]),
        flops / (device.flops(dtype) * ASSUMED["decode"]),
        dims.layers * ASSUMED["layer_seconds"],
    )


def work_seconds(
    work: Work, plan: Plan, dims: Dimensions, dtype: str, device: Gpu, lengths: Lengths, rollouts: int
) -> float:
    """One kind of work: decoding, prompts and gradient passes.

    A call of R rollouts decodes R x answer tokens at up to MAX_ROWS rows, then its longest one alone. Whole sequences
    cost 2 FLOPs a parameter and token forward; forward and backward 4 where the weights are frozen, 6 where they are
    trained (Kaplan et al., arXiv 2001.08361); a group is padded to its longest.
    """
    if not work.rollouts:
        return 0.0
    per_call = work.rollouts / work.calls
    rows = min(per_call, MAX_ROWS)
    columns = round_up(int(lengths.prompt + lengths.answer))
    full = per_call * lengths.answer / rows * decode_seconds(dims, dtype, device, rows, columns)
    alone = (lengths.longest(rows) - lengths.answer) * decode_seconds(dims, dtype, device, 1, columns)
    whole = device.flops(dtype) * ASSUMED["pass"]
    prompts = 2 * dims.parameters * lengths.prompt * work.rollouts / max(rollouts, 1) / whole
    factor = 6 if plan.policy == "full" else 4
    passes = factor * dims.parameters * work.trained * lengths.longest(rollouts) / whole
    return work.calls * (full + alone) + prompts + passes


def scoring_seconds(reward: Dimensions, dtype: str, device: Gpu, responses: int, lengths: Lengths) -> float:
    """Reading responses with the reward model: 2 FLOPs a parameter and token."""
    tokens = responses * (lengths.prompt + lengths.answer)
    return 2 * reward.parameters * tokens / (device.flops(dtype) * ASSUMED["pass"])
