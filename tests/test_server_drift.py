"""Drift in a server: real jobs of real keys on the testbed, judged by its reward model.

Builds on the stream of benchmarks/drift.py: a kind whose right answer changes, which recall does not see.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banks import make
from commands import ran
from server import serving
from tacit.agent import Agent
from tacit.bank import open_bank
from tacit.bank.base import Hit
from tacit.bank.harm import DRIFTED
from tacit.bank.tending.plan import Rule
from tacit.bank.tending.work import tend, undo
from tacit.config import LearnConfig, RecallConfig
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError
from tacit.judges.reward_models import RewardModel
from tacit.judges.verifiers import Verifier, VoteShare
from tacit.memory import Memory, State
from tacit.methods.drift import Drift
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.server.keys import ApiKey, KeyStore
from tacit.server.learner.jobs import JobQueue
from tacit.server.learner.process import WorkerSettings
from tacit.server.learner.worker import Worker
from tacit.testbed import reward_model_path
from tacit.testbed.families import item
from test_drift import stream
from test_server_worker import until

__all__ = ["stream"]  # a fixture

QUICK = LearnConfig(steps=1, distil=0, admit=0.0, batch=1, enough=2.0)


def problems(name: str, start: int, count: int = 10) -> list[Problem]:
    return [Problem(made.id, made.text) for made in (item(name, 100, start + number) for number in range(count))]


@pytest.fixture(scope="module")
def learned(
    stream: ModuleType, testbed: Backbone, engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory
) -> Memory:
    """A memory of a sum, as a run learns it."""
    assert stream.TURNS
    with open_bank(str(tmp_path_factory.mktemp("drift") / "bank.db")) as bank:
        agent = Agent(testbed, engine, bank, seed=100, verifier=judge(), recalling=RecallConfig(key="opening"))
        [one] = agent.learn(agent.answer(problems("total", 0, 1)))
        assert one.memory is not None and one.memory.state is State.ACTIVE
        return one.memory


def judge() -> Verifier:
    return RewardModel(reward_model_path(), device="cpu")


class Home:
    """A namespace in which keys of different rights have problems learned."""

    def __init__(self, folder: Path, testbed: Backbone, engine: LocalEngine, verifier: Verifier | None = None) -> None:
        self.bank = open_bank(str(folder / "bank.db"))
        config = WorkerSettings(bank=self.bank.url, learn=QUICK, recall=RecallConfig(key="opening"), seed=100)
        self.worker = Worker(self.bank, testbed, engine, verifier or judge(), config)

    def key(self, *rights: str) -> ApiKey:
        return KeyStore(self.bank).create("test", "home", ["learn", *rights], 10_000)[0]

    def holds(self, memory: Memory, key: ApiKey) -> None:
        """The memory is there, active, and came from a job of the key."""
        queue = JobQueue(self.bank)
        submitted = queue.submit("home", memory.problem, key)
        [job] = queue.claim("test", 60, 1)
        assert submitted.job is not None and submitted.job.id == job.id
        self.bank.add(replace(memory, namespace="home"))
        assert queue.finish(job, "test", memory.id, "learned")

    def ask(self, key: ApiKey, asked: list[Problem]) -> None:
        for one in asked:
            assert JobQueue(self.bank).submit("home", one.text, key).why == "queued"
            assert self.worker.once()
        assert not JobQueue(self.bank).list("home", ["failed"])

    def state(self, memory: Memory) -> str:
        return str(self.bank.info(memory.id, "home").state)


@pytest.fixture
def home(learned: Memory, tmp_path: Path, testbed: Backbone, engine: LocalEngine) -> Home:
    return Home(tmp_path, testbed, engine)


def test_within_ten_problems_it_goes_and_returns_and_no_stranger_can_do_either(home: Home, learned: Memory) -> None:
    owner, stranger = home.key("trust"), home.key()
    home.holds(learned, owner)
    home.ask(owner, problems("total", 1, 9))
    mark = home.bank.marked("home", f"drift:{learned.id}")
    home.ask(stranger, problems("most", 100, 20))
    assert home.state(learned) == "active" and home.bank.marked("home", f"drift:{learned.id}") == mark
    home.ask(owner, problems("most", 10))
    assert home.state(learned) == "quarantined"
    home.ask(stranger, problems("total", 100, 20))
    assert home.state(learned) == "quarantined"
    assert home.worker.bank.info(learned.id, "home").reason.startswith(f"{DRIFTED}{learned.id}: ")
    home.ask(owner, problems("total", 20))
    assert home.state(learned) == "active"
    steps = home.bank.history(learned.id, "home")
    assert [step.reason.split(":")[0] for step in steps[1:]] == [f"{DRIFTED}{learned.id}", "returned"]


def test_a_key_without_trust_moves_its_own_memories_alone(home: Home, learned: Memory) -> None:
    """Which lie beside others' of the same kind, so that all of them would go together."""
    home.key("trust")
    stranger = home.key()
    home.holds(learned, stranger)
    others = replace(learned, id="others", problem_id="others", namespace="home")
    home.ask(stranger, problems("total", 1, 4))  # recalled while it is alone
    home.bank.add(others)
    home.ask(stranger, problems("most", 100))
    assert home.state(learned) == "quarantined" and home.state(others) == "active"
    assert home.bank.marked("home", "drift:others") is None


