"""What one machine learned helps another: python examples/shared_bank.py [postgresql+psycopg://USER@HOST/DATABASE]

With an address both machines open that bank. Without one each has a file of its own, and the memory travels as a file.
"""

import sys
from pathlib import Path

from tacit import Agent, Backbone, Problem, open_bank
from tacit.bank.portable import from_safetensors, to_safetensors
from tacit.engines.local import LocalEngine

PARCEL = Path("memory.safetensors")


def first_machine(address: str) -> None:
    """Learn from a problem; what is in the bank is there for everybody who opens it."""
    model = Backbone.load("testbed")
    with open_bank(address) as bank:
        agent = Agent(model, LocalEngine(model), bank)
        answered = agent.answer([Problem("first", "compute 99 * 4")])
        agent.remember(answered, agent.learn(answered))
        [info, *_] = bank.find(agent.namespace)
        PARCEL.write_bytes(to_safetensors(bank.get(info.id, agent.namespace)))
        print("first machine: learned", info.id)


def second_machine(address: str) -> None:
    """Recall it. A model with other weights would be refused: a memory belongs to the fingerprint of its model."""
    model = Backbone.load("testbed")
    with open_bank(address) as bank:
        if not bank.find("default"):
            # trusted, since it is ours: a file of somebody else's becomes a candidate, which answers nobody yet.
            bank.add(from_safetensors(PARCEL.read_bytes(), trusted=True))
        [answered] = Agent(model, LocalEngine(model), bank).answer([Problem("second", "compute 86 * 3")])
        print("second machine, alone:", answered.zero_shot.vote.why)
        if answered.hit and answered.memory:
            print(f"second machine, with {answered.hit.memory_id}:", answered.memory.vote.why)


if __name__ == "__main__":
    shared = sys.argv[1:2]
    first_machine(*shared or ["first.sqlite"])
    second_machine(*shared or ["second.sqlite"])
