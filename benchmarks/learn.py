"""Memories per second, against TRL's GRPOTrainer with PEFT's prompt tuning on the same model and work.

    python benchmarks/learn.py --out runs/bench
    python benchmarks/learn.py --out runs/bench --model smollm2 --threads 1

Both sides train a soft prompt of 20 rows for each problem, in 10 steps of 8 rollouts of at most 64 new tokens, on
float32 weights, with the same reward (1 for the label, which is the model's own greedy answer; on random weights a
coin, so that every step has a gradient). TRL has one prompt per trainer, so it learns one problem after another; ours
learns 32 at once, and also one at a time. TRL's time is that of ``train`` alone, without gradient checkpointing.

Real weights draw 24 new tokens, all of them, with the coin, and 8 memories at once. Shares are the processor time that
the products of sampling, and of the gradients' ways there and back, would take at the rate of the machine's own
products of as many rows, each over what was taken; sampling feeds all rollouts in flight, a gradient the rollouts of a
memory, and a prompt counts once in both. Writes ``learn.json`` and ``learn.png``, ``learn-real.json`` for real weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from common import Round, contest_parser, processor_seconds, versus
from models import Products, endless, load, real, stream

TOKENS, STEPS, ROLLOUTS, NEW_TOKENS, RATE = 20, 10, 8, 64, 0.02
NEW_TOKENS_REAL, RATE_REAL = 24, 0.01


def sizes(model: str) -> tuple[int, float]:
    """New tokens and rate of learning."""
    return (NEW_TOKENS_REAL, RATE_REAL) if real(model) else (NEW_TOKENS, RATE)


class Metered:
    """Calls that are counted in seconds of the processor."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def of(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted."""

        def counted(*arguments: Any) -> Any:
            used = processor_seconds()
            made = call(*arguments)
            self.seconds += processor_seconds() - used
            return made

        return counted

    def taken(self) -> float:
        """Seconds since this was asked last."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def ours(model: str, problems: list[tuple[str, str]], at_once: int, seed: int) -> Round:
    """A round learns ``at_once`` memories."""
    from tacit.config import LearnConfig, Sampling
    from tacit.engines.local import LocalEngine
    from tacit.learning import Learner, Target
    from tacit.problem import Problem
    from tacit.tasks.maths import MATHS

    backbone, (new_tokens, rate) = endless(model), sizes(model)
    config = LearnConfig(
        tokens=TOKENS, steps=STEPS, rollouts=ROLLOUTS, lr=rate, batch=at_once,
        reward="majority" if model == "testbed" else "random",
    )  # fmt: skip
    sampling = Sampling(max_tokens=new_tokens, temperature=1.0)
    learner = Learner(backbone, LocalEngine(backbone), config, sampling, seed=seed)
    products, drawing, slopes = Products(backbone), Metered(), Metered()
    learner.engine.generate = drawing.of(learner.engine.generate)  # type: ignore[method-assign]
    learner._gradients = slopes.of(learner._gradients)  # type: ignore[method-assign]
    done = 0

    def shares(texts: list[str], tokens: int, updated: int) -> dict[str, float]:
        prompt = sum(len(backbone.encode(text)) + TOKENS for text in texts)
        drawn = tokens * (products.layers + products.logits)
        passes = STEPS * prompt * products.layers
        sampled = products.seconds(at_once * ROLLOUTS, drawn) + products.seconds(prompt // at_once, passes)
        rows = prompt // at_once + tokens // STEPS // at_once
        moved = products.seconds(rows, 2 * (drawn + passes)) * updated / (STEPS * at_once)
        return {"share of sampling": sampled / drawing.taken(), "share of gradients": moved / slopes.taken()}

    def work() -> tuple[Any, ...]:
        nonlocal done
        chosen = [problems[(done + i) % len(problems)] for i in range(at_once)]
        done += at_once
        tasks = [
            Target(Problem(id=f"{done}/{i}", text=text), MATHS.vote([label] * 8), label=label)
            for i, (text, label) in enumerate(chosen)
        ]
        began, used = time.perf_counter(), processor_seconds()
        learned = learner.learn(tasks)
        seconds, used = time.perf_counter() - began, processor_seconds() - used
        steps = [step for one in learned for step in one.steps]
        assert len(steps) == STEPS * at_once
        updated = sum(step["updated"] for step in steps)
        found = shares([text for text, _ in chosen], sum(one.tokens for one in learned), updated)
        return len(learned), seconds, {"processor": used, **found}

    return work


def peer(model: str, problems: list[tuple[str, str]], at_once: int, seed: int) -> Round:
    """A round learns ``at_once`` memories, one after another."""
    import tempfile

    import numpy as np
    from datasets import Dataset
    from peft import PromptTuningConfig, TaskType
    from transformers.utils import logging
    from trl import GRPOConfig, GRPOTrainer

    from tacit import registry
    from tacit.problem import Problem
    from tacit.rewards import Attempts
    from tacit.tasks.maths import MATHS
    from tacit.testbed.tokenizer import prompt

    logging.set_verbosity_error()
    (_, tokenizer), (new_tokens, rate) = load(model), sizes(model)
    rng = np.random.default_rng(seed)
    done = 0

    def asked(text: str) -> str:
        if not real(model):
            return prompt(text)
        turns = [{"role": "user", "content": text}]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def train(text: str, label: str, folder: str) -> tuple[float, float]:
        reward = registry.get("reward", "majority" if model == "testbed" else "random")

        def scores(completions: list[str], **_: Any) -> list[float | None]:
            answers = [MATHS.extract(completion) for completion in completions]
            given: list[float | None] = reward(Attempts(Problem("0", text), (), answers, label, MATHS, rng))
            return given

        trainer = GRPOTrainer(
            model=load(model)[0],
            reward_funcs=scores,
            args=GRPOConfig(
                output_dir=folder, max_steps=STEPS, per_device_train_batch_size=ROLLOUTS, num_generations=ROLLOUTS,
                max_completion_length=new_tokens, learning_rate=rate, lr_scheduler_type="constant", beta=0.0,
                temperature=1.0, gradient_checkpointing=False, bf16=False, use_cpu=True, report_to=[],
                logging_strategy="no", save_strategy="no", disable_tqdm=True, seed=seed, dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_dict({"prompt": [asked(text)] * ROLLOUTS}),
            processing_class=tokenizer,
            peft_config=PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=TOKENS),
        )  # fmt: skip
        began, used = time.perf_counter(), processor_seconds()
        trainer.train()
        assert trainer.state.global_step == STEPS
        return time.perf_counter() - began, processor_seconds() - used

    def work() -> tuple[Any, ...]:
        nonlocal done
        chosen = [problems[(done + i) % len(problems)] for i in range(at_once)]
        done += at_once
        with tempfile.TemporaryDirectory() as folder:
            seconds, used = map(sum, zip(*(train(text, label, folder) for text, label in chosen), strict=True))
        return at_once, seconds, {"processor": used}

    return work


def labelled(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of testbed problems, with the testbed model's greedy answers as labels (unanswered ones left out)."""
    from tacit.answers.extraction import extract
    from tacit.engines.base import Request
    from tacit.engines.local import LocalEngine
    from tacit.model.backbone import Backbone

    backbone = Backbone.load("testbed", device="cpu")
    asked = stream(count, seed)
    requests = [Request(backbone.encode(problem.text), temperature=0, max_tokens=NEW_TOKENS) for problem in asked]
    answers = [extract(group[0].text) for group in LocalEngine(backbone).generate(requests)]
    return [(p.text, answer) for p, answer in zip(asked, answers, strict=True) if answer is not None]


