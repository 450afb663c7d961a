"""Promotion on the testbed with real candidates: who may vouch for whom, what the decision rests on, what undoes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from banks import make
from conftest import stream
from server import Tight
from tacit.agent import Agent
from tacit.bank import open_bank
from tacit.bank.base import Bank
from tacit.config import LearnConfig
from tacit.engines.base import Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.errors import EngineError, EngineLost
from tacit.judges.reward_models import RewardModel
from tacit.judges.verifiers import VoteShare
from tacit.memory import Memory, State
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.server.keys import ApiKey, KeyStore
from tacit.server.learner.jobs import JobQueue
from tacit.server.learner.process import WorkerSettings
from tacit.server.learner.promotion import UNPROVEN, UNTRUSTED, Promoter, Rule, quarantine_hurtful
from tacit.server.learner.worker import Worker
from tacit.testbed import reward_model_path

LEARN = LearnConfig(distil=0, tokens=8, steps=4, min_votes=1, min_lead=1, admit=0.0)
FAMILY = [problem for problem in stream(200, seed=21, which="A") if problem.family == "add"]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory, testbed: Backbone, engine: LocalEngine) -> Path:
    """A bank with candidates of one kind of problem, from two keys of one namespace in turn."""
    path = tmp_path_factory.mktemp("promotion") / "bank.db"
    bank = open_bank(str(path))
    keys = [KeyStore(bank).create(name, "home", ["learn", "trust"])[0] for name in ("first", "second")]
    worker = worker_for(bank, testbed, engine)
    for number, problem in enumerate(FAMILY[:12]):
        assert JobQueue(bank).submit("home", problem.text, keys[number % 2]).job is not None
    while worker.once():
        pass
    assert {bank.get(info.id, "home").provenance["admitted"] for info in bank.find("home")} == {True}
    bank.snapshot(path.with_name("snapshot.db"))
    bank.close()
    return path.with_name("snapshot.db")


@pytest.fixture
def bank(snapshot: Path, tmp_path: Path) -> Bank:
    (tmp_path / "bank.db").write_bytes(snapshot.read_bytes())
    return open_bank(str(tmp_path / "bank.db"))


def worker_for(bank: Bank, testbed: Backbone, engine: LocalEngine) -> Worker:
    return Worker(bank, testbed, engine, VoteShare(), WorkerSettings(bank=bank.url, learn=replace(LEARN, batch=5)))


def promoter_for(bank: Bank, testbed: Backbone, engine: LocalEngine, rule: Rule | None = None) -> Promoter:
    return Promoter(worker_for(bank, testbed, engine).agent("home"), rule)


def of_key(bank: Bank, key: ApiKey) -> list[str]:
    return [info.id for info in bank.find("home") if bank.get(info.id, "home").provenance["key"] == key.id]


def drop(bank: Bank, ids: list[str]) -> None:
    for id in ids:
        bank.delete(id, "home")


def test_decisions_follow_the_rule_and_say_the_numbers(bank: Bank, testbed: Backbone, engine: LocalEngine) -> None:
    promoter = promoter_for(bank, testbed, engine, Rule(least=2))
    trials = promoter.step(6) + promoter.step(9)
    # Each is tried once, and not again before there are more.
    assert len(trials) == len(bank.find("home")) > 6 and promoter.step(6) == []
    assert {trial.decision for trial in trials} == {"promoted", "tried"}
    for trial in trials:
        memory = bank.get(trial.memory_id, "home")
        mean = sum(trial.benefits) / len(trial.benefits)
        suffered = sum(benefit < -0.25 for benefit in trial.benefits)
        passed = mean >= 0.05 and suffered == 0
        assert (trial.decision == "promoted") == passed == (memory.state is State.ACTIVE)
        assert f"mean benefit {mean:+.2f} on {len(trial.benefits)} other problems" in memory.reason
        assert memory.reason == trial.reason == bank.history(memory.id, "home")[-1].reason
        assert passed or memory.reason.startswith(UNPROVEN)
    # The same bank gives the same trials, whatever is tried together.
    assert (
        trials[0].benefits
        == promoter_for(bank, testbed, engine)._try(
            [(bank.get(trials[0].memory_id, "home"), neighbours_of(bank, trials[0].memory_id, testbed, engine))]
        )[0]
    )


def neighbours_of(bank: Bank, id: str, testbed: Backbone, engine: LocalEngine):  # type: ignore[no-untyped-def]
    from tacit.server.learner.promotion import NEIGHBOURS_IN, Sources

    infos = {info.id: info for info in bank.find("home", states=NEIGHBOURS_IN)}
    promoter = promoter_for(bank, testbed, engine)
    return promoter._neighbours(bank.get(id, "home"), infos, Sources.of(bank, "home"))


def test_only_other_keys_vouch_in_a_shared_namespace(bank: Bank, testbed: Backbone, engine: LocalEngine) -> None:
    first, second = KeyStore(bank).all()
    drop(bank, of_key(bank, second))
    assert promoter_for(bank, testbed, engine).step(9) == []  # each has some of its own kind beside it, all its own
    info = bank.find("home")[0]
    assert info.state is State.CANDIDATE and of_key(bank, first) == [one.id for one in bank.find("home")]
    assert neighbours_of(bank, info.id, testbed, engine) == []


def test_a_key_without_trust_makes_nothing_active_and_vouches_for_nothing(
    bank: Bank, testbed: Backbone, engine: LocalEngine
) -> None:
    store = KeyStore(bank)
    first, second = store.all()
    store.allow(second.id, ["learn"])
    trials = promoter_for(bank, testbed, engine).step(20)
    trusted, flood = of_key(bank, first), of_key(bank, second)
    # The one trusted key vouches for itself, with problems of nobody else.
    assert {trial.memory_id for trial in trials} == set(trusted)
    assert {info.id for id in trusted for info in neighbours_of(bank, id, testbed, engine)} <= set(trusted)
    assert {(bank.info(id, "home").state, bank.info(id, "home").reason) for id in flood} == {
        (State.CANDIDATE, UNTRUSTED)
    }
    assert promoter_for(bank, testbed, engine).step(20) == []
    assert {len(bank.history(id, "home")) for id in flood} == {2}  # told once
    # Trusted after all, they are tried; a trusted key that is revoked counts no more.
    store.allow(second.id, ["learn", "trust"])
    store.revoke(first.id)
    assert {trial.memory_id for trial in promoter_for(bank, testbed, engine).step(20)} == set(flood)


def test_with_a_verifier_no_trust_is_needed(bank: Bank, testbed: Backbone, engine: LocalEngine) -> None:
    for key in KeyStore(bank).all():
        KeyStore(bank).allow(key.id, ["learn"])
    verifier = RewardModel(reward_model_path(), device="cpu")
    assert len(Promoter(Agent(testbed, engine, bank, "home", 0, verifier)).step(20)) == len(bank.find("home"))


def test_a_namespaces_only_key_vouches_for_itself(bank: Bank, testbed: Backbone, engine: LocalEngine) -> None:
    first, second = KeyStore(bank).all()
    drop(bank, of_key(bank, second))
    with bank.connection(write=True) as connection:  # as if the second key had never been issued
        connection.exec_driver_sql("DELETE FROM api_keys WHERE id = ?", (second.id,))
    trials = promoter_for(bank, testbed, engine).step(9)
    assert {trial.memory_id for trial in trials} == set(of_key(bank, first))
    assert all(
        len(trial.benefits) == min(Rule().neighbours, len(trials) - 1) for trial in trials
    )  # never its own problem


def test_with_a_verifier_its_belief_decides(bank: Bank, testbed: Backbone, engine: LocalEngine) -> None:
    second = KeyStore(bank).all()[1]
    drop(bank, of_key(bank, second))
    verifier = RewardModel(reward_model_path(), device="cpu")
    trials = Promoter(Agent(testbed, engine, bank, "home", 0, verifier)).step(9)
    assert len(trials) == len(bank.find("home"))  # its own key's problems will do
    assert all(f"({verifier.name})" in trial.reason for trial in trials)
    shares = {benefit * 8 % 1 for trial in trials for benefit in trial.benefits}
    assert shares != {0.0}  # beliefs, not shares of eight samples


def test_not_admitted_and_decided_by_hand_are_left_alone(bank: Bank, testbed: Backbone, engine: LocalEngine) -> None:
    ids = [info.id for info in bank.find("home")]
    bank.set_state(ids[0], "home", State.CANDIDATE, "mean reward 0.10 over its last 3 steps, 0.50 needed")
    bank.set_state(ids[1], "home", State.QUARANTINED, "by hand")
    promoter = promoter_for(bank, testbed, engine)
    tried = {trial.memory_id for trial in promoter.step(20)}
    assert tried == set(ids[2:])
    assert all(info.id != ids[1] for id in ids[2:] for info in neighbours_of(bank, id, testbed, engine))


def test_trials_are_bounded(bank: Bank, testbed: Backbone, engine: LocalEngine) -> None:
    rule, decisions = Rule(benefit=2.0, tries=2), []
    key = KeyStore(bank).all()[0]
    target = of_key(bank, key)[0]
    for at in (10, 20, 45):  # more memories each time
        decisions += [v.decision for v in promoter_for(bank, testbed, engine, rule).step(99) if v.memory_id == target]
        assert promoter_for(bank, testbed, engine, rule).step(99) == []
        original = bank.get(target, "home")
        for number in range(len(bank.find("home")), at * 2):
            copy = make(
                f"more-{number}", prompt=original.prompt, key=original.key, key_kind=original.key_kind,
                fingerprint=original.fingerprint, state=State.RETIRED, problem_id=f"more-{number}",
            )  # fmt: skip
            bank.add(copy)
    assert decisions == ["tried", "refused"]
    assert bank.get(target, "home").reason.startswith("not promoted after 2 trials")


def test_what_hurts_is_quarantined_and_can_be_given_a_fresh_start(tmp_path: Path) -> None:
    bank = open_bank(str(tmp_path / "bank.db"))
    for name in ("harmful", "mixed", "rarely", "fine"):
        bank.add(make(name, state=State.ACTIVE))
    bank.add(make("candidate", state=State.CANDIDATE))
    bank.count("harmful", "home", uses=6, hurt=4, helped=1)
    bank.count("mixed", "home", uses=20, hurt=8, helped=6)
    bank.count("rarely", "home", uses=100, hurt=5)
    bank.count("candidate", "home", uses=9, hurt=9)
    assert quarantine_hurtful(bank) == ["harmful"] and quarantine_hurtful(bank) == []
    memory = bank.get("harmful", "home")
    assert memory.state is State.QUARANTINED and memory.reason == "quarantined: in 6 uses it hurt 4 and helped 1 times"
    bank.set_state("harmful", "home", State.ACTIVE, "activated by hand")
    assert quarantine_hurtful(bank) == []
    bank.count("harmful", "home", uses=3, hurt=3)
    assert quarantine_hurtful(bank) == ["harmful"]


def test_the_worker_reviews_between_batches(bank: Bank, testbed: Backbone, engine: LocalEngine) -> None:
    worker = worker_for(bank, testbed, engine)
    steps = 0
    while worker.review():
        steps += 1
    assert steps == -(-len(bank.find("home")) // 5)  # as many at a time as are learned together
    states = {info.state for info in bank.find("home")}
    assert State.ACTIVE in states and all(bank.marked("home", f"promotion:{info.id}") for info in bank.find("home"))
    # What became active is recalled, and a later problem of the kind gets it.
    [answered] = worker.agent("home").answer([Problem("new", FAMILY[12].text)])
    assert answered.hit is not None


def fitting_context(bank: Bank, testbed: Backbone, engine: LocalEngine) -> int:
    """A context in which a soft prompt and an answer just fit beside the problems, which are all of one length."""
    [length] = {len(testbed.encode(info.problem)) for info in bank.find("home")}
    return length + LEARN.tokens + worker_for(bank, testbed, engine).agent("home").sampling.max_tokens


def test_problems_that_the_engine_has_no_room_for_try_nobody(
    bank: Bank, testbed: Backbone, engine: LocalEngine
) -> None:
    """The engine may have less room than the model: a vLLM server with a small --max-model-len."""
    context = fitting_context(bank, testbed, engine)
    expected = promoter_for(bank, testbed, engine).step(20)
    for trial in expected:  # once more from the beginning, now with a longer problem right beside each
        original = bank.get(trial.memory_id, "home")
        longer = replace(original, id=f"{original.id}-longer", problem_id=f"{original.id}-longer", state=State.RETIRED)
        bank.add(replace(longer, problem=f"{original.problem} + 1"))
        bank.mark("home", f"promotion:{original.id}", "{}")
        bank.set_state(original.id, "home", State.CANDIDATE, UNPROVEN)
    assert promoter_for(bank, testbed, Tight(testbed, context)).step(20) == expected
    near = [info.id for info in neighbours_of(bank, expected[0].memory_id, testbed, engine)]
    assert any(id.endswith("-longer") for id in near)  # which an engine with the model's room does take


def test_a_candidate_beside_which_too_little_fits_waits_and_says_so(
    bank: Bank, testbed: Backbone, engine: LocalEngine
) -> None:
    context = fitting_context(bank, testbed, engine) - 1
    worker = worker_for(bank, testbed, Tight(testbed, context))
    while worker.review():
        pass
    said = {info.id: info.reason for info in bank.find("home")}
    assert set(said.values()) == {
        f"{UNPROVEN}; too few similar problems leave room for it and an answer in a context of {context}, so it waits"
    }
    assert {len(bank.history(id, "home")) for id in said} == {2}  # told once
    # With more room they are tried like any other.
    assert len(promoter_for(bank, testbed, engine).step(20)) == len(said)


class Picky(LocalEngine):
    """An engine that refuses one soft prompt."""

    refused: Memory
    error: EngineError

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """See ``Engine.generate``."""
        for request in requests:
            if request.soft_prompt is not None and np.array_equal(request.soft_prompt.numpy(), self.refused.prompt):
                raise self.error
        return super().generate(requests)


def test_a_trial_that_cannot_be_run_is_told_and_ends_nothing_else(
    bank: Bank, testbed: Backbone, engine: LocalEngine
) -> None:
    expected = {trial.memory_id: trial.benefits for trial in promoter_for(bank, testbed, engine).step(20)}
    for id in expected:  # once more from the beginning
        bank.mark("home", f"promotion:{id}", "{}")
        bank.set_state(id, "home", State.CANDIDATE, UNPROVEN)
    picky, culprit = Picky(testbed), next(iter(expected))
    picky.refused, picky.error = bank.get(culprit, "home"), EngineLost("no server answers")
    promoter = promoter_for(bank, testbed, picky, Rule(tries=2))
    with pytest.raises(EngineLost):
        promoter.step(20)
    picky.error = EngineError("the request is odd: \0")
    trials = {trial.memory_id: trial for trial in promoter.step(20)}
    assert {id: trial.benefits for id, trial in trials.items()} == expected | {culprit: ()}
    assert trials[culprit].decision == "tried"
    assert bank.get(culprit, "home").reason == f"{UNPROVEN}; trial 1: it could not be tried: the request is odd:  "
    assert promoter.step(20) == []  # not at once again
    for number in range(12):
        bank.add(replace(picky.refused, id=f"more-{number}", problem_id=f"more-{number}", state=State.RETIRED))
    [last] = [trial for trial in promoter.step(20) if trial.memory_id == culprit]
    assert (last.decision, bank.get(culprit, "home").state) == ("refused", State.CANDIDATE)
    assert last.reason == "not promoted after 2 trials: it could not be tried: the request is odd:  "


def test_what_is_deleted_during_a_review_ends_nothing(
    bank: Bank, testbed: Backbone, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone deletes a memory between the moment that it is found and the moment that it is read or moved."""
    gone, hurtful, *left = [info.id for info in bank.find("home")]
    get, marked = bank.get, bank.marked

    def get_late(id: str, namespace: str) -> Memory:
        if id == gone and bank.counts(namespace)[State.CANDIDATE] > len(left):
            bank.delete(gone, namespace)
        return get(id, namespace)

    def marked_late(namespace: str, name: str) -> str | None:
        if name == f"quarantine:{hurtful}":
            bank.delete(hurtful, namespace)
        return marked(namespace, name)

    monkeypatch.setattr(bank, "marked", marked_late)
    bank.set_state(hurtful, "home", State.ACTIVE, "by hand")
    bank.count(hurtful, "home", uses=9, hurt=9)
    assert quarantine_hurtful(bank) == []
    monkeypatch.setattr(bank, "get", get_late)
    assert {trial.memory_id for trial in promoter_for(bank, testbed, engine).step(20)} == set(left)
    assert {info.id for info in bank.find("home")} == set(left)
