"""What a GPU gives: memories an hour, decoding and training against their floors, and TRL on the same shapes.

    python benchmarks/gpu.py --out runs/bench --shapes 0.5b 1.5b 7b

Random weights in the shapes of Qwen2.5 (bf16, soft prompts in float32), prompts of 100 to 200 tokens, 8 rollouts a
problem, every one of its full length. For each shape:

- *decode*: tokens/s of the engine, against a floor that reads, for every token step, all weights once and every row's
  keys and values so far, at the bandwidth measured by copying;
- *training*: one gradient pass over rollouts, against the floor of its products (forward and backward to the inputs, 4
  FLOP for each weight and token) at the rate measured on a large product;
- *learn*: memories an hour with 32 problems at once, against TRL's GRPOTrainer with PEFT's prompt tuning, which learns
  one at a time; the peer's time is that of fewer steps, scaled to the same number;
- peak memory of each.

Writes ``gpu.json``. ``--quick`` shows on a tiny shape, without a GPU too, that it runs; that measures nothing.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from common import machine, parser, table, write
from transformers import Qwen2Config, Qwen2ForCausalLM

from tacit.config import LearnConfig, Sampling
from tacit.engines.base import Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.gradients import Group, passes, policy_loss
from tacit.learning import Learner, Target
from tacit.model.backbone import Backbone
from tacit.model.prompts import Template
from tacit.problem import Problem
from tacit.tasks.maths import MATHS
from tacit.testbed.tokenizer import build

TOKENS, STEPS, ROLLOUTS, RATE = 20, 10, 8, 0.02

# hidden, layers, heads, key heads, intermediate, vocabulary, tied
SHAPES = {
    "tiny": (64, 2, 4, 2, 128, 512, True),
    "0.5b": (896, 24, 14, 2, 4864, 151_936, True),
    "1.5b": (1536, 28, 12, 2, 8960, 151_936, True),
    "7b": (3584, 28, 28, 4, 18_944, 152_064, False),
}


def random_model(shape: str, device: str, dtype: torch.dtype) -> Any:
    """A causal LM of random weights (seed 0), made where it runs."""
    hidden, layers, heads, kv_heads, intermediate, vocabulary, tied = SHAPES[shape]
    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, intermediate_size=intermediate, tie_word_embeddings=tied,
        max_position_embeddings=4096, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM._from_config(config, dtype=dtype)
    return model.eval()


def tokenizer() -> Any:
    """The testbed's, whose end of text the model cannot draw."""
    made = build()
    made.add_special_tokens({"eos_token": "<never>"})
    return made


def texts(count: int) -> list[str]:
    """Problems of 100 to 200 tokens."""
    own, made = tokenizer(), []
    for number in range(count):
        text = ""
        while len(own(text)["input_ids"]) < 100 + number * 61 % 90:
            text += f" compute {number} + {len(text)}"
        made.append(text.strip())
    return made