def main() -> None:
    """Measure, print a table, write ``learn.json`` and ``learn.png``."""
    parser = contest_parser(__doc__)
    parser.add_argument("--model", help="smollm2, a GGUF file or a folder, instead of the testbed and random weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, help="memories (32; 8 of real weights)")
    arguments = parser.parse_args()
    weights = arguments.model and real(arguments.model)
    if weights:
        problems = [(problem.text, "") for problem in stream(64, arguments.seed, arguments.model)]
    else:
        problems = labelled(64, arguments.seed)
    many = 4 if arguments.quick else arguments.at_once or (8 if weights else 32)
    new_tokens = NEW_TOKENS_REAL if weights else NEW_TOKENS
    cases = []
    for model in [arguments.model] if arguments.model else ["testbed"] if arguments.quick else ["testbed", "random-7m"]:
        one = {"model": model, "problems": problems, "seed": arguments.seed, "at_once": 1}
        cases.append((model, {**one, "at_once": many}, one))
        if not arguments.quick and not weights:
            cases.append((f"{model}, one at a time", one, one))
    versus(
        arguments,
        "learn-real" if weights else "learn",
        cases,
        ours,
        peer,
        rounds=arguments.rounds,
        unit="memories/s",
        title="learning, memories per second against TRL + PEFT",
        work={"soft prompt rows": TOKENS, "steps": STEPS, "rollouts": ROLLOUTS, "new tokens": new_tokens},
    )


if __name__ == "__main__":
    main()
