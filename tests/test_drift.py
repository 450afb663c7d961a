"""Drift: a memory that stops working goes out of use with its kin, and comes back when it works again.

Builds on banks, and on the stream of benchmarks/drift.py: real memories of the testbed, judged by its reward model.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from banks import make
from tacit.agent import Agent
from tacit.bank import Bank, open_bank
from tacit.bank.base import Hit
from tacit.bank.harm import DRIFTED
from tacit.config import LearnConfig, RecallConfig, RunConfig
from tacit.engines.local import LocalEngine
from tacit.experiments.run import run
from tacit.judges.reward_models import RewardModel
from tacit.judges.verifiers import VoteShare
from tacit.memory import State
from tacit.methods.drift import LOOKED, Drift
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.testbed import reward_model_path
from tacit.testbed.families import item

KIN = ("a", "b", "c")


@pytest.fixture
def watched(testbed: Backbone, engine: LocalEngine, tmp_path: Path) -> Iterator[Drift]:
    """Three memories of a kind, all of which win where they are recalled, and one of another."""
    with open_bank(str(tmp_path / "bank.db")) as bank:
        verifier = RewardModel(reward_model_path(), device="cpu")
        drift = Drift(Agent(testbed, engine, bank, verifier=verifier, recalling=RecallConfig(key="last")))
        for number, name in enumerate((*KIN, "far")):
            add(bank, testbed, name, number)
        for _ in range(6):
            drift.note([(hit(name), 0.75) for name in (*KIN, "far")])
        yield drift


def add(bank: Bank, testbed: Backbone, name: str, number: int, **changes: object) -> None:
    key = np.eye(8)[7 if name == "far" else 0] + 0.02 * np.eye(8)[number % 6 + 1]
    bank.add(
        make(
            name,
            namespace="default",
            key=(key / np.linalg.norm(key)).astype(np.float32),
            key_kind="last",
            fingerprint=testbed.fingerprint,
            prompt=np.zeros((2, testbed.hidden_size), np.float32),
            **changes,
        )
    )


def hit(name: str, similarity: float = 0.999) -> Hit:
    return Hit(name, f"p-{name}", similarity)


def states(drift: Drift) -> dict[str, str]:
    return {one.id: str(one.state) for one in drift.agent.bank.find("default")}


def test_what_falls_behind_goes_with_those_of_its_kind_that_were_there(watched: Drift, testbed: Backbone) -> None:
    bank = watched.agent.bank
    watched.note([(hit("a"), -0.25)])
    add(bank, testbed, "later", 4)
    assert set(states(watched).values()) == {"active"}
    watched.note([(hit("later"), 0.75), (hit("b"), -0.25)])  # a's and b's count together
    assert states(watched) == dict.fromkeys(KIN, "quarantined") | {"far": "active", "later": "active"}
    said = [one.reason.split(":")[0] for one in bank.find("default", states=[State.QUARANTINED])]
    assert said[:2] == [f"{DRIFTED}{said[0][-1]}"] * 2 and said[2] == f"{DRIFTED}c"  # c went along


def test_what_gains_less_but_wins_stays(watched: Drift) -> None:
    for _ in range(50):
        watched.note([(hit("a"), 0.125)])
    for gain in (0.5, -0.25, 0.625, 0.0) * 20:
        watched.note([(hit("b"), gain)])
    assert set(states(watched).values()) == {"active"}


def test_a_group_returns_when_one_of_it_wins_and_nothing_else_does(watched: Drift) -> None:
    bank = watched.agent.bank
    watched.note([(hit("a"), -0.5), (hit("b"), -0.5)])
    bank.set_state("far", "default", State.QUARANTINED, "by hand")
    for gain in (0.25, -0.25, 0.25, 0.0, 0.25):  # no more than half of what was usual
        watched.note([(hit("b"), gain), (hit("far"), 1.0)])
    assert set(states(watched).values()) == {"quarantined"}
    watched.note([(hit("b"), 0.75), (hit("gone"), 1.0)] * 3)
    assert states(watched) == {"a": "active", "b": "active", "c": "quarantined", "far": "quarantined"}
    watched.note([(hit("c"), 0.75)] * 3)  # which went along, and may be of another mind
    assert states(watched) == dict.fromkeys(KIN, "active") | {"far": "quarantined"}
    assert bank.info("a", "default").reason.startswith("returned: ")
    watched.note([(hit("a"), -0.5)] * 3)
    assert states(watched)["a"] == "quarantined"
    bank.delete("a", "default")
    assert bank.marked("default", "drift:a") is None


def test_what_came_back_does_not_go_with_what_was_there_meanwhile(watched: Drift, testbed: Backbone) -> None:
    """Each works when the other does not; what came later is of the kind of those that came back."""
    bank = watched.agent.bank
    watched.note([(hit("a"), -0.5), (hit("b"), -0.5)])
    add(bank, testbed, "meanwhile", 4)
    watched.note([(hit("meanwhile"), 0.75)] * 3)
    watched.note([(hit("a"), 0.75), (hit("c"), 0.75)] * 3)
    watched.note([(hit("meanwhile"), -0.5)] * 2)
    assert states(watched) == dict.fromkeys((*KIN, "far"), "active") | {"meanwhile": "quarantined"}
    add(bank, testbed, "later", 5)
    watched.note([(hit("b"), -0.5)] * 2)
    assert states(watched) == dict.fromkeys((*KIN, "meanwhile", "later"), "quarantined") | {"far": "active"}


def test_only_drifted_ones_of_the_kind_are_tried(watched: Drift) -> None:
    bank = watched.agent.bank
    key = bank.get("a", "default").key
    [one] = watched.agent.answer([Problem("p", "what is 3 * 4 ?")], use_memory=False)
    near = replace(one, key=key)
    assert list(watched._tries(near, "")) == [] and watched.told([near]) == [[]]
    watched.note([(hit("a"), -0.5), (hit("b"), -0.5)])
    bank.set_state("far", "default", State.QUARANTINED, "by hand")
    [(tried, memory), (along, _)] = watched._tries(near, "")  # the nearest of each group
    assert tried.memory_id == memory.id == "a" and along.memory_id == "c"
    [none, told] = watched.told([replace(one, key=bank.get("far", "default").key), near])
    assert none == [] and [said.memory_id for said, _ in told] == ["a", "c"] and len(states(watched)) < LOOKED
    votes = Drift(replace(watched.agent, verifier=VoteShare()))
    assert votes.told([near]) == [[]]  # which see no harm


@pytest.fixture(scope="module")
def stream() -> ModuleType:
    """benchmarks/drift.py, which registers the stream and its key."""
    file = Path(__file__).parent.parent / "benchmarks/drift.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_drift", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problems(name: str, start: int) -> list[Problem]:
    return [Problem(made.id, made.text) for made in (item(name, 100, start + number) for number in range(10))]


def test_within_ten_problems_a_memory_goes_and_returns(
    stream: ModuleType, testbed: Backbone, engine: LocalEngine, tmp_path: Path
) -> None:
    """A memory of a sum is asked sums, then for the larger number, which recall does not see, then sums again."""
    with open_bank(str(tmp_path / "bank.db")) as bank:
        verifier = RewardModel(reward_model_path(), device="cpu")
        recalling = RecallConfig(key="opening")
        made = Agent(testbed, engine, bank, seed=100, verifier=verifier, recalling=recalling)
        first, *usual = problems("total", 0)
        answered = made.answer([first])
        made.remember(answered, made.learn(answered))
        drift, seen = Drift(made), []
        for part in (usual, problems("most", 10), problems("total", 20)):
            for one in part:
                drift.note(*drift.told(made.answer([one])))
            [info] = bank.find("default")
            seen.append(info.state)
        assert seen == ["active", "quarantined", "active"]
        assert [step.reason.split(":")[0] for step in bank.history(info.id, "default")[1:]] == [
            f"{DRIFTED}{info.id}",
            "returned",
        ]


def test_what_was_summed_up_is_the_same_in_a_run_that_was_interrupted(stream: ModuleType, tmp_path: Path) -> None:
    """The stream is known by the name that its module registers."""
    assert stream.TURNS
    found = []
    for parts in ((8,), (4, 8)):
        out = tmp_path / str(len(parts))
        for limit in parts:
            learn, recall = LearnConfig(steps=2, admit=0.0, tokens=8), RecallConfig(key="opening", floor=-1.0)
            how = {"out": str(out), "limit": limit, "learn": learn, "recall": recall}
            run(RunConfig(data="drifting:6", tend=6, baselines=(), **how))  # type: ignore[arg-type]
        with open_bank(str(out / "bank.sqlite"), create=False) as bank:
            infos = bank.find("default")
            found.append([(one.id, one.state, one.sha256, bank.marked("default", f"drift:{one.id}")) for one in infos])
    assert found[0] == found[1] and any(mark for *_, mark in found[0])