class Meter:
    """Seconds and peak bytes of pieces of work on one device."""

    def __init__(self, device: str) -> None:
        self.device, self.cuda = device, device.startswith("cuda")

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.cuda:
            torch.cuda.synchronize()

    def time(self, work: Callable[[], Any], repeats: int = 1) -> tuple[float, int]:
        """Least seconds of some repeats, and the most bytes held meanwhile (0 where the device does not count)."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(repeats):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            seconds.append(time.perf_counter() - began)
        return min(seconds), int(torch.cuda.max_memory_allocated()) if self.cuda else 0

    def rates(self, dtype: torch.dtype) -> tuple[float, float]:
        """Bytes a second of reading and writing, FLOP a second of a large product."""
        large, side = (1 << 30, 8192) if self.cuda else (1 << 24, 512)
        source = torch.ones(large, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        a = torch.ones(side, side, dtype=dtype, device=self.device)
        copying, _ = self.time(lambda: target.copy_(source), 10)
        product, _ = self.time(lambda: a @ a, 10)
        return 2 * large / copying, 2 * side**3 / product


def decode(backbone: Backbone, problems: list[str], new: int, meter: Meter, bandwidth: float) -> dict[str, Any]:
    """Tokens a second with a soft prompt per problem, against the floor of reading."""
    ids = [backbone.encode(text) for text in problems]
    prompts = [torch.randn(TOKENS, backbone.hidden_size) * backbone.embedding_std for _ in problems]
    requests = [
        Request(one, prompt, ROLLOUTS, 1.0, 1.0, new, tuple(range(number * ROLLOUTS, (number + 1) * ROLLOUTS)))
        for number, (one, prompt) in enumerate(zip(ids, prompts, strict=True))
    ]
    engine = LocalEngine(backbone)
    engine.generate(requests[:1])  # warm
    seconds, peak = meter.time(lambda: engine.generate(requests))
    config, size = backbone.model.config, backbone.embedding_matrix.element_size()
    head_dim = config.hidden_size // config.num_attention_heads
    column = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * size
    weights = sum(p.numel() for p in backbone.model.parameters()) * size
    columns = sum(ROLLOUTS * (TOKENS + len(one) + step) for one in ids for step in range(new))
    floor = (new * weights + columns * column) / bandwidth
    tokens = len(problems) * ROLLOUTS * new
    return {
        "tokens_per_second": tokens / seconds, "floor_tokens_per_second": tokens / floor, "of_floor": floor / seconds,
        "rows": len(problems) * ROLLOUTS, "new_tokens": new, "peak_bytes": peak,
    }  # fmt: skip


def training(backbone: Backbone, problems: list[str], new: int, meter: Meter, flops: float) -> dict[str, Any]:
    """Seconds of the gradient of one step, against the floor of its products."""
    generator = torch.Generator().manual_seed(0)
    groups = []
    for text in problems:
        prompt = (torch.randn(TOKENS, backbone.hidden_size, generator=generator) * backbone.embedding_std).to(
            backbone.device
        )
        drawn = torch.randint(0, backbone.vocab_size, (ROLLOUTS, new), generator=generator).tolist()
        rollouts = [Rollout(tuple(ids), (0.0,) * new, "", "length") for ids in drawn]
        advantages = [1.0, -1.0] * (ROLLOUTS // 2)
        groups.append(Group(backbone.encode(text), prompt.requires_grad_(True), rollouts, advantages))

    def step() -> None:
        for part in passes(groups, LearnConfig().row_tokens):
            torch.autograd.grad(
                policy_loss(backbone, part, 1.0), [group.prompt for group in part if group.prompt is not None]
            )

    step()  # warm
    seconds, peak = meter.time(step, 2)
    model = backbone.model
    embedding = model.get_input_embeddings().weight.numel()
    body = sum(p.numel() for p in model.parameters()) - embedding * (1 if model.config.tie_word_embeddings else 2)
    completions = len(groups) * ROLLOUTS * new
    prefixes = sum(TOKENS + len(group.ids) for group in groups)
    floor = 4 * (body * (completions + prefixes) + embedding * completions) / flops
    return {
        "seconds": seconds,
        "floor_seconds": floor,
        "of_floor": floor / seconds,
        "tokens": completions,
        "peak_bytes": peak,
    }


def learn(backbone: Backbone, problems: list[str], new: int, steps: int, meter: Meter) -> dict[str, Any]:
    """Memories an hour, all problems at once, on a coin as reward so that every step has a gradient."""
    config = LearnConfig(tokens=TOKENS, steps=steps, rollouts=ROLLOUTS, lr=RATE, batch=len(problems), reward="random")
    learner = Learner(backbone, LocalEngine(backbone), config, Sampling(max_tokens=new), seed=0)
    tasks = [
        Target(Problem(id=str(number), text=text), MATHS.vote(["1"] * 8), label="1")
        for number, text in enumerate(problems)
    ]
    seconds, peak = meter.time(lambda: learner.learn(tasks))
    return {"memories_per_hour": 3600 * len(problems) / (seconds * STEPS / steps), "steps": steps, "peak_bytes": peak}


def peer(model: Any, problem: str, new: int, steps: int, meter: Meter, folder: str) -> dict[str, Any]:
    """The same for TRL, which learns one problem at a time."""
    import numpy as np
    from datasets import Dataset
    from peft import PromptTuningConfig, TaskType
    from trl import GRPOConfig, GRPOTrainer

    rng = np.random.default_rng(0)

    def flips(completions: list[str], **_: Any) -> list[float | None]:
        return [float(flip) for flip in rng.integers(0, 2, len(completions))]

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=flips,
        args=GRPOConfig(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=ROLLOUTS, num_generations=ROLLOUTS,
            max_completion_length=new, learning_rate=RATE, lr_scheduler_type="constant", beta=0.0, temperature=1.0,
            gradient_checkpointing=False, bf16=meter.cuda, use_cpu=not meter.cuda, report_to=[], seed=0,
            logging_strategy="no", save_strategy="no", disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": [f"Problem: {problem}\nSolution:"] * ROLLOUTS}),
        processing_class=tokenizer(),
        peft_config=PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=TOKENS),
    )  # fmt: skip
    seconds, peak = meter.time(trainer.train)
    return {"memories_per_hour": 3600 / (seconds * STEPS / steps), "steps": steps, "peak_bytes": peak}


def measured(shape: str, arguments: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """Everything about one shape."""
    dtype = torch.bfloat16 if meter.cuda else torch.float32
    bandwidth, flops = meter.rates(dtype)
    problems = texts(arguments.problems)
    result: dict[str, Any] = {"shape": shape, "bytes_per_second": bandwidth, "flop_per_second": flops}
    model = random_model(shape, arguments.device, dtype)
    backbone = Backbone(model, tokenizer(), Template(instruction=""), shape, "random weights, seed 0")
    result["decode"] = decode(backbone, problems, arguments.new_tokens, meter, bandwidth)
    result["training"] = training(backbone, problems, arguments.new_tokens, meter, flops)
    result["learn"] = learn(backbone, problems, arguments.new_tokens, arguments.steps, meter)
    del backbone, model
    gc.collect()
    if meter.cuda:
        torch.cuda.empty_cache()
    if not arguments.no_peer:
        with tempfile.TemporaryDirectory() as folder:
            model = random_model(shape, arguments.device, dtype)
            result["peer"] = peer(model, problems[0], arguments.new_tokens, arguments.peer_steps, meter, folder)
    return result


def main() -> None:
    """Measure every shape; JSON after each."""
    made = parser(__doc__)
    made.add_argument("--shapes", nargs="+", default=["0.5b", "1.5b", "7b"], choices=list(SHAPES))
    made.add_argument("--device", help="by default CUDA; with --quick the CPU where there is none")
    made.add_argument("--problems", type=int, default=32, help="learned at once")
    made.add_argument("--new-tokens", type=int, default=256, help="of every rollout; at most 1,024")
    made.add_argument("--steps", type=int, default=STEPS, help="of ours that are timed")
    made.add_argument("--peer-steps", type=int, default=2, help="of the peer that are timed")
    made.add_argument("--no-peer", action="store_true")
    arguments = made.parse_args()
    if arguments.quick:
        arguments.shapes, arguments.problems, arguments.new_tokens, arguments.steps = ["tiny"], 3, 8, 1
    if arguments.device is None:
        arguments.device = "cuda" if torch.cuda.is_available() or not arguments.quick else "cpu"
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; --quick shows on the CPU that the benchmark runs")
    meter, started = Meter(arguments.device), machine()
    if meter.cuda:
        started["device"] = torch.cuda.get_device_name()
    results: list[dict[str, Any]] = []
    for shape in arguments.shapes:
        results.append(measured(shape, arguments, meter))
        gc.collect()
        ratios = [
            {
                "name": f"{one['shape']}, {arguments.problems} at once", "ours": one["learn"]["memories_per_hour"],
                "peer": one["peer"]["memories_per_hour"], "unit": "memories/h", "threads": 1,
                "ratio": one["learn"]["memories_per_hour"] / one["peer"]["memories_per_hour"],
            }
            for one in results
            if "peer" in one
        ]  # fmt: skip
        write(arguments.out, "gpu", ratios, started, results=results)
    table(
        "against the floors",
        ("shape", "decode tokens/s", "of the floor", "gradient s", "of the floor", "memories/h", "peak GB"),
        [
            (
                one["shape"], f"{one['decode']['tokens_per_second']:,.0f}", f"{one['decode']['of_floor']:.0%}",
                f"{one['training']['seconds']:.2f}", f"{one['training']['of_floor']:.0%}",
                f"{one['learn']['memories_per_hour']:,.0f}", f"{one['learn']['peak_bytes'] / 1e9:.1f}",
            )
            for one in results
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
