"""A problem is answered, learned from without labels, and helps with the next one: python examples/quickstart.py

Makes bank.sqlite in the current folder; run again, the program begins with what it remembers.
"""

from tacit import Agent, Backbone, Problem, open_bank
from tacit.engines.local import LocalEngine

model = Backbone.load("testbed")  # comes with Tacit; or a Hub id, a folder, a GGUF file
with open_bank("bank.sqlite") as bank:
    agent = Agent(model, LocalEngine(model), bank)

    # Eight samples and a greedy answer; what most samples agree on is what is learned from.
    first = agent.answer([Problem("first", "compute 99 * 4")])
    print("first, without a memory:", first[0].zero_shot.vote.why)

    # A soft prompt of 20 vectors is trained for this one problem and stored. The model stays as it is.
    learned = agent.learn(first)
    agent.remember(first, learned)
    memory = learned[0].memory
    print(f"remembered: {memory.id}, {memory.reason}" if memory else f"not learned: {learned[0].learned.reason}")

    # Another problem of that kind finds the memory, and is answered with it and without it.
    [again] = agent.answer([Problem("again", "compute 86 * 3")])
    print("again, without a memory:", again.zero_shot.vote.why)
    if again.hit and again.memory:
        print(f"again, with the memory of {again.hit.problem_id}:", again.memory.vote.why)
    print("answered:", again.greedy_answer, "because", again.greedy_route.why)
