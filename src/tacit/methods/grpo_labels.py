"""Offline GRPO with gold labels: what training on a labelled set of problems of the same kind gives.

Builds on training. The training problems are not those of the stream; an oracle marks the rollouts, so these methods
say ``uses_labels``. The paper's offline comparison, and an upper bound for learning without labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tacit.errors import ConfigError
from tacit.methods.planning import Plan, Setting, answering, training
from tacit.methods.training import Trained, Trainer, by_oracle, variant


class GRPO(Trained):
    """Trains on labelled problems, then answers the stream.

    Options:
        lr, epochs, batch: of the training; ``batch`` problems a step.
        rank: of LoRA.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-4, "epochs": 12, "batch": 12}
    uses_labels: ClassVar[bool] = True

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        options = setting.options
        work = training(setting, "prepare", setting.training, options["epochs"], options["batch"])
        cannot = "" if setting.training else "it trains on labelled problems, and no source of them is named"
        return Plan((work, answering(setting)), cls.kind, options.get("rank", 0), cannot=cannot)

    def prepare(self) -> None:
        world, options = self.world, self.options
        if not world.training or world.oracle is None:
            raise ConfigError(
                f"{self.name} trains on labelled problems that are not in the stream, and this source has none; "
                "leave the method out, or use testbed:A or testbed:B"
            )
        trainer = Trainer(self.policy, world, options["lr"], self.name)
        for _ in trainer.epochs(world.training, by_oracle(world), options["epochs"], options["batch"]):
            pass
        self.gradient_steps = trainer.steps


variant(GRPO, "grpo-full", "Of all weights, as in the paper.")
variant(GRPO, "grpo-lora", "Of LoRA adapters.", "lora", lr=1e-3, rank=8)
variant(GRPO, "grpo-soft", "Of one soft prompt for all problems.", "soft", lr=3e-2)
