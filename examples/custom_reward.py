"""A reward of your own, which is a plug-in and a program: python examples/custom_reward.py

As a plug-in of any command: tacit run --plugin examples/custom_reward.py --reward brief --out runs/brief
"""

from tacit import register
from tacit.config import LearnConfig, RunConfig
from tacit.rewards import Attempts


@register("reward", "brief")
def brief(attempts: Attempts) -> list[float]:
    """1 for a rollout that gives the label in few words, three quarters in many; nothing else earns anything."""
    right = attempts.task.giving(attempts.answers, attempts.label)
    words = [len(rollout.text.split()) for rollout in attempts.rollouts]
    return [float(good) * (1.0 if count <= 12 else 0.75) for good, count in zip(right, words, strict=True)]


def main() -> None:
    """Learn from twelve problems with this reward, and show what each step of a memory earned."""
    from tacit.bank import open_bank
    from tacit.experiments.run import run

    config = RunConfig(limit=12, window=4, baselines=(), learn=LearnConfig(reward="brief"), out="runs/brief")
    summary = run(config)
    print(f"{summary['memories']} memories from {summary['problems']} problems: {summary['memories_by_state']}")
    with open_bank("runs/brief/bank.sqlite", create=False) as bank:
        for info in bank.find("default"):
            steps = bank.get(info.id, "default").provenance["steps"]
            print(f"{info.problem[:40]:40}  reward " + " ".join(f"{step['reward']:.2f}" for step in steps))


if __name__ == "__main__":
    main()
