"""Drift: memories that stop working go out of use, and come back when they work again. In runs that tend, and serving.

Builds on the agent and tending. Counts of uses since a memory was stored are slow to turn. So what single problems say
is summed up only while it speaks against how things are (Page's test). A problem's word is the share of samples that
routing gave to the memory, less that of the frozen model. It takes a calibrated verifier, and no labels.

Memories of a kind go once they are ``LEAD`` in all behind half of their usual gain, having won nothing.
Those go that were there when the first of them began to fall. They are a group of those that fell, and one of those
that go along. Groups are tried beside the answers to problems of their kind, for nobody to see, the nearest member
each. One that comes ``LEAD`` above half of what was usual is in use again. Of a memory's kind is what lies within
``WIDE`` times its reach, the distance at which it usually wins. (That of near-duplicates says little of a bank most of
whose memories are of one kind.) What came back while another was there, and not with it, is no kin of that one.

Where not everybody may decide over everything, memories have owners. Who speaks for everybody (``""``) is heard of any
memory, another of its own alone; and memories of different owners are no kin, so that what one makes of its own moves
nobody else's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import func, select

from tacit.agent import Agent, Answered
from tacit.bank import schema
from tacit.bank.base import Hit, MemoryInfo
from tacit.bank.damage import undamaged
from tacit.bank.harm import DRIFTED
from tacit.errors import MemoryNotFound
from tacit.memory import Memory, State

LEAD, SLACK, RATE = 0.75, 0.1, 0.1
"""Shares of a problem's samples: behind or won until memories go or return, and left to chance on each problem; weight
of the latest problem in what is usual."""

WIDE, TRIES, LOOKED = 2, 2, 64
"""Reaches that a kind is wide; groups tried on a problem; nearest memories in which kin and groups are looked for."""


@dataclass(frozen=True)
class Drift:
    """Watches the memories of one agent; ``owner`` says whose a memory is, by its id."""

    agent: Agent
    owner: Callable[[str], str] = lambda id: ""

    def told(self, answered: Sequence[Answered], speakers: Sequence[str] = ()) -> list[list[tuple[Hit, float]]]:
        """What each problem says of memories: of the one recalled, and of drifted ones that are tried beside; by each
        speaks who is in ``speakers``, by default everybody."""
        agent, speakers = self.agent, speakers or [""] * len(answered)
        found: list[list[tuple[Hit, float]]] = [[] for _ in answered]
        if agent.verifier is None or not agent.verifier.calibrated:
            return found
        tries = [(n, *one) for n, problem in enumerate(answered) for one in self._tries(problem, speakers[n])]
        problems = [answered[n].problem for n, _, _ in tries]
        pairs = [
            agent.responder.requests(problem, agent.backbone.encode(problem.text), "drift", memory.prompt)
            for problem, (_, _, memory) in zip(problems, tries, strict=True)
        ]
        drawn = agent.responder.generate([one for pair in pairs for one in pair], problems)
        said = [*enumerate(answered)]
        for (n, hit, _), responses in zip(tries, drawn, strict=True):
            said.append((n, agent.routed(answered[n].problem, answered[n].key, answered[n].zero_shot, hit, responses)))
        for n, one in said:
            if one.hit is not None and self._hears(speakers[n], one.hit.memory_id):
                found[n].append((one.hit, _gain(one)))
        return found

    def note(self, told: Sequence[tuple[Hit, float]]) -> None:
        """Add up what was said, and move the memories of which it is enough; within a transaction."""
        for hit, gain in told:
            with suppress(MemoryNotFound):  # deleted meanwhile
                info = self.agent.bank.info(hit.memory_id, self.agent.namespace)
                if info.state is State.ACTIVE:
                    self._in_use(info, gain, 1 - hit.similarity)
                elif group := _group(info):
                    self._out_of_use(group, info.id, gain)

    def _in_use(self, info: MemoryInfo, gain: float, distance: float) -> None:
        held = self._held(info.id)
        if not held["behind"]:
            held |= {"problems": 0, "won": 0.0, "last": self._last()}
        held["behind"] = max(0.0, held["behind"] + max(0.0, held["usual"]) / 2 - gain - SLACK)
        held |= {"problems": held["problems"] + 1, "won": held["won"] + gain, "told": held["told"] + 1}
        held["usual"] += max(RATE, 1 / (held["told"] + 1)) * (gain - held["usual"])
        if gain > 0:
            held["reach"] += (RATE if held["reach"] else 1) * (distance - held["reach"])
        self._hold(info.id, held)
        kin = self._kin(info, held) if held["behind"] else {}
        falling = [one for one in kin.values() if one["behind"]]
        won, uses = (sum(one[name] for one in falling) for name in ("won", "problems"))
        if sum(one["behind"] for one in falling) >= LEAD and won <= 0:
            names = {bool(one["behind"]): id for id, one in kin.items()}
            for id, one in kin.items():
                said = f"{DRIFTED}{names[bool(one['behind'])]}: lost {-won:.2f} of a problem's samples in {uses} uses"
                self.agent.bank.set_state(id, info.namespace, State.QUARANTINED, said)
                self._hold(id, {**one, "behind": 0.0, "won": 0.0, "reach": held["reach"]})

    def _out_of_use(self, group: str, id: str, gain: float) -> None:
        held = self._held(group)
        held["won"] = max(0.0, held["won"] + gain - held["usual"] / 2 - SLACK)
        if held["won"] >= LEAD:
            for one in self.agent.bank.find(self.agent.namespace, states=[State.QUARANTINED]):
                if _group(one) == group and self.owner(one.id) == self.owner(id):
                    self._hold(one.id, {**self._held(one.id), "back": self._last()})
                    said = "returned: it wins again where tried"
                    self.agent.bank.set_state(one.id, one.namespace, State.ACTIVE, said)
            held = {**self._held(group), "won": 0.0}
        self._hold(group, held)

    def _held(self, id: str) -> dict[str, Any]:
        new = {"usual": 0.0, "behind": 0.0, "won": 0.0, "problems": 0, "told": 0, "last": 0, "back": 0, "reach": 0.0}
        return {**new, **json.loads(self.agent.bank.marked(self.agent.namespace, f"drift:{id}") or "{}")}

    def _hold(self, id: str, held: dict[str, Any]) -> None:
        self.agent.bank.mark(self.agent.namespace, f"drift:{id}", json.dumps(held))

    def _last(self) -> int:
        with self.agent.bank.connection() as connection:
            return int(connection.execute(select(func.max(schema.memories.c.position))).scalar_one())

    def _near(self, key: np.ndarray, state: State) -> list[Hit]:
        agent = self.agent
        return agent.bank.search(
            key,
            namespace=agent.namespace,
            fingerprint=agent.backbone.fingerprint,
            key_kind=agent.recalling.key,
            k=LOOKED,
            states=[state],
        )

    def _kin(self, info: MemoryInfo, held: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """A memory and those of its kind in use, there when the first began to fall, with their marks."""
        bank = self.agent.bank
        hits = self._near(bank.get(info.id, info.namespace).key, State.ACTIVE)
        ids = [hit.memory_id for hit in hits if 1 - hit.similarity <= WIDE * held["reach"]]
        near = {id: self._held(id) for id in ids if self.owner(id) == self.owner(info.id)} | {info.id: held}
        at, back = {id: bank.info(id, info.namespace).position for id in near}, held["back"]
        kin = [id for id, one in near.items() if one["back"] == back or (one["back"] < info.position and back < at[id])]
        last = min(near[id]["last"] for id in kin if near[id]["behind"])
        return {id: near[id] for id in kin if at[id] <= last}

    def _hears(self, speaker: str, id: str) -> bool:
        return speaker in ("", self.owner(id))

    def _tries(self, one: Answered, speaker: str) -> Iterator[tuple[Hit, Memory]]:
        """Drifted memories of a problem's kind: the nearest of each group."""
        agent = self.agent
        groups: dict[str, Hit] = {}
        for hit in self._near(one.key, State.QUARANTINED):
            group = _group(agent.bank.info(hit.memory_id, agent.namespace))
            near = 1 - hit.similarity <= WIDE * self._held(hit.memory_id)["reach"]
            if group and near and self._hears(speaker, hit.memory_id):
                groups.setdefault(group, hit)
        room = agent.responder.room(len(agent.backbone.encode(one.problem.text)))
        for hit in list(groups.values())[:TRIES]:
            memory = undamaged(agent.bank, hit.memory_id, agent.namespace)
            if memory is not None and agent.backbone.carrier.columns(memory.prompt) <= room:
                yield hit, memory


def _gain(one: Answered) -> float:
    names = [route.name for route in one.routes]
    return (names.count("memory") - names.count("zero_shot")) / len(names)


def _group(info: MemoryInfo) -> str | None:
    """What the group of a drifted memory is named by; None for any other."""
    drifted = info.state is State.QUARANTINED and info.reason.startswith(DRIFTED)
    return info.reason.removeprefix(DRIFTED).split(":")[0] if drifted else None