def test_votes_see_no_drift(learned: Memory, tmp_path: Path, testbed: Backbone, engine: LocalEngine) -> None:
    home = Home(tmp_path, testbed, engine, VoteShare())
    key = home.key("trust")
    home.holds(learned, key)
    home.ask(key, [*problems("total", 1, 2), *problems("most", 10, 4)])
    assert home.state(learned) == "active" and home.bank.marked("home", f"drift:{learned.id}") is None


def test_a_fault_in_watching_costs_no_job(home: Home, learned: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    key = home.key()
    home.holds(learned, key)

    def broken(*_: object) -> None:
        raise ValueError("odd")

    with monkeypatch.context() as broke:
        broke.setattr(Drift, "told", broken)
        home.ask(key, problems("total", 1, 2))
    assert home.bank.marked("home", f"drift:{learned.id}") is None
    home.worker._resting.clear()
    home.ask(key, problems("total", 3, 1))
    assert home.bank.marked("home", f"drift:{learned.id}") is not None


def test_what_drifted_is_not_tended_and_is_brought_back_by_one_command(
    home: Home, learned: Memory, tmp_path: Path
) -> None:
    key, bank = home.key(), home.bank
    home.holds(learned, key)
    kin = replace(learned, id="kin", problem_id="kin", namespace="home", provenance={})
    bank.add(kin)
    home.ask(key, [*problems("total", 1, 4), *problems("most", 10, 6)])
    assert [home.state(one) for one in (learned, kin)] == ["quarantined"] * 2
    before = [one for one in bank.find("home") if one.state is State.QUARANTINED]
    tend(bank, "home", Rule(keep=1, idle=1))
    assert [one for one in bank.find("home") if one.state is State.QUARANTINED] == before
    with pytest.raises(ConfigError, match="nothing that tending 'other' took"):
        undo(bank, "home", "other")
    for memory in (learned, kin):  # the one fell, the other went along
        group = bank.info(memory.id, "home").reason.removeprefix(DRIFTED).split(":")[0]
        done = ran("bank", "tend", tmp_path / "bank.db", "--namespace", "home", "--undo", group)
        assert done.returncode == 0 and f"1 memory of tending {group}" in done.stdout and group == memory.id
        back = bank.get(memory.id, "home")
        assert (back.state, back.reason, back.sha256) == (State.ACTIVE, memory.reason, memory.sha256)
        assert bank.history(memory.id, "home")[-1].reason.startswith(f"tending {group} undone; ")
    home.ask(key, problems("most", 20, 6))  # what speaks against them now is new, and enough
    assert home.state(learned) == "quarantined"
    bank.check()


MINE, OTHERS = ("a", "b", "c"), ("x", "y", "z")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(MINE + OTHERS), st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0])), max_size=40))
def test_nothing_that_a_key_says_of_its_own_shows_at_others(
    testbed: Backbone, engine: LocalEngine, told: list[tuple[str, float]]
) -> None:
    """However near they lie: state, reason and sums of everybody's memories are as if the key had said nothing."""

    def shown(said: list[tuple[str, float]]) -> list[tuple[str, str, str | None]]:
        with TemporaryDirectory() as folder, open_bank(f"{folder}/bank.db") as bank:
            agent = Agent(testbed, engine, bank, "home", recalling=RecallConfig(key="last"))
            for number, id in enumerate(MINE + OTHERS):
                key = np.eye(8)[0] + 0.02 * np.eye(8)[number + 1]
                key = (key / np.linalg.norm(key)).astype(np.float32)
                prompt = np.zeros((2, testbed.hidden_size), np.float32)
                bank.add(make(id, key=key, key_kind="last", fingerprint=testbed.fingerprint, prompt=prompt))
            drift = Drift(agent, lambda id: "" if id in MINE else "key")
            for id, gain in said:
                drift.note([(Hit(id, f"p-{id}", 0.999), gain)])
            infos = [bank.info(id, "home") for id in MINE]
            return [(str(one.state), one.reason, bank.marked("home", f"drift:{one.id}")) for one in infos]

    assert shown(told) == shown([one for one in told if one[0] in MINE])


def test_served_it_goes_where_everybody_can_see_it(learned: Memory, stream: ModuleType, tmp_path: Path) -> None:
    """A server and its learner, as processes; what is asked is learned from by default."""
    with open_bank(str(tmp_path / "bank.db")) as bank:
        bank.add(learned)
        options = ["--plugin", str(stream.__file__), "--key", "opening", "--seed", "100", "--verifier", "reward-model"]
        quick = ["--steps", "1", "--distil", "0", "--batch", "1"]
        with serving(tmp_path / "bank.db", *options, *quick, "--device", "cpu") as served:
            client, queue = served.client(), JobQueue(bank)
            for asked in (problems("total", 1, 5), problems("most", 10)):
                for one in asked:
                    client.chat.completions.create(
                        model="testbed:tacit", messages=[{"role": "user", "content": one.text}]
                    )
                until(lambda: not (queue.counts("default")["queued"] or queue.counts("default")["learning"]))
            assert queue.counts("default") == {"queued": 0, "learning": 0, "done": 15, "failed": 0}
            told = served.get(f"/tacit/v1/memories/{learned.id}").json()
            assert (told["state"], told["reason"].split(":")[0]) == ("quarantined", f"{DRIFTED}{learned.id}")
            page = served.get("/tacit/v1/memories?state=quarantined").json()
            assert learned.id in [one["id"] for one in page["memories"]]
            restored = httpx.post(f"{served.url}/tacit/v1/memories/{learned.id}/restore", timeout=30)
            assert restored.status_code == 200 and bank.info(learned.id, "default").state is State.ACTIVE
