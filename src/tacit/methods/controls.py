"""Controls that keep the claims honest: a random memory, a vote at equal compute, a verifier without memories.

Builds on agent and routing. ``random_memory`` answers under some memory instead of the nearest: what it gains comes
from having a soft prompt at all, not from remembering. ``more_rollouts`` draws as many zero-shot rollouts as Tacit
spent on the problem in all. ``verified`` lets the verifier choose between two answers without memory: what it gains
comes from the verifier.
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.agent import Agent, Answered
from tacit.memory import State
from tacit.responses import Responses
from tacit.routing import route
from tacit.seeds import generator


def random_memory(
    agent: Agent, answered: Sequence[Answered], *, unlike: bool = False
) -> list[tuple[str, Responses] | None]:
    """(memory id, responses) under a memory drawn from all active ones; None while there is none, and where it leaves
    no room for an answer.

    Args:
        agent: whose memories, in whose namespace.
        answered: the problems.
        unlike: draw from the half that is least similar to the problem, and so hardly ever from the right kind.
    """
    active = [info.id for info in agent.bank.find(agent.namespace, states=[State.ACTIVE])]
    if not active:
        return [None] * len(answered)
    chosen, requests = {}, []
    for place, one in enumerate(answered):
        rng = generator(agent.seed, one.problem.id, "random-memory")
        among = _least_similar(agent, one, len(active)) if unlike else active
        memory = agent.bank.get(among[int(rng.integers(len(among)))], agent.namespace)
        ids = agent.backbone.encode(one.problem.text)
        if agent.responder.room(len(memory.prompt) + len(ids)) >= 0:
            chosen[place] = memory.id
            requests += agent.responder.requests(one.problem, ids, "random", memory.prompt)
    drawn = dict(zip(chosen, agent.responder.generate(requests), strict=True))
    return [(chosen[place], drawn[place]) if place in chosen else None for place in range(len(answered))]


def _least_similar(agent: Agent, one: Answered, count: int) -> list[str]:
    """Ids of the less similar half of ``count`` active memories."""
    hits = agent.bank.search(
        one.key,
        namespace=agent.namespace,
        fingerprint=agent.backbone.fingerprint,
        key_kind=agent.recalling.key,
        k=count,
    )
    return [hit.memory_id for hit in hits[len(hits) // 2 :]]


def more_rollouts(
    agent: Agent, answered: Sequence[Answered], counts: Sequence[int]
) -> list[tuple[list[str | None], int]]:
    """Answers of ``counts`` zero-shot rollouts per problem, the samples already drawn among them, and their tokens."""
    sampling = agent.sampling
    requests, places = [], []
    for place, (one, count) in enumerate(zip(answered, counts, strict=True)):
        more = range(sampling.samples, count)
        if more:
            ids = agent.backbone.encode(one.problem.text)
            requests.append(agent.responder.sampled(one.problem, ids, "zero-shot", more))
            places.append(place)
    drawn = dict(zip(places, agent.engine.generate(requests), strict=True))
    results = []
    for place, one in enumerate(answered):
        extra = drawn.get(place, [])
        answers = [*one.zero_shot.answers, *(agent.task.extract(rollout.text) for rollout in extra)]
        tokens = sum(len(rollout.token_ids) for rollout in (*one.zero_shot.samples, *extra))
        results.append((answers, tokens))
    return results


def verified(agent: Agent, answered: Sequence[Answered]) -> list[tuple[list[str | None], str | None]]:
    """(sampled answers, greedy answer) when the verifier chooses between two zero-shot responses: each sample and the
    next, the greedy one and the first sample."""
    results = []
    for one in answered:
        *samples, greedy = one.zero_shot.candidates()
        first, second = [*samples, greedy], [*samples[1:], samples[0], samples[0]]
        routes = route(one.problem.text, list(zip(first, second, strict=True)), agent.verifier)
        answers = [
            b.answer if decided.takes_memory else a.answer for decided, a, b in zip(routes, first, second, strict=True)
        ]
        results.append((answers[:-1], answers[-1]))
    return results
