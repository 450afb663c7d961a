"""Memories per second, against TRL's GRPOTrainer with PEFT's prompt tuning on the same model and work.

    python benchmarks/learn.py --out runs/bench

Both sides train a soft prompt of 20 rows for each problem, in 10 steps of 8 rollouts of at most 64 new tokens, on
float32 weights, with the same reward (1 for the label, which is the model's own greedy answer; on random weights a
coin, so that every step has a gradient). TRL has one prompt per trainer, so it learns one problem after another; ours
learns 32 at once, and also one at a time. TRL's time is that of ``train`` alone, without gradient checkpointing.
Writes ``learn.json`` and ``learn.png``.
"""

from __future__ import annotations

from typing import Any

from common import Round, contest_parser, versus
from models import load, saved, stream

TOKENS, STEPS, ROLLOUTS, NEW_TOKENS, RATE = 20, 10, 8, 64, 0.02


def ours(model: str, problems: list[tuple[str, str]], at_once: int, seed: int) -> Round:
    """A round learns ``at_once`` memories."""
    from tacit.config import LearnConfig, Sampling
    from tacit.engines.local import LocalEngine
    from tacit.learning import Learner, Target
    from tacit.model.backbone import Backbone
    from tacit.problem import Problem
    from tacit.tasks.maths import MATHS

    backbone = Backbone.load("testbed" if model == "testbed" else saved(model), device="cpu")
    config = LearnConfig(
        tokens=TOKENS, steps=STEPS, rollouts=ROLLOUTS, lr=RATE, batch=at_once,
        reward="majority" if model == "testbed" else "random",
    )  # fmt: skip
    learner = Learner(backbone, LocalEngine(backbone), config, Sampling(max_tokens=NEW_TOKENS), seed=seed)
    done = 0

    def work() -> float:
        nonlocal done
        chosen = [problems[(done + i) % len(problems)] for i in range(at_once)]
        done += at_once
        tasks = [
            Target(Problem(id=f"{done}/{i}", text=text), MATHS.vote([label] * 8), label=label)
            for i, (text, label) in enumerate(chosen)
        ]
        learned = learner.learn(tasks)
        assert all(len(one.steps) == STEPS for one in learned)
        return len(learned)

    return work


def peer(model: str, problems: list[tuple[str, str]], at_once: int, seed: int) -> Round:
    """A round learns ``at_once`` memories, one after another."""
    import tempfile
    import time

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
    _, tokenizer = load(model)
    rng = np.random.default_rng(seed)
    done = 0

    def train(text: str, label: str, folder: str) -> float:
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
                max_completion_length=NEW_TOKENS, learning_rate=RATE, lr_scheduler_type="constant", beta=0.0,
                temperature=1.0, gradient_checkpointing=False, bf16=False, use_cpu=True, report_to=[],
                logging_strategy="no", save_strategy="no", disable_tqdm=True, seed=seed, dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_dict({"prompt": [prompt(text)] * ROLLOUTS}),
            processing_class=tokenizer,
            peft_config=PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=TOKENS),
        )  # fmt: skip
        began = time.perf_counter()
        trainer.train()
        assert trainer.state.global_step == STEPS
        return time.perf_counter() - began

    def work() -> tuple[float, float]:
        nonlocal done
        chosen = [problems[(done + i) % len(problems)] for i in range(at_once)]
        done += at_once
        with tempfile.TemporaryDirectory() as folder:
            return at_once, sum(train(text, label, folder) for text, label in chosen)

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
    arguments = contest_parser(__doc__).parse_args()
    problems = labelled(64, arguments.seed)
    many = 4 if arguments.quick else 32
    cases = []
    for model in ("testbed", "random-7m"):
        one = {"model": model, "problems": problems, "seed": arguments.seed, "at_once": 1}
        cases.append((model, {**one, "at_once": many}, one))
        if not arguments.quick:
            cases.append((f"{model}, one at a time", one, one))
    versus(
        arguments,
        "learn",
        cases,
        ours,
        peer,
        rounds=3,
        unit="memories/s",
        title="learning, memories per second against TRL + PEFT",
        work={"soft prompt rows": TOKENS, "steps": STEPS, "rollouts": ROLLOUTS, "new tokens": NEW_TOKENS},
    )


if __name__ == "__main__":
    main()
